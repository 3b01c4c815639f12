"""Statistics of few runs, with 95 % bootstrap intervals; SciPy does the resampling.

Scores come in strata, one array of seeds' scores for each length; each stratum is resampled by
itself. Where scores have more axes, such as the steps of a curve, seeds are on the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Scores = npt.NDArray[np.float64]
Statistic = Callable[..., Any]
CONFIDENCE = 0.95
RESAMPLES = 9999  # more no longer change the second decimal of an interval
FEWER_RESAMPLES = 1999  # of pairs of models, and of each point of a curve
MANY_STRATA, FEWEST_RESAMPLES = 100, 199  # hundreds of lengths would take minutes
BATCH = 1_000_000  # numbers resampled at a time, which bounds the memory


class Estimate(NamedTuple):
    """A statistic of ``n`` runs and the ends of its interval, NaN where there is none."""

    value: Any  # a float, or an array of one for each point of a curve
    low: Any
    high: Any
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "-"
        if np.isnan(self.low):
            return f"{self.value:z.2f}"
        return f"{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}]"


def iqm(*strata: Scores, axis: int = -1) -> Any:
    """Return the interquartile mean: the mean without the lowest and the highest quarter.

    Quarters are rounded down, so that it is the mean of fewer than four runs. (Agarwal et al. 2021,
    "Deep RL at the Edge of the Statistical Precipice", section 4.3.)
    """
    return stats.trim_mean(np.concatenate(strata, axis=axis), 0.25, axis=axis)


def mean(*strata: Scores, axis: int = -1) -> Any:
    """Return the mean over all runs of all strata."""
    return np.concatenate(strata, axis=axis).mean(axis=axis)


def improvement(*strata: Scores, axis: int = -1) -> Any:
    """Return the probability that a run of the first model beats one of the second.

    The mean over strata of P(X > Y) + P(X = Y) / 2, which is the Mann-Whitney U divided by its
    maximum. (Agarwal et al. 2021, appendix A.4.) The strata are those of the first model, then
    those of the second in the same order; the axis is the last one.
    """
    assert axis == -1
    half = len(strata) // 2
    chances = []
    for x, y in zip(strata[:half], strata[half:], strict=True):
        # From ranks: all pairs of hundreds of runs would fill the memory.
        n, m = x.shape[-1], y.shape[-1]
        ranks = stats.rankdata(np.concatenate([x, y], axis=-1), axis=-1)[..., :n]
        chances.append((ranks.sum(axis=-1) - n * (n + 1) / 2) / (n * m))
    return np.mean(chances, axis=0)


def profile(strata: Sequence[Scores], levels: Scores) -> Estimate:
    """Return the share of runs whose score is above each level, a performance profile.

    The strata are (runs,), the levels and the estimate (L,). (Agarwal et al. 2021, section 4.2.)
    """
    above = [(scores > levels[:, None]).astype(np.float64) for scores in strata]
    return estimate(above, mean, FEWER_RESAMPLES)


def share(successes: Scores) -> Estimate:
    """Return the share of episodes (n,), 0 or 1 each, that succeeded, with Wilson's interval.

    Unlike a bootstrap interval it has a width where all or none succeeded. (Wilson 1927.)
    """
    n = len(successes)
    interval = stats.binomtest(round(successes.sum()), n).proportion_ci(CONFIDENCE, "wilson")
    return Estimate(float(successes.mean()), interval.low, interval.high, n)


def estimate(
    strata: Sequence[Scores], statistic: Statistic, resamples: int = RESAMPLES
) -> Estimate:
    """Return a statistic and its interval: stratified bootstrap over runs, percentiles.

    The same scores give the same interval. There is none if a stratum has one run, or if resampling
    changes nothing, as of equal scores: an interval without a width would look like certainty. The
    strata are (..., runs); the statistic is a function of them and of ``axis``, such as ``iqm``.
    """
    n = sum(scores.shape[-1] for scores in strata)
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = statistic(*strata, axis=-1)
    nothing = np.full_like(value, np.nan)[()]
    if min(scores.shape[-1] for scores in strata) < 2:
        return Estimate(value, nothing, nothing, n)
    if len(strata) > MANY_STRATA:
        resamples = min(resamples, FEWEST_RESAMPLES)
    interval = stats.bootstrap(
        tuple(strata),
        statistic,
        n_resamples=resamples,
        batch=max(BATCH // sum(scores.size for scores in strata), 1),
        vectorized=True,
        axis=-1,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    if np.allclose(interval.low, interval.high, rtol=1e-12, atol=1e-12):
        return Estimate(value, nothing, nothing, n)
    return Estimate(value, interval.low, interval.high, n)
