"""Running a sweep: every unfinished cell once, on the cores of a machine or of a cluster, resumable after any death.

The function that makes a cell's rows must depend on the cell alone, so that an interrupted sweep ends with the same
results as an uninterrupted one. Workers write their results themselves: what finished is safe before anyone is told.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweep_store import SweepFolder, mixed_software
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, MissingExtraError, UnknownNameError, refusal
from bilevelrl.reference.storage import locked
from bilevelrl.verification.processes import end_with_parent

__all__ = ["MixedSoftwareWarning", "Sweep", "SweepError", "SweepReport", "need_processes", "run_sweep"]

CellFunction: TypeAlias = Callable[[Cell, Mapping[str, Any], Path], Sequence[dict[str, Any]]]
"""(cell, configuration, checkpoint file to continue from or to write) → tidy rows."""

Backend: TypeAlias = Literal["serial", "joblib", "dask"]
BACKENDS: tuple[Backend, ...] = ("serial", "joblib", "dask")

Progress: TypeAlias = Callable[[int, int], object]
"""(cells finished, cells in all)."""


class SweepError(BilevelRLError, RuntimeError):
    """Cells failed or a worker died; what finished is stored, and starting again continues."""


class MixedSoftwareWarning(UserWarning):
    """Results that different versions made were put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A function over a grid, and the folder that keeps what it gives.

    Parameters
    ----------
    function
        Of a module, so that other processes find it.
    grid
        What varies.
    folder
        Where results go.
    configuration
        What all cells share.
    """

    function: CellFunction
    grid: Grid
    folder: Path
    configuration: Mapping[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> SweepFolder:
        """The folder, which knows whose it is."""
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        return SweepFolder(path=Path(self.folder), configuration={"function": name, **self.configuration})


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a call of `run_sweep` did: tidy `rows` of all cells, and how many were `found` finished or `run`."""

    rows: list[dict[str, Any]]
    found: int
    run: int


def run_sweep(
    sweep: Sweep,
    *,
    backend: Backend = "serial",
    workers: int = 1,
    client: Any = None,
    progress: Progress | None = None,
) -> SweepReport:
    """Run all cells that have not finished yet.

    Parameters
    ----------
    sweep
        What to run.
    backend
        "serial": here. "joblib": in `workers` processes. "dask": on the workers of `client`, which must see the folder.
    workers
        Processes of joblib.
    client
        A `dask.distributed.Client`.
    progress
        Told after each cell; None: a bar with the time left, where standard error is a terminal.

    Raises
    ------
    SweepError
        If cells failed or a worker died.
    StorageError
        If the folder cannot be written, or a stored result is damaged.
    InvalidInputError
        If the folder belongs to another configuration.
    MissingExtraError
        If the backend is not installed.

    Warns
    -----
    MixedSoftwareWarning
        If cells that finished before were made by other versions than the rest.

    Examples
    --------
    >>> import tempfile
    >>> from bilevelrl.benchmarks.sweeping.sweeps import squares
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sweep = Sweep(function=squares, grid=Grid(axes={"x": [1, 2, 3]}), folder=Path(folder))
    ...     [row["square"] for row in run_sweep(sweep).rows], run_sweep(sweep).run
    ([1, 4, 9], 0)
    """
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, BACKENDS)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InvalidInputError(refusal("workers", workers, "an integer >= 1", "os.cpu_count() at most"))
    if backend == "dask" and client is None:
        raise InvalidInputError("client=None: expected a dask.distributed.Client with backend='dask'")
    if backend == "joblib":
        need_processes()
    store = sweep.store
    with locked(store.path):
        store.open()
        waiting = [cell for cell in sweep.grid if store.load(cell) is None]
        done = found = len(sweep.grid) - len(waiting)
        failures: list[str] = []
        with _shown(progress) as tell:
            tell(done, len(sweep.grid))
            try:
                with closing(_finished(sweep, waiting, backend, workers, client)) as ends:
                    for failure in ends:
                        failures.extend([failure] if failure else [])
                        done += not failure
                        tell(done, len(sweep.grid))
            except (SweepError, KeyboardInterrupt) as ended:
                kept = sum(store.result_path(cell).exists() for cell in sweep.grid)
                if isinstance(ended, KeyboardInterrupt):
                    raise
                raise SweepError(
                    f"{ended}; {kept} of {len(sweep.grid)} cells are stored in {store.path}, start again to continue"
                ) from ended
        if failures:
            raise SweepError(
                f"{len(failures)} of {len(sweep.grid)} cells failed, the others are stored in {store.path}: "
                + "; ".join(failures[:3])
            )
        rows = store.table(sweep.grid)
        if mixed := mixed_software(rows):
            warnings.warn(
                f"{store.path}: results of different software ({mixed}), which every row names; remove the folder to "
                "make all of them anew",
                MixedSoftwareWarning,
                stacklevel=2,
            )
        return SweepReport(rows=rows, found=found, run=len(waiting))


def need_processes() -> Any:
    """Return joblib, which runs cells in several processes.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import joblib  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("running cells in several processes", "joblib", "sweeps") from error
    return joblib


def squares(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[dict[str, Any]]:
    """Square a number: the smallest function of cells there is, for examples.

    Examples
    --------
    >>> squares({"x": 3}, {}, Path("none"))
    [{'square': 9}]
    """
    return [{"square": cell["x"] ** 2}]


def _run_cell(function: CellFunction, cell: Cell, store: SweepFolder) -> str:
    """Run one cell and store it; return what went wrong, or nothing."""
    try:
        given = {name: value for name, value in store.configuration.items() if name != "function"}
        store.store(cell, function(cell, given, store.checkpoint_path(cell)))
    except Exception as broken:  # one cell must not take the others with it
        return f"{dict(cell)}: {type(broken).__name__}: {broken}"
    return ""


def _run_cell_apart(parent: int, function: CellFunction, cell: Cell, store: SweepFolder) -> str:
    """Run one cell in a process that ends with its parent: none may go on writing where another sweep has begun."""
    _tie(parent)
    return _run_cell(function, cell, store)


@functools.cache
def _tie(parent: int) -> None:
    end_with_parent(parent)


def _finished(
    sweep: Sweep, waiting: Sequence[Cell], backend: Backend, workers: int, client: Any
) -> Generator[str, None, None]:
    """Run cells and yield, as each ends, what went wrong."""
    store = sweep.store
    if backend == "serial":
        for cell in waiting:
            yield _run_cell(sweep.function, cell, store)
    elif backend == "joblib":
        yield from _by_joblib(sweep.function, waiting, store, workers)
    else:
        yield from _by_dask(sweep.function, waiting, store, client)


def _by_joblib(function: CellFunction, waiting: Sequence[Cell], store: SweepFolder, workers: int) -> Iterator[str]:
    joblib = need_processes()
    from joblib.externals.loky.process_executor import (  # type: ignore[import-untyped,unused-ignore]
        TerminatedWorkerError,
    )

    pool = joblib.Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", batch_size=1)
    parent = os.getpid()
    try:
        yield from pool(joblib.delayed(_run_cell_apart)(parent, function, cell, store) for cell in waiting)
    except TerminatedWorkerError as died:
        raise SweepError("a worker process died (killed, or out of memory)") from died


def _by_dask(function: CellFunction, waiting: Sequence[Cell], store: SweepFolder, client: Any) -> Iterator[str]:
    try:
        import distributed  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("running cells on a cluster", "dask.distributed", "dask") from error
    futures = [client.submit(_run_cell, function, cell, store, pure=False, retries=0) for cell in waiting]
    try:
        for future in distributed.as_completed(futures):  # type: ignore[no-untyped-call,unused-ignore]
            try:
                yield future.result()
            except distributed.scheduler.KilledWorker as died:
                raise SweepError("a worker of the cluster died (killed, or out of memory)") from died
    finally:
        client.cancel(futures)


@contextmanager
def _shown(progress: Progress | None) -> Iterator[Progress]:
    """Yield where to report: the given function, a bar on a terminal, or nowhere."""
    if progress is not None:
        yield progress
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("cells", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
