"""The weights of every table once more, from the mixed derivative of the follower's own value, in balls.

Paid w the follower's value is `V_F + w u` to first order. Power series in w, cut after the first power, carry the
log-sum-exp and the policy of the paid follower exactly, so that their first coefficients enclose derivatives:

    u = [w] T_w(V_F + w u ...),  affine in u with slope γ_L P_π: one enclosed linear system,                     (1)
    x = Σ_t γ_L^t Pr(s_t) π_w,   y = [w] x + D π,   D = (I - γ_F P_πᵀ)^{-1} γ_F Pᵀ [w] x.                        (2)

No leader's values, no benefit and no adjoint of the other form is used: where both enclose, they must overlap.
"""

from __future__ import annotations

from typing import Any

from flint import arb, arb_series

from bilevelrl.reference.certified.balls import column, largest, peak, upper
from bilevelrl.reference.certified.tabular.fixed_point import BallFollower, identity_minus, solve
from bilevelrl.reference.certified.tabular.leader import Cotangents, Flow
from bilevelrl.reference.certified.tabular.tables import BallTables
from bilevelrl.reference.errors import IllPosedError, refusal

__all__ = ["paid_cotangents"]


def paid_cotangents(tables: BallTables, follower: BallFollower, *, horizon: int | None) -> Cotangents:
    """Return what `cotangents` does, by a follower that is paid.

    Raises
    ------
    IllPosedError
        If the horizon is infinite and the leader's return is not discounted.
    """
    states, leading, gamma = range(len(tables.kernel)), tables.discount_leader, tables.discount_follower
    unpaid = tables.action_values(follower.value)

    def backup(slope: list[arb]) -> tuple[list[arb], list[list[arb]]]:
        """Return what one backup makes of u, and [w] π_w."""
        values, moved = [], []
        for s, onwards in enumerate(tables.ahead(slope)):
            shift = peak(unpaid[s])
            pays = [reward + leading * onward for reward, onward in zip(tables.reward_leader[s], onwards, strict=True)]
            exponents: Any = [
                arb_series([(own - shift) / tables.temperature, pay / tables.temperature], 2)
                for own, pay in zip(unpaid[s], pays, strict=True)
            ]
            weights = [exponent.exp() for exponent in exponents]
            mass = sum(weights[1:], weights[0])
            values.append(tables.temperature * mass.log()[1])
            moved.append([(weight / mass)[1] for weight in weights])
        return values, moved

    if horizon is None:
        modulus = tables.modulus(leading)
        if not modulus < 1:
            raise IllPosedError(
                refusal("discount_leader x row sum", float(modulus), "below 1", "pass a horizon, or lower the discount")
            )
        system = identity_minus(follower.chain, leading)
        slope = solve(system, column(backup([arb(0)] * len(states))[0]), modulus)  # (1)
        laws = [solve(system, column(list(tables.initial)), modulus, transposed=True)]
    else:
        slope, laws = [arb(0)] * len(states), [list(tables.initial)]
        backward = follower.chain.transpose()
        for _ in range(horizon - 1):
            laws.append((backward * column(laws[-1]) * leading).entries())
    ahead: list[list[arb]] = []
    moved = [[arb(0)] * len(row) for row in unpaid]
    for law in reversed(laws):
        ahead.insert(0, slope)
        slope, tilt = backup(slope)
        moved = [[m + law[s] * t for m, t in zip(moved[s], tilt[s], strict=True)] for s in states]
    pushed = [arb(0)] * len(states)
    for s in states:
        for a, row in enumerate(tables.kernel[s]):
            for t, probability in row:
                pushed[t] += gamma * moved[s][a] * probability
    following, bound = identity_minus(follower.chain, gamma), tables.modulus(gamma)
    set_off = solve(following, column(pushed), bound, transposed=True)
    weight = [[m + set_off[s] * p for m, p in zip(moved[s], follower.policy[s], strict=True)] for s in states]  # (2)
    visits = [sum((law[s] for law in laws), arb(0)) for s in states]
    horizons = solve(following, column([arb(1)] * len(states)), bound)
    return Cotangents(
        objective=tables.regulariser + sum((m * u for m, u in zip(tables.initial, slope, strict=True)), arb(0)),
        initial=slope,
        direct=[[visits[s] * p for p in follower.policy[s]] for s in states],
        transition=Flow(
            pair=follower.policy,
            onward=lambda s, t: leading * sum((law[s] * u[t] for law, u in zip(laws, ahead, strict=True)), arb(0)),
        ),
        response_reward=weight,
        response_transition=Flow(pair=weight, onward=lambda s, t: gamma * follower.value[t]),
        condition=largest(sum((upper(e) for e in row), arb(0)) for row in following.tolist()) * largest(horizons),
    )
