"""Estimates: against rliable, which is another implementation, and by their laws."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rliable import library, metrics

from memrl.results import stats
from memrl.results.stats import Scores

pytestmark = pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")

# Both sides resample at random; an end of an interval is a quantile of that.
CLOSE = 0.015


@pytest.fixture(scope="module")
def scores() -> tuple[Scores, Scores]:
    """Of two models: 10 seeds by 4 lengths, on a scale of 1."""
    rng = np.random.default_rng(3)
    level = np.array([0.9, 0.7, 0.5, 0.2])
    first = np.clip(level + rng.normal(0, 0.15, (10, 4)), -1, 1)
    return first, np.clip(level - 0.08 + rng.normal(0, 0.2, (10, 4)), -1, 1)


def strata(scores: Scores) -> list[Scores]:
    return list(scores.T)


def theirs(data: dict, function, reps: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    points, intervals = library.get_interval_estimates(
        data, function, reps=reps, random_state=np.random.RandomState(0)
    )
    (name,) = data
    return points[name], intervals[name]


@pytest.mark.parametrize(
    "ours, rliable", [(stats.iqm, metrics.aggregate_iqm), (stats.mean, metrics.aggregate_mean)]
)
def test_an_estimate_over_lengths_is_that_of_rliable(ours, rliable, scores) -> None:
    point, interval = theirs({"a": scores[0]}, lambda x: np.array([rliable(x)]))
    estimate = stats.estimate(strata(scores[0]), ours)
    assert estimate.value == pytest.approx(point[0], abs=1e-12)
    assert [estimate.low, estimate.high] == pytest.approx(interval[:, 0], abs=CLOSE)
    assert estimate.n == 40


def test_the_probability_of_improvement_is_that_of_rliable(scores) -> None:
    first, second = scores
    point, interval = theirs({"a,b": (first, second)}, metrics.probability_of_improvement, reps=300)
    estimate = stats.estimate([*strata(first), *strata(second)], stats.improvement)
    assert estimate.value == pytest.approx(float(point), abs=1e-12)
    assert [estimate.low, estimate.high] == pytest.approx(interval.ravel(), abs=2 * CLOSE)


def test_the_probability_of_improvement_needs_little_memory_and_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (2, 20, 250)).astype(float)  # with ties
    pairs = np.sign(x[:, :, None] - y[:, None, :]).mean(axis=(-2, -1))
    tracemalloc.start()
    found = stats.improvement(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, (1 + pairs) / 2, rtol=0, atol=1e-12)
    assert peak < 20 * 250 * 250 * 8 / 4


def test_a_performance_profile_is_that_of_rliable(scores) -> None:
    levels = np.linspace(-0.5, 1, 16)
    points, intervals = library.create_performance_profile({"a": scores[0]}, levels, reps=2_000)
    estimate = stats.profile(strata(scores[0]), levels)
    assert estimate.value == pytest.approx(points["a"], abs=1e-12)
    # Shares are multiples of 1/40, and so are most ends of intervals.
    assert estimate.low == pytest.approx(intervals["a"][0], abs=1 / 40 + 1e-9)
    assert estimate.high == pytest.approx(intervals["a"][1], abs=1 / 40 + 1e-9)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_the_interquartile_mean_is_that_of_rliable(values: list[float]) -> None:
    array = np.array(values)
    assert stats.iqm(array) == pytest.approx(metrics.aggregate_iqm(array[:, None]), abs=1e-12)


def test_lengths_are_resampled_apart() -> None:
    """Two lengths with little spread: resampled as one they would have a wide interval."""
    spread = np.linspace(0, 0.01, 5)
    value, low, high, n = stats.estimate([spread, 1 - spread], stats.mean)
    assert (value, n) == (pytest.approx(0.5), 10)
    assert 0.495 <= low < 0.5 < high <= 0.505
    assert str(stats.estimate([np.zeros(5), np.ones(5)], stats.mean)) == "0.50"


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0.5, 0.2, (300, 25))
    estimate = stats.estimate([samples], stats.mean, 999)
    covered = np.mean((estimate.low <= 0.5) & (estimate.high >= 0.5))
    assert 0.89 <= covered <= 0.97  # 0.95 less what percentiles of 25 lose, give or take


def test_one_run_has_a_value_and_no_interval() -> None:
    estimate = stats.estimate([np.array([0.7])], stats.iqm)
    assert estimate.value == pytest.approx(0.7)
    assert np.isnan([estimate.low, estimate.high]).all()
    assert str(estimate) == "0.70"
    assert np.isnan(stats.estimate([np.ones(5), np.ones(1)], stats.iqm).low)


def test_where_resampling_changes_nothing_there_is_no_interval() -> None:
    for scores, text in (([1.0] * 5, "1.00"), ([0.1] * 7, "0.10")):
        estimate = stats.estimate([np.array(scores)], stats.iqm)
        assert np.isnan([estimate.low, estimate.high]).all() and str(estimate) == text
    assert str(stats.estimate([np.ones(3), np.zeros(3)], stats.improvement)) == "1.00"


def test_no_run_has_nothing() -> None:
    estimate = stats.estimate([np.empty(0)], stats.iqm)
    assert (estimate.n, str(estimate)) == (0, "-")


def test_the_same_scores_give_the_same_interval() -> None:
    values = np.random.default_rng(1).normal(size=10)
    assert stats.estimate([values], stats.iqm) == stats.estimate([values.copy()], stats.iqm)


def test_a_curve_has_at_each_point_the_estimate_of_that_point() -> None:
    values = np.random.default_rng(1).normal(size=(7, 10))
    together = stats.estimate([values], stats.iqm, 999)
    for n, row in enumerate(values):
        alone = stats.estimate([row], stats.iqm, 999)
        assert [together.value[n], together.low[n], together.high[n]] == pytest.approx(alone[:3])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9), st.floats(0.01, 1))
def test_a_model_beats_itself_half_the_time_and_what_is_worse_always(
    values: list[float], better: float
) -> None:
    array = np.array(values)
    assert stats.improvement(array, array) == pytest.approx(0.5)
    gap = array.max() - array.min() + better
    assert stats.improvement(array + gap, array) == 1
    assert stats.improvement(array, array + gap) == 0
