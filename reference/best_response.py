"""The follower's response for the user: one call for every kind of problem, and followers that stop too early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.contexts import Mixture, MixtureFollower
from bilevelrl.reference.doors import Iterations, NonNegative, checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.game.follower import GameFollower
from bilevelrl.reference.game.model import MarkovGame
from bilevelrl.reference.lqr.follower import LQRFollower
from bilevelrl.reference.lqr.model import ConfigurableLQR
from bilevelrl.reference.lqr_game.model import LQRGame
from bilevelrl.reference.problem import Follower, FollowerMethod, Problem, evaluated, solve
from bilevelrl.reference.problem.follower import check_method
from bilevelrl.reference.registry import Hypergradient
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.model import ConfigurableMDP

__all__ = ["SuboptimalFollower", "solve_follower"]


@overload
def solve_follower(
    problem: ConfigurableMDP,
    theta: object,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: Hypergradient | TabularFollower | FloatArray | None = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> TabularFollower: ...


@overload
def solve_follower(
    problem: MarkovGame,
    theta: object,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: Hypergradient | GameFollower | FloatArray | None = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> GameFollower: ...


@overload
def solve_follower(
    problem: ConfigurableLQR | LQRGame,
    theta: object,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: Hypergradient | LQRFollower | None = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> LQRFollower: ...


@overload
def solve_follower(
    problem: Mixture,
    theta: object,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: object = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> MixtureFollower: ...


@overload
def solve_follower(
    problem: Problem,
    theta: object,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: object = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> Follower: ...


def solve_follower(
    problem: Problem,
    theta: object,
    *,
    method: FollowerMethod = "newton",
    tolerance: float = 1e-12,
    max_iterations: int | None = None,
    warm_start: object = None,
    stop_after: int | None = None,
    throw: bool = True,
) -> Follower:
    """Solve the follower's entropy-regularised problem at θ, for any kind of problem.

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    method
        "newton" (soft policy iteration, quadratic), "value_iteration" (one backup per iteration) or
        "modified_policy_iteration" (five backups with the policy frozen per iteration).
    tolerance
        Wanted bound on |V - V*|, relative to max(β, |V|), in every state.
    max_iterations
        Default 200 for Newton; otherwise what the contraction needs, at most 1,000,000.
    warm_start
        A previous solution or `Hypergradient`, or values (S,), to start from; zeros by default. For
        a mixture also one of these per context.
    stop_after
        Stop after so many iterations whatever the residual: a suboptimal follower.
    throw
        Raise if the tolerance is not reached; otherwise the status tells.

    Returns
    -------
    TabularFollower, GameFollower or LQRFollower; of a mixture a MixtureFollower

    Raises
    ------
    NotConvergedError
        If the tolerance is not reached (and `throw`, and not `stop_after`).
    IndependenceError
        If θ is an autograd tracer or complex: this solver is not differentiated through.
    InvalidInputError
        If an argument or a table is invalid.
    UnsupportedError
        If no solver is registered for this kind of problem.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, equations (1)-(3).

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    >>> solution = solve_follower(problem, np.zeros(3))
    >>> solution.status.succeeded, solution.error_bound < 1e-12
    (True, True)
    """
    check_method(method, stop_after)
    return solve(
        evaluated(problem, theta),
        method=method,
        tolerance=tolerance,
        max_iterations=max_iterations,
        warm_start=warm_start.follower if isinstance(warm_start, Hypergradient) else warm_start,
        stop_after=stop_after,
        throw=throw,
    )


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SuboptimalFollower:
    """A follower that stops after a few sweeps, and starts each time anew or from where it stood.

    Parameters
    ----------
    iterations
        Iterations of `method` before it plays.
    carry
        True: continue from the previous solution. False: start from `N(0, noise²)` values, or zeros when noise is 0.
    method
        How it sweeps.
    noise
        Standard deviation of the initial values.

    Raises
    ------
    InvalidInputError
        If `iterations` is not a count or `noise` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.tasks import random_mdp
    >>> follower = SuboptimalFollower(iterations=2, carry=False)
    >>> follower.respond(random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)).status.name
    'STOPPED_EARLY'
    """

    iterations: Iterations
    carry: bool
    method: FollowerMethod = "value_iteration"
    noise: NonNegative = 0.0

    def respond(
        self,
        problem: Problem,
        theta: object,
        *,
        previous: object = None,
        rng: Generator | None = None,
    ) -> Follower:
        """Return the response after the allowed sweeps.

        Raises
        ------
        InvalidInputError
            If noise is asked for without a generator.
        UnsupportedError
            If noise is asked for where values are no table.
        """
        start = previous if self.carry else None
        if start is None and self.noise > 0.0:
            if rng is None:
                raise InvalidInputError("rng=None: expected a numpy Generator for noise > 0; pass rng=...")
            if not isinstance(problem, (ConfigurableMDP, MarkovGame)):
                found = type(problem).__name__
                raise UnsupportedError(refusal("problem", found, "a ConfigurableMDP or MarkovGame", "or pass noise=0"))
            start = self.noise * rng.standard_normal(problem.states_at(theta))
        return solve_follower(problem, theta, method=self.method, stop_after=self.iterations, warm_start=start)
