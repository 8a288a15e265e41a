"""Objects with made-up moving pictures, in memory. For tests of runs, without any importer."""

from __future__ import annotations

import hashlib

import numpy as np

from eval.items import Item, Video, view_name
from eval.protocols import PROTOCOLS

__all__ = ["make_items"]


def _frames(seed: int, view: int, frames: int, size: int, speed: float, with_alpha: bool = True) -> np.ndarray:
    """(frame, size, size, 4) uint8: a textured disc that goes round a circle and swells."""
    rng = np.random.default_rng([seed, view])
    texture = np.kron(rng.integers(40, 220, (size // 4 + 1, size // 4 + 1, 3)), np.ones((4, 4, 1)))[:size, :size]
    y, x = np.mgrid[:size, :size] + 0.5
    out = np.zeros((frames, size, size, 4), np.uint8)
    for k in range(frames):
        angle = speed * k / frames * 2 * np.pi
        cx, cy = size / 2 + size * 0.12 * np.cos(angle), size / 2 + size * 0.12 * np.sin(2 * angle)
        radius = size * (0.22 + 0.04 * np.sin(angle))
        inside = np.clip(radius - np.hypot(x - cx, y - cy) + 0.5, 0, 1)
        moved = np.roll(texture, (round(cy - size / 2), round(cx - size / 2)), (0, 1))
        out[k, ..., 3] = np.rint(inside * 255)
        out[k, ..., :3] = np.where(out[k, ..., 3:] > 0, moved, 0)
    return out


def make_items(
    objects: int = 3, *, frames: int = 6, size: int = 48, speed: float = 1.0, seed: int = 0,
    protocol: str = "threetofour",
    prompt: str = "a disc goes round", references: bool = True, with_alpha: bool = True,
) -> list[Item]:  # fmt: skip
    """Objects by the views of a protocol; sizes are small, so they are off-protocol unless asked for at its size."""
    items = []
    for number in range(objects):
        object_id, videos, stills = f"disc-{number}", [], {}
        for view, (azimuth, elevation) in enumerate(PROTOCOLS[protocol].cameras):
            name = view_name(azimuth, elevation)

            def read(number: int = number, view: int = view) -> np.ndarray:
                rgba = _frames(seed + number, view, frames, size, speed)
                if not with_alpha:
                    rgba[..., :3] = np.where(rgba[..., 3:] > 127, rgba[..., :3], 255)
                    rgba[..., 3] = 255
                return rgba

            videos.append(
                Video(object_id=object_id, view=name, azimuth_deg=azimuth, elevation_deg=elevation, fps=8.0,
                      source=f"{object_id}/{name}.mp4", has_alpha=with_alpha, read=read)
            )  # fmt: skip
            stills[name] = lambda read=read: read()[0]
        content = hashlib.sha256(f"{seed} {number} {frames} {size} {speed}".encode()).hexdigest()
        items.append(
            Item(object_id=object_id, videos=tuple(videos), prompt=prompt, word="disc",
                 references=stills if references else {}, content=content)
        )  # fmt: skip
    return items
