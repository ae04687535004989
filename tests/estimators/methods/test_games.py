"""Estimators on Markov games: exact expectations, planted errors, known numbers of the toy game."""

import dataclasses

import numpy as np
import pytest
from layered_games import SEES, going_on, layered, total

from bilevelrl.benchmarks.paper.published_follower import log_sum_exp_of_the_mean
from bilevelrl.estimators import (
    BCHG,
    BiAC,
    Claim,
    Context,
    NaivePGD,
    Objective,
    TabularSimulator,
    sample_trajectories,
)
from bilevelrl.estimators.critics.joint_tables import GameCritic
from bilevelrl.estimators.methods import bchg as bchg_module
from bilevelrl.estimators.sampling.stopping import sample_stopped_trajectories
from bilevelrl.estimators.terms import joint_actions
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.reference.best_response import SuboptimalFollower
from bilevelrl.tasks import random_markov_game, toy_game_theta, toy_markov_game
from bilevelrl.verification import enumerate_moments

UNBIASED = {
    "plain": BCHG(),
    "no baselines": BCHG(baseline="none", influence_baseline=False),
    "same step": BCHG(same_step=True),
    "geometric": BCHG(stopping="sum"),
    "geometric, single": BCHG(stopping="single"),
}

DECLARED = {
    "policy gradient": NaivePGD(),
    "policy gradient, no baseline": NaivePGD(baseline="none"),
    "policy gradient, geometric": NaivePGD(stopping="sum"),
    "Bi-AC": BiAC(),
    "published": BCHG(baseline="action_dependent", same_step=True),
}


# ---------------------------------------------------------------- formula level, exactly


@SEES
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_on_games_that_end(name, sees):
    game, theta, context = layered(sees)
    truth = hypergradient(game, theta)
    moments = enumerate_moments(UNBIASED[name], game, theta, horizon=3)
    assert moments.probability == pytest.approx(1.0, abs=1e-14)
    assert UNBIASED[name].claim is Claim.UNBIASED
    scale = np.abs(truth.value).max()
    assert np.abs(moments.mean - truth.value).max() <= 1e-12 * scale
    for part in ("policy", "response"):
        assert np.abs(moments.parts[part] - truth.parts[part]).max() <= 1e-12 * scale
    assert np.abs(moments.mean - total(UNBIASED[name].expectation(context, horizon=3))).max() <= 1e-13 * scale
    assert np.trace(moments.covariance) > 1e-3  # something was averaged


@SEES
@pytest.mark.parametrize("name", DECLARED)
def test_declared_expectations_are_what_enumeration_finds(name, sees):
    game, theta, context = layered(sees)
    estimator = DECLARED[name]
    assert estimator.claim is Claim.DECLARED
    moments = enumerate_moments(estimator, game, theta, horizon=3)
    assert np.abs(moments.mean - total(estimator.expectation(context, horizon=3))).max() <= 1e-13


@SEES
def test_the_naive_gradient_misses_exactly_the_response(sees):
    game, theta, _ = layered(sees)
    truth = hypergradient(game, theta)
    moments = enumerate_moments(NaivePGD(), game, theta, horizon=3)
    assert np.abs(moments.mean + truth.parts["response"] - truth.value).max() <= 1e-13
    assert np.abs(truth.parts["response"]).max() > 1e-3


@SEES
@pytest.mark.parametrize("horizon", [None, 4])
def test_bi_ac_is_theorem_2s_first_term_with_its_own_values(sees, horizon):
    """The operator's fixed point by plain sweeps, and the first term written out in occupancies."""
    game, theta, context = going_on(sees)
    f, slope, g = game.policy_at(theta), game.policy_jacobian(theta), context.follower.policy
    answer = g.argmax(axis=2)
    q = np.zeros(g.shape)
    tables = [q]
    for _ in range(horizon or 600):
        best = np.array([max(q[s, move, answer[s, move]] for move in range(2)) for s in range(2)])
        q = game.reward_leader + game.discount_leader * game.transition @ best
        tables.append(q)
    law, expected = game.initial, np.zeros(2)
    for t in range(horizon or 600):
        value = (g * tables[-1 - t if horizon else -1]).sum(axis=2)
        expected += game.discount_leader**t * np.einsum("s,sln,sl->n", law, slope, value)
        law = np.einsum("s,sl,sla,slat->t", law, f, g, game.transition)
    target = Objective(horizon=horizon)
    estimator = BiAC(target=target, critic=exact_critic_kind(target), stopping=None if horizon else "sum")
    assert np.abs(total(estimator.expectation(context, horizon=4)) - expected).max() <= 1e-12
    if horizon:
        moments = enumerate_moments(estimator, game, theta, horizon=4)
        assert np.abs(moments.mean - expected).max() <= 1e-12
    assert np.abs(expected - hypergradient(game, theta, horizon=horizon).parts["policy"]).max() > 1e-3


@SEES
@pytest.mark.parametrize(
    "target", [Objective(), Objective(horizon=4), Objective(horizon=2), Objective(horizon=4, discounted=False)]
)
@pytest.mark.parametrize("make", [BCHG, NaivePGD, BiAC])
def test_expectations_on_games_that_go_on(make, target, sees):
    """Streams of four steps: what truncation costs is known exactly."""
    game, theta, context = going_on(sees)
    estimator = make(target=target, critic=exact_critic_kind(target))
    moments = enumerate_moments(estimator, game, theta, horizon=4)
    expected = estimator.expectation(context, horizon=4)
    assert np.abs(moments.mean - total(expected)).max() <= 1e-13
    truth = hypergradient(game, theta, horizon=target.horizon, discounted=target.discounted)
    if make is not BiAC and target.horizon is not None:
        assert np.abs(expected["policy"] - truth.parts["policy"]).max() <= 1e-12  # the leader's own term is not cut
    if make is BCHG:
        assert np.abs(expected["response"] - truth.parts["response"]).max() > 1e-4  # the follower's suffix is


@SEES
@pytest.mark.parametrize("stopping", ["sum", "single"])
def test_geometric_stopping_is_unbiased_over_an_infinite_horizon(stopping, sees):
    game = random_markov_game(states=4, seed=2, follower_sees_leader_action=sees)
    theta = np.random.default_rng(2).normal(size=game.theta_shape)
    context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    truth = hypergradient(game, theta)
    parts = BCHG(stopping=stopping).expectation(context, horizon=1)
    for part in ("policy", "response"):
        assert np.abs(parts[part] - truth.parts[part]).max() <= 1e-12
    estimator = BCHG(stopping=stopping)
    batch = sample_stopped_trajectories(
        game, theta, context.follower, streams=20_000, rng=named_stream(1, "stopped", stopping, int(sees))
    )
    rows = estimator(batch, context)
    error = rows.mean(axis=0) - truth.value
    # Four parameters, each beyond five standard errors with probability below 1e-6.
    assert (np.abs(error) <= 5 * rows.std(axis=0) / np.sqrt(len(rows))).all()


@SEES
def test_wrong_critics_wrong_followers_and_other_dynamics_have_known_expectations(sees):
    game, theta, context = going_on(sees)
    rng = np.random.default_rng(5)
    table = rng.normal(size=(1, *game.reward_leader.shape))
    critic = dataclasses.replace(GameCritic.solve(game, theta, context.follower), action_values=table)
    suboptimal = SuboptimalFollower(iterations=2, carry=False).respond(game, theta)
    other = random_markov_game(states=2, actions=2, seed=9, follower_sees_leader_action=sees)
    cases = [
        (BCHG(critic="context"), dataclasses.replace(context, critic=critic)),
        (NaivePGD(critic="context", baseline="action_dependent"), dataclasses.replace(context, critic=critic)),
        (BCHG(), dataclasses.replace(context, follower=suboptimal)),
        (BCHG(), dataclasses.replace(context, simulator=TabularSimulator(dynamics=other))),
        (BCHG(), dataclasses.replace(context, simulator=TabularSimulator(restart="uniform"))),
    ]
    truth = hypergradient(game, theta).value
    for estimator, wrong in cases:
        moments = enumerate_moments(
            estimator,
            game,
            theta,
            horizon=4,
            follower=wrong.follower,
            critic=wrong.critic,
            simulator=wrong.simulator,
        )
        expected = total(estimator.expectation(wrong, horizon=4))
        assert np.abs(moments.mean - expected).max() <= 1e-13
        assert np.abs(expected - truth).max() > 1e-3


@SEES
def test_traces_are_the_double_sums_of_the_formula(sees):
    game, theta, context = going_on(sees)
    batch = sample_trajectories(game, theta, context.follower, streams=20, steps=6, rng=np.random.default_rng(0))
    critic = GameCritic.solve(game, theta, context.follower)
    f, slope, follower = game.policy_at(theta), game.policy_jacobian(theta), context.follower
    q, benefit = critic.action_values[0], critic.benefits()[0]
    rows = np.zeros((20, 2))
    for m in range(20):
        path = [
            (batch.state_t[m, t], batch.leader_action_t[m, t], batch.action_t[m, t])
            for t in range(6)
            if batch.valid[m, t]
        ]
        for t, (s, move, a) in enumerate(path):
            weight = game.discount_leader**t
            rows[m] += weight * q[s, move, a] * slope[s, move] / f[s, move]
            for k in range(t + 1 if sees else t, len(path)):
                i, j, b = path[k]
                worth = follower.value[i, j] if sees else follower.action_value[i, j, b]
                suffix = game.discount_follower ** (k - t) * slope[i, j] / f[i, j] * worth
                rows[m] += weight * benefit[s, move, a] * suffix / game.temperature
    found = BCHG(baseline="none", influence_baseline=False)(batch, context)
    np.testing.assert_allclose(found, rows, atol=1e-12)


def test_the_published_baseline_is_biased_only_where_the_follower_sees():
    for sees in (True, False):
        game, theta, context = layered(sees)
        truth = hypergradient(game, theta).parts["policy"]
        found = NaivePGD(baseline="action_dependent").expectation(context, horizon=3)["policy"]
        error = np.abs(found - truth).max()
        assert error > 1e-3 if sees else error <= 1e-13


PLANTED = ["benefit not centred", "influence of the other structure", "another temperature"]

# A seeing follower's inner sum starts one step later by right.
CASES = [("same step dropped", False), *((planted, sees) for planted in PLANTED for sees in (True, False))]


@pytest.mark.parametrize(("planted", "sees"), CASES)
def test_enumeration_catches_planted_errors(planted, sees, monkeypatch):
    game, theta, _ = layered(sees)
    truth = hypergradient(game, theta).value
    estimator = BCHG()
    if planted == "same step dropped":
        right = bchg_module.follower_terms
        monkeypatch.setattr(bchg_module, "follower_terms", lambda *given, **options: (1, right(*given, **options)[1]))
    elif planted == "benefit not centred":
        # Without a mean of zero under g the first score of a same-step sum has an expectation of its own.
        estimator = BCHG(same_step=True, influence_baseline=False)
        monkeypatch.setattr(GameCritic, "benefits", lambda self: self.action_values)
    elif planted == "influence of the other structure":
        swap = {
            True: lambda follower: follower.action_value,
            False: lambda follower: follower.state_value[:, None, None],
        }
        worth = swap[sees]
        monkeypatch.setattr(
            joint_actions,
            "follower_influence",
            lambda context, centred=True: np.broadcast_to(worth(context.follower), context.follower.policy.shape),
        )
    else:
        game = dataclasses.replace(game, temperature=1.1 * game.temperature)
    follower = solve_follower(layered(sees)[0], theta)
    moments = enumerate_moments(estimator, game, theta, horizon=3, follower=follower)
    assert np.abs(moments.mean - truth).max() > 1e-4


# ---------------------------------------------------------------- known numbers of the toy game


@pytest.mark.parametrize(
    ("bonus", "p", "unbiased", "published"),
    [(1.0, 0.1, 1.057, 1.023), (1.0, 0.2, 1.879, 1.775), (1.0, 0.3, 1.496, 1.389), (2.0, 0.5, 3.868, 3.542)],
)
def test_what_the_published_baseline_does_to_the_toy_game(bonus, p, unbiased, published):
    game, theta = toy_markov_game(bonus), toy_game_theta(p)
    context = Context(problem=game, theta=theta, follower=log_sum_exp_of_the_mean(game, theta))
    for baseline, known in (("state_value", unbiased), ("action_dependent", published)):
        estimator = NaivePGD(baseline=baseline, stopping="sum")
        assert estimator.expectation(context, horizon=1)["policy"][1] == pytest.approx(known, abs=1e-3)


@pytest.mark.parametrize(("bonus", "p", "response"), [(1.0, 0.3, -36.157), (1.0, 0.2, -4.364), (2.0, 0.5, -5.450)])
def test_theorem_2_with_the_published_followers_values(bonus, p, response):
    """The right formula with the wrong table: known numbers, and not the derivative of anything."""
    game, theta = toy_markov_game(bonus), toy_game_theta(p)
    context = Context(problem=game, theta=theta, follower=log_sum_exp_of_the_mean(game, theta))
    found = BCHG(stopping="sum").expectation(context, horizon=1)["response"][1]
    assert found == pytest.approx(response, abs=1e-3)
    assert abs(found - hypergradient(game, theta).parts["response"][1]) > 0.1


def test_mode_targets_believe_in_the_most_likely_cycle():
    """While the follower probably goes to A and the leader probably lets it pass: one reward every third step."""
    game = toy_markov_game()
    for p, believed in ((0.1, 1 / (1 - 0.99**3)), (0.3, 1 / (1 - 0.99**3)), (0.45, 0.0)):
        theta = toy_game_theta(p)
        follower = solve_follower(game, theta)
        critic = GameCritic.solve(game, theta, follower, operator="modes")
        mode = follower.policy[0, 0].argmax()
        assert critic.action_values[0, 0, 0, mode] == pytest.approx(believed, abs=1e-9)
    # Past the switch nothing is believed to pay, and the naive gradient of that belief is exactly zero.
    stuck = Context(problem=game, theta=theta, follower=follower, critic=critic)
    naive = NaivePGD(critic="context", stopping="sum").expectation(stuck, horizon=1)["policy"]
    np.testing.assert_allclose(naive, 0.0, atol=1e-12)
    assert NaivePGD(stopping="sum").expectation(stuck, horizon=1)["policy"][1] > 1e-3
