"""How much the object moves, from classical flow: no weights, and in units of the object instead of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.cards import Card
from eval.metric import Metric, NotScored, Score, Subject
from eval.silhouettes import has_silhouette, object_masks

__all__ = ["FASTEST", "METRICS", "ObjectFlow", "object_flow", "top_mean"]

FASTEST = 0.05
"""Share of the object's pixels that decide how fast it is; the share of the picture in VBench's dynamic degree."""


@dataclass(frozen=True, kw_only=True)
class ObjectFlow:
    """Flow on the object only.

    Attributes:
        pairs: numbers of the frames that show the object and have a next frame.
        magnitudes: of each such frame, (object pixels,) in pixels of the clip.
        diameter: of the circle with the object's mean area, in pixels of the clip. An area does not jump when a single
            stray pixel appears, as a bounding box does, and does not change when the object turns in the picture.
        from_alpha: the object is what alpha says; otherwise what differs from the colour of the border.
    """

    pairs: np.ndarray
    magnitudes: tuple[np.ndarray, ...]
    diameter: float
    from_alpha: bool


def object_flow(subject: Subject) -> ObjectFlow:
    """Reads the features of `flow-dis`.

    Raises:
        NotScored: a clip too short or too small for flow, or without an object.
    """
    clip, features = subject.clip, subject.features["flow-dis"]
    if clip.num_frames < 2:
        raise NotScored(f"found {clip.num_frames} frame, expected at least 2; give a longer video")
    if "flow" not in features:
        height, width = clip.size
        raise NotScored(f"found frames of {width}x{height}, expected at least 16 pixels a side; give larger frames")
    flow = features["flow"]
    masks = object_masks(clip, flow.shape[1:3])
    pairs = np.flatnonzero(masks[:-1].any(axis=(1, 2)))
    if not len(pairs):
        raise NotScored("found no object in any frame, expected opaque pixels or colours other than the border's")
    magnitudes = tuple(np.hypot(flow[t, ..., 0], flow[t, ..., 1])[masks[t]].astype(np.float64) for t in pairs)
    pixel = clip.size[0] * clip.size[1] / (flow.shape[1] * flow.shape[2])
    area = float(np.mean([len(values) for values in magnitudes])) * pixel
    return ObjectFlow(
        pairs=pairs, magnitudes=magnitudes, diameter=2 * float(np.sqrt(area / np.pi)), from_alpha=has_silhouette(clip)
    )


def top_mean(values: np.ndarray, share: float = FASTEST) -> float:
    """Mean of the largest ``share`` of the values, of at least one."""
    count = max(1, int(share * len(values)))
    return float(np.partition(values, len(values) - count)[-count:].mean())


def _flow_magnitude(subject: Subject) -> Score:
    found = object_flow(subject)
    frames = np.array([values.mean() for values in found.magnitudes])
    return Score(value=float(frames.mean()), frames=frames, extra=_extra(found, subject))


def _dynamic_object(subject: Subject) -> Score:
    fps = subject.clip.fps
    if fps is None:
        raise NotScored("found no frame rate, expected one; give --fps or a video that states it")
    found = object_flow(subject)
    frames = np.array([top_mean(values) for values in found.magnitudes]) * fps / found.diameter
    return Score(value=float(frames.mean()), frames=frames, extra=_extra(found, subject))


def _extra(found: ObjectFlow, subject: Subject) -> dict[str, float]:
    return {
        "diameter_px": found.diameter,
        "pairs_without_object": float(subject.clip.num_frames - 1 - len(found.pairs)),
        "object_from_alpha": float(found.from_alpha),
    }


_PREPROCESS = (
    "8-bit grey, shrunk by area until the shorter side is at most 256; object: alpha > 127, in videos without"
    " transparency pixels of which a channel differs from the border's median colour by more than 24"
)
_BACKBONE = "OpenCV DIS flow, preset medium, finest scale 0"
_SOURCE = "ours; flow: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016"
_FAILS = (
    "Noise and flicker on the object count as motion.",
    "A camera that moves around a still object counts as motion; the guard camera-only looks for it.",
    "Flow is unreliable on untextured surfaces and where a step is longer than parts of the object are wide.",
)

METRICS: tuple[Metric, ...] = (
    Metric(
        card=Card(
            id="flow_magnitude",
            version="dis",
            title="Flow",
            formula="mean_t mean_p |F_t(p)| over object pixels p, in pixels of the video a frame",
            preprocess=_PREPROCESS,
            backbone=_BACKBONE,
            low=0.0,
            higher_is_better=None,
            decimals=2,
            min_frames=2,
            source=_SOURCE,
            failure_modes=(*_FAILS, "Depends on the frame rate, the size of the picture and of the object in it."),
        ),
        score=_flow_magnitude,
        extractors=("flow-dis",),
    ),
    Metric(
        card=Card(
            id="dynamic_object",
            version="dis",
            title="Object speed",
            formula="mean_t (mean of the largest 5 % of |F_t(p)| over object pixels p) * fps / d; d: diameter of the"
            " circle with the object's mean area; in object diameters a second",
            preprocess=_PREPROCESS,
            backbone=_BACKBONE,
            low=0.0,
            higher_is_better=None,
            decimals=2,
            needs=("fps",),
            min_frames=2,
            source=_SOURCE,
            failure_modes=(*_FAILS, "A wrong frame rate scales it."),
        ),
        score=_dynamic_object,
        extractors=("flow-dis",),
    ),
)
