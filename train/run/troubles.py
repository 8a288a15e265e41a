"""What can end a run from outside, in words that say what to do: storage, memory, numbers that are not finite."""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from manifests.errors import Failed, StorageError, refusal
from train.run.checkpoint import found

__all__ = ["check_finite", "explained"]


def check_finite(norm: float, step: int, checkpoints: Path) -> None:
    """Stops before an update with a gradient that is not finite.

    Args:
        norm: of the gradient, summed over all ranks, so that all of them stop together.
        step: the update that was to come.
        checkpoints: folder of them.

    Raises:
        Failed: NaN or infinity.
    """
    if not math.isfinite(norm):
        there = found(checkpoints)
        last = f"the last checkpoint is {there[-1].name}" if there else "there was no checkpoint yet"
        raise Failed(
            "error",
            f"step {step}",
            f"found a gradient of norm {norm}, expected a finite one; nothing was updated and {last}; train again with"
            " a lower --learning-rate or more --warmup-steps",
        )


@contextlib.contextmanager
def explained(out: Path) -> Iterator[None]:
    """Errors of storage and memory within the block, as errors of ours; others pass.

    Raises:
        StorageError: the disk is full or refuses.
        Failed: memory is short.
    """
    try:
        yield
    except OSError as error:
        known = refusal(error)
        if known is None and error.errno == errno.EFBIG:  # a limit on file sizes, which few disks have
            known = StorageError(f"{error.filename or out}: found {error.strerror}, expected room for it")
        if known is None:
            raise
        raise StorageError(f"{known}; the last checkpoint is whole, go on with --resume") from error
    except RuntimeError as error:
        # A class of its own on a GPU, but on a CPU a plain one with this text.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise Failed(
            "memory",
            "training",
            f"found {str(error).splitlines()[0]}, expected enough memory; lower --micro-batch, set"
            " --gradient-checkpointing or --source latents, then go on with --resume",
        ) from error
