"""Planning on a model: many random starts are screened, the best are improved by ascent, the best end is the plan.

The leader's objective has poor local maxima that ascent from a usual start cannot leave. On a model an evaluation costs
no step of the environment, so that a global search is affordable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.followers import Carried, ExactFollower, SharedDynamics, batch_objectives, batch_truths
from bilevelrl.estimators.training import Adam
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray, check_positive, store_floats
from bilevelrl.reference.doors import check_count

__all__ = ["Plan", "Planner", "RandomStarts"]

_CHUNK = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomStarts:
    """Starting points with independent entries N(0, scale²), none further than `spread` below the point's largest.

    Softmaxes of such points are concentrated on few entries, and none of them is so small that ascent cannot raise it.

    Parameters
    ----------
    scale, spread
        > 0.

    Raises
    ------
    InvalidInputError
        If one is not positive and finite.

    Examples
    --------
    >>> points = RandomStarts(scale=8.0, spread=9.0).draw(np.random.default_rng(0), 3, 105)
    >>> points.shape, bool(np.ptp(points, axis=1).max() <= 9.0)
    ((3, 105), True)
    """

    scale: float = 8.0
    spread: float = 9.0

    def __post_init__(self) -> None:
        store_floats(self)
        check_positive("scale", self.scale, "8 concentrates a softmax over a hundred entries on one to three")
        check_positive("spread", self.spread, "9 keeps every share above e^-9 of the largest")

    def draw(self, rng: Generator, count: int, size: int) -> FloatArray:
        """Return so many points (count, size)."""
        points = self.scale * rng.standard_normal((count, size))
        raised: FloatArray = np.maximum(points, points.max(axis=1, keepdims=True) - self.spread)
        return raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What planning found.

    Attributes
    ----------
    theta : (N,)
        The best point.
    objective : float
        What the model expects of it.
    ends : (starts, N)
        Where the ascents ended, the best first.
    objectives : (starts,)
        The model's objectives there.
    """

    theta: FloatArray
    objective: float
    ends: FloatArray
    objectives: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Random search, then ascent by Adam from the best points.

    Parameters
    ----------
    starts
        Where random points come from.
    screened, kept
        How many random points are evaluated, and from how many of them ascents start.
    steps, learning_rate
        Of each ascent; the rate falls linearly to a tenth.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> planner = Planner(screened=20, kept=2, steps=3)
    >>> plan = planner.plan(four_rooms(temperature=0.005), np.random.default_rng(0))
    >>> plan.ends.shape, bool(plan.objective == plan.objectives.max())
    ((2, 105), True)
    """

    starts: RandomStarts = RandomStarts()
    screened: int = 500
    kept: int = 6
    steps: int = 200
    learning_rate: float = 0.2

    def __post_init__(self) -> None:
        store_floats(self)
        for name in ("screened", "kept", "steps"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate, "0.2 is usual for logits")

    def plan(self, problem: ConfigurableMDP, rng: Generator, incumbents: FloatArray | None = None) -> Plan:
        """Return the best point that was found.

        Parameters
        ----------
        problem
            θ in the rewards only, one axis of parameters.
        rng
            For the random points.
        incumbents : (points, N)
            Ascents start from them too.

        Raises
        ------
        UnsupportedError
            If θ enters the dynamics.
        NotConvergedError
            If a follower does not converge.
        """
        assert problem.theta_shape is not None
        size = int(np.prod(problem.theta_shape))
        points = self.starts.draw(rng, self.screened, size)
        dynamics = SharedDynamics(problem, points[0])
        found = np.concatenate(
            [self._objectives(dynamics, points[k : k + _CHUNK]) for k in range(0, len(points), _CHUNK)]
        )
        chosen = points[np.argsort(-found, kind="stable")[: self.kept]]
        if incumbents is not None:
            chosen = np.concatenate([incumbents, chosen])
        return self.ascend(dynamics, chosen)

    def ascend(self, dynamics: SharedDynamics, points: FloatArray) -> Plan:
        """Return where ascents from the points (starts, N) lead; the best of each way counts, its start included."""
        optimiser, thetas = Adam(second_decay=0.99), points.copy()
        carried: Carried = {}
        state, rates = optimiser.start(thetas.shape), np.full(len(thetas), self.learning_rate)
        ends, best = thetas.copy(), np.full(len(thetas), -np.inf)
        for step in range(self.steps + 1):
            followers, carried = ExactFollower().respond(dynamics, dynamics.rewards(thetas), carried)
            objective, gradient = batch_truths(dynamics, followers)
            better = objective > best
            best[better], ends[better] = objective[better], thetas[better]
            if step < self.steps:
                factor = 1.0 - 0.9 * step / self.steps
                move, state = optimiser.step(gradient, factor * rates, state)
                thetas = thetas + move
        order = np.argsort(-best, kind="stable")
        return Plan(theta=ends[order[0]], objective=float(best[order[0]]), ends=ends[order], objectives=best[order])

    def _objectives(self, dynamics: SharedDynamics, points: FloatArray) -> FloatArray:
        followers, _ = ExactFollower().respond(dynamics, dynamics.rewards(points), {})
        return batch_objectives(dynamics, followers)
