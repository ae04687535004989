"""What convergence proofs assume: constants by other ways, and the toy game's turning point."""

import csv
from dataclasses import replace
from pathlib import Path

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.benchmarks.research.approximations.claims import (
    claim_cell,
    claims_at,
    curvature,
    follower_value_gradient,
    regulator_value_gradient,
    response_constants,
)
from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.tasks import random_lqr, random_markov_game, random_mdp, toy_game_theta, toy_markov_game
from bilevelrl.tasks.scenarios import reference_problems

pytestmark = pytest.mark.exact

MDP = random_mdp(states=4, actions=2, parameters=3, seed=0, discount_leader=0.8, discount_follower=0.9)
THETA = np.array([0.3, -0.5, 0.2])
KEPT = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "claims.csv"


def test_the_follower_s_value_moves_as_differences_say():
    def value(theta):
        return MDP.tables_at(theta).initial @ solve_follower(MDP, theta).value

    slopes = [(value(THETA + 1e-5 * e) - value(THETA - 1e-5 * e)) / 2e-5 for e in np.eye(3)]
    np.testing.assert_allclose(follower_value_gradient(MDP, THETA), slopes, rtol=1e-7)


def test_a_regulators_value_moves_as_its_costs_do_along_its_own_play():
    """The envelope theorem with what it plays held fixed: the leader's own terms, were its costs the follower's."""
    problem = random_lqr(seed=1)

    def swapped(theta):
        form = problem.matrices(theta)
        costs = {"cost_state_leader": form.cost_state_follower, "cost_action_leader": form.cost_action_follower}
        return form.replace({**costs, "cost_constant_leader": 0.0, "regulariser": 0.0})

    same = replace(problem, matrices=swapped, discount_leader=problem.discount_follower)
    truth = hypergradient(same, THETA)
    wanted = truth.value - truth.parts["response"]
    np.testing.assert_allclose(regulator_value_gradient(problem, THETA), wanted, rtol=1e-6, atol=1e-8)


def test_a_leader_with_the_follower_s_rewards_is_aligned_with_it():
    """∇J = ∇V* up to the entropy where both earn the same; the social gradient then ascends J."""
    hot = replace(MDP, discount_leader=0.9)
    same = replace(hot, tables=lambda theta: shared(hot.tables(theta)), temperature=1e-3)
    found = claims_at(same, THETA)
    assert found["cosine_social"] > 0.99
    against = replace(hot, tables=lambda theta: shared(hot.tables(theta), sign=-3.0), temperature=1e-3)
    assert claims_at(against, THETA)["cosine_social_partial"] > 0.99 > 0.0
    assert claims_at(replace(against, tables=lambda t: shared(hot.tables(t), sign=-0.3)), THETA)["cosine_social"] < 0.0


def shared(tables, sign=1.0):
    return replace(tables, reward_leader=sign * tables.reward_follower, regulariser=0.0)


def test_the_pl_constant_is_the_least_eigenvalue_of_a_taped_hessian():
    phi = np.log(solve_follower(MDP, THETA).policy)
    tables = MDP.tables_at(THETA)

    def earned(flat):
        table = anp.reshape(flat, (4, 2))
        log_policy = table - anp.log(anp.sum(anp.exp(table), axis=1, keepdims=True))
        policy = anp.exp(log_policy)
        chain = anp.sum(policy[:, :, None] * tables.transition, axis=1)
        gained = anp.sum(policy * (tables.reward_follower - MDP.temperature * log_policy), axis=1)
        return anp.dot(tables.initial, anp.linalg.solve(anp.eye(4) - MDP.discount_follower * chain, gained))

    sizes = np.sort(-np.linalg.eigvalsh(autograd.hessian(earned)(phi.ravel())))
    found = claims_at(MDP, THETA)
    assert found["pl_constant"] == pytest.approx(sizes[4], rel=1e-3)  # four directions are not felt
    assert found["largest_curvature"] == pytest.approx(sizes[-1], rel=1e-3)


@pytest.mark.parametrize("sees", [True, False])
def test_the_slope_of_the_response_is_that_of_differences_and_below_its_bound(sees):
    """The same by the game's own follower, whose code no slope here shares."""
    game = random_markov_game(states=3, leader_actions=2, actions=2, seed=0, follower_sees_leader_action=sees)
    for problem in (MDP, game):
        theta = np.resize(THETA, 3)
        steps = [
            (
                np.log(solve_follower(problem, theta + 1e-5 * e).policy)
                - np.log(solve_follower(problem, theta - 1e-5 * e).policy)
            )
            / 2e-5
            for e in np.eye(3)
        ]
        slope, bound = response_constants(problem, theta)
        assert slope == pytest.approx(np.linalg.norm(steps, axis=0).max(), rel=1e-7)
        assert bound > slope


def test_the_curvature_is_that_of_second_differences_of_the_objective():
    def second(i, j, h=1e-3):
        a, b = h * np.eye(3)[i], h * np.eye(3)[j]
        corners = [(a + b, 1), (a - b, -1), (-a + b, -1), (-a - b, 1)]
        return sum(sign * leader_objective(MDP, THETA + move) for move, sign in corners) / (4.0 * h * h)

    hessian = np.array([[second(i, j) for j in range(3)] for i in range(3)])
    assert curvature(MDP, THETA) == pytest.approx(np.abs(np.linalg.eigvalsh(hessian)).max(), rel=1e-5)


def test_no_kept_slope_exceeds_its_bound():
    with KEPT.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len([row for row in rows if not row["problem"].startswith("p=")]) == len(reference_problems()) == 95
    tables = [row for row in rows if row["response_slope"]]
    assert len(rows) - len(tables) == 16  # linear-quadratic ones
    assert all(float(row["response_slope"]) <= float(row["response_slope_bound"]) * (1.0 + 1e-3) for row in tables)
    assert sum(row["leader_curvature"] != "" for row in rows) >= 80


def test_on_the_toy_game_the_partial_gradient_turns_against_the_whole_past_a_fifth():
    before, after = (claims_at(toy_markov_game(), toy_game_theta(p))["cosine_partial"] for p in (0.15, 0.3))
    assert before > 0.0 > after
    truth = hypergradient(toy_markov_game(), toy_game_theta(0.3))
    assert (truth.value - truth.parts["response"]) @ truth.value < 0.0


@pytest.mark.parametrize(
    "problem", ["mdp_discount_0.9", "game_seen_0.5_0.9", "p=0.2", "lqr_random_1", "lqr_game_mixed"]
)
def test_kept_rows_are_those_of_a_fresh_run(problem, tmp_path):
    (fresh,) = claim_cell({"problem": problem}, {}, tmp_path)
    with KEPT.open(encoding="utf-8") as lines:
        (kept,) = [row for row in csv.DictReader(lines) if row["problem"] == problem]
    for name, value in fresh.items():
        if value is None:
            assert problem.startswith("lqr"), name
            assert kept[name] == "", name
            continue
        assert float(kept[name]) == pytest.approx(value, rel=2e-3, abs=1e-9), name
