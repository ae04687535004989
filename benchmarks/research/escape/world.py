"""The training that an arm of the escape experiment declares, as a world of the one training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from bilevelrl.benchmarks.research.escape.arms import Arm, get_arm
from bilevelrl.estimators import Estimator, TabularSimulator, Trajectories
from bilevelrl.estimators.critics import sarsa_pass
from bilevelrl.estimators.followers import (
    Carried,
    ExactFollower,
    SharedDynamics,
    batch_hypergradients,
    batch_objectives,
    batch_truths,
)
from bilevelrl.estimators.terms import SeedBatch
from bilevelrl.estimators.training import (
    GRADIENT_COLUMNS,
    METHODS,
    LeaderTraining,
    Run,
    World,
    gradient_errors,
    published_simulator,
)
from bilevelrl.reference import ConfigurableMDP, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked

__all__ = ["EscapeTraining", "MeasuredNoise", "escape_training", "measure_noise"]

_LEVELS = 40
"""Steps in which a raised temperature falls."""
_CHAINS, _SETTLE, _DRAWS = 20, 20, 50
"""Of the noise's measurement: critics that learn independently, batches before and while it is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredNoise:
    """BC-HG's estimates at one θ, against the exact hypergradient there.

    Attributes
    ----------
    deviations : (draws, N)
        Estimates less their mean.
    root_mean_square, median_norm : float
        Of the deviations' norms.
    exact_norm, bias_norm : float
        Norm of the exact hypergradient, and of the estimates' mean less it.
    bias_error : float
        Root mean square error of that mean, from the spread of independent chains' means: the bias is there where its
        norm is well above.
    """

    deviations: FloatArray
    root_mean_square: float
    median_norm: float
    exact_norm: float
    bias_norm: float
    bias_error: float


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class EscapeTraining(LeaderTraining):
    """Runs of one arm; see `LeaderTraining` for what is not listed here.

    Parameters
    ----------
    problem
        Four-Rooms.
    arm
        What is tried.
    simulator
        Of arms that sample.
    """

    problem: ConfigurableMDP
    arm: Arm
    simulator: TabularSimulator = field(default_factory=published_simulator)

    def methods(self) -> Iterable[str]:
        """Return the arm's name."""
        return (self.arm.name,)

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        assert self.problem.theta_shape is not None
        size = int(np.prod(self.problem.theta_shape))
        return self.starts(lambda rng: self.arm.start_scale * rng.standard_normal(size))

    def world(self, generators: Sequence[Generator]) -> World:
        """Return what the runs act in."""
        return _EscapeWorld(self, generators)

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the problem's tables at θ_0."""
        tables = self.problem.tables_at(self.start()[0]).differentiable()
        yield from (np.asarray(tables[name], dtype=np.float64) for name in sorted(tables))


def escape_training(
    arm: str,
    problem: ConfigurableMDP,
    *,
    seeds: int,
    iterations: int,
    simulator: TabularSimulator | None = None,
    entropy: int = 0,
) -> EscapeTraining:
    """Return the training of an arm by name.

    Examples
    --------
    >>> from bilevelrl.estimators.training import train
    >>> from bilevelrl.tasks import four_rooms
    >>> history = train(escape_training("exact", four_rooms(temperature=0.005), seeds=1, iterations=26))
    >>> bool((np.diff(history.objective[:, 0]) > 0.0).all())
    True
    """
    declared = get_arm(arm)
    return EscapeTraining(
        problem=problem,
        arm=declared,
        runs=[Run(method=arm, seed=seed, learning_rate=declared.learning_rate) for seed in range(seeds)],
        iterations=iterations,
        optimiser=declared.optimiser,
        largest_norm=declared.largest_norm,
        evaluate_every=25,
        simulator=published_simulator() if simulator is None else simulator,
        entropy=entropy,
    )


class _EscapeWorld(World):
    """Followers, critics and noise of all runs."""

    columns = ("objective", *GRADIENT_COLUMNS)

    def __init__(self, training: EscapeTraining, generators: Sequence[Generator]) -> None:
        self.training, self.generators, self.arm = training, generators, training.arm
        start = training.start()
        self.dynamics = SharedDynamics(training.problem, start[0])
        shape = (self.arm.chains, self.dynamics.states, self.dynamics.actions)
        self.tables = np.zeros((len(start) * shape[0], *shape[1:]))
        if self.arm.critic != "exact":
            self.tables = self.arm.critic_scale * np.concatenate([rng.standard_normal(shape) for rng in generators])
        self.chain = np.repeat(np.arange(len(start)), self.arm.chains)
        self.root = np.zeros((0, start.shape[1]))
        if self.arm.noise != "none":
            self.root = self._noise_root()
        self.carried: Carried = {}
        self.hot: tuple[float, SharedDynamics] | None = None
        self.seen: SeedBatch
        self.sampled: SeedBatch
        self.read: FloatArray
        self.trajectories: Trajectories | None = None

    def arrays(self) -> dict[str, FloatArray]:
        """Return critics and what followers carry on."""
        return {**{f"follower.{name}": array for name, array in self.carried.items()}, "tables": self.tables}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.tables, prefix = arrays["tables"], "follower."
        self.carried = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, and critics learn from samples."""
        self.thetas = thetas
        dynamics = self._dynamics(iteration)
        self.seen, self.carried = ExactFollower().respond(dynamics, dynamics.rewards(thetas), self.carried)
        self.played_on, self.read = dynamics, self.tables
        if self.arm.guidance == "samples" or self.arm.critic in ("sarsa", "delayed sarsa"):
            self.sampled = self.seen if self.arm.chains == 1 else self.seen.select(self.chain)
            self.trajectories = self.sampled.sample(
                streams=1, steps=self.training.steps, rng=self.generators, simulator=self.training.simulator
            )
        if self.arm.critic in ("sarsa", "delayed sarsa"):
            assert self.trajectories is not None
            self.tables = _learnt(self.training, self.tables, self.trajectories, self.sampled, self.generators)
            if self.arm.critic == "sarsa":
                self.read = self.tables

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return what the arm makes of the hypergradient."""
        arm = self.arm
        if arm.guidance == "samples":
            assert self.trajectories is not None
            critic = self.sampled.exact_critic() if arm.critic == "exact" else self.sampled.table_critic(self.read)
            estimator = _published()
            each = self.sampled.estimate(estimator, self.trajectories, critic, parts=False).mean
            direction = np.asarray(each.reshape(len(thetas), arm.chains, -1).mean(axis=1), dtype=np.float64)
        elif arm.guidance == "exact weights":
            benefit = self.read - (self.seen.policy * self.read).sum(axis=2, keepdims=True)
            direction = batch_truths(self.played_on, self.seen, benefit=benefit)[1]
        else:
            direction = batch_hypergradients(self.played_on, self.seen)
        if arm.noise != "none":
            direction = direction + np.stack([self._noise(rng) for rng in self.generators])
        if arm.normalised:
            norm = np.linalg.norm(direction, axis=1, keepdims=True)
            direction = direction / np.where(norm > 0.0, norm, 1.0)  # at a vertex of the softmax it is zero exactly
        return direction

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return the exact objective at the task's own temperature, and the direction's distance from the truth."""
        best = self.seen
        if self.played_on is not self.dynamics:
            best, _ = ExactFollower().respond(self.dynamics, self.dynamics.rewards(thetas), {})
        truth = batch_hypergradients(self.dynamics, best)
        return {"objective": batch_objectives(self.dynamics, best), **gradient_errors(direction, truth)}

    def _dynamics(self, iteration: int) -> SharedDynamics:
        """Return the dynamics at the temperature of an outer iteration."""
        hottest, own = self.arm.hottest, self.training.problem.temperature
        level = (2 * _LEVELS * iteration) // self.training.iterations
        if hottest is None or level >= _LEVELS:
            return self.dynamics
        temperature = hottest * (own / hottest) ** (level / _LEVELS)
        if self.hot is None or self.hot[0] != temperature:
            problem = replace(self.training.problem, temperature=temperature)
            self.hot = (temperature, SharedDynamics(problem, self.thetas[0]))
        return self.hot[1]

    def _noise_root(self) -> FloatArray:
        """Return rows to be drawn from, or of which Gaussian combinations have the wanted covariance."""
        noise = measure_noise(self.training)
        scale, size = self.arm.noise_scale, noise.deviations.shape[1]
        if self.arm.noise == "isotropic":
            equal: FloatArray = scale * noise.root_mean_square / np.sqrt(size) * np.eye(size)
            return equal
        if self.arm.noise == "shaped":
            _, lengths, axes = np.linalg.svd(noise.deviations / np.sqrt(len(noise.deviations)), full_matrices=False)
            root: FloatArray = scale * lengths[:, None] * axes
            return root
        return scale * noise.deviations

    def _noise(self, rng: Generator) -> FloatArray:
        if self.arm.noise == "resampled":
            chosen: FloatArray = self.root[int(rng.integers(len(self.root)))]
            return chosen
        drawn: FloatArray = rng.standard_normal(len(self.root)) @ self.root
        return drawn


def _published() -> Estimator:
    make = METHODS[ConfigurableMDP]["bc_hg"].make
    assert make is not None
    made: Estimator = make(None)
    return made


def _learnt(
    training: EscapeTraining,
    tables: FloatArray,
    trajectories: Trajectories,
    followers: SeedBatch,
    generators: Sequence[Generator],
) -> FloatArray:
    chains = len(tables) // len(generators)
    return sarsa_pass(
        tables,
        trajectories,
        followers.policy,
        discount_leader=training.problem.discount_leader,
        step_size=0.5,
        truncation="cut",
        order=np.stack([rng.permutation(training.steps) for rng in generators for _ in range(chains)]),
    )


def measure_noise(training: EscapeTraining) -> MeasuredNoise:
    """Measure estimates of an arm that samples at θ = 0, with critics as they are after some batches.

    The estimator, its critics included, is run on independent chains at a θ that does not move. Where an arm does not
    sample, it is the published one; averages over several chains are not made.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> noise = measure_noise(escape_training("exact", four_rooms(temperature=0.005), seeds=1, iterations=1))
    >>> noise.root_mean_square > 100.0 * noise.exact_norm
    True
    """
    generators = [named_stream(training.entropy, "escape", "noise", chain) for chain in range(_CHAINS)]
    thetas = np.zeros((_CHAINS, training.start().shape[1]))
    dynamics = SharedDynamics(training.problem, thetas[0])
    played, _ = ExactFollower().respond(dynamics, dynamics.rewards(thetas), {})
    arm = training.arm if training.arm.guidance == "samples" else get_arm("bc_hg")
    shape = (dynamics.states, dynamics.actions)
    tables = arm.critic_scale * np.stack([rng.standard_normal(shape) for rng in generators])
    estimator, found = _published(), []
    for batch in range(_SETTLE + _DRAWS):
        trajectories = played.sample(streams=1, steps=training.steps, rng=generators, simulator=training.simulator)
        before, tables = tables, _learnt(training, tables, trajectories, played, generators)
        if batch >= _SETTLE:
            read = before if arm.critic == "delayed sarsa" else tables
            critic = played.exact_critic() if arm.critic == "exact" else played.table_critic(read)
            found.append(played.estimate(estimator, trajectories, critic, parts=False).mean)
    estimates, truth = np.concatenate(found), batch_hypergradients(dynamics, played)[0]
    mean = estimates.mean(axis=0)
    norms = np.linalg.norm(estimates - mean, axis=1)
    return MeasuredNoise(
        deviations=estimates - mean,
        root_mean_square=float(np.sqrt(np.mean(norms**2))),
        median_norm=float(np.median(norms)),
        exact_norm=float(np.linalg.norm(truth)),
        bias_norm=float(np.linalg.norm(mean - truth)),
        bias_error=float(np.sqrt(np.mean(found, axis=0).var(axis=0, ddof=1).sum() / _CHAINS)),
    )
