"""Which known mistakes agree with differences that were seen: one at a time, factors by least squares, then pairs.

A cause agrees where what it leaves of each difference is within what the difference is known to. How likely it is that
any of K mistakes agrees by chance is bounded by K times the product of these tolerances, relative to the differences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.causes.known import Known, Setting

__all__ = ["Limit", "Match", "Seen", "chance", "compare", "pairs"]

SHARE_OVER = 4
"""Scenarios, those with the largest differences, over which the share of a cause that does not agree is taken."""

LOOKING = "looking for the cause"

CERTAIN = 1e-3
"""Chance of an accident below which an agreement is none."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A difference in its setting.

    Attributes
    ----------
    at : Setting
        Where.
    difference, slack : (N,)
        What was seen, and what it is known to.
    """

    at: Setting
    difference: FloatArray
    slack: FloatArray

    @property
    def off(self) -> bool:
        """Whether anything is."""
        return bool((np.abs(self.difference) > self.slack).any())

    def fits(self, effect: FloatArray) -> bool:
        """Whether an effect agrees; effects are themselves known to rounding, and to what forms leave out."""
        size = max((float(np.abs(part).max(initial=0.0)) for part in self.at.truth.parts.values()), default=0.0)
        slack = self.slack + (1e-9 + self.at.tail) * np.abs(effect) + 1e-12 * size
        return bool((np.abs(self.difference - effect) <= slack).all())


@dataclass(kw_only=True)
class Limit:
    """Time that a search may take, and who is told.

    Attributes
    ----------
    seconds : float
        Limit, of this thread's own time: what is found does not depend on who else is computing.
    progress : function or None
        Told (done, in all, what).
    began : float
        This thread's time when it was made.
    """

    seconds: float
    progress: Callable[[int, int, str], None] | None = None
    began: float = field(default_factory=time.thread_time)

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.thread_time() - self.began > self.seconds

    def tell(self, done: int, of: int, what: str) -> None:
        """Tell how far it is."""
        if self.progress is not None:
            self.progress(done, of, what)


@dataclass(frozen=True, kw_only=True)
class Match:
    """How one known mistake compares.

    Attributes
    ----------
    known : Known
        Which.
    agrees, unseen, computed : bool
        With every difference; no effect anywhere beyond what differences are known to; anywhere.
    share : float
        Of the squared differences that it explains, scenario by scenario.
    misfit : float
        Σ (off / slack)², to order those that agree.
    """

    known: Known
    agrees: bool
    unseen: bool
    computed: bool
    share: float
    misfit: float


def compare(known: Sequence[Known], seen: Sequence[Seen], limit: Limit) -> tuple[list[Match], int]:
    """Return the matches of all known mistakes, in their order, and how many the time did not reach."""
    found: list[Match] = []
    limit.tell(0, len(known), LOOKING)
    for done, one in enumerate(known):
        if limit.over:
            return found, len(known) - done
        found.append(_match(one, seen))
        if done % 25 == 24:
            limit.tell(done + 1, len(known), LOOKING)
    return found, 0


def _match(one: Known, seen: Sequence[Seen]) -> Match:
    agrees, unseen, computed, misfit = True, True, False, 0.0
    shares: list[float] = []
    for place, entry in enumerate(seen):
        if not agrees and not unseen and place >= SHARE_OVER:
            break
        effect = one.effect(entry.at)
        if effect is None or not np.isfinite(effect).all():
            agrees = False  # nothing is known of it here, so it cannot be said to agree
            continue
        computed = True
        unseen &= bool((np.abs(effect) <= entry.slack).all())
        fits = entry.fits(effect)
        agrees &= fits
        left = entry.difference - effect
        misfit += float(np.sum((left / np.maximum(entry.slack, 1e-300)) ** 2))
        size = float(np.sum(entry.difference**2))
        # A scenario where nothing is off counts only against a cause: it explains no difference there.
        if (entry.off or not fits) and place < SHARE_OVER:
            shares.append(max(0.0, 1.0 - float(np.sum(left**2)) / size) if size > 0.0 else 0.0)
    share = float(np.mean(shares)) if shares else float(agrees)
    return Match(
        known=one, agrees=agrees and computed, unseen=unseen and computed, computed=computed, share=share, misfit=misfit
    )


def chance(seen: Sequence[Seen], tried: float, *, fitted: int = 0) -> float:
    """Return a bound on the chance that any of so many causes agrees by accident, after `fitted` free numbers.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> on = scenario("layered")
    >>> one = Seen(at=Setting.of(on, on.truth), difference=np.ones(3), slack=np.full(3, 0.1))
    >>> round(chance([one], 500), 3), chance([one], 500, fitted=3)
    (0.5, 500.0)
    """
    ratios = sorted(
        float(s) / abs(float(d))
        for entry in seen
        for d, s in zip(entry.difference, entry.slack, strict=True)
        if abs(d) > s
    )
    return tried * float(np.prod(ratios[fitted:]))


def pairs(known: Sequence[Known], seen: Sequence[Seen], limit: Limit) -> list[tuple[Known, Known]]:
    """Return the pairs of known mistakes that together agree with every difference, the plainest first."""
    first = [entry for entry in seen if entry.off][:6]
    if not first:
        return []
    effects: list[FloatArray] = []
    used: list[Known] = []
    for one in known:
        if limit.over:
            return []
        each = [one.effect(entry.at) for entry in first]
        if all(effect is not None and np.isfinite(effect).all() for effect in each):
            joined = np.concatenate([effect for effect in each if effect is not None])
            slack = np.concatenate([entry.slack for entry in first])
            if (np.abs(joined) > slack).any():
                effects.append(joined)
                used.append(one)
    if len(used) < 2:
        return []
    table = np.array(effects)
    wanted = np.concatenate([entry.difference for entry in first])
    allowed = np.concatenate([entry.slack for entry in first]) + 1e-9 * np.abs(wanted)
    # One coordinate sorts out nearly all pairs: the partner's effect there is known.
    best = int(np.argmax(np.abs(wanted) / allowed))
    order = np.argsort(table[:, best])
    sorted_ = table[order, best]
    found: list[tuple[int, int]] = []
    for i in range(len(used)):
        if i % 64 == 0 and limit.over:
            break
        partner = wanted[best] - table[i, best]
        low, high = np.searchsorted(sorted_, [partner - allowed[best], partner + allowed[best]])
        for j in order[low:high]:
            if j > i and (np.abs(table[i] + table[j] - wanted) <= allowed + 1e-9 * np.abs(table[i])).all():
                found.append((i, int(j)))
    # Of the same sum, the two that are listed first are the plainest.
    found.sort(key=lambda pair: pair[0] + pair[1])
    agreeing = []
    for i, j in found[:40]:
        both = used[i], used[j]
        if all(_together(both, entry) for entry in seen):
            agreeing.append(both)
    return agreeing


def _together(both: tuple[Known, Known], entry: Seen) -> bool:
    one, other = (known.effect(entry.at) for known in both)
    return one is not None and other is not None and entry.fits(one + other)
