"""An action that is masked is an action that is not there: on every route, and in samplers and estimators."""

import dataclasses

import autograd.numpy as anp
import numpy as np
import pytest
from high_precision import HighPrecision

from bilevelrl.estimators import BCHG, LambdaBCHG, SoBiRL, sample_trajectories
from bilevelrl.estimators.training.followers.sampled import NaturalPolicyGradient, SoftQLearning
from bilevelrl.estimators.training.followers.solving import ExactFollower, SharedDynamics, SweepingFollower
from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    hypergradient,
    solve_follower,
    solve_followers,
)
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError
from bilevelrl.verification import enumerate_moments

ROUTES = (
    "implicit",
    "theorem1",
    "hpgd_form",
    "m_sobirl",
    "forward",
    "complex_step",
    "finite_difference",
    "unrolled",
    "certified",
)
THETA = np.array([0.1, -0.2, 0.3])
METHODS = ("newton", "value_iteration", "modified_policy_iteration")


def problem_of(*, masked=(), removed=False, as_numbers=False, sparse=False, seed=0, temperature=0.3):
    """Three states, three actions; `masked` pairs cannot be taken, or action 2 is not there at all."""
    rng = np.random.default_rng(seed)
    kernel, slopes = rng.dirichlet(np.ones(3), (3, 3)), rng.normal(size=(3, 3, 3))
    follower, leader = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    follower[:, 2] += 5.0  # the action that a follower would want
    actions = 2 if removed else 3
    playable = np.ones((3, actions), dtype=bool)
    for pair in masked:
        playable[pair] = False
    mask = np.where(playable, 0.0, -np.inf) if as_numbers else playable
    moved = kernel[:, :actions]
    if sparse:
        moved = SparseTransition(successor=np.broadcast_to(np.arange(3), moved.shape).copy(), probability=moved)

    def tables(theta):
        return Tables(
            transition=moved,
            reward_follower=follower[:, :actions] + anp.dot(slopes[:, :actions], theta),
            reward_leader=leader[:, :actions],
            initial=np.full(3, 1.0 / 3.0),
            action_mask=mask if masked else None,
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.8, discount_follower=0.7, temperature=temperature)


EVERYWHERE = ((0, 2), (1, 2), (2, 2))
SOMEWHERE = ((0, 2), (1, 0), (1, 1))


@pytest.mark.exact
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("route", ROUTES)
def test_masked_everywhere_is_not_there(route, horizon, sparse):
    absent = hypergradient(problem_of(removed=True), THETA, route=route, horizon=horizon)
    masked = hypergradient(problem_of(masked=EVERYWHERE, sparse=sparse), THETA, route=route, horizon=horizon)
    for name, part in absent.parts.items():
        assert np.abs(masked.parts[name] - part).max() <= absent.error_bound + masked.error_bound
    assert abs(masked.objective - absent.objective) <= absent.objective_error_bound + masked.objective_error_bound
    assert masked.error_bound <= max(3.0 * absent.error_bound, 1e-15)
    free = hypergradient(problem_of(), THETA, route="implicit", horizon=horizon)
    assert np.abs(free.value - absent.value).max() > 1e-3  # the action that is masked would matter


def by_enumeration(problem, theta, playable):
    """J by plain value iteration over lists of actions: nothing is masked, what is not listed is not looked at."""
    tables = problem.tables_at(theta)
    value = np.zeros(3)
    for _ in range(300):
        policy = []
        new = np.zeros(3)
        for s, actions in enumerate(playable):
            q = [tables.reward_follower[s, a] + 0.7 * tables.transition[s, a] @ value for a in actions]
            top = max(q)
            weights = [np.exp((x - top) / problem.temperature) for x in q]
            new[s] = top + problem.temperature * np.log(sum(weights))
            policy.append([w / sum(weights) for w in weights])
        value = new
    leader = np.zeros(3)
    for _ in range(300):
        leader = np.array(
            [
                sum(
                    p * (tables.reward_leader[s, a] + 0.8 * tables.transition[s, a] @ leader)
                    for p, a in zip(policy[s], actions, strict=True)
                )
                for s, actions in enumerate(playable)
            ]
        )
    return leader.mean()


@pytest.mark.exact
@pytest.mark.parametrize("route", ROUTES)
def test_a_mask_that_depends_on_the_state(route):
    problem, playable = problem_of(masked=SOMEWHERE), [[0, 1], [2], [0, 1, 2]]
    found = hypergradient(problem, THETA, route=route)
    assert abs(found.objective - by_enumeration(problem, THETA, playable)) <= 1e-12
    for j, direction in enumerate(np.eye(3)):
        h = 1e-4 * direction
        far, near = (
            (by_enumeration(problem, THETA + k * h, playable) - by_enumeration(problem, THETA - k * h, playable))
            / (2e-4 * k)
            for k in (2, 1)
        )
        assert abs(found.value[j] - (4.0 * near - far) / 3.0) <= 1e-9
    assert found.error_bound <= 1e-8


@pytest.mark.exact
@pytest.mark.parametrize("method", METHODS)
def test_followers_never_play_it(method):
    problem = problem_of(masked=SOMEWHERE)
    follower = solve_follower(problem, THETA, method=method)
    truth = HighPrecision(problem, THETA)
    assert np.abs(follower.value - truth.value).max() <= follower.error_bound <= 1e-10
    for s, a in SOMEWHERE:
        assert follower.policy[s, a] == 0.0
        assert follower.log_prob(s, a) == -np.inf
    states = np.repeat(np.arange(3), 5000)
    drawn = follower.sample(states, np.random.default_rng(0))
    assert not any(((states == s) & (drawn == a)).any() for s, a in SOMEWHERE)
    _, _, policies = solve_followers(problem, THETA[None])
    np.testing.assert_allclose(policies[0], follower.policy, rtol=1e-12)


@pytest.mark.exact
def test_masks_are_read_as_booleans_or_as_numbers():
    one, other = (problem_of(masked=SOMEWHERE, as_numbers=numbers).tables_at(THETA) for numbers in (False, True))
    np.testing.assert_array_equal(one.action_mask, other.action_mask)
    np.testing.assert_array_equal(one.reward_follower, other.reward_follower)
    moved = one.replace({"reward_follower": np.zeros((3, 3))})
    assert (moved.reward_follower[~one.action_mask] < -1e99).all()


@pytest.mark.exact
@pytest.mark.parametrize(
    ("mask", "error", "match"),
    [
        (np.array([[True, False]]), ShapeError, "action_mask.shape"),
        (np.zeros((1, 1), dtype=bool), InvalidInputError, "at least one action"),
        (np.array([[1.0]]), InvalidInputError, "pass booleans"),
        (np.array([[np.nan]]), InvalidInputError, "pass booleans"),
        ([["no"]], InvalidInputError, "pass booleans"),
    ],
)
def test_bad_masks_are_refused(mask, error, match):
    with pytest.raises(error, match=match):
        Tables(
            transition=np.ones((1, 1, 1)),
            reward_follower=np.zeros((1, 1)),
            reward_leader=np.zeros((1, 1)),
            initial=np.ones(1),
            action_mask=mask,
        )


@pytest.mark.exact
def test_minus_infinity_in_a_reward_names_the_mask():
    problem = ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=np.array([[0.0, -np.inf]]),
            reward_leader=np.zeros((1, 2)),
            initial=np.ones(1),
        ),
        discount_leader=0.5,
        discount_follower=0.5,
        temperature=1.0,
    )
    with pytest.raises(InvalidInputError, match="action_mask"):
        solve_follower(problem, np.zeros(1))


ESTIMATORS = (
    BCHG(),
    SoBiRL(),
    LambdaBCHG(trace_decay=0.5),
)


@pytest.mark.exact
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_estimators_see_what_is_there(estimator):
    """Mean and covariance over all trajectories of three steps."""
    masked, absent = (
        enumerate_moments(estimator, problem, THETA, horizon=3)
        for problem in (problem_of(masked=EVERYWHERE), problem_of(removed=True))
    )
    assert masked.paths == absent.paths
    np.testing.assert_allclose(masked.mean, absent.mean, rtol=0, atol=1e-11 * absent.magnitude.max())
    size = np.abs(absent.covariance).max()
    np.testing.assert_allclose(masked.covariance, absent.covariance, rtol=0, atol=1e-10 * size)
    free = enumerate_moments(estimator, problem_of(), THETA, horizon=3)
    assert np.abs(free.mean - absent.mean).max() > 1e-3


@pytest.mark.exact
def test_samplers_never_play_it():
    problem = problem_of(masked=SOMEWHERE)
    trajectories = sample_trajectories(
        problem, THETA, solve_follower(problem, THETA), streams=500, steps=20, rng=np.random.default_rng(1)
    )
    for s, a in SOMEWHERE:
        assert not ((trajectories.state_t == s) & (trajectories.action_t == a)).any()
    assert np.isfinite(trajectories.behaviour_log_prob).all()


@pytest.mark.exact
@pytest.mark.parametrize("rule", [SweepingFollower(), SoftQLearning(), NaturalPolicyGradient()])
def test_followers_that_try_everything_are_refused(rule):
    """The exact follower in training is right, those that learn from every action are refused by name."""
    dynamics = SharedDynamics(problem_of(masked=SOMEWHERE), THETA)
    rewards = dynamics.rewards(THETA[None])
    with pytest.raises(UnsupportedError, match="action_mask"):
        rule.respond(dynamics, rewards, {}, [np.random.default_rng(0)])
    played, _ = ExactFollower().respond(dynamics, rewards, {})
    best = solve_follower(problem_of(masked=SOMEWHERE), THETA)
    # Its tolerance is 1e-9 of V_F, relative to its size; a probability moves by twice that over β.
    size = max(1.0, float(np.abs(best.value).max()))
    np.testing.assert_allclose(played.policy[0], best.policy, rtol=2e-9 * size / problem_of().temperature)


@pytest.mark.exact
def test_rewards_given_for_many_parameters_are_masked_too():
    problem = problem_of(masked=SOMEWHERE)
    given = dataclasses.replace(problem, stacked_rewards=lambda thetas: (np.zeros((1, 3, 3)), np.zeros((1, 3, 3))))
    follower, _ = given.rewards(THETA[None])
    assert all(follower[0][pair] < -1e99 for pair in SOMEWHERE)
    assert follower[0, 0, 0] == 0.0
