"""Zero-order hypergradients: differences of returns at followers that answer other θ.

Along a random direction z with E z = 0 and E zzᵀ = I, streams of the best responses to θ ± u z say

    (R(θ + u z) - R(θ - u z)) z / 2u     or     (R(θ + u z) - R(θ)) z / u,                                        (1)

R the leader's return of one stream. Pairs along z and -z (antithetic) of the second are the first. Both have the mean
of the smoothed objective's slope: along Gaussian z the gradient of E J(θ + u z), along axes central differences, along
signs those of all corners; off by O(u²) all of them. No derivative, no critic and no follower's values are read, but
the follower has to be solved anew at every place, and the variance is that of returns over u². ρ is known: its
gradient is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar, Literal

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, Estimator, EstimatorEntry
from bilevelrl.estimators.sampling.joint_actions import JointProcess
from bilevelrl.estimators.sampling.sample import sample_trajectories
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import discount_powers
from bilevelrl.estimators.terms.fresh_suffixes import own_generator
from bilevelrl.estimators.terms.suffix_moments import return_moments
from bilevelrl.reference import ConfigurableMDP, MarkovGame, TabularFollower, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import check_stream_steps, checked
from bilevelrl.reference.errors import InvalidInputError, TooLargeError, UnsupportedError, refusal
from bilevelrl.reference.problem import Objective, Part

__all__ = ["ZeroOrder"]

NODES = {1: 61, 2: 25}
"""Nodes per Gaussian direction, by the number of directions."""

CORNERS = 10
"""Entries of θ whose signs are listed."""


@checked
@dataclass(frozen=True, kw_only=True)
class ZeroOrder(Estimator):
    """Difference of returns along a random direction: unbiased for a smoothed objective, off by O(u²).

    Parameters
    ----------
    smoothing
        u > 0, the length of a step in each entry of θ.
    sides
        2: both θ + u z and θ - u z are played. 1: θ + u z, against the trajectories that are given.
    directions
        "gaussian". "axes": √N along one entry of θ, so that a batch solves at most 2N followers. "signs": ±1 in every
        entry.
    target
        Its horizon and whether the leader discounts.

    Raises
    ------
    InvalidInputError
        If the smoothing is no positive number, or an option not known.

    Examples
    --------
    >>> from bilevelrl.estimators import Context
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> truth = hypergradient(problem, theta).value
    >>> off = [
    ...     np.abs(sum(ZeroOrder(smoothing=u).expectation(context, horizon=3).values()) - truth).max()
    ...     for u in (0.02, 0.01)]
    >>> bool(3.9 < off[0] / off[1] < 4.1)
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, MarkovGame)
    smoothing: float = 0.1
    sides: int = 2
    directions: Literal["gaussian", "axes", "signs"] = "axes"
    target: Objective = field(default_factory=Objective)
    name: str = field(default="zero-order")
    draw: Draw = field(init=False, default=Draw.TRAJECTORY)
    claim: Claim = field(init=False, default=Claim.DECLARED)

    def __post_init__(self) -> None:
        if isinstance(self.smoothing, bool) or not 0.0 < self.smoothing < np.inf:
            remedy = "smooth over the scale on which J bends"
            raise InvalidInputError(refusal("smoothing", self.smoothing, "a positive number", remedy))
        if self.sides not in (1, 2):
            raise InvalidInputError(refusal("sides", self.sides, "1 or 2", "2 has the smaller variance"))

    @checked
    def check_problem(self, context: Context) -> None:
        """Refuse problems whose followers are not solved one by one.

        Raises
        ------
        UnsupportedError
            With the reason.
        """
        super().check_problem(context)
        if not isinstance(context.problem, self.kinds):
            found = type(context.problem).__name__
            raise UnsupportedError(f"{self.name}: problem of type {found}: estimate run after run")
        size = float(np.abs(context.theta).max(initial=0.0))
        if (lost := np.finfo(np.float64).eps * size / self.smoothing) > 0.1:
            least = f"at least {10.0 * lost * self.smoothing:.2g}; rounding θ is {lost:.2g} of a step"
            raise InvalidInputError(refusal("smoothing", self.smoothing, least, "take larger steps"))

    def _at(self, context: Context, direction: FloatArray, side: float) -> Context:
        """Return the context of the follower that answers θ + side u z."""
        theta = context.theta + side * self.smoothing * direction.reshape(context.theta.shape)
        return replace(context, theta=theta, follower=solve_follower(context.problem, theta))

    def _drawn(self, count: int, streams: int, rng: np.random.Generator) -> FloatArray:
        """Return one direction for each stream, (streams, N)."""
        if self.directions == "gaussian":
            return rng.standard_normal((streams, count))
        if self.directions == "signs":
            return rng.choice([-1.0, 1.0], size=(streams, count))
        signs = rng.choice([-1.0, 1.0], size=(streams, 1)) if self.sides == 1 else 1.0
        axes: FloatArray = np.sqrt(count) * signs * np.eye(count)[rng.integers(count, size=streams)]
        return axes

    def _law(self, count: int) -> tuple[FloatArray, FloatArray]:
        """Return all directions (D, N) and their probabilities (D,); a Gaussian's nodes.

        Raises
        ------
        TooLargeError
            If there are too many.
        """
        if self.directions == "axes":
            axes = np.sqrt(count) * np.eye(count)
            points = axes if self.sides == 2 else np.concatenate([axes, -axes])
            return points, np.full(len(points), 1.0 / len(points))
        if self.directions == "signs":
            if count > CORNERS:
                raise TooLargeError(f"{self.name}: theta of {count} entries: expected at most {CORNERS} for all signs")
            return np.array(list(product([-1.0, 1.0], repeat=count))), np.full(2**count, 0.5**count)
        if count not in NODES:
            raise TooLargeError(
                f"{self.name}: theta of {count} entries: expected at most {max(NODES)}; use directions='axes'"
            )
        places, weights = hermegauss(NODES[count])
        chances = np.prod(list(product(weights / weights.sum(), repeat=count)), axis=1)
        return np.array(list(product(places, repeat=count))), chances

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the rows of (1); of the trajectories that are given two sides read their number and length alone.

        Raises
        ------
        InvalidInputError
            If θ rounds the steps away.
        """
        rng = own_generator(self.name, context.rng)
        self.check_problem(context)
        count, streams = context.theta.size, trajectories.streams
        directions = self._drawn(count, streams, rng)
        places, which = np.unique(directions, axis=0, return_inverse=True)
        gained = np.zeros(streams)
        for place, direction in enumerate(places):
            mine = np.flatnonzero(np.ravel(which) == place)
            for side in (1.0, -1.0)[: self.sides]:
                moved = self._at(context, direction, side)
                batch = sample_trajectories(
                    moved.problem, moved.theta, moved.follower, streams=mine.size, steps=trajectories.steps, rng=rng,
                    simulator=context.simulator,
                )  # fmt: skip
                gained[mine] += side * self._returns(batch, context)
        if self.sides == 1:
            gained -= self._returns(trajectories, context)
        rows = (gained / (self.sides * self.smoothing))[:, None] * directions  # (1)
        return [Contribution(part="response", batch=trajectories, weights={}, rows=rows)]

    def _returns(self, batch: Trajectories, context: Context) -> FloatArray:
        discount = self.target.discount(context.problem.discount_leader)
        powers = discount_powers(batch, discount, horizon=self.target.horizon)
        first = batch.valid & (batch.time_in_episode == np.arange(batch.steps))
        found: FloatArray = np.where(first, powers * np.where(batch.valid, batch.reward_leader_t, 0.0), 0.0).sum(axis=1)
        return found

    def _return_moments(self, context: Context, steps: int) -> tuple[float, float]:
        """Return mean and variance of a stream's return."""
        problem, simulator = context.problem, context.simulator
        if simulator is not None and (simulator.dynamics is not None or simulator.restart != "initial"):
            raise UnsupportedError(f"{self.name}: samples come from another law: expected the problem's own simulator")
        discount = self.target.discount(problem.discount_leader)
        steps = steps if self.target.horizon is None else min(steps, self.target.horizon)
        steps = min(steps, (simulator.step_limit if simulator is not None else None) or steps)
        if isinstance(problem, MarkovGame):
            joint = JointProcess.of(problem, context.theta, context.follower)
            follower = TabularFollower.from_policy(joint.process, context.theta, joint.policy)
            context = replace(context, problem=joint.process, follower=follower, simulator=None)
        initial = np.asarray(context.problem.tables_at(context.theta).initial)
        moments = return_moments(context, steps=steps, discount=discount)
        means = moments.state_mean[:, 0]
        mean = float(initial @ means)
        return mean, float(initial @ (moments.state_covariance[:, 0, 0] + means**2)) - mean**2

    def _moments(self, context: Context, steps: int, base: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Return mean (M, N) and second moment (M, N, N) of rows; on one side given M returns at θ."""
        self.check_problem(context)
        points, chances = self._law(context.theta.size)
        own = self._return_moments(context, steps)[0]
        given = np.zeros(1) if self.sides == 2 else np.array([own]) if base is None else base
        mean = np.zeros((given.size, context.theta.size))
        second = np.zeros((*mean.shape, context.theta.size))
        largest = 0.0
        for z, chance in zip(points, chances, strict=True):
            sides = [self._return_moments(self._at(context, z, side), steps) for side in (1.0, -1.0)[: self.sides]]
            gained = sides[0][0] - (sides[1][0] if self.sides == 2 else given)
            largest = max(largest, abs(sides[0][0] - (sides[1][0] if self.sides == 2 else own)))
            scale = chance / (self.sides * self.smoothing)
            mean += scale * np.multiply.outer(gained, z).reshape(mean.shape)
            spread = np.reshape(gained**2 + sum(variance for _, variance in sides), (-1, 1, 1))
            second += scale / (self.sides * self.smoothing) * spread * np.outer(z, z)
        lost = 64.0 * float(np.finfo(np.float64).eps) * abs(own)
        if lost > 0.1 * largest > 0.0:
            least = f"more: rounding is {lost / largest:.2g} of the largest difference"
            raise InvalidInputError(refusal("smoothing", self.smoothing, least, "take larger steps"))
        return mean, second

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps; all but ρ's is one part, "response".

        Raises
        ------
        TooLargeError
            If the directions cannot be listed.
        InvalidInputError
            If rounding rules the differences.
        UnsupportedError
            If samples come from another law than the problem's.
        """
        mean, _ = self._moments(context, check_stream_steps("horizon", horizon), None)
        return {"response": mean[0], "regulariser": context.problem.regulariser_gradient(context.theta)}

    @checked
    def conditional_moments(self, trajectories: Trajectories, context: Context) -> tuple[FloatArray, FloatArray]:
        """Return mean (M, N) and covariance (M, N, N) of each row given the trajectories.

        Raises
        ------
        TooLargeError, InvalidInputError, UnsupportedError
            As `expectation`.
        """
        base = self._returns(trajectories, context) if self.sides == 1 else None
        mean, second = self._moments(context, trajectories.steps, base)
        covariance = second - mean[:, :, None] * mean[:, None, :]
        streams, count = trajectories.streams, context.theta.size
        regulariser = context.problem.regulariser_gradient(context.theta)
        return (
            np.broadcast_to(mean + regulariser, (streams, count)).copy(),
            np.broadcast_to(covariance, (streams, count, count)).copy(),
        )

    @checked
    def cost(self, trajectories: Trajectories, context: Context) -> dict[str, int]:
        """Return what the estimate of this batch costs, each side taken to be as long as what is given."""
        followers = trajectories.streams
        if self.directions == "axes":
            followers = min(followers, context.theta.size * (3 - self.sides))
        return {
            "environment_steps": 2 * int(trajectories.valid.sum()),
            "oracle_steps": 0,
            "follower_solves": self.sides * followers,
        }


CONFIGURATIONS = (
    EstimatorEntry(
        name="zero_order",
        summary="two-sided differences of returns along random axes, a step of a tenth in θ",
        level="formula",
        make=lambda target: ZeroOrder(target=target),
        kinds=(ConfigurableMDP, MarkovGame),
    ),
)
