"""The optional dependency behind certified truth: python-flint, which brings Arb's ball arithmetic."""

from __future__ import annotations

from importlib.util import find_spec

from bilevelrl.reference.errors import MissingExtraError

__all__ = ["require_flint"]


def require_flint(purpose: str = "certified truth") -> None:
    """Raise unless python-flint can be imported.

    Raises
    ------
    MissingExtraError
        Naming the extra that brings it.

    Examples
    --------
    >>> require_flint()
    """
    if find_spec("flint") is None:
        raise MissingExtraError(purpose, "python-flint", "certified")
