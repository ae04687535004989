"""Entropy-regularised linear-quadratic problems in balls, differentiated by power series along each coordinate of θ.

Configurable (Proposition 1 of arXiv:2603.14867): `x' = A x + B a + ξ`, `ξ ~ N(0, W)`, follower's cost `x'Qx + a'Ra`,
response `a ~ N(-K x, Σ)` with `K = γ_F S⁻¹ B'PA`, `Σ = (β/2) S⁻¹`; leader's reward `-(x'Cx + a'Da) - k`:

    M = C + K'DK + γ_L A_c' M A_c,      J = -E[x_0'M x_0] - [γ_L tr(M (W + BΣB')) + tr(DΣ) + k] / (1 - γ_L).       (1)

Game (Proposition 2): the leader plays `l ~ N(K_θ x, Ω)`, seen by the follower, in `x' = A x + B a + C l`; the
response is `a ~ N(-G (A x + C l), (β/2) S⁻¹)` with `G = γ_F S⁻¹ B'P`, P for the dynamics `A + C K_θ`. The closed loop
is Gaussian, and the leader's reward `exp(-½ (x - x*)' D⁻¹ (x - x*))` has an expectation in closed form; an infinite
horizon is summed in `bilevelrl.reference.certified.lqr.gaussian_return`.

Each part is the coefficient of t with θ + t e_j in the tables that this part is about and θ in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flint import arb, arb_mat, arb_series, ctx

from bilevelrl.reference.certified.balls import ball, largest
from bilevelrl.reference.certified.closed_form import ClosedForm
from bilevelrl.reference.certified.hypergradient import Evaluation
from bilevelrl.reference.certified.lqr.gaussian_return import GaussianChain, endless_return
from bilevelrl.reference.certified.lqr.riccati import (
    Regulator,
    RiccatiSolution,
    enclose_riccati,
    is_contracting,
    lyapunov,
    stein_matrix,
)
from bilevelrl.reference.certified.series import (
    Matrix,
    coefficient_matrix,
    constant,
    identity,
    inverse,
    matrix_of,
    minus,
    plus,
    product,
    scaled,
    tables_series,
    trace,
    transpose,
)
from bilevelrl.reference.errors import IllPosedError
from bilevelrl.reference.problem import Objective, Part

__all__ = ["lqr_evaluation", "lqr_objective_series"]

ROLES: Mapping[str, Mapping[Part, tuple[str, ...]]] = {
    "configurable_lqr": {
        "initial": ("initial_mean", "initial_covariance"),
        "direct": ("cost_state_leader", "cost_action_leader", "cost_constant_leader"),
        "transition": ("dynamics_state", "dynamics_action", "noise_covariance"),
        "response": ("dynamics_state", "dynamics_action", "cost_state_follower", "cost_action_follower"),
        "regulariser": ("regulariser",),
    },
    "lqr_game": {"policy": ("gain", "covariance"), "response": ("gain",), "regulariser": ("regulariser",)},
}
"""Which tables move in which part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Response:
    """The follower's gain and the inverse of S as series, P along with them."""

    value: Matrix
    inverse_curvature: Matrix


def _discount(problem: ClosedForm) -> arb:
    return ball(problem.discount_leader) if problem.discounted else arb(1)


def _mirror(value: arb_mat, order: int) -> Matrix:
    """A matrix of constant series, symmetric entries shared."""
    return [[constant(value[i, j], order) for j in range(value.ncols())] for i in range(value.nrows())]


def _respond(
    solution: RiccatiSolution,
    matrices: tuple[Matrix, Matrix, Matrix, Matrix],
    gamma: arb,
    order: int,
) -> _Response:
    """Carry P along t: at each order the defect of the Riccati equation is removed by one Lyapunov solve."""
    a, b, q, r = matrices
    value = _mirror(solution.value, order)
    for k in range(order):
        if k:
            defect = coefficient_matrix(minus(_riccati(a, b, q, r, value, gamma)[0], value), k)
            update = lyapunov(solution.closed_loop, solution.closed_loop, gamma, defect)
            bump = arb_series([arb(0)] * k + [arb(1)], order)
            value = plus(value, [[bump * constant(e, order) for e in row] for row in update.tolist()])
    return _Response(value=value, inverse_curvature=_riccati(a, b, q, r, value, gamma)[1])


def _riccati(a: Matrix, b: Matrix, q: Matrix, r: Matrix, value: Matrix, gamma: arb) -> tuple[Matrix, Matrix]:
    """Return (Ric(P), S⁻¹)."""
    seen = product(transpose(b), value)
    inverse_curvature = inverse(plus(r, scaled(gamma, product(seen, b))))
    cross = product(seen, a)
    moved = plus(q, scaled(gamma, product(transpose(a), value, a)))
    return minus(moved, scaled(gamma * gamma, product(transpose(cross), inverse_curvature, cross))), inverse_curvature


Tables = Mapping[str, Sequence[arb_series]]


def _regulator(problem: ClosedForm, still: Callable[[str], Matrix]) -> Regulator:
    """Return the control problem that the follower solves, at t = 0."""
    game = problem.kind == "lqr_game"
    follower = "" if game else "_follower"
    return Regulator(
        dynamics=coefficient_matrix(_planned(still) if game else still("dynamics_state"), 0),
        control=coefficient_matrix(still("dynamics_action"), 0),
        cost_state=coefficient_matrix(still(f"cost_state{follower}"), 0),
        cost_action=coefficient_matrix(still(f"cost_action{follower}"), 0),
        discount=ball(problem.discount_follower),
    )


def _planned(read: Callable[[str], Matrix]) -> Matrix:
    """Return A + C K_θ."""
    return plus(read("dynamics_state"), product(read("dynamics_leader"), read("gain")))


def _configurable(
    problem: ClosedForm, response: Callable[[str], Matrix], leader: Callable[[str], Matrix],
    solution: RiccatiSolution, order: int,
) -> arb_series:  # fmt: skip
    gamma = ball(problem.discount_follower)
    a, b, q, r = (
        response(name) for name in ("dynamics_state", "dynamics_action", "cost_state_follower", "cost_action_follower")
    )
    found = _respond(solution, (a, b, q, r), gamma, order)
    gain = scaled(gamma, product(found.inverse_curvature, transpose(b), found.value, a))
    spread = scaled(ball(problem.temperature) / 2, found.inverse_curvature)
    # The leader's evaluation, with the response as it is.
    a, b, on_action = leader("dynamics_state"), leader("dynamics_action"), leader("cost_action_leader")
    loop = minus(a, product(b, gain))
    noise = plus(leader("noise_covariance"), product(b, spread, transpose(b)))
    cost = plus(leader("cost_state_leader"), product(transpose(gain), on_action, gain))
    always = trace(product(on_action, spread)) + leader("cost_constant_leader")[0][0]
    discount = _discount(problem)
    by = constant(discount, order)
    if problem.horizon is None:
        closed = coefficient_matrix(loop, 0)
        if not is_contracting(closed, discount):
            raise IllPosedError("leader's quadratic return: √γ_L (A - BK) is not shown to be stable; pass a horizon")
        weight = _mirror(arb_mat(len(a), len(a)), order)
        for k in range(order):
            target = plus(cost, scaled(discount, product(transpose(loop), weight, loop)))  # (1)
            update = lyapunov(closed, closed, discount, coefficient_matrix(minus(target, weight), k))
            bump = arb_series([arb(0)] * k + [arb(1)], order)
            weight = plus(weight, [[bump * constant(e, order) for e in row] for row in update.tolist()])
        rest = (by * trace(product(weight, noise)) + always) / constant(1 - discount, order)  # (1)
    else:
        weight, rest = _mirror(arb_mat(len(a), len(a)), order), constant(arb(0), order)
        for _ in range(problem.horizon):
            rest = always + by * (trace(product(weight, noise)) + rest)
            weight = plus(cost, scaled(discount, product(transpose(loop), weight, loop)))
    mean = leader("initial_mean")
    started = product(transpose(mean), weight, mean)[0][0] + trace(product(weight, leader("initial_covariance")))
    return -(started + rest)


def _game(
    problem: ClosedForm, response: Callable[[str], Matrix], leader: Callable[[str], Matrix],
    solution: RiccatiSolution, order: int,
) -> arb_series:  # fmt: skip
    gamma = ball(problem.discount_follower)
    seen = _planned(response)
    b = response("dynamics_action")
    found = _respond(solution, (seen, b, response("cost_state"), response("cost_action")), gamma, order)
    gain = scaled(gamma, product(found.inverse_curvature, transpose(b), found.value))
    spread = scaled(ball(problem.temperature) / 2, found.inverse_curvature)
    b, c = leader("dynamics_action"), leader("dynamics_leader")
    through = minus(identity(len(b), order), product(b, gain))
    loop = product(through, _planned(leader))
    pushed = product(through, c)
    noise = plus(product(pushed, leader("covariance"), transpose(pushed)), product(b, spread, transpose(b)))
    mean, covariance = leader("initial_mean"), leader("initial_covariance")
    target, width = leader("target"), leader("width")
    if problem.horizon is None:
        chain = GaussianChain(loop=loop, noise=noise, mean=mean, covariance=covariance, target=target, width=width)
        return endless_return(chain, _discount(problem))
    discount, weight = constant(_discount(problem), order), constant(arb(1), order)
    narrow, total = inverse(width), constant(arb(0), order)
    half = constant(arb(1) / 2, order)
    for _ in range(problem.horizon):
        off = minus(mean, target)
        wide = inverse(plus(width, covariance))
        quadratic = product(transpose(off), wide, off)[0][0]
        ratio = _determinant(plus(identity(len(b), order), product(narrow, covariance)))
        total = total + weight * (-half * (quadratic + ratio.log())).exp()
        weight = weight * discount
        mean = product(loop, mean)
        covariance = plus(product(loop, covariance, transpose(loop)), noise)
    return total


def _determinant(matrix: Matrix) -> arb_series:
    """Laplace along the first row: the matrices are small, and no pivot has to be chosen."""
    if len(matrix) == 1:
        return matrix[0][0]
    total = constant(arb(0), matrix[0][0].prec)
    for j, entry in enumerate(matrix[0]):
        minor = [[e for k, e in enumerate(row) if k != j] for row in matrix[1:]]
        term = entry * _determinant(minor)
        total = total - term if j % 2 else total + term
    return total


def lqr_objective_series(
    problem: ClosedForm, theta: Sequence[arb], direction: Sequence[arb], order: int, part: Part | None = None
) -> arb_series:
    """Return J(θ + t · direction) up to t^(order-1); `part`: only the tables of that part move.

    Raises
    ------
    IllPosedError, PrecisionError, UnsupportedError
        If the problem has no finite objective, the precision does not suffice, or the horizon is infinite and the
        closed loop of a game is not shown to be stable.
    """
    still, solution = _solved(problem, theta, order)
    return _along(problem, theta, direction, order, part, still, solution)


def _reader(problem: ClosedForm, tables: Tables, other: Tables, names: Sequence[str]) -> Callable[[str], Matrix]:
    return lambda name: matrix_of(problem, tables if name in names else other, name)


def _solved(problem: ClosedForm, theta: Sequence[arb], order: int) -> tuple[Tables, RiccatiSolution]:
    still = tables_series(problem, theta, [arb(0)] * len(theta), order)
    read = _reader(problem, still, still, ())
    return still, enclose_riccati(_regulator(problem, read))


def _along(
    problem: ClosedForm,
    theta: Sequence[arb],
    direction: Sequence[arb],
    order: int,
    part: Part | None,
    still: Tables,
    solution: RiccatiSolution,
) -> arb_series:
    moving = tables_series(problem, theta, direction, order)
    names = tuple(moving)
    roles = ROLES[problem.kind]
    if part is None:
        response = leader = _reader(problem, moving, still, names)
    else:
        response = _reader(problem, moving, still, roles[part] if part == "response" else ())
        leader = _reader(problem, moving, still, roles[part] if part != "response" else ())
    objective = _configurable if problem.kind == "configurable_lqr" else _game
    earned = objective(problem, response, leader, solution, order)
    return earned + leader("regulariser")[0][0] if "regulariser" in problem.tables else earned


def lqr_evaluation(problem: ClosedForm) -> Callable[[], Evaluation]:
    """Return a pass over an LQR problem at the working precision."""
    Objective(problem.horizon, problem.discounted)

    def evaluate() -> Evaluation:
        theta = [ball(entry) for entry in problem.theta]
        still, solution = _solved(problem, theta, 2)
        parts: dict[Part, list[arb]] = {part: [] for part in ROLES[problem.kind]}
        objective = arb(0)
        for j in range(len(theta)):
            direction = [arb(int(i == j)) for i in range(len(theta))]
            for part, entries in parts.items():
                if not any(name in problem.tables for name in ROLES[problem.kind][part]):
                    entries.append(arb(0))
                    continue
                series = _along(problem, theta, direction, 2, part, still, solution)
                entries.append(series[1])
                objective = series[0]
        gamma = ball(problem.discount_follower)
        system = stein_matrix(solution.closed_loop, solution.closed_loop, gamma)
        return Evaluation(
            objective=objective,
            parts=parts,
            residual=solution.residual,
            condition=_condition(system),
            steps=solution.steps,
        )

    return evaluate


def _condition(matrix: arb_mat) -> arb:
    norms = [largest(sum((abs(e) for e in row), arb(0)) for row in table.tolist()) for table in (matrix, matrix.inv())]
    with ctx.workprec(64):
        return norms[0] * norms[1]
