"""What the worlds of all kinds share: runs by method, exact directions beside estimated ones, errors of directions."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.training.direction_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.methods import METHODS, Method
from bilevelrl.estimators.training.runs import LeaderTraining, World
from bilevelrl.reference import Hypergradient
from bilevelrl.reference.arrays import FloatArray, IntArray

__all__ = ["SharedWorld", "partial_gradient"]


def partial_gradient(truth: Hypergradient, *, guiding: bool) -> FloatArray:
    """Return the hypergradient, or without the follower's response the partial gradient, (N,)."""
    return truth.value if guiding else truth.value - truth.parts["response"]


class SharedWorld(World):
    """Runs of one kind of problem, by method.

    Parameters
    ----------
    training
        What is trained.
    generators
        One for each run.
    """

    facts: tuple[str, ...]

    def __init__(self, training: LeaderTraining, generators: Sequence[Generator]) -> None:
        self.generators = generators
        known = METHODS[training.kind]
        self.methods = [known[run.method] for run in training.runs]
        names = [run.method for run in training.runs]
        self.rows = {name: np.flatnonzero([other == name for other in names]) for name in dict.fromkeys(names)}
        self.by_name = {name: known[name] for name in self.rows}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what `evaluate` returns."""
        return (*self.facts, *GRADIENT_COLUMNS)

    @abc.abstractmethod
    def estimates(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return what a method estimates for its runs at their points."""

    @abc.abstractmethod
    def exact(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return exact directions of runs at their points."""

    @abc.abstractmethod
    def known(self, thetas: FloatArray) -> tuple[Mapping[str, Any], FloatArray]:
        """Return facts by name, (runs,) each, and exact hypergradients (runs, N), before the ascent."""

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return what each run's method makes of its batch."""
        return self.by_method(thetas, step)

    def by_method(self, points: FloatArray, step: int) -> FloatArray:
        """Return directions at points (runs, ...), in the same shape."""
        found = np.zeros_like(points)
        for name, rows in self.rows.items():
            method = self.by_name[name]
            find = self.exact if method.make is None else self.estimates
            found[rows] = find(method, rows, points[rows], step)
        return found

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return what is known exactly, and how far the direction is from the truth."""
        facts, truth = self.known(thetas)
        return {**facts, **gradient_errors(direction, truth)}
