"""BC-HG for Markov games as a form with blanks, and its expectation for whatever is written into them.

    E Σ_t [ w_t A(s,l,a) ∇log f(l|s) + w_t B(s,l,a) (1/β) Σ_{k≥t+c} v_{t,k} ∇log f(l_k|s_k) Y(s_k,l_k,a_k) ]        (1)

with c = 1 if the follower sees the leader's action, else 0. A is Q_L; Y is what a leader action is worth to the
follower, V_F(s, l) if it sees it, else Q_F(s, l, a). Means are sums over occupancies of the pairs of actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game import GameFollower
from bilevelrl.verification.causes.forms.blanks import AtScenario, Blanks, Style, entry_of
from bilevelrl.verification.causes.forms.walk import Walk

__all__ = ["GAME_BLANKS", "GAME_PARTS_OF", "GameForm", "GameModel", "game_expected", "game_part"]


@dataclass(frozen=True, kw_only=True)
class GameModel(AtScenario):
    """What (1) reads of a scenario; tables are (S, L, A).

    Attributes
    ----------
    style, steps
        What right is where streams are cut, and T.
    """

    style: Style
    steps: int

    @cached_property
    def follower(self) -> GameFollower:
        """Its best response."""
        found = self.on.solved(self.on.target).follower
        assert isinstance(found, GameFollower)
        return found

    @cached_property
    def seen(self) -> bool:
        """Whether the follower sees the leader's action."""
        return bool(self.on.problem.follower_sees_leader_action)

    @cached_property
    def policy(self) -> FloatArray:
        """F (S, L)."""
        found: FloatArray = self.on.problem.policy_at(self.on.theta)
        return found

    @cached_property
    def response(self) -> FloatArray:
        """G (S, L, A)."""
        return np.asarray(self.follower.policy)

    @cached_property
    def score(self) -> FloatArray:
        """∇log f (S, L, 1, N)."""
        slope = np.asarray(self.on.problem.jacobian(self.on.theta)["policy"])
        result: FloatArray = (slope / np.where(self.policy > 0.0, self.policy, 1.0)[..., None])[:, :, None]
        return result

    @cached_property
    def walk(self) -> Walk:
        """The chain under both players."""
        game = self.on.problem
        joint = self.policy[:, :, None] * self.response
        states = len(self.policy)
        kernel = np.asarray(game.transition).reshape(states, -1, states)
        return Walk(initial=np.asarray(game.initial), policy=joint.reshape(states, -1), kernel=kernel, steps=self.steps)

    @cached_property
    def ahead(self) -> FloatArray:
        """V_L(s), (T + 1, S), by steps to go; all alike with a critic of the infinite horizon."""
        mean = (self.walk.policy * self.flat(self.on.problem.reward_leader)).sum(axis=1)
        if self.style == "critic":
            value = np.linalg.solve(np.eye(mean.size) - self.discounts[0] * self.walk.chain, mean)
            return np.broadcast_to(value, (self.steps + 1, mean.size))
        found = np.zeros((self.steps + 1, mean.size))
        for h in range(1, self.steps + 1):
            found[h] = mean + self.discounts[0] * self.walk.chain @ found[h - 1]
        return found

    @cached_property
    def action_values(self) -> FloatArray:
        """Q_L (T, S, L, A) by step."""
        game = self.on.problem
        later = np.einsum("slap,tp->tsla", np.asarray(game.transition), self.ahead[:-1][::-1])
        result: FloatArray = np.asarray(game.reward_leader) + self.discounts[0] * later
        return result

    @cached_property
    def state_values(self) -> FloatArray:
        """V_L (T, S, 1, 1) by step."""
        return self.ahead[1:][::-1][:, :, None, None]

    def benefit_of(self, table: FloatArray) -> FloatArray:
        """A table (..., S, L, A) less its mean under g, averaged over f first if the follower does not see."""
        if not self.seen:
            table = np.broadcast_to(np.einsum("sl,...sla->...sa", self.policy, table)[..., None, :], table.shape)
        result: FloatArray = table - (self.response * table).sum(axis=-1, keepdims=True)
        return result

    def flat(self, table: FloatArray) -> FloatArray:
        """A table (S, L, A, rest) as (S, J, rest)."""
        states, leader, follower = self.response.shape
        result: FloatArray = np.asarray(table).reshape(states, leader * follower, *np.shape(table)[3:])
        return result


def _powers(base: float, steps: int) -> FloatArray:
    return np.asarray(base ** np.arange(steps, dtype=np.float64))


GameBlank = Mapping[str, Callable[[GameModel], FloatArray]]

WEIGHTS: GameBlank = {
    "γ_L^t": lambda m: _powers(m.discounts[0], m.steps),
    "γ_F^t": lambda m: _powers(m.discounts[1], m.steps),
    "1": lambda m: np.ones(m.steps),
    "(γ_L γ_F)^t": lambda m: _powers(m.discounts[0] * m.discounts[1], m.steps),
    "γ_L^(T-1-t)": lambda m: _powers(m.discounts[0], m.steps)[::-1],
    "1 at t = 0 and 0 later": lambda m: _powers(0.0, m.steps),
    "γ_L^t from t = 1 on": lambda m: _powers(m.discounts[0], m.steps) - _powers(0.0, m.steps),
    "γ_L^t up to t = T-2": lambda m: _powers(m.discounts[0], m.steps) * (np.arange(m.steps) < m.steps - 1),
}
"""Weights of steps, (T,)."""


def _gaps(m: GameModel, v: FloatArray, first: int | None = None) -> FloatArray:
    """(T, T): v at k - t, from where the sum starts."""
    place = np.arange(m.steps)[None, :] - np.arange(m.steps)[:, None]
    begin = int(m.seen) if first is None else first
    return np.where(place >= begin, v[np.maximum(place, 0)], 0.0)


SUMS: GameBlank = {
    "γ_F^(k-t)": lambda m: _gaps(m, _powers(m.discounts[1], m.steps)),
    "γ_L^(k-t)": lambda m: _gaps(m, _powers(m.discounts[0], m.steps)),
    "1": lambda m: _gaps(m, np.ones(m.steps)),
    "γ_F^(k-t) from k = t on": lambda m: _gaps(m, _powers(m.discounts[1], m.steps), 0),
    "γ_F^(k-t) from k = t+1 on": lambda m: _gaps(m, _powers(m.discounts[1], m.steps), 1),
    "γ_F^(k-t-1) from k = t+1 on": lambda m: _gaps(
        m, np.concatenate([[0.0], _powers(m.discounts[1], m.steps)[:-1]]), 1
    ),
    "γ_F^(k-t) from k = t+2 on": lambda m: _gaps(m, _powers(m.discounts[1], m.steps), 2),
    "one term": lambda m: _gaps(m, np.where(np.arange(m.steps) <= int(m.seen), _powers(m.discounts[1], m.steps), 0.0)),
    "γ_F^k": lambda m: _gaps(m, np.ones(m.steps)) * _powers(m.discounts[1], m.steps),
    "(γ_L γ_F)^(k-t)": lambda m: _gaps(m, _powers(m.discounts[0] * m.discounts[1], m.steps)),
}
"""Weights of a suffix, (T, T)."""


def _right_worth(m: GameModel) -> FloatArray:
    if not m.seen:
        return np.asarray(m.follower.action_value)
    return np.broadcast_to(np.asarray(m.follower.value)[..., None], m.response.shape)


def _over_follower(table: FloatArray, m: GameModel) -> FloatArray:
    return np.broadcast_to((m.response * table).sum(axis=-1, keepdims=True), table.shape)


OWN: GameBlank = {
    "Q_L": lambda m: m.action_values,
    "r_L": lambda m: np.asarray(m.on.problem.reward_leader),
    "r_F": lambda m: np.asarray(m.on.problem.reward_follower),
    "γ_L V_L(s')": lambda m: m.action_values - np.asarray(m.on.problem.reward_leader),
    "Q_F": lambda m: np.asarray(m.follower.action_value),
    "Q_L at the follower's likeliest action": lambda m: np.broadcast_to(
        np.take_along_axis(m.action_values, np.argmax(m.response, axis=2)[None, :, :, None], axis=3),
        m.action_values.shape,
    ),
    "max Q_L over the follower's actions": lambda m: np.broadcast_to(
        m.action_values.max(axis=3, keepdims=True), m.action_values.shape
    ),
    "the mean of Q_L over the follower's actions": lambda m: np.broadcast_to(
        m.action_values.mean(axis=3, keepdims=True), m.action_values.shape
    ),
    "Q_L less its mean over the follower's actions": lambda m: m.action_values - _over_follower(m.action_values, m),
    "f Q_L": lambda m: m.policy[:, :, None] * m.action_values,
    "f (Q_L - V_L)": lambda m: m.policy[:, :, None] * (m.action_values - m.state_values),
    "the positive part of Q_L - V_L": lambda m: np.maximum(m.action_values - m.state_values, 0.0),
}
"""What the leader's own score is weighed with, (S, L, A) or (T, S, L, A)."""

BENEFITS: GameBlank = {
    "Q_L less its mean over the follower's actions": lambda m: m.benefit_of(m.action_values),
    "Q_L": lambda m: m.action_values,
    "Q_L less its mean over the leader's actions": lambda m: (
        m.action_values - np.einsum("sl,tsla->tsa", m.policy, m.action_values)[:, :, None]
    ),
    "Q_L - V_L": lambda m: m.action_values - m.state_values,
    "Q_L less its plain mean over the follower's actions": lambda m: (
        m.action_values - m.action_values.mean(axis=3, keepdims=True)
    ),
    "Q_L - max Q_L over the follower's actions": lambda m: m.action_values - m.action_values.max(axis=3, keepdims=True),
    "V_L": lambda m: np.broadcast_to(m.state_values, m.action_values.shape),
    "r_L": lambda m: np.asarray(m.on.problem.reward_leader),
    "r_L less its mean over the follower's actions": lambda m: m.benefit_of(np.asarray(m.on.problem.reward_leader)),
    "the follower's advantage": lambda m: m.benefit_of(np.asarray(m.follower.action_value)),
    "g B": lambda m: m.response * m.benefit_of(m.action_values),
    "f B": lambda m: m.policy[:, :, None] * m.benefit_of(m.action_values),
    "|B|": lambda m: np.abs(m.benefit_of(m.action_values)),
    "the positive part of B": lambda m: np.maximum(m.benefit_of(m.action_values), 0.0),
    "B of the leader's action, as if it were seen": lambda m: m.action_values - _over_follower(m.action_values, m),
    "B averaged over the leader's actions, as if they were not seen": lambda m: np.broadcast_to(
        (mean := np.einsum("sl,tsla->tsa", m.policy, m.action_values)[:, :, None])
        - (m.response * mean).sum(axis=3, keepdims=True),
        m.action_values.shape,
    ),
}
"""What multiplies the suffix."""

WORTH: GameBlank = {
    "the value to the follower": _right_worth,
    "V_F(s, l)": lambda m: (
        _right_worth(m)
        if m.seen
        else np.broadcast_to(_soft(m.follower.action_value, m.on.problem.temperature), m.response.shape)
    ),
    "Q_F(s, l, a)": lambda m: np.asarray(m.follower.action_value),
    "max Q_F(s, l, ·)": lambda m: np.broadcast_to(m.follower.action_value.max(axis=2, keepdims=True), m.response.shape),
    "the plain mean of Q_F(s, l, ·)": lambda m: np.broadcast_to(
        m.follower.action_value.mean(axis=2, keepdims=True), m.response.shape
    ),
    "log Σ exp Q_F(s, l, ·), with temperature 1": lambda m: np.broadcast_to(
        _soft(m.follower.action_value, 1.0), m.response.shape
    ),
    "r_F": lambda m: np.asarray(m.on.problem.reward_follower),
    "r_L": lambda m: np.asarray(m.on.problem.reward_leader),
    "Q_L": lambda m: m.action_values[0],
    "γ_F V_F ahead": lambda m: np.asarray(m.follower.action_value) - np.asarray(m.on.problem.reward_follower),
    "1": lambda m: np.ones(m.response.shape),
}
"""What a later leader action is worth to the follower, (S, L, A)."""


def _soft(value: FloatArray, temperature: float) -> FloatArray:
    top = value.max(axis=2, keepdims=True)
    return np.asarray(top + temperature * np.log(np.exp((value - top) / temperature).sum(axis=2, keepdims=True)))


@dataclass(frozen=True, kw_only=True)
class GameForm(Blanks):
    """What is written into the blanks of (1); the defaults are right. Every field is a key of `GAME_BLANKS`.

    Examples
    --------
    >>> GameForm(own="r_L").differs()
    {'own': 'r_L'}
    """

    weight: str = "γ_L^t"
    guiding: str = "γ_L^t"
    own: str = "Q_L"
    benefit: str = "Q_L less its mean over the follower's actions"
    sums: str = "γ_F^(k-t)"
    worth: str = "the value to the follower"
    visits: str = "all visits"


GAME_BLANKS: Mapping[str, GameBlank] = {
    "weight": WEIGHTS, "guiding": WEIGHTS, "own": OWN, "benefit": BENEFITS, "sums": SUMS, "worth": WORTH,
    "visits": dict.fromkeys(("all visits", "first visits of a state"), lambda m: np.ones(1)),
}  # fmt: skip
"""{blank: {entry: (model) → its numbers}}, the right entry first."""

GAME_PARTS_OF: Mapping[str, tuple[str, ...]] = {
    "weight": ("policy",), "guiding": ("response",), "own": ("policy",), "benefit": ("response",),
    "sums": ("response",), "worth": ("response",), "visits": ("policy", "response"),
}  # fmt: skip
"""{blank: parts that it changes}."""


def game_expected(form: GameForm, m: GameModel) -> dict[str, FloatArray]:
    """Return the mean of each part.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> on = scenario("game, not seeing")
    >>> parts = game_expected(GameForm(), GameModel(on=on, style="critic", steps=on.horizon))
    >>> bool(np.allclose(parts["response"], on.truth.parts["response"], atol=1e-12))
    True
    """
    return {part: game_part(part, form, m) for part in _PARTS}


def game_part(part: str, form: GameForm, m: GameModel) -> FloatArray:
    """Return the mean of one part."""
    return _PARTS[part](form, m)


@lru_cache(maxsize=4096)
def _entry(blank: str, name: str, m: GameModel) -> FloatArray:
    return entry_of(GAME_BLANKS[blank], name, m)


def _law(form: GameForm, m: GameModel) -> FloatArray:
    return m.walk.first_visits() if form.visits.startswith("first") else m.walk.occupancy


def _own_part(form: GameForm, m: GameModel) -> FloatArray:
    worth = np.broadcast_to(_entry("own", form.own, m), m.action_values.shape)
    weights = _entry("weight", form.weight, m)[:, None, None] * worth.reshape(m.steps, *m.walk.policy.shape)
    score = np.broadcast_to(m.score, (*m.response.shape, m.score.shape[-1]))
    return m.walk.plain(weights, m.flat(score), occupancy=_law(form, m))


def _response_part(form: GameForm, m: GameModel) -> FloatArray:
    table = m.flat(m.score * _entry("worth", form.worth, m)[..., None])
    factor = np.broadcast_to(_entry("benefit", form.benefit, m), m.action_values.shape)
    sums, end = _entry("sums", form.sums, m), None
    if m.style == "steps" and not m.on.ends:
        # What is worth what after the cut, and the weight it would have there.
        mean = np.einsum("sj,sjn->sn", m.walk.policy, table)
        end = np.linalg.solve(np.eye(len(mean)) - m.discounts[1] * m.walk.chain, mean)
        sums = np.concatenate([sums, (m.discounts[1] ** np.arange(m.steps, 0, -1.0))[:, None]], axis=1)
    found = m.walk.guided(
        _entry("guiding", form.guiding, m),
        factor.reshape(m.steps, *m.walk.policy.shape),
        sums,
        table,
        end=end,
        occupancy=_law(form, m),
    )
    return np.asarray(found / float(m.on.problem.temperature))


_PARTS: Mapping[str, Callable[[GameForm, GameModel], FloatArray]] = {
    "policy": _own_part,
    "response": _response_part,
    "regulariser": lambda form, m: np.asarray(m.on.problem.regulariser_gradient(m.on.theta)),
}
