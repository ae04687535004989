"""Four-Rooms as its released code has it: planned and reported in one kernel, sampled in another."""

from __future__ import annotations

from typing import Any

from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.reference.separate_kernels import SeparateKernels
from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_KERNELS, four_rooms

__all__ = ["published_four_rooms"]


@checked
def published_four_rooms(
    *, planned: str = "planner", measured: str = "planner", lived: str = "paper", **options: Any
) -> SeparateKernels:
    """Return Four-Rooms with a kernel for each role.

    Parameters
    ----------
    planned, measured, lived
        Names of kernels, see `four_rooms`: what the follower plans in, what the objective is reported in, and what
        samples move by. The defaults are the released code's.
    options
        As of `four_rooms`, for all three.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `four_rooms`.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient
    >>> problem = published_four_rooms(temperature=0.003)
    >>> elsewhere = published_four_rooms(temperature=0.003, measured="paper")
    >>> [round(hypergradient(each, np.zeros(105)).objective, 6) for each in (problem, elsewhere)]
    [-0.725819, -0.795159]
    """
    for role, name in {"planned": planned, "measured": measured, "lived": lived}.items():
        if name not in FOUR_ROOMS_KERNELS:
            raise UnknownNameError(role, name, FOUR_ROOMS_KERNELS)
    return SeparateKernels(
        planned=four_rooms(kernel=planned, **options),
        measured=four_rooms(kernel=measured, **options),
        lived=four_rooms(kernel=lived, **options),
        name=f"four_rooms(planned in {planned}, measured in {measured}, lived in {lived})",
    )
