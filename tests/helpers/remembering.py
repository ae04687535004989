"""A problem that remembers its derivatives at one θ, for tests that evaluate thousands of batches there."""

import dataclasses

import numpy as np
from autograd.tracer import isbox


def remembering(problem, theta):
    """Return the same problem, to be used at this θ only: tables and Jacobian are computed once."""
    tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)

    def pull(_, cotangents):
        return sum(np.tensordot(weight, jacobian[name], axes=np.ndim(weight)) for name, weight in cotangents.items())

    return dataclasses.replace(
        problem,
        tables=lambda x: problem.tables(x) if isbox(x) or not np.array_equal(x, theta) else tables,
        tables_jacobian=lambda _: jacobian,
        tables_pullback=pull,
    )
