"""Bounds cost nothing until they are read, are of the problem that was solved, and results start the next solve."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    ConfigurableMDP,
    MarkovGame,
    Tables,
    TabularSoftmaxPolicy,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError, ShapeError, StochasticityError
from bilevelrl.tasks import random_lqr, random_lqr_game, random_markov_game, random_mdp

THETA = np.array([0.1, -0.2, 0.05])
PROBLEMS = {
    "mdp": (random_mdp(states=4, actions=2, parameters=3, seed=0), "tables"),
    "game": (
        random_markov_game(states=3, leader_actions=2, actions=2, seed=0, discount_leader=0.5, discount_follower=0.5),
        "policy",
    ),
    "lqr": (random_lqr(states=2, actions=1, radius=0.5, discount_leader=0.5, discount_follower=0.5), "matrices"),
    "lqr game": (random_lqr_game(states=1, radius=0.5, discount_leader=0.5, discount_follower=0.5), "leader_policy"),
}
OTHERS = {
    "mdp": random_mdp(states=5, actions=2, parameters=3, seed=0),
    "game": MarkovGame(
        transition=np.ones((1, 2, 2, 1)),
        reward_follower=np.eye(2)[None],
        reward_leader=np.eye(2)[None],
        initial=np.ones(1),
        policy=TabularSoftmaxPolicy(states=1, leader_actions=2),
        follower_sees_leader_action=True,
        discount_leader=0.5,
        discount_follower=0.5,
        temperature=1.0,
    ),
    "lqr": random_lqr(states=3),
    "lqr game": random_lqr_game(states=3),
}
CASES = [
    (kind, route)
    for kind, (problem, _) in PROBLEMS.items()
    for route, entry in HYPERGRADIENT_ROUTES.items()
    if type(problem) in entry.kinds
]
STARTING = [
    (kind, route)
    for kind, route in CASES
    if route not in {"forward", "complex_step", "reduction", "certified", *(() if "lqr" in kind else ("unrolled",))}
]


def counted(kind):
    """Return a problem of this kind and the list of θ at which its function is called."""
    problem, name = PROBLEMS[kind]
    function, calls = getattr(problem, name), []

    def counting(theta):
        calls.append(theta)
        return function(theta)

    return replace(problem, **{name: counting}), calls


@pytest.mark.parametrize(
    ("kind", "route"), [case for case in CASES if case[1] not in {"finite_difference", "certified"}]
)
def test_a_bound_is_worked_out_when_it_is_read_and_not_before(kind, route):
    problem, calls = counted(kind)
    hypergradient(problem, THETA, route=route)  # what a problem remembers of its first θ is remembered
    calls.clear()
    without = hypergradient(problem, THETA, route=route, bound=False)
    cost = len(calls)
    calls.clear()
    found = hypergradient(problem, THETA, route=route)
    assert len(calls) <= cost + (kind != "mdp" and kind != "game")  # LQRs look once more at what they are
    assert without.error_bound == np.inf
    calls.clear()
    assert 0.0 < found.error_bound < 1e-6
    assert calls
    calls.clear()
    assert found.error_bound == pickle.loads(pickle.dumps(found)).error_bound
    assert not calls


def closing_over(array, kernel):
    """An MDP whose leader's reward is an array of the caller's, and so may be its kernel."""

    def tables(theta):
        reward = np.zeros_like(array) + theta[0] * np.eye(*array.shape)
        return Tables(
            transition=kernel, reward_follower=reward, reward_leader=array, initial=np.full(len(array), 1 / 4)
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.8, discount_follower=0.9, temperature=0.5)


@pytest.mark.parametrize("route", [route for kind, route in CASES if kind == "mdp" and route != "certified"])
def test_a_bound_of_a_problem_that_has_changed_is_refused(route):
    reward = np.array([[1.0, 0.0], [0.5, 0.2], [0.0, 0.3], [0.1, 0.9]])
    kernel = np.full((4, 2, 4), 0.25)
    problem = closing_over(reward, kernel)
    theta = np.array([0.3])
    read, unread, pickled = (hypergradient(problem, theta, route=route) for _ in range(3))
    wanted = read.error_bound
    theta[0] = 7.0  # the caller's own θ is not looked at again
    assert pickle.loads(pickle.dumps(pickled)).error_bound == wanted
    reward[0, 0] = 2.0
    with pytest.raises(InvalidInputError, match=r"error_bound.*no longer give.*read error_bound before"):
        _ = unread.error_bound
    assert read.error_bound == wanted
    assert pickle.loads(pickle.dumps(unread)).error_bound == np.inf
    reward[0, 0] = 1.0  # as it was
    assert unread.error_bound == wanted


def test_a_large_table_is_known_by_its_hash_and_a_read_only_one_by_itself():
    # 190 states: 1.1 MB of kernel, beyond what is copied.
    kernel = np.full((190, 4, 190), 1 / 190)
    reward = np.linspace(0.0, 1.0, 760).reshape(190, 4)

    def tables(theta):
        return Tables(
            transition=kernel, reward_follower=reward * theta[0], reward_leader=reward, initial=np.full(190, 1 / 190)
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    before, after = (hypergradient(problem, np.ones(1)) for _ in range(2))
    kernel[3, 1] = np.roll(kernel[3, 1] + np.linspace(-1e-3, 1e-3, 190), 1)
    with pytest.raises(InvalidInputError, match="no longer give"):
        _ = before.error_bound
    kernel[3, 1] = 1 / 190
    assert after.error_bound < 1e-9
    kernel.setflags(write=False)
    assert hypergradient(problem, np.ones(1)).error_bound == after.error_bound


def test_a_read_only_view_of_what_changes_is_no_constant():
    reward, row = np.array([[1.0, 0.0], [0.5, 0.2], [0.0, 0.3], [0.1, 0.9]]), np.full(4, 0.25)
    problem = closing_over(reward, np.broadcast_to(row, (4, 2, 4)))
    unread = hypergradient(problem, np.array([0.3]))
    row[:] = [0.1, 0.1, 0.1, 0.7]
    with pytest.raises(InvalidInputError, match="no longer give"):
        _ = unread.error_bound
    row[:] = [0.9, 0.9, 0.0, -0.8]  # sums to one
    with pytest.raises(StochasticityError, match=r"transition\[0, 0, 3\]=-0\.8"):
        leader_objective(problem, np.array([0.3]))

    noise, given = np.eye(3), random_lqr()
    matrices = given.matrices(np.zeros(given.theta_shape))
    fixed = replace(matrices, noise_covariance=np.broadcast_to(noise, (3, 3)))
    lqr = replace(given, matrices=lambda _: fixed, matrices_jacobian=None)
    leader_objective(lqr, np.zeros(given.theta_shape))
    noise[0, 0] = -1.0
    with pytest.raises(InvalidInputError, match="noise_covariance"):
        leader_objective(lqr, np.zeros(given.theta_shape))


@pytest.mark.parametrize(("kind", "route"), CASES)
def test_a_result_starts_the_next_solve(kind, route):
    problem, moved = PROBLEMS[kind][0], THETA + 0.01
    previous = hypergradient(problem, THETA, route=route)
    assert (previous.follower is not None) == ((kind, route) in STARTING)
    if previous.follower is not None:
        assert type(previous.follower) is type(solve_follower(problem, THETA))
    cold = hypergradient(problem, moved, route=route)
    warm = hypergradient(problem, moved, route=route, warm_start=previous)
    assert np.abs(warm.value - cold.value).max() <= warm.error_bound + cold.error_bound
    if kind in {"mdp", "game"} and previous.follower is not None and "sweeps" in warm.counters:
        assert warm.counters["sweeps"] < cold.counters["sweeps"]
    assert solve_follower(problem, moved, warm_start=previous).residual <= 1e-9


@pytest.mark.parametrize(("kind", "route"), STARTING)
def test_a_result_of_another_problem_is_no_start(kind, route):
    other = OTHERS[kind]
    previous = hypergradient(other, THETA[:1] if kind == "game" else THETA, bound=False)
    with pytest.raises(ShapeError, match="warm_start"):
        hypergradient(PROBLEMS[kind][0], THETA, route=route, warm_start=previous)
    with pytest.raises(ShapeError, match="warm_start"):
        solve_follower(PROBLEMS[kind][0], THETA, warm_start=previous)
    with pytest.raises(InvalidInputError, match="warm_start"):
        hypergradient(PROBLEMS[kind][0], THETA, route=route, warm_start="zeros")
    stranger = hypergradient(PROBLEMS["mdp" if "lqr" in kind else "lqr"][0], THETA, bound=False)
    with pytest.raises(InvalidInputError, match="warm_start"):
        hypergradient(PROBLEMS[kind][0], THETA, route=route, warm_start=stranger)
