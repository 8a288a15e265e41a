"""Clips that no method should beat: made of one picture of the object, scored and guarded like the method's own.

A metric that a control wins says nothing about animation; that is why every run scores them. All controls keep the
clip's size, length, frame rate, prompt, background, reference and ground truth.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

from eval.extractor import Clip
from eval.runs import CONTROLS
from eval.silhouettes import border_color, has_silhouette, object_masks
from manifests.errors import InputError
from manifests.images import composite
from manifests.seeds import integer

__all__ = ["JITTER_LEVELS", "TURN_DEG", "describe", "make_controls"]

JITTER_LEVELS = 8.0
"""Standard deviation of the noise on the object, of 255: visible, and far above what a video codec adds."""
TURN_DEG = 20.0
"""How far the picture is turned either way where there is no orbit of the object."""
_CAMERA_DISTANCE = 0.5 / math.tan(math.radians(20))
"""From the camera to the turned picture, in its heights: it fills a field of view of 40 degrees, as in the presets."""
_AXIS_BEHIND = 0.1
"""From the picture back to the axis about which it turns, in its heights: what is seen of an object is its front."""


def make_controls(clip: Clip, *, orbit: np.ndarray | None, seed: int) -> dict[str, Clip]:
    """The controls of one clip, by the names of `eval.runs.CONTROLS`.

    ``frozen`` repeats the reference (frame 0 where there is none); ``jitter`` adds to each of its frames independent
    Gaussian noise of 8 levels on the object; ``orbit`` plays the orbit, or turns the reference picture to and fro;
    ``first_frame`` repeats the clip's frame 0. The two that repeat take no memory.

    Args:
        clip: the method's.
        orbit: (frame, height, width, 4) uint8, the object at rest seen by a camera that circles it, one step a frame.
            Longer than the clip: its first frames are played, so that its speed stays; shorter: spread over the clip.
        seed: of the noise, with the clip's object and view.

    Returns:
        clips without depth; ``orbit`` without camera too, since the clip's is not where its frames were taken from.

    Raises:
        InputError: an orbit of another type or shape.
    """
    still, alpha = _still(clip)
    base = dataclasses.replace(clip, depth=None)
    found = {
        "frozen": dataclasses.replace(base, frames=_repeated(still, clip), alpha=_repeated(alpha, clip)),
        "jitter": dataclasses.replace(base, frames=_jittered(still, clip, seed), alpha=_repeated(alpha, clip)),
        "orbit": _turned(base, still, alpha) if orbit is None else _orbited(base, orbit),
        "first_frame": dataclasses.replace(
            base,
            frames=_repeated(clip.frames[0], clip),
            alpha=None if clip.alpha is None else _repeated(clip.alpha[0], clip),
        ),
    }
    return {name: found[name] for name in CONTROLS}


def describe(clip: Clip, *, orbit: np.ndarray | None) -> dict[str, str]:
    """One sentence a control that says what `make_controls` made it of."""
    picture = "frame 0 of the method, as there is no reference" if clip.reference is None else "the reference"
    card = f"as a card that turns {TURN_DEG:g} degrees to and fro about an upright axis behind it, as no orbit is given"
    return {
        "frozen": f"{picture} in every frame",
        "jitter": f"{picture} with new noise of {JITTER_LEVELS:g} levels on the object in every frame",
        "orbit": f"{picture} {card}" if orbit is None else "the object at rest, seen by a camera that circles it",
        "first_frame": "frame 0 of the method in every frame",
    }


def _still(clip: Clip) -> tuple[np.ndarray, np.ndarray | None]:
    """Picture and alpha at rest; alpha only where the clip itself has one, so that controls are read as it is."""
    if clip.reference is None:
        return clip.frames[0], None if clip.alpha is None else clip.alpha[0]
    return clip.reference, None if clip.alpha is None else clip.reference_alpha


def _repeated(image: np.ndarray | None, clip: Clip) -> np.ndarray | None:
    return None if image is None else np.broadcast_to(image, (clip.num_frames, *image.shape))


def _jittered(still: np.ndarray, clip: Clip, seed: int) -> np.ndarray:
    rng = np.random.default_rng(integer(seed, clip.object_id, clip.view, "jitter"))
    alpha = clip.alpha if clip.reference is None else clip.reference_alpha
    alone = dataclasses.replace(
        clip, frames=still[None], alpha=None if alpha is None else alpha.reshape(-1, *clip.size)[:1]
    )
    cover = alone.alpha[0] / np.float32(255) if has_silhouette(alone) else object_masks(alone)[0]
    strength = np.float32(JITTER_LEVELS) * cover[..., None]
    frames = np.empty((clip.num_frames, *still.shape), np.uint8)
    for frame in frames:
        noise = rng.standard_normal(still.shape, np.float32)
        frame[:] = np.clip(np.rint(still + strength * noise), 0, 255)
    return frames


def _orbited(clip: Clip, orbit: np.ndarray) -> Clip:
    if orbit.dtype != np.uint8 or orbit.ndim != 4 or orbit.shape[3] != 4 or not len(orbit):
        raise InputError(
            f"orbit of {clip.object_id}: found {orbit.dtype} {orbit.shape}, expected uint8 (frame, height, width, 4);"
            " render it with `mvv still`"
        )
    count = clip.num_frames
    steps = range(count) if len(orbit) >= count else np.rint(np.linspace(0, len(orbit) - 1, count)).astype(int)
    background = [value / 255 for value in clip.background]
    frames = np.stack([composite(orbit[k], background, size=clip.size) for k in steps])
    alpha = None
    if clip.alpha is not None:
        size = clip.size[::-1]
        alphas = (Image.fromarray(np.ascontiguousarray(orbit[k, ..., 3])) for k in steps)
        alpha = np.stack(
            [np.asarray(a if a.size == size else a.resize(size, Image.Resampling.BICUBIC)) for a in alphas]
        )
    return _elsewhere(clip, frames, alpha)


def _turned(clip: Clip, still: np.ndarray, alpha: np.ndarray | None) -> Clip:
    """The picture as a flat card that turns to and fro once, seen in perspective; frame 0 is the picture itself."""
    fill = tuple(int(value) for value in (clip.background if alpha is not None else border_color(still[None])))
    frames = np.empty((clip.num_frames, *still.shape), np.uint8)
    covers = None if alpha is None else np.empty((clip.num_frames, *alpha.shape), np.uint8)
    for t in range(clip.num_frames):
        angle = math.radians(TURN_DEG) * math.sin(2 * math.pi * t / clip.num_frames)
        frames[t] = _perspective(still, angle, fill)
        if covers is not None:
            covers[t] = _perspective(alpha, angle, 0)
    return _elsewhere(clip, frames, covers)


def _perspective(image: np.ndarray, angle: float, fill: int | tuple[int, ...]) -> np.ndarray:
    """The picture as a card that turns about a vertical axis r behind it, seen from d in front of it.

    With c, s = cos and sin of the angle and e = d + r - r c, a point (X, Y) of the card is seen at
    d (X c + r s, Y) / (e + X s). PIL wants the inverse: (X, Y) = (e x - d r s, (e c - r s^2) y) / (d c - s x).
    """
    height, width = image.shape[:2]
    d, r, cx, cy = _CAMERA_DISTANCE * height, _AXIS_BEHIND * height, width / 2, height / 2
    c, s = math.cos(angle), math.sin(angle)
    e = d + r - r * c
    high, bottom = e * c - r * s * s, d * c + s * cx  # x, y are measured from the middle, PIL's pixels from the corner
    across = (e - cx * s, 0.0, cx * bottom - e * cx - d * r * s)
    down = (-cy * s, high, cy * bottom - high * cy)
    coefficients = tuple(value / bottom for value in (*across, *down, -s, 0.0))
    moved = Image.fromarray(np.ascontiguousarray(image)).transform(
        (width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR, fillcolor=fill
    )
    return np.asarray(moved)


def _elsewhere(clip: Clip, frames: np.ndarray, alpha: np.ndarray | None) -> Clip:
    """The clip with frames that its camera did not take."""
    return dataclasses.replace(clip, frames=frames, alpha=alpha, c2w=None, K=None, azimuth_deg=None, elevation_deg=None)
