"""How forward passes over pairs and clips are run: as many at a time as memory allows, in full precision."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["batches", "full_precision"]

T = TypeVar("T")

MEMORY = 2 << 30
"""What the largest intermediate of one forward pass may take, bytes."""


def _keep_freed_memory() -> None:
    """Large intermediates come from memory that the process has, instead of being mapped and zeroed each time.

    That took 40 % of the time of ViCLIP on two cores. Only where glibc is the allocator; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        never_map, never_trim = (-4, 0), (-1, 2**31 - 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
        for option in (never_map, never_trim):
            set_option(*option)


_keep_freed_memory()


@contextmanager
def full_precision() -> Iterator[None]:
    """No gradients and no TF32: its 10-bit mantissa would move scores by more than methods differ by."""
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


def batches(items: Sequence[T], *, batch_size: int, bytes_each: int = 0) -> Iterator[list[T]]:
    """Consecutive runs of items for one forward pass each.

    Args:
        items: what to split.
        batch_size: most items a run.
        bytes_each: of the largest intermediate an item; runs stay below `MEMORY`, though never below one item.
    """
    if bytes_each:
        batch_size = min(batch_size, MEMORY // bytes_each)
    size = max(1, batch_size)
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
