"""Writes the site: pages, clips, style and script, into a folder of their own.

Everything is read and computed before the folder is touched; what a run calls itself never becomes a path.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from eval.ranking import tables
from mvv.leaderboard.card_page import card_pages, metrics_page
from mvv.leaderboard.entries import Entry, entries_of
from mvv.leaderboard.frame import Frame
from mvv.leaderboard.index_page import Part, index_body
from mvv.leaderboard.object_page import object_body
from mvv.leaderboard.player import object_page_name
from mvv.leaderboard.run_page import run_body
from mvv.pages.folder import make_room, write_assets, write_page
from mvv.pages.markup import fill

__all__ = ["build_leaderboard"]

_FOLDERS = ("assets", "media", "metrics", "objects", "runs")


def build_leaderboard(runs: Sequence[Path | str], out: Path | str, *, title: str = "Leaderboard") -> Path:
    """Write a static leaderboard that works from disk: open the file that is returned in a browser.

    Args:
        runs: finished runs; those of one set, protocol and kind of references stand in one table.
        out: a folder that does not exist, is empty, or has an earlier leaderboard, which is replaced.
        title: of the site.

    Returns:
        out / "index.html".

    Raises:
        InputError: no run, one that is not finished or was changed, or ``out`` has other files.
    """
    out = Path(out)
    entries = entries_of(runs)
    parts = _parts(entries)
    cards = card_pages(entries)
    make_room(out, kind="leaderboard", written_by="mvv leaderboard build", folders=_FOLDERS)
    write_assets(out / "assets", "mvv.leaderboard", ["leaderboard.js"])
    _copy_strips(entries, out)

    frame = Frame(title=title)
    addresses = {(card.name, card.hash): card.page for card in cards}
    for card in cards:
        write_page(out / card.page, frame.page(f"{card.name}, {title}", card.body(), root="../"))
    for part in parts:
        _write_part(part, addresses, frame, out)
    write_page(out / "metrics.html", frame.page(f"Metrics, {title}", metrics_page(cards), root="", here="metrics.html"))
    guide = fill("mvv.leaderboard", "guide.html")
    write_page(out / "how-to-read.html", frame.page(f"How to read {title}", guide, root="", here="how-to-read.html"))
    # The one that people open is the last to appear.
    write_page(out / "index.html", frame.page(title, index_body(title, parts, addresses), root="", here="index.html"))
    return out / "index.html"


def _parts(entries: Sequence[Entry]) -> list[Part]:
    """The tables with their runs in the order of the rows, and the objects of the set in its order."""
    known = {(entry.method, entry.run.info["hash"]): entry for entry in entries}
    parts = []
    for table in tables([entry.run for entry in entries]):
        here = tuple(known[row.method, row.run] for row in table.rows)
        others = sorted({name for entry in here for name in entry.views})
        objects = tuple(dict.fromkeys([*here[0].run.info["set"]["objects"], *others]))
        parts.append(Part(table=table, entries=here, objects=objects))
    return parts


def _write_part(part: Part, addresses: dict[tuple[str, str], str], frame: Frame, out: Path) -> None:
    (out / "objects" / part.table.key).mkdir()
    for place, name in enumerate(part.objects):
        body = object_body(part.table, part.entries, part.objects, place, addresses)
        address = out / object_page_name(part.table.key, name)
        write_page(address, frame.page(f"{name}, {frame.title}", body, root="../../"))
    for row, entry in zip(part.table.rows, part.entries, strict=True):
        body = run_body(entry, row, part.table, part.objects, addresses)
        write_page(out / entry.page, frame.page(f"{entry.method}, {frame.title}", body, root="../"))


def _copy_strips(entries: Sequence[Entry], out: Path) -> None:
    for strip in (strip for entry in entries for views in entry.strips.values() for strip in views.values()):
        to = out / strip.address
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(strip.source, to)
