"""Nudged followers: an estimator without a critic, from followers that are paid a little of the leader's reward.

Two populations of followers answer `r_F + w_t r_L` and `r_F - w_t r_L` (one-sided: `r_F`) with `w_t = w (γ_L/γ_F)^t`.
By the mixed derivative of the follower's own value, and from nothing but their returns,

    ∇J ≈ ∇ρ + E Σ_t γ_L^t ∇r_L + (V_w - V_{-w})(s_0) ∇log μ / 2w + (Y_w - Y_{-w}) / 2w,                          (1)
    Y_w = Σ_t γ_F^t (∇r_F + γ_F V_{t+1}(s_{t+1}) ∇log P)  along a stream of the follower that is paid w_t.       (2)

The first expectation is over unpaid streams, or without them over those of both paid populations (on one side: of the
one that is paid). In a Markov game θ moves the leader's policy f alone: only (2) is left, with `∇log f(l_t|s_t)` times
what the leader's action is worth to the follower. Off by O(w²), and by O(w) on one side, either way; with γ_L > γ_F
over an infinite horizon by the power `log γ_L / log(γ_F/γ_L)` of w where that is less, for then the pay grows. Where θ
enters rewards alone (2) needs no follower's values and nobody's probabilities: a follower that is known by its actions
only will do, if the leader may pay it. With common random numbers both populations meet the same uniform numbers, which
takes a simulator and policies that are inverted; independent ones can be people. Variances grow as w^-1 and as w^-2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import log2
from typing import Any, ClassVar, Literal

import numpy as np

from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, Estimator, EstimatorEntry
from bilevelrl.estimators.expectations.nudged import paid_moments
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.fresh_suffixes import own_generator
from bilevelrl.estimators.terms.paid import PaidGame, PaidPlay, in_joint_actions, paid_play, steps_played
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, check_stream_steps, checked
from bilevelrl.reference.errors import (
    IllPosedError,
    InvalidInputError,
    UnsupportedError,
    refusal,
)
from bilevelrl.reference.problem import Objective, Part
from bilevelrl.reference.tabular import to_dense

__all__ = ["NudgedFollowers"]


@checked
@dataclass(frozen=True, kw_only=True)
class NudgedFollowers(Estimator):
    """Difference of what paid followers' returns say of θ: no critic, no benefit, no score of a policy.

    Parameters
    ----------
    pay
        w in units of the follower's temperature.
    sides
        2: paid w and -w. 1: paid w and nothing.
    numbers
        "independent": the two populations share nothing. "common": they meet the same uniform numbers.
    unpaid
        Whether a third population plays unpaid for what θ does to the leader's own rewards. False: of the trajectories
        that are given only their number and length count.
    target
        With two discounts, or a horizon after which nothing is paid, the pay changes in time, and the followers' policy
        with it; they are told when they are.

    Raises
    ------
    InvalidInputError
        If the pay is not a finite number other than zero, or an option not known.

    Examples
    --------
    >>> from bilevelrl.estimators import Context
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0, discount_leader=0.9), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> truth = hypergradient(problem, theta).value
    >>> off = [
    ...     np.abs(sum(NudgedFollowers(pay=w).expectation(context, horizon=3).values()) - truth).max()
    ...     for w in (0.2, 0.1)]
    >>> bool(3.9 < off[0] / off[1] < 4.1)
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, MarkovGame)
    pay: float = 1.0
    sides: int = 2
    numbers: Literal["independent", "common"] = "independent"
    unpaid: bool = True
    target: Objective = field(default_factory=Objective)
    name: str = field(default="nudged followers")
    draw: Draw = field(init=False, default=Draw.TRAJECTORY)
    claim: Claim = field(init=False, default=Claim.DECLARED)

    def __post_init__(self) -> None:
        if not np.isfinite(self.pay) or self.pay == 0.0:
            raise InvalidInputError(refusal("pay", self.pay, "a finite number other than zero", "pay a tenth of β"))
        if self.sides not in (1, 2):
            raise InvalidInputError(refusal("sides", self.sides, "1 or 2", "2 has the smaller bias"))

    @property
    def rests_on_rare_draws(self) -> bool:
        """True with common numbers: followers that meet the same ones seldom part, and say nothing else."""
        return self.numbers == "common"

    @checked
    def values_count(self, context: Context) -> float:
        """1 / (w · sides), for a difference of two values is divided by the pay."""
        temperature: float = context.problem.temperature
        return 1.0 / (abs(self.pay) * temperature * self.sides)

    @checked
    def check_problem(self, context: Context) -> None:
        """Refuse problems in which nobody plays paid followers.

        Raises
        ------
        UnsupportedError
            With the reason.
        """
        for kind, why in _REFUSED.items():
            if isinstance(context.problem, kind):
                raise UnsupportedError(f"{self.name}: problem of type {kind.__name__}: {why}; use BCHG")
        super().check_problem(context)

    def _play(self, context: Context, steps: int) -> PaidPlay:
        """Return both populations, solved for streams of so many steps."""
        self.check_problem(context)
        pay = self.pay * context.problem.temperature
        pays = (pay, -pay if self.sides == 2 else 0.0)
        weights = (1.0 / (pay * self.sides), -1.0 / (pay * self.sides))
        shares = (0.0, 0.0) if self.unpaid else (0.5, 0.5) if self.sides == 2 else (1.0, 0.0)
        return paid_play(context, self.target, pays, weights, shares, steps=steps)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of (1): unpaid streams as they are given, as many and as long of each population.

        Populations play in the context's simulator, one episode each: what comes after its end counts nothing.

        Raises
        ------
        EstimatorError
            If the context has no generator.
        UnsupportedError
            If a given stream holds several episodes.
        """
        rng = own_generator(self.name, context.rng)
        play = self._play(context, trajectories.steps)
        simulator = TabularSimulator() if context.simulator is None else context.simulator
        generators = getattr(simulator, "generators", (rng,))
        before = [generator.bit_generator.state for generator in generators]
        played: list[Trajectories] = []
        for population in play.populations:
            if played and self.numbers == "common":
                for generator, state in zip(generators, before, strict=True):
                    generator.bit_generator.state = state
            streams = trajectories.streams // len(generators)
            batch = play.sample(simulator, population, streams=streams, steps=trajectories.steps, rng=list(generators))
            played.append(_first_episodes(batch))
        items = self._own_contributions(trajectories if self.unpaid else played[0], play)
        for population, batch in zip(play.populations, played, strict=True):
            items += play.contributions(batch, population)
        return items

    def _own_contributions(self, trajectories: Trajectories, play: PaidPlay) -> list[Contribution]:
        """Return what is said by the first states, and by unpaid streams if there are any."""
        if (trajectories.episode_starts.sum(axis=1) > 1).any():
            found = "several episodes in one stream"
            raise UnsupportedError(
                refusal(f"{self.name}: trajectories", found, "one in each", "sample with single_episode=True")
            )
        return play.own_contributions(trajectories, unpaid=self.unpaid)

    @checked
    def cost(self, trajectories: Trajectories, context: Context) -> dict[str, int]:
        """Return what the estimate of this batch costs; of paid populations, the expected number of steps."""
        play = self._play(context, trajectories.steps)
        kernel, initial, steps = self._dynamics(play, trajectories.steps)
        paid = sum(steps_played(kernel, each.policy, initial, steps) for each in play.populations)
        read = self.unpaid and not isinstance(play, PaidGame)  # a game's θ moves no reward of the leader's
        return {
            "environment_steps": (int(trajectories.valid.sum()) if read else 0) + round(trajectories.streams * paid),
            "oracle_steps": 0,
            "follower_solves": self.sides,
        }

    def _dynamics(self, play: PaidPlay, steps: int) -> tuple[FloatArray, FloatArray, int]:
        """Return the kernel (S, A, S), the initial law and the length that paid streams of so many steps have."""
        simulator = play.context.simulator
        simulator = TabularSimulator() if simulator is None else in_joint_actions(simulator)
        process, theta = play.process, play.context.theta
        kernel = to_dense(simulator.kernel(process, theta))
        return kernel, simulator.start_law(process, theta), min(steps, simulator.step_limit or steps)

    def _law(self, play: PaidPlay, steps: int) -> tuple[FloatArray, FloatArray, int]:
        """Return the dynamics, where scores are of the law that samples come from."""
        context = play.context
        simulator = TabularSimulator() if context.simulator is None else context.simulator
        moved = play.process.varying(context.theta) & {"transition", "initial"}
        if moved and (simulator.dynamics is not None or simulator.restart != "initial"):
            raise UnsupportedError(
                f"{self.name}: θ enters {sorted(moved)} and samples come from another law: expected the problem's own "
                "simulator; measure by samples"
            )
        return self._dynamics(play, steps)

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps, bias in w and by cutting streams included.

        Raises
        ------
        UnsupportedError
            If the context's simulator has a law of its own where θ enters the problem's.
        """
        check_stream_steps("horizon", horizon)
        play = self._play(context, horizon)
        parts = play.expectation(*self._law(play, horizon), unpaid=self.unpaid)
        return {**parts, "regulariser": context.problem.regulariser_gradient(context.theta)}

    @checked
    def conditional_moments(self, trajectories: Trajectories, context: Context) -> tuple[FloatArray, FloatArray]:
        """Return mean (M, N) and covariance (M, N, N) of each row given the unpaid streams.

        Raises
        ------
        TooLargeError
            If there are too many pairs of states.
        UnsupportedError
            As `expectation`.
        """
        play = self._play(context, trajectories.steps)
        rows = np.repeat(context.problem.regulariser_gradient(context.theta)[None], trajectories.streams, axis=0)
        if self.unpaid:
            for item in self._own_contributions(trajectories, play):
                rows = rows + item.per_stream(context)
        mean, second = paid_moments(play, self._law(play, trajectories.steps), **self._coupling)
        covariance = second - np.outer(mean, mean)
        return rows + mean, np.repeat(covariance[None], trajectories.streams, axis=0)

    @property
    def _coupling(self) -> dict[str, Any]:
        return {"coupled": self.numbers == "common", "starts_count": not self.unpaid, "name": self.name}

    @checked
    def best_pay(self, context: Context, *, horizon: int, streams: Count) -> float:
        """Return the pay, in units of β, of least mean squared error for so many streams, to leading order.

        With p the number of sides, where the pay grows what its halves show, the bias is `b w^p` and the variance of
        one stream `v w^-q`, q = 2 for independent numbers and 1 for common ones, b and v from exact moments at this
        estimator's own pay:

            w = (q v / (2 p b² n))^(1/(2p + q)).                                                                 (3)

        Raises
        ------
        IllPosedError
            If there is no bias, as where the leader is paid nothing: then the largest pay is best.
        """
        check_stream_steps("horizon", horizon)
        play = self._play(context, horizon)
        mean, second = paid_moments(play, self._law(play, horizon), **self._coupling)
        bias, order = self._bias(context, horizon)
        power = 2 if self.numbers == "independent" else 1
        if bias == 0.0:
            raise IllPosedError(f"{self.name}: no bias at pay={self.pay}: expected one to weigh against the variance")
        variance = float(np.trace(second - np.outer(mean, mean))) * abs(self.pay) ** power
        return float((power * variance / (2 * order * bias**2 * streams)) ** (1.0 / (2 * order + power)))  # (3)

    def _bias(self, context: Context, horizon: int) -> tuple[float, float]:
        """Return b and p of the bias b |pay|^p of streams of so many steps, to leading order."""

        def mean(pay: float, sides: int) -> FloatArray:
            found = replace(self, pay=pay, sides=sides).expectation(context, horizon=horizon)
            return sum(found.values(), np.zeros(1))

        own, order = mean(self.pay, self.sides), float(self.sides)
        if self.target.horizon is not None or context.problem.discount_leader <= context.problem.discount_follower:
            size = float(np.linalg.norm(own - mean(1e-3 * self.pay, 2)))
        else:  # the power can be less, and then nothing small is near zero
            half, quarter = (mean(share * self.pay, self.sides) for share in (0.5, 0.25))
            first, second = (float(np.linalg.norm(each)) for each in (own - half, half - quarter))
            if second > 0.0:
                order = min(order, log2(first / second))
            size = first / (1.0 - 0.5**order)
        return size / abs(self.pay) ** order, order


_REFUSED: Mapping[type, str] = {
    LQRGame: "its leader's reward is no quadratic, and no follower that is paid it is linear",
    ConfigurableLQR: "paid regulators are solved by route='mixed_derivative' only, and nobody plays them",
}


def _first_episodes(batch: Trajectories) -> Trajectories:
    """Return the first episode of each stream; the rest is padding."""
    first = batch.valid & (batch.time_in_episode == np.arange(batch.steps))
    return batch if first.all() else replace(batch, valid=first)


def _paid_a_tenth(target: Objective, **options: Any) -> Estimator:
    return NudgedFollowers(pay=0.1, **options)


CONFIGURATIONS = tuple(
    EstimatorEntry(
        name=name,
        summary=f"returns of followers that are paid a tenth of β, {words}: no critic",
        level="formula",
        make=partial(_paid_a_tenth, **options),
    )
    for name, words, options in (
        ("nudged", "two-sided, independent", dict[str, Any]()),
        ("nudged_common", "two-sided, common random numbers", {"numbers": "common"}),
        ("nudged_one_sided", "one-sided, independent", {"sides": 1}),
    )
)
