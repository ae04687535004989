"""Memory that work needs, held against what the machine has, before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from bilevelrl.reference.errors import TooLargeError

__all__ = ["available_memory", "check_memory"]

_MEMORY_OF_LINUX = Path("/proc/meminfo")


def available_memory() -> float:
    """Return the bytes that can be had without swapping: all of the machine's where the system does not tell."""
    if _MEMORY_OF_LINUX.exists():
        for line in _MEMORY_OF_LINUX.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * float(line.split()[1])
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * float(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # no such names on Windows
        return float("inf")


def check_memory(name: str, needed: float, purpose: str, remedy: str) -> None:
    """Refuse work whose arrays do not fit.

    Parameters
    ----------
    name
        The argument that they are made of.
    needed
        Bytes.
    purpose, remedy
        What they are for, and what to do instead.

    Raises
    ------
    TooLargeError
        Naming both sizes.

    Examples
    --------
    >>> check_memory("transition", 2.0**60, "a dense kernel", "keep it sparse")
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.TooLargeError: transition: a dense kernel needs 1,073,741,824.0 GiB of memory, ...
    """
    free = available_memory()
    if needed > free:
        raise TooLargeError(
            f"{name}: {purpose} needs {needed / 2**30:,.1f} GiB of memory, expected at most the "
            f"{free / 2**30:,.1f} GiB that are free; {remedy}"
        )
