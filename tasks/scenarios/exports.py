"""Scenarios for other code: as arrays in a file, and as a Gymnasium environment that plays them.

An export holds everything that a hypergradient estimator in any language needs: the tables at θ, their Jacobians, the
follower's solution, and the stored truth. The environment samples the process in which the *follower* acts; its reward
is the follower's, the leader's reward of the same step is in `info`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bilevelrl.reference import PARTS, ConfigurableMDP, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, refusal
from bilevelrl.reference.problem import Part
from bilevelrl.reference.storage import write_atomically
from bilevelrl.reference.tabular import to_dense

if TYPE_CHECKING:
    import gymnasium

__all__ = ["Exportable", "gymnasium_environment", "scenario_arrays", "write_npz"]


class StoredTruth(Protocol):
    """A hypergradient with its parts and its objective."""

    @property
    def objective(self) -> float:
        """J(θ)."""
        ...

    @property
    def parts(self) -> Mapping[Part, FloatArray]:
        """{part: (N,)}."""
        ...

    @property
    def value(self) -> FloatArray:
        """∇J(θ), (N,)."""
        ...


class Exportable(Protocol):
    """What an export reads of a scenario."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def problem(self) -> ConfigurableMDP:
        """The problem."""
        ...

    @property
    def theta(self) -> FloatArray:
        """Where it is asked."""
        ...

    @property
    def horizon(self) -> int:
        """Steps of an episode."""
        ...

    @property
    def truth(self) -> StoredTruth:
        """Of the infinite horizon."""
        ...

    @property
    def truncated(self) -> StoredTruth:
        """Of episodes of `horizon` steps."""
        ...


def scenario_arrays(on: Exportable) -> dict[str, Any]:
    """Return everything about a scenario as arrays by name.

    Returns
    -------
    dict
        theta (N,); transition (S, A, S), whose missing row mass is termination; reward_follower, reward_leader (S, A);
        initial (S,); regulariser (); jacobian_<table> (*table shape, N); discount_leader, discount_follower,
        temperature (); follower_value (S,), follower_policy (S, A); truth, truth_<part> (N,), truth_objective ();
        truncated, truncated_<part>, truncated_objective and horizon () for episodes of so many steps.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> arrays = scenario_arrays(scenario("layered"))
    >>> arrays["transition"].shape, arrays["jacobian_transition"].shape
    ((6, 2, 6), (6, 2, 6, 3))
    """
    problem, theta = on.problem, np.asarray(on.theta)
    tables, slopes, follower = problem.tables_at(theta), problem.jacobian(theta), solve_follower(problem, theta)
    arrays: dict[str, Any] = {
        "name": np.array(on.name),
        "theta": theta,
        "discount_leader": np.array(problem.discount_leader),
        "discount_follower": np.array(problem.discount_follower),
        "temperature": np.array(problem.temperature),
        "horizon": np.array(on.horizon),
        "follower_value": np.asarray(follower.value),
        "follower_policy": np.asarray(follower.policy),
    }
    entries = {
        "transition": to_dense(tables.transition),
        "reward_follower": tables.reward_follower,
        "reward_leader": tables.reward_leader,
        "initial": tables.initial,
        "regulariser": tables.regulariser,
    }
    for name, value in entries.items():
        table = np.asarray(value, dtype=np.float64)
        arrays[name] = table
        slope = np.asarray(slopes.get(name, np.zeros((*table.shape, theta.size))))
        if slope.shape != (*table.shape, theta.size):
            hint = "export a scenario with a dense kernel"
            raise InvalidInputError(refusal(f"jacobian of {name}", slope.shape, f"{(*table.shape, theta.size)}", hint))
        arrays[f"jacobian_{name}"] = slope
    for label, truth in (("truth", on.truth), ("truncated", on.truncated)):
        arrays[label] = truth.value
        arrays[f"{label}_objective"] = np.array(truth.objective)
        arrays.update({f"{label}_{part}": np.asarray(truth.parts[part]) for part in PARTS})
    return arrays


def write_npz(on: Exportable, path: str | Path) -> Path:
    """Write `scenario_arrays` to a .npz file and return its path.

    Raises
    ------
    InvalidInputError
        If the path does not end in .npz.
    StorageError
        If it cannot be written.
    """
    file = Path(path)
    if file.suffix != ".npz":
        raise InvalidInputError(refusal("path", str(file), "a name ending in .npz", "name the file so"))
    return write_atomically(file, lambda opened: np.savez(opened, **scenario_arrays(on)))


def gymnasium_environment(on: Exportable, *, horizon: int | None = None) -> gymnasium.Env[Any, Any]:
    """Return the follower's decision process at θ as a `gymnasium.Env` with discrete spaces.

    Parameters
    ----------
    on
        The scenario.
    horizon
        Steps after which an episode is truncated; default: the scenario's. Truncation is never termination.

    Returns
    -------
    gymnasium.Env
        Observations and actions are integers. The reward is the follower's (its entropy bonus is not in it);
        `info["reward_leader"]` is the leader's. The observation after a termination is the number of states, S.

    Raises
    ------
    MissingExtraError
        If gymnasium is not installed.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> environment = scenario("layered").as_gymnasium()
    >>> observation, info = environment.reset(seed=0)
    >>> _, reward, terminated, truncated, info = environment.step(0)
    >>> terminated, truncated, sorted(info)
    (False, False, ['reward_leader'])
    """
    try:
        import gymnasium
        from gymnasium import spaces
    except ImportError:
        raise MissingExtraError("as_gymnasium", "gymnasium", "gymnasium") from None
    if horizon is not None and (isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1):
        raise InvalidInputError(refusal("horizon", horizon, "None or an integer >= 1", "count the steps of an episode"))
    tables = on.problem.tables_at(on.theta)
    kernel = np.asarray(to_dense(tables.transition))
    reward_follower, reward_leader = np.asarray(tables.reward_follower), np.asarray(tables.reward_leader)
    initial = np.asarray(tables.initial)
    states, actions = reward_follower.shape
    limit = on.horizon if horizon is None else horizon
    ends = np.maximum(1.0 - kernel.sum(axis=2), 0.0)
    outcomes = np.concatenate([kernel, ends[:, :, None]], axis=2)
    outcomes /= outcomes.sum(axis=2, keepdims=True)

    class ScenarioEnvironment(gymnasium.Env[Any, Any]):
        """One scenario, played by a follower."""

        metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium reads a plain dict here

        def __init__(self) -> None:
            self.observation_space = spaces.Discrete(states + 1)
            self.action_space = spaces.Discrete(actions)
            self._state, self._time = states, 0

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[int, dict[str, Any]]:
            super().reset(seed=seed)
            self._state, self._time = int(self.np_random.choice(states, p=initial)), 0
            return self._state, {}

        def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
            if self._state == states:
                raise InvalidInputError("step: the episode has ended, or none was started; call reset first")
            state_t = self._state
            self._state = int(self.np_random.choice(states + 1, p=outcomes[state_t, action]))
            self._time += 1
            terminated = self._state == states
            info = {"reward_leader": float(reward_leader[state_t, action])}
            truncated = not terminated and self._time >= limit
            return self._state, float(reward_follower[state_t, action]), terminated, truncated, info

    return ScenarioEnvironment()
