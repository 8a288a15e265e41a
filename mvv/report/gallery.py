"""The gallery of a report as HTML: pages of cards; the first page also says what there is to say about the dataset.

Pure functions of facts and rows; they read and write no file. Text is escaped by `mvv.pages.markup`.
"""

from __future__ import annotations

from collections.abc import Sequence

from manifests.dataset import Dataset
from mvv.pages.blocks import POLICY, swatches
from mvv.pages.markup import Html, element, fill, join, script_json
from mvv.pages.wording import plural, size_text
from mvv.report.cards import Cameras, Card, shape_text
from mvv.report.facts import Facts
from mvv.report.sections import numbers, sections

__all__ = ["PAGE_SIZE", "gallery_page", "page_name", "search_script"]

PAGE_SIZE = 60
"""Clips a page."""


def page_name(number: int) -> str:
    """File of the gallery's page ``number`` from 0."""
    return "index.html" if number == 0 else f"page-{number + 1}.html"


def gallery_page(
    dataset: Dataset, facts: Facts, cards: Sequence[Card], cameras: Sequence[Cameras], number: int, notes: Sequence[str]
) -> Html:
    """One page of the gallery; the first also has the sections about the whole dataset.

    Args:
        dataset: for its name, config and fingerprint.
        facts: of the whole dataset.
        cards: of all pages.
        cameras: of some clips, the first one drawn with names.
        number: from 0.
        notes: sentences above the clips, e.g. that only some are shown.
    """
    pages = max(1, -(-len(cards) // PAGE_SIZE))
    here = cards[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
    manifest, first = dataset.manifest, number == 0
    shown = plural(len(cards), "clip")
    if pages > 1:
        start = number * PAGE_SIZE
        shown = f"{start + 1:,} to {start + len(here):,} of {len(cards):,}"
    body = fill(
        "mvv.report",
        "gallery.html",
        kind="Multi-view animation clips",
        name=manifest["name"],
        lede=_lede(facts, cards),
        numbers=numbers(facts) if first else Html(""),
        swatches=swatches(),
        shown=shown,
        notes=join(element("p", note, class_="note") for note in notes) if first else Html(""),
        pages=pages,
        page_size=PAGE_SIZE,
        cards=join(_card(card) for card in here) or element("p", "This dataset has no clip.", class_="nothing"),
        pager=_pager(number, pages),
        sections=sections(dataset, facts, cameras) if first else Html(""),
    )
    suffix = "" if first else f", page {number + 1}"
    return fill("mvv.report", "page.html", policy=POLICY, title=f"{manifest['name']}{suffix}", root="", body=body)


def search_script(cards: Sequence[Card]) -> Html:
    """All clips as a script, for filtering and sorting over more than one page."""
    return Html(f"window.mvvClips={script_json([card.record for card in cards])};\n")


def _card(card: Card) -> Html:
    record = {key: value for key, value in card.record.items() if key != "id"}
    still = " still" if record["frames"] == 1 else ""
    return fill("mvv.report", "card.html", clip_id=card.clip_id, root="", still=still, **record)


def _lede(facts: Facts, cards: Sequence[Card]) -> str:
    counts = facts.counts
    clips = plural(counts["clips"], "clip")
    if cards:
        clips += f", {shape_text(cards[0].row)} each; {size_text(counts['bytes'])} in {plural(counts['shards'], 'tar')}"
    rejected = sum(sum(rows.values()) for rows in counts["rejected"].values())
    return f"{clips}. {rejected:,} rejected, {facts.failed:,} failed."


def _pager(number: int, pages: int) -> Html:
    if pages == 1:
        return Html("")
    # The first, the last and the neighbours; a gap is an ellipsis.
    near = sorted({0, pages - 1, *range(max(0, number - 2), min(pages, number + 3))})
    parts, before = [], -1
    for page in near:
        if page > before + 1:
            parts.append(element("span", "…"))
        parts.append(element("a", str(page + 1), href=page_name(page), aria_current="page" if page == number else None))
        before = page
    return element("nav", *parts, class_="pager", aria_label="Pages")
