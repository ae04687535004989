"""Scenarios for other code, as arrays in a file.

An export holds everything that a hypergradient estimator in any language needs: the tables at θ, their Jacobians, the
follower's solution, and the stored truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bilevelrl.reference import ConfigurableMDP, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.problem import PARTS, Part
from bilevelrl.reference.storage import write_atomically
from bilevelrl.reference.tabular import to_dense

__all__ = ["Exportable", "scenario_arrays", "write_npz"]


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


@checked
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


@checked
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
