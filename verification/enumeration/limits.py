"""A limit on the time that somebody else's code may take, where the system has alarms."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bilevelrl.reference.errors import EstimatorError

__all__ = ["TookTooLongError", "within"]

LONGEST = 1e9
"""Seconds that an alarm can be set to everywhere: thirty years."""


class TookTooLongError(EstimatorError):
    """An estimator was stopped because it took longer than it may."""


@contextmanager
def within(seconds: float, name: str) -> Iterator[None]:
    """Raise in the block when it takes longer; without a limit outside the main thread, and where there are no alarms.

    Raises
    ------
    TookTooLongError
        Naming the estimator and the limit.

    Examples
    --------
    >>> with within(0.05, "mine"):
    ...     while True:
    ...         pass
    Traceback (most recent call last):
        ...
    bilevelrl.verification.enumeration.limits.TookTooLongError: estimator mine: took longer than 0.05 s; make it faster,
    or pass a larger time_limit
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLongError(
            f"estimator {name}: took longer than {seconds:g} s; make it faster, or pass a larger time_limit"
        )

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    # Again each second: one may be swallowed.
    left, interval = signal.setitimer(signal.ITIMER_REAL, min(seconds, LONGEST), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if left > 0.0:  # somebody else's alarm, a test runner's say
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - began)), interval)
