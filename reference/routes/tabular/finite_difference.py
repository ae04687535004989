"""Central finite differences of high order with an error estimate (`scipy.differentiate`), part by part.

The only thing this route knows of a hypergradient is the objective. The follower is solved to rounding for every
perturbed θ, in stacked LAPACK systems. Several initial steps are tried per coordinate and the one with the smallest
error estimate wins, because a cold follower's objective bends on the scale of β.

The response part differences `J(θ, π(θ'))` and its estimate holds all of its errors. Every other part differences
`J(θ', π)` at one computed π, off by δπ from the best response: differences cannot see it, and miss the part by

    ∂J/∂θ' (θ, π + δπ) - ∂J/∂θ' (θ, π),                                                                             (1)

which is what the exact derivative makes of δπ. `error_bound` is the sum of all estimates and of the first-order bound
of the exact derivative, in which (1) is one of the terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import numpy as np
from scipy.differentiate import derivative

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import IllPosedError, InvalidInputError
from bilevelrl.reference.game.follower import GameFollower
from bilevelrl.reference.objective import INFINITE_HORIZON, Objective
from bilevelrl.reference.on_demand import AnswerBounds, when_read
from bilevelrl.reference.problem import PARTS, Part
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.error_bounds import follower_error_bound, objective_noise
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular, tabular_operator
from bilevelrl.reference.tabular.follower_batch import newton_batch
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import DiscountedSystem, to_dense
from bilevelrl.reference.value_errors import value_errors

__all__ = ["INITIAL_STEPS", "SplitObjective", "differentiate_part", "differentiate_parts", "finite_difference"]

INITIAL_STEPS = tuple(0.25 / 8.0**k for k in range(12))
"""First steps tried, largest first, until truncation is below noise; each is halved further by the method itself."""

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
    at: TabularAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: TabularFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by finite differences; `error_bound` is their estimates and (1)."""
    at.problem.derivatives.refuse_noise(at.theta)
    follower = solve_tabular(at, warm_start=warm_start)
    split = _SplitObjective(at, follower, objective)

    def frozen(at: TabularAt) -> AnswerBounds:
        return follower_error_bound(at.problem.linearised(at.theta).at(at.theta), follower, objective)

    source = when_read(at, frozen) if bound else None
    return differentiate_parts(split, PARTS, at.theta.size, follower, at.problem.discount_follower, frozen=source)


class SplitObjective(Protocol):
    """An objective with one of its several θ moved along a coordinate.

    Attributes
    ----------
    base : float
        Its value where nothing is moved.
    evaluations : int
        How often it has been computed.
    """

    base: float
    evaluations: int

    def depends(self, part: Part) -> bool:
        """Whether the part depends on θ at all."""
        ...

    def noise(self, part: Part) -> float:
        """Bound on the rounding of the values that are differenced."""
        ...

    def values(self, part: Part, x: FloatArray, j: Any) -> FloatArray:
        """Objective at θ + x e_j inside one part, NaN where it does not exist; x and j broadcast."""
        ...


def differentiate_parts(
    split: SplitObjective,
    names: Iterable[Part],
    count: int,
    follower: TabularFollower | GameFollower,
    discount_follower: float,
    *,
    frozen: Callable[[], AnswerBounds] | None,
) -> Hypergradient:
    """Return the hypergradient by `count` coordinates.

    `error_bound` is the error estimates summed over the parts and `frozen`, what the exact derivative makes of the
    errors of the response that all other parts hold fixed; inf where that is None.
    """
    parts: dict[Part, FloatArray] = {}
    error = np.zeros(count)
    for part in names:
        parts[part], part_error = differentiate_part(split, part, count)
        error += part_error

    def with_estimates(frozen: Callable[[], AnswerBounds]) -> AnswerBounds:
        bounds = frozen()
        return bounds._replace(gradient=float(error.max(initial=0.0)) + bounds.gradient)

    return Hypergradient(
        value=sum(parts.values(), np.zeros(count)),
        parts=parts,
        objective=split.base,
        residual=follower.residual,
        condition=(1 + discount_follower) / (1 - discount_follower),
        error_bound_source=np.inf if frozen is None else partial(with_estimates, frozen),
        route="finite_difference",
        follower=follower,
        status=follower.status.value,
        counters={"evaluations": split.evaluations},
    )


def differentiate_part(split: SplitObjective, part: Part, count: int) -> tuple[FloatArray, FloatArray]:
    """Return derivatives by `count` coordinates and their error estimates."""
    best = np.zeros(count)
    best_error = np.zeros(count)
    if count == 0 or not split.depends(part):
        return best, best_error
    best_error[:] = np.inf
    seen = np.zeros(count, dtype=np.bool_)
    pending = np.arange(count)
    noise_of_values = split.noise(part)
    differentiate: Any = derivative  # its stub admits no function of (x, *args)
    for step in INITIAL_STEPS:
        result = differentiate(
            lambda x, j: split.values(part, x, j),
            np.zeros(pending.size),
            args=(pending,),
            initial_step=step,
            maxiter=8,
            tolerances={"rtol": 0.1 * WANTED, "atol": noise_of_values / step},
            preserve_shape=False,
        )
        # Noise of the values enters the quotient too: at order 8 the smallest step of `nit` sets is step / 2^(nit+2).
        noise = 2.0 * noise_of_values / (step / 2.0 ** (np.maximum(result.nit, 1) + 2))
        change = np.abs(result.error)
        seen[pending] |= np.isfinite(result.df)
        # Quotients that still move by more than a hundredth of themselves say nothing: the step spans a bend.
        estimate = np.where(change <= np.maximum(0.01 * np.abs(result.df), noise), change + noise, np.inf)
        # A smaller step that contradicts a larger one has seen a bend that the larger one stepped over.
        contradicted = np.abs(result.df - best[pending]) > best_error[pending] + estimate
        better = np.isfinite(estimate) & np.isfinite(result.df) & ((estimate < best_error[pending]) | contradicted)
        best[pending[better]] = result.df[better]
        best_error[pending[better]] = estimate[better]
        scale = np.abs(best).max(initial=0.0)
        # A smaller step helps against truncation only: where noise dominates, this is the best there is.
        pending = pending[~(change <= np.maximum(WANTED * scale, noise))]
        if pending.size == 0:
            break
    if not seen.all():
        raise IllPosedError(
            f"theta[{int(np.argmin(seen))}]: no step to both sides keeps rows of probabilities; expected a θ "
            "inside the set where the tables are; use another route there"
        )
    return best, best_error


class _SplitObjective:
    """The objective with one of its five θ moved along a coordinate, vectorised over coordinates and steps."""

    def __init__(
        self,
        at: TabularAt,
        follower: TabularFollower,
        objective: Objective,
    ) -> None:
        problem, theta = at.problem, at.theta
        self._problem, self._theta, self._follower = problem, theta, follower
        self._horizon = objective.horizon
        self._discount = objective.discount(problem.discount_leader)
        self._tables = at.tables
        self._moving = problem.derivatives.dependent(theta)
        self._kernel = at.kernel
        self._frozen: DiscountedSystem | None = None
        self.evaluations = 0
        self._centre_follower, self._centre_leader = at.centres
        self._start = follower.value_without(at.constant)
        self._length = objective.constant_return(1.0, problem.discount_leader)
        self.base = (
            self._leader(self._tables, self._kernel, follower.policy)
            + float(self._tables.regulariser)
            + objective.constant_return(self._centre_leader, problem.discount_leader)
        )

    def noise(self, part: Part) -> float:
        """Bound on the rounding of the values that are differenced, with 16 ulp for each table's own formula."""
        ulps = 16.0 * float(np.finfo(np.float64).eps)
        tables = self._tables
        if part == "regulariser":
            return ulps * abs(float(tables.regulariser))
        errors = None
        if part == "response":
            formula = np.abs(np.asarray(tables.reward_follower))
            if "transition" in self._moving:
                formula = formula + float(np.abs(self._start).max())
            operator = tabular_operator(
                tables,
                np.asarray(tables.reward_follower) - self._centre_follower,
                self._problem.discount_follower,
                self._problem.temperature,
            )
            errors = value_errors(operator, self._start, ulps * formula)
        noise = objective_noise(
            tables,
            self._follower.policy,
            discount_leader=self._discount,
            centre_leader=self._centre_leader,
            errors=errors,
            horizon=self._horizon,
        )
        largest = float(np.abs(tables.reward_leader).max()) if part == "direct" else self._largest_reward()
        return noise + ulps * self._length * largest * (self._length if part == "transition" else 1.0)

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

    def values(self, part: Part, x: FloatArray, j: Any) -> FloatArray:
        """Objective at θ + x e_j inside one part; x and j broadcast."""
        x, j = np.broadcast_arrays(x, j)
        moved, inside = [], np.ones(x.size, dtype=np.bool_)
        for k, (offset, coordinate) in enumerate(zip(x.ravel(), j.ravel(), strict=True)):
            point = self._theta.copy()
            point.flat[int(coordinate)] += offset
            try:
                moved.append(self._problem.tables_at(point))
            except InvalidInputError:  # the step has left where the tables are tables
                inside[k] = False
        self.evaluations += len(moved)
        results = np.full(x.size, np.nan)
        if not moved:
            return results.reshape(x.shape)
        if part == "response":
            results[inside] = [self._leader(self._tables, self._kernel, policy) for policy in self._responses(moved)]
        else:
            results[inside] = [self._moved(part, tables) for tables in moved]
        return results.reshape(x.shape)

    def _responses(self, moved: list[Tables]) -> FloatArray:
        kernels = [to_dense(tables.transition) for tables in moved]
        shared = all(tables.transition is moved[0].transition for tables in moved)
        policies = []
        for first in range(0, len(moved), 256):
            chunk = slice(first, first + 256)
            _, _, policy = newton_batch(
                kernels[0][None] if shared else np.stack(kernels[chunk]),
                np.stack([tables.reward_follower for tables in moved[chunk]]) - self._centre_follower,
                discount=self._problem.discount_follower,
                temperature=self._problem.temperature,
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
        return self._leader(changed, kernel, self._follower.policy)

    def _leader(self, tables: Tables, kernel: FloatArray, policy: FloatArray) -> float:
        chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
        earned = (policy * (tables.reward_leader - self._centre_leader)).sum(axis=1)
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
        return float(tables.initial @ value)
