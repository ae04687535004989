"""Exact moments, and the sums that give them: weighted with probabilities, compensated for rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators import Draw
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Real, checked, checked_record
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["MomentSums", "Moments", "compensated_sum"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Exact moments of one draw of an estimator.

    Attributes
    ----------
    name : str
        Whose.
    mean : (N,)
        E f.
    covariance : (N, N)
        Cov f of one draw.
    parts : {part: (N,)}
        Means of the parts, where the estimator tells them; they sum to `mean`.
    magnitude : (N,)
        E |f|: what rounding errors are relative to.
    rounding : (N,)
        Bound on what summation and products of probabilities did to `mean`; the estimator's own rounding is not in it.
    probability : float
        Total probability of the paths: 1 to rounding, or something is missing.
    paths, draws : int
        Trajectories, and draws they were combined into.
    draw : Draw
        What one draw is.
    batch : int
        Trajectories per draw.
    horizon : int
        Where trajectories were truncated.
    epsilon : float
        Unit of the last place of the dtype in which the estimator answered.
    """

    name: str
    mean: FloatArray
    covariance: FloatArray
    parts: Mapping[str, FloatArray]
    magnitude: FloatArray
    rounding: FloatArray
    probability: float
    paths: int
    draws: int
    draw: Draw
    batch: int
    horizon: int
    epsilon: float = float(np.finfo(np.float64).eps)

    @property
    def standard_deviation(self) -> FloatArray:
        """(N,), of one draw."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    @checked
    def allowed(self, known_to: Real) -> FloatArray:
        """Return how far the mean may be from what is claimed, (N,): rounding times condition.

        Condition is in `known_to`, the bounds on what the errors of the follower, the critic and the truth do; rounding
        is that of the weights, and of the estimator's own sums in the dtype of its answers, which have at most a few
        terms per step and part.
        """
        if not known_to >= 0.0:
            raise InvalidInputError(refusal("known_to", known_to, "a number >= 0, or inf", "pass a bound"))
        own = 16 * self.horizon * self.epsilon * self.magnitude
        return known_to + self.rounding + own


class MomentSums:
    """Running weighted sums, each term rounded once and the additions compensated."""

    def __init__(self, parameters: int) -> None:
        self._parameters = parameters
        self._pieces: dict[str, list[FloatArray]] = {}
        self._second = np.zeros((parameters, parameters))
        self._centre: FloatArray | None = None

    def _record(self, key: str, weighted: FloatArray) -> None:
        self._pieces.setdefault(key, []).extend(compensated_sum(weighted))

    def _total(self, key: str) -> FloatArray:
        pieces = np.array(self._pieces[key])
        return np.array([math.fsum(column) for column in pieces.T])

    def add(
        self,
        probability: FloatArray,
        rows: FloatArray,
        parts: Mapping[str, FloatArray],
        covariance: FloatArray | None,
    ) -> None:
        """Add a batch of draws with their probabilities."""
        weight = probability[:, None]
        self._record("probability", weight)
        self._record("mean", weight * rows)
        self._record("magnitude", weight * np.abs(rows))
        for part, values in parts.items():
            self._record(f"part {part}", weight * values)
        # Second moments about a point near the mean: nothing is lost to cancellation.
        if self._centre is None:
            self._centre = (weight * rows).sum(axis=0) / max(float(probability.sum()), np.finfo(np.float64).tiny)
        centred = rows - self._centre
        self._second += centred.T @ (weight * centred)
        if covariance is not None:
            self._second += np.einsum("m,mij->ij", probability, covariance)

    def moments(self, *, horizon: int, **described: Any) -> Moments:
        """Return the moments of everything that was added."""
        assert self._centre is not None
        mean, magnitude = self._total("mean"), self._total("magnitude")
        off = mean - self._centre
        second = self._second - np.outer(off, off)
        parts = {key.removeprefix("part "): self._total(key) for key in self._pieces if key.startswith("part ")}
        # Each probability is a product of 2T + 1 rounded numbers, and one more product weighs the row.
        level = (2 * horizon + 3) * float(np.finfo(np.float64).eps)
        return Moments(
            mean=mean,
            covariance=0.5 * (second + second.T),
            parts=parts,
            magnitude=magnitude,
            rounding=level * magnitude,
            probability=float(self._total("probability")[0]),
            horizon=horizon,
            **described,
        )


def compensated_sum(terms: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (high, low) with high + low the sum over the first axis, to about twice working precision.

    Halves are added pairwise, and what each addition rounds away is recovered exactly and summed beside it.

    Examples
    --------
    >>> high, low = compensated_sum(np.array([[1.0], [1e-20], [-1.0]]))
    >>> (high + low).tolist()
    [1e-20]
    """
    high = np.asarray(terms, dtype=np.float64)
    low = np.zeros_like(high)
    while high.shape[0] > 1:
        if high.shape[0] % 2:
            padding = np.zeros((1, *high.shape[1:]))
            high, low = np.concatenate([high, padding]), np.concatenate([low, padding])
        half = high.shape[0] // 2
        left, right = high[:half], high[half:]
        total = left + right
        seen = total - left
        lost = (left - (total - seen)) + (right - seen)
        high, low = total, low[:half] + low[half:] + lost
    return high[0], low[0]
