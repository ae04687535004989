"""What a leader's training in a Markov game can be made of: a switch for everything that the published runs decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.followers.joint import GameFollowerRule
from bilevelrl.estimators.terms.along_trajectories import OPTIONS, Baseline
from bilevelrl.reference.arrays import store_floats
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal

__all__ = ["PUBLISHED", "SOUND", "GameOptions"]

Targets: TypeAlias = Literal["modes", "expected"]

_NAMES: dict[str, tuple[Any, ...]] = {
    "actor": ("network", "tabular"),
    "critic": ("network", "tabular", "exact"),
    "targets": ("modes", "expected"),
    "target_leader": ("lagged", "current"),
    "target_update": ("iteration", "critic_step"),
    "baseline": OPTIONS["baseline"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GameOptions:
    """How leaders learn; the defaults are sound, `PUBLISHED` is what the paper's runs did.

    Parameters
    ----------
    actor
        "network": 64-64 ReLU on one-hot states (θ its weights). "tabular": one logit per state and action but one.
    critic
        "network": 64-64 ReLU on one-hot states and follower actions, one output per leader action, by Adam.
        "tabular": visited entries move to the mean of their targets by the run's `critic_step_size`. "exact": by the
        model.
    critic_steps
        Per outer iteration.
    minibatch
        Size of actor minibatches (drawn ∝ γ_L^t) and critic minibatches (uniform). None: both read the whole batch of
        the outer iteration, weighed the same way; for methods without replay.
    targets
        What the critic expects of the next state: "expected", over both players' policies; "modes", at the most
        probable actions. Bi-AC and bi-level Q-learning have their own.
    target_leader
        Whose policy "targets" reads: the "current" one, or the "lagged" copy.
    target_rate, target_update
        τ in (0, 1] of the lagged copies, and how often the critic's moves; the leader's moves once per outer iteration.
    baseline
        Of the leader's own term: see `AlongTrajectories`.
    influence_baseline, same_step
        Of the guiding term: see `BCHG`.
    influence_steps
        How many steps ahead its inner sum reaches, less than an episode has; None: to the episode's end. What it leaves
        out is a bias; most of the term's variance goes with it.
    unprepared_start
        The first batch has uniformly random leader actions and a uniform follower that values nothing.
    follower
        How followers respond.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an option is not known, or a number out of range.

    Examples
    --------
    >>> PUBLISHED.targets, SOUND.targets
    ('modes', 'expected')
    """

    actor: Literal["network", "tabular"] = "network"
    critic: Literal["network", "tabular", "exact"] = "network"
    critic_steps: int = 1
    minibatch: int | None = 64
    targets: Targets = "expected"
    target_leader: Literal["lagged", "current"] = "current"
    target_rate: float = 0.1
    target_update: Literal["iteration", "critic_step"] = "critic_step"
    baseline: Baseline = "state_value"
    influence_baseline: bool = True
    same_step: bool = False
    influence_steps: int | None = None
    unprepared_start: bool = False
    follower: GameFollowerRule = field(default_factory=GameFollowerRule)

    def __post_init__(self) -> None:
        store_floats(self)
        for name, known in _NAMES.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), known)
        for name in ("critic_steps", "minibatch", "influence_steps"):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not (whole and value >= 1) and not (name != "critic_steps" and value is None):
                raise InvalidInputError(refusal(name, value, "an integer >= 1", "count them"))
        if not (np.isfinite(self.target_rate) and 0.0 < self.target_rate <= 1.0):
            raise InvalidInputError(refusal("target_rate", self.target_rate, "a number in (0, 1]", "1 copies"))


PUBLISHED = GameOptions(
    targets="modes",
    target_leader="lagged",
    target_rate=0.01,
    target_update="iteration",
    baseline="action_dependent",
    same_step=True,
    unprepared_start=True,
    follower=GameFollowerRule(operator="log_sum_exp_of_the_mean"),
)
"""What the paper's toy-game runs did, but for the benefit's mean over 256 draws, which is exact here."""

SOUND = GameOptions()
"""The same learner without the published biases.

What is left: the critic's own error, which shares its data with the benefit; the cut after `steps`; and, with several
ascent steps, data and follower of the policy before the first of them.
"""
