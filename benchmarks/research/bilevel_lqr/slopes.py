"""What a network critic of the LQR game knows about the leader's action, by the data and the steps that it learns from.

python -m bilevelrl.benchmarks.research.bilevel_lqr.slopes --critic-steps 5 100

At a fixed gain the critic learns for 500 outer iterations of 4 × 100 steps. Scores ask it for two differences alone:
along the leader's action with the follower's answer to it, and along the follower's action. Both are held against the
exact critic's at 1000 visited transitions, and so is the direction that they make.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators.critics import ExactGameCritics
from bilevelrl.estimators.methods import LeaderValues, ScoreForm, score_directions
from bilevelrl.estimators.sampling import Draws, LQRGameBatch, StackedFollowers, sample_games
from bilevelrl.estimators.training import gradient_errors, lqr_game_training
from bilevelrl.reference import LQRGame, hypergradient, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import lqr_game

__all__ = ["GAINS", "CriticSlopes", "main"]

GAINS = ((-1.0, 0.0), (0.5, 0.5), (-7.0, -2.0))
"""Two where runs start, with returns of .015, and one on the way to the optimum."""

_EPISODES, _STEPS = 10, 100
_HALF_STEP = 0.1  # of the leader's action; the reward is 2 wide in it
_NODES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSlopes:
    """Networks of several runs beside the exact critic at one gain.

    Attributes
    ----------
    slope_correlation, benefit_correlation : (runs,)
        Between network and exact critic over transitions: derivatives along the leader's action, with the follower's
        answer; Q_L minus its mean over the follower's action.
    slope_ratio : (runs,)
        Standard deviation of the network's derivatives over that of the exact ones.
    cosine : (runs,)
        Of directions with the exact hypergradient, ∇Q_F from the quadratic fit.
    """

    slope_correlation: FloatArray
    slope_ratio: FloatArray
    benefit_correlation: FloatArray
    cosine: FloatArray

    @classmethod
    def measure(
        cls,
        gain: tuple[float, float],
        *,
        critic_steps: int = 5,
        data_deviation: float | None = None,
        runs: int = 5,
        iterations: int = 500,
    ) -> CriticSlopes:
        """Let critics learn at θ = gain and hold them against the exact one.

        Parameters
        ----------
        gain
            θ.
        critic_steps, data_deviation
            As in `GameOptions`.
        runs, iterations
            Networks, and outer iterations of each.

        Examples
        --------
        >>> found = CriticSlopes.measure((-1.0, 0.0), runs=2, iterations=2)
        >>> bool((found.slope_ratio > 10.0).all())  # nearly as they were drawn
        True
        """
        game = lqr_game()
        changes: dict[str, Any] = {"data_deviation": data_deviation, "critic_steps": critic_steps, "suffix": "fitted"}
        seeds = range(300, 300 + runs)
        training = lqr_game_training(game, "bc_hg", seeds=seeds, iterations=iterations, **changes)
        world: Any = training.world(training.generators())
        thetas = np.tile(np.asarray(gain), (runs, 1))
        for iteration in range(iterations):
            world.prepare(thetas, iteration)
            world.finish(thetas)
        network, followers = world.learners["bc_hg"].networks, world.followers["bc_hg"]
        assert network is not None
        exact = ExactGameCritics.solve(game, thetas, followers, steps=_STEPS)
        rng = [named_stream(1, "t", row) for row in range(runs)]
        batch = sample_games(game, followers, streams=_EPISODES, steps=_STEPS, rng=rng)
        at = _Transitions(game=game, followers=followers, batch=batch)
        slopes, benefits = ([measured(critic) for critic in (network, exact)] for measured in (at.slopes, at.benefits))
        direction = at.directions(network, thetas, ScoreForm(suffix="fitted"))
        truth = hypergradient(game, thetas[0], horizon=_STEPS, bound=False).value
        return cls(
            slope_correlation=_correlations(*slopes),
            slope_ratio=slopes[0].std(axis=1) / slopes[1].std(axis=1),
            benefit_correlation=_correlations(*benefits),
            cosine=gradient_errors(direction, np.broadcast_to(truth, direction.shape))["cosine"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transitions:
    """Every transition of a batch."""

    game: LQRGame
    followers: StackedFollowers
    batch: LQRGameBatch

    @property
    def visited(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        state, leader, action = self.batch.state_t[:, :, :-1], self.batch.leader_action_t, self.batch.action_t
        runs = len(action)
        return state.reshape(runs, -1, 2), leader.reshape(runs, -1, 1), action.reshape(runs, -1, 1)

    def slopes(self, critic: LeaderValues) -> FloatArray:
        """dQ_L/dl with the follower's mean answering l, by central differences, (R, B)."""
        state, leader, action = self.visited
        answer = -np.swapaxes(self.followers.reaction @ self.game.dynamics_leader, 1, 2)  # of one unit of l
        above, below = (
            critic.action_value(state, leader + step, action + step * answer) for step in (_HALF_STEP, -_HALF_STEP)
        )
        return (above - below) / (2.0 * _HALF_STEP)

    def benefits(self, critic: LeaderValues) -> FloatArray:
        """Q_L minus its mean over the follower's action, (R, B)."""
        state, leader, action = self.visited
        planned = state @ self.game.dynamics_state.T + leader @ self.game.dynamics_leader.T
        mean = -planned @ np.swapaxes(self.followers.reaction, 1, 2)
        points, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        root = np.sqrt(self.followers.covariance)  # the action is a scalar
        averaged = np.zeros(action.shape[:2])
        for point, weight in zip(points, weights / weights.sum(), strict=True):
            averaged += weight * critic.action_value(state, leader, mean + point * root)
        benefit: FloatArray = critic.action_value(state, leader, action) - averaged
        return benefit

    def directions(self, critic: LeaderValues, thetas: FloatArray, form: ScoreForm) -> FloatArray:
        """The hypergradients that the critic makes of all transitions, (R, 2)."""
        draws = Draws.every(self.game.discount_leader, len(thetas), _EPISODES, _STEPS)
        return score_directions(
            self.game, thetas[:, None], self.followers, self.batch, draws, critic, form=form, guiding=True, rng=[]
        )


def _correlations(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)])


def main(arguments: list[str] | None = None) -> None:
    """Print a table in Markdown: medians over runs, and every run's cosine."""
    parser = argparse.ArgumentParser(description="What network critics of the LQR game know about the leader's action.")
    parser.add_argument("--critic-steps", type=int, nargs="+", default=[5, 100], help="per outer iteration")
    chosen = parser.parse_args(arguments)
    print("| K | critic steps | deviation in its data | slopes: correlation, ratio | benefits | cosines |")
    print("|" + " --- |" * 6)
    for gain in GAINS:
        for steps in chosen.critic_steps:
            for deviation in (None, 0.1):
                found = CriticSlopes.measure(gain, critic_steps=steps, data_deviation=deviation)
                cells = (
                    f"({gain[0]:g}, {gain[1]:g})",
                    f"{steps}",
                    f"{deviation or 0.001:g}",
                    f"{np.median(found.slope_correlation):.2f}, {np.median(found.slope_ratio):.2g}",
                    f"{np.median(found.benefit_correlation):.2f}",
                    ", ".join(f"{cosine:.2f}" for cosine in found.cosine),
                )
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
