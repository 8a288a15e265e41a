"""The commands `mvv weights`: what each metric needs, what is there, fetching, adding, checking."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from tyro.conf import Positional

from eval.weights import WEIGHTS, Status, Store, weight
from manifests.errors import InputError
from mvv.pages.wording import size_text

__all__ = ["weights_add", "weights_fetch", "weights_list", "weights_verify"]


def weights_list() -> int:
    """List the weights of all metrics: which need them, licence, SHA-256, where they come from, what is here."""
    store, console = Store(), Console(soft_wrap=True, highlight=False)
    for status in store.list():
        entry, record = status.weight, status.record
        size = record.bytes if record else entry.bytes
        licence = entry.licence + (", no commercial use" if entry.noncommercial else "")
        console.print(f"[bold]{entry.name}[/]  {entry.title}")
        facts = {
            "here": _state(status),
            "for": ", ".join(entry.used_by),
            "licence": licence + (f"; {size_text(size)}" if size else ""),
            "SHA-256": record.sha256 if record else entry.expected_hash or "stated by no publisher",
            "from": entry.urls[0] if entry.urls else entry.obtain,
        }
        for label, value in facts.items():
            console.print(f"[dim]{label:>9}[/]  {escape(value)}")
    console.print(
        f"kept in {store.folder} ($MVVIDEO_WEIGHTS names another folder); fetch with `mvv weights fetch NAME`"
    )
    return 0


def weights_fetch(
    names: Positional[tuple[str, ...]] = (), /, *, accept_licence: bool = False, all: bool = False
) -> int:  # fmt: skip
    """Fetch weights and check their SHA-256; stopped at any point, the same command goes on.

    Args:
        names: As `mvv weights list` shows them.
        accept_licence: You agree to the licences that forbid commercial use.
        all: Everything; without --accept-licence all that may be used commercially.
    """
    if not names and not all:
        raise InputError("NAME: found none, expected names as `mvv weights list` shows them; give some, or --all")
    store, console = Store(), Console(soft_wrap=True)
    wanted = [weight(name) for name in (WEIGHTS if all else dict.fromkeys(names))]
    refused = [entry for entry in wanted if entry.noncommercial and not accept_licence and not store.has(entry.name)]
    if refused and not all:
        raise InputError("\n".join(_consent(entry.name) for entry in refused))
    failed = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        for entry in (entry for entry in wanted if entry not in refused):
            task = bars.add_task(entry.name, total=entry.bytes)

            def show(done: int, total: int | None, task=task) -> None:
                bars.update(task, completed=done, total=total)

            try:
                record = store.fetch(entry.name, accept_licence=accept_licence, progress=show)
            except InputError as error:
                failed += 1
                console.print(f"{entry.name}: not fetched\n{error}", markup=False)
            else:
                console.print(f"{entry.name}: {store.path(entry.name)}, SHA-256 {record.sha256}", markup=False)
            bars.remove_task(task)
    for entry in refused:
        console.print(_consent(entry.name), markup=False)
    return 1 if failed else 3 if refused else 0


def weights_add(name: Positional[str], file: Positional[Path], /, *, custom: bool = False) -> int:
    """Add a weights file that you have; it is checked and copied.

    Args:
        name: As `mvv weights list` shows it.
        file: The file.
        custom: Keep it though it is not the published one; its scores are never ranked with those of the published one.
    """
    store = Store()
    record = store.add(name, file, custom=custom)
    how = {"hash": "the published file", "prefix": "its SHA-256 begins as published"}.get(
        record.known_by, "no publisher states a hash, so this file is held to from now on"
    )
    what = "custom weights, never ranked with the published ones" if record.custom else how
    Console(soft_wrap=True).print(f"{name}: {store.path(name)}, SHA-256 {record.sha256} ({what})", markup=False)
    return 0


def weights_verify() -> int:
    """Read every file again and compare its SHA-256; exit 1 with the list of what is wrong."""
    store, console = Store(), Console(soft_wrap=True)
    there = [status.weight.name for status in store.list() if status.path]
    if not there:
        console.print(f"{store.folder} has no weights; `mvv weights list` shows what there is")
        return 0
    with console.status("reading") as line:
        problems = store.verify(lambda name: line.update(f"reading {name}"))
    for problem in problems:
        console.print(f"{problem.name}: {problem.text}", markup=False)
    wrong = {problem.name for problem in problems}
    for name in there:
        if name not in wrong:
            console.print(f"{name}: {'custom, as added' if store.custom(name) else 'as it should be'}", markup=False)
    return 1 if problems else 0


def _state(status: Status) -> str:
    if status.path is None:
        return "no"
    what = "not checked yet" if status.record is None else "custom" if status.record.custom else "yes"
    return f"{what}, {status.path}"


def _consent(name: str) -> str:
    entry = weight(name)
    return (
        f"{name}: found the licence {entry.licence}, which forbids commercial use, expected your consent; read it and "
        f"repeat with --accept-licence ({entry.source})"
    )
