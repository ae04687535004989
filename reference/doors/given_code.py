"""What a caller's own code raises, reported as an error of this package.

Estimators, simulators, followers' solutions, draws, policies and callbacks may be a caller's. Whatever they raise
leaves a public function as `CallableError`: which function it was, in which argument it came, at which θ, with the
original as `__cause__`. Nothing is wrapped: the traceback says who raised, so a call that succeeds pays nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, CodeType, FrameType, TracebackType

import numpy as np

from bilevelrl.reference.errors import CallableError

__all__ = ["callable_error", "name_argument", "point_text", "raised_by_callers"]

# Whose frames are nobody's own code; rich, joblib and the like call back into this package.
_LIBRARIES = {"bilevelrl", "autograd", "dask", "distributed", "flint", "gymnasium", "hypothesis", "joblib"}
_LIBRARIES |= {"matplotlib", "numba", "numpy", "pluggy", "pyarrow", "pytest", "_pytest", "rich", "scipy"}
_LIBRARIES |= sys.stdlib_module_names - {"__main__"}


def callable_error(name: str, error: Exception, theta: object = None) -> CallableError:
    """Return the error that says that a function of the caller's raised one, at θ where there is one.

    Examples
    --------
    >>> print(callable_error("draw", ZeroDivisionError("division by zero"), np.zeros(2)))
    draw: raised ZeroDivisionError: division by zero; at theta=[0. 0.]; check it at these arguments
    """
    place = "" if theta is None else f"; at theta={point_text(theta)}"
    return CallableError(f"{name}: raised {type(error).__name__}: {error}{place}; check it at these arguments")


def point_text(theta: object) -> str:
    """Return θ as a message has room for."""
    return np.array2string(theta, threshold=8) if isinstance(theta, np.ndarray) else repr(theta)


def raised_by_callers(error: Exception, given: Mapping[str, object]) -> CallableError | None:
    """Return the error to raise in place of another one, if the caller's code raised that; else None.

    `given` are the arguments of the public function that the error is about to leave.
    """
    frames = _frames(error.__traceback__)
    own = next((i for i, frame in enumerate(frames) if _is_callers(frame)), None)
    if own is not None:
        name = frames[own].f_code.co_qualname.rpartition("<locals>.")[2]
        return callable_error(_with_argument(name, _argument(frames[own], given)), error, _theta(frames[: own + 1]))
    argument = _without_frame(frames[1:], given)
    if argument is None:
        return None
    return callable_error(
        _with_argument(getattr(given[argument], "__name__", argument), argument), error, _theta(frames)
    )


def name_argument(error: CallableError, given: Mapping[str, object]) -> None:
    """Say in the message in which argument the function came, where it does not yet."""
    frames = _frames(error.__cause__.__traceback__ if error.__cause__ is not None else None)
    frame = next((frame for frame in frames if _is_callers(frame)), None)
    argument = _without_frame(frames, given) if frame is None else _argument(frame, given)
    if argument is not None and not re.search(rf"\b{re.escape(argument)}\b", str(error)):
        error.args = (f"{argument}: {error}",)


def _with_argument(name: str, argument: str | None) -> str:
    return name if argument in (None, name) else f"{argument}: {name}"


def _frames(trace: TracebackType | None) -> list[FrameType]:
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    return frames


def _root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_callers(frame: FrameType) -> bool:
    return _root(frame) not in _LIBRARIES


def _theta(frames: list[FrameType]) -> object:
    """The θ of the innermost call that has one."""
    for frame in reversed(frames):
        for holder in (frame.f_locals, *map(frame.f_locals.get, ("context", "evaluation"))):
            for name in ("theta", "thetas"):
                found = holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
                if isinstance(found, (np.ndarray, list, tuple)):
                    return np.asarray(found)
    return None


def _without_frame(frames: list[FrameType], given: Mapping[str, object]) -> str | None:
    """The argument that is written in C and so leaves no frame of its own, where such a one may have raised."""
    if not frames or _root(frames[-1]) != "bilevelrl":
        return None
    return next((name for name, value in given.items() if isinstance(value, (type, BuiltinFunctionType))), None)


def _argument(frame: FrameType, given: Mapping[str, object]) -> str | None:
    """The argument, or the field of one, whose code a frame runs."""
    owner = frame.f_locals.get("self")
    for name, value in given.items():
        if name != "self" and _runs(value, frame.f_code, owner):
            return name
    for name, value in given.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for entry in dataclasses.fields(value):
                if _runs(getattr(value, entry.name, None), frame.f_code, owner):
                    return f"{name}.{entry.name}"
    return None


def _runs(value: object, code: CodeType, owner: object) -> bool:
    while isinstance(value, functools.partial):
        value = value.func
    value = getattr(value, "__func__", value)
    return value is not None and (value is owner or getattr(value, "__code__", None) is code)
