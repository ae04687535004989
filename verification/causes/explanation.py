"""What a search for a cause is given and says: known mistakes, differences that were seen, and what explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked_record
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth

__all__ = ["Cause", "Evidence", "Explanation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A known mistake.

    Attributes
    ----------
    name : str
        In the words of a message: "the response part is missing".
    effect : function
        (scenario, truth) → (N,), what the mistake adds to the right answer; None where it cannot be computed.
    """

    name: str
    effect: Callable[[Scenario, Truth], FloatArray | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A difference seen on a scenario.

    Attributes
    ----------
    scenario : Scenario
        Where.
    truth : Truth
        What was compared with.
    difference : (N,)
        Found minus truth.
    uncertainty : (N,)
        Half-width of what the difference is known to: rounding, or a confidence interval.
    """

    scenario: Scenario
    truth: Truth
    difference: FloatArray
    uncertainty: FloatArray


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a comparison with all known mistakes came to.

    Attributes
    ----------
    cause : str or None
        The known mistake, or two, or factors of parts, that agree with every difference; None where none does.
    share : float
        Share of the squared differences that it, or the nearest, explains; 1: all.
    exact : bool
        Whether it agrees with every difference to within its uncertainty.
    alternatives : tuple of str
        Other mistakes that agree as well; the scenarios at hand do not tell them apart.
    certain : bool
        Whether so good an agreement cannot be an accident, going by what the differences are known to.
    synonyms : tuple of str
        Other words for the same mistake: their effects agree on generic problems too.
    nearest : str or None
        The known mistake that comes nearest, where none agrees.
    factors : str
        Factors of the parts by least squares: "response × 0.500, the rest × 1".
    compared, uncomputed, left_out : int
        Known mistakes compared with; of which so many could not be computed here; and those that the time limit cut
        off.
    unseen : tuple of str
        Known mistakes that would not show on the scenarios at hand.
    beyond : tuple of str
        Scenarios with several episodes in a stream, or with cut streams, with which the cause does not agree.

    Examples
    --------
    >>> print(Explanation(cause="the response part is missing", share=1.0, exact=True, alternatives=(), certain=True))
    the cause: the response part is missing (agrees with every difference)
    """

    cause: str | None
    share: float
    exact: bool
    alternatives: tuple[str, ...]
    certain: bool = False
    synonyms: tuple[str, ...] = ()
    nearest: str | None = None
    factors: str = ""
    compared: int = 0
    uncomputed: int = 0
    left_out: int = 0
    unseen: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What is known of the cause, and on a second line what it was compared with."""
        coverage = self.coverage
        return f"{self._said()}\n    {coverage}" if coverage else self._said()

    def _said(self) -> str:
        if self.cause is None:
            said = "cause: none of the known mistakes"
            if self.nearest is not None:
                said += f"; nearest, but not it: {self.nearest} (explains {100 * self.share:.0f} %)"
            return said + (f"; by least squares {self.factors}" if self.factors else "")
        others = f"; or {'; or '.join(self.alternatives[:3])}" if self.alternatives else ""
        more = f"; or {len(self.alternatives) - 3} more" if len(self.alternatives) > 3 else ""
        words = f"; in other words: {self.synonyms[0]}" if self.synonyms else ""
        if not self.exact:
            return f"likely cause: {self.cause}"
        if self.beyond:
            but = f"but not on {', '.join(self.beyond)}"
            return (
                f"likely cause: {self.cause} (agrees where a stream is one whole episode, {but}{others}{more}{words})"
            )
        if not self.certain:
            return f"likely cause: {self.cause} (agrees as far as the differences are known{others}{more}{words})"
        told = "the cause" if not self.alternatives else "the cause, which is not told apart here from others"
        return f"{told}: {self.cause} (agrees with every difference{others}{more}{words})"

    @property
    def coverage(self) -> str:
        """How many known mistakes were compared, which could not be, and which would not show."""
        if not (self.compared or self.left_out):
            return ""
        said = [f"{self.compared} known mistakes compared"]
        if self.uncomputed:
            said.append(f"{self.uncomputed} more could not be computed")
        if self.left_out:
            said.append(f"{self.left_out} more were cut off by the time limit")
        if self.unseen:
            said.append(f"{len(self.unseen)} would not show here, such as: {self.unseen[0]}")
        return "; ".join(said)
