"""One outer iteration of training on Four-Rooms, batched over seeds, and the same seed after seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.estimators import BCHG, Context, sample_trajectories
from bilevelrl.estimators.terms import SeedBatch, SeedEstimates
from bilevelrl.reference import ConfigurableMDP, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import four_rooms

__all__ = ["STEPS", "TOLERANCE", "OuterIteration", "outer_iteration"]

STEPS = 100
TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterIteration:
    """The second iteration of training: the followers of the first one are the warm start.

    Attributes
    ----------
    problem, thetas
        One θ per seed, one clipped ascent step after its start.
    previous
        The seeds at their starts.
    """

    problem: ConfigurableMDP
    thetas: FloatArray
    previous: SeedBatch

    def together(self) -> SeedEstimates:
        """Solve all followers, sample all streams, estimate for all seeds."""
        batch = SeedBatch.solve(self.problem, self.thetas, tolerance=TOLERANCE, warm_start=self.previous)
        trajectories = batch.sample(streams=1, steps=STEPS, rng=named_stream(0, "outer iteration", "samples"))
        return batch.estimate(BCHG(critic="context"), trajectories, batch.exact_critic())

    def one_by_one(self) -> FloatArray:
        """Do the same with the single-seed functions, one seed after the other."""
        rows = []
        for seed, theta in enumerate(self.thetas):
            follower = solve_follower(self.problem, theta, tolerance=TOLERANCE, warm_start=self.previous.value[seed])
            trajectories = sample_trajectories(
                self.problem,
                theta,
                follower,
                streams=1,
                steps=STEPS,
                rng=named_stream(0, "outer iteration", seed),
            )
            rows.append(
                BCHG().estimate(trajectories, Context(problem=self.problem, theta=theta, follower=follower)).mean
            )
        return np.stack(rows)


def outer_iteration(seeds: int, temperature: float = 0.003) -> OuterIteration:
    """Prepare the iteration: starts as in the paper, then one ascent step of length at most 0.5 along the estimate."""
    problem = four_rooms(temperature=temperature)
    rng = named_stream(0, "outer iteration", "starts")
    starts = 0.01 * rng.standard_normal((seeds, 105))
    previous = SeedBatch.solve(problem, starts, tolerance=TOLERANCE)
    trajectories = previous.sample(streams=1, steps=STEPS, rng=rng)
    direction = previous.estimate(BCHG(critic="context"), trajectories, previous.exact_critic()).mean
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    return OuterIteration(problem=problem, thetas=starts + 0.5 * direction / np.maximum(1.0, length), previous=previous)
