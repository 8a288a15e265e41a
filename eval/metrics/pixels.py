"""Temporal flickering as VBench defines it: plain differences of neighbouring frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from eval.cards import Card
from eval.metric import Metric, NotScored, Score, Subject

__all__ = ["METRICS"]


def _temporal_flickering(subject: Subject) -> Score:
    images = subject.clip.frames
    if len(images) < 2:
        raise NotScored(f"found {len(images)} frame, expected at least 2; give a longer video")
    # |a - b| of bytes without a wider type: the larger minus the smaller.
    errors = np.array([(np.maximum(a, b) - np.minimum(a, b)).mean(dtype=np.float64) for a, b in pairwise(images)])
    return Score(value=float((255.0 - errors.mean()) / 255.0), frames=1.0 - errors / 255.0)


METRICS: tuple[Metric, ...] = (
    Metric(
        card=Card(
            id="temporal_flickering",
            version="vbench",
            title="Flicker",
            formula="1 - (1/255) mean_t mean_pixels,channels |I_t - I_t+1|",
            preprocess="none; 8-bit RGB at full size",
            backbone="none",
            low=0.0,
            high=1.0,
            higher_is_better=True,
            min_frames=2,
            source="VBench (CVPR 2024), github.com/Vchitect/VBench at 45e79ec, temporal_flickering",
            failure_modes=(
                "A frozen copy scores 1; on moving objects it is an inverted measure of motion.",
                "The background counts as much as the object, so small objects score higher.",
                "VBench applies it to clips that a flow filter found static; here no clip is filtered out.",
            ),
        ),
        score=_temporal_flickering,
    ),
)
