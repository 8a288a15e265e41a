"""One table of runs as HTML: ranked rows, the others with what kept them out, and the controls, each a group by itself.

The order and every rank are those of `eval.ranking`; nothing is ranked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.ranking import Cell, Column, Control, Row, Table
from mvv.leaderboard.entries import Entry
from mvv.leaderboard.figures import CONTROL_NAMES, aim, interval_text, score_text, unscored
from mvv.leaderboard.plots import Axis, Mark, axis_of, dot_plot, whisker
from mvv.pages.markup import Html, element, join
from mvv.pages.wording import plural

__all__ = ["board", "controls_of", "head_cell", "plots", "scatter"]

Runs = Mapping[tuple[str, str], Entry]
"""(method, hash) of a row -> the run in the site."""


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """What every row of a table needs to know."""

    table: Table
    runs: Runs
    axes: Mapping[str, Axis | None]
    kinds: Mapping[str, str | None]
    """Metric -> class of its column: ``further`` where the protocol does not ask for it, and for others it does."""


def board(table: Table, runs: Runs, cards: Mapping[tuple[str, str], str]) -> Html:
    """The table of scores.

    Args:
        table: what is shown.
        runs: for the addresses of their pages.
        cards: (metric, hash) -> address of its card's page.
    """
    shown = _Shown(
        table=table,
        runs=runs,
        axes={column.name: axis_of(row.cells[column.name] for row in table.rows) for column in table.columns},
        kinds=_kinds(table),
    )
    heads = [head_cell("Method", "text"), head_cell("Rank", "ascending", small="mean", kind="mean")]
    heads += [_column_head(column, cards, shown.kinds[column.name]) for column in table.columns]
    ranked = [_row(row, shown) for row in table.rows if row.ranked]
    others = [_row(row, shown) for row in table.rows if not row.ranked]
    controls = [_control(name, methods, control, shown) for name, methods, control in controls_of(table)]
    return element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *ranked, class_="ranked") if ranked else "",
        element("tbody", _group_row("Not ranked", len(heads)), *others, class_="unranked") if others else "",
        element("tbody", _group_row("Controls", len(heads)), *controls, class_="controls") if controls else "",
        class_="board",
    )


def head_cell(title: Any, first: str, *, small: Any = None, kind: str | None = None) -> Html:
    """A head that sorts.

    Args:
        title: of the column.
        first: direction of the first click, ``ascending`` or ``descending``; ``text`` for a column of names.
        small: second line.
        kind: class of the column.
    """
    button = element("button", title, type="button", class_="sort")
    under = element("small", small) if small else ""
    classes = _classes(None if first == "text" else "n", kind)
    first = "ascending" if first == "text" else first
    return element("th", button, under, scope="col", class_=classes, data_first=first)


def controls_of(table: Table) -> list[tuple[str, tuple[str, ...], Control]]:
    """Name, methods and one control for each set of controls that score the same, as copies of one reference do."""
    found: dict[tuple[Any, ...], list[Control]] = {}
    for control in table.controls:
        scores = tuple((name, round(cell.value or 0.0, 9)) for name, cell in sorted(control.cells.items()))
        found.setdefault((control.variant, scores), []).append(control)
    order = list(CONTROL_NAMES)
    groups = sorted(found.values(), key=lambda group: order.index(group[0].variant))
    return [(CONTROL_NAMES[group[0].variant], tuple(c.method for c in group), group[0]) for group in groups]


def plots(table: Table) -> Html:
    """A figure of dots and whiskers for every metric: methods first, then controls in a line each."""
    figures, kinds, controls = [], _kinds(table), controls_of(table)
    for column in table.columns:
        marks = [Mark(name=row.method, cells=(row.cells[column.name],)) for row in table.rows]
        for variant, name in CONTROL_NAMES.items():
            cells = (c.cells.get(column.name) for _, _, c in controls if c.variant == variant)
            marks.append(Mark(name=name, cells=tuple(filter(None, cells)), control=True))
        if figure := dot_plot(column.card, marks):
            figures.append(element("div", figure, class_=kinds[column.name]))
    return element("div", *figures, class_="plots")


def scatter(table: Table) -> list[dict[str, Any]]:
    """Points for the drawing of two metrics: name, kind, and [value, low, high] of each metric in the tables' unit."""
    scales = {column.name: column.card["scale"] for column in table.columns}

    def scaled(cells: Mapping[str, Cell]) -> dict[str, list[float | None]]:
        shown = {name: cell for name, cell in cells.items() if cell.value is not None}
        return {
            name: [None if v is None else round(v * scales[name], 6) for v in (cell.value, cell.low, cell.high)]
            for name, cell in shown.items()
        }

    points = [{"name": row.method, "kind": "method", "values": scaled(row.cells)} for row in table.rows]
    for name, _, control in controls_of(table):
        points.append({"name": name, "kind": "control", "values": scaled(control.cells)})
    return points


def _kinds(table: Table) -> dict[str, str | None]:
    asked = any(column.required for column in table.columns)
    return {column.name: "further" if asked and not column.required else None for column in table.columns}


def _group_row(title: str, width: int) -> Html:
    return element("tr", element("th", element("span", title), colspan=width, scope="rowgroup"), class_="group")


def _column_head(column: Column, cards: Mapping[tuple[str, str], str], kind: str | None) -> Html:
    card = column.card
    first = "ascending" if card["higher_is_better"] is False else "descending"
    title = join([card["title"], " ", aim(card)])
    small = card["version"] if card["scale"] == 1 else f"{card['version']} ×{card['scale']:g}"
    version = element("a", small, href=cards[column.name, column.hash], title=f"card of {column.name}")
    return head_cell(title, first, small=version, kind=kind)


def _row(row: Row, shown: _Shown) -> Html:
    cells = [_cell(row, column, shown) for column in shown.table.columns]
    mean = "" if row.mean_rank is None else f"{row.mean_rank:.2f}"
    first = element("td", _method(row, shown.runs), data_value=row.method, data_text="1")
    second = element("td", element("span", mean, class_="score"), class_="n mean", data_value=row.mean_rank)
    about = {"data_name": row.method.lower(), "data_kind": "measured", "data_ranked": int(row.ranked)}
    return element("tr", first, second, *cells, **about)


def _method(row: Row, runs: Runs) -> Html:
    link = element("a", row.method, href=runs[row.method, row.run].page)
    badge = element("span", row.place, class_="rank", title="place by mean rank") if row.place is not None else ""
    marks = []
    if row.coverage.split(" of ")[0] != row.coverage.split(" of ")[-1]:
        marks.append(element("span", f"{row.coverage} objects", class_="mark warn"))
    if row.verified is None:
        marks.append(element("span", "unverified", class_="mark", title="nobody has computed its scores again"))
    elif row.verified:
        marks.append(
            element("span", "✓ verified", class_="mark good", title="its scores were computed again and agreed")
        )
    else:
        marks.append(element("span", "verification failed", class_="mark warn"))
    why = [element("span", reason, class_="why") for reason in row.why_not]
    name = element("div", badge, link, class_="method")
    return join([name, element("div", *marks, class_="marks"), *why])


def _cell(row: Row, column: Column, shown: _Shown) -> Html:
    cell, axis = row.cells[column.name], shown.axes[column.name]
    classes = _classes("n", shown.kinds[column.name], "best" if cell.best_group or cell.rank == 1 else None)
    if cell.value is None:
        return element("td", unscored(cell.note), class_=classes)
    parts = []
    if cell.rank is not None:
        kind = "rank first" if cell.rank == 1 else "rank"
        parts.append(element("span", cell.rank, class_=kind, title="rank in this column"))
    parts.append(element("span", score_text(cell.value, column.card), class_="score"))
    if interval := interval_text(cell.low, cell.high, column.card):
        parts.append(element("span", interval, class_="interval", title="95 % interval over objects"))
    elif column.card["level"] != "set":
        parts.append(element("span", "no interval", class_="interval", title="needs three objects that differ"))
    if axis:
        parts.append(whisker(Mark(name="", cells=(cell,)), axis))
    if cell.note:
        parts.append(element("span", cell.note, class_="why"))
    elif column.card["level"] != "set" and str(cell.n_objects) != row.coverage.split()[0]:
        parts.append(element("span", plural(cell.n_objects, "object"), class_="why"))
    return element("td", *parts, class_=classes, data_value=repr(float(cell.value)))


def _control(name: str, methods: Sequence[str], control: Control, shown: _Shown) -> Html:
    of = "of every method" if len(methods) == len(shown.table.rows) else f"of {', '.join(methods)}"
    first = join([element("div", name, class_="method"), element("div", element("span", of), class_="marks")])
    cells = []
    for column in shown.table.columns:
        cell = control.cells.get(column.name, Cell())
        score = element("span", score_text(cell.value, column.card), class_="score")
        value = None if cell.value is None else repr(float(cell.value))
        cells.append(element("td", score, class_=_classes("n", shown.kinds[column.name]), data_value=value))
    label = element("td", first, data_value=name, data_text="1")
    about = {"data_name": " ".join([name, *methods]).lower(), "data_kind": "control", "data_ranked": 0}
    return element("tr", label, element("td", class_="n mean"), *cells, **about)


def _classes(*names: str | None) -> str | None:
    return " ".join(filter(None, names)) or None
