"""The complex step: Im J(θ + i h e_j) / h with h so small that nothing but the derivative is left.

Own sweeps in complex arithmetic: the log-sum-exp is shifted by the largest real part, nothing is compared, and after
the real parts have settled the sweeps go on until the imaginary parts over h have settled too, as many as the problem's
mixing needs. The tables' function
must be analytic near θ: no abs, conj, or comparison on values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from numpy.exceptions import ComplexWarning

from bilevelrl.reference.arrays import ComplexArray, FloatArray, Traced
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.problem import PARTS, AnswerBounds, ComplexParts, Objective, Part, complex_parts
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.sweeps import SweepPlan, plan_sweeps
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import to_dense

__all__ = ["STEP", "complex_policies", "complex_tables", "swept_parts", "tabular_complex_parts"]

STEP = 1e-100
_CHUNK_ENTRIES = 4_000_000  # complex kernel entries held at once: 64 MB


@complex_parts.register(ConfigurableMDP)
def tabular_complex_parts(at: TabularAt, objective: Objective) -> ComplexParts:
    """Return J and its derivatives, coordinate by coordinate in batches.

    Raises
    ------
    InvalidInputError
        If the tables' function does not accept a complex θ or returns no finite numbers there.
    """
    plan = plan_sweeps(at)

    def error_bound(at: TabularAt) -> AnswerBounds:
        return plan.error_bound(at.problem.linearised(at.theta).at(at.theta), objective)

    return swept_parts(at, at, objective, plan, error_bound)


def swept_parts(
    planned: TabularAt, at: TabularAt, objective: Objective, plan: SweepPlan, error_bound: Callable[..., AnswerBounds]
) -> ComplexParts:
    """Return J of the problem `at` and its derivatives, under the follower of the planned one."""
    problem, theta, tables, kernel = at.problem, at.theta, at.tables, at.kernel
    for each in {id(own): own for own in (planned.problem, problem)}.values():
        each.derivatives.confirm_complex_step(theta)
    steps = plan.leader if objective.horizon is None else objective.horizon
    parts: dict[Part, FloatArray] = {part: np.zeros(theta.size) for part in PARTS}
    earned = 0.0
    chunk = max(1, _CHUNK_ENTRIES // kernel.size)
    for first in range(0, theta.size, chunk):
        coordinates = range(first, min(first + chunk, theta.size))
        moved = list(complex_tables(problem, theta, coordinates))
        policies = complex_policies(
            moved if planned is at else list(complex_tables(planned.problem, theta, coordinates)),
            planned.kernel,
            plan.centre_follower,
            problem.discount_follower,
            problem.temperature,
            plan.follower,
        )
        for j, point, policy in zip(coordinates, moved, policies, strict=True):
            discount = objective.discount(problem.discount_leader)
            frozen, reward = policy.real, tables.reward_leader - plan.centre_leader
            base = _leader_values(frozen, kernel, reward, discount, steps)
            earned = float(tables.initial @ base + tables.regulariser)
            shifted = to_dense(point.transition)
            starts: dict[Part, Traced] = {"initial": point.initial @ base, "regulariser": np.asarray(point.regulariser)}
            if _has_tangent(point.reward_leader):
                paid = point.reward_leader - plan.centre_leader
                starts["direct"] = tables.initial @ _leader_values(frozen, kernel, paid, discount, steps)
            if _has_tangent(shifted):
                starts["transition"] = tables.initial @ _leader_values(frozen, shifted, reward, discount, steps)
            starts["response"] = tables.initial @ _leader_values(policy, kernel, reward, discount, steps)
            for name, start in starts.items():
                parts[name][j] = float(np.imag(start)) / STEP
    return ComplexParts(
        objective=earned + objective.constant_return(plan.centre_leader, problem.discount_leader),
        parts=parts,
        residual=plan.residual,
        condition=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        counters={"sweeps": theta.size * (plan.follower + steps), "evaluations": theta.size},
        error_bound=error_bound,
    )


def _has_tangent(values: Traced) -> bool:
    return np.iscomplexobj(values) and bool(np.any(np.imag(values)))


def complex_tables(problem: ConfigurableMDP, theta: FloatArray, coordinates: range) -> Iterator[Tables]:
    """Yield the tables an imaginary step along each coordinate of θ away, or raise as `tabular_complex_parts`."""
    for j in coordinates:
        point = theta.astype(np.complex128)
        point.flat[j] += 1j * STEP
        try:
            with warnings.catch_warnings():
                # A cast to float would lose the derivative and say so in a warning only.
                warnings.simplefilter("error", ComplexWarning)
                tables = problem.evaluate(point)
        except (InvalidInputError, ComplexWarning) as error:
            raise InvalidInputError(
                f"tables(complex theta) raised {error}: expected a function analytic in θ; "
                "write it without casts to float, or use another route"
            ) from error
        if not all(np.isfinite(np.asarray(value)).all() for value in tables.differentiable().values()):
            raise InvalidInputError(f"tables(theta + i h e_{j}): expected finite numbers; use another route")
        yield tables


def complex_policies(
    moved: list[Tables], kernel: FloatArray, centre: float, discount: float, temperature: float, sweeps: int
) -> ComplexArray:
    """Return the follower's policies (coordinates, S, A) for a batch of complex tables."""
    states, actions, _ = kernel.shape
    rows = kernel.reshape(states * actions, states)
    rewards = np.stack([np.asarray(tables.reward_follower, dtype=np.complex128) for tables in moved]) - centre
    kernels = [to_dense(tables.transition) for tables in moved]
    own_kernels = None
    if any(_has_tangent(k) for k in kernels):
        own_kernels = np.stack([np.asarray(k, dtype=np.complex128).reshape(states * actions, states) for k in kernels])
    value = np.zeros((len(moved), states), dtype=np.complex128)
    for _ in range(sweeps):
        ahead = (
            _times_real(value, rows.T) if own_kernels is None else np.matmul(own_kernels, value[:, :, None])[:, :, 0]
        )
        action_value = rewards + discount * ahead.reshape(rewards.shape)
        peak = action_value.real.max(axis=2, keepdims=True)
        weights = np.exp((action_value - peak) / temperature)
        mass = weights.sum(axis=2, keepdims=True)
        value = (peak + temperature * np.log(mass))[:, :, 0]
    policies: ComplexArray = weights / mass
    return policies


def _times_real(left: ComplexArray, right: FloatArray) -> ComplexArray:
    """Return left @ right in one real product, a quarter of the work of a complex one."""
    count = left.shape[0]
    product = np.concatenate([left.real, left.imag]) @ right
    result = np.empty((count, right.shape[1]), dtype=np.complex128)
    result.real, result.imag = product[:count], product[count:]
    return result


def _leader_values(policy: Traced, kernel: Traced, reward: Traced, discount: float, steps: int) -> Traced:
    """Complex policy evaluation by sweeps, from zero: V_L (S,)."""
    chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
    earned = (policy * reward).sum(axis=1)
    value = np.zeros(earned.shape, dtype=np.result_type(chain, earned))
    for _ in range(steps):
        value = earned + discount * (chain @ value)
    return value
