"""A metric: a card, the extractors whose features it reads, and a pure function from those to values.

A metric never loads, decodes or guesses. What it cannot score it refuses with `NotScored` and a sentence for the user;
the run records that as a missing value with its reason, never as zero or NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.cards import Card
from eval.extractor import Clip, Features

__all__ = ["Metric", "NotScored", "Score", "Subject"]


class NotScored(Exception):
    """This clip has no value of this metric; the text says what was found, what is needed and what to do."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value and what it was made of.

    Attributes:
        value: finite.
        frames: one value a frame or pair of frames, in time order, for the table of frames; or None.
        extra: further figures by name, e.g. the margin of a bit.
    """

    value: float
    frames: np.ndarray | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A clip with its features."""

    clip: Clip
    features: Mapping[str, Features]
    """Extractor name -> features of this clip."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """See the module.

    Attributes:
        card: what it means.
        extractors: names of those whose features ``score`` reads.
        score: for level ``video`` takes a `Subject`; for ``object`` the subjects of all views of one object; for
            ``set`` one subject a video of the whole set, with features only (their clip has no pixels).
    """

    card: Card
    score: Callable[[Subject], Score] | Callable[[Sequence[Subject]], Score]
    extractors: tuple[str, ...] = ()
