"""Leaders that learn the kernel from all transitions they ever saw, as methods of the training loop.

"model_ascent" follows the hypergradient that the learnt kernel gives at the followers' true policies: an estimate whose
bias is that of the kernel. "model_leader" first plays random incentives, then what a global search on the learnt model
values most, learns from what happens there, and searches again. "values_leader" does the same with the kernel that the
followers' values imply; counts only fill in what these leave open.

None uses the exact objective, critic or hypergradient. What they know: r_F and r_L as functions of θ, β, both
discounts, the initial law, the followers' policies at the θ that are played (of "values_leader": and their soft values
there), and their own samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from bilevelrl.benchmarks.research.model_based.kernel_from_values import continuations, kernel_from_values
from bilevelrl.benchmarks.research.model_based.learnt_model import model_hypergradients, with_kernel
from bilevelrl.benchmarks.research.model_based.planning import Planner
from bilevelrl.benchmarks.research.model_based.transition_counts import TransitionCounts, learnt_kernel
from bilevelrl.estimators import TabularSimulator
from bilevelrl.estimators.followers import (
    Carried,
    ExactFollower,
    SharedDynamics,
    batch_hypergradients,
    batch_objectives,
)
from bilevelrl.estimators.terms import SeedBatch
from bilevelrl.estimators.training import (
    GRADIENT_COLUMNS,
    SGD,
    LeaderTraining,
    World,
    gradient_errors,
    published_simulator,
)
from bilevelrl.reference import ConfigurableMDP, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Positive, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.tabular import to_dense

__all__ = ["MODEL_METHODS", "SEARCHING", "ModelTraining"]

MODEL_METHODS: Mapping[str, str] = {
    "model_ascent": "ascent on a counted model",
    "model_leader": "search on a counted model",
    "values_leader": "search on a model from the followers' values",
}
"""Titles of the methods by name."""

SEARCHING = ("model_leader", "values_leader")
"""Those that search, and jump to what they find."""

_ROUNDING = 1e-9
"""Relative singular value below which exact values do not differ."""
_MOST_NOISE = 0.05
"""Relative error of values beyond which nothing is left to read off them."""


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraining(LeaderTraining):
    """Runs of leaders that learn the kernel; see `LeaderTraining` for what is not listed here.

    Parameters
    ----------
    problem
        θ in the rewards only.
    simulator
        How samples are made.
    pooling
        Of `learnt_kernel`.
    plans
        Outer iterations, increasing, at whose end leaders search; before the first one they play random points.
    remembered
        How many of the first plays' values "values_leader" uses.
    value_noise
        Relative error of the values that it reads: each is multiplied by 1 + N(0, value_noise²). It knows the size, and
        takes singular values below that share of the largest for no difference.
    decision
        Outer iteration at whose end the leader returns to the best of the plans that it has played, by what the model
        makes of the policies that followers showed there; None: it stays with the latest.
    planner
        How leaders search.
    refit_every
        Outer iterations between two kernels of "model_ascent".

    Raises
    ------
    InvalidInputError
        If a number is out of range, or if a leader that searches, and jumps to its plan, is asked for something else
        than plain steps of rate 1 without clipping.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run, train
    >>> from bilevelrl.tasks import four_rooms
    >>> runs = [Run(method="model_leader", seed=0, learning_rate=1.0)]
    >>> planner = Planner(screened=20, kept=1, steps=5)
    >>> training = ModelTraining(
    ...     problem=four_rooms(), runs=runs, iterations=4, largest_norm=np.inf, plans=(2,), planner=planner
    ... )
    >>> train(training).iterations.tolist()
    [0, 3]
    """

    problem: ConfigurableMDP
    simulator: TabularSimulator = field(default_factory=published_simulator)
    pooling: Positive = 2.0
    plans: tuple[int, ...] = (300, 400, 600)
    decision: int | None = None
    planner: Planner = field(default_factory=Planner)
    remembered: Count = 160
    value_noise: float = 0.0
    refit_every: Count = 10

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)  # slots make a new class, which super() without arguments does not find
        if not 0.0 <= self.value_noise <= _MOST_NOISE:
            raise InvalidInputError(
                refusal("value_noise", self.value_noise, f"a number in [0, {_MOST_NOISE:g}]", "0 is exact")
            )
        if not self.plans or any(
            later <= earlier for earlier, later in zip((-1, *self.plans), self.plans, strict=False)
        ):
            raise InvalidInputError(
                refusal("plans", self.plans, "increasing integers >= 0", "(300, 400, 600) is usual")
            )
        searching = any(run.method in SEARCHING for run in self.runs)
        last = self.plans[-1] if self.decision is None else max(self.decision, self.plans[-1])
        if searching and last >= self.iterations:
            raise InvalidInputError(
                refusal(
                    "iterations", self.iterations, f"more than {last}, when the last plan is made", "train for longer"
                )
            )
        if self.decision is not None and self.decision <= self.plans[-1]:
            raise InvalidInputError(
                refusal(
                    "decision", self.decision, f"None or an integer > {self.plans[-1]}", "let plans be played first"
                )
            )
        if self.ascent_steps != 1:
            raise InvalidInputError(refusal("ascent_steps", self.ascent_steps, "1", "raise iterations instead"))
        if self.problem.theta_shape is None or len(self.problem.theta_shape) != 1:
            raise InvalidInputError(
                refusal("problem.theta_shape", self.problem.theta_shape, "one axis", "pass theta_shape=(N,)")
            )
        rates = {run.learning_rate for run in self.runs if run.method in SEARCHING}
        if rates:
            plain = self.optimiser == SGD() and self.schedule == "constant"
            if rates != {1.0} or not plain or self.largest_norm != np.inf:
                raise InvalidInputError(
                    "leaders that search jump to their plans: expected learning_rate=1.0, optimiser=SGD(), "
                    "schedule='constant' and largest_norm=numpy.inf; train model_ascent separately"
                )

    def methods(self) -> Iterable[str]:
        """Return the names in `MODEL_METHODS`."""
        return MODEL_METHODS

    def world(self, generators: Sequence[Generator]) -> World:
        """Return what the runs act in."""
        return _ModelWorld(self, generators)

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the tables at θ_0, and the kernel that moves the samples."""
        theta = self.start()[0]
        tables = self.problem.tables_at(theta).differentiable()
        yield from (np.asarray(tables[name], dtype=np.float64) for name in sorted(tables))
        if isinstance(self.simulator.dynamics, ConfigurableMDP):
            yield to_dense(self.simulator.dynamics.tables_at(theta).transition)


class _ModelWorld(World):
    """Followers, counts, and the latest plan of all runs."""

    columns = ("objective", "model_objective", "environment_steps", *GRADIENT_COLUMNS)

    def __init__(self, training: ModelTraining, generators: Sequence[Generator]) -> None:
        self.training, self.generators = training, generators
        start = training.start()
        self.dynamics = SharedDynamics(training.problem, start[0])
        self.counts = TransitionCounts(runs=len(start), states=self.dynamics.states, actions=self.dynamics.actions)
        self.plans = np.zeros((len(start), training.planner.kept, start.shape[1]))
        self.promised = np.zeros(len(start))
        self.played_plans = np.zeros((len(start), len(training.plans), start.shape[1]))
        self.shown = np.zeros((*self.played_plans.shape[:2], self.dynamics.states, self.dynamics.actions))
        self.kernels = np.zeros((len(start), *self.dynamics.kernel.shape))
        self.models: list[SharedDynamics | None] = [None] * len(start)
        watches = any(run.method == "values_leader" for run in training.runs)
        memory = (len(start), training.remembered if watches else 0, self.dynamics.states)
        self.values, self.expected = np.zeros(memory), np.zeros((*memory, self.dynamics.actions))
        self.carried: Carried = {}
        self.played: SeedBatch
        self.iteration = 0

    def arrays(self) -> dict[str, FloatArray]:
        """Return counts, plans, kernels and what followers carry on."""
        stored = {f"follower.{name}": array for name, array in self.carried.items()}
        named = ("plans", "promised", "played_plans", "shown", "kernels", "values", "expected")
        return {**stored, "counts": self.counts.table, **{name: getattr(self, name) for name in named}}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.counts.table, self.plans, self.promised = arrays["counts"], arrays["plans"], arrays["promised"]
        self.played_plans, self.shown = arrays["played_plans"], arrays["shown"]
        self.kernels, self.models = arrays["kernels"], [None] * len(arrays["plans"])
        self.values, self.expected = arrays["values"], arrays["expected"]
        prefix = "follower."
        self.carried = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, every run sample, and count."""
        training, self.iteration = self.training, iteration
        rewards = self.dynamics.rewards(thetas)
        self.played, self.carried = ExactFollower().respond(self.dynamics, rewards, self.carried)
        trajectories = self.played.sample(
            streams=training.streams, steps=training.steps, rng=self.generators, simulator=training.simulator
        )
        self.counts.add(trajectories, np.repeat(np.arange(len(thetas)), training.streams))
        if iteration - 1 in training.plans:
            place = training.plans.index(iteration - 1)
            self.played_plans[:, place], self.shown[:, place] = thetas, self.played.policy
        if iteration < self.values.shape[1]:
            problem = training.problem
            seen = self._read(iteration)
            self.values[:, iteration] = seen
            self.expected[:, iteration] = continuations(
                seen,
                self.played.policy,
                rewards.follower,
                temperature=problem.temperature,
                discount=problem.discount_follower,
            )

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return the learnt model's hypergradients, and the ways to the next points to play."""
        direction = np.zeros_like(thetas)
        for row, run in enumerate(self.training.runs):
            if run.method == "model_ascent":
                direction[row] = self._model_gradient(row)
            else:
                direction[row] = self._next_point(row, thetas[row]) - thetas[row]
        return direction

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return exact objectives, what models promise, and how far the models' hypergradients are from the truth."""
        estimate = direction.copy()
        for row, run in enumerate(self.training.runs):
            if run.method in SEARCHING:
                estimate[row] = model_hypergradients(self._fit(row), self.played.select([row]))[0]
        taken = float(self.training.streams * self.training.steps * (self.iteration + 1))
        return {
            "objective": batch_objectives(self.dynamics, self.played),
            "model_objective": self.promised.copy(),
            "environment_steps": np.full(len(thetas), taken),
            **gradient_errors(estimate, batch_hypergradients(self.dynamics, self.played)),
        }

    def _read(self, iteration: int) -> FloatArray:
        """Return the followers' values as leaders read them; the noise is a stream of its own for every play."""
        training, exact = self.training, self.played.value
        if training.value_noise == 0.0:
            return exact
        names = [(training.entropy, "values", run.seed, iteration) for run in training.runs]
        noise = np.stack([named_stream(*name).standard_normal(exact.shape[1]) for name in names])
        read: FloatArray = exact * (1.0 + training.value_noise * noise)
        return read

    def _fit(self, row: int) -> SharedDynamics:
        kernel = learnt_kernel(self.counts.table[row], pooling=self.training.pooling)
        if self.training.runs[row].method == "values_leader":
            seen = min(self.iteration + 1, self.values.shape[1])
            cutoff = max(_ROUNDING, self.training.value_noise)
            kernel = kernel_from_values(self.values[row, :seen], self.expected[row, :seen], kernel, cutoff=cutoff)
        self.kernels[row] = kernel
        return self._model(row)

    def _model(self, row: int) -> SharedDynamics:
        problem = with_kernel(self.training.problem, self.kernels[row].copy())
        return SharedDynamics(problem, self.played.thetas[row])

    def _model_gradient(self, row: int) -> FloatArray:
        model = self.models[row]
        if self.iteration % self.training.refit_every == 0:
            model = self._fit(row)
        elif model is None:
            model = self._model(row)
        self.models[row] = model
        played = self.played.select([row])
        self.promised[row] = batch_objectives(model, played)[0]
        gradient: FloatArray = model_hypergradients(model, played)[0]
        return gradient

    def _next_point(self, row: int, theta: FloatArray) -> FloatArray:
        training, rng = self.training, self.generators[row]
        if self.iteration < training.plans[0]:
            point: FloatArray = training.planner.starts.draw(rng, 1, theta.size)[0]
            return point
        if self.iteration == training.decision:
            return self._best_plan(row)
        if self.iteration not in training.plans:
            return theta
        model = self._fit(row).problem
        incumbents = None if self.iteration == training.plans[0] else self.plans[row]
        plan = training.planner.plan(model, rng, incumbents)
        self.plans[row] = plan.ends[: training.planner.kept]
        self.promised[row] = plan.objective
        return plan.theta

    def _best_plan(self, row: int) -> FloatArray:
        """Return which of the played plans the model values most at the policies that followers showed."""
        model, thetas = self._fit(row), self.played_plans[row]
        shown = replace(
            self.played.select(np.full(len(thetas), row)),
            thetas=thetas,
            policy=self.shown[row],
            rewards_leader=model.rewards(thetas).leader,
        )
        objectives = batch_objectives(model, shown)
        best = int(np.argmax(objectives))
        self.promised[row] = objectives[best]
        chosen: FloatArray = thetas[best]
        return chosen
