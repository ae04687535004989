"""Ends of our curves beside the ends of the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.summary import summarise
from bilevelrl.reference import named_stream

__all__ = ["Comparison", "compare_ends", "comparison_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One method of one panel, ours beside the paper's.

    Attributes
    ----------
    labels : tuple of str
        Which panel and method.
    runs : int
        How many seeds we trained.
    mean, interquartile_mean, low, high : float
        Of our runs' ends, with the 95 % interval of the interquartile mean.
    paper_mean, paper_error : float or None
        The paper's mean and its standard error; None where it has no such curve.
    difference, distance : float or None
        Of the means, ours minus the paper's, and in joint standard errors.
    """

    labels: tuple[str, ...]
    runs: int
    mean: float
    interquartile_mean: float
    low: float
    high: float
    paper_mean: float | None
    paper_error: float | None
    difference: float | None
    distance: float | None


def compare_ends(labels: Sequence[str], ends: Any, paper: tuple[float, float] | None) -> Comparison:
    """Compare one end per run with the paper's mean and standard error.

    Parameters
    ----------
    labels
        Which panel and method; they also name the bootstrap's random numbers.
    ends : (runs,)
        Of our runs.
    paper
        Mean and standard error, or None.

    Examples
    --------
    >>> found = compare_ends(("BC-HG",), [1.0, 2.0, 3.0], (2.5, 0.1))
    >>> found.mean, found.difference, round(found.distance, 2)
    (2.0, -0.5, -0.85)
    """
    finals = np.asarray(ends, dtype=np.float64).ravel()
    ours = summarise([finals], rng=named_stream(0, "comparison", *labels))
    difference = distance = None
    if paper is not None:
        difference = ours.mean - paper[0]
        spread = finals.std(ddof=1) / np.sqrt(finals.size) if finals.size > 1 else 0.0
        joint = float(np.hypot(spread, paper[1]))
        distance = difference / joint if joint > 1e-3 else None
    return Comparison(
        labels=tuple(labels),
        runs=ours.runs,
        mean=ours.mean,
        interquartile_mean=ours.interquartile_mean,
        low=ours.low,
        high=ours.high,
        paper_mean=None if paper is None else paper[0],
        paper_error=None if paper is None else paper[1],
        difference=difference,
        distance=distance,
    )


def comparison_table(head: Sequence[str], comparisons: Sequence[Comparison], *, digits: int = 3) -> str:
    """Return comparisons as a Markdown table; `head` names the labels.

    Examples
    --------
    >>> print(comparison_table(["method"], [compare_ends(("BC-HG",), [1.0, 2.0], None)]).splitlines()[0])
    | method | runs | our mean | IQM [95 %] | paper ± SE | difference | in joint SE |
    """
    titles = (*head, "runs", "our mean", "IQM [95 %]", "paper ± SE", "difference", "in joint SE")
    lines = [" | ".join(titles), " | ".join("---" for _ in titles)]
    for row in comparisons:
        paper = difference = distance = "–"
        if row.paper_mean is not None and row.difference is not None:
            paper, difference = (
                f"{row.paper_mean:.{digits}f} ± {row.paper_error:.{digits}f}",
                f"{row.difference:+.{digits}f}",
            )
            distance = "–" if row.distance is None else f"{row.distance:+.1f}"
        middle = f"{row.interquartile_mean:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"
        cells = (*row.labels, str(row.runs), f"{row.mean:.{digits}f}", middle, paper, difference, distance)
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)
