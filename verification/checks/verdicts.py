"""Three-valued verdicts: passed, failed, no power.

A check that could not have seen a bias of a tenth of the truth says nothing about the estimator, and "passed" would be
a lie. So every verdict carries the smallest bias that its check could have seen, relative to the truth; above
`POWER_LIMIT` it is never "passed". A check that does see a bias has failed the estimator whatever its power.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked_record
from bilevelrl.verification.statistics.designs import MeanTest

__all__ = ["POWER_LIMIT", "ROUNDED", "Outcome", "Verdict", "judge_exact", "judge_sampled", "unjudged"]

POWER_LIMIT = 0.10

ROUNDED = 4096.0
"""Units of the last place, relative to the truth, that the rounding of draws may do to their mean."""


class Outcome(enum.Enum):
    """What a check found; the value is what tables print."""

    PASSED = "passed"
    FAILED = "failed"
    NO_POWER = "no power"
    EXPECTED = "expected failure"  # wrong, and declared to be so with a reason
    MEASURED = "measured"  # nothing was claimed, so nothing was judged
    NOT_APPLICABLE = (
        "not applicable"  # the check says nothing of this estimator, problem or sample; the reason says why
    )


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of one check, with what the check was able to see.

    Attributes
    ----------
    outcome : Outcome
        Passed, failed or no power; or that nothing was judged.
    detectable : float
        Smallest bias the check would have seen, relative to the truth's norm; inf: none.
    reason : str
        One sentence with the numbers.

    Examples
    --------
    >>> judge_exact(np.array([0.3]), tolerance=np.array([0.2]), scale=1.0).outcome
    <Outcome.FAILED: 'failed'>
    >>> judge_exact(np.array([0.0]), tolerance=np.array([0.2]), scale=1.0).outcome
    <Outcome.NO_POWER: 'no power'>
    """

    outcome: Outcome
    detectable: float
    reason: str

    @property
    def failed(self) -> bool:
        """Whether the check found the estimator wrong."""
        return self.outcome is Outcome.FAILED


def judge_exact(difference: FloatArray, *, tolerance: FloatArray | float, scale: float) -> Verdict:
    """Judge a difference that is known up to a bound, coordinate by coordinate.

    Parameters
    ----------
    difference : (N,)
        What was found minus what was claimed.
    tolerance : (N,) or float
        Bound on the error of the difference: rounding and error bounds, no sampling. Twice that is always seen.
    scale : float
        Norm of the truth.
    """
    allowed = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), difference.shape)
    detectable = _relative(2.0 * _norm(allowed), scale)
    # A claim of "exactly zero" has no scale of its own; what is seen is then absolute.
    worst = int(np.argmax(np.abs(difference) - allowed)) if difference.size else 0
    found = _relative(_norm(difference), scale)
    if not np.isfinite(difference).all() or bool((np.abs(difference) > allowed).any()):
        return Verdict(
            outcome=Outcome.FAILED,
            detectable=detectable,
            reason=(
                f"off by {found:.2g} of the truth; worst at parameter {worst}: {difference[worst]:+.3g} "
                f"where rounding allows {allowed[worst]:.1g}"
            ),
        )
    outcome = Outcome.PASSED if detectable <= POWER_LIMIT else Outcome.NO_POWER
    return Verdict(outcome=outcome, detectable=detectable, reason=f"agrees; would have seen {detectable:.1g}")


def _norm(values: FloatArray) -> float:
    """The Euclidean norm, inf where squares overflow."""
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(values))


def judge_sampled(test: MeanTest, *, along: int, scale: float, names: list[str]) -> Verdict:
    """Judge a mean test; its power is that of the comparison `along` (the truth's own direction).

    Parameters
    ----------
    test
        Outcome of a family of comparisons.
    along
        Index of the comparison along the truth.
    scale
        Norm of the truth.
    names
        What each comparison is called.
    """
    detectable = _relative(float(test.detectable[along]), scale)
    if test.rejected.any():
        excess = np.where(test.rejected, np.abs(test.bias) / np.maximum(test.half_width, np.finfo(float).tiny), 0.0)
        worst = int(np.argmax(excess))
        return Verdict(
            outcome=Outcome.FAILED,
            detectable=detectable,
            reason=(
                f"off by {test.bias[worst]:+.3g} ± {test.half_width[worst]:.1g} {names[worst]} "
                f"({int(test.rejected.sum())} of {test.rejected.size} comparisons, error rate {test.error_rate:.0g})"
            ),
        )
    robust = int((~test.gaussian).sum())
    note = f"; medians of means for {robust} of {test.gaussian.size} skewed comparisons" if robust else ""
    outcome = Outcome.PASSED if detectable <= POWER_LIMIT else Outcome.NO_POWER
    return Verdict(outcome=outcome, detectable=detectable, reason=f"agrees; would have seen {detectable:.2g}{note}")


def unjudged(outcome: Outcome, reason: str) -> Verdict:
    """Return a verdict that judges nothing: measured only, no power, or not applicable."""
    return Verdict(outcome=outcome, detectable=math.inf, reason=reason)


def _relative(value: float, scale: float) -> float:
    return value / scale if scale > 0.0 else (0.0 if value == 0.0 else math.inf)
