"""What AMT-S expects halfway between every second frame and the next, against the frame that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from eval.extractor import Clip, Compute, Features
from eval.extractors.amt_network import AmtSmall
from eval.extractors.checkpoints import load_network
from eval.extractors.pairs import PairsOfOneSize, distinct_pairs
from eval.extractors.passes import batches, full_precision
from eval.extractors.sampling import FLOW_MINIMUM, centred_padding, padded_size
from eval.silhouettes import OPAQUE, has_silhouette

__all__ = ["AmtS"]


class AmtS:
    """Features ``error`` (n,): mean absolute difference over pixels and channels, grey levels, of frames 1, 3, 5, ...

    Beside it ``object_error`` (n,): the same over the pixels that show the object in any of the three frames, NaN where
    none does; only where alpha tells it from the background. Empty for fewer than three frames, or a padded side below
    128 pixels.

    The prediction is cut, not rounded, to 8 bits, and always made at full size: VBench's smaller scale for GPUs with
    little memory would make scores depend on the machine.
    """

    name: ClassVar[str] = "amt-s"
    weights: ClassVar[tuple[str, ...]] = ("amt-s",)

    def __init__(self, checkpoint: Path, *, compute: Compute) -> None:
        """Loads amt-s.pth as its authors publish it, or the tensors of its ``state_dict``.

        Raises:
            InputError: the file is another.
        """
        self.network = load_network(AmtSmall, checkpoint, device=compute.device, key="state_dict")
        self.compute = compute

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        reducers = [_Reducer(clip) for clip in clips]
        wanted = [
            ((reducer, k), clip.frames[k], clip.frames[k + 2])
            for reducer, clip in zip(reducers, clips, strict=True)
            for k in reducer.begins
        ]
        for group in distinct_pairs(wanted):
            height, width = padded_size(*group.size, multiple=16)
            correlations = (height // 8 * (width // 8)) ** 2 * 4 * 2 * 4 // 3
            for some in batches(list(group.users), batch_size=self.compute.batch_size, bytes_each=correlations):
                for pair, between in zip(some, self._between(group, some), strict=True):
                    for reducer, k in group.users[pair]:
                        reducer.take(k, between)
        return [reducer.features for reducer in reducers]

    def _between(self, group: PairsOfOneSize, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        """(pair, height, width, 3) uint8: what is expected halfway between the two frames of each pair."""
        images, first, second = group.images(pairs, self.compute.device)
        height, width = group.size
        left, _, top, _ = padding = centred_padding(height, width, multiple=16)
        images = F.pad(images / 255, padding, mode="replicate")
        with full_precision():
            drawn = self.network(images[first], images[second])[..., top : top + height, left : left + width]
        return (drawn * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


class _Reducer:
    """Holds a clip's frames against what was expected of them."""

    def __init__(self, clip: Clip) -> None:
        large = min(padded_size(*clip.size, multiple=16)) >= FLOW_MINIMUM
        self.begins = range(0, clip.num_frames - 2, 2) if large else range(0)
        """Numbers of the frames after which one is drawn."""
        self.features: Features = {}
        if not self.begins:
            return
        self.frames = clip.frames
        self.alpha = clip.alpha if has_silhouette(clip) else None
        names = ("error",) if self.alpha is None else ("error", "object_error")
        self.features = {name: np.full(len(self.begins), np.nan) for name in names}

    def take(self, k: int, between: np.ndarray) -> None:
        """``between`` (height, width, 3) uint8, drawn after frame k."""
        error = np.abs(between.astype(np.int16) - self.frames[k + 1])
        self.features["error"][k // 2] = error.mean()
        if self.alpha is not None and (seen := (self.alpha[k : k + 3] > OPAQUE).any(axis=0)).any():
            self.features["object_error"][k // 2] = error[seen].mean()
