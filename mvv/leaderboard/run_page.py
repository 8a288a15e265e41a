"""The page of one run: where its figures come from, what it and its controls score, its guards, and every object."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from eval.ranking import Row, Table
from eval.runs import CONTROLS, METHOD
from mvv.leaderboard.entries import Entry
from mvv.leaderboard.figures import CONTROL_NAMES, aim, interval_text, score_text, table_name, title_text, unscored
from mvv.leaderboard.player import object_page_name
from mvv.pages.blocks import facts_list, section, table
from mvv.pages.markup import Html, element, join
from mvv.pages.wording import NOT_STATED, duration_text, plural

__all__ = ["run_body"]

_ROOT = "../"


def run_body(
    entry: Entry, row: Row, board: Table, objects: Sequence[str], cards: Mapping[tuple[str, str], str]
) -> Html:
    """Header and main of the page.

    Args:
        entry: the run.
        row: its row in the table.
        board: the table.
        objects: that have a page in the table.
        cards: (metric, hash) -> address of its card's page.
    """
    info = entry.run.info
    back = element("a", f"← {table_name(board)}", href=f"{_ROOT}index.html#{board.key}")
    top = [element("nav", back, class_="path", aria_label="Way back"), element("h1", entry.method)]
    if info.get("note"):
        top.append(element("p", info["note"], class_="lede"))
    if row.mean_rank is not None:
        top.append(element("p", f"Ranked: place {row.place} by mean rank {row.mean_rank:.2f}.", class_="lede"))
    top += [element("p", f"Not ranked: {reason}", class_="note") for reason in row.why_not]
    main = [
        section("Where it comes from", facts_list(_facts(entry, row))),
        section("Scores and controls", _scores(entry, row, board, cards)),
        _missing(info),
        _guards(entry),
        section("Objects", _objects(entry, board, objects)),
        section("Input", _inputs(entry)),
        section(
            "Everything recorded", element("details", element("summary", "run.json"), element("pre", _record(info)))
        ),
    ]
    return join([element("header", *top, class_="top inner"), element("main", *main)])


def _facts(entry: Entry, row: Row) -> list[tuple[str, Any]]:
    info = entry.run.info
    protocol, chosen = info["protocol"], info["set"]
    links = [_link(name, address) for name, address in (info.get("links") or {}).items()]
    return [
        ("Protocol", join([f"{protocol['name']} {protocol['version']} ", element("code", protocol["hash"][:12])])),
        (
            "Set",
            join(
                [f"{chosen['name']}, {plural(len(chosen['objects']), 'object')} ", element("code", chosen["hash"][:12])]
            ),
        ),
        ("Coverage", _coverage(info)),
        ("References", info["references"]),
        ("Verified", _verification(entry)),
        ("Run", element("code", info["hash"])),
        ("Written", info.get("created") or NOT_STATED),
        ("Computed in", duration_text(info["seconds"]) if info.get("seconds") else NOT_STATED),
        ("Machine", _pairs(info.get("machine"))),
        ("Versions", _pairs(info.get("versions"))),
        ("Folder", row.folder),
        *([("Links", join(links, " · "))] if links else []),
    ]


def _coverage(info: Mapping[str, Any]) -> str:
    said = info["coverage"]
    text = f"{said['objects']} of {plural(said['of'], 'object')}"
    return f"{text}; missing: {', '.join(said['missing'])}" if said["missing"] else text


def _verification(entry: Entry) -> Any:
    found = entry.run.verification
    if found is None:
        return "no: nobody has computed its scores again (mvv eval verify)"
    parts = ["yes" if found["passed"] else "FAILED"]
    if checked := found.get("checked"):
        parts.append(f"computed again: {_short(checked)}")
    for key, text in (("values", "values compared"), ("worst", "largest difference"), ("date", "on")):
        if found.get(key) not in (None, ""):
            parts.append(f"{text} {_short(found[key])}")
    told = [element("span", problem, class_="why") for problem in found.get("problems") or ()]
    return join(["; ".join(parts), *told])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return _pairs(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _pairs(found: Any) -> str:
    if not isinstance(found, Mapping):
        return _short(found) if found else NOT_STATED
    return ", ".join(f"{name} {_short(value)}" for name, value in found.items()) or NOT_STATED


def _link(name: str, address: Any) -> Html:
    """A link where the address is of the web; whatever else a run states there is only text."""
    address = str(address)
    if urlsplit(address).scheme in ("http", "https"):
        return element("a", name, href=address, rel="noopener noreferrer nofollow", title=address)
    return join([f"{name}: {address}"])


def _scores(entry: Entry, row: Row, board: Table, cards: Mapping[tuple[str, str], str]) -> Html:
    """A line a metric: the method with everything about its figure, then what each control scores."""
    controls = {c.variant: c.cells for c in board.controls if (c.method, c.run) == (row.method, row.run)}
    variants = [variant for variant in CONTROLS if variant in controls]
    heads = ["Metric", "#Score", "#95 % interval", "#Half width", "#Rank", "#Objects", "#Views alike"]
    lines = []
    for column in board.columns:
        cell, card = row.cells[column.name], column.card
        used = entry.run.info["cards"].get(column.name)
        page = cards[column.name, used["hash"] if used else column.hash]
        name = join(
            [element("a", title_text(card), href=_ROOT + page), " ", aim(card), " ", element("small", column.name)]
        )
        score = unscored(cell.note) if cell.value is None else element("strong", score_text(cell.value, card))
        note = element("span", cell.note, class_="detail") if cell.note else ""
        figures = [
            interval_text(cell.low, cell.high, card) or "not available",
            "" if cell.half_width is None else f"±\u2009{score_text(cell.half_width, card)}",
            "" if cell.rank is None else str(cell.rank),
            str(cell.n_objects),
            "" if cell.view_correlation is None else f"{cell.view_correlation:.2f}",
        ]
        if cell.value is None:
            figures = [""] * len(figures)
        others = [
            score_text(controls[v][column.name].value, card) if column.name in controls[v] else "" for v in variants
        ]
        lines.append((join([name, note]), score, *figures, *others))
    heads += [f"#{CONTROL_NAMES[variant]}" for variant in variants]
    hint = (
        "Half width: of the closed-form interval (Student’s t). Views alike: how much the views of one object repeat"
        " each other, 1 at most. The last columns are the run’s controls."
    )
    return join([table(heads, lines), element("p", hint, class_="hint")])


def _missing(info: Mapping[str, Any]) -> Html:
    absent = {**(info.get("not_applicable") or {}), **(info.get("missing") or {})}
    rows = [(element("code", name), reason) for name, reason in sorted(absent.items())]
    return section("Metrics that are missing", table(["Metric", "Why"], rows)) if rows else Html("")


def _guards(entry: Entry) -> Html:
    """Videos that fail, of those looked at: a line a guard, a column for the method and for each control."""
    seen, failed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in entry.guards:
        key = row["guard"], row["variant"]
        seen[key] += 1
        failed[key] += bool(row["failed"])
    if not seen:
        return Html("")
    names = list(dict.fromkeys(row["guard"] for row in entry.guards))
    variants = [v for v in (METHOD, *CONTROLS) if any((name, v) in seen for name in names)]

    def cell(name: str, variant: str) -> Html:
        if not (count := seen[name, variant]):
            return element("span", "–", class_="none")
        text = f"{failed[name, variant]} of {count}"
        return element("strong", text) if variant == METHOD and failed[name, variant] else join([text])

    heads = ["Guard", "#Method", *(f"#{CONTROL_NAMES[v]}" for v in variants if v != METHOD)]
    lines = [(element("code", name), *(cell(name, v) for v in variants)) for name in names]
    hint = element(
        "p", "Videos that fail, of all that were looked at. The controls are there to be caught.", class_="hint"
    )
    return section("Guards", table(heads, lines), hint)


def _objects(entry: Entry, board: Table, objects: Sequence[str]) -> Html:
    """The mean over views of every metric for each object."""
    columns = [column for column in board.columns if column.card["level"] != "set"]
    heads = ["Object", *(f"#{title_text(column.card)}" for column in columns), "Guards that failed"]
    lines = []
    for name in objects:
        cells = []
        for column in columns:
            values = entry.values.get((name, column.name), {})
            reason = next((value.reason for value in values.values() if value.reason), "")
            mean = entry.means(column.name).get(name)
            cells.append(unscored(reason or "no video") if mean is None else score_text(mean, column.card))
        failed = Counter(row["guard"] for row in entry.failed_guards(name))
        told = ", ".join(f"{guard} ×{count}" if count > 1 else guard for guard, count in failed.items())
        lines.append((element("a", name, href=_ROOT + object_page_name(board.key, name)), *cells, told))
    return table(heads, lines)


def _inputs(entry: Entry) -> Html:
    """What was decoded, in few lines, and each video that is not as the protocol asks or could not be read."""
    read = [row for row in entry.inputs if not row["reason"]]
    shapes = Counter((row["frames"], row["width"], row["height"], row["fps"]) for row in read)
    facts = []
    for (frames, width, height, fps), count in shapes.most_common():
        rate = "rate not known" if fps is None else f"{fps:g} fps"
        facts.append(
            (plural(count, "video"), f"{plural(frames, 'frame')}, {width}\u00a0×\u00a0{height} pixels, {rate}")
        )
    odd = [row for row in entry.inputs if row["reason"] or row["departures"]]
    lines = [
        (row["object_id"], row["view"], row["source"], row["reason"] or "; ".join(row["departures"])) for row in odd
    ]
    parts: list[Html] = [facts_list(facts)]
    if lines:
        heads = ["Object", "View", "File", "What differs from the protocol"]
        told = element("summary", f"{plural(len(lines), 'video')} not as the protocol asks", class_="head")
        parts.append(element("details", told, table(heads, lines)))
    return join(parts)


def _record(info: Mapping[str, Any]) -> str:
    """run.json without the text of the cards, which have pages of their own."""
    cards = {name: {key: value for key, value in card.items() if key != "card"} for name, card in info["cards"].items()}
    return json.dumps({**info, "cards": cards}, indent=1, ensure_ascii=False)
