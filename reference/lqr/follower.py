"""The entropy-regularised best response in linear-quadratic problems (arXiv:2603.14867, Propositions 1 and 2).

The follower chooses a to minimise `a'R a + γ (y + B a)'P (y + B a)` where y is the next state without its action, and
pays β for determinism. Without sight of the disturbance `y = A x`, so that `K = G A`; a follower that sees the leader's
action l reacts to `y = A x + C l`. Integrating `exp(Q_F/β)` leaves an entropy cost in every step:

    a ~ N(-G y, Σ),   Σ = (β/2) S^{-1},                                                                          (1)
    entropy cost = (β/2) log det S - (β m/2) log(π β),                                                           (2)
    Q_F = V_F + β log π.                                                                                         (3)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, check_joined, check_shape, check_vectors
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import (
    InvalidInputError,
    NotConvergedError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
    refusal,
)
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.solvers import (
    EquationSolver,
    RiccatiSolution,
    discounted_lyapunov,
    solve_riccati,
    symmetric,
)
from bilevelrl.reference.problem import Status, solve

__all__ = [
    "LQRFollower",
    "ResponseCotangents",
    "action_covariance",
    "best_response",
    "entropy_cost",
    "follower_riccati",
    "response_cotangents",
    "solve_lqr",
]


def entropy_cost(curvature: FloatArray, temperature: float) -> float:
    """Return (β/2) log det S - (β m/2) log(π β): minus β times the log of the integral of the Gaussian weight.

    Examples
    --------
    >>> round(entropy_cost(np.eye(1), 1.0 / np.pi), 12)
    0.0
    """
    _, log_determinant = np.linalg.slogdet(curvature)
    return 0.5 * temperature * (float(log_determinant) - len(curvature) * float(np.log(np.pi * temperature)))  # (2)


def action_covariance(curvature: FloatArray, temperature: float) -> FloatArray:
    """Return Σ = (β/2) S^{-1}, symmetric."""
    result: FloatArray = symmetric(0.5 * temperature * np.linalg.inv(curvature))  # (1)
    return result


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class LQRFollower:
    """A follower's linear Gaussian response.

    Attributes
    ----------
    gain : (m, n)
        K of `a ~ N(-K x, Σ)`; of a follower that sees the leader's action, `a ~ N(-K x - L l, Σ)`.
    gain_leader : (m, p) or None
        L, the reaction to the leader's action where it is seen.
    covariance : (m, m)
        Σ.
    cost_to_go : (n, n)
        P.
    offset : float
        v of `V_F(x) = -x'P x - v`: the value before the leader's action is drawn, where there is one.
    cost_to_go_seen : (n + p, n + p) or None
        Of (x, l): `V_F(x, l) = -(x, l)'P (x, l) - offset_seen`, where the leader's action is seen.
    offset_seen : float
    temperature : float
        β.
    riccati : RiccatiSolution
        What it was computed from.
    residual, error_bound : float
        Of P: Frobenius norm of the Riccati residual, first-order bound on the spectral norm of the error.
    status, iterations
        How the solver ended and what it cost.
    """

    gain: FloatArray
    covariance: FloatArray
    cost_to_go: FloatArray
    offset: float
    temperature: float
    riccati: RiccatiSolution
    status: Status
    gain_leader: FloatArray | None = None
    cost_to_go_seen: FloatArray | None = None
    offset_seen: float = 0.0

    @property
    def residual(self) -> float:
        """Frobenius norm of the Riccati residual of P."""
        return self.riccati.residual

    @property
    def error_bound(self) -> float:
        """First-order bound on the spectral norm of the error of P."""
        return self.riccati.error_bound

    @property
    def iterations(self) -> int:
        """Doubling steps or Riccati sweeps."""
        return self.riccati.iterations

    @checked
    def mean(self, state: object, leader_action: object = None) -> FloatArray:
        """Return the mean action, (..., m), at states (..., n)."""
        result: FloatArray = -check_vectors("state", state, self.gain.shape[1]) @ self.gain.T
        if self.gain_leader is not None:
            reaction = check_vectors("leader_action", self._seen(leader_action), self.gain_leader.shape[1])
            check_shape("leader_action", reaction, (*result.shape[:-1], reaction.shape[-1]), "one per state")
            result = result - reaction @ self.gain_leader.T
        return result

    @checked
    def value_at(self, state: object, leader_action: object = None) -> FloatArray:
        """Return V_F of each state (..., n), or of state and leader action where one is given and seen."""
        x = check_vectors("state", state, self.gain.shape[1])
        if leader_action is None or self.cost_to_go_seen is None:
            result: FloatArray = -np.vecdot(x @ self.cost_to_go, x) - self.offset
            return result
        joint = check_joined(x, leader_action, (len(self.cost_to_go_seen) - x.shape[-1], x.shape[-1]), "leader_action")
        seen: FloatArray = -np.vecdot(joint @ self.cost_to_go_seen, joint) - self.offset_seen
        return seen

    @checked
    def action_value_at(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return Q_F = V_F + β log π of each state (..., n) and action (..., m), up to the residual."""
        value = self.value_at(state, leader_action)
        return value + self.temperature * self.log_prob(state, action, leader_action)  # (3)

    @checked
    def sample(self, state: object, rng: Generator, leader_action: object = None) -> FloatArray:
        """Draw an action for each state, (..., m)."""
        mean = self.mean(state, leader_action)
        return mean + rng.standard_normal(mean.shape) @ np.linalg.cholesky(self.covariance).T

    @checked
    def log_prob(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return the log-density of each action."""
        mean = self.mean(state, leader_action)
        played = check_vectors("action", action, mean.shape[-1])
        check_shape("action", played, mean.shape, "one per state")
        off = played - mean
        _, log_determinant = np.linalg.slogdet(2.0 * np.pi * self.covariance)
        result: FloatArray = -0.5 * (np.vecdot(off @ np.linalg.inv(self.covariance), off) + log_determinant)
        return result

    def _seen(self, leader_action: object) -> object:
        if leader_action is None:
            raise UnsupportedError("leader_action=None: this follower reacts to the leader's action; pass it")
        return leader_action


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCotangents:
    """Cotangents of what the follower's solver reads: A, B, Q and R."""

    dynamics_state: FloatArray
    dynamics_action: FloatArray
    cost_state: FloatArray
    cost_action: FloatArray


def response_cotangents(
    riccati: RiccatiSolution,
    dynamics_action: FloatArray,
    discount: float,
    *,
    reaction: FloatArray,
    covariance: FloatArray,
    temperature: float,
) -> ResponseCotangents:
    """Pull cotangents of G and Σ back through the Riccati equation by one adjoint Lyapunov equation.

    Parameters
    ----------
    riccati, dynamics_action, discount, temperature
        The solution with its B, γ_F and β.
    reaction, covariance
        Cotangents (m, n) of G and (m, m) of Σ.

    Returns
    -------
    ResponseCotangents
        Without the direct dependence of `K = G A` on A.
    """
    p, b = riccati.cost_to_go, dynamics_action
    solved = np.linalg.solve(riccati.curvature, reaction)
    sigma = action_covariance(riccati.curvature, temperature)
    curvature = -symmetric(solved @ riccati.reaction.T) - (2.0 / temperature) * sigma @ symmetric(covariance) @ sigma
    pushed = discount * symmetric(b @ (solved + curvature @ b.T))
    weight = discounted_lyapunov(riccati.closed_loop.T, pushed, discount)
    through = 2.0 * discount * p @ riccati.closed_loop @ weight
    return ResponseCotangents(
        dynamics_state=through,
        dynamics_action=discount * p @ (solved.T + 2.0 * b @ curvature) - through @ riccati.gain.T,
        cost_state=weight,
        cost_action=curvature + riccati.gain @ weight @ riccati.gain.T,
    )


def best_response(matrices: LQRMatrices, riccati: RiccatiSolution, discount: float, temperature: float) -> LQRFollower:
    """Return the follower of Proposition 1 from a Riccati solution."""
    noise = discount * float(np.vdot(riccati.cost_to_go, matrices.noise_covariance))
    return LQRFollower(
        gain=riccati.gain,
        covariance=action_covariance(riccati.curvature, temperature),
        cost_to_go=riccati.cost_to_go,
        offset=(noise + entropy_cost(riccati.curvature, temperature)) / (1.0 - discount),
        temperature=temperature,
        riccati=riccati,
        status=Status.CONVERGED,
    )


def follower_riccati(
    a: FloatArray,
    b: FloatArray,
    q: FloatArray,
    r: FloatArray,
    discount: float,
    *,
    method: str = "newton",
    tolerance: float = 1e-12,
    max_iterations: int | None = None,
    warm_start: object = None,
    stop_after: int | None = None,
    throw: bool = True,
) -> tuple[RiccatiSolution, Status]:
    """Solve with the options of `solve_follower`: "newton" is doubling with a Newton step, sweeps are the iteration.

    Raises
    ------
    UnsupportedError
        For methods that only tabular problems have.
    NotConvergedError
        If sweeps reach their limit and `throw` is True.
    """
    solvers: dict[str, EquationSolver | str] = {"newton": "doubling", "value_iteration": "sweeps"}
    if method not in solvers:
        if method == "modified_policy_iteration":
            raise UnsupportedError("method='modified_policy_iteration': for tabular problems; use 'newton'")
        raise UnknownNameError("method", method, solvers)
    start = None if warm_start is None else _start(warm_start, np.shape(a))
    if stop_after is None and method == "newton":
        return solve_riccati(a, b, q, r, discount), Status.CONVERGED
    limit = 1_000_000 if max_iterations is None else max_iterations
    try:
        riccati = solve_riccati(
            a,
            b,
            q,
            r,
            discount,
            method="sweeps",
            tolerance=tolerance,
            max_iterations=limit,
            stop_after=stop_after,
            start=start,
        )
    except NotConvergedError:
        if throw:
            raise
        riccati = solve_riccati(a, b, q, r, discount, method="sweeps", stop_after=limit, start=start)
        return riccati, Status.ITERATION_LIMIT
    return riccati, Status.CONVERGED if stop_after is None else Status.STOPPED_EARLY


def _start(warm_start: object, shape: tuple[int, ...]) -> FloatArray:
    """Return P of a previous solution, refusing what is none or another problem's."""
    if not isinstance(warm_start, LQRFollower):
        found = type(warm_start).__name__
        raise InvalidInputError(
            refusal("warm_start", found, "an LQRFollower or a Hypergradient", "start from a solution of this problem")
        )
    if warm_start.cost_to_go.shape != shape:
        remedy = "start from a solution of this problem"
        raise ShapeError(refusal("warm_start.shape", warm_start.cost_to_go.shape, f"{shape}", remedy))
    return warm_start.cost_to_go


@solve.register(ConfigurableLQR)
def solve_lqr(at: LQRAt, **options: Any) -> LQRFollower:
    """Solve the follower of a configurable LQR; arguments and errors as in `solve_follower`."""
    problem = at.problem
    riccati, status = follower_riccati(*at.follower_system, problem.discount_follower, **options)
    response = best_response(at.matrices, riccati, problem.discount_follower, problem.temperature)
    return replace(response, status=status)
