"""Windows of animations: the rules of design 3.2, at their edges and with the float32 ends that files have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from manifests.errors import Rejected
from manifests.windows import plan_windows

MV = {"frames": 48, "fps": 24.0}
"""MV-Video's clip: needs 2 s, spans 47/24 s."""
SPAN_S = 47 / 24


def plan(start_s, end_s, *, closes=False, stretch=False, **shape):
    return plan_windows(start_s, end_s, **{**MV, **shape}, closes=closes, stretch=stretch)


def spacing(window) -> np.ndarray:
    return np.diff(window.times_s)


@pytest.mark.parametrize("end_s", [2.0, 1.9999999, float(np.float32(2.0) - np.float32(1e-7)), 1.99995])
def test_two_seconds_give_one_window_also_where_float32_made_them_shorter(end_s):
    # Oracle: design 3.2: at least F / fps long.
    (window,) = plan(0.0, end_s)
    assert (window.start_s, window.loops, window.time_scale, window.fps) == (0.0, 1, 1.0, 24.0)
    np.testing.assert_allclose(window.times_s, np.arange(48) / 24, atol=1e-6)


@pytest.mark.parametrize("end_s", [1.99, 0.5, 1.999])
def test_shorter_is_rejected_where_it_does_not_close(end_s):
    # Oracle: design 3.2, and the message's numbers.
    with pytest.raises(Rejected, match="expected at least 2 s") as caught:
        plan(0.0, end_s)
    assert caught.value.reason == "too-short"


@pytest.mark.parametrize(("end_s", "count"), [(3.3, 1), (4.0, 1), (4.00005, 1), (4.01, 2), (100.25, 2)])
def test_a_second_window_comes_only_beyond_twice_the_length(end_s, count):
    # Oracle: design 3.2: longer than 2F / fps.
    windows = plan(0.0, end_s)
    assert [window.index for window in windows] == list(range(count))
    assert windows[0].times_s[0] == 0.0
    if count == 2:
        assert windows[1].times_s[-1] == pytest.approx(end_s, abs=1e-6)
        assert windows[1].start_s == pytest.approx(end_s - SPAN_S)
        assert windows[0].times_s[-1] < windows[1].times_s[0]


def test_dead_lead_time_is_skipped():
    # Oracle: the active interval begins at the first key, here 1.25 s.
    (window,) = plan(1.25, 3.3)
    assert window.times_s[0] == window.start_s == 1.25
    first, last = plan(10.0, 16.0)
    assert (first.times_s[0], last.times_s[-1]) == (10.0, 16.0)


@pytest.mark.parametrize("start_s", [0.0, 1 / 3, float(np.float32(0.7))])
@pytest.mark.parametrize("length_s", [0.31, 1.0, 2.0, 2.7, 4.0, 7.123456])
@pytest.mark.parametrize(
    "shape", [{"frames": 48, "fps": 24.0}, {"frames": 16, "fps": 8.0}, {"frames": 5, "fps": 29.97}]
)
def test_times_lie_in_the_active_interval_and_are_evenly_spaced(start_s, length_s, shape):
    # Oracle: the definition of a window, for closed and stretched ones as well.
    end_s = start_s + length_s
    for closes, stretch in itertools.product([False, True], repeat=2):
        try:
            windows = plan(start_s, end_s, closes=closes, stretch=stretch, **shape)
        except Rejected:
            assert not closes
            assert not stretch
            assert length_s < shape["frames"] / shape["fps"]
            continue
        for window in windows:
            times = np.array(window.times_s)
            assert len(times) == shape["frames"]
            assert times.min() >= start_s - 1e-6
            assert times.max() <= end_s + 1e-6
            steps = np.diff(times) % length_s if window.loops > 1 else np.diff(times)
            np.testing.assert_allclose(
                steps, (1 / window.fps) % length_s if window.loops > 1 else 1 / window.fps, atol=3e-6
            )


def test_loop_repeats_the_interval_by_its_phase():
    # Oracle: by hand: 0.75 s from 0.5 s, at 8 fps.
    (window,) = plan(0.5, 1.25, closes=True, frames=16, fps=8.0)
    expected = [0.5 + (k / 8) % 0.75 for k in range(16)]
    np.testing.assert_allclose(window.times_s, expected, atol=1e-6)
    assert window.loops == 3  # 15/8 s: whole at 0.75 and 1.5
    assert (window.start_s, window.time_scale, window.fps) == (0.5, 1.0, 8.0)


@pytest.mark.parametrize("length_s", [0.9999999, 1.0, 1.0000001, float(np.float32(1.1)) - float(np.float32(0.1))])
@pytest.mark.parametrize("start_s", [0.0, 0.3])
def test_loops_count_how_often_the_interval_is_begun_also_with_float32_ends(length_s, start_s):
    # Oracle: frames at the start's phase, for a second of 8 frames that is off by rounding alone.
    (window,) = plan(start_s, start_s + length_s, closes=True, frames=17, fps=8.0)
    begins = [k for k, t in enumerate(window.times_s) if abs(t - start_s) < 2e-6]
    assert begins == [0, 8, 16]
    assert window.loops == 3


def test_a_loop_that_the_window_does_not_begin_twice_counts_one():
    # Oracle: by hand: the span of 1.875 s is shorter than the 1.95 s of the cycle.
    (window,) = plan(0.0, 1.95, closes=True, frames=16, fps=8.0)
    assert window.loops == 1
    np.testing.assert_allclose(window.times_s, np.arange(16) / 8, atol=1e-6)


def test_long_enough_animations_are_not_looped():
    # Oracle: design 3.2: only shorter ones are.
    assert [w.loops for w in plan(0.0, 5.0, closes=True)] == [1, 1]
    assert plan(0.0, 3.0, closes=True) == plan(0.0, 3.0)


def test_stretch_samples_the_whole_at_its_true_rate():
    # Oracle: by hand: 16 frames over 0.6 s.
    (window,) = plan(0.25, 0.85, stretch=True, frames=16, fps=8.0)
    assert window.times_s[0] == 0.25
    assert window.times_s[-1] == pytest.approx(0.85)
    assert window.fps == pytest.approx(15 / 0.6)
    assert window.time_scale == pytest.approx(0.6 / (15 / 8))
    np.testing.assert_allclose(spacing(window), 0.04, atol=2e-6)
    assert window.loops == 1


def test_stretch_leaves_cycles_and_long_animations_as_they_are():
    # Oracle: the same call without it.
    assert plan(0.0, 0.5, closes=True, stretch=True) == plan(0.0, 0.5, closes=True)
    assert plan(0.0, 9.0, stretch=True) == plan(0.0, 9.0)


def test_single_frames_are_windows_too():
    # Oracle: the rules with a span of zero.
    first, last = plan(1.0, 2.0, frames=1, fps=8.0)
    assert (first.times_s, last.times_s) == ((1.0,), (2.0,))
    (window,) = plan(1.0, 1.05, frames=1, fps=8.0, stretch=True)
    assert (window.times_s, window.time_scale, window.fps) == ((1.0,), 1.0, 8.0)


def test_times_are_the_same_digits_everywhere():
    # Oracle: rounded to the microsecond, so that a last bit of another machine does not reach the dataset.
    (window,) = plan(1 / 3, 3.1)
    assert all(t == round(t, 6) for t in window.times_s)


def test_last_window_is_left_out_on_request():
    # Oracle: the same animation with it.
    both = plan_windows(0.5, 9.5, frames=16, fps=8.0, closes=False)
    assert plan_windows(0.5, 9.5, frames=16, fps=8.0, closes=False, last=False) == both[:1]
    assert len(both) == 2
