"""The folder that a site of pages is written into: made, recognised and replaced, and never one with other files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from manifests.errors import InputError

__all__ = ["make_room", "write_assets", "write_page"]


def make_room(out: Path, *, kind: str, written_by: str, folders: Sequence[str]) -> None:
    """An empty folder with the marker by which the next site of its kind knows that it may be replaced.

    Args:
        out: does not exist, is empty, or has an earlier site of this kind, whose pages and folders are removed.
        kind: in one word, e.g. ``report``; the marker is ``KIND.json``.
        written_by: the command, for the marker.
        folders: what the site has besides pages; made again, empty.

    Raises:
        InputError: ``out`` has other files.
    """
    marker = out / f"{kind}.json"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not marker.is_file():
            raise InputError(
                f"{out}: found other files, expected an empty folder or an earlier {kind}; choose another --out"
            )
        for path in (*out.glob("*.html"), *(out / name for name in folders)):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"written_by": written_by}) + "\n")
    for name in folders:
        (out / name).mkdir()


def write_assets(folder: Path, package: str, scripts: Sequence[str]) -> None:
    """The style sheet ``style.css`` (the base one, then the package's own) and scripts of a package."""
    own = resources.files(package)
    styles = (resources.files("mvv.pages") / "base.css", own / "style.css")
    write_page(folder / "style.css", "\n".join(style.read_text(encoding="utf-8") for style in styles))
    for name in scripts:
        (folder / name).write_bytes((own / name).read_bytes())


def write_page(path: Path, text: str) -> None:
    """Text as UTF-8."""
    path.write_text(text, encoding="utf-8")
