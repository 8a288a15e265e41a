"""Which part of an animation a clip shows (design 3.2): first and last window, loops, stretching.

A window of F frames at a rate of fps spans (F - 1) / fps seconds. An animation's active interval is [first key, last
key] over its channels, so dead lead time is skipped. MV-Video's rules are the case F = 48, fps = 24: two to four
seconds give one clip, longer ones a clip from each end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manifests.errors import Rejected

__all__ = ["Window", "plan_windows"]

# Key times are float32 in the file: an animation of "two seconds" may be 1.9999999 s long.
_TOLERANCE_S = 1e-4


@dataclass(frozen=True, kw_only=True)
class Window:
    """One part of an animation: where each frame is posed."""

    index: int
    start_s: float
    loops: int
    """How many times the active interval is begun; 1 unless a short cycle is repeated."""
    time_scale: float
    """Seconds of animation a second of clip: 1, or less where a short animation was stretched over the window."""
    fps: float
    """Frames a second of the animation's own time."""
    times_s: tuple[float, ...]


def plan_windows(
    start_s: float,
    end_s: float,
    *,
    frames: int,
    fps: float,
    closes: bool,
    stretch: bool = False,
    last: bool = True,
) -> list[Window]:
    """Windows of one animation.

    Args:
        start_s: first key, seconds.
        end_s: last key, seconds; greater than start_s.
        frames: frames in a clip.
        fps: frames a second.
        closes: the end pose meets the start pose, so the interval can be repeated.
        stretch: sample the whole of an animation that would be too short, at a higher true rate.
        last: also give a last window, that ends at the end, where the animation is longer than two windows.

    Raises:
        Rejected: ``too-short``.
    """
    length_s, needed_s, span_s = end_s - start_s, frames / fps, (frames - 1) / fps
    steps = np.arange(frames) / fps
    if length_s >= needed_s - _TOLERANCE_S:
        first = Window(
            index=0, start_s=start_s, loops=1, time_scale=1.0, fps=fps, times_s=_times(start_s + steps, end_s)
        )
        if not last or length_s <= 2 * needed_s + _TOLERANCE_S:
            return [first]
        begin = end_s - span_s
        last = Window(index=1, start_s=begin, loops=1, time_scale=1.0, fps=fps, times_s=_times(begin + steps, end_s))
        return [first, last]
    if closes:
        slack_s = _TOLERANCE_S / 10  # the same for phase and count: a frame at the end is the start of the next loop
        times = _times(start_s + np.mod(steps + slack_s, length_s) - slack_s, end_s, start_s)
        loops = math.floor((span_s + slack_s) / length_s) + 1
        return [Window(index=0, start_s=start_s, loops=loops, time_scale=1.0, fps=fps, times_s=times)]
    if stretch:
        true_fps = (frames - 1) / length_s if frames > 1 else fps
        times = _times(np.linspace(start_s, end_s, frames), end_s)
        scale = length_s / span_s if frames > 1 else 1.0
        return [Window(index=0, start_s=start_s, loops=1, time_scale=scale, fps=true_fps, times_s=times)]
    raise Rejected(
        "too-short",
        f"lasts {length_s:.4g} s and does not loop, expected at least {needed_s:.4g} s ({frames} frames at {fps:g} "
        "fps); build with fewer frames or with --stretch",
    )


def _times(times_s: np.ndarray, end_s: float, start_s: float = -math.inf) -> tuple[float, ...]:
    # Rounded to the microsecond: enough for any frame rate, and the same digits on every machine.
    clamped = np.clip(times_s, start_s, end_s)
    return tuple(float(t) for t in np.round(clamped, 6))
