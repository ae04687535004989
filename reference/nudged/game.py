"""The mixed derivative of the follower's own value in a Markov game, through the follower that is paid.

As for configurable MDPs, with W the value before anybody moves and `(W, u)` carried by one complex backup at w = ih. A
follower that sees the leader's action decides at (s, l), one that does not at s, on the mean of Q over f. At fixed w
the leader's policy f alone moves the value,

    seeing   ∂W_0 = Σ_t γ_F^t E_w[Σ_l ∂f(l|s_t) V_t(s_t, l)],                                                    (1)
    blind    ∂W_0 = Σ_t γ_F^t E_w[Σ_l ∂f(l|s_t) Q_t(s_t, l, a_t)],                                               (2)

and the derivative in w takes the visits with the value unpaid, the response part, and the value with the visits unpaid,
the policy part. Visits that carry the pay are `x = Σ_t γ_L^t Pr(s_t) f g_w`, and what they set off goes on at γ_F:

    D = (I - γ_F P_{f,g}ᵀ)^{-1} γ_F Pᵀ Im x/h.                                                                   (3)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import ComplexArray, FloatArray
from bilevelrl.reference.arrays.discounted_system import FactorisedSystem
from bilevelrl.reference.game.error_bounds import game_error_bound
from bilevelrl.reference.game.follower import GameFollower, game_value_errors, solve_game
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.nudged.tabular import complex_pay, discounted_laws, paid_values
from bilevelrl.reference.problem import AnswerBounds, Linearisation, Objective, Part, nudged_slopes

__all__ = ["nudged_game"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Paid:
    """A follower that is paid w = ih, to first order in h."""

    game: MarkovGame
    policy: FloatArray
    unpaid: FloatArray
    reward_leader: FloatArray
    discount: float
    step: float

    def backup(self, slope: FloatArray) -> tuple[FloatArray, ComplexArray, ComplexArray, ComplexArray]:
        """Return what one backup makes of u, Q (S, L, A), V (S, D) and g (S, D, A)."""
        ahead = (self.game.transition.reshape(-1, self.game.states) @ slope).reshape(self.unpaid.shape)
        action_value = self.unpaid + 1j * self.step * (self.reward_leader + self.discount * ahead)
        sees = self.game.follower_sees_leader_action
        compared = action_value if sees else (self.policy[:, :, None] * action_value).sum(axis=1, keepdims=True)
        value, response = paid_values(compared, self.game.temperature)
        state_value = (self.policy * value).sum(axis=1) if sees else value[:, 0]
        return state_value.imag / self.step, action_value, value, response


@nudged_slopes.register(MarkovGame)
def nudged_game(at: GameAt, objective: Objective, *, warm_start: GameFollower | None = None) -> Linearisation:
    """Return the slopes in the leader's policy; see the module's formulas."""
    game, policy = at.problem, at.policy
    discount, states, sees = game.discount_follower, game.states, game.follower_sees_leader_action
    follower = solve_game(at, warm_start=warm_start)
    state_value = follower.centred_state_value
    rows = game.transition.reshape(-1, states)
    reward_leader = game.reward_leader - at.points.centre_leader
    unpaid = game.reward_follower - at.points.centre_follower
    paid = _Paid(
        game=game,
        policy=policy,
        unpaid=unpaid + discount * (rows @ state_value).reshape(unpaid.shape),
        reward_leader=reward_leader,
        discount=objective.discount(game.discount_leader),
        step=complex_pay(reward_leader, game.temperature),
    )
    at_once, _, _, response = paid.backup(np.zeros(states))
    played = np.broadcast_to(policy[:, :, None] * response.real, unpaid.shape)
    chain = np.matmul(played.reshape(states, 1, -1), game.transition.reshape(states, -1, states))[:, 0, :]
    if objective.horizon is None:
        system = FactorisedSystem.of(chain, paid.discount)
        slope, laws = system.solve(at_once), system.solve_transposed(game.initial)[None]
    else:
        slope, laws = np.zeros(states), discounted_laws(chain, game.initial, paid.discount, objective.horizon)
    by_policy, moved = np.zeros(policy.shape), np.zeros(response.shape)
    for law in laws[::-1]:
        slope, action_value, value, response = paid.backup(slope)
        moved += law[:, None, None] * response.imag / paid.step
        gained = value if sees else (response.real * action_value).sum(axis=2)
        by_policy += law[:, None] * gained.imag / paid.step
    played_moved = np.broadcast_to(policy[:, :, None] * moved, unpaid.shape)
    follower_system = FactorisedSystem.of(chain, discount)
    set_off = follower_system.solve_transposed(discount * (played_moved.ravel() @ rows))  # (3)
    if sees:
        by_response = set_off[:, None] * value.real  # (1)
    else:
        by_response = np.vecdot(moved + set_off[:, None, None] * response.real, action_value.real)  # (2)
    # Σ_l ∇f = 0: taking the mean off changes nothing and saves digits.
    by_policy, by_response = (x - (policy * x).sum(axis=1, keepdims=True) for x in (by_policy, by_response))
    cotangents: dict[Part, dict[str, FloatArray]] = {
        "policy": {"policy": by_policy},
        "response": {"policy": by_response},
        "regulariser": {"regulariser": np.ones(())},
    }

    def error_bound(at: GameAt) -> AnswerBounds:
        return game_error_bound(
            at,
            response=response.real,
            state_value=state_value,
            objective=objective,
            errors=game_value_errors(at.problem, at.points, state_value),
        )

    offset = objective.constant_return(at.points.centre_leader, game.discount_leader)
    return Linearisation(
        objective=float(game.initial @ slope) + offset + at.regulariser,
        cotangents=cotangents,
        follower=follower,
        condition=follower_system.condition(),
        error_bound=error_bound,
        counters={
            "sweeps": follower.sweeps,
            "factorisations": follower.linear_solves + (1 if objective.horizon else 2),
            "linear_solves": follower.linear_solves + (1 if objective.horizon else 3),
        },
    )
