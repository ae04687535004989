"""What estimators may ask of many seeds' problems together, as one problem on the states (seed, state)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, SparseTransition
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.nudged import check_rounding
from bilevelrl.reference.tabular import newton_batch

__all__ = ["Union", "UnionFollower", "UnionTables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnionFollower:
    """The followers of all seeds on the states (seed, state)."""

    value: FloatArray
    action_value: FloatArray
    policy: FloatArray

    def value_at(self, state: IntArray) -> FloatArray:
        """Return V_F of each (seed, state); zero at the end."""
        worth: FloatArray = np.append(self.value, 0.0)[state]
        return worth


@dataclass(frozen=True, slots=True)
class UnionTables:
    """The only table that the union has: r_F on the states (seed, state)."""

    reward_follower: Any


class Union:
    """What estimators may ask of all seeds' problems together: what they have in common, and r_F."""

    __slots__ = (
        "_problem", "discount_follower", "discount_leader", "tables_jacobian", "tables_pullback", "temperature",
    )  # fmt: skip

    def __init__(self, problem: ConfigurableMDP) -> None:
        self._problem = problem
        self.discount_leader = problem.discount_leader
        self.discount_follower = problem.discount_follower
        self.temperature = problem.temperature
        self.tables_jacobian, self.tables_pullback = problem.tables_jacobian, problem.tables_pullback  # whether given

    def varying(self, thetas: FloatArray) -> frozenset[str]:
        """Return which tables depend on θ."""
        return self._problem.varying(thetas[0])

    def tables(self, thetas: Any) -> UnionTables:
        """Return the follower's rewards on the states (seed, state); traceable."""
        if self._problem.stacked_rewards is not None:
            follower, _ = self._problem.stacked_rewards(thetas)
            return UnionTables(anp.reshape(follower, (-1, follower.shape[2])))
        rewards = [self._problem.tables(theta).reward_follower for theta in thetas]
        return UnionTables(anp.concatenate(rewards, axis=0))

    def evaluate(self, thetas: FloatArray) -> UnionTables:
        """Return the follower's rewards."""
        return self.tables(thetas)

    def paid_responses(
        self, thetas: FloatArray, follower: UnionFollower, pays: Sequence[float]
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Return values and policies on the states (seed, state) of followers of `r_F + w r_L`, for each w."""
        reward, bonus = self._problem.rewards(thetas)
        kernel, (seeds, states, actions) = self._problem.tables_at(thetas[0]).transition, reward.shape
        assert not isinstance(kernel, SparseTransition)  # a batch of seeds has none
        found = []
        size = self.temperature + float(np.abs(follower.value).max())
        for pay in pays:
            check_rounding(pay, float(np.abs(bonus).max()), size, self.discount_follower)
            value, _, policy = newton_batch(
                kernel[None],
                reward + pay * bonus,
                discount=self.discount_follower,
                temperature=self.temperature,
                tolerance=1e-10,
                warm_start=follower.value.reshape(seeds, states),
            )
            found.append((value.ravel(), policy.reshape(-1, actions)))
        return found

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedError(
            f"{name} was asked of a batch of seeds, which share only discounts and temperature: "
            "expected an estimator that reads its critic from the context; estimate seed after seed"
        )
