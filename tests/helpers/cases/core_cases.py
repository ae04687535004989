"""Configurations of BC-HG and Naive-PGD, and every path of a problem with its probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bilevelrl.estimators import (
    BCHG,
    Context,
    ExactCritic,
    Objective,
    TableCritic,
    Trajectories,
)
from bilevelrl.reference import ConfigurableMDP, named_stream, solve_follower

THETA = np.array([0.3, -0.2, 0.5])


def context_of(problem: ConfigurableMDP, **options: Any) -> Context:
    follower = options.pop("follower", None) or solve_follower(problem, THETA)
    return Context(problem=problem, theta=THETA, follower=follower, **options)


CONFIGURATIONS = [
    pytest.param(BCHG(), id="exact"),
    pytest.param(BCHG(scores="td_error"), id="td_error"),
    pytest.param(BCHG(critic="monte_carlo"), id="monte_carlo"),
    pytest.param(BCHG(critic="monte_carlo", scores="td_error"), id="monte_carlo, td_error"),
    pytest.param(BCHG(critic="context"), id="given table"),
    pytest.param(BCHG(target=Objective(horizon=4), critic="exact_truncated"), id="horizon 4"),
    pytest.param(BCHG(target=Objective(horizon=3), critic="exact_truncated"), id="horizon 3, longer streams"),
    pytest.param(BCHG(target=Objective(horizon=9), critic="exact_truncated"), id="horizon 9, shorter streams"),
    pytest.param(BCHG(target=Objective(horizon=4), critic="exact"), id="horizon 4, infinite critic"),
    pytest.param(BCHG(target=Objective(horizon=4, discounted=False), critic="exact_truncated"), id="undiscounted"),
    pytest.param(BCHG(target=Objective(horizon=3), critic="monte_carlo"), id="monte_carlo, horizon 3"),
    pytest.param(
        BCHG(target=Objective(horizon=3, discounted=False), critic="monte_carlo"), id="monte_carlo, undiscounted"
    ),
]


def wrong_table(problem: ConfigurableMDP, follower: Any) -> TableCritic:
    exact = ExactCritic.solve(problem, THETA, follower.policy)
    noise = named_stream(0, "wrong table").standard_normal(follower.policy.shape)
    return TableCritic(action_values=exact.action_values[0] + 0.3 * noise, policy=follower.policy)


# --- expectations -----------------------------------------------------------------------------------------------------


def enumerate_paths(
    problem: ConfigurableMDP, policy: Any, horizon: int, *, kernel: Any = None, start: Any = None
) -> tuple[Trajectories, Any]:
    """Every path of positive probability by plain recursion, as one batch, with probabilities."""
    tables = problem.tables_at(THETA)
    kernel = tables.transition if kernel is None else kernel
    start = tables.initial if start is None else start
    end = tables.states
    listed: list[tuple[list[tuple[int, int, int]], float]] = []

    def grow(path: list[tuple[int, int, int]], state: int, probability: float) -> None:
        if state == end or len(path) == horizon:
            listed.append((path, probability))
            return
        for action in range(tables.actions):
            law = [*kernel[state, action], 1.0 - kernel[state, action].sum()]
            for after, chance in enumerate(law):
                if chance > 1e-12:
                    grow([*path, (state, action, after)], after, probability * policy[state, action] * chance)

    for state in range(end):
        if start[state] > 0.0:
            grow([], state, float(start[state]))
    shape = (len(listed), horizon)
    state_t, action_t = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    state_tp1, valid = np.full(shape, end), np.zeros(shape, dtype=np.bool_)
    for row, (path, _) in enumerate(listed):
        for t, (state, action, after) in enumerate(path):
            state_t[row, t], action_t[row, t], state_tp1[row, t], valid[row, t] = state, action, after, True
    truncated = np.zeros(shape, dtype=np.bool_)
    truncated[:, -1] = valid[:, -1] & (state_tp1[:, -1] != end)
    batch = Trajectories(
        state_t=state_t,
        action_t=action_t,
        state_tp1=state_tp1,
        reward_leader_t=np.where(valid, tables.reward_leader[state_t, action_t], 0.0),
        terminated=valid & (state_tp1 == end),
        truncated=truncated,
        time_in_episode=np.where(valid, np.arange(horizon), 0),
        valid=valid,
        behaviour_log_prob=np.where(valid, np.log(policy[state_t, action_t]), 0.0),
    )
    return batch, np.array([probability for _, probability in listed])
