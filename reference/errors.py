"""The package's own exceptions, all under one base class.

Messages name the argument, its value, what was expected and the remedy, in that order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BilevelRLError",
    "CallableError",
    "DerivativeError",
    "EstimatorError",
    "IllPosedError",
    "IndependenceError",
    "InvalidInputError",
    "MissingExtraError",
    "NotConvergedError",
    "PrecisionError",
    "ShapeError",
    "StochasticityError",
    "StorageError",
    "SupportError",
    "TooLargeError",
    "UnknownNameError",
    "UnsupportedError",
    "refusal",
]


class BilevelRLError(Exception):
    """Base class of every error this package raises on purpose."""


class InvalidInputError(BilevelRLError, ValueError):
    """An argument is outside what the function accepts."""


class ShapeError(InvalidInputError):
    """An array has the wrong shape or dtype."""


class StochasticityError(InvalidInputError):
    """A probability table has negative entries, or rows that sum to more than one."""


class IllPosedError(BilevelRLError, ValueError):
    """The question has no finite answer, for example an undiscounted return without a horizon."""


class SupportError(BilevelRLError, ValueError):
    """A score was asked for where it does not exist: a probability is zero, or about to leave zero as θ moves."""


class DerivativeError(BilevelRLError, ValueError):
    """A derivative does not exist at this θ, was lost, or is not what differences of the function show."""


class NotConvergedError(BilevelRLError, RuntimeError):
    """An iteration stopped before it reached its tolerance."""


class PrecisionError(BilevelRLError, ArithmeticError):
    """A rigorous enclosure as narrow as asked was not reached; the message names the precision tried."""


class IndependenceError(BilevelRLError, TypeError):
    """An autograd tracer or a complex number entered code that must not be differentiated through."""


class UnsupportedError(BilevelRLError, NotImplementedError):
    """The method exists but not for this kind of problem."""


class MissingExtraError(BilevelRLError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed; run: pip install 'bilevelrl[{extra}]'")


class StorageError(BilevelRLError, OSError):
    """A result could not be written or read; what was there before is still there."""


class TooLargeError(BilevelRLError, MemoryError):
    """The work asked for exceeds a stated limit."""


class EstimatorError(BilevelRLError, ValueError):
    """An estimator broke its contract: wrong shape, NaN, an exception, a changed input."""


class CallableError(EstimatorError):
    """A function or object that this package was given raised an exception, which is the `__cause__`."""


class UnknownNameError(InvalidInputError, KeyError):
    """A name is not in a registry; the message lists close matches."""

    def __init__(self, argument: str, name: object, known: Iterable[str]) -> None:
        try:
            names = sorted(map(str, known))
        except TypeError as error:
            raise InvalidInputError(refusal("known", known, "several names", "list them")) from error
        close = difflib.get_close_matches(name, names, n=3) if isinstance(name, str) else []
        hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"known: {', '.join(names)}"
        super().__init__(f"{argument}={_shown(name)} is not known; {hint}")

    def __str__(self) -> str:
        return str(self.args[0])


def refusal(argument: str, value: object, expected: str, remedy: str) -> str:
    """Return the one sentence that every refusal of an argument uses.

    Examples
    --------
    >>> refusal("temperature", -1.0, "a finite number > 0", "pass the entropy weight")
    'temperature=-1.0: expected a finite number > 0; pass the entropy weight'
    """
    return f"{argument}={_shown(value)}: expected {expected}; {remedy}"


def _shown(value: object) -> str:
    """What a message has room for."""
    try:
        text = repr(value)
    except Exception:  # nested too deeply, too many digits, or an object of somebody else
        return f"<{type(value).__name__}>"
    return text if len(text) <= 400 else f"{text[:300]} … {text[-60:]}"
