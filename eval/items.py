"""What is scored: objects, each with videos of known views, a prompt, references at rest and perhaps the truth.

An importer (`eval.inputs`) makes these from whatever a method left on disk; frames are read only when they are asked
for, once, and only one object's at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Item", "Video", "view_name"]

Read = Callable[[], np.ndarray]


def view_name(azimuth_deg: float, elevation_deg: float) -> str:
    """``a090e+15``: a camera by its azimuth from the object's front (0..359) and its elevation, whole degrees."""
    return f"a{round(azimuth_deg) % 360:03d}e{round(elevation_deg):+03d}"


@dataclass(frozen=True, kw_only=True)
class Video:
    """One object seen by one camera over time.

    Attributes:
        object_id: of the object in the evaluation set.
        view: `view_name` of the camera, or a name of the input's own where the direction is not known.
        azimuth_deg, elevation_deg: relative to the object's front; None where not known.
        fps: frames a second; None where nothing says it (metrics that need it then refuse).
        source: where it comes from, relative to the input; for messages and tables.
        has_alpha: False where the file has no transparency; alpha is then 255 everywhere.
        read: gives (frame, height, width, 4) uint8, straight alpha, sRGB-encoded; raises `InputError` naming the file.
        c2w, K: (4, 4) and (3, 3) as in the clip schema, where the camera is known and does not move.
        read_depth: (frame, height, width) float32 along the axis in normalised units, NaN off the object; or None.
    """

    object_id: str
    view: str
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    fps: float | None = None
    source: str
    has_alpha: bool
    read: Read
    c2w: np.ndarray | None = None
    K: np.ndarray | None = None
    read_depth: Read | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One object of the evaluation set with all that a method made of it.

    Attributes:
        object_id: unique in the run.
        videos: one a view.
        prompt: what the animation should show; "" where not given.
        word: the object's noun in the prompt; "" where not given.
        references: view -> reader of (height, width, 4) uint8: the object at rest from that camera.
        orbit: reader of (frame, height, width, 4) uint8: the object at rest from a camera that circles it; or None.
        truths: view -> reader of (frame, height, width, 4) uint8: the ground-truth clip.
        content: SHA-256 that changes when any byte of the videos changes; a finished object is not computed again.
    """

    object_id: str
    videos: tuple[Video, ...]
    prompt: str = ""
    word: str = ""
    references: Mapping[str, Read] = field(default_factory=dict)
    orbit: Read | None = None
    truths: Mapping[str, Read] = field(default_factory=dict)
    content: str = ""
