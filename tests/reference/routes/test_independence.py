"""Routes that claim to share nothing do not: guards, sabotage, and planted errors that the agreement must catch."""

import importlib
import itertools
import sys
from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from agreement import ROUTES, by_every_route, disagreements
from sabotage import sabotage, sabotaged

from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, hypergradient, solve_follower
from bilevelrl.reference.errors import IndependenceError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.transitions import DiscountedSystem
from bilevelrl.tasks import random_mdp

PROBLEM = random_mdp(states=4, actions=2, parameters=3, seed=0)
THETA = np.array([0.3, -0.5, 0.2])
SWEEPING = ("unrolled", "forward", "complex_step")

implicit = importlib.import_module("bilevelrl.reference.tabular.linearise")
theorem1 = importlib.import_module("bilevelrl.reference.routes.theorem1")
unrolled = importlib.import_module("bilevelrl.reference.tabular.unrolled")


def test_tracers_and_complex_numbers_are_kept_out_of_the_solver():
    with pytest.raises(IndependenceError, match="carries a derivative"):
        autograd.grad(lambda theta: anp.sum(solve_follower(PROBLEM, theta).value))(THETA)
    with pytest.raises(IndependenceError, match="carries a derivative"):
        solve_follower(PROBLEM, THETA + 1e-30j)
    with pytest.raises(IndependenceError):
        hypergradient(PROBLEM, THETA + 0j)


def test_tracers_and_complex_numbers_are_kept_out_of_the_linear_systems():
    with pytest.raises(IndependenceError):
        DiscountedSystem.factorise(np.full((2, 2), 0.5 + 0j), 0.9)
    with pytest.raises(IndependenceError):
        autograd.grad(lambda x: anp.sum(DiscountedSystem.factorise(x * np.eye(2), 0.9).solve(np.ones(2))))(0.5)
    with pytest.raises(IndependenceError):
        solve_follower(PROBLEM, THETA, warm_start=np.zeros(4) + 0j)


@pytest.mark.parametrize("route", ROUTES)
def test_sweeping_routes_never_call_the_solver(route, monkeypatch):
    """With backups and factorisations of the solver broken, sweeping routes must not notice, and all others must."""
    expected = hypergradient(PROBLEM, THETA, route=route, bound=False)
    names = ("soft_bellman", "find_fixed_point", "newton_batch", "solve_tabular")
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("bilevelrl.reference.")]
    for module, name in itertools.product(modules, names):  # wherever it was imported to
        if hasattr(module, name):
            monkeypatch.setattr(module, name, sabotage)
    monkeypatch.setattr(DiscountedSystem, "factorise", sabotage)
    if route in SWEEPING:
        found = hypergradient(PROBLEM, THETA, route=route, bound=False)
        np.testing.assert_array_equal(found.value, expected.value)
    else:
        with sabotaged():
            hypergradient(PROBLEM, THETA, route=route, bound=False)


@pytest.mark.parametrize(
    "route", ["implicit", "theorem1", "hpgd_form", "m_sobirl", "mixed_derivative", "finite_difference"]
)
def test_solving_routes_never_sweep_with_derivatives(route, monkeypatch):
    expected = hypergradient(PROBLEM, THETA, route=route, bound=False)
    monkeypatch.setattr(unrolled, "swept_objective", sabotage)
    for name in ("routes.forward", "tabular.complex_sweeps", "tabular.unrolled"):
        module = importlib.import_module(f"bilevelrl.reference.{name}")
        monkeypatch.setattr(module, "plan_sweeps", sabotage)
    np.testing.assert_array_equal(hypergradient(PROBLEM, THETA, route=route, bound=False).value, expected.value)
    with sabotaged():
        hypergradient(PROBLEM, THETA, route="unrolled")


def test_only_finite_differences_know_nothing_of_derivatives(monkeypatch):
    expected = hypergradient(PROBLEM, THETA, route="finite_difference").value
    for name in ("jacobian", "pullback_at", "varying"):
        monkeypatch.setattr(ConfigurableMDP, name, sabotage)
    np.testing.assert_array_equal(hypergradient(PROBLEM, THETA, route="finite_difference").value, expected)
    for route in set(ROUTES) - {"finite_difference", "unrolled", "complex_step"}:
        with sabotaged():
            hypergradient(PROBLEM, THETA, route=route, bound=False)


def test_families_are_told():
    families = {route: HYPERGRADIENT_ROUTES[route].family for route in ROUTES}
    assert (
        len({families[route] for route in (*SWEEPING, "finite_difference", "implicit", "theorem1", "mixed_derivative")})
        == 7
    )


# What follows plants one error in one route; the comparison of all routes must name that route and no other pair.


def planted(monkeypatch, route, **objective):
    """The disagreements of a table in which one route was computed with the planted error in place."""
    wrong = hypergradient(PROBLEM, THETA, route=route, **objective)
    monkeypatch.undo()
    results = by_every_route(PROBLEM, THETA, **objective)
    assert disagreements(results) == []
    return disagreements({**results, route: wrong})


def assert_caught(found, route):
    assert len({sentence.partition(":")[0] for sentence in found}) == len(ROUTES) - 1
    assert all(route in sentence for sentence in found)


@pytest.mark.parametrize("horizon", [None, 4])
def test_sign_of_the_adjoint(monkeypatch, horizon):
    right = implicit.follower_adjoint
    monkeypatch.setattr(
        implicit, "follower_adjoint", lambda tables, policy, q, *rest: 2 * q - right(tables, policy, q, *rest)
    )
    assert_caught(planted(monkeypatch, "implicit", horizon=horizon), "implicit")


def test_transposed_kernel_in_the_adjoint(monkeypatch):
    monkeypatch.setattr(DiscountedSystem, "solve_transposed", DiscountedSystem.solve)
    assert_caught(planted(monkeypatch, "implicit"), "implicit")


def test_inverse_temperature_left_out(monkeypatch):
    right = implicit.follower_adjoint
    monkeypatch.setattr(
        implicit, "follower_adjoint", lambda t, p, q, *rest: right(t, p, q * PROBLEM.temperature, *rest)
    )
    assert_caught(planted(monkeypatch, "implicit"), "implicit")


@pytest.mark.parametrize("horizon", [None, 4])
def test_discounts_swapped(monkeypatch, horizon):
    right = theorem1.follower_gradients
    monkeypatch.setattr(
        theorem1, "follower_gradients", lambda k, p, c, discount: right(k, p, c, PROBLEM.discount_leader)
    )
    wrong = theorem1._formula(
        PROBLEM.at(THETA),
        objective=Objective(horizon),
        warm_start=None,
        bound=True,
        route="theorem1",
        gradients=theorem1.follower_gradients,
        centred_gradient=False,
    )
    monkeypatch.undo()
    results = by_every_route(PROBLEM, THETA, horizon=horizon)
    assert_caught(disagreements({**results, "theorem1": wrong}), "theorem1")


def test_one_sweep_too_few_for_the_followers_future(monkeypatch):
    """∇Q_F cut to its first step, SoBiRL's bias, planted in an exact route."""
    right = theorem1.pair_gradients
    monkeypatch.setattr(theorem1, "pair_gradients", lambda kernel, policy, source, discount: source)
    wrong = theorem1._formula(
        PROBLEM.at(THETA),
        objective=Objective(),
        warm_start=None,
        bound=True,
        route="hpgd_form",
        gradients=theorem1.pair_gradients,
        centred_gradient=True,
    )
    assert right is not theorem1.pair_gradients
    monkeypatch.undo()
    assert_caught(disagreements({**by_every_route(PROBLEM, THETA), "hpgd_form": wrong}), "hpgd_form")


def test_an_error_of_one_in_a_hundred_million_is_seen():
    """The sensitivity of the comparison itself, between routes whose bounds are at rounding."""
    results = by_every_route(PROBLEM, THETA)
    exact = {route: result for route, result in results.items() if route != "finite_difference"}
    slightly = {part: value * (1 + 1e-8) for part, value in results["implicit"].parts.items()}
    off = replace(results["implicit"], parts=slightly, value=sum(slightly.values()))
    assert disagreements({**exact, "implicit": off})
