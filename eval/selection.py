"""Which metrics a run computes, decided before any work: by group or name, by the input, by the weights at hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from eval.items import Item
from eval.metric import Metric
from eval.metrics import METRICS
from eval.protocols import Protocol
from eval.weights import Store
from manifests.errors import InputError

__all__ = ["Selection", "named", "offline", "select", "weights_of"]

_REMEDIES = {
    "prompt": "give --prompts FILE or --set with prompts",
    "reference": "give --references PATH (stills: `mvv still MODEL --preset {preset}`)",
    "alpha": "give frames with transparency (RGBA images, or a dataset)",
    "truth": "give --truth PATH",
    "cameras": "give a dataset, whose cameras are known",
    "depth": "give a dataset rendered with --depth",
    "fps": "give --fps",
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The metrics of a run.

    Attributes:
        metrics: to be computed, in the order of the table.
        missing: metric name -> why it is not computed though it belongs to the row (weights that are absent).
        not_applicable: metric name -> what the input lacks.
        hashes: metric name -> hash of its card with the weights at hand.
        weights: weight name -> SHA-256.
    """

    metrics: tuple[Metric, ...]
    missing: Mapping[str, str]
    not_applicable: Mapping[str, str]
    hashes: Mapping[str, str]
    weights: Mapping[str, str]


def offline() -> tuple[str, ...]:
    """Names of the metrics that need no weights."""
    return tuple(name for name, metric in METRICS.items() if not metric.card.weights)


def named(wanted: str) -> tuple[str, ...]:
    """Metrics by ``offline`` or by names with commas between.

    Raises:
        InputError: a name that no card has.
    """
    if wanted == "offline":
        return offline()
    asked = [name for part in wanted.split(",") if (name := part.strip())]
    for name in asked:
        if name not in METRICS:
            near = get_close_matches(name, METRICS, 1)
            hint = f"did you mean {near[0]}?" if near else "`mvv eval cards` lists them"
            raise InputError(f"--metrics: found {name!r}, expected all, offline or names of cards; {hint}")
    return tuple(dict.fromkeys(asked))


def weights_of(metrics: Sequence[Metric], store: Store) -> dict[str, str]:
    """Weight name -> SHA-256 of all that the metrics need.

    Raises:
        InputError: some are absent; says which, and how to get them.
    """
    needed = sorted({weight for metric in metrics for weight in metric.card.weights})
    absent = [weight for weight in needed if not store.has(weight)]
    if absent:
        names = ", ".join(metric.card.name for metric in metrics if set(metric.card.weights) & set(absent))
        raise InputError(
            f"--metrics: found no weights for {names}, expected {', '.join(absent)}; run `mvv weights fetch "
            f"{' '.join(absent)}`, or `mvv weights add NAME FILE` where you have them, or take --metrics offline (a "
            "run also goes on without these metrics with --allow-missing)"
        )
    return {weight: store.sha256(weight) for weight in needed}


def select(
    wanted: str, rules: Protocol, items: Sequence[Item], store: Store, *, allow_missing: bool = False
) -> Selection:
    """Resolves ``--metrics``.

    Args:
        wanted: ``all`` (the protocol's, those beside it, the offline ones), ``offline``, or names with commas between.
        rules: the protocol.
        items: what is scored; decides which needs are met.
        store: the weights at hand.
        allow_missing: compute the rest where weights are absent.

    Raises:
        InputError: unknown names; a named or a protocol's metric that the input cannot give; absent weights.
    """
    names, demanded = _names(wanted, rules)
    lacking = _lacking(items)
    not_applicable = {
        name: f"the input has no {need}; {_REMEDIES[need].format(preset=rules.preset)}"
        for name in names
        for need in METRICS[name].card.needs
        if need in lacking
    }
    refused = {name: why for name, why in not_applicable.items() if name in demanded}
    if refused:
        raise InputError("\n".join(f"{name}: {why}" for name, why in refused.items()) + _narrow(wanted))
    names = [name for name in names if name not in not_applicable]
    absent = {name: [w for w in METRICS[name].card.weights if not store.has(w)] for name in names}
    absent = {name: weights for name, weights in absent.items() if weights}
    chosen = [METRICS[name] for name in names if not (allow_missing and name in absent)]
    weights = weights_of(chosen, store)
    if not chosen:
        raise InputError(
            f"--metrics: found nothing to compute in {wanted!r}, expected a metric with its needs met; add weights"
        )
    return Selection(
        metrics=tuple(chosen),
        missing={name: f"no weights {', '.join(absent[name])}" for name in absent},
        not_applicable=not_applicable,
        hashes={metric.card.name: metric.card.hash(dict(weights)) for metric in chosen},
        weights=weights,
    )


def _names(wanted: str, rules: Protocol) -> tuple[list[str], Collection[str]]:
    """All names, and those of them that must not be left out silently."""
    if wanted == "all":
        names = [*rules.metrics, *rules.beside, *offline()]
        return list(dict.fromkeys(names)), rules.metrics
    if wanted == "offline":
        return list(offline()), ()
    asked = list(named(wanted))
    return asked, asked


def _lacking(items: Sequence[Item]) -> set[str]:
    """Needs that no video of the input meets."""
    videos = [video for item in items for video in item.videos]
    has = {
        "prompt": any(item.prompt for item in items),
        "reference": any(item.references for item in items),
        "alpha": any(video.has_alpha for video in videos),
        "truth": any(item.truths for item in items),
        "cameras": any(video.c2w is not None for video in videos),
        "depth": any(video.read_depth is not None for video in videos),
        "fps": any(video.fps for video in videos),
    }
    return {need for need, met in has.items() if not met}


def _narrow(wanted: str) -> str:
    return "" if wanted != "all" else "\nor name the metrics to compute: --metrics offline, or NAME,NAME"
