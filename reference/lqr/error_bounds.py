"""How far floating-point objectives and hypergradients of configurable LQRs can be from the truth, to first order.

The formula is the adjoint of `bilevelrl.reference.lqr.linearise`, evaluated in a `Ledger` that adds up what the
residuals of its equations and every rounding can do; other routes form the same sums in other orders. Bounds are
infinite where the closed loop is not shown to be stable under a discount that needs it (the follower's; the leader's
over an infinite horizon), and where it is known too coarsely (`bilevelrl.reference.lqr.response_errors`).
"""

from __future__ import annotations

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.lqr.follower import LQRFollower
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.response_errors import (
    Response,
    Tail,
    bounds_of,
    column,
    pulled,
    respond,
    response_cotangents,
    stretch_of,
)
from bilevelrl.reference.lqr.rounding import EPSILON, Ledger, plain
from bilevelrl.reference.lqr.solvers import EquationSolver
from bilevelrl.reference.problem import PARTS, AnswerBounds, Objective, Part, error_bound

__all__ = ["LeaderSweeps", "lqr_error_bounds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderSweeps:
    """The leader's costs-to-go by sweeps on a tape: how many, and what they arrive at."""

    count: int
    cost_to_go: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """The leader's J (1, 1), M, X̄, Ȳ, M̄ and L, as in `bilevelrl.reference.lqr.leader`."""

    objective: Traced
    cost_to_go: Traced
    visits: Traced
    flow: Traced
    future: Traced
    length: float


def _leader(
    ledger: Ledger,
    matrices: LQRMatrices,
    response: Response,
    discount: float,
    horizon: int | None,
    method: EquationSolver,
    sweeps: LeaderSweeps | None,
) -> _Sums:
    b, d = matrices.dynamics_action, ledger.symmetric(matrices.cost_action_leader)
    gain, loop = response.gain, response.loop
    cost = ledger.total((1.0, ledger.symmetric(matrices.cost_state_leader)), (1.0, gain.T, d, gain))
    noise = ledger.total((1.0, ledger.symmetric(matrices.noise_covariance)), (1.0, b, response.covariance, b.T))
    mean = column(matrices.initial_mean)
    first = ledger.total((1.0, mean, mean.T), (1.0, ledger.symmetric(matrices.initial_covariance)))
    step_cost = ledger.total(
        (1.0, ledger.inner(d, response.covariance)), (1.0, np.reshape(matrices.cost_constant_leader, (1, 1)))
    )
    regulariser = np.reshape(matrices.regulariser, (1, 1))
    if horizon is None:
        length = 1.0 / (1.0 - discount)
        entering = ledger.total((1.0, first), (discount * length, noise))
        to_go = ledger.lyapunov(
            loop, cost, discount, method=method, solution=None if sweeps is None else sweeps.cost_to_go
        )
        visits = ledger.lyapunov(loop.T, entering, discount)
        if sweeps is not None:  # the derivative has passed through so many sweeps only
            power = np.linalg.matrix_power(np.sqrt(discount) * plain(loop), sweeps.count)
            visits = ledger.off(visits, np.abs(power @ plain(visits) @ power.T))
        return _Sums(
            objective=ledger.total((1.0, regulariser), (-1.0, ledger.inner(to_go, entering)), (-length, step_cost)),
            cost_to_go=to_go,
            visits=visits,
            flow=ledger.total((discount, to_go, loop, visits)),
            future=discount * length * to_go,
            length=length,
        )
    powers = discount ** np.arange(horizon)
    drift = 2.0 * np.arange(horizon)[:, None, None] * EPSILON  # of powers by repeated multiplication
    shape = (horizon - 1, 1, 1)
    costs = ledger.recurrence(discount * loop.T, loop, cost, cost + np.zeros(shape))  # M^(1) .. M^(T)
    moments = ledger.recurrence(loop, loop.T, first, noise + np.zeros(shape))
    weights = powers[:, None, None]
    ahead = costs[horizon - 2 :: -1] if horizon > 1 else costs[:0]  # M^(T-t-1), t = 0 .. T-2
    later = moments[: horizon - 1]
    ahead = ledger.off(ahead, drift[1:] * np.abs(plain(ahead)))
    moments = ledger.off(moments, drift * np.abs(plain(moments)))
    future = ledger.summed((discount * weights[:-1], ahead))
    length = float(powers.sum())
    return _Sums(
        objective=ledger.total(
            (1.0, regulariser),
            (-1.0, ledger.inner(costs[-1], first)),
            (-1.0, ledger.inner(future, noise)),
            (-length, step_cost),
        ),
        cost_to_go=costs[-1],
        visits=ledger.summed((weights, moments)),
        flow=ledger.summed((discount * weights[:-1], ahead, loop, later)),
        future=future,
        length=length,
    )


def lqr_error_bounds(
    at: LQRAt,
    cost_to_go: FloatArray,
    *,
    objective: Objective,
    method: EquationSolver = "doubling",
    sweeps: LeaderSweeps | None = None,
    tail: Tail | None = None,
    frozen: bool = False,
    gradient: bool = True,
) -> AnswerBounds:
    """Return the bounds for a route that has found P.

    Parameters
    ----------
    at, objective
        As the route has them.
    cost_to_go
        The route's P.
    method
        Its solver of the leader's Lyapunov equation.
    sweeps, tail
        What it has in place of solvers.
    frozen
        K and Σ are those of P, whatever the follower's best response is.
    gradient
        False: the objective's bound alone, without a Jacobian; the gradient's is 0.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(seed=0), np.zeros(3)
    >>> follower = solve_follower(problem, theta)
    >>> bounds = lqr_error_bounds(problem.at(theta), follower.cost_to_go, objective=Objective())
    >>> 0.0 < bounds.gradient < 1e-11
    True
    >>> off = follower.cost_to_go + 1e-6
    >>> lqr_error_bounds(problem.at(theta), off, objective=Objective()).gradient > 1e-6
    True
    """
    problem, theta, matrices = at.problem, at.theta, at.matrices
    discount = objective.discount(problem.discount_leader)
    a, b = matrices.dynamics_state, matrices.dynamics_action
    jacobian = problem.jacobian(theta) if gradient else {}
    stretch = [0.0]

    def formula(ledger: Ledger) -> Traced:
        response = respond(
            ledger,
            a,
            b,
            ledger.symmetric(matrices.cost_state_follower),
            ledger.symmetric(matrices.cost_action_follower),
            problem.discount_follower,
            problem.temperature,
            cost_to_go,
            frozen=frozen,
        )
        loop = plain(response.loop)
        stretch[0] = stretch_of(loop, response.loop_error, problem.discount_follower, None)
        stretch[0] = max(stretch[0], stretch_of(loop, response.loop_error, discount, objective.horizon))
        found = _leader(ledger, matrices, response, discount, objective.horizon, method, sweeps)
        parts: list[Traced] = []
        if gradient:
            cotangents = _cotangents(ledger, problem, matrices, response, found, tail)
            parts = pulled(ledger, cotangents, jacobian, PARTS, theta.size)
        return anp.concatenate([anp.reshape(entry, (-1,)) for entry in (found.objective, *parts)])

    return bounds_of(formula, theta.size, lambda: stretch[0])


def _cotangents(
    ledger: Ledger,
    problem: ConfigurableLQR,
    matrices: LQRMatrices,
    response: Response,
    found: _Sums,
    tail: Tail | None,
) -> dict[Part, dict[str, Traced]]:
    a, b = matrices.dynamics_state, matrices.dynamics_action
    d = ledger.symmetric(matrices.cost_action_leader)
    gain, length = response.gain, found.length
    by_gain = ledger.total((2.0, b.T, found.flow), (-2.0, d, gain, found.visits))
    through = response_cotangents(
        ledger,
        response,
        b,
        problem.discount_follower,
        problem.temperature,
        by_reaction=ledger.product(by_gain, a.T),
        by_covariance=ledger.total((-length, d), (-1.0, b.T, found.future, b)),
        tail=tail,
    )
    return {
        "initial": {
            "initial_mean": ledger.total((-2.0, found.cost_to_go, column(matrices.initial_mean))),
            "initial_covariance": -found.cost_to_go,
        },
        "direct": {
            "cost_state_leader": -found.visits,
            "cost_action_leader": ledger.total((-1.0, gain, found.visits, gain.T), (-length, response.covariance)),
            "cost_constant_leader": np.array([[-length]]),
        },
        "transition": {
            "dynamics_state": -2.0 * found.flow,
            "dynamics_action": ledger.total((2.0, found.flow, gain.T), (-2.0, found.future, b, response.covariance)),
            "noise_covariance": -found.future,
        },
        "response": {
            "dynamics_state": ledger.total((1.0, through["dynamics_state"]), (1.0, response.reaction.T, by_gain)),
            "dynamics_action": through["dynamics_action"],
            "cost_state_follower": through["cost_state"],
            "cost_action_follower": through["cost_action"],
        },
        "regulariser": {"regulariser": np.ones((1, 1))},
    }


@error_bound.register(ConfigurableLQR)
def follower_error_bound(at: LQRAt, follower: LQRFollower, objective: Objective) -> AnswerBounds:
    """The bounds for a problem solved by this follower."""
    return lqr_error_bounds(at, follower.riccati.cost_to_go, objective=objective)
