"""BC-HG for linear-quadratic problems as a form with blanks, and its mean by quadrature for whatever is written there.

The means are those of a rule over the normals that make a stream (`enumeration.quadrature`), the same rule by which an
estimator is judged, and one pullback of all streams at once, weighed by their probabilities:

    E[ Σ_terms Σ_t weight_t ∇term_t ] = pullback of probability × weight.                                           (1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from bilevelrl.estimators import Context, Trajectories
from bilevelrl.reference import LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.causes.forms.blanks import AtScenario, Blanks, entry_of
from bilevelrl.verification.causes.forms.entries import SUMS, WEIGHTS
from bilevelrl.verification.checks.once import exact_critic
from bilevelrl.verification.enumeration.quadrature import largest_rule, quadrature_trajectories

__all__ = [
    "KINKED",
    "POLYNOMIAL",
    "PURSUIT_BLANKS",
    "PURSUIT_PARTS_OF",
    "QUADRATIC_BLANKS",
    "QUADRATIC_PARTS_OF",
    "Paths",
    "PursuitForm",
    "QuadraticForm",
    "quadratic_expected",
    "quadratic_part",
]


@dataclass(frozen=True, kw_only=True)
class Paths(AtScenario):
    """All streams of a rule, with what (1) reads along them.

    Attributes
    ----------
    nodes : int or None
        Per normal; None: the rule by which estimators are judged.
    """

    nodes: int | None = None

    @property
    def steps(self) -> int:
        """T."""
        return self.on.horizon

    @cached_property
    def context(self) -> Context:
        """With the exact critic."""
        follower = self.on.solved(self.on.target).follower
        return Context(
            problem=self.on.problem,
            theta=self.on.theta,
            follower=follower,
            critic=exact_critic(self.on, self.on.target),
        )

    @cached_property
    def listed(self) -> tuple[Trajectories, FloatArray]:
        """Streams and their probabilities."""
        given: tuple[Any, ...] = (self.on.problem, self.on.theta, self.context.follower)
        nodes = self.nodes or largest_rule(*given, horizon=self.steps, max_paths=MOST)
        return quadrature_trajectories(*given, horizon=self.steps, nodes=nodes, max_paths=MOST)

    @property
    def batch(self) -> Trajectories:
        """Streams."""
        return self.listed[0]

    @cached_property
    def values(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """V_L at each state, at the state reached, and Q_L, (M, T)."""
        critic, batch = self.context.critic, self.batch
        assert critic is not None
        action: dict[str, Any] = {}
        if isinstance(self.on.problem, LQRGame):
            action["leader_action"] = batch.leader_action_t
        action_value = critic.action_value(batch.state_t, batch.action_t, **action)
        return critic.value(batch.state_t), critic.value(batch.state_tp1), action_value

    @cached_property
    def benefit(self) -> FloatArray:
        """B (M, T)."""
        if isinstance(self.on.problem, LQRGame):
            critic: Any = self.context.critic
            found: FloatArray = critic.benefit_t(self.batch)
            return found
        return self.values[2] - self.values[0]

    @cached_property
    def follower_ahead(self) -> FloatArray:
        """V_F of the state reached (M, T)."""
        return self._follower("value_at", self.batch.state_tp1)

    @cached_property
    def follower_here(self) -> FloatArray:
        """V_F(x), or V_F(x, l) in a game."""
        if isinstance(self.on.problem, LQRGame):
            return self._follower("value_at", self.batch.state_t, self.batch.leader_action_t)
        return self._follower("value_at", self.batch.state_t)

    @cached_property
    def follower_taken(self) -> FloatArray:
        """Q_F of what was done (M, T)."""
        batch = self.batch
        seen = (batch.leader_action_t,) if isinstance(self.on.problem, LQRGame) else ()
        return self._follower("action_value_at", batch.state_t, batch.action_t, *seen)

    def _follower(self, question: str, *at: Any) -> FloatArray:
        found: FloatArray = getattr(self.context.follower, question)(*at)
        return found

    def shifted(self, values: FloatArray) -> FloatArray:
        """Values of the next step, 0 at the last."""
        found = np.zeros_like(values)
        found[:, :-1] = values[:, 1:]
        return found


MOST = 100_000
"""Streams of a rule."""

POLYNOMIAL = 5
"""Nodes with which means of polynomials of the degrees here are exact."""

KINKED = ("|B|", "the positive part of B", "the sign of B")
"""Factors that are no polynomials."""

QuadraticBlank = Mapping[str, Callable[[Paths], FloatArray]]


def _shared(blank: Mapping[str, Callable[[Any], FloatArray]]) -> QuadraticBlank:
    """Entries that read discounts and steps alone."""
    return dict(blank)


_WEIGHTS, _SUMS = _shared(WEIGHTS), _shared(SUMS)

_BENEFITS: QuadraticBlank = {
    "Q_L - V_L": lambda m: m.benefit,
    "Q_L": lambda m: m.values[2],
    "V_L": lambda m: m.values[0],
    "r_L": lambda m: m.batch.reward_leader_t,
    "the follower's advantage Q_F - V_F": lambda m: m.follower_taken - m.follower_here,
    "Q_F": lambda m: m.follower_taken,
    "|B|": lambda m: np.abs(m.benefit),
    "the positive part of B": lambda m: np.maximum(m.benefit, 0.0),
    "the sign of B": lambda m: np.sign(m.benefit),
    "one-step error r_L + γ_L V_L(x') - V_L(x)": lambda m: (
        m.batch.reward_leader_t + m.discounts[0] * m.values[1] - m.values[0]
    ),
}

QUADRATIC_BLANKS: Mapping[str, QuadraticBlank] = {
    "direct": _WEIGHTS,
    "moving": _WEIGHTS,
    "guiding": _WEIGHTS,
    "start": {
        "V_L(x_0)": lambda m: m.values[0],
        "V_F(x_0)": lambda m: m.follower_here,
        "the first reward": lambda m: m.batch.reward_leader_t,
    },
    "leader": {
        "γ_L V_L(x')": lambda m: m.discounts[0] * m.values[1],
        "γ_L V_L(x)": lambda m: m.discounts[0] * m.values[0],
        "γ_L V_F(x')": lambda m: m.discounts[0] * m.follower_ahead,
        "γ_F V_F(x')": lambda m: m.discounts[1] * m.follower_ahead,
        "γ_L r_L of the next step": lambda m: m.discounts[0] * m.shifted(m.batch.reward_leader_t),
        "γ_L V_L(x_t+2)": lambda m: m.discounts[0] * m.shifted(m.values[1]),
    },
    "benefit": _BENEFITS,
    "reward_sums": _SUMS,
    "score_sums": _SUMS,
    "follower": {
        "γ_F V_F(x')": lambda m: m.discounts[1] * m.follower_ahead,
        "V_F(x')": lambda m: m.follower_ahead,
        "γ_L V_F(x')": lambda m: m.discounts[0] * m.follower_ahead,
        "γ_F V_F(x)": lambda m: m.discounts[1] * m.follower_here,
        "γ_F V_L(x')": lambda m: m.discounts[1] * m.values[1],
    },
}
"""Of configurable LQRs."""

PURSUIT_BLANKS: Mapping[str, QuadraticBlank] = {
    "weight": _WEIGHTS,
    "guiding": _WEIGHTS,
    "own": {
        "Q_L": lambda m: m.values[2],
        "r_L": lambda m: m.batch.reward_leader_t,
        "Q_F": lambda m: m.follower_taken,
        "V_F(x, l)": lambda m: m.follower_here,
        "γ_L V_L(x')": lambda m: m.discounts[0] * m.values[1],
        "V_L(x')": lambda m: m.values[1],
    },
    "benefit": _BENEFITS,
    "sums": {
        "γ_F^(k-t) from k = t+1 on": lambda m: _SUMS["γ_F^(k-t)"](m) - np.eye(m.steps),
        "γ_F^(k-t) from k = t on": lambda m: _SUMS["γ_F^(k-t)"](m),
        "γ_L^(k-t) from k = t+1 on": lambda m: _SUMS["γ_L^(k-t)"](m) - np.eye(m.steps),
        "1 from k = t+1 on": lambda m: _SUMS["1"](m) - np.eye(m.steps),
        "γ_F^k from k = t+1 on": lambda m: np.triu(_SUMS["γ_F^k"](m), 1),
    },
    "worth": {
        "V_F(x, l)": lambda m: m.follower_here,
        "Q_F(x, l, a)": lambda m: m.follower_taken,
        "γ_F V_F(x')": lambda m: m.discounts[1] * m.follower_ahead,
        "Q_L": lambda m: m.values[2],
    },
}
"""Of LQR games."""

_RESPONSE = ("response by rewards", "response by transitions")

QUADRATIC_PARTS_OF: Mapping[str, tuple[str, ...]] = {
    "direct": ("direct",), "moving": ("transition",), "guiding": _RESPONSE, "start": ("initial",),
    "leader": ("transition",), "benefit": _RESPONSE, "reward_sums": _RESPONSE[:1], "score_sums": _RESPONSE[1:],
    "follower": _RESPONSE[1:],
}  # fmt: skip
"""{blank: parts that it changes}."""

PURSUIT_PARTS_OF: Mapping[str, tuple[str, ...]] = {
    "weight": ("policy",), "guiding": ("response",), "own": ("policy",), "benefit": ("response",),
    "sums": ("response",), "worth": ("response",),
}  # fmt: skip
"""{blank: parts that it changes}."""


@dataclass(frozen=True, kw_only=True)
class QuadraticForm(Blanks):
    """What is written into the blanks for a configurable LQR; every field is a key of `QUADRATIC_BLANKS`."""

    direct: str = "γ_L^t"
    moving: str = "γ_L^t"
    guiding: str = "γ_L^t"
    start: str = "V_L(x_0)"
    leader: str = "γ_L V_L(x')"
    benefit: str = "Q_L - V_L"
    reward_sums: str = "γ_F^(k-t)"
    score_sums: str = "γ_F^(k-t)"
    follower: str = "γ_F V_F(x')"


@dataclass(frozen=True, kw_only=True)
class PursuitForm(Blanks):
    """What is written into the blanks for an LQR game; every field is a key of `PURSUIT_BLANKS`."""

    weight: str = "γ_L^t"
    guiding: str = "γ_L^t"
    own: str = "Q_L"
    benefit: str = "Q_L - V_L"
    sums: str = "γ_F^(k-t) from k = t+1 on"
    worth: str = "V_F(x, l)"


@lru_cache(maxsize=1024)
def _entry(blank: str, name: str, m: Paths, game: bool) -> FloatArray:
    return entry_of((PURSUIT_BLANKS if game else QUADRATIC_BLANKS)[blank], name, m)


def quadratic_expected(form: QuadraticForm | PursuitForm, m: Paths) -> dict[str, FloatArray]:
    """Return the mean of each part, by (1); the response in two where it has two.

    Examples
    --------
    >>> from bilevelrl.reference.problem import INFINITE_HORIZON
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.checks.truncation import truncated_truths
    >>> on = scenario("LQR")
    >>> parts = quadratic_expected(QuadraticForm(), Paths(on=on))
    >>> cut = truncated_truths(on, INFINITE_HORIZON)["with a critic for the rest of the return"]
    >>> bool(np.allclose(sum(parts.values()), cut.value, rtol=1e-10))
    True
    """
    return {part: quadratic_part(part, form, m) for part in _PARTS[type(form)]}


def quadratic_part(part: str, form: QuadraticForm | PursuitForm, m: Paths) -> FloatArray:
    """Return the mean of one of the parts that `quadratic_expected` returns."""
    return _PARTS[type(form)][part](form, m)


def _pulled(m: Paths, weights: Mapping[Any, FloatArray]) -> FloatArray:
    share = m.listed[1][:, None]
    problem = m.on.problem
    total: FloatArray = problem.pullback(
        m.on.theta, m.batch, {term: share * weight for term, weight in weights.items()}
    )
    return total


def _read(form: Any, blank: str, m: Paths) -> FloatArray:
    return _entry(blank, getattr(form, blank), m, isinstance(form, PursuitForm))


def _later(form: Any, m: Paths, sums: str) -> FloatArray:
    outer = _read(form, "guiding", m) * _read(form, "benefit", m) / m.on.problem.temperature
    later: FloatArray = outer @ _read(form, sums, m)
    return later


def _start(form: Any, m: Paths) -> FloatArray:
    first = np.zeros((len(m.listed[1]), m.steps))
    first[:, 0] = _read(form, "start", m)[:, 0]
    return _pulled(m, {"log_initial": first})


def _direct(form: Any, m: Paths) -> FloatArray:
    return _pulled(m, {"reward_leader": np.broadcast_to(_read(form, "direct", m), m.benefit.shape)})


def _moving(form: Any, m: Paths) -> FloatArray:
    return _pulled(m, {"log_transition": _read(form, "moving", m) * _read(form, "leader", m)})


def _by_rewards(form: Any, m: Paths) -> FloatArray:
    return _pulled(m, {"reward_follower": _later(form, m, "reward_sums")})


def _by_scores(form: Any, m: Paths) -> FloatArray:
    return _pulled(m, {"log_transition": _later(form, m, "score_sums") * _read(form, "follower", m)})


def _own(form: Any, m: Paths) -> FloatArray:
    return _pulled(m, {"log_policy_leader": _read(form, "weight", m) * _read(form, "own", m)})


def _response(form: Any, m: Paths) -> FloatArray:
    return _pulled(m, {"log_policy_leader": _later(form, m, "sums") * _read(form, "worth", m)})


def _regulariser(form: Any, m: Paths) -> FloatArray:
    found: FloatArray = m.on.problem.regulariser_gradient(m.on.theta)
    return found


_PARTS: Mapping[type, Mapping[str, Callable[[Any, Paths], FloatArray]]] = {
    QuadraticForm: {
        "initial": _start,
        "direct": _direct,
        "transition": _moving,
        "response by rewards": _by_rewards,
        "response by transitions": _by_scores,
        "regulariser": _regulariser,
    },
    PursuitForm: {"policy": _own, "response": _response, "regulariser": _regulariser},
}
