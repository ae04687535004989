"""Tests of variances and covariances from independent draws, each with what it sees and what it needs.

Draws are taken in pairs: for independent X, X' of the same law, `½ (X - X')(X - X')ᵀ` has expectation `Cov X` exactly,
and one such product per pair gives independent products. A claim about a covariance is so a claim about a mean, and
everything that `statistics` says of means (error rates, skewness, medians of means) holds without a word changed.
The price is a factor two of draws against the sample variance for Gaussian draws; what it buys is that no variance of
a variance has to be guessed.

    covariance_test, variance_test            judge draws against claimed second moments
    smallest_detectable_covariance_error      what a given number of draws would have seen
    draws_needed_for_covariance               how many draws would see a given error

With `m_jk = E[(X_j-μ_j)²(X_k-μ_k)²]` a product `½ (X_j-X_j')(X_k-X_k')` has variance `½ (m_jk + σ_j² σ_k²)`: for
Gaussian draws 2σ⁴ on the diagonal.
"""

from __future__ import annotations

import math

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.verification.statistics.means import (
    ERROR_RATE,
    POWER,
    MeanTest,
    draws_needed,
    mean_test,
    smallest_detectable_bias,
)

__all__ = [
    "covariance_test",
    "draws_needed_for_covariance",
    "paired_product_deviation",
    "paired_products",
    "smallest_detectable_covariance_error",
    "variance_test",
]


def paired_products(rows: FloatArray) -> FloatArray:
    """Return one unbiased product per pair of draws for every entry of the covariance's upper triangle.

    Parameters
    ----------
    rows : (n, K)
        Independent draws; an odd last one is not used.

    Returns
    -------
    (⌊n/2⌋, K (K + 1) / 2)
        In the order of `numpy.triu_indices(K)`.

    Raises
    ------
    ShapeError
        If there are fewer than four draws.

    Examples
    --------
    >>> paired_products(np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 0.0], [0.0, 0.0]])).tolist()
    [[0.0, 0.0, 0.0], [2.0, 1.0, 0.5]]
    """
    difference = _differences(rows)
    first, second = np.triu_indices(difference.shape[1])
    products: FloatArray = 0.5 * difference[:, first] * difference[:, second]
    return products


@checked
def covariance_test(
    rows: FloatArray,
    expected: FloatArray,
    *,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int | None = None,
) -> MeanTest:
    """Hold the covariance of independent draws against a claimed covariance.

    Guarantee: (a) where the claim is right, some entry is rejected with probability at most `error_rate`; (b) an entry
    that is off by `detectable` or more is rejected with probability at least `power`. `detectable` shrinks as 1/√n.

    Parameters
    ----------
    rows : (n, K)
        Independent draws.
    expected : (K, K)
        The claimed covariance, symmetric.
    error_rate, power, comparisons
        As in `mean_test`; comparisons default to the K (K + 1) / 2 entries of the upper triangle.

    Returns
    -------
    MeanTest
        One comparison per entry, in the order of `numpy.triu_indices(K)`; `bias` is the error of the covariance.

    Raises
    ------
    ShapeError
        If shapes differ.

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((20_000, 2))
    >>> covariance_test(rows, np.eye(2)).rejected.any(), covariance_test(rows, np.diag([1.0, 1.5])).rejected.tolist()
    (np.False_, [False, False, True])
    """
    check_shape("rows", rows, (None, None), "(n, K) independent draws")
    size = rows.shape[1]
    check_shape("expected", expected, (size, size), "one entry per pair of columns of rows")
    if not np.allclose(expected, expected.T, rtol=1e-12, atol=0.0):
        raise InvalidInputError("expected: expected a symmetric matrix; a covariance is one")
    return mean_test(
        paired_products(rows),
        expected[np.triu_indices(size)],
        error_rate=error_rate,
        power=power,
        comparisons=comparisons,
    )


@checked
def variance_test(
    rows: FloatArray,
    expected: FloatArray,
    *,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int | None = None,
) -> MeanTest:
    """Hold the variances of independent draws (n, K) against claimed variances (K,); see `covariance_test`.

    Examples
    --------
    >>> rows = np.random.default_rng(0).exponential(size=(60_000, 1))
    >>> test = variance_test(rows, np.array([1.0]))
    >>> bool(test.rejected[0]), bool(test.gaussian[0])  # so many draws make up for the skewness
    (False, True)
    """
    return mean_test(
        0.5 * _differences(rows) ** 2, expected, error_rate=error_rate, power=power, comparisons=comparisons
    )


def paired_product_deviation(variance: float, other_variance: float, mixed_fourth: float) -> float:
    """Return the standard deviation of one paired product, `√(½ (m + σ_j² σ_k²))`.

    Parameters
    ----------
    variance, other_variance
        σ_j² and σ_k²; the same number twice for a variance.
    mixed_fourth
        m = E[(X_j-μ_j)²(X_k-μ_k)²]; for Gaussian draws σ_j² σ_k² + 2 c², with c their covariance.

    Examples
    --------
    >>> paired_product_deviation(1.0, 1.0, 3.0) ** 2
    2.0000000000000004
    """
    if min(variance, other_variance, mixed_fourth) < 0.0:
        raise InvalidInputError("variance, other_variance, mixed_fourth: expected numbers >= 0; they are mean squares")
    return math.sqrt(0.5 * (mixed_fourth + variance * other_variance))


def smallest_detectable_covariance_error(
    draws: int, deviation: float, *, error_rate: float = ERROR_RATE, power: float = POWER, comparisons: int = 1
) -> float:
    """Return the smallest error of a (co)variance that the test sees with probability `power` or more.

    Parameters
    ----------
    draws
        Number of draws n; the test has ⌊n/2⌋ pairs.
    deviation
        Standard deviation of one paired product: `paired_product_deviation`.
    error_rate, power, comparisons
        As in `covariance_test`.

    Examples
    --------
    >>> round(smallest_detectable_covariance_error(20_000, 2**0.5), 3)
    0.113
    """
    return smallest_detectable_bias(draws // 2, deviation, error_rate=error_rate, power=power, comparisons=comparisons)


def draws_needed_for_covariance(
    error: float, deviation: float, *, error_rate: float = ERROR_RATE, power: float = POWER, comparisons: int = 1
) -> int:
    """Return the smallest number of draws whose `smallest_detectable_covariance_error` is at most `error`.

    Examples
    --------
    >>> n = draws_needed_for_covariance(0.1, 2**0.5)
    >>> smallest_detectable_covariance_error(n, 2**0.5) <= 0.1 < smallest_detectable_covariance_error(n - 2, 2**0.5)
    True
    """
    return 2 * draws_needed(error, deviation, error_rate=error_rate, power=power, comparisons=comparisons)


def _differences(rows: FloatArray) -> FloatArray:
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] < 4:
        raise ShapeError(refusal("rows.shape", rows.shape, "(n, K) with n >= 4", "draw more replicates"))
    pairs = rows.shape[0] // 2
    difference: FloatArray = rows[:pairs] - rows[pairs : 2 * pairs]
    return difference
