"""BC-HG for configurable MDPs as a form with blanks, and its expectation for whatever is written into them.

    E[ ρ' + Σ_t { w_t r_L' + w_t L(s,a,s') ∇log P + w_t B(s,a) (1/β) Σ_{k≥t} v_{t,k} [r_F' + F(s,a,s') ∇log P] } ]  (1)

with `∇log μ` times what is put for V_L(s_0) in front. Each blank (weights, sums, factors, values) has one right entry
and others that people write; every mean is a sum over occupancies (`walk`), so no path is listed. Where streams are
cut the right entries give the mean of a right estimate on such streams, with a critic for the rest of the return, or
for the objective of as many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.causes.forms.blanks import Blanks, entry_of
from bilevelrl.verification.causes.forms.entries import BLANKS, SAME_PATH, mean_over_actions, ratio
from bilevelrl.verification.causes.forms.model import Model

__all__ = ["PARTS_OF", "Form", "expected", "expected_part"]


@dataclass(frozen=True, kw_only=True)
class Form(Blanks):
    """What is written into the blanks of (1); the defaults are right. Every field is a key of `BLANKS`.

    Examples
    --------
    >>> Form(direct="γ_F^t").direct, Form().guiding
    ('γ_F^t', 'γ_L^t')
    """

    direct: str = "γ_L^t"
    moving: str = "γ_L^t"
    guiding: str = "γ_L^t"
    rewards: str = "∇r_L"
    start: str = "V_L(s_0)"
    leader: str = "γ_L V_L(s')"
    benefit: str = "Q_L - V_L"
    reward_sums: str = "γ_F^(k-t)"
    score_sums: str = "γ_F^(k-t)"
    follower: str = "γ_F V_F(s')"
    follower_rewards: str = "∇r_F"
    leader_score: str = "∇log P"
    follower_score: str = "∇log P"
    visits: str = "all visits"
    counted: str = "all visits"
    starts_at: str = "the score of the first state once"
    completed: str = "what comes after a cut"
    scale: str = "1/β"
    regulariser: str = "1"


_RESPONSE = ("response by rewards", "response by transitions")

PARTS_OF: Mapping[str, tuple[str, ...]] = {
    "direct": ("direct",), "moving": ("transition",), "guiding": _RESPONSE, "rewards": ("direct",),
    "start": ("initial",), "leader": ("transition",), "benefit": _RESPONSE, "reward_sums": _RESPONSE[:1],
    "score_sums": _RESPONSE[1:], "follower": _RESPONSE[1:], "follower_rewards": _RESPONSE[:1],
    "leader_score": ("transition",), "follower_score": _RESPONSE[1:], "visits": ("direct", "transition", *_RESPONSE),
    "counted": ("direct",), "starts_at": ("initial",), "completed": _RESPONSE[:1], "scale": _RESPONSE,
    "regulariser": ("regulariser",),
}  # fmt: skip
"""{blank: parts that it changes}."""


def expected(form: Form, m: Model) -> dict[str, FloatArray]:
    """Return the mean of each part, the response in two: what follows from ∇r_F and from ∇log P.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> on = scenario("layered")
    >>> parts = expected(Form(), Model(on=on, style="critic", steps=on.horizon))
    >>> bool(np.allclose(sum(parts.values()), on.truth.value, rtol=1e-12))
    True
    """
    return {part: expected_part(part, form, m) for part in _PARTS}


def expected_part(part: str, form: Form, m: Model) -> FloatArray:
    """Return the mean of one of the parts that `expected` returns."""
    return _PARTS[part](form, m)


def _of(form: Form, blank: str, m: Model) -> FloatArray:
    return _entry(blank, getattr(form, blank), m)


@lru_cache(maxsize=4096)
def _entry(blank: str, name: str, m: Model) -> FloatArray:
    return entry_of(BLANKS[blank], name, m)


def _law(which: str, m: Model) -> FloatArray | None:
    return m.walk.first_visits() if which.startswith("first") else None


def _initial(form: Form, m: Model) -> FloatArray:
    read = _of(form, "start", m)
    if form.starts_at.endswith("once"):
        return np.asarray(read @ m.tables.d_initial)
    score = ratio(np.where((m.tables.initial > 1e-14)[:, None], m.tables.d_initial, 0.0), m.tables.initial)
    values = np.einsum("ts,ts->s", m.walk.occupancy, m.state_values)
    return np.asarray(values @ score)


def _direct(form: Form, m: Model) -> FloatArray:
    weights = _of(form, "direct", m)
    if form.counted.startswith("the last"):
        weights = weights[:, None, None] * m.walk.no_return()
    return m.walk.plain(weights, _of(form, "rewards", m), occupancy=_law(form.visits, m))


def _transition(form: Form, m: Model) -> FloatArray:
    law = _law(form.visits, m)
    law = m.walk.occupancy if law is None else law
    read = np.broadcast_to(_of(form, "leader", m), (m.steps, *m.kernel.shape))
    taken = (_of(form, "moving", m)[:, None] * law)[:, :, None] * m.solved[1]
    return np.tensordot(np.einsum("tsa,tsap->sap", taken, read), _of(form, "leader_score", m), axes=3)


def _response(form: Form, m: Model, joint: FloatArray, sums: FloatArray, end: FloatArray | None) -> FloatArray:
    """The guiding term for P x (S, A, S + 1, N)."""
    scale = float(_of(form, "scale", m))
    if form.benefit == SAME_PATH:
        return scale * _same_path(form, m, joint, end)
    if end is not None:  # as part of the last step
        sums = np.concatenate([sums, m.discounts[1] * sums[:, -1:]], axis=1)
    weights, factor, law = _of(form, "guiding", m), _of(form, "benefit", m), _law(form.visits, m)
    if factor.ndim < 4:
        return scale * m.walk.guided(weights, factor, sums, joint.sum(axis=2), end=end, occupancy=law)
    taken = (weights[:, None] * (m.walk.occupancy if law is None else law))[:, :, None] * m.solved[1]
    return scale * m.walk.guided_ahead(taken, factor, sums, joint, m.walk.later(sums, joint.sum(axis=2), end))


def _same_path(form: Form, m: Model, joint: FloatArray, end: FloatArray | None) -> FloatArray:
    """E Σ_t w_t (R_t - V_L) G_t, return and suffix of one path, by the recursion of E[R_t G_t | s_t, a_t]."""
    own, other = m.discounts
    law = (_of(form, "guiding", m)[:, None] * m.walk.occupancy)[:, :, None] * m.solved[1]
    mean, reward, kernel = joint.sum(axis=2), m.tables.reward_leader, m.walk.kernel
    suffix: FloatArray = np.zeros((len(kernel), m.on.theta.size)) if end is None else end
    earned, both = np.zeros(len(kernel)), np.zeros_like(suffix)
    total: FloatArray = np.zeros(m.on.theta.size)
    for t in range(m.steps - 1, -1, -1):
        gradient = mean + other * kernel @ suffix
        product = reward[..., None] * gradient + own * (
            np.einsum("sapn,p->san", joint[:, :, :-1], earned) + other * kernel @ both
        )
        total = total + np.tensordot(law[t], product - m.state_values[t][:, None, None] * gradient, axes=2)
        suffix, both = (np.einsum("sa,san->sn", m.solved[1], table) for table in (gradient, product))
        earned = mean_over_actions(reward + own * kernel @ earned, m)
    return total


def _by_rewards(form: Form, m: Model) -> FloatArray:
    end = m.follower_gradient if m.style == "steps" and form.completed.startswith("what") else None
    joint = m.kernel[..., None] * _of(form, "follower_rewards", m)[:, :, None]
    return _response(form, m, joint, _of(form, "reward_sums", m), end)


def _by_scores(form: Form, m: Model) -> FloatArray:
    joint = _of(form, "follower", m)[..., None] * _of(form, "follower_score", m)
    return _response(form, m, joint, _of(form, "score_sums", m), None)


_PARTS: dict[str, Callable[[Form, Model], FloatArray]] = {
    "initial": _initial,
    "direct": _direct,
    "transition": _transition,
    "response by rewards": _by_rewards,
    "response by transitions": _by_scores,
    "regulariser": lambda form, m: _of(form, "regulariser", m) * m.tables.d_regulariser,
}
