"""Metric cards: everything that decides what a score means, and its hash.

Two scores can be compared only where the hashes of their cards agree. A formula that changed over time is a card of
its own version, never a silent edit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal

__all__ = ["Card"]

Level = Literal["video", "object", "set"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a metric is, for people and for machines."""

    id: str
    """Short name, e.g. ``i2v_subject``."""
    version: str
    """Which of the definitions in use, e.g. ``vbench-2024-07``."""
    title: str
    """For tables, e.g. ``I2V``."""
    formula: str
    """The definition, in one or a few lines of plain text."""
    preprocess: str
    """What happens to a frame before the backbone: resize, filter, crop, scale, background."""
    backbone: str
    """The network and layer, or ``none``."""
    weights: tuple[str, ...] = ()
    """Names in `eval.weights`; empty for the offline metrics."""
    low: float | None = None
    """Smallest possible value; None where unbounded."""
    high: float | None = None
    """Largest possible value; None where unbounded."""
    higher_is_better: bool | None
    """None where neither direction is better (e.g. how much moves)."""
    scale: float = 1.0
    """What tables multiply with (the papers print some scores x100)."""
    decimals: int = 3
    """Digits after the point in tables."""
    needs: tuple[str, ...] = ()
    """Beyond frames: any of reference, prompt, alpha, truth, cameras, depth, fps."""
    min_frames: int = 1
    """Fewest frames of a video that give a value."""
    level: Level = "video"
    """What has a value: each video, each object (all its views), or the whole set."""
    source: str
    """Paper, repository and commit that the definition is taken from."""
    failure_modes: tuple[str, ...]
    """What the score rewards or misses though it should not; one sentence each."""

    @property
    def name(self) -> str:
        """``id@version``; how a run, a protocol and a table name the metric."""
        return f"{self.id}@{self.version}"

    def hash(self, weights_sha256: dict[str, str]) -> str:
        """SHA-256 of the card with the hashes of the weights it ran with.

        Args:
            weights_sha256: name -> SHA-256 of each of `weights`.

        Raises:
            KeyError: a weight without hash.
        """
        content = dataclasses.asdict(self) | {"weights": {name: weights_sha256[name] for name in self.weights}}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
