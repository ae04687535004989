"""Three configurable MDPs of one size: planned in by the follower, measured by the leader, and lived in by samples.

    J(θ) = ρ(θ) + E Σ_t γ_L^t r_L(s_t, a_t),      a_t ~ π*(θ) of the planned problem, all else of the measured one.  (1)

Trajectories are drawn, and estimators told, of the one that is lived in.

The released Four-Rooms is such a problem: its planner and its metric move by one kernel and its simulator by another.
A follower that plans in a wrong model is one too. Of what holds for one kernel only the chain rule is left: where the
follower plans in one kernel and samples move by another, the suffixes of BC-HG have the wrong ∇Q_F and critics learn
the wrong benefit, and the mixed derivative of the follower's own value is not ∇J.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.reference.problem import At, Term, TransitionBatch
from bilevelrl.reference.seen import Seen, seen_by_estimators
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables

__all__ = ["SeparateAt", "SeparateKernels", "SeparateTables", "seen_separate"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SeparateKernels:
    """A follower that plans in one problem, and a leader that is paid in another.

    Parameters
    ----------
    planned
        What the follower solves: its transitions, the follower's reward.
    measured
        Where the leader's objective is that of the planned policy: its transitions, initial law, leader's reward and
        regulariser.
    lived
        Where samples come from, and what estimators are told of; None: the measured one.
    name
        Used in messages and tables.

    Raises
    ------
    InvalidInputError
        If discounts, temperature or the shape of θ differ: kernels and rewards may, these are one problem's.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import four_rooms
    >>> planner, paper = (four_rooms(temperature=0.005, kernel=kernel) for kernel in ("planner", "paper"))
    >>> same, apart = (hypergradient(SeparateKernels(planned=planner, measured=measured), np.zeros(105))
    ...     for measured in (planner, paper))
    >>> round(same.objective, 6), round(apart.objective, 6)
    (-0.667413, -0.750116)
    """

    planned: ConfigurableMDP
    measured: ConfigurableMDP
    lived: ConfigurableMDP | None = None
    name: str = "separate kernels"

    def __post_init__(self) -> None:
        for which, other in (("measured", self.measured), ("lived", self.sampled)):
            for attribute in ("discount_leader", "discount_follower", "temperature", "theta_shape"):
                wanted, found = getattr(self.planned, attribute), getattr(other, attribute)
                if found != wanted:
                    remedy = "make the three with the same numbers; kernels and rewards may differ"
                    raise InvalidInputError(
                        refusal(f"{which}.{attribute}", found, f"{wanted}, that of the planned problem", remedy)
                    )

    @property
    def sampled(self) -> ConfigurableMDP:
        """The problem that is lived in."""
        return self.measured if self.lived is None else self.lived

    @property
    def discount_leader(self) -> float:
        """γ_L."""
        return self.measured.discount_leader

    @property
    def discount_follower(self) -> float:
        """γ_F."""
        return self.planned.discount_follower

    @property
    def temperature(self) -> float:
        """β, the follower's entropy weight."""
        return self.planned.temperature

    @property
    def theta_shape(self) -> tuple[int, ...] | None:
        """Shape of θ; None: any one-dimensional θ."""
        return self.planned.theta_shape

    def check_theta(self, theta: object) -> FloatArray:
        """Return θ as a float64 array of the right shape, or raise."""
        return self.planned.check_theta(theta)

    def at(self, theta: object) -> SeparateAt:
        """Evaluate the planned and the measured problem once at a real θ; raises as their own `at`.

        Raises
        ------
        ShapeError
            If the two, or the one that is lived in, have other states or actions.
        """
        planned, measured = self.planned.at(theta), self.measured.at(theta)
        at = SeparateAt(problem=self, theta=planned.theta, planned=planned, measured=measured)
        wanted = (planned.tables.states, planned.tables.actions)
        for which, tables in (("measured", measured.tables), ("lived", self.sampled.evaluate(at.theta))):
            if (tables.states, tables.actions) != wanted:
                found = (tables.states, tables.actions)
                remedy = "number states and actions alike"
                raise ShapeError(refusal(f"{which}: states and actions", found, f"{wanted}, as planned", remedy))
        return at

    def linearised(self, theta: FloatArray) -> SeparateKernels:
        """Return the problem whose tables are affine in θ and the same at this θ to first order."""
        return replace(self, planned=self.planned.linearised(theta), measured=self.measured.linearised(theta))

    def pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
        """Return a function of cotangents of tables, named "planned …" and "measured …": their sum over θ, (N,)."""
        pulls = {"planned": self.planned.pullback_at(theta), "measured": self.measured.pullback_at(theta)}

        def pulled(cotangents: Mapping[str, FloatArray]) -> FloatArray:
            total = np.zeros(self.check_theta(theta).size)
            for which, pull in pulls.items():
                own = {name.partition(" ")[2]: value for name, value in cotangents.items() if name.startswith(which)}
                total = total + pull(own)
            return total

        return pulled

    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Return Σ w ∇term over the batch, of the problem that is lived in."""
        return self.sampled.pullback(theta, batch, weights, per_stream=per_stream)

    def regulariser_gradient(self, theta: FloatArray) -> FloatArray:
        """Return ∇ρ(θ), shape (N,)."""
        return self.measured.regulariser_gradient(theta)


@dataclass(frozen=True, slots=True)
class SeparateTables:
    """What the two problems gave."""

    planned: Tables
    measured: Tables


@dataclass(frozen=True, eq=False, kw_only=True)
class SeparateAt(At[SeparateKernels]):
    """A problem of separate kernels evaluated at one θ.

    Attributes
    ----------
    planned, measured
        The two problems that J depends on, evaluated.
    """

    planned: TabularAt
    measured: TabularAt

    @property
    def values(self) -> SeparateTables:
        """The tables of both."""
        return SeparateTables(self.planned.tables, self.measured.tables)


@seen_by_estimators.register(SeparateKernels)
def seen_separate(at: SeparateAt) -> Seen:
    """Estimators see the problem that is lived in, and are held against J; the planned follower plays."""
    problem, lived = at.problem, at.problem.sampled
    one = problem.planned is problem.measured is lived
    return Seen(samples=lived, truth=lived if one else problem)
