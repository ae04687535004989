"""A step of training in games is the registered estimator's on the batch that was drawn, up to the order of sums."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context, NaivePGD, Trajectories, sample_trajectories
from bilevelrl.estimators.critics.gaussian_game import ValuesAtVisits
from bilevelrl.estimators.methods.score_game import ScoreForm, score_directions
from bilevelrl.estimators.sampling.gaussian_game import StackedFollowers, sample_games
from bilevelrl.estimators.sampling.replay_memory import Draws
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import layered_mdp, lqr_game

pytestmark = pytest.mark.exact
RUNS, EPISODES, STEPS, SIZE = 3, 4, 20, 12
EPS = np.finfo(np.float64).eps


class LinearValues:
    """Q_L = x_1 + 2 l + 3 a: every rule's means are exact."""

    def action_value(self, state, leader_action, action):
        return state[..., 0] + 2.0 * leader_action[..., 0] + 3.0 * action[..., 0]


def drawn():
    game, rng = lqr_game(), [np.random.default_rng(row) for row in range(RUNS)]
    played = np.array([[-3.0, -1.0], [0.5, 0.5], [-7.0, -2.0]])
    followers = StackedFollowers.solve(game, played)
    batch = sample_games(game, followers, streams=EPISODES, steps=STEPS, rng=rng)
    uniforms = np.random.default_rng(7).random((RUNS, SIZE, 2))
    draws = Draws.discounted(game.discount_leader, EPISODES, STEPS, uniforms)
    draws.episode[:, 1], draws.time[:, 1] = draws.episode[:, 0], draws.time[:, 0]  # one step is there twice
    draws.time[:, 2] = 0
    return game, played, followers, batch, draws


def suffix_of(batch, run, episode, time, game):
    """What follows a drawn step, as a trajectory of its own that begins there."""
    length = STEPS - time
    shape, ended = (1, length), np.zeros((1, length), dtype=bool)
    ended[0, -1] = True
    state = batch.state_t[run, episode, time : time + length + 1]
    return Trajectories(
        state_t=state[None, :-1],
        leader_action_t=batch.leader_action_t[run, episode, time:][None],
        action_t=batch.action_t[run, episode, time:][None],
        state_tp1=state[None, 1:],
        reward_leader_t=game.reward_leader(state[None, :-1]),
        terminated=np.zeros(shape, dtype=bool),
        truncated=ended,
        time_in_episode=np.arange(length)[None],
        valid=np.ones(shape, dtype=bool),
        behaviour_log_prob=np.zeros(shape),
    )


@pytest.mark.parametrize("moved", [0.0, 0.2])  # of the gain, since the follower answered it
@pytest.mark.parametrize(
    ("guiding", "same_step", "influence"),
    [(True, False, True), (True, True, False), (False, False, True)],
)
def test_a_minibatch_is_the_mean_of_estimates_that_begin_at_its_steps(guiding, same_step, influence, moved):
    """Objective(horizon=1) counts a trajectory's first step alone, whose guiding term reads the whole trajectory."""
    game, played, followers, batch, draws = drawn()
    gains = played[:, None] + moved
    form = ScoreForm(influence_baseline=influence, same_step=same_step)
    found = score_directions(game, gains, followers, batch, draws, LinearValues(), form=form, guiding=guiding, rng=[])
    centred = {"influence_baseline": influence, "same_step": same_step} if guiding else {}
    estimator = (BCHG if guiding else NaivePGD)(target=Objective(horizon=1), critic="context", **centred)
    for run in range(RUNS):
        response, wanted, size = followers.solutions[run], np.zeros(2), 0.0
        now = solve_follower(game, played[run])  # its values are quadratic in l, and their mean is over the gain now

        class Answer:
            def value_at(self, state, leader_action=None, *, run=run, now=now):
                if leader_action is not None:
                    return now.value_at(state, leader_action)
                nodes = np.polynomial.hermite_e.hermegauss(3)
                spread = np.sqrt(game.leader_covariance[0, 0])
                centre = state @ gains[run].T
                values = [w * now.value_at(state, centre + spread * point) for point, w in zip(*nodes, strict=True)]
                return sum(values) / nodes[1].sum()

        for episode, time in zip(draws.episode[run], draws.time[run], strict=True):
            path = suffix_of(batch, run, episode, time, game)
            state, leader, action = path.state_t[:, 0], path.leader_action_t[:, 0], path.action_t[:, 0]
            off = action - response.mean(state, leader)
            centre = state @ gains[run].T
            # The coupled baseline moves the leader's action, and the follower's mean with it.
            advantage = 2.0 * (leader - centre) + 3.0 * (response.mean(state, leader) - response.mean(state, centre))
            first = np.arange(path.steps)[None] == 0
            critic = ValuesAtVisits(benefit=np.where(first, 3.0 * off, 0.0), advantage=np.where(first, advantage, 0.0))
            context = Context(problem=game, theta=gains[run].ravel(), follower=Answer(), critic=critic)
            estimate = estimator.estimate(path, context)
            wanted += estimate.mean / SIZE
            size += sum(np.abs(part).max() for part in estimate.parts.values()) / SIZE
        # Scores divide l - K x, which is 1e-3 of either, by Ω = 1e-6: each loses three digits, and a mean over l more.
        assert found[run] == pytest.approx(wanted, rel=0, abs=1e4 * EPS * size)


def test_weights_are_refused_where_they_would_be_forgotten():
    game, played, followers, batch, _ = drawn()
    visits = batch.trajectories(game, 0, np.ones((EPISODES, STEPS)))
    context = Context(problem=game, theta=played[0], follower=followers.solutions[0])
    stopped = BCHG(stopping="sum")
    with pytest.raises(EstimatorError, match="weight_t"):
        stopped.estimate(visits, context)
    with pytest.raises(InvalidInputError, match="weight_t"):
        batch.trajectories(game, 0, np.full((EPISODES, STEPS), np.nan))
    problem, theta = layered_mdp(seed=0), np.zeros(3)
    follower = solve_follower(problem, theta)
    own = sample_trajectories(problem, theta, follower, streams=2, steps=3, rng=np.random.default_rng(0))
    weighed = replace(own, weight_t=np.ones((2, 3)))
    with pytest.raises(EstimatorError, match="weight_t"):
        BCHG().estimate(weighed, Context(problem=problem, theta=theta, follower=follower))


def test_weights_of_ones_in_place_of_the_discount():
    """γ_L^t by hand gives the estimate without weights, bit for bit; other weights give another one."""
    game, played, followers, batch, _ = drawn()
    powers = np.tile(game.discount_leader ** np.arange(STEPS), (EPISODES, 1))
    context = Context(problem=game, theta=played[0], follower=followers.solutions[0])
    weighed = batch.trajectories(game, 0, powers)
    plain = BCHG().estimate(replace(weighed, weight_t=None), context).mean
    assert np.array_equal(BCHG().estimate(weighed, context).mean, plain)
    assert not np.allclose(BCHG().estimate(replace(weighed, weight_t=np.ones_like(powers)), context).mean, plain)
