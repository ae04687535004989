"""Trajectories from plain Python lists: episodes as any simulator gives them, several in a stream if need be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal

__all__ = ["from_rollouts"]

_KEYS = ("states", "actions", "rewards", "terminated", "truncated", "leader_actions", "log_probs")


@checked
def from_rollouts(streams: Sequence[Any], *, states: int | None = None) -> Trajectories:
    """Return trajectories from lists of episodes.

    Parameters
    ----------
    streams
        One entry per stream: an episode, or a list of episodes that follow each other. An episode is a mapping with

        - `states`: s_0 … s_T, the state after the last step included; it may be left out where the process terminated;
        - `actions`: the follower's a_0 … a_{T-1};
        - `rewards`: the leader's r_0 … r_{T-1};
        - `leader_actions`: in games;
        - `terminated`: the process ended after the last step (default: where the last state is `states`, or left out);
        - `truncated`: it was only watched no longer (default: it did not terminate; of the last episode of a stream of
          several say False if it is still under way);
        - `log_probs`: log π(a_t|s_t) when the action was drawn (default: zeros).
    states
        S, the number of states, in problems with tables: it stands for "ended". None: states are vectors.

    Returns
    -------
    Trajectories
        (streams, steps of the longest), padded.

    Raises
    ------
    InvalidInputError, ShapeError
        If lengths or flags contradict each other; the message names stream and episode.

    Examples
    --------
    Two streams, one of two episodes:

    >>> batch = from_rollouts(
    ...     [
    ...         [
    ...             {"states": [0, 1, 3], "actions": [1, 0], "rewards": [0.5, 1.0], "terminated": True},
    ...             {"states": [0, 2], "actions": [0], "rewards": [0.0]},
    ...         ],
    ...         {"states": [0, 1], "actions": [1], "rewards": [0.5], "truncated": True},
    ...     ],
    ...     states=3,
    ... )
    >>> batch.time_in_episode.tolist(), batch.terminated.tolist()
    ([[0, 1, 0], [0, 0, 0]], [[False, True, False], [False, False, False]])
    >>> batch.state_tp1[0].tolist(), batch.valid.sum(axis=1).tolist()
    ([1, 3, 2], [3, 1])
    """
    if not len(streams):
        raise InvalidInputError(refusal("streams", streams, "at least one stream", "pass the episodes"))
    read = []
    for m, stream in enumerate(streams):
        if not isinstance(stream, Iterable):
            raise InvalidInputError(refusal(f"streams[{m}]", stream, "an episode or a list of them", "pass mappings"))
        episodes = [stream] if isinstance(stream, Mapping) else list(stream)
        if not episodes:
            raise InvalidInputError(f"streams[{m}]: expected an episode or a list of them; leave empty streams out")
        steps = [_episode(f"streams[{m}][{k}]", episode, states) for k, episode in enumerate(episodes)]
        for k, one in enumerate(steps[:-1]):
            if not one["terminated"][-1] and not one["truncated"][-1]:
                raise InvalidInputError(
                    f"streams[{m}][{k}]: expected terminated or truncated where another episode follows; say which"
                )
        names = {name for one in steps for name in one}
        if any(names != set(one) for one in steps):
            raise InvalidInputError(f"streams[{m}]: expected leader_actions in all of its episodes or in none")
        read.append({name: np.concatenate([one[name] for one in steps]) for name in names})
    if any(set(one) != set(read[0]) for one in read):
        raise InvalidInputError("streams: expected leader_actions in all of them or in none")
    longest = max(len(one["valid"]) for one in read)
    return Trajectories(**{name: np.stack([_padded(one[name], longest) for one in read]) for name in read[0]})


def _episode(where: str, episode: Any, states: int | None) -> dict[str, Any]:
    """The arrays of one episode, (steps, ...) each."""
    if not isinstance(episode, Mapping):
        raise InvalidInputError(refusal(where, episode, f"a mapping with {', '.join(_KEYS[:3])}", "name what is what"))
    for key in (*(key for key in episode if key not in _KEYS), *(key for key in _KEYS[:3] if key not in episode)):
        raise InvalidInputError(
            refusal(
                f"{where}: key",
                key,
                f"{', '.join(_KEYS[:3])} and, if need be, {', '.join(_KEYS[3:])}",
                "check its spelling",
            )
        )
    action, reward = np.asarray(episode["actions"]), np.asarray(episode["rewards"], dtype=np.float64)
    visited, steps = np.asarray(episode["states"]), len(action)
    if steps < 1 or reward.shape != (steps,) or len(visited) not in (steps, steps + 1):
        found = f"{len(visited)} states, {steps} actions and {reward.size} rewards"
        raise ShapeError(f"{where}: {found}: expected T actions, T rewards and T + 1 states, T >= 1; count the steps")
    left_out = len(visited) == steps
    ended = left_out or (states is not None and bool(visited[-1] == states))
    terminated = bool(episode.get("terminated", ended))
    truncated = bool(episode.get("truncated", not terminated))
    if terminated and truncated:
        raise InvalidInputError(
            f"{where}: terminated and truncated: expected at most one; truncation is no termination"
        )
    if ended and not terminated:
        said = "no state after the last step" if left_out else f"a last state of {states}, which says that it ended"
        raise InvalidInputError(f"{where}: terminated=False with {said}: expected the state that was reached; add it")
    if terminated and states is not None:
        if not left_out and not ended:
            raise InvalidInputError(
                refusal(
                    f"{where}: states[-1]",
                    int(visited[-1]),
                    f"{states}, or left out, where it terminated",
                    "an end has no state",
                )
            )
        visited = np.concatenate([visited[:steps], [states]])
    elif left_out:
        visited = np.concatenate([visited, np.zeros_like(visited[:1])])  # nothing is read where the process has ended
    last = np.arange(steps) == steps - 1
    arrays = {
        "state_t": visited[:-1],
        "action_t": action,
        "state_tp1": visited[1:],
        "reward_leader_t": reward,
        "terminated": last & terminated,
        "truncated": last & truncated,
        "time_in_episode": np.arange(steps),
        "valid": np.ones(steps, dtype=np.bool_),
        "behaviour_log_prob": np.asarray(episode.get("log_probs", np.zeros(steps)), dtype=np.float64),
    }
    if "leader_actions" in episode:
        arrays["leader_action_t"] = np.asarray(episode["leader_actions"])
    for name, value in arrays.items():
        if len(value) != steps:
            raise ShapeError(
                refusal(f"{where}: {name}", len(value), f"{steps} entries, one per action", "count the steps")
            )
    return arrays


def _padded(values: Any, length: int) -> Any:
    """Values and zeros up to a length."""
    missing = length - len(values)
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), dtype=values.dtype)]) if missing else values
