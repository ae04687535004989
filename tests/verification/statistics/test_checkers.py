"""The checkers checked: designs are inverses, right samplers pass, wrong ones are caught, rates are as declared.

Rates are measured at α = 0.05 over thousands of synthetic runs, where a rate can be seen at all, and held against
binomial bounds that a right checker exceeds once in a million test runs.
"""

import math

import numpy as np
import pytest
from scipy import stats

from bilevelrl.reference import named_stream
from bilevelrl.reference.errors import InvalidInputError, ShapeError
from bilevelrl.verification.statistics.bounded import BoundedDesign
from bilevelrl.verification.statistics.error_budget import ErrorBudget
from bilevelrl.verification.statistics.means import StudentDesign, mean_test
from bilevelrl.verification.statistics.variances import paired_squares

ALPHA = 0.05
# How often a right checker may miss the bounds below: so rarely that it never happens.
DOUBT = 1e-6
RUNS = 4000  # columns of one call
LOOPS = 1200  # calls


def at_most(rate: float, runs: int = RUNS) -> int:
    """Largest count that is believable for events of this rate or a smaller one."""
    return int(stats.binom.isf(DOUBT, runs, rate))


def at_least(rate: float, runs: int = RUNS) -> int:
    """Smallest count that is believable for events of this rate or a larger one."""
    return int(stats.binom.ppf(DOUBT, runs, rate))


DESIGNS = {"student": StudentDesign, "bounded": lambda **given: BoundedDesign(low=-2.0, high=2.0, **given)}


@pytest.mark.parametrize("made", DESIGNS.values(), ids=DESIGNS)
class TestDesignsAreInverses:
    @pytest.mark.parametrize("error_rate", [1e-1, 1e-6])
    @pytest.mark.parametrize("power", [0.9, 1 - 1e-6])
    @pytest.mark.parametrize("bias", [0.3, 0.01])
    def test_draws_needed_is_the_first_that_detects(self, made, bias, power, error_rate):
        design = made(error_rate=error_rate, power=power, comparisons=7)
        draws = design.draws_needed(bias, 1.3)
        assert design.detectable_bias(draws, 1.3) <= bias < design.detectable_bias(draws - 1, 1.3)

    def test_detectable_shrinks_with_the_square_root(self, made):
        one, four = (made().detectable_bias(draws, 1.0) for draws in (10**8, 4 * 10**8))
        assert four == pytest.approx(0.5 * one, rel=1e-2)  # a bounded test's terms in 1/n are below that

    def test_no_number_of_draws_sees_nothing_and_one_draw_sees_no_bias(self, made):
        with pytest.raises(InvalidInputError, match="bias"):
            made().draws_needed(0.0, 1.0)
        with pytest.raises(InvalidInputError, match="draws"):
            made().detectable_bias(1, 1.0)

    def test_a_test_says_what_the_design_says(self, made):
        rows = named_stream(16, "says").uniform(-1.0, 1.0, (5000, 1))
        design = made()
        assert design.test(rows, np.zeros(1)).detectable[0] == pytest.approx(
            design.detectable_bias(5000, float(rows.std(ddof=1))), rel=1e-3
        )

    @pytest.mark.exact
    def test_an_expectation_that_nothing_is_known_of_is_not_judged(self, made):
        test = made().test(np.zeros((100, 1)), np.ones(1), known_error=np.inf)
        assert not test.rejected.any()
        assert np.isinf(test.detectable).all()
        with pytest.raises(InvalidInputError, match="known_error"):
            made().test(np.zeros((100, 1)), np.ones(1), known_error=-1.0)

    def test_comparisons_are_split_over_coordinates_unless_they_are_said(self, made):
        rows = named_stream(17, "split").uniform(-1.0, 1.0, (5000, 4))
        told, one = made(comparisons=4).test(rows, np.zeros(4)), made(comparisons=1).test(rows, np.zeros(4))
        assert np.array_equal(made().test(rows, np.zeros(4)).half_width, told.half_width)
        assert (one.half_width < told.half_width).all()


class TestFalseAlarms:
    """A right claim is rejected at most at the declared rate; where a test is exact, not much less often either."""

    def test_mean(self):
        rows = named_stream(1, "mean").standard_normal((100, RUNS)) + 3.0
        alarms = int(mean_test(rows, np.full(RUNS, 3.0), error_rate=ALPHA, comparisons=1).rejected.sum())
        assert at_least(0.8 * ALPHA) <= alarms <= at_most(ALPHA)

    def test_mean_of_a_family(self):
        rng = named_stream(2, "family")
        alarms = sum(
            bool(mean_test(rng.standard_normal((100, 5)), np.zeros(5), error_rate=ALPHA).rejected.any())
            for _ in range(LOOPS)
        )
        assert at_least(0.7 * ALPHA, LOOPS) <= alarms <= at_most(ALPHA, LOOPS)

    def test_mean_of_skewed_draws(self):
        rows = named_stream(3, "skewed").lognormal(0.0, 1.5, (100, RUNS))
        mean = math.exp(0.5 * 1.5**2)
        student = (rows.mean(axis=0) - mean) / (rows.std(axis=0, ddof=1) / 10.0)
        # Student's interval alone would be wrong here, twice as often as it says.
        assert int((np.abs(student) > stats.t.isf(ALPHA / 2, 99)).sum()) > 2 * at_most(ALPHA)
        test = mean_test(rows, np.full(RUNS, mean), error_rate=ALPHA, comparisons=1)
        assert int(test.rejected.sum()) <= at_most(ALPHA)

    def test_variance(self):
        rows = 2.0 * named_stream(4, "variance").standard_normal((1000, RUNS))
        test = mean_test(paired_squares(rows), np.full(RUNS, 4.0), error_rate=ALPHA, comparisons=1)
        assert int(test.rejected.sum()) <= at_most(ALPHA)

    def test_bounded(self):
        rows = (named_stream(6, "bounded").random((300, RUNS)) < 0.05).astype(float)
        design = BoundedDesign(low=0.0, high=1.0, error_rate=ALPHA, comparisons=1)
        assert int(design.test(rows, np.full(RUNS, 0.05)).rejected.sum()) <= at_most(ALPHA)

    def test_peeking_would_be_caught(self):
        """A mistake of users, not of the test: testing at α again and again."""
        rows = named_stream(9, "peeking").standard_normal((300, RUNS))
        ever = np.zeros(RUNS, dtype=bool)
        for n in range(10, 301, 10):
            ever |= mean_test(rows[:n], np.zeros(RUNS), error_rate=ALPHA, comparisons=1).rejected
        assert int(ever.sum()) > at_most(ALPHA)


class TestPower:
    """What a test says it would have seen, it sees as often as it says."""

    POWER = 0.9

    def test_mean(self):
        design = StudentDesign(error_rate=ALPHA, power=self.POWER, comparisons=1)
        bias = design.detectable_bias(100, 1.0)
        rows = named_stream(11, "mean").standard_normal((100, RUNS)) + bias
        assert int(design.test(rows, np.zeros(RUNS)).rejected.sum()) >= at_least(self.POWER)
        # Not vacuous: half that bias is seen much less often.
        assert int(design.test(rows - 0.5 * bias, np.zeros(RUNS)).rejected.sum()) < at_least(self.POWER)

    def test_variance(self):
        design = StudentDesign(error_rate=ALPHA, power=self.POWER, comparisons=1)
        # One square of Gaussian draws has variance 2, and there is one for each pair; it is the claim that is off.
        error = design.detectable_bias(2000, math.sqrt(2.0))
        rows = named_stream(12, "variance").standard_normal((4000, 1000))
        test = design.test(paired_squares(rows), np.full(1000, 1.0 - error))
        assert test.gaussian.all()
        assert int(test.rejected.sum()) >= at_least(self.POWER, 1000)

    def test_bounded(self):
        design = BoundedDesign(low=0.0, high=1.0, error_rate=ALPHA, power=self.POWER, comparisons=1)
        bias = design.detectable_bias(2000, 0.5)
        rows = (named_stream(13, "bounded").random((2000, 1000)) < 0.5).astype(float)
        assert int(design.test(rows, np.full(1000, 0.5 - bias)).rejected.sum()) >= at_least(self.POWER, 1000)


class TestPlantedMistakes:
    """At the real rate of 1e-6, wrong samplers are caught and right ones pass."""

    def test_variances_exchanged(self):
        rows = named_stream(21, "variances").standard_normal((40_000, 2)) * np.array([1.0, 1.2])
        squares = paired_squares(rows)
        assert not mean_test(squares, np.array([1.0, 1.44])).rejected.any()
        assert mean_test(squares, np.array([1.44, 1.0])).rejected.all()

    def test_paired_squares_are_unbiased_with_the_stated_variance(self):
        """Exactly: over all pairs of a three-point distribution."""
        points = np.array([0.0, 2.0, 5.0])
        squares = paired_squares(np.concatenate([np.repeat(points, 3), np.tile(points, 3)])[:, None])[:, 0]
        centred = points - points.mean()
        second, fourth = np.mean(centred**2), np.mean(centred**4)
        assert squares.mean() == pytest.approx(second, rel=1e-14)
        assert squares.var() == pytest.approx(0.5 * (fourth + second**2), rel=1e-14)
        with pytest.raises(ShapeError, match="n >= 4"):
            paired_squares(np.zeros((3, 1)))

    def test_rare_large_draws_within_bounds(self):
        """What no limit theorem reaches: a mean carried by a draw in two thousand, and bounds known."""
        rows = (named_stream(24, "rare").random((4000, 50)) < 1 / 2000).astype(float)
        design = BoundedDesign(low=0.0, high=1.0)
        assert not design.test(rows, np.full(50, 1 / 2000)).rejected.any()
        assert design.test(rows, np.full(50, 0.05)).rejected.all()

    def test_bounds_that_draws_leave_are_refused(self):
        with pytest.raises(InvalidInputError, match=r"rows\[1, 0\]"):
            BoundedDesign(low=0.0, high=1.0).test(np.array([[0.0], [2.0]]), np.zeros(1))
        with pytest.raises(InvalidInputError, match="low <= high"):
            BoundedDesign(low=1.0, high=0.0)

    @pytest.mark.exact
    def test_projections_of_bounded_draws_stay_within_their_own_bounds(self):
        rng = named_stream(25, "directions")
        directions = rng.standard_normal((3, 5))
        along = BoundedDesign(low=-1.0, high=2.0).along(directions)
        corners = np.array(np.meshgrid(*[[-1.0, 2.0]] * 3)).reshape(3, -1).T @ directions
        assert along.low == pytest.approx(corners.min(axis=0), rel=1e-14)
        assert along.high == pytest.approx(corners.max(axis=0), rel=1e-14)


class TestErrorBudget:
    def test_nothing_is_spent_twice(self):
        budget = ErrorBudget(1e-6)
        budget.spend("first", 6e-7, comparisons=10)
        with pytest.raises(InvalidInputError, match="remaining"):
            budget.spend("second", 5e-7)
        assert budget.spent == 6e-7
        assert budget.remaining == pytest.approx(4e-7, rel=1e-12)

    @pytest.mark.parametrize("checks", [1, 3, 7, 1000])
    def test_an_even_split_spends_exactly_everything(self, checks):
        budget = ErrorBudget(1e-6)
        rates = budget.split({str(i): 1 for i in range(checks)})
        assert math.fsum(rates.values()) == pytest.approx(1e-6, rel=1e-12)
        assert budget.remaining == 0.0
        with pytest.raises(InvalidInputError, match="remaining"):
            budget.spend("one more", 1e-9)

    @pytest.mark.parametrize("total", [0.0, 1.0, -1e-6, float("nan")])
    def test_impossible_totals(self, total):
        with pytest.raises(InvalidInputError, match="total"):
            ErrorBudget(total)
