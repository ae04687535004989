"""The methods that training compares: one table of what makes the direction of an ascent step, by kind of problem.

Practical methods are configured as the experiments of Kudo et al. (2026), arXiv:2603.14867, Section 6 run them: on
configurable LQRs with scores of the partial term shortened to norm 1 transition by transition, no baselines, and in
HPGD the raw return or the raw Q_L where the paper writes the benefit; what mends one fault at a time stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from bilevelrl.estimators.critics.least_squares import RegressionInputs
from bilevelrl.estimators.critics.quadratic_gradients import GradientRewards
from bilevelrl.estimators.estimator import Estimator
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.hpgd import HPGD
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.methods.pathwise_game import PathwiseGame
from bilevelrl.estimators.methods.policy_covariance import PolicyCovariance
from bilevelrl.estimators.methods.total_derivative import TotalDerivative
from bilevelrl.estimators.registry import ESTIMATORS
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.reference.objective import Objective

__all__ = ["METHODS", "Method", "Wanted", "get_method"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What determines the direction of an ascent step on some kinds of problem.

    Attributes
    ----------
    name, title, summary : str
        Name, unique for each kind; the name in tables and figures; one line about it.
    kinds
        Which problems.
    make
        Options of the training (blocks of θ that are shortened one by one on an LQR, `GameOptions` or `ScoreForm` in a
        game) → what estimates; None: the exact hypergradient.
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
    summary: str
    kinds: tuple[type, ...]
    make: Callable[[Any], Any] | None = None
    critic: Critic = "none"
    guiding: bool = True
    replay: bool = False
    greedy: bool = False


def _practical(name: str) -> Estimator:
    return ESTIMATORS[name].make(Objective())


def _published(options: Any) -> Estimator:
    return BCHG(critic="context", guiding_average="pairs", normalisation="episodes", leader_average="start_visits")


def _own_term(options: Any) -> NaivePGD:
    return NaivePGD(critic="context", baseline=options.baseline)


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
_PUBLISHED_GRADIENTS = Wanted(leader="state_action", gradient="state", gradient_rewards="score")

_TABLE = (
    Method(
        name="naive_pgd",
        title="Naive-PGD",
        summary="as published: the leader's own terms, scores shortened",
        kinds=_LQR,
        make=lambda blocks: NaivePGD(**_shortened(blocks)),
        critic=_STATE_NET,
        guiding=False,
    ),
    Method(
        name="bc_hg",
        title="BC-HG",
        summary="BC-HG as published: benefit of a table learnt by SARSA from the same batch, averages over pairs",
        kinds=_MDP,
        make=_published,
        critic="sarsa",
    ),
    Method(
        name="bc_hg",
        title="BC-HG",
        summary="policy term and guiding term of the same transitions",
        kinds=_GAME,
        make=_in_a_game,
        critic="expected",
    ),
    Method(
        name="bc_hg",
        title="BC-HG",
        summary="as published: benefit times the rest of the trajectory, raw V_F; partial scores shortened",
        kinds=_LQR,
        make=lambda blocks: BCHG(**_shortened(blocks)),
        critic=_ACTION_NET,
    ),
    Method(
        name="bc_hg",
        title="BC-HG",
        summary="policy term and guiding term of stored transitions, of the form that the set-up says",
        kinds=_LQR_GAME,
        make=lambda form: form,
        critic="expected",
    ),
    Method(
        name="bc_hg_exact_benefit",
        title="BC-HG (exact benefit)",
        summary="BC-HG as published, with the exact benefit instead of a learnt one",
        kinds=_MDP,
        make=_published,
        critic="exact",
    ),
    Method(
        name="bc_hg_formula",
        title="BC-HG (formula)",
        summary="BC-HG of the paper's formula: exact benefit, one trajectory at a time",
        kinds=_MDP,
        make=lambda _: BCHG(critic="context"),
        critic="exact",
    ),
    Method(
        name="hpgd_mc",
        title="HPGD (MC)",
        summary="HPGD as published: returns and gradients averaged over the visits in the same batch",
        kinds=_MDP,
        make=lambda _: _practical("hpgd_mc"),
    ),
    Method(
        name="hpgd_mc",
        title="HPGD (MC)",
        summary="as published: raw returns times the gradient centred by a learnt ∇V_F; scores shortened",
        kinds=_LQR,
        make=lambda blocks: HPGD(variant="critic", factor="return", **_shortened(blocks)),
        critic=Wanted(leader="state", normalised=True, gradient="state", gradient_rewards="score"),
    ),
    Method(
        name="hpgd_sa",
        title="HPGD (SA)",
        summary="HPGD as published: gradients averaged over visits, benefit of a table learnt by SARSA",
        kinds=_MDP,
        make=lambda _: HPGD(
            variant="sarsa",
            normalisation="episodes",
            leader_average="start_visits",
            delayed=True,  # the training loop has updated the table with the batch already
            name="HPGD (SA)",
        ),
        critic="sarsa",
    ),
    Method(
        name="hpgd_oracle",
        title="HPGD (oracle)",
        summary="HPGD as published: all averages from 10,000 extra steps, which start in uniformly drawn states",
        kinds=_MDP,
        make=lambda _: HPGD(
            variant="oracle_batch", normalisation="episodes", leader_average="start_visits", name="HPGD (oracle)"
        ),
    ),
    Method(
        name="hpgd_td",
        title="HPGD (TD)",
        summary="as published: raw Q_L times the gradient centred by a learnt ∇V_F; scores shortened",
        kinds=_LQR,
        make=lambda blocks: HPGD(variant="critic", factor="action_value", **_shortened(blocks)),
        critic=_PUBLISHED_GRADIENTS,
    ),
    Method(
        name="hpgd_td_benefit",
        title="HPGD (TD), benefit",
        summary="HPGD (TD) with the benefit in place of the raw Q_L",
        kinds=_LQR,
        make=lambda blocks: HPGD(variant="critic", **_shortened(blocks)),
        critic=_PUBLISHED_GRADIENTS,
    ),
    Method(
        name="bc_hg_whole_scores",
        title="BC-HG, scores whole",
        summary="BC-HG as published without shortening of scores",
        kinds=_LQR,
        make=lambda _: BCHG(critic="context"),
        critic=_ACTION_NET,
    ),
    Method(
        name="naive_pgd_centred",
        title="Naive-PGD, centred",
        summary="the leader's own terms, scores whole and weighted with temporal differences",
        kinds=_LQR,
        make=lambda _: NaivePGD(critic="context", scores="td_error"),
        critic=_ACTION_NET,
        guiding=False,
    ),
    Method(
        name="bc_hg_centred",
        title="BC-HG, centred",
        summary="BC-HG, scores whole, V_L and V_F less their expectations",
        kinds=_LQR,
        make=lambda _: BCHG(critic="context", scores="td_error"),
        critic=_ACTION_NET,
    ),
    Method(
        name="hpgd_centred",
        title="BC-HG, centred, less ∇V_F",
        summary="the same less a learnt ∇V_F: the doubly centred form",
        kinds=_LQR,
        make=lambda _: HPGD(variant="critic", critic="context", scores="td_error"),
        critic=_GRADIENTS,
    ),
    Method(
        name="bc_hg_pathwise",
        title="BC-HG, pathwise",
        summary="BC-HG with derivatives of values along the path in place of scores",
        kinds=_LQR,
        make=lambda _: PathwiseBCHG(critic="context"),
        critic=_ACTION_NET,
    ),
    Method(
        name="policy_covariance",
        title="policy covariance",
        summary="the guiding term as a covariance in closed form of learnt Q_L and ∇Q_F",
        kinds=_LQR,
        make=lambda _: PolicyCovariance(critic="context"),
        critic=_GRADIENTS,
    ),
    Method(
        name="policy_covariance_scores",
        title="policy covariance, ∇Q_F from scores",
        summary="the same with ∇Q_F learnt from V_F times scores, as published networks learn ∇V_F",
        kinds=_LQR,
        make=lambda _: PolicyCovariance(critic="context"),
        critic=Wanted(leader="state_action", gradient="state_action", gradient_rewards="score"),
    ),
    Method(
        name="sobirl",
        title="SoBiRL",
        summary="SoBiRL as published: one-step gradients weighed by averaged returns",
        kinds=_MDP,
        make=lambda _: _practical("sobirl_batch"),
    ),
    Method(
        name="naive_pgd",
        title="Naive-PGD",
        summary="the leader's own terms alone, averaged over visits of start states",
        kinds=_MDP,
        make=lambda _: _practical("naive_pgd_practical"),
        guiding=False,
    ),
    Method(
        name="naive_pgd",
        title="Naive-PGD (on-policy)",
        summary="the policy term alone, of this iteration's data",
        kinds=_GAME,
        make=_own_term,
        critic="expected",
        guiding=False,
    ),
    Method(
        name="naive_pgd_replay",
        title="Naive-PGD (off-policy)",
        summary="the policy term alone, of all past data, not reweighted",
        kinds=_GAME,
        make=_own_term,
        critic="expected",
        guiding=False,
        replay=True,
    ),
    Method(
        name="naive_pgd_on",
        title="Naive-PGD (on-policy)",
        summary="the policy term alone, of this iteration's data",
        kinds=_LQR_GAME,
        make=lambda form: form,
        critic="expected",
        guiding=False,
    ),
    Method(
        name="naive_pgd_off",
        title="Naive-PGD (off-policy)",
        summary="the policy term alone, of all past data, not reweighted",
        kinds=_LQR_GAME,
        make=lambda form: form,
        critic="expected",
        guiding=False,
        replay=True,
    ),
    Method(
        name="bi_ac",
        title="Bi-AC (on-policy)",
        summary="the policy term with the Stackelberg critic, of this iteration's data",
        kinds=_GAME,
        make=_own_term,
        critic="stackelberg",
        guiding=False,
    ),
    Method(
        name="bi_ac_replay",
        title="Bi-AC (off-policy)",
        summary="the policy term with the Stackelberg critic, of all past data, not reweighted",
        kinds=_GAME,
        make=_own_term,
        critic="stackelberg",
        guiding=False,
        replay=True,
    ),
    Method(
        name="bi_level_q",
        title="Bi-level Q-learning",
        summary="the leader imitates a Boltzmann policy of Q_L(s, l, a*(s, l)), with the Stackelberg critic",
        kinds=_GAME,
        make=_own_term,
        critic="stackelberg",
        guiding=False,
        replay=True,
        greedy=True,
    ),
    Method(
        name="total_derivative",
        title="Total derivative",
        summary="inverse Hessian of the whole batch through the follower's logits",
        kinds=_GAME,
        make=lambda options: TotalDerivative(critic="context", baseline=options.baseline),
        critic="expected",
    ),
    Method(
        name="pathwise",
        title="pathwise BC-HG",
        summary="derivatives along the path, ∇V_F by least squares, rewards averaged over the follower's noise",
        kinds=_LQR_GAME,
        make=lambda _: PathwiseGame(response="lstd"),
    ),
    Method(
        name="pathwise_raw",
        title="pathwise BC-HG, rewards not averaged",
        summary="the same with the rewards that were earned",
        kinds=_LQR_GAME,
        make=lambda _: PathwiseGame(average_reward=False, response="lstd"),
    ),
    Method(
        name="pathwise_partial",
        title="pathwise, no response",
        summary="the path's derivatives with the follower's response held fixed",
        kinds=_LQR_GAME,
        make=lambda _: PathwiseGame(response="none"),
        guiding=False,
    ),
    Method(
        name="exact",
        title="exact ascent",
        summary="the exact hypergradient of the follower's best response: the control of every comparison",
        kinds=(*_MDP, *_LQR),
    ),
    Method(
        name="exact_partial",
        title="exact partial ascent",
        summary="the exact partial gradient, the follower's response held fixed",
        kinds=_LQR,
        guiding=False,
    ),
    Method(name="exact", title="Exact hypergradient", summary="the truth, by the model", kinds=_GAME),
    Method(
        name="exact_partial",
        title="Exact partial gradient",
        summary="the truth with the follower held fixed, by the model",
        kinds=_GAME,
        guiding=False,
    ),
    Method(name="exact", title="exact hypergradient", summary="the truth, by the model", kinds=_LQR_GAME),
    Method(
        name="exact_partial",
        title="exact, no response",
        summary="the truth with the follower held fixed, by the model",
        kinds=_LQR_GAME,
        guiding=False,
    ),
)

METHODS: Mapping[type, Mapping[str, Method]] = MappingProxyType(
    {
        kind: MappingProxyType({method.name: method for method in _TABLE if kind in method.kinds})
        for kind in (ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame)
    }
)
"""Every method by kind of problem and name."""


def get_method(kind: type, name: str) -> Method:
    """Return a method by kind of problem and name.

    Raises
    ------
    UnknownNameError
        With close matches.

    Examples
    --------
    >>> get_method(MarkovGame, "naive_pgd").title
    'Naive-PGD (on-policy)'
    """
    known = METHODS[kind]
    if name not in known:
        raise UnknownNameError("method", name, known)
    return known[name]
