"""`bilevelrl reproduce`: a figure of the paper made anew, beside the paper's own curves, and in a table."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, all_figures, studies_present
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.benchmarks.sweeping.sweeps import Sweep, need_processes, run_sweep
from bilevelrl.reference.errors import MissingExtraError
from bilevelrl.reference.storage import locked, writable_folder, write_atomically
from bilevelrl.verification.commands import count
from bilevelrl.verification.reports import missing_figures

__all__ = ["fill", "make_figure"]

_WHERE_STUDIES_ARE = "Studies beyond the paper are in benchmarks/research of the repository: a checkout lists them too."
_SHARED = ("figure", "seeds", "iterations", "quick", "workers", "output", "run", "command")


def fill(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `reproduce`: one subcommand of its own for each figure."""
    add.epilog = None if studies_present() else _WHERE_STUDIES_ARE
    figures = add.add_subparsers(dest="figure", required=True, metavar="FIGURE")
    for name, figure in sorted(all_figures().items()):
        own = figures.add_parser(name, help=figure.title)
        own.add_argument("--output", metavar="DIR", type=Path, help=f"folder (default: results/{name})")
        own.add_argument("--quick", action="store_true", help="about a minute: shows that it runs, says little else")
        own.add_argument("--seeds", type=count, help=f"of each method (default {figure.seeds})")
        own.add_argument("--iterations", type=count, help=f"outer iterations (default {figure.iterations})")
        own.add_argument("--workers", type=count, default=1, help="processes (default 1; more need joblib)")
        figure.arguments(own)
        own.set_defaults(run=_reproduce)


def make_figure(figure: Figure, folder: Path, options: FigureOptions, *, workers: int = 1) -> tuple[str, list[Path]]:
    """Make the rows of a figure, or what is left of them, and write curves, table, smaller tables and pictures.

    Parameters
    ----------
    figure
        Which.
    folder
        Where everything goes; what finished there is not run again.
    options
        Seeds, iterations and the figure's own arguments.
    workers
        Processes.

    Returns
    -------
    table : str
        Markdown.
    written : list of Path
        Files, without pictures where matplotlib is missing.

    Raises
    ------
    InvalidInputError
        If the folder has results of other options.
    StorageError, SweepError
        If results cannot be written, or cells failed.
    """

    def run(sweep: Sweep) -> list[Row]:
        return run_sweep(sweep, backend="joblib" if workers > 1 else "serial", workers=workers).rows

    if workers > 1:
        need_processes()
    without = missing_figures()
    if without is not None:
        print(f"bilevelrl: there will be no picture: {without}", file=sys.stderr)
    with locked(writable_folder("--output", folder)):
        rows: Sequence[Row] = figure.rows(folder, options, run)
        table = figure.table(rows, options)
        written = [folder / "curves.csv", folder / "comparison.md"]
        write_table(written[0], rows)
        write_atomically(written[1], f"{table}\n")
        for name, smaller in figure.kept(rows).items():
            written.append(folder / name)
            write_table(written[-1], smaller)
        with contextlib.suppress(MissingExtraError):  # said already
            written += figure.draw(folder, rows, options)
    return table, written


def _reproduce(parsed: argparse.Namespace) -> int:
    figure = all_figures()[parsed.figure]
    seeds, iterations = figure.seeds, figure.iterations
    if parsed.quick:
        seeds, iterations = figure.quick_seeds, figure.quick_iterations
    options = FigureOptions(
        seeds=seeds if parsed.seeds is None else parsed.seeds,
        iterations=iterations if parsed.iterations is None else parsed.iterations,
        quick=parsed.quick,
        own={name: value for name, value in vars(parsed).items() if name not in _SHARED},
    )
    folder = parsed.output or Path("results") / (figure.name + ("-quick" if parsed.quick else ""))
    table, written = make_figure(figure, folder, options, workers=parsed.workers)
    print(table)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    return 0
