"""A problem with the kernel that was learnt in place of its own: what a leader can know of it.

The hypergradient of such a model is an estimate of the true one, and its bias is that of the kernel: Theorem 1 is a
smooth function of the kernel, so that frequencies of n transitions per pair, unbiased with covariance of order 1/n,
leave a bias of order 1/n and a spread of order n^(-1/2).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bilevelrl.estimators.followers import SharedDynamics, batch_hypergradients
from bilevelrl.estimators.terms import SeedBatch
from bilevelrl.reference import ConfigurableMDP, Tables
from bilevelrl.reference.arrays import FloatArray

__all__ = ["model_hypergradients", "with_kernel"]


def with_kernel(problem: ConfigurableMDP, kernel: FloatArray) -> ConfigurableMDP:
    """Return the problem with another transition kernel, the same at every θ.

    Parameters
    ----------
    problem
        θ must not enter its kernel.
    kernel : (S, A, S)
        Rows sum to at most 1; what is missing is the probability of the end.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> problem = four_rooms()
    >>> ended = with_kernel(problem, np.zeros((104, 4, 104)))
    >>> float(ended.tables_at(np.zeros(105)).transition.sum())
    0.0
    """
    fixed = np.ascontiguousarray(kernel)
    fixed.setflags(write=False)  # the same read-only array at every θ is checked once

    def tables(theta: Any) -> Tables:
        return replace(problem.tables(theta), transition=fixed)

    return replace(problem, tables=tables, name=f"{problem.name}, learnt")


def model_hypergradients(model: SharedDynamics, played: SeedBatch) -> FloatArray:
    """Return the hypergradient that a model gives at the policies that are played, (runs, N).

    Parameters
    ----------
    model
        Of a problem `with_kernel`.
    played
        θ, the leader's rewards there, and the followers' true policies, which the leader watches.

    References
    ----------
    Theorem 1 of Kudo et al. (2026), arXiv:2603.14867, with the learnt kernel in the leader's values, in the discounted
    occupancy and in ∇Q_F.

    Examples
    --------
    >>> from bilevelrl.estimators.followers import ExactFollower, batch_hypergradients
    >>> from bilevelrl.tasks import four_rooms
    >>> truth = SharedDynamics(four_rooms(), np.zeros(105))
    >>> played, _ = ExactFollower().respond(truth, truth.rewards(np.zeros((1, 105))), {}, [])
    >>> model = SharedDynamics(with_kernel(four_rooms(), truth.kernel), np.zeros(105))
    >>> bool(np.allclose(model_hypergradients(model, played), batch_hypergradients(truth, played), rtol=0, atol=1e-12))
    True
    """
    return batch_hypergradients(model, played)
