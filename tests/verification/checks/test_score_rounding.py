"""Right estimates that are small differences of large numbers are not failed for their rounding; wrong ones are."""

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators import BCHG
from bilevelrl.reference import ConfigurableLQR, LQRMatrices
from bilevelrl.tasks import Scenario
from bilevelrl.verification.causes.factors import Seen, fit_factors
from bilevelrl.verification.causes.known import Setting
from bilevelrl.verification.checks.deterministic import check_estimator

pytestmark = pytest.mark.exact

ONE = np.ones((1, 1))


def drawn(seed):
    """An ordinary regulator in one dimension, whose leader is paid a constant of up to a hundred times the rest."""
    rng = np.random.default_rng(seed)
    rng.uniform()
    drift, gain = rng.uniform(-0.9, 0.9), rng.uniform(0.3, 1.5) * rng.choice([-1, 1])
    cost, effort = 10.0 ** rng.uniform(-1, 1, 2)
    state, action = rng.normal(), 0.5 * rng.normal()
    noise, spread = rng.uniform(0.1, 1, 2)
    mean = rng.normal()
    constant = rng.normal() * rng.choice([0, 1, 100])
    slope = rng.normal(size=(8, 2)) * rng.choice([0.0, 0.3], size=(8, 1), p=[0.4, 0.6])
    if rng.integers(2):
        slope[1:5] = 0.0
    leader, follower = rng.choice([0, 0.3, 0.9, 0.99]), rng.choice([0, 0.3, 0.9, 0.99])
    temperature = 10.0 ** rng.uniform(-2, 1)

    def matrices(theta):
        moved = anp.dot(slope, theta)
        scaled = anp.exp(moved)
        return LQRMatrices(
            dynamics_state=(drift + moved[1]) * ONE,
            dynamics_action=(gain + moved[2]) * ONE,
            noise_covariance=noise * scaled[3] * ONE,
            cost_state_follower=cost * scaled[5] * ONE,
            cost_action_follower=effort * scaled[6] * ONE,
            cost_state_leader=(state + moved[7]) * ONE,
            cost_action_leader=(action + moved[0]) * ONE,
            initial_mean=(mean + moved[4]) * np.ones(1),
            initial_covariance=spread * anp.exp(anp.dot(slope[4], theta[::-1])) * ONE,
            cost_constant_leader=constant,
        )

    problem = ConfigurableLQR(
        matrices=matrices, discount_leader=leader, discount_follower=follower, temperature=temperature, theta_shape=(2,)
    )
    return problem, 0.3 * rng.normal(size=2)


def fails(estimator, on):
    return any(result.failed for result in check_estimator(estimator, [on]))


@pytest.mark.parametrize("seed", [68, 65])
def test_rounding_of_values_with_constants_is_no_bias_and_a_millionth_is_one(seed):
    """The last has a gradient of nothing, of which rows of rounding are left."""
    problem, theta = drawn(seed)
    on = Scenario.of(problem, theta, horizon=2)
    assert not fails(BCHG(), on)

    def wrong(trajectories, context):
        return (1.0 + 1e-6) * BCHG()(trajectories, context) + 1e-9

    assert fails(wrong, on)


def test_a_truth_without_parts_has_no_factors():
    problem, theta = drawn(65)
    on = Scenario.of(problem, theta, horizon=2)
    assert not on.truth.value.any()
    seen = Seen(at=Setting.of(on, on.truth), difference=np.full(2, 1e-9), slack=np.full(2, 1e-12))
    assert not fit_factors([seen]).agrees
