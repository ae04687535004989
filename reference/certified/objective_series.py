"""The objective of a tabular problem as a power series along a line in θ: derivative, curvature, over whole boxes.

The follower's value is carried order by order: the coefficient of t^k in `T V - V` with V known to t^(k-1) is removed
by one solve with `I - γ_F P_π`, the derivative of T. The leader's values follow in the same way. No adjoint is used,
so that the first coefficient checks the adjoint form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from flint import arb, arb_series

from bilevelrl.reference.certified.balls import ball, column, peak
from bilevelrl.reference.certified.closed_form import ClosedForm
from bilevelrl.reference.certified.game import reduce_tables
from bilevelrl.reference.certified.series import constant, tables_series
from bilevelrl.reference.certified.tabular.fixed_point import enclose_follower, identity_minus, solve
from bilevelrl.reference.certified.tabular.tables import BallTables
from bilevelrl.reference.errors import IllPosedError, refusal

__all__ = ["tabular_objective_series"]

Rows: TypeAlias = list[list[arb_series]]
Nested: TypeAlias = Any  # lists of lists, as deep as the table has axes


def _nested(flat: Sequence[arb_series], shape: tuple[int, ...]) -> Nested:
    if len(shape) == 1:
        return list(flat)
    step = len(flat) // shape[0]
    return [_nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _successors(kernel: Nested) -> Nested:
    """Turn the innermost lists into (successor, probability), without those that are zero to all orders."""
    if isinstance(kernel[0], list):
        return [_successors(inner) for inner in kernel]
    return tuple((t, p) for t, p in enumerate(kernel) if any(not p[k].is_zero() for k in range(p.prec)))


def _at_zero(value: Nested) -> Nested:
    """The coefficients of t^0 of nested series."""
    if isinstance(value, arb_series):
        return value[0]
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], int):
        return (value[0], _at_zero(value[1]))
    return type(value)(_at_zero(entry) for entry in value)


def tabular_objective_series(
    problem: ClosedForm, theta: Sequence[arb], direction: Sequence[arb], order: int
) -> arb_series:
    """Return J(θ + t · direction) up to t^(order-1), for configurable MDPs and Markov games.

    Raises
    ------
    IllPosedError, StochasticityError, PrecisionError
        If the problem has no finite objective, or the precision (or the box) does not allow an enclosure.
    """
    flat = tables_series(problem, theta, direction, order)
    read = {name: _nested(entries, problem.tables[name].shape or (1,)) for name, entries in flat.items()}
    kernel, rewards = _successors(read["transition"]), [read["reward_follower"], read["reward_leader"]]
    initial = read["initial"]
    if problem.kind == "markov_game":
        kernel, rewards, initial = reduce_tables(
            kernel, rewards, initial, read["policy"], sees=problem.follower_sees_leader_action
        )
    zero = constant(arb(0), order)
    gamma, beta = ball(problem.discount_follower), ball(problem.temperature)
    discount = ball(problem.discount_leader) if problem.discounted else arb(1)
    regulariser = read["regulariser"][0] if "regulariser" in read else zero
    still = BallTables(
        kernel=_at_zero(kernel),
        reward_follower=_at_zero(rewards[0]),
        reward_leader=_at_zero(rewards[1]),
        initial=_at_zero(initial),
        regulariser=regulariser[0],
        discount_leader=discount,
        discount_follower=gamma,
        temperature=beta,
    )
    follower = enclose_follower(still)
    states = range(len(kernel))

    def ahead(values: list[arb_series], by: arb) -> Rows:
        scale = constant(by, order)
        return [[scale * sum((p * values[t] for t, p in row), zero) for row in rows] for rows in kernel]

    def action_values(values: list[arb_series]) -> Rows:
        return [[r + n for r, n in zip(rewards[0][s], row, strict=True)] for s, row in enumerate(ahead(values, gamma))]

    def soft(values: list[arb_series]) -> list[arb_series]:
        found = []
        for row in action_values(values):
            shift, width = constant(peak([entry[0] for entry in row]), order), constant(beta, order)
            found.append(shift + width * sum((((entry - shift) / width).exp() for entry in row), zero).log())
        return found

    value = [constant(entry, order) for entry in follower.value]
    system = identity_minus(follower.chain, gamma)
    value = _carried(soft, value, lambda right: solve(system, column(right), still.modulus(gamma)), order, first=1)
    width = constant(beta, order)
    policy = [[((entry - value[s]) / width).exp() for entry in row] for s, row in enumerate(action_values(value))]
    earned = [sum((p * r for p, r in zip(policy[s], rewards[1][s], strict=True)), zero) for s in states]

    def evaluate(values: list[arb_series]) -> list[arb_series]:
        onward = ahead(values, discount)
        return [earned[s] + sum((p * n for p, n in zip(policy[s], onward[s], strict=True)), zero) for s in states]

    worth = [zero for _ in states]
    if problem.horizon is not None:
        for _ in range(problem.horizon):
            worth = evaluate(worth)
    else:
        modulus = still.modulus(discount)
        if not modulus < 1:
            raise IllPosedError(refusal("discount_leader x row sum", float(modulus), "below 1", "pass a horizon"))
        evaluation = identity_minus(follower.chain, discount)
        worth = _carried(evaluate, worth, lambda right: solve(evaluation, column(right), modulus), order, first=0)
    return regulariser + sum((m * w for m, w in zip(initial, worth, strict=True)), zero)


def _carried(
    step: Callable[[list[arb_series]], list[arb_series]],
    values: list[arb_series],
    solved: Callable[[list[arb]], list[arb]],
    order: int,
    *,
    first: int,
) -> list[arb_series]:
    """Extend a fixed point of `step` order by order from t^first on; `solved` inverts the derivative of `1 - step`."""
    for k in range(first, order):
        defect = [(new - old)[k] for new, old in zip(step(values), values, strict=True)]
        bump = [arb_series([arb(0)] * k + [change], order) for change in solved(defect)]
        values = [old + change for old, change in zip(values, bump, strict=True)]
    return values
