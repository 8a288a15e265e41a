"""Writes a report: pages, pictures, style and script, into a folder of their own.

The pictures are drawn clip by clip on a few threads with a bounded number under way, so that memory does not grow with
the dataset. A clip that cannot be read is left out, and the first page says so; everything else is written.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from manifests.dataset import Dataset
from manifests.errors import InputError, MvvError
from mvv.pages.folder import make_room, write_assets, write_page
from mvv.pages.markup import element, join
from mvv.pages.wording import plural
from mvv.pictures import draw_sheet, draw_sprite, evenly, plan_sprite
from mvv.report.cards import Cameras, Card, cameras_of
from mvv.report.clip_page import Sheet, clip_page
from mvv.report.facts import Facts, gather
from mvv.report.gallery import PAGE_SIZE, gallery_page, page_name, search_script

__all__ = ["build_report"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_PLOTTED = 40  # clips whose cameras are drawn


def build_report(
    dataset: Path | str, out: Path | str, *, max_clips: int = 240, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write a static gallery of a dataset that works from disk: open the file that is returned in a browser.

    Args:
        dataset: a finished dataset.
        out: a folder that does not exist, is empty, or has an earlier report, which is replaced.
        max_clips: clips with pictures and a page of their own; the figures are always of all of them.
        progress: called with (clips drawn, clips to draw) after each.

    Returns:
        out / "index.html".

    Raises:
        DatasetError: no finished dataset there.
        InputError: ``out`` has other files, or max_clips is below 1.
    """
    source, out = Dataset.open(dataset), Path(out)
    if max_clips < 1:
        raise InputError(f"max_clips: found {max_clips}, expected at least 1")
    make_room(out, kind="report", written_by="mvv report", folders=("assets", "clips", "media"))
    facts = gather(source)
    rows = list(islice(source.clips(), max_clips))
    assets = _assets(source, {row["asset_id"] for row in rows})
    write_assets(out / "assets", "mvv.report", ["gallery.js"])

    drawn: list[_Drawn] = []
    broken: list[str] = []
    for count, result in enumerate(_draw_all(source, rows, assets, out), 1):
        if isinstance(result, _Drawn):
            drawn.append(result)
        else:
            broken.append(result)
        if progress:
            progress(count, len(rows))
    return _write_pages(source, facts, drawn, broken, out)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    card: Card
    sheet: Sheet


def _write_pages(source: Dataset, facts: Facts, drawn: Sequence[_Drawn], broken: Sequence[str], out: Path) -> Path:
    cards = [one.card for one in drawn]
    cameras: list[Cameras] = []
    for place, one in enumerate(drawn):
        sample = source.sample(one.card.clip_id)
        if len(cameras) < _PLOTTED:
            cameras.append(cameras_of(sample))
        steps = []
        if place > 0:
            steps.append(element("a", "previous", href=f"{cards[place - 1].clip_id}.html", rel="prev"))
        if place + 1 < len(cards):
            steps.append(element("a", "next", href=f"{cards[place + 1].clip_id}.html", rel="next"))
        back = page_name(place // PAGE_SIZE)
        page = clip_page(source.manifest["name"], one.card, sample, one.sheet, back=back, steps=join(steps))
        write_page(out / "clips" / f"{one.card.clip_id}.html", page)
    notes = []
    total = facts.counts["clips"]
    if len(cards) + len(broken) < total:
        notes.append(
            f"Pictures of the first {len(cards):,} of {total:,} clips (their order is random); the figures are of all."
            " A larger max_clips shows more."
        )
    if broken:
        notes.append(f"{plural(len(broken), 'clip')} could not be read; run mvv verify. The first: {broken[0]}")
    pages = max(1, -(-len(cards) // PAGE_SIZE))
    if pages > 1:
        write_page(out / "assets" / "search.js", search_script(cards))
    for number in reversed(range(pages)):  # the one that people open is the last to appear
        write_page(out / page_name(number), gallery_page(source, facts, cards, cameras, number, notes))
    return out / "index.html"


def _draw_all(
    source: Dataset, rows: Sequence[dict[str, Any]], assets: dict[str, dict[str, Any]], out: Path
) -> Iterator[_Drawn | str]:
    """In the order of the rows; Pillow lets go of the interpreter while it decodes and encodes, so threads help."""
    workers = min(4, os.cpu_count() or 1)
    waiting: deque[Future[_Drawn | str]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for row in rows:
            waiting.append(pool.submit(_draw, source, row, assets.get(row["asset_id"], {}), out))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _draw(source: Dataset, row: dict[str, Any], asset: dict[str, Any], out: Path) -> _Drawn | str:
    """The strip and the contact sheet of one clip; the text of the error where it cannot be read."""
    clip_id = row["clip_id"]
    if not _ID.fullmatch(clip_id):  # it becomes a file name
        return f"clip_id {clip_id!r}: found other characters than A-Z a-z 0-9 _ -"
    views, frames, width, height = row["views"], row["frames"], row["width"], row["height"]

    def read(view: int, wanted: Sequence[int]):
        return source.frames(clip_id, [view], wanted)[0]

    cell = min(1.0, (128 if views <= 8 else 96) / width)
    sheet = Sheet(
        views=evenly(views, 32),
        frames=evenly(frames, 16),
        width=max(1, round(width * cell)),
        height=max(1, round(height * cell)),
    )
    try:
        sprite = plan_sprite(views, frames, width, height)
        draw_sprite(read, sprite).save(out / "media" / f"{clip_id}.webp", quality=82, alpha_quality=90, method=3)
        image = draw_sheet(read, sheet.views, sheet.frames, sheet.width, sheet.height)
        image.save(out / "media" / f"{clip_id}-sheet.webp", quality=80, alpha_quality=90, method=3)
        source.sample(clip_id)
    except KeyError:  # a row without its line in the shard's index
        return f"{clip_id}: found no row in the index of {row['shard']}"
    except MvvError as error:
        return str(error)
    whole = Sheet(views=sheet.views, frames=sheet.frames, width=image.width, height=image.height)
    return _Drawn(card=Card(row=row, asset=asset, sprite=sprite), sheet=whole)


def _assets(source: Dataset, wanted: set[str]) -> dict[str, dict[str, Any]]:
    return {row["asset_id"]: row for row in source.assets() if row["asset_id"] in wanted}
