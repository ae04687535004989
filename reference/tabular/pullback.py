"""Weighted sums of ∇term over visited transitions, for tabular problems.

Visits with their weights are first gathered into one cotangent per table entry, so that a batch of any size costs one
vector-Jacobian product. Rows per stream use the Jacobian of the visited entries and a sparse matrix of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import scipy.sparse

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray, check_indices, check_shape
from bilevelrl.reference.derivatives.entries import Derivatives
from bilevelrl.reference.errors import SupportError, UnsupportedError
from bilevelrl.reference.problem import Term, TransitionBatch
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import SparseTransition

__all__ = ["tabular_pullback"]

TABLE_OF_TERM: dict[Term, str] = {
    "reward_leader": "reward_leader",
    "reward_follower": "reward_follower",
    "log_transition": "transition",
    "log_initial": "initial",
}

FULL_ROW = 1e-12
"""Rows of probabilities whose sum is this close to 1 never terminate: rounding of a long row stays below."""


class DifferentiableTables(Protocol):
    """Tables at each θ, with their derivatives."""

    @property
    def derivatives(self) -> Derivatives:
        """The derivatives of the tables by name."""
        ...

    def tables_at(self, theta: object) -> Tables:
        """Return the tables at θ, checked."""
        ...


def tabular_pullback(
    problem: DifferentiableTables,
    theta: FloatArray,
    batch: TransitionBatch,
    weights: Mapping[Term, FloatArray],
    *,
    per_stream: bool,
) -> FloatArray:
    """Return Σ w ∇term over the batch: (N,), or (streams, N) when `per_stream`; see `ConfigurableMDP.pullback`."""
    streams = np.shape(batch.state_t)[0]
    total = np.zeros((streams, theta.size)) if per_stream else np.zeros(theta.size)
    derivatives = problem.derivatives
    varying = derivatives.varying(theta)
    relevant = {term: weight for term, weight in weights.items() if _table(term) in varying and np.any(weight)}
    if not relevant:
        return total
    tables = problem.tables_at(theta)
    if "log_transition" in relevant or "log_initial" in relevant:
        _check_support(derivatives, theta, tables)
    jacobian = derivatives.jacobian(theta) if per_stream else {}
    cotangents: dict[str, FloatArray] = {}
    for term, weight in relevant.items():
        table = _table(term)
        entries, factors, stream = _visits(term, tables, batch, weight)
        size = int(np.size(tables.differentiable()[table]))
        if per_stream:
            visited, column = np.unique(entries, return_inverse=True)
            matrix = scipy.sparse.csr_array((factors, (stream, column)), shape=(streams, visited.size))
            total += np.asarray(matrix @ jacobian[table].reshape(size, theta.size)[visited])
        else:
            gathered = np.bincount(entries, weights=factors, minlength=size)
            shape = np.shape(tables.differentiable()[table])
            cotangents[table] = cotangents.get(table, np.zeros(shape)) + gathered.reshape(shape)
    if not per_stream:
        total = derivatives.pullback_at(theta)(cotangents)
    return total


def _table(term: Term) -> str:
    try:
        return TABLE_OF_TERM[term]
    except KeyError:
        raise UnsupportedError(
            f"term={term!r}: a configurable MDP has no leader policy; expected one of {sorted(TABLE_OF_TERM)}"
        ) from None


def _visits(
    term: Term, tables: Tables, batch: TransitionBatch, weight: FloatArray
) -> tuple[IntArray, FloatArray, IntArray]:
    """Return flat table entries, their factors and the stream of each, leaving out visits of weight zero."""
    shape = np.shape(batch.state_t)
    check_shape("batch.state_t", batch.state_t, (None, None), "use a batch of this problem's own transitions")
    check_shape(f"weights[{term!r}]", weight, shape, "one weight per step")
    stream, step = np.nonzero(weight)
    factor = weight[stream, step]

    def visited(name: str, entries: object, limit: int) -> IntArray:
        check_shape(f"batch.{name}", entries, shape, "one entry per step")
        return check_indices(f"batch.{name}", np.asarray(entries)[stream, step], limit)

    state = visited("state_t", batch.state_t, tables.states)
    if term == "log_initial":
        chance = np.asarray(tables.initial)[state]
        _check_possible(term, chance <= 0.0, stream, step)
        return state, factor / chance, stream
    pair = state * tables.actions + visited("action_t", batch.action_t, tables.actions)
    if term != "log_transition":
        return pair, factor, stream
    state_tp1 = visited("state_tp1", batch.state_tp1, tables.states + 1)
    return _transition_visits(tables, pair, state_tp1, factor, stream, step)


def _transition_visits(
    tables: Tables, pair: IntArray, state_tp1: IntArray, factor: FloatArray, stream: IntArray, step: IntArray
) -> tuple[IntArray, FloatArray, IntArray]:
    """Scores of transitions; terminating has probability 1 - Σ P and score -Σ ∇P / (1 - Σ P)."""
    kernel = tables.transition
    ended = state_tp1 == tables.states
    if isinstance(kernel, SparseTransition):
        width = kernel.successor.shape[2]
        rows = np.asarray(kernel.probability).reshape(-1, width)
        chosen = kernel.successor.reshape(-1, width)[pair] == state_tp1[:, None]
    else:
        width = tables.states
        rows = np.asarray(kernel).reshape(-1, width)
        if not ended.any():
            chance = rows[pair, state_tp1]
            _check_possible("log_transition", chance <= 0.0, stream, step)
            return pair * width + state_tp1, factor / chance, stream
        chosen = np.arange(width)[None, :] == state_tp1[:, None]
    chosen[ended] = True
    sign = np.where(ended, -1.0, 1.0)
    mass = np.where(ended, 1.0 - rows[pair].sum(axis=1), np.where(chosen, rows[pair], 0.0).sum(axis=1))
    _check_possible("log_transition", mass <= np.where(ended, FULL_ROW, 0.0), stream, step)
    visit, column = np.nonzero(chosen)
    return pair[visit] * width + column, (sign * factor / mass)[visit], stream[visit]


def _check_possible(term: Term, impossible: BoolArray, stream: IntArray, step: IntArray) -> None:
    """Refuse the score of a visit that the problem itself gives no chance."""
    if impossible.any():
        first = int(np.argmax(impossible))
        raise SupportError(
            f"{term} at stream {int(stream[first])}, step {int(step[first])}: the visit has probability zero under the "
            "problem's own tables, so it has no score; use the problem that drew the samples, or weight zero there"
        )


def _check_support(derivatives: Derivatives, theta: FloatArray, tables: Tables) -> None:
    """Refuse scores where some probability is zero but its derivative in a random direction is not."""
    # Estimators ask at the same θ for every part of every batch; one answer serves.
    point = theta.tobytes()
    if derivatives.cache.get("supported at") == point:
        return
    direction = np.random.default_rng(20260314).standard_normal(theta.shape)
    slopes = derivatives.push(theta, direction, ("transition", "initial"))
    for name in ("transition", "initial"):
        if name not in slopes:
            continue
        values = np.asarray(tables.differentiable()[name])
        full = np.asarray(values.sum(axis=-1) >= 1.0 - FULL_ROW) & (name == "transition")
        if (values > 0.0).all() and not full.any():
            continue
        slope = slopes[name]
        lost = (values == 0.0) & (np.asarray(slope) != 0.0)
        if lost.any():
            index = [int(i) for i in np.argwhere(lost)[0]]
            raise SupportError(
                f"{name}{index}=0.0 but its derivative in θ is not zero: expected a support that does not change with θ"
                "; score-function estimators miss this mass, use an exact route or keep the probability positive"
            )
        if full.any():
            _check_termination(full, np.asarray(slope))
    derivatives.cache["supported at"] = point


def _check_termination(full: BoolArray, slope: FloatArray) -> None:
    """Refuse rows that never terminate at this θ but would at another: the mass of terminating has no score here."""
    largest = float(np.abs(slope).sum(axis=-1).max(initial=0.0))
    lost = full & (np.abs(slope.sum(axis=-1)) > FULL_ROW * max(largest, 1.0))
    if lost.any():
        index = [int(i) for i in np.argwhere(lost)[0]]
        raise SupportError(
            f"sum of transition{index}=1 but its derivative in θ is not zero: expected a chance to terminate that does "
            "not start at zero; score-function estimators miss this mass, use an exact route or keep the sum below 1"
        )
