"""A leader with an objective of its own: f(θ, π, d) of the parameter, the follower's policy and its occupancy.

The follower solves a configurable MDP softly and plays π*(θ) (S, A). With w_t = γ_L^t, or one where returns are not
discounted, and T steps or infinitely many, the occupancy that f is given is, over states,

    d(s) = c Σ_{t<T} w_t Pr(s_t = s),      c = 1, or 1 / Σ_{t<T} w_t where it is `normalised`,                     (1)

so that a process that never ends has Σ_s d = Σ_t w_t, or 1 if normalised, and one that ends has less. The leader
maximises `J(θ) = f(θ, π*(θ), d(θ, π*(θ)))`. The regularised return is one case:
`f = ρ(θ) + Σ_s d(s) Σ_a π(a|s) r_L(s, a)`. References: arXiv:2405.19697 (SoBiRL), arXiv:2308.02585 (PARL).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from autograd.tracer import getval

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.derivatives.array_values import called, differentiable_array
from bilevelrl.reference.derivatives.cache import Cache
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError, refusal
from bilevelrl.reference.general_objective.slopes import Slopes, checked_slopes
from bilevelrl.reference.problem import At, Objective, Term, TransitionBatch
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt

__all__ = ["GeneralAt", "GeneralObjective"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralObjective:
    """A leader that maximises f(θ, π, d), with the follower of a configurable MDP.

    Parameters
    ----------
    process
        What the follower solves and the process it moves. Its leader's reward and its regulariser are not read: what
        the leader is after is `objective`.
    objective
        (θ, policy (S, A), occupancy (S,)) → f, a number, written with `autograd.numpy`.
    cotangents
        Optional closed form: (θ, policy, occupancy) → {"theta": θ's shape, "policy": (S, A), "occupancy": (S,)}, the
        slopes of f; one that is left out is zero.
    normalised
        Whether the occupancy is divided by the sum of the weights of all steps: (1) of the module.
    verify_derivatives
        Whether slopes, traced or given, are held against differences of f, one argument at a time.
    name
        Used in messages and tables.

    Raises
    ------
    InvalidInputError
        If the process is no configurable MDP.

    Examples
    --------
    A leader that wants to be as sure as it can be where the follower is, by its entropy:

    >>> import autograd.numpy as anp
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = GeneralObjective(
    ...     process=random_mdp(states=4, actions=2, parameters=3, seed=0), normalised=True,
    ...     objective=lambda theta, policy, occupancy: anp.sum(occupancy * anp.log(occupancy)))
    >>> exact, differences = (hypergradient(problem, np.zeros(3), route=route)
    ...     for route in ("implicit", "finite_difference"))
    >>> bool(np.allclose(exact.value, differences.value, rtol=1e-7, atol=0.0))
    True
    """

    process: ConfigurableMDP
    objective: Callable[[Traced, Traced, Traced], Traced]
    cotangents: Callable[[FloatArray, FloatArray, FloatArray], Mapping[str, FloatArray]] | None = None
    normalised: bool = False
    verify_derivatives: bool = True
    name: str = "general objective"
    _cache: Cache = field(default_factory=Cache, init=False, repr=False, compare=False)

    @property
    def discount_leader(self) -> float:
        """γ_L, the discount of the occupancy."""
        return self.process.discount_leader

    @property
    def discount_follower(self) -> float:
        """γ_F."""
        return self.process.discount_follower

    @property
    def temperature(self) -> float:
        """β, the follower's entropy weight."""
        return self.process.temperature

    @property
    def theta_shape(self) -> tuple[int, ...] | None:
        """Shape of θ; None: any one-dimensional θ."""
        return self.process.theta_shape

    def check_theta(self, theta: object) -> FloatArray:
        """Return θ as a float64 array of the right shape, or raise."""
        return self.process.check_theta(theta)

    def at(self, theta: object) -> GeneralAt:
        """Evaluate the process once at a real θ; raises as its own `at`."""
        process = self.process.at(theta)
        return GeneralAt(problem=self, theta=process.theta, process=process)

    def linearised(self, theta: FloatArray) -> GeneralObjective:
        """Return the problem whose tables are affine in θ and the same at this θ to first order."""
        return replace(self, process=self.process.linearised(theta))

    def pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
        """Return a function of cotangents of the process's tables, and of "theta" itself: their sum over θ, (N,)."""
        pull = self.process.pullback_at(self.check_theta(theta))

        def pulled(cotangents: Mapping[str, FloatArray]) -> FloatArray:
            own = {name: value for name, value in cotangents.items() if name != "theta"}
            return pull(own) + np.ravel(cotangents["theta"]) if "theta" in cotangents else pull(own)

        return pulled

    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Refuse: samples see no f.

        Raises
        ------
        UnsupportedError
            Always; it names what estimators are told instead.
        """
        raise UnsupportedError(f"{self.name}: {SEEN_AS}")

    def regulariser_gradient(self, theta: FloatArray) -> FloatArray:
        """Return zeros (N,): f has all that there is of θ."""
        return np.zeros(self.check_theta(theta).size)

    def value(self, theta: Traced, policy: Traced, occupancy: Traced) -> Traced:
        """Return f, a number, traced or complex too.

        Raises
        ------
        InvalidInputError
            If the function raises, or gives something else than one finite number.
        """
        given = (x.copy() if isinstance(x, np.ndarray) else x for x in (policy, occupancy))  # theirs to write to
        found = called("objective", lambda point: self.objective(point, *given), theta)
        number = differentiable_array("objective(theta, policy, occupancy)", found)
        if np.shape(number) != ():
            raise ShapeError(
                refusal("objective(theta, policy, occupancy).shape", np.shape(number), "()", "sum it to one number")
            )
        if not np.isfinite(getval(number)):
            remedy = "check the formula at this θ; a policy that is nearly greedy has zeros"
            raise InvalidInputError(
                refusal("objective(theta, policy, occupancy)", getval(number), "a finite number", remedy)
            )
        return number

    def slopes(self, theta: FloatArray, policy: FloatArray, occupancy: FloatArray) -> Slopes:
        """Return ∂f/∂θ, ∂f/∂π and ∂f/∂d, traced or as given, and checked.

        Raises
        ------
        ShapeError, UnknownNameError
            If a given one has no such name or another shape than its argument.
        DerivativeError
            If one disagrees with differences of f; with the argument, the direction and both numbers.
        """
        calls = self._cache["slopes"] = self._cache.get("slopes", 0) + 1
        verify = self.verify_derivatives and not calls & (calls - 1)  # at the first, second, fourth ... θ
        return checked_slopes(self.value, self.cotangents, (theta, policy, occupancy), verify=verify)

    def weight(self, objective: Objective) -> float:
        """Return c of (1)."""
        return 1.0 / objective.constant_return(1.0, self.discount_leader) if self.normalised else 1.0


SEEN_AS = (
    "no estimator sees f, expected an ordinary problem; give estimators `ordinary_problem(problem, theta)`, which has "
    "the same hypergradient at this θ"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class GeneralAt(At[GeneralObjective]):
    """A general objective's problem evaluated at one θ.

    Attributes
    ----------
    process
        Its process, evaluated.
    """

    process: TabularAt

    @property
    def values(self) -> Any:
        """The tables of the process."""
        return self.process.tables

    @cached_property
    def names(self) -> frozenset[str]:
        """The tables of the process that depend on θ."""
        return self.process.varying
