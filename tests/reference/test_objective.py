"""Objectives are checked where they are built, and kinds that answer no question are refused by name."""

import numpy as np
import pytest

from bilevelrl.reference import certified_hypergradient, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, UnsupportedError
from bilevelrl.reference.problem import INFINITE_HORIZON, At, Objective, linearise, solve
from bilevelrl.reference.registry import objective_error_bound
from bilevelrl.tasks import random_lqr, random_lqr_game, random_markov_game, random_mdp


@pytest.mark.exact
@pytest.mark.parametrize("horizon", [0, -1, True, 2.5, "3", np.nan])
def test_horizons_that_count_nothing_are_refused(horizon):
    with pytest.raises(InvalidInputError, match=r"horizon=.*expected None or an integer >= 1"):
        Objective(horizon)


@pytest.mark.exact
def test_an_undiscounted_infinite_horizon_has_no_value():
    with pytest.raises(IllPosedError, match="diverges"):
        Objective(discounted=False)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("objective", "earned", "weight"),
    [
        (INFINITE_HORIZON, 12.0, 0.75),
        (Objective(3), 6.9375, 0.75),
        (Objective(np.int64(3), discounted=False), 9.0, 1.0),
    ],
)
def test_a_reward_of_three_by_hand(objective, earned, weight):
    assert objective.constant_return(3.0, 0.75) == earned
    assert objective.discount(0.75) == weight


@pytest.mark.exact
@pytest.mark.parametrize("ask", [solve, lambda at: linearise(at, INFINITE_HORIZON)])
def test_a_kind_without_an_answer_is_named(ask):
    with pytest.raises(UnsupportedError, match="problem of type dict"):
        ask(At(problem={}, theta=np.zeros(2)))


@pytest.mark.exact
@pytest.mark.parametrize("ask", [solve_follower, hypergradient, leader_objective])
def test_what_is_no_problem_is_named(ask):
    with pytest.raises(UnsupportedError, match="problem='dict'"):
        ask({}, np.zeros(2))


KINDS = {
    "MDP": random_mdp(seed=1),
    "seeing game": random_markov_game(seed=1),
    "blind game": random_markov_game(seed=1, follower_sees_leader_action=False),
    "LQR": random_lqr(seed=1),
    "LQR game": random_lqr_game(seed=1),
}


@pytest.mark.exact
@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_lies_within_its_bound(kind, horizon):
    pytest.importorskip("flint")
    problem = KINDS[kind]
    theta = 0.1 * np.ones(problem.theta_shape or 3)
    found = leader_objective(problem, theta, horizon=horizon)
    bound = objective_error_bound(problem, theta, horizon=horizon)
    truth = certified_hypergradient(problem, theta, horizon=horizon).objective
    assert truth.distance(found) <= bound <= 1e-9 * (1.0 + abs(found))
    assert not truth.distance(found + 1e-8 * (1.0 + abs(found))) <= bound


@pytest.mark.exact
def test_the_bound_covers_a_follower_that_stopped_early():
    problem, theta = KINDS["MDP"], np.zeros(3)
    early = solve_follower(problem, theta, stop_after=2)
    off = abs(leader_objective(problem, theta, follower=early) - leader_objective(problem, theta))
    assert 1e-9 < off <= objective_error_bound(problem, theta, follower=early)


@pytest.mark.exact
def test_a_follower_of_another_problem_has_no_bound():
    with pytest.raises(InvalidInputError, match="follower"):
        objective_error_bound(KINDS["MDP"], np.zeros(3), follower=solve_follower(KINDS["LQR"], np.zeros(3)))
    other = solve_follower(random_mdp(states=7, seed=0), np.zeros(3))
    with pytest.raises(InvalidInputError, match="follower"):
        objective_error_bound(KINDS["MDP"], np.zeros(3), follower=other)
