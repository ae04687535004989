"""Independent pieces of a verification, run in this process or over several, in the same order either way."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from bilevelrl.estimators import ESTIMATORS
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, refusal
from bilevelrl.verification.processes.ending import end_with_parent

__all__ = ["Job", "Progress", "WorkerError", "run_jobs"]

Progress = Callable[[int, int, str], None]
"""(jobs done, jobs in all, label of the last one) → None."""

# Many small matrices: threads inside BLAS would fight over the cores that the processes already use.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(BilevelRLError, RuntimeError):
    """A worker process died before it had answered."""


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

    Raises
    ------
    InvalidInputError
        If the number of workers is less than one.
    WorkerError
        If a worker died. Whatever is raised, no worker is left; and none outlives this process.

    Examples
    --------
    >>> run_jobs([Job(function=pow, arguments=(2, n), label="power") for n in range(4)])
    [1, 2, 4, 8]
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InvalidInputError(refusal("workers", workers, "an integer >= 1", "use 1 to stay in this process"))
    results: list[Any] = [None] * len(jobs)
    begin = sorted(range(len(jobs)), key=lambda i: -jobs[i].effort)
    if workers == 1 or len(jobs) < 2:
        for done, index in enumerate(begin, 1):
            results[index] = jobs[index].function(*jobs[index].arguments)
            if progress is not None:
                progress(done, len(jobs), jobs[index].label)
        return results
    modules = sorted({entry.make.__module__ for entry in ESTIMATORS.values()} - {"__main__"})
    given = {id(argument): argument for job in jobs for argument in job.arguments}
    place = {known: index for index, known in enumerate(given)}
    with (
        _single_threaded_children(),
        _pool(min(workers, len(jobs)), modules, tuple(given.values())) as pool,
    ):
        futures = {
            pool.submit(_call, jobs[index].function, [place[id(argument)] for argument in jobs[index].arguments]): index
            for index in begin
        }
        for done, future in enumerate(as_completed(futures), 1):
            index = futures[future]
            results[index] = future.result()
            if progress is not None:
                progress(done, len(jobs), jobs[index].label)
    return results


@contextlib.contextmanager
def _pool(workers: int, modules: Sequence[str], given: tuple[Any, ...]) -> Iterator[ProcessPoolExecutor]:
    """Processes that are ended at once where anything is raised: an executor by itself would finish its jobs first."""
    with ProcessPoolExecutor(
        max_workers=workers,
        mp_context=get_context("spawn"),
        initializer=_prepare,
        initargs=(os.getpid(), modules, given),
    ) as pool:
        try:
            yield pool
        except BaseException as failed:
            for worker in list(pool._processes.values()):  # public, as `kill_workers`, from Python 3.14
                worker.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(failed, BrokenProcessPool):
                raise WorkerError(
                    "a worker process died (killed, or out of memory, or the calling script lacks "
                    '`if __name__ == "__main__"`); use fewer workers'
                ) from failed
            raise


_given: tuple[Any, ...] = ()
"""In a worker: the arguments of all jobs, each sent once, so that jobs share what their arguments remember."""


def _call(function: Callable[..., Any], places: Sequence[int]) -> Any:
    return function(*(_given[place] for place in places))


def _prepare(parent: int, modules: Sequence[str], given: tuple[Any, ...]) -> None:
    """Tie a new process to its parent, and import the modules that register estimators."""
    global _given
    _given = given
    end_with_parent(parent)
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
