"""Problems that no estimator sees as they are: what samples are drawn from, and what they are held against."""

from __future__ import annotations

from dataclasses import dataclass

from bilevelrl.reference.problem import Problem, Question

__all__ = ["Seen", "seen_by_estimators"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A problem as estimators see it at one θ.

    Attributes
    ----------
    samples
        What samples are drawn from and what estimators are told of.
    truth
        Whose hypergradient is the truth, and whose follower plays.
    """

    samples: Problem
    truth: Problem


seen_by_estimators: Question[Seen] = Question("problem that estimators see")
"""(at) → what estimators see; kinds without an answer are seen as they are."""
