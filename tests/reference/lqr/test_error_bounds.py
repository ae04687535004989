"""Error bounds of linear-quadratic hypergradients: no error exceeds them, and mistakes do."""

import pickle
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bilevelrl.reference import ConfigurableLQR, LQRMatrices, hypergradient, solve_follower
from bilevelrl.reference.errors import IllPosedError
from bilevelrl.reference.lqr import linearise as implicit_route
from bilevelrl.reference.lqr.error_bounds import lqr_error_bounds
from bilevelrl.reference.lqr.riccati_derivative import recurrence_primitive
from bilevelrl.reference.lqr.rounding import Ledger, UnprovenError, first_order_errors
from bilevelrl.reference.lqr.solvers import solve_riccati
from bilevelrl.reference.lqr.traced import riccati_sweeps
from bilevelrl.reference.lqr_game import linearise as game_route
from bilevelrl.reference.lqr_game.error_bounds import lqr_game_error_bounds
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import building_thermal_control, lqr_game, random_lqr, random_lqr_game

certified_hypergradient = pytest.importorskip("bilevelrl.reference.certified").certified_hypergradient
pytest.importorskip("flint")

ROUTES = ("implicit", "mixed_derivative", "closed_form", "unrolled", "finite_difference")
THETA = np.array([0.3, -0.2, 0.1])


def distance(certified, found):
    """Largest error of an entry of the hypergradient or of one of its parts."""
    pairs = [*zip(certified.value, found.value, strict=True)]
    for part, column in certified.parts.items():
        pairs += zip(column, found.parts[part], strict=True)
    return max(float(truth.distance(float(number))) for truth, number in pairs)


def size(certified):
    return max(abs(float(entry)) for column in certified.parts.values() for entry in column)


def hold(problem, theta, routes, *, loosest, **objective):
    """Hold routes against certified truth; `loosest`: the largest bound relative to the largest part."""
    certified = certified_hypergradient(problem, theta, digits=18, **objective)
    for route in routes:
        found = hypergradient(problem, theta, route=route, **objective)
        assert distance(certified, found) <= found.error_bound, route
        assert found.error_bound <= loosest * size(certified), route
        off = float(certified.objective.distance(found.objective))
        assert off <= found.objective_error_bound <= loosest * (1.0 + abs(float(certified.objective))), route
    return certified


# --- from above: no error exceeds its bound -----------------------------------------------------------------------

OBJECTIVES = st.sampled_from(
    [{}, *({"horizon": steps, "discounted": discounted} for steps in (1, 2, 7, 40) for discounted in (True, False))]
)
DISCOUNTS = st.sampled_from([0.0, 0.3, 0.9, 0.99, 0.9999])


@settings(max_examples=10)
@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(0, 10_000),
    st.floats(-6.0, 3.0),
    DISCOUNTS,
    DISCOUNTS,
    st.sampled_from([0.5, 0.95, 0.999]),
    st.booleans(),
    OBJECTIVES,
)
@example(3, 1, 5, -1.0, 0.9999, 0.0, 0.999, False, {})  # a follower without foresight leaves a slow chain as it is
@example(2, 1, 5, -1.0, 0.9999, 0.0, 0.999, False, {"horizon": 200, "discounted": False})
def test_bounds_hold_on_drawn_problems(states, actions, seed, decade, leader, follower, radius, moved, objective):
    problem = random_lqr(
        states=states,
        actions=actions,
        seed=seed,
        radius=radius,
        temperature=10.0**decade,
        discount_leader=leader,
        discount_follower=follower,
    )
    theta = THETA if moved else np.zeros(3)
    best = solve_follower(problem, theta)
    if not objective and leader * np.abs(np.linalg.eigvals(best.riccati.closed_loop)).max() ** 2 >= 1.0:
        with pytest.raises(IllPosedError, match="horizon"):
            hypergradient(problem, theta)
        return
    certified = hold(problem, theta, ("implicit", "closed_form"), loosest=1e-5, **objective)
    bounds = lqr_error_bounds(problem.at(theta), best.cost_to_go, objective=Objective(**objective))
    off = float(certified.objective.distance(hypergradient(problem, theta, bound=False, **objective).objective))
    assert off <= bounds.objective <= 1e-7 * (1.0 + abs(float(certified.objective)))


@settings(max_examples=8)
@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 10_000),
    st.floats(-6.0, 2.0),
    st.sampled_from([0.0, 0.3, 0.9, 0.97]),
    DISCOUNTS,
    st.sampled_from([0.5, 0.95, 1.1]),
    OBJECTIVES,
)
@example(1, 1, 0, 0.0, 0.9, 0.0, 0.999, {"horizon": 40})
def test_bounds_hold_on_drawn_games(states, leader_actions, seed, decade, leader, follower, radius, objective):
    game = replace(
        random_lqr_game(
            states=states,
            leader_actions=leader_actions,
            seed=seed,
            radius=radius,
            discount_leader=leader,
            discount_follower=follower,
        ),
        temperature=10.0**decade,
    )
    best = solve_follower(game, THETA)
    if not objective and np.abs(np.linalg.eigvals(best.riccati.closed_loop)).max() >= 1.0:
        assert hypergradient(game, THETA).error_bound == np.inf  # a chain without a law: nothing is claimed
        return
    certified = hold(game, THETA, ("implicit",), loosest=1e-6, **objective)
    bounds = lqr_game_error_bounds(game.at(THETA), best.cost_to_go, objective=Objective(**objective))
    off = float(certified.objective.distance(hypergradient(game, THETA, bound=False, **objective).objective))
    assert off <= bounds.objective <= 1e-9


@pytest.mark.parametrize("objective", [{}, {"horizon": 20}, {"horizon": 20, "discounted": False}], ids=str)
def test_every_route_of_the_building(objective):
    problem, theta = building_thermal_control(), 0.5 * np.cos(np.arange(8.0))
    hold(problem, theta, ("implicit", "closed_form"), loosest=1e-10, **objective)
    if objective:
        return
    hold(problem, np.zeros(8), ("implicit", "unrolled"), loosest=1e-10)
    hold(problem, np.zeros(8), ("finite_difference",), loosest=1e-6)


def test_every_route_of_the_game():
    game = lqr_game()
    hold(game, np.array([-3.0, 0.0]), ROUTES, loosest=1e-8, horizon=100)
    hold(
        game, np.array([-9.9615, -10.0]), ("implicit", "finite_difference"), loosest=1e-6, horizon=100, discounted=False
    )
    hold(game, np.array([-7.0, 0.0]), ("implicit",), loosest=1e-9)


@pytest.mark.parametrize("objective", [{}, {"horizon": 6}], ids=str)
def test_every_route_of_drawn_problems(objective):
    hold(random_lqr(states=2, seed=3, temperature=1e-3), THETA, ROUTES, loosest=1e-6, **objective)
    hold(random_lqr_game(seed=3, discount_leader=0.7), THETA, ROUTES, loosest=1e-6, **objective)


def test_inputs_that_are_symmetric_up_to_rounding_only():
    """Only symmetric parts are meant; what the routes make of the rest is in the bound."""
    problem = random_lqr(states=3, actions=3, seed=6)
    upper = np.triu(np.ones((3, 3)), 1)

    def tilted(theta):
        found = problem.matrices(theta)
        costs = [name for name in found.differentiable() if name.startswith("cost") and "constant" not in name]
        return found.replace({name: getattr(found, name) + 2e-13 * upper for name in costs})

    tilt = replace(problem, matrices=tilted)
    hold(tilt, THETA, ("implicit", "closed_form"), loosest=1e-9)
    for horizon in (3, None):
        assert hypergradient(tilt, THETA, horizon=horizon).error_bound > 1.1 * (
            hypergradient(problem, THETA, horizon=horizon).error_bound
        )


# --- from below: the bounds say something, and mistakes exceed them ---------------------------------------------------


def test_bounds_are_within_five_digits_of_the_error():
    slack = []
    for seed in range(7):
        problem = random_lqr(states=1 + seed % 3, seed=seed, discount_leader=0.95, discount_follower=0.7)
        found = hypergradient(problem, THETA)
        certified = certified_hypergradient(problem, THETA, digits=18)
        slack.append(np.log10(found.error_bound / max(distance(certified, found), 1e-17 * size(certified))))
    assert 1.0 < np.median(slack) < 5.0


def planted(change):
    right = implicit_route.response_cotangents

    def wrong(riccati, b, discount, *, reaction, covariance, temperature):
        arguments = {"discount": discount, "reaction": reaction, "covariance": covariance, "temperature": temperature}
        arguments |= {name: alter(arguments[name]) for name, alter in change.items()}
        return right(riccati, b, arguments.pop("discount"), **arguments)

    return wrong


@pytest.mark.parametrize("problem", [random_lqr(seed=2), random_lqr_game(seed=2)], ids=["lqr", "game"])
@pytest.mark.parametrize(
    "change",
    [
        {"reaction": lambda x: -x},
        {"covariance": lambda x: -x},
        {"covariance": lambda x: 2.0 * x},
        {"discount": lambda x: x * (1.0 + 1e-6)},
        {"reaction": lambda x: x * (1.0 + 1e-7)},
    ],
    ids=["K sign", "Σ sign", "Σ factor", "discount", "one in ten million"],
)
def test_planted_mistakes_exceed_the_bound(monkeypatch, problem, change):
    certified = certified_hypergradient(problem, THETA, digits=18)
    wrong = planted(change)
    for route in (implicit_route, game_route):
        monkeypatch.setattr(route, "response_cotangents", wrong)
    found = hypergradient(problem, THETA)
    assert distance(certified, found) > 100.0 * found.error_bound


def test_an_unsettled_follower_shows_in_the_bound(monkeypatch):
    """Sweeps that stop early leave an error of P: the residual sees it, the bound covers it, or is infinite."""
    problem = random_lqr(states=3, seed=4)
    certified = certified_hypergradient(problem, THETA, digits=18)
    settled = hypergradient(problem, THETA).error_bound
    right = implicit_route.solve_lqr
    bounds = []
    for sweeps in (0, 10, 30, 45, 60):
        monkeypatch.setattr(implicit_route, "solve_lqr", lambda at, warm_start, n=sweeps: right(at, stop_after=n))
        found = hypergradient(problem, THETA)
        off = distance(certified, found)
        assert off <= found.error_bound
        if np.isfinite(found.error_bound):
            assert found.error_bound <= 10.0 * off
        bounds.append(found.error_bound)
    assert bounds[0] == np.inf
    assert np.isfinite(bounds[-1])
    assert bounds[-1] > 1e3 * settled


def test_a_wrong_solution_has_no_small_bound():
    problem = random_lqr(seed=1)
    p = solve_follower(problem, THETA).cost_to_go
    right = lqr_error_bounds(problem.at(THETA), p, objective=Objective())
    shifted = lqr_error_bounds(problem.at(THETA), p * (1.0 + 1e-8), objective=Objective())
    assert shifted.gradient > 1e3 * right.gradient
    assert shifted.objective > 1e3 * right.objective
    assert lqr_error_bounds(problem.at(THETA), 2.0 * p, objective=Objective()).gradient == np.inf
    # As a policy in its own right it is evaluated as precisely as any other.
    assert (
        lqr_error_bounds(
            problem.at(THETA), p * (1.0 + 1e-8), frozen=True, gradient=False, objective=Objective()
        ).objective
        < 1e-10
    )
    game = random_lqr_game(seed=1)
    p = solve_follower(game, THETA).cost_to_go
    assert lqr_game_error_bounds(game.at(THETA), p * (1.0 + 1e-8), objective=Objective()).gradient > 1e3 * (
        lqr_game_error_bounds(game.at(THETA), p, objective=Objective()).gradient
    )


# --- what is not proven is infinite -----------------------------------------------------------------------------------


def test_nothing_is_claimed_of_unstable_chains_without_end():
    game = random_lqr_game(states=1, seed=0, radius=3.0, discount_follower=0.05)
    assert hypergradient(game, THETA).error_bound == np.inf
    assert hypergradient(game, THETA, route="finite_difference").error_bound == np.inf
    hold(game, THETA, ("implicit",), loosest=1e-9, horizon=12)
    wide = random_lqr_game(states=3, seed=1, radius=3.0, discount_follower=0.05, discount_leader=0.97)
    assert hypergradient(wide, THETA, horizon=300).error_bound == np.inf  # cut off where the spread exceeds doubles


@pytest.mark.parametrize("problem", [random_lqr(seed=2), random_lqr_game(seed=2)], ids=["lqr", "game"])
@pytest.mark.parametrize("route", ROUTES)
def test_no_bound_is_computed_where_none_is_asked_for(monkeypatch, problem, route):
    asked = hypergradient(problem, THETA, route=route, horizon=3)
    found = hypergradient(problem, THETA, route=route, horizon=3, bound=False)
    assert found.error_bound == np.inf
    np.testing.assert_array_equal(found.value, asked.value)


def test_a_loop_on_the_unit_circle_is_not_proven_stable():
    one = np.eye(1)
    with pytest.raises(UnprovenError):
        first_order_errors(lambda ledger: anp.ravel(ledger.inverse(ledger.off(one - 1.0 + 1e-320, 0.0))))
    problem = ConfigurableLQR(
        matrices=lambda theta: LQRMatrices(
            dynamics_state=one,
            dynamics_action=0.0 * one,
            noise_covariance=one,
            cost_state_follower=one,
            cost_action_follower=one,
            cost_state_leader=one + theta[0],
            cost_action_leader=one,
            initial_mean=np.ones(1),
            initial_covariance=one,
        ),
        discount_leader=1.0 - 2.0**-53,
        discount_follower=0.5,
        temperature=1.0,
    )
    assert hypergradient(problem, np.zeros(1)).error_bound == np.inf
    assert hypergradient(problem, np.zeros(1), horizon=9).error_bound < 1e-10


# --- sweeps that do not see every mode --------------------------------------------------------------------------------


def test_sweeps_settle_what_the_costs_do_not_see():
    """A slow mode without a cost: the value settles at once, its derivative by that cost does not."""
    slow = np.diag([0.3, 0.97])

    def matrices(theta):
        return LQRMatrices(
            dynamics_state=slow,
            dynamics_action=np.array([[1.0], [0.1]]),
            noise_covariance=np.eye(2),
            cost_state_follower=anp.array([[1.0, 0.0], [0.0, 0.0]]) + theta[1] * np.diag([0.0, 1.0]),
            cost_action_follower=np.eye(1),
            cost_state_leader=np.diag([1.0, 0.0]) + theta[0] * np.diag([0.0, 1.0]),
            cost_action_leader=0.0 * np.eye(1),
            initial_mean=np.ones(2),
            initial_covariance=np.eye(2),
        )

    problem = ConfigurableLQR(matrices=matrices, discount_leader=0.99, discount_follower=0.98, temperature=0.5)
    hold(problem, np.array([0.0, 0.0]), ("implicit", "closed_form", "unrolled"), loosest=1e-9)


# --- the parts of the analysis ----------------------------------------------------------------------------------------


def test_the_derivative_of_a_recurrence_is_its_linearisation():
    rng = np.random.default_rng(0)
    left, right, start, constants = (rng.standard_normal(shape) for shape in ((3, 3), (2, 2), (3, 2), (4, 3, 2)))
    weight = rng.standard_normal((5, 3, 2))

    def formula(ledger):
        pieces = [ledger.off(value, 1.0) for value in (left, right, start, constants)]
        return anp.reshape(anp.sum(weight * recurrence_primitive(*pieces)), (1,))

    ledgers = []

    def remembered(ledger):
        ledgers.append(ledger)
        return formula(ledger)

    first_order_errors(remembered)
    arguments = [left, right, start, constants]
    for k, slope in enumerate(ledgers[0].slopes):
        direction = rng.standard_normal(arguments[k].shape)
        moved = [[*arguments[:k], arguments[k] + h * direction, *arguments[k + 1 :]] for h in (1e-5, -1e-5)]
        ahead, behind = (np.sum(weight * recurrence_primitive(*values)) for values in moved)
        assert (ahead - behind) / 2e-5 == pytest.approx(np.vdot(slope, direction), rel=1e-7)


def test_errors_add_up_along_a_formula():
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])

    def formula(ledger):
        return anp.ravel(ledger.inverse(ledger.off(matrix, 1e-6)))

    value, error = first_order_errors(formula)
    np.testing.assert_allclose(value, np.linalg.inv(matrix).ravel(), rtol=1e-14)
    inverse = np.abs(np.linalg.inv(matrix))
    np.testing.assert_allclose(error, (inverse @ np.full((2, 2), 1e-6) @ inverse).ravel(), rtol=1e-6)
    with pytest.raises(UnprovenError, match="finite"):
        Ledger(0.0).off(np.ones(2), np.inf)


def test_settled_sweeps_are_the_same_follower():
    matrices = random_lqr(seed=3).matrices_at(THETA)
    system = (
        matrices.dynamics_state,
        matrices.dynamics_action,
        matrices.cost_state_follower,
        matrices.cost_action_follower,
        0.9,
    )
    earlier, later = riccati_sweeps(*system)
    swept = solve_riccati(*system, method="sweeps", stop_after=earlier + later)
    assert np.linalg.norm(swept.cost_to_go - solve_riccati(*system).cost_to_go, 2) <= 2.0 * swept.error_bound


@pytest.mark.parametrize("route", ["implicit", "closed_form", "unrolled", "finite_difference"])
def test_a_bound_is_that_of_the_call_whenever_it_is_read(route):
    problem, theta = building_thermal_control(), np.zeros(8)
    at_once = hypergradient(problem, theta, route=route).error_bound
    later = hypergradient(problem, theta, route=route)
    sent = pickle.loads(pickle.dumps(hypergradient(problem, theta, route=route)))
    theta += 3.0
    assert later.error_bound == sent.error_bound == at_once < 1e-6
    assert later.error_bound == at_once  # and again
    np.testing.assert_array_equal(sent.value, later.value)
    assert hypergradient(problem, theta, route=route, bound=False).error_bound == np.inf
