"""Exact objectives and hypergradients: one call, many independent routes.

A route is a way to compute ∇J(θ) for a kind of problem. Routes register themselves; `HYPERGRADIENT_ROUTES` lists them
with what each promises. Routes in different families share no Bellman code, and those that must not differentiate
through a solver call one that raises when a tracer or a complex number enters it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, Any, TypeAlias

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Horizon, as_is, checked, checked_record
from bilevelrl.reference.errors import BilevelRLError, UnknownNameError, UnsupportedError, refusal
from bilevelrl.reference.problem import (
    AnswerBounds,
    Follower,
    Objective,
    Part,
    Problem,
    Question,
    error_bound,
    evaluate_objective,
    evaluated,
    solve,
)

__all__ = [
    "HYPERGRADIENT_ROUTES",
    "Hypergradient",
    "Route",
    "hypergradient",
    "leader_objective",
    "objective_error_bound",
    "register_composed",
    "register_objective",
    "register_route",
    "route_function",
]

_UNDERFLOWS = 1e-150  # squares of smaller numbers are 0 or denormal


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Hypergradient:
    """An exact hypergradient with its parts and the evidence for it.

    Attributes
    ----------
    value : (N,)
        ∇J(θ), flat in C order: the sum of the parts.
    parts : {name: (N,)}
        Partial derivatives of the objective with θ split by where it enters: `initial` (law of the first state),
        `direct` (leader's reward), `transition` (dynamics inside the leader's evaluation), `response` (everything the
        follower's solver reads), `regulariser`; a Markov game has `policy` in place of the first three.
    objective : float
        J(θ).
    residual : float
        The follower's largest Bellman residual.
    condition : float
        Condition number of the follower's linear system `I - γ_F P_π` in the maximum norm, worked out when first read.
    error_bound : float
        First-order bound on max |value - truth|, each part included, for the tables and their derivatives as the
        numbers they are; inf where none was asked for or nothing is shown.
        It costs more than the gradient and is worked out when it is first read. Arrays that the problem closes over
        must not have changed until then: where the tables at θ have, reading it raises `InvalidInputError`.
    objective_error_bound : float
        First-order bound on |objective - truth|, likewise; inf where a route or a kind of problem has none.
    route : str
        Which route computed it.
    follower : TabularFollower, GameFollower, LQRFollower or None
        The response it was computed from, to start from at the next θ: `hypergradient(..., warm_start=previous)`; None
        where a route has none of the problem's kind.
    status : str
        How the follower's solver ended, and what solved linear systems that are too large to factorise.
    counters : {name: int}
        sweeps, linear_solves, factorisations, krylov_iterations, evaluations: what it cost.
    contexts : tuple of Hypergradient
        Of a mixture, the results of its contexts, not weighted; else empty.
    """

    value: FloatArray
    parts: Mapping[Part, FloatArray]
    objective: float
    residual: float
    condition_source: float | Callable[[], float] = field(repr=False)
    error_bound_source: float | AnswerBounds | Callable[[], float | AnswerBounds] = field(repr=False)
    route: str
    follower: Annotated[Follower | None, as_is] = field(default=None, repr=False)
    status: str
    counters: Mapping[str, int] = field(default_factory=dict)
    contexts: tuple[Hypergradient, ...] = field(default=(), repr=False)

    @property
    def condition(self) -> float:
        """Condition number of the follower's linear system in the maximum norm."""
        source = self.condition_source
        if callable(source):
            source = source()
            object.__setattr__(self, "condition_source", source)
        return float(source)

    @property
    def error_bound(self) -> float:
        """First-order bound on `max |value - truth|`."""
        return self._bounds().gradient

    @property
    def objective_error_bound(self) -> float:
        """First-order bound on `|objective - truth|`."""
        return self._bounds().objective

    def _bounds(self) -> AnswerBounds:
        source = self.error_bound_source  # read once: another thread may replace it
        if not isinstance(source, AnswerBounds):
            found = source() if callable(source) else source
            source = found if isinstance(found, AnswerBounds) else AnswerBounds(float(found), np.inf)
            largest = max((float(np.abs(part).max(initial=0.0)) for part in self.parts.values()), default=0.0)
            lost = largest < _UNDERFLOWS and source.gradient < 0.5 * np.finfo(np.float64).eps * largest
            if lost and self.route != "certified":  # products of such numbers are 0, and a bound that is made of them
                source = AnswerBounds(np.inf, np.inf)
            object.__setattr__(self, "error_bound_source", source)
        return source

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the bound worked out, inf where it is refused: what it is worked out from stays behind."""
        kept = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        try:
            bound = self._bounds()
        except BilevelRLError:
            bound = AnswerBounds(np.inf, np.inf)
        return _rebuilt, (kept | {"error_bound_source": bound, "condition_source": self.condition},)


def _rebuilt(kept: dict[str, Any]) -> Hypergradient:
    return Hypergradient(**kept)


RouteFunction: TypeAlias = Callable[..., Hypergradient]
"""A route: (at, *, objective, warm_start, bound) → the hypergradient of the problem evaluated at θ."""


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A registered route.

    Attributes
    ----------
    name, summary : str
        The name for `hypergradient(..., route=name)` and one line about it.
    family : str
        Routes of different families share no Bellman code.
    accuracy : str
        What it promises.
    kinds : {type: function}
        The kinds of problem it serves.
    """

    name: str
    summary: str
    family: str
    accuracy: str
    kinds: dict[type, RouteFunction] = field(default_factory=dict)


HYPERGRADIENT_ROUTES: dict[str, Route] = {}
"""Every route by name."""


@checked
def register_route(
    name: str, kind: type | Question[object], *, summary: str, family: str, accuracy: str
) -> Callable[[RouteFunction], RouteFunction]:
    """Register a function as the route `name` for a kind of problem (a class), or for all that answer a question."""

    def decorate(function: RouteFunction) -> RouteFunction:
        route = HYPERGRADIENT_ROUTES.setdefault(
            name, Route(name=name, summary=summary, family=family, accuracy=accuracy)
        )
        if isinstance(kind, Question):
            kind.when_answered(lambda answering: route.kinds.setdefault(answering, function))
        else:
            route.kinds[kind] = function
        return function

    return decorate


_COMPOSED: dict[type, RouteFunction] = {}


def register_composed(kind: type) -> Callable[[RouteFunction], RouteFunction]:
    """Register how problems made of others take every route, by its name: (at, route, *, objective, ...) → the result.

    A route of a name that is registered for this kind itself comes first.
    """

    def decorate(function: RouteFunction) -> RouteFunction:
        _COMPOSED[kind] = function
        return function

    return decorate


def route_function(problem: Problem, route: str) -> RouteFunction:
    """Return the route of a name, as it serves a problem's kind.

    Raises
    ------
    UnsupportedError
        If it does not, naming those that do.
    """
    kinds = HYPERGRADIENT_ROUTES[route].kinds
    for kind in type(problem).__mro__:
        if kind in kinds:
            return kinds[kind]
        if kind in _COMPOSED:
            return partial(_COMPOSED[kind], route=route)
    able = sorted(name for name, entry in HYPERGRADIENT_ROUTES.items() if set(type(problem).__mro__) & set(entry.kinds))
    raise UnsupportedError(
        f"route={route!r}: not available for problems of type {type(problem).__name__}; expected one of {able}"
        if able
        else refusal("problem", type(problem).__name__, "a problem of this package", "or register a route for its kind")
    )


@checked
def register_objective(kind: type) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Register the exact leader objective for problems of a kind (a class)."""
    return evaluate_objective.register(kind)


@checked
def leader_objective(
    problem: Annotated[Problem, as_is],  # what is no problem is refused by kind
    theta: object,
    *,
    horizon: Horizon = None,
    discounted: bool = True,
    follower: Annotated[Follower | None, as_is] = None,  # each kind asks for its own
) -> float:
    """Return the leader's exact objective J(θ) = ρ(θ) + E Σ_t γ_L^t r_L under the follower's best response.

    Parameters
    ----------
    problem, theta
        Any kind of problem of this package, and the leader's parameter.
    horizon
        Episodes of so many steps (the follower still plans for ever); None: infinite.
    discounted
        False: weights one instead of γ_L^t; needs a horizon.
    follower
        Evaluate under this response instead of the best one.

    Returns
    -------
    float

    Raises
    ------
    IllPosedError
        If the return diverges.
    InvalidInputError, NotConvergedError
        As the follower's solver.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, equation (4).

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import leader_objective
    >>> from bilevelrl.tasks import four_rooms
    >>> round(leader_objective(four_rooms(temperature=0.001), np.zeros(105)), 6)
    -0.740644
    """
    objective = Objective(horizon, discounted)
    return evaluate_objective(evaluated(problem, theta), objective=objective, follower=follower)


@checked
def objective_error_bound(
    problem: Annotated[Problem, as_is],  # what is no problem is refused by kind
    theta: object,
    *,
    horizon: Horizon = None,
    discounted: bool = True,
    follower: Annotated[Follower | None, as_is] = None,  # each kind asks for its own
) -> float:
    """Return a first-order bound on the error of `leader_objective` under the best response, rounding included.

    Parameters
    ----------
    problem, theta, horizon, discounted, follower
        As of `leader_objective`; of a follower that stopped early, its distance from the best response counts.

    Returns
    -------
    float
        On |leader_objective(...) - truth|; inf where nothing is shown.

    Raises
    ------
    UnsupportedError
        If this kind of problem has no bound; else as `leader_objective`.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference.registry import objective_error_bound
    >>> from bilevelrl.tasks import random_mdp
    >>> objective_error_bound(random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)) < 1e-11
    True
    """
    objective, at = Objective(horizon, discounted), evaluated(problem, theta)
    evaluate_objective(at, objective=objective, follower=follower)  # refuses a follower of another problem
    return error_bound(at, solve(at) if follower is None else follower, objective).objective


@checked
def hypergradient(
    problem: Annotated[Problem, as_is],  # what is no problem is refused by kind
    theta: object,
    *,
    route: str = "implicit",
    horizon: Horizon = None,
    discounted: bool = True,
    warm_start: object = None,
    bound: bool = True,
) -> Hypergradient:
    """Return the exact hypergradient ∇J(θ) by the named route.

    Parameters
    ----------
    problem, theta
        Any kind of problem of this package, and the leader's parameter (float64, the problem's `theta_shape`).
    route
        A name in `HYPERGRADIENT_ROUTES`.
    horizon, discounted
        Which objective: see `leader_objective`.
    warm_start
        Where the follower's solver starts: a previous `Hypergradient` or follower solution, or values (S,); changes
        the cost, never the answer.
    bound
        Offer `error_bound`, worked out when it is read; otherwise it is inf.

    Returns
    -------
    Hypergradient
        Signs: the leader maximises J, so ascent moves along `value`.

    Raises
    ------
    UnknownNameError, UnsupportedError
        If the route does not exist, or not for this kind of problem.
    InvalidInputError, NotConvergedError, IllPosedError
        As `leader_objective`.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, Theorem 1 (5)-(6) and Theorem 2 (8)-(9).

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    >>> exact = hypergradient(problem, theta)
    >>> unrolled = hypergradient(problem, theta, route="unrolled")
    >>> bool(np.max(np.abs(exact.value - unrolled.value)) <= exact.error_bound + unrolled.error_bound)
    True

    The next θ starts from the follower of this one:

    >>> hypergradient(problem, theta + 0.01, warm_start=exact).counters["sweeps"] < exact.counters["sweeps"]
    True
    """
    if not isinstance(route, str) or route not in HYPERGRADIENT_ROUTES:
        raise UnknownNameError("route", route, HYPERGRADIENT_ROUTES)
    function = route_function(problem, route)
    warm_start = warm_start.follower if isinstance(warm_start, Hypergradient) else warm_start
    objective = Objective(horizon, discounted)
    return function(problem.at(theta), objective=objective, warm_start=warm_start, bound=bound)
