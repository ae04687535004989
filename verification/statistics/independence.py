"""Draws that depend on each other: seen in products of consecutive ones, from draws that come piece by piece."""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.statistics.means import MedianOfMeans, mean_test_of
from bilevelrl.verification.statistics.stream import BlockMeans, RunningMoments, SampleMoments

__all__ = ["Independence"]


class Independence:
    """Whether consecutive draws are correlated: products of disjoint pairs have mean zero if they are not.

    Parameters
    ----------
    sample
        Moments of the draws along one direction.
    error_rate
        Probability of refusing independent draws.

    Examples
    --------
    >>> values = np.repeat(np.random.default_rng(0).standard_normal(500), 10)
    >>> found = Independence(SampleMoments.of(values[:, None]), error_rate=1e-6)
    >>> found.add(values)
    >>> found.refusal().partition(",")[0]
    'consecutive draws are correlated (+1.00)'
    """

    def __init__(self, sample: SampleMoments, *, error_rate: float) -> None:
        self._sample, self._error_rate = sample, error_rate
        self._products = RunningMoments.start(1)
        blocks = MedianOfMeans.design(error_rate=error_rate).blocks
        self._means = BlockMeans(blocks=blocks, draws=sample.draws // 2, columns=1)
        self._single = np.zeros(0)

    def add(self, values: FloatArray) -> None:
        """Take in the next draws along the direction, (n,)."""
        centred = np.concatenate([self._single, values - self._sample.mean[0]])
        pairs = centred.size // 2
        products = centred[: 2 * pairs].reshape(pairs, 2).prod(axis=1, keepdims=True)
        self._products = self._products.updated(products)
        self._means.add(products)
        self._single = centred[2 * pairs :]

    def refusal(self) -> str | None:
        """Return a sentence where they are; None where nothing is seen, or nothing varies."""
        spread = float(self._sample.standard_deviation[0])
        if spread == 0.0:
            return None
        draws = self._sample.draws
        variance = spread**2 * (draws - 1) / draws
        products = self._products.sample()
        # Centring by the sample's own mean takes one part in R of the variance from each product.
        test = mean_test_of(
            products,
            np.zeros(1),
            medians=self._means.median(),
            error_rate=self._error_rate,
            known_error=variance / draws,
        )
        if not test.rejected[0]:
            return None
        return (
            f"consecutive draws are correlated ({float(products.mean[0]) / variance:+.2f}), so no interval holds; "
            "expected independent estimates, one fresh seed each"
        )
