"""A factor per part by least squares, and the symbols that have the factors' values on every scenario.

An estimate that multiplies part p by c_p is off by Σ_p (c_p - 1) part_p. The factors that fit best over all scenarios
are told; where each scenario determines its own, one symbol must have the right value in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import Scenario
from bilevelrl.verification.causes.known import Setting
from bilevelrl.verification.causes.matching import Seen
from bilevelrl.verification.causes.symbols import SYMBOLS, missing_from, named_factor

__all__ = ["Factors", "fit_factors"]

CONDITION = 1e6


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What was found.

    Attributes
    ----------
    values : {part: float}
        The same everywhere, by least squares; nan where it is not determined.
    errors : {part: float}
        How far each may be off, as the differences are known.
    share : float
        Of the squared differences that these explain.
    agrees : bool
        Whether factors, as `named` has them, agree with every difference.
    named : {part: str}
        Symbols, or numbers, of the factors that are not one.
    free : int
        How many numbers were fitted, beside symbols.
    """

    values: Mapping[str, float]
    errors: Mapping[str, float]
    share: float
    agrees: bool
    named: Mapping[str, str]
    free: int

    def effect(self, at: Setting) -> FloatArray | None:
        """Return what the named factors add, (N,); None where a symbol has no value."""
        given: Mapping[str, FloatArray] = {str(part): value for part, value in at.truth.parts.items()}
        total: FloatArray = np.zeros(at.truth.value.size)
        for part, symbol in self.named.items():
            factor = SYMBOLS[symbol](at.on) if symbol in SYMBOLS else self.values[part]
            if not np.isfinite(factor):
                return None
            total = total + (factor - 1.0) * given.get(part, np.zeros(total.size))
        return total

    def __str__(self) -> str:
        """Factors in words: "response × 0.500, the rest × 1"."""
        told = [
            f"{part} × {value:.3g}" + (f" ± {self.errors[part]:.1g}" if self.errors[part] > 1e-6 * abs(value) else "")
            for part, value in self.values.items()
            if np.isfinite(value) and abs(value - 1.0) > max(5e-4, self.errors[part])
        ]
        return ", ".join([*told, "the rest × 1"]) if told else "every part × 1"

    @property
    def cause(self) -> str:
        """The factors as a cause."""
        return " and ".join(missing_from(f"the {part} part", symbol) for part, symbol in self.named.items())


def fit_factors(seen: Sequence[Seen]) -> Factors:
    """Return the factors of the parts that fit differences best.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.causes.known import Setting
    >>> def off(name):
    ...     on = scenario(name)
    ...     response = (on.problem.discount_follower - 1.0) * on.truth.parts["response"]
    ...     return Seen(at=Setting.of(on, on.truth), difference=response - 0.5 * on.truth.parts["direct"],
    ...                 slack=np.full(response.size, 1e-12))
    >>> found = fit_factors([off(name) for name in ("a parameter per pair", "shared purse")])
    >>> found.agrees, dict(found.named)
    (True, {'direct': '½', 'response': 'γ_F'})
    """
    parts = list(
        dict.fromkeys(str(part) for entry in seen for part, value in entry.at.truth.parts.items() if value.any())
    )
    values, errors = _least_squares(parts, seen)
    share = _share(seen, values)
    constant = {
        part: named_factor({entry.at.on: values[part] for entry in seen}, max(1e-9, 4.0 * errors[part]))
        or f"{values[part]:.6g}"
        for part in parts
        if np.isfinite(values[part]) and abs(values[part] - 1.0) > max(1e-9, 4.0 * errors[part])
    }
    if constant and _agrees(seen, {part: dict.fromkeys(_places(seen), values[part]) for part in constant}):
        free = sum(symbol not in SYMBOLS for symbol in constant.values())
        return Factors(values=values, errors=errors, share=share, agrees=True, named=constant, free=free)
    named = _by_symbols(parts, seen)
    agrees = named is not None and _agrees(
        seen, {part: {on: SYMBOLS[symbol](on) for on in _places(seen)} for part, symbol in named.items()}
    )
    return Factors(values=values, errors=errors, share=share, agrees=agrees, named=named or {}, free=0)


def _places(seen: Sequence[Seen]) -> list[Scenario]:
    return [entry.at.on for entry in seen]


def _columns(parts: Sequence[str], entry: Seen) -> FloatArray:
    given: Mapping[str, FloatArray] = {str(part): value for part, value in entry.at.truth.parts.items()}
    columns = [given.get(part, np.zeros(entry.difference.size)) for part in parts]
    return np.reshape(columns, (len(parts), entry.difference.size)).T  # also where no part is there


def _least_squares(parts: Sequence[str], seen: Sequence[Seen]) -> tuple[dict[str, float], dict[str, float]]:
    """Factors that are the same everywhere, each scenario in units of its largest difference."""
    rows, wanted, known_to = [], [], []
    for entry in seen:
        told = np.isfinite(entry.slack)
        if not told.any():
            continue
        slack, difference = entry.slack[told], entry.difference[told]
        size = max(float(np.abs(entry.at.truth.value).max()), float(np.abs(difference).max()), 1e-300)
        weight = 1.0 / np.maximum(slack, 1e-9 * size)
        weight = weight / weight.max() / size
        rows.append(_columns(parts, entry)[told] * weight[:, None])
        wanted.append(difference * weight)
        known_to.append(slack * weight)
    if not rows:
        return dict.fromkeys(parts, np.nan), dict.fromkeys(parts, np.nan)
    table, right, slack = np.concatenate(rows), np.concatenate(wanted), np.concatenate(known_to)
    return _solved(parts, table, right, slack)


def _solved(
    parts: Sequence[str], table: FloatArray, right: FloatArray, slack: FloatArray
) -> tuple[dict[str, float], dict[str, float]]:
    """{part: 1 + coefficient} and {part: error}, nan where the parts at hand do not determine it."""
    norms = np.linalg.norm(table, axis=0)
    there = norms > 1e-12 * max(norms.max(initial=0.0), 1e-300)
    values, errors = dict.fromkeys(parts, np.nan), dict.fromkeys(parts, np.nan)
    if not there.any():
        return values, errors
    scaled = table[:, there] / norms[there]
    if np.linalg.cond(scaled) > CONDITION or scaled.shape[0] < scaled.shape[1]:
        return values, errors
    inverse = np.linalg.pinv(scaled)
    found = inverse @ right / norms[there]
    error = np.abs(inverse) @ slack / norms[there]
    for part, value, known_to in zip(np.array(parts)[there], found, error, strict=True):
        values[str(part)], errors[str(part)] = 1.0 + float(value), float(known_to)
    return values, errors


def _by_symbols(parts: Sequence[str], seen: Sequence[Seen]) -> dict[str, str] | None:
    """A symbol per part with the right value on every scenario that determines it; None where there is none."""
    found: dict[str, dict[Scenario, float]] = {part: {} for part in parts}
    loosest = dict.fromkeys(parts, 1e-9)
    for entry in seen:
        told = np.isfinite(entry.slack)
        values, errors = _solved(parts, _columns(parts, entry)[told], entry.difference[told], entry.slack[told])
        for part, value in values.items():
            if np.isfinite(value) and errors[part] < 0.05 * max(1.0, abs(value)):
                found[part][entry.at.on] = value
                loosest[part] = max(loosest[part], 4.0 * errors[part])
    named: dict[str, str] = {}
    for part, values_there in found.items():
        if all(abs(value - 1.0) <= loosest[part] for value in values_there.values()):
            continue
        symbol = named_factor(values_there, loosest[part])
        if symbol is None:
            return None
        named[part] = symbol
    return named or None


def _agrees(seen: Sequence[Seen], factors: Mapping[str, Mapping[Scenario, float]]) -> bool:
    for entry in seen:
        given: Mapping[str, FloatArray] = {str(part): value for part, value in entry.at.truth.parts.items()}
        effect = np.zeros(entry.difference.size)
        for part, values in factors.items():
            factor = values[entry.at.on]
            if not np.isfinite(factor):
                return False
            effect = effect + (factor - 1.0) * given.get(part, np.zeros(effect.size))
        if not entry.fits(effect):
            return False
    return True


def _share(seen: Sequence[Seen], values: Mapping[str, float]) -> float:
    shares = []
    for entry in seen:
        size = float(np.sum(entry.difference**2))
        if entry.off and size > 0.0:
            left = entry.difference - sum(
                (
                    (values[str(part)] - 1.0) * value
                    for part, value in entry.at.truth.parts.items()
                    if np.isfinite(values.get(str(part), np.nan))
                ),
                np.zeros(entry.difference.size),
            )
            shares.append(max(0.0, 1.0 - float(np.sum(left**2)) / size))
    return float(np.mean(shares)) if shares else 0.0
