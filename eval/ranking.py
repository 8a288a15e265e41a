"""Tables of runs that may be compared, with ranks only where a rank is earned.

Runs stand in one table where evaluation set, protocol and kind of references agree, by hash. In a column only cells of
one card hash are ranked together. A row is ranked only if it is complete, passed its guards and followed the protocol;
all others are shown with what kept them out.

Ranks share ties (1, 2, 2, 4). The table's order is the mean rank over the protocol's metrics that have a direction.
Further metrics have ranks of their own that do not count; metrics without direction and controls have none. The best
group of a column is the best row and every row whose difference from it is not significant (paired sign-flip test, Holm
over the rows of the column): no difference was shown, which is not the same as being equal.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.protocols import PROTOCOLS
from eval.runs import CONTROLS, Run
from eval.scores import Scores
from eval.statistics import ALPHA, Resampling, estimate, holm, paired, view_correlation

__all__ = ["Cell", "Column", "Control", "Row", "Table", "tables"]

OTHER_WEIGHTS, OTHER_CARD, OFF_PROTOCOL = "other weights", "other version of the card", "off-protocol"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one run has of one metric.

    Attributes:
        value: mean over objects, unscaled; None where there is none.
        low, high: 95 % BCa interval; None where not available.
        half_width: of the closed-form 95 % interval; None where not available.
        n_objects: that the value is over.
        left_out: objects of the set without a value.
        view_correlation: how alike the views of one object are, 1 at most; None where not available.
        rank: among the ranked rows of the same card hash; None where not ranked.
        best_group: no significant difference from the best; None where no test was possible or nothing is ranked.
        note: ``other weights``, ``other version of the card``, ``off-protocol``, or why there is no value.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    half_width: float | None = None
    n_objects: int = 0
    left_out: tuple[str, ...] = ()
    view_correlation: float | None = None
    rank: int | None = None
    best_group: bool | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric.

    Attributes:
        name: ``id@version``.
        card: all fields of the card.
        hash: of the card with its weights; cells of another hash carry a note and no rank.
        weights: name -> SHA-256.
        required: the protocol asks for it.
        counts: part of the mean rank: required and with a direction.
    """

    name: str
    card: Mapping[str, Any]
    hash: str
    weights: Mapping[str, str]
    required: bool
    counts: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of the table.

    Attributes:
        method: its name.
        run: hash of the run's values.
        folder: name of the run's folder.
        coverage: e.g. ``35 of 35``.
        ranked: takes part in the ranks.
        why_not: sentences; empty where ranked.
        verified: its values were computed again from its frames and agreed (True) or not (False); None: nobody did.
        place: of the mean rank among the ranked rows, ties share; None where not ranked.
        mean_rank: over the columns that count.
        cells: metric name -> cell, one for every column.
    """

    method: str
    run: str
    folder: str
    coverage: str
    ranked: bool
    why_not: tuple[str, ...]
    verified: bool | None
    place: int | None = None
    mean_rank: float | None = None
    cells: Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Control:
    """What a control of a run scores; for reading the row beside it, never ranked."""

    method: str
    run: str
    variant: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Runs that may be compared.

    Attributes:
        key: short and safe in file names; depends on set, protocol and references only.
        title: protocol and set in words.
        protocol: {name, version, hash}.
        set: {name, hash, objects (how many)}.
        references: ``stills``, ``first-frame`` or ``none``.
        columns: the protocol's metrics in its order, then further ones by name.
        absent: metrics of the protocol that no run here has.
        rows: ranked ones by place, then the others by name.
        controls: in the order of the rows.
    """

    key: str
    title: str
    protocol: Mapping[str, str]
    set: Mapping[str, Any]
    references: str
    columns: tuple[Column, ...]
    absent: tuple[str, ...]
    rows: tuple[Row, ...]
    controls: tuple[Control, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For JSON; None stands for not available."""
        return dataclasses.asdict(self)


def tables(runs: Sequence[Run], resampling: Resampling | None = None) -> list[Table]:
    """Every table that these runs make, by protocol and set.

    Args:
        runs: finished runs, in any order; the same run twice counts once.
        resampling: of intervals and tests.
    """
    groups: dict[tuple[str, ...], dict[tuple[str, str], Run]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: (run.info["method"], run.info["hash"], str(run.folder))):
        info = run.info
        identity = (info["protocol"]["name"], info["set"]["name"], info["protocol"]["hash"], info["set"]["hash"])
        groups[(*identity, info["references"])].setdefault((info["method"], info["hash"]), run)
    return [_table(identity, list(group.values()), resampling) for identity, group in sorted(groups.items())]


def _table(identity: tuple[str, ...], runs: list[Run], resampling: Resampling | None) -> Table:
    scores = [Scores(run) for run in runs]
    required = _required(runs)
    faults = [_faults(entry, required) for entry in scores]
    columns = _columns(runs, [not found for found in faults], required)
    cells = [{column.name: _cell(entry, column, resampling) for column in columns} for entry in scores]
    for found, row in zip(faults, cells, strict=True):
        found += _gaps(columns, row) if not found else []
    ranked = [k for k, found in enumerate(faults) if not found]
    for column in columns:
        _rank(column, ranked, scores, cells, resampling)
    rows = _ordered(runs, faults, columns, cells)
    order = [(row.method, row.run) for row in rows]
    controls = [c for entry in sorted(scores, key=lambda s: order.index(_id(s.run))) for c in _controls(entry, columns)]
    first = runs[0].info
    protocol, chosen, references = first["protocol"], first["set"], first["references"]
    have, many = {column.name for column in columns}, len(chosen["objects"])
    return Table(
        key=f"{protocol['name']}-{hashlib.sha256(' '.join(identity).encode()).hexdigest()[:8]}",
        title=f"{protocol['name']} {protocol['version']}, {chosen['name']} ({many} objects), references: {references}",
        protocol=dict(protocol),
        set={"name": chosen["name"], "hash": chosen["hash"], "objects": many},
        references=references,
        columns=tuple(columns),
        absent=tuple(name for name in required if name not in have),
        rows=tuple(rows),
        controls=tuple(controls),
    )


def _id(run: Run) -> tuple[str, str]:
    return run.info["method"], run.info["hash"]


def _required(runs: list[Run]) -> list[str]:
    """The protocol's metrics; for a protocol that is not known here, those that all runs have."""
    rules = PROTOCOLS.get(runs[0].info["protocol"]["name"])
    if rules is not None and rules.hash == runs[0].info["protocol"]["hash"]:
        return list(rules.metrics)
    return sorted(set.intersection(*(set(run.info["cards"]) for run in runs)))


def _faults(scores: Scores, required: Iterable[str]) -> list[str]:
    """Why this run is not ranked, whatever others do."""
    info, found = scores.run.info, []
    if not info["ranked"]:
        found += info["why_not"] or ["the run says that it cannot be ranked"]
    else:  # What the run says of itself is checked against its tables.
        if info["coverage"]["missing"] or info["coverage"]["objects"] != len(scores.objects):
            found.append(f"has {info['coverage']['objects']} of {len(scores.objects)} objects")
        for metric in (name for name in required if name in info["cards"]):
            if scores.off_protocol(metric):
                found.append(f"{metric} was scored off the protocol")
            elif left := scores.means(metric).left_out:
                many = "the set" if left == ("",) else f"{len(left)} of {len(scores.objects)} objects ({_some(left)})"
                found.append(f"{metric} has no value for {many}")
    checked = scores.run.verification
    if checked is not None and not checked["passed"]:
        found.append("its values did not agree when they were computed again")
    return found


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _columns(runs: list[Run], sound: list[bool], required: Sequence[str]) -> list[Column]:
    """One column a metric; its card is the one that most of the sound runs share, of equally many the smallest hash."""
    named = {name for run in runs for name in run.info["cards"]}
    columns = []
    for name in [n for n in required if n in named] + sorted(named - set(required)):
        having = [(run, good) for run, good in zip(runs, sound, strict=True) if name in run.info["cards"]]
        votes = Counter(run.info["cards"][name]["hash"] for run, good in having if good or not any(sound))
        votes = votes or Counter(run.info["cards"][name]["hash"] for run, _ in having)
        chosen = min(votes, key=lambda value: (-votes[value], value))
        entry = next(run.info["cards"][name] for run, _ in having if run.info["cards"][name]["hash"] == chosen)
        card = entry["card"]
        counts = name in required and card["higher_is_better"] is not None
        columns.append(
            Column(
                name=name, card=card, hash=chosen, weights=entry["weights"], required=name in required, counts=counts
            )
        )
    return columns


def _cell(scores: Scores, column: Column, resampling: Resampling | None) -> Cell:
    entry = scores.run.info["cards"].get(column.name)
    if entry is None:
        return Cell(left_out=scores.objects, note=scores.reason(column.name) or "not scored")
    found = estimate(scores.means(column.name), resampling)
    note = ""
    if found.mean is None:
        note = scores.reason(column.name) or "not scored"
    elif entry["hash"] != column.hash:
        note = OTHER_WEIGHTS if dict(entry["weights"]) != dict(column.weights) else OTHER_CARD
    elif scores.off_protocol(column.name):
        note = OFF_PROTOCOL
    return Cell(
        value=found.mean,
        low=found.interval and found.interval.low,
        high=found.interval and found.interval.high,
        half_width=found.half_width,
        n_objects=found.n_objects,
        left_out=found.left_out,
        view_correlation=view_correlation(scores.rows(column.name)),
        note=note,
    )


def _gaps(columns: Sequence[Column], cells: Mapping[str, Cell]) -> list[str]:
    """What a sound row lacks of what others of the table have."""
    found = []
    for column in (column for column in columns if column.required):
        cell = cells[column.name]
        if cell.value is None:
            found.append(f"{column.name} is missing: {cell.note}")
        elif cell.note:
            found.append(f"{column.name} has {cell.note} than the other rows, so it cannot be ranked with them")
    return found


def _rank(
    column: Column,
    ranked: Iterable[int],
    scores: Sequence[Scores],
    cells: Sequence[dict[str, Cell]],
    resampling: Resampling | None,
) -> None:
    """Puts ranks and best group into the cells of one column."""
    name, higher = column.name, column.card["higher_is_better"]
    if higher is None:
        return
    fair = [k for k in ranked if (c := cells[k][name]).value is not None and not c.note and not c.left_out]
    # Nine digits: far below what a score is reproducible to, far above rounding.
    keys = {k: round(cells[k][name].value * (-1 if higher else 1), 9) for k in fair}
    fair.sort(key=lambda k: keys[k])
    tests: list[float | None] = [None] * len(fair)
    if len(fair) > 1 and column.card["level"] != "set":
        best = scores[fair[0]].means(name)
        tests[1:] = holm([paired(best, scores[k].means(name), resampling).p for k in fair[1:]])
    group = {k: None if p is None else p >= ALPHA for k, p in zip(fair, tests, strict=True)}
    if any(shown is not None for shown in group.values()):
        group[fair[0]] = True
    for k in fair:
        rank = 1 + sum(keys[other] < keys[k] for other in fair)
        cells[k][name] = dataclasses.replace(cells[k][name], rank=rank, best_group=group[k])


def _ordered(
    runs: Sequence[Run], faults: Sequence[list[str]], columns: Sequence[Column], cells: Sequence[Mapping[str, Cell]]
) -> list[Row]:
    counting = [column.name for column in columns if column.counts]
    mean_ranks: dict[int, float] = {}
    for k, found in enumerate(faults):
        ranks = [rank for name in counting if (rank := cells[k][name].rank) is not None]
        if not found and ranks:
            mean_ranks[k] = sum(ranks) / len(ranks)
    rows = []
    for k, run in enumerate(runs):
        info, mean_rank = run.info, mean_ranks.get(k)
        place = None if mean_rank is None else 1 + sum(other < mean_rank for other in mean_ranks.values())
        rows.append(
            Row(
                method=info["method"],
                run=info["hash"],
                folder=run.folder.name,
                coverage=f"{info['coverage']['objects']} of {info['coverage']['of']}",
                ranked=not faults[k],
                why_not=tuple(faults[k]),
                verified=None if run.verification is None else bool(run.verification["passed"]),
                place=place,
                mean_rank=mean_rank,
                cells=cells[k],
            )
        )
    return sorted(rows, key=lambda row: (not row.ranked, row.place or 0, row.method.casefold(), row.run))


def _controls(scores: Scores, columns: Iterable[Column]) -> list[Control]:
    found = []
    for variant in CONTROLS:
        cells = {}
        for column in (column for column in columns if column.name in scores.run.info["cards"]):
            means = scores.means(column.name, variant)
            if len(means.ids):
                cells[column.name] = Cell(
                    value=float(means.values.mean()), n_objects=len(means.ids), left_out=means.left_out
                )
        if cells:
            found.append(
                Control(method=scores.run.info["method"], run=scores.run.info["hash"], variant=variant, cells=cells)
            )
    return found
