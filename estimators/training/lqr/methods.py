"""The methods that training on configurable LQRs compares: as published, mended one fault at a time, and exact.

Published methods are configured as the building experiments of Kudo et al. (2026), arXiv:2603.14867, Section 6, run
them: scores of the partial term shortened to norm 1 transition by transition, no baselines, and in HPGD the raw return
or the raw Q_L where the paper writes the benefit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from bilevelrl.estimators.estimator import Estimator
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.hpgd_lqr import LQRHPGD
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.methods.policy_covariance import PolicyCovariance
from bilevelrl.estimators.training.lqr.critics import Wanted

__all__ = ["LQR_METHODS", "Blocks", "LQRMethod"]

Blocks: TypeAlias = tuple[int, ...]
"""Sizes of the blocks of θ that are shortened one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRMethod:
    """What determines the direction of an ascent step.

    Attributes
    ----------
    name, title, summary : str
        Unique name, the name in tables and figures, one line about it.
    make
        Blocks of θ → estimator; None: an exact gradient.
    exact
        Which: the hypergradient, or what is left of it without the response.
    wanted
        What the estimator reads.
    """

    name: str
    title: str
    summary: str
    make: Callable[[Blocks], Estimator] | None = None
    exact: Literal["total", "partial"] | None = None
    wanted: Wanted = field(default_factory=lambda: Wanted(leader=None))


_STATE_NET = Wanted(leader="state", normalised=True)
_ACTION_NET = Wanted(leader="state_action")

LQR_METHODS: Mapping[str, LQRMethod] = MappingProxyType(
    {
        method.name: method
        for method in (
            LQRMethod(
                name="naive_pgd",
                title="Naive-PGD",
                summary="as published: the leader's own terms, scores shortened",
                make=lambda blocks: NaivePGD(critic="context", largest_score=1.0, score_blocks=blocks),
                wanted=_STATE_NET,
            ),
            LQRMethod(
                name="bc_hg",
                title="BC-HG",
                summary="as published: benefit times the rest of the trajectory, raw V_F; partial scores shortened",
                make=lambda blocks: BCHG(critic="context", largest_score=1.0, score_blocks=blocks),
                wanted=_ACTION_NET,
            ),
            LQRMethod(
                name="hpgd_mc",
                title="HPGD (MC)",
                summary="as published: raw returns times the gradient centred by a learnt ∇V_F; scores shortened",
                make=lambda blocks: LQRHPGD(factor="return", critic="context", largest_score=1.0, score_blocks=blocks),
                wanted=Wanted(leader="state", normalised=True, gradient="state", gradient_rewards="score"),
            ),
            LQRMethod(
                name="hpgd_td",
                title="HPGD (TD)",
                summary="as published: raw Q_L times the gradient centred by a learnt ∇V_F; scores shortened",
                make=lambda blocks: LQRHPGD(
                    factor="action_value", critic="context", largest_score=1.0, score_blocks=blocks
                ),
                wanted=Wanted(leader="state_action", gradient="state", gradient_rewards="score"),
            ),
            LQRMethod(
                name="hpgd_td_benefit",
                title="HPGD (TD), benefit",
                summary="HPGD (TD) with the benefit in place of the raw Q_L",
                make=lambda blocks: LQRHPGD(critic="context", largest_score=1.0, score_blocks=blocks),
                wanted=Wanted(leader="state_action", gradient="state", gradient_rewards="score"),
            ),
            LQRMethod(
                name="bc_hg_whole_scores",
                title="BC-HG, scores whole",
                summary="BC-HG as published without shortening of scores",
                make=lambda blocks: BCHG(critic="context"),
                wanted=_ACTION_NET,
            ),
            LQRMethod(
                name="naive_pgd_centred",
                title="Naive-PGD, centred",
                summary="the leader's own terms, scores whole and weighted with temporal differences",
                make=lambda blocks: NaivePGD(critic="context", scores="td_error"),
                wanted=_ACTION_NET,
            ),
            LQRMethod(
                name="bc_hg_centred",
                title="BC-HG, centred",
                summary="BC-HG, scores whole, V_L and V_F less their expectations",
                make=lambda blocks: BCHG(critic="context", scores="td_error"),
                wanted=_ACTION_NET,
            ),
            LQRMethod(
                name="hpgd_centred",
                title="BC-HG, centred, less ∇V_F",
                summary="the same less a learnt ∇V_F: the doubly centred form",
                make=lambda blocks: LQRHPGD(critic="context", scores="td_error"),
                wanted=Wanted(leader="state_action", gradient="state_action"),
            ),
            LQRMethod(
                name="bc_hg_pathwise",
                title="BC-HG, pathwise",
                summary="BC-HG with derivatives of values along the path in place of scores",
                make=lambda blocks: PathwiseBCHG(critic="context"),
                wanted=_ACTION_NET,
            ),
            LQRMethod(
                name="policy_covariance",
                title="policy covariance",
                summary="the guiding term as a covariance in closed form of learnt Q_L and ∇Q_F",
                make=lambda blocks: PolicyCovariance(critic="context"),
                wanted=Wanted(leader="state_action", gradient="state_action"),
            ),
            LQRMethod(
                name="policy_covariance_scores",
                title="policy covariance, ∇Q_F from scores",
                summary="the same with ∇Q_F learnt from V_F times scores, as published networks learn ∇V_F",
                make=lambda blocks: PolicyCovariance(critic="context"),
                wanted=Wanted(leader="state_action", gradient="state_action", gradient_rewards="score"),
            ),
            LQRMethod(
                name="exact",
                title="exact ascent",
                summary="the exact hypergradient: the control of every comparison",
                exact="total",
            ),
            LQRMethod(
                name="exact_partial",
                title="exact partial ascent",
                summary="the exact partial gradient, the follower's response held fixed",
                exact="partial",
            ),
        )
    }
)
"""Every method by name."""
