"""When derivatives are held against differences: also at a later θ, where the function goes another way."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import getval, isbox

from bilevelrl.reference import ConfigurableMDP, MarkovGame, Tables, hypergradient
from bilevelrl.reference.derivatives.traces import Trace
from bilevelrl.reference.errors import DerivativeError

pytestmark = pytest.mark.exact

# The fifth θ is none of the first, second, fourth and eighth, at which everything is looked at anyway.
POINTS = [np.array(point) for point in ([0.1, 0.2], [0.3, 0.2], [0.4, 0.1], [0.2, 0.2], [1.5, 0.3])]


def factor(theta):
    """A number of θ without its trace, what `.item()`, `float` or NumPy on `._value` leave."""
    return float(np.real(getval(theta[0])))


def branching(reward):
    def tables(theta):
        return Tables(
            transition=np.ones((1, 2, 1)), reward_follower=anp.reshape(reward(theta), (1, 2)),
            reward_leader=np.array([[0.0, 1.0]]), initial=np.ones(1),
        )  # fmt: skip

    return ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)


@pytest.mark.parametrize("route", ["implicit", "theorem1", "forward"])
def test_what_another_branch_loses_is_refused_where_it_is_first_taken(route):
    problem = branching(lambda theta: theta * factor(theta) if getval(theta[0]) > 1.0 else theta)
    for point in POINTS[:4]:
        assert np.isfinite(hypergradient(problem, point, route=route).value).all()
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(problem, POINTS[4], route=route)


@pytest.mark.parametrize("route", ["implicit", "theorem1", "forward"])
def test_a_branch_that_keeps_its_trace_passes(route):
    problem = branching(lambda theta: theta * theta[0] if getval(theta[0]) > 1.0 else theta)
    fresh = branching(lambda theta: theta * theta[0])
    found = [hypergradient(problem, point, route=route).value for point in POINTS][-1]
    np.testing.assert_array_equal(found, hypergradient(fresh, POINTS[4], route=route).value)


def test_a_policy_of_a_game_that_takes_another_branch():
    def policy(theta):
        logits = theta * factor(theta) if getval(theta[0]) > 1.0 else theta
        weights = anp.exp(logits - 0.1)
        return anp.reshape(weights / anp.sum(weights), (1, 2))

    game = MarkovGame(
        transition=np.ones((1, 2, 2, 1)), reward_follower=np.eye(2)[None], reward_leader=np.eye(2)[None],
        initial=np.ones(1), policy=policy, follower_sees_leader_action=True, discount_leader=0.5,
        discount_follower=0.5, temperature=1.0,
    )  # fmt: skip
    for point in POINTS[:4]:
        hypergradient(game, point)
    with pytest.raises(DerivativeError, match="policy"):
        hypergradient(game, POINTS[4])


def test_what_is_of_one_length_is_not_told_apart_before_it_is_due():
    """What this criterion does not see: a lost factor that begins to move within steps that stay the same."""
    problem = branching(lambda theta: theta * max(factor(theta), 1.0))
    for point in POINTS:
        found = hypergradient(problem, point)
    fresh = branching(lambda theta: theta * anp.maximum(theta[0], 1.0))
    assert np.abs(found.value - hypergradient(fresh, POINTS[4]).value).max() > 0.01
    hypergradient(problem, POINTS[4] + 0.01)
    hypergradient(problem, POINTS[4] + 0.02)
    with pytest.raises(DerivativeError):
        hypergradient(problem, POINTS[4] + 0.03)  # the eighth


def test_the_length_of_a_trace_is_that_of_its_steps():
    def steps(function):
        return Trace.of(lambda x: {"y": function(x)}, np.ones(2), "tables").steps

    assert steps(lambda x: x + x + x) == steps(lambda x: 1.0 * x) + 1


def test_a_function_that_was_traced_here_is_traced_once_more_to_be_confirmed():
    traced = []

    def reward(theta):
        traced.append(isbox(theta))
        return theta**2

    derivatives = branching(reward).derivatives
    for calls in (2, 1):
        traced.clear()
        derivatives.confirm_trace(POINTS[0])
        assert sum(traced) == calls
