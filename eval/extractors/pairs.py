"""Pairs of frames that have to go through a network, each distinct one once, whoever asked for it.

A frozen copy asks for one pair fifteen times; a still control has the method's first frame in every pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from eval.extractors.encode import distinct_images

__all__ = ["PairsOfOneSize", "distinct_pairs"]

U = TypeVar("U")
Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PairsOfOneSize(Generic[U]):
    """Distinct pairs whose frames have one (height, width).

    Attributes:
        size: (height, width).
        frames: (height, width, 3) uint8 each; also those of other sizes.
        users: places of both frames -> whoever asked for that pair.
    """

    size: tuple[int, int]
    frames: Sequence[np.ndarray]
    users: dict[Pair, list[U]]

    def images(self, pairs: Sequence[Pair], device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Frames of some pairs for a network.

        Returns:
            (image, 3, height, width) float32 in 0..255, each frame once; and where in it the first and the second frame
            of each pair are, (pair,).
        """
        places, index = np.unique(np.array(pairs), return_inverse=True)
        stack = torch.from_numpy(np.stack([self.frames[place] for place in places])).to(device)
        first, second = torch.from_numpy(index.reshape(-1, 2)).to(device).unbind(1)
        return stack.permute(0, 3, 1, 2).float(), first, second


def distinct_pairs(wanted: Sequence[tuple[U, np.ndarray, np.ndarray]]) -> list[PairsOfOneSize[U]]:
    """Sorts requests (who, first frame, second frame) into distinct pairs; sizes and pairs in order of appearance."""
    frames, places = distinct_images([frame for _, *both in wanted for frame in both])
    sizes: dict[tuple[int, int], dict[Pair, list[U]]] = {}
    for (user, *_), (first, second) in zip(wanted, places.reshape(-1, 2).tolist(), strict=True):
        users = sizes.setdefault(frames[first].shape[:2], {})
        users.setdefault((first, second), []).append(user)
    return [PairsOfOneSize(size=size, frames=frames, users=users) for size, users in sizes.items()]
