"""The total derivative through the follower's policy parameters.

    ∇J = ∂_θ J - ∂_φ J (∂²_φφ F)^{-1} ∂²_φθ F                                                                   (1)
    G = ∂_φ F = visits × probability × advantage                                                                (2)

The follower is a softmax with one logit φ per decision point and action, and F(φ, θ) its own entropy-regularised
return; its best response is where G vanishes. This is how Stackelberg actor-critic methods (Zheng et al.
2022) and ST-MADDPG differentiate through a follower, here with exact derivatives of G by reverse mode.

Two things make the Hessian singular, and both are removed by choosing coordinates: a softmax does not feel a constant
added to all its logits (the most probable action's logit is held fixed), and what is never visited does not enter F
(such coordinates are left out). F starts from the leader's own occupancy, so that what the leader visits is visited.
Scaled by the square roots of visits times probabilities the Hessian is `-β (I - √g √gᵀ)` per decision point at the best
response, with a condition number of at most the number of actions; the system is solved by least squares.
"""

from __future__ import annotations

from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.derivatives.autodiff import log_sum_exp
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.reference.game.error_bounds import follower_error_bound
from bilevelrl.reference.game.follower import GameFollower, solve_game
from bilevelrl.reference.game.leader import evaluate_game_leader
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.problem import INFINITE_HORIZON, AnswerBounds, Objective, Part, when_read
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.transitions import DiscountedSystem

__all__ = ["COORDINATE_LIMIT", "follower_stationarity", "game_total_derivative"]

COORDINATE_LIMIT = 3000
"""Follower's logits beyond which the route refuses: one reverse pass each, and a dense system."""

_VISITED = 1e-200  # below, square roots of the visits would underflow in products


def follower_stationarity(game: MarkovGame, start: FloatArray, logits: Traced, policy: Traced) -> Traced:
    """Return G = ∂F/∂φ at logits φ (S, D, A) and a leader policy f (S, L), traceable in both; zero at a best response.

    `F = E Σ_t γ_F^t (r_F + β H)` from the start law (S,). By the policy gradient theorem G is visits times probability
    times advantage, entropy included, at any φ.
    """
    beta, discount = game.temperature, game.discount_follower
    shape = game.reward_follower.shape
    log_response = logits - anp.reshape(log_sum_exp(logits, axis=2), (*np.shape(logits)[:2], 1))
    response = anp.exp(log_response)
    everywhere = np.ones((1, shape[1], 1)) if np.shape(logits)[1] == 1 else 1.0
    joint = anp.reshape(policy, (*shape[:2], 1)) * (response * everywhere)
    chain = anp.einsum("sla,slat->st", joint, game.transition)
    system = np.eye(shape[0]) - discount * chain
    gained = anp.sum(joint * (game.reward_follower - beta * log_response * everywhere), axis=(1, 2))
    # The transpose is dominated by its diagonal column by column: eliminating it exchanges no rows, so that what nobody
    # reaches leaves no rounding elsewhere.
    reached = anp.linalg.inv(anp.transpose(system))
    value, visits = anp.dot(gained, reached), anp.dot(reached, start)
    ahead = anp.reshape(anp.dot(game.transition.reshape(-1, shape[0]), value), shape)
    action_value = game.reward_follower + discount * ahead
    reach = policy
    if np.shape(logits)[1] == 1:
        action_value = anp.reshape(anp.sum(anp.reshape(policy, (*shape[:2], 1)) * action_value, axis=1), response.shape)
        reach = np.ones((shape[0], 1))
    soft = action_value - beta * log_response
    advantage = soft - anp.reshape(anp.sum(response * soft, axis=2), (*np.shape(logits)[:2], 1))
    weight = anp.reshape(visits, (shape[0], 1)) * reach
    return anp.reshape(weight, (*np.shape(logits)[:2], 1)) * response * advantage  # (2)


@register_route(
    "total_derivative",
    MarkovGame,
    summary="inverse Hessian through the follower's logits, by least squares on visited, gauge-fixed coordinates",
    family="follower's stationarity, autograd",
    accuracy="rounding times conditioning",
)
def game_total_derivative(
    at: GameAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: GameFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J of a Markov game by the total derivative through the follower's logits; see the module's formulas.

    Raises
    ------
    TooLargeError
        If the follower has more than `COORDINATE_LIMIT` logits.
    """
    problem, theta, policy, points = at.problem, at.theta, at.policy, at.points
    follower = solve_game(at, warm_start=warm_start)
    response = follower.response
    if response.size > COORDINATE_LIMIT:
        raise TooLargeError(
            f"total_derivative: the follower has {response.size} logits, expected at most {COORDINATE_LIMIT}; "
            "use route='implicit' or 'theorem2'"
        )
    evaluation = evaluate_game_leader(at, response, objective=objective)
    start = evaluation.occupancy / evaluation.occupancy.sum()
    logits = points.reward_follower + problem.discount_follower * points.ahead(follower.centred_state_value)
    logits = (logits - logits.max(axis=2, keepdims=True)) / problem.temperature
    shifted = replace(problem, reward_follower=problem.reward_follower - points.centre_follower)
    pull, _ = autograd.make_vjp(lambda x: follower_stationarity(shifted, start, x[0], x[1]))((logits, policy))

    system = DiscountedSystem.factorise(points.chain(response), problem.discount_follower)
    visits = system.solve_transposed(start)[:, None] * points.reach
    moves = visits[:, :, None] * response > _VISITED
    np.put_along_axis(moves, response.argmax(axis=2, keepdims=True), False, axis=2)  # the gauge
    free = np.flatnonzero(moves)
    scale = np.sqrt((visits[:, :, None] * response).ravel()[free])
    hessian, mixed = np.zeros((free.size, free.size)), np.zeros((free.size, theta.size))
    slope = problem.policy_jacobian(theta).reshape(policy.size, theta.size)
    for row, coordinate in enumerate(free):
        unit = np.zeros(response.shape)
        unit.flat[coordinate] = 1.0 / scale[row]
        of_logits, of_policy = pull(unit)
        hessian[row] = np.asarray(of_logits).ravel()[free] / scale
        mixed[row] = np.asarray(of_policy).ravel() @ slope
    pushed = evaluation.response_weight.ravel()[free] / scale
    condition = 1.0
    responded = np.zeros(theta.size)
    if free.size:
        adjoint: FloatArray
        adjoint, _, _, singular = np.linalg.lstsq(hessian.T, pushed, rcond=None)  # type: ignore[assignment]
        responded = -(adjoint @ mixed)  # (1)
        condition = float(singular[0] / singular[-1])

    def error_bound(at: GameAt) -> AnswerBounds:
        # Where the game goes: elsewhere values may be large, and known badly.
        met = (visits[:, :, None] * response > 0.0) & (policy > 0.0)[:, :, None]
        own = _own_error(problem, follower, met, hessian, mixed, adjoint) if free.size and theta.size else 0.0
        found = follower_error_bound(at, follower, objective)
        return found._replace(gradient=found.gradient + own)

    parts: dict[Part, FloatArray] = {
        "policy": at.pullback({"policy": evaluation.policy_weight}),
        "response": responded,
        "regulariser": at.pullback({"regulariser": np.ones(())}),
    }
    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=evaluation.objective + at.regulariser,
        residual=follower.residual,
        condition_source=condition,
        error_bound_source=when_read(at, error_bound) if bound else np.inf,
        route="total_derivative",
        follower=follower,
        status=follower.status.value,
        counters={"sweeps": follower.sweeps, "linear_solves": follower.linear_solves + 1, "evaluations": free.size},
    )


def _own_error(
    game: MarkovGame, follower: GameFollower, met: Traced, hessian: FloatArray, mixed: FloatArray, adjoint: FloatArray
) -> float:
    """Bound what rounding and the follower's own error do to the scaled system `H y = p` and to its product.

    Entries of H and of ∂²F are advantages differentiated: each is off by the rounding of the values, carried over a
    horizon, and by twice the error of the values; a change of H by E changes `yᵀ ∂²F` by at most `|y| |E| |H⁻¹ ∂²F|`.
    """
    eps = float(np.finfo(np.float64).eps)
    rounding = (game.states + game.leader_actions + game.actions + 8) * eps
    span = 1.0 / (1.0 - game.discount_follower)
    size = game.temperature + span * float(np.abs(follower.centred_action_value[met]).max())
    off = rounding * size + 2.0 * float(follower.errors_on_demand().action_value[met].max())
    moved = np.linalg.lstsq(hessian, mixed, rcond=None)[0]
    length = float(np.linalg.norm(adjoint))
    own = off * np.linalg.norm(moved, axis=0) + rounding * span * np.linalg.norm(mixed, axis=0)
    return float(length * own.max())
