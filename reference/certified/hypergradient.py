"""Certified hypergradients: the closed form on an enclosure, at a precision that is doubled until the digits are there.

    ∇J = Σ_parts Σ_tables ⟨weight of the table in that part, ∂table/∂θ⟩                                             (1)

with the weights of `certified/tabular/leader`, which come from one adjoint solve for the leader and one for the
follower: the cost does not grow with N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb, ctx

from bilevelrl.reference.certified.balls import Enclosure, float_above, largest, upper
from bilevelrl.reference.certified.sources import TabularSource
from bilevelrl.reference.certified.tabular.fixed_point import BallFollower, enclose_follower
from bilevelrl.reference.certified.tabular.leader import Cotangents, cotangents
from bilevelrl.reference.errors import InvalidInputError, PrecisionError, refusal
from bilevelrl.reference.problem import AnswerBounds, Objective, Part
from bilevelrl.reference.registry import Hypergradient

__all__ = ["CertifiedHypergradient", "Evaluation", "certify_tabular", "refine", "tabular_evaluation"]

SMALLEST_PRECISION = 128
LARGEST_PRECISION = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One pass at one precision.

    Attributes
    ----------
    objective : arb
        J.
    parts : {name: [N]}
        The parts of ∇J.
    residual, condition : arb
        Of the follower's fixed point.
    steps : int
        Newton steps.
    """

    objective: arb
    parts: Mapping[Part, Sequence[arb]]
    residual: arb
    condition: arb
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedHypergradient:
    """A hypergradient with a proof: every number is a ball that contains the truth.

    Attributes
    ----------
    objective : Enclosure
        J(θ).
    value : (N,) of Enclosure
        ∇J(θ).
    parts : {name: (N,) of Enclosure}
        Its parts, as in `Hypergradient`.
    digits : int
        Every number is known to so many significant digits, or to within 10^(-2 digits) of the largest; where all are
        zero as far as can be told, to within 10^(-2 digits).
    bits : int
        Working precision at which that was reached.
    residual, condition : float
        The follower's Bellman residual at that precision, and the condition number of its linear system.
    steps : int
        Newton steps at that precision.

    Examples
    --------
    >>> from bilevelrl.reference.certified import certified_hypergradient
    >>> from bilevelrl.tasks import random_mdp
    >>> certified = certified_hypergradient(random_mdp(parameters=2), np.zeros(2), digits=40)
    >>> len(certified.value), certified.value[0].digits >= 40
    (2, True)
    """

    objective: Enclosure
    value: tuple[Enclosure, ...]
    parts: Mapping[Part, tuple[Enclosure, ...]]
    digits: int
    bits: int
    residual: float
    condition: float
    steps: int

    def norm(self) -> Enclosure:
        """Return the Euclidean norm of ∇J, enclosed."""
        with ctx.workprec(self.bits):
            return Enclosure(sum((entry.ball * entry.ball for entry in self.value), arb(0)).sqrt())

    def rounded(self, route: str = "certified") -> Hypergradient:
        """Return the nearest doubles, with rigorous bounds, radius plus rounding, over value and parts."""
        everything = [*self.value, *(entry for part in self.parts.values() for entry in part)]
        return Hypergradient(
            value=np.array([float(entry) for entry in self.value]),
            parts={name: np.array([float(entry) for entry in part]) for name, part in self.parts.items()},
            objective=float(self.objective),
            residual=self.residual,
            condition_source=self.condition,
            error_bound_source=AnswerBounds(
                gradient=max((entry.distance(float(entry)) for entry in everything), default=0.0),
                objective=self.objective.distance(float(self.objective)),
            ),
            route=route,
            status=f"certified to {self.digits} digits at {self.bits} bits",
            counters={"linear_solves": self.steps + 4},
        )


def refine(
    evaluate: Callable[[], Evaluation], digits: int, *, smallest: int, largest_precision: int
) -> CertifiedHypergradient:
    """Evaluate at doubling precision until objective, gradient and parts have the digits.

    Raises
    ------
    InvalidInputError
        If `digits` is not an integer ≥ 1.
    PrecisionError
        If the largest precision does not suffice; the message says how far it came.
    """
    if isinstance(digits, bool) or not isinstance(digits, (int, np.integer)) or digits < 1:
        raise InvalidInputError(refusal("digits", digits, "an integer >= 1", "ask for 30"))
    bits, digits = max(smallest, int(3.33 * digits) + 96), int(digits)
    tried, reason = 0, f"{bits} bits would be the first to try"
    while bits <= largest_precision:
        with ctx.workprec(bits):
            try:
                found = evaluate()
            except PrecisionError as refused:
                reason = str(refused)
            else:
                total = [sum(entries, arb(0)) for entries in zip(*found.parts.values(), strict=True)]
                if _known([found.objective], digits) and _known([*total, *_flat(found.parts)], digits):
                    return CertifiedHypergradient(
                        objective=Enclosure(found.objective),
                        value=tuple(map(Enclosure, total)),
                        parts={name: tuple(map(Enclosure, part)) for name, part in found.parts.items()},
                        digits=digits,
                        bits=bits,
                        residual=float_above(found.residual),
                        condition=float_above(found.condition),
                        steps=found.steps,
                    )
                widest = largest(entry.rad() for entry in [found.objective, *total, *_flat(found.parts)])
                reason = f"the widest radius was {float_above(widest):.1e}"
        tried, bits = bits, 2 * bits
    raise PrecisionError(
        f"certified hypergradient: {digits} digits were not reached at {tried} bits, the last precision tried: "
        f"{reason}; ask for fewer digits or raise maximum_bits={largest_precision}"
    )


def _flat(parts: Mapping[Part, Sequence[arb]]) -> list[arb]:
    return [entry for part in parts.values() for entry in part]


def _known(entries: Sequence[arb], digits: int) -> bool:
    """Whether each entry has the digits, or is zero next to the largest beyond twice as many.

    Where no entry is told from zero, there is no size to be relative to: 10^(-2 digits) is then meant absolutely.
    """
    if not all(entry.is_finite() for entry in entries):
        return False
    unit = arb(10) ** -digits
    floor = unit * unit * (largest(entries) if any(not entry.contains(0) for entry in entries) else arb(1))
    return all(entry.rad() <= unit * entry.abs_lower() or entry.rad() <= floor for entry in entries)


def tabular_evaluation(
    source: TabularSource, *, horizon: int | None, discounted: bool, weigh: Callable[..., Cotangents] = cotangents
) -> Callable[[], Evaluation]:
    """Return a pass over a tabular problem; each call starts Newton's method where the previous one ended.

    `weigh` says how much each table weighs: `cotangents`, or `paid_cotangents`, which shares no leader with it.
    """
    previous: list[BallFollower] = []

    def evaluate() -> Evaluation:
        tables = source.tables(discounted=discounted)
        follower = enclose_follower(tables, previous[-1].value if previous else None)
        previous[:] = [follower]
        weights = weigh(tables, follower, horizon=horizon)
        return Evaluation(
            objective=weights.objective,
            parts=tabular_parts(source, weights),
            residual=upper(follower.residual),
            condition=weights.condition,
            steps=follower.steps,
        )

    return evaluate


def tabular_parts(source: TabularSource, weights: Cotangents) -> dict[Part, list[arb]]:
    """Pull the weights of all tables back to θ, part by part: the terms of (1)."""
    response_reward = source.pull("reward_follower", lambda i: weights.response_reward[i[0]][i[1]])
    response_transition = source.pull("transition", lambda i: weights.response_transition(*i))
    return {
        "initial": source.pull("initial", lambda i: weights.initial[i[0]]),
        "direct": source.pull("reward_leader", lambda i: weights.direct[i[0]][i[1]]),
        "transition": source.pull("transition", lambda i: weights.transition(*i)),
        "response": [r + t for r, t in zip(response_reward, response_transition, strict=True)],
        "regulariser": source.pull("regulariser", lambda i: arb(1)),
    }


def certify_tabular(
    source: TabularSource,
    *,
    digits: int,
    horizon: int | None,
    discounted: bool,
    maximum_bits: int = LARGEST_PRECISION,
    minimum_bits: int = SMALLEST_PRECISION,
    weigh: Callable[..., Cotangents] = cotangents,
) -> CertifiedHypergradient:
    """Return the certified hypergradient of a tabular problem; see `certified_hypergradient`, `tabular_evaluation`."""
    Objective(horizon, discounted)
    return refine(
        tabular_evaluation(source, horizon=horizon, discounted=discounted, weigh=weigh),
        digits,
        smallest=minimum_bits,
        largest_precision=maximum_bits,
    )
