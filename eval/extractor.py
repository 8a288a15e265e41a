"""One pass of a backbone over an object's clips, shared by every metric that reads its features.

`eval.run` decodes each video once, puts it on the background, and hands all clips of one object (the method's views and
its controls) to each extractor that the chosen metrics name; metrics are then plain arithmetic on the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

__all__ = ["Clip", "Compute", "Extractor", "Features"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One decoded video, ready for scoring. Arrays are read-only views; shapes (frame, height, width, ...).

    Attributes:
        frames: (frame, height, width, 3) uint8, on the protocol's background.
        alpha: (frame, height, width) uint8, None where the input has no transparency.
        reference: (height, width, 3) uint8 of the same view at rest, on that background, as large as the frames; or
            None.
        reference_alpha: (height, width) uint8, or None.
        truth: (frame, height, width, 3) uint8, ground truth on the same background; or None.
        truth_alpha: (frame, height, width) uint8, or None.
        depth: (frame, height, width) float32, NaN off the object; or None.
        prompt: "" where there is none.
        fps: None where not known.
        background: the colour behind the object, three values 0..255.
        c2w, K: the camera, or None.
        azimuth_deg, elevation_deg: the camera relative to the front, or None.
        object_id, view: for messages.
    """

    frames: np.ndarray
    alpha: np.ndarray | None = None
    reference: np.ndarray | None = None
    reference_alpha: np.ndarray | None = None
    truth: np.ndarray | None = None
    truth_alpha: np.ndarray | None = None
    depth: np.ndarray | None = None
    prompt: str = ""
    fps: float | None = None
    background: tuple[int, int, int] = (127, 127, 127)
    c2w: np.ndarray | None = None
    K: np.ndarray | None = None
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    object_id: str = ""
    view: str = ""

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.frames.shape[1], self.frames.shape[2]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How the extractors run; none of it changes a score beyond 1e-5.

    Attributes:
        device: as torch names it, e.g. ``cpu`` or ``cuda``.
        batch_size: images (or pairs) a forward pass.
    """

    device: str = "cpu"
    batch_size: int = 32


Features = dict[str, np.ndarray]
"""Name -> array of one clip; what the names and shapes are stands in the extractor's docstring."""


class Extractor(Protocol):
    """A loaded backbone with its preprocess. The class is constructed by `eval.extractors.load`.

    Class attributes:
        name: e.g. ``dino@256crop``: backbone and preprocess; metrics ask for features by it.
        weights: names in `eval.weights` of the files that the constructor takes, in order; () for none.
    """

    name: ClassVar[str]
    weights: ClassVar[tuple[str, ...]]

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """The features of each clip. Independent of how clips are grouped, ordered and batched, within 1e-6."""
        ...
