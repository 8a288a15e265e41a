"""Dynamic degree: the bit that says whether enough of the steps between frames move enough, and its margin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from eval.cards import Card
from eval.extractors.sampling import flow_interval
from eval.metric import Metric, NotScored, Score, Subject

__all__ = ["METRICS", "SLOWEST", "Steps", "bit", "measured_steps", "needed_steps"]

SLOWEST = 6.0 / 256
"""A step moves when its fastest pixels go further than this share of the picture's (or the object's) size."""
FEWEST = 3
"""Kept frames below which there is no value: VBench says 0 for one and, whatever they show, 1 for two."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What decides the bit.

    Attributes:
        speeds: of each step, mean of its fastest 5 % of pixels, in pixels.
        threshold: what a speed must exceed, pixels.
        needed: how many must.
    """

    speeds: np.ndarray
    threshold: float
    needed: int

    @property
    def margin(self) -> float:
        """Speed of the step that decides over the threshold: above 1 where the bit is 1, near 1 where it may flip."""
        return float(np.sort(self.speeds)[-self.needed] / self.threshold)


def needed_steps(num_frames: int) -> int:
    """How many of the steps between ``num_frames`` kept frames must move: a quarter of the frames, half to even."""
    return round(4 * (num_frames / 16.0))


def measured_steps(subject: Subject, extractor: str) -> Steps:
    """The steps of a clip as VBench looks at them.

    Raises:
        NotScored: no fps, too few kept frames, frames too small for the network, or NaN from it.
    """
    clip, features = subject.clip, subject.features[extractor]
    if clip.fps is None:
        raise NotScored(
            "found no frame rate, expected one, because flow is measured at about 8 frames a second; give --fps or a"
            " video that states it"
        )
    interval = flow_interval(clip.fps)
    kept = len(range(0, clip.num_frames, interval))
    if kept < FEWEST:
        raise NotScored(
            f"found {kept} frames (of {clip.num_frames} at {clip.fps:g} a second, one in {interval}), expected at least"
            f" {FEWEST}; give a longer video"
        )
    if "top5" not in features:
        height, width = clip.size
        raise NotScored(
            f"found frames of {width}x{height}, expected at least 121 pixels a side, below which the network divides by"
            " zero; give larger frames"
        )
    speeds = features["top5"]
    if not np.isfinite(speeds).all():
        raise NotScored(
            f"found NaN or infinity from {extractor}, expected numbers; check its file with `mvv weights verify`"
        )
    return Steps(speeds=speeds, threshold=SLOWEST * min(clip.size), needed=needed_steps(kept))


def bit(steps: Steps) -> Score:
    """1 where enough steps move enough, else 0."""
    value = float(np.count_nonzero(steps.speeds > steps.threshold) >= steps.needed)
    return Score(value=value, frames=steps.speeds, extra={"margin": steps.margin, "threshold_px": steps.threshold})


def _dynamic_degree(subject: Subject, extractor: str) -> Score:
    return bit(measured_steps(subject, extractor))


def _without_guard(subject: Subject) -> Score:
    fps = subject.clip.fps
    if fps is not None and round(fps / 8) == 0:
        raise NotScored(
            f"found {fps:g} frames a second, expected more than 4, because this version keeps one in round(fps / 8) = 0"
            " frames and stops; use dynamic_degree@vbench-0.1.5"
        )
    return _dynamic_degree(subject, "raft-things")


def _margin(subject: Subject) -> Score:
    steps = measured_steps(subject, "raft-things")
    return Score(value=steps.margin, frames=steps.speeds / steps.threshold, extra={"threshold_px": steps.threshold})


_FORMULA = (
    "1 if at least round(4 n / 16) of the steps j between n kept frames have m_j > 6 min(height, width) / 256, else 0;"
    " m_j: mean of the largest floor(0.05 * padded pixels) of |RAFT(x_j, x_j+1)|; kept: every {interval}-th frame"
)
_VBENCH = Card(
    id="dynamic_degree", version="vbench-0.1.5", title="Dynamic",
    formula=_FORMULA.format(interval="max(1, round(fps / 8))"),
    preprocess="scaled to -1..1; sides padded by repetition, centred, to a multiple of 8",
    backbone="RAFT large, 20 updates, float32; torchvision's port of the authors' weights after Chairs and Things",
    weights=("raft-large-c-t-v1",), low=0.0, high=1.0, higher_is_better=None, needs=("fps",), min_frames=FEWEST,
    source="Vchitect/VBench 0.1.5 and 45e79ec, dynamic_degree.py; torchvision 0.29 raft_large C_T_V1",
    failure_modes=(
        "A camera that circles a still object scores 1.",
        "Noise and flicker score 1 when they are strong enough.",
        "An object smaller than 5 % of the picture is diluted by the background.",
        "Only a bit: near the threshold it may flip between machines; extra.margin tells how near.",
    ),
)  # fmt: skip
_OLD = replace(
    _VBENCH, version="vbench-0.1.4", title="Dynamic 0.1.4", formula=_FORMULA.format(interval="round(fps / 8)"),
    source="Vchitect/VBench 0.1.2 and 0.1.4, dynamic_degree.py; torchvision 0.29 raft_large C_T_V1",
)  # fmt: skip
_DEFAULT = replace(
    _VBENCH, version="raft-default", title="Dynamic RAFT+", weights=("raft-large-c-t-skht-v2",),
    backbone="RAFT large, 20 updates, float32; torchvision's default weights, trained further on Sintel, KITTI, HD1K",
    source="Vchitect/VBench 45e79ec, dynamic_degree.py; torchvision 0.29 raft_large C_T_SKHT_V2",
)  # fmt: skip
_MARGIN = replace(
    _VBENCH, id="dynamic_margin", version="mvvideo-1", title="Margin", decimals=2, high=None,
    formula="the round(4 n / 16)-th largest m_j over 6 min(height, width) / 256, with n, m_j and the kept frames of"
    " dynamic_degree@vbench-0.1.5, whose bit is 1 where this is above 1",
    source="ours; VBench's statistic before it becomes a bit", failure_modes=_VBENCH.failure_modes[:3],
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    Metric(card=_VBENCH, score=partial(_dynamic_degree, extractor="raft-things"), extractors=("raft-things",)),
    Metric(card=_OLD, score=_without_guard, extractors=("raft-things",)),
    Metric(card=_DEFAULT, score=partial(_dynamic_degree, extractor="raft-default"), extractors=("raft-default",)),
    Metric(card=_MARGIN, score=_margin, extractors=("raft-things",)),
)
