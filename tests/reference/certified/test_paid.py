"""The mixed derivative in balls: what the adjoint form encloses, this encloses too, and a wrong one does not."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flint")

from bilevelrl.reference import hypergradient
from bilevelrl.reference.certified.hypergradient import certify_tabular
from bilevelrl.reference.certified.sources import DoubleTables
from bilevelrl.reference.certified.tabular.fixed_point import enclose_follower
from bilevelrl.reference.certified.tabular.paid import paid_cotangents
from bilevelrl.reference.errors import IllPosedError
from bilevelrl.tasks import random_mdp
from bilevelrl.tasks.generators.mdps import absorbing_mdp

pytestmark = pytest.mark.exact

THETA = np.array([0.3, -0.5, 0.2])
OBJECTIVES = [
    {"horizon": None, "discounted": True},
    {"horizon": 4, "discounted": True},
    {"horizon": 3, "discounted": False},
]


def mdp(leader, follower, **options):
    return random_mdp(
        states=3, actions=2, parameters=3, seed=0, discount_leader=leader, discount_follower=follower, **options
    )


PROBLEMS = {
    "equal": mdp(0.9, 0.9),
    "pay grows": mdp(0.9, 0.5),
    "pay dies": mdp(0.5, 0.9),
    "no future": mdp(0.9, 0.0),
    "ends": mdp(0.8, 0.9, termination=0.2),
    "absorbing": absorbing_mdp(seed=5),
}


def certified(problem, digits, **options):
    theta = THETA[: problem.theta_shape[0]] if problem.theta_shape[0] < 3 else np.resize(THETA, problem.theta_shape)
    source = DoubleTables.at(problem, theta)
    return theta, certify_tabular(source, digits=digits, **options)


def disjoint(one, other):
    """Parts, and entries of them, that cannot both be right."""
    return [
        (part, j)
        for part, entries in one.parts.items()
        for j, (left, right) in enumerate(zip(entries, other.parts[part], strict=True))
        if not left.ball.overlaps(right.ball)
    ]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_both_forms_enclose_the_same_forty_digits(name, objective):
    _, adjoint = certified(PROBLEMS[name], 40, **objective)
    _, mixed = certified(PROBLEMS[name], 40, weigh=paid_cotangents, **objective)
    assert disjoint(adjoint, mixed) == []
    assert adjoint.objective.ball.overlaps(mixed.objective.ball)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_route_in_doubles_lies_within_its_bound_of_the_enclosure(name):
    theta, mixed = certified(PROBLEMS[name], 30, weigh=paid_cotangents, horizon=None, discounted=True)
    found = hypergradient(PROBLEMS[name], theta, route="mixed_derivative")
    for entry, value in zip(mixed.value, found.value, strict=True):
        assert entry.distance(float(value)) <= found.error_bound


@pytest.mark.parametrize("lost", ["time", "temperature"])
def test_planted_mistakes_give_disjoint_balls(lost):
    problem = PROBLEMS["pay dies"]
    _, adjoint = certified(problem, 30, horizon=None, discounted=True)

    def wrong(tables, follower, *, horizon):
        if lost == "time":  # a pay that stays the same
            tables = replace(tables, discount_leader=tables.discount_follower)
        right = paid_cotangents(tables, follower, horizon=horizon)
        if lost == "time":
            return right
        scaled = [[tables.temperature * entry for entry in row] for row in right.response_reward]
        return replace(right, response_reward=scaled)

    _, mixed = certified(problem, 30, weigh=wrong, horizon=None, discounted=True)
    assert disjoint(adjoint, mixed)


def test_an_undiscounted_return_without_an_end_is_refused():
    tables = DoubleTables.at(PROBLEMS["equal"], THETA).tables(discounted=False)
    with pytest.raises(IllPosedError, match="pass a horizon"):
        paid_cotangents(tables, enclose_follower(tables), horizon=None)
