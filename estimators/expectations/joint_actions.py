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
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.estimators.terms.joint_actions import follower_influence
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import check_stream_steps
from bilevelrl.reference.errors import EstimatorError, SupportError, refusal
from bilevelrl.reference.problem import Part
from bilevelrl.reference.tabular import DiscountedSystem

__all__ = ["joint_expected_parts"]


def joint_expected_parts(
    estimator: AlongTrajectories, context: Context, *, horizon: int, guiding: bool
) -> Mapping[Part, FloatArray]:
    """Answer `expected_parts` for Markov games."""
    game, critic, target = context.problem, estimator.leader_critic(context), estimator.target
    if not isinstance(critic, GameCritic):
        raise EstimatorError(
            refusal("context.critic", type(critic).__name__, "a GameCritic", "see GameCritic.solve, learn_game_critic")
        )
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
    influence = np.zeros_like(response)
    if guiding:
        influence = follower_influence(context, centred=getattr(estimator, "influence_baseline", None) is not False)
    later = game.follower_sees_leader_action and not getattr(estimator, "same_step", False)
    acting = policy if estimator.behaviour_theta is None else game.policy_at(estimator.behaviour_theta)
    joint = acting[:, :, None] * response
    flat = moved.transition.reshape(-1, game.states)
    advantage = critic.action_values - critic.baselines(estimator.baseline)
    benefits = critic.benefits()
    own, guided = np.zeros_like(policy), np.zeros_like(policy)
    discount, discount_follower = target.discount(game.discount_leader), game.discount_follower

    def step(visits: FloatArray, carried: FloatArray, pay: float, row: int) -> FloatArray:
        """Add one step's weights; return the trace (S, L, A)."""
        nonlocal own, guided
        own = own + pay * (visits * advantage[row]).sum(axis=2)
        before = discount_follower * carried[:, None, None] * joint
        trace: FloatArray = before + pay * visits * benefits[row]
        if guiding:
            guided = guided + ((before if later else trace) * influence).sum(axis=2) / game.temperature
        return trace

    if estimator.stopping is not None:
        chain = np.einsum("sla,slat->st", joint, moved.transition)
        visits = DiscountedSystem.factorise(chain, game.discount_leader).solve_transposed(law)[:, None, None] * joint
        impulses = (visits * benefits[-1]).ravel() @ flat
        carried = DiscountedSystem.factorise(chain, discount_follower).solve_transposed(impulses)
        step(visits, carried, 1.0, critic.rows(None))
    else:
        carried = np.zeros(game.states)
        window: int | None = getattr(estimator, "suffix_steps", None)
        chain = np.zeros(()) if window is None else np.einsum("sla,slat->st", joint, moved.transition)
        fresh = np.zeros((0, game.states))  # what is carried, by its age, where suffixes are cut
        for k in range(horizon):
            paid = float(target.horizon is None or k < target.horizon)
            to_go = None if target.horizon is None else max(target.horizon - k, 0)
            visits = law[:, None, None] * joint
            trace = step(visits, carried, paid * discount**k, int(critic.rows(to_go)))
            newest = (trace - discount_follower * carried[:, None, None] * joint).ravel() @ flat
            carried, law = trace.ravel() @ flat, visits.ravel() @ flat
            if window is not None:
                fresh = np.vstack([newest, discount_follower * fresh @ chain])[: window - 1 + later]
                carried = fresh.sum(axis=0)
    weights = np.stack([own, guided])
    if (weights[:, policy == 0.0] != 0.0).any():
        raise SupportError("policy: expected positive probabilities where scores are weighted; use a softmax policy")
    pulled = game.policy_pullback(
        context.theta, np.divide(weights, policy, out=np.zeros_like(weights), where=policy > 0.0)
    )
    parts: dict[Part, FloatArray] = {"policy": pulled[0]}
    if guiding:
        parts["response"] = pulled[1]
    parts["regulariser"] = game.regulariser_gradient(context.theta)
    return parts
