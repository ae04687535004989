"""Timing for comparisons: alternatives take turns, so that a busy machine slows all of them alike.

Besides wall-clock time the CPU time of the calling thread is read, which does not count the time that other processes
run. With one BLAS thread the two agree on an idle machine.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

__all__ = ["Timing", "machine", "take_turns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds per call.

    Attributes
    ----------
    cpu, best : float
        CPU time of the calling thread: median and least over the rounds.
    wall : float
        Median wall-clock time.
    rounds : int
        Calls that were timed.
    """

    cpu: float
    best: float
    wall: float
    rounds: int


def take_turns(functions: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Timing]:
    """Time functions in alternation, after one untimed call of each.

    Parameters
    ----------
    functions
        {name: function without arguments}.
    rounds
        Timed calls of each.

    Returns
    -------
    {name: Timing}

    Examples
    --------
    >>> sorted(take_turns({"a": int, "b": float}, rounds=3))
    ['a', 'b']
    """
    for function in functions.values():
        function()
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start, start_cpu = time.perf_counter(), time.thread_time()
            function()
            cpu[name].append(time.thread_time() - start_cpu)
            wall[name].append(time.perf_counter() - start)
    return {
        name: Timing(
            cpu=float(np.median(cpu[name])), best=min(cpu[name]), wall=float(np.median(wall[name])), rounds=rounds
        )
        for name in functions
    }


def machine() -> dict[str, str]:
    """Return what the numbers of this run depend on: processor, threads, versions.

    Examples
    --------
    >>> "numpy" in machine()
    True
    """
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if (cpu.exists())
        else []
    )
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "threads": os.environ.get("OMP_NUM_THREADS", "not limited"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "autograd": version("autograd"),
        "BLAS": f"{blas.get('name')} {blas.get('version')}",
    }
