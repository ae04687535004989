"""Hypergradients that are not exact, each with its one knob: what they compute, and how fast theory says it gets right.

An approximation here is the *expectation* of a method, without sampling error: a function of θ and of its knob whose
distance from the exact hypergradient is the method's own. Every method is one file that registers itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.contexts.model import Mixture, weighted
from bilevelrl.reference.doors import Horizon, checked
from bilevelrl.reference.errors import NotConvergedError, UnknownNameError, UnsupportedError, refusal
from bilevelrl.reference.game.model import MarkovGame
from bilevelrl.reference.game.reduction import reduce_game
from bilevelrl.reference.problem import Objective, Problem
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt

__all__ = ["APPROXIMATIONS", "Approximation", "approximate_hypergradient", "register_approximation", "tabular_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approximation:
    """A method and its knob.

    Attributes
    ----------
    name, summary : str
        The name in `APPROXIMATIONS` and one line about it.
    knob : str
        What the number means.
    knobs : tuple of float
        Values worth looking at, from bad to good.
    geometric : bool
        Whether its error is bounded by `rate ** knob`, else by `knob ** rate`.
    rate : function or None
        The problem evaluated at θ → the rate that theory promises; None: none is.
    rules : function or None
        The problem evaluated at θ → the rate that its error has in the end, the modulus of an eigenvalue; None: no
        eigenvalue rules it, or the one that theory names.
    source : str
        Where the method is published.
    function : function
        (at, objective, knob) → (N,), the regulariser's gradient included.
    residual : function or None
        (at, objective, knob) → what the knob leaves of the adjoint system it solves, relative to its right-hand side;
        None: it solves none.
    """

    name: str
    summary: str
    knob: str
    knobs: tuple[float, ...]
    geometric: bool
    rate: Callable[[TabularAt], float] | None
    source: str
    function: Callable[[TabularAt, Objective, float], FloatArray]
    residual: Callable[[TabularAt, Objective, float], float] | None = None
    rules: Callable[[TabularAt], float] | None = None


APPROXIMATIONS: dict[str, Approximation] = {}
"""Every approximation by name."""


def register_approximation(approximation: Approximation) -> Approximation:
    """Add an approximation to `APPROXIMATIONS`."""
    APPROXIMATIONS[approximation.name] = approximation
    return approximation


def tabular_at(problem: Problem, theta: object) -> TabularAt:
    """Return a configurable MDP, or the one that a Markov game reduces to, evaluated at θ.

    Raises
    ------
    UnsupportedError
        For other kinds of problem.
    """
    if isinstance(problem, MarkovGame):
        problem = reduce_game(problem)
    if not isinstance(problem, ConfigurableMDP):
        found = type(problem).__name__
        raise UnsupportedError(refusal("problem", found, "a ConfigurableMDP or a MarkovGame", "use an exact route"))
    return problem.at(theta)


@checked
def approximate_hypergradient(
    problem: Problem,
    theta: object,
    method: str,
    knob: float,
    *,
    horizon: Horizon = None,
    discounted: bool = True,
    tolerance: float | None = None,
) -> FloatArray:
    """Return what a method has for its expectation, (N,), in place of ∇J(θ).

    Parameters
    ----------
    problem, theta
        A configurable MDP, a Markov game or a mixture of them, and the leader's parameter.
    method
        A name in `APPROXIMATIONS`.
    knob
        Its pay, its number of steps, its smoothing: see `Approximation.knob`.
    horizon, discounted
        Which objective: see `leader_objective`.
    tolerance
        What may be left of the adjoint system, relative to its right-hand side; None: whatever is.

    Raises
    ------
    UnknownNameError
        If the method does not exist.
    NotConvergedError
        If more is left of the adjoint system than `tolerance`.
    InvalidInputError, UnsupportedError
        If the knob is none, or the problem not one that the method serves.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.reference.approximations import approximate_hypergradient
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> truth = hypergradient(problem, theta).value
    >>> few, many = (approximate_hypergradient(problem, theta, "differentiated_sweeps", k) for k in (2, 200))
    >>> bool(np.abs(few - truth).max() > 1e-3 > 1e-9 > np.abs(many - truth).max())
    True
    """
    if method not in APPROXIMATIONS:
        raise UnknownNameError("method", method, APPROXIMATIONS)
    if isinstance(problem, Mixture):
        each = [
            approximate_hypergradient(
                context, theta, method, knob, horizon=horizon, discounted=discounted, tolerance=tolerance
            )
            for context in problem.contexts
        ]
        return weighted(problem.weights, each)
    entry, at, objective = APPROXIMATIONS[method], tabular_at(problem, theta), Objective(horizon, discounted)
    if tolerance is not None:
        _check_residual(entry, at, objective, knob, tolerance)
    found = entry.function(at, objective, knob)
    if not np.isfinite(found).all():
        raise NotConvergedError(f"{method}: knob={knob} leaves no finite numbers; expected another knob")
    return found


def _check_residual(entry: Approximation, at: TabularAt, objective: Objective, knob: float, tolerance: float) -> None:
    if entry.residual is None:
        solving = [name for name, each in APPROXIMATIONS.items() if each.residual is not None]
        raise UnsupportedError(f"{entry.name}: tolerance={tolerance}: expected None; adjoints are solved by {solving}")
    left = entry.residual(at, objective, knob)
    if not left <= tolerance:
        raise NotConvergedError(
            f"{entry.name}: knob={knob}: {left:.2g} of the right-hand side of the adjoint system is left, expected at "
            f"most tolerance={tolerance:.2g}; take more steps, or route='implicit', which solves it"
        )
