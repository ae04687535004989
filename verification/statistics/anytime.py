"""Tests of means that may be looked at after every draw: bets against a claimed expectation.

Whoever bets at fair odds against a true claim does not get rich: a wealth that is a nonnegative supermartingale under
the claim exceeds 1/α ever, at any time, with probability at most α (Ville). So a run may stop as soon as the wealth
does, may look as often as it likes, and may go on later. With y = λ (x - m), m the claimed mean and λ a fixed bet:

- draws in [low, high]: factors `1 + y` with |λ| (high - low) ≤ ½ (betting; Waudby-Smith & Ramdas 2024, Section 4);
- draws whose variance is at most σ²: factors `exp(φ(y) - λ² σ²/2)`, φ(y) = ± log(1 ± y + y²/2) with the sign of y
  (Catoni 2012; Wang & Ramdas 2023). No other moment is assumed: skewed or heavy-tailed draws are judged rightly.

Which bet is best depends on the bias; the wealth is spread evenly over a geometric grid of bets, both signs and all
coordinates, and an average of such wealths is one again. Nothing else pays for the K coordinates.

What it sees follows without a limit theorem: where the claim is off by b, `E exp(-log factor) ≤ 1 - λ b + c λ² (σ² +
b²)` (c = 2 for bounded draws, ½ for the others), so by Markov's inequality the sum of n log factors is at least
`-n log(1 - λ b + c λ² (σ² + b²)) - log(1/δ)` but for probability δ (for the others less the n λ² σ²/2 paid).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_positive, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.verification.statistics.bounded import check_bounds
from bilevelrl.verification.statistics.means import ERROR_RATE, POWER, check_rate
from bilevelrl.verification.statistics.search import smallest_count, smallest_size

__all__ = ["AnytimeTest", "draws_needed_anytime", "smallest_detectable_anytime_bias"]

BETS = 12


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class AnytimeTest:
    """A test of means under way; `updated` returns it after more draws.

    Parameters
    ----------
    expected : (K,)
        The claimed means.
    standard_deviation : (K,) or None
        A bound on each coordinate's standard deviation, known beforehand; or None where draws are bounded.
    bounds : (low, high) or None
        Bounds of all draws, known beforehand; or None.
    error_rate
        Probability that a right claim is ever rejected.

    Attributes
    ----------
    draws : int
        Seen so far.
    log_wealth : (2, BETS, K)
        Logarithm of the wealth of each sign, bet and coordinate.
    best : float
        Largest logarithm of the whole wealth so far.

    Raises
    ------
    InvalidInputError
        Unless exactly one of `standard_deviation` and `bounds` is given.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> test = AnytimeTest.start(np.zeros(2), standard_deviation=np.ones(2))
    >>> while not test.rejected and test.draws < 100_000:
    ...     test = test.updated(rng.standard_normal((500, 2)) + np.array([0.0, 0.2]))
    >>> test.rejected, test.coordinate, test.draws < draws_needed_anytime(0.2, 1.0, comparisons=2)
    (True, 1, True)
    """

    expected: FloatArray
    standard_deviation: FloatArray | None = None
    bounds: tuple[float, float] | None = None
    error_rate: float = ERROR_RATE
    draws: int = 0
    log_wealth: FloatArray = field(default_factory=lambda: np.zeros((2, BETS, 1)))
    best: float = 0.0

    def __post_init__(self) -> None:
        if (self.standard_deviation is None) == (self.bounds is None):
            raise InvalidInputError(
                "standard_deviation, bounds: expected exactly one of them; without a bound on the spread or on the "
                "draws no test holds at every time"
            )
        if not 0.0 < self.error_rate < 1.0:
            raise InvalidInputError(
                refusal("error_rate", self.error_rate, "a number strictly between 0 and 1", "e.g. 1e-6")
            )

    @classmethod
    @checked
    def start(
        cls,
        expected: FloatArray,
        *,
        standard_deviation: FloatArray | None = None,
        bounds: tuple[float, float] | None = None,
        error_rate: float = ERROR_RATE,
    ) -> AnytimeTest:
        """Return the test before any draw."""
        means = np.atleast_1d(expected)
        check_shape("expected", means, (None,), "one mean per coordinate")
        spread = None
        if standard_deviation is not None:
            spread = _spread(standard_deviation, means)
            if not bool((spread > 0.0).all() and np.isfinite(spread).all()):
                raise InvalidInputError(
                    "standard_deviation: expected finite numbers > 0; compare a coordinate that never varies exactly"
                )
        if bounds is not None and not bool(((means >= bounds[0]) & (means <= bounds[1])).all()):
            raise InvalidInputError(f"expected: a mean outside the bounds {bounds} of all draws is impossible")
        return cls(
            expected=means,
            standard_deviation=spread,
            bounds=bounds,
            error_rate=error_rate,
            log_wealth=np.zeros((2, BETS, means.size)),
        )

    @property
    def rejected(self) -> bool:
        """Whether the wealth has ever reached 1/α."""
        return self.best >= math.log(1.0 / self.error_rate)

    @property
    def p_value(self) -> float:
        """Smallest error rate at which the claim would be rejected by now; valid at any time."""
        return min(1.0, math.exp(-self.best))

    @property
    def coordinate(self) -> int:
        """The coordinate whose bets have won most."""
        return int(np.argmax(self.log_wealth.max(axis=(0, 1))))

    @checked
    def updated(self, rows: FloatArray) -> AnytimeTest:
        """Return the test after more independent draws (n, K); the wealth is looked at after the last of them.

        Raises
        ------
        ShapeError, InvalidInputError
            If the rows have another width, are not finite or leave the stated bounds.
        """
        if rows.ndim != 2 or rows.shape[1] != self.expected.size:
            raise ShapeError(refusal("rows.shape", rows.shape, f"(n, {self.expected.size})", "one column per mean"))
        if self.bounds is not None:
            check_bounds(rows, *self.bounds)
        log_wealth = self.log_wealth.copy()
        scale = self._scale()
        for place, bet in enumerate(_bets(bounded=self.bounds is not None)):
            stake = bet * (rows - self.expected) / scale
            for side, y in enumerate((stake, -stake)):
                if self.bounds is not None:
                    log_wealth[side, place] += np.log1p(y).sum(axis=0)
                else:
                    log_wealth[side, place] += _influence(y).sum(axis=0) - 0.5 * bet**2 * rows.shape[0]
        top = float(log_wealth.max())
        whole = top + math.log(float(np.exp(log_wealth - top).mean()))
        return replace(self, log_wealth=log_wealth, draws=self.draws + rows.shape[0], best=max(self.best, whole))

    @checked
    def detectable(self, standard_deviation: FloatArray, *, power: float = POWER) -> FloatArray:
        """Return the bias (K,) that the draws seen so far show with probability `power`, at the draws' own spread."""
        spread = _spread(standard_deviation, self.expected)
        check_rate("power", power)
        width = None if self.bounds is None else self.bounds[1] - self.bounds[0]
        return np.array(
            [
                smallest_detectable_anytime_bias(
                    self.draws, float(s), width=width, error_rate=self.error_rate, power=power, comparisons=spread.size
                )
                for s in spread
            ]
        )

    def _scale(self) -> FloatArray | float:
        return self.standard_deviation if self.standard_deviation is not None else self._width()

    def _width(self) -> float:
        assert self.bounds is not None
        return self.bounds[1] - self.bounds[0]


def _spread(standard_deviation: FloatArray, means: FloatArray) -> FloatArray:
    """Return one standard deviation per mean, whose squares are finite."""
    if np.ndim(standard_deviation):
        check_shape("standard_deviation", standard_deviation, means.shape, "one per coordinate")
    if np.abs(standard_deviation).max(initial=0.0) > 1e150:
        raise InvalidInputError("standard_deviation: expected numbers whose squares are finite; check their unit")
    return np.broadcast_to(standard_deviation, means.shape)


def smallest_detectable_anytime_bias(
    draws: int,
    standard_deviation: float,
    *,
    width: float | None = None,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int = 1,
) -> float:
    """Return the smallest |bias| that `AnytimeTest` is proven to see within so many draws with probability `power`.

    Parameters
    ----------
    draws
        How many.
    standard_deviation
        The bound that the test was given; for bounded draws, their own.
    width
        high - low for bounded draws, else None.
    error_rate, power, comparisons
        As in `mean_test`; inf where nothing of any size is seen.

    Examples
    --------
    >>> round(smallest_detectable_anytime_bias(10_000, 1.0), 3)
    0.101
    """
    check_positive("standard_deviation", standard_deviation, "a coordinate that never varies is compared exactly")

    def sees(bias: float) -> bool:
        return draws * _growth(bias, standard_deviation, width) >= _wanted(error_rate, power, comparisons)

    return smallest_size(sees, guess=standard_deviation / math.sqrt(max(draws, 1)))


def draws_needed_anytime(
    bias: float,
    standard_deviation: float,
    *,
    width: float | None = None,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int = 1,
) -> int:
    """Return the smallest number of draws within which `AnytimeTest` is proven to see a bias.

    Examples
    --------
    >>> n = draws_needed_anytime(0.1, 1.0)
    >>> round(smallest_detectable_anytime_bias(n, 1.0), 3)
    0.1
    """
    check_positive("bias", bias, "no number of draws sees a bias of zero")
    growth = _growth(bias, standard_deviation, width)
    if growth <= 0.0:
        raise InvalidInputError(refusal("bias", bias, "a bias the grid of bets reaches", "ask for a larger bias"))
    wanted = _wanted(error_rate, power, comparisons)
    return smallest_count(lambda draws: draws * growth >= wanted, start=1)


def _bets(*, bounded: bool) -> FloatArray:
    """Bets in units of 1/width (at most ½) or of 1/σ (at most 1), each a half of the one before."""
    largest = 0.5 if bounded else 1.0
    return np.asarray(largest * 2.0 ** -np.arange(BETS, dtype=np.float64))


def _influence(y: FloatArray) -> FloatArray:
    """Catoni's φ: sign(y) log(1 + |y| + y²/2)."""
    size = np.abs(y)
    result: FloatArray = np.sign(y) * np.log1p(size + 0.5 * size**2)
    return result


def _growth(bias: float, standard_deviation: float, width: float | None) -> float:
    """Proven growth of the logarithm of the best bet's wealth per draw, at a bias."""
    bounded = width is not None
    scale = width if width is not None else standard_deviation
    bets = _bets(bounded=bounded) / scale
    second = standard_deviation**2 + bias**2
    inside = 1.0 - bets * bias + (2.0 if bounded else 0.5) * bets**2 * second
    rate = -np.log(inside) - (0.0 if bounded else 0.5 * bets**2 * standard_deviation**2)
    return float(rate.max())


def _wanted(error_rate: float, power: float, comparisons: int) -> float:
    return math.log(2 * BETS * comparisons / error_rate) + math.log(1.0 / (1.0 - power))
