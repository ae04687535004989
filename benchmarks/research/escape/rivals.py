"""Rivals of the planning leader: ends of published methods, theirs and ours, and differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bilevelrl.benchmarks.paper.paper_curves import PAPER_SEEDS, paper_curve
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray

__all__ = ["PUBLISHED_METHODS", "RIVALS", "Rival", "Verdict", "judge", "own_rival", "published_rival"]


PUBLISHED_METHODS = ("BC-HG", "HPGD (MC)", "HPGD (SA)", "SoBiRL", "Naive-PGD")
"""Published methods that see no oracle."""


RIVALS = Path(str(resources.files("bilevelrl.benchmarks"))) / "data" / "four_rooms_rivals.csv"
"""Our runs of published methods in the paper's kernel, in whose metric the paper reports nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """The best of the published methods in one panel.

    Attributes
    ----------
    name : str
        Its title.
    mean, error : float
        Of its ends, with the standard error.
    runs : int
        Seeds.
    """

    name: str
    mean: float
    error: float
    runs: int


def published_rival(temperature: float, batch_steps: int) -> Rival:
    """Return the best published curve's end, as the paper reports it, in the planner's metric.

    Examples
    --------
    >>> published_rival(0.001, 100).name
    'BC-HG'
    """
    curves = {name: paper_curve(temperature, batch_steps, name) for name in PUBLISHED_METHODS}
    best = max(curves, key=lambda name: curves[name].final_mean)
    return Rival(name=best, mean=curves[best].final_mean, error=curves[best].final_standard_error, runs=PAPER_SEEDS)


def own_rival(rows: Sequence[Row], temperature: float, batch_steps: int) -> Rival | None:
    """Return the best of our own runs of published methods in a panel, with their best settings, if there are any.

    Parameters
    ----------
    rows
        Of `RIVALS`: one per method, setting and seed.
    temperature, batch_steps
        Of the panel.
    """
    ends: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if (row["temperature"], row["batch_steps"]) == (temperature, batch_steps):
            setting = row["learning_rate"], row["critic_step_size"]
            ends.setdefault((METHODS[ConfigurableMDP][row["method"]].title, *setting), []).append(
                row["final_objective"]
            )
    if not ends:
        return None
    best = max(ends, key=lambda each: float(np.mean(ends[each])))
    found = np.array(ends[best])
    error = float(found.std(ddof=1) / np.sqrt(found.size)) if found.size > 1 else float("inf")
    return Rival(name=best[0], mean=float(found.mean()), error=error, runs=found.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A leader in one panel, against a rival.

    Attributes
    ----------
    runs : int
        Seeds.
    mean, half_width : float
        Of the ends, with half of the 95 % interval of the mean (Student's t).
    difference, joint : float
        Of the means, and half of its joint 95 % interval (Welch's t).
    """

    runs: int
    mean: float
    half_width: float
    difference: float
    joint: float

    @property
    def wins(self) -> bool:
        """Whether the difference is positive by more than its joint interval."""
        return self.difference > self.joint


def judge(ends: FloatArray, rival: Rival) -> Verdict:
    """Compare ends of runs with a rival's.

    Examples
    --------
    >>> verdict = judge(np.array([0.66, 0.72, 0.78]), published_rival(0.001, 100))
    >>> round(verdict.difference, 3), verdict.wins
    (0.053, False)
    """
    mean, error = float(ends.mean()), float(ends.std(ddof=1) / np.sqrt(ends.size)) if ends.size > 1 else float("inf")
    joint = float(np.hypot(error, rival.error))
    half, joint_half = float("inf"), float("inf")
    if np.isfinite(joint):
        half = float(stats.t.ppf(0.975, ends.size - 1)) * error
        parts = error**4 / (ends.size - 1) + rival.error**4 / (rival.runs - 1)
        freedom = joint**4 / parts if parts > 0.0 else 1.0
        joint_half = float(stats.t.ppf(0.975, freedom)) * joint
    return Verdict(
        runs=int(ends.size),
        mean=mean,
        half_width=half,
        difference=mean - rival.mean,
        joint=joint_half,
    )
