"""Pictures of a study: the views of one clip in a small grid, frame under frame, so that all views play in step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mvv.leaderboard.entries import Strip

__all__ = ["broken", "grid", "grid_shape", "read_strip", "save_strip"]

_WEBP_SIDE = 16_383
_TILES = 8


def read_strip(strip: Strip) -> np.ndarray:
    """(frame, height, width, 3) uint8."""
    with Image.open(strip.source, formats=["WEBP"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    height = pixels.shape[0] // strip.frames
    return pixels[: height * strip.frames].reshape(strip.frames, height, pixels.shape[1], 3)


def grid_shape(count: int) -> tuple[int, int]:
    """(columns, rows) of that many views."""
    columns = min(2, count)
    return columns, -(-count // columns)


def grid(views: Sequence[np.ndarray]) -> np.ndarray:
    """Views side by side, two in a row: (frame, height, width, 3).

    Args:
        views: (frame, height, width, 3) uint8 each; all are brought to the size and the number of frames of the first
            and the shortest.
    """
    frames, (height, width) = min(len(view) for view in views), views[0].shape[1:3]
    fitted = [_resized(view[:frames], height, width) for view in views]
    columns, rows = grid_shape(len(fitted))
    while len(fitted) < columns * rows:  # an empty place has the colour of a corner, which is the background's
        fitted.append(np.broadcast_to(fitted[0][:1, :1, :1], fitted[0].shape))
    lines = [np.concatenate(fitted[k : k + columns], axis=2) for k in range(0, len(fitted), columns)]
    return np.concatenate(lines, axis=1)


def broken(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same clip, obviously bad: its tiles and its frames in random order."""
    count, height, width = frames.shape[:3]
    tall, wide = max(1, height // _TILES), max(1, width // _TILES)
    places = [(y, x) for y in range(0, height - tall + 1, tall) for x in range(0, width - wide + 1, wide)]
    out = frames[rng.permutation(count)].copy()
    for frame in out:
        whole = frame.copy()
        for (y, x), other in zip(places, rng.permutation(len(places)), strict=True):
            from_y, from_x = places[other]
            frame[y : y + tall, x : x + wide] = whole[from_y : from_y + tall, from_x : from_x + wide]
    return out


def save_strip(frames: np.ndarray, path: Path) -> None:
    """Frames one above the other as WebP; smaller where they would be taller than WebP allows."""
    count, height, width = frames.shape[:3]
    scale = min(1.0, math.floor(_WEBP_SIDE / count) / height)
    fitted = _resized(frames, max(1, int(height * scale)), max(1, int(width * scale)))
    Image.fromarray(fitted.reshape(-1, *fitted.shape[2:])).save(path, "WEBP", quality=86, method=4)


def _resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    if frames.shape[1:3] == (height, width):
        return frames
    size = (width, height)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in frames])
