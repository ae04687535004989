"""Reverse mode through the unrolled solver of a Markov game: the definition of the truth, with its own sweeps.

The follower's soft Q-iteration and the leader's policy evaluation are written out on the game's own tables in
`autograd.numpy`. θ enters three times (the leader's policy in its own evaluation, in everything the follower's solver
reads, and the regulariser), so that one reverse pass gives every part.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import Traced
from bilevelrl.reference.derivatives.autodiff import log_sum_exp, softmax
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.game.sweeps import plan_game_sweeps
from bilevelrl.reference.problem import GAME_PARTS, Objective, TracedObjective, unrolled_objective
from bilevelrl.reference.tabular.unrolled import check_tape

__all__ = ["game_swept_objective", "unroll_game"]

_BYTES_PER_ENTRY = 8 * 12  # arrays of size S·L·A that one sweep leaves on the tape, counted generously


def game_swept_objective(
    game: MarkovGame,
    points: tuple[Traced, ...],
    *,
    sweeps_follower: int,
    sweeps_leader: int,
    objective: Objective,
    centre_follower: float = 0.0,
    centre_leader: float = 0.0,
) -> Traced:
    """The objective with θ split by where it enters: `points` in the order of `GAME_PARTS`.

    Traceable by autograd; nothing of it is shared with the solvers. The constants are subtracted from the rewards.
    """
    own, read = game.evaluate(points[0]), game.evaluate(points[1])
    states, leader_actions, actions = game.reward_leader.shape
    beta, discount = game.temperature, game.discount_follower
    rows = game.transition.reshape(-1, states)
    reward = game.reward_follower - centre_follower
    value: Traced = np.zeros(states)

    def backed_up(ahead: Traced) -> Traced:
        return reward + discount * anp.reshape(anp.dot(rows, ahead), reward.shape)

    if game.follower_sees_leader_action:
        for _ in range(sweeps_follower):
            value = anp.sum(read * (beta * log_sum_exp(backed_up(value) / beta)), axis=1)
        response = softmax(backed_up(value) / beta)
    else:
        for _ in range(sweeps_follower):
            value = beta * log_sum_exp(anp.sum(read[:, :, None] * backed_up(value), axis=1) / beta)
        compared = anp.sum(read[:, :, None] * backed_up(value), axis=1)
        response = anp.reshape(softmax(compared / beta), (states, 1, actions)) * np.ones((1, leader_actions, 1))
    joint = anp.reshape(own, (states, leader_actions, 1)) * response
    earned = anp.sum(joint * (game.reward_leader - centre_leader), axis=(1, 2))
    chain = anp.einsum("sla,slat->st", joint, game.transition)
    discount = objective.discount(game.discount_leader)
    leader: Traced = np.zeros(states)
    for _ in range(sweeps_leader if objective.horizon is None else objective.horizon):
        leader = earned + discount * anp.dot(chain, leader)
    total = anp.dot(game.initial, leader)
    return total if game.regulariser is None else total + game.regulariser_of(points[2])


@unrolled_objective.register(MarkovGame)
def unroll_game(at: GameAt, objective: Objective, *, warm_start: object = None) -> TracedObjective:
    """Return the objective by sweeps; a warm start is ignored.

    Raises
    ------
    TooLargeError
        If the tape would exceed its limit.
    """
    problem = at.problem
    problem.derivatives.confirm_trace(at.theta)
    plan = plan_game_sweeps(at)
    steps = plan.leader if objective.horizon is None else objective.horizon
    tape = _BYTES_PER_ENTRY * problem.reward_leader.size * plan.follower + 8 * 8 * problem.states * steps
    check_tape(tape, f"{plan.follower} + {steps} sweeps of {problem.states} states", "implicit")

    def split(*points: Traced) -> Traced:
        return game_swept_objective(
            problem,
            points,
            sweeps_follower=plan.follower,
            sweeps_leader=plan.leader,
            objective=objective,
            centre_follower=at.points.centre_follower,
            centre_leader=at.points.centre_leader,
        )

    return TracedObjective(
        label="policy",
        parts=GAME_PARTS,
        function=split,
        constant=objective.constant_return(at.points.centre_leader, problem.discount_leader),
        residual=plan.residual,
        condition=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        status="converged: sweeps as many as the tolerance needs",
        counters={"sweeps": plan.follower + steps, "evaluations": len(GAME_PARTS)},
        error_bound=lambda at: plan.error_bound(at, objective),
    )
