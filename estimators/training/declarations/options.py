"""What a leader's training in a game can be made of: a switch for everything that the published runs decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from bilevelrl.estimators.critics.joint_networks import Targets
from bilevelrl.estimators.followers.joint import GameFollowerRule
from bilevelrl.estimators.terms.along_trajectories import Baseline
from bilevelrl.reference import LQRGame, MarkovGame
from bilevelrl.reference.doors import Count, Natural, Positive, Share, checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal

__all__ = ["PUBLISHED", "SOUND", "GameOptions"]

_SERVED: Mapping[type, Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        MarkovGame: {
            "critic_rate": (None,),
            "critic_minibatch": (None,),
            "targets": ("modes", "expected"),
            "baseline": get_args(Baseline),
            "averages": ("quadrature",),
            "suffix": ("sampled",),
            "data_deviation": (None,),
        },
        LQRGame: {
            "actor": ("network",),
            "critic": ("network", "exact"),
            "targets": ("modes", "sampled"),
            "target_leader": ("lagged",),
            "target_update": ("iteration",),
            "baseline": ("state_value", "action_dependent", "coupled"),
            "influence_steps": (None,),
            "follower": (GameFollowerRule(),),
        },
    }
)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class GameOptions:
    """How leaders learn in games of both kinds; what a kind has no use for must stay as it is in its `SOUND`.

    Parameters
    ----------
    actor
        In Markov games. "network": 64-64 ReLU on one-hot states (θ its weights). "tabular": one logit per state and
        action but one. In LQR games θ is the gain, and this says nothing.
    critic
        "network": 64-64 ReLU by Adam, in Markov games on one-hot states and follower actions with one output per leader
        action, in LQR games on (x, a, l). "tabular", in Markov games: visited entries move to the mean of their targets
        by the run's `critic_step_size`. "exact": by the model.
    critic_steps
        Per outer iteration.
    critic_rate
        Adam's learning rate; None: the run's `critic_step_size`. In LQR games.
    minibatch
        Transitions of an ascent step, drawn ∝ γ_L^t. None: the whole batch of the outer iteration, weighed the same
        way; in Markov games for methods without replay.
    critic_minibatch
        Transitions of a critic step, drawn uniformly; None: as many as `minibatch`, or the whole batch.
    targets
        What the critic expects of the next state: "expected", over both players' policies (Markov games); "sampled", at
        actions drawn from them (LQR games); "modes", at the most probable actions. Bi-AC and bi-level Q-learning have
        their own.
    target_leader
        Whose policy "targets" reads: the "current" one, or the "lagged" copy.
    target_rate, target_update
        τ in (0, 1] of the lagged copies, and how often the critic's moves; the leader's moves once per outer iteration.
    baseline
        Of the leader's own term: see `AlongTrajectories`, in LQR games `ScoreForm`.
    influence_baseline, same_step
        Of the guiding term: see `BCHG`.
    influence_steps
        How many steps ahead its inner sum reaches, less than an episode has; None: to the episode's end. What it leaves
        out is a bias; most of the term's variance goes with it. In Markov games.
    averages, suffix
        Of score-function methods in LQR games: see `ScoreForm`.
    data_deviation
        In LQR games, standard deviation of the leader's actions in episodes of their own, as many as the others, from
        which the critic alone learns. None: it learns from the others.
    exploring_iterations
        First outer iterations with random leader actions, while everything learns already: uniform ones, against a
        uniform follower that values nothing, in Markov games; from N(0, I) in LQR games.
    follower
        How followers respond, in Markov games.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an option is not known, or a number out of range.

    Examples
    --------
    >>> PUBLISHED[MarkovGame].targets, SOUND[MarkovGame].targets
    ('modes', 'expected')
    """

    actor: Literal["network", "tabular"] = "network"
    critic: Literal["network", "tabular", "exact"] = "network"
    critic_steps: Count = 1
    critic_rate: Positive | None = None
    minibatch: Count | None = 64
    critic_minibatch: Count | None = None
    targets: Targets = "expected"
    target_leader: Literal["lagged", "current"] = "current"
    target_rate: Share = 0.1
    target_update: Literal["iteration", "critic_step"] = "critic_step"
    baseline: Literal["state_value", "none", "action_dependent", "coupled"] = "state_value"
    influence_baseline: bool = True
    same_step: bool = False
    influence_steps: Count | None = None
    averages: Literal["quadrature", "sampled"] = "quadrature"
    suffix: Literal["sampled", "fitted"] = "sampled"
    data_deviation: Positive | None = None
    exploring_iterations: Natural = 0
    follower: GameFollowerRule = field(default_factory=GameFollowerRule)

    def __post_init__(self) -> None:
        if self.data_deviation is not None and self.critic == "exact":
            expected = refusal("data_deviation", self.data_deviation, "None", "the exact critic learns from no data")
            raise InvalidInputError(expected)

    def check_kind(self, kind: type) -> None:
        """Refuse what a kind of game has no use for.

        Raises
        ------
        UnsupportedError
            Naming the option.
        """
        for option, served in _SERVED[kind].items():
            if getattr(self, option) not in served:
                names = " or ".join(repr(value) for value in served)
                raise UnsupportedError(f"{option}={getattr(self, option)!r}: expected {names} in a {kind.__name__}")


SOUND: Mapping[type, GameOptions] = MappingProxyType(
    {
        MarkovGame: GameOptions(),
        LQRGame: GameOptions(
            critic_steps=5,
            critic_rate=1e-3,
            minibatch=None,
            critic_minibatch=64,
            targets="sampled",
            target_leader="lagged",
            target_rate=0.05,
            target_update="iteration",
            baseline="coupled",
        ),
    }
)
"""The same learners as `PUBLISHED` without the published biases, by kind of game.

What is left: the critic's own error, which shares its data with the benefit; the cut after `steps`; and, with several
ascent steps, data and follower of the policy before the first of them.
"""

PUBLISHED: Mapping[type, GameOptions] = MappingProxyType(
    {
        MarkovGame: GameOptions(
            targets="modes",
            target_leader="lagged",
            target_rate=0.01,
            target_update="iteration",
            baseline="action_dependent",
            same_step=True,
            exploring_iterations=1,
            follower=GameFollowerRule(operator="log_sum_exp_of_the_mean"),
        ),
        LQRGame: GameOptions(
            critic_steps=5,
            critic_rate=0.1,
            critic_minibatch=64,
            targets="modes",
            target_leader="lagged",
            target_rate=0.01,
            target_update="iteration",
            baseline="action_dependent",
            influence_baseline=False,
            same_step=True,
            averages="sampled",
            exploring_iterations=11,
        ),
    }
)
"""What the paper's runs did, by kind of game; the toy game's benefit averaged over 256 draws, which is exact here."""
