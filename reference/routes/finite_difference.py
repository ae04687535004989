"""Central finite differences of high order with an error estimate (`scipy.differentiate`), part by part.

The only thing this route knows of a hypergradient is the objective. The follower is solved to rounding for every
perturbed θ, in stacked LAPACK systems. Several initial steps are tried per coordinate and the one with the smallest
error estimate wins, because a cold follower's objective bends on the scale of β.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.differentiate import derivative

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.configurable_mdp import ConfigurableMDP
from bilevelrl.reference.follower import TabularFollower, newton_batch, solve_follower
from bilevelrl.reference.leader import check_horizon
from bilevelrl.reference.problem import PARTS, Part
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tables import Tables
from bilevelrl.reference.transitions import DiscountedSystem, to_dense

__all__ = ["INITIAL_STEPS", "finite_difference"]

INITIAL_STEPS = (0.25, 0.03125, 0.00390625)
"""First steps tried, largest first; each is halved further by the method itself."""

WANTED = 1e-9
"""Relative error estimate at which a coordinate is done."""


@register_route(
    "finite_difference",
    ConfigurableMDP,
    summary="central differences of order 8 with an error estimate (scipy.differentiate)",
    family="objective values",
    accuracy="its own error estimate, 1e-9 relative where the objective allows",
)
def finite_difference(
    problem: ConfigurableMDP,
    theta: FloatArray,
    *,
    horizon: int | None = None,
    discounted: bool = True,
    warm_start: TabularFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by finite differences; `error_bound` is the largest error estimate summed over the parts."""
    check_horizon(horizon, discounted)
    follower = solve_follower(problem, theta, warm_start=warm_start)
    split = _SplitObjective(problem, theta, follower, horizon, discounted)
    parts: dict[Part, FloatArray] = {}
    error = np.zeros(theta.size)
    for part in PARTS:
        parts[part], part_error = _differentiate(split, part, theta.size)
        error += part_error
    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=split.base,
        residual=follower.residual,
        condition=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        error_bound=float(error.max(initial=0.0)) if bound else np.inf,
        route="finite_difference",
        status=follower.status.value,
        counters={"evaluations": split.evaluations},
    )


def _differentiate(split: _SplitObjective, part: Part, count: int) -> tuple[FloatArray, FloatArray]:
    best = np.zeros(count)
    best_error = np.zeros(count)
    if not split.depends(part):
        return best, best_error
    best_error[:] = np.inf
    pending = np.arange(count)
    differentiate: Any = derivative  # its stub admits no function of (x, *args)
    for step in INITIAL_STEPS:
        result = differentiate(
            lambda x, j: split.values(part, x, j),
            np.zeros(pending.size),
            args=(pending,),
            initial_step=step,
            maxiter=8,
            tolerances={"rtol": 0.1 * WANTED, "atol": split.noise / step},
            preserve_shape=False,
        )
        # Solver noise enters the quotient too: values are known to rounding, the final step is step / 2^nit.
        noise = split.noise / (step / 2.0 ** np.maximum(result.nit, 1))
        estimate = np.abs(result.error) + noise
        better = np.isfinite(estimate) & np.isfinite(result.df) & (estimate < best_error[pending])
        best[pending[better]] = result.df[better]
        best_error[pending[better]] = estimate[better]
        scale = np.abs(best).max(initial=0.0)
        # A smaller step helps against truncation only: where noise dominates, this is the best there is.
        pending = pending[~(np.abs(result.error) <= np.maximum(WANTED * scale, noise))]
        if pending.size == 0:
            break
    return best, best_error


class _SplitObjective:
    """The objective with one of its five θ moved along a coordinate, vectorised over coordinates and steps."""

    def __init__(
        self,
        problem: ConfigurableMDP,
        theta: FloatArray,
        follower: TabularFollower,
        horizon: int | None,
        discounted: bool,
    ) -> None:
        self._problem, self._theta, self._follower = problem, theta, follower
        self._horizon = horizon
        self._discount = problem.discount_leader if discounted else 1.0
        self._tables = problem.tables_at(theta)
        self._kernel = to_dense(self._tables.transition)
        self._frozen: DiscountedSystem | None = None
        self.evaluations = 0
        self.base = self._leader(self._tables, self._kernel, follower.policy)
        length = (1.0 / (1.0 - problem.discount_leader)) if horizon is None else float(horizon)
        self.noise = 16 * float(np.finfo(np.float64).eps) * length * float(np.abs(self._tables.reward_leader).max())

    def depends(self, part: Part) -> bool:
        """Whether the part can be anything but zero."""
        tables = {
            "initial": {"initial"},
            "direct": {"reward_leader"},
            "transition": {"transition"},
            "response": {"transition", "reward_follower"},
            "regulariser": {"regulariser"},
        }[part]
        return bool(tables & self._problem.varying(self._theta))

    def values(self, part: Part, x: FloatArray, j: Any) -> FloatArray:
        """Objective at θ + x e_j inside one part; x and j broadcast."""
        x, j = np.broadcast_arrays(x, j)
        moved = []
        for offset, coordinate in zip(x.ravel(), j.ravel(), strict=True):
            point = self._theta.copy()
            point.flat[int(coordinate)] += offset
            moved.append(self._problem.tables_at(point))
        self.evaluations += len(moved)
        if part == "response":
            results = [self._leader(self._tables, self._kernel, policy) for policy in self._responses(moved)]
        else:
            results = [self._moved(part, tables) for tables in moved]
        return np.array(results).reshape(x.shape)

    def _responses(self, moved: list[Tables]) -> FloatArray:
        kernels = [to_dense(tables.transition) for tables in moved]
        shared = all(tables.transition is moved[0].transition for tables in moved)
        policies = []
        for first in range(0, len(moved), 256):
            chunk = slice(first, first + 256)
            _, _, policy = newton_batch(
                kernels[0][None] if shared else np.stack(kernels[chunk]),
                np.stack([tables.reward_follower for tables in moved[chunk]]),
                discount=self._problem.discount_follower,
                temperature=self._problem.temperature,
                tolerance=1e-15,
                warm_start=np.repeat(self._follower.value[None], len(moved[chunk]), axis=0),
            )
            policies.append(policy)
        return np.concatenate(policies)

    def _moved(self, part: Part, tables: Tables) -> float:
        base = self._tables
        if part == "regulariser":
            return self.base - float(base.regulariser) + float(tables.regulariser)
        name = {"initial": "initial", "direct": "reward_leader", "transition": "transition"}[part]
        kernel = to_dense(tables.transition) if part == "transition" else self._kernel
        changed = base if part == "transition" else base.replace({name: tables.differentiable()[name]})
        return self._leader(changed, kernel, self._follower.policy)

    def _leader(self, tables: Tables, kernel: FloatArray, policy: FloatArray) -> float:
        chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
        earned = (policy * tables.reward_leader).sum(axis=1)
        if self._horizon is None and kernel is self._kernel and policy is self._follower.policy:
            if self._frozen is None:  # only the rewards or the initial law move: one factorisation serves every step
                self._frozen = DiscountedSystem.factorise(chain, self._discount)
            value = self._frozen.solve(earned)
        elif self._horizon is None:
            value = np.linalg.solve(np.eye(earned.size) - self._discount * chain, earned)
        else:
            value = np.zeros(earned.size)
            for _ in range(self._horizon):
                value = earned + self._discount * (chain @ value)
        return float(tables.initial @ value + tables.regulariser)
