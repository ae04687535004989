"""Estimators on Markov games: learnt critics, samples, the total derivative, and what is refused."""

import dataclasses

import numpy as np
import pytest
from layered_games import SEES, going_on, layered, total

from bilevelrl.estimators import (
    BCHG,
    BiAC,
    Claim,
    Context,
    NaivePGD,
    Objective,
    SoBiRL,
    TableCritic,
    sample_trajectories,
)
from bilevelrl.estimators.critics.joint_tables import GameCritic, learn_game_critic
from bilevelrl.estimators.methods import TotalDerivative
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import MarkovGame, hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, ShapeError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import random_markov_game, random_mdp, toy_game_theta, toy_markov_game
from bilevelrl.verification import enumerate_moments

# ---------------------------------------------------------------- learnt critics, samples, the total derivative


@SEES
@pytest.mark.parametrize("operator", ["expected", "modes", "stackelberg"])
def test_learnt_tables_reach_the_operators_fixed_point(operator, sees):
    """Transitions of the toy game are deterministic, so that the batch's fixed point is the game's."""
    game = toy_markov_game(follower_sees_leader_action=sees, discount_leader=0.8, temperature=2.0)
    theta = toy_game_theta(0.3)
    follower = solve_follower(game, theta)
    context = Context(problem=game, theta=theta, follower=follower)
    batch = sample_trajectories(game, theta, follower, streams=4, steps=60, rng=np.random.default_rng(0))
    seen = np.zeros(game.reward_leader.shape, dtype=bool)
    seen[batch.state_t, batch.leader_action_t, batch.action_t] = True
    assert seen.all()
    learnt = learn_game_critic(batch, context, operator=operator, step_size=1.0, passes=40)
    exact = GameCritic.solve(game, theta, follower, operator=operator)
    np.testing.assert_allclose(learnt.action_values, exact.action_values, atol=1e-9)
    less = learn_game_critic(batch, context, operator=operator, step_size=0.1)
    assert np.abs(less.action_values - exact.action_values).max() > 0.1
    carried = learn_game_critic(batch, context, operator=operator, initial=exact.action_values[0])
    np.testing.assert_allclose(carried.action_values, exact.action_values, atol=1e-9)


def test_sarsa_reads_the_actions_that_were_taken():
    game, theta, context = going_on(True)
    batch = sample_trajectories(game, theta, context.follower, streams=1, steps=3, rng=np.random.default_rng(3))
    assert batch.valid.all()
    learnt = learn_game_critic(batch, context, operator="sampled", step_size=1.0)
    table = np.zeros(game.reward_leader.shape)
    path = list(zip(batch.state_t[0], batch.leader_action_t[0], batch.action_t[0], strict=True))
    for t in range(2):
        table[path[t]] = batch.reward_leader_t[0, t] + game.discount_leader * table[path[t + 1]]
    np.testing.assert_array_equal(learnt.action_values[0], table)


@SEES
def test_samples_have_the_law_that_enumeration_lists(sees):
    game, theta, context = going_on(sees)
    batch = sample_trajectories(game, theta, context.follower, streams=40_000, steps=4, rng=named_stream(2, int(sees)))
    for estimator in (BCHG(), NaivePGD(baseline="none"), BiAC()):
        moments = enumerate_moments(estimator, game, theta, horizon=4)
        found = estimator.estimate(batch, context)
        # Two parameters, each beyond five standard errors with probability below 1e-6.
        assert (np.abs(found.mean - moments.mean) <= 5 * moments.standard_deviation / np.sqrt(40_000)).all()
        np.testing.assert_allclose(found.mean, estimator(batch, context).mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.mean, total(found.parts), atol=1e-14)
    f, g = game.policy_at(theta), context.follower.policy
    chosen = g[batch.state_t[:, 0], batch.leader_action_t[:, 0], batch.action_t[:, 0]]
    np.testing.assert_array_equal(batch.behaviour_log_prob[:, 0], np.log(chosen))
    for s in range(2):
        share = (batch.leader_action_t[:, 0][batch.state_t[:, 0] == s] == 1).mean()
        assert abs(share - f[s, 1]) < 5 * 0.5 / np.sqrt(10_000)


@SEES
def test_the_total_derivative_is_bc_hg_where_weights_do_not_vary(sees):
    """The empirical Fisher matrix meets its own inverse; with other discounts and repeated visits it does not."""

    def both(game, theta):
        context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
        batch = sample_trajectories(game, theta, context.follower, streams=30, steps=5, rng=np.random.default_rng(0))
        return (method.estimate(batch, context).mean for method in (TotalDerivative(), BCHG()))

    ended, theta, _ = layered(sees)
    going, at, _ = going_on(sees)
    equal = dataclasses.replace(going, discount_leader=0.8, discount_follower=0.8)
    unequal = dataclasses.replace(going, discount_leader=0.5, discount_follower=0.95)
    for game, point in ((ended, theta), (equal, at)):
        ours, bc_hg = both(game, point)
        np.testing.assert_allclose(ours, bc_hg, rtol=1e-10, atol=1e-12)
    ours, bc_hg = both(unequal, at)
    assert np.abs(ours - bc_hg).max() > 1e-3


@SEES
def test_the_total_derivative_is_consistent(sees):
    """On a game that visits its states again and again, so that it is no BC-HG; 12 steps leave 0.2 % of a suffix."""
    game, theta, context = going_on(sees, discount_leader=0.4, discount_follower=0.6)
    truth = hypergradient(game, theta)
    estimator = TotalDerivative()
    repeats = np.stack(
        [
            estimator.estimate(
                sample_trajectories(
                    game, theta, context.follower, streams=4000, steps=12, rng=named_stream(3, "total", int(sees), i)
                ),
                context,
            ).parts["response"]
            for i in range(16)
        ]
    )
    spread = repeats.std(axis=0, ddof=1) / 4
    error = np.abs(repeats.mean(axis=0) - truth.parts["response"])
    # Bias is of the order 1/streams, far below the spread of a mean of 16 batches.
    assert (error <= 6 * spread + 1e-12).all()
    assert (np.abs(truth.parts["response"]) > 6 * spread).any()
    assert estimator.claim is Claim.MEASURED
    damped = TotalDerivative(damping=10.0)
    batch = sample_trajectories(game, theta, context.follower, streams=500, steps=3, rng=np.random.default_rng(0))
    ratio = np.linalg.norm(damped.estimate(batch, context).parts["response"])
    assert ratio < 0.5 * np.linalg.norm(estimator.estimate(batch, context).parts["response"])


@SEES
def test_off_policy_samples_are_not_reweighted_and_what_that_costs_is_known(sees):
    game, theta, context = layered(sees)
    behaviour = theta - 1.5
    truth = hypergradient(game, theta)
    for make in (NaivePGD, BiAC, BCHG):
        estimator = make(behaviour_theta=behaviour)
        assert estimator.claim is Claim.DECLARED
        moments = enumerate_moments(
            lambda trajectories, told, estimator=estimator: estimator(
                trajectories, dataclasses.replace(told, theta=theta)
            ),
            game,
            behaviour,
            horizon=3,
            follower=context.follower,
        )
        expected = total(estimator.expectation(context, horizon=3))
        assert np.abs(moments.mean - expected).max() <= 1e-13
        assert np.abs(expected - truth.value).max() > 1e-3
        same = total(make(behaviour_theta=theta).expectation(context, horizon=3))
        np.testing.assert_array_equal(same, total(make().expectation(context, horizon=3)))
    batch = estimator.sample(
        game, theta, context.follower, streams=20_000, steps=3, rng=named_stream(4, "off-policy", int(sees))
    )
    first = batch.leader_action_t[:, 0][batch.state_t[:, 0] == 0]
    share = game.policy_at(behaviour)[0, 1]
    assert abs((first == 1).mean() - share) < 5 * 0.5 / np.sqrt(first.size)
    assert abs(share - game.policy_at(theta)[0, 1]) > 10 * 0.5 / np.sqrt(first.size)  # the check could have failed


def test_two_leader_actions_off_policy_by_hand():
    """One decision: (Q_1 - Q_0) (f_old(1) (1-p)² + f_old(0) p²) in place of (Q_1 - Q_0) p (1-p)."""
    game = random_markov_game(states=1, actions=1, discount_leader=0.0, discount_follower=0.0)
    theta, old = np.array([0.6]), np.array([-1.1])
    context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    gap = game.reward_leader[0, 1, 0] - game.reward_leader[0, 0, 0]
    (p, f) = (game.policy_at(point)[0, 1] for point in (theta, old))
    found = NaivePGD(behaviour_theta=old).expectation(context, horizon=1)["policy"][0]
    assert found == pytest.approx(gap * (f * (1 - p) ** 2 + (1 - f) * p**2), rel=1e-12)
    assert NaivePGD().expectation(context, horizon=1)["policy"][0] == pytest.approx(gap * p * (1 - p), rel=1e-12)


# ---------------------------------------------------------------- refusals


def test_misuse_is_refused_by_name():
    game, theta, context = going_on(True)
    batch = sample_trajectories(game, theta, context.follower, streams=2, steps=3, rng=np.random.default_rng(0))
    mdp = random_mdp(states=2, actions=2, parameters=2)
    other = Context(problem=mdp, theta=np.zeros(2), follower=solve_follower(mdp, np.zeros(2)))
    plain = sample_trajectories(mdp, np.zeros(2), other.follower, streams=2, steps=3, rng=np.random.default_rng(0))
    with pytest.raises(UnsupportedError, match="expected a MarkovGame"):
        BiAC().estimate(plain, other)
    with pytest.raises(UnsupportedError, match="expected a ConfigurableMDP"):
        SoBiRL().estimate(batch, context)
    for option in ({"critic": "monte_carlo"}, {"normalisation": "episodes"}, {"scores": "td_error"}):
        with pytest.raises(UnsupportedError, match=next(iter(option))):
            BCHG(**option).estimate(batch, context)
    for option in ({"baseline": "none"}, {"same_step": True}, {"behaviour_theta": np.zeros(2)}):
        with pytest.raises(UnsupportedError, match=next(iter(option))):
            BCHG(**option).estimate(plain, other)
    with pytest.raises(EstimatorError, match="leader_action_t"):
        BCHG().estimate(dataclasses.replace(batch, leader_action_t=None), context)
    wrong = batch.leader_action_t.copy()
    wrong[0, 0] = 2
    with pytest.raises(InvalidInputError, match="leader_action_t"):
        BCHG().estimate(dataclasses.replace(batch, leader_action_t=wrong), context)
    with pytest.raises(EstimatorError, match="critic"):
        BCHG(critic="context").estimate(batch, context)
    tables = TableCritic(action_values=np.zeros((2, 2)), policy=np.full((2, 2), 0.5))
    with pytest.raises(EstimatorError, match="GameCritic"):
        BCHG(critic="context").estimate(batch, dataclasses.replace(context, critic=tables))
    with pytest.raises(UnknownNameError, match="baseline"):
        BCHG(baseline="other")
    with pytest.raises(InvalidInputError, match="stopping"):
        BCHG(stopping="sum", target=Objective(horizon=3))
    with pytest.raises(InvalidInputError, match="exact_truncated"):
        BiAC(target=Objective(horizon=3)).estimate(batch, context)
    with pytest.raises(InvalidInputError, match="damping"):
        TotalDerivative(damping=-1.0)
    with pytest.raises(ShapeError, match=r"follower\.shape=\(2, 2\)"):
        sample_trajectories(game, theta, np.ones((2, 2)), streams=1, steps=1, rng=np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match="operator"):
        GameCritic.solve(game, theta, context.follower, operator="best")
    with pytest.raises(ShapeError, match="action_values"):
        dataclasses.replace(GameCritic.solve(game, theta, context.follower), action_values=np.zeros((2, 2)))


def test_registered_configurations_hold_their_claims():
    for sees in (True, False):
        game, theta, context = layered(sees)
        truth = hypergradient(game, theta).value
        for entry in estimators_for(MarkovGame).values():
            estimator = entry.make(Objective())
            if estimator.claim is Claim.MEASURED:
                continue
            expected = total(estimator.expectation(context, horizon=3))
            assert (np.abs(expected - truth).max() <= 1e-13) == (
                estimator.claim is Claim.UNBIASED or (entry.name == "bc_hg_game_published" and not sees)
            ), entry.name
