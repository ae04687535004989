"""The exact hypergradient in one page of plain linear algebra, with switches that plant one error each.

`ExactFormula()` is right: Theorem 1 (5)-(6) of arXiv:2603.14867 evaluated on dense tables, sharing no code with the
routes beyond the tables and their Jacobians. Every field is one place where published code or a usual slip went wrong;
the first value of each is the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular import to_dense

__all__ = [
    "DenseTables",
    "ExactFormula",
    "Remembering",
    "dense_tables",
    "follower_fixed_point",
    "follower_gradients",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTables:
    """All tables and their Jacobians as dense arrays; tables that do not depend on θ have Jacobian zero.

    Attributes
    ----------
    transition, reward_follower, reward_leader, initial
        (S, A, S), (S, A), (S, A), (S,).
    d_transition, d_reward_follower, d_reward_leader, d_initial, d_regulariser
        The same with a last axis N; (N,) for the regulariser.
    """

    transition: FloatArray
    reward_follower: FloatArray
    reward_leader: FloatArray
    initial: FloatArray
    d_transition: FloatArray
    d_reward_follower: FloatArray
    d_reward_leader: FloatArray
    d_initial: FloatArray
    d_regulariser: FloatArray


def dense_tables(problem: ConfigurableMDP, theta: FloatArray) -> DenseTables:
    """Read tables and Jacobians at θ."""
    tables = problem.tables_at(theta)
    kernel = np.asarray(to_dense(tables.transition), dtype=np.float64)
    values = {
        "transition": kernel,
        "reward_follower": np.asarray(tables.reward_follower, dtype=np.float64),
        "reward_leader": np.asarray(tables.reward_leader, dtype=np.float64),
        "initial": np.asarray(tables.initial, dtype=np.float64),
    }
    slopes = problem.jacobian(theta)
    derivatives = {
        f"d_{name}": np.asarray(slopes.get(name, np.zeros((*value.shape, theta.size))))
        for name, value in values.items()
    }
    return DenseTables(
        **values, **derivatives, d_regulariser=np.asarray(slopes.get("regulariser", np.zeros(theta.size)))
    )


def follower_fixed_point(
    tables: DenseTables,
    discount: float,
    temperature: float,
    *,
    sweeps: int | None = None,
    start: Sequence[float] = (),
    hard: bool = False,
    exchanged: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Return V_F (S,) and π (S, A): by soft policy iteration, or after some sweeps of value iteration.

    Parameters
    ----------
    tables, discount, temperature
        The follower's problem.
    sweeps
        None: to the fixed point.
    start
        Values to start from; default: zeros.
    hard
        Back up by the maximum instead of the log-sum-exp; the policy stays soft.
    exchanged
        Take the log-sum-exp of the mean over next states, not the mean of their log-sum-exps.
    """
    if exchanged:
        return _exchanged_fixed_point(tables, discount, temperature)
    value = np.array(start) if len(start) else np.zeros(tables.initial.size)
    eye = np.eye(value.size)
    policy = np.full(tables.reward_follower.shape, 1.0 / tables.reward_follower.shape[1])
    for _ in range(100 if sweeps is None else sweeps):
        action_value = tables.reward_follower + discount * tables.transition @ value
        top = action_value.max(axis=1)
        weights = np.exp((action_value - top[:, None]) / temperature)
        policy = weights / weights.sum(axis=1, keepdims=True)
        backed_up = top if hard else top + temperature * np.log(weights.sum(axis=1))
        if sweeps is not None:
            value = backed_up
            continue
        acting = (action_value >= top[:, None]) / (action_value >= top[:, None]).sum(axis=1, keepdims=True)
        chain = np.einsum("sa,sap->sp", acting if hard else policy, tables.transition)
        step = np.linalg.solve(eye - discount * chain, backed_up - value)
        value = value + step
        if np.abs(step).max() <= 1e-15 * max(1.0, float(np.abs(value).max())):
            break
    return value, policy


def _soft(action_value: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
    """Log-sum-exp and softmax over the last axis."""
    top = action_value.max(axis=-1, keepdims=True)
    weights = np.exp((action_value - top) / temperature)
    total = weights.sum(axis=-1, keepdims=True)
    return (top + temperature * np.log(total))[..., 0], weights / total


def _exchanged_fixed_point(tables: DenseTables, discount: float, temperature: float) -> tuple[FloatArray, FloatArray]:
    """Sweeps of `Q = r + γ β log Σ_a' exp(E_s' Q(s', a') / β)`, as if the next state were not seen before acting."""
    goes_on = tables.transition.sum(axis=2)
    ahead = tables.transition / np.where(goes_on > 0.0, goes_on, 1.0)[:, :, None]
    action_value = tables.reward_follower
    for _ in range(20_000):
        mean = np.einsum("sap,pb->sab", ahead, action_value)
        moved = tables.reward_follower + discount * goes_on * _soft(mean, temperature)[0]
        change = np.abs(moved - action_value).max()
        action_value = moved
        if change <= 1e-14 * max(1.0, float(np.abs(moved).max())):
            break
    return _soft(action_value, temperature)


def follower_gradients(
    tables: DenseTables, value: FloatArray, policy: FloatArray, discount: float
) -> tuple[FloatArray, FloatArray]:
    """Return ∇V_F (S, N) and ∇Q_F (S, A, N) of a follower at its fixed point, equation (6)."""
    c = tables.d_reward_follower + discount * np.einsum("sapn,p->san", tables.d_transition, value)
    chain = np.einsum("sa,sap->sp", policy, tables.transition)
    d_value = np.linalg.solve(np.eye(value.size) - discount * chain, np.einsum("sa,san->sn", policy, c))
    return d_value, c + discount * np.einsum("sap,pn->san", tables.transition, d_value)


@dataclass(frozen=True, kw_only=True)
class ExactFormula:
    """A gradient function (problem, θ) → {part: (N,)}, right unless a switch is set.

    Parameters
    ----------
    name
        In tables.
    leader_discount
        What the leader's values are discounted with.
    occupancy
        "unnormalised"; "normalised": times 1 - γ_L; "transposed": (I - γ_L P_π)^{-1} μ; "follower": at γ_F.
    transition_discount
        Whether γ_L stands before ∇P V_L.
    benefit
        What multiplies ∇Q_F.
    temperature_power
        -1: 1/β, 0: left out, 1: β.
    response_sign
        -1 plants the sign of the adjoint.
    adjoint
        How the linear system of ∇V_F is solved: "solve"; "none": its zero start; "neumann": three terms; "stale
        residual": conjugate gradients that step along the old residual.
    model
        "fixed point"; "one step": ∇Q_F = ∇r_F + γ_F ∇P V_F.
    soft_value
        "log-sum-exp"; the maximum; or the log-sum-exp of the mean, with expectation and soft value exchanged.
    sweeps
        None, or value iteration cut after some sweeps, differentiated as if it had converged.
    start
        Values that the sweeps start from; default: zeros.
    follower_transition, leader_transition, initial, regulariser
        Factors of ∇P in ∇Q_F, ∇P in the leader's evaluation, ∇μ and ∇ρ.
    planner_mixing
        The follower plans with P mixed with so much of the average over actions.
    entropy_paid
        The leader's values contain the follower's entropy bonus.
    envelope
        Leave the response out wherever both rewards are the same.
    last_is_end
        The value of the last state is read as that of the end, 0.
    centred
        Subtract the mean of the follower's reward, whether or not rows sum to one.
    clip
        Rescale the answer to norm 1 where it is larger.
    single
        Store the tables in single precision.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> gamble = scenario("gamble")
    >>> right = ExactFormula()(gamble.problem, gamble.theta)
    >>> bool(np.allclose(sum(right.values()), gamble.truth.value, rtol=1e-12))
    True
    """

    name: str = "exact formula"
    leader_discount: Literal["leader", "follower"] = "leader"
    occupancy: Literal["unnormalised", "normalised", "transposed", "follower"] = "unnormalised"
    transition_discount: bool = True
    benefit: Literal["advantage", "action value", "value", "reward"] = "advantage"
    temperature_power: int = -1
    response_sign: float = 1.0
    adjoint: Literal["solve", "none", "neumann", "stale residual"] = "solve"
    model: Literal["fixed point", "one step"] = "fixed point"
    soft_value: Literal["log-sum-exp", "maximum", "of the mean"] = "log-sum-exp"
    sweeps: int | None = None
    start: tuple[float, ...] = ()
    follower_transition: float = 1.0
    leader_transition: float = 1.0
    initial: float = 1.0
    regulariser: float = 1.0
    planner_mixing: float = 0.0
    entropy_paid: bool = False
    envelope: bool = False
    last_is_end: bool = False
    centred: bool = False
    clip: bool = False
    single: bool = False

    def __call__(self, problem: ConfigurableMDP, theta: FloatArray) -> dict[str, FloatArray]:
        """Return the parts at θ."""
        tables = self._read(problem, theta)
        discount, temperature = problem.discount_follower, problem.temperature
        value, policy = self.follower(tables, discount, temperature)
        d_action_value = self._d_action_value(tables, value, policy, discount)

        own = problem.discount_leader if self.leader_discount == "leader" else problem.discount_follower
        chain = np.einsum("sa,sap->sp", policy, tables.transition)
        eye = np.eye(value.size)
        reward = tables.reward_leader
        if self.entropy_paid:
            reward = reward - temperature * np.log(policy)
        leader_value = np.linalg.solve(eye - own * chain, (policy * reward).sum(axis=1))
        action_value = reward + own * tables.transition @ leader_value
        occupancy = self._occupancy(chain, tables.initial, problem)
        weight = occupancy[:, None] * policy
        ahead = np.einsum("sapn,p->san", tables.d_transition, leader_value)
        scale = self.response_sign * temperature**self.temperature_power
        if self.envelope and np.array_equal(tables.reward_leader, tables.reward_follower):
            scale = 0.0
        benefit = {
            "advantage": action_value - leader_value[:, None],
            "action value": action_value,
            "value": np.broadcast_to(leader_value[:, None], policy.shape),
            "reward": reward,
        }[self.benefit]
        parts = {
            "initial": self.initial * leader_value @ tables.d_initial,
            "direct": np.einsum("sa,san->n", weight, tables.d_reward_leader),
            "transition": self.leader_transition
            * (own if self.transition_discount else 1.0)
            * np.einsum("sa,san->n", weight, ahead),
            "response": scale * np.einsum("sa,sa,san->n", weight, benefit, d_action_value),
            "regulariser": self.regulariser * tables.d_regulariser,
        }
        if self.clip:
            norm = float(np.linalg.norm(sum(parts.values())))
            parts = {part: entries / max(1.0, norm) for part, entries in parts.items()}
        return parts

    def _read(self, problem: ConfigurableMDP, theta: FloatArray) -> DenseTables:
        tables = dense_tables(problem, theta)
        entries: dict[str, FloatArray] = {name: getattr(tables, name) for name in DenseTables.__slots__}
        if self.centred:
            entries["reward_follower"] = entries["reward_follower"] - entries["reward_follower"].mean()
        if self.single:
            entries = {name: entry.astype(np.float32).astype(np.float64) for name, entry in entries.items()}
        return DenseTables(**entries)

    def follower(self, tables: DenseTables, discount: float, temperature: float) -> tuple[FloatArray, FloatArray]:
        """Return V_F (S,) and π (S, A) as the switches have it."""
        planned = tables
        if self.planner_mixing:
            mean = tables.transition.mean(axis=1, keepdims=True)
            mixed = (1.0 - self.planner_mixing) * tables.transition + self.planner_mixing * mean
            entries: dict[str, Any] = {name: getattr(tables, name) for name in DenseTables.__slots__}
            planned = DenseTables(**{**entries, "transition": mixed})
        return follower_fixed_point(
            planned,
            discount,
            temperature,
            sweeps=self.sweeps,
            start=self.start,
            hard=self.soft_value == "maximum",
            exchanged=self.soft_value == "of the mean",
        )

    def _d_action_value(
        self, tables: DenseTables, value: FloatArray, policy: FloatArray, discount: float
    ) -> FloatArray:
        seen = value.copy()
        if self.last_is_end:
            seen[-1] = 0.0
        moved = self.follower_transition * np.einsum("sapn,p->san", tables.d_transition, seen)
        c = tables.d_reward_follower + discount * moved
        if self.model == "one step":
            return np.asarray(c)
        chain = np.einsum("sa,sap->sp", policy, tables.transition)
        right = np.einsum("sa,san->sn", policy, c)
        system = np.eye(value.size) - discount * chain
        d_value: FloatArray
        if self.adjoint == "none":
            d_value = np.zeros_like(right)
        elif self.adjoint == "neumann":
            d_value = right + discount * chain @ (right + discount * chain @ right)
        elif self.adjoint == "stale residual":
            d_value = conjugate_gradients(system.T @ system, system.T @ right, stale=True)
        else:
            d_value = np.asarray(np.linalg.solve(system, right))
        result: FloatArray = c + discount * np.einsum("sap,pn->san", tables.transition, d_value)
        return result

    def _occupancy(self, chain: FloatArray, initial: FloatArray, problem: ConfigurableMDP) -> FloatArray:
        discount = problem.discount_follower if self.occupancy == "follower" else problem.discount_leader
        matrix = np.eye(initial.size) - discount * (chain if self.occupancy == "transposed" else chain.T)
        result = np.asarray(np.linalg.solve(matrix, initial), dtype=np.float64)
        return (1.0 - discount) * result if self.occupancy == "normalised" else result


def conjugate_gradients(matrix: FloatArray, right: FloatArray, *, stale: bool) -> FloatArray:
    """Solve a symmetric system column by column; `stale` forms each direction from the residual before the step.

    Examples
    --------
    >>> matrix, right = np.diag([1.0, 2.0]), np.ones((2, 1))
    >>> np.round(conjugate_gradients(matrix, right, stale=False).ravel(), 12)
    array([1. , 0.5])
    """
    solution: FloatArray = np.zeros_like(right)
    for column in range(right.shape[1]):
        residual: FloatArray = right[:, column].copy()
        direction = residual.copy()
        for _ in range(3 * right.shape[0]):
            power = float(residual @ residual)
            curvature = float(direction @ matrix @ direction)
            if power <= 1e-30 or curvature <= 1e-30:
                break
            step = power / curvature
            solution[:, column] += step * direction
            new: FloatArray = residual - step * matrix @ direction
            direction = np.asarray((residual if stale else new) + float(new @ new) / power * direction)
            residual = new
    return solution


class Remembering:
    """A gradient function that starts its follower where the last call ended, and does three sweeps.

    Right after many calls at one θ, wrong after a jump: what it answers depends on what it was asked before.
    """

    name = "remembers its last follower"

    def __init__(self) -> None:
        self._last: FloatArray | None = None

    def __call__(self, problem: ConfigurableMDP, theta: FloatArray) -> dict[str, FloatArray]:
        """Return the parts at θ, with a follower that has not converged unless this is the first call."""
        tables = dense_tables(problem, theta)
        if self._last is None or self._last.size != tables.initial.size:
            self._last = follower_fixed_point(tables, problem.discount_follower, problem.temperature)[0]
        formula = ExactFormula(sweeps=3, start=tuple(self._last.tolist()))
        self._last = formula.follower(tables, problem.discount_follower, problem.temperature)[0]
        return formula(problem, theta)
