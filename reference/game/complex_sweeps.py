"""The complex step for Markov games: Im J(θ + i h e_j) / h, with its own complex sweeps on the game's tables.

The leader's policy must be analytic near θ: no abs, conj, or comparison on values.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import ComplexArray, FloatArray, Traced
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.game.sweeps import plan_game_sweeps
from bilevelrl.reference.problem import GAME_PARTS, AnswerBounds, ComplexParts, Objective, Part, complex_parts
from bilevelrl.reference.tabular.complex_sweeps import STEP

__all__ = ["game_complex_parts"]


@complex_parts.register(MarkovGame)
def game_complex_parts(at: GameAt, objective: Objective) -> ComplexParts:
    """Return J and its derivatives, all coordinates in one batch.

    Raises
    ------
    InvalidInputError
        If the policy does not accept a complex θ or returns no finite numbers there.
    """
    problem, theta = at.problem, at.theta
    problem.derivatives.confirm_complex_step(theta)
    plan = plan_game_sweeps(at)
    steps = plan.leader if objective.horizon is None else objective.horizon
    reward = problem.reward_leader - at.points.centre_leader
    discount = objective.discount(problem.discount_leader)
    moved = np.stack([_complex_policy(problem, theta, j) for j in range(theta.size)]) if theta.size else None
    still = at.policy.astype(np.complex128)[None]
    frozen = _responses(problem, still, at.points.centre_follower, plan.follower).real
    base = _values(problem, still, frozen, reward, discount, steps)[0].real
    parts: dict[Part, FloatArray] = {part: np.zeros(theta.size) for part in GAME_PARTS}
    if moved is not None:
        responses = _responses(problem, moved, at.points.centre_follower, plan.follower)
        parts["policy"] = (_values(problem, moved, frozen, reward, discount, steps) @ problem.initial).imag / STEP
        parts["response"] = (_values(problem, still, responses, reward, discount, steps) @ problem.initial).imag / STEP
    if problem.regulariser is not None:
        points = (_shifted(theta, j) for j in range(theta.size))
        parts["regulariser"] = np.array([np.imag(problem.regulariser_of(point)) / STEP for point in points])
    constant = objective.constant_return(at.points.centre_leader, problem.discount_leader)

    def error_bound(at: GameAt) -> AnswerBounds:
        return plan.error_bound(at.problem.linearised(at.theta).at(at.theta), objective)

    return ComplexParts(
        objective=float(problem.initial @ base) + constant + at.regulariser,
        parts=parts,
        residual=plan.residual,
        condition=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        counters={"sweeps": theta.size * (plan.follower + steps), "evaluations": theta.size},
        error_bound=error_bound,
    )


def _shifted(theta: FloatArray, j: int) -> ComplexArray:
    point = theta.astype(np.complex128)
    point.flat[j] += 1j * STEP
    return point


def _complex_policy(game: MarkovGame, theta: FloatArray, j: int) -> ComplexArray:
    try:
        table: ComplexArray = np.asarray(game.evaluate(_shifted(theta, j)), dtype=np.complex128)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"policy(complex theta) raised {error}: expected a function analytic in θ; "
            "write it without casts to float, or use another route"
        ) from error
    if not np.isfinite(table).all():
        raise InvalidInputError(f"policy(theta + i h e_{j}): expected finite numbers; use another route")
    return table


def _responses(game: MarkovGame, policies: ComplexArray, centre: float, sweeps: int) -> ComplexArray:
    """The follower's responses (B, S, L or 1, A) to complex policies (B, S, L)."""
    sees, beta = game.follower_sees_leader_action, game.temperature
    reward, rows = game.reward_follower - centre, game.transition.reshape(-1, game.states).T
    value = np.zeros((policies.shape[0], game.states), dtype=np.complex128)
    count = settled = 0
    while True:
        action_value = reward + game.discount_follower * (value @ rows).reshape(-1, *reward.shape)
        if not sees:
            action_value = (policies[..., None] * action_value).sum(axis=2, keepdims=True)
        peak = action_value.real.max(axis=3, keepdims=True)
        weights = np.exp((action_value - peak) / beta)
        mass = weights.sum(axis=3, keepdims=True)
        soft = (peak + beta * np.log(mass))[..., 0]
        updated = (policies * soft).sum(axis=2) if sees else soft[:, :, 0]
        count += 1
        slope = np.abs(updated.imag).max(initial=0.0)
        change = np.abs(updated.imag - value.imag).max(initial=0.0)
        value = updated
        settled = settled + 1 if change <= 1e-15 * slope else 0
        if count >= sweeps and (settled >= 2 or count >= 3 * sweeps):
            responses: ComplexArray = weights / mass
            return responses


def _values(
    game: MarkovGame, policies: ComplexArray, responses: Traced, reward: FloatArray, discount: float, steps: int
) -> ComplexArray:
    """The leader's values (B, S) by sweeps from zero; policies or responses may have batch size one."""
    joint = policies[..., None] * responses
    earned = (joint * reward).sum(axis=(2, 3))
    chain = np.einsum("bsla,slat->bst", np.broadcast_to(joint, (earned.shape[0], *reward.shape)), game.transition)
    value: ComplexArray = np.zeros(earned.shape, dtype=np.complex128)
    for _ in range(steps):
        value = earned + discount * np.matmul(chain, value[:, :, None])[:, :, 0]
    return value
