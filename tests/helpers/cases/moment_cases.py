"""Plain recursions over paths, and the returns that they weigh."""

import numpy as np

from bilevelrl.reference import (
    named_stream,
    solve_follower,
)
from bilevelrl.tasks import Scenario, random_mdp
from bilevelrl.tasks.scenarios.main_job import small_scenarios
from bilevelrl.verification.pipeline.scenario_rows import enumerated_row

LAYERED, EXITS = small_scenarios()[:2]

# Episodes end early, so trajectories carry padding.
ENDING = Scenario(
    name="ending",
    problem=random_mdp(states=2, actions=2, parameters=3, seed=4, termination=0.5),
    theta=0.5 * named_stream(20260314, "ending").standard_normal(3),
    horizon=3,
)


def check_by_enumeration(estimator, on):
    return enumerated_row(estimator, on)[0]


def leader_return(trajectories, context):
    """Discounted return and its square, as two parameters."""
    weight = context.problem.discount_leader**trajectories.time_in_episode * trajectories.valid
    total = (weight * trajectories.reward_leader_t).sum(axis=1)
    return np.stack([total, total**2], axis=1)


def plain_paths(problem, theta, horizon, *, single_episode=True, kernel=None):
    """Every stream by recursion, as a list of (probability, list of (s, a, s', time))."""
    tables = problem.tables_at(theta)
    policy = solve_follower(problem, theta).policy
    kernel = tables.transition if kernel is None else kernel
    found = []

    def walk(state, time, probability, path):
        if len(path) == horizon or state == tables.states:
            found.append((probability, path))
            return
        for action in range(tables.actions):
            row = kernel[state, action]
            for successor in range(tables.states):
                if row[successor] > 0.0:
                    step = (state, action, successor, time)
                    walk(successor, time + 1, probability * policy[state, action] * row[successor], [*path, step])
            missing = 1.0 - row.sum()
            if missing > 1e-9:
                step = (state, action, tables.states, time)
                ended = probability * policy[state, action] * missing
                if single_episode:
                    walk(tables.states, 0, ended, [*path, step])
                else:
                    for first in np.flatnonzero(tables.initial):
                        walk(int(first), 0, ended * tables.initial[first], [*path, step])

    for first in np.flatnonzero(tables.initial):
        walk(int(first), 0, float(tables.initial[first]), [])
    return found
