"""Exact hypergradients at many θ: one call, the same answers as θ after θ.

A kind of problem that can answer for many θ at once says so by answering `together`; what it leaves open is computed
by `hypergradient`, θ after θ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_thetas
from bilevelrl.reference.doors import Horizon, as_is, checked, checked_record
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.problem import Objective, Part, Problem, Question, evaluated
from bilevelrl.reference.registry import HYPERGRADIENT_ROUTES, Hypergradient, hypergradient, route_function

__all__ = ["Hypergradients", "hypergradients", "named_place", "together"]


@contextmanager
def named_place(place: int) -> Iterator[None]:
    """Note in errors at which of the θ they arose."""
    try:
        yield
    except BilevelRLError as error:
        error.add_note(f"at thetas[{place}]")
        raise


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hypergradients:
    """Exact hypergradients at B θ; each of them, with its bound and condition, is `found[b]`.

    Attributes
    ----------
    value : (B, N)
        ∇J(θ_b), flat in C order.
    parts : {name: (B, N)}
        Their parts; see `Hypergradient`.
    objective, residual : (B,)
        J(θ_b), and the follower's largest Bellman residual there.
    status : tuple of str
        How each follower's solver ended.
    route : str
        Which route computed them.
    members : sequence of Hypergradient
        One by one; made when asked for where all were computed together.
    """

    value: FloatArray
    parts: dict[Part, FloatArray]
    objective: FloatArray
    residual: FloatArray
    status: tuple[str, ...]
    route: str
    members: Annotated[Sequence[Hypergradient], as_is]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, place: int) -> Hypergradient:
        return self.members[place]

    def __iter__(self) -> Iterator[Hypergradient]:
        return iter(self.members)

    @property
    def error_bound(self) -> FloatArray:
        """First-order bound on max |value - truth| of each θ, (B,); worked out when first read."""
        return np.array([member.error_bound for member in self.members])


together: Question[Hypergradients | None] = Question("stacked hypergradient")
"""(at the first θ, thetas, objective, warm_start=, bound=) → all by the route `implicit`; None: one after the other."""


@checked
def hypergradients(
    problem: Annotated[Problem, as_is],  # what is no problem is refused by kind
    thetas: object,
    *,
    route: str = "implicit",
    horizon: Horizon = None,
    discounted: bool = True,
    warm_start: object = None,
    bound: bool = True,
) -> Hypergradients:
    """Return the exact hypergradients ∇J(θ_b) of one problem at many θ.

    Dense configurable MDPs are computed together over an infinite horizon by the route "implicit", three to five times
    faster than θ after θ where the problem has `stacked_rewards` and `stacked_pullback`. Everything else is a loop
    over `hypergradient`. Numbers agree to rounding either way.

    Parameters
    ----------
    problem
        Any kind of problem of this package.
    thetas : (B, *theta_shape)
        The leader's parameters, float64.
    route, horizon, discounted, bound
        As of `hypergradient`.
    warm_start
        An earlier result for as many θ, or values (B, S): each starts from its own. A `Hypergradient`, a follower or
        values (S,): all start from it. None: each from nothing, or together from the solution of the first.

    Returns
    -------
    Hypergradients

    Raises
    ------
    ShapeError
        If `thetas` is empty or has another shape.
    BilevelRLError
        As `hypergradient`.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, Theorem 1 (5)-(6).

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.reference.many import hypergradients
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    >>> thetas = np.random.default_rng(0).standard_normal((5, 3))
    >>> found = hypergradients(problem, thetas)
    >>> found.value.shape, bool(found.error_bound.max() < 1e-10)
    ((5, 3), True)
    >>> bool(np.abs(found[2].value - hypergradient(problem, thetas[2]).value).max() < 1e-12)
    True
    """
    if not isinstance(route, str) or route not in HYPERGRADIENT_ROUTES:
        raise UnknownNameError("route", route, HYPERGRADIENT_ROUTES)
    route_function(problem, route)
    points = check_thetas(thetas, problem.theta_shape)
    own = isinstance(warm_start, Hypergradients) or (isinstance(warm_start, np.ndarray) and warm_start.ndim == 2)
    starts: Any = warm_start if own else [warm_start] * len(points)
    if len(starts) != len(points):
        remedy = "start from as many, or from one"
        raise InvalidInputError(refusal("warm_start", f"{len(starts)} rows", f"{len(points)}, one per θ", remedy))
    objective = Objective(horizon, discounted)
    if route == "implicit" and horizon is None and together.serves(problem):
        found = together(evaluated(problem, points[0]), points, objective, warm_start=warm_start, bound=bound)
        if found is not None:
            return found
    members: list[Hypergradient] = []
    for place, theta in enumerate(points):
        options: dict[str, Any] = {"horizon": horizon, "discounted": discounted, "warm_start": starts[place]}
        with named_place(place):
            members.append(hypergradient(problem, theta, route=route, bound=bound, **options))
    names, nothing = dict.fromkeys(part for member in members for part in member.parts), np.zeros(points[0].size)
    return Hypergradients(
        value=np.stack([member.value for member in members]),
        parts={part: np.stack([member.parts.get(part, nothing) for member in members]) for part in names},
        objective=np.array([member.objective for member in members]),
        residual=np.array([member.residual for member in members]),
        status=tuple(member.status for member in members),
        route=route,
        members=tuple(members),
    )
