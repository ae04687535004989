"""Actions that cannot be taken: a mask everywhere is a smaller problem, on every route and for every estimator."""

import dataclasses

import autograd.numpy as anp
import numpy as np
import pytest
from high_precision import HighPrecision

from bilevelrl.estimators import ESTIMATORS, SarsaCritic, sample_trajectories
from bilevelrl.estimators.followers import ExactFollower, SharedDynamics
from bilevelrl.estimators.followers.sampled import NaturalPolicyGradient, SoftQLearning
from bilevelrl.estimators.followers.solving import SweepingFollower
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    hypergradient,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular import solve_followers
from bilevelrl.verification import enumerate_moments

ROUTES = (
    "implicit",
    "theorem1",
    "hpgd_form",
    "m_sobirl",
    "mixed_derivative",
    "forward",
    "complex_step",
    "finite_difference",
    "unrolled",
    "certified",
)

THETA = np.array([0.1, -0.2, 0.3])

METHODS = ("newton", "value_iteration", "modified_policy_iteration")


def problem_of(*, masked=(), removed=False, as_numbers=False, sparse=False, seed=0, temperature=0.3, everything=False):
    """Three states, three actions; `masked` pairs cannot be taken, or action 2 is not there at all.

    θ moves the follower's reward, or everything but the first state.
    """
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
    paid, led = 0.5 * rng.normal(size=(3, 3, 3)), 0.2 * rng.normal(size=(3, 3, 3))
    if sparse:
        moved = SparseTransition(successor=np.broadcast_to(np.arange(3), moved.shape).copy(), probability=moved)

    def tables(theta):
        tilted = moved if not everything else moved * anp.exp(led[:, :actions] * theta[0])
        return Tables(
            transition=tilted if not everything else tilted / anp.sum(tilted, axis=2, keepdims=True),
            reward_follower=follower[:, :actions] + anp.dot(slopes[:, :actions], theta),
            reward_leader=leader[:, :actions] + (anp.dot(paid[:, :actions], theta) if everything else 0.0),
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


OBJECTIVE = Objective(horizon=3)

# Those that stop at random times need problems that end; averages over a batch have no mean that is the truth.
LISTED = [
    name
    for name, entry in estimators_for(ConfigurableMDP).items()
    if entry.level == "formula" and "geometric" not in name and "nudged" not in name  # these refuse two discounts
]

# Their suffixes are cut with the trajectory, twice the same samples, or the response is left out, as published.
BIASED = {
    "bc_hg",
    "bc_hg_td",
    "bc_hg_monte_carlo",
    "bc_hg_independent",
    "naive_pgd",
    "sobirl",
    "sobirl_q",
    "sobirl_return",
    "k_step",
    "lola",
    "log_derivative",
    "value_penalty",
    "amd",
    "zero_order",
}


@pytest.mark.exact
@pytest.mark.parametrize("name", LISTED)
def test_estimators_see_what_is_there(name):
    """Mean and covariance over all trajectories of three steps."""
    estimator = ESTIMATORS[name].make(OBJECTIVE)
    masked, absent = (
        enumerate_moments(estimator, problem, THETA, horizon=3)
        for problem in (problem_of(masked=EVERYWHERE, everything=True), problem_of(removed=True, everything=True))
    )
    assert masked.paths == absent.paths
    np.testing.assert_allclose(masked.mean, absent.mean, rtol=0, atol=1e-11 * absent.magnitude.max())
    size = np.abs(absent.covariance).max()
    np.testing.assert_allclose(masked.covariance, absent.covariance, rtol=0, atol=1e-10 * size)
    free = enumerate_moments(estimator, problem_of(everything=True), THETA, horizon=3)
    assert np.abs(free.mean - absent.mean).max() > 1e-3


@pytest.mark.exact
@pytest.mark.parametrize("name", LISTED)
def test_means_are_the_truth_where_a_state_has_one_action(name):
    problem = problem_of(masked=SOMEWHERE, everything=True)
    truth = hypergradient(problem, THETA, horizon=3)
    found = enumerate_moments(ESTIMATORS[name].make(OBJECTIVE), problem, THETA, horizon=3)
    expected = truth.value - truth.parts["response"] if name == "naive_pgd" else truth.value
    right = np.abs(found.mean - expected).max() <= truth.error_bound + 1e-11 * found.magnitude.max()
    assert right == (name not in BIASED - {"naive_pgd"})


@pytest.mark.exact
def test_a_critic_learns_of_what_is_played_only():
    masked, absent = problem_of(masked=EVERYWHERE), problem_of(removed=True)
    tables = []
    for problem in (masked, absent):
        follower = solve_follower(problem, THETA)
        trajectories = sample_trajectories(problem, THETA, follower, streams=50, steps=10, rng=np.random.default_rng(2))
        critic = SarsaCritic.start(follower, 0.8, order="time").updated(trajectories)
        np.testing.assert_allclose(critic.value(np.arange(3)), (critic.table * follower.policy).sum(axis=1))
        tables.append(critic.table)
    np.testing.assert_allclose(tables[0][:, :2], tables[1], rtol=1e-12)
    assert not tables[0][:, 2].any()
    assert tables[1].all()


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
    plain = problem_of().tables_at(THETA)  # those of θ, without a mask
    stacked = np.array(plain.reward_follower)[None], np.array(plain.reward_leader)[None]
    given = dataclasses.replace(problem, stacked_rewards=lambda thetas: stacked)
    follower, _ = given.rewards(THETA[None])
    assert all(follower[0][pair] < -1e99 for pair in SOMEWHERE)
    assert follower[0, 0, 0] == plain.reward_follower[0, 0]


@pytest.mark.exact
def test_problems_in_closed_form_write_a_mask_as_its_reward():
    pytest.importorskip("flint")
    from bilevelrl.reference.certified.closed_form import ClosedForm, ClosedFormTable, FeatureBlock
    from bilevelrl.reference.certified.closed_form_tables import certify_closed_form

    problem = problem_of(masked=SOMEWHERE)
    tables = problem.tables_at(THETA)
    slopes = problem.jacobian(THETA)["reward_follower"]
    base = np.asarray(problem.tables_at(np.zeros(3)).reward_follower)

    def constant(values):
        return ClosedFormTable(shape=values.shape, base=dict(enumerate(values.ravel().tolist())))

    lines = tuple(
        (pair, j, float(slopes.reshape(9, 3)[pair, j]))
        for pair in range(9)
        for j in range(3)
        if tables.action_mask.flat[pair]
    )
    form = ClosedForm(
        kind="configurable_mdp", theta=tuple(THETA.tolist()), features=(FeatureBlock(link="identity", length=3),),
        tables={
            "transition": constant(np.asarray(tables.transition)),
            "reward_follower": dataclasses.replace(constant(base), slope=lines),
            "reward_leader": constant(np.asarray(tables.reward_leader)),
            "initial": constant(np.asarray(tables.initial)),
        },
        discount_leader=0.8, discount_follower=0.7, temperature=0.3,
    )  # fmt: skip
    exact = certify_closed_form(form, digits=15, maximum_bits=4096)
    found = hypergradient(problem, THETA)
    off = [entry.distance(float(x)) for entry, x in zip(exact.value, found.value, strict=True)]
    assert max(off) <= found.error_bound
