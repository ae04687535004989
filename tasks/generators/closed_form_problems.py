"""Closed-form problems in double precision: what the exact routes and the estimators run on."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, LQRMatrices, MarkovGame, Tables
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.certified import ClosedForm, ClosedFormTable
from bilevelrl.reference.derivatives import sigmoid, softmax
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.lqr_game import LeaderGaussian
from bilevelrl.reference.storage import remade

__all__ = ["build_problem", "feature_function", "table_function", "theta_of"]

# A logit that no θ of practical size brings back: its exponential is exactly zero, and so are its derivatives.
_OUTSIDE_SUPPORT = -1e6


def theta_of(problem: ClosedForm) -> FloatArray:
    """Return θ as doubles."""
    return np.array([float(entry) for entry in problem.theta])


def feature_function(problem: ClosedForm) -> Callable[[Any], Any]:
    """Return θ → φ(θ), traceable by autograd."""
    blocks, start = [], 0
    for block in problem.features:
        offset = np.array([float(entry) for entry in block.offset])
        blocks.append((block.link, slice(start, start + block.length), offset))
        start += block.length

    def features(theta: Any) -> Any:
        pieces = []
        for link, here, offset in blocks:
            shifted = theta[here] + offset
            pieces.append(softmax(shifted) if link == "softmax" else sigmoid(shifted) if link == "sigmoid" else shifted)
        return anp.concatenate(pieces) if pieces else np.zeros(0)

    return features


def table_function(table: ClosedFormTable) -> Callable[[Any], Any]:
    """Return φ → table, traceable by autograd; the same read-only array where nothing depends on φ."""
    base = np.zeros(table.size)
    for place, number in table.base.items():
        base[place] = float(number)
    scale = np.array([float(table.row_scale(row)) for row in range(table.rows)])
    scale = np.broadcast_to(scale[:, None], (table.rows, table.width)).reshape(table.shape)
    support = np.zeros(table.size, dtype=np.bool_)
    support[list(range(table.size) if table.support is None else table.support)] = True
    possible = support.reshape(-1, table.width)
    alive = np.broadcast_to(possible.any(axis=1, keepdims=True), possible.shape).reshape(table.shape).astype(np.float64)

    def linked(argument: Any) -> Any:
        if table.link == "tanh":
            argument = anp.tanh(argument)
        elif table.link == "sigmoid":
            argument = sigmoid(argument)
        elif table.link == "softmax":
            argument = alive * softmax(argument + np.where(support, 0.0, _OUTSIDE_SUPPORT).reshape(table.shape))
        return scale * argument

    if not table.slope and not table.quadratic:
        start = _normalised(table) if table.link == "normalise" else base
        constant = np.asarray(linked(start.reshape(table.shape)), dtype=np.float64)
        constant.setflags(write=False)
        return lambda features: constant
    if table.link == "normalise":
        raise UnsupportedError("link='normalise': rows that depend on θ are not supported; use link='softmax'")
    places = np.array([place for place, _, _ in table.slope], dtype=np.int64)
    columns = np.array([j for _, j, _ in table.slope], dtype=np.int64)
    numbers = np.array([float(number) for _, _, number in table.slope])

    def evaluate(features: Any) -> Any:
        argument = base
        if table.slope:
            matrix = np.zeros((table.size, len(features)))
            np.add.at(matrix, (places, columns), numbers)
            argument = argument + anp.dot(matrix, features)
        for place, i, j, number in table.quadratic:
            unit = np.zeros(table.size)
            unit[place] = float(number)
            argument = argument + unit * features[i] * features[j]
        return linked(anp.reshape(argument, table.shape))

    return evaluate


def _normalised(table: ClosedFormTable) -> FloatArray:
    """Rows divided by their sums in rational arithmetic, rounded once."""
    entries = np.zeros(table.size)
    sums = [Fraction(0)] * table.rows
    for place, number in table.base.items():
        sums[place // table.width] += Fraction(number)
    for place, number in table.base.items():
        entries[place] = float(Fraction(number) / sums[place // table.width])
    return entries


@remade
def build_problem(problem: ClosedForm) -> Any:
    """Return the problem that routes and estimators take, differentiated by autograd.

    Raises
    ------
    UnsupportedError
        If a table that depends on θ has link="normalise".

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks.scenarios.reference_data import reference_problem
    >>> stored = reference_problem("mdp_temperature_1")
    >>> exact = hypergradient(build_problem(stored.closed_form), theta_of(stored.closed_form))
    >>> abs(exact.objective - float(stored.objective.value)) < 1e-12
    True
    """
    features = feature_function(problem)
    functions = {name: table_function(table) for name, table in problem.tables.items()}

    def evaluated(theta: Any, *names: str) -> dict[str, Any]:
        at = features(theta)
        return {name: functions[name](at) for name in names or functions if name in functions}

    constants: dict[str, Any] = {
        "discount_leader": float(problem.discount_leader),
        "discount_follower": float(problem.discount_follower),
        "temperature": float(problem.temperature),
        "theta_shape": (problem.parameters,),
        "name": problem.name,
    }
    if problem.kind == "configurable_mdp":
        return ConfigurableMDP(tables=lambda theta: Tables(**evaluated(theta)), **constants)
    if problem.kind == "configurable_lqr":
        return ConfigurableLQR(matrices=lambda theta: LQRMatrices(**evaluated(theta)), **constants)
    origin = theta_of(problem)
    if problem.kind == "markov_game":
        return MarkovGame(
            **evaluated(origin, "transition", "reward_follower", "reward_leader", "initial"),
            policy=lambda theta: evaluated(theta, "policy")["policy"],
            regulariser=(lambda theta: evaluated(theta, "regulariser")["regulariser"])
            if "regulariser" in functions
            else None,
            follower_sees_leader_action=problem.follower_sees_leader_action,
            **constants,
        )
    leader = ("gain", "covariance", "regulariser")
    return LQRGame(
        **evaluated(origin, *(name for name in functions if name not in leader)),
        leader_policy=lambda theta: LeaderGaussian(**evaluated(theta, *leader)),
        **constants,
    )
