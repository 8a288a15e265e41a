"""The statistics against SciPy, closed forms, brute force and simulations with known truth."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from eval.statistics import (
    MIN_OBJECTS,
    ObjectMeans,
    Resampling,
    bootstrap_interval,
    estimate,
    half_width,
    holm,
    object_means,
    paired,
    sign_flip_p,
    smallest_detectable,
    view_correlation,
)
from manifests.errors import InputError

SKEWED = 1 - np.random.default_rng(0).gamma(0.7, 0.1, size=12)
BITS = np.array([0.0, 0.25, 1.0, 0.5, 0.5, 1.0, 0.0, 0.75, 1.0, 0.25])


def means_of(values, ids=None, left_out=()) -> ObjectMeans:
    names = tuple(ids or (f"o{k:03d}" for k in range(len(values))))
    return ObjectMeans(ids=names, values=np.asarray(values, float), left_out=tuple(left_out))


# -- object > view > frame ---------------------------------------------------------------------------------------------


def test_object_means_average_frames_then_views():
    """By hand: one view has three frames, the other one; each view counts the same, and so does each object."""
    rows = [("a", "front", 1.0), ("a", "front", 2.0), ("a", "front", 3.0), ("a", "back", 6.0), ("b", "front", 10.0)]
    means = object_means(rows)
    assert (means.ids, means.values.tolist(), means.left_out) == (("a", "b"), [4.0, 10.0], ())
    assert estimate(means).mean == 7.0


def test_object_means_do_not_depend_on_order_or_on_repeated_views():
    """Against themselves, to the last bit: shuffled rows, and every view of one object given three times."""
    rng = np.random.default_rng(1)
    rows = [(f"o{o}", f"v{v}", x) for o in range(6) for v in range(4) for x in rng.normal(size=5) * 10.0**o]
    expected = object_means(rows).values.tolist()
    for seed in range(20):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert object_means(shuffled).values.tolist() == expected
    repeated = rows + [row for row in rows if row[0] == "o2"] * 2
    np.testing.assert_allclose(object_means(repeated).values, expected, rtol=1e-15)


def test_estimate_and_paired_do_not_depend_on_the_order_of_rows():
    """Against themselves, to the last bit: resampling is seeded and objects are sorted first."""
    rng = np.random.default_rng(2)
    rows = [(f"o{o}", f"v{v}", rng.normal()) for o in range(9) for v in range(4)]
    other = [(o, v, x + 0.1 * rng.normal()) for o, v, x in rows]
    once = estimate(object_means(rows)), paired(object_means(rows), object_means(other))
    random.Random(3).shuffle(rows)
    random.Random(4).shuffle(other)
    assert (estimate(object_means(rows)), paired(object_means(rows), object_means(other))) == once


def test_object_means_leave_out_whole_objects_and_name_them():
    """By hand: a missing value, a missing view and a missing object; none of them changes another object."""
    rows = [("a", "v0", 1.0), ("a", "v1", 3.0), ("b", "v0", 5.0), ("b", "v1", None), ("c", "v0", 7.0), ("x", "v0", 9.0)]
    means = object_means(rows, objects=["d", "c", "b", "a"], views=["v0", "v1"])
    assert (means.ids, means.values.tolist(), means.left_out) == (("a",), [2.0], ("b", "c", "d"))


def test_object_means_look_only_at_the_views_that_count():
    """By hand: a further view changes nothing."""
    rows = [("a", "v0", 1.0), ("a", "extra", 100.0), ("b", "v0", 2.0)]
    assert object_means(rows, views=["v0"]).values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_object_means_refuse_what_is_not_finite(value):
    """The message names object, view and value."""
    with pytest.raises(InputError, match=r"object a, view v0: found (nan|inf), expected a finite value"):
        object_means([("a", "v0", value)])


def test_a_view_is_never_a_unit():
    """Against one view an object: sixteen copies of each view leave mean, interval and test as they were."""
    rng = np.random.default_rng(5)
    few = [(f"o{o}", "v0", x) for o, x in enumerate(rng.normal(size=8))]
    many = [(o, f"v{k}", x) for o, _, x in few for k in range(16)]
    assert estimate(object_means(many)) == estimate(object_means(few))


# -- intervals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [SKEWED, BITS, np.array([1.0, 2.0, 4.0])], ids=["skewed", "bits", "three"])
@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_intervals_equal_scipy_on_the_same_draws(values, method):
    """Against scipy.stats.bootstrap, which draws the same objects from the same seed."""
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method=method, rng=np.random.default_rng(7))
    found = bootstrap_interval(values, Resampling(draws=4000, seed=7))
    pair = (found.low, found.high) if method == "BCa" else (found.percentile_low, found.percentile_high)
    np.testing.assert_allclose(pair, expected.confidence_interval, rtol=0, atol=1e-12)


def test_intervals_of_bits_do_not_depend_on_rounding():
    """Tenfold values give tenfold intervals, though many resampled means are equal to the mean but for rounding."""
    found, larger = bootstrap_interval(BITS), bootstrap_interval(BITS * 10)
    assert (larger.low, larger.high) == pytest.approx((10 * found.low, 10 * found.high), rel=1e-12)


def test_intervals_move_with_the_values():
    """Shift and mirror: properties of a mean's interval (mirroring exchanges the ends up to the luck of the draws)."""
    found, moved = bootstrap_interval(SKEWED), bootstrap_interval(SKEWED + 3)
    assert (moved.low, moved.high) == pytest.approx((found.low + 3, found.high + 3), abs=1e-12)
    mirrored = bootstrap_interval(-SKEWED)
    assert (-mirrored.high, -mirrored.low) == pytest.approx((found.low, found.high), abs=3e-3)


def test_intervals_of_many_objects_approach_the_normal_ones():
    """Against the normal limit, with more draws by objects than one block of memory holds."""
    values = np.random.default_rng(8).gamma(2.0, size=3000)
    found = bootstrap_interval(values, Resampling(draws=3000))
    z = stats.norm.ppf(0.975) * values.std() / math.sqrt(len(values))
    assert (found.low, found.high) == pytest.approx((values.mean() - z, values.mean() + z), abs=0.1 * z)


def test_intervals_cover_the_truth_as_often_as_the_docstring_says():
    """Simulation, 600 sets: 40 objects come close to 0.95; 8 do not, which the closed-form half width repairs."""
    rng = np.random.default_rng(9)
    covered = {}
    for n in (8, 40):
        inside, closed = 0, 0
        for _ in range(600):
            values = rng.normal(size=n)
            found = bootstrap_interval(values, Resampling(draws=800))
            inside += found.low <= 0 <= found.high
            closed += abs(values.mean()) <= half_width(values)
        covered[n] = inside / 600, closed / 600
    assert 0.84 < covered[8][0] < 0.92
    assert 0.92 < covered[40][0] < 0.97
    assert all(0.93 < closed < 0.97 for _, closed in covered.values())


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.7]])
def test_few_objects_have_a_mean_and_nothing_else(values):
    """The rule of the evaluation: fewer than three objects, not available."""
    assert len(values) < MIN_OBJECTS
    found = estimate(means_of(values))
    assert (found.interval, found.half_width, found.n_objects) == (None, None, len(values))
    assert (found.mean is None) == (not values)
    difference = paired(means_of(values), means_of(values))
    assert (difference.interval, difference.p, difference.smallest_p, difference.detectable) == (None,) * 4


def test_equal_values_have_no_interval():
    """Resampling equal values would give a width of zero; that is not knowledge."""
    found = estimate(means_of([0.1 + 0.2, 0.3, 0.3, 0.3]))
    assert (found.mean, found.interval, found.half_width) == (pytest.approx(0.3), None, None)


def test_half_width_equals_the_t_interval():
    """Against scipy.stats.t.interval."""
    low, high = stats.t.interval(0.95, len(SKEWED) - 1, SKEWED.mean(), stats.sem(SKEWED))
    assert half_width(SKEWED) == pytest.approx((high - low) / 2, rel=1e-12)


# -- tests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 8, 12])
def test_exact_p_equals_scipy(n):
    """Against scipy.stats.permutation_test over all patterns of exchanged pairs."""
    rng = np.random.default_rng(n)
    first, second = rng.normal(0.4, 1, n), rng.normal(0, 1, n)
    expected = stats.permutation_test(
        (first, second), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert sign_flip_p(first - second) == pytest.approx(expected, abs=1e-12)


def test_exact_p_equals_brute_force_where_sums_tie():
    """Against a loop over all patterns in whole numbers: differences of bits tie often."""
    steps = [1, -1, 0, 2, 1, 0, 1, -2, 3, 1]
    sums = [
        abs(sum(s * d for s, d in zip(signs, steps, strict=True))) for signs in itertools.product((1, -1), repeat=10)
    ]
    expected = sum(total >= abs(sum(steps)) for total in sums) / len(sums)
    assert sign_flip_p(np.array(steps) * 0.1) == expected


def test_drawn_p_approaches_the_exact_one_and_counts_the_observed_pattern():
    """Against the exact p of the same differences; and by formula where no drawn pattern can reach the observed one."""
    differences = np.random.default_rng(10).normal(0.5, 1, 14)
    exact = sign_flip_p(differences)
    drawn = sign_flip_p(differences, Resampling(draws=20_000, exact_up_to=0))
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    assert sign_flip_p(np.ones(60), Resampling(draws=500)) == 1 / 501


def test_p_of_no_difference_is_one_and_direction_does_not_matter():
    """Properties of a two-sided test."""
    assert sign_flip_p(np.zeros(5)) == 1.0
    assert sign_flip_p(SKEWED - 0.9) == sign_flip_p(0.9 - SKEWED)


def test_smallest_p_is_reached_and_never_passed():
    """Against the test itself on differences that all point one way."""
    for n in (3, 6, 16):
        found = paired(means_of(np.full(n, 2.0)), means_of(np.linspace(0, 1, n)))
        assert found.p == found.smallest_p == 2 / 2**n
    found = paired(means_of(np.full(40, 2.0)), means_of(np.linspace(0, 1, 40)), Resampling(draws=300))
    assert found.p == found.smallest_p == 1 / 301


def test_false_alarms_are_as_rare_as_alpha():
    """Simulation, 800 pairs of equal methods with object effects: p below 0.05 in about one of twenty, never more."""
    rng = np.random.default_rng(11)
    ps = [sign_flip_p(rng.standard_t(4, size=9) * rng.uniform(0.1, 3, size=9)) for _ in range(800)]
    assert 0.025 < np.mean(np.array(ps) <= 0.05) < 0.07


def test_paired_uses_shared_objects_only_and_names_the_others():
    """By hand."""
    first = means_of([1.0, 2.0, 3.0, 9.0], ["a", "b", "c", "d"], left_out=["e"])
    second = means_of([0.5, 1.0, 1.5, 7.0], ["a", "b", "c", "f"])
    found = paired(first, second)
    assert (found.n_objects, found.left_out) == (3, ("d", "e", "f"))
    assert (found.mean, found.first_mean, found.second_mean) == (1.0, 2.0, 1.0)
    assert found.p == 2 / 2**3


def test_paired_interval_is_that_of_the_differences():
    """Against the interval of a single sample, and the object effect drops out."""
    rng = np.random.default_rng(12)
    effect, noise = rng.normal(size=20) * 100, rng.normal(0.5, 1, size=20)
    found = paired(means_of(effect + noise), means_of(effect))
    assert found.interval.low == pytest.approx(bootstrap_interval(noise).low, abs=1e-9)
    assert found.interval.high - found.interval.low < 1.5


def test_holm_follows_the_hand_example():
    """Holm 1979, by hand: 0.01 x 4, 0.03 x 3, 0.04 x 2 raised to the one before, 0.2; a missing test does not count."""
    assert holm([0.03, None, 0.01, 0.2, 0.04]) == pytest.approx([0.09, None, 0.04, 0.2, 0.09])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]


def test_holm_equals_the_definition_by_rejection():
    """Against the step-down procedure itself: rejected at a level where the corrected p is at most that level."""
    rng = np.random.default_rng(13)
    for _ in range(50):
        ps, level = rng.uniform(size=7) ** 3, rng.uniform(0.01, 0.3)
        rejected = set()
        for place, k in enumerate(np.argsort(ps)):
            if ps[k] > level / (7 - place):
                break
            rejected.add(k)
        assert {k for k, p in enumerate(holm(list(ps))) if p <= level} == rejected


# -- what a set can show -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 10, 35, 200])
def test_smallest_detectable_has_the_stated_power(n):
    """Against scipy's noncentral t, both tails."""
    differences = np.random.default_rng(n).normal(size=n)
    shift = smallest_detectable(differences) * math.sqrt(n) / differences.std(ddof=1)
    critical = stats.t.ppf(0.975, n - 1)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power == pytest.approx(0.8, abs=1e-6)


def test_smallest_detectable_is_found_four_times_in_five():
    """Simulation with the t test of SciPy: 1500 sets of 12 objects whose true difference is the detectable one."""
    rng = np.random.default_rng(14)
    scale = smallest_detectable(np.array([-1.0, 1.0] * 6)) / np.std([-1.0, 1.0] * 6, ddof=1)
    found = stats.ttest_1samp(rng.normal(scale, 1, size=(1500, 12)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.035)


def test_smallest_detectable_shrinks_with_the_root_of_the_objects():
    """The normal limit: 2.8 standard errors."""
    differences = np.tile([-1.0, 1.0], 5000)
    assert smallest_detectable(differences) == pytest.approx((1.959964 + 0.841621) / 100, rel=1e-3)
    assert smallest_detectable(np.full(9, 0.3)) is None


# -- views -------------------------------------------------------------------------------------------------------------


def test_view_correlation_equals_the_f_ratio():
    """Against scipy.stats.f_oneway: (F - 1) / (F - 1 + views) with equal numbers of views."""
    rng = np.random.default_rng(15)
    table = rng.normal(size=(10, 1)) + rng.normal(size=(10, 4))
    ratio = stats.f_oneway(*table).statistic
    rows = [(f"o{o}", f"v{v}", x) for o, line in enumerate(table) for v, x in enumerate(line)]
    assert view_correlation(rows) == pytest.approx((ratio - 1) / (ratio - 1 + 4), rel=1e-12)
    assert view_correlation(rows[::-1]) == view_correlation(rows)


def test_view_correlation_recovers_the_truth_with_unequal_views():
    """Simulation: object and view variances 3 and 1 give 0.75."""
    rng = np.random.default_rng(16)
    rows = [
        (f"o{o}", f"v{v}", effect + rng.normal())
        for o, effect in enumerate(rng.normal(0, math.sqrt(3), size=3000))
        for v in range(2 + o % 4)
    ]
    assert view_correlation(rows) == pytest.approx(0.75, abs=0.02)


def test_view_correlation_is_one_for_repeated_views_and_none_without_views():
    """By the definition."""
    rows = [(f"o{o}", f"v{v}", float(o)) for o in range(4) for v in range(3)]
    assert view_correlation(rows) == 1.0
    assert view_correlation([row for row in rows if row[1] == "v0"]) is None
    assert view_correlation([row for row in rows if row[0] in ("o0", "o1")]) is None
    assert view_correlation([(o, v, 0.5) for o, v, _ in rows]) is None
