"""The paper's Four-Rooms curves as numbers, to lay beside ours.

Kudo et al. (2026), arXiv:2603.14867, Figures 2 and 6: the leader's objective against outer iterations, mean over 10
seeds, smoothed by a trailing moving average over 100 iterations. The drawn band is one standard error of the mean (the
text calls it the standard deviation). Read out of the vector figures; every 200th outer iteration is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import InvalidInputError

__all__ = ["PAPER_SEEDS", "PaperCurve", "paper_curve"]

PAPER_SEEDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCurve:
    """One curve of the paper.

    Attributes
    ----------
    iteration, mean, standard_error : (points,)
        The drawn curve and half its band.
    final_mean, final_standard_error : float
        Their means over the outer iterations from 9500 on.
    """

    iteration: IntArray
    mean: FloatArray
    standard_error: FloatArray
    final_mean: float
    final_standard_error: float


def paper_curve(temperature: float, batch_steps: int, method: str) -> PaperCurve:
    """Return the paper's curve of a method, by the name in its legend.

    Raises
    ------
    InvalidInputError
        If the paper has no such curve.

    Examples
    --------
    >>> paper_curve(0.001, 100, "BC-HG").final_mean
    0.6674
    """
    wanted = (temperature, batch_steps, method)
    curve, final = (
        [row for row in _rows(name) if (row["temperature"], row["batch_steps"], row["method"]) == wanted]
        for name in ("paper_four_rooms.csv", "paper_four_rooms_final.csv")
    )
    if not curve:
        raise InvalidInputError(
            f"temperature={temperature}, batch_steps={batch_steps}, method={method!r}: the paper has no such curve; "
            "temperatures .001, .003, .005; batches of 100, 200, 400, 1000 steps; methods as in its legend"
        )
    return PaperCurve(
        iteration=np.array([row["iteration"] for row in curve]),
        mean=np.array([row["mean"] for row in curve]),
        standard_error=np.array([row["standard_error"] for row in curve]),
        final_mean=float(final[0]["mean"]),
        final_standard_error=float(final[0]["standard_error"]),
    )


def _rows(name: str) -> list[dict[str, Any]]:
    with resources.as_file(resources.files("bilevelrl.benchmarks") / "data" / name) as path:
        return read_table(Path(path))
