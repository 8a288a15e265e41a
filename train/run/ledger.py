"""Which clips went into which step, and the proof that each was seen once an epoch.

The ledger holds what the weights have seen: lines of steps that a killed run lost are cut when it goes on. One line a
step, in the order of positions, whatever the number of ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from manifests.errors import InputError
from train.run.monitor import append_lines, read_lines

__all__ = ["Entry", "check_ledger", "write_ledger"]

Entry = tuple[int, int, str, list[str]]
"""(step, position, clip id, ids of damaged clips that it stands for)."""

_SHOWN = 3


def write_ledger(path: Path, entries: Iterable[Entry]) -> None:
    """Appends what all ranks consumed since the last call, in any order, a line a step."""
    steps: dict[int, list[Entry]] = {}
    for entry in sorted(entries):
        steps.setdefault(entry[0], []).append(entry)
    append_lines(path, (_line(step, taken) for step, taken in steps.items()))


def check_ledger(run: Path) -> list[str]:
    """What speaks against "every clip once an epoch, in an unbroken line of steps".

    Args:
        run: folder of a run, finished or not.

    Returns:
        one sentence a problem; empty where there is none. Damaged clips that were replaced are no problem where the
        ledger names them; only whole epochs can miss one.

    Raises:
        InputError: no ledger there.
    """
    if not (run / "ledger.jsonl").exists():
        raise InputError(f"{run}: found no ledger.jsonl, expected the folder of a run; `mvv train --out` makes one")
    lines = read_lines(run / "ledger.jsonl")
    problems = _gaps(lines)
    seen = [(line["position"] + k, clip) for line in lines for k, clip in enumerate(line["clips"])]
    replaced = {clip for line in lines for clip in line.get("skipped", [])}
    spans = read_lines(run / "datasets.jsonl")
    for number, span in enumerate(spans):
        end = (
            spans[number + 1]["position"] if number + 1 < len(spans) else lines[-1]["position"] + 10**18 if lines else 0
        )
        part = [(place, clip) for place, clip in seen if span["position"] <= place < end]
        problems += _epochs(part, span["clips"], replaced)
    return problems


def _line(step: int, taken: Sequence[Entry]) -> dict[str, Any]:
    line = {"step": step, "position": taken[0][1], "clips": [clip for _, _, clip, _ in taken]}
    skipped = [clip for *_, skipped in taken for clip in skipped]
    return line | ({"skipped": skipped} if skipped else {})


def _gaps(lines: Sequence[dict[str, Any]]) -> list[str]:
    step, position, problems = 0, 0, []
    for line in lines:
        if (line["step"], line["position"]) != (step + 1, position):
            problems.append(
                f"step {line['step']}: found position {line['position']}, expected step {step + 1} at {position}"
            )
        step, position = line["step"], line["position"] + len(line["clips"])
    return problems


def _epochs(seen: Sequence[tuple[int, str]], clips: int, replaced: set[str]) -> list[str]:
    epochs: dict[int, list[str]] = {}
    for place, clip in seen:
        epochs.setdefault(place // clips, []).append(clip)
    every, problems = {clip for _, clip in seen} | replaced, []
    for epoch, ids in epochs.items():
        counts = Counter(ids)
        twice = sorted(clip for clip, count in counts.items() if count > 1)
        # A replaced clip's place was taken by another one, which then comes twice.
        if sum(counts[clip] - 1 for clip in twice) > len(replaced):
            problems.append(
                f"epoch {epoch}: found {len(twice)} clips twice, expected none: {', '.join(twice[:_SHOWN])}"
            )
        missing = sorted(every - replaced - set(ids)) if len(ids) == clips else []
        if missing:
            problems.append(f"epoch {epoch}: found {len(missing)} clips not seen: {', '.join(missing[:_SHOWN])}")
    return problems
