"""The same with a pay that can be paid: differences between followers that answer `r_F + w (γ_L/γ_F)^t r_L`, w real.

What a follower is worth at w moves with the tables as in (3) of `bilevelrl.reference.nudged.tabular`,

    G(w) = ∂μ·V_0 + Σ_t γ_F^t E_w[∂r_F + w_t ∂r_L + γ_F ∂P V_{t+1}],    w_t = w (γ_L/γ_F)^t,                     (1)
    ∇J = ∇ρ + (G(w) - G(-w)) / 2w + O(w²)  =  ∇ρ + (G(w) - G(0)) / w + O(w).                                     (2)

With equal discounts over an infinite horizon the paid follower is stationary. Otherwise its values run backwards from
the unpaid ones: from T in an episode, or from a step N on after which all the pay that is left, at most
`w γ_L^N max|r_L| / (1-γ_L)` to any follower, is lost in rounding. Where the pay grows in time (γ_L > γ_F) the k-th
derivative of V_0 in w exists while `γ_F (γ_L/γ_F)^k < 1`, and the differences (2) fall as slowly as
`w^(log γ_L / log(γ_F/γ_L))` if that is less than the first or the second power.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, log

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.arrays.discounted_system import FactorisedSystem
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, TooLargeError, UnsupportedError, refusal
from bilevelrl.reference.nudged.tabular import kernel_layout
from bilevelrl.reference.problem import Objective, Part
from bilevelrl.reference.tabular.fixed_point import find_fixed_point, soft_bellman
from bilevelrl.reference.tabular.follower import TabularFollower, tabular_operator
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["PaidFollower", "PaidMoments", "check_pay", "check_rounding"]

LARGEST = 1e100
"""Largest pay w_t max|r_L| in units of β: what it earns, discounted at γ_F, keeps its digits until it overflows."""

_LEFT = 1e-17  # of the pay's return
_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class PaidMoments:
    """What (1) is made of at one w.

    Attributes
    ----------
    start : (S,)
        V_0.
    visits : (S, A)
        Σ γ_F^t Pr_w(s_t, a_t).
    leading : (S, A)
        Σ γ_L^t Pr_w(s_t, a_t).
    moving : (S, A, S)
        Σ γ_F^(t+1) Pr_w(s_t, a_t) V_{t+1}(s').
    """

    start: FloatArray
    visits: FloatArray
    leading: FloatArray
    moving: FloatArray


def check_pay(at: TabularAt, follower: TabularFollower, pay: float) -> float:
    """Return what rounding leaves uncertain of a difference between followers, relative to it; or refuse the pay.

    Raises
    ------
    InvalidInputError
        If the pay is not a finite number other than zero, or rounding is more than a tenth of the difference.
    """
    remedy = "pay a hundredth of β in units of r_L; route='mixed_derivative' needs no pay that can be seen"
    if isinstance(pay, bool) or not isinstance(pay, (int, float, np.floating)) or not isfinite(pay) or pay == 0.0:
        raise InvalidInputError(refusal("pay", pay, "a finite number other than zero", remedy))
    bonus = float(np.abs(at.tables.reward_leader).max())
    size = at.problem.temperature + float(np.abs(follower.value_without(at.constant)).max())
    return check_rounding(pay, bonus, size, at.problem.discount_follower)


def check_rounding(pay: float, bonus: float, size: float, discount: float) -> float:
    """Return what rounding leaves uncertain, by the largest |r_L| and the size of the follower's values; or refuse."""
    paid = abs(pay) * bonus
    lost = float(np.finfo(np.float64).eps) * size / ((1.0 - discount) * paid) if paid else 0.0
    if lost > 0.1:
        remedy = "pay a hundredth of β in units of r_L; route='mixed_derivative' needs no pay that can be seen"
        least = f"at least {10.0 * abs(pay) * lost:.2g}; rounding is {lost:.2g} of it"
        raise InvalidInputError(refusal("pay", pay, least, remedy))
    return lost


class PaidFollower:
    """A configurable MDP's follower under any pay w.

    Attributes
    ----------
    unpaid : (S,)
        V_F, without the constants that move no derivative; the paid values are without them too.
    discount : float
        γ_F.
    """

    def __init__(self, at: TabularAt, objective: Objective, follower: TabularFollower) -> None:
        problem = at.problem
        self._at, self.unpaid = at, follower.value_without(at.constant)
        self._reward = np.asarray(at.tables.reward_follower) - at.centres[0]
        self._bonus = np.asarray(at.tables.reward_leader) - at.centres[1]
        self.discount = problem.discount_follower
        self._leading = objective.discount(problem.discount_leader)
        self._steps = objective.horizon
        self._stationary = objective.horizon is None and self._leading == self.discount
        if self._steps is None and not self._stationary:
            self._steps = 1 if self._leading == 0.0 else ceil(log(_LEFT) / log(self._leading))
            if self._steps > _STEPS:
                raise TooLargeError(
                    f"discount_leader={self._leading}: {self._steps} steps of pay, expected at most {_STEPS}; "
                    "use route='mixed_derivative', whose cost is free of them"
                )

    def moments(self, pay: float) -> PaidMoments:
        """Return the moments at w.

        Raises
        ------
        IllPosedError
            If the pay grows beyond `LARGEST`.
        """
        return self._for_ever(pay) if self._stationary else self._in_time(pay)

    def response(self, pay: float) -> tuple[FloatArray, FloatArray]:
        """Return the values (S,) and the policy (S, A) of a follower whose pay stays the same in time.

        Raises
        ------
        UnsupportedError
            If it does not.
        """
        if not self._stationary:
            raise UnsupportedError("pay that changes in time: expected equal discounts and an infinite horizon")
        reward = self._reward + pay * self._bonus
        found = find_fixed_point(
            self.unpaid,
            tabular_operator(self._at.tables, reward, self.discount, self._at.problem.temperature),
            method="newton",
            tolerance=1e-15,
            max_iterations=None,
            stop_after=None,
            throw=True,
        )
        return found.value, found.policy

    def _for_ever(self, pay: float) -> PaidMoments:
        value, policy = self.response(pay)
        visits = self._go_on(policy, np.asarray(self._at.tables.initial, dtype=np.float64))
        return PaidMoments(value, visits, visits, self.discount * visits[:, :, None] * value)

    def _go_on(self, policy: FloatArray, law: FloatArray) -> FloatArray:
        """Return Σ_t γ_F^t Pr(s_t, a_t) from a law of the first state on."""
        chain = np.matmul(policy[:, None, :], self._at.kernel)[:, 0, :]
        return FactorisedSystem.of(chain, self.discount).solve_transposed(law)[:, None] * policy

    def plan(self, pay: float, steps: int) -> tuple[FloatArray, FloatArray]:
        """Return values (steps + 1, S) and policies (steps, S, A) of each step; one of each where all are alike.

        Raises
        ------
        IllPosedError
            If the pay grows beyond `LARGEST`.
        """
        if self._stationary:
            value, policy = self.response(pay)
            return value[None], policy[None]
        values, policies, _ = self._backwards(pay)
        after = self._unpaid_policy()
        values += [self.unpaid] * (steps + 1 - len(values))
        policies += [after] * (steps - len(policies))
        return np.array(values[: steps + 1]), np.array(policies[:steps])

    @property
    def growth(self) -> float:
        """γ_L/γ_F, by which the pay grows at each step; zero of a follower without a future."""
        return self._leading / self.discount if self.discount else 0.0

    def pays_at(self, time: int) -> bool:
        """Return whether anything is paid at a step."""
        return self._stationary or self._steps is None or time < self._steps

    def _unpaid_policy(self) -> FloatArray:
        temperature = self._at.problem.temperature
        return soft_bellman(self._at.tables.transition, self._reward, self.discount, temperature, self.unpaid)[2]

    def _backwards(self, pay: float) -> tuple[list[FloatArray], list[FloatArray], FloatArray]:
        """Return V_0 ... V_T, the policies of T steps, and what w is multiplied with at each."""
        at, steps = self._at, self._steps
        assert steps is not None
        if self.discount == 0.0 and self._leading > 0.0 and steps > 1:
            raise IllPosedError(
                "discount_follower=0.0: a follower without a future sees no pay that is worth anything to it later; "
                "expected a positive discount; use route='mixed_derivative', which takes the limit"
            )
        with np.errstate(over="ignore"):
            weights = self.growth ** np.arange(steps, dtype=np.float64)
            grown = float(weights.max())
            largest = abs(pay) * grown * float(np.abs(self._bonus).max()) / at.problem.temperature
            largest = largest if isfinite(grown) else grown  # of a leader without rewards too, whose slopes it weighs
        if not largest <= LARGEST:
            raise IllPosedError(
                f"pay={pay}: grows by {self.growth:.4g} at each of {steps} steps, to {largest:.2g} times β, expected "
                f"at most {LARGEST:.0e}; pay less, take fewer steps, or use route='mixed_derivative', where only "
                "products with the follower's discount enter"
            )
        values, policies = [self.unpaid], []
        for t in reversed(range(steps)):
            reward = self._reward + pay * weights[t] * self._bonus
            value, _, policy = soft_bellman(
                at.tables.transition, reward, self.discount, at.problem.temperature, values[-1]
            )
            values.append(value)
            policies.append(policy)
        return values[::-1], policies[::-1], weights

    def _in_time(self, pay: float) -> PaidMoments:
        at = self._at
        values, policies, weights = self._backwards(pay)
        visits, leading = np.zeros(self._reward.shape), np.zeros(self._reward.shape)
        moving = np.zeros(at.kernel.shape)
        law = np.asarray(at.tables.initial, dtype=np.float64)  # times γ_F^t
        rows = at.kernel.reshape(-1, len(law))
        for t, policy in enumerate(policies):
            here = law[:, None] * policy
            visits += here
            leading += weights[t] * here
            moving += self.discount * here[:, :, None] * values[t + 1]
            law = self.discount * (here.ravel() @ rows)
        after = self._go_on(self._unpaid_policy(), law)
        moving += self.discount * after[:, :, None] * self.unpaid
        return PaidMoments(values[0], visits + after, leading, moving)

    def gradient(self, pay: float) -> FloatArray:
        """Return G(pay) of (1), (N,): how θ moves what the follower is worth at the start."""
        found = self.moments(pay)
        return self._at.pullback(
            {
                "initial": found.start,
                "reward_follower": found.visits,
                "reward_leader": pay * found.leading,
                "transition": kernel_layout(self._at, found.moving),
            }
        )

    def difference(self, pay: float, other: float) -> dict[Part, FloatArray]:
        """Return {part: (G(pay) - G(other)) / (pay - other)}, (N,) each, ρ included, by what moves in (1).

        `response` is the visits, with the unpaid values; `transition` and `initial` the values; `direct` the pay.
        """
        at, one, two = self._at, self.moments(pay), self.moments(other)
        apart = pay - other
        visits = (one.visits - two.visits) / apart
        through = self.discount * visits[:, :, None] * self.unpaid
        cotangents: dict[Part, dict[str, FloatArray]] = {
            "initial": {"initial": (one.start - two.start) / apart},
            "direct": {"reward_leader": (pay * one.leading - other * two.leading) / apart},
            "transition": {"transition": kernel_layout(at, (one.moving - two.moving) / apart - through)},
            "response": {"reward_follower": visits, "transition": kernel_layout(at, through)},
            "regulariser": {"regulariser": np.ones(())},
        }
        return {part: at.pullback(entries) for part, entries in cotangents.items()}
