"""Loops over single steps, compiled where numba is installed (the extra `fast`).

Sampling and SARSA are sequential: step by step, transition by transition. NumPy shares the cost of a step among runs;
a compiled loop has next to none. Each loop has a NumPy counterpart that does the same arithmetic in the same order, so
results are the same, bit for bit, with and without numba. Nothing here calls exp or log, whose last bit differs between
libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray

__all__ = [
    "compiled",
    "episode_loop",
    "expectation_loop",
    "greatest_loop",
    "normalise_loop",
    "policy_values_loop",
    "sarsa_loop",
    "trace_loop",
    "walk_loop",
]

Loop = TypeVar("Loop", bound=Callable[..., None])


@cache
def _compile(loop: Callable[..., None]) -> Any:
    # Imported at first use: it takes as long as the rest of the package.
    try:
        import numba  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    options: Any = numba.config
    if options.DISABLE_JIT:
        return None
    try:
        return numba.njit(cache=True, error_model="numpy", nogil=True)(loop)
    except RuntimeError:  # there is no place that machine code could be kept in
        return numba.njit(error_model="numpy", nogil=True)(loop)


def compiled(loop: Loop) -> Loop | None:
    """Return a loop of this module compiled, or None without numba, or with `NUMBA_DISABLE_JIT=1`.

    Machine code is kept in `__pycache__` beside the module, where bytecode is kept too.

    Examples
    --------
    >>> import numpy as np
    >>> fast, trace = compiled(trace_loop), np.zeros((1, 3))
    >>> (trace_loop if fast is None else fast)(np.ones((1, 3)), np.array([[False, True, False]]), 0.5, trace)
    >>> trace
    array([[1. , 1.5, 1. ]])
    """
    found: Loop | None = _compile(loop)
    return found


def walk_loop(
    uniforms: FloatArray,
    policy: FloatArray,
    threshold: FloatArray,
    outcome: IntArray,
    width: int,
    start_threshold: FloatArray,
    start_outcome: IntArray,
    start_width: int,
    states: int,
    limit: int,
    first_state: IntArray,
    first_action: IntArray,
    state_t: IntArray,
    action_t: IntArray,
    state_tp1: IntArray,
    time: IntArray,
    cut: BoolArray,
) -> None:
    """Walk all streams, episode after episode, and write down what happens.

    Parameters
    ----------
    uniforms : (groups, steps + 1, 3, streams / groups)
        For the action, for the move, and for the start of an episode that begins at this step.
    policy : (B, S, A)
        Each of equally many consecutive streams.
    threshold, outcome, width, start_threshold, start_outcome, start_width
        Of the moves' and the starts' `Draws`.
    states, limit
        S, which stands for the end, and the steps after which an episode is cut.
    first_state, first_action : (streams,), or (0,)
        Given starts.
    state_t, action_t, state_tp1, time, cut : (streams, steps)
        Written to.
    """
    streams, steps = state_t.shape
    actions = policy.shape[2]
    per_group, per_policy = uniforms.shape[3], streams // policy.shape[0]
    for stream in range(streams):
        group, column, own = stream // per_group, stream % per_group, stream // per_policy
        state, age, fresh = 0, 0, first_state.size == 0
        if not fresh:
            state = first_state[stream]
        for t in range(steps):
            if fresh:
                number = uniforms[group, t, 2, column]
                place, half = 0, start_width // 2
                while half > 0:
                    if start_threshold[place + half - 1] <= number:
                        place += half
                    half //= 2
                state, age = start_outcome[place], 0
            action = -1
            if t == 0 and first_action.size > 0:
                action = first_action[stream]
            else:
                number, total, last = uniforms[group, t, 0, column], 0.0, 0
                for a in range(actions):
                    total += policy[own, state, a]
                    if policy[own, state, a] > 0.0:
                        last = a
                        if number < total:
                            action = a
                            break
                if action < 0:
                    action = last  # takes what rounding leaves
            number = uniforms[group, t, 1, column]
            place, half = (state * actions + action) * width, width // 2
            while half > 0:
                if threshold[place + half - 1] <= number:
                    place += half
                half //= 2
            after = outcome[place]
            state_t[stream, t] = state
            action_t[stream, t] = action
            state_tp1[stream, t] = after
            time[stream, t] = age
            late = age + 1 >= limit
            cut[stream, t] = late and after != states
            fresh = late or after == states
            state, age = after, age + 1


def episode_loop(
    uniforms: FloatArray,
    front: IntArray,
    first: int,
    order: IntArray,
    forced: IntArray,
    choice_threshold: FloatArray,
    choice_outcome: IntArray,
    choice_width: int,
    choice_row: IntArray,
    threshold: FloatArray,
    outcome: IntArray,
    width: int,
    states: int,
    actions: int,
    state: IntArray,
    state_t: IntArray,
    action_t: IntArray,
    state_tp1: IntArray,
    taken: IntArray,
) -> None:
    """Walk one episode of each stream on, until none is left or all have ended.

    Parameters
    ----------
    uniforms : (2 · front.sum(),)
        Step by step: for the actions of all streams observed, then for their moves.
    front : (steps,)
        How many streams each step observes, the first ones of `order`.
    first
        The time of the first of these steps.
    order, forced : (streams,)
        The streams, those observed longest first; and their first actions, or (0,).
    choice_threshold, choice_outcome, choice_width, choice_row, threshold, outcome, width
        Of the `Draws` of actions, with each stream's first row, and of moves.
    states, actions
        S, which stands for the end, and A.
    state : (streams,)
        In the order of `order`; written to.
    state_t, action_t, state_tp1 : (all steps, streams)
        Written to.
    taken : (1,)
        How many steps were walked; written to.
    """
    used = 0
    for k in range(front.size):
        count, going = front[k], False
        for i in range(count):
            if state[i] != states:
                going = True
                break
        if not going:
            break
        for i in range(count):
            stream, here = order[i], state[i]
            if first + k == 0 and forced.size > 0:
                action = forced[stream]
            else:
                place, half = (choice_row[stream] + here) * choice_width, choice_width // 2
                while half > 0:
                    if choice_threshold[place + half - 1] <= uniforms[used + i]:
                        place += half
                    half //= 2
                action = choice_outcome[place]
            place, half = (here * actions + action) * width, width // 2
            while half > 0:
                if threshold[place + half - 1] <= uniforms[used + count + i]:
                    place += half
                half //= 2
            state_t[first + k, stream] = here
            action_t[first + k, stream] = action
            state_tp1[first + k, stream] = outcome[place]
            state[i] = outcome[place]
        used += 2 * count
        taken[0] = k + 1


def sarsa_loop(
    tables: FloatArray,
    policy: FloatArray,
    step_sizes: FloatArray,
    order: IntArray,
    valid: BoolArray,
    state: IntArray,
    action: IntArray,
    reward: FloatArray,
    next_state: IntArray,
    next_action: IntArray,
    discount: float,
) -> None:
    """Correct each run's table in place, one transition after the other.

    Parameters
    ----------
    tables, policy : (B, S + 1, A)
        With a row of zeros for the end.
    step_sizes : (B,)
        α of each run.
    order : (B, K)
        In which a run's transitions are visited.
    valid, state, action, reward, next_state, next_action : (B, K)
        The transitions; next action -1: the expectation under the policy.
    discount
        γ_L.
    """
    runs, length = order.shape
    actions = tables.shape[2]
    for b in range(runs):
        for k in range(length):
            j = order[b, k]
            if not valid[b, j]:
                continue
            after, chosen = next_state[b, j], next_action[b, j]
            ahead = 0.0
            if chosen >= 0:
                ahead = tables[b, after, chosen]
            else:
                for a in range(actions):
                    ahead += policy[b, after, a] * tables[b, after, a]
            old = tables[b, state[b, j], action[b, j]]
            tables[b, state[b, j], action[b, j]] = old + step_sizes[b] * (reward[b, j] + discount * ahead - old)


def trace_loop(impulses: FloatArray, goes_on: BoolArray, discount: float, trace: FloatArray) -> None:
    """Write e_k = γ e_{k-1} + x_k, (streams, steps), where step k continues the one before, else e_k = x_k."""
    streams, steps = impulses.shape
    for stream in range(streams):
        running = 0.0
        for k in range(steps):
            if not goes_on[stream, k]:
                running = 0.0
            running = discount * running + impulses[stream, k]
            trace[stream, k] = running


def expectation_loop(
    probability: FloatArray,
    successor: IntArray,
    reward: FloatArray,
    value: FloatArray,
    discount: float,
    out: FloatArray,
) -> None:
    """Write reward + γ Σ_j probability_j value(successor_j), (runs, S, A), with successors (count, S, A)."""
    runs, states, actions = out.shape
    for run in range(runs):
        for s in range(states):
            for a in range(actions):
                total = probability[0, s, a] * value[run, successor[0, s, a]]
                for j in range(1, probability.shape[0]):
                    total += probability[j, s, a] * value[run, successor[j, s, a]]
                out[run, s, a] = reward[run, s, a] + discount * total


def greatest_loop(action_value: FloatArray, temperature: float, largest: FloatArray, exponents: FloatArray) -> None:
    """Write max_a Q (rows,) and (Q - max_a Q) / β (rows, A), of Q (rows, A)."""
    rows, actions = action_value.shape
    for row in range(rows):
        top = action_value[row, 0]
        for a in range(1, actions):
            top = max(top, action_value[row, a])
        largest[row] = top
        for a in range(actions):
            exponents[row, a] = (action_value[row, a] - top) / temperature


def normalise_loop(weights: FloatArray, total: FloatArray) -> None:
    """Write the sums over the last axis (rows,), and divide the weights (rows, A) by them in place."""
    rows, actions = weights.shape
    for row in range(rows):
        whole = weights[row, 0]
        for a in range(1, actions):
            whole += weights[row, a]
        total[row] = whole
        for a in range(actions):
            weights[row, a] /= whole


def policy_values_loop(
    table: FloatArray,
    policy: FloatArray,
    bonus: FloatArray,
    reward: FloatArray,
    pair: IntArray,
    after: IntArray,
    visits: FloatArray,
    step_size: float,
    discount: float,
) -> None:
    """Learn each run's soft values of a fixed policy in place, one sample after the other.

    Parameters
    ----------
    table, policy : (B, S + 1, A)
        With a row of zeros for the end.
    bonus : (B, S + 1)
        β times the policy's entropy, 0 at the end.
    reward, visits : (B, S · A)
        r_F, and how often each pair has been visited, which counts on.
    pair, after : (B, K)
        Visited pairs and the states after them.
    step_size, discount
        Of the temporal differences, 0: 1/(1 + (1 - γ_F) visits); and γ_F.
    """
    actions = table.shape[2]
    for b in range(pair.shape[0]):
        for k in range(pair.shape[1]):
            here, then, total = pair[b, k], after[b, k], 0.0
            for a in range(actions):
                total += policy[b, then, a] * table[b, then, a]
            rate = step_size
            if rate <= 0.0:
                rate = 1.0 / (1.0 + (1.0 - discount) * visits[b, here])
            visits[b, here] += 1.0
            old = table[b, here // actions, here % actions]
            error = reward[b, here] + discount * (bonus[b, then] + total) - old
            table[b, here // actions, here % actions] = old + rate * error
