"""Value penalties with a solved lower level: followers that are paid w of the leader's reward, one- and two-sided.

A penalty method maximises `J(θ, π) - (V*(θ) - V^π(θ)) / w` over π and θ. With one discount, at its best π the gradient
in θ is the one-sided difference quotient of the mixed derivative (`bilevelrl.reference.nudged.real_pay` (2)): w is
the inverse of the penalty's weight. With two discounts the penalty's pay is constant in time, `w r_L`, and its best π
answers for a leader with the follower's discount: what is computed here is what a penalty that knows better would be,
with the pay `w (γ_L/γ_F)^t r_L`.
"""

from __future__ import annotations

from functools import partial
from math import log

import numpy as np

from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.nudged.real_pay import PaidFollower, check_pay
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["value_penalty"]


def value_penalty(at: TabularAt, objective: Objective, knob: float, *, sides: int) -> FloatArray:
    """Return the difference quotient at a pay of `knob` times β, over w or over 2w.

    Raises
    ------
    InvalidInputError
        If the pay is none, or so small that rounding rules.
    IllPosedError
        If it grows beyond reason in time.
    """
    follower = solve_tabular(at)
    pay = knob * at.problem.temperature
    check_pay(at, follower, pay)
    parts = PaidFollower(at, objective, follower).difference(pay, -pay if sides == 2 else 0.0)
    return sum(parts.values(), np.zeros(at.theta.size))


def _order(at: TabularAt, *, order: float) -> float:
    """Return the order of the difference, or what is left of it where the pay grows without end."""
    leader, follower = at.problem.discount_leader, at.problem.discount_follower
    if not 0.0 < follower < leader:
        return order
    return min(order, log(leader) / log(follower / leader))


for _sides, _name in ((1, "one"), (2, "two")):
    register_approximation(
        Approximation(
            name=f"value_penalty_{_name}_sided",
            summary=f"{_name}-sided difference in a pay w of the leader's reward: a value penalty of weight 1/w",
            knob="w/β",
            knobs=(1.0, 0.1, 0.01, 0.001),
            geometric=False,
            rate=partial(_order, order=float(_sides)),
            source="Shen, Yang and Chen (2025), arXiv:2402.06886; arXiv:2503.17644; arXiv:2601.16399",
            function=partial(value_penalty, sides=_sides),
        )
    )
