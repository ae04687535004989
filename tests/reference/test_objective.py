"""Objectives are checked where they are built, and kinds that answer no question are refused by name."""

import numpy as np
import pytest

from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, UnsupportedError
from bilevelrl.reference.problem import INFINITE_HORIZON, At, Objective, linearise, solve


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
