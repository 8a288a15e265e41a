"""RAFT between neighbouring frames, reduced at once to what metrics and guards ask of a flow field.

The network is torchvision's raft_large with 20 updates. Its C_T_V1 weights are those of the authors after Chairs and
Things, the stage of VBench's raft-things.pth. The pass is our own, for two reasons: most frames are in two pairs but
need encoding once, and torchvision enlarges and keeps the flow of every update where only the last is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.optical_flow import raft_large

from eval.extractor import Clip, Compute, Features
from eval.extractors.checkpoints import load_network
from eval.extractors.pairs import PairsOfOneSize, distinct_pairs
from eval.extractors.passes import batches, full_precision
from eval.extractors.sampling import centred_padding, flow_frames, padded_size
from eval.silhouettes import OPAQUE, has_silhouette

__all__ = ["RaftDefault", "RaftThings", "enlarge", "top_mean"]

UPDATES = 20


class _Raft:
    """Features of a clip's n kept frames (`eval.extractors.sampling.flow_frames`), all in pixels of its own size.

    - ``frames`` (n,): their numbers.
    - ``top5`` (n - 1,): mean of the largest 5 % of flow magnitudes, over the padded image as in VBench.
    - ``object_top5`` (n - 1,): the same over the pixels that show the object in the first frame of the pair; NaN where
      none does.
    - ``background_mean`` (n - 1,): mean over the pixels that show it in neither frame; NaN where there are none.

    The last two only where alpha tells the object from the background. No features at all where flow cannot be
    measured: no fps, fewer than two kept frames, or a padded side below 128 pixels.
    """

    weights: ClassVar[tuple[str, ...]]

    def __init__(self, checkpoint: Path, *, compute: Compute) -> None:
        """Loads torchvision's file.

        Raises:
            InputError: the file is another.
        """
        self.network = load_network(raft_large, checkpoint, device=compute.device)
        self.compute = compute

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        reducers = [_Reducer(clip) for clip in clips]
        wanted = [
            ((reducer, step), clip.frames[a], clip.frames[b])
            for reducer, clip in zip(reducers, clips, strict=True)
            for step, (a, b) in enumerate(pairwise(reducer.kept))
        ]
        for group in distinct_pairs(wanted):
            height, width = padded_size(*group.size, multiple=8)
            correlations = (height // 8 * (width // 8)) ** 2 * 4 * 4 // 3
            for some in batches(list(group.users), batch_size=self.compute.batch_size, bytes_each=correlations):
                with full_precision():
                    for pair, magnitude in zip(some, self._magnitudes(group, some), strict=True):
                        for reducer, step in group.users[pair]:
                            reducer.take(step, magnitude)
        return [reducer.features for reducer in reducers]

    def _magnitudes(self, group: PairsOfOneSize, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """(pair, height, width) of the padded images."""
        images, first, second = group.images(pairs, self.compute.device)
        images = F.pad(2 * (images / 255) - 1, centred_padding(*group.size, multiple=8), mode="replicate")
        return self._flow(images, first, second).square().sum(1).sqrt()

    def _flow(self, images: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(pair, 2, height, width) from ``images[first]`` to ``images[second]``; what `RAFT.forward` gives last."""
        network = self.network
        features = network.feature_encoder(images)
        network.corr_block.build_pyramid(features[first], features[second])
        channels = network.update_block.hidden_state_size
        state, context = network.context_encoder(images[first]).tensor_split([channels], 1)
        state, context = state.tanh(), context.relu()
        rows, columns = (torch.arange(n, device=images.device, dtype=images.dtype) for n in features.shape[-2:])
        here = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1]).expand(len(first), -1, -1, -1)
        there = here
        for _ in range(UPDATES):
            seen = network.corr_block.index_pyramid(there)
            state, change = network.update_block(state, context, seen, there - here)
            there = there + change
        network.corr_block.corr_pyramid = []  # would stay in memory until the next pair
        return enlarge(there - here, network.mask_predictor(state))


class _Reducer:
    """Takes a clip's flow magnitudes one pair at a time and keeps a few figures of each."""

    def __init__(self, clip: Clip) -> None:
        self.kept = flow_frames(clip)
        self.features: Features = {}
        if not self.kept:
            return
        self.crop = centred_padding(*clip.size, multiple=8)
        self.alpha = clip.alpha[:: self.kept.step] if has_silhouette(clip) else None
        names = ("top5",) if self.alpha is None else ("top5", "object_top5", "background_mean")
        self.features = {name: np.full(len(self.kept) - 1, np.nan) for name in names}
        self.features["frames"] = np.array(self.kept)

    def take(self, step: int, magnitude: Tensor) -> None:
        """``magnitude`` (height, width) of the padded image."""
        self.features["top5"][step] = top_mean(magnitude.flatten())
        if self.alpha is None:
            return
        left, right, top, bottom = self.crop
        seen = magnitude[top : magnitude.shape[0] - bottom, left : magnitude.shape[1] - right]
        first, second = torch.from_numpy(self.alpha[step : step + 2] > OPAQUE).to(seen.device)
        for name, mask, figure in (
            ("object_top5", first, top_mean),
            ("background_mean", ~(first | second), lambda values: float(values.double().mean())),
        ):
            if mask.any():
                self.features[name][step] = figure(seen[mask])


def top_mean(values: Tensor) -> float:
    """Mean of the largest floor(0.05 n) of n values, at least of one."""
    return float(values.topk(max(1, int(len(values) * 0.05))).values.double().mean())


def enlarge(flow: Tensor, weights: Tensor) -> Tensor:
    """(B, 2, 8h, 8w) from (B, 2, h, w): each fine pixel a convex mix of the 3 x 3 coarse ones around it.

    Args:
        flow: in coarse pixels.
        weights: (B, 9 * 64, h, w) before the softmax; the neighbour is the slow index, then row and column inside.

    Source: RAFT, appendix B.
    """
    batch, _, height, width = flow.shape
    mix = weights.view(batch, 1, 9, 8, 8, height, width).softmax(2)
    around = F.unfold(8 * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
    return (mix * around).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, 8 * height, 8 * width)


class RaftThings(_Raft):
    """As VBench uses it."""

    name: ClassVar[str] = "raft-things"
    weights = ("raft-large-c-t-v1",)


class RaftDefault(_Raft):
    """torchvision's default weights, trained further; bits near the threshold can differ."""

    name: ClassVar[str] = "raft-default"
    weights = ("raft-large-c-t-skht-v2",)
