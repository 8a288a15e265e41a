"""The first page: every table with its plots and clips, and what papers report in tables of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.ranking import Table
from mvv.leaderboard.board import board, plots, scatter
from mvv.leaderboard.entries import Entry
from mvv.leaderboard.figures import table_name, title_text
from mvv.leaderboard.player import object_page_name, player, thumbnail
from mvv.leaderboard.reported import reported_part
from mvv.pages.markup import Html, element, fill, join
from mvv.pages.wording import plural

__all__ = ["Part", "index_body"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One table with what belongs to it.

    Attributes:
        table: the table.
        entries: its runs, in the order of the rows.
        objects: that have a page, in the order of the set.
    """

    table: Table
    entries: tuple[Entry, ...]
    objects: tuple[str, ...]


def index_body(title: str, parts: Sequence[Part], cards: Mapping[tuple[str, str], str]) -> Html:
    """Header and main.

    Args:
        title: of the site.
        parts: the tables.
        cards: (metric, hash) -> address of its card's page.
    """
    runs = {(entry.method, entry.run.info["hash"]): entry for part in parts for entry in part.entries}
    count = sum(len(part.table.rows) for part in parts)
    ranked = sum(row.ranked for part in parts for row in part.table.rows)
    lede = f"{plural(count, 'run')}, {ranked} ranked. "
    guide = element("a", "How to read this", href="how-to-read.html")
    further = any(not c.required for part in parts for c in part.table.columns)
    return fill(
        "mvv.leaderboard",
        "index.html",
        title=title,
        lede=join([lede, guide, "."]),
        tables=join(_section(part, runs, cards, several=len(parts) > 1) for part in parts),
        reported=reported_part({part.table.protocol["name"] for part in parts}),
        further="" if further else "hidden",
    )


def _section(
    part: Part, runs: Mapping[tuple[str, str], Entry], cards: Mapping[tuple[str, str], str], *, several: bool
) -> Html:
    table = part.table
    clips = player(part.entries, part.objects, table.key, root="", choose=True)
    pieces = [
        element("section", *_head(table), element("div", board(table, runs, cards), class_="scroll"), _hint(table),
                class_="table", id=table.key),
    ]  # fmt: skip
    if clips:
        pieces.append(element("section", element("h2", "Side by side", _of(table, several)), clips))
    pieces.append(element("section", element("h2", "Intervals", _of(table, several)), plots(table), _scatter(table)))
    pieces.append(element("section", element("h2", "Objects", _of(table, several)), _wall(part)))
    return element("div", *pieces, data_holds="")


def _of(table: Table, several: bool) -> Html:
    return element("small", table_name(table)) if several else Html("")


def _head(table: Table) -> list[Html]:
    scope = [
        f"{plural(table.set['objects'], 'object')}, references: {table.references}. Protocol ",
        element("code", table.protocol["hash"][:8], title=table.protocol["hash"]),
        ", set ",
        element("code", table.set["hash"][:8], title=table.set["hash"]),
        ".",
    ]
    return [element("h2", table_name(table)), element("p", *scope, class_="scope")]


def _hint(table: Table) -> Html:
    text = (
        "Bold: the best of a column and all whose difference from it is not significant. Below each score its 95 %"
        " interval over objects. ↑ higher is better, ↓ lower is better, ↕ neither."
    )
    absent = f"No run here has {', '.join(table.absent)}, which the protocol asks for." if table.absent else ""
    return join(element("p", line, class_="hint") for line in (text, absent) if line)


def _scatter(table: Table) -> Html:
    """Two metrics against each other; at first one with a direction against one without, where there are both."""
    columns = sorted(table.columns, key=lambda column: not column.required)
    if len(columns) < 2:
        return Html("")
    free = next((c for c in columns if c.card["higher_is_better"] is None), columns[0])
    other = next(c for c in columns if c is not free)

    def choice(label: str, chosen: str) -> Html:
        options = [
            element("option", f"{title_text(c.card)}, {c.card['version']}", value=c.name,
                    selected="" if c.name == chosen else None)
            for c in columns
        ]  # fmt: skip
        return element("select", *options, aria_label=label)

    tools = element("div", choice("Across", free.name), choice("Upwards", other.name), class_="tools")
    drawing = element("svg", viewBox="0 0 560 360", role="img", aria_label="Two metrics against each other")
    points = json.dumps(scatter(table), separators=(",", ":"), allow_nan=False)
    told = element("summary", "Two metrics against each other; hollow: controls", class_="head")
    return element("details", told, element("div", tools, drawing, class_="scatter", data_points=points))


def _wall(part: Part) -> Html:
    links = [
        element("a", thumbnail(part.entries, name, root=""), element("span", name),
                href=object_page_name(part.table.key, name), title=name)
        for name in part.objects
    ]  # fmt: skip
    return element("div", *links, class_="wall")
