"""Guards: what a video looks like when its scores mean nothing. A row that fails one is shown and not ranked.

Five checks a video, from its pixels and from classical flow on the object. They are coarse on purpose: a guard fails
only what is plainly degenerate, and a row only where more than half of its videos fail.

What one video cannot tell apart, and therefore no guard does:

- An object that really turns about its middle, and a camera that circles it: both fail ``camera-only``. A body that
  bends as that turn would shift its relief can fail it too. Of 47 rendered orbits of 1 to 8 degrees a frame 43
  fail, of 126 clips with real motion two: an animal that turns while it walks, a bird that flaps towards the camera.
- A frozen object that slides, and a camera that moves sideways or comes closer: both pass. Objects do slide.
- An orbit of more than about 10 degrees a frame is too fast for the flow, a smooth object without texture gives it
  nothing to hold on to; both pass.
- Motion of less than about a third of a pixel at 256 pixels, and stillness: both fail ``static``. So do, without
  transparency, frames that are held and then so far apart that flow cannot follow.
- Without transparency, contrasting things that flicker beside the object, and the object: ``background-flicker`` then
  sees only what is faint or fills the whole border.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation

from eval.extractor import Clip, Features
from eval.metric import NotScored, Subject
from eval.metrics.classical_motion import object_flow, top_mean
from eval.orbit_motion import fit_orbit
from eval.silhouettes import has_silhouette, object_masks, sampled
from manifests.cameras import intrinsics

__all__ = ["GUARDS", "Guard", "Limits", "check", "failing"]

GUARDS = ("blank", "static", "subject-lost", "background-flicker", "camera-only")
"""In the order in which `check` gives them."""

_MOST = 0.5
"""Share of bad frames in a video, and of bad videos in a row, above which the whole is bad."""
_FOV_Y_DEG = 40.0
"""Of a camera that is not known; that of every preset."""
_BORDER_PX = 4
"""Width of the rim that counts as background, and of the zone around the object that does not."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where each guard draws its line, and why there."""

    object_area: float = 0.001
    """Smallest share of the picture that still is an object; 8x8 pixels of 256x256."""
    object_contrast: float = 1.0
    """Standard deviation of grey levels on the object below which it is one colour; the faintest shading has more."""
    motion: float = 0.003
    """Least motion, object diameters a frame: a third of a pixel on an object of 110; noise of 8 levels gives 0.002."""
    outline: float = 0.02
    """Mean change of the outline (1 - IoU of consecutive masks) that is motion even where flow cannot follow it, as of
    frames held and then far apart. Only with transparency; noise on an object leaves its alpha alone."""
    area_kept: float = 0.2
    """Smallest area, of that in frame 0; a flat animal that turns edge-on keeps more, a vanishing one does not."""
    similarity_kept: float = 0.3
    """Smallest cosine to the reference, where features are at hand; so low that only another picture falls below."""
    background_change: float = 2.0
    """Most mean change beside the object in levels a frame; codecs stay below 1 on flat colour."""
    orbit_left_over: float = 0.11
    """Least part of the motion that no orbit of the camera explains; orbits leave 0.03 to 0.1, animals over 0.15."""
    orbit_spread: float = 0.3
    """Least motion of the median point, of the fastest; a camera moves all of an object, a wagging tail only itself."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What one guard found in one video.

    Attributes:
        guard: one of `GUARDS`.
        failed: it found what it looks for.
        value: the figure that decided; None where it could not be computed, which is no failure.
        limit: what it was held against.
        detail: one sentence.
    """

    guard: str
    failed: bool
    value: float | None
    limit: float
    detail: str

    def row(self) -> dict[str, Any]:
        """Its columns in guards.parquet."""
        value = None if self.value is None else float(self.value)
        return dataclasses.asdict(self) | {"failed": bool(self.failed), "value": value}


def check(
    clip: Clip, flow: Features, *, similarity: np.ndarray | None = None, limits: Limits | None = None
) -> list[Guard]:
    """All guards on one video.

    Args:
        clip: of the method or of a control.
        flow: the clip's features of ``flow-dis``.
        similarity: (frame,) cosine of each frame's features to the reference's; None where there are none.
        limits: None for the defaults.

    Returns:
        one finding a guard, in the order of `GUARDS`.
    """
    limits = limits or Limits()
    grid = flow["flow"].shape[1:3] if "flow" in flow else clip.size
    masks = object_masks(clip, grid)
    static = _static(clip, flow, masks, limits)
    return [
        _blank(sampled(clip.frames, grid), masks, limits),
        static,
        _subject_lost(masks, similarity, limits),
        _background_flicker(clip, sampled(clip.frames, grid), masks, limits),
        _camera_only(clip, flow, masks, static, limits),
    ]


def failing(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The guards that a whole row of the leaderboard fails: those that more than half of its videos fail.

    Args:
        rows: of guards.parquet, of one variant.

    Returns:
        guard -> share of the videos that fail it, in the order of `GUARDS`.
    """
    found: dict[str, list[bool]] = {}
    for row in rows:
        found.setdefault(row["guard"], []).append(row["failed"])
    shares = {guard: sum(found[guard]) / len(found[guard]) for guard in GUARDS if guard in found}
    return {guard: share for guard, share in shares.items() if share > _MOST}


def _blank(frames: np.ndarray, masks: np.ndarray, limits: Limits) -> Guard:
    bad = 0
    for frame, mask in zip(frames, masks, strict=True):
        bad += mask.mean() < limits.object_area or frame[mask].mean(-1).std() < limits.object_contrast
    share = bad / len(frames)
    detail = f"{bad} of {len(frames)} frames show no object, or one of a single colour"
    return Guard(guard="blank", failed=share > _MOST, value=share, limit=_MOST, detail=detail)


def _static(clip: Clip, flow: Features, masks: np.ndarray, limits: Limits) -> Guard:
    def found(failed: bool, value: float | None, detail: str) -> Guard:
        return Guard(guard="static", failed=failed, value=value, limit=limits.motion, detail=detail)

    if clip.num_frames < 2:
        return found(True, 0.0, "there is a single frame")
    try:
        motion = object_flow(Subject(clip=clip, features={"flow-dis": flow}))
    except NotScored as reason:
        return found(False, None, str(reason))
    # Flow on noise is long too, but following it does not make the next frame any more like this one.
    change = float(flow["change"].sum())
    explained = max(0.0, 1 - float(flow["unexplained"].sum()) / change) if change > 0 else 0.0
    fastest = float(np.mean([top_mean(values) for values in motion.magnitudes])) / motion.diameter
    value = fastest * explained
    detail = (
        f"the fastest 5 % of the object move {fastest:.4f} of its diameter a frame, and that explains"
        f" {explained:.0%} of the change"
    )
    outline = _outline_change(masks) if clip.alpha is not None else 0.0
    if value < limits.motion and outline > limits.outline:
        return found(False, value, f"{detail}; the outline changes by {outline:.0%} a frame")
    return found(value < limits.motion, value, detail)


def _outline_change(masks: np.ndarray) -> float:
    """Mean of 1 - IoU of consecutive masks (frame, height, width); 0 where both are empty."""
    both, either = (masks[:-1] & masks[1:]).sum((1, 2)), (masks[:-1] | masks[1:]).sum((1, 2))
    return float(np.mean(1 - (both + (either == 0)) / np.maximum(either, 1)))


def _subject_lost(masks: np.ndarray, similarity: np.ndarray | None, limits: Limits) -> Guard:
    if similarity is not None and similarity.min() < limits.similarity_kept:
        worst, least = int(similarity.argmin()), float(similarity.min())
        detail = f"frame {worst} has a cosine of {least:.2f} to the reference"
        return Guard(guard="subject-lost", failed=True, value=least, limit=limits.similarity_kept, detail=detail)
    areas = np.count_nonzero(masks, axis=(1, 2))
    start = areas[0] or areas.max()  # an object that is absent at first is lost there
    if not start:
        detail = "there is no object in any frame"
        return Guard(guard="subject-lost", failed=False, value=None, limit=limits.area_kept, detail=detail)
    worst = int(areas.argmin())
    least = float(areas[worst] / start)
    detail = f"frame {worst} shows {least:.0%} of the area that the object has at the start"
    return Guard(
        guard="subject-lost", failed=least < limits.area_kept, value=least, limit=limits.area_kept, detail=detail
    )


def _background_flicker(clip: Clip, frames: np.ndarray, masks: np.ndarray, limits: Limits) -> Guard:
    rim = np.ones(masks.shape[1:], bool)
    rim[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = False
    changes = []
    for t in range(len(frames) - 1):
        change = np.abs(frames[t].astype(np.int16) - frames[t + 1]).mean(-1)
        beside = ~binary_dilation(masks[t] | masks[t + 1], iterations=_BORDER_PX)
        seen = [float(change[beside].mean())] if beside.mean() > 0.01 else []
        if not has_silhouette(clip):
            # A background that changes by much looks like object; then the border as a whole still tells.
            seen.append(float(np.median(change[rim])))
        changes += [max(seen)] if seen else []
    if not changes:
        detail = "no pair of frames has pixels beside the object"
        return Guard(
            guard="background-flicker", failed=False, value=None, limit=limits.background_change, detail=detail
        )
    value = float(np.mean(changes))
    detail = f"pixels beside the object change by {value:.2f} levels a frame"
    failed = value > limits.background_change
    return Guard(guard="background-flicker", failed=failed, value=value, limit=limits.background_change, detail=detail)


def _camera_only(clip: Clip, flow: Features, masks: np.ndarray, static: Guard, limits: Limits) -> Guard:
    def found(failed: bool, value: float | None, detail: str) -> Guard:
        return Guard(guard="camera-only", failed=failed, value=value, limit=limits.orbit_left_over, detail=detail)

    if static.failed or static.value is None:
        return found(False, None, "too little motion to tell whose it is")
    height, width = masks.shape[1:]
    scale = np.array([width / clip.size[1], height / clip.size[0]], np.float32)
    K = intrinsics(_FOV_Y_DEG, clip.size[1], clip.size[0]) if clip.K is None else clip.K
    fit = fit_orbit(
        flow["flow"] * scale,
        flow["agrees"],
        masks,
        focal_px=float(K[1, 1] * scale[1]),
        center=(float(K[0, 2] * scale[0]), float(K[1, 2] * scale[1])),
    )
    if fit is None:
        return found(False, None, "too few points can be followed for long enough")
    detail = (
        f"a camera that circles a still object leaves {fit.left_over:.2f} of the motion over; the median point moves"
        f" {fit.spread:.2f} of what the fastest do"
    )
    return found(fit.left_over < limits.orbit_left_over and fit.spread > limits.orbit_spread, fit.left_over, detail)
