"""Many θ at once give what θ after θ gives: numbers, bounds, and refusals."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables, hypergradient, solve_follower
from bilevelrl.reference.errors import (
    BilevelRLError,
    DerivativeError,
    InvalidInputError,
    ShapeError,
    StochasticityError,
    UnknownNameError,
)
from bilevelrl.reference.many import Hypergradients, hypergradients
from bilevelrl.reference.tabular.stacked import gradients, solving
from bilevelrl.tasks import four_rooms, random_lqr, random_markov_game, random_mdp

pytestmark = pytest.mark.exact

ROOMS = four_rooms(temperature=0.003)
EVERYWHERE = random_mdp(states=5, actions=3, parameters=4, seed=1)  # θ enters every table
OTHER_DISCOUNTS = replace(EVERYWHERE, discount_leader=0.6, discount_follower=0.9)


def spread(problem, count, scale, seed=0):
    size = problem.theta_shape[0]
    return scale * np.random.default_rng(seed).standard_normal((count, size))


def assert_same(found, problem, thetas, **options):
    for theta, one in zip(thetas, found, strict=True):
        alone = hypergradient(problem, theta, **options)
        size = max(float(np.abs(part).max()) for part in alone.parts.values())
        for part, value in alone.parts.items():
            # Both are right to rounding times condition; 1e-12 of the largest part is what is promised.
            np.testing.assert_allclose(one.parts[part], value, rtol=0.0, atol=1e-12 * size)
        assert abs(one.objective - alone.objective) <= 1e-12 * max(1.0, abs(alone.objective))
        assert one.condition == pytest.approx(alone.condition, rel=1e-9)
        assert np.abs(one.value - alone.value).max() <= one.error_bound + alone.error_bound
        assert one.error_bound < 10.0 * alone.error_bound
        assert one.follower.status.succeeded
        assert one.route == alone.route
    np.testing.assert_array_equal(found.value, [one.value for one in found])
    np.testing.assert_array_equal(found.objective, [one.objective for one in found])


@pytest.mark.parametrize("problem", [EVERYWHERE, OTHER_DISCOUNTS], ids=["equal discounts", "two discounts"])
def test_tables_that_depend_on_theta_everywhere(problem):
    thetas = spread(problem, 4, 1.0)
    assert_same(hypergradients(problem, thetas), problem, thetas)


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_stacked_forms(scale, monkeypatch):
    thetas = spread(ROOMS, 14, scale)  # two blocks
    monkeypatch.setattr(gradients, "tables_one_by_one", None)  # not called
    found = hypergradients(ROOMS, thetas, bound=False)
    alone = np.stack([hypergradient(ROOMS, theta, bound=False).value for theta in thetas])
    np.testing.assert_allclose(found.value, alone, rtol=0.0, atol=1e-12 * np.abs(alone).max())
    assert np.isinf(found.error_bound).all()


def test_steps_that_do_not_help_are_left_to_newton(monkeypatch):
    """A wrong common system sends followers anywhere; the answer stands."""
    of = solving.Solver.of.__func__

    def planted(cls, problem, tables, start):
        solver = of(cls, problem, tables, start)
        return replace(solver, common=lambda right, transposed: -50.0 * right)

    monkeypatch.setattr(solving.Solver, "of", classmethod(planted))
    thetas = spread(EVERYWHERE, 3, 0.5)
    found = hypergradients(EVERYWHERE, thetas)
    assert found[0].counters["factorisations"] > 1
    monkeypatch.undo()
    assert_same(found, EVERYWHERE, thetas)


def test_every_start_leads_to_the_same_answer():
    thetas = spread(EVERYWHERE, 3, 0.5)
    cold = hypergradients(EVERYWHERE, thetas)
    alone = hypergradient(EVERYWHERE, np.ones(4))
    values = np.stack([one.follower.value for one in cold])
    starts = (cold, alone, alone.follower, solve_follower(EVERYWHERE, np.ones(4)).value, values, 1e3 * values)
    for start in starts:
        warm = hypergradients(EVERYWHERE, thetas, warm_start=start)
        np.testing.assert_allclose(warm.value, cold.value, rtol=0.0, atol=1e-12 * np.abs(cold.value).max())
    again = hypergradients(EVERYWHERE, thetas, warm_start=cold)
    assert again[1].counters["sweeps"] <= 2
    with pytest.raises(InvalidInputError, match="2 rows"):
        hypergradients(EVERYWHERE, thetas, warm_start=values[:2])
    with pytest.raises(ShapeError, match="warm_start"):
        hypergradients(EVERYWHERE, thetas, warm_start=np.zeros(7))


def sparse_ring(theta):
    return Tables(
        transition=SparseTransition(successor=np.array([[[1], [0]], [[0], [1]]]), probability=np.full((2, 2, 1), 0.9)),
        reward_follower=theta.reshape(2, 2),
        reward_leader=np.eye(2),
        initial=np.array([0.5, 0.5]),
    )


def moved_up(problem, constant):
    """The same problem, its laws closed and its rewards large: a constant is split off them."""

    def tables(theta):
        given = problem.tables(theta)
        return given.replace({"reward_follower": given.reward_follower + constant})

    return replace(problem, tables=tables)


LOOPS = {
    "sparse": (
        ConfigurableMDP(
            tables=sparse_ring, discount_leader=0.5, discount_follower=0.5, temperature=0.1, theta_shape=(4,)
        ),
        {},
    ),
    "horizon": (EVERYWHERE, {"horizon": 3, "discounted": False}),
    "route": (EVERYWHERE, {"route": "theorem1"}),
    "centred": (moved_up(random_mdp(states=3, actions=2, parameters=4, seed=2, termination=0.0), 1e6), {}),
    "lqr": (random_lqr(states=1, actions=1, radius=0.5, seed=0), {}),
    "game": (random_markov_game(states=2, leader_actions=2, actions=2, seed=0), {}),
}


@pytest.mark.parametrize("kind", LOOPS)
def test_everything_else_is_a_loop(kind):
    problem, options = LOOPS[kind]
    size = 4 if problem.theta_shape is None else problem.theta_shape[0]
    thetas = 0.1 * np.random.default_rng(0).standard_normal((2, size))
    found = hypergradients(problem, thetas, bound=False, **options)
    for theta, one in zip(thetas, found, strict=True):
        np.testing.assert_array_equal(one.value, hypergradient(problem, theta, bound=False, **options).value)
    assert len(found.status) == len(found.residual) == 2


def test_what_stacked_forms_do_not_say_is_read_from_the_tables():
    """Forms of the rewards say nothing of a kernel that depends on θ."""
    base = random_mdp(states=4, actions=2, parameters=3, seed=0)
    forms = {
        "stacked_rewards": lambda thetas: tuple(
            np.stack([getattr(base.tables(theta), name) for theta in thetas])
            for name in ("reward_follower", "reward_leader")
        ),
        "stacked_pullback": lambda thetas, cotangents: np.zeros((len(thetas), 3)),
    }
    thetas = spread(base, 3, 0.3)
    found = hypergradients(replace(base, **forms), thetas)
    np.testing.assert_allclose(found.value, hypergradients(base, thetas).value, rtol=0.0, atol=1e-13)


def test_a_kernel_that_is_another_at_one_theta_between_others_is_seen():
    thetas = spread(ROOMS, 3, 0.3)
    other = four_rooms(temperature=0.003, kernel="paper")

    def tables(theta):
        own = other if np.array_equal(np.real(theta), thetas[1]) else ROOMS
        return own.tables(theta)

    found = hypergradients(replace(ROOMS, tables=tables, verify_derivatives=False), thetas, bound=False)
    for place, problem in enumerate((ROOMS, other, ROOMS)):
        alone = hypergradient(problem, thetas[place], bound=False).value
        np.testing.assert_allclose(found.value[place], alone, rtol=0.0, atol=1e-12 * np.abs(alone).max())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("who", ["follower", "leader"])
def test_stacked_forms_that_are_wrong_between_the_first_and_the_last_row_are_refused(who, masked):
    base = random_mdp(states=4, actions=2, parameters=3, seed=0, theta_in=("reward_follower", "reward_leader"))
    mask = np.array([[True, True], [True, False], [True, True], [True, True]]) if masked else None

    def tables(theta):
        return replace(base.tables(theta), action_mask=mask)

    def stacked(thetas):
        rows = [base.tables(theta) for theta in thetas]
        found = {name: np.stack([getattr(row, f"reward_{name}") for row in rows]) for name in ("follower", "leader")}
        if len(thetas) > 2:
            found[who][1] = found[who][0]  # a row that is another's
        return found["follower"], found["leader"]

    def pullback(thetas, cotangents):
        rows = zip(range(len(thetas)), thetas, strict=True)
        return np.stack(
            [base.vector_jacobian(theta, {name: own[row] for name, own in cotangents.items()}) for row, theta in rows]
        )

    problem = replace(base, tables=tables, stacked_rewards=stacked, stacked_pullback=pullback)
    refused(problem, spread(base, 4, 0.3), DerivativeError, f"stacked_rewards of the {who}: its row for theta")
    assert_same(hypergradients(problem, spread(base, 2, 0.3)), problem, spread(base, 2, 0.3))


def test_masks_that_depend_on_theta_are_refused():
    def tables(theta):
        mask = np.ones((4, 2), dtype=bool)
        mask[0, 0] = bool(np.real(getattr(theta, "_value", theta))[0] <= 0.0)
        return replace(base.tables(theta), action_mask=mask)

    base = random_mdp(states=4, actions=2, parameters=3, seed=0)
    problem = replace(base, tables=tables)
    refused(problem, np.array([[-0.2, 0.1, 0.3], [0.2, 0.1, 0.3]]), InvalidInputError, r"action_mask at thetas\[1\]")


def refused(problem, thetas, error, match):
    with pytest.raises(error, match=match):
        hypergradients(problem, thetas)


def test_refusals():
    thetas = spread(ROOMS, 3, 0.1)
    wrong = replace(ROOMS, stacked_pullback=lambda x, c: 0.5 * ROOMS.stacked_pullback(x, c))
    refused(wrong, thetas, DerivativeError, "stacked_pullback")
    other = replace(ROOMS, stacked_rewards=lambda x: tuple(0.5 * each for each in ROOMS.stacked_rewards(x)))
    refused(other, thetas, DerivativeError, "stacked_rewards")
    short = replace(
        ROOMS, verify_derivatives=False, stacked_rewards=lambda x: tuple(y[1:] for y in ROOMS.stacked_rewards(x))
    )
    refused(short, thetas, BilevelRLError, "stacked_rewards")
    broken = thetas.copy()
    broken[1, 3] = np.nan
    refused(ROOMS, broken, InvalidInputError, r"thetas\[1\]")
    refused(ROOMS, np.zeros((0, 105)), ShapeError, "thetas")
    refused(ROOMS, thetas[:, :4], ShapeError, "theta")
    with pytest.raises(UnknownNameError, match="implicid"):
        hypergradients(ROOMS, thetas, route="implicid")

    def halved(theta):
        given = EVERYWHERE.tables(theta)
        return given.replace({"transition": given.transition * (1.0 + np.where(theta[0] > 0.5, 1.0, 0.0))})

    refused(
        replace(EVERYWHERE, tables=halved, verify_derivatives=False),
        np.stack([np.zeros(4), np.ones(4)]),
        StochasticityError,
        "transition",
    )


@pytest.mark.parametrize("problem", [LOOPS["sparse"][0], EVERYWHERE], ids=["loop", "together"])
def test_where_it_was_refused(problem):
    def tables(theta):
        given = problem.tables(theta)
        return given.replace({"regulariser": np.inf}) if theta[0] == 1.0 else given

    with pytest.raises(InvalidInputError, match="regulariser") as caught:
        hypergradients(replace(problem, tables=tables, verify_derivatives=False), np.eye(4)[::-1])
    assert caught.value.__notes__ == ["at thetas[3]"]


def test_bounds_are_of_the_problem_that_was_solved():
    reward = np.zeros((2, 2))

    def tables(theta):
        return Tables(
            transition=np.full((2, 2, 2), 0.5), reward_follower=theta.reshape(2, 2), reward_leader=reward + np.eye(2),
            initial=np.array([0.5, 0.5]),
        )  # fmt: skip

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=0.5, theta_shape=(4,)
    )
    found = hypergradients(problem, np.eye(4))
    assert found[0].error_bound < 1e-13
    kept = pickle.loads(pickle.dumps(found))
    assert isinstance(kept, Hypergradients)
    assert kept[3].error_bound == found[3].error_bound
    reward[0, 0] = 1.0
    late = hypergradients(problem, np.eye(4))
    reward[0, 0] = 2.0
    with pytest.raises(InvalidInputError, match="error_bound"):
        late.error_bound.max()
