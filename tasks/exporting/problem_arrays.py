"""Problems of every kind at one θ as arrays in a .npz file, and back.

A file cannot hold a function of θ. It holds what hypergradients at θ read of it: every entry (tables, matrices, the
leader's policy) and its Jacobian. What is read back is affine in θ with that value and slope,

    entry(θ') = entry(θ) + ∂entry(θ) (θ' - θ)                                                                   (1)

so that objective, follower and hypergradient at θ are those of the problem that was saved; elsewhere they are not.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import (
    ConfigurableLQR,
    ConfigurableMDP,
    LQRGame,
    LQRMatrices,
    MarkovGame,
    Problem,
    SparseTransition,
    Tables,
)
from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.doors import as_is, checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.lqr_game import LeaderGaussian
from bilevelrl.reference.storage import write_atomically

__all__ = ["load_problem", "problem_arrays", "save_problem"]

KINDS: dict[str, Any] = {
    "configurable_mdp": ConfigurableMDP,
    "markov_game": MarkovGame,
    "configurable_lqr": ConfigurableLQR,
    "lqr_game": LQRGame,
}
FORMAT = "bilevelrl-problem-1"


def problem_arrays(problem: Problem, theta: Any) -> dict[str, Any]:
    """Return everything that a hypergradient at θ reads of a problem, by name.

    Parameters
    ----------
    problem
        Of any kind.
    theta
        Where, of the problem's shape.

    Returns
    -------
    dict
        format, kind, name; theta (N,); `entry_<name>` and `jacobian_<name>` (*shape, N) of what may depend on θ; what
        does not, under its own name: discount_leader, discount_follower, temperature, and the tables and matrices of
        games. A sparse kernel is `entry_transition`, its probabilities, with `successor`.

    Raises
    ------
    UnsupportedError
        If the problem is of no kind that is known here.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> sorted(problem_arrays(random_mdp(), np.zeros(3)))[:4]
    ['discount_follower', 'discount_leader', 'entry_initial', 'entry_regulariser']
    """
    kind = next((name for name, known in KINDS.items() if isinstance(problem, known)), None)
    if kind is None:
        raise UnsupportedError(
            refusal("problem", type(problem).__name__, f"one of {', '.join(KINDS)}", "write it as one of the kinds")
        )
    known: Any = problem
    theta = problem.check_theta(theta)
    found: dict[str, Any] = {"format": np.array(FORMAT), "kind": np.array(kind), "theta": theta}
    for entry in fields(known):
        value = getattr(problem, entry.name)
        if not entry.name.startswith("_") and isinstance(value, (np.ndarray, float, bool, str)):
            found[entry.name] = np.asarray(value)
    found.pop("verify_derivatives", None)
    values = known.derivatives.entries(theta)
    jacobian = known.jacobian(theta)
    for name, value in values.items():
        table = np.asarray(value, dtype=np.float64)
        found[f"entry_{name}"] = table
        found[f"jacobian_{name}"] = np.asarray(jacobian.get(name, np.zeros((*table.shape, theta.size))))
    if isinstance(problem, ConfigurableMDP):
        tables = problem.tables_at(theta)
        if tables.action_mask is not None:
            found["action_mask"] = np.asarray(tables.action_mask)
        if isinstance(tables.transition, SparseTransition):
            found["successor"] = np.asarray(tables.transition.successor)
    elif isinstance(problem, MarkovGame) and problem.action_mask is not None:
        found["action_mask"] = np.asarray(problem.action_mask)
    return found


@checked
def save_problem(path: str | Path, problem: Annotated[Problem, as_is], theta: Any) -> Path:
    """Write `problem_arrays` to a .npz file and return its path.

    Raises
    ------
    InvalidInputError
        If the path does not end in .npz.
    UnsupportedError
        If the problem is of no kind that is known here.
    """
    file = Path(path)
    if file.suffix != ".npz":
        raise InvalidInputError(refusal("path", str(file), "a name ending in .npz", "name the file so"))
    arrays = problem_arrays(problem, theta)
    return write_atomically(file, lambda opened: np.savez(opened, **arrays))


@checked
def load_problem(path: str | Path) -> tuple[Any, FloatArray]:
    """Read what `save_problem` wrote: the problem, affine in θ, and the θ at which it is the one that was saved.

    Returns
    -------
    problem, theta
        θ flat, (N,).

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or is no problem.

    Examples
    --------
    >>> import tempfile
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import toy_game_theta, toy_markov_game
    >>> game, theta = toy_markov_game(), toy_game_theta(0.4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again, at = load_problem(save_problem(f"{folder}/game.npz", game, theta))
    >>> bool(np.allclose(hypergradient(again, at).value, hypergradient(game, theta).value, rtol=1e-12))
    True
    """
    try:
        with np.load(path, allow_pickle=False) as opened:
            read = {name: opened[name] for name in opened.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as broken:
        raise InvalidInputError(f"path={path}: cannot be read ({broken}); expected a file of save_problem") from None
    if str(read.get("format")) != FORMAT or str(read.get("kind")) not in KINDS:
        raise InvalidInputError(
            refusal(f"{path}: format", str(read.get("format")), FORMAT, "write the file with save_problem")
        )
    try:
        return _problem(read), np.asarray(read["theta"]).ravel()
    except KeyError as missing:
        raise InvalidInputError(f"{path}: array {missing} is missing; expected all of problem_arrays") from None


def _problem(read: Mapping[str, Any]) -> Any:
    kind, start = str(read["kind"]), np.asarray(read["theta"]).ravel()
    values = {name.removeprefix("entry_"): value for name, value in read.items() if name.startswith("entry_")}
    slopes = {name: read[f"jacobian_{name}"] for name in values}

    def entries(theta: Traced) -> dict[str, Traced]:
        step = anp.ravel(theta) - start
        return {
            name: value + anp.dot(slopes[name], step) if slopes[name].any() else value  # (1)
            for name, value in values.items()
        }

    constants: dict[str, Any] = {
        key: float(read[key]) for key in ("discount_leader", "discount_follower", "temperature")
    }
    constants |= {"theta_shape": start.shape, "name": str(read["name"])}
    return _BUILDERS[kind](entries, read, constants)


_Entries: TypeAlias = Callable[[Traced], dict[str, Traced]]


def _mdp(entries: _Entries, read: Mapping[str, Any], constants: dict[str, Any]) -> Any:
    mask, successor = read.get("action_mask"), read.get("successor")

    def tables(theta: Traced) -> Tables:
        found = entries(theta)
        if successor is not None:
            found["transition"] = SparseTransition(successor=successor, probability=found["transition"])
        return Tables(**found, action_mask=mask)

    return ConfigurableMDP(tables=tables, **constants)


def _game(entries: _Entries, read: Mapping[str, Any], constants: dict[str, Any]) -> Any:
    given = {name: read[name] for name in ("transition", "reward_follower", "reward_leader", "initial")}
    return MarkovGame(
        **given,
        policy=lambda theta: entries(theta)["policy"],
        regulariser=lambda theta: entries(theta)["regulariser"],
        follower_sees_leader_action=bool(read["follower_sees_leader_action"]),
        action_mask=read.get("action_mask"),
        **constants,
    )


def _lqr(entries: _Entries, read: Mapping[str, Any], constants: dict[str, Any]) -> Any:
    return ConfigurableLQR(matrices=lambda theta: LQRMatrices(**entries(theta)), **constants)


def _lqr_game(entries: _Entries, read: Mapping[str, Any], constants: dict[str, Any]) -> Any:
    names = (
        "dynamics_state", "dynamics_action", "dynamics_leader", "cost_state", "cost_action", "target", "width",
        "initial_mean", "initial_covariance",
    )  # fmt: skip
    given = {name: read[name] for name in names}
    return LQRGame(**given, leader_policy=lambda theta: LeaderGaussian(**entries(theta)), **constants)


_BUILDERS = {"configurable_mdp": _mdp, "markov_game": _game, "configurable_lqr": _lqr, "lqr_game": _lqr_game}
