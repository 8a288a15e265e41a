"""Which frames and pixels a backbone sees, as plain arithmetic: metrics ask it too, so nothing here loads a network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from eval.extractor import Clip

__all__ = [
    "FLOW_MINIMUM",
    "centred_padding",
    "flow_frames",
    "flow_interval",
    "middle_frames",
    "padded_size",
]

FLOW_MINIMUM = 128
"""Smallest padded side of an image for RAFT and AMT, pixels. Both look at correlations at 1/8 of the size on four
levels; below 128 the coarsest level is one pixel wide and the sources divide by its width less one."""


def flow_interval(fps: float) -> int:
    """Every how many frames are kept before flow is measured: max(1, round(fps / 8)), half to even.

    Source: VBench 0.1.5, dynamic_degree.py.
    """
    return max(1, round(fps / 8))


def flow_frames(clip: Clip) -> range:
    """Numbers of the frames between which flow is measured; empty where it cannot be.

    Needs fps, two frames that are kept, and `FLOW_MINIMUM`.
    """
    if clip.fps is None or min(padded_size(*clip.size, multiple=8)) < FLOW_MINIMUM:
        return range(0)
    kept = range(0, clip.num_frames, flow_interval(clip.fps))
    return kept if len(kept) > 1 else range(0)


def middle_frames(num_frames: int, count: int) -> list[int]:
    """The middle frame of each of ``count`` equal intervals; a shorter video is filled up with its last frame's number.

    Source: VBench, utils.get_frame_indices(sample="middle").
    """
    edges = np.linspace(0, num_frames, min(count, num_frames) + 1).astype(int)
    middles = [int(first + end - 1) // 2 for first, end in pairwise(edges)]
    return middles + middles[-1:] * (count - len(middles))


def centred_padding(height: int, width: int, *, multiple: int) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) pixels that make both sides a multiple; an odd pixel goes right and below.

    Source: RAFT and AMT, InputPadder.
    """
    down, across = -height % multiple, -width % multiple
    return across // 2, across - across // 2, down // 2, down - down // 2


def padded_size(height: int, width: int, *, multiple: int) -> tuple[int, int]:
    """(height, width) after `centred_padding`."""
    return height + -height % multiple, width + -width % multiple
