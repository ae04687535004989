"""The public call, for every kind of problem with a certified form; nothing here needs python-flint until called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bilevelrl.reference.certified.closed_form import ClosedForm
from bilevelrl.reference.certified.extra import require_flint
from bilevelrl.reference.contexts.model import Mixture
from bilevelrl.reference.doors import Steps, checked
from bilevelrl.reference.errors import UnsupportedError, refusal
from bilevelrl.reference.game.model import MarkovGame
from bilevelrl.reference.lqr.model import ConfigurableLQR
from bilevelrl.reference.lqr_game.model import LQRGame
from bilevelrl.reference.problem import INFINITE_HORIZON, At, Objective, Problem
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.model import ConfigurableMDP

if TYPE_CHECKING:
    from bilevelrl.reference.certified.hypergradient import CertifiedHypergradient, Evaluation

__all__ = ["certified_hypergradient"]


@checked
def certified_hypergradient(
    problem: Problem | ClosedForm,
    theta: object = None,
    *,
    digits: int = 30,
    horizon: Steps | None = None,
    discounted: bool = True,
    maximum_bits: int = 16384,
) -> CertifiedHypergradient:
    """Return ∇J(θ), its parts and J(θ) as balls that contain the truth.

    Parameters
    ----------
    problem
        A `ConfigurableMDP`, `MarkovGame`, `ConfigurableLQR` or `LQRGame`: what is certified is the problem given by its
        tables and their Jacobians at θ, read exactly from the doubles that they are; laws are divided by their exact
        sums, see `Tables`. A `Mixture` of MDPs and games likewise, with its weights as another law. Or a `ClosedForm`,
        which is evaluated in balls from θ on: no gap.
    theta
        (N,) float64, finite; a `ClosedForm` brings its own.
    digits
        Significant digits of every number; an entry below 10^-digits of the largest has that absolute accuracy.
    horizon, discounted
        Which objective: see `leader_objective`. A `ClosedForm` brings its own.
    maximum_bits
        Working precision at which to give up.

    Returns
    -------
    CertifiedHypergradient

    Raises
    ------
    MissingExtraError
        Without python-flint.
    InvalidInputError, IllPosedError
        As `hypergradient`.
    TooLargeError
        If there are more than 2000 states, or the tail of an LQR game without end is not small after 200 000 steps.
    UnsupportedError
        If an LQR game has an infinite horizon and a closed loop that is not shown to be stable.
    PrecisionError
        If `maximum_bits` do not suffice.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, Theorem 1 (5)-(6), in adjoint form.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.tasks import random_mdp
    >>> certified = certified_hypergradient(random_mdp(parameters=2), np.zeros(2))
    >>> certified.objective.contains(float(certified.objective)), certified.objective.radius < 1e-30
    (False, True)
    """
    require_flint()
    from bilevelrl.reference.certified.closed_form_tables import certify_closed_form
    from bilevelrl.reference.certified.doubles.game import DoubleGame
    from bilevelrl.reference.certified.doubles.lqr import lqr_as_closed_form, lqr_game_as_closed_form
    from bilevelrl.reference.certified.game import game_evaluation
    from bilevelrl.reference.certified.hypergradient import (
        SMALLEST_PRECISION,
        certify_tabular,
        refine,
        tabular_evaluation,
    )
    from bilevelrl.reference.certified.mixture import mixture_evaluation
    from bilevelrl.reference.certified.sources import DoubleTables

    if isinstance(problem, ClosedForm):
        return certify_closed_form(problem, digits=digits, maximum_bits=maximum_bits)
    if isinstance(problem, ConfigurableMDP):
        source = DoubleTables.at(problem, problem.check_theta(theta))
        return certify_tabular(source, digits=digits, horizon=horizon, discounted=discounted, maximum_bits=maximum_bits)
    Objective(horizon, discounted)

    def evaluation(context: Problem) -> Callable[[], Evaluation]:
        """Return a pass over a problem with tables, at a precision that `refine` says."""
        if isinstance(context, Mixture):
            return mixture_evaluation([evaluation(each) for each in context.contexts], context.weights)
        if isinstance(context, MarkovGame):
            game = DoubleGame.at(context, context.check_theta(theta))
            return game_evaluation(game, horizon=horizon, discounted=discounted)
        if isinstance(context, ConfigurableMDP):
            tables = DoubleTables.at(context, context.check_theta(theta))
            return tabular_evaluation(tables, horizon=horizon, discounted=discounted)
        found = type(context).__name__
        raise UnsupportedError(refusal("context", found, "a ConfigurableMDP or a MarkovGame", "use route='certified'"))

    if isinstance(problem, (MarkovGame, Mixture)):
        evaluate = evaluation(problem)
        return refine(evaluate, digits, smallest=SMALLEST_PRECISION, largest_precision=maximum_bits)
    if isinstance(problem, (ConfigurableLQR, LQRGame)):
        theta = problem.check_theta(theta)
        if isinstance(problem, LQRGame):
            first_order = lqr_game_as_closed_form(problem, theta, horizon=horizon, discounted=discounted)
        else:
            first_order = lqr_as_closed_form(problem, theta, horizon=horizon, discounted=discounted)
        return certify_closed_form(first_order, digits=digits, maximum_bits=maximum_bits)
    raise UnsupportedError(
        f"problem of type {type(problem).__name__}: no certified form; expected a ConfigurableMDP, a MarkovGame, a "
        "ConfigurableLQR, an LQRGame or a ClosedForm"
    )


def certified(
    at: At[Problem],
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: object = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J to thirty digits, rounded; see `certified_hypergradient`."""
    found = certified_hypergradient(at.problem, at.theta, horizon=objective.horizon, discounted=objective.discounted)
    return found.rounded()


for _kind in (ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame):
    register_route(
        "certified",
        _kind,
        summary="ball arithmetic: a proven enclosure of the follower, and the closed form evaluated on it",
        family="ball arithmetic",
        accuracy="rigorous: error_bound is proven, for the tables and Jacobians as given",
    )(certified)
