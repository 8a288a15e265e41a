"""Smoothness and dynamics of the object alone, where the sources' figures are diluted by the background around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eval.cards import Card
from eval.metric import Metric, NotScored, Score, Subject
from eval.metrics.dynamic import SLOWEST, bit, measured_steps
from eval.metrics.smoothness import drawn_errors, smoothness
from eval.silhouettes import object_masks

__all__ = ["METRICS"]


def _smoothness(subject: Subject) -> Score:
    return smoothness(drawn_errors(subject, "object_error"))


def _dynamic(subject: Subject) -> Score:
    steps = measured_steps(subject, "raft-things")
    features = subject.features["raft-things"]
    if "object_top5" not in features:
        raise NotScored(
            "found no transparency that tells the object from the background, expected alpha; give frames with alpha"
        )
    seen = np.isfinite(features["object_top5"])
    if not seen.any():
        raise NotScored("found no object in any frame, expected opaque pixels; see the guard subject-lost")
    speeds = np.where(seen, features["object_top5"], 0.0)
    first = object_masks(subject.clip)[features["frames"][:-1][seen]]
    diameter = 2 * np.sqrt(first.sum(axis=(1, 2)).mean() / np.pi)
    score = bit(replace(steps, speeds=speeds, threshold=SLOWEST * float(diameter)))
    return replace(
        score, extra={**score.extra, "diameter_px": float(diameter), "pairs_without_object": float((~seen).sum())}
    )


_SMOOTHNESS = Card(
    id="motion_smoothness_object", version="mvvideo-1", title="Smooth (object)",
    formula="1 - mean_k mean |floor(255 * AMT(x_2k, x_2k+2)) - x_2k+1| / 255 over channels and the pixels with alpha"
    " > 127 in any of x_2k, x_2k+1, x_2k+2",
    preprocess="divided by 255; sides padded by repetition, centred, to a multiple of 16; full size on every machine",
    backbone="AMT-S, time 1/2, float32", weights=("amt-s",), low=0.0, high=1.0, higher_is_better=True, decimals=4,
    needs=("alpha",), min_frames=3, source="ours; motion_smoothness@vbench where the object is",
    failure_modes=(
        "A static video scores as high as anything can.",
        "Cutting to 8 bits costs about 0.002 even where the prediction is perfect.",
        "Flicker of the background is not seen.",
    ),
)  # fmt: skip
_DYNAMIC = Card(
    id="dynamic_object", version="mvvideo-1", title="Dynamic (object)",
    formula="1 if at least round(4 n / 16) of the steps j between n kept frames have m_j > 6 d / 256, else 0; m_j: mean"
    " of the largest floor(0.05 * pixels), at least one, of |RAFT(x_j, x_j+1)| where x_j has alpha > 127, 0 where"
    " nowhere; d: diameter of the circle with the mean area of alpha > 127; kept: every max(1, round(fps / 8))-th"
    " frame",
    preprocess="scaled to -1..1; sides padded by repetition, centred, to a multiple of 8",
    backbone="RAFT large, 20 updates, float32; torchvision's port of the authors' weights after Chairs and Things",
    weights=("raft-large-c-t-v1",), low=0.0, high=1.0, higher_is_better=None, needs=("alpha", "fps"), min_frames=3,
    source="ours; dynamic_degree@vbench-0.1.5 measured on the object and against its size",
    failure_modes=(
        "A camera that circles a still object scores 1.",
        "Noise and flicker on the object score 1 when they are strong enough.",
        "Only a bit: near the threshold it may flip between machines; extra.margin tells how near.",
    ),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    Metric(card=_SMOOTHNESS, score=_smoothness, extractors=("amt-s",)),
    Metric(card=_DYNAMIC, score=_dynamic, extractors=("raft-things",)),
)
