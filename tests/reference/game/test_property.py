"""Markov games that hypothesis draws: routes agree, reductions agree, expectations hold, invariances are kept."""

import dataclasses

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevelrl.estimators import BCHG, Context, NaivePGD, Objective
from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.game import reduce_game
from bilevelrl.verification.testing.strategies import markov_games

pytestmark = pytest.mark.property

# Rewards of order one, temperatures and horizons at which rounding cannot reach 1e-10: at β = 0.05 and γ = 0.9 it is
# multiplied by about (1/β) (1/(1-γ))³ = 2e4, which leaves 1e-11.
GENTLE = {
    "temperatures": (0.05, 1e2),
    "discounts": (0.0, 0.5, 0.9),
    "reward_scales": (1.0,),
    "reward_shifts": (0.0,),
}
HORIZONS = st.sampled_from([(None, True), (1, True), (5, True), (5, False)])


def size_of(truth):
    return max(1.0, *(float(np.abs(part).max()) for part in truth.parts.values()))


@given(markov_games(**GENTLE), HORIZONS)
@settings(max_examples=60)
def test_theorem_2_is_the_derivative_of_the_unrolled_solver(drawn, objective):
    options = dict(zip(("horizon", "discounted"), objective, strict=True))
    truth = hypergradient(drawn.problem, drawn.theta, route="unrolled", **options)
    for route in ("theorem2", "implicit", "reduction", "total_derivative", "mixed_derivative", "complex_step"):
        found = hypergradient(drawn.problem, drawn.theta, route=route, **options)
        for part, value in truth.parts.items():
            assert np.abs(found.parts[part] - value).max() <= 1e-10 * size_of(truth), (route, part)


def with_slopes_as_they_are(game, theta):
    """The game whose policy is a straight line through f and ∇f at θ: no route rounds a derivative of it.

    Slopes on a grid of 2^-40 sum exactly, and so the line keeps the sum of the probabilities.
    """
    policy = game.policy_at(theta)
    slopes = np.round(game.policy_jacobian(theta) * 2.0**40) / 2.0**40
    slopes[:, -1] = -slopes[:, :-1].sum(axis=1)
    at = theta.ravel()
    return dataclasses.replace(game, policy=lambda x: policy + anp.dot(slopes, anp.ravel(x) - at))


@given(markov_games(**GENTLE), HORIZONS)
@settings(max_examples=60)
def test_routes_agree_within_their_bounds_where_the_table_of_slopes_is_given(drawn, objective):
    options = dict(zip(("horizon", "discounted"), objective, strict=True))
    game = with_slopes_as_they_are(drawn.problem, drawn.theta)
    truth = hypergradient(game, drawn.theta, route="unrolled", **options)
    for route in ("theorem2", "implicit", "reduction", "total_derivative", "mixed_derivative", "complex_step"):
        found = hypergradient(game, drawn.theta, route=route, **options)
        for part, value in truth.parts.items():
            assert np.abs(found.parts[part] - value).max() <= found.error_bound + truth.error_bound, (route, part)


@given(markov_games(), HORIZONS)
@settings(max_examples=150)
def test_routes_agree_within_their_bounds_whatever_is_drawn(drawn, objective):
    options = dict(zip(("horizon", "discounted"), objective, strict=True))
    truth = hypergradient(drawn.problem, drawn.theta, route="theorem2", **options)
    assert np.isfinite(truth.value).all()
    for route in ("implicit", "reduction", "total_derivative", "mixed_derivative"):
        found = hypergradient(drawn.problem, drawn.theta, route=route, **options)
        assert np.isfinite(found.value).all()
        for part, value in truth.parts.items():
            assert np.abs(found.parts[part] - value).max() <= found.error_bound + truth.error_bound, (route, part)


@given(markov_games(reward_shifts=(0.0,)))
@settings(max_examples=60)
def test_followers_and_their_reductions_agree(drawn):
    ours, theirs = (solve_follower(game, drawn.theta) for game in (drawn.problem, reduce_game(drawn.problem)))
    assert ours.status.succeeded
    difference = np.abs(ours.value.ravel() - theirs.value).max()
    # The reduction's tables are products and averages, rounded once more.
    rounding = 16 * np.finfo(float).eps * np.abs(ours.action_value).max() / (1 - drawn.problem.discount_follower)
    assert difference <= ours.error_bound + theirs.error_bound + rounding
    assert np.isfinite(ours.policy).all()
    np.testing.assert_allclose(ours.policy.sum(axis=2), 1.0, rtol=1e-13)


@given(markov_games(**GENTLE), st.integers(1, 4), st.booleans())
@settings(max_examples=60)
def test_expectations_over_streams_that_see_all_are_the_truth(drawn, horizon, same_step):
    game, theta = drawn.problem, drawn.theta
    context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    truth = hypergradient(game, theta)
    found = BCHG(stopping="sum", same_step=same_step).expectation(context, horizon=horizon)
    for part in ("policy", "response"):
        assert np.abs(found[part] - truth.parts[part]).max() <= 1e-10 * size_of(truth)
    cut = hypergradient(game, theta, horizon=horizon)
    naive = NaivePGD(target=Objective(horizon=horizon), critic="exact_truncated").expectation(context, horizon=horizon)
    assert np.abs(naive["policy"] - cut.parts["policy"]).max() <= 1e-10 * size_of(cut)


@given(markov_games(**GENTLE), st.integers(0, 2**16))
@settings(max_examples=40)
def test_renaming_states_and_actions_changes_nothing(drawn, seed):
    game, theta = drawn.problem, drawn.theta
    rng = np.random.default_rng(seed)
    states, moves, actions = (rng.permutation(size) for size in game.reward_leader.shape)
    renamed = dataclasses.replace(
        game,
        transition=game.transition[np.ix_(states, moves, actions, states)],
        reward_follower=game.reward_follower[np.ix_(states, moves, actions)],
        reward_leader=game.reward_leader[np.ix_(states, moves, actions)],
        initial=game.initial[states],
        policy=lambda x: game.policy(x)[states][:, moves],
    )
    truth, found = hypergradient(game, theta), hypergradient(renamed, theta)
    assert np.abs(truth.value - found.value).max() <= truth.error_bound + found.error_bound
    np.testing.assert_allclose(found.objective, truth.objective, rtol=1e-11, atol=1e-11)


@given(markov_games(**GENTLE, sees_leader_action=(True,)))
@settings(max_examples=40)
def test_information_is_worth_something_to_the_follower(drawn):
    """Seeing the leader's action first, the follower's soft value can only be larger (Jensen)."""
    seeing = solve_follower(drawn.problem, drawn.theta)
    blind = solve_follower(dataclasses.replace(drawn.problem, follower_sees_leader_action=False), drawn.theta)
    assert (seeing.state_value >= blind.state_value - seeing.error_bound - blind.error_bound).all()


@given(markov_games(**GENTLE, max_leader_actions=1))
@settings(max_examples=30)
def test_with_one_leader_action_the_structures_agree_and_only_the_regulariser_moves(drawn):
    blind = dataclasses.replace(drawn.problem, follower_sees_leader_action=False)
    np.testing.assert_allclose(
        leader_objective(drawn.problem, drawn.theta), leader_objective(blind, drawn.theta), rtol=1e-12, atol=1e-12
    )
    found = hypergradient(drawn.problem, drawn.theta)
    for part in ("policy", "response"):
        assert np.abs(found.parts[part]).max() <= found.error_bound + 1e-15
