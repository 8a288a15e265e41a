"""Progress of long work: an object that is handed down and told what happens; by default it says nothing.

`RichProgress` draws it for people: clips, images a second, failures and the time left. Nothing else prints.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

__all__ = ["Progress", "RichProgress"]


class Progress:
    """Told by the stages; does nothing."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """A stage begins with `total` pieces of work, of which `done` were made before."""

    def advance(self, pieces: int = 1, images: int = 0) -> None:
        """Pieces of the current stage are done."""

    def trouble(self, text: str, *, failed: bool) -> None:
        """Something was refused, or failed after all attempts."""

    def note(self, text: str) -> None:
        """One line worth reading."""


class RichProgress(Progress):
    """A live line for each stage on a terminal; plain lines elsewhere.

    Args:
        console: a rich console, or None for stderr.
    """

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = console or Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[trouble]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task: Any = None
        self._name, self._images, self._failed, self._rejected = "", 0, 0, 0

    def __enter__(self) -> RichProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        with contextlib.suppress(Exception):  # the terminal may be gone; the work is not
            self._bars.stop()

    def stage(self, name: str, total: int, done: int = 0) -> None:
        self._finish()
        self._name, self._total, self._done, self._images = name, total, done, 0
        self._failed = self._rejected = 0
        self._began = self._said = time.monotonic()
        self._task = self._bars.add_task(name, total=total, completed=done, rate="", trouble="")

    def advance(self, pieces: int = 1, images: int = 0) -> None:
        self._done += pieces
        self._images += images
        self._bars.update(self._task, advance=pieces, rate=self._rate())
        if not self._console.is_terminal and time.monotonic() - self._said > 30:
            self._said = time.monotonic()
            self._console.print(f"{self._name}: {self._done} of {self._total} {self._rate()}")

    def trouble(self, text: str, *, failed: bool) -> None:
        self._failed += failed
        self._rejected += not failed
        if failed:
            self._console.print(f"failed: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
        parts = [f"{count} {word}" for count, word in ((self._rejected, "rejected"), (self._failed, "failed")) if count]
        self._bars.update(self._task, trouble=", ".join(parts))

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _rate(self) -> str:
        spent = time.monotonic() - self._began
        return f"{self._images / spent:.1f} images/s" if self._images and spent > 0 else ""

    def _finish(self) -> None:
        if self._task is None or self._console.is_terminal:
            return
        spent = time.monotonic() - self._began
        self._console.print(f"{self._name}: {self._done} of {self._total} in {spent:.1f} s {self._rate()}")
        self._task = None
