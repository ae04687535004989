"""The objective of a configurable MDP as a function of five θ: what finite differences know of a hypergradient.

The follower is solved to rounding for every θ that its solver reads, in stacked LAPACK systems. The response part
differences `J(θ, π(θ'))`, and every other part `J(θ', π)` at one computed π, off by δπ from the best response:
differences cannot see it, and miss the part by

    ∂J/∂θ' (θ, π + δπ) - ∂J/∂θ' (θ, π),                                                                             (1)

which is what the exact derivative makes of δπ: a term of the first-order bound of the exact derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import PARTS, AnswerBounds, Objective, Part, split_objective
from bilevelrl.reference.tabular.error_bounds import follower_error_bound, objective_noise
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular, tabular_operator
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.stacked.newton import newton_batch
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import DiscountedSystem, to_dense
from bilevelrl.reference.tabular.value_errors import ValueErrors, value_errors

__all__ = ["TabularSplit", "split_tabular"]


@split_objective.register(ConfigurableMDP)
def split_tabular(at: TabularAt, objective: Objective, *, warm_start: TabularFollower | None = None) -> TabularSplit:
    """Split the objective of a configurable MDP."""
    at.problem.derivatives.refuse_noise(at.theta)
    return TabularSplit(at, solve_tabular(at, warm_start=warm_start), objective)


class TabularSplit:
    """The objective of a configurable MDP with one of its five θ moved; see `SplitObjective`."""

    parts = PARTS

    def __init__(self, at: TabularAt, follower: TabularFollower, objective: Objective) -> None:
        problem = at.problem
        self.follower = follower
        self._at, self._tables, self._kernel, self._objective = at, at.tables, at.kernel, objective
        self._horizon = objective.horizon
        self._discount = objective.discount(problem.discount_leader)
        self._moving = problem.derivatives.dependent(at.theta)
        self._frozen: DiscountedSystem | None = None
        self._centre_follower, self._centre_leader = at.centres
        self._start = follower.value_without(at.constant)
        self._length = objective.constant_return(1.0, problem.discount_leader)
        self.condition = (1 + problem.discount_follower) / (1 - problem.discount_follower)
        self.base = (
            self._leader(self._tables, self._kernel, follower.policy)
            + float(self._tables.regulariser)
            + objective.constant_return(self._centre_leader, problem.discount_leader)
        )

    def error_bound(self, at: TabularAt) -> AnswerBounds:
        """What the exact derivative makes of the errors of the policy."""
        linear = at.problem.linearised(at.theta).at(at.theta)
        return follower_error_bound(linear, self.follower, self._objective)  # (1)

    def noise(self, part: Part, errors: ValueErrors | None = None) -> float:
        """Bound on the rounding of the values that are differenced, with 16 ulp for each table's own formula.

        `errors` are those of the follower that is solved anew, where it is another problem's; None: its own.
        """
        ulps = 16.0 * float(np.finfo(np.float64).eps)
        tables = self._tables
        if part == "regulariser":
            return ulps * abs(float(tables.regulariser))
        if part == "response" and errors is None:
            errors = self.response_errors()
        noise = objective_noise(
            tables,
            self.follower.policy,
            discount_leader=self._discount,
            centre_leader=self._centre_leader,
            errors=errors,
            horizon=self._horizon,
        )
        largest = float(np.abs(tables.reward_leader).max()) if part == "direct" else self._largest_reward()
        return noise + ulps * self._length * largest * (self._length if part == "transition" else 1.0)

    def response_errors(self) -> ValueErrors:
        """Return the errors of followers that are solved anew, with 16 ulp for the formulas of what they read."""
        formula = np.abs(np.asarray(self._tables.reward_follower))
        if "transition" in self._moving:
            formula = formula + float(np.abs(self._start).max())
        operator = tabular_operator(
            self._tables,
            np.asarray(self._tables.reward_follower) - self._centre_follower,
            self._at.problem.discount_follower,
            self._at.problem.temperature,
        )
        return value_errors(operator, self._start, 16.0 * float(np.finfo(np.float64).eps) * formula)

    def _largest_reward(self) -> float:
        return float(np.abs(self._tables.reward_leader - self._centre_leader).max())

    def depends(self, part: Part) -> bool:
        """Whether the part can be anything but zero."""
        tables = {
            "initial": {"initial"},
            "direct": {"reward_leader"},
            "transition": {"transition"},
            "response": {"transition", "reward_follower"},
            "regulariser": {"regulariser"},
        }[part]
        return bool(tables & self._moving)

    def values(self, part: Part, moved: Sequence[TabularAt]) -> FloatArray:
        """The objective with one part moved."""
        tables = [at.tables for at in moved]
        if part == "response":
            return np.array([self.earned(policy) for policy in self.responses(tables)])
        return np.array([self._moved(part, entry) for entry in tables])

    def earned(self, policy: FloatArray) -> float:
        """Return what the leader earns under a policy (S, A), without its regulariser and its constant."""
        return self._leader(self._tables, self._kernel, policy)

    def responses(self, moved: Sequence[Tables]) -> FloatArray:
        """Return the follower's policy (M, S, A) in each of several moved tables."""
        kernels = [to_dense(tables.transition) for tables in moved]
        shared = all(tables.transition is moved[0].transition for tables in moved)
        policies = []
        for first in range(0, len(moved), 256):
            chunk = slice(first, first + 256)
            _, _, policy = newton_batch(
                kernels[0][None] if shared else np.stack(kernels[chunk]),
                np.stack([tables.reward_follower for tables in moved[chunk]]) - self._centre_follower,
                discount=self._at.problem.discount_follower,
                temperature=self._at.problem.temperature,
                tolerance=1e-15,
                warm_start=np.repeat(self._start[None], len(moved[chunk]), axis=0),
            )
            policies.append(policy)
        return np.concatenate(policies)

    def _moved(self, part: Part, tables: Tables) -> float:
        base = self._tables
        if part == "regulariser":
            return float(tables.regulariser)
        name = {"initial": "initial", "direct": "reward_leader", "transition": "transition"}[part]
        kernel = to_dense(tables.transition) if part == "transition" else self._kernel
        changed = base if part == "transition" else base.replace({name: tables.differentiable()[name]})
        return self._leader(changed, kernel, self.follower.policy)

    def _leader(self, tables: Tables, kernel: FloatArray, policy: FloatArray) -> float:
        chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
        earned = (policy * (tables.reward_leader - self._centre_leader)).sum(axis=1)
        if self._horizon is None and kernel is self._kernel and policy is self.follower.policy:
            if self._frozen is None:  # only the rewards or the initial law move: one factorisation serves every step
                self._frozen = DiscountedSystem.factorise(chain, self._discount)
            value = self._frozen.solve(earned)
        elif self._horizon is None:
            value = DiscountedSystem.factorise(chain, self._discount).solve(earned)
        else:
            value = np.zeros(earned.size)
            for _ in range(self._horizon):
                value = earned + self._discount * (chain @ value)
        return float(tables.initial @ value)
