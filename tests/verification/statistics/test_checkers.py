"""The checkers checked: designs are inverses, right samplers pass, wrong ones are caught, rates are as declared.

Rates are measured at α = 0.05 over thousands of synthetic runs, where a rate can be seen at all, and held against
binomial bounds that a right checker exceeds once in a million test runs.
"""

import math

import numpy as np
import pytest
from scipy import stats

from bilevelrl.reference import named_stream
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, ShapeError
from bilevelrl.verification.statistics.anytime import (
    AnytimeTest,
    draws_needed_anytime,
    smallest_detectable_anytime_bias,
)
from bilevelrl.verification.statistics.bounded import (
    bounded_mean_test,
    draws_needed_bounded,
    smallest_detectable_bounded_bias,
)
from bilevelrl.verification.statistics.error_budget import ErrorBudget
from bilevelrl.verification.statistics.means import SampleMoments, draws_needed, mean_test, smallest_detectable_bias
from bilevelrl.verification.statistics.moments import (
    covariance_test,
    draws_needed_for_covariance,
    paired_product_deviation,
    paired_products,
    smallest_detectable_covariance_error,
    variance_test,
)
from bilevelrl.verification.statistics.sequential import (
    StagedDesign,
    mean_p_values,
    staged_detectable_bias,
    staged_draws_needed,
    staged_mean_test,
    staged_rejection_probability,
)

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


def anytime_wealth(test: AnytimeTest) -> np.ndarray:
    """Wealth of each coordinate alone, as if it were the only one."""
    return np.exp(test.log_wealth).mean(axis=(0, 1))


class TestDesignsAreInverses:
    @pytest.mark.parametrize("error_rate", [1e-1, 1e-6])
    @pytest.mark.parametrize("power", [0.9, 1 - 1e-6])
    @pytest.mark.parametrize("bias", [0.3, 0.01])
    @pytest.mark.parametrize(
        ("needed", "detectable", "step"),
        [
            pytest.param(draws_needed, smallest_detectable_bias, 1, id="mean"),
            pytest.param(draws_needed_for_covariance, smallest_detectable_covariance_error, 2, id="covariance"),
            pytest.param(
                lambda b, s, **rates: draws_needed_bounded(b, s, 4.0, **rates),
                lambda n, s, **rates: smallest_detectable_bounded_bias(n, s, 4.0, **rates),
                1,
                id="bounded",
            ),
            pytest.param(draws_needed_anytime, smallest_detectable_anytime_bias, 1, id="anytime"),
            pytest.param(
                lambda b, s, **rates: draws_needed_anytime(b, s, width=4.0, **rates),
                lambda n, s, **rates: smallest_detectable_anytime_bias(n, s, width=4.0, **rates),
                1,
                id="anytime bounded",
            ),
        ],
    )
    def test_draws_needed_is_the_first_that_detects(self, needed, detectable, step, bias, power, error_rate):
        rates = {"error_rate": error_rate, "power": power, "comparisons": 7}
        draws = needed(bias, 1.3, **rates)
        # Bisection on the bias ends at a relative 1e-12.
        assert detectable(draws, 1.3, **rates) <= bias * (1 + 1e-11)
        if draws > 4:
            assert detectable(draws - step, 1.3, **rates) > bias * (1 - 1e-11)

    @pytest.mark.parametrize("bias", [0.3, 0.05])
    def test_staged(self, bias):
        design = staged_draws_needed(bias, 1.3, comparisons=5)
        fewer = StagedDesign(first_draws=design.first_draws - 1, comparisons=5)
        assert staged_detectable_bias(design, 1.3) <= bias < staged_detectable_bias(fewer, 1.3)

    def test_detectable_shrinks_with_the_square_root(self):
        for detectable in (smallest_detectable_bias, smallest_detectable_covariance_error):
            assert detectable(4_000_000, 1.0) == pytest.approx(0.5 * detectable(1_000_000, 1.0), rel=1e-4)

    def test_no_number_of_draws_sees_nothing(self):
        for needed in (draws_needed, draws_needed_for_covariance, draws_needed_anytime):
            with pytest.raises(InvalidInputError, match="bias"):
                needed(0.0, 1.0)


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
        test = variance_test(rows, np.full(RUNS, 4.0), error_rate=ALPHA, comparisons=1)
        assert int(test.rejected.sum()) <= at_most(ALPHA)

    def test_covariance(self):
        rng = named_stream(5, "covariance")
        root = np.array([[1.0, 0.0], [0.7, 1.3]])
        alarms = sum(
            bool(
                covariance_test(rng.standard_normal((2000, 2)) @ root.T, root @ root.T, error_rate=ALPHA).rejected.any()
            )
            for _ in range(LOOPS)
        )
        assert alarms <= at_most(ALPHA, LOOPS)

    def test_bounded(self):
        rows = (named_stream(6, "bounded").random((300, RUNS)) < 0.05).astype(float)
        test = bounded_mean_test(rows, np.full(RUNS, 0.05), low=0.0, high=1.0, error_rate=ALPHA, comparisons=1)
        assert int(test.rejected.sum()) <= at_most(ALPHA)

    @pytest.mark.parametrize("law", ["gaussian", "skewed", "bounded"])
    def test_anytime_under_constant_peeking(self, law):
        rng = named_stream(7, "anytime", law)
        draw = {
            "gaussian": lambda n: rng.standard_normal((n, RUNS)),
            "skewed": lambda n: rng.pareto(3.0, (n, RUNS)) - 0.5,
            "bounded": lambda n: (rng.random((n, RUNS)) < 0.02).astype(float),
        }[law]
        options = {
            "gaussian": {"standard_deviation": 1.0},
            "skewed": {"standard_deviation": math.sqrt(0.75)},
            "bounded": {"bounds": (0.0, 1.0)},
        }[law]
        test = AnytimeTest.start(np.full(RUNS, 0.02 if law == "bounded" else 0.0), error_rate=ALPHA, **options)
        ever = np.zeros(RUNS, dtype=bool)
        for _ in range(30):
            test = test.updated(draw(10))
            ever |= anytime_wealth(test) >= 1.0 / ALPHA
        assert int(ever.sum()) <= at_most(ALPHA)
        # A test that counts each look as if it were the only one would be found here.
        assert test.draws == 300

    @pytest.mark.parametrize("stages", [1, 3, 7])
    def test_staged(self, stages):
        rng = named_stream(8, "staged", stages)
        design = StagedDesign(first_draws=100, stages=stages, error_rate=ALPHA, comparisons=3)
        alarms = sum(
            staged_mean_test(lambda n: rng.standard_normal((n, 3)), np.zeros(3), design=design).rejected
            for _ in range(LOOPS)
        )
        assert at_least(0.6 * ALPHA, LOOPS) <= alarms <= at_most(ALPHA, LOOPS)

    def test_staged_rate_is_the_declared_one_by_design(self):
        for error_rate in (1e-6, 1e-2):
            design = StagedDesign(first_draws=500, error_rate=error_rate)
            assert staged_rejection_probability(design, 0.0) == pytest.approx(error_rate, rel=1e-6)

    def test_repeating_a_plain_test_until_it_rejects_would_be_caught(self):
        """The mistake that stages avoid: testing at α again and again."""
        rng = named_stream(9, "peeking")
        rows = rng.standard_normal((300, RUNS))
        ever = np.zeros(RUNS, dtype=bool)
        for n in range(10, 301, 10):
            ever |= mean_test(rows[:n], np.zeros(RUNS), error_rate=ALPHA, comparisons=1).rejected
        assert int(ever.sum()) > at_most(ALPHA)


class TestPower:
    """What a test says it would have seen, it sees as often as it says."""

    def test_mean(self):
        power = 0.9
        bias = smallest_detectable_bias(100, 1.0, error_rate=ALPHA, power=power)
        rows = named_stream(11, "mean").standard_normal((100, RUNS)) + bias
        seen = int(mean_test(rows, np.zeros(RUNS), error_rate=ALPHA, comparisons=1).rejected.sum())
        assert seen >= at_least(power)
        # Not vacuous: half that bias is seen much less often.
        rows -= 0.5 * bias
        assert int(mean_test(rows, np.zeros(RUNS), error_rate=ALPHA, comparisons=1).rejected.sum()) < at_least(power)

    def test_variance(self):
        power = 0.9
        deviation = paired_product_deviation(1.0, 1.0, 3.0)
        # Of draws whose variance is 1: it is the claim that is off.
        error = smallest_detectable_covariance_error(4000, deviation, error_rate=ALPHA, power=power)
        rows = named_stream(12, "variance").standard_normal((4000, 1000))
        claimed = np.full(1000, 1.0 - error)
        test = variance_test(rows, claimed, error_rate=ALPHA, comparisons=1)
        assert test.gaussian.all()
        assert int(test.rejected.sum()) >= at_least(power, 1000)

    def test_bounded(self):
        power = 0.9
        bias = smallest_detectable_bounded_bias(2000, 0.5, 1.0, error_rate=ALPHA, power=power)
        rows = (named_stream(13, "bounded").random((2000, 1000)) < 0.5).astype(float)
        test = bounded_mean_test(
            rows, np.full(1000, 0.5 - bias), low=0.0, high=1.0, error_rate=ALPHA, comparisons=1, power=power
        )
        assert int(test.rejected.sum()) >= at_least(power, 1000)

    @pytest.mark.parametrize("width", [None, 2.0])
    def test_anytime(self, width):
        power, spread = 0.9, 1.0
        bias = 0.3
        draws = draws_needed_anytime(bias, spread, width=width, error_rate=ALPHA, power=power)
        rng = named_stream(14, "anytime", str(width))
        options = {"standard_deviation": spread} if width is None else {"bounds": (-1.0, 1.0)}
        rows = rng.standard_normal((draws, 500)) if width is None else rng.choice([-1.0, 1.0], (draws, 500))
        test = AnytimeTest.start(np.full(500, -bias), error_rate=ALPHA, **options).updated(rows)
        assert int((anytime_wealth(test) >= 1.0 / ALPHA).sum()) >= at_least(power, 500)

    def test_staged(self):
        power = 0.9
        design = StagedDesign(first_draws=200, stages=3, error_rate=ALPHA, comparisons=2)
        bias = staged_detectable_bias(design, 1.0, power=power)
        rng = named_stream(15, "staged")
        shift = np.array([0.0, bias])
        seen = sum(
            staged_mean_test(lambda n: rng.standard_normal((n, 2)) + shift, np.zeros(2), design=design).rejected
            for _ in range(1000)
        )
        assert seen >= at_least(power, 1000)


class TestPlantedMistakes:
    """At the real rate of 1e-6, wrong samplers are caught and right ones pass."""

    def test_covariance_of_correlated_draws(self):
        root = np.array([[1.0, 0.0], [0.5, 1.0]])
        rows = named_stream(21, "covariance").standard_normal((40_000, 2)) @ root.T
        assert not covariance_test(rows, root @ root.T).rejected.any()
        # The transposed root: same trace and determinant, variances exchanged.
        assert covariance_test(rows, root.T @ root).rejected.tolist() == [True, False, True]
        assert covariance_test(rows, np.diag(np.diag(root @ root.T))).rejected.tolist() == [False, True, False]

    def test_paired_products_are_unbiased_for_two_draws(self):
        """Exactly: the mean over all pairs of a three-point law is its covariance."""
        points = np.array([[0.0, 1.0], [2.0, -1.0], [5.0, 0.5]])
        pairs = [(i, j) for i in range(3) for j in range(3)]
        rows = np.concatenate([points[[i for i, _ in pairs]], points[[j for _, j in pairs]]])
        mean = paired_products(rows).mean(axis=0)
        assert mean == pytest.approx(np.cov(points.T, bias=True)[np.triu_indices(2)], rel=1e-14)

    def test_paired_product_deviation_is_exact(self):
        points = np.array([0.0, 2.0, 5.0])
        centred = points - points.mean()
        pairs = 0.5 * np.subtract.outer(points, points).ravel() ** 2
        expected = paired_product_deviation(np.mean(centred**2), np.mean(centred**2), np.mean(centred**4))
        assert pairs.std() == pytest.approx(expected, rel=1e-14)

    def test_staged_catches_and_names_the_coordinate(self):
        rng = named_stream(22, "staged")
        design = StagedDesign(first_draws=2000, comparisons=3)
        shift = np.array([0.0, 0.0, 0.15])
        found = staged_mean_test(lambda n: rng.standard_normal((n, 3)) + shift, np.zeros(3), design=design)
        assert found.rejected
        assert found.coordinate == 2

    def test_staged_is_cheap_where_right(self):
        design = StagedDesign(first_draws=1000)
        assert design.expected_draws < 1.3 * 1000

    def test_staged_refuses_a_sampler_that_returns_too_few(self):
        with pytest.raises(EstimatorError, match="expected"):
            staged_mean_test(lambda n: np.zeros((n - 1, 1)), np.zeros(1), design=StagedDesign(first_draws=10))

    def test_constant_draws_are_compared_exactly(self):
        sample = SampleMoments.of(np.full((10, 1), 0.1))
        assert mean_p_values(sample, np.array([0.1])).tolist() == [1.0]
        assert mean_p_values(sample, np.array([0.1001])).tolist() == [0.0]

    def test_large_biases_of_skewed_draws_are_seen(self):
        rows = named_stream(23, "skewed").exponential(size=(2000, 1))
        sample = SampleMoments.of(rows)
        near, far = (mean_p_values(sample, np.array([claim]))[0] for claim in (0.7, 0.0))
        assert far <= near < 1e-12

    def test_bounds_that_draws_leave_are_refused(self):
        with pytest.raises(InvalidInputError, match=r"rows\[1, 0\]"):
            bounded_mean_test(np.array([[0.0], [2.0]]), np.zeros(1), low=0.0, high=1.0)
        with pytest.raises(InvalidInputError, match="impossible"):
            AnytimeTest.start(np.array([2.0]), bounds=(0.0, 1.0))
        with pytest.raises(InvalidInputError, match="exactly one"):
            AnytimeTest.start(np.zeros(1))
        with pytest.raises(ShapeError, match="rows"):
            AnytimeTest.start(np.zeros(2), bounds=(0.0, 1.0)).updated(np.zeros((3, 1)))


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

    def test_open_ended_runs_never_run_out(self):
        budget = ErrorBudget(1e-6)
        for i in range(2000):
            budget.spend_next(str(i))
        assert budget.spent == pytest.approx(1e-6 * (1 - 1 / 2001), rel=1e-9)

    @pytest.mark.parametrize("total", [0.0, 1.0, -1e-6, float("nan")])
    def test_impossible_totals(self, total):
        with pytest.raises(InvalidInputError, match="total"):
            ErrorBudget(total)
