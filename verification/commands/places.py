"""Where a command checks: a task, or a problem of one's own by its Python name, and θ."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

from bilevelrl.reference import Problem
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.tasks import make_task
from bilevelrl.verification.reading.draws import read_array
from bilevelrl.verification.reading.named_objects import named_object

__all__ = ["add_place", "read_place", "read_theta"]


def add_place(parser: Any) -> None:
    """Add `--task`, `--problem` and `--theta`."""
    parser.add_argument("--task", help="a task of `bilevelrl list`")
    parser.add_argument(
        "--problem", metavar="MODULE:NAME", help="a problem of your own, or a function that makes it, as my_module:make"
    )
    parser.add_argument("--theta", help="a .npy or .csv file, or zeros (default)")


def read_place(parsed: argparse.Namespace) -> tuple[Any, FloatArray | None]:
    """Return the problem and θ that the arguments name; None where they name none.

    Raises
    ------
    InvalidInputError
        If both a task and a problem are named, θ without either, or there is no such problem.
    """
    if parsed.task is not None and parsed.problem is not None:
        raise InvalidInputError("--task and --problem: expected one of them")
    if parsed.task is not None:
        problem = make_task(parsed.task)
    elif parsed.problem is not None:
        problem = named_object("--problem", parsed.problem)
        problem = problem if isinstance(problem, Problem) else problem()
    else:
        if parsed.theta is not None:
            raise InvalidInputError(refusal("--theta", parsed.theta, "a problem that it belongs to", "pass --task"))
        return None, None
    return problem, read_theta(parsed.theta or "zeros", problem, parsed.task or parsed.problem)


def read_theta(source: str, problem: Problem, name: str) -> FloatArray:
    """Return θ from a file, or zeros, in the problem's shape."""
    shape = problem.theta_shape
    if source == "zeros":
        if shape is None:
            raise InvalidInputError(f"theta='zeros': task {name!r} has no fixed shape of θ; pass a .npy or .csv file")
        return np.zeros(shape)
    found = read_array(source, "theta")
    theta = found.ravel() if source.lower().endswith(".csv") else found
    return theta.reshape(shape) if shape is not None and theta.size == math.prod(shape) else theta
