"""VBench's consistency within a video: subject by DINO, background by CLIP, each frame to the one before and the first.

Source: VBench, vbench/subject_consistency.py, background_consistency.py and utils.py at 45e79ec (2026-03-23); utils.py
says that nothing is anti-aliased since ee896a9 (2024-11-29).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from eval.cards import Card
from eval.metric import Metric, Score, Subject
from eval.metrics.backbones import CLIP, CLIP_FLOATS, DINO, DINO_SOURCE, OPEN_CLIP
from eval.metrics.feature_rows import adjacent_cosines, cosines, feature

__all__ = ["METRICS"]

_FORMULA = (
    "mean over t >= 1 of (max(0, cos(f_t, f_t-1)) + max(0, cos(f_t, f_0))) / 2; a set's score is the mean over videos"
)
_SUBJECT = Card(
    id="subject_consistency", version="vbench", title="Subject", formula=_FORMULA,
    preprocess="shorter side to 224 bilinear as float tensors without anti-aliasing, no crop, ImageNet mean and"
    " deviation; position codes interpolated where not square",
    **DINO, low=0.0, high=1.0, higher_is_better=True, min_frames=2,
    source=f"Vchitect/VBench 45e79ec, vbench/subject_consistency.py; {DINO_SOURCE}",
    failure_modes=(
        "A static video scores 1.",
        "Held against the first frame, whatever it shows: a wrong object that stays as it is scores high.",
        "In one process the source weighs the videos of a set by their frames, in several it does not.",
    ),
)  # fmt: skip
_BACKGROUND = Card(
    id="background_consistency", version="vbench", title="Background", formula=_FORMULA,
    preprocess=CLIP_FLOATS, **CLIP["b32"], low=0.0, high=1.0, higher_is_better=True, min_frames=2,
    source=f"Vchitect/VBench 45e79ec, vbench/background_consistency.py (in half precision on a GPU); {OPEN_CLIP}",
    failure_modes=(
        "A static video scores 1.",
        "Nothing masks the object: on a plain background it is the object's consistency once more.",
        "The source weighs the videos of a set by their frames.",
    ),
)  # fmt: skip


def _consistency(subject: Subject, extractor: str) -> Score:
    frames = feature(subject, extractor, "frames", frames=2)
    before = np.maximum(adjacent_cosines(frames), 0.0)
    first = np.maximum(cosines(frames[1:], frames[0]), 0.0)
    both = (before + first) / 2
    return Score(value=float(both.mean()), frames=both)


METRICS: tuple[Metric, ...] = tuple(
    Metric(card=card, extractors=(extractor,), score=partial(_consistency, extractor=extractor))
    for card, extractor in ((_SUBJECT, "dino@224"), (_BACKGROUND, "clip-b32@224"))
)
