"""What an estimator promises by being one, checked at every call: rows per draw, finite, repeatable, nothing changed.

Each violation is an `EstimatorError` that names the estimator, what it did and what to do about it.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators import Context, Draw, Estimator, Trajectories
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import callable_error
from bilevelrl.reference.errors import BilevelRLError, EstimatorError

__all__ = ["ContractedEstimator", "EstimatorFunction", "OwnRandomnessError", "forbidden_generator"]

EstimatorFunction: TypeAlias = Callable[[Trajectories, Context], Any]
"""(trajectories, context) → rows (M, N), or {part: rows}."""

# Streams from which on all but one call is on some of them: one in so many that about half as many are left.
MANY = 8192
# Rows computed alone and inside a batch may differ by the order of sums over a few hundred terms, no more.
SAME = 1e-10
_EPS = float(np.finfo(np.float64).eps)


class OwnRandomnessError(EstimatorError):
    """An estimator drew random numbers where its expectation given the trajectory was asked for."""


class _ForbiddenGenerator(Generator):
    """A generator that raises when it is used, so that hidden randomness shows."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise OwnRandomnessError(f"context.rng.{name} was used")


def forbidden_generator() -> Generator:
    """Return a generator whose every use raises `OwnRandomnessError`."""
    return _ForbiddenGenerator(np.random.PCG64(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractedEstimator:
    """An estimator, or a user's function, whose every answer is checked.

    Parameters
    ----------
    call
        An `Estimator`, or a function (trajectories, context) → (M, N) or {part: (M, N)}.
    parameters
        N.
    function_draw
        What one answer of a plain function is; an `Estimator` declares its own draw.

    Examples
    --------
    >>> from bilevelrl.verification.enumeration.contract import ContractedEstimator
    >>> ContractedEstimator(call=lambda trajectories, context: 0.0, parameters=3).name
    '<lambda>'
    """

    call: Estimator | EstimatorFunction
    parameters: int
    function_draw: Draw = Draw.TRAJECTORY
    _coarsest: list[float] = field(default_factory=lambda: [_EPS], init=False, repr=False, compare=False)

    @property
    def epsilon(self) -> float:
        """Unit of the last place of the coarsest dtype that it has returned so far: 1.2e-7 for float32."""
        return self._coarsest[0]

    @property
    def _same(self) -> float:
        """What rows computed alone and inside a batch may differ by."""
        return max(SAME, 1e3 * self.epsilon) if self.epsilon > _EPS else SAME

    def __post_init__(self) -> None:
        if isinstance(self.call, type) and hasattr(self.call, "parts_per_draw"):
            self._refuse(f"a class; expected an estimator: call it, {self.call.__name__}()")

    @property
    def name(self) -> str:
        """The estimator's own name, or the function's."""
        return estimator_name(self.call)

    @property
    def draw(self) -> Draw:
        """What one independent sample is."""
        declared: Draw = getattr(self.call, "draw", self.function_draw)
        return declared

    def rows(self, trajectories: Trajectories, context: Context) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Return rows (draws, N) and {part: rows} (empty where the estimator has no parts).

        Raises
        ------
        EstimatorError
            On an exception inside, a wrong shape or dtype, or a value that is not finite.
        """
        draws = trajectories.streams if self.draw is Draw.TRAJECTORY else 1
        function = getattr(self.call, "parts_per_draw", self.call)
        answer = self._guarded(function, trajectories, context)
        if not isinstance(answer, Mapping):
            return self._checked(answer, draws, "returned"), {}
        parts = {str(part): self._checked(rows, draws, f"part {part!r}") for part, rows in answer.items()}
        if not parts:
            self._refuse("returned no parts; return rows (draws, N), or at least one part")
        return sum(parts.values(), np.zeros((draws, self.parameters))), parts

    def conditional_moments(self, trajectories: Trajectories, context: Context) -> tuple[FloatArray, FloatArray]:
        """Return mean (draws, N) and covariance (draws, N, N) given the trajectories, over its own randomness.

        Raises
        ------
        EstimatorError
            If it offers none, or they break the contract.
        """
        offered = getattr(self.call, "conditional_moments", None)
        if offered is None:
            self._refuse(
                "draws random numbers of its own and offers no `conditional_moments(trajectories, context)`; "
                "define it (mean (M, N) and covariance (M, N, N) given the path) or test the estimator by sampling"
            )
        draws = trajectories.streams if self.draw is Draw.TRAJECTORY else 1
        answer = self._guarded(offered, trajectories, context)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            self._refuse("conditional_moments: expected the two arrays (mean (M, N), covariance (M, N, N))")
        covariance = np.asarray(answer[1])
        wanted = (draws, self.parameters, self.parameters)
        if covariance.shape != wanted or not np.isfinite(covariance).all():
            self._refuse(f"conditional_moments: covariance of shape {covariance.shape}; expected finite {wanted}")
        return self._checked(answer[0], draws, "conditional_moments: mean"), covariance

    def check_repeatable(
        self, trajectories: Trajectories, context: Context
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Return `rows` on protected copies, called twice and on some streams alone, and compare its inputs afterwards.

        Of more than `MANY` streams one call is on all, and must say of some what is said of these by themselves.

        Raises
        ------
        EstimatorError
            If it changes an input, two calls differ, it draws from a hidden global generator, reads steps that are
            padding, or a row depends on the other streams of the batch.
        """
        before = _snapshot(trajectories, context)
        hidden = _global_random_states()
        rows, parts = self.rows(trajectories, context)
        rows, parts = rows.copy(), {part: value.copy() for part, value in parts.items()}  # later calls may reuse them
        for owner, state in _global_random_states().items():
            if state != hidden[owner]:
                self._refuse(f"drew from {owner}, a hidden global state; draw random numbers from context.rng only")
        for place, (array, copy) in before.items():
            if not np.array_equal(array, copy, equal_nan=True):
                self._refuse(f"changed its input {place}; work on a copy")
        if self.draw is Draw.TRAJECTORY and trajectories.streams > MANY:
            chosen = np.arange(trajectories.streams)[:: 2 * trajectories.streams // MANY]
            alone, _ = self.check_repeatable(_protected(trajectories.select(chosen)), context)
            self._hold_alone(alone, rows, chosen)
            return rows, parts
        if parts and hasattr(self.call, "parts_per_draw"):
            direct = self._checked(self._guarded(self.call, trajectories, context), rows.shape[0], "returned")
            if not np.allclose(direct, rows, rtol=self._same, atol=self._same * float(np.abs(rows).max(initial=0.0))):
                self._refuse("its rows are not the sum of its parts; override parts_per_draw, not __call__")
        again, _ = self.rows(trajectories, context)
        if not np.array_equal(rows, again):
            self._refuse("two calls on the same trajectories differ; draw random numbers from context.rng only")
        if not bool(trajectories.valid.all()):
            scrambled, _ = self.rows(_scrambled_padding(trajectories), context)
            if not np.array_equal(rows, scrambled):
                self._refuse("reads steps that are padding (valid == False); weigh every step by trajectories.valid")
        if self.draw is Draw.TRAJECTORY and trajectories.streams > 1:
            chosen = np.arange(trajectories.streams)[:: -max(2, trajectories.streams // 32)]
            alone, _ = self.rows(_protected(trajectories.select(chosen)), context)
            self._hold_alone(alone, rows, chosen)
        return rows, parts

    def _hold_alone(self, alone: FloatArray, rows: FloatArray, chosen: IntArray) -> None:
        """Refuse rows of some streams that are others where all are answered together."""
        size = float(np.abs(rows).max(initial=0.0))
        if not np.allclose(alone, rows[chosen], rtol=self._same, atol=self._same * size):
            self._refuse(
                "the row of a trajectory depends on the other trajectories of the batch (an in-batch average?); "
                "declare draw=Draw.BATCH and enumerate with batch=m"
            )

    def _guarded(self, function: Callable[..., Any], trajectories: Trajectories, context: Context) -> Any:
        process = os.getpid()
        try:
            # What is not finite is refused by name below; what it prints is not part of anybody's output.
            with np.errstate(all="ignore"), _set_aside():
                answer = function(trajectories, context)
            if os.getpid() != process:
                os._exit(0)  # a copy of this process that it made: only one goes on
            return answer
        except SystemExit as error:
            raise EstimatorError(f"{self.name}: ended the program (exit {error.code!r}); return rows") from error
        except OwnRandomnessError as error:
            raise OwnRandomnessError(f"{self.name}: {error}") from None
        except BilevelRLError:
            raise  # our own refusals say what is wrong already
        except Exception as error:
            if isinstance(error, ValueError) and "read-only" in str(error):
                raise EstimatorError(f"{self.name}: tried to change its input ({error}); work on a copy") from error
            raise callable_error(self.name, error, context.theta) from error

    def _checked(self, answer: Any, draws: int, what: str) -> FloatArray:
        wanted = (draws, self.parameters)
        try:
            rows = np.asarray(answer)
        except ValueError as error:
            raise EstimatorError(f"{self.name}: {what} a ragged sequence; expected an array {wanted}") from error
        if rows.shape == (self.parameters,):
            if self.draw is Draw.BATCH:
                rows = rows[None]
            else:
                self._refuse(
                    f"{what} a mean of shape {rows.shape}; expected {wanted}, one row per trajectory: do not average"
                )
        if rows.shape != wanted:
            self._refuse(f"{what} an array of shape {rows.shape}; expected {wanted}: draws first, parameters second")
        if rows.dtype.kind not in "fiu":
            self._refuse(f"{what} an array of dtype {rows.dtype}; expected real numbers")
        if not np.isfinite(rows).all():
            draw, parameter = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            self._refuse(f"{what} {rows[draw, parameter]} at draw {draw}, parameter {parameter}; expected finite rows")
        if rows.dtype.kind == "f":
            self._coarsest[0] = max(self._coarsest[0], float(np.finfo(rows.dtype).eps))
        return rows.astype(np.float64, copy=False)

    def _refuse(self, what: str) -> NoReturn:
        raise EstimatorError(f"estimator {self.name}: {what}")


def estimator_name(call: object) -> str:
    """Return the name under which an estimator or a function appears in tables."""
    return str(getattr(call, "name", None) or getattr(call, "__name__", None) or type(call).__name__)


def protect(trajectories: Trajectories, context: Context) -> tuple[Trajectories, Context]:
    """Return both with arrays of their own that cannot be written to."""
    theta = context.theta.copy()
    theta.flags.writeable = False
    return _protected(trajectories), replace(context, theta=theta)


def _protected(trajectories: Trajectories) -> Trajectories:
    entries = {}
    for entry in fields(trajectories):
        value = getattr(trajectories, entry.name)
        if value is not None:
            value = np.array(value)
            value.flags.writeable = False
        entries[entry.name] = value
    return Trajectories(**entries)


def _set_aside() -> contextlib.AbstractContextManager[Any]:
    """Standard error in place of standard output; not in threads, which would exchange the stream that all share."""
    alone = threading.current_thread() is threading.main_thread()
    return contextlib.redirect_stdout(sys.stderr) if alone else contextlib.nullcontext()


def _scrambled_padding(trajectories: Trajectories) -> Trajectories:
    """Other legal values where nothing was observed."""
    padding = ~trajectories.valid
    last_state, last_action = int(trajectories.state_t.max()), int(trajectories.action_t.max())
    return _protected(
        replace(
            trajectories,
            state_t=np.where(padding, last_state, trajectories.state_t),
            action_t=np.where(padding, last_action, trajectories.action_t),
            state_tp1=np.where(padding, last_state, trajectories.state_tp1),
            reward_leader_t=np.where(padding, 1e3, trajectories.reward_leader_t),
            behaviour_log_prob=np.where(padding, -1.0, trajectories.behaviour_log_prob),
        )
    )


def _global_random_states() -> dict[str, object]:
    """States of the generators that code can draw from without being given one."""
    legacy: Any = np.random.get_state()  # noqa: NPY002 - read, never drawn from
    return {
        "numpy.random's global generator": (legacy[1].tobytes(), *legacy[2:]),
        "the standard library's random": random.getstate(),
    }


def _snapshot(trajectories: Trajectories, context: Context) -> dict[str, tuple[Any, Any]]:
    """Return {place: (array, copy)} of everything an estimator can reach and must not change."""
    found: dict[str, Any] = {f"trajectories.{f.name}": getattr(trajectories, f.name) for f in fields(trajectories)}
    found["context.theta"] = context.theta
    for owner in ("follower", "critic"):
        holder = getattr(context, owner)
        names = getattr(type(holder), "__slots__", ()) or vars(holder) if holder is not None else ()
        for name in names:
            found[f"context.{owner}.{name}"] = getattr(holder, name, None)
    return {place: (value, value.copy()) for place, value in found.items() if isinstance(value, np.ndarray)}
