"""What fitted numbers say; and contexts, parts of a problem that never meet, each counted by a number of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.causes.forms.configurable import Form, expected
from bilevelrl.verification.causes.forms.model import Model
from bilevelrl.verification.causes.known import Setting
from bilevelrl.verification.causes.matching import Seen

__all__ = ["LONGEST", "Effect", "Fitted", "context_means", "counted_contexts", "in_words", "solved"]

Effect = Callable[[Setting], FloatArray | None]

LONGEST = 40
"""Steps whose weights are fitted one by one."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What numbers in a blank say.

    Attributes
    ----------
    name : str
        In the words of a message.
    effect : function
        (setting) → (N,), None where the numbers do not say.
    free : int
        How many numbers were fitted.
    """

    name: str
    effect: Effect
    free: int


def solved(columns: Sequence[Sequence[FloatArray]], seen: Sequence[Seen]) -> tuple[FloatArray, FloatArray] | None:
    """Return coefficients of columns, each a list of (N,) by scenario, by least squares, and what each is known to."""
    slack = np.concatenate([entry.slack for entry in seen])
    wanted = np.concatenate([entry.difference for entry in seen])
    told = np.isfinite(slack)
    weight = 1.0 / np.maximum(slack[told], 1e-12 * np.abs(wanted).max(initial=1e-300))
    table = np.array([np.concatenate(column) for column in columns]).T[told] * weight[:, None]
    norms = np.linalg.norm(table, axis=0)
    if not np.isfinite(norms).all() or not norms.any():
        return None
    scaled = table / np.where(norms > 0.0, norms, 1.0)
    length = np.where(norms > 0.0, norms, 1.0)
    found = np.linalg.lstsq(scaled, wanted[told] * weight, rcond=1e-10)[0]
    errors = np.abs(np.linalg.pinv(scaled, rcond=1e-10)) @ (slack[told] * weight)
    return found / length, errors / length


def in_words(value: float) -> str:
    """Return a fitted number with four digits."""
    return f"{value:.4g}"


def counted_contexts(seen: Sequence[Seen]) -> Iterator[Fitted]:
    """Parts of a problem that never meet, each counted by a number of its own; the regulariser as well, or right."""
    if not all(isinstance(entry.at.on.problem, ConfigurableMDP) for entry in seen):
        return
    for regulariser in (False, True):
        numbers: dict[Any, FloatArray] = {}
        for entry in seen:
            columns = context_means(entry.at, regulariser=regulariser)
            found = None if columns is None or len(columns) < 2 else solved([[one] for one in columns], [entry])
            if found is None:
                return
            numbers[entry.at.on] = found[0]
        shares = [np.array(_shares(entry.at)) for entry in seen]
        taken = [share * (1.0 + numbers[entry.at.on]) for share, entry in zip(shares, seen, strict=True)]
        yield Fitted(
            name=f"contexts, parts of the problem that never meet, count {_counted(taken, shares)}",
            effect=partial(_recounted, numbers, regulariser),
            free=sum(len(found) for found in numbers.values()),
        )


def _recounted(numbers: Mapping[Any, FloatArray], regulariser: bool, at: Setting) -> FloatArray | None:
    columns = context_means(at, regulariser=regulariser)
    if columns is None or at.on not in numbers:
        return None
    return np.asarray(numbers[at.on] @ np.array(columns))


def _counted(taken: Sequence[FloatArray], shares: Sequence[FloatArray]) -> str:
    """How contexts are counted, in words."""
    if all(np.ptp(one) < 1e-6 for one in taken):
        return "all alike, and not by their weights"
    if all(np.allclose(one, share**2, atol=1e-6) for one, share in zip(taken, shares, strict=True)):
        return "by the square of their weights"
    left = [np.flatnonzero(np.abs(one) < 1e-6).tolist() for one in taken]
    if left[0] and all(one == left[0] for one in left):
        return f"by their weights, but for number {', '.join(str(one + 1) for one in left[0])}, which is left out"
    return f"by {', '.join(map(in_words, taken[0]))} instead of {', '.join(map(in_words, shares[0]))}"


def _blocks(at: Setting) -> list[FloatArray]:
    """States of each part that never meets another and where streams begin, as masks (S,)."""
    tables = at.on.problem.tables_at(at.on.theta)
    kernel = np.asarray(tables.transition.sum(axis=1) if isinstance(tables.transition, np.ndarray) else np.zeros(1))
    if kernel.ndim != 2:
        return []
    linked = (kernel > 0.0) | (kernel.T > 0.0) | np.eye(len(kernel), dtype=bool)
    left, found = set(range(len(kernel))), []
    while left:
        block = np.zeros(len(kernel), dtype=bool)
        block[min(left)] = True
        while (grown := linked[block].any(axis=0) | block).sum() > block.sum():
            block = grown
        left -= set(np.flatnonzero(block).tolist())
        if np.asarray(tables.initial)[block].sum() > 0.0:
            found.append(block)
    return found


def _shares(at: Setting) -> list[float]:
    initial = np.asarray(at.on.problem.tables_at(at.on.theta).initial)
    return [float(initial[block].sum()) for block in _blocks(at)]


def context_means(at: Setting, *, regulariser: bool) -> list[FloatArray] | None:
    """Return what each part of a problem that never meets another adds to a right mean, with its share of ∇ρ or not."""
    if at.style is None or at.steps > LONGEST:
        return None
    whole = Model(on=at.on, style=at.style, steps=at.steps)
    paid = float(regulariser) * at.truth.parts.get("regulariser", np.zeros(at.truth.value.size))
    blocks = zip(_blocks(at), _shares(at), strict=True)
    return [at.scale * _from(whole, block) + share * paid for block, share in blocks]


def _from(whole: Model, block: FloatArray) -> FloatArray:
    """The mean over streams that begin in a block."""
    tables = whole.tables
    own = replace(tables, initial=tables.initial * block, d_initial=tables.d_initial * block[:, None])
    one = Model(on=whole.on, style=whole.style, steps=whole.steps)
    vars(one)["tables"] = own
    vars(one)["solved"] = whole.solved
    parts = expected(Form(), one)
    return np.asarray(np.sum([value for part, value in parts.items() if part != "regulariser"], axis=0))
