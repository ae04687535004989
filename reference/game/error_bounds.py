"""How far a floating-point hypergradient of a Markov game can be from the truth: a first-order bound.

The same argument as for configurable MDPs, at the follower's decision points d: (s, l) if it sees the leader's action,
s if it does not. Let ε(s) bound the error of the follower's values and η the relative error of g, both from
`value_errors`, and u the rounding of one inner product. With `R = (I - γ P)^{-1}` over states for either player, entry
by entry and to first order,

    |δlaw|  ≤ R_Lᵀ (γ_L (η g K)ᵀ law + u law)
    |δV_L|  ≤ R_L Σ reach g (η |B| + u |Q_L|),    |δQ_L| ≤ γ_L P |δV_L| + u |Q_L|
    |δV_L(s,l)| ≤ Σ_a g (η |Q_L - V_L(s,l)| + |δQ_L|)
    |δ∇W|   ≤ R_F (Σ reach g (η |∇Q - E_g ∇Q| + |δ∇Q own|) + |δ∇W own| + u |∇W|),  |δ∇Q| ≤ γ_F K |δ∇W| + |δ∇Q own|

with the own terms `∇W own = Σ_l ∇f V_F(s,l)` of a seeing follower and `∇Q own = Σ_l ∇f Q_F(s,l,a)` of one that does not
see; both take V_F and Q_F relative to their mean, since Σ_l ∇f = 0.

Where η is large and g small, and where nothing is known, is as for configurable MDPs.

Laws mean themselves divided by their sums: u holds how far their doubles are from that, as for configurable MDPs, and
|Σ_l ∇f| times the mean of what f weighs is what a route that does not take the mean off is off by.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.game.decisions import DecisionPoints
from bilevelrl.reference.game.follower import GameFollower
from bilevelrl.reference.game.leader import truncated_stages
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.problem import AnswerBounds, Objective, error_bound
from bilevelrl.reference.problem.on_demand import BOUND_SIZE_LIMIT, FIRST_ORDER
from bilevelrl.reference.tabular.transitions import DiscountedSystem, law_error
from bilevelrl.reference.tabular.value_errors import ValueErrors

__all__ = ["follower_error_bound", "game_error_bound", "game_objective_noise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leader:
    """The leader's quantities by stage (K: one per step of an episode, or one for ever), and their errors.

    Attributes
    ----------
    law, law_off : (K, S)
        Discounted probability of the state.
    action_value, size, off : (K, S, L, A)
        Q_L, the sum of the magnitudes that make it up, and its error.
    value, value_off : (S,)
        |V_L| with everything to go.
    """

    law: FloatArray
    law_off: FloatArray
    action_value: FloatArray
    size: FloatArray
    off: FloatArray
    value: FloatArray
    value_off: FloatArray


def _rounding(game: MarkovGame, points: DecisionPoints) -> float:
    rounded = (game.states + game.leader_actions + game.actions + 8) * float(np.finfo(np.float64).eps)
    return rounded + points.law_error + law_error(game.initial)


def _leader(
    game: MarkovGame,
    policy: FloatArray,
    points: DecisionPoints,
    response: FloatArray,
    off: FloatArray,
    *,
    discount: float,
    horizon: int | None,
) -> _Leader:
    """Carry η (S, D, A) through the leader's evaluation."""
    rounding, chain = _rounding(game, points), points.chain(response)
    moved = points.chain(off * response)
    carrying = chain + moved
    reward = game.reward_leader - points.centre_leader
    flat = game.transition.reshape(-1, game.states)

    def ahead(value: FloatArray) -> FloatArray:
        return discount * (flat @ value).reshape(reward.shape)

    def stage(value: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        action_value = reward + ahead(value)
        size = np.abs(reward) + ahead(np.abs(value))
        seen = action_value if game.follower_sees_leader_action else np.matmul(policy[:, None, :], action_value)
        centred = np.abs(seen - np.vecdot(response, seen)[:, :, None])
        rounded = rounding * np.vecdot(policy, np.vecdot(np.broadcast_to((1.0 + off) * response, size.shape), size))
        return action_value, size, points.average(response, off * centred) + rounded

    earned = points.average(response, points.reward_leader)
    if horizon is None:
        system, carry = (DiscountedSystem.factorise(matrix, discount) for matrix in (chain, carrying))
        value, law = system.solve(earned), system.solve_transposed(game.initial)
        action_value, size, source = stage(value)
        value_off = carry.solve(source)
        law_off = carry.solve_transposed(discount * (moved.T @ law) + rounding * law)
        return _Leader(
            law=law[None],
            law_off=law_off[None],
            action_value=action_value[None],
            size=size[None],
            off=(ahead(value_off) + rounding * size)[None],
            value=np.abs(value),
            value_off=value_off,
        )
    laws, values = truncated_stages(chain, game.initial, earned, discount, horizon)
    laws_off, value_off = np.zeros_like(laws), np.zeros(game.states)
    laws_off[0] = rounding * game.initial
    for t in range(1, horizon):
        laws_off[t] = discount * (carrying.T @ laws_off[t - 1] + moved.T @ laws[t - 1]) + rounding * laws[t]
    action_values, sizes, offs = (np.zeros((horizon, *reward.shape)) for _ in range(3))
    for h in range(1, horizon + 1):
        action_values[horizon - h], sizes[horizon - h], source = stage(values[h - 1])
        offs[horizon - h] = ahead(value_off) + rounding * sizes[horizon - h]
        value_off = source + discount * (carrying @ value_off)
    return _Leader(
        law=laws,
        law_off=laws_off,
        action_value=action_values,
        size=sizes,
        off=offs,
        value=np.abs(values[horizon]),
        value_off=value_off,
    )


def _stretch(
    points: DecisionPoints, response: FloatArray, off: FloatArray, discounts: Collection[float], horizon: int | None
) -> float:
    """Return by how much the inverses of computed and true response differ at most; inf where η is."""
    if not np.isfinite(off).all():
        return np.inf
    moved = points.average(response, off)
    chain = points.chain(response)
    endless = (DiscountedSystem.factorise(chain, discount).solve(moved).max() for discount in discounts)
    return float(max(endless, default=0.0)) + (horizon or 0) * float(moved.max())


@error_bound.register(MarkovGame)
def follower_error_bound(at: GameAt, follower: GameFollower, objective: Objective) -> AnswerBounds:
    """The bounds for a game solved by this follower."""
    return game_error_bound(
        at,
        response=follower.response,
        state_value=follower.centred_state_value,
        objective=objective,
        errors=follower.errors_on_demand(),
    )


def game_error_bound(
    at: GameAt,
    *,
    response: FloatArray,
    state_value: FloatArray,
    objective: Objective,
    errors: ValueErrors,
    remainder: float = 0.0,
) -> AnswerBounds:
    """Return the first-order bounds on max_j |∂J/∂θ_j - truth|, every part included, and on |J - truth|.

    Parameters
    ----------
    at
        The game, evaluated.
    response, state_value
        g at the decision points (S, D, A), and W (S,) without its constant.
    objective
        Which objective.
    errors
        ε and η, with Q_F's by the leader's action.
    remainder
        Largest discounted mass, relative to one, that is left where sums over time are cut off.

    Returns
    -------
    AnswerBounds
        inf where the first order says nothing, or where the arrays would exceed `BOUND_SIZE_LIMIT` entries.
    """
    game, theta, policy, points = at.problem, at.theta, at.policy, at.points
    stages = 1 if objective.horizon is None else objective.horizon
    if game.reward_leader.size * max(theta.size, 4 * stages) > BOUND_SIZE_LIMIT:
        return AnswerBounds(np.inf, np.inf)
    rounding = _rounding(game, points)
    discount = objective.discount(game.discount_leader)
    slope = game.policy_jacobian(theta)  # (S, L, N)
    met = _relevant(game, policy, points, response, slope)
    if not met.all():  # the others are worth anything, and known as badly as they like
        game, points = _at(game, points, met)
        policy, response, state_value, slope = policy[met], response[met], state_value[met], slope[met]
        errors = errors.at(met)
    off = errors.policy
    endless = {game.discount_follower} | ({discount} if objective.horizon is None else set())
    stretch = _stretch(points, response, off, endless, objective.horizon)
    if not stretch < FIRST_ORDER:
        return AnswerBounds(np.inf, np.inf)
    leader = _leader(game, policy, points, response, off, discount=discount, horizon=objective.horizon)
    cut = 0.0 if objective.horizon is not None else remainder
    law_off = leader.law_off + cut
    size = float(leader.size.max())
    leader_off = leader.off + cut * size
    steep = np.abs(slope)
    heavy = (1.0 + off) * response
    spread, spread_off, spread_heavy = (np.broadcast_to(x, game.reward_leader.shape) for x in (response, off, heavy))

    # Policy part: Σ law Σ_l ∇f V_L(s, l).
    value = np.vecdot(spread, leader.action_value)
    centred = np.abs(leader.action_value - value[..., None])
    value_off = np.vecdot(spread, spread_off * centred) + np.vecdot(spread_heavy, leader_off)
    relative = np.abs(value - np.vecdot(policy, value)[..., None])
    by_pair = (law_off[:, :, None] * relative + leader.law[:, :, None] * value_off).sum(axis=0)
    by_pair += rounding * (leader.law[:, :, None] * np.vecdot(spread, leader.size)).sum(axis=0)
    drift = np.abs(slope.sum(axis=1))  # (S, N)
    error = np.einsum("sl,sln->n", by_pair, steep)
    error += np.einsum("ks,sn->n", leader.law * np.abs(np.vecdot(policy, value)), drift)

    # The follower's gradient and its error.
    gradient, gradient_off = _follower_gradient(
        game, points, response, off, state_value, slope, policy, errors, remainder
    )
    mean = np.einsum("sda,sdan->sdn", response, gradient)
    apart = np.abs(gradient - mean[:, :, None])
    seen, seen_off, seen_size = leader.action_value, leader_off, leader.size
    if not game.follower_sees_leader_action:
        seen, seen_off, seen_size = (np.matmul(policy[:, None, :], x) for x in (seen, seen_off, seen_size))
    benefit = np.abs(seen - np.vecdot(response, seen)[..., None])
    weight, weighed = points.reach[:, :, None] * response, points.reach[:, :, None] * heavy
    law, lawless = leader.law[:, :, None, None], law_off[:, :, None, None]
    pair = (lawless * weighed * benefit).sum(axis=0) + off * (law * weight * benefit).sum(axis=0)
    pair += (law * weighed * seen_off).sum(axis=0)
    sizes = (law * weighed * seen_size).sum(axis=0)
    guiding = np.einsum("sda,sdan->n", pair, apart)
    guiding += np.einsum("sda,sdan->n", (law * weighed * benefit).sum(axis=0), gradient_off)
    guiding += rounding * np.einsum("sda,sdan->n", sizes, np.abs(gradient))
    error += guiding / game.temperature
    if game.regulariser is not None:
        error += rounding * np.abs(game.regulariser_gradient(theta))
    earned = float(game.initial @ (leader.value_off + cut * size + rounding * leader.value))
    constant = objective.constant_return(points.centre_leader, game.discount_leader)
    added = 8.0 * float(np.finfo(np.float64).eps) * (abs(constant) + abs(at.regulariser))
    return AnswerBounds(
        gradient=float(error.max(initial=0.0)) / (1.0 - stretch) ** 4,
        objective=earned / (1.0 - stretch) ** 2 + added,
    )


def _follower_gradient(
    game: MarkovGame,
    points: DecisionPoints,
    response: FloatArray,
    off: FloatArray,
    state_value: FloatArray,
    slope: FloatArray,
    policy: FloatArray,
    errors: ValueErrors,
    remainder: float,
) -> tuple[FloatArray, FloatArray]:
    """Return ∇Q at the decision points, (S, D, A, N), and the bound on its error."""
    rounding = _rounding(game, points)
    discount, steep, drift = game.discount_follower, np.abs(slope), np.abs(slope.sum(axis=1))
    states, parameters = game.states, slope.shape[2]
    action_value = game.reward_follower - points.centre_follower + discount * (game.transition @ state_value)
    if game.follower_sees_leader_action:
        largest = action_value.max(axis=2)
        soft = largest + game.temperature * np.log(
            np.exp((action_value - largest[:, :, None]) / game.temperature).sum(axis=2)
        )
        mean = np.vecdot(policy, soft)[:, None]
        own = np.einsum("sln,sl->sn", slope, soft - mean)
        soft_off = errors.point_value + np.vecdot(policy, errors.point_value)[:, None]
        own_off = np.einsum("sln,sl->sn", steep, soft_off + rounding * np.abs(soft)) + drift * np.abs(mean)
        direct: FloatArray = np.zeros((*response.shape, parameters))
        direct_off = direct
    else:
        means = np.matmul(policy[:, None, :], action_value)  # (S, 1, A)
        own = own_off = np.zeros((states, parameters))
        direct = np.einsum("sln,sla->san", slope, action_value - means)[:, None]
        action_off = errors.action_value + np.matmul(policy[:, None, :], errors.action_value)
        direct_off = np.einsum("sln,sla->san", steep, action_off + rounding * np.abs(action_value))[:, None]
        direct_off = direct_off + np.abs(means)[..., None] * drift[:, None, None]
    flat = points.kernel.reshape(-1, states)

    def ahead(x: FloatArray) -> FloatArray:
        return discount * (flat @ x).reshape(*response.shape, parameters)

    weight, heavy = points.reach[:, :, None] * response, points.reach[:, :, None] * (1.0 + off) * response
    system, carry = (DiscountedSystem.factorise(points.chain(x), discount) for x in (response, (1.0 + off) * response))
    through = system.solve(own + np.einsum("sda,sdan->sn", weight, direct))
    gradient = direct + ahead(through)
    centred = np.abs(gradient - np.einsum("sda,sdan->sdn", response, gradient)[:, :, None])
    direct_off = direct_off + rounding * np.abs(gradient)
    source = own_off + rounding * np.abs(through)
    source = source + np.einsum("sda,sdan->sn", weight, off[..., None] * centred)
    source = source + np.einsum("sda,sdan->sn", heavy, direct_off)
    played = np.abs(direct[response > 0.0])  # Q of what cannot be played is a large number without a meaning
    left = remainder * float(np.abs(own).max(initial=0.0) + played.max(initial=0.0))
    return gradient, direct_off + ahead(carry.solve(source)) + left


def _relevant(
    game: MarkovGame, policy: FloatArray, points: DecisionPoints, response: FloatArray, slope: FloatArray | None = None
) -> BoolArray:
    """Return which states (S,) the objective or its derivative can see: reached from where the process starts."""
    played = policy > 0.0
    if slope is not None:
        played |= (slope != 0.0).any(axis=2)
    answered = np.broadcast_to(response > 0.0, game.reward_leader.shape)
    linked = np.any((played[:, :, None] & answered)[..., None] & (game.transition > 0.0), axis=(1, 2))
    seen = game.initial > 0.0
    while True:
        onward = linked[seen].any(axis=0)
        if not (onward & ~seen).any():
            return seen
        seen = seen | onward


def _at(game: MarkovGame, points: DecisionPoints, states: BoolArray) -> tuple[MarkovGame, DecisionPoints]:
    """Return the game of some of the states; what leads to the others ends the process."""
    policy = game.policy
    smaller = replace(
        game,
        transition=game.transition[states][..., states],
        reward_follower=game.reward_follower[states],
        reward_leader=game.reward_leader[states],
        initial=game.initial[states],
        action_mask=None,  # it is in the rewards
        policy=lambda theta: policy(theta)[states],
    )
    return smaller, replace(
        points,
        reach=points.reach[states],
        kernel=points.kernel[states][..., states],
        reward_follower=points.reward_follower[states],
        reward_leader=points.reward_leader[states],
    )


def game_objective_noise(
    game: MarkovGame,
    policy: FloatArray,
    points: DecisionPoints,
    response: FloatArray,
    *,
    discount: float,
    errors: ValueErrors | None,
    horizon: int | None,
) -> float:
    """Return the bound on the error of the objective (without its regulariser); may be inf.

    `errors` are those of the response; None where it is meant as it is.
    """
    rounding = _rounding(game, points)
    off = np.full(response.shape, rounding) if errors is None else errors.policy
    seen = _relevant(game, policy, points, response)
    if not seen.all():
        game, points = _at(game, points, seen)
        policy, response, off = policy[seen], response[seen], off[seen]
    if not _stretch(points, response, off, {discount} if horizon is None else (), horizon) < FIRST_ORDER:
        return float(np.inf)
    leader = _leader(game, policy, points, response, off, discount=discount, horizon=horizon)
    return float(game.initial @ (leader.value_off + rounding * leader.value))
