"""What the evaluation's commands print: a run's figures, a comparison, the cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from manifests.errors import InputError

__all__ = ["print_cards", "print_comparison", "print_run"]


def print_run(folder: Path) -> None:
    """Means over objects with intervals, the controls beside them, guards, and whether the row can be ranked."""
    from eval.ranking import tables
    from eval.runs import Run

    run = Run.open(folder)
    [board] = tables([run])
    controls = {control.variant: control.cells for control in board.controls}
    [row] = board.rows
    console = Console()
    table = Table(_METRIC, "mean", "95 % interval", "objects", *controls, box=None, pad_edge=False)
    for name in run.info["cards"]:
        card, cell = run.info["cards"][name]["card"], row.cells[name]
        low_high = "n/a" if cell.low is None else f"{_shown(cell.low, card)} to {_shown(cell.high, card)}"
        table.add_row(
            escape(name), _shown(cell.value, card), low_high, str(cell.n_objects),
            *(_shown(cells[name].value if name in cells else None, card) for cells in controls.values()),
        )  # fmt: skip
    console.print(table)
    info = run.info
    for what in ("missing", "not_applicable"):
        for name, why in info[what].items():
            console.print(f"{what.replace('_', ' ')}: {escape(name)}: {escape(why)}", soft_wrap=True)
    coverage = info["coverage"]
    console.print(
        f"{folder}: {coverage['objects']} of {coverage['of']} objects, {info['videos']} videos, protocol "
        f"{info['protocol']['name']}, run {info['hash'][:12]}",
        soft_wrap=True,
    )
    if info["ranked"]:
        console.print("can be ranked; `mvv eval verify` by somebody else takes the mark `unverified` away")
    for why in info["why_not"]:
        console.print(f"not ranked: {escape(why)}", soft_wrap=True)


_METRIC = Column("metric", no_wrap=True)
_COMPARED = ("metric", "difference", "95 % interval", "p (Holm)", "detectable", "objects", "better")


def print_comparison(comparison: Any) -> None:
    """A table a pair of runs; the figures that do not fit a terminal are in ``--out``."""
    console = Console()
    places = {name: comparison.headings.index(name) for name in ("first", "second", *_COMPARED)}
    tables: dict[tuple[str, str], Table] = {}
    for line in comparison.lines():
        pair = line[places["first"]], line[places["second"]]
        table = tables.setdefault(pair, Table(_METRIC, *_COMPARED[1:], box=None, pad_edge=False))
        table.add_row(*(escape(line[places[name]]) for name in _COMPARED))
    for (first, second), table in tables.items():
        console.print(f"{escape(first)} minus {escape(second)}", style="bold")
        console.print(table)


def print_cards(name: str, format: str) -> int:
    """All cards, or those whose name or id is ``name``."""
    from eval.metrics import METRICS

    cards = [metric.card for metric in METRICS.values() if name in ("", metric.card.name, metric.card.id)]
    if not cards:
        from difflib import get_close_matches

        near = get_close_matches(name, METRICS, 1)
        hint = f"did you mean {near[0]}?" if near else "`mvv eval cards` lists them"
        raise InputError(f"NAME: found {name!r}, expected a metric; {hint}")
    if format == "json":
        import dataclasses

        print(json.dumps([dataclasses.asdict(card) for card in cards], indent=1))
    elif format == "markdown":
        print("\n".join(_markdown(card) for card in cards))
    elif name:
        for card in cards:
            Console().print(escape(_markdown(card)), soft_wrap=True)
    else:
        table = Table(_METRIC, "title", "better", "needs", "weights", box=None, pad_edge=False)
        for card in cards:
            table.add_row(
                card.name, card.title, _direction(card.higher_is_better), ", ".join(card.needs), ", ".join(card.weights)
            )
        Console().print(table)
    return 0


def _markdown(card: Any) -> str:
    """A card as a section of Markdown."""
    span = " to ".join("unbounded" if end is None else f"{end:g}" for end in (card.low, card.high))
    facts = {
        "Formula": f"`{card.formula}`", "Preprocess": card.preprocess, "Backbone": card.backbone,
        "Weights": ", ".join(card.weights) or "none", "Range": span, "Better": _direction(card.higher_is_better),
        "Needs": ", ".join(card.needs) or "frames alone", "Frames": f"at least {card.min_frames}", "Level": card.level,
        "Source": card.source,
    }  # fmt: skip
    lines = [f"## {card.title}: {card.name}", ""]
    lines += [f"- **{name}:** {' '.join(text.split())}" for name, text in facts.items()]
    lines += ["- **Known failure modes:**", *(f"  - {mode}" for mode in card.failure_modes), ""]
    return "\n".join(lines)


def _direction(higher_is_better: bool | None) -> str:
    return {True: "higher", False: "lower", None: "neither"}[higher_is_better]


def _shown(value: float | None, card: dict[str, Any]) -> str:
    return "-" if value is None else f"{value * card['scale']:.{card['decimals']}f}"
