"""What a skilled user of JAX would write for Four-Rooms, beside this package in one run.

    OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.speed.jax_rival

Newton's method in a `while_loop`, then one more step whose system is held fixed: JAX's own reverse mode through it is
implicit differentiation. Jitted, mapped over θ for many of them. It checks nothing, and knows this problem alone.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy

from bilevelrl.benchmarks.speed.cases import WarmFourRooms, warm_four_rooms
from bilevelrl.benchmarks.speed.timing import machine
from bilevelrl.reference import ConfigurableMDP, hypergradient
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import NotConvergedError
from bilevelrl.reference.in_jax import jax_hypergradient
from bilevelrl.reference.many import hypergradients

__all__ = ["AGREEMENT", "COUNTS", "jax_gradient", "main", "measured", "rooms_tables"]

COUNTS: Mapping[int, int] = {1: 600, 32: 25, 100: 10}
"""Rounds by how many θ at once."""

AGREEMENT = 1e-10
"""What the rival's gradients may be off by, relative to the largest entry."""


def rooms_tables(problem: ConfigurableMDP, size: int) -> Callable[[Any], dict[str, Any]]:
    """Return Four-Rooms' tables in JAX: rewards are affine in the penalties softmax(θ)."""
    jax = importlib.import_module("jax")
    # Two values of each reward tell what a unit of penalty costs: in its own cell, and the leader.
    share, even = 1.0 / size, problem.tables_at(np.zeros(size))
    certain = np.zeros(size)
    certain[-1] = 800.0  # all of the budget in the unused slot
    free = problem.tables_at(certain)
    own = (even.reward_follower - free.reward_follower) / share
    paid = (even.reward_leader - free.reward_leader) / (share * (size - 1))

    def of(theta: Any) -> dict[str, Any]:
        shares = jax.nn.softmax(theta)[:-1]
        return {
            "transition": jax.numpy.asarray(free.transition),
            "reward_follower": free.reward_follower + own * shares[:, None],
            "reward_leader": free.reward_leader + paid * shares.sum(),
            "initial": jax.numpy.asarray(free.initial),
        }

    return of


def jax_gradient(problem: ConfigurableMDP, tables: Callable[[Any], dict[str, Any]]) -> Callable[[Any, Any], Any]:
    """Return (θ, start (S,)) → ∇J(θ), as a skilled user would write it."""
    jax = importlib.import_module("jax")
    jnp, beta, discount = jax.numpy, problem.temperature, problem.discount_follower

    def backup(value: Any, reward: Any, kernel: Any) -> Any:
        action_value = reward + discount * kernel @ value
        return beta * jax.nn.logsumexp(action_value / beta, axis=1), jax.nn.softmax(action_value / beta, axis=1)

    def system(policy: Any, kernel: Any, discount: float) -> Any:
        return jnp.eye(len(policy)) - discount * jnp.einsum("sa,sat->st", policy, kernel)

    def solved(value: Any, reward: Any, kernel: Any) -> Any:
        def step(state: Any) -> Any:
            value, _, count = state
            backed_up, policy = backup(value, reward, kernel)
            change = backed_up - value
            value = value + jnp.linalg.solve(system(policy, kernel, discount), change)
            return value, jnp.abs(change).max(), count + 1

        # A step that is this small was the last: Newton's method squares it.
        going = lambda state: (state[1] > 1e-7) & (state[2] < 50)  # noqa: E731
        return jax.lax.while_loop(going, step, (value, jnp.inf, 0))[0]

    def objective(theta: Any, start: Any) -> Any:
        given = tables(theta)
        kernel, reward = given["transition"], given["reward_follower"]
        value = jax.lax.stop_gradient(solved(start, jax.lax.stop_gradient(reward), kernel))
        backed_up, policy = backup(value, reward, kernel)
        fixed = jax.lax.stop_gradient(system(policy, kernel, discount))
        value = value + jnp.linalg.solve(fixed, backed_up - value)
        policy = backup(value, reward, kernel)[1]
        earned = (policy * given["reward_leader"]).sum(axis=1)
        return given["initial"] @ jnp.linalg.solve(system(policy, kernel, problem.discount_leader), earned)

    gradient: Callable[[Any, Any], Any] = jax.grad(objective)
    return gradient


def _least(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the least CPU seconds of the process, all threads, of functions that take turns."""
    least = dict.fromkeys(functions, np.inf)
    for function in functions.values():
        function()  # compiled at the first call
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.process_time()
            function()
            least[name] = min(least[name], time.process_time() - began)
    return least


def _compared(warm: WarmFourRooms, count: int, rounds: int) -> dict[str, float]:
    jax = importlib.import_module("jax")
    problem, theta, start = warm.problem, warm.theta, warm.previous.value
    tables = rooms_tables(problem, theta.size)
    options = {name: getattr(problem, name) for name in ("discount_leader", "discount_follower", "temperature")}
    rival: Any = jax_gradient(problem, tables)

    def own(x: Any) -> Any:
        return jax_hypergradient(tables, x, **options).value

    if count == 1:
        points, ours = theta, lambda: warm.gradient().value
        rival, own = jax.jit(rival), jax.jit(own)
    else:
        points = theta + 0.01 * np.random.default_rng(0).standard_normal((count, theta.size))
        ours = lambda: hypergradients(problem, points, warm_start=warm.previous, bound=False).value  # noqa: E731
        rival, own = jax.jit(jax.vmap(rival, in_axes=(0, None))), jax.jit(jax.vmap(own))
    functions: dict[str, Callable[[], FloatArray]] = {
        "package": ours,
        "JAX by hand": lambda: np.asarray(rival(points, start)),
        "reference.in_jax, cold": lambda: np.asarray(own(points)),
    }
    exact = np.stack([hypergradient(problem, x, bound=False).value for x in np.atleast_2d(points)])
    for name, function in functions.items():
        apart = float(np.abs(np.atleast_2d(function()) - exact).max() / np.abs(exact).max())
        if not apart <= AGREEMENT:
            raise NotConvergedError(f"{name}: {apart:.1g} away from the reference, expected {AGREEMENT:g}")
    alone: dict[str, Callable[[], object]] = {"its LAPACK alone, one θ": warm.bare_solves()}
    least = _least({**functions, **alone}, rounds)
    return {name: seconds / (count if name in functions else 1) for name, seconds in least.items()}


def measured(counts: Mapping[int, int]) -> str:
    """Return the section of benchmarks/README.md: {number of θ: rounds}.

    Raises
    ------
    MissingExtraError
        If JAX is not installed.
    NotConvergedError
        If one of them does not agree with the reference.
    """
    jax = importlib.import_module("jax")
    holder = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with holder.enable_x64(True):
        warm = warm_four_rooms()
        found = {count: _compared(warm, count, rounds) for count, rounds in counts.items()}
    names = list(next(iter(found.values())))
    lines = ["| θ at once | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for count, seconds in found.items():
        lines.append(f"| {count} | " + " | ".join(f"{1e3 * seconds[name]:.3f} ms" for name in names) + " |")
    lapack = scipy.show_config(mode="dicts")["Build Dependencies"]["lapack"]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        "## Beside a hand-written JAX\n\n"
        "One exact hypergradient of Four-Rooms, per θ: this package and the rival from a solution one step away, "
        f"`reference.in_jax` from nothing. Least CPU time of the whole process over {min(counts.values())} to "
        f"{max(counts.values())} rounds in which all take turns; load {load:.0f} on {os.cpu_count()} cores, so that "
        "columns compare and rows do not. All agree with the reference to "
        f"{AGREEMENT:g} of the largest entry. NumPy's BLAS: {machine()['BLAS']}; JAX {jax.__version__} calls SciPy's "
        f"LAPACK, {lapack['name']} {lapack['version']}. Written by "
        "`OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.speed.jax_rival`.\n\n" + "\n".join(lines)
    )


def main() -> int:
    """Print the section."""
    print(measured(COUNTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
