"""Paired comparison of runs on the objects they share: every pair of runs, every metric that both have.

Two scores of one object have the object in common, which is most of what makes scores differ; the difference is
therefore taken object by object and tested by flipping signs. p values are corrected by Holm over all tests of the
comparison, so one of them being wrong has a probability of 0.05 at most.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from eval.protocols import PROTOCOLS
from eval.runs import Run
from eval.scores import Scores
from eval.statistics import ALPHA, NOT_AVAILABLE, Difference, Resampling, holm, paired
from manifests.errors import InputError

__all__ = ["Comparison", "Pair", "compare"]

SCHEMA = "mvvideo.comparison/1"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs on one metric.

    Attributes:
        metric: ``id@version``.
        first, second: labels of the runs.
        difference: first minus second, unscaled; None where refused.
        p_holm: corrected over all tests of the comparison; None where not available.
        better: label of the run that is better with ``p_holm`` below 0.05; "" where none is shown to be.
        refused: why the two cannot be compared; mostly empty.
    """

    metric: str
    first: str
    second: str
    difference: Difference | None = None
    p_holm: float | None = None
    better: str = ""
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All pairs.

    Attributes:
        runs: label -> {method, hash, objects}.
        cards: metric -> all fields of its card, as the first run that has it.
        protocol, set: as in the runs.
        num_tests: that the correction is over.
        pairs: by metric, in the protocol's order, then by runs as given.
    """

    runs: dict[str, dict[str, Any]]
    cards: dict[str, dict[str, Any]]
    protocol: dict[str, str]
    set: dict[str, str]
    num_tests: int
    pairs: tuple[Pair, ...]

    headings = (
        "metric", "first", "second", "objects", "left out", "first mean", "second mean", "difference", "95 % interval",
        "p", "p (Holm)", "smallest p", "detectable", "better",
    )  # fmt: skip
    """Of `lines`."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; None stands for not available."""
        return {"schema": SCHEMA, "alpha": ALPHA, **dataclasses.asdict(self)}

    def lines(self) -> list[tuple[str, ...]]:
        """One line of text a pair, as `headings` says, scaled and rounded as the cards ask."""
        return [_line(pair, self.cards[pair.metric]) for pair in self.pairs]

    def write(self, path: Path | str) -> None:
        """Writes all figures, unscaled and unrounded.

        Args:
            path: ends in .csv or .json; missing folders are made.

        Raises:
            InputError: another ending.
        """
        path = Path(path)
        if path.suffix not in (".csv", ".json"):
            raise InputError(f"--out: found {path.name!r}, expected a name that ends in .csv or .json; rename it")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", "utf-8")
            return
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(_flat(self.pairs[0])) if self.pairs else [])
            table.writeheader()
            table.writerows(_flat(pair) for pair in self.pairs)


def compare(runs: Sequence[Run], resampling: Resampling | None = None) -> Comparison:
    """Compares every run with every other.

    Args:
        runs: at least two, of one evaluation set, protocol and kind of references.
        resampling: of intervals and tests.

    Raises:
        InputError: fewer than two runs, or runs that nothing makes comparable.
    """
    if len(runs) < 2:
        raise InputError(f"runs: found {len(runs)}, expected at least two; name the folders of two finished runs")
    for run in runs[1:]:
        _agree(runs[0], run)
    labels = _labels(runs)
    scores = [Scores(run) for run in runs]
    metrics = _metrics(runs)
    pairs = [
        _pair(metric, labels[a], labels[b], scores[a], scores[b], resampling)
        for metric in metrics
        for a, b in combinations(range(len(runs)), 2)
        if any(metric in runs[k].info["cards"] for k in (a, b))
    ]
    corrected = holm([pair.difference.p if pair.difference else None for pair in pairs])
    cards = {name: next(r.info["cards"][name]["card"] for r in runs if name in r.info["cards"]) for name in metrics}
    info = runs[0].info
    return Comparison(
        runs={
            label: {"method": run.info["method"], "hash": run.info["hash"], "objects": run.info["coverage"]["objects"]}
            for label, run in zip(labels, runs, strict=True)
        },
        cards=cards,
        protocol=dict(info["protocol"]),
        set={"name": info["set"]["name"], "hash": info["set"]["hash"]},
        num_tests=sum(p is not None for p in corrected),
        pairs=tuple(_decided(pair, p, cards[pair.metric]) for pair, p in zip(pairs, corrected, strict=True)),
    )


def _agree(first: Run, second: Run) -> None:
    for what, one, other in (
        ("evaluation set", first.info["set"]["hash"], second.info["set"]["hash"]),
        ("protocol", first.info["protocol"]["hash"], second.info["protocol"]["hash"]),
        ("references", first.info["references"], second.info["references"]),
    ):
        if one != other:
            raise InputError(
                f"{second.folder}: found {what} {other[:12]}, expected {one[:12]} as in {first.folder}; "
                "compare runs that were made on the same set by the same protocol"
            )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Methods; with the folder's name where a method comes twice, and a number where that does not tell them apart."""
    names = [run.info["method"] for run in runs]
    names = [
        f"{name} ({run.folder.name})" if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)
    ]
    return [f"{name} #{names[:k].count(name) + 1}" if names.count(name) > 1 else name for k, name in enumerate(names)]


def _metrics(runs: Sequence[Run]) -> list[str]:
    named = {name for run in runs for name in run.info["cards"]}
    rules = PROTOCOLS.get(runs[0].info["protocol"]["name"])
    first = [name for name in (rules.metrics if rules else ()) if name in named]
    return first + sorted(named - set(first))


def _pair(
    metric: str, first: str, second: str, one: Scores, other: Scores, resampling: Resampling | None
) -> Pair:  # fmt: skip
    pair = Pair(metric=metric, first=first, second=second)
    if refused := _refusal(metric, {first: one, second: other}):
        return dataclasses.replace(pair, refused=refused)
    # A set-level metric is one value: with one object in common, no interval and no test come out.
    return dataclasses.replace(pair, difference=paired(one.means(metric), other.means(metric), resampling))


def _refusal(metric: str, scores: dict[str, Scores]) -> str:
    """Why two runs cannot be compared on a metric; empty where they can."""
    entries = [entry.run.info["cards"].get(metric) for entry in scores.values()]
    for label, entry in zip(scores, entries, strict=True):
        if entry is None:
            return f"{label} has no value: {scores[label].reason(metric) or 'not scored'}"
    if entries[0]["hash"] != entries[1]["hash"]:
        what = "weights" if entries[0]["weights"] != entries[1]["weights"] else "versions of the card"
        return f"the two were scored with different {what}; score both with the same"
    off = [label for label, entry in scores.items() if entry.off_protocol(metric)]
    if len(off) == 1:
        return f"{off[0]} was scored off the protocol, the other on it"
    seen = [{view for _, view, _ in entry.rows(metric)} for entry in scores.values()]
    return "the two were scored on different views" if seen[0] != seen[1] else ""


def _decided(pair: Pair, p_holm: float | None, card: dict[str, Any]) -> Pair:
    higher, better = card["higher_is_better"], ""
    if p_holm is not None and p_holm < ALPHA and higher is not None:
        better = pair.first if (pair.difference.mean > 0) == higher else pair.second
    return dataclasses.replace(pair, p_holm=p_holm, better=better)


def _line(pair: Pair, card: dict[str, Any]) -> tuple[str, ...]:
    scale, decimals, found = card["scale"], card["decimals"], pair.difference
    who = (pair.metric, pair.first, pair.second)
    if found is None:
        return (*who, *[""] * 10, f"refused: {pair.refused}")

    def number(value: float | None, sign: str = "") -> str:
        return NOT_AVAILABLE if value is None else f"{value * scale:{sign}.{decimals + 1}f}"

    def chance(p: float | None) -> str:
        return NOT_AVAILABLE if p is None else f"{p:.4f}"

    interval = found.interval
    verdict = pair.better or ("none shown" if pair.p_holm is not None else NOT_AVAILABLE)
    if card["higher_is_better"] is None:
        verdict = "no direction"
    return (
        *who, str(found.n_objects), str(len(found.left_out)), number(found.first_mean), number(found.second_mean),
        number(found.mean, "+"),
        f"{number(interval.low, '+')} to {number(interval.high, '+')}" if interval else NOT_AVAILABLE,
        chance(found.p), chance(pair.p_holm), chance(found.smallest_p), number(found.detectable),
        verdict,
    )  # fmt: skip


def _flat(pair: Pair) -> dict[str, Any]:
    found, interval = pair.difference, pair.difference and pair.difference.interval
    figures = {
        "objects": found and found.n_objects,
        "left_out": " ".join(found.left_out) if found else None,
        "first_mean": found and found.first_mean,
        "second_mean": found and found.second_mean,
        "difference": found and found.mean,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "percentile_low": interval and interval.percentile_low,
        "percentile_high": interval and interval.percentile_high,
        "p": found and found.p,
        "p_holm": pair.p_holm,
        "smallest_p": found and found.smallest_p,
        "detectable": found and found.detectable,
    }
    figures = {name: NOT_AVAILABLE if value is None else value for name, value in figures.items()}
    who = {"metric": pair.metric, "first": pair.first, "second": pair.second}
    return who | figures | {"better": pair.better, "refused": pair.refused}
