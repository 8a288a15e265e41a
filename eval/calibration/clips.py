"""Clips whose true motion is known in every pixel: a patterned shape that moves in the picture plane.

Everything is analytic. The pattern is a sum of sine waves in the shape's own coordinates, the edge is antialiased by
its signed distance, and the motion is an affine map a frame, so that the flow is exact and no resampling blurs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eval.extractor import Clip
from manifests.errors import InputError
from manifests.seeds import uniform

__all__ = ["KINDS", "moving_clip"]

KINDS = ("translation", "rotation", "scale", "sinusoid", "articulated")
"""A disc that slides to and fro; turns; breathes; swings; and two hinged plates that fold in opposite directions."""

_PERIOD = 8
"""Frames of one swing of ``sinusoid``."""
_FOLD_DEG = 30.0
"""How far a plate of ``articulated`` turns from its rest before it turns back."""
_SMALLEST = 0.7
"""Size at which ``scale`` stops shrinking, of that at rest."""
_MARGIN_PX = 2.0
"""Distance to the border of the picture that is kept."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One rigid piece. Frame t maps its own coordinates q (pixels, x right, y down) to ``linear[t] @ q + offset[t]``.

    Attributes:
        half: (width, height) / 2 of a rectangle, or the radius of a disc twice.
        middle: of the shape, in its own coordinates.
        round: a disc.
        linear: (frame, 2, 2), a rotation times a scale.
        offset: (frame, 2), pixels from the upper left corner.
    """

    half: tuple[float, float]
    middle: tuple[float, float] = (0.0, 0.0)
    round: bool = True
    linear: np.ndarray
    offset: np.ndarray

    def own(self, pixels: np.ndarray, frame: int) -> np.ndarray:
        """The part's coordinates of pixels (..., 2) in a frame."""
        return (pixels - self.offset[frame]) @ np.linalg.inv(self.linear[frame]).T

    def placed(self, own: np.ndarray, frame: int) -> np.ndarray:
        """Inverse of `own`."""
        return own @ self.linear[frame].T + self.offset[frame]

    def coverage(self, own: np.ndarray, frame: int) -> np.ndarray:
        """How much of each pixel is covered, 0..1, from the signed distance to the edge."""
        away = own - self.middle
        if self.round:
            distance = np.hypot(away[..., 0], away[..., 1]) - self.half[0]
        else:
            outside = np.abs(away) - self.half
            distance = np.hypot(*np.moveaxis(np.maximum(outside, 0), -1, 0)) + np.minimum(outside.max(-1), 0)
        scale = math.sqrt(abs(np.linalg.det(self.linear[frame])))
        return np.clip(0.5 - distance * scale, 0, 1)


def moving_clip(
    kind: str,
    *,
    px_per_frame: float,
    object_size: float,
    fps: float | None = 8.0,
    frames: int = 16,
    size: int = 256,
    seed: int = 0,
    background: tuple[int, int, int] = (127, 127, 127),
) -> tuple[Clip, np.ndarray]:
    """A clip with exact flow.

    Args:
        kind: one of `KINDS`.
        px_per_frame: how far the fastest points of the object move between two frames; of ``sinusoid``, between the
            two frames where it is fastest. 0 stands still.
        object_size: diameter in pixels of the circle that holds the object at rest.
        fps: recorded in the clip; changes nothing in it.
        frames: how many.
        size: width and height in pixels.
        seed: of the pattern, and of the direction in which a disc slides.
        background: behind the object.

    Returns:
        the clip, with alpha and with frame 0 as its reference; and the flow (frames - 1, size, size, 2) float32 from
        every frame to the next in pixels (x, y), at pixel centres of the object, 0 elsewhere.

    Raises:
        InputError: an unknown kind, or a motion that has no room in the picture.
    """
    if kind not in KINDS:
        raise InputError(f"kind: found {kind!r}, expected one of {', '.join(KINDS)}; choose one of them")
    if not 8 <= object_size <= size - 2 * _MARGIN_PX:
        raise InputError(
            f"object_size: found {object_size}, expected 8 to {size - 2 * _MARGIN_PX:g}; make the picture larger"
        )
    parts = _parts(kind, px_per_frame, object_size, frames, size, seed)
    y, x = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([x, y], -1)
    images = np.empty((frames, size, size, 3), np.uint8)
    alphas = np.empty((frames, size, size), np.uint8)
    flow = np.zeros((frames - 1, size, size, 2), np.float32)
    for t in range(frames):
        color, cover = np.full((size, size, 3), background, np.float64), np.zeros((size, size))
        for number, part in enumerate(parts):
            own = part.own(pixels, t)
            share = part.coverage(own, t)
            there = share > 0
            color[there] += share[there, None] * (_pattern(own[there], object_size, seed, number) - color[there])
            cover += share * (1 - cover)
            if t + 1 < frames:
                most = share > 0.5
                flow[t][most] = part.placed(own[most], t + 1) - pixels[most]
        images[t], alphas[t] = np.rint(color), np.rint(255 * cover)
    clip = Clip(
        frames=images, alpha=alphas, reference=images[0], reference_alpha=alphas[0], prompt="a patterned shape moves",
        fps=fps, background=background, object_id=f"{kind}-{object_size:g}px-{px_per_frame:g}ppf", view="plane",
    )  # fmt: skip
    return clip, np.where(alphas[:-1, ..., None] > 127, flow, np.float32(0))


def _parts(kind: str, speed: float, object_size: float, frames: int, size: int, seed: int) -> list[_Part]:
    radius, center = object_size / 2, np.full((frames, 2), size / 2)
    still = np.broadcast_to(np.eye(2), (frames, 2, 2))
    room = (size - object_size) / 2 - _MARGIN_PX
    angle = uniform(0, 2 * math.pi, seed, "direction")
    direction = np.array([math.cos(angle), math.sin(angle)])
    disc = {"half": (radius, radius)}
    if kind == "translation":
        away = _to_and_fro(speed, -room, room, frames, kind)
        return [_Part(**disc, linear=still, offset=center + away[:, None] * direction)]
    if kind == "sinusoid":
        swing = speed / math.sin(2 * math.pi / _PERIOD)  # the largest step is the one that leaves the middle
        if swing > room:
            raise _no_room(kind, speed, room * math.sin(2 * math.pi / _PERIOD))
        away = swing * np.sin(2 * math.pi * np.arange(frames) / _PERIOD)
        return [_Part(**disc, linear=still, offset=center + away[:, None] * direction)]
    if kind == "scale":
        scale = 1 + _to_and_fro(-speed, (_SMALLEST - 1) * radius, 0.0, frames, kind) / radius
        return [_Part(**disc, linear=scale[:, None, None] * still, offset=center)]
    if speed > radius:
        raise _no_room(kind, speed, radius)
    step = 2 * math.asin(speed / (2 * radius))
    if kind == "rotation":
        return [_Part(**disc, linear=_turns(step * np.arange(frames)), offset=center)]
    fold = math.radians(_FOLD_DEG)
    angles = _to_and_fro(step, -fold, fold, frames, kind)
    wide, high = 0.86 * radius, 0.5 * radius  # the far corners lie on the circle of the object
    plate = {"half": (wide / 2, high), "round": False, "offset": center}
    return [_Part(**plate, middle=(s * wide / 2, 0.0), linear=_turns(s * angles)) for s in (1, -1)]


def _to_and_fro(step: float, low: float, high: float, frames: int, kind: str) -> np.ndarray:
    """(frames,) places from 0 on, each a ``step`` from the last, turning back where the next would leave the range."""
    places = np.zeros(frames)
    for t in range(1, frames):
        if not low <= places[t - 1] + step <= high:
            step = -step
        places[t] = places[t - 1] + step
        if not low - 1e-9 <= places[t] <= high + 1e-9:
            raise InputError(
                f"px_per_frame: found a step that leaves the room of {kind} both ways, expected a shorter one; lower it"
                " or change object_size"
            )
    return places


def _no_room(kind: str, speed: float, most: float) -> InputError:
    return InputError(
        f"px_per_frame: found {speed:g}, expected at most {most:.3g} for {kind}; lower it or change object_size"
    )


def _turns(angles: np.ndarray) -> np.ndarray:
    """(frame, 2, 2) rotations."""
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)


def _pattern(own: np.ndarray, object_size: float, seed: int, part: int) -> np.ndarray:
    """Colours (..., 3) at coordinates (..., 2): waves of 6 px and more in all directions, long ones stronger.

    With that spectrum the difference of two frames grows with the distance between them, as it does in photographs.
    """
    total = np.zeros((*own.shape[:-1], 3))
    waves = 16
    for k in range(waves):
        length = 6.0 * (max(object_size, 12.0) / 6.0) ** (k / (waves - 1))
        angle = uniform(0, math.pi, seed, part, k, "angle")
        phase = (own[..., 0] * math.cos(angle) + own[..., 1] * math.sin(angle)) * (2 * math.pi / length)
        for channel in range(3):
            shift = uniform(0, 2 * math.pi, seed, part, k, channel)
            total[..., channel] += length**0.5 * np.sin(phase + shift)
    spread = math.sqrt(sum(6.0 * (max(object_size, 12.0) / 6.0) ** (k / (waves - 1)) for k in range(waves)) / 2)
    return np.clip(128 + 45 * total / spread, 0, 255)
