"""What the silhouette alone can tell: agreement with the truth's, and how steady it is. Both want real alpha."""

from __future__ import annotations

import numpy as np

from eval.cards import Card
from eval.extractor import Clip
from eval.metric import Metric, NotScored, Score, Subject
from eval.silhouettes import OPAQUE, has_silhouette

__all__ = ["METRICS", "ious"]


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (frame,) of masks (frame, height, width); 1 where both are empty."""
    both = np.count_nonzero(a & b, axis=(1, 2))
    either = np.count_nonzero(a | b, axis=(1, 2))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def _mask_iou(subject: Subject) -> Score:
    clip = subject.clip
    _needs_silhouette(clip)
    if clip.truth_alpha is None:
        raise NotScored("found no ground truth with transparency, expected one; only our own dataset brings it")
    if clip.truth_alpha.shape != clip.alpha.shape:
        raise NotScored(
            f"found {clip.alpha.shape} against a truth of {clip.truth_alpha.shape} (frame, height, width), expected the"
            " same; make the video with the truth's frames and size"
        )
    frames = ious(clip.alpha > OPAQUE, clip.truth_alpha > OPAQUE)
    return Score(value=float(frames.mean()), frames=frames)


def _mask_stability(subject: Subject) -> Score:
    clip = subject.clip
    _needs_silhouette(clip)
    if clip.num_frames < 2:
        raise NotScored(f"found {clip.num_frames} frame, expected at least 2; give a longer video")
    masks = clip.alpha > OPAQUE
    areas = np.count_nonzero(masks, axis=(1, 2))
    if not areas.any():
        raise NotScored("found no opaque pixel in any frame, expected an object; check the alpha channel")
    frames = ious(masks[:-1], masks[1:])
    extra = {"area_variation": float(areas.std() / areas.mean()), "area_least": float(areas.min() / areas.max())}
    return Score(value=float(frames.mean()), frames=frames, extra=extra)


def _needs_silhouette(clip: Clip) -> None:
    if clip.alpha is None:
        raise NotScored("found no transparency, expected frames with alpha; deliver RGBA frames or video")
    if not has_silhouette(clip):
        raise NotScored("found alpha that is opaque everywhere, expected a transparent background; deliver RGBA frames")


METRICS: tuple[Metric, ...] = (
    Metric(
        card=Card(
            id="mask_iou",
            version="truth",
            title="Mask IoU",
            formula="mean_t |M_t and G_t| / |M_t or G_t|; 1 where both are empty",
            preprocess="M, G: alpha > 127 of the video and of the ground truth, at full size",
            backbone="none",
            low=0.0,
            high=1.0,
            higher_is_better=True,
            needs=("alpha", "truth"),
            source="Jaccard index, frame by frame",
            failure_modes=(
                "Colours inside the silhouette do not count.",
                "A motion that is as good as the truth's but another one scores low.",
                "A frozen copy scores high where the truth moves little.",
            ),
        ),
        score=_mask_iou,
    ),
    Metric(
        card=Card(
            id="mask_stability",
            version="mvvideo-1",
            title="Mask stability",
            formula="mean_t |M_t and M_t+1| / |M_t or M_t+1|; beside it std/mean and min/max of the area |M_t|",
            preprocess="M: alpha > 127, at full size",
            backbone="none",
            low=0.0,
            high=1.0,
            higher_is_better=None,
            needs=("alpha",),
            min_frames=2,
            source="ours",
            failure_modes=(
                "A frozen copy scores 1.",
                "Fast motion lowers it as flicker of the silhouette does; the variation of the area tells them apart.",
            ),
        ),
        score=_mask_stability,
    ),
)
