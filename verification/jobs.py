"""Independent pieces of a verification, run in this process or over several, in the same order either way."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from bilevelrl.estimators import ESTIMATORS

__all__ = ["Job", "Progress", "run_jobs"]

Progress = Callable[[int, int, str], None]
"""(jobs done, jobs in all, label of the last one) → None."""

# Many small matrices: threads inside BLAS would fight over the cores that the processes already use.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call.

    Attributes
    ----------
    function, arguments
        A function of a module (so that another process finds it) and its positional arguments.
    label : str
        For the progress display.
    effort : float
        Rough seconds; the longest begin first.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    label: str
    effort: float = 1.0


def run_jobs(jobs: Sequence[Job], *, workers: int = 1, progress: Progress | None = None) -> list[Any]:
    """Run all jobs and return their results in the order given.

    Parameters
    ----------
    jobs
        What to run; results depend on the jobs alone, never on workers or order.
    workers
        Processes; 1: this one. New processes import the calling script, which must guard its main part with
        `if __name__ == "__main__"`.
    progress
        Told after each job.

    Examples
    --------
    >>> run_jobs([Job(function=pow, arguments=(2, n), label="power") for n in range(4)])
    [1, 2, 4, 8]
    """
    results: list[Any] = [None] * len(jobs)
    begin = sorted(range(len(jobs)), key=lambda i: -jobs[i].effort)
    if workers <= 1:
        for done, index in enumerate(begin, 1):
            results[index] = jobs[index].function(*jobs[index].arguments)
            if progress is not None:
                progress(done, len(jobs), jobs[index].label)
        return results
    modules = sorted({entry.make.__module__ for entry in ESTIMATORS.values()} - {"__main__"})
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(
            max_workers=min(workers, len(jobs)),
            mp_context=get_context("spawn"),
            initializer=_prepare,
            initargs=(modules,),
        ) as pool,
    ):
        futures = {pool.submit(jobs[index].function, *jobs[index].arguments): index for index in begin}
        for done, future in enumerate(as_completed(futures), 1):
            index = futures[future]
            results[index] = future.result()
            if progress is not None:
                progress(done, len(jobs), jobs[index].label)
    return results


def _prepare(modules: Sequence[str]) -> None:
    """Import the modules that register estimators, in a new process."""
    for name in modules:
        importlib.import_module(name)


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
