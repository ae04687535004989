"""Nudged followers: an estimator without a critic, from followers that are paid a little of the leader's reward.

Two populations of followers answer `r_F + w r_L` and `r_F - w r_L` (one-sided: `r_F`). With one discount γ and nothing
but their returns, by the mixed derivative of the follower's own value,

    ∇J ≈ ∇ρ + E Σ_t γ^t ∇r_L + (V_w - V_{-w})(s_0) ∇log μ / 2w + (Y_w - Y_{-w}) / 2w,                            (1)
    Y_w = Σ_t γ^t (∇r_F + γ V_w(s_{t+1}) ∇log P)  along a stream of the follower that is paid w.                 (2)

The first expectation is over unpaid streams, or without them over those of both paid populations (on one side: of the
one that is paid). Off by O(w²), and by O(w) on one side, either way. Where θ enters rewards alone (2) needs no
follower's values and nobody's probabilities: a follower that is known by its actions only will do, if the leader may
pay it. With common random numbers both populations meet the same uniform numbers, which takes a simulator and policies
that are inverted; independent ones can be people. Variances grow as w^-1 and as w^-2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, Estimator, EstimatorEntry
from bilevelrl.estimators.expectations.nudged import Population, paid_moments
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.fresh_suffixes import own_generator
from bilevelrl.reference import ConfigurableMDP, Tables
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, check_stream_steps, checked
from bilevelrl.reference.errors import (
    EstimatorError,
    IllPosedError,
    InvalidInputError,
    UnsupportedError,
    refusal,
)
from bilevelrl.reference.nudged import PaidFollower, check_pay, kernel_layout
from bilevelrl.reference.problem import Objective, Part, Term
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
        Infinite horizon: a stationary pay answers for no other.

    Raises
    ------
    InvalidInputError
        If the pay is not a finite number other than zero, or an option not known.
    UnsupportedError
        If the target has a horizon.

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

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP,)
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
        if self.target.horizon is not None:
            raise UnsupportedError(
                f"{self.name}: target horizon {self.target.horizon}: expected None; a follower that is paid for some "
                "steps only changes its policy in time, and sampled followers here do not"
            )

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
        """Refuse problems whose pay would have to change in time.

        Raises
        ------
        UnsupportedError
            If the discounts differ, or the problem is not a configurable MDP.
        """
        super().check_problem(context)
        problem = context.problem
        if problem.discount_leader != problem.discount_follower:
            raise UnsupportedError(
                f"{self.name}: discount_leader={problem.discount_leader} and "
                f"discount_follower={problem.discount_follower}: expected one discount; with two the pay follows "
                "(γ_L/γ_F)^t, and a constant one answers for a leader with the follower's discount"
            )

    def _populations(self, context: Context) -> tuple[FloatArray, tuple[Population, Population]]:
        """Return the unpaid values and both populations."""
        self.check_problem(context)
        problem, follower = context.problem, context.follower
        pay = self.pay * problem.temperature
        sides = (pay, -pay if self.sides == 2 else 0.0)
        if isinstance(problem, ConfigurableMDP):
            at = problem.at(context.theta)
            check_pay(at, follower, pay)
            paid = PaidFollower(at, self.target, follower)
            unpaid, responses = paid.unpaid, [paid.response(side) for side in sides]
        else:  # of many runs
            unpaid, responses = follower.value, problem.paid_responses(context.theta, follower, sides)
        shares = (0.0, 0.0) if self.unpaid else (0.5, 0.5) if self.sides == 2 else (1.0, 0.0)
        one, other = (
            Population(sign / (pay * self.sides), share, *response)
            for sign, share, response in zip((1.0, -1.0), shares, responses, strict=True)
        )
        return unpaid, (one, other)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of (1): unpaid streams as they are given, as many and as long of each population.

        Populations play in the context's simulator, one episode each: what comes after its end counts nothing.

        Raises
        ------
        EstimatorError
            If the context has no generator, or a given stream holds several episodes.
        """
        rng = own_generator(self.name, context.rng)
        unpaid, populations = self._populations(context)
        simulator = TabularSimulator() if context.simulator is None else context.simulator
        generators = getattr(simulator, "generators", (rng,))
        before = [generator.bit_generator.state for generator in generators]
        played: list[Trajectories] = []
        for population in populations:
            if played and self.numbers == "common":
                for generator, state in zip(generators, before, strict=True):
                    generator.bit_generator.state = state
            batch = simulator.sample(
                context.problem, context.theta, population.policy,
                streams=trajectories.streams // len(generators), steps=trajectories.steps, rng=list(generators),
            )  # fmt: skip
            played.append(_first_episodes(batch))
        gained = sum((each.weight * each.value for each in populations), np.zeros(len(populations[0].value)))
        items = self._own_contributions(trajectories if self.unpaid else played[0], context, gained)
        for population, batch in zip(populations, played, strict=True):
            items += self._paid_contributions(batch, population, unpaid, context)
        return items

    def _own_contributions(
        self, trajectories: Trajectories, context: Context, gained: FloatArray
    ) -> list[Contribution]:
        """Return what is said by the first states, and by unpaid streams if there are any."""
        starts = trajectories.episode_starts
        if (starts.sum(axis=1) > 1).any():
            found = "several episodes in one stream"
            raise EstimatorError(
                refusal(f"{self.name}: trajectories", found, "one in each", "sample with single_episode=True")
            )
        first = np.where(starts, gained[np.where(starts, trajectories.state_t, 0)], 0.0)
        items = [Contribution(part="initial", batch=trajectories, weights={"log_initial": first})]
        if self.unpaid:
            weight = _powers(trajectories, context)
            items.append(Contribution(part="direct", batch=trajectories, weights={"reward_leader": weight}))
        return items

    def _paid_contributions(
        self, batch: Trajectories, population: Population, unpaid: FloatArray, context: Context
    ) -> list[Contribution]:
        """Return (2) times what it counts: the response with unpaid values, the transition with what is added."""
        powers = _powers(batch, context)
        weight = population.weight * powers
        onward = context.problem.discount_follower * weight
        values, gains = (np.append(table, 0.0)[batch.state_tp1] for table in (unpaid, population.value - unpaid))
        response: dict[Term, FloatArray] = {"reward_follower": weight, "log_transition": onward * values}
        items = [
            Contribution(part="response", batch=batch, weights=response),
            Contribution(part="transition", batch=batch, weights={"log_transition": onward * gains}),
        ]
        if not self.unpaid:
            items.append(Contribution(part="direct", batch=batch, weights={"reward_leader": population.share * powers}))
        return items

    @checked
    def cost(self, trajectories: Trajectories, context: Context) -> dict[str, int]:
        """Return what the estimate of this batch costs; of paid populations, the expected number of steps."""
        _, populations = self._populations(context)
        tables = context.problem.tables_at(context.theta)
        kernel, initial, steps = self._dynamics(context, tables, trajectories.steps)
        paid = sum(_visits(kernel, each.policy, initial, 1.0, steps).sum() for each in populations)
        unpaid = int(trajectories.valid.sum()) if self.unpaid else 0
        return {
            "environment_steps": unpaid + round(trajectories.streams * float(paid)),
            "oracle_steps": 0,
            "follower_solves": self.sides,
        }

    def _dynamics(self, context: Context, tables: Tables, steps: int) -> tuple[FloatArray, FloatArray, int]:
        """Return the kernel (S, A, S), the initial law and the length that paid streams of so many steps have."""
        simulator = TabularSimulator() if context.simulator is None else context.simulator
        kernel = to_dense(simulator.kernel(context.problem, context.theta, tables))
        start = simulator.start_law(context.problem, context.theta, tables)
        return kernel, start, min(steps, simulator.step_limit or steps)

    def _law(self, context: Context, steps: int) -> tuple[FloatArray, FloatArray, int]:
        """Return the dynamics, where scores are of the law that samples come from."""
        simulator = TabularSimulator() if context.simulator is None else context.simulator
        moved = context.problem.varying(context.theta) & {"transition", "initial"}
        if moved and (simulator.dynamics is not None or simulator.restart != "initial"):
            raise UnsupportedError(
                f"{self.name}: θ enters {sorted(moved)} and samples come from another law: expected the problem's own "
                "simulator; measure by samples"
            )
        return self._dynamics(context, context.problem.tables_at(context.theta), steps)

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps, bias in w and by cutting streams included.

        Raises
        ------
        UnsupportedError
            If the context's simulator has a law of its own where θ enters the problem's.
        """
        check_stream_steps("horizon", horizon)
        unpaid, populations = self._populations(context)
        kernel, initial, horizon = self._law(context, horizon)
        discount = context.problem.discount_follower
        gained = sum((each.weight * each.value for each in populations), np.zeros(len(initial)))
        visits, gains = np.zeros(populations[0].policy.shape), np.zeros(kernel.shape)
        played = np.zeros(visits.shape)
        for each in populations:
            seen = _visits(kernel, each.policy, initial, discount, horizon)
            visits += each.weight * seen
            played += each.share * seen
            gains += discount * each.weight * seen[:, :, None] * (each.value - unpaid)
        if self.unpaid:
            played = _visits(kernel, context.follower.policy, initial, discount, horizon)
        at = context.problem.at(context.theta)
        ahead = discount * visits[:, :, None] * unpaid
        return {
            "initial": at.pullback({"initial": gained}),
            "direct": at.pullback({"reward_leader": played}),
            "transition": at.pullback({"transition": kernel_layout(at, gains)}),
            "response": at.pullback({"reward_follower": visits, "transition": kernel_layout(at, ahead)}),
            "regulariser": context.problem.regulariser_gradient(context.theta),
        }

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
        _, populations = self._populations(context)
        rows = np.repeat(context.problem.regulariser_gradient(context.theta)[None], trajectories.streams, axis=0)
        if self.unpaid:
            gained = sum((each.weight * each.value for each in populations), np.zeros(len(populations[0].value)))
            for item in self._own_contributions(trajectories, context, gained):
                rows = rows + item.per_stream(context)
        mean, second = paid_moments(populations, context, self._law(context, trajectories.steps), **self._coupling)
        covariance = second - np.outer(mean, mean)
        return rows + mean, np.repeat(covariance[None], trajectories.streams, axis=0)

    @property
    def _coupling(self) -> dict[str, Any]:
        return {"coupled": self.numbers == "common", "starts_count": not self.unpaid, "name": self.name}

    @checked
    def best_pay(self, context: Context, *, horizon: int, streams: Count) -> float:
        """Return the pay, in units of β, of least mean squared error for so many streams, to leading order.

        With p the number of sides, the bias is `b w^p` and the variance of one stream `v w^-q`, q = 2 for independent
        numbers and 1 for common ones, b and v from exact moments at this estimator's own pay:

            w = (q v / (2 p b² n))^(1/(2p + q)).                                                                 (3)

        Raises
        ------
        IllPosedError
            If there is no bias, as where the leader is paid nothing: then the largest pay is best.
        """
        check_stream_steps("horizon", horizon)
        _, populations = self._populations(context)
        mean, second = paid_moments(populations, context, self._law(context, horizon), **self._coupling)
        own, small = (
            sum(replace(self, pay=pay, sides=sides).expectation(context, horizon=horizon).values(), np.zeros(1))
            for pay, sides in ((self.pay, self.sides), (1e-3 * self.pay, 2))
        )
        order, power = self.sides, 2 if self.numbers == "independent" else 1
        bias = float(np.linalg.norm(own - small)) / abs(self.pay) ** order
        if bias == 0.0:
            raise IllPosedError(f"{self.name}: no bias at pay={self.pay}: expected one to weigh against the variance")
        variance = float(np.trace(second - np.outer(mean, mean))) * abs(self.pay) ** power
        return float((power * variance / (2 * order * bias**2 * streams)) ** (1.0 / (2 * order + power)))  # (3)


def _first_episodes(batch: Trajectories) -> Trajectories:
    """Return the first episode of each stream; the rest is padding."""
    first = batch.valid & (batch.time_in_episode == np.arange(batch.steps))
    return batch if first.all() else replace(batch, valid=first)


def _powers(batch: Trajectories, context: Context) -> FloatArray:
    """Return γ^t of every step that was played, (M, T)."""
    powers = context.problem.discount_leader ** batch.time_in_episode.astype(np.float64)
    return np.where(batch.valid, powers, 0.0)


def _visits(kernel: FloatArray, policy: FloatArray, initial: FloatArray, discount: float, steps: int) -> FloatArray:
    """Return Σ_{t<T} γ^t Pr(s_t = s, a_t = a), (S, A)."""
    law, total = initial, np.zeros(policy.shape)
    for _ in range(steps):
        here = law[:, None] * policy
        total += here
        law = discount * (here.ravel() @ kernel.reshape(-1, len(law)))
    return total


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
