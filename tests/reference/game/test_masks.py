"""Actions of games that cannot be taken."""

import dataclasses

import numpy as np
import pytest
from high_precision import HighPrecisionGame

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    MarkovGame,
    TabularSoftmaxPolicy,
    hypergradient,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError
from bilevelrl.tasks import random_markov_game


def game_of(*, mask=None, removed=False, sees=True):
    """Two states, two leader's and three follower's actions, of which the follower would want the last."""
    rng = np.random.default_rng(3)
    kernel, follower, leader = (
        rng.dirichlet(np.ones(2), (2, 2, 3)),
        rng.normal(size=(2, 2, 3)),
        rng.normal(size=(2, 2, 3)),
    )
    follower[:, :, 2] += 3.0
    actions = 2 if removed else 3
    return MarkovGame(
        transition=kernel[:, :, :actions], reward_follower=follower[:, :, :actions],
        reward_leader=leader[:, :, :actions], initial=np.array([0.4, 0.6]),
        policy=TabularSoftmaxPolicy(states=2, leader_actions=2), follower_sees_leader_action=sees, action_mask=mask,
        discount_leader=0.8, discount_follower=0.7, temperature=0.3,
    )  # fmt: skip


WITHOUT_LAST = np.tile([True, True, False], (2, 1))

GAME_THETA = np.array([0.3, -0.5])


@pytest.mark.exact
@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("route", [name for name, route in HYPERGRADIENT_ROUTES.items() if MarkovGame in route.kinds])
def test_masked_everywhere_is_not_there_in_games(route, sees):
    absent = hypergradient(game_of(removed=True, sees=sees), GAME_THETA, route=route)
    masked = hypergradient(game_of(mask=WITHOUT_LAST, sees=sees), GAME_THETA, route=route)
    for name, part in absent.parts.items():
        assert np.abs(masked.parts[name] - part).max() <= absent.error_bound + masked.error_bound
    assert masked.error_bound <= max(3.0 * absent.error_bound, 1e-15)
    free = hypergradient(game_of(sees=sees), GAME_THETA)
    assert np.abs(free.value - absent.value).max() > 1e-3


@pytest.mark.exact
@pytest.mark.parametrize("sees", [True, False])
def test_a_mask_of_a_game_may_depend_on_what_is_seen(sees):
    """Against the truth in many digits; in one state, or after one of the leader's actions, one action is left."""
    mask = np.array([[[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [1, 1, 1]]], dtype=bool) if sees else WITHOUT_LAST.copy()
    if not sees:
        mask[1] = [False, False, True]
    game = game_of(mask=mask, sees=sees)
    follower = solve_follower(game, GAME_THETA)
    shown = mask if sees else mask[:, None]
    assert (follower.policy[~np.broadcast_to(shown, follower.policy.shape)] == 0.0).all()
    truth = HighPrecisionGame(game, GAME_THETA).parts()
    for route in (
        "implicit",
        "theorem2",
        "mixed_derivative",
        "reduction",
        "total_derivative",
        "unrolled",
        "finite_difference",
        "certified",
    ):
        found = hypergradient(game, GAME_THETA, route=route)
        for name, part in truth.items():
            assert np.abs(found.parts[name] - part).max() <= found.error_bound + 2e-16, route


@pytest.mark.exact
def test_a_follower_that_sees_nothing_has_one_mask_for_all_of_the_leader_s_actions():
    with pytest.raises(ShapeError, match=r"action_mask.shape.*\(2, 3\)"):
        game_of(mask=np.ones((2, 2, 3), dtype=bool), sees=False)
    with pytest.raises(InvalidInputError, match=r"action_mask\[1, 0\].*at least one"):
        game_of(mask=np.array([[[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]]], dtype=bool))


@pytest.mark.exact
@pytest.mark.parametrize("route", [name for name, route in HYPERGRADIENT_ROUTES.items() if MarkovGame in route.kinds])
@pytest.mark.parametrize(
    ("theta", "truth"),
    # Central differences of J in plain NumPy.
    [((-0.4, 2.6), (-0.18069355, -0.16697530)), ((0.3, -0.7), (-0.45390932, -0.24885781))],
)
def test_a_mask_in_one_state_of_a_game_whose_follower_sees_nothing(route, theta, truth):
    """∇f does not sum to zero exactly, so the rounding of Σ_l ∇f Q_F must not meet what a masked action is worth."""
    transition = np.zeros((2, 2, 2, 2))
    transition[0, :, 0], transition[0, :, 1] = (0.5, 0.5), (0.2, 0.8)
    transition[1, 0], transition[1, 1] = (0.9, 0.1), (0.3, 0.7)
    reward_follower, reward_leader = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    reward_follower[1, 1, :], reward_follower[0, 0, 1], reward_leader[0, :, 1] = 1.0, 1.0, 1.0
    game = MarkovGame(
        transition=transition,
        reward_follower=reward_follower,
        reward_leader=reward_leader,
        initial=np.array([0.5, 0.5]),
        policy=TabularSoftmaxPolicy(states=2, leader_actions=2),
        follower_sees_leader_action=False,
        discount_leader=0.9,
        discount_follower=0.7,
        temperature=0.4,
        action_mask=np.array([[True, True], [True, False]]),
    )
    try:
        found = hypergradient(game, np.array(theta), route=route)
    except UnsupportedError:
        return
    assert found.value == pytest.approx(truth, abs=1e-8 + min(found.error_bound, 1e-6))


@pytest.mark.exact
@pytest.mark.parametrize("route", ["unrolled", "complex_step"])
@pytest.mark.parametrize(("seed", "leader_actions", "size"), [(0, 3, 1.0), (1, 2, 5.0)])
def test_what_cannot_be_played_leaves_no_tail_in_the_bounds_of_sweeping_routes(route, seed, leader_actions, size):
    game = random_markov_game(
        seed=seed, states=2, leader_actions=leader_actions, actions=3, follower_sees_leader_action=False,
        temperature=0.5, discount_leader=0.5, discount_follower=0.5,
    )  # fmt: skip
    game = dataclasses.replace(game, action_mask=np.array([[True, False, True], [True, True, False]]))
    theta = size * np.random.default_rng(seed).standard_normal(game.theta_shape)
    found, other = (hypergradient(game, theta, route=name) for name in (route, "implicit"))
    assert np.abs(found.value - other.value).max() <= found.error_bound + other.error_bound
    # With one rounding of Q = -1e100 in it, it would be 1e56.
    assert found.error_bound < 1e-11
