"""Mistakes of the catalogue of mutants as known mistakes: by a form where one says the same, else by a short list.

Whoever adds a switch to `SampleFormula` adds what it means in `_MEANING`; a mutant without an entry is listed path by
path where there are few, and counted as not computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np

from bilevelrl.estimators import Claim
from bilevelrl.estimators.sampling import JointProcess
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import BilevelRLError
from bilevelrl.tasks import Scenario
from bilevelrl.verification.causes.forms.configurable import Form
from bilevelrl.verification.causes.forms.entries import SAME_PATH
from bilevelrl.verification.causes.known import Known, Setting, form_effect
from bilevelrl.verification.checks.deterministic import enumerate_scenario
from bilevelrl.verification.checks.gradients import evaluate_gradient
from bilevelrl.verification.enumeration.paths import PathLaw
from bilevelrl.verification.mutants.catalogue import MUTANTS, Mutant
from bilevelrl.verification.mutants.sample import SampleFormula

__all__ = ["form_of", "planted_mistakes"]

FEW_PATHS = 14_000

_WEIGHTS = ("direct", "moving", "guiding")
_MEANING: Mapping[tuple[str, Any], Mapping[str, str]] = {
    **{
        ("leader_weight", name): dict.fromkeys(_WEIGHTS, entry)
        for name, entry in {"1": "1", "γ_F^t": "γ_F^t", "γ_L^(t+1)": "γ_L^(t+1)", "normalised": "(1-γ_L) γ_L^t"}.items()
    },
    ("suffix_discount", "leader"): dict.fromkeys(("reward_sums", "score_sums"), "γ_L^(k-t)"),
    ("suffix_discount", "none"): dict.fromkeys(("reward_sums", "score_sums"), "1"),
    ("suffix", "late"): dict.fromkeys(("reward_sums", "score_sums"), "γ_F^(k-t) from k = t+1 on"),
    ("suffix", "three steps"): dict.fromkeys(("reward_sums", "score_sums"), "three terms"),
    ("suffix", "no last"): {
        "follower_rewards": "∇r_F but of an episode's last step",
        "follower_score": "∇log P without the end's",
        **dict.fromkeys(("reward_sums", "score_sums"), "γ_F^(k-t) up to k = T-2"),
    },
    ("suffix", "one step"): {
        "follower_rewards": "∇r_F less its mean under π",
        "reward_sums": "the step's own term alone",
        "follower": "0",
        "completed": "nothing after a cut",
    },
    ("suffix", "whole"): {},
    ("truncation", "termination"): {"completed": "nothing after a cut"},
    ("truncation", "infinite"): {
        "leader": "γ_L V_L(s') of the infinite horizon",
        "benefit": "Q_L - V_L of the infinite horizon",
        "start": "V_L(s_0) of the infinite horizon",
    },
    ("benefit", "same path"): {"benefit": SAME_PATH},
    ("visits", "first of a state"): {"visits": "first visits of a state"},
    ("visits", "last of a pair"): {"counted": "the last visit of a pair"},
    ("follower_value", "here"): {"follower": "γ_F V_F(s)"},
    ("follower_value", "maximum"): {"follower": "γ_F max Q_F(s', ·)"},
    ("follower_value", "no entropy"): {"follower": "γ_F Σ π Q_F(s', ·), without the entropy"},
    ("follower_value", "stale"): {"follower": "γ_F V_F(s') of another θ"},
    ("follower_value", "no discount"): {"follower": "V_F(s')"},
    ("follower_score", 0.0): {"follower": "0"},
    ("leader_score", 0.0): {"leader": "0"},
    ("leader_value", "here"): {"leader": "γ_L V_L(s)"},
    ("leader_value", "no discount"): {"leader": "V_L(s')"},
    ("leader_value", "mode"): {"leader": "γ_L Q_L(s', the likeliest action)"},
    ("benefit", "action value"): {"benefit": "Q_L"},
    ("benefit", "value"): {"benefit": "V_L"},
    ("benefit", "maximum"): {"benefit": "Q_L - max Q_L"},
    ("benefit", "uniform"): {"benefit": "Q_L less its plain mean over actions"},
    ("benefit", "td error"): {"benefit": "the one-step error r_L + γ_L V_L(s') - V_L(s)"},
    ("temperature_power", 0): {"scale": "1"},
    ("temperature_power", 1): {"scale": "β"},
    ("response", 0.0): {"scale": "0"},
    ("response", -1.0): {"scale": "-1/β"},
    ("initial", 0.0): {"start": "0"},
    ("direct", 0.0): {"direct": "0"},
    ("regulariser", "never"): {"regulariser": "0"},
    ("regulariser", "every step"): {"regulariser": "T"},
    ("initial_every_step", True): {"starts_at": "the score of the first state at every step"},
    ("leader_reward", "follower"): {"rewards": "∇r_F"},
    ("end", "wraps"): {
        "leader": "γ_L V_L(s') with the last state's value at the end",
        "follower": "γ_F V_F(s') with the last state's value at the end",
    },
    ("scores_of", 0.16): dict.fromkeys(
        ("leader_score", "follower_score"), "∇log P of another kernel than the samples'"
    ),
    ("clip", True): dict.fromkeys(("leader_score", "follower_score"), "∇log P rescaled to norm 1 where it is longer"),
}


def form_of(formula: object) -> Form | None:
    """Return the form that says the same as a sample formula with its switches, or None where there is none.

    Examples
    --------
    >>> form_of(SampleFormula(benefit="value")) == Form(benefit="V_L"), form_of(SampleFormula(batch="pairs"))
    (True, None)
    """
    if type(formula) is not SampleFormula:
        return None
    changes: dict[str, str] = {}
    for switch in fields(formula):
        value = getattr(formula, switch.name)
        if switch.name == "name" or value == switch.default:
            continue
        meaning = _MEANING.get((switch.name, value))
        if meaning is None:
            return None
        changes.update(meaning)
    return Form(**changes)


@lru_cache(maxsize=8)
def planted_mistakes(kind: type) -> tuple[Known, ...]:
    """Return the mutants of the catalogue that say something of a kind of problem, as known mistakes.

    Examples
    --------
    >>> len(planted_mistakes(ConfigurableMDP)) >= 40
    True
    """
    return tuple(
        Known(name=f"{mutant.changes} (as mutant {mutant.name!r})", effect=planted_effect(mutant))
        for mutant in MUTANTS.values()
        if mutant.meant_for not in ("contract", "independence") and issubclass(kind, mutant.problem or ConfigurableMDP)
    )


def planted_effect(mutant: Mutant) -> Any:
    """Return (setting) → what a mutant adds to a right mean, or None."""
    wrong = mutant.make()
    form = form_of(wrong)
    if form is not None:
        return lambda at: form_effect(form, at)
    listed = lru_cache(maxsize=128)(lambda on: _difference(mutant.kind, wrong, on))

    def effect(at: Setting) -> FloatArray | None:
        if mutant.kind == "gradient":
            return listed(at.on) if np.array_equal(at.truth.value, at.on.truth.value) else None
        # Rows of several episodes are their mean; nothing stands for what comes after a cut, or all of it does.
        style = "steps" if mutant.problem is None and at.on.target.horizon is not None else "critic"
        found = listed(at.on) if at.style == style and at.scale == 1.0 else None
        return None if found is None else found + at.on.target_truth.value - at.truth.value

    return effect


def _difference(kind: str, wrong: Any, on: Scenario) -> FloatArray | None:
    """What a planted mistake adds, by evaluating it; None where it breaks the contract, or there are many paths."""
    try:
        if kind == "gradient":
            return evaluate_gradient(wrong, on.problem, on.theta)[0] - on.truth.value
        if _paths(on) > FEW_PATHS:
            return None
        return enumerate_scenario(wrong, on, claim=Claim.UNBIASED).bias
    except (BilevelRLError, np.linalg.LinAlgError):
        return None


@lru_cache(maxsize=512)
def _paths(on: Scenario) -> int:
    """How many streams there are to list, or normals to integrate over."""
    follower: Any = on.solved(on.target).follower
    problem: Any = on.problem
    if isinstance(problem, (ConfigurableLQR, LQRGame)):
        return 1 if "integrable" in on.tags else FEW_PATHS + 1
    policy = np.asarray(follower.policy)
    if isinstance(problem, MarkovGame):
        joint = JointProcess.of(problem, on.theta, follower)
        problem, policy = joint.process, joint.policy
    each: int = PathLaw.of(problem.tables_at(on.theta), policy).count(on.horizon)
    return int(each**on.episodes)
