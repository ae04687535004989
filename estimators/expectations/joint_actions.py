"""Exact expectations of estimators in Markov games, by dynamic programming over the law of visits and traces.

Every estimate is a weighted sum of scores ∇log f(l|s). Its expectation is one weight per (s, l): the leader's own term
weighs visits with Q_L - b, the guiding term weighs the expected trace `e_k = γ_F e_{k-1} + γ_L^k B_k` at (s, l, a) with
what the follower loses or gains there. All of it is a forward recursion of the law of the state and of the trace.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bilevelrl.estimators.critics.joint_tables import GameCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.joint_actions import joint_mdp
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray, check_shape
from bilevelrl.reference.doors import check_stream_steps
from bilevelrl.reference.errors import EstimatorError, SupportError
from bilevelrl.reference.objective import Objective
from bilevelrl.reference.problem import Part
from bilevelrl.reference.tabular.transitions import DiscountedSystem

__all__ = ["expected_game_parts"]


def expected_game_parts(
    context: Context,
    critic: GameCritic,
    *,
    baseline: str,
    target: Objective,
    stopped: bool,
    horizon: int,
    influence: FloatArray | None,
    first: int,
    discount: float,
    behaviour_theta: FloatArray | None = None,
) -> Mapping[Part, FloatArray]:
    """Return {part: (N,)}, the exact expectation of an estimate given the follower and the critic.

    Parameters
    ----------
    context
        Game, θ, follower and simulator; the follower may be suboptimal.
    critic, baseline
        Values as they are read, right or wrong, and what is subtracted from them.
    target, discount
        Whose steps count, and the leader's discount.
    stopped
        Geometric times: discounted sums over an infinite horizon, whatever `horizon`.
    horizon
        Steps of every stream, one episode each.
    influence : (S, L, A) or None
        What the guiding term weighs the score with; None: there is no guiding term.
    first
        0 or 1: whether the guiding term's inner sum starts at the same step or at the next.
    behaviour_theta
        Whose leader policy makes the visits, if not the context's.
    """
    game = context.problem
    assert isinstance(game, MarkovGame)
    horizon = check_stream_steps("horizon", horizon)
    simulator = context.simulator if context.simulator is not None else TabularSimulator()
    if not simulator.single_episode:
        raise EstimatorError("expectation: expected one episode per stream; use single_episode=True")
    if simulator.step_limit is not None:
        horizon = min(horizon, simulator.step_limit)
    moved = simulator.dynamics if isinstance(simulator.dynamics, MarkovGame) else game
    law = simulator.start_law(joint_mdp(game), context.theta)
    policy, response = game.policy_at(context.theta), context.follower.policy
    if influence is not None:
        check_shape("influence", influence, game.reward_leader.shape, "one entry per state and actions")
    acting = policy if behaviour_theta is None else game.policy_at(behaviour_theta)
    joint = acting[:, :, None] * response
    flat = moved.transition.reshape(-1, game.states)
    advantage = critic.action_values - critic.baselines(baseline)
    benefits = critic.benefits()
    own, guided = np.zeros_like(policy), np.zeros_like(policy)
    discount_follower = game.discount_follower

    def step(visits: FloatArray, carried: FloatArray, pay: float, row: int) -> FloatArray:
        """Add one step's weights; return the trace (S, L, A)."""
        nonlocal own, guided
        own = own + pay * (visits * advantage[row]).sum(axis=2)
        before = discount_follower * carried[:, None, None] * joint
        trace: FloatArray = before + pay * visits * benefits[row]
        if influence is not None:
            guided = guided + ((trace if first == 0 else before) * influence).sum(axis=2) / game.temperature
        return trace

    if stopped:
        chain = np.einsum("sla,slat->st", joint, moved.transition)
        visits = DiscountedSystem.factorise(chain, game.discount_leader).solve_transposed(law)[:, None, None] * joint
        impulses = (visits * benefits[-1]).ravel() @ flat
        carried = DiscountedSystem.factorise(chain, discount_follower).solve_transposed(impulses)
        step(visits, carried, 1.0, critic.rows(None))
    else:
        carried = np.zeros(game.states)
        for k in range(horizon):
            paid = float(target.horizon is None or k < target.horizon)
            to_go = None if target.horizon is None else max(target.horizon - k, 0)
            visits = law[:, None, None] * joint
            trace = step(visits, carried, paid * discount**k, int(critic.rows(to_go)))
            carried, law = trace.ravel() @ flat, visits.ravel() @ flat
    weights = np.stack([own, guided])
    if (weights[:, policy == 0.0] != 0.0).any():
        raise SupportError("policy: expected positive probabilities where scores are weighted; use a softmax policy")
    pulled = game.policy_pullback(
        context.theta, np.divide(weights, policy, out=np.zeros_like(weights), where=policy > 0.0)
    )
    parts: dict[Part, FloatArray] = {"policy": pulled[0]}
    if influence is not None:
        parts["response"] = pulled[1]
    parts["regulariser"] = game.regulariser_gradient(context.theta)
    return parts
