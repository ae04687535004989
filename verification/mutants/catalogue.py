"""The public catalogue of mutants: wrong estimators and wrong truths, each from a published bug or a usual slip.

A check that has never failed anything is not known to check. Every mutant names the check that is meant to kill it;
`kill_matrix()` computes which checks do. The mutants are the two right formulas of `mutants_sample.py` and
`mutants_exact.py` with one switch set, and a few wrappers of them.

References: BC-HG, HPGD, SoBiRL: their published code, with the versions that were read; numbers such as "betty#15" are
issues of public repositories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from bilevelrl.estimators import Context, Trajectories
from bilevelrl.reference import ConfigurableMDP, leader_objective
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.verification.mutants.along_slips import along_slips
from bilevelrl.verification.mutants.composed import composed_slips
from bilevelrl.verification.mutants.exact import ExactFormula, Remembering
from bilevelrl.verification.mutants.lambda_returns import LAMBDA_SLIPS
from bilevelrl.verification.mutants.paid import PAID_SLIPS, SharedNumbers
from bilevelrl.verification.mutants.sample import SampleFormula

__all__ = ["MUTANTS", "Mutant"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A planted error.

    Attributes
    ----------
    name : str
        Unique.
    kind : {"estimator", "gradient"}
        Function of trajectories and a context, or of a problem and θ.
    changes : str
        What is wrong, in one line.
    origin : str
        Where it was really published, or "usual slip".
    meant_for : str
        Name of the check that is to kill it.
    make : function
        () → the mutant, ready to be called; a fresh one each time.
    problem : type or None
        Kind of problem on whose default scenarios, or `composed_scenarios`, it is checked; None: all scenarios of
        configurable MDPs.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> bandit = scenario("bandit")
    >>> wrong = MUTANTS["sign of the adjoint"].make()(bandit.problem, bandit.theta)
    >>> bool(np.isclose(wrong["response"][0], -bandit.truth.value[0]))
    True
    """

    name: str
    kind: Literal["estimator", "gradient"]
    changes: str
    origin: str
    meant_for: str
    make: Callable[[], Any]
    problem: type | None = None


_found: dict[str, Mutant] = {}

MUTANTS: Mapping[str, Mutant] = MappingProxyType(_found)
"""Every mutant by name."""


def _add(
    name: str,
    kind: Literal["estimator", "gradient"],
    changes: str,
    origin: str,
    meant_for: str,
    make: Any,
    problem: type | None = None,
) -> None:
    if name in _found:
        raise InvalidInputError(refusal("name", name, "a name that is not taken", "name the mutant otherwise"))
    _found[name] = Mutant(
        name=name, kind=kind, changes=changes, origin=origin, meant_for=meant_for, make=make, problem=problem
    )


def _estimator(name: str, changes: str, origin: str, meant_for: str = "bias", **switches: Any) -> None:
    _add(name, "estimator", changes, origin, meant_for, lambda: SampleFormula(name=name, **switches))


def _gradient(name: str, changes: str, origin: str, meant_for: str = "truth", **switches: Any) -> None:
    _add(name, "gradient", changes, origin, meant_for, lambda: ExactFormula(name=name, **switches))


SLIP = "usual slip"

# Discounts.
_estimator("no discount", "γ_L^t missing", "Pearl#46, dennybritz#185: REINFORCE without γ^t", leader_weight="1")
_estimator(
    "leader weighed by γ_F", "γ_F^t for γ_L^t", "HPGD 89f3644, train_amd.py: lower-level γ", leader_weight="γ_F^t"
)
_estimator("discount one step late", "γ_L^(t+1) for γ_L^t", SLIP, leader_weight="γ_L^(t+1)")
_estimator(
    "one normalisation too many",
    "times 1 - γ_L",
    "BC-HG 9c9d42c, game code: factor 1/(1-γ_L)",
    leader_weight="normalised",
)
_estimator("suffix discounted by γ_L", "γ_L for γ_F in ∇Q_F", "HPGD 89f3644: one γ for both", suffix_discount="leader")
_estimator("suffix not discounted", "1 for γ_F in ∇Q_F", "SoBiRL on Four-Rooms: discount 1.0", suffix_discount="none")
_estimator("γ_F missing before V_F", "V_F ∇log P for γ_F V_F ∇log P", SLIP, follower_value="no discount")
_estimator("γ_L missing before V_L", "V_L ∇log P for γ_L V_L ∇log P", SLIP, leader_value="no discount")
# The suffix.
_estimator(
    "suffix one step late",
    "the step's own reward gradient missing",
    "BC-HG game code: k = 0 against k = 1",
    suffix="late",
)
_estimator("suffix without its last step", "sums to T - 1", SLIP, suffix="no last")
_estimator("one-step model of ∇Q_F", "∇r_F centred for ∇Q_F", "SoBiRL (44)-(45); released code", suffix="one step")
_estimator("V_F(s_t) for V_F(s_t+1)", "value here for value ahead", SLIP, follower_value="here")
_estimator("V_F by maximum", "max for log-sum-exp", "MatthewJA/Inverse-RL#4", follower_value="maximum")
_estimator("V_F without entropy", "Σ π Q_F for V_F", SLIP, follower_value="no entropy")
_estimator(
    "stale follower", "V_F of an earlier θ", "warm starts that are not continued; jax-gcm#813", follower_value="stale"
)
_estimator(
    "∇log P dropped in the suffix",
    "θ in P unseen by the follower",
    "BC-HG Four-Rooms code: rewards only",
    follower_score=0.0,
)
_estimator(
    "scores of the planner's kernel",
    "scores of another kernel than the samples'",
    "BC-HG 9c9d42c: .56 against .67",
    scores_of=0.16,
)
_estimator(
    "scores clipped", "each score rescaled to norm 1", "BC-HG building code: transition_logprob_grad_clip", clip=True
)
_estimator("suffix of three steps", "∇Q_F cut after three steps", SLIP, suffix="three steps")
# Places that are met again.
_estimator(
    "added in place", "table[row, s, a] += w keeps the last of repeated pairs", "NumPy's rule", visits="last of a pair"
)
_estimator(
    "first visits only", "a state's later visits do not count", "first-visit Monte Carlo", visits="first of a state"
)
_estimator("last visits only", "a dictionary keyed by states", SLIP, visits="last of a state")
# The leader's terms.
_estimator("∇log P dropped", "no transition part", SLIP, leader_score=0.0)
_estimator("V_L(s_t) for V_L(s_t+1)", "value here for value ahead", SLIP, leader_value="here")
_estimator(
    "V_L of the mode",
    "greedy action for the expectation",
    "BC-HG game code: critic targets use modes",
    leader_value="mode",
)
_estimator("∇log μ dropped", "no initial part", SLIP, initial=0.0)
_estimator(
    "∇log μ at every visit", "score of the start weighed at each step", SLIP, "bias, truncated", initial_every_step=True
)
_estimator("∇r_L dropped", "no direct part", SLIP, direct=0.0)
_estimator("∇r_F for ∇r_L", "the follower's reward in the direct part", SLIP, leader_reward="follower")
_estimator("∇ρ dropped", "no regulariser", SLIP, regulariser="never")
_estimator(
    "∇ρ at every step", "regulariser added T times", "BC-HG game code: K-regularisation twice", regulariser="every step"
)
# The benefit and the guiding term.
_estimator("response dropped", "no guiding term", "OML mrcl#15, ANML#3: first-order gradient", response=0.0)
_estimator("guiding term subtracted", "wrong sign", SLIP, response=-1.0)
_estimator("1/β missing", "1 for 1/β", SLIP, temperature_power=0)
_estimator("β for 1/β", "multiplied for divided", SLIP, temperature_power=1)
_estimator(
    "B not centred", "Q_L ∇Q_F, which needs a centred factor", "HPGD building code: raw returns", benefit="action value"
)
_estimator("V for Q", "V_L for B", SLIP, benefit="value")
_estimator("B centred by the maximum", "Q_L - max Q_L", SLIP, benefit="maximum")
_estimator("B centred uniformly", "mean over actions for mean under π", SLIP, benefit="uniform")
_estimator(
    "same-path product", "return and ∇Q_F of one suffix multiplied", "HPGD 89f3644, on_policy mode", benefit="same path"
)
_estimator("TD error for B", "one-step error times a suffix that shares its next state", SLIP, benefit="td error")
# Ends, cuts and batches.
_estimator("terminal index wraps", "V of the end read at index -1", SLIP, end="wraps")
_estimator("padding counted", "steps after the end are read", SLIP, "contract", padding=True)
_estimator(
    "truncation as termination",
    "nothing after a cut",
    "skrl#449, stable-baselines3#1864, rsl_rl#151",
    "bias, truncated",
    truncation="termination",
)
_estimator(
    "infinite critic for a finite task",
    "V_L for V_L^(h)",
    "BC-HG SARSA at the 200-step cut",
    "bias, truncated",
    truncation="infinite",
)
_estimator(
    "unvisited = 0", "critic from the same batch, 0 where nothing was seen", "HPGD oracle; torx#27", batch="same batch"
)
_estimator(
    "divided by finished episodes",
    "a ratio of sums",
    "BC-HG train_four_rooms_bchg.py:540",
    "bias, truncated",
    batch="finished",
)
_estimator("single precision", "rows rounded to float32", "HPGD train_zero_order.py: float32", precision="single")
# λ-returns and baselines.
for _name, _changes, _make in LAMBDA_SLIPS:
    _add(_name, "estimator", _changes, SLIP, "bias", _make)
# The formula for all kinds of problem.
for _slip in along_slips():
    _add(
        _slip.name,
        "estimator",
        _slip.changes,
        _slip.origin,
        _slip.meant_for,
        lambda formula=_slip.formula: replace(formula),
        _slip.problem,
    )
# Problems made of others.
for _name, _kind, _changes, _problem, _made in composed_slips():
    _meant = "truth" if _kind == "gradient" else "bias"
    _add(_name, _kind, _changes, SLIP, _meant, lambda made=_made: replace(made), _problem)
# What no mean shows.
_add(
    "shared numbers called independent",
    "estimator",
    "paid followers of both signs meet the same random numbers",
    "a generator that is seeded twice",
    "independence",
    lambda: SharedNumbers(pay=0.3, name="shared numbers called independent"),
)
# What makes an answer no sample at all.
_estimator("mean for every row", "rows that are not independent", SLIP, "contract", contract="mean")
_estimator(
    "benefits normalised over the batch",
    "rows depend on each other",
    "advantage normalisation in PPO code",
    "contract",
    contract="normalises",
)
_estimator("hidden random state", "two calls differ", SLIP, "contract", contract="random")
_estimator("writes to its input", "rewards set to zero", SLIP, "contract", contract="writes")
_estimator(
    "division by zero at the end",
    "nan where an episode ends",
    "HPGD: unguarded division, nan if none",
    "contract",
    contract="nan",
)


@dataclass(frozen=True, kw_only=True)
class _Relabelled:
    """The right sum under wrong names: direct and response exchanged."""

    name: str
    right: Callable[..., Any]

    def __call__(self, first: Any, second: Any) -> dict[str, FloatArray]:
        parts: dict[str, FloatArray] = self.right(first, second)
        return {**parts, "direct": parts["response"], "response": parts["direct"]}


_add(
    "parts exchanged",
    "estimator",
    "direct and response under each other's names; the sum is right",
    SLIP,
    "parts",
    lambda: _Relabelled(name="parts exchanged", right=SampleFormula()),
)
_add(
    "parts of the truth exchanged",
    "gradient",
    "direct and response under each other's names; the sum is right",
    SLIP,
    "truth of parts",
    lambda: _Relabelled(name="parts of the truth exchanged", right=ExactFormula()),
)

# Wrong truths.
_gradient(
    "zero adjoint", "linear solve returns its start", "torchopt#222, jaxopt#466: silent zero solve", adjoint="none"
)
_gradient("stale residual", "conjugate gradients along the old residual", "betty#15", adjoint="stale residual")
_gradient("truncated Neumann series", "three terms of the inverse", "iMAML-style unrolling", adjoint="neumann")
for _name, _changes, _paid in PAID_SLIPS:
    _origin = "value penalties: arXiv:2402.06886" if _paid.one_sided or _paid.constant else SLIP
    _add(_name, "gradient", _changes, _origin, "truth", lambda paid=_paid: paid)
_gradient("sign of the adjoint", "response subtracted", SLIP, response_sign=-1.0)
_gradient(
    "one-step derivative", "∇Q_F = ∇r_F + γ_F ∇P V_F", "one-step differentiation outside its premises", model="one step"
)
_gradient("ten sweeps", "value iteration cut, differentiated as converged", "curse of unrolling; vmex#25", sweeps=10)
_gradient("transposed P", "(I - γ P) for (I - γ Pᵀ) in the occupancy", SLIP, occupancy="transposed")
_gradient("normalised occupancy", "times 1 - γ_L", "policy-gradient theorems with normalised d", occupancy="normalised")
_gradient("occupancy at γ_F", "γ_L and γ_F swapped", SLIP, occupancy="follower")
_gradient(
    "leader discounted by γ_F",
    "V_L at the follower's discount",
    "HPGD 89f3644, train_amd.py",
    leader_discount="follower",
)
_gradient("γ_L missing before ∇P", "Σ ∇P V_L for γ_L Σ ∇P V_L", SLIP, transition_discount=False)
_gradient("Q for B", "Q_L ∇Q_F", "HPGD building code: raw Q", "reward shift", benefit="action value")
_gradient("V for B", "V_L ∇Q_F", SLIP, benefit="value")
_gradient("reward for B", "r_L ∇Q_F", SLIP, benefit="reward")
_gradient("no 1/β", "1 for 1/β", SLIP, temperature_power=0)
_gradient("β upside down", "β for 1/β", SLIP, temperature_power=1)
_gradient("maximum for log-sum-exp", "hard Bellman backup, soft policy", "MatthewJA/Inverse-RL#4", soft_value="maximum")
_gradient(
    "log-sum-exp of the mean",
    "soft value of the expected Q_F for the expected soft value",
    "BC-HG game code: soft_q_iteration.py",
    soft_value="of the mean",
)
_gradient(
    "∇P detached in the follower",
    "θ in P unseen by the response",
    "optiland#724: detached quantities",
    "shaping",
    follower_transition=0.0,
)
_gradient("∇P detached in the leader", "no transition part", "optiland#724", leader_transition=0.0)
_gradient("∇μ detached", "no initial part", SLIP, initial=0.0)
_gradient("ρ minimised", "sign of the regulariser", "BC-HG game code: gradient handed to a minimiser", regulariser=-1.0)
_gradient(
    "planner's kernel", "follower plans with another kernel", "BC-HG 9c9d42c: .56 against .67", planner_mixing=0.16
)
_gradient("leader paid the entropy", "V_L contains -β log π", "HPGD soft-Q with an extra entropy", entropy_paid=True)
_gradient(
    "envelope without entropy", "no response where r_L = r_F", "jaxopt#206: Danskin outside its premises", envelope=True
)
_gradient("last state is the end", "V_F of the last state read as 0", SLIP, "permutation", last_is_end=True)
_gradient("rewards centred", "mean of r_F subtracted where rows do not sum to one", SLIP, centred=True)
_gradient(
    "clipped to norm one", "the answer rescaled", "BC-HG configurations; higher#136", "reparameterisation", clip=True
)
_gradient("tables in single precision", "float32 tables", "jaxopt's float32 tests", single=True)
_add(
    "remembers its last follower",
    "gradient",
    "three sweeps from where the last call ended",
    "hypertorch#8: solver and fixed-point map differ",
    "history",
    Remembering,
)


def _one_sided(problem: ConfigurableMDP, theta: FloatArray) -> FloatArray:
    """Forward differences with a step at which the curvature shows."""
    here = leader_objective(problem, theta)
    steps = 1e-3 * np.eye(theta.size)
    return np.array([(leader_objective(problem, theta + step) - here) / 1e-3 for step in steps])


_add(
    "one-sided differences",
    "gradient",
    "(J(θ + h) - J(θ))/h at h = 1e-3",
    "meep#1854; zero-order baselines",
    "Taylor order",
    lambda: _one_sided,
)


def _not_finite(trajectories: Trajectories, context: Context) -> FloatArray:
    raise ZeroDivisionError("no finished episode")


_add(
    "raises",
    "estimator",
    "an exception where no episode has ended",
    "HPGD: division by the number of finished episodes",
    "contract",
    lambda: _not_finite,
)
