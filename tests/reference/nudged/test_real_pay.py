"""Followers that are really paid: differences of the right order, exact at every pay, refused where rounding rules."""

from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.reference import hypergradient
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, TooLargeError
from bilevelrl.reference.nudged.real_pay import PaidFollower, check_pay
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.tasks import four_rooms, random_mdp

pytestmark = pytest.mark.exact

THETA = np.array([0.3, -0.5, 0.2])


def mdp(leader=0.9, follower=0.9):
    return random_mdp(states=4, actions=2, parameters=3, seed=0, discount_leader=leader, discount_follower=follower)


def paid(problem, objective, theta=THETA):
    at = problem.at(theta)
    return PaidFollower(at, objective, solve_tabular(at))


def value_by_sweeps(problem, theta, w, objective, steps):
    """μ·V_0 under the pay w, by plain sweeps that autograd follows."""
    tables, growth = problem.evaluate(theta), objective.discount(problem.discount_leader) / problem.discount_follower
    value = anp.zeros(tables.states)
    for t in reversed(range(steps)):
        pays = objective.horizon is None or t < objective.horizon
        bonus = w * growth**t * tables.reward_leader if pays else 0.0
        ahead = anp.sum(tables.transition * value, axis=2)
        action_value = (tables.reward_follower + bonus + problem.discount_follower * ahead) / problem.temperature
        peak = anp.max(action_value, axis=1)
        value = problem.temperature * (peak + anp.log(anp.sum(anp.exp(action_value - peak[:, None]), axis=1)))
    return anp.dot(tables.initial, value)


@pytest.mark.parametrize(
    ("discounts", "objective"),
    [
        ((0.9, 0.9), Objective()),
        ((0.6, 0.9), Objective()),
        ((0.9, 0.9), Objective(5)),
        ((0.9, 0.8), Objective(5)),
        ((0.9, 0.8), Objective(6, False)),
    ],
)
@pytest.mark.parametrize("pays", [(0.3, -0.3), (0.3, 0.0), (-2.0, 0.1)])
def test_differences_at_any_two_pays_are_those_of_plain_sweeps(discounts, objective, pays):
    """Another transcription, reverse mode through 500 sweeps, at pays that are not small."""
    problem = mdp(*discounts)
    gradient = autograd.grad(value_by_sweeps, 1)
    one, two = (gradient(problem, THETA, w, objective, 500) for w in pays)
    found = paid(problem, objective).difference(*pays)
    expected = (one - two) / (pays[0] - pays[1]) + found["regulariser"]
    assert np.abs(sum(found.values()) - expected).max() <= 1e-11 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("objective", [Objective(), Objective(5), Objective(5, False)])
@pytest.mark.parametrize(("sides", "order"), [(2, 2.0), (1, 1.0)])
def test_each_part_comes_to_its_own_with_the_order_of_the_difference(sides, order, objective):
    """A one-sided difference taken for a two-sided one is caught here."""
    problem = mdp()
    truth = hypergradient(problem, THETA, horizon=objective.horizon, discounted=objective.discounted)
    follower = paid(problem, objective)
    errors = []
    for pay in (0.02, 0.01):
        parts = follower.difference(pay, -pay if sides == 2 else 0.0)
        errors.append({part: np.abs(parts[part] - value).max() for part, value in truth.parts.items()})
    for part in ("initial", "direct", "transition", "response"):
        assert abs(np.log2(errors[0][part] / errors[1][part]) - order) < 0.05, part
    assert errors[0]["regulariser"] == 0.0


@pytest.mark.parametrize(("discounts", "rounded"), [((0.7, 0.5), 1.06), ((0.9, 0.8), 0.89), ((0.9, 0.7), 0.42)])
def test_where_the_pay_grows_differences_are_slower_than_their_order(discounts, rounded):
    """With w^(log γ_L / log(γ_F/γ_L)), by the pay that comes when it is as large as the follower's own reward."""
    problem = mdp(*discounts)
    slow = np.log(discounts[0]) / np.log(discounts[1] / discounts[0])
    assert slow == pytest.approx(rounded, abs=0.005)
    truth = hypergradient(problem, THETA, route="mixed_derivative").value
    follower = paid(problem, Objective())
    pays = (1e-4, 1e-5)
    errors = [np.abs(sum(follower.difference(w, -w).values()) - truth).max() for w in pays]
    assert abs(np.log10(errors[0] / errors[1]) - slow) < 0.002


def test_four_rooms_as_penalties_see_it():
    """Relative errors at w = β/10: 4.3e-3 on one side, 1.1e-4 on two."""
    problem, theta = four_rooms(temperature=0.005), np.zeros(105)
    truth = hypergradient(problem, theta).value
    follower = paid(problem, Objective(), theta)
    one, two = (np.linalg.norm(sum(follower.difference(5e-4, w).values()) - truth) for w in (0.0, -5e-4))
    size = np.linalg.norm(truth)
    assert one / size == pytest.approx(4.326e-3, rel=1e-3)
    assert two / size == pytest.approx(1.1306e-4, rel=1e-3)


@pytest.mark.parametrize("pay", [0.0, -0.0, np.nan, np.inf, True, "0.1", None])
def test_a_pay_that_is_none_is_refused(pay):
    at = mdp().at(THETA)
    with pytest.raises(InvalidInputError, match=r"pay=.*other than zero.*mixed_derivative"):
        check_pay(at, solve_tabular(at), pay)


def test_a_pay_below_rounding_is_refused_and_above_it_rounding_is_told():
    """What is told is what happens: the differences are off by about so much, and by all of themselves below."""
    problem = mdp()
    at = problem.at(THETA)
    follower = solve_tabular(at)
    with pytest.raises(InvalidInputError, match=r"at least .*; rounding is .* of it"):
        check_pay(at, follower, 1e-15)
    truth = hypergradient(problem, THETA).value
    for pay in (1e-7, 1e-9, 1e-11):
        told = check_pay(at, follower, pay)
        off = np.abs(sum(paid(problem, Objective()).difference(pay, -pay).values()) - truth).max()
        assert 1e-4 * told * np.abs(truth).max() < off < 10.0 * told * np.abs(truth).max()


def test_a_pay_that_explodes_is_refused_by_name():
    with pytest.raises(IllPosedError, match=r"grows by 1.9 at each of .* steps.*mixed_derivative"):
        paid(mdp(0.95, 0.5), Objective()).moments(1e-3)
    with pytest.raises(IllPosedError, match=r"grows by 3.96 at each of .* steps, to inf times β"):
        paid(mdp(0.99, 0.25), Objective()).moments(1e-3)  # beyond what doubles hold
    base = mdp(0.99, 0.25)
    idle = replace(base, tables=lambda theta: replace(base.tables(theta), reward_leader=np.zeros((4, 2))))
    with pytest.raises(IllPosedError, match=r"to inf times β"):
        paid(idle, Objective()).moments(1e-3)
    with pytest.raises(IllPosedError, match=r"discount_follower=0.0.*takes the limit"):
        paid(mdp(0.9, 0.0), Objective()).moments(1e-3)
    with pytest.raises(TooLargeError, match="steps of pay"):
        paid(mdp(0.99999, 0.9), Objective())
    greedy = paid(mdp(0.0, 0.9), Objective())
    truth = hypergradient(mdp(0.0, 0.9), THETA).value
    assert np.abs(sum(greedy.difference(1e-4, -1e-4).values()) - truth).max() < 1e-7


def test_a_leader_without_rewards_pays_nothing():
    base = mdp()
    idle = replace(base, tables=lambda theta: replace(base.tables(theta), reward_leader=np.zeros((4, 2))))
    found = paid(idle, Objective()).difference(0.1, -0.1)
    assert np.abs(sum(found.values()) - found["regulariser"]).max() <= 1e-14
