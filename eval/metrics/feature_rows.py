"""Features of a clip as metrics take them: there, finite, of enough frames, or refused with what to do; and cosines."""

from __future__ import annotations

import numpy as np

from eval.metric import NotScored, Subject

__all__ = ["adjacent_cosines", "cosines", "feature"]

_LACKING = {
    "reference": "found no image of view {clip.view} at rest, expected the object before it moves, from the same"
    " camera; give it with --references (`mvv still` renders it)",
    "text": "found no prompt, expected what the animation should show; give it with --prompts",
}
_TOO_SMALL = "found frames of {clip.size[1]}x{clip.size[0]} pixels, expected sides of at least 32; give larger ones"


def feature(subject: Subject, extractor: str, name: str, *, frames: int = 1) -> np.ndarray:
    """One feature of a clip, float64.

    Args:
        subject: the clip and its features.
        extractor: whose.
        name: which.
        frames: fewest frames of the clip that give a score.

    Raises:
        NotScored: fewer frames, nothing to compare with, frames too small for the network, or NaN in what it gave.
    """
    clip, found = subject.clip, subject.features[extractor].get(name)
    if clip.num_frames < frames:
        raise NotScored(f"found {clip.num_frames} frame, expected at least {frames}; give a longer video")
    if found is None:
        lacks = {"reference": clip.reference is None, "text": not clip.prompt}.get(name, False)
        raise NotScored((_LACKING[name] if lacks else _TOO_SMALL).format(clip=clip))
    if not np.isfinite(found).all():
        raise NotScored(f"found NaN from {extractor}, expected numbers; check its weights with `mvv weights verify`")
    return np.asarray(found, np.float64)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine similarity along the last axis, -1..1; 0 where one is the zero vector. Shapes broadcast."""
    one, other = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (one, other))
    return np.clip((one * other).sum(axis=-1), -1.0, 1.0)


def adjacent_cosines(rows: np.ndarray) -> np.ndarray:
    """Of each row with the next, (row - 1,)."""
    return cosines(rows[:-1], rows[1:])
