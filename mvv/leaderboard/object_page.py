"""The page of one object: its prompt, all methods side by side, what each view scores, and the guards that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.ranking import Column, Table
from mvv.leaderboard.entries import Entry, Value
from mvv.leaderboard.figures import aim, score_text, table_name, title_text, unscored
from mvv.leaderboard.player import object_page_name, player, prompt_of
from mvv.pages.blocks import section, table
from mvv.pages.markup import Html, element, join

__all__ = ["object_body"]


def object_body(
    board: Table, entries: Sequence[Entry], objects: Sequence[str], place: int, cards: Mapping[tuple[str, str], str]
) -> Html:
    """Header and main of the page.

    Args:
        board: the table that it belongs to.
        entries: its runs, in the order of the rows.
        objects: of its set, for the way to the neighbours.
        place: of this object among them.
        cards: (metric, hash) -> address of its card's page.
    """
    name = objects[place]
    root = "../../"
    prompt = prompt_of(entries, name)
    top = [_path(board, objects, place, root), element("h1", name)]
    if prompt:
        top.append(element("p", prompt, class_="prompt"))
    clips = player(entries, [name], board.key, root=root)
    missing = [entry.method for entry in entries if name not in entry.views]
    if missing:
        clips = join([clips, element("p", f"No video by {', '.join(missing)}.", class_="hint")])
    tables = [found for column in board.columns if (found := _values(column, entries, name, cards, root))]
    main = [
        element("section", clips or element("p", "No run has clips of it.", class_="nothing"), aria_label="Clips"),
        _guards(entries, name),
        section("Values of each view", *tables) if tables else "",
    ]
    return join([element("header", *top, class_="top inner"), element("main", *main)])


def _guard_rows(entries: Sequence[Entry], object_id: str, root: str) -> list[tuple[Any, ...]]:
    """Method, guard, views, values and limit of guards that videos of this object fail; a row a method and guard."""
    rows = []
    for entry in entries:
        failed: dict[tuple[str, float | None], list[Mapping[str, Any]]] = {}
        for row in entry.failed_guards(object_id):
            failed.setdefault((row["guard"], row["limit"]), []).append(row)
        for (guard, limit), found in failed.items():
            values = sorted(row["value"] for row in found if row["value"] is not None)
            told = "" if not values else f"{values[0]:.3g}" + (f" … {values[-1]:.3g}" if values[0] < values[-1] else "")
            details = dict.fromkeys(row["detail"] for row in found)
            what = join([element("code", guard), *(element("span", text, class_="detail") for text in details)])
            link = element("a", entry.method, href=root + entry.page)
            views = ", ".join(row["view"] or "object" for row in found)
            rows.append((link, what, views, told, "" if limit is None else f"{limit:.3g}"))
    return rows


def _path(board: Table, objects: Sequence[str], place: int, root: str) -> Html:
    steps = []
    for text, rel, there in (("previous", "prev", place - 1), ("next", "next", place + 1)):
        if 0 <= there < len(objects):
            steps.append(element("a", text, href=root + object_page_name(board.key, objects[there]), rel=rel))
    back = element("a", f"← {table_name(board)}", href=f"{root}index.html#{board.key}")
    return element("nav", back, element("span", *steps, class_="steps"), class_="path", aria_label="Objects")


def _guards(entries: Sequence[Entry], object_id: str) -> Html:
    rows = _guard_rows(entries, object_id, "../../")
    if not rows:
        return section("Guards", element("p", "No video of this object fails a guard.", class_="hint"))
    return section("Guards that failed", table(["Method", "Guard", "Views", "#Value", "#Limit"], rows))


def _values(
    column: Column, entries: Sequence[Entry], object_id: str, cards: Mapping[tuple[str, str], str], root: str
) -> Html | None:
    """A row a method, a column a view; None where nothing has a value of this metric."""
    of = {entry.name: entry.values.get((object_id, column.name), {}) for entry in entries}
    views = list(dict.fromkeys(view for values in of.values() for view in values))
    if not views:
        return None
    several = len(views) > 1
    heads = ["Method", *(["#All views"] if several else []), *(f"#{view or 'Object'}" for view in views)]
    rows = []
    for entry in entries:
        values = of[entry.name]
        mean = element("strong", score_text(entry.means(column.name).get(object_id), column.card)) if several else None
        cells = [_one(values.get(view), column) for view in views]
        rows.append((element("a", entry.method, href=root + entry.page), *([mean] if several else []), *cells))
    title = element("a", title_text(column.card), href=root + cards[column.name, column.hash])
    version = element("small", column.card["version"])
    return element(
        "div", element("h3", title, " ", aim(column.card), " ", version), table(heads, rows), class_="values"
    )


def _one(value: Value | None, column: Column) -> Html:
    if value is None:
        return element("span", "–", class_="none")
    if value.value is None:
        return unscored(value.reason)
    text = score_text(value.value, column.card)
    if value.on_protocol:
        return join([text])
    return element("span", text, " ", element("span", "off-protocol", class_="none"))
