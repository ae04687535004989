"""Slips that are in no list: numbers fitted into one blank of a form, and held against every difference.

A mean is linear in what stands in a blank. So without a list it can be asked whether all differences come from one
blank: other weights of steps, the same multiples of the right ones on all scenarios; another discount in them; a
mixture of two entries instead of the right one; a temperature with a constant; parts of the problem that never meet
(contexts) counted in another way. Every number that is fitted is paid for in what an agreement is worth (`chance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.causes.contexts import LONGEST, Effect, Fitted, counted_contexts, in_words, solved
from bilevelrl.verification.causes.forms.blanks import ALONE
from bilevelrl.verification.causes.known import FormKind, Setting, form_effect, form_kind, right_part
from bilevelrl.verification.causes.matching import Limit, Seen

__all__ = ["fitted_causes"]

WEIGHTS = ("direct", "moving", "guiding", "weight")
SUMS = ("reward_sums", "score_sums", "sums")

DISCOUNTS: Mapping[str, Callable[[float, float], float]] = {
    "√γ_L": lambda own, other: own**0.5,
    "√γ_F": lambda own, other: other**0.5,
    "((γ_L+γ_F)/2)": lambda own, other: 0.5 * (own + other),
    "√(γ_L γ_F)": lambda own, other: (own * other) ** 0.5,
    "max(γ_L, γ_F)": max,
    "min(γ_L, γ_F)": min,
    "(1-γ_L)": lambda own, other: 1.0 - own,
    "(1-γ_F)": lambda own, other: 1.0 - other,
}
"""Other discounts, of both players'."""


def fitted_causes(seen: Sequence[Seen], limit: Limit) -> list[Fitted]:
    """Return what agrees with every difference, fewest numbers first.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.causes.forms.configurable import Form
    >>> def off(name):
    ...     at = Setting.of(scenario(name), scenario(name).truth)
    ...     effect = 0.3 * form_effect(Form(benefit="Q_L"), at)
    ...     return Seen(at=at, difference=effect, slack=np.full(effect.size, 1e-12))
    >>> fitted_causes([off(name) for name in ("a parameter per pair", "layered")], Limit(seconds=60.0))[0].name
    '0.7 × (Q_L - V_L) + 0.3 × Q_L instead of Q_L - V_L in the guiding term'
    """
    kind_of_problem: Any = type(seen[0].at.on.problem)
    kind = form_kind(kind_of_problem)
    found = [_decay(seen), *counted_contexts(seen)]
    if kind is not None:
        found += [*_temperature(kind, seen)]
        for look in (_mixtures, _weights):
            found += look(kind, seen, limit)
    agreeing = [one for one in found if one is not None and _agrees(one.effect, seen)]
    return sorted(agreeing, key=lambda one: one.free)


def _agrees(effect: Effect, seen: Sequence[Seen]) -> bool:
    for entry in seen:
        found = effect(entry.at)
        if found is None or not np.isfinite(found).all() or not entry.fits(found):
            return False
    return True


def _effects(effect: Effect, seen: Sequence[Seen]) -> list[FloatArray] | None:
    """An effect on each scenario; None where it is not known on one, or is nowhere any."""
    found = [effect(entry.at) for entry in seen]
    known = [one for one in found if one is not None and np.isfinite(one).all()]
    return known if len(known) == len(found) and any(one.any() for one in known) else None


def _shown(effects: list[FloatArray] | None, seen: Sequence[Seen]) -> list[FloatArray] | None:
    """Effects that a difference would tell from nothing."""
    if effects is None:
        return None
    told = any((np.abs(one) > 100.0 * entry.slack).any() for one, entry in zip(effects, seen, strict=True))
    return effects if told else None


def _combined(effects: Sequence[Effect], numbers: Sequence[float], at: Setting) -> FloatArray | None:
    total: FloatArray = np.zeros(at.truth.value.size)
    for effect, number in zip(effects, numbers, strict=True):
        one = effect(at)
        if one is None:
            return None
        total = total + number * one
    return total


def _decay(seen: Sequence[Seen]) -> Fitted | None:
    """A multiple of θ itself."""

    def theta(at: Setting) -> FloatArray:
        return np.asarray(at.on.theta, dtype=np.float64).ravel()

    columns = _effects(theta, seen)
    found = None if columns is None else solved([columns], seen)
    if found is None:
        return None
    effect = partial(_combined, [theta], found[0].tolist())
    return Fitted(name=f"{in_words(found[0][0])} θ is added", effect=effect, free=1)


def _temperature(kind: FormKind, seen: Sequence[Seen]) -> Iterator[Fitted]:
    """1/(β + c) or 1/max(β, c) for the response's 1/β, c read off the largest difference."""
    entry = seen[0]
    response = entry.at.truth.parts.get("response")
    if response is None or not response.any():
        return
    factor = 1.0 + float(entry.difference @ response) / float(response @ response)
    own = float(entry.at.on.problem.temperature)
    if not factor > 0.0:
        return
    at_least, more = own / factor, own / factor - own

    def scaled(to: Callable[[float], float], at: Setting) -> FloatArray:
        beta = float(at.on.problem.temperature)
        return np.asarray((beta / to(beta) - 1.0) * at.truth.parts["response"])

    names: dict[str, Callable[[float], float]] = {
        f"1/(β {'+' if more > 0.0 else '-'} {in_words(abs(more))})": lambda beta: beta + more,
        f"1/max(β, {in_words(at_least)})": lambda beta: max(beta, at_least),
        f"1/min(β, {in_words(at_least)})": lambda beta: min(beta, at_least),
        f"1/{in_words(at_least)}": lambda beta: at_least,
    }
    for name, to in names.items():
        yield Fitted(name=f"{name} instead of 1/β in the response", effect=partial(scaled, to), free=1)


def _mixtures(kind: FormKind, seen: Sequence[Seen], limit: Limit) -> Iterator[Fitted]:
    """One other entry, or two, with numbers before them."""
    for blank, entries in kind.blanks.items():
        right = getattr(kind.form, blank)
        if limit.over or blank in (*WEIGHTS, *SUMS) or blank not in kind.places or not kind.places[blank]:
            continue
        effects: dict[str, Effect] = {"": partial(_nothing, kind, blank)}
        for name in entries:
            if name not in (right, "0"):
                effects[name] = partial(form_effect, type(kind.form)(**{blank: name}))
        known: dict[str, list[FloatArray]] = {}
        for name, one in effects.items():
            found = _effects(one, seen)
            if found is not None and not any(_alike(found, other) for other in known.values()):
                known[name] = found
        for names in _nearest(known, seen):
            fit = solved([known[name] for name in names], seen)
            if fit is None:
                continue
            numbers = fit[0]
            left = 1.0 - float(numbers.sum())
            told = [(left, right), *((float(n), name) for n, name in zip(numbers, names, strict=True))]
            words = " + ".join(_term(n, name) for n, name in told if name and abs(n) > 1e-9).replace("+ -", "- ")
            yield Fitted(
                name=f"{words or '0'} instead of {right} {kind.places[blank]}",
                effect=partial(_combined, [effects[name] for name in names], numbers.tolist()),
                free=len(names),
            )


def _alike(one: Sequence[FloatArray], other: Sequence[FloatArray]) -> bool:
    return all(np.allclose(x, y, rtol=1e-9, atol=1e-13) for x, y in zip(one, other, strict=True))


def _term(number: float, name: str) -> str:
    bracketed = f"({name})" if " - " in name or " + " in name else name
    if abs(abs(number) - 1.0) < 1e-9:
        return name if number > 0.0 else f"-{bracketed}"
    return f"{in_words(number)} × {bracketed}"


def _nothing(kind: FormKind, blank: str, at: Setting) -> FloatArray | None:
    """The effect of nothing in a blank."""
    parts = [right_part(kind, at, part) for part in kind.parts_of[blank]]
    known = [part for part in parts if part is not None]
    return -np.sum(known, axis=0) if len(known) == len(parts) else None


def _nearest(known: Mapping[str, list[FloatArray]], seen: Sequence[Seen]) -> list[tuple[str, ...]]:
    """Single entries and pairs that leave less than 1e-6 of the differences, by their scalar products."""
    if not known:
        return []
    names = list(known)
    size = [float(np.linalg.norm(entry.difference if entry.off else entry.at.truth.value)) or 1.0 for entry in seen]
    table = np.array([np.concatenate([x / s for x, s in zip(known[name], size, strict=True)]) for name in names])
    wanted = np.concatenate([entry.difference / s for entry, s in zip(seen, size, strict=True)])
    total, product, gram = float(wanted @ wanted), table @ wanted, table @ table.T
    allowed = 1e-6 * total + float(sum(np.sum((e.slack / s) ** 2) for e, s in zip(seen, size, strict=True)))
    found: list[tuple[str, ...]] = [
        (names[i],) for i in range(len(names)) if gram[i, i] > 0 and total - product[i] ** 2 / gram[i, i] <= allowed
    ]
    if found:
        return found
    for i, j in combinations(range(len(names)), 2):
        determinant = gram[i, i] * gram[j, j] - gram[i, j] ** 2
        if determinant <= 1e-10 * gram[i, i] * gram[j, j]:
            continue
        explained = (
            product[i] ** 2 * gram[j, j] - 2.0 * product[i] * product[j] * gram[i, j] + product[j] ** 2 * gram[i, i]
        ) / determinant
        if total - explained <= allowed:
            found.append((names[i], names[j]))
    return found


def _weights(kind: FormKind, seen: Sequence[Seen], limit: Limit) -> Iterator[Fitted]:
    """Other weights of steps, or in a suffix by how far on a step is."""
    steps = max(entry.at.steps for entry in seen)
    if steps > LONGEST:
        return
    groups = {blanks: place for blanks, place in kind.together.items() if set(blanks) <= {*WEIGHTS, *SUMS}}
    groups |= {(blank,): kind.places[blank] for blank in (*WEIGHTS, *SUMS) if blank in kind.blanks}
    for blanks, place in groups.items():
        if limit.over:
            return
        each = _Steps(kind=kind, blanks=blanks, steps=steps)
        known = [_shown(_effects(partial(each.right, j), seen), seen) for j in range(steps)]
        if not any(known):
            continue
        where = f"instead of {getattr(kind.form, blanks[0])} {place}"
        there = [j for j, one in enumerate(known) if one is not None]
        fit = solved([one for one in known if one is not None], seen)
        if fit is not None:
            for name, multiples in _multiples(1.0 + fit[0], fit[1], there, each.step, steps).items():
                fitted = len(there) if name.startswith("(") else 1
                effect = partial(each.effect, partial(each.multiplied, multiples))
                yield Fitted(name=f"{getattr(kind.form, blanks[0])} × {name} {where}", effect=effect, free=fitted)
        yield from _discounts(each, where, seen[0])


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Weights of steps, or of lags, in blanks that are filled alike.

    Attributes
    ----------
    kind, blanks
        Of which form, and which.
    steps : int
        Of the longest scenario.
    """

    kind: FormKind
    blanks: Sequence[str]
    steps: int

    @property
    def lags(self) -> bool:
        """Whether they are those of a suffix."""
        return self.blanks[0] in SUMS

    @property
    def step(self) -> str:
        """What a step, or a lag, is called."""
        return "k-t" if self.lags else "t"

    def base(self, own: float, other: float) -> float:
        """The right discount."""
        return other if self.lags else own

    def multiplied(self, multiples: FloatArray, own: float, other: float, place: int) -> float:
        """The right weight of a step times a number."""
        return self.base(own, other) ** place * float(multiples[place])

    def unit(self, place: int, at: Setting) -> FloatArray | None:
        """What weight 1 of one step adds to the mean."""
        form = type(self.kind.form)
        ones = next(name for name in self.kind.blanks[self.blanks[0]] if name == "1" or name.startswith("1 from"))
        one, nothing = (
            form_effect(form(**dict.fromkeys(self.blanks, f"{ones}{ALONE}{j}")), at) for j in (place, at.steps)
        )
        return None if one is None or nothing is None else one - nothing

    def effect(self, weight: Callable[[float, float, int], float], at: Setting) -> FloatArray | None:
        """What other weights (γ_L, γ_F, step) → number add to a right mean."""
        own, other = float(at.on.problem.discount_leader), float(at.on.problem.discount_follower)
        places = range(min(at.steps, self.steps))
        numbers = [weight(own, other, j) - self.base(own, other) ** j for j in places]
        return _combined([partial(self.unit, j) for j in places], numbers, at)

    def right(self, place: int, at: Setting) -> FloatArray | None:
        """What one step adds to a right mean."""
        own, other = float(at.on.problem.discount_leader), float(at.on.problem.discount_follower)
        unit = self.unit(place, at) if place < at.steps else np.zeros(at.truth.value.size)
        return None if unit is None else self.base(own, other) ** place * unit


def _multiples(
    numbers: FloatArray, errors: FloatArray, there: Sequence[int], step: str, steps: int
) -> dict[str, FloatArray]:
    """{words: multiples of the right weights}: some law of steps, and the numbers themselves."""
    place = np.arange(steps, dtype=np.float64)
    found: dict[str, FloatArray] = {f"1/({step}+1)": 1.0 / (place + 1.0), f"({step}+1)": place + 1.0}
    if numbers.size > 1 and numbers[0] > 0.0 and numbers[1] > 0.0:
        rate = float(numbers[1] / numbers[0]) ** (1.0 / (there[1] - there[0]))
        first = float(numbers[0]) / rate ** there[0]
        if abs(first - 1.0) < 1e-6:
            found[f"{in_words(rate)}^({step})"] = rate**place
    shown = ", ".join(
        in_words(round(float(number), min(6, int(-np.log10(max(error, 1e-9))))) + 0.0) if error < 0.05 else "?"
        for number, error in zip(numbers[:6], errors, strict=False)
    )
    told = np.ones(steps)
    told[list(there)] = numbers
    found[f"({shown}{', …' if numbers.size > 6 else ''} for {step} = {there[0]}, {there[0] + 1}, …)"] = told
    return found


def _discounts(each: _Steps, where: str, entry: Seen) -> Iterator[Fitted]:
    """Powers of another discount for those of the right one."""
    right = "γ_F" if each.lags else "γ_L"

    def powers(of: Callable[[float, float], float]) -> Effect:
        return partial(each.effect, lambda own, other, j: of(own, other) ** j)

    for name, of in DISCOUNTS.items():
        yield Fitted(name=f"{name}^({each.step}) {where}", effect=powers(of), free=0)
    for x in _constants(each, entry):
        yield Fitted(name=f"{in_words(x)}^({each.step}) {where}", effect=powers(partial(_always, x)), free=1)
        for word, choose in (("min", min), ("max", max)):
            bounded = powers(partial(_bounded, each, choose, x))
            yield Fitted(name=f"{word}({right}, {in_words(x)})^({each.step}) {where}", effect=bounded, free=1)


def _always(number: float, own: float, other: float) -> float:
    return number


def _bounded(each: _Steps, choose: Callable[[float, float], float], number: float, own: float, other: float) -> float:
    return choose(each.base(own, other), number)


def _constants(each: _Steps, entry: Seen) -> list[float]:
    """Discounts with which the largest entry of a difference agrees."""
    own, other = float(entry.at.on.problem.discount_leader), float(entry.at.on.problem.discount_follower)
    place, right = int(np.argmax(np.abs(entry.difference))), each.base(own, other)
    units = [each.unit(j, entry.at) for j in range(entry.at.steps)]
    numbers = np.array([0.0 if unit is None else unit[place] for unit in units])
    if not numbers[1:].any():
        return []
    numbers[0] -= float(entry.difference[place]) + float(numbers @ right ** np.arange(len(numbers)))
    roots = np.roots(np.trim_zeros(numbers[::-1], "f"))
    return [float(x.real) for x in roots if abs(x.imag) < 1e-9 and 0.0 < x.real < 2.0]
