"""What a skilled user would write instead, timed beside this package in one run.

    OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.speed.rivals --rooms 45 --size 7

For sparse kernels: inexact Newton by SciPy's BiCGStab without a preconditioner, and both adjoints by the same. It
checks nothing and knows only problems whose kernel does not depend on θ and whose pullback is given.
"""

from __future__ import annotations

import argparse
import functools
import operator
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, bicgstab

from bilevelrl.benchmarks.speed.timing import machine
from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables, hypergradient, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import NotConvergedError
from bilevelrl.tasks import grid_rooms

__all__ = ["compare", "main", "scipy_hypergradient"]


def scipy_hypergradient(problem: ConfigurableMDP, theta: FloatArray) -> FloatArray:
    """∇J by inexact Newton, (N,).

    Raises
    ------
    NotConvergedError
        If BiCGStab does not converge.
    """
    tables: Tables = problem.tables(theta)
    kernel, beta = tables.transition, problem.temperature
    assert isinstance(kernel, SparseTransition)
    assert problem.tables_pullback is not None
    states, actions, branching = kernel.successor.shape
    pointers = np.arange(0, states * branching + 1, branching, dtype=np.int32)
    moves = [
        scipy.sparse.csr_array(
            (kernel.probability[:, a].ravel(), kernel.successor[:, a].ravel().astype(np.int32), pointers),
            (states, states),
        )
        for a in range(actions)
    ]

    def backup(reward: FloatArray, discount: float, value: FloatArray) -> FloatArray:
        return np.stack([reward[:, a] + discount * (moves[a] @ value) for a in range(actions)], axis=1)

    def solve(matrix: Any, discount: float, right: FloatArray, accuracy: float) -> FloatArray:
        size = float(np.linalg.norm(right))
        system = LinearOperator((states, states), matvec=lambda x: x - discount * (matrix @ x), dtype=np.float64)
        found, failed = bicgstab(system, right / size, rtol=accuracy, maxiter=5000)
        if failed:
            raise NotConvergedError("scipy_hypergradient: BiCGStab did not converge; use the package")
        return size * np.asarray(found, dtype=np.float64)

    def mixed(policy: FloatArray) -> Any:
        each: list[Any] = [scipy.sparse.diags_array(policy[:, a]) @ moves[a] for a in range(actions)]
        return functools.reduce(operator.add, each).tocsr()

    value, before = np.zeros(states), np.inf
    while True:
        action_value = backup(tables.reward_follower, problem.discount_follower, value)
        top = action_value.max(axis=1, keepdims=True)
        likely = np.exp((action_value - top) / beta)
        total = likely.sum(axis=1, keepdims=True)
        policy, change = likely / total, (top + beta * np.log(total))[:, 0] - value
        left = float(np.abs(change).max())
        if left <= 1e-14 * np.abs(value).max() or (left < 1e-12 and left > 0.5 * before):
            break
        before = left
        chain = mixed(policy)
        value = value + solve(chain, problem.discount_follower, change, 1e-2 if left > 1e-4 else 1e-8)
    chain = mixed(policy)
    worth = solve(chain, problem.discount_leader, np.vecdot(policy, tables.reward_leader), 1e-14)
    visits = solve(chain.T.tocsr(), problem.discount_leader, tables.initial, 1e-14)
    gain = backup(tables.reward_leader, problem.discount_leader, worth)
    cotangent = visits[:, None] * policy * (gain - np.vecdot(policy, gain)[:, None]) / beta
    pushed = sum(moves[a].T @ cotangent[:, a] for a in range(actions))
    carried = solve(chain.T.tocsr(), problem.discount_follower, problem.discount_follower * pushed, 1e-14)
    weights = {"reward_follower": cotangent + carried[:, None] * policy, "reward_leader": visits[:, None] * policy}
    return problem.tables_pullback(theta, weights)


def compare(rooms_per_side: int, room_size: int) -> dict[str, float]:
    """Time both from cold on grids of rooms: states, CPU seconds of each, and how far apart they are, relatively.

    Examples
    --------
    >>> compare(2, 5)["apart"] < 1e-10
    True
    """
    seconds: dict[str, float] = {}
    found: dict[str, FloatArray] = {}
    theta = np.zeros(0)
    for name in ("package", "scipy"):
        problem = grid_rooms(rooms_per_side=rooms_per_side, room_size=room_size)  # its own: nothing is remembered
        drawn = named_stream(0, "sparse scaling", rooms_per_side, room_size)
        theta = 0.1 * drawn.standard_normal(problem.theta_shape)
        began = time.process_time()
        if name == "package":
            found[name] = hypergradient(problem, theta, bound=False).value
        else:
            found[name] = scipy_hypergradient(problem, theta)
        seconds[name] = time.process_time() - began
    apart = np.abs(found["package"] - found["scipy"]).max() / np.abs(found["package"]).max()
    return {"states": float(theta.size), **seconds, "apart": float(apart)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rooms", type=int, default=45, help="rooms per side")
    parser.add_argument("--size", type=int, default=7, help="cells per side of a room")
    chosen = parser.parse_args(arguments)
    row = compare(chosen.rooms, chosen.size)
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print("{states:,.0f} states: package {package:.2f} s, SciPy {scipy:.2f} s, apart {apart:.0e}".format(**row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
