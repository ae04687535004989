"""Entries for the blanks of a form of BC-HG: the right one first, then those that people write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from bilevelrl.reference import solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.causes.forms.model import Model

__all__ = ["BLANKS", "SAME_PATH", "SUMS", "WEIGHTS", "mean_over_actions", "ratio"]


def _powers(base: float, steps: int) -> FloatArray:
    return np.asarray(base ** np.arange(steps, dtype=np.float64))


def _gaps(v: FloatArray) -> FloatArray:
    """(T, T): v at k - t, 0 before t."""
    place = np.arange(v.size)[None, :] - np.arange(v.size)[:, None]
    return np.where(place >= 0, v[np.maximum(place, 0)], 0.0)


Blank: TypeAlias = Mapping[str, Callable[[Model], FloatArray]]

WEIGHTS: Blank = {
    "γ_L^t": lambda m: _powers(m.discounts[0], m.steps),
    "γ_F^t": lambda m: _powers(m.discounts[1], m.steps),
    "1": lambda m: np.ones(m.steps),
    "γ_L^(t+1)": lambda m: m.discounts[0] * _powers(m.discounts[0], m.steps),
    "(1-γ_L) γ_L^t": lambda m: (1.0 - m.discounts[0]) * _powers(m.discounts[0], m.steps),
    "γ_L^(T-1-t)": lambda m: _powers(m.discounts[0], m.steps)[::-1],
    "(γ_L γ_F)^t": lambda m: _powers(m.discounts[0] * m.discounts[1], m.steps),
    "γ_L^(2t)": lambda m: _powers(m.discounts[0] ** 2, m.steps),
    "1 at t = 0 and 0 later": lambda m: _powers(0.0, m.steps),
    "γ_L^t from t = 1 on": lambda m: _powers(m.discounts[0], m.steps) - _powers(0.0, m.steps),
    "γ_L^t up to t = T-2": lambda m: _powers(m.discounts[0], m.steps) * (np.arange(m.steps) < m.steps - 1),
    "0": lambda m: np.zeros(m.steps),
    "γ_L^t at most 3 steps long": lambda m: _powers(m.discounts[0], m.steps) * (np.arange(m.steps) < 3),
}
"""Weights of steps, (T,)."""

SUMS: Blank = {
    "γ_F^(k-t)": lambda m: _gaps(_powers(m.discounts[1], m.steps)),
    "γ_L^(k-t)": lambda m: _gaps(_powers(m.discounts[0], m.steps)),
    "1": lambda m: _gaps(np.ones(m.steps)),
    "γ_F^(k-t) from k = t+1 on": lambda m: _gaps(_powers(m.discounts[1], m.steps) - _powers(0.0, m.steps)),
    "the step's own term alone": lambda m: np.eye(m.steps),
    "two terms": lambda m: _gaps(_powers(m.discounts[1], m.steps) * (np.arange(m.steps) < 2)),
    "three terms": lambda m: _gaps(_powers(m.discounts[1], m.steps) * (np.arange(m.steps) < 3)),
    "γ_F^k": lambda m: _gaps(np.ones(m.steps)) * _powers(m.discounts[1], m.steps),
    "γ_F^t": lambda m: _gaps(np.ones(m.steps)) * _powers(m.discounts[1], m.steps)[:, None],
    "γ_F^(2(k-t))": lambda m: _gaps(_powers(m.discounts[1] ** 2, m.steps)),
    "(γ_L γ_F)^(k-t)": lambda m: _gaps(_powers(m.discounts[0] * m.discounts[1], m.steps)),
    "γ_F^(T-1-k)": lambda m: _gaps(np.ones(m.steps)) * _powers(m.discounts[1], m.steps)[::-1],
    "γ_F^(k-t) up to k = T-2": lambda m: _gaps(_powers(m.discounts[1], m.steps)) * (np.arange(m.steps) < m.steps - 1),
}
"""Weights of a suffix, (T, T)."""


def _reached(value: FloatArray, m: Model) -> FloatArray:
    """A value (S + 1,) of the state reached, (S, A, S + 1)."""
    return np.broadcast_to(value, m.kernel.shape)


def _here(value: FloatArray, m: Model) -> FloatArray:
    """A value (S,) or (S, A) of where the step began."""
    return np.broadcast_to(value.reshape((len(value), -1))[..., None], m.kernel.shape)


def _padded(value: FloatArray) -> FloatArray:
    return np.append(value, 0.0)


def _soft(value: FloatArray, temperature: float) -> FloatArray:
    top = value.max(axis=1)
    result: FloatArray = top + temperature * np.log(np.exp((value - top[:, None]) / temperature).sum(axis=1))
    return result


def mean_over_actions(table: FloatArray, m: Model) -> FloatArray:
    """Σ π, (S,)."""
    result: FloatArray = (m.solved[1] * table).sum(axis=1)
    return result


def _stale(m: Model) -> FloatArray:
    return _padded(solve_follower(m.on.problem, m.on.theta - 0.2).value)


def _wrapped(value: FloatArray) -> FloatArray:
    return np.append(value[:-1], value[-2])


AHEAD_FOLLOWER: Blank = {
    "γ_F V_F(s')": lambda m: m.discounts[1] * _reached(m.solved[0], m),
    "V_F(s')": lambda m: _reached(m.solved[0], m),
    "γ_L V_F(s')": lambda m: m.discounts[0] * _reached(m.solved[0], m),
    "γ_F V_F(s)": lambda m: m.discounts[1] * _here(m.solved[0][:-1], m),
    "γ_F max Q_F(s', ·)": lambda m: m.discounts[1] * _reached(_padded(m.follower_action_value.max(axis=1)), m),
    "γ_F Σ π Q_F(s', ·), without the entropy": lambda m: (
        m.discounts[1] * _reached(_padded(mean_over_actions(m.follower_action_value, m)), m)
    ),
    "γ_F times the mean of Q_F(s', ·) over actions": lambda m: (
        m.discounts[1] * _reached(_padded(m.follower_action_value.mean(axis=1)), m)
    ),
    "γ_F β log of the mean, not the sum, of exp Q_F(s', ·)/β": lambda m: (
        m.discounts[1]
        * _reached(_padded(m.solved[0][:-1] - m.on.problem.temperature * np.log(m.solved[1].shape[1])), m)
    ),
    "γ_F log Σ exp Q_F(s', ·), with temperature 1": lambda m: (
        m.discounts[1] * _reached(_padded(_soft(m.follower_action_value, 1.0)), m)
    ),
    "γ_F V_L(s')": lambda m: m.discounts[1] * _reached(m.ahead[0], m),
    "γ_F Σ π r_F(s', ·)": lambda m: (
        m.discounts[1] * _reached(_padded(mean_over_actions(m.tables.reward_follower, m)), m)
    ),
    "Q_F(s, a)": lambda m: _here(m.follower_action_value, m),
    "γ_F V_F(s') of another θ": lambda m: m.discounts[1] * _reached(_stale(m), m),
    "γ_F V_F(s') with the last state's value at the end": lambda m: m.discounts[1] * _reached(_wrapped(m.solved[0]), m),
    "γ_F V_F(s') by a hard maximum at every step": lambda m: m.discounts[1] * _reached(m.other_follower(hard=True), m),
    "0": lambda m: np.zeros(m.kernel.shape),
    "γ_F V_F(s') after ten sweeps": lambda m: m.discounts[1] * _reached(m.other_follower(sweeps=10), m),
}
"""What the follower expects of a step, (S, A, S + 1)."""


def _ahead(value: FloatArray, m: Model) -> FloatArray:
    """γ_L times a value (T, S + 1) of the state reached, by step: (T, 1, 1, S + 1)."""
    return np.asarray(m.discounts[0] * value[:, None, None, :])


def _two_ahead(m: Model) -> FloatArray:
    """Mean of V_L one state further on; 0 beyond the last step."""
    found = np.zeros((m.steps, m.walk.initial.size + 1))
    for t in range(m.steps - 1):
        found[t, :-1] = m.walk.chain @ m.ahead[t + 1, :-1]
    return found


def _next_reward(m: Model) -> FloatArray:
    found = np.tile(_padded(mean_over_actions(m.tables.reward_leader, m)), (m.steps, 1))
    found[-1] = 0.0
    return found


def _greedy(m: Model) -> FloatArray:
    """Q_L(s', ·) at the follower's mode, by step (T, S + 1)."""
    best = np.argmax(m.solved[1], axis=1)
    return _by_action(m, lambda q: q[np.arange(best.size), best])


def _by_action(m: Model, chosen: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Something of Q_L(s', ·) by step, (T, S + 1); after the last step there is nothing to go."""
    found = np.zeros((m.steps, m.walk.initial.size + 1))
    for t in range(m.steps):
        last = t + 1 >= m.steps
        if last and m.style == "steps":
            continue
        found[t, :-1] = chosen(m.action_values[0 if last else t + 1])
    return found


AHEAD_LEADER: Blank = {
    "γ_L V_L(s')": lambda m: _ahead(m.ahead, m),
    "V_L(s')": lambda m: m.ahead[:, None, None, :],
    "γ_F V_L(s')": lambda m: np.asarray(m.discounts[1] * m.ahead[:, None, None, :]),
    "γ_L V_L(s)": lambda m: np.asarray(m.discounts[0] * m.state_values[:, :, None, None]),
    "V_L(s)": lambda m: m.state_values[:, :, None, None],
    "γ_L V_F(s')": lambda m: _ahead(np.tile(m.solved[0], (m.steps, 1)), m),
    "γ_F V_F(s')": lambda m: np.asarray(m.discounts[1] * np.tile(m.solved[0], (m.steps, 1))[:, None, None, :]),
    "γ_L Q_L(s', the likeliest action)": lambda m: _ahead(_greedy(m), m),
    "γ_L max Q_L(s', ·)": lambda m: _ahead(_by_action(m, lambda q: q.max(axis=1)), m),
    "γ_L times the mean of Q_L(s', ·) over actions": lambda m: _ahead(_by_action(m, lambda q: q.mean(axis=1)), m),
    "γ_L r_L of the next step": lambda m: _ahead(_next_reward(m), m),
    "γ_L V_L(s_t+2)": lambda m: _ahead(_two_ahead(m), m),
    "γ_L V_L(s') of the infinite horizon": lambda m: _ahead(m.endless.ahead, m),
    "Q_L(s, a)": lambda m: m.action_values[..., None],
    "0": lambda m: np.zeros((1, 1, 1, 1)),
    "B(s, a)": lambda m: (m.action_values - m.state_values[..., None])[..., None],
    "γ_L V_L(s') with the last state's value at the end": lambda m: _ahead(
        np.concatenate([m.ahead[:, :-1], m.ahead[:, -2:-1]], axis=1), m
    ),
}
"""What the leader expects of a step, by step: anything that broadcasts to (T, S, A, S + 1)."""


def _advantage(m: Model) -> FloatArray:
    result: FloatArray = m.action_values - m.state_values[..., None]
    return result


def _centred(table: FloatArray, m: Model) -> FloatArray:
    result: FloatArray = table - mean_over_actions(table, m)[:, None]
    return result


SAME_PATH = "the return of the same path, less V_L,"

BENEFITS: Blank = {
    "Q_L - V_L": _advantage,
    "Q_L": lambda m: m.action_values,
    "V_L": lambda m: np.broadcast_to(m.state_values[..., None], m.action_values.shape),
    "V_L - Q_L": lambda m: -_advantage(m),
    "Q_L - max Q_L": lambda m: m.action_values - m.action_values.max(axis=2, keepdims=True),
    "Q_L less its plain mean over actions": lambda m: m.action_values - m.action_values.mean(axis=2, keepdims=True),
    "r_L": lambda m: m.tables.reward_leader,
    "r_L - Σ π r_L": lambda m: _centred(m.tables.reward_leader, m),
    "the follower's advantage Q_F - V_F": lambda m: m.follower_action_value - m.solved[0][:-1, None],
    "the follower's advantage Q_F - Σ π Q_F": lambda m: _centred(m.follower_action_value, m),
    "Q_F": lambda m: m.follower_action_value,
    "Q_L - V_F": lambda m: m.action_values - m.solved[0][:-1, None],
    "π B": lambda m: m.solved[1] * _advantage(m),
    "B/π": lambda m: _advantage(m) / m.solved[1],
    "(1-π) B": lambda m: (1.0 - m.solved[1]) * _advantage(m),
    "|B|": lambda m: np.abs(_advantage(m)),
    "the positive part of B": lambda m: np.maximum(_advantage(m), 0.0),
    "the negative part of B": lambda m: np.minimum(_advantage(m), 0.0),
    "the sign of B": lambda m: np.sign(_advantage(m)),
    "B clipped to ±1": lambda m: np.clip(_advantage(m), -1.0, 1.0),
    "B clipped to ±0.5": lambda m: np.clip(_advantage(m), -0.5, 0.5),
    "B clipped to ±0.2": lambda m: np.clip(_advantage(m), -0.2, 0.2),
    "Q_L plus the follower's entropy bonus, centred": lambda m: (
        _advantage(m) - _centred(m.on.problem.temperature * np.log(m.solved[1]), m)
    ),
    "Q_L - V_L of the infinite horizon": lambda m: _advantage(m.endless),
    "log π": lambda m: np.log(m.solved[1]),
    "the one-step error r_L + γ_L V_L(s') - V_L(s)": lambda m: (
        m.tables.reward_leader[:, :, None]
        + m.discounts[0] * m.ahead[:, None, None, :]
        - m.state_values[:, :, None, None]
    ),
    SAME_PATH: lambda m: m.state_values,
    "1": lambda m: np.ones(m.solved[1].shape),
}
"""What multiplies the suffix, (S, A), (T, S, A), or (T, S, A, S + 1) if it reads the state reached."""

STARTS: Blank = {
    "V_L(s_0)": lambda m: m.state_values[0],
    "V_F(s_0)": lambda m: m.solved[0][:-1],
    "the first reward": lambda m: mean_over_actions(m.tables.reward_leader, m),
    "Q_L(s_0, the likeliest action)": lambda m: m.action_values[0][
        np.arange(len(m.solved[1])), np.argmax(m.solved[1], axis=1)
    ],
    "max Q_L(s_0, ·)": lambda m: m.action_values[0].max(axis=1),
    "the mean of Q_L(s_0, ·) over actions": lambda m: m.action_values[0].mean(axis=1),
    "1": lambda m: np.ones(m.walk.initial.size),
    "0": lambda m: np.zeros(m.walk.initial.size),
    "V_L(s_0) of the infinite horizon": lambda m: m.endless.state_values[0],
    "V_L of the state reached first": lambda m: m.walk.chain @ m.ahead[0, :-1],
}
"""What the score of the first state is weighed with, (S,)."""

REWARDS: Blank = {
    "∇r_L": lambda m: m.tables.d_reward_leader,
    "∇r_F": lambda m: m.tables.d_reward_follower,
    "∇r_L but of an episode's last step": lambda m: (
        m.tables.d_reward_leader * m.tables.transition.sum(axis=2)[..., None]
    ),
    "∇r_L + ∇r_F": lambda m: m.tables.d_reward_leader + m.tables.d_reward_follower,
}
"""Whose reward is differentiated, (S, A, N)."""

FOLLOWER_REWARDS: Blank = {
    "∇r_F": lambda m: m.tables.d_reward_follower,
    "∇r_L": lambda m: m.tables.d_reward_leader,
    "∇r_F but of an episode's last step": lambda m: (
        m.tables.d_reward_follower * m.tables.transition.sum(axis=2)[..., None]
    ),
    "∇r_F less its mean under π": lambda m: (
        m.tables.d_reward_follower - np.einsum("sa,san->sn", m.solved[1], m.tables.d_reward_follower)[:, None]
    ),
    "∇r_F less its plain mean over actions": lambda m: (
        m.tables.d_reward_follower - m.tables.d_reward_follower.mean(axis=1, keepdims=True)
    ),
}
"""Whose reward the follower's value is made of, (S, A, N)."""


def _clipped(score: FloatArray) -> FloatArray:
    return np.asarray(score / np.maximum(1.0, np.linalg.norm(score, axis=-1, keepdims=True)))


def ratio(slope: FloatArray, law: FloatArray) -> FloatArray:
    """Return ∇p/p, with 1 for the p of what never happens."""
    return np.asarray(slope / np.where(law > 1e-14, law, 1.0)[..., None])


def _mixed(m: Model) -> FloatArray:
    """P times the score of a kernel into which .16 of the mean over actions is mixed."""
    kernel, slope = (
        0.84 * table + 0.16 * table.mean(axis=1, keepdims=True)
        for table in (m.tables.transition, m.tables.d_transition)
    )
    kernel = np.concatenate([kernel, 1.0 - kernel.sum(axis=2, keepdims=True)], axis=2)
    slope = np.concatenate([slope, -slope.sum(axis=2, keepdims=True)], axis=2)
    return np.asarray(m.kernel[..., None] * ratio(np.where((kernel > 1e-14)[..., None], slope, 0.0), kernel))


SCORES: Blank = {
    "∇log P": lambda m: m.slope,
    "∇P": lambda m: m.kernel[..., None] * m.slope,
    "∇log P of another kernel than the samples'": _mixed,
    "∇log P rescaled to norm 1 where it is longer": lambda m: m.kernel[..., None] * _clipped(ratio(m.slope, m.kernel)),
    "∇log P without the end's": lambda m: np.where(
        np.arange(m.kernel.shape[2])[:, None] < m.kernel.shape[0], m.slope, 0.0
    ),
}
"""P times the score of a step, (S, A, S + 1, N)."""

_FLAGS: Mapping[str, Blank] = {
    "visits": dict.fromkeys(("all visits", "first visits of a state"), lambda m: np.ones(1)),
    "counted": dict.fromkeys(("all visits", "the last visit of a pair"), lambda m: np.ones(1)),
    "starts_at": dict.fromkeys(("the score of the first state once", "the score of the first state at every step"),
                               lambda m: np.ones(1)),
    "completed": dict.fromkeys(("what comes after a cut", "nothing after a cut"), lambda m: np.ones(1)),
    "scale": {
        "1/β": lambda m: np.array(1.0 / m.on.problem.temperature), "1": lambda m: np.array(1.0),
        "β": lambda m: np.array(m.on.problem.temperature), "-1/β": lambda m: np.array(-1.0 / m.on.problem.temperature),
        "0": lambda m: np.array(0.0),
    },
    "regulariser": {
        "1": lambda m: np.array(1.0), "0": lambda m: np.array(0.0), "T": lambda m: np.array(float(m.steps)),
    },
}  # fmt: skip

BLANKS: Mapping[str, Blank] = {
    "direct": WEIGHTS, "moving": WEIGHTS, "guiding": WEIGHTS, "rewards": REWARDS, "start": STARTS,
    "leader": AHEAD_LEADER, "benefit": BENEFITS, "reward_sums": SUMS, "score_sums": SUMS,
    "follower": AHEAD_FOLLOWER, "follower_rewards": FOLLOWER_REWARDS, "leader_score": SCORES, "follower_score": SCORES,
    **_FLAGS,
}  # fmt: skip
"""{blank: {entry: (model) → its numbers}}, the right entry first."""
