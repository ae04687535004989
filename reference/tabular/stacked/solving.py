"""Followers and adjoints of many θ of one dense configurable MDP.

Where all start from one follower, of policy π_0, steps with its system come first: one factorisation serves all θ,

    V ← V + (I - γ_F P_π₀)⁻¹ (TV - V),                                                                            (1)

and while θ are close the distance from the fixed point shrinks by as much as policies differ from π_0. Newton's method
does what is left, and the formulas of `tabular.linearise` follow with one factorisation for each θ and discount.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray
from bilevelrl.reference.tabular.fixed_point import state_scale
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.stacked.newton import (
    discounted_systems,
    newton_fixed_points,
    over_actions,
    stacked_ahead,
)
from bilevelrl.reference.tabular.stacked.tables import StackedTables
from bilevelrl.reference.tabular.transitions import factorised_in_place

__all__ = ["Found", "Solver", "joined"]

_BLOCK = 2**17
"""Entries of stacked systems that are factorised together: 1 MiB, which stays in a processor's cache."""

_CHORDS = 8  # steps (1), at most: they cost a tenth of a factorisation each
_TOLERANCE = 1e-12  # as of `solve_follower`


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known at B θ: the follower, and what the leader's return is worth and weighs; as in `LeaderEvaluation`.

    Attributes
    ----------
    iterate, value, action_value, policy, residual, at_rounding, sweeps, solves
        As of `FixedPoints`; sweeps (B,).
    chords : (B,)
        Steps by the system of the common start.
    worth, occupancy : (B, S)
        V_L, and Σ_t γ_L^t Pr(s_t = s).
    weight : (B, S, A)
        The total cotangent of r_F.
    """

    iterate: FloatArray
    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: FloatArray
    at_rounding: BoolArray
    sweeps: IntArray
    chords: IntArray
    solves: IntArray
    worth: FloatArray
    occupancy: FloatArray
    weight: FloatArray


def joined(blocks: Sequence[Found]) -> Found:
    """Return what was found in blocks of the θ, of all of them."""
    return Found(**{each.name: np.concatenate([getattr(one, each.name) for one in blocks]) for each in fields(Found)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """Solves followers and adjoints of some of the θ, in memory of its own: new pages would cost as much as the work.

    Attributes
    ----------
    problem, tables
        Of all θ.
    memory : (1 or 2, block, S, S)
        Of systems, the leader's too where the discounts differ.
    common
        Solves the system of the follower that all start from; None where each has a start of its own.
    """

    problem: ConfigurableMDP
    tables: StackedTables
    memory: FloatArray
    common: Callable[[FloatArray, bool], FloatArray] | None

    @classmethod
    def of(cls, problem: ConfigurableMDP, tables: StackedTables, start: TabularFollower | None) -> Solver:
        """Return the solver of all θ, from one follower where there is one."""
        batch, states, _ = tables.reward_follower.shape
        systems = 1 if problem.discount_leader == problem.discount_follower else 2
        size = min(batch, max(1, _BLOCK // states**2))
        common = None
        if start is not None:
            common = factorised_in_place(
                discounted_systems(tables.kernel[:1], start.policy[None], problem.discount_follower)[0]
            )
        return cls(
            problem=problem, tables=tables, memory=np.empty((systems, size, states, states)), common=common
        )  # fmt: skip

    def __call__(self, rows: slice, starts: FloatArray) -> Found:
        """Solve for some of the θ from values (block, S)."""
        tables, discount_follower = self.tables, self.problem.discount_follower
        kernel = tables.kernel if len(tables.kernel) == 1 else tables.kernel[rows]
        initial = tables.initial if len(tables.initial) == 1 else tables.initial[rows]
        reward_leader = tables.reward_leader[rows]
        chords = 0
        if self.common is not None:
            starts, chords = self._chords(kernel, tables.reward_follower[rows], starts)
        points = newton_fixed_points(
            kernel,
            tables.reward_follower[rows],
            discount=discount_follower,
            temperature=self.problem.temperature,
            start=starts,
            solve_stack=_solve_in_place,
            memory=self.memory[0],
        )
        policy, (batch, states, actions) = points.policy, points.policy.shape
        flat = kernel.reshape(-1, states * actions, states)
        solvers, *other = (
            [factorised_in_place(system) for system in discounted_systems(kernel, policy, discount, memory)]
            for discount, memory in zip((discount_follower, self.problem.discount_leader), self.memory, strict=False)
        )
        discount, own = self.problem.discount_leader, other[0] if other else solvers
        worth, occupancy = np.empty((batch, states)), np.empty((batch, states))
        earned = np.vecdot(policy, reward_leader)
        for place, solve in enumerate(own):
            worth[place] = solve(earned[place], False)
            occupancy[place] = solve(initial[place % len(initial)], True)
        action_value = reward_leader + discount * stacked_ahead(kernel, worth)
        benefit = action_value - np.vecdot(policy, action_value)[:, :, None]
        weight = occupancy[:, :, None] * policy * benefit / self.problem.temperature  # linearise (1)
        flow = weight.reshape(batch, -1)
        pushed = flow @ flat[0] if len(flat) == 1 else np.matmul(flow[:, None, :], flat)[:, 0]
        for place, solve in enumerate(solvers):
            adjoint = solve(discount_follower * pushed[place], True)  # linearise (2)
            weight[place] += adjoint[:, None] * policy[place]
        return Found(
            iterate=points.iterate,
            value=points.value,
            action_value=points.action_value,
            policy=policy,
            residual=points.residual,
            at_rounding=points.at_rounding,
            sweeps=np.full(batch, points.sweeps + chords),
            chords=np.full(batch, chords),
            solves=points.solves,
            worth=worth,
            occupancy=occupancy,
            weight=weight,
        )

    def _chords(self, kernel: FloatArray, reward: FloatArray, value: FloatArray) -> tuple[FloatArray, int]:
        """Return values after steps (1), and how many: as long as each at least halves what is left.

        One that does not is taken back, for the θ where it does not: Newton's method goes on from before it.
        """
        assert self.common is not None
        discount, temperature = self.problem.discount_follower, self.problem.temperature
        best, rate, before, step = np.full(len(value), np.inf), np.ones(len(value)), value, 0
        while True:
            action_value = reward + discount * stacked_ahead(kernel, value)
            largest = over_actions(np.maximum, action_value)
            total = over_actions(np.add, np.exp((action_value - largest) / temperature))
            backed_up = (largest + temperature * np.log(total))[:, :, 0]
            change = backed_up - value
            off = (np.abs(change) / state_scale(backed_up, temperature)).max(axis=1)
            going = off < 0.5 * best
            if not going.all():
                value = np.where(going[:, None], value, before)
            if not going.any() or step == _CHORDS:
                return value, step
            np.divide(off, best, out=rate, where=going & np.isfinite(best))
            best, before = np.where(going, off, 0.0), value
            value = value + np.where(going[:, None], self.common(change.T, False).T, 0.0)  # (1)
            step += 1
            if (rate * best <= _TOLERANCE * (1.0 - discount)).all():
                return value, step  # whether it is there, Newton's method sees


def _solve_in_place(systems: FloatArray, right: FloatArray) -> FloatArray:
    """Return the solutions of stacked systems, which are overwritten."""
    found = [factorised_in_place(system)(one, False) for system, one in zip(systems, right, strict=True)]
    return np.stack(found)
