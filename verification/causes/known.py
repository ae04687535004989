"""Every known mistake of a kind of problem, and what it adds to a right mean on a scenario.

Factors of parts come first, then wrong entries of the forms of `configurable`, `games` and `quadratic`; what is written
into several blanks at once, as γ_F^t instead of γ_L^t throughout, is one mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import GAME_PARTS, INFINITE_HORIZON, PARTS, Part
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.causes.forms.blanks import Style
from bilevelrl.verification.causes.forms.configurable import PARTS_OF, Form, expected_part
from bilevelrl.verification.causes.forms.entries import BLANKS
from bilevelrl.verification.causes.forms.games import GAME_BLANKS, GAME_PARTS_OF, GameForm, GameModel, game_part
from bilevelrl.verification.causes.forms.model import LARGEST, Model
from bilevelrl.verification.causes.forms.quadratic import (
    KINKED,
    POLYNOMIAL,
    PURSUIT_BLANKS,
    PURSUIT_PARTS_OF,
    QUADRATIC_BLANKS,
    QUADRATIC_PARTS_OF,
    Paths,
    PursuitForm,
    QuadraticForm,
    quadratic_part,
)
from bilevelrl.verification.causes.symbols import SYMBOLS, missing_from
from bilevelrl.verification.checks.truncation import truncated_truths

__all__ = ["FormKind", "Known", "Setting", "form_effect", "form_kind", "known_mistakes", "right_part"]

LONGEST = 400
"""Steps that stand for an infinite horizon."""

AnyForm: TypeAlias = Form | GameForm | QuadraticForm | PursuitForm


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A scenario and the truth that an estimate is held against there, and what of a form they ask.

    Attributes
    ----------
    on, truth
        Where, and against what.
    style : str or None
        What right is where streams are cut; None: not known, and forms say nothing.
    steps : int
        T.
    tail : float
        What forms leave out, relative to what they say.
    scale : float
        How many episodes a row adds up.
    """

    on: Scenario
    truth: Truth
    style: Style | None
    steps: int
    tail: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, on: Scenario, truth: Truth) -> Setting:
        """Find out which truth it is; of several episodes, whether of their mean or their sum."""

        def times(other: Truth) -> float:
            """How many times another truth it is, but for the regulariser; 0: none."""
            one, all_of_it = _without_regulariser(other), _without_regulariser(truth)
            for scale in {1.0, float(on.episodes)}:
                if np.allclose(all_of_it, scale * one, rtol=1e-12, atol=0.0):
                    return scale
            return 0.0

        if on.ends:
            scale = times(on.truth) or 1.0
            return cls(on=on, truth=truth, style="critic", steps=on.horizon, scale=scale)

        styles: Mapping[str, Style] = {
            "with a critic for the rest of the return": "critic",
            f"for the objective of {on.horizon} steps": "steps",
        }
        cuts = truncated_truths(on, INFINITE_HORIZON)
        for said in styles.keys() & cuts.keys():
            if scale := times(cuts[said]):
                return cls(on=on, truth=truth, style=styles[said], steps=on.horizon, scale=scale)
        for objective in (*on.truths, *on.computed):
            if objective.discounted and times(on.truth_of(objective)) == 1.0:
                if objective.horizon is not None:
                    return cls(on=on, truth=truth, style="steps", steps=objective.horizon)
                slowest = max(float(on.problem.discount_leader), float(on.problem.discount_follower), 1e-3)
                steps = min(LONGEST, math.ceil(-25.0 / math.log(slowest)))
                return cls(on=on, truth=truth, style="critic", steps=steps, tail=slowest**steps)
        return cls(on=on, truth=truth, style=None, steps=on.horizon)


def _without_regulariser(truth: Truth) -> FloatArray:
    return truth.value - truth.parts.get("regulariser", 0.0)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A known mistake.

    Attributes
    ----------
    name : str
        In the words of a message.
    effect : function
        (setting) → (N,), what it adds to a right mean; None where it cannot be computed.
    factor : bool
        Whether it is a factor of a part, which where it has no value makes no sense.
    """

    name: str
    effect: Callable[[Setting], FloatArray | None]
    factor: bool = False


@dataclass(frozen=True, kw_only=True)
class FormKind:
    """How a kind of problem answers.

    Attributes
    ----------
    form
        The right form.
    blanks
        {blank: {entry: numbers}}.
    parts_of
        {blank: parts that it changes}.
    model
        (setting, form) → what the form reads, or None where there is no room.
    part
        (part, form, model) → its mean.
    places
        {blank: where it stands, in words}.
    together
        Blanks that are filled in alike by one mistake.
    sums
        {part of a form: its name}, where the truth does not tell it.
    """

    form: Any
    blanks: Mapping[str, Mapping[str, Any]]
    parts_of: Mapping[str, tuple[str, ...]]
    model: Callable[[Setting, AnyForm], Any]
    part: Callable[[str, Any, Any], FloatArray]
    places: Mapping[str, str]
    together: Mapping[tuple[str, ...], str]
    pieces: Mapping[str, str]


def _tabular(at: Setting, form: AnyForm) -> Model | None:
    return None if at.style is None else _tabular_model(at.on, at.style, at.steps)


@lru_cache(maxsize=128)
def _tabular_model(on: Scenario, style: Style, steps: int) -> Model | None:
    problem: Any = on.problem
    tables = problem.tables_at(on.theta)
    room = tables.states * tables.actions * (tables.states + 1) * on.theta.size <= LARGEST
    return Model(on=on, style=style, steps=steps) if room else None


def _game(at: Setting, form: AnyForm) -> GameModel | None:
    return None if at.style is None else _game_model(at.on, at.style, at.steps)


@lru_cache(maxsize=128)
def _game_model(on: Scenario, style: Style, steps: int) -> GameModel:
    return GameModel(on=on, style=style, steps=steps)


def _paths(at: Setting, form: AnyForm) -> Paths | None:
    if at.style != "critic" or at.steps != at.on.horizon or "integrable" not in at.on.tags:
        return None
    smooth = isinstance(form, QuadraticForm) and form.benefit not in KINKED
    return _listed(at.on, POLYNOMIAL if smooth else None)


@lru_cache(maxsize=16)
def _listed(on: Scenario, nodes: int | None) -> Paths:
    return Paths(on=on, nodes=nodes)


_PLACES = {
    "direct": "as weight of the direct term",
    "moving": "as weight of the transition term",
    "guiding": "as weight of the guiding term",
    "rewards": "in the direct term",
    "start": "in the initial term",
    "leader": "in the transition term",
    "benefit": "in the guiding term",
    "reward_sums": "in the suffix, where rewards are differentiated",
    "score_sums": "in the suffix, where transitions are differentiated",
    "follower": "in the suffix",
    "follower_rewards": "in the suffix",
    "leader_score": "in the transition term",
    "follower_score": "in the suffix",
    "visits": "",
    "counted": "in the direct term",
    "starts_at": "",
    "completed": "in the suffix",
    "weight": "as weight of the leader's own term",
    "own": "in the leader's own term",
    "sums": "in the suffix",
    "worth": "in the suffix",
}

_PIECES = {
    "response by rewards": "what rewards give to the response",
    "response by transitions": "what transitions give to the response",
}

_KINDS: dict[type, FormKind] = {
    ConfigurableMDP: FormKind(
        form=Form(),
        blanks=BLANKS,
        parts_of=PARTS_OF,
        model=_tabular,
        part=expected_part,
        places=_PLACES,
        together={
            ("direct", "moving", "guiding"): "throughout",
            ("direct", "moving"): "as weight of the direct and the transition term",
            ("reward_sums", "score_sums"): "in the suffix",
            ("leader_score", "follower_score"): "throughout",
        },
        pieces=_PIECES,
    ),
    MarkovGame: FormKind(
        form=GameForm(),
        blanks=GAME_BLANKS,
        parts_of=GAME_PARTS_OF,
        model=_game,
        part=game_part,
        places=_PLACES,
        together={("weight", "guiding"): "throughout"},
        pieces={},
    ),
    ConfigurableLQR: FormKind(
        form=QuadraticForm(),
        blanks=QUADRATIC_BLANKS,
        parts_of=QUADRATIC_PARTS_OF,
        model=_paths,
        part=quadratic_part,
        places=_PLACES,
        together={
            ("direct", "moving", "guiding"): "throughout",
            ("reward_sums", "score_sums"): "in the suffix",
        },
        pieces=_PIECES,
    ),
    LQRGame: FormKind(
        form=PursuitForm(),
        blanks=PURSUIT_BLANKS,
        parts_of=PURSUIT_PARTS_OF,
        model=_paths,
        part=quadratic_part,
        places=_PLACES,
        together={("weight", "guiding"): "throughout"},
        pieces={},
    ),
}


def form_kind(kind: type) -> FormKind | None:
    """Return how a kind of problem answers, or None where it has no form."""
    return next((_KINDS[known] for known in _KINDS if issubclass(kind, known)), None)


@lru_cache(maxsize=8)
def known_mistakes(kind: type) -> tuple[Known, ...]:
    """Return the mistakes known of a kind of problem; of other kinds, factors of the parts they have.

    Examples
    --------
    >>> names = [known.name for known in known_mistakes(ConfigurableMDP)]
    >>> names[0], "γ_F^t instead of γ_L^t throughout" in names, len(names) == len(set(names))
    ('the initial part is missing', True, True)
    """
    asked = next((known for known in _KINDS if issubclass(kind, known)), None)
    every = tuple(dict.fromkeys((*PARTS, *GAME_PARTS)))
    parts = GAME_PARTS if asked in (MarkovGame, LQRGame) else PARTS if asked else every
    found = [*_factors(None if asked is None else _KINDS[asked], parts)]
    if asked is not None:
        found += _entries(_KINDS[asked])
    return tuple({known.name: known for known in found}.values())


def _factors(kind: FormKind | None, parts: Iterable[Part]) -> Iterator[Known]:
    """A factor of a part, or of what several have in common."""
    terms: dict[str, _Term] = {f"the {part} part": _part_of_truth(part) for part in parts}
    terms["the whole gradient"] = lambda at: at.truth.value
    terms["everything but the regulariser"] = lambda at: at.truth.value - at.truth.parts.get("regulariser", 0.0)
    if kind is not None:
        terms |= {said: _piece(kind, part) for part, said in kind.pieces.items()}
    for symbol, of in SYMBOLS.items():
        for said, term in terms.items():
            yield Known(name=missing_from(said, symbol), effect=_scaled(term, of), factor=True)


_Term: TypeAlias = Callable[["Setting"], FloatArray | None]


def _part_of_truth(part: Part) -> _Term:
    return lambda at: at.truth.parts.get(part)


def _piece(kind: FormKind, part: str) -> _Term:
    return lambda at: right_part(kind, at, part)


def _scaled(term: _Term, factor: Callable[[Scenario], float]) -> _Term:
    """(factor - 1) times a term; None where either has no value."""

    def effect(at: Setting) -> FloatArray | None:
        value, times = term(at), factor(at.on)
        return None if value is None or not math.isfinite(times) else (times - 1.0) * value

    return effect


def _entries(kind: FormKind) -> Iterator[Known]:
    """A wrong entry in one blank, or the same in several."""
    for blanks, place in kind.together.items():
        for name in kind.blanks[blanks[0]]:
            yield from _entry(kind, dict.fromkeys(blanks, name), place)
    for blank, entries in kind.blanks.items():
        if blank not in kind.places:  # factors say it already
            continue
        for name in entries:
            yield from _entry(kind, {blank: name}, kind.places[blank])


def _entry(kind: FormKind, changes: Mapping[str, str], place: str) -> Iterator[Known]:
    form = type(kind.form)(**changes)
    if form == kind.form or "0" in changes.values():
        return
    blank, wrong = next(iter(changes.items()))
    right = getattr(kind.form, blank)
    yield Known(name=f"{wrong} instead of {right} {place}".strip(), effect=lambda at: form_effect(form, at))


def form_effect(form: AnyForm, at: Setting) -> FloatArray | None:
    """Return what a wrong form adds to the right mean, (N,); None where the form does not tell.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> layered = scenario("layered")
    >>> off = form_effect(Form(benefit="V_L"), Setting.of(layered, layered.truth))
    >>> bool(np.abs(off).max() > 0.1)
    True
    """
    kind = next(kind for kind in _KINDS.values() if type(kind.form) is type(form))
    model = kind.model(at, form)
    return None if model is None else at.scale * _difference(form, model)


@lru_cache(maxsize=65_536)
def _difference(form: AnyForm, model: Any) -> FloatArray:
    kind = next(kind for kind in _KINDS.values() if type(kind.form) is type(form))
    changed = dict.fromkeys(part for blank in form.differs() for part in kind.parts_of[blank])
    kind_of_form: Any = type(form)
    with np.errstate(all="ignore"):  # of actions that are never taken; what is not finite is not compared
        off = [kind.part(part, form, model) - _right_part(part, kind_of_form, model) for part in changed]
    result: FloatArray = np.sum(off, axis=0)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=4096)
def _right_part(part: str, form: Any, model: Any) -> Any:
    kind = next(kind for kind in _KINDS.values() if type(kind.form) is form)
    return kind.part(part, kind.form, model)


def right_part(kind: FormKind, at: Setting, part: str) -> FloatArray | None:
    """Return the right mean of a part as forms know it, (N,); None where they do not."""
    model = kind.model(at, kind.form)
    form: Any = type(kind.form)
    return None if model is None else at.scale * _right_part(part, form, model)
