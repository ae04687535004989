"""θ of any shape trains alike, and one without entries is refused at the door."""

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators.training import LQRTraining, Training, train
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.estimators.training.runs import Run
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRMatrices, Tables
from bilevelrl.reference.errors import InvalidInputError

pytestmark = pytest.mark.exact

ONE = np.ones((1, 1))


def toll(theta, slope=0.2):
    """Of every parameter a little, however they lie."""
    flat = anp.reshape(theta, (-1,))
    return slope * anp.dot(np.arange(1.0, 1.0 + np.size(flat)), flat) if np.size(flat) else 0.0


def mdp(shape):
    def tables(theta):
        return Tables(
            transition=np.array([[[0.35, 0.1], [0.05, 0.4]], [[0.25, 0.2], [0.15, 0.3]]]),
            reward_follower=np.eye(2) + toll(theta) * np.diag([1.0, -1.0]),
            reward_leader=np.array([[1.0, 0.0], [0.0, 2.0]]), initial=np.array([0.5, 0.5]),
        )  # fmt: skip

    return ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.4, theta_shape=shape
    )


def lqr(shape):
    def matrices(theta):
        return LQRMatrices(
            dynamics_state=(0.5 + toll(theta, 0.05)) * ONE, dynamics_action=ONE, noise_covariance=0.1 * ONE,
            cost_state_follower=ONE, cost_action_follower=ONE, cost_state_leader=ONE, cost_action_leader=0.5 * ONE,
            initial_mean=np.ones(1), initial_covariance=0.1 * ONE,
        )  # fmt: skip

    return ConfigurableLQR(
        matrices=matrices, discount_leader=0.5, discount_follower=0.9, temperature=0.1, theta_shape=shape
    )


KINDS = {"mdp": (mdp, Training), "lqr": (lqr, LQRTraining)}


def trained(kind, shape, method):
    problem_of, training = KINDS[kind]
    runs = [Run(method=method, seed=0, learning_rate=0.01)]
    return train(
        training(problem=problem_of(shape), runs=runs, iterations=2, streams=2, steps=4, evaluate_every=1)
    ).thetas


CASES = [
    (kind, method)
    for kind, problem in (("mdp", ConfigurableMDP), ("lqr", ConfigurableLQR))
    for method in METHODS[problem]
    if not method.startswith("nudged")  # one discount for both players
]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_theta_of_any_shape_trains_like_a_flat_one(kind, method):
    np.testing.assert_allclose(trained(kind, (2, 2), method), trained(kind, (4,), method), rtol=1e-12)
    np.testing.assert_allclose(trained(kind, (), method), trained(kind, (1,), method), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_theta_without_entries_is_refused_at_the_door(kind):
    with pytest.raises(InvalidInputError, match=r"problem\.theta_shape=\(0,\): expected at least one parameter"):
        trained(kind, (0,), "exact")
