"""What the processes of a run tell each other, besides gradients.

With one process all of it is a plain call. Objects travel between our own ranks only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from manifests.errors import MvvError

__all__ = ["everyones", "on_rank_0"]

T = TypeVar("T")


def on_rank_0(accelerator: Accelerator, work: Callable[[], T], *, tell: Callable[[T], Any] | None = None) -> Any:
    """Rank 0 works, the others wait; an error of it is raised everywhere, so that none waits forever.

    Args:
        accelerator: of the run.
        work: done on rank 0 alone.
        tell: what of its result the others are to know; it is small.

    Returns:
        on rank 0 the result, on the others what was told, or None.
    """
    result: Any = None
    error: Exception | None = None
    if accelerator.is_main_process:
        try:
            result = work()
        except (MvvError, OSError) as caught:
            error = caught
    if accelerator.num_processes > 1:
        box = [error, tell(result) if tell and accelerator.is_main_process and error is None else None]
        broadcast_object_list(box)
        error = box[0]
        result = result if accelerator.is_main_process else box[1]
    if error is not None:
        raise error
    return result


def everyones(accelerator: Accelerator, items: list[T]) -> list[T]:
    """The lists of all ranks in a row, on every rank."""
    return gather_object(items) if accelerator.num_processes > 1 else list(items)
