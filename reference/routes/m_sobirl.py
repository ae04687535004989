"""M-SoBiRL's model-based adjoint form, with exact inner solves and with inexact ones.

With `f(s,a) = π(a|s) ∂J/∂π(a|s) = Σ_t γ_L^t Pr(s_t=s) π(a|s) Q_L^(T-t)(s,a)` and the source of the follower's gradient
`c(s,a) = ∇r_F(s,a) + γ_F Σ_s' ∇P(s'|s,a) V_F(s')`, the response part is

    (1/β) [ Σ_{s,a} f(s,a) c(s,a) - Σ_s w(s) Σ_a π(a|s) c(s,a) ],                                               (1)
    (I - γ_F P_πᵀ) w = b,     b(j) = Σ_{s,a} f(s,a) (1[s=j] - γ_F P(j|s,a)).                                    (2)

The method was published for an objective in θ and π alone, with θ in the follower's reward; here the objective is
the leader's return, and θ may enter every table. The adjoint is that of the route `implicit` up to the centring of f,
`w = d V_L - β λ` with that route's λ. A function of the state taken off Q_L moves w and no response: the exact route
takes V_L off, for what is a million in every state would cancel late and leave nothing of a small gradient. The
method's own benchmark objective, `‖θ‖²/2 + ‖π‖²/2`, is no leader's return and has no place here.

What the published iteration adds is inexact solves: a few gradient steps on `‖A w - b‖²/2`, `A = I - γ_F P_πᵀ`, from
the previous w. `m_sobirl_gradient_steps` does that, with a bound on the error it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_positive
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, ShapeError, refusal
from bilevelrl.reference.problem import INFINITE_HORIZON, AnswerBounds, Objective, Part, when_read
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.error_bounds import dense_jacobian, follower_error_bound
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import LeaderEvaluation, evaluate_leader, visited_next
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import DiscountedSystem, Matrix, expected_next, policy_transition

__all__ = ["InexactHypergradient", "m_sobirl", "m_sobirl_gradient_steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InexactHypergradient:
    """A hypergradient with an adjoint that is not solved to the end.

    Attributes
    ----------
    value : (N,)
        The estimate of ∇J(θ).
    parts : {name: (N,)}
        Its parts; only `response` depends on the adjoint.
    adjoint : (S,)
        w, to start from at the next θ.
    residual : float
        Σ_s |(A w - b)(s)|.
    error_bound : float
        Bound on max_j |value_j - value_j with the exact adjoint|: residual · max_s |Σ_a π c_j| / (β (1 - γ_F)). A
        suboptimal follower's own error is not part of it.
    """

    value: FloatArray
    parts: Mapping[Part, FloatArray]
    adjoint: FloatArray
    residual: float
    error_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _AdjointSystem:
    """The linear system of w and what surrounds it, for a given follower."""

    at: TabularAt
    follower: TabularFollower
    follower_value: FloatArray
    evaluation: LeaderEvaluation
    policy_weight: FloatArray  # f, (S, A)
    chain: Matrix  # P_π, (S, S)
    right_hand_side: FloatArray  # b, (S,)

    @property
    def discount(self) -> float:
        """γ_F."""
        return self.at.problem.discount_follower

    def residual(self, adjoint: FloatArray) -> FloatArray:
        """Return A w - b."""
        difference: FloatArray = adjoint - self.discount * np.asarray(self.chain.T @ adjoint) - self.right_hand_side
        return difference


def _adjoint_system(at: TabularAt, follower: TabularFollower, objective: Objective, *, centred: bool) -> _AdjointSystem:
    """The system for Q_L as published, or `centred`, for the benefit Q_L - V_L."""
    problem, tables, policy, centre = at.problem, at.tables, follower.policy, at.centres[1]
    evaluation = evaluate_leader(tables, policy, problem.discount_leader, objective=objective, centre=centre)
    reward = tables.reward_leader - centre
    weight = evaluation.benefit_weight
    if not centred:
        ahead: FloatArray = expected_next(tables.transition, evaluation.value_factor.T)  # (S, A, K)
        # γ_L is already a factor of state_factor.
        later = np.einsum("ks,sak->sa", evaluation.state_factor, ahead)
        weight = policy * (evaluation.occupancy[:, None] * reward + later)
    return _AdjointSystem(
        at=at,
        follower=follower,
        follower_value=follower.value_without(at.constant),
        evaluation=evaluation,
        policy_weight=weight,
        chain=policy_transition(tables.transition, policy),
        right_hand_side=weight.sum(axis=1) - problem.discount_follower * _arriving(tables, weight),  # (2)
    )


def _arriving(tables: Tables, weight: FloatArray) -> FloatArray:
    """Return Σ_{s,a} weight(s,a) P(j|s,a), shape (S,)."""
    result: FloatArray = np.asarray(policy_transition(tables.transition, weight).sum(axis=0)).ravel()
    return result


def _parts(system: _AdjointSystem, adjoint: FloatArray) -> dict[Part, FloatArray]:
    tables, follower, evaluation = system.at.tables, system.follower, system.evaluation
    source_weight = (system.policy_weight - adjoint[:, None] * follower.policy) / system.at.problem.temperature  # (1)
    value = system.follower_value[None, :]
    follower_discount = np.full((1, tables.states), system.discount)
    response = {"reward_follower": source_weight}
    transition: dict[str, FloatArray] = {}
    if "transition" in system.at.varying:
        response["transition"] = visited_next(tables, follower_discount, source_weight, value)
        transition["transition"] = visited_next(
            tables, evaluation.state_factor, follower.policy, evaluation.value_factor
        )
    pull = system.at.pullback
    return {
        "initial": pull({"initial": evaluation.value}),
        "direct": pull({"reward_leader": evaluation.occupancy[:, None] * follower.policy}),
        "transition": pull(transition),
        "response": pull(response),
        "regulariser": pull({"regulariser": np.ones(())}),
    }


@register_route(
    "m_sobirl",
    ConfigurableMDP,
    summary="M-SoBiRL's model-based form: an adjoint of the policy's weights, solved exactly",
    family="linear algebra, adjoint",
    accuracy="rounding times conditioning",
)
def m_sobirl(
    at: TabularAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: TabularFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by M-SoBiRL's adjoint form (Yang et al. 2025, arXiv:2405.19697) for the leader's return; see the module."""
    follower = solve_tabular(at, warm_start=warm_start)
    system = _adjoint_system(at, follower, objective, centred=True)
    factor = DiscountedSystem.factorise(system.chain, system.discount)
    adjoint = factor.solve_transposed(system.right_hand_side)
    solved = _relative_residual(system, adjoint)
    parts = _parts(system, adjoint)

    def error_bound(at: TabularAt) -> AnswerBounds:
        found = follower_error_bound(at, follower, objective)
        if not np.isfinite(found.gradient):
            return found
        own = _adjoint_system(at, follower, objective, centred=True)
        return found._replace(gradient=found.gradient + _cancellation(own, adjoint, factor))

    return Hypergradient(
        value=sum(parts.values(), np.zeros(at.theta.size)),
        parts=parts,
        objective=system.evaluation.objective,
        residual=follower.residual,
        condition_source=factor.condition(),
        error_bound_source=when_read(at, error_bound) if bound else np.inf,
        route="m_sobirl",
        follower=follower,
        status=f"{follower.status.value}; adjoint solved, relative residual {solved:.1e}",
        counters={"sweeps": follower.sweeps, "linear_solves": follower.linear_solves + 2},
    )


def _relative_residual(system: _AdjointSystem, adjoint: FloatArray) -> float:
    """Return Σ|A w - b| relative to the terms it is made of.

    Raises
    ------
    NotConvergedError
        If it is beyond the rounding that elimination leaves of a diagonally dominant system.
    """
    left = float(np.abs(system.residual(adjoint)).sum())
    size = float(np.abs(system.policy_weight).sum() + np.abs(adjoint).sum())
    level = 64.0 * (system.at.tables.states + system.at.tables.actions) * float(np.finfo(np.float64).eps)
    if not left <= level * size:
        raise NotConvergedError(
            f"m_sobirl: the adjoint's residual is {left:.3g}, expected at most {level * size:.3g}; "
            "use route='implicit' and compare"
        )
    return left / size if size > 0.0 else 0.0


def _source_size(system: _AdjointSystem) -> FloatArray:
    """Return |∇r_F| + γ_F Σ_s' |∇P| |V_F|, shape (S, A, N): a bound on |c|."""
    at, tables = system.at, system.at.tables
    jacobian = at.problem.jacobian(at.theta)
    size = np.zeros((tables.states, tables.actions, at.theta.size))
    if "reward_follower" in jacobian:
        size += np.abs(jacobian["reward_follower"])
    if "transition" in jacobian:
        moved = np.abs(dense_jacobian(tables, jacobian["transition"]))
        value = np.abs(system.follower_value)
        size += system.discount * np.einsum("satn,t->san", moved, value)
    return size


def _cancellation(system: _AdjointSystem, adjoint: FloatArray, factor: DiscountedSystem) -> float:
    """Rounding of f - w π and of the solve for w."""
    tables, policy, discount = system.at.tables, system.follower.policy, system.discount
    rounding = (tables.states + tables.actions + 8) * float(np.finfo(np.float64).eps)
    weight, adjoint_size = np.abs(system.policy_weight), np.abs(adjoint)
    forcing = weight.sum(axis=1) + discount * _arriving(tables, weight)
    forcing += adjoint_size + discount * np.asarray(system.chain.T @ adjoint_size)
    adjoint_off = factor.solve_transposed(rounding * forcing)
    off = rounding * (weight + adjoint_size[:, None] * policy) + adjoint_off[:, None] * policy
    error = np.einsum("sa,san->n", off, _source_size(system)) / system.at.problem.temperature
    return float(error.max(initial=0.0))


def m_sobirl_gradient_steps(
    problem: ConfigurableMDP,
    theta: object,
    adjoint: object,
    *,
    gradient_steps: int = 1,
    step_size: float = 0.5,
    follower: TabularFollower | None = None,
    horizon: int | None = None,
    discounted: bool = True,
) -> InexactHypergradient:
    """M-SoBiRL as it is run: a few gradient steps on ‖A w - b‖²/2 from a stale w, under a possibly stale follower.

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    adjoint
        (S,), the w to start from, typically that of the previous θ.
    gradient_steps
        How many steps `w ← w - step_size Aᵀ(A w - b)`; 0 uses the stale w as it is.
    step_size
        Converges for step_size < 2/‖A‖₂².
    follower
        The response whose values and policy are used, for example one stopped early; None: the best response.
    horizon, discounted
        Which objective; see `hypergradient`.

    Returns
    -------
    InexactHypergradient

    Raises
    ------
    InvalidInputError
        If `gradient_steps` or `step_size` are out of range, or `adjoint` has a wrong shape or is not finite.
    NotConvergedError
        If the steps increase the residual: the step size is too large.

    References
    ----------
    Yang et al. (2025), arXiv:2405.19697.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    >>> rough = m_sobirl_gradient_steps(problem, theta, np.zeros(4), gradient_steps=3)
    >>> exact = hypergradient(problem, theta, route="m_sobirl")
    >>> bool(np.abs(rough.value - exact.value).max() <= rough.error_bound + exact.error_bound)
    True
    """
    objective = Objective(horizon, discounted)
    step_size = check_positive("step_size", step_size, "choose it below 2/‖I - γ_F P_πᵀ‖₂²")
    if isinstance(gradient_steps, bool) or not isinstance(gradient_steps, (int, np.integer)) or gradient_steps < 0:
        raise InvalidInputError(refusal("gradient_steps", gradient_steps, "an integer >= 0", "one step is usual"))
    at = problem.at(theta)
    system = _adjoint_system(at, solve_tabular(at) if follower is None else follower, objective, centred=False)
    states = at.tables.states
    current = np.array(adjoint, dtype=np.float64)
    if current.shape != (states,):
        raise ShapeError(refusal("adjoint.shape", current.shape, f"({states},)", "start from zeros"))
    if not np.isfinite(current).all():
        raise InvalidInputError("adjoint: expected finite values; start from zeros")
    discount = problem.discount_follower
    start = left = system.residual(current)
    for _ in range(gradient_steps):
        current = current - step_size * (left - discount * np.asarray(system.chain @ left))
        left = system.residual(current)
        # A step below the limit never lengthens the residual, whatever the start; the slack is rounding.
        if np.linalg.norm(left) > np.linalg.norm(start) + 1e-9 * np.linalg.norm(system.right_hand_side):
            raise NotConvergedError(
                f"step_size={step_size!r}: the residual of the adjoint grew from {np.linalg.norm(start):.3g} to "
                f"{np.linalg.norm(left):.3g}; expected a step below 2/‖I - γ_F P_πᵀ‖₂²; reduce step_size"
            )
    parts = _parts(system, current)
    averaged = np.einsum("sa,san->sn", system.follower.policy, _source_size(system))
    remaining = float(np.abs(left).sum())
    return InexactHypergradient(
        value=sum(parts.values(), np.zeros(at.theta.size)),
        parts=parts,
        adjoint=current,
        residual=remaining,
        error_bound=remaining * float(averaged.max(initial=0.0)) / (problem.temperature * (1.0 - discount)),
    )
