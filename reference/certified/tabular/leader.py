"""The leader's return in balls, and the weights of every table: Theorem 1 of arXiv:2603.14867, rearranged.

With d the discounted visits of states and B = Q_L - Σ_a π Q_L, what the follower reads weighs by

    q(s,a) = d(s) π(a|s) B(s,a) / β,                                                                               (1)
    λ = γ_F (I - γ_F P_πᵀ)⁻¹ Pᵀ q,      weight of r_F: w = q + λ π,      weight of P in it: γ_F w V_F(s').         (2)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flint import arb, arb_mat

from bilevelrl.reference.certified.balls import column, largest, upper
from bilevelrl.reference.certified.tabular.fixed_point import BallFollower, identity_minus, solve
from bilevelrl.reference.certified.tabular.tables import BallTables
from bilevelrl.reference.errors import IllPosedError, refusal

__all__ = ["Cotangents", "Flow", "cotangents"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The cotangent of a kernel in factors: pair[s][a] · onward[s, s']."""

    pair: Sequence[Sequence[arb]]
    onward: Callable[[int, int], arb]

    def __call__(self, s: int, a: int, t: int) -> arb:
        """Return the weight of P(t|s,a)."""
        return self.pair[s][a] * self.onward(s, t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cotangents:
    """The objective, and how much each table weighs in it, by where it is read.

    Attributes
    ----------
    objective : arb
        J.
    initial : [s]
        Weight of μ: V_L.
    direct : [s][a]
        Weight of r_L.
    transition : Flow
        Weight of P inside the leader's evaluation.
    response_reward : [s][a], response_transition : Flow
        Weights of r_F and of P in what the follower reads.
    condition : arb
        Condition number of I - γ_F P_π in the maximum norm.
    """

    objective: arb
    initial: Sequence[arb]
    direct: Sequence[Sequence[arb]]
    transition: Flow
    response_reward: Sequence[Sequence[arb]]
    response_transition: Flow
    condition: arb


def cotangents(tables: BallTables, follower: BallFollower, *, horizon: int | None) -> Cotangents:
    """Evaluate the leader and return the weight of every table.

    Raises
    ------
    IllPosedError
        If the horizon is infinite and the leader's return is not discounted.
    """
    states, policy = range(len(tables.kernel)), follower.policy
    earned = [sum((p * r for p, r in zip(policy[s], tables.reward_leader[s], strict=True)), arb(0)) for s in states]
    if horizon is None:
        value, visits, onward, gains = _for_ever(tables, follower, earned)
    else:
        value, visits, onward, gains = _truncated(tables, follower, earned, horizon)
    visited = [[visits[s] * p for p in policy[s]] for s in states]
    centre = [sum((p * g for p, g in zip(policy[s], gains[s], strict=True)), arb(0)) for s in states]
    on_action_value = [  # (1)
        [p * (g - centre[s]) / tables.temperature for p, g in zip(policy[s], gains[s], strict=True)] for s in states
    ]
    pushed = [arb(0)] * len(states)
    for s in states:
        for a, row in enumerate(tables.kernel[s]):
            for t, probability in row:
                pushed[t] += on_action_value[s][a] * probability
    gamma = tables.discount_follower
    system, modulus = identity_minus(follower.chain, gamma), tables.modulus(gamma)
    adjoint = solve(system, column([gamma * entry for entry in pushed]), modulus, transposed=True)  # (2)
    response = [[q + adjoint[s] * p for q, p in zip(on_action_value[s], policy[s], strict=True)] for s in states]
    horizons = solve(system, column([arb(1)] * len(states)), modulus)
    return Cotangents(
        objective=tables.regulariser + sum((m * v for m, v in zip(tables.initial, value, strict=True)), arb(0)),
        initial=value,
        direct=visited,
        transition=Flow(pair=policy, onward=onward),
        response_reward=response,
        response_transition=Flow(pair=response, onward=lambda s, t: gamma * follower.value[t]),
        condition=largest(sum((upper(e) for e in row), arb(0)) for row in system.tolist()) * largest(horizons),
    )


_Evaluation = tuple[list[arb], list[arb], Callable[[int, int], arb], list[list[arb]]]


def _for_ever(tables: BallTables, follower: BallFollower, earned: list[arb]) -> _Evaluation:
    """Return (V_L, occupancy, weight of P_π(t|s), occupancy · Q_L) over an infinite horizon."""
    discount = tables.discount_leader
    modulus = tables.modulus(discount)
    if not modulus < 1:
        raise IllPosedError(
            refusal("discount_leader x row sum", float(modulus), "below 1", "pass a horizon, or lower the discount")
        )
    system = identity_minus(follower.chain, discount)
    value = solve(system, column(earned), modulus)
    visits = solve(system, column(list(tables.initial)), modulus, transposed=True)
    gains = [
        [visits[s] * (reward + discount * onward) for reward, onward in zip(rewards, onwards, strict=True)]
        for s, (rewards, onwards) in enumerate(zip(tables.reward_leader, tables.ahead(value), strict=True))
    ]
    return value, visits, lambda s, t: discount * visits[s] * value[t], gains


def _truncated(tables: BallTables, follower: BallFollower, earned: list[arb], horizon: int) -> _Evaluation:
    """The same for episodes of `horizon` steps: sums over time of γ_L^t Pr(s_t) against V_L with fewer steps to go."""
    discount, states = tables.discount_leader, len(earned)
    chain, reward = follower.chain, column(earned)
    values = [arb_mat(states, 1)]  # by steps to go
    for _ in range(horizon):
        values.append(reward + chain * values[-1] * discount)
    laws, backward = [column(list(tables.initial))], chain.transpose()
    for _ in range(horizon - 1):
        laws.append(backward * laws[-1] * discount)
    visits = [sum((law[s, 0] for law in laws), arb(0)) for s in range(states)]
    before = arb_mat([[laws[t][s, 0] for t in range(horizon)] for s in range(states)])
    after = arb_mat([[values[horizon - 1 - t][s, 0] for s in range(states)] for t in range(horizon)])
    flow = before * after * discount
    gains = [
        [
            visits[s] * tables.reward_leader[s][a] + sum((p * flow[s, t] for t, p in row), arb(0))
            for a, row in enumerate(rows)
        ]
        for s, rows in enumerate(tables.kernel)
    ]
    return values[horizon].entries(), visits, lambda s, t: flow[s, t], gains
