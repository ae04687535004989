"""Pathwise and score-function hypergradients of linear-quadratic games, many runs at once."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import Context
from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic
from bilevelrl.estimators.critics.gaussian_networks import ExactGameCritics
from bilevelrl.estimators.methods import score_game as scores_module
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.pathwise_game import PathwiseGame, fit_cost_gradient
from bilevelrl.estimators.methods.score_game import ScoreForm, score_directions
from bilevelrl.estimators.sampling.gaussian_game import LQRGameBatch, StackedFollowers, sample_games
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.replay_memory import Draws, truncated_discount
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, UnsupportedError
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import lqr_game, random_lqr_game

SEEDS = (0, 1, 2)
pytestmark = pytest.mark.statistical


def streams_of(name, runs):
    return [named_stream(0, "test pathwise", name, run) for run in range(runs)]


def cost_gradient(game, theta, step=1e-5):
    """∇P by central differences, (N, n, n)."""
    moved = step * np.eye(theta.size)
    ahead, behind = (np.array([solve_follower(game, at).cost_to_go for at in theta + h]) for h in (moved, -moved))
    return (ahead - behind) / (2.0 * step)


def drawn_game(seed, **changes):
    """A game of two states, two follower's actions and two leader's ones, whose θ is the gain."""
    game = random_lqr_game(states=2, actions=2, leader_actions=2, seed=seed, **changes)
    return replace(game, leader_policy=None, leader_covariance=np.diag([0.1, 0.2]), theta_shape=None)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_noise_the_fit_is_the_derivative_of_the_cost(seed):
    # Quadratic features contain the truth, so only the noise of the next state moves the fit; temperatures make it.
    errors = []
    for temperature in (1e-4, 1e-8):
        game = lqr_game(temperature=temperature, policy_deviation=np.sqrt(temperature))
        game = replace(game, initial_covariance=np.eye(2))
        theta = np.array([-6.0, -3.0]) + named_stream(0, "theta", seed).standard_normal(2)
        followers = StackedFollowers.solve(game, theta[None])
        batch = sample_games(game, followers, streams=8, steps=30, rng=streams_of(seed, 1))
        exact = cost_gradient(game, theta)
        errors.append(np.abs(fit_cost_gradient(game, followers, batch)[0] - exact).max() / np.abs(exact).max())
    assert errors[1] < 1e-3
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("average", [True, False])
def test_noiseless_paths_have_the_exact_hypergradient(average):
    # With noise of 1e-7 the reward along a path is the expected one to second order, and so is its derivative. Starts
    # in several directions, because one noiseless path does not tell all entries of ∇P apart.
    game = lqr_game(temperature=1e-13, policy_deviation=1e-7, reward_width=(0.3, 0.2))
    scattered = replace(game, initial_covariance=np.eye(2))
    theta = np.array([-7.0, -2.0])
    followers = StackedFollowers.solve(game, theta[None])
    batch = sample_games(scattered, followers, streams=6, steps=50, rng=streams_of("path", 1))
    found = PathwiseGame(average_reward=average).parts(scattered, followers, batch)
    starts = [replace(game, initial_mean=start) for start in batch.state_t[0, :, 0]]
    exact = [hypergradient(start, theta, horizon=50).parts for start in starts]
    for part in ("policy", "response"):
        wanted = np.mean([parts[part] for parts in exact], axis=0)
        np.testing.assert_allclose(found[part][0], wanted, rtol=1e-4)
        assert np.linalg.norm(wanted) > 1e-3


@pytest.mark.parametrize(("game", "theta"), [(lqr_game(), (-7.0, 0.0)), (lqr_game(), (-9.9, -9.5))])
@pytest.mark.parametrize("average", [True, False])
def test_expectations_are_the_exact_parts(game, theta, average):
    runs = 250
    theta = np.asarray(theta)
    followers = StackedFollowers.solve(game, np.tile(theta, (runs, 1)))
    batch = sample_games(game, followers, streams=16, steps=100, rng=streams_of("means", runs))
    found = PathwiseGame(average_reward=average).parts(game, followers, batch)
    exact = hypergradient(game, theta, horizon=100)
    for part in ("policy", "response"):
        off = found[part].mean(axis=0) - exact.parts[part]
        error = found[part].std(axis=0, ddof=1) / np.sqrt(runs)
        assert (np.abs(off) < 5.0 * error).all(), part
        if average:  # the check has power: 5 standard errors are at most a tenth of the part, or of the whole
            assert (5.0 * error < 0.1 * np.linalg.norm(exact.parts[part])).all(), part


@pytest.mark.parametrize("seed", SEEDS)
def test_games_of_several_dimensions(seed):
    game = drawn_game(seed)
    runs, theta = 200, 0.3 * named_stream(1, "theta", seed).standard_normal(game.theta_shape[0])
    theta_rows = np.tile(theta, (runs, 1))
    followers = StackedFollowers.solve(game, theta_rows)
    batch = sample_games(game, followers, streams=60, steps=30, rng=streams_of(seed, runs))
    exact = hypergradient(game, theta, horizon=30)
    for average in (True, False):
        found = PathwiseGame(average_reward=average).parts(game, followers, batch)
        for part in ("policy", "response"):
            error = found[part].std(axis=0, ddof=1) / np.sqrt(runs)
            assert (np.abs(found[part].mean(axis=0) - exact.parts[part]) < 5.0 * error).all(), (part, average)
            assert np.linalg.norm(error) < 0.1 * np.linalg.norm(exact.parts[part]), (part, average)


def test_averaging_rewards_takes_most_of_the_noise_away():
    game, runs = lqr_game(), 100
    followers = StackedFollowers.solve(game, np.tile([-9.0, -9.0], (runs, 1)))
    batch = sample_games(game, followers, streams=4, steps=100, rng=streams_of("spread", runs))
    smooth, raw = (PathwiseGame(average_reward=each).parts(game, followers, batch) for each in (True, False))
    assert smooth["policy"].std(axis=0)[0] < 0.1 * raw["policy"].std(axis=0)[0]


def one_by_one(game, theta, batch):
    """The trajectories of a single run, as other estimators read them."""
    plain = LQRSimulator().sample(
        game, theta, solve_follower(game, theta), streams=4, steps=20, rng=np.random.default_rng(0)
    )
    return replace(
        plain,
        state_t=batch.state_t[0, :, :-1],
        state_tp1=batch.state_t[0, :, 1:],
        action_t=batch.action_t[0],
        leader_action_t=batch.leader_action_t[0],
        reward_leader_t=game.reward_leader(batch.state_t[0, :, :-1]),
    )


class _ExactByHorizon:
    """The exact critic of an infinite horizon."""

    def __init__(self, critic):
        self.critic = critic

    def action_value(self, state, leader_action, action):
        game = self.critic.game
        ahead = state @ game.dynamics_state.T + action @ game.dynamics_action.T
        ahead = ahead + leader_action @ game.dynamics_leader.T
        return game.reward_leader(state) + self.critic.discount * self.critic.value(ahead)


def test_scores_agree_with_the_estimator_of_one_run():
    # Same sampled states, other code: the benefit by quadrature against closed forms, drawn weights against sums.
    game, theta = lqr_game(discount_leader=0.9, reward_width=(0.3, 0.1)), np.array([-5.0, -2.0])
    followers = StackedFollowers.solve(game, theta[None])
    batch = sample_games(game, followers, streams=4, steps=20, rng=streams_of("scores", 1))
    context = Context(problem=game, theta=theta, follower=followers.solutions[0])
    critic = LQRGameCritic.solve(context, Objective())
    trajectories = one_by_one(game, theta, batch)
    draws = Draws.every(0.9, 1, 4, 20)
    for same_step, centred in ((True, True), (False, True), (False, False)):
        plain = BCHG(baseline="state_value", same_step=same_step, influence_baseline=centred)
        expected = plain(trajectories, context).mean(axis=0)
        form = ScoreForm(baseline="state_value", same_step=same_step, influence_baseline=centred)
        found = truncated_discount(0.9, 20) * score_directions(
            game,
            theta.reshape(1, 1, 2),
            followers,
            batch,
            draws,
            _ExactByHorizon(critic),
            form=form,
            guiding=True,
            rng=streams_of("none", 1),
        )
        np.testing.assert_allclose(found[0], expected, rtol=1e-9)


class _Bare:
    """Action values without a closed mean over the follower's action."""

    def __init__(self, critics):
        self.critics = critics

    def action_value(self, state, leader_action, action):
        return self.critics.action_value(state, leader_action, action)


@pytest.mark.exact
@pytest.mark.parametrize("gain", [(-9.9, -9.5), (-9.96, -10.0), (-7.0, -2.0)])
def test_quadrature_resolves_the_published_reward(gain):
    # The leader's reward has a width of .01 where the follower's noise has one of .022.
    game, theta = lqr_game(), np.array([gain])
    followers = StackedFollowers.solve(game, theta)
    batch = sample_games(game, followers, streams=4, steps=100, rng=streams_of("bump", 1))
    draws = Draws.every(game.discount_leader, 1, 4, 100)
    critics = ExactGameCritics.solve(game, theta, followers, steps=100)
    closed, summed = (
        score_directions(
            game,
            theta[:, None],
            followers,
            batch,
            draws,
            critic,
            form=ScoreForm(),
            guiding=True,
            rng=streams_of("no", 1),
        )
        for critic in (critics, _Bare(critics))
    )
    # 32 nodes leave a relative error below 1e-5 of E_a Q_L; the guiding term multiplies it by 1/β and by its suffix.
    np.testing.assert_allclose(summed, closed, rtol=5e-3, atol=1e-3 * np.abs(closed).max())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores_module, "_FOLLOWER_NODES", 8)
        coarse = score_directions(
            game,
            theta[:, None],
            followers,
            batch,
            draws,
            _Bare(critics),
            form=ScoreForm(),
            guiding=True,
            rng=streams_of("no", 1),
        )
    assert np.abs(coarse - closed).max() > 0.02 * np.abs(closed).max()


class _FollowerAction:
    """Q_L = a."""

    def action_value(self, state, leader_action, action):
        return action[..., 0]


def test_baselines_that_are_valid_and_the_one_that_is_not():
    # Of E[a] the derivative in K is -G C x: all of it goes through the follower's answer to the leader's action.
    game, theta = lqr_game(), np.array([[-3.0, 0.0]])
    followers = StackedFollowers.solve(game, theta)
    batch = sample_games(game, followers, streams=4, steps=10, rng=streams_of("baselines", 1))
    deviation = (batch.leader_action_t - batch.state_t[:, :, :-1] @ theta[0][:, None])[0, ..., 0]
    reply = -(followers.reaction[0] @ game.dynamics_leader).item()
    weight = 0.99 ** np.arange(10) / (4 * truncated_discount(0.99, 10))
    squares = (deviation / 1e-3) ** 2 * weight
    expected = reply * np.einsum("et,etn->n", squares, batch.state_t[0, :, :-1])

    def found(baseline):
        return score_directions(
            game,
            theta.reshape(1, 1, 2),
            followers,
            batch,
            Draws.every(0.99, 1, 4, 10),
            _FollowerAction(),
            form=ScoreForm(baseline=baseline),
            guiding=False,
            rng=streams_of("none", 1),
        )[0]

    np.testing.assert_allclose(found("coupled"), expected, rtol=1e-8)
    np.testing.assert_allclose(found("action_dependent"), 0.0, atol=1e-13)  # 1e-9 of the truth
    noise = (
        batch.action_t[0, ..., 0]
        - followers.solutions[0].mean(batch.state_t[0, :, :-1], batch.leader_action_t[0])[..., 0]
    )
    extra = np.einsum("et,etn->n", weight * noise * deviation / 1e-6, batch.state_t[0, :, :-1])
    np.testing.assert_allclose(found("state_value"), expected + extra, rtol=1e-8)


def test_fitted_suffixes_have_the_response_in_expectation_with_less_noise():
    game, theta, runs = lqr_game(discount_leader=0.8), np.array([-7.0, 0.0]), 40
    followers = StackedFollowers.solve(game, np.tile(theta, (runs, 1)))
    batch = sample_games(game, followers, streams=40, steps=30, rng=streams_of("fitted", runs))
    critic = _ExactByHorizon(
        LQRGameCritic.solve(Context(problem=game, theta=theta, follower=followers.solutions[0]), Objective(horizon=40))
    )
    truth = hypergradient(game, theta).parts["response"]
    spread = {}
    for suffix in ("fitted", "sampled"):
        form = ScoreForm(suffix=suffix)
        both, own = (
            score_directions(
                game,
                np.tile(theta, (runs, 1)).reshape(runs, 1, 2),
                followers,
                batch,
                Draws.every(0.8, runs, 40, 30),
                critic,
                form=form,
                guiding=guiding,
                rng=streams_of("none", runs),
            )
            for guiding in (True, False)
        )
        found = truncated_discount(0.8, 30) * (both - own)
        spread[suffix] = found.std(axis=0)
        if suffix == "fitted":  # of visits up to 30 steps, with all that follows them
            late = 0.8**30 * np.linalg.norm(truth)
            off = np.abs(found.mean(axis=0) - truth)
            assert (off < 5.0 * spread[suffix] / np.sqrt(runs) + late).all()
            assert (5.0 * spread[suffix] / np.sqrt(runs) < 0.5 * np.linalg.norm(truth)).all()
    assert (spread["fitted"] < 0.5 * spread["sampled"]).all()


def test_sampled_averages_converge_to_quadrature():
    game, runs = lqr_game(), 40
    theta = np.tile([-7.0, -2.0], (runs, 1))
    followers = StackedFollowers.solve(game, theta)
    batch = sample_games(game, followers, streams=2, steps=20, rng=streams_of("averages", 1) * runs)
    same = LQRGameBatch(
        state_t=np.broadcast_to(batch.state_t[:1], batch.state_t.shape),
        leader_action_t=np.broadcast_to(batch.leader_action_t[:1], batch.leader_action_t.shape),
        action_t=np.broadcast_to(batch.action_t[:1], batch.action_t.shape),
    )
    critic = _ExactByHorizon(
        LQRGameCritic.solve(
            Context(problem=game, theta=theta[0], follower=followers.solutions[0]), Objective(horizon=5)
        )
    )
    draws = Draws.every(0.99, runs, 2, 20)
    found = {}
    for averages in ("sampled", "quadrature"):
        found[averages] = score_directions(
            game,
            theta.reshape(runs, 1, 2),
            followers,
            same,
            draws,
            critic,
            form=ScoreForm(averages=averages),
            guiding=True,
            rng=streams_of("draws", runs),
        )
    error = found["sampled"].std(axis=0) / np.sqrt(runs)
    assert (np.abs(found["sampled"].mean(axis=0) - found["quadrature"][0]) < 5.0 * error).all()


def test_runs_do_not_mix():
    game = lqr_game()
    thetas = np.array([[-9.0, -9.0], [0.5, 0.1], [-3.0, 2.0]])
    for rows in ([0, 1, 2], [2, 0], [1]):
        followers = StackedFollowers.solve(game, thetas[rows])
        rng = [named_stream(0, "mix", row) for row in rows]
        batch = sample_games(game, followers, streams=4, steps=30, rng=rng)
        found = PathwiseGame().parts(game, followers, batch)
        for place, row in enumerate(rows):
            alone = StackedFollowers.solve(game, thetas[[row]])
            one = sample_games(game, alone, streams=4, steps=30, rng=[named_stream(0, "mix", row)])
            for name, part in PathwiseGame().parts(game, alone, one).items():
                np.testing.assert_array_equal(part[0], found[name][place])


def test_batches_have_the_law_of_the_simulator():
    # Same F, G and noise as the sampler of one run: residuals are what was drawn.
    game, theta = lqr_game(), np.array([-6.0, 1.0])
    followers = StackedFollowers.solve(game, theta[None])
    batch = sample_games(game, followers, streams=3, steps=10, rng=streams_of("law", 1))
    state, leader, action = batch.state_t[0, :, :-1], batch.leader_action_t[0], batch.action_t[0]
    ahead = state @ game.dynamics_state.T + action @ game.dynamics_action.T + leader @ game.dynamics_leader.T
    np.testing.assert_allclose(batch.state_t[0, :, 1:], ahead, atol=1e-14)
    noise = named_stream(0, "test pathwise", "law", 0)
    noise.standard_normal((3, 2))
    drawn = noise.standard_normal((3, 10, 2))
    np.testing.assert_allclose(leader - state @ theta[:, None], 1e-3 * drawn[..., :1], atol=1e-14)
    solution = followers.solutions[0]
    scale = np.sqrt(solution.covariance[0, 0])
    np.testing.assert_allclose(action - solution.mean(state, leader), scale * drawn[..., 1:], atol=1e-13)
    exploring = sample_games(game, followers, streams=3, steps=10, rng=streams_of("law", 1), exploring=True)
    np.testing.assert_array_equal(exploring.leader_action_t[0], drawn[..., :1])


def test_bad_input():
    game = lqr_game()
    followers = StackedFollowers.solve(game, np.zeros((2, 2)))
    with pytest.raises(ShapeError, match="generators"):
        sample_games(game, followers, streams=4, steps=10, rng=streams_of("bad", 1))
    with pytest.raises(InvalidInputError, match="steps"):
        sample_games(game, followers, streams=4, steps=0, rng=streams_of("bad", 2))
    with pytest.raises(UnknownNameError, match="response"):
        PathwiseGame(response="exact")
    with pytest.raises(UnknownNameError, match="baseline"):
        ScoreForm(baseline="none")
    still = LQRGameBatch(
        state_t=np.zeros((2, 1, 3, 2)), leader_action_t=np.zeros((2, 1, 2, 1)), action_t=np.zeros((2, 1, 2, 1))
    )
    np.testing.assert_array_equal(fit_cost_gradient(game, followers, still), 0.0)  # nothing seen, nothing known
    with pytest.raises(UnsupportedError, match="leader_policy"):
        StackedFollowers.solve(random_lqr_game(), np.zeros((1, 3)))
    wide = drawn_game(0)
    size = wide.theta_shape[0]
    many = StackedFollowers.solve(wide, np.zeros((1, size)))
    batch = sample_games(wide, many, streams=2, steps=3, rng=streams_of("bad", 1))
    with pytest.raises(UnsupportedError, match="scalar actions"):
        score_directions(
            wide,
            np.zeros((1, *wide.dynamics_leader.shape[::-1])),
            many,
            batch,
            Draws.every(0.9, 1, 2, 3),
            None,
            form=ScoreForm(),
            guiding=True,
            rng=streams_of("bad", 1),
        )
