"""The robust and the skewness-corrected mean test, and verdicts: rates by exact laws where they exist."""

import numpy as np
import pytest
from scipy import stats

from bilevelrl.reference import named_stream
from bilevelrl.reference.errors import InvalidInputError, ShapeError
from bilevelrl.tasks.scenarios.main_job import paper_scenarios
from bilevelrl.verification import Outcome, mean_test
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, judge_exact, judge_sampled, unjudged
from bilevelrl.verification.pipeline import sampled
from bilevelrl.verification.statistics.cosine import cosine_interval
from bilevelrl.verification.statistics.designs import ERROR_RATE
from bilevelrl.verification.statistics.means import MedianOfMeans, StudentDesign


@pytest.mark.exact
@pytest.mark.parametrize("error_rate", [0.05, 1e-3, 1e-6])
@pytest.mark.parametrize("comparisons", [1, 57, 5000])
@pytest.mark.parametrize("power", [0.9, 0.999])
def test_median_of_means_keeps_its_rates_by_the_binomial_law(error_rate, comparisons, power):
    design = MedianOfMeans.design(error_rate=error_rate, power=power, comparisons=comparisons)
    half = np.ceil(design.blocks / 2) - 1
    # Chebyshev: a block mean is beyond `radius` σ/√n with probability at most k / radius².
    off = design.blocks / design.radius**2
    false_alarm = stats.binom.sf(half, design.blocks, off)
    assert false_alarm <= error_rate / comparisons
    missed = stats.binom.sf(half, design.blocks, design.blocks / (design.reach - design.radius) ** 2)
    assert missed <= 1.0 - power
    # Not vacuous: six tenths of the radius would not be proved.
    assert stats.binom.sf(half, design.blocks, min(1.0, off / 0.6**2)) > error_rate / comparisons


@pytest.mark.exact
@pytest.mark.parametrize("draws", [30, 1000, 100_000])
@pytest.mark.parametrize("comparisons", [1, 300])
def test_detectable_bias_has_the_stated_power_by_the_noncentral_law(draws, comparisons):
    design = StudentDesign(error_rate=1e-3, power=0.95, comparisons=comparisons)
    bias = design.detectable_bias(draws, 2.0)
    quantile = stats.t.isf(0.5e-3 / comparisons, draws - 1)
    power = stats.nct.sf(quantile, draws - 1, bias / 2.0 * np.sqrt(draws))
    assert power >= 0.95 * (1 - 1e-6)
    assert power <= 0.951 or draws < 100  # and not by far more than stated
    assert abs(design.draws_needed(bias, 2.0) - draws) <= 1
    assert design.draws_needed(bias * (1 + 1e-9), 2.0) <= draws < design.draws_needed(bias * 0.98, 2.0)


@pytest.mark.statistical
def test_the_correction_for_skewness_keeps_the_rate_where_students_interval_does_not():
    """False alarms over 40,000 samples of 100 exponential draws, within what a right test exceeds once in 1e6."""
    runs, alpha = 40_000, 0.01
    rows = named_stream(7, "skewed").exponential(size=(100, runs))
    test = mean_test(rows, np.ones(runs), error_rate=alpha, comparisons=1)
    assert test.gaussian.mean() > 0.95
    most = stats.binom.isf(1e-6, runs, alpha)
    assert test.rejected.sum() <= most
    student = (rows.mean(axis=0) - 1.0) / (rows.std(axis=0, ddof=1) / 10.0)
    plain = np.abs(student) > stats.t.isf(alpha / 2, 99)
    assert plain.sum() > most  # uncorrected, the same samples raise too many


@pytest.mark.statistical
def test_rare_large_draws_are_left_to_the_median_of_means():
    """A draw of 1 in 50 carries the mean: no limit theorem reaches a rate of 1e-6 with 4000 draws."""
    runs, draws, alpha = 400, 4000, 1e-6
    rng = named_stream(7, "rare")
    rows = (rng.random((draws, runs)) < 1 / 50) * 50.0 + 0.1 * rng.standard_normal((draws, runs))
    test = mean_test(rows, np.ones(runs), error_rate=alpha, comparisons=1)
    assert np.isfinite(test.detectable).all()
    assert not test.gaussian.any()
    assert test.rejected.sum() <= stats.binom.isf(1e-6, runs, alpha)
    assert mean_test(rows, 1.0 + 1.5 * test.detectable, error_rate=alpha, comparisons=1).rejected.all()


@pytest.mark.statistical
def test_a_variance_that_rests_on_a_few_draws_is_not_relied_on():
    """A draw of 1 in 2000 carries the mean: two of 4000 draws are all that is known of the spread."""
    runs, draws, alpha = 400, 4000, 1e-3
    rng = named_stream(8, "rarer")
    rows = (rng.random((draws, runs)) < 1 / 2000) * 2000.0 + rng.standard_normal((draws, runs))
    test = mean_test(rows, np.ones(runs), error_rate=alpha, comparisons=1)
    hit = rows.max(axis=0) > 1000.0
    assert hit.mean() > 0.8
    assert np.isinf(test.detectable[hit]).all()
    assert not test.rejected[hit].any()


@pytest.mark.exact
def test_constant_draws_are_judged_by_rounding_alone():
    rows = np.full((50, 2), 0.1)
    assert not mean_test(rows, np.array([0.1, 0.1])).rejected.any()
    assert mean_test(rows, np.array([0.1, 0.1 + 1e-12])).rejected.tolist() == [False, True]


@pytest.mark.exact
def test_a_known_error_of_the_expectation_widens_the_interval():
    rows = np.full((50, 1), 0.1)
    assert mean_test(rows, np.array([0.2])).rejected.all()
    test = mean_test(rows, np.array([0.2]), known_error=0.11)
    assert not test.rejected.any()
    assert test.detectable[0] >= 0.22


@pytest.mark.exact
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: mean_test(np.zeros((5, 2)), np.zeros(3)), ShapeError),
        (lambda: mean_test(np.zeros((1, 2)), np.zeros(2)), ShapeError),
        (lambda: mean_test(np.full((5, 1), np.nan), np.zeros(1)), InvalidInputError),
        (lambda: mean_test(np.zeros((5, 1)), np.zeros(1), error_rate=0.0), InvalidInputError),
        (lambda: mean_test(np.zeros((5, 1)), np.zeros(1), power=1.0), InvalidInputError),
        (lambda: StudentDesign().draws_needed(0.0, 1.0), InvalidInputError),
        (lambda: StudentDesign().detectable_bias(1, 1.0), InvalidInputError),
        (lambda: MedianOfMeans.design(error_rate=2.0), InvalidInputError),
        (lambda: cosine_interval(np.ones((9, 2)), np.ones(2), error_rate=-1.0), InvalidInputError),
    ],
)
def test_bad_input_is_refused(call, error):
    with pytest.raises(error):
        call()


@pytest.mark.exact
def test_cosines_of_known_vectors():
    truth = np.array([3.0, 4.0])
    rows = np.concatenate([np.tile(truth, (500, 1)), np.tile([-4.0, 3.0], (500, 1)), np.zeros((1000, 2))])
    interval = cosine_interval(rows, truth)
    assert interval.mean == pytest.approx(0.25, abs=1e-12)
    assert -1.0 <= interval.low < 0.25 < interval.high <= 1.0
    assert cosine_interval(np.tile(truth, (100_000, 1)), truth).low > 0.999


@pytest.mark.exact
def test_draws_for_tail_grows_with_the_square_of_the_skewness():
    design = StudentDesign()
    assert design.draws_for_tail(4.0) == pytest.approx(4 * design.draws_for_tail(2.0))
    assert StudentDesign(comparisons=1000).draws_for_tail(2.0) > design.draws_for_tail(2.0)


# Verdicts.


@pytest.mark.exact
def test_exact_verdicts():
    truth = np.array([3.0, 4.0])
    right = judge_exact(np.array([1e-13, 0.0]), tolerance=1e-12, scale=5.0)
    assert right.outcome is Outcome.PASSED
    assert right.detectable == pytest.approx(2 * np.sqrt(2) * 1e-12 / 5)
    assert judge_exact(0.01 * truth, tolerance=1e-12, scale=5.0).outcome is Outcome.FAILED
    assert judge_exact(np.array([np.nan, 0.0]), tolerance=1.0, scale=5.0).outcome is Outcome.FAILED
    blind = judge_exact(0.01 * truth, tolerance=1.0, scale=5.0)
    assert blind.outcome is Outcome.NO_POWER
    assert blind.detectable > POWER_LIMIT
    # A failure is a failure even where the check sees little.
    assert judge_exact(truth, tolerance=1.0, scale=5.0).outcome is Outcome.FAILED
    assert judge_exact(np.zeros(2), tolerance=np.inf, scale=5.0).outcome is Outcome.NO_POWER
    assert judge_exact(np.zeros(2), tolerance=1e-15, scale=0.0).outcome is Outcome.NO_POWER
    assert judge_exact(np.zeros(2), tolerance=0.0, scale=0.0).outcome is Outcome.PASSED


@pytest.mark.statistical
def test_sampled_verdicts():
    rng = named_stream(7, "verdicts")
    names = ["along the truth", "across"]

    def judged(draws, expected, spread=1.0):
        rows = spread * rng.standard_normal((draws, 2)) + np.array([1.0, 0.0])
        return judge_sampled(mean_test(rows, expected), along=0, scale=1.0, names=names)

    assert judged(40_000, np.array([1.0, 0.0])).outcome is Outcome.PASSED
    assert judged(100, np.array([1.0, 0.0])).outcome is Outcome.NO_POWER
    wrong = judged(40_000, np.array([1.0, 0.2]))
    assert wrong.outcome is Outcome.FAILED
    assert "across" in wrong.reason
    assert judged(100, np.array([9.0, 0.0])).outcome is Outcome.FAILED
    assert unjudged(Outcome.MEASURED, "nothing claimed").detectable == np.inf


@pytest.mark.exact
def test_gaussian_group_means_carry_more_than_a_median_of_means_has_blocks():
    checks = sum(len(sampled.sampled_estimators(on)) for on in paper_scenarios())
    blocks = MedianOfMeans.design(error_rate=0.5 * ERROR_RATE, comparisons=checks).blocks
    kurtosis = 3.0
    assert sampled.LEAST_GROUPS / kurtosis >= blocks > 64 / kurtosis  # sixty-four would not do
