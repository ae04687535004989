"""The mixed derivative of the follower's own value: what it shares with no other route, and what kills it."""

import importlib
import itertools
import sys

import numpy as np
import pytest
from nudged_cases import PROBLEMS, THETA, disagreements, gaussian_game, lqr, mdp
from sabotage import sabotage, sabotaged

from bilevelrl.reference import (
    hypergradient,
)

tabular, game_module, lqr_module, gaussian_module = (
    importlib.import_module(f"bilevelrl.reference.nudged.{name}")
    for name in ("tabular", "game", "lqr", "gaussian_game")
)

# What follows breaks the leader's evaluation, the advantage and the adjoints of other routes, and then this one itself.

LEADERS = (
    "evaluate_leader",
    "evaluate_game_leader",
    "follower_adjoint",
    "visited_next",
    "leader_action_values",
    "truncated_stages",
    "evaluate_lqr_leader",
    "leader_costs",
    "response_cotangents",
)


@pytest.mark.exact
@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_no_leaders_evaluation_no_advantage_and_no_adjoint_is_used(kind, horizon, monkeypatch):
    problem = PROBLEMS[kind](0.8, 0.9)
    expected = hypergradient(problem, THETA, route="mixed_derivative", horizon=horizon, bound=False)
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("bilevelrl.reference.")]
    for module, name in itertools.product(modules, LEADERS):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, sabotage)
    found = hypergradient(problem, THETA, route="mixed_derivative", horizon=horizon, bound=False)
    np.testing.assert_array_equal(found.value, expected.value)
    with sabotaged():
        hypergradient(problem, THETA, horizon=horizon, bound=False)


@pytest.mark.exact
@pytest.mark.parametrize("other", ["implicit", "theorem1", "hpgd_form", "m_sobirl", "complex_step", "unrolled"])
def test_no_other_route_pays_a_follower(other, monkeypatch):
    for name, module in list(sys.modules.items()):
        if name.startswith("bilevelrl.reference.") and hasattr(module, "paid_values"):
            monkeypatch.setattr(module, "paid_values", sabotage)
    hypergradient(mdp(), THETA, route=other)
    with sabotaged():
        hypergradient(mdp(), THETA, route="mixed_derivative")


def constant_pay(monkeypatch, module):
    """The same pay at every step, which is right at equal discounts only."""
    right = module._Paid.__init__

    def without_growth(paid, **given):
        right(paid, **{**given, "discount": 0.9})

    monkeypatch.setattr(module._Paid, "__init__", without_growth)


def temperature_of_the_pay(monkeypatch, module):
    """The response to w read as that to w/β."""
    right = module.paid_values

    def forgotten(action_value, temperature):
        value, policy = right(action_value, temperature)
        return value, policy.real + 1j * temperature * policy.imag

    monkeypatch.setattr(module, "paid_values", forgotten)


def pay_of_the_first_action_only(monkeypatch, module):
    right = module.paid_values

    def kept(action_value, temperature):
        return right(action_value.real + 1j * action_value.imag[..., :1], temperature)

    monkeypatch.setattr(module, "paid_values", kept)


@pytest.mark.exact
@pytest.mark.parametrize("plant", [constant_pay, temperature_of_the_pay, pay_of_the_first_action_only])
@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("kind", ["mdp", "seeing", "blind"])
def test_planted_mistakes_are_seen(kind, horizon, plant, monkeypatch):
    problem = PROBLEMS[kind](0.7, 0.9)
    plant(monkeypatch, tabular if kind == "mdp" else game_module)
    found = hypergradient(problem, THETA, route="mixed_derivative", horizon=horizon)
    truth = hypergradient(problem, THETA, horizon=horizon)
    assert np.abs(found.value - truth.value).max() > 1e3 * (found.error_bound + truth.error_bound)


@pytest.mark.exact
def test_values_times_moving_transitions_left_out_are_seen(monkeypatch):
    right = tabular._kernel
    for lost in ("transition", "response"):

        def without(at, left, pairs, right_factor, lost=lost):
            found = right(at, left, pairs, right_factor)
            unpaid = not np.all(left == left.flat[0])
            return {name: 0.0 * table for name, table in found.items()} if unpaid == (lost == "transition") else found

        monkeypatch.setattr(tabular, "_kernel", without)
        assert disagreements(mdp(), THETA, "implicit") == {lost}


@pytest.mark.exact
def test_a_constant_pay_is_right_at_equal_discounts(monkeypatch):
    constant_pay(monkeypatch, tabular)
    assert not disagreements(mdp(0.9, 0.9), THETA, "implicit")


def constant_pay_of_an_lqr(monkeypatch):
    right = lqr_module._Paid.__init__
    monkeypatch.setattr(lqr_module._Paid, "__init__", lambda paid, **given: right(paid, **{**given, "discount": 0.9}))


def unpaid_noise(monkeypatch):
    """The pay moves the mean action and forgets its covariance."""
    right = lqr_module._Paid.backup

    def backup(paid, slope):
        found = right(paid, slope)
        return found._replace(covariance=found.covariance.real + 0j)

    monkeypatch.setattr(lqr_module._Paid, "backup", backup)


def unpaid_mean(monkeypatch):
    right = lqr_module._Paid.backup

    def backup(paid, slope):
        found = right(paid, slope)
        return found._replace(gain=found.gain.real + 0j)

    monkeypatch.setattr(lqr_module._Paid, "backup", backup)


@pytest.mark.exact
@pytest.mark.parametrize("plant", [constant_pay_of_an_lqr, unpaid_noise, unpaid_mean])
@pytest.mark.parametrize("horizon", [None, 4])
def test_planted_mistakes_in_lqrs_are_seen(horizon, plant, monkeypatch):
    plant(monkeypatch)
    found = hypergradient(lqr(0.7, 0.9), THETA, route="mixed_derivative", horizon=horizon)
    truth = hypergradient(lqr(0.7, 0.9), THETA, horizon=horizon)
    assert np.abs(found.value - truth.value).max() > 1e3 * (found.error_bound + truth.error_bound)


@pytest.mark.exact
@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("lost", ["offset", "noise", "linear", "quadratic", "after"])
def test_planted_mistakes_in_lqr_games_are_seen(lost, horizon, monkeypatch):
    """The pay moves the mean action, its slope, its noise and the value in two ways; each is missed."""
    right = gaussian_module._react

    def react(*arguments):
        found = right(*arguments)
        return found._replace(**{lost: getattr(found, lost).real + 0j})

    monkeypatch.setattr(gaussian_module, "_react", react)
    problem = gaussian_game(0.7, 0.9)
    found = hypergradient(problem, THETA, route="mixed_derivative", horizon=horizon)
    truth = hypergradient(problem, THETA, horizon=horizon)
    assert np.abs(found.value - truth.value).max() > 1e3 * (found.error_bound + truth.error_bound)
