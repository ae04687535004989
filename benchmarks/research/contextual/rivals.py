"""The rivals that HPGD's table has, as its release runs them on contextual Four-Rooms, and a value penalty beside them.

*AMD* (Chen et al. 2022) keeps tables Q_F, Y = ∇Q_F, Q_L and Z from one outer iteration to the next, in each context,
and sweeps them a hundred times, all from the old ones, with V and bars for what the policy expects:

    π = softmax(Q_F/β),   Q_F ← r_F + γ_F P V_F,   Y ← ∇r_F + γ_F P Ȳ,   Q_L ← r_L + γ_L P V_L                   (1)
    Z ← ∇r_L + (Y - Ȳ)(Q_L - V_L)/β + γ_L P Z̄,   g = E[Z̄(s_0)] in the context drawn                               (2)

*Zero-order*: g = (J_ξ(θ + uz) - J_ξ(θ)) z/u with z ~ N(0, I) and u = c/t in outer iteration t = 1, 2, …, both values
exact.                                                                                                            (3)

*Penalty*: the exact expectation of the one-sided value penalty, in all contexts, with a pay of β/10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy.sparse import csr_array

from bilevelrl.estimators.contexts import MixtureTraining, MixtureWorld
from bilevelrl.estimators.training import Run, Training, World
from bilevelrl.reference import ConfigurableMDP, leader_objective
from bilevelrl.reference.approximations import approximate_hypergradient
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Positive, checked
from bilevelrl.reference.tabular import to_dense

__all__ = ["RIVALS", "AlternatingTables", "RivalTraining"]

RIVALS = {"amd": "AMD", "zero_order": "zero-order", "penalty": "value penalty, one-sided"}
"""Names and titles."""

SWEEPS = 100
PAY = 0.1


class AlternatingTables:
    """AMD's tables in one context, for one run; θ in the rewards only.

    Parameters
    ----------
    problem
        The context.
    theta
        Any parameter.
    """

    def __init__(self, problem: ConfigurableMDP, theta: FloatArray) -> None:
        self.problem = problem
        tables = problem.tables_at(theta)
        kernel = to_dense(tables.transition)
        self.states, self.actions, _ = kernel.shape
        self._kernel = csr_array(kernel.reshape(-1, self.states))
        self._initial = np.asarray(tables.initial)
        shape = (self.states, self.actions)
        self.tables: dict[str, FloatArray] = {
            "follower": np.zeros(shape),
            "heard": np.zeros((*shape, theta.size)),
            "leader": np.zeros(shape),
            "led": np.zeros((*shape, theta.size)),
        }

    def sweep(self, theta: FloatArray, sweeps: int = SWEEPS) -> None:
        """Sweep the tables at θ, all from the old ones."""
        problem, beta = self.problem, self.problem.temperature
        tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)
        none = np.zeros((self.states, self.actions, theta.size))
        earned, paid = jacobian.get("reward_follower", none), jacobian.get("reward_leader", none)
        q, y, w, z = (self.tables[name] for name in ("follower", "heard", "leader", "led"))
        for _ in range(sweeps):
            peak = q.max(axis=1, keepdims=True)
            policy = np.exp((q - peak) / beta)
            mass = policy.sum(axis=1, keepdims=True)
            policy /= mass
            value = (peak + beta * np.log(mass))[:, 0]
            worth, known, led = (np.einsum("sa,sa...->s...", policy, table) for table in (w, y, z))
            guided = (y - known[:, None]) * ((w - worth[:, None]) / beta)[..., None]
            z = paid + guided + problem.discount_leader * self._ahead(led)  # (2)
            w = np.asarray(tables.reward_leader) + problem.discount_leader * self._ahead(worth)  # (1)
            y = earned + problem.discount_follower * self._ahead(known)  # (1)
            q = np.asarray(tables.reward_follower) + problem.discount_follower * self._ahead(value)  # (1)
        self.tables = {"follower": q, "heard": y, "leader": w, "led": z}

    def gradient(self) -> FloatArray:
        """Return what the tables have for ∇J, (N,)."""
        q = self.tables["follower"] / self.problem.temperature
        policy = np.exp(q - q.max(axis=1, keepdims=True))
        policy /= policy.sum(axis=1, keepdims=True)
        found: FloatArray = self._initial @ np.einsum("sa,san->sn", policy, self.tables["led"])
        return found

    def _ahead(self, value: FloatArray) -> FloatArray:
        return np.asarray(self._kernel @ value).reshape(self.states, self.actions, *value.shape[1:])


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class RivalTraining(MixtureTraining):
    """Training of the rivals; see `MixtureTraining`.

    Parameters
    ----------
    smoothing
        c of (3).
    """

    smoothing: Positive = 0.5

    def methods(self) -> Iterable[str]:
        """Return the names of the rivals."""
        return RIVALS

    def world(self, generators: Sequence[Generator]) -> World:
        """Return what the rivals act in."""
        return RivalWorld(self, generators)

    def members(self, runs: Sequence[Run]) -> list[Training]:
        """Return what tells the contexts: none of their own methods is run."""
        return MixtureTraining.members(self, [replace(run, method="exact") for run in runs[:1]])


class RivalWorld(MixtureWorld):
    """The tables, points and random numbers of the rivals, run by run."""

    def __init__(self, training: RivalTraining, generators: Sequence[Generator]) -> None:
        super().__init__(training, generators)
        self._rivals = training
        theta = np.zeros(training.theta_shape)
        self._iteration = 0
        self._tables = {
            row: [
                AlternatingTables(context, theta)
                for context in training.problem.contexts
                if isinstance(context, ConfigurableMDP)
            ]
            for row, run in enumerate(training.runs)
            if run.method == "amd"
        }

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Sweep AMD's tables; all else is done where the direction is asked for."""
        self._iteration = iteration
        for row, contexts in self._tables.items():
            for tables in contexts:
                tables.sweep(thetas[row])

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return each run's direction."""
        return np.stack([self._of(row, theta) for row, theta in enumerate(thetas)])

    def _of(self, row: int, theta: FloatArray) -> FloatArray:
        problem, rng = self.training.problem, self.generators[row]
        if self.training.runs[row].method == "penalty":
            return approximate_hypergradient(problem, theta, "value_penalty_one_sided", PAY)
        place = self.drawn(rng)
        if row in self._tables:
            return self._tables[row][place].gradient()
        width = self._rivals.smoothing / (self._iteration + 1)
        noise = rng.standard_normal(theta.size)
        ahead, here = (leader_objective(problem.contexts[place], at) for at in (theta + width * noise, theta))
        return (ahead - here) / width * noise  # (3)

    def arrays(self) -> dict[str, FloatArray]:
        """Return AMD's tables."""
        return {f"{key}.{name}": table for key, own in self._of_amd().items() for name, table in own.tables.items()}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        for key, own in self._of_amd().items():
            own.tables = {name: arrays[f"{key}.{name}"] for name in own.tables}

    def _of_amd(self) -> dict[str, AlternatingTables]:
        return {f"{row}-{place}": own for row, each in self._tables.items() for place, own in enumerate(each)}
