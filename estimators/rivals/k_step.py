"""k-step differentiation: BC-HG's suffix cut after k steps.

Reverse mode through the last k sweeps of a solved follower has, in place of ∇Q_F, the first k terms of its sum,

    (1/β) Σ_t γ_L^t B(s_t, a_t) Σ_{t≤j<t+k} γ_F^{j-t} y_j,                                                        (1)

the truncated Neumann series of k - 1 terms; k = 1 is one-step differentiation. As a trace this is BC-HG's less what it
was k steps before,

    e_j - γ_F^k e_{j-k}.                                                                                         (2)

Streams of any length have its expectation in full where k steps after a benefit are still seen; its bias is at most the
response's share of what lies beyond, γ_F^k, and nothing on problems that end within k steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from bilevelrl.estimators.estimator import Context, EstimatorEntry
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.estimators.terms.answers import follower_terms
from bilevelrl.reference import ConfigurableMDP, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["KStep"]


@checked
@dataclass(frozen=True, kw_only=True)
class KStep(BCHG):
    """BC-HG with the response through the follower's last k sweeps alone: biased by what comes later.

    Parameters
    ----------
    suffix_steps
        k ≥ 1, the steps of the suffix that count.
    target, critic, scores, baseline
        As in `BCHG`; no returns of the same suffix, no geometric times, no averages in a batch.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `BCHG`, or if an option has no such form.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG, Context
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> whole = BCHG().expectation(context, horizon=3)["response"]
    >>> [bool(np.allclose(KStep(suffix_steps=k).expectation(context, horizon=3)["response"], whole)) for k in (1, 3)]
    [False, True]
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, MarkovGame)
    suffix_steps: Count = 1
    name: str = field(default="k-step differentiation")

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, only in (("stopping", None), ("guiding_average", "trajectory"), ("same_step", False)):
            if (found := getattr(self, option)) != only:
                raise InvalidInputError(refusal(f"{self.name}: {option}", found, repr(only), "use BCHG"))
        if self.critic == "monte_carlo":
            raise InvalidInputError(
                refusal(f"{self.name}: critic", self.critic, "values that are no return of the suffix", "use BCHG")
            )
        self._declare(biased=True)

    @property
    def rests_on_rare_draws(self) -> bool:
        """Cold followers hardly ever take the actions of the largest benefits, and a sample can miss them."""
        return True

    def _trace(self, trajectories: Trajectories, context: Context, impulses: FloatArray) -> FloatArray:
        whole = super()._trace(trajectories, context, impulses)
        window = self.suffix_steps + follower_terms(context, trajectories)[0]  # where the sum starts a step later
        late = np.zeros(whole.shape)
        late[:, window:] = whole[:, :-window]
        late[trajectories.time_in_episode < window] = 0.0
        return np.where(trajectories.valid, whole - self.trace_discount(context) ** window * late, 0.0)  # (2)


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(ConfigurableMDP, MarkovGame),
        name="k_step",
        summary="one-step differentiation, k = 1: BC-HG's suffix cut after its first step",
        level="formula",
        make=lambda target: KStep(target=target, critic=exact_critic_kind(target)),
    ),
)
