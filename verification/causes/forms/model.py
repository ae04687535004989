"""A configurable MDP as forms read it: tables, values of both players by step, scores and the chain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.causes.forms.blanks import AtScenario, Style
from bilevelrl.verification.causes.forms.walk import Walk
from bilevelrl.verification.checks.once import evaluated_once
from bilevelrl.verification.mutants.exact import DenseTables, dense_tables, follower_fixed_point, follower_gradients

__all__ = ["LARGEST", "Model"]

LARGEST = 5_000_000
"""Numbers that a table of scores may have."""


@dataclass(frozen=True, kw_only=True)
class Model(AtScenario):
    """What (1) reads of a scenario; values have a last entry, 0, for the end.

    Attributes
    ----------
    style, steps
        What right is where streams are cut, and T.
    """

    style: Style
    steps: int

    @cached_property
    def tables(self) -> DenseTables:
        """Tables and Jacobians."""
        with evaluated_once(self.on):
            return dense_tables(self.on.problem, self.on.theta)

    @cached_property
    def solved(self) -> tuple[FloatArray, FloatArray]:
        """V_F (S + 1,) and π (S, A)."""
        value, policy = follower_fixed_point(self.tables, self.discounts[1], float(self.on.problem.temperature))
        return np.append(value, 0.0), policy

    @cached_property
    def endless(self) -> Model:
        """The same with a critic of the infinite horizon."""
        return replace(self, style="critic")

    @cached_property
    def walk(self) -> Walk:
        """The chain."""
        return Walk(initial=self.tables.initial, policy=self.solved[1], kernel=self.tables.transition, steps=self.steps)

    @cached_property
    def kernel(self) -> FloatArray:
        """(S, A, S + 1), the end last."""
        kernel = self.tables.transition
        return np.concatenate([kernel, 1.0 - kernel.sum(axis=2, keepdims=True)], axis=2)

    @cached_property
    def slope(self) -> FloatArray:
        """(S, A, S + 1, N): P ∇log P on the support."""
        slope = self.tables.d_transition
        slope = np.concatenate([slope, -slope.sum(axis=2, keepdims=True)], axis=2)
        result: FloatArray = np.where((self.kernel > 1e-14)[..., None], slope, 0.0)
        return result

    @cached_property
    def follower_action_value(self) -> FloatArray:
        """Q_F (S, A)."""
        result: FloatArray = self.tables.reward_follower + self.discounts[1] * self.kernel @ self.solved[0]
        return result

    @cached_property
    def values(self) -> FloatArray:
        """V_L (T + 1, S + 1) by steps to go; all alike with a critic of the infinite horizon."""
        own = self.discounts[0]
        mean = (self.solved[1] * self.tables.reward_leader).sum(axis=1)
        if self.style == "critic":
            value = np.linalg.solve(np.eye(mean.size) - own * self.walk.chain, mean)
            return np.broadcast_to(np.append(value, 0.0), (self.steps + 1, mean.size + 1))
        found = np.zeros((self.steps + 1, mean.size + 1))
        for h in range(1, self.steps + 1):
            found[h, :-1] = mean + own * self.walk.chain @ found[h - 1, :-1]
        return found

    @cached_property
    def ahead(self) -> FloatArray:
        """V_L of the state reached, (T, S + 1), by step."""
        return self.values[:-1][::-1]

    @cached_property
    def action_values(self) -> FloatArray:
        """Q_L (T, S, A) by step."""
        result: FloatArray = self.tables.reward_leader + self.discounts[0] * np.einsum(
            "sap,tp->tsa", self.kernel, self.ahead
        )
        return result

    @cached_property
    def state_values(self) -> FloatArray:
        """V_L (T, S) by step."""
        return self.values[1:][::-1, :-1]

    @cached_property
    def follower_gradient(self) -> FloatArray:
        """∇V_F (S, N)."""
        value, policy = self.solved
        return follower_gradients(self.tables, value[:-1], policy, self.discounts[1])[0]

    def other_follower(self, **options: Any) -> FloatArray:
        """V_F (S + 1,) of the fixed point under `follower_fixed_point`'s options."""
        value = follower_fixed_point(self.tables, self.discounts[1], float(self.on.problem.temperature), **options)[0]
        return np.append(value, 0.0)
