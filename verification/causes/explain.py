"""Causes of an error: which known mistake would have produced exactly this difference?

Every known mistake has a computable effect on every scenario: a missing part is off by minus that part, a missing 1/β
by (β - 1) times the response, a wrong weight or value by what the form with that entry says (`verification.causes`);
mutants that no form says are run. One scenario seldom tells two causes apart, several do: a cause must explain what is
seen where something is off, and must have no effect where nothing is. Only what agrees with every difference is called
the cause; what merely comes near is refuted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Positive, checked
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.causes.explanation import Cause, Evidence, Explanation
from bilevelrl.verification.causes.factors import Factors, fit_factors
from bilevelrl.verification.causes.fitted import fitted_causes
from bilevelrl.verification.causes.known import Known, Setting, known_mistakes
from bilevelrl.verification.causes.matching import CERTAIN, Limit, Match, Seen, chance, compare, pairs
from bilevelrl.verification.causes.planted import planted_mistakes
from bilevelrl.verification.checks.truncation import truncated_truths
from bilevelrl.verification.processes.jobs import Progress

__all__ = ["EXPLAIN_SECONDS", "explain", "part_causes", "planted_causes"]

EXPLAIN_SECONDS = 5.0
"""Seconds of computing that the search for a cause may take."""

SINGLE = 2e-5
"""A difference that is smaller than this everywhere, relative to the largest part, looks like rounding."""

Effect: TypeAlias = Callable[[Setting], FloatArray | None]

_PROBES = 3
"""Generic problems on which it is asked whether two mistakes are the same."""


def part_causes() -> tuple[Cause, ...]:
    """Return the mistakes whose effect follows from the parts of the truth alone.

    Examples
    --------
    >>> [cause.name for cause in part_causes()][:2]
    ['the initial part is missing', 'the direct part is missing']
    """
    plain = (" is missing", " has the wrong sign", " is counted twice", " by β twice", " instead of divided by it")
    named = [known for known in known_mistakes(object) if known.name.endswith(plain)]
    unlike = ("the whole gradient is missing", "everything")
    return tuple(_cause(known) for known in named if not known.name.startswith(unlike))


def planted_causes(kind: type | None = None) -> tuple[Cause, ...]:
    """Return the mistakes of `MUTANTS`, in the words that say what each changes.

    Examples
    --------
    >>> len(planted_causes()) >= 40
    True
    """
    return tuple(_cause(known) for known in planted_mistakes(kind or ConfigurableMDP))


def _cause(known: Known) -> Cause:
    return Cause(name=known.name, effect=lambda on, truth: known.effect(Setting.of(on, truth)))


@checked
def explain(
    evidence: Iterable[Evidence],
    causes: Iterable[Cause] | None = None,
    *,
    seconds: Positive = EXPLAIN_SECONDS,
    progress: Progress | None = None,
) -> Explanation:
    """Return the known mistake that explains all differences together, or the one that comes nearest.

    Parameters
    ----------
    evidence
        Differences on one or more scenarios, also on those where nothing is off.
    causes
        Mistakes to compare with; default: everything known of the kind of problem.
    seconds
        Of computing that the search may take; what it cuts off is said.
    progress
        Told (done, in all, what) as it goes.

    Raises
    ------
    InvalidInputError
        If there is no evidence.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> layered = scenario("layered")
    >>> seen = Evidence(scenario=layered, truth=layered.truth, difference=-layered.truth.parts["response"],
    ...                 uncertainty=np.full(3, 1e-12))
    >>> explain([seen]).cause
    'the response part is missing'
    """
    listed = list(evidence)
    if not listed:
        raise InvalidInputError("evidence: expected at least one difference; check the estimator on a scenario first")
    limit = Limit(seconds=seconds, progress=progress)
    given = None if causes is None else tuple(_given(cause) for cause in causes)
    if given is not None:
        return _explained([_seen(entry) for entry in listed], given, limit)[0]
    plain, rest = _split(listed)
    found, effect = _explained([_seen(entry) for entry in plain], given, limit)
    for other in _other_cuts(plain) if effect is None else ():
        again, effect = _explained(other, given, limit)
        if effect is not None:
            found = again
            break
    if effect is None:
        return found
    kind: Any = type(plain[0].scenario.problem)
    known = {one.name: one for one in known_mistakes(kind)}
    elsewhere = [_seen(entry) for entry in rest]
    unseen = tuple(name for name in found.unseen if not any(_shows(known.get(name), entry) for entry in elsewhere))
    found = replace(found, unseen=unseen)
    beyond = [entry.scenario.name for entry in rest if not any(_agrees(effect, held) for held in _ways_to_hold(entry))]
    if not beyond:
        return found
    everywhere = sorted((_seen(entry) for entry in listed), key=_relative_size, reverse=True)
    planted, _ = compare(planted_mistakes(kind), everywhere, limit)
    agreeing = [match for match in planted if match.agrees]
    if agreeing:
        return _one(agreeing, planted, everywhere, found)
    return replace(found, certain=False, beyond=tuple(beyond))


def _split(listed: Sequence[Evidence]) -> tuple[list[Evidence], list[Evidence]]:
    """Where one episode is a stream and all of it is seen, if anything is off there; and the others."""
    for plain in (
        [entry for entry in listed if entry.scenario.ends and entry.scenario.episodes == 1],
        [entry for entry in listed if entry.scenario.episodes == 1],
    ):
        if any(_seen(entry).off for entry in plain):
            return plain, [entry for entry in listed if entry not in plain]
    return list(listed), []


def _shows(known: Known | None, entry: Seen) -> bool:
    effect = None if known is None else known.effect(entry.at)
    return effect is not None and bool((np.abs(effect) > entry.slack).any())


def _agrees(effect: Effect, entry: Seen) -> bool:
    found = effect(entry.at)
    return found is None or entry.fits(found)  # of what is not known nothing is said


def _ways_to_hold(entry: Evidence) -> Iterator[Seen]:
    """A difference from everything that a right mean may be: of several episodes, and where streams are cut."""
    on = entry.scenario
    cuts = [] if on.ends else list(truncated_truths(on, INFINITE_HORIZON).values())
    for truth in (entry.truth, *cuts):
        for held in (truth, *(_summed(truth, on.episodes, once) for once in {1, on.episodes} if on.episodes > 1)):
            moved = entry.difference + entry.truth.value - held.value
            yield _seen(replace(entry, truth=held, difference=moved))


def _summed(truth: Truth, episodes: int, once: int) -> Truth:
    """The truth of rows that add up episodes, the regulariser once or with each."""
    parts = {part: (once if part == "regulariser" else episodes) * value for part, value in truth.parts.items()}
    return replace(truth, parts=parts)


def _given(cause: Cause) -> Known:
    return Known(name=cause.name, effect=lambda at: cause.effect(at.on, at.truth))


def _seen(entry: Evidence) -> Seen:
    at = Setting.of(entry.scenario, entry.truth)
    return Seen(at=at, difference=entry.difference, slack=np.broadcast_to(entry.uncertainty, entry.difference.shape))


def _other_cuts(listed: Sequence[Evidence]) -> list[list[Seen]]:
    """The same differences from other means of right estimates, where streams are cut."""
    found: dict[str, list[Seen]] = {}
    for entry in listed:
        on = entry.scenario
        for said, cut in truncated_truths(on, INFINITE_HORIZON).items() if not on.ends else ():
            if not np.array_equal(cut.value, entry.truth.value):
                moved = entry.difference + entry.truth.value - cut.value
                style = "objective" if said.startswith("for the objective") else said
                found.setdefault(style, []).append(_seen(replace(entry, truth=cut, difference=moved)))
    return [seen for seen in found.values() if len(seen) == len(listed)]


def _explained(seen: list[Seen], given: tuple[Known, ...] | None, limit: Limit) -> tuple[Explanation, Effect | None]:
    """What explains differences, and its effect where it agrees with all."""
    # Where the difference is largest a wrong explanation fails first.
    seen = sorted(seen, key=_relative_size, reverse=True)
    kind: Any = type(seen[0].at.on.problem)
    known = known_mistakes(kind) if given is None else given
    matches, left_out = compare(known, seen, limit)
    fit = fit_factors(seen) if given is None else None
    agreeing = sorted((match for match in matches if match.agrees), key=lambda match: round(_order(match, seen), 6))
    described = _described(matches, left_out, fit)
    if agreeing:
        return _one(agreeing, matches, seen, described), agreeing[0].known.effect
    if fit is not None and fit.agrees and chance(seen, len(matches), fitted=fit.free) < CERTAIN:
        return replace(described, cause=fit.cause, share=1.0, exact=True, certain=True), fit.effect
    if given is not None:
        return described, None
    both = next(iter(pairs(known, seen, limit)), None)
    tried = len(matches) ** 2 / 2.0
    if both is not None and chance(seen, tried) < CERTAIN:
        named = f"{both[0].name}, and {both[1].name}"
        return replace(described, cause=named, share=1.0, exact=True, certain=True), partial(_sum_of, both)
    fitted = [one for one in fitted_causes(seen, limit) if chance(seen, tried, fitted=one.free) < CERTAIN]
    if fitted:
        first, *others = (Known(name=one.name, effect=one.effect) for one in fitted if one.free == fitted[0].free)
        others = [one for one in others if one.name != first.name]
        same = tuple(one.name for one in others if _same(first, one, kind))
        apart = tuple(one.name for one in others if one.name not in same)
        said = replace(described, cause=first.name, share=1.0, exact=True, certain=True, alternatives=apart)
        return replace(said, synonyms=same), first.effect
    more, cut = compare(planted_mistakes(kind), seen, limit)
    described = _described([*matches, *more], left_out + cut, fit)
    agreeing = [match for match in more if match.agrees]
    if agreeing:
        return _one(agreeing, [*matches, *more], seen, described), agreeing[0].known.effect
    rounding = _rounding(seen)
    return described if rounding is None else replace(described, cause=rounding, share=0.0), None


def _sum_of(both: tuple[Known, Known], at: Setting) -> FloatArray | None:
    one, other = (known.effect(at) for known in both)
    return None if one is None or other is None else one + other


def _order(match: Match, seen: Sequence[Seen]) -> float:
    """Of mistakes that agree within the error of draws the one that agrees best; of exact ones the plainest."""
    return match.misfit if _sampled(seen) else 0.0


def _sampled(seen: Sequence[Seen]) -> bool:
    """Whether differences are known to a confidence interval rather than to rounding."""
    return float(seen[0].slack.max()) > 1e-6 * _size(seen[0])


def _one(agreeing: list[Match], matches: list[Match], seen: list[Seen], described: Explanation) -> Explanation:
    cause = agreeing[0].known
    others = [match.known for match in agreeing[1:]]
    same = [known.name for known in others if _same(cause, known, type(seen[0].at.on.problem))]
    different = tuple(known.name for known in others if known.name not in same)
    return replace(
        described,
        cause=cause.name,
        share=agreeing[0].share,
        exact=True,
        certain=chance(seen, len(matches)) < CERTAIN,
        alternatives=different,
        synonyms=tuple(same),
        unseen=tuple(name for name in described.unseen if name not in (cause.name, *(known.name for known in others))),
    )


def _same(one: Known, other: Known, kind: Any) -> bool:
    """Whether two mistakes have the same effect on generic problems too; factors by other symbols never have."""
    if one.factor and other.factor:
        return False
    shows = False
    for at in _probes(kind):
        first, second = one.effect(at), other.effect(at)
        if first is None or second is None or not np.allclose(first, second, rtol=1e-9, atol=1e-12):
            return False
        shows |= bool((np.abs(first) > 1e-9).any())
    return shows


@lru_cache(maxsize=8)
def _probes(kind: type) -> tuple[Setting, ...]:
    """Problems of the package with most of what a kind has: several parts and unequal discounts.

    Those of linear-quadratic kinds have too much in common, T = 2 and one temperature, to tell anything.
    """
    rich = [on for on in scenarios(kind=kind) if on.ends]
    rich.sort(key=lambda on: (on.problem.discount_leader == on.problem.discount_follower, -_parts(on)))
    return tuple(Setting.of(on, on.truth) for on in rich[:_PROBES])


def _parts(on: Scenario) -> int:
    return sum(bool(part.any()) for part in on.truth.parts.values())


def _described(matches: Sequence[Match], left_out: int, fit: Factors | None) -> Explanation:
    """What is known without a cause that agrees."""
    best = max(matches, key=lambda match: round(match.share, 9), default=None)
    near = best is not None and best.share > 0.5
    computed = [match for match in matches if match.computed]
    return Explanation(
        cause=None,
        share=best.share if best is not None and near else 0.0,
        exact=False,
        alternatives=(),
        nearest=best.known.name if best is not None and near else None,
        factors=f"{fit} (explains {100 * fit.share:.0f} %)" if fit is not None and fit.share > 0.5 else "",
        compared=len(computed),
        uncomputed=sum(not match.computed and not match.known.factor for match in matches),
        left_out=left_out,
        unseen=tuple(match.known.name for match in computed if match.unseen),
    )


def _rounding(seen: Sequence[Seen]) -> str | None:
    """What a difference that is small everywhere looks like."""
    relative = max(float(np.abs(entry.difference).max()) / _size(entry) for entry in seen if entry.off)
    if _sampled(seen) or not 0.0 < relative < SINGLE:
        return None
    digits = -np.log10(relative)
    what = "single precision?" if digits < 8.5 else "a solver or a sum that stops early?"
    return f"agrees to {digits:.0f} digits: {what}"


def _size(entry: Seen) -> float:
    """The largest entry of any part."""
    return max(np.finfo(np.float64).tiny, *(float(np.abs(part).max()) for part in entry.at.truth.parts.values()))


def _relative_size(entry: Seen) -> float:
    size = max(float(np.linalg.norm(entry.at.truth.value)), np.finfo(np.float64).tiny)
    return float(np.linalg.norm(entry.difference)) / size
