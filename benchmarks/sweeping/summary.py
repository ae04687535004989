"""Summaries of many runs: interquartile means with stratified bootstrap intervals.

Source: Agarwal et al. (2021), arXiv:2108.13264: with few seeds, the mean of the middle half is less at the mercy of
one lucky run than the mean, and uses more of the data than the median. Runs of different tasks are strata: they are
resampled among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import stats

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["Interval", "interquartile_mean", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A summary of runs.

    Attributes
    ----------
    mean, interquartile_mean : float
        Of all runs.
    low, high : float
        Percentile interval of the interquartile mean; NaN-free: equal to it where a stratum has a single run.
    runs : int
        How many there are.
    """

    mean: float
    interquartile_mean: float
    low: float
    high: float
    runs: int


def interquartile_mean(values: Any, axis: int = -1) -> FloatArray:
    """Return the mean without the lowest and the highest quarter (rounded down in number).

    Examples
    --------
    >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    trimmed: Any = stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis)
    result: FloatArray = trimmed
    return result


def summarise(strata: Sequence[Any], *, rng: Generator, confidence: float = 0.95, resamples: int = 2000) -> Interval:
    """Return mean, interquartile mean and its stratified bootstrap interval.

    Parameters
    ----------
    strata
        One array of finite scores per stratum, e.g. per task; each is resampled by itself.
    rng
        Source of randomness.
    confidence
        Of the interval, in (0, 1).
    resamples
        Of the bootstrap.

    Raises
    ------
    InvalidInputError
        If there is no stratum, one is empty, or a score is not finite.

    Examples
    --------
    >>> found = summarise([[0.1, 0.2, 0.3, 0.2, 0.1]], rng=np.random.default_rng(0))
    >>> found.low <= found.interquartile_mean <= found.high, found.runs
    (True, 5)
    """
    samples = [np.asarray(scores, dtype=np.float64).ravel() for scores in strata]
    if not samples or any(scores.size == 0 or not np.isfinite(scores).all() for scores in samples):
        raise InvalidInputError("strata: expected at least one, each with finite scores; leave empty ones out")
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError(refusal("confidence", confidence, "a number in (0, 1)", "0.95 is usual"))
    together = np.concatenate(samples)
    centre = float(interquartile_mean(together))
    low = high = centre
    varying = [scores for scores in samples if scores.size > 1]
    if varying:
        # A stratum of a single run says nothing of its own spread: it is there in every resample.
        alone = np.concatenate([scores for scores in samples if scores.size == 1] or [np.empty(0)])

        def of_strata(*drawn: Any, axis: int = -1) -> FloatArray:
            columns = [np.moveaxis(each, axis, -1) for each in drawn]
            fixed = np.broadcast_to(alone, (*columns[0].shape[:-1], alone.size))
            return interquartile_mean(np.concatenate([*columns, fixed], axis=-1))

        interval = stats.bootstrap(
            varying,
            of_strata,
            n_resamples=resamples,
            confidence_level=confidence,
            method="percentile",
            vectorized=True,
            rng=rng,
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Interval(mean=float(together.mean()), interquartile_mean=centre, low=low, high=high, runs=int(together.size))
