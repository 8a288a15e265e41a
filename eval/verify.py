"""Checks a submitted run: a random part of it computed again from the frames, value against value.

What is drawn is not known beforehand (the seed is drawn when verifying, and recorded), so a row cannot be prepared for
it. The result lies beside the run and is bound to its hash: a run whose tables change is unverified again.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.extractor import Compute
from eval.items import Item
from eval.metric import Metric
from eval.metrics import METRICS
from eval.protocols import PROTOCOLS
from eval.run import load_extractors
from eval.runs import METHOD, Run
from eval.score import Scorer
from eval.weights import Store
from manifests.errors import InputError

__all__ = ["Verification", "verify"]

TOLERANCE = 1e-4
"""Largest difference of a value between machines: float32 networks on other processors."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found; written as verification.json.

    Attributes:
        passed: every drawn value agrees.
        checked: ids of the objects that were drawn.
        values: how many values were compared.
        worst: largest absolute difference.
        problems: one sentence each.
        seed: what drew the objects.
    """

    passed: bool
    checked: tuple[str, ...]
    values: int
    worst: float
    problems: tuple[str, ...]
    seed: int


def verify(
    run: Run, items: Sequence[Item], *, share: float = 0.1, at_least: int = 2, seed: int | None = None,
    store: Store | None = None, compute: Compute | None = None,
) -> Verification:  # fmt: skip
    """Computes a random part of a run again and writes verification.json.

    Args:
        run: the submitted run.
        items: its input, as it was given to the run (with references, prompts and truths).
        share: of the objects.
        at_least: objects, or all where there are fewer.
        seed: draws the objects; by default a fresh one.
        store: the weights; by default the user's.
        compute: device and batch size.

    Raises:
        InputError: another input, cards of another version, or weights with another hash.
    """
    store, by_id = store or Store(), {item.object_id: item for item in items}
    metrics = _metrics(run, store)
    drawable = sorted({row["object_id"] for row in run.table("inputs").to_pylist()})
    unknown = [object_id for object_id in drawable if object_id not in by_id]
    if unknown:
        raise InputError(
            f"INPUT: found no object {unknown[0]!r}, expected all of the run's; give the input that was scored"
        )
    seed = secrets.randbelow(2**32) if seed is None else seed
    count = min(len(drawable), max(at_least, round(share * len(drawable))))
    drawn = sorted(np.random.default_rng(seed).choice(drawable, size=count, replace=False).tolist())
    settings = run.info["settings"]
    scorer = Scorer(
        rules=PROTOCOLS[run.info["protocol"]["name"]], background=tuple(settings["background"]), metrics=metrics,
        extractors=load_extractors(metrics, store, compute or Compute()), seed=settings["seed"],
    )  # fmt: skip
    problems: list[str] = []
    values, worst = 0, 0.0
    for object_id in drawn:
        scored = scorer.score(by_id[object_id])
        problems += _input_problems(run, object_id, scored.rows["inputs"])
        more, apart, found = _value_problems(run, object_id, scored.rows["videos"])
        values, worst, problems = values + more, max(worst, apart), problems + found
    result = Verification(
        passed=not problems, checked=tuple(drawn), values=values, worst=worst, problems=tuple(problems[:100]), seed=seed
    )
    content = result.__dict__ | {
        "tolerance": TOLERANCE,
        "date": datetime.date.today().isoformat(),
        "hash": run.info["hash"],
    }
    (run.folder / "verification.json").write_text(json.dumps(content, indent=1) + "\n")
    return result


def _metrics(run: Run, store: Store) -> list[Metric]:
    """The run's metrics, provided that ours mean the same."""
    rules = run.info["protocol"]
    if rules["name"] not in PROTOCOLS or PROTOCOLS[rules["name"]].hash != rules["hash"]:
        raise InputError(
            f"{run.folder}: found protocol {rules['name']} {rules['hash'][:12]}, expected one of this version; use the "
            "version that made it"
        )
    metrics = []
    for name, entry in run.info["cards"].items():
        if name not in METRICS:
            raise InputError(
                f"{run.folder}: found metric {name}, expected cards of this version; use the version that made it"
            )
        card = METRICS[name].card
        ours = card.hash({weight: store.sha256(weight) for weight in card.weights})
        if ours != entry["hash"]:
            theirs = ", ".join(f"{weight} {digest[:12]}" for weight, digest in entry["weights"].items()) or "no weights"
            raise InputError(
                f"{run.folder}: found card {name} {entry['hash'][:12]} ({theirs}), expected {ours[:12]}; add the same "
                "weights (`mvv weights verify`) or use the version that made it"
            )
        metrics.append(METRICS[name])
    return metrics


def _input_problems(run: Run, object_id: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    stated = {row["view"]: row for row in run.table("inputs").to_pylist() if row["object_id"] == object_id}
    found = {row["view"]: row for row in rows}
    problems = [f"{object_id} {view}: in the run, not in the input" for view in sorted(stated.keys() - found.keys())]
    problems += [f"{object_id} {view}: in the input, not in the run" for view in sorted(found.keys() - stated.keys())]
    for view in sorted(stated.keys() & found.keys()):
        if stated[view]["sha256"] != found[view]["sha256"]:
            problems.append(f"{object_id} {view}: other frames than those that were scored")
    return problems


def _value_problems(run: Run, object_id: str, rows: Sequence[dict[str, Any]]) -> tuple[int, float, list[str]]:
    def key(row: dict[str, Any]) -> tuple[str, str, str]:
        return row["view"], row["variant"], row["metric"]

    stated = {key(row): row["value"] for row in run.videos if row["object_id"] == object_id}
    again = {key(row): row["value"] for row in rows}
    problems, values, worst = [], 0, 0.0
    for place in sorted(stated.keys() | again.keys()):
        ours, theirs = again.get(place), stated.get(place)
        values += 1
        apart = abs(ours - theirs) if ours is not None and theirs is not None else (0.0 if ours is theirs else np.inf)
        if apart > TOLERANCE:
            variant = "" if place[1] == METHOD else f" ({place[1]})"
            problems.append(f"{object_id} {place[0]} {place[2]}{variant}: found {ours}, the run states {theirs}")
        worst = max(worst, apart if np.isfinite(apart) else 0.0)
    return values, float(worst), problems
