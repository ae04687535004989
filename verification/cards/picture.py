"""The picture of a card as SVG text, without any library: bias by part on every scenario, and draws for a tenth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bilevelrl.verification.cards.card import Place
from bilevelrl.verification.cards.content import count_text, size

__all__ = ["card_picture"]

_ROW, _CELL, _NAMES, _BARS = 17, 62, 215, 220
_NONE, _UNKNOWN = "#d9efe3", "#eceeef"
_RAMP = ((1e-3, "#fdeec7"), (1e-2, "#f9d49b"), (1e-1, "#f2a97c"), (0.5, "#e07a5f"), (math.inf, "#b3261e"))
"""Up to which size, relative to the truth, a bias has a colour."""


def card_picture(places: Sequence[Place]) -> str:
    """Return the picture of the scenarios on which a mean is known.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.cards import make_card
    >>> card = make_card("naive_pgd", on=[scenario("toll")], mistakes=False)
    >>> picture = card_picture(card.places)
    >>> picture.startswith("<svg"), "19.1 ×" in picture
    (True, True)
    """
    known = [place for place in places if place.computed]
    parts = list(dict.fromkeys(part for place in known for part in place.parts))
    columns = ["all", *parts]
    top = 44
    bars = _NAMES + _CELL * len(columns) + 16
    width, height = bars + _BARS + 70, top + _ROW * len(known) + 26
    shapes = [
        _text(_NAMES, 14, "Bias, relative to the truth, in all and by part", weight="600"),
        _text(bars, 14, "Draws for an error of 10 %", weight="600"),
    ]
    shapes += [_text(_NAMES + _CELL * (i + 0.5), 34, name, anchor="middle") for i, name in enumerate(columns)]
    most = max((place.draws_for_tenth or 1.0 for place in known), default=1.0)
    decades = max(1, math.ceil(math.log10(max(most, 10.0))))
    for decade in range(decades + 1):
        x = bars + _BARS * decade / decades
        shapes.append(_line(x, top - 4, x, top + _ROW * len(known)))
        shapes.append(_text(x, 34, f"{10**decade:,}" if decade < 5 else f"1e{decade}", anchor="middle"))
    for i, place in enumerate(known):
        y = top + _ROW * i
        shapes.append(_text(_NAMES - 8, y + 12, _short(place.scenario), anchor="end"))
        for j, part in enumerate(columns):
            found = place.bias if part == "all" else place.parts.get(part)
            shapes.append(_cell(_NAMES + _CELL * j, y, found, place.would_see or 0.0))
        if place.draws_for_tenth is None:
            shapes.append(_text(bars + 4, y + 12, "never" if place.truth_norm else "the truth is zero", fill="#8c1d18"))
        else:
            long = _BARS * math.log10(max(place.draws_for_tenth, 1.0)) / decades
            shapes.append(_rect(bars, y + 3, max(long, 1.0), _ROW - 6, "#1b6ca8"))
            shapes.append(_text(bars + long + 5, y + 12, count_text(place.draws_for_tenth)))
    shapes.append(
        _text(
            _NAMES,
            height - 6,
            "Green: none, up to rounding. Grey: the estimator does not tell its parts.",
            fill="#5b6670",
        )
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="system-ui, DejaVu Sans, sans-serif" font-size="11" role="img" '
        'aria-label="Bias by part and draws for a tenth, scenario by scenario">'
    )
    return "\n".join([head, *shapes, "</svg>"])


def _cell(x: float, y: float, found: float | None, seen: float) -> str:
    if found is None:
        return _rect(x + 1, y + 1, _CELL - 2, _ROW - 2, _UNKNOWN)
    if found <= seen:
        return _rect(x + 1, y + 1, _CELL - 2, _ROW - 2, _NONE)
    colour = next(colour for limit, colour in _RAMP if found <= limit)
    ink = "#ffffff" if colour == _RAMP[-1][1] else "#1d2327"
    box = _rect(x + 1, y + 1, _CELL - 2, _ROW - 2, colour)
    return box + _text(x + _CELL / 2, y + 12, size(found), anchor="middle", fill=ink)


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.4g}" height="{height:g}" fill="{fill}"/>'


def _line(x: float, y: float, x2: float, y2: float) -> str:
    return f'<line x1="{x:.5g}" y1="{y:g}" x2="{x2:.5g}" y2="{y2:g}" stroke="#e3e6e8"/>'


def _text(x: float, y: float, said: str, *, anchor: str = "start", fill: str = "#1d2327", weight: str = "400") -> str:
    return (
        f'<text x="{x:.5g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{escape(said)}</text>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:32]}…"
