"""The world of leaders of configurable LQRs: one run after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.training.checkpoints import group, join_groups
from bilevelrl.estimators.training.declarations.lqr import LQRTraining
from bilevelrl.estimators.training.methods import Method, Wanted
from bilevelrl.estimators.training.runs import World, make_world
from bilevelrl.estimators.training.worlds.shared import SharedWorld, partial_gradient
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.lqr import evaluate_lqr_leader

__all__ = ["LQRWorld"]


class LQRWorld(SharedWorld):
    """Followers, samples and critics of all runs; see `World`."""

    def __init__(self, training: LQRTraining, generators: Sequence[Generator]) -> None:
        super().__init__(training, generators)
        self.training = training
        thetas = tuple(f"theta_{i}" for i in range(training.parameters))
        self.facts = ("objective", "state_cost", "action_cost", "constant_cost", *thetas)
        matrices = training.problem.matrices_at(self._shaped(training.start()[0]))
        sizes = (matrices.states, matrices.actions, training.parameters)
        self.wanted = [
            method.critic if isinstance(method.critic, Wanted) else Wanted(leader=None) for method in self.methods
        ]
        self.carried = [
            training.critics.start(
                wanted, *sizes, named_stream(training.entropy, "training", "critics", run.method, int(run.seed))
            )
            for wanted, run in zip(self.wanted, training.runs, strict=True)
        ]
        self.samples: dict[int, tuple[Trajectories, Context]] = {}

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Solve the followers, sample, learn critics."""
        self.samples = {
            row: self._prepared(row, self._shaped(theta))
            for row, theta in enumerate(thetas)
            if self.methods[row].make is not None
        }

    def _prepared(self, row: int, theta: FloatArray) -> tuple[Trajectories, Context]:
        training, rng = self.training, self.generators[row]
        follower = solve_follower(training.problem, theta)
        context = Context(problem=training.problem, theta=theta, follower=follower, rng=rng)
        batch = self._batch(theta, follower, rng)
        seen = self._batch(theta, follower, rng) if training.separate_critics else batch
        learnt = training.critics.learn(self.wanted[row], seen, context, self.carried[row], rng)
        self.carried[row] = learnt.carried
        return batch, replace(context, critic=learnt.leader, follower_gradient=learnt.gradient)

    def _batch(self, theta: FloatArray, follower: Any, rng: Generator) -> Trajectories:
        training = self.training
        return training.simulator.sample(
            training.problem, theta, follower, streams=training.streams, steps=training.steps, rng=rng
        )

    def estimates(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return estimates; later steps on the same data read what was learnt at the first θ."""
        assert method.make is not None
        estimator = method.make(self.training.clip_blocks)
        return np.stack([estimator.estimate(*self.samples[int(row)]).mean for row in rows])

    def exact(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return exact gradients."""
        truths = (hypergradient(self.training.problem, self._shaped(theta), bound=False) for theta in points)
        return np.stack([partial_gradient(truth, guiding=method.guiding) for truth in truths])

    def known(self, thetas: FloatArray) -> tuple[Mapping[str, Any], FloatArray]:
        """Return objectives, costs as discounted sums over an infinite horizon, and θ."""
        problem, found = self.training.problem, []
        points = [self._shaped(theta) for theta in thetas]
        truth = np.stack([hypergradient(problem, theta, bound=False).value for theta in points])
        for theta in points:
            m, follower = problem.matrices_at(theta), solve_follower(problem, theta)
            leader = evaluate_lqr_leader(m, follower.gain, follower.covariance, problem.discount_leader)
            played = follower.gain @ leader.visits @ follower.gain.T + leader.length * follower.covariance
            found.append(
                (
                    leader.objective,
                    float(np.vdot(m.cost_state_leader, leader.visits)),
                    float(np.vdot(m.cost_action_leader, played)),
                    leader.length * float(m.cost_constant_leader),
                )
            )
        return dict(zip(self.facts, np.hstack([found, thetas]).T.copy(), strict=True)), truth

    def _shaped(self, theta: FloatArray) -> FloatArray:
        return theta.reshape(self.training.theta_shape)

    def arrays(self) -> dict[str, FloatArray]:
        """Return the weights of networks, by row and name."""
        return join_groups({str(row): own for row, own in enumerate(self.carried)})

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.carried = [{**own, **group(arrays, str(row))} for row, own in enumerate(self.carried)]


@make_world.register
def _(training: LQRTraining, generators: Sequence[Generator]) -> World:
    return LQRWorld(training, generators)
