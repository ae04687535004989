"""Reports, and how far work has come, on a terminal: with rich where there is one, else as plain text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bilevelrl.verification.pipeline.plain_text import (
    failure_lines,
    plain_report,
    report_tables,
    summary_line,
    unjudged_lines,
)
from bilevelrl.verification.pipeline.rows import Findings
from bilevelrl.verification.processes.jobs import Progress

__all__ = ["print_report", "progress_bar"]

_STYLES = {
    "passed": "green",
    "expected failure": "green",
    "failed": "bold red",
    "no power": "yellow",
    "measured": "dim",
    "not applicable": "dim",
}


def print_report(report: Findings) -> None:
    """Print to standard output, coloured where rich is installed and the output is a terminal."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        print(plain_report(report))
        return
    console = Console()
    if not console.is_terminal:
        print(plain_report(report))
        return
    console.print(summary_line(report), style="bold green" if report.passed else "bold red", highlight=False)
    for line in failure_lines(report):
        console.print(line, style="red", markup=False, highlight=False)
    for line in report.remarks:
        console.print(line, style="yellow", markup=False, highlight=False)
    for line in unjudged_lines(report):
        console.print(line, style="dim", markup=False, highlight=False)
    console.print()
    for text in report_tables(report):
        table = Table(title=text.title, title_justify="left", header_style="bold", box=None, pad_edge=False)
        last = len(text.columns) - 1
        for i, column in enumerate(text.columns):
            table.add_column(column, justify="left" if i < text.text_columns or i == last else "right", no_wrap=True)
        for row in text.rows:
            table.add_row(*row[:-1], Text(row[-1], style=_STYLES.get(row[-1], "")))
        console.print(table)
        console.print()


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Show a progress bar on standard error; silent where that is not a terminal or rich is missing."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield None
        return
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, label: bar.update(task, completed=done, total=total, description=label)
