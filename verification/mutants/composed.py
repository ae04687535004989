"""Problems made of others (mixtures, separate kernels, general objectives) by one formula, with one slip each.

The hypergradient of a return that is measured in one MDP, of a follower that is soft-optimal in another, with
d = (I - γ_L P_πᵀ)^{-1} μ, U = V_L of the measured one, and ∇V_F, ∇Q_F of the planned one:

    ∇J = ∇μ·U + Σ d π [∇r_L + γ_L ∇P U] + Σ d π B (∇Q_F - ∇V_F)/β + ∇ρ                                             (1)

A mixture is Σ p ∇J over its contexts. Of a general f(θ, π, d) the slopes stand in the place of rewards: ∂f/∂d as the
pay of a state, and Σ ∂f/∂π π (∇Q_F - ∇V_F)/β beside. Nothing here is shared with the routes but derivatives of tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import autograd.numpy as anp
import numpy as np

from bilevelrl.estimators import Context, Trajectories
from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.contexts import Mixture
from bilevelrl.reference.general_objective import GeneralObjective, ordinary_problem
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.reference.separate_kernels import SeparateKernels
from bilevelrl.tasks import Scenario, layered_mdp, random_mdp
from bilevelrl.verification.mutants.exact import DenseTables, dense_tables, follower_fixed_point, follower_gradients
from bilevelrl.verification.mutants.sample import SampleFormula

__all__ = ["COMPOSED", "ComposedFormula", "MixedFormula", "composed_scenarios", "composed_slips"]

COMPOSED: dict[str, type] = {
    "mixture": Mixture,
    "separate kernels": SeparateKernels,
    "general objective": GeneralObjective,
}
"""Kinds that are made of other problems, by the names of tables."""


@dataclass(frozen=True, kw_only=True)
class ComposedFormula:
    """A gradient function (problem, θ) → (N,), right unless a switch is set.

    Parameters
    ----------
    name
        In tables.
    problem
        Which kind it is for.
    weights
        Of contexts: "known"; "equal"; "squared"; "last forgotten": it is not counted.
    regulariser
        "weighted" over contexts; "averaged": each counts alike; "summed": each counts once.
    follower
        Of contexts: "own", or "first": all meet the first one's.
    measured_in
        "measured"; "planned": the leader's transitions are the planner's.
    occupancy, benefit, moves
        Whose kernel d, B and ∇P are of: "measured" or "planned".
    response
        "planned"; "measured": ∇Q_F is of the measured kernel, along the planned values.
    forgets
        A slope of f: "", "theta", "policy" or "occupancy".
    centred
        Whether ∇V_F is taken off where ∂f/∂π is moved along.
    occupancy_discount
        What f's occupancy is discounted with: "leader" or "follower".
    """

    name: str = "composed formula"
    problem: type = Mixture
    weights: Literal["known", "equal", "squared", "last forgotten"] = "known"
    regulariser: Literal["weighted", "averaged", "summed"] = "weighted"
    follower: Literal["own", "first"] = "own"
    measured_in: Literal["measured", "planned"] = "measured"
    occupancy: Literal["measured", "planned"] = "measured"
    benefit: Literal["measured", "planned"] = "measured"
    moves: Literal["measured", "planned"] = "measured"
    response: Literal["planned", "measured"] = "planned"
    forgets: Literal["", "theta", "policy", "occupancy"] = ""
    centred: bool = True
    occupancy_discount: Literal["leader", "follower"] = "leader"

    def __call__(self, problem: Any, theta: FloatArray) -> FloatArray:
        """Return the gradient at θ."""
        if isinstance(problem, Mixture):
            return self._mixture(problem, theta)
        if isinstance(problem, SeparateKernels):
            planned, measured = (dense_tables(one, theta) for one in (problem.planned, problem.measured))
            return self._of(problem, planned, measured) + measured.d_regulariser
        return self._general(problem, theta)

    def _mixture(self, problem: Mixture, theta: FloatArray) -> FloatArray:
        contexts: Sequence[Any] = problem.contexts
        each = [dense_tables(context, theta) for context in contexts]
        p = np.asarray(problem.weights)
        counted = {
            "known": p,
            "equal": np.full(p.size, 1.0 / p.size),
            "squared": p**2,
            "last forgotten": p * (np.arange(p.size) < p.size - 1),
        }[self.weights]
        paid = {"weighted": counted, "averaged": np.full(p.size, 1.0 / p.size), "summed": np.ones(p.size)}
        total = np.zeros(theta.size)
        for place, own in enumerate(each):
            met = own if self.follower == "own" else each[0]
            total += counted[place] * self._of(problem, met, own)
            total += paid[self.regulariser][place] * own.d_regulariser
        return total

    def _of(self, problem: Any, planned: DenseTables, measured: DenseTables) -> FloatArray:
        """(1), but for ∇ρ."""
        return _Return(formula=self, problem=problem, planned=planned, measured=measured).gradient(
            measured.reward_leader, measured.d_reward_leader, None
        )

    def _general(self, problem: GeneralObjective, theta: FloatArray) -> FloatArray:
        tables = dense_tables(problem.process, theta)
        made = _Return(formula=self, problem=problem, planned=tables, measured=tables)
        slopes = problem.slopes(theta, made.policy, made.visits)
        pay = np.zeros_like(tables.reward_leader)
        if self.forgets != "occupancy":
            pay = pay + np.asarray(slopes.occupancy)[:, None]
        steep = np.asarray(slopes.policy) if self.forgets != "policy" else np.zeros_like(pay)
        found = made.gradient(pay, np.zeros((*pay.shape, theta.size)), steep)
        return found + (np.asarray(slopes.theta).ravel() if self.forgets != "theta" else 0.0)


@dataclass(frozen=True, kw_only=True)
class _Return:
    """A return in one problem of the follower of another."""

    formula: ComposedFormula
    problem: Any
    planned: DenseTables
    measured: DenseTables

    @property
    def discount(self) -> float:
        """γ_L, or what stands for it."""
        follower = self.formula.occupancy_discount == "follower"
        return float(self.problem.discount_follower if follower else self.problem.discount_leader)

    @property
    def solved(self) -> tuple[FloatArray, FloatArray]:
        """V_F and π."""
        return follower_fixed_point(self.planned, self.problem.discount_follower, self.problem.temperature)

    @property
    def policy(self) -> FloatArray:
        """π (S, A)."""
        return self.solved[1]

    def kernel(self, switch: str) -> FloatArray:
        """Whose transitions something reads, (S, A, S)."""
        planner = "planned" in (self.formula.measured_in, switch)
        return self.planned.transition if planner else self.measured.transition

    def chain(self, switch: str) -> FloatArray:
        """(S, S)."""
        result: FloatArray = np.einsum("sa,sap->sp", self.policy, self.kernel(switch))
        return result

    @property
    def visits(self) -> FloatArray:
        """D (S,)."""
        chain = self.chain(self.formula.occupancy)
        return np.asarray(np.linalg.solve((np.eye(len(chain)) - self.discount * chain).T, self.measured.initial))

    def gradient(self, reward: FloatArray, slope: FloatArray, steep: FloatArray | None) -> FloatArray:
        """(1) for a reward, its derivatives, and ∂f/∂π where f has one; without ∇ρ."""
        value, policy = self.solved
        chain = self.chain("measured")
        leader = np.linalg.solve(np.eye(len(chain)) - self.discount * chain, (policy * reward).sum(axis=1))
        read = reward + self.discount * self.kernel(self.formula.benefit) @ leader
        benefit = read - (policy * read).sum(axis=1, keepdims=True)
        along = self.planned
        if self.formula.response == "measured":
            along = self.measured
        d_value, d_action_value = follower_gradients(along, value, policy, self.problem.discount_follower)
        moved = policy[..., None] * (d_action_value - d_value[:, None] * self.formula.centred)
        moved = moved / self.problem.temperature
        moves = self.planned if "planned" in (self.formula.moves, self.formula.measured_in) else self.measured
        taken = self.visits[:, None] * policy
        found = leader @ self.measured.d_initial + np.tensordot(taken, slope, axes=2)  # (1)
        found = found + self.discount * np.tensordot(
            taken, np.einsum("sapn,p->san", moves.d_transition, leader), axes=2
        )
        found = found + np.tensordot(self.visits[:, None] * benefit, moved, axes=2)
        return np.asarray(found if steep is None else found + np.tensordot(steep, moved, axes=2))


@dataclass(frozen=True, kw_only=True)
class MixedFormula:
    """An estimator on a mixture as one MDP, right unless contexts are weighed again.

    Parameters
    ----------
    name
        In tables.
    problem
        Which kind it is for.
    weighs
        "drawn": contexts come as often as they count; "again": rows are multiplied by the weight too; "equal": and
        divided by it, so that each counts alike; "last forgotten": its rows are zero.
    """

    name: str = "mixed formula"
    problem: type = Mixture
    weighs: Literal["drawn", "again", "equal", "last forgotten"] = "drawn"

    def __call__(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """Return one row per trajectory."""
        rows = sum(SampleFormula()(trajectories, context).values())
        tables = context.problem.tables_at(context.theta)
        half = tables.states // 2
        first = trajectories.state_t[:, 0] < half
        share = np.where(first, tables.initial[:half].sum(), tables.initial[half:].sum())
        times = {"drawn": 1.0 + 0.0 * share, "again": share, "equal": 0.5 / share, "last forgotten": 1.0 * first}
        return np.asarray(rows * times[self.weighs][:, None])


@lru_cache(maxsize=8)
def composed_scenarios(kind: type, *, sampled: bool = False) -> tuple[Scenario, ...]:
    """Return scenarios of a kind that is made of other problems; `sampled`: as estimators see them.

    Examples
    --------
    >>> [len(composed_scenarios(kind)) for kind in COMPOSED.values()]
    [2, 2, 2]
    """
    theta, found = np.array([0.2, -0.1, 0.3]), []
    for seed in (0, 2):
        one, other = (layered_mdp(seed=seed + k) for k in (0, 1))
        made: Any = Mixture(contexts=[one, other], weights=np.array([0.25, 0.75]))
        truth = None
        if kind is SeparateKernels:
            made = SeparateKernels(planned=one, measured=other)
        elif kind is GeneralObjective:
            made = GeneralObjective(process=random_mdp(states=3, actions=2, parameters=3, seed=seed), objective=_wanted)
            truth = ordinary_problem(made, theta)  # the same gradient, with a bound
        name = f"{next(name for name, known in COMPOSED.items() if known is kind)} {seed}"
        own = Scenario(
            problem=made, theta=theta, horizon=3, objective=INFINITE_HORIZON, truth_of_problem=truth, name=name
        )
        found.append(Scenario.of(made, theta, name=name) if sampled else own)
    return tuple(found)


def _wanted(theta: Traced, policy: Traced, occupancy: Traced) -> Traced:
    """Somebody's f with a slope in everything."""
    return anp.sum(anp.sin(theta)) - anp.sum((occupancy - 1.0) ** 2) - 0.3 * anp.sum(policy[:, 0] ** 2 * occupancy)


_SLIPS: tuple[tuple[type, str, str, dict[str, Any]], ...] = (
    (Mixture, "weights forgotten", "contexts averaged, whatever their weights", {"weights": "equal"}),
    (Mixture, "weights put twice", "p² for p", {"weights": "squared"}),
    (Mixture, "last context forgotten", "a sum that ends one context early", {"weights": "last forgotten"}),
    (Mixture, "∇ρ averaged", "∇ρ of contexts averaged, whatever their weights", {"regulariser": "averaged"}),
    (Mixture, "∇ρ summed", "∇ρ of every context counted whole", {"regulariser": "summed"}),
    (Mixture, "one follower for all", "every context meets the first one's follower", {"follower": "first"}),
    (SeparateKernels, "measured in the planner's", "the planner's kernel for the leader's", {"measured_in": "planned"}),
    (SeparateKernels, "visits of the planner's", "occupancy in the planner's kernel", {"occupancy": "planned"}),
    (SeparateKernels, "benefit of the planner's", "Q_L looks ahead in the planner's kernel", {"benefit": "planned"}),
    (SeparateKernels, "∇P of the planner's", "the leader's ∇P is the planner's", {"moves": "planned"}),
    (SeparateKernels, "response in the measured", "∇Q_F in the leader's kernel", {"response": "measured"}),
    (GeneralObjective, "cotangent of d forgotten", "no ∂f/∂d: the occupancy stands still", {"forgets": "occupancy"}),
    (GeneralObjective, "cotangent of π forgotten", "no ∂f/∂π: only visits move", {"forgets": "policy"}),
    (GeneralObjective, "cotangent of θ forgotten", "no ∂f/∂θ", {"forgets": "theta"}),
    (GeneralObjective, "∂f/∂π along ∇Q_F", "∇Q_F for ∇Q_F - ∇V_F, as if ∂f/∂π were centred", {"centred": False}),
    (GeneralObjective, "visits at γ_F", "d discounted by γ_F", {"occupancy_discount": "follower"}),
)


def composed_slips() -> list[tuple[str, Literal["gradient", "estimator"], str, type, Any]]:
    """Return (name, "gradient" or "estimator", what is wrong, kind of problem, the mutant) of all.

    Examples
    --------
    >>> sum(kind is Mixture for _, _, _, kind, _ in composed_slips())
    9
    """
    names = {kind: name for name, kind in COMPOSED.items()}
    found: list[tuple[str, Literal["gradient", "estimator"], str, type, Any]] = []
    for kind, name, changes, switches in _SLIPS:
        full = f"{name}, {names[kind]}"
        found.append((full, "gradient", changes, kind, ComposedFormula(name=full, problem=kind, **switches)))
    again: tuple[tuple[str, str, Literal["again", "equal", "last forgotten"]], ...] = (
        ("drawn and weighed", "rows of a drawn context times its weight", "again"),
        ("drawn and divided", "rows of a drawn context over its weight", "equal"),
        ("last context's rows dropped", "rows of the last context are zero", "last forgotten"),
    )
    for name, changes, weighs in again:
        full = f"{name}, {names[Mixture]}"
        found.append((full, "estimator", changes, Mixture, MixedFormula(name=full, weighs=weighs)))
    return found
