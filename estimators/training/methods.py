"""The methods that training compares: one table of what makes the direction of an ascent step, by kind of problem.

Practical methods are configured as the experiments of Kudo et al. (2026), arXiv:2603.14867, Section 6 run them: on
configurable LQRs with scores of the partial term shortened to norm 1 transition by transition, no baselines, and in
HPGD the raw return or the raw Q_L where the paper writes the benefit; what mends one fault at a time stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from bilevelrl.estimators.critics.least_squares import RegressionInputs
from bilevelrl.estimators.critics.quadratic_gradients import GradientRewards
from bilevelrl.estimators.estimator import Estimator
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.hpgd import HPGD
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.methods.nudged import NudgedFollowers
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.methods.pathwise_game import PathwiseGame
from bilevelrl.estimators.methods.policy_covariance import PolicyCovariance
from bilevelrl.estimators.methods.score_game import ScoreForm
from bilevelrl.estimators.methods.total_derivative import TotalDerivative
from bilevelrl.estimators.registry import ESTIMATORS
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.problem import Objective

__all__ = ["METHODS", "Method", "Wanted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a method on configurable LQRs reads.

    Attributes
    ----------
    leader
        Inputs of the critic of the leader's values; None: the method reads none.
    normalised
        Whether its rewards are divided by the largest of the batch while a network learns them.
    gradient
        Inputs of the critic of the gradient of the follower's values, or None.
    gradient_rewards
        From what it is learnt by least squares; networks learn from scores, as published.
    """

    leader: RegressionInputs | None = "state_action"
    normalised: bool = False
    gradient: RegressionInputs | None = None
    gradient_rewards: GradientRewards = "expected"


Critic: TypeAlias = Literal["none", "sarsa", "exact", "expected", "stackelberg"] | Wanted
"""Where leader values come from.

On an MDP nowhere, a table that learns from each batch before it is read, or the model; in a game the critic that the
training's options say, of the operator of that name; on an LQR what is `Wanted`.
"""


@dataclass(frozen=True, slots=True)
class Method:
    """What determines the direction of an ascent step on some kinds of problem.

    Attributes
    ----------
    name, title : str
        Name, unique for each kind, and the name in tables and figures.
    kinds
        Which problems.
    summary : str
        One line about it.
    make
        Options of the training (blocks of θ that are shortened one by one on an LQR, `GameOptions` in a game) → what
        estimates; None: the exact hypergradient.
    critic
        What the estimator reads.
    guiding
        Whether the follower's response is part of the direction; an exact one without it is the partial gradient.
    replay
        Whether all past episodes are drawn from.
    greedy
        The leader imitates the Boltzmann policy of its own stage game instead of climbing.
    """

    name: str
    title: str
    kinds: tuple[type, ...]
    summary: str
    make: Callable[[Any], Any] | None = None
    critic: Critic = "none"
    guiding: bool = True
    replay: bool = False
    greedy: bool = False


def _practical(name: str) -> Estimator:
    return ESTIMATORS[name].make(Objective())


_PER_EPISODE: dict[str, Any] = {"normalisation": "episodes", "leader_average": "start_visits"}


def _published(options: Any) -> Estimator:
    return BCHG(critic="context", guiding_average="pairs", **_PER_EPISODE)


def _own_term(options: Any) -> NaivePGD:
    return NaivePGD(critic="context", baseline=options.baseline)


def _score_form(options: Any) -> ScoreForm:
    return ScoreForm(**{entry.name: getattr(options, entry.name) for entry in fields(ScoreForm)})


def _in_a_game(options: Any) -> BCHG:
    return BCHG(
        critic="context",
        baseline=options.baseline,
        influence_baseline=options.influence_baseline,
        same_step=options.same_step,
    )


def _shortened(blocks: Any) -> dict[str, Any]:
    return {"critic": "context", "largest_score": 1.0, "score_blocks": blocks}


_MDP, _GAME, _LQR, _LQR_GAME = (ConfigurableMDP,), (MarkovGame,), (ConfigurableLQR,), (LQRGame,)
_STATE_NET, _ACTION_NET = Wanted(leader="state", normalised=True), Wanted(leader="state_action")
_GRADIENTS = Wanted(leader="state_action", gradient="state_action")
_STATE_NET_GRADIENTS = Wanted(leader="state", normalised=True, gradient="state", gradient_rewards="score")
_PUBLISHED_GRADIENTS = Wanted(leader="state_action", gradient="state", gradient_rewards="score")

# fmt: off
_TABLE = (
    Method("naive_pgd", "Naive-PGD", _LQR,
           make=lambda blocks: NaivePGD(**_shortened(blocks)), critic=_STATE_NET, guiding=False,
           summary="as published: the leader's own terms, scores shortened"),
    Method("bc_hg", "BC-HG", _MDP, make=_published, critic="sarsa",
           summary="BC-HG as published: benefit of a table learnt by SARSA from the same batch, averages over pairs"),
    Method("bc_hg", "BC-HG", _GAME, make=_in_a_game, critic="expected",
           summary="policy term and guiding term of the same transitions"),
    Method("bc_hg", "BC-HG", _LQR, make=lambda blocks: BCHG(**_shortened(blocks)), critic=_ACTION_NET,
           summary="as published: benefit times the rest of the trajectory, raw V_F; partial scores shortened"),
    Method("bc_hg", "BC-HG", _LQR_GAME, make=_score_form, critic="expected",
           summary="policy term and guiding term of stored transitions, of the form that the options say"),
    Method("bc_hg_exact_benefit", "BC-HG (exact benefit)", _MDP, make=_published, critic="exact",
           summary="BC-HG as published, with the exact benefit instead of a learnt one"),
    Method("bc_hg_formula", "BC-HG (formula)", _MDP,
           make=lambda _: BCHG(critic="context", normalisation="episodes"), critic="exact",
           summary="BC-HG of the formula: exact benefit, one trajectory at a time, a mean over finished episodes"),
    Method("hpgd_mc", "HPGD (MC)", _MDP, make=lambda _: _practical("hpgd_mc"),
           summary="HPGD as published: returns and gradients averaged over the visits in the same batch"),
    Method("hpgd_mc", "HPGD (MC)", _LQR,
           make=lambda blocks: HPGD(variant="critic", factor="return", **_shortened(blocks)),
           critic=_STATE_NET_GRADIENTS,
           summary="as published: raw returns times the gradient centred by a learnt ∇V_F; scores shortened"),
    Method("hpgd_sa", "HPGD (SA)", _MDP,
           # The training loop has updated the table with the batch already.
           make=lambda _: HPGD(variant="sarsa", delayed=True, name="HPGD (SA)", **_PER_EPISODE), critic="sarsa",
           summary="HPGD as published: gradients averaged over visits, benefit of a table learnt by SARSA"),
    Method("hpgd_oracle", "HPGD (oracle)", _MDP,
           make=lambda _: HPGD(variant="oracle_batch", name="HPGD (oracle)", **_PER_EPISODE),
           summary="HPGD as published: all averages from 10,000 extra steps, which start in uniformly drawn states"),
    Method("hpgd_td", "HPGD (TD)", _LQR,
           make=lambda blocks: HPGD(variant="critic", factor="action_value", **_shortened(blocks)),
           critic=_PUBLISHED_GRADIENTS,
           summary="as published: raw Q_L times the gradient centred by a learnt ∇V_F; scores shortened"),
    Method("hpgd_td_benefit", "HPGD (TD), benefit", _LQR,
           make=lambda blocks: HPGD(variant="critic", **_shortened(blocks)), critic=_PUBLISHED_GRADIENTS,
           summary="HPGD (TD) with the benefit in place of the raw Q_L"),
    Method("bc_hg_whole_scores", "BC-HG, scores whole", _LQR, make=lambda _: BCHG(critic="context"), critic=_ACTION_NET,
           summary="BC-HG as published without shortening of scores"),
    Method("naive_pgd_centred", "Naive-PGD, centred", _LQR,
           make=lambda _: NaivePGD(critic="context", scores="td_error"), critic=_ACTION_NET, guiding=False,
           summary="the leader's own terms, scores whole and weighted with temporal differences"),
    Method("bc_hg_centred", "BC-HG, centred", _LQR,
           make=lambda _: BCHG(critic="context", scores="td_error"), critic=_ACTION_NET,
           summary="BC-HG, scores whole, V_L and V_F less their expectations"),
    Method("hpgd_centred", "BC-HG, centred, less ∇V_F", _LQR,
           make=lambda _: HPGD(variant="critic", critic="context", scores="td_error"), critic=_GRADIENTS,
           summary="the same less a learnt ∇V_F: the doubly centred form"),
    Method("bc_hg_pathwise", "BC-HG, pathwise", _LQR, make=lambda _: PathwiseBCHG(critic="context"), critic=_ACTION_NET,
           summary="BC-HG with derivatives of values along the path in place of scores"),
    Method("policy_covariance", "policy covariance", _LQR,
           make=lambda _: PolicyCovariance(critic="context"), critic=_GRADIENTS,
           summary="the guiding term as a covariance in closed form of learnt Q_L and ∇Q_F"),
    Method("policy_covariance_scores", "policy covariance, ∇Q_F from scores", _LQR,
           make=lambda _: PolicyCovariance(critic="context"),
           critic=Wanted(leader="state_action", gradient="state_action", gradient_rewards="score"),
           summary="the same with ∇Q_F learnt from V_F times scores, as published networks learn ∇V_F"),
    Method("sobirl", "SoBiRL", _MDP, make=lambda _: _practical("sobirl_batch"),
           summary="SoBiRL as published: one-step gradients weighed by averaged returns"),
    Method("nudged", "nudged followers", _MDP, make=lambda _: NudgedFollowers(pay=3.0, unpaid=False),
           summary="followers that are paid ±3β of the leader's reward, independent, one episode each: no critic"),
    Method("nudged_common", "nudged followers, common numbers", _MDP,
           make=lambda _: NudgedFollowers(pay=3.0, numbers="common", unpaid=False),
           summary="the same with common random numbers, which takes a simulator"),
    Method("naive_pgd", "Naive-PGD", _MDP, make=lambda _: _practical("naive_pgd_practical"), guiding=False,
           summary="the leader's own terms alone, averaged over visits of start states"),
    Method("naive_pgd", "Naive-PGD (on-policy)", _GAME, make=_own_term, critic="expected", guiding=False,
           summary="the policy term alone, of this iteration's data"),
    Method("naive_pgd_replay", "Naive-PGD (off-policy)", _GAME,
           make=_own_term, critic="expected", guiding=False, replay=True,
           summary="the policy term alone, of all past data, not reweighted"),
    Method("naive_pgd_on", "Naive-PGD (on-policy)", _LQR_GAME, make=_score_form, critic="expected", guiding=False,
           summary="the policy term alone, of this iteration's data"),
    Method("naive_pgd_off", "Naive-PGD (off-policy)", _LQR_GAME,
           make=_score_form, critic="expected", guiding=False, replay=True,
           summary="the policy term alone, of all past data, not reweighted"),
    Method("bi_ac", "Bi-AC (on-policy)", _GAME, make=_own_term, critic="stackelberg", guiding=False,
           summary="the policy term with the Stackelberg critic, of this iteration's data"),
    Method("bi_ac_replay", "Bi-AC (off-policy)", _GAME,
           make=_own_term, critic="stackelberg", guiding=False, replay=True,
           summary="the policy term with the Stackelberg critic, of all past data, not reweighted"),
    Method("bi_level_q", "Bi-level Q-learning", _GAME,
           make=_own_term, critic="stackelberg", guiding=False, replay=True, greedy=True,
           summary="the leader imitates a Boltzmann policy of Q_L(s, l, a*(s, l)), with the Stackelberg critic"),
    Method("total_derivative", "Total derivative", _GAME,
           make=lambda options: TotalDerivative(critic="context", baseline=options.baseline), critic="expected",
           summary="inverse Hessian of the whole batch through the follower's logits"),
    Method("pathwise", "pathwise BC-HG", _LQR_GAME, make=lambda _: PathwiseGame(response="lstd"),
           summary="derivatives along the path, ∇V_F by least squares, rewards averaged over the follower's noise"),
    Method("pathwise_raw", "pathwise BC-HG, rewards not averaged", _LQR_GAME,
           make=lambda _: PathwiseGame(average_reward=False, response="lstd"),
           summary="the same with the rewards that were earned"),
    Method("pathwise_partial", "pathwise, no response", _LQR_GAME,
           make=lambda _: PathwiseGame(response="none"), guiding=False,
           summary="the path's derivatives with the follower's response held fixed"),
    Method("exact", "exact ascent", (*_MDP, *_LQR),
           summary="the exact hypergradient of the follower's best response: the control of every comparison"),
    Method("exact_partial", "exact partial ascent", _LQR, guiding=False,
           summary="the exact partial gradient, the follower's response held fixed"),
    Method("exact", "Exact hypergradient", _GAME,
           summary="the truth, by the model"),
    Method("exact_partial", "Exact partial gradient", _GAME, guiding=False,
           summary="the truth with the follower held fixed, by the model"),
    Method("exact", "exact hypergradient", _LQR_GAME,
           summary="the truth, by the model"),
    Method("exact_partial", "exact, no response", _LQR_GAME, guiding=False,
           summary="the truth with the follower held fixed, by the model"),
)
# fmt: on

METHODS: Mapping[type, Mapping[str, Method]] = MappingProxyType(
    {
        kind: MappingProxyType({method.name: method for method in _TABLE if kind in method.kinds})
        for kind in (ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame)
    }
)
"""Every method by kind of problem and name."""
