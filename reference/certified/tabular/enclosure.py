"""Tabular truth in balls: the follower's fixed point, the leader's return, and the weights of every table.

The follower's values are found by Newton's method on midpoints, which proves nothing, and then enclosed by

    ‖V - V*‖ ≤ ‖T V - V‖ / (1 - q),      q = γ_F max_(s,a) Σ_s' P(s'|s,a) < 1,

with T V evaluated in balls. Linear systems with I - γ P_π are treated alike: an approximate solution, its residual in
balls, and the bound 1/(1 - q) on the inverse, in the maximum norm, or for the transpose in the sum norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flint import arb, arb_mat, ctx

from bilevelrl.reference.certified.balls import ball, column, largest, peak, softmax, upper, widened
from bilevelrl.reference.errors import IllPosedError, PrecisionError, StochasticityError, TooLargeError, refusal
from bilevelrl.reference.tabular.transitions import ROW_SUM_TOLERANCE

__all__ = ["BallFollower", "BallTables", "Cotangents", "Flow", "check_size", "cotangents", "enclose_follower"]

LARGEST_SYSTEM = 2000
"""States beyond which dense ball arithmetic would take hours."""

NEWTON_LIMIT = 500
START_BITS = 160

Row = tuple[tuple[int, arb], ...]
"""The successors of one state and action with their probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BallTables:
    """The tables of a configurable MDP in balls, and its constants.

    Attributes
    ----------
    kernel : [s][a] -> successors with probabilities
        Successors that are left out have probability zero.
    reward_follower, reward_leader : [s][a]
        Rewards.
    initial : [s]
        Law of the first state.
    regulariser : arb
        ρ(θ).
    discount_leader, discount_follower, temperature : arb
        γ_L (one where the return is undiscounted), γ_F and β.
    """

    kernel: Sequence[Sequence[Row]]
    reward_follower: Sequence[Sequence[arb]]
    reward_leader: Sequence[Sequence[arb]]
    initial: Sequence[arb]
    regulariser: arb
    discount_leader: arb
    discount_follower: arb
    temperature: arb

    def check(self) -> None:
        """Refuse what is certainly no law: negative probabilities, rows above one, an initial law off one.

        Raises
        ------
        StochasticityError
            Naming the row.
        """
        slack = ball(ROW_SUM_TOLERANCE)
        named = [
            (f"transition[{s}, {a}]", [p for _, p in row])
            for s, rows in enumerate(self.kernel)
            for a, row in enumerate(rows)
        ]
        for name, row in [*named, ("initial", list(self.initial))]:
            for probability in row:
                if probability < 0:
                    raise StochasticityError(refusal(name, float(probability), "probabilities >= 0", "normalise it"))
            mass = sum(row, arb(0))
            if mass > 1 + slack or (name == "initial" and mass < 1 - slack):
                expected = "1" if name == "initial" else "at most 1 (less means termination)"
                raise StochasticityError(refusal(f"sum of {name}", float(mass), expected, "normalise it"))

    def modulus(self, discount: arb) -> arb:
        """Return an upper bound on discount · max row sum."""
        masses = (sum((p for _, p in row), arb(0)) for rows in self.kernel for row in rows)
        return largest(mass * discount for mass in masses)

    def ahead(self, values: Sequence[arb]) -> list[list[arb]]:
        """Return Σ_s' P(s'|s,a) values(s'), [s][a]."""
        return [[sum((p * values[t] for t, p in row), arb(0)) for row in rows] for rows in self.kernel]

    def action_values(self, values: Sequence[arb]) -> list[list[arb]]:
        """Return r_F + γ_F P values, [s][a]."""
        return [
            [reward + self.discount_follower * onward for reward, onward in zip(rewards, onwards, strict=True)]
            for rewards, onwards in zip(self.reward_follower, self.ahead(values), strict=True)
        ]

    def chain(self, policy: Sequence[Sequence[arb]]) -> arb_mat:
        """Return P_π, (S, S)."""
        states = len(self.kernel)
        matrix = [[arb(0)] * states for _ in range(states)]
        for s, rows in enumerate(self.kernel):
            for a, row in enumerate(rows):
                for t, probability in row:
                    matrix[s][t] += policy[s][a] * probability
        return arb_mat(matrix)


@dataclass(frozen=True, slots=True, kw_only=True)
class BallFollower:
    """The follower's best response in balls.

    Attributes
    ----------
    value : [s], policy : [s][a]
        V_F and π*.
    residual : arb
        Upper bound on ‖T V - V‖ at the midpoint.
    chain : arb_mat
        P_π.
    steps : int
        Newton steps taken.
    """

    value: Sequence[arb]
    policy: Sequence[Sequence[arb]]
    residual: arb
    chain: arb_mat
    steps: int


def check_size(states: int) -> None:
    """Refuse systems that dense ball arithmetic does not reach.

    Raises
    ------
    TooLargeError
        Naming the limit.
    """
    if states > LARGEST_SYSTEM:
        raise TooLargeError(
            refusal("states", states, f"at most {LARGEST_SYSTEM} for a certified answer", "use route='implicit'")
        )


def soft_values(rows: Sequence[Sequence[arb]], temperature: arb) -> list[arb]:
    """Return β log Σ_a exp(Q/β), [s]."""
    values = []
    for row in rows:
        shift = peak(row)
        mass = sum((((entry - shift) / temperature).exp() for entry in row), arb(0))
        values.append(shift + temperature * mass.log())
    return values


def soft_policy(rows: Sequence[Sequence[arb]], temperature: arb) -> list[list[arb]]:
    """Return exp((Q - V)/β) with V the soft value of Q, [s][a]."""
    return [softmax([entry / temperature for entry in row]) for row in rows]


def midpoints(matrix: arb_mat) -> list[arb]:
    """Return the midpoints of all entries."""
    return [entry.mid() for entry in matrix.entries()]


def solve(system: arb_mat, right: arb_mat, modulus: arb, *, transposed: bool = False) -> list[arb]:
    """Enclose the solution of (I - M) x = b where M ≥ 0 has row sums at most `modulus` < 1, or of its transpose.

    Raises
    ------
    PrecisionError
        If the precision does not suffice for an approximate solution.
    """
    matrix = system.transpose() if transposed else system
    try:
        approximate = column(midpoints(matrix.mid().solve(right.mid(), algorithm="approx")))
    except ZeroDivisionError:
        raise PrecisionError(f"linear system: no approximate solution at {ctx.prec} bits; raise the limit") from None
    residual = (right - matrix * approximate).entries()
    size = sum((upper(entry) for entry in residual), arb(0)) if transposed else largest(residual)
    return [widened(entry, size / (1 - modulus)) for entry in approximate.entries()]


def identity_minus(chain: arb_mat, discount: arb) -> arb_mat:
    """Return I - discount · chain."""
    size = chain.nrows()
    identity = arb_mat(size, size)
    for i in range(size):
        identity[i, i] = 1
    return identity - chain * discount


def _newton(tables: BallTables, value: list[arb]) -> tuple[list[arb], int]:
    """Soft policy iteration on midpoints: monotone from the first step on, and quadratic at the end."""
    target = ctx.prec
    steps = 0
    for bits in (min(START_BITS, target), target):
        with ctx.workprec(bits):
            previous = None
            while True:
                rows = tables.action_values(value)
                change = [
                    (new - old).mid() for new, old in zip(soft_values(rows, tables.temperature), value, strict=True)
                ]
                policy = [[p.mid() for p in row] for row in soft_policy(rows, tables.temperature)]
                system = identity_minus(tables.chain(policy), tables.discount_follower).mid()
                try:
                    step = midpoints(system.solve(column(change), algorithm="approx"))
                except ZeroDivisionError:
                    raise PrecisionError(f"Newton's method breaks down at {bits} bits; raise the limit") from None
                value = [(old + move).mid() for old, move in zip(value, step, strict=True)]
                steps += 1
                size = largest(step)
                if size <= largest(value) * arb(2) ** -(bits - 20) or size.is_zero():
                    break
                # Near the solution steps shrink quadratically until rounding takes over, and then not at all.
                if previous is not None and size >= previous and size <= largest(value) * arb(2) ** -(bits // 2):
                    break
                if not size.is_finite() or steps >= NEWTON_LIMIT:
                    raise PrecisionError(f"Newton's method does not settle within {steps} steps at {bits} bits")
                previous = size
    return value, steps


def enclose_follower(tables: BallTables, start: Sequence[arb] | None = None) -> BallFollower:
    """Enclose the follower's fixed point at the working precision.

    Parameters
    ----------
    tables
        The problem in balls.
    start
        Where Newton's method starts; zeros by default. Changes the cost, never the validity.

    Raises
    ------
    StochasticityError, IllPosedError
        If a row is no law, or the soft Bellman map no contraction.
    PrecisionError
        If the precision does not suffice for Newton's method to settle.
    """
    tables.check()
    modulus = tables.modulus(tables.discount_follower)
    if not modulus < 1:
        raise IllPosedError(
            refusal(
                "discount_follower x row sum", float(modulus), "below 1", "normalise the rows or lower the discount"
            )
        )
    value, steps = _newton(tables, [arb(0)] * len(tables.kernel) if start is None else [v.mid() for v in start])
    moved = soft_values(tables.action_values(value), tables.temperature)
    residual = largest(new - old for new, old in zip(moved, value, strict=True))
    radius = residual / (1 - modulus)
    enclosed = [widened(entry, radius) for entry in value]
    policy = soft_policy(tables.action_values(enclosed), tables.temperature)
    return BallFollower(value=enclosed, policy=policy, residual=residual, chain=tables.chain(policy), steps=steps)


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
    # Weight of Q_F: visits · π · B / β, with B centred under π.
    centre = [sum((p * g for p, g in zip(policy[s], gains[s], strict=True)), arb(0)) for s in states]
    on_action_value = [
        [p * (g - centre[s]) / tables.temperature for p, g in zip(policy[s], gains[s], strict=True)] for s in states
    ]
    pushed = [arb(0)] * len(states)
    for s in states:
        for a, row in enumerate(tables.kernel[s]):
            for t, probability in row:
                pushed[t] += on_action_value[s][a] * probability
    gamma = tables.discount_follower
    system, modulus = identity_minus(follower.chain, gamma), tables.modulus(gamma)
    adjoint = solve(system, column([gamma * entry for entry in pushed]), modulus, transposed=True)
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
