"""Studies on one's own problem: bias, spread, error and cost of estimators over θ, steps and seeds, as tidy rows.

A study is a sweep: one cell per estimator, θ, number of steps and seed, which finishes on its own, is kept, and is not
run again. A folder belongs to one study: to what the problem is at each θ (its entries and their Jacobians), and to the
source of each estimator; what that source calls is not looked at.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweep_store import SweepFolder, write_table
from bilevelrl.benchmarks.sweeping.sweeps import Backend, Progress, Sweep, run_sweep
from bilevelrl.reference import Problem
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, refusal
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks.exporting import problem_arrays
from bilevelrl.verification.commands import add_place, count, named_object, natural, read_place
from bilevelrl.verification.pipeline import REPLICATES, SAMPLES, own_study_rows

__all__ = ["StudyTable", "fill", "plot_study", "study"]


@dataclass(frozen=True, slots=True)
class StudyTable:
    """Tidy rows of a study: plain dictionaries, which pandas and polars take as they are.

    Attributes
    ----------
    rows : list of dict
        estimator; theta (its number), steps, seed: the cell. samples: episodes that one estimate averages over.
        moments: "exact" by enumeration, or "sampled". bias, standard_deviation, root_mean_square: of an estimate,
        relative to ‖∇J‖. cosine, cosine_low, cosine_high: with ∇J. cost: environment and oracle steps per estimate.
        version_numpy and others: what made the row.
    """

    rows: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def column(self, name: str) -> list[Any]:
        """Return one column."""
        return [row[name] for row in self.rows]

    def to_csv(self, path: str | Path) -> Path:
        """Write a .csv file and return its path; raises as `write_table`."""
        return self._to(path, ".csv")

    def to_parquet(self, path: str | Path) -> Path:
        """Write a .parquet file (extra `parquet`) and return its path; raises as `write_table`."""
        return self._to(path, ".parquet")

    def _to(self, path: str | Path, ending: str) -> Path:
        file = Path(path)
        if file.suffix != ending:
            raise InvalidInputError(refusal("path", str(file), f"a name ending in {ending}", "name the file so"))
        write_table(file, self.rows)
        return file


@dataclass(frozen=True, slots=True)
class _Cells:
    """The function of a study's cells; it travels to other processes with problem and estimators."""

    problem: Problem
    thetas: tuple[FloatArray, ...]
    estimators: Mapping[str, Any]
    samples: tuple[int, ...]
    replicates: int

    def __call__(self, cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[dict[str, Any]]:
        found = own_study_rows(
            self.estimators[cell["estimator"]],
            self.problem,
            self.thetas[cell["theta"]],
            steps=cell["steps"],
            seed=cell["seed"],
            samples=self.samples,
            replicates=self.replicates,
        )
        rows = [asdict(row) for row in found]
        for row in rows:
            row["cost"] = row.pop("steps")
            for known in ("scenario", "estimator", "level"):
                del row[known]
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _StudySweep(Sweep):
    """A sweep whose folder knows problem and estimators by what they are."""

    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> SweepFolder:
        """The folder of this study."""
        return SweepFolder(path=Path(self.folder), configuration={"function": "study", **self.fingerprint})


def study(
    estimators: Any,
    problem: Problem,
    thetas: Any,
    *,
    steps: int | Sequence[int],
    seeds: Sequence[int] = (0,),
    samples: Sequence[int] = SAMPLES,
    replicates: int = REPLICATES,
    folder: str | Path | None = None,
    backend: Backend = "serial",
    workers: int = 1,
    client: Any = None,
    progress: Progress | None = None,
) -> StudyTable:
    """Study estimators on a problem of one's own, and return tidy rows.

    Parameters
    ----------
    estimators
        Names of registered estimators, `Estimator` objects, or functions of trajectories and context; one, a list, or a
        mapping {name: estimator}.
    problem
        Of any kind.
    thetas
        One θ in the problem's shape, or a list of several.
    steps
        Of an episode; one number or several.
    seeds
        Roots of the random streams; each gives rows of its own.
    samples, replicates
        Episodes per estimate, and estimates that spreads and cosines are taken over.
    folder
        Where finished cells are kept and found again; None: nowhere.
    backend, workers, client, progress
        As in `run_sweep`: "serial", "joblib" in so many processes, "dask" on the workers of a client.

    Raises
    ------
    InvalidInputError
        If an argument is out of range, or the folder belongs to another study.
    SweepError
        If cells failed, naming them; the others are kept.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> table = study(["bc_hg", "naive_pgd"], random_mdp(), np.zeros(3), steps=3, samples=(1, 16), replicates=5)
    >>> [(row["estimator"], row["samples"], row["moments"]) for row in table][:2]
    [('bc_hg', 1, 'exact'), ('bc_hg', 16, 'exact')]
    >>> round(table.rows[0]["standard_deviation"] / table.rows[1]["standard_deviation"], 9)
    4.0
    """
    named = _named(estimators)
    places = _thetas(problem, thetas)
    numbers = {"steps": _whole("steps", steps, 1), "seed": _whole("seeds", seeds, 0)}
    sampled = _whole("samples", samples, 1)
    (spread,) = _whole("replicates", replicates, 2)
    cells = _Cells(problem, places, named, sampled, spread)
    with _folder(folder) as kept:
        sweep = _StudySweep(
            function=cells,
            grid=Grid(axes={"estimator": tuple(named), "theta": tuple(range(len(places))), **numbers}),
            folder=kept,
            fingerprint={
                "problem": [_digest(problem_arrays(problem, theta)) for theta in places],
                "estimators": {name: _source(given) for name, given in named.items()},
                "samples": list(sampled),
                "replicates": spread,
            },
        )
        found = run_sweep(sweep, backend=backend, workers=workers, client=client, progress=progress)
    return StudyTable(found.rows)


def plot_study(table: StudyTable, path: str | Path | None = None, *, y: str = "root_mean_square") -> Any:
    """Draw a study: one panel per θ and number of steps, one curve per estimator over its cost, means over seeds.

    Parameters
    ----------
    table
        What `study` returned.
    path
        Where to write the figure, by its ending; None: nowhere.
    y
        Column: root_mean_square (the bias dotted, which it tends to), standard_deviation, bias or cosine.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InvalidInputError
        If there is no such column of numbers, or no row.
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("plot_study", "matplotlib", "cli") from None
    columns = ("root_mean_square", "standard_deviation", "bias", "cosine")
    if y not in columns or not table.rows:
        raise InvalidInputError(refusal("y", y, f"one of {columns}, of a table with rows", "choose a column"))
    panels = list(dict.fromkeys((row["theta"], row["steps"]) for row in table))
    names = list(dict.fromkeys(table.column("estimator")))
    figure = Figure(figsize=(2.0 + 3.0 * len(panels), 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (theta, steps) in zip(grid, panels, strict=True):
        for number, name in enumerate(names):
            rows = [r for r in table if (r["theta"], r["steps"], r["estimator"]) == (theta, steps, name)]
            sizes = sorted({row["samples"] for row in rows})
            mean = {
                key: [float(np.mean([row[key] for row in rows if row["samples"] == size])) for size in sizes]
                for key in (y, "cost", "bias")
            }
            axes.plot(mean["cost"], mean[y], marker="o", ms=3, color=f"C{number % 10}", label=name)
            if y == "root_mean_square" and rows and mean["bias"][-1] > 0.1 * min(mean[y]):  # none is drawn at rounding
                axes.axhline(mean["bias"][-1], color=f"C{number % 10}", lw=0.8, ls=":")
        axes.set_xscale("log")
        if y in ("root_mean_square", "standard_deviation"):
            axes.set_yscale("log")
        axes.set_title(f"θ {theta}, {steps} steps", fontsize=9)
        axes.set_xlabel("environment and oracle steps per estimate")
    label = {"root_mean_square": "RMS error", "standard_deviation": "standard deviation"}.get(y, y)
    grid[0].set_ylabel(label + ("" if y == "cosine" else " / ‖∇J‖"))
    grid[0].legend(fontsize=7)
    if path is not None:
        file = Path(path)
        write_atomically(file, lambda opened: figure.savefig(opened, format=file.suffix.lstrip(".") or None, dpi=150))
    return figure


def fill(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `study`."""
    add_place(add)
    add.add_argument("--estimator", nargs="+", required=True, help="names of `bilevelrl list`, or MODULE:NAME")
    add.add_argument("--steps", type=count, nargs="+", required=True, help="of an episode")
    add.add_argument("--seeds", type=count, default=1, help="how many (default 1)")
    add.add_argument("--first-seed", type=natural, default=0, help="default 0")
    add.add_argument("--samples", type=count, nargs="+", default=list(SAMPLES), help="episodes per estimate")
    add.add_argument("--replicates", type=count, default=REPLICATES, help=f"default {REPLICATES}")
    add.add_argument("--folder", type=Path, help="where finished cells are kept, and found again")
    add.add_argument("--workers", type=count, default=1, help="processes (default 1)")
    add.add_argument("--output", type=Path, default=Path("study.csv"), help=".csv or .parquet (default study.csv)")
    add.add_argument("--plot", type=Path, help="also draw it: .svg, .png or .pdf")
    add.set_defaults(run=_study)


def _study(parsed: argparse.Namespace) -> int:
    problem, theta = read_place(parsed)
    if problem is None:
        raise InvalidInputError("--task, --problem: expected one of them; name the problem that is studied")
    named = {name: named_object("--estimator", name) if ":" in name else name for name in parsed.estimator}
    table = study(
        named, problem, [theta], steps=parsed.steps,
        seeds=range(parsed.first_seed, parsed.first_seed + parsed.seeds), samples=parsed.samples,
        replicates=parsed.replicates, folder=parsed.folder,
        backend="serial" if parsed.workers == 1 else "joblib", workers=parsed.workers,
    )  # fmt: skip
    write_table(parsed.output, table.rows)
    print(f"wrote {parsed.output}: {len(table)} rows")
    if parsed.plot is not None:
        plot_study(table, parsed.plot)
        print(f"wrote {parsed.plot}")
    return 0


def _named(estimators: Any) -> dict[str, Any]:
    """Estimators by name."""
    if isinstance(estimators, Mapping):
        found = dict(estimators)
    else:
        listed = list(estimators) if isinstance(estimators, (list, tuple)) else [estimators]
        names = [
            e if isinstance(e, str) else str(getattr(e, "name", None) or getattr(e, "__name__", e)) for e in listed
        ]
        found = dict(zip(names, listed, strict=True))
        if len(found) < len(listed):
            raise InvalidInputError(refusal("estimators", names, "different names", "pass a mapping {name: estimator}"))
    for name, given in found.items():
        if isinstance(given, type):
            found[name] = given()
        elif not (isinstance(given, str) or callable(given)):
            raise InvalidInputError(
                refusal(f"estimators[{name!r}]", given, "a name, an Estimator or a function", "see docs")
            )
    if not found:
        raise InvalidInputError("estimators: expected at least one; see `bilevelrl list`")
    return found


def _name(given: Any) -> str:
    return str(getattr(given, "name", None) or getattr(given, "__name__", None) or type(given).__name__)


def _thetas(problem: Problem, thetas: Any) -> tuple[FloatArray, ...]:
    """Every θ, checked; a list of θ, or one."""
    several = isinstance(thetas, (list, tuple)) and len(thetas) > 0 and np.ndim(thetas[0]) > 0
    return tuple(np.array(problem.check_theta(theta)) for theta in (thetas if several else [thetas]))


def _whole(name: str, given: Any, least: int) -> tuple[int, ...]:
    values = tuple(given) if isinstance(given, (Sequence, range, np.ndarray)) else (given,)
    whole = [v for v in values if isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= least]
    if not values or len(whole) < len(values):
        raise InvalidInputError(refusal(name, given, f"integers >= {least}", "name one or more"))
    return tuple(int(value) for value in values)


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _source(given: Any) -> str:
    """What tells one estimator from another: its name, or a digest of its source and its settings."""
    if isinstance(given, str):
        return given
    plain = inspect.isfunction(given)
    settings = "" if plain else repr(sorted(getattr(given, "__dict__", {}).items(), key=str))
    try:
        text = inspect.getsource(given if plain else type(given))
    except (OSError, TypeError):
        text = repr(getattr(getattr(given, "__code__", None), "co_code", None))
    return hashlib.sha256((text + settings).encode()).hexdigest()


@contextmanager
def _folder(given: str | Path | None) -> Iterator[Path]:
    if given is not None:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made) / "study"
