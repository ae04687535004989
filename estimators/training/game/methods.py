"""What training in Markov games compares: methods of Kudo et al. (2026), arXiv:2603.14867, Section 6, and controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bilevelrl.estimators.methods.bchg_game import BCHGGame
from bilevelrl.estimators.methods.policy_gradient import PolicyGradient
from bilevelrl.estimators.methods.total_derivative import TotalDerivative
from bilevelrl.estimators.terms.joint_leader import GameSide
from bilevelrl.estimators.training.game.options import GameOptions

__all__ = ["GAME_METHODS", "GameMethod"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GameMethod:
    """Where a leader's direction comes from.

    Attributes
    ----------
    name, title, summary : str
        Unique name, the name in tables and figures, one line about it.
    source
        "samples": minibatches of scores. "batch": an estimator on the whole batch. "exact", "partial": by the
        model, the hypergradient and its policy part.
    guiding
        Whether the response of the follower is part of the direction.
    stackelberg
        Whether the critic expects the Stackelberg equilibrium of the next state.
    replay
        Whether all past episodes are drawn from.
    greedy
        The leader imitates the Boltzmann policy of its own stage game instead of climbing.
    """

    name: str
    title: str
    summary: str
    source: Literal["samples", "batch", "exact", "partial"] = "samples"
    guiding: bool = False
    stackelberg: bool = False
    replay: bool = False
    greedy: bool = False

    def estimator(self, options: GameOptions) -> GameSide:
        """Return what is trained with, which reads its critic from the context."""
        shared: dict[str, Any] = {"critic": "context", "baseline": options.baseline}
        if self.source == "batch":
            return TotalDerivative(**shared)
        if not self.guiding:
            return PolicyGradient(**shared)
        return BCHGGame(influence_baseline=options.influence_baseline, same_step=options.same_step, **shared)


GAME_METHODS: dict[str, GameMethod] = {
    method.name: method
    for method in (
        GameMethod(
            name="bc_hg", title="BC-HG", summary="policy term and guiding term of the same transitions", guiding=True
        ),
        GameMethod(
            name="naive_pgd", title="Naive-PGD (on-policy)", summary="the policy term alone, of this iteration's data"
        ),
        GameMethod(
            name="naive_pgd_replay",
            title="Naive-PGD (off-policy)",
            summary="the policy term alone, of all past data, not reweighted",
            replay=True,
        ),
        GameMethod(
            name="bi_ac",
            title="Bi-AC (on-policy)",
            summary="the policy term with the Stackelberg critic, of this iteration's data",
            stackelberg=True,
        ),
        GameMethod(
            name="bi_ac_replay",
            title="Bi-AC (off-policy)",
            summary="the policy term with the Stackelberg critic, of all past data, not reweighted",
            stackelberg=True,
            replay=True,
        ),
        GameMethod(
            name="bi_level_q",
            title="Bi-level Q-learning",
            summary="the leader imitates a Boltzmann policy of Q_L(s, l, a*(s, l)), with the Stackelberg critic",
            stackelberg=True,
            replay=True,
            greedy=True,
        ),
        GameMethod(
            name="total_derivative",
            title="Total derivative",
            summary="inverse Hessian of the whole batch through the follower's logits",
            source="batch",
        ),
        GameMethod(name="exact", title="Exact hypergradient", summary="the truth, by the model", source="exact"),
        GameMethod(
            name="exact_partial",
            title="Exact partial gradient",
            summary="the truth with the follower held fixed, by the model",
            source="partial",
        ),
    )
}
"""By name."""
