"""What assertions found while a test ran, kept for whoever reports on the tests; elsewhere nothing is kept."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bilevelrl.verification.checks.verdicts import Outcome, Verdict

__all__ = ["Finding", "note", "taken", "written_in"]

_RUNNING = "PYTEST_CURRENT_TEST"
"""Set by pytest while a test runs."""

_kept: deque[Finding] = deque(maxlen=100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    estimator, check, scenario : str
        Of which estimator or gradient, which check, where.
    outcome, reason : str
        The verdict and one sentence on it.
    detectable : float or None
        Smallest bias that would have been seen, relative to the truth.
    cause : str
        The likely cause of a failure.
    file, line
        Where the estimator is written; empty and 0 where that is not known.
    """

    estimator: str
    check: str
    scenario: str
    outcome: str
    reason: str
    detectable: float | None = None
    cause: str = ""
    file: str = ""
    line: int = 0

    @property
    def right(self) -> bool:
        """Whether it says that the estimator is what it claims to be."""
        return self.outcome in (Outcome.PASSED.value, Outcome.EXPECTED.value)


def note(
    estimator: Any,
    name: str,
    found: Iterable[tuple[str, str, Verdict]],
    *,
    excused: Iterable[str] = (),
) -> None:
    """Keep what checks found, while a test runs.

    Parameters
    ----------
    estimator, name
        The function or object, and what it is called.
    found
        (check, scenario, verdict) of each.
    excused
        Scenarios where a failure is expected.

    Examples
    --------
    >>> from bilevelrl.verification.checks.verdicts import unjudged
    >>> note(len, "mine", [("bias", "toll", unjudged(Outcome.NO_POWER, "few draws"))])
    >>> all(finding["reason"] for finding in taken())  # none at all unless a test is running
    True
    """
    if _RUNNING not in os.environ:
        return
    file, line = written_in(estimator)
    known = set(excused)
    for check, scenario, verdict in found:
        outcome = Outcome.EXPECTED if verdict.failed and scenario in known else verdict.outcome
        _kept.append(
            Finding(
                estimator=name,
                check=check,
                scenario=scenario,
                outcome=outcome.value,
                reason=verdict.reason,
                detectable=verdict.detectable if math.isfinite(verdict.detectable) else None,
                file=file,
                line=line,
            )
        )


def taken() -> list[dict[str, Any]]:
    """Return what was kept, as plain data that another process can be sent, and forget it."""
    found = [asdict(finding) for finding in _kept]
    _kept.clear()
    return found


def written_in(estimator: Any) -> tuple[str, int]:
    """Return the file and line where a function, or the class of an object, is written; ("", 0) where not known.

    Examples
    --------
    >>> written_in(written_in)[0].endswith("records.py"), written_in(len)
    (True, ('', 0))
    """
    while isinstance(estimator, functools.partial):
        estimator = estimator.func
    written = inspect.unwrap(estimator) if inspect.isroutine(estimator) else type(estimator)
    try:
        return inspect.getsourcefile(written) or "", inspect.getsourcelines(written)[1]
    except (OSError, TypeError):
        return "", 0
