r"""The mixed derivative of the follower's own value in a configurable MDP, through the follower that is paid.

Pay the follower `r_F + w_t r_L` with `w_t = w (γ_L/γ_F)^t`. What it is worth from time t on depends on t through that
alone, `V_t = 𝒱(w_t)`, and so do its choices:

    𝒱(w) = T_w 𝒱(w γ_L/γ_F),   (T_w V)(s) = β log Σ_a exp((r_F + w r_L + γ_F P V)/β).                            (1)

To first order `𝒱(w) = V_F + w u`, and the future that a follower paid w sees is `γ_F V_F + w γ_L u`: u is found where
one complex backup at w = ih returns it. The backup is affine in u with slope γ_L P_π, so that is one linear system,

    u = Im T_ih(V_F, u) / h.                                                                                        (2)

At fixed w the response is the optimum of that value, and θ moves it as it moves the tables along the way:

    ∂_θ (μ·V_0) = ∂μ·V_0 + Σ_t γ_F^t E_w[∂r_F + w_t ∂r_L + γ_F ∂P V_{t+1}(s')].                                  (3)

Of its derivative in w at zero every factor gives a part. Visits that carry the pay, `x(s,a) = Σ_t γ_L^t Pr(s_t=s) π_w`,
are complex, π_w being the policy of (2); what they set off goes on at γ_F:

    direct       Re x ∇r_L                       initial      u ∇μ                                                (4)
    transition   γ_L Re x u(s') ∇P                                                                                  (5)
    response     y (∇r_F + γ_F V_F(s') ∇P),      y = Im x/h + D π,   D = (I - γ_F P_πᵀ)^{-1} γ_F Pᵀ Im x/h        (6)

Only products `γ_F^t w_t = w γ_L^t` enter, so no pair of discounts makes them explode; γ_F = 0 is a limit. In an episode
of T steps nobody pays after T: u runs backwards from zero, and x adds up step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import ComplexArray, FloatArray
from bilevelrl.reference.arrays.discounted_system import FactorisedSystem
from bilevelrl.reference.problem import AnswerBounds, Linearisation, Objective, Part, nudged_slopes
from bilevelrl.reference.tabular.error_bounds import tabular_error_bound
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular, tabular_operator
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.transitions import SparseTransition
from bilevelrl.reference.tabular.value_errors import value_errors

__all__ = ["complex_pay", "discounted_laws", "kernel_layout", "nudged_tabular", "paid_values"]


def complex_pay(reward_leader: FloatArray, temperature: float) -> float:
    """Return h, so small beside β that its square is below rounding, as large as that allows."""
    largest = float(np.abs(reward_leader).max(initial=0.0))
    return 1e-20 * temperature / (largest or 1.0)


def paid_values(action_value: ComplexArray, temperature: float) -> tuple[ComplexArray, ComplexArray]:
    """Return `β log Σ_a exp(Q/β)` and the probabilities of the actions (last axis) for complex Q."""
    peak = action_value.real.max(axis=-1, keepdims=True)
    weights = np.exp((action_value - peak) / temperature)
    mass = weights.sum(axis=-1, keepdims=True)
    value: ComplexArray = (peak + temperature * np.log(mass))[..., 0]
    return value, weights / mass


def discounted_laws(chain: FloatArray, initial: FloatArray, discount: float, horizon: int) -> FloatArray:
    """Return γ^t Pr(s_t = s) for the steps of an episode, (T, S)."""
    laws = np.empty((horizon, len(initial)))
    laws[0] = initial
    for t in range(1, horizon):
        laws[t] = discount * (laws[t - 1] @ chain)
    return laws


@dataclass(frozen=True, slots=True, kw_only=True)
class _Paid:
    """A follower that is paid w = ih, to first order in h."""

    rows: FloatArray
    unpaid: FloatArray
    reward_leader: FloatArray
    discount: float
    temperature: float
    step: float

    def backup(self, slope: FloatArray) -> tuple[FloatArray, ComplexArray]:
        """Return what one backup makes of u, and the policy."""
        pay = self.reward_leader + self.discount * (self.rows @ slope).reshape(self.unpaid.shape)
        value, policy = paid_values(self.unpaid + 1j * self.step * pay, self.temperature)
        return value.imag / self.step, policy


@nudged_slopes.register(ConfigurableMDP)
def nudged_tabular(at: TabularAt, objective: Objective, *, warm_start: TabularFollower | None = None) -> Linearisation:
    """Return the slopes in the tables; see the module's formulas."""
    problem, tables, kernel = at.problem, at.tables, at.kernel
    discount, temperature = problem.discount_follower, problem.temperature
    follower = solve_tabular(at, warm_start=warm_start)
    value = follower.value_without(at.constant)
    rows = kernel.reshape(-1, tables.states)
    reward_leader = tables.reward_leader - at.centres[1]
    paid = _Paid(
        rows=rows,
        unpaid=tables.reward_follower - at.centres[0] + discount * (rows @ value).reshape(reward_leader.shape),
        reward_leader=reward_leader,
        discount=objective.discount(problem.discount_leader),
        temperature=temperature,
        step=complex_pay(reward_leader, temperature),
    )
    at_once, policy = paid.backup(np.zeros(tables.states))
    chain = np.matmul(policy.real[:, None, :], kernel)[:, 0, :]
    initial = np.asarray(tables.initial, dtype=np.float64)
    if objective.horizon is None:
        system = FactorisedSystem.of(chain, paid.discount)
        slope = system.solve(at_once)  # (2)
        laws = system.solve_transposed(initial)[None]
    else:
        slope = np.zeros(tables.states)
        laws = discounted_laws(chain, initial, paid.discount, objective.horizon)
    ahead = np.empty_like(laws)
    visits = np.zeros(policy.shape, dtype=np.complex128)
    for t in reversed(range(len(laws))):
        ahead[t] = slope
        slope, policy = paid.backup(slope)
        visits += laws[t][:, None] * policy
    moved = visits.imag / paid.step
    follower_system = FactorisedSystem.of(chain, discount)
    set_off = follower_system.solve_transposed(discount * (moved.ravel() @ rows))
    weight = moved + set_off[:, None] * policy.real  # (6)
    _ = at.pullback  # first: its trace tells what varies
    varying = "transition" in at.varying
    cotangents: dict[Part, dict[str, FloatArray]] = {
        "initial": {"initial": slope},
        "direct": {"reward_leader": visits.real},  # (4)
        "transition": _kernel(at, paid.discount * laws, policy.real, ahead) if varying else {},  # (5)
        "response": {
            "reward_follower": weight,
            **(_kernel(at, np.full((1, tables.states), discount), weight, value[None]) if varying else {}),
        },
        "regulariser": {"regulariser": np.ones(())},
    }

    def error_bound(at: TabularAt) -> AnswerBounds:
        reward = np.asarray(at.tables.reward_follower) - at.centres[0]
        operator = tabular_operator(at.tables, reward, discount, temperature)
        return tabular_error_bound(
            at,
            policy=policy.real,
            follower_value=value,
            objective=objective,
            errors=value_errors(operator, value),  # for the policy is one backup of it
        )

    offset = objective.constant_return(at.centres[1], problem.discount_leader)
    return Linearisation(
        objective=float(tables.regulariser + tables.initial @ slope + offset),
        cotangents=cotangents,
        follower=follower,
        condition=follower_system.condition(),
        error_bound=error_bound,
        counters={
            "sweeps": follower.sweeps,
            "factorisations": follower.linear_solves + (1 if objective.horizon else 2),
            "linear_solves": follower.linear_solves + (1 if objective.horizon else 3),
        },
    )


def _kernel(at: TabularAt, left: FloatArray, pairs: FloatArray, right: FloatArray) -> dict[str, FloatArray]:
    """Return Σ_k left[k, s] pairs[s, a] right[k, s'] for the kernel."""
    return {"transition": kernel_layout(at, pairs[:, :, None] * (left.T @ right)[:, None, :])}


def kernel_layout(at: TabularAt, dense: FloatArray) -> FloatArray:
    """Return a cotangent (S, A, S) of the kernel in the kernel's own layout."""
    kernel = at.tables.transition
    return np.take_along_axis(dense, kernel.successor, axis=2) if isinstance(kernel, SparseTransition) else dense
