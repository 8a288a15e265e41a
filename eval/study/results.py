"""Preference shares with intervals, differences between methods, and agreement: what a study's answers say.

A share is the part of all judgements of a criterion in which a method was called the best. Judgements of one rater
resemble each other, and so do those of one object; intervals therefore draw raters and objects, each with replacement
and independently (the pigeonhole bootstrap: A. Owen, Annals of Applied Statistics 1 (2007); rather too wide than too
narrow). Wilson's interval, which takes all judgements for independent, stands beside it and is too narrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from eval.study.agreement import fleiss_kappa, krippendorff_alpha
from eval.study.answers import Judgement, Rater, Rules, read_answers
from eval.study.design import CRITERIA, read_key
from manifests.errors import InputError

__all__ = ["MIN_OBJECTS", "MIN_RATERS", "SCHEMA", "Difference", "Share", "StudyResult", "score", "write_result"]

SCHEMA = "mvvideo.study-result/1"
MIN_RATERS = 3
"""Fewer give shares, but no interval and no agreement."""
MIN_OBJECTS = 3
"""As for raters."""
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often a method was called the best on a criterion.

    Attributes:
        criterion, method: which.
        votes, of: judgements for the method, and in all.
        share: votes / of.
        low, high: 95 % interval over raters and objects; None where not available.
        wilson_low, wilson_high: Wilson's, for independent judgements.
    """

    criterion: str
    method: str
    votes: int
    of: int
    share: float
    low: float | None
    high: float | None
    wilson_low: float
    wilson_high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Share of ``first`` minus share of ``second``, with its interval over raters and objects."""

    criterion: str
    first: str
    second: str
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What came out.

    Attributes:
        study: its id.
        methods: names.
        shares: of each criterion and method.
        differences: of each criterion and pair of methods.
        kappa, alpha: criterion -> Fleiss' kappa and Krippendorff's alpha over objects; None where not available.
        raters: all who answered; those with reasons are not counted.
        refused: (file, reason).
        counted_raters, counted_objects: what the figures are over.
        not_available: why intervals and agreement are missing; "" where they are there.
        about: of the study: title, protocol, set, runs.
    """

    study: str
    methods: tuple[str, ...]
    shares: tuple[Share, ...]
    differences: tuple[Difference, ...]
    kappa: Mapping[str, float | None]
    alpha: Mapping[str, float | None]
    raters: tuple[Rater, ...]
    refused: tuple[tuple[str, str], ...]
    counted_raters: int
    counted_objects: int
    not_available: str
    about: Mapping[str, Any]


def score(
    files: Sequence[Path | str], key: Path | str, *, rules: Rules | None = None, draws: int = 4000, seed: int = 0
) -> StudyResult:
    """Scores the answers to a study.

    Args:
        files: as raters sent them; those that do not fit are listed and not used.
        key: what `mvv eval study make` wrote beside the site.
        rules: which raters are counted.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: no key, or no file that can be used.
    """
    if not files:
        raise InputError("ANSWERS: found none, expected at least one file that a rater saved")
    plan = read_key(key)
    read = read_answers(files, plan, rules)
    if not read.raters:
        told = "\n".join(f"{name}: {reason}" for name, reason in read.refused)
        raise InputError(f"ANSWERS: found no file that can be used, expected answers to study {plan.study}\n{told}")
    votes = _votes(read.judgements, plan.methods)
    raters, objects = votes.shape[1:3]
    missing = _why_not(raters, objects)
    weights = None if missing else _weights(raters, objects, draws, np.random.default_rng(seed))
    shares, differences = [], []
    for criterion, table in zip(CRITERIA, votes, strict=True):
        found = _shares(criterion.id, table, plan.methods, weights)
        shares += found[0]
        differences += found[1]
    counts = votes.sum(1)  # criterion, object, method
    agree = dict(zip((criterion.id for criterion in CRITERIA), counts, strict=True))
    return StudyResult(
        study=plan.study, methods=plan.methods, shares=tuple(shares), differences=tuple(differences),
        kappa={id: None if missing else fleiss_kappa(table) for id, table in agree.items()},
        alpha={id: None if missing else krippendorff_alpha(table) for id, table in agree.items()},
        raters=read.raters, refused=read.refused, counted_raters=raters, counted_objects=objects, not_available=missing,
        about=plan.about,
    )  # fmt: skip


def write_result(result: StudyResult, path: Path | str) -> None:
    """Writes all of it as JSON; what is not available is null with its reason in ``not_available``."""
    text = json.dumps({"schema": SCHEMA, **asdict(result)}, indent=1, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _votes(judgements: Sequence[Judgement], methods: Sequence[str]) -> np.ndarray:
    """(criterion, rater, object, method) counts."""
    raters = sorted({judgement.rater for judgement in judgements})
    objects = sorted({judgement.object_id for judgement in judgements})
    axes = [{name: k for k, name in enumerate(names)} for names in (_criteria(), raters, objects, methods)]
    votes = np.zeros([len(axis) for axis in axes])
    for one in judgements:
        places = zip(axes, (one.criterion, one.rater, one.object_id, one.method), strict=True)
        votes[tuple(axis[name] for axis, name in places)] += 1
    return votes


def _criteria() -> list[str]:
    return [criterion.id for criterion in CRITERIA]


def _why_not(raters: int, objects: int) -> str:
    if raters < MIN_RATERS:
        return f"{raters} raters are counted, at least {MIN_RATERS} are needed"
    if objects < MIN_OBJECTS:
        return f"{objects} objects were judged, at least {MIN_OBJECTS} are needed"
    return ""


def _weights(raters: int, objects: int, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How often each draw has each rater, and each object: (draw, rater) and (draw, object)."""
    return tuple(rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64) for n in (raters, objects))


def _shares(
    criterion: str, votes: np.ndarray, methods: Sequence[str], weights: tuple[np.ndarray, np.ndarray] | None
) -> tuple[list[Share], list[Difference]]:
    """Of one criterion; votes are (rater, object, method)."""
    total = votes.sum((0, 1))
    of = int(total.sum())
    if not of:
        return [], []
    drawn = None
    if weights is not None:
        sums = np.einsum("br,rom,bo->bm", weights[0], votes, weights[1], optimize=True)
        drawn = sums[sums.sum(1) > 0]  # a draw may hold no judgement at all where few raters share few objects
        drawn = drawn / drawn.sum(1, keepdims=True)
    shares, differences = [], []
    for k, method in enumerate(methods):
        low, high = _interval(None if drawn is None else drawn[:, k])
        wilson_low, wilson_high = _wilson(total[k], of)
        shares.append(
            Share(
                criterion=criterion, method=method, votes=int(total[k]), of=of, share=float(total[k] / of),
                low=low, high=high, wilson_low=wilson_low, wilson_high=wilson_high,
            )
        )  # fmt: skip
    for a, b in combinations(range(len(methods)), 2):
        low, high = _interval(None if drawn is None else drawn[:, a] - drawn[:, b])
        difference = float((total[a] - total[b]) / of)
        differences.append(
            Difference(
                criterion=criterion, first=methods[a], second=methods[b], difference=difference, low=low, high=high
            )
        )
    return shares, differences


def _interval(values: np.ndarray | None) -> tuple[float | None, float | None]:
    if values is None:
        return None, None
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _wilson(votes: float, of: int) -> tuple[float, float]:
    """E. Wilson, JASA 22 (1927)."""
    z2 = float(ndtri((1 + _LEVEL) / 2)) ** 2
    center = (votes + z2 / 2) / (of + z2)
    half = np.sqrt(z2) * np.sqrt(votes * (of - votes) / of + z2 / 4) / (of + z2)
    return float(center - half), float(center + half)
