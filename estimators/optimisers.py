"""Ascent steps for many runs at once: clipping, learning-rate schedules, and optimisers whose state is plain arrays.

Every row of an array (runs, N) is one run, and nothing mixes rows, so that a run's steps do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias

import numpy as np

from bilevelrl.estimators.sums.clipping import LargestNorm, clip_to_norm
from bilevelrl.reference.arrays import FloatArray, check_positive, store_floats
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal

__all__ = [
    "OPTIMISERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "LargestNorm",
    "Optimiser",
    "OptimiserState",
    "clip_to_norm",
    "make_optimiser",
]

OptimiserState: TypeAlias = dict[str, FloatArray]
"""Named arrays (runs, ...), which a checkpoint can store."""


SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "constant": lambda share: 1.0,
        "linear": lambda share: 1.0 - share,
        "cosine": lambda share: 0.5 * (1.0 + float(np.cos(np.pi * share))),
        "inverse_root": lambda share: 1.0 / float(np.sqrt(1.0 + 99.0 * share)),
    }
)
"""Factor of the learning rate by the share in [0, 1) of all iterations that is behind; the last one ends at a tenth."""


class Optimiser(Protocol):
    """Turns gradients of an objective that is maximised into steps."""

    def start(self, shape: tuple[int, int]) -> OptimiserState:
        """Return the state before the first step of (runs, N) parameters."""
        ...

    def step(
        self, gradients: FloatArray, rates: FloatArray, state: OptimiserState
    ) -> tuple[FloatArray, OptimiserState]:
        """Return what is added to the parameters (runs, N), and the next state; `rates` is (runs,)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """Plain ascent: the learning rate times the gradient.

    Parameters
    ----------
    momentum
        In [0, 1): the share of the previous velocity that is kept.

    Raises
    ------
    InvalidInputError
        If it is outside.

    Examples
    --------
    >>> optimiser = SGD()
    >>> optimiser.step(np.ones((1, 2)), np.array([0.5]), optimiser.start((1, 2)))[0]
    array([[0.5, 0.5]])
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        store_floats(self)
        _check_share("momentum", self.momentum)

    def start(self, shape: tuple[int, int]) -> OptimiserState:
        """Return no state, or velocities of zero."""
        return {"velocity": np.zeros(shape)} if self.momentum else {}

    def step(
        self, gradients: FloatArray, rates: FloatArray, state: OptimiserState
    ) -> tuple[FloatArray, OptimiserState]:
        """Return the steps and the next state."""
        if not self.momentum:
            return rates[:, None] * gradients, state
        velocity = self.momentum * state["velocity"] + gradients
        return rates[:, None] * velocity, {"velocity": velocity}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """Ascent by the ratio of averaged gradients and their averaged squares (Kingma & Ba 2015, Algorithm 1).

    Parameters
    ----------
    first_decay, second_decay
        Of the averages, in [0, 1).
    smallest
        Added to the root of the second average.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    Examples
    --------
    >>> optimiser = Adam()
    >>> step, _ = optimiser.step(np.array([[10.0, -0.1]]), np.array([0.5]), optimiser.start((1, 2)))
    >>> step.round(6)
    array([[ 0.5, -0.5]])
    """

    first_decay: float = 0.9
    second_decay: float = 0.999
    smallest: float = 1e-8

    def __post_init__(self) -> None:
        store_floats(self)
        _check_share("first_decay", self.first_decay)
        _check_share("second_decay", self.second_decay)
        check_positive("smallest", self.smallest, "1e-8 is usual")

    def start(self, shape: tuple[int, int]) -> OptimiserState:
        """Return averages of zero, and how many steps they hold."""
        return {"first": np.zeros(shape), "second": np.zeros(shape), "count": np.zeros(shape[0])}

    def step(
        self, gradients: FloatArray, rates: FloatArray, state: OptimiserState
    ) -> tuple[FloatArray, OptimiserState]:
        """Return the steps and the next state."""
        count = state["count"] + 1.0
        # In place where nobody looks: for networks, what a step costs is memory.
        first = self.first_decay * state["first"]
        part = (1.0 - self.first_decay) * gradients
        first += part
        second = self.second_decay * state["second"]
        np.multiply(gradients, gradients, out=part)
        part *= 1.0 - self.second_decay
        second += part
        spread = np.divide(second, (1.0 - self.second_decay**count)[:, None], out=part)
        np.sqrt(spread, out=spread)
        spread += self.smallest
        moved: FloatArray = first / (1.0 - self.first_decay**count)[:, None]
        moved *= rates[:, None]
        moved /= spread
        return moved, {"first": first, "second": second, "count": count}


OPTIMISERS: Mapping[str, Callable[[], Optimiser]] = MappingProxyType({"sgd": SGD, "adam": Adam})
"""Optimisers by name, as configurations and the command line give them."""


@checked
def make_optimiser(name: str) -> Optimiser:
    """Return an optimiser by name.

    Raises
    ------
    UnknownNameError
        If there is none of that name.

    Examples
    --------
    >>> make_optimiser("adam").second_decay
    0.999
    """
    if name not in OPTIMISERS:
        raise UnknownNameError("optimiser name", name, OPTIMISERS)
    return OPTIMISERS[name]()


def _check_share(name: str, value: float) -> None:
    if not (np.isfinite(value) and 0.0 <= value < 1.0):
        raise InvalidInputError(refusal(name, value, "a number in [0, 1)", "0.9 is usual"))
