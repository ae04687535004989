"""Verify an estimator of your own: a function of trajectories and context that returns one row per trajectory.

The estimator here is BC-HG in twenty lines, right, and the same with one factor forgotten.
"""

import numpy as np

from bilevelrl.verification import verify


def bc_hg(trajectories, context, forget_temperature=False):
    """∇J from each trajectory: weights on the derivatives of the visited rewards and log-probabilities."""
    problem, critic = context.problem, context.critic
    state, action, state_tp1 = trajectories.state_t, trajectories.action_t, trajectories.state_tp1
    discount = problem.discount_leader**trajectories.time_in_episode * trajectories.valid
    benefit = critic.action_value(state, action) - critic.value(state)
    follower_value = np.append(context.follower.value, 0.0)[state_tp1]  # a terminal state_tp1 is worth nothing

    beta = 1.0 if forget_temperature else problem.temperature
    trace = discount * benefit / beta
    for t in range(1, trajectories.steps):
        trace[:, t] += problem.discount_follower * trace[:, t - 1] * ~trajectories.episode_starts[:, t]
    trace = trace * trajectories.valid

    weights = {
        "reward_leader": discount,
        "log_initial": trajectories.episode_starts * critic.value(state),
        "reward_follower": trace,
        "log_transition": discount * problem.discount_leader * critic.value(state_tp1)
        + trace * problem.discount_follower * follower_value,
    }
    rows = problem.pullback(context.theta, trajectories, weights, per_stream=True)
    return rows + problem.regulariser_gradient(context.theta)


def forgetful(trajectories, context):
    """The same without 1/β."""
    return bc_hg(trajectories, context, forget_temperature=True)


if __name__ == "__main__":
    for estimator in (bc_hg, forgetful):
        report = verify(estimator)
        print(report)
