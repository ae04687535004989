"""The leader's training loop: respond, sample, estimate, clip, step; many runs at once, with numbers of each run alone.

Outer iteration k: the followers respond to θ_k; where due, the exact objective at θ_k is written down, before the step;
every run draws its batch from its own random stream; SARSA critics learn from it; estimators give a direction, and the
optimiser ascends. Exact hypergradient ascent is one of the methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.estimators.batched import SeedBatch
from bilevelrl.estimators.sarsa import sarsa_pass
from bilevelrl.estimators.training.checkpoints import load_checkpoint, save_checkpoint
from bilevelrl.estimators.training.followers import Carried, ExactFollower, Rewards, SharedDynamics
from bilevelrl.estimators.training.methods import batch_hypergradients, batch_objectives, get_method
from bilevelrl.estimators.training.optimisers import SCHEDULES, clip_to_norm
from bilevelrl.estimators.training.runs import Training
from bilevelrl.estimators.trajectories import Trajectories
from bilevelrl.reference import named_stream
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, refusal

__all__ = ["Callback", "Evaluation", "History", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is known of all runs at one outer iteration, before its step.

    Attributes
    ----------
    iteration : int
        k.
    thetas : (runs, N)
        θ_k.
    objective : (runs,)
        J(θ_k) with the best response, exact.
    played_objective : (runs,)
        The leader's return against what the followers play, exact.
    gradient_norm : (runs,)
        Norm of the direction before clipping.
    follower_error : (runs,)
        Largest |V_F - V_F*| over states: of what is played, not of an estimate of it.
    hypergradient_error : (runs,)
        Norm of what the follower's error does to Theorem 1's expression: a cause of bias that no estimator that watches
        this follower can avoid.
    """

    iteration: int
    thetas: FloatArray
    objective: FloatArray
    played_objective: FloatArray
    gradient_norm: FloatArray
    follower_error: FloatArray
    hypergradient_error: FloatArray


Callback: TypeAlias = Callable[[Evaluation], object]
"""Called after each evaluation; a return value of False ends the training there."""

_LOGGED = ("objective", "played_objective", "gradient_norm", "follower_error", "hypergradient_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a training left.

    Attributes
    ----------
    training
        What was trained.
    iterations : (evaluations,)
        Outer iterations that were evaluated.
    objective, played_objective, gradient_norm, follower_error, hypergradient_error : (evaluations, runs)
        See `Evaluation`.
    thetas : (runs, N)
        θ after the last step.
    seconds : float
        CPU time of this process spent on it, interrupted parts included.
    finished : bool
        False where a callback ended it.
    """

    training: Training
    iterations: IntArray
    objective: FloatArray
    played_objective: FloatArray
    gradient_norm: FloatArray
    follower_error: FloatArray
    hypergradient_error: FloatArray
    thetas: FloatArray
    seconds: float
    finished: bool

    def final(self, share: float = 0.05) -> FloatArray:
        """Return each run's mean objective over the last share of all outer iterations, (runs,).

        Parameters
        ----------
        share
            In (0, 1]; at least one evaluation counts.
        """
        if not 0.0 < share <= 1.0:
            raise InvalidInputError(refusal("share", share, "a number in (0, 1]", "0.05 is what figures report"))
        last = self.iterations >= (1.0 - share) * self.training.iterations
        last[-1] = True
        mean: FloatArray = self.objective[last].mean(axis=0)
        return mean


class _Loop:
    """The state of all runs, and how it moves on."""

    def __init__(self, training: Training) -> None:
        self.training = training
        problem, runs = training.problem, training.runs
        self.thetas = training.start()
        self.dynamics = SharedDynamics(problem, self.thetas[0])
        self.rates = np.array([run.learning_rate for run in runs])
        self.state = training.optimiser.start(self.thetas.shape)
        self.generators = [named_stream(training.entropy, "training", run.method, int(run.seed)) for run in runs]
        self.methods = {name: get_method(name) for name in dict.fromkeys(run.method for run in runs)}
        self.rows = {
            name: np.array([row for row, run in enumerate(runs) if run.method == name]) for name in self.methods
        }
        self.sampling = np.flatnonzero([self.methods[run.method].estimator is not None for run in runs])
        self.learning = np.flatnonzero([self.methods[run.method].critic == "sarsa" for run in runs])
        shape = (len(runs), self.dynamics.states, self.dynamics.actions)
        self.tables = np.zeros(shape)
        for row in self.learning:
            self.tables[row] = self.generators[row].standard_normal(shape[1:])
        self.carried: Carried = {}
        self.best_carried: Carried = {}
        self.log: list[tuple[int, list[FloatArray]]] = []
        self.iteration, self.seconds = 0, 0.0

    def arrays(self) -> dict[str, FloatArray]:
        """Return everything numerical for a checkpoint."""
        groups = {"optimiser": self.state, "follower": self.carried, "best": self.best_carried}
        stored = {f"{group}.{name}": array for group, named in groups.items() for name, array in named.items()}
        stored.update(thetas=self.thetas, tables=self.tables, seconds=np.array(self.seconds))
        stored["log.iterations"] = np.array([iteration for iteration, _ in self.log], dtype=np.int64)
        stored["log.values"] = np.array([values for _, values in self.log]).reshape(len(self.log), len(_LOGGED), -1)
        return stored

    def restore(self, iteration: int, arrays: dict[str, FloatArray], generators: dict[str, Any]) -> None:
        """Continue where a checkpoint stopped."""
        self.iteration, self.seconds = iteration, float(arrays["seconds"])
        self.thetas, self.tables = arrays["thetas"], arrays["tables"]
        for group, name in (("optimiser", "state"), ("follower", "carried"), ("best", "best_carried")):
            prefix = f"{group}."
            found = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
            setattr(self, name, found)
        pairs = zip(arrays["log.iterations"], arrays["log.values"], strict=True)
        self.log = [(int(iteration), list(values)) for iteration, values in pairs]
        for row, rng in enumerate(self.generators):
            rng.bit_generator.state = generators[str(row)]

    def advance(self) -> Evaluation | None:
        """Make one outer iteration; return its evaluation where one is due."""
        training, k = self.training, self.iteration
        rewards = self.dynamics.rewards(self.thetas.reshape(-1, *self._theta_shape))
        played, self.carried = training.follower.respond(self.dynamics, rewards, self.carried, self.generators)
        due = k % training.evaluate_every == 0 or k == training.iterations - 1
        best = self._best_response(rewards, played, needed=due or "exact" in self.methods)
        direction = self._direction(played, best)
        evaluation = self._evaluate(played, best, direction) if due else None
        factor = SCHEDULES[training.schedule](k / training.iterations)
        clipped = clip_to_norm(direction, training.largest_norm)
        step, self.state = training.optimiser.step(clipped, factor * self.rates, self.state)
        self.thetas = self.thetas + step
        self.iteration = k + 1
        return evaluation

    @property
    def _theta_shape(self) -> tuple[int, ...]:
        shape = self.training.problem.theta_shape
        assert shape is not None  # `Training` refuses it
        return tuple(shape)

    def _best_response(self, rewards: Rewards, played: SeedBatch, *, needed: bool) -> SeedBatch:
        if isinstance(self.training.follower, ExactFollower) or not needed:
            return played
        best, self.best_carried = ExactFollower().respond(self.dynamics, rewards, self.best_carried)
        return best

    def _direction(self, played: SeedBatch, best: SeedBatch) -> FloatArray:
        direction = np.zeros_like(self.thetas)
        trajectories = self._sample(played)
        for name, method in self.methods.items():
            rows = self.rows[name]
            if method.estimator is None:
                direction[rows] = batch_hypergradients(self.dynamics, best.select(rows))
                continue
            own = self._own(trajectories, rows)
            batch = played.select(rows)
            if method.critic == "sarsa":
                self._learn(rows, own, batch)
            critic = batch.exact_critic() if method.critic == "exact" else batch.table_critic(self.tables[rows])
            direction[rows] = batch.estimate(method.estimator, own, critic, parts=False).mean
        if not np.isfinite(direction).all():
            run = self.training.runs[int(np.argmin(np.isfinite(direction).all(axis=1)))]
            raise EstimatorError(f"{run}: the direction at iteration {self.iteration} is not finite")
        return direction

    def _sample(self, played: SeedBatch) -> Trajectories | None:
        if not self.sampling.size:
            return None
        return played.select(self.sampling).sample(
            streams=self.training.streams,
            steps=self.training.steps,
            rng=[self.generators[row] for row in self.sampling],
            simulator=self.training.simulator,
        )

    def _own(self, trajectories: Trajectories | None, rows: IntArray) -> Trajectories:
        assert trajectories is not None
        first = np.searchsorted(self.sampling, rows) * self.training.streams
        return trajectories.select((first[:, None] + np.arange(self.training.streams)).ravel())

    def _learn(self, rows: IntArray, own: Trajectories, batch: SeedBatch) -> None:
        length = self.training.streams * self.training.steps
        self.tables[rows] = sarsa_pass(
            self.tables[rows],
            own,
            batch.policy,
            discount_leader=self.training.problem.discount_leader,
            step_size=np.array([self.training.runs[row].critic_step_size for row in rows]),
            truncation="cut",
            order=np.stack([self.generators[row].permutation(length) for row in rows]),
        )

    def _evaluate(self, played: SeedBatch, best: SeedBatch, direction: FloatArray) -> Evaluation:
        runs = self.thetas.shape[0]
        objective = batch_objectives(self.dynamics, best)
        played_objective, error, carried_over = objective, np.zeros(runs), np.zeros(runs)
        if played is not best:
            played_objective = batch_objectives(self.dynamics, played)
            error = np.abs(self._played_value(played) - best.value).max(axis=1)
            apart = batch_hypergradients(self.dynamics, played) - batch_hypergradients(self.dynamics, best)
            carried_over = np.linalg.norm(apart, axis=1)
        evaluation = Evaluation(
            iteration=self.iteration,
            thetas=self.thetas,
            objective=objective,
            played_objective=played_objective,
            gradient_norm=np.linalg.norm(direction, axis=1),
            follower_error=error,
            hypergradient_error=carried_over,
        )
        self.log.append((self.iteration, [getattr(evaluation, name) for name in _LOGGED]))
        return evaluation

    def _played_value(self, played: SeedBatch) -> FloatArray:
        """Return the soft value of the policies that are played, (runs, S)."""
        problem, policy = self.dynamics.problem, played.policy
        entropy = -np.where(policy > 0.0, policy * np.log(np.maximum(policy, 1e-300)), 0.0).sum(axis=2)
        reward = self.dynamics.rewards(played.thetas).follower
        earned = (policy * reward).sum(axis=2) + problem.temperature * entropy
        system = self.dynamics.systems(policy, problem.discount_follower)
        return np.linalg.solve(system, earned[:, :, None])[:, :, 0]

    def history(self, *, finished: bool) -> History:
        """Return what there is."""
        stored = self.arrays()
        columns = {name: stored["log.values"][:, column] for column, name in enumerate(_LOGGED)}
        return History(
            training=self.training,
            iterations=stored["log.iterations"].astype(np.int64),
            thetas=self.thetas,
            seconds=self.seconds,
            finished=finished,
            **columns,
        )


def train(
    training: Training,
    *,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 500,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Train all runs.

    Results depend on the training alone: a run gives the same numbers, bit for bit, whichever others are trained beside
    it, and whether or not it was interrupted and continued from a checkpoint.

    Parameters
    ----------
    training
        What to train.
    checkpoint
        A file `.npz` that is continued from where it exists, and written every `checkpoint_every` outer iterations and
        at the end.
    callbacks
        Called with each `Evaluation`; one that returns False ends the training.

    Raises
    ------
    InvalidInputError
        If the checkpoint belongs to another training.
    StorageError
        If it cannot be read or written.
    NotConvergedError, EstimatorError
        If a follower does not converge or a direction is not finite.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run
    >>> from bilevelrl.tasks import four_rooms
    >>> runs = [Run(method="exact", seed=0, learning_rate=0.5)]
    >>> history = train(Training(problem=four_rooms(temperature=0.005), runs=runs, iterations=3, evaluate_every=1))
    >>> bool((np.diff(history.objective[:, 0]) > 0.0).all())
    True
    """
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int) or checkpoint_every < 1:
        raise InvalidInputError(refusal("checkpoint_every", checkpoint_every, "an integer >= 1", "500 is usual"))
    path = None if checkpoint is None else Path(checkpoint)
    loop, fingerprint = _Loop(training), ""
    if path is not None:
        fingerprint = training.fingerprint()
        if path.exists():
            loop.restore(*load_checkpoint(path, fingerprint=fingerprint))
    finished, saved = True, loop.iteration
    while loop.iteration < training.iterations:
        began = time.process_time()
        evaluation = loop.advance()
        loop.seconds += time.process_time() - began
        if evaluation is not None and not _goes_on(callbacks, evaluation):
            finished = loop.iteration == training.iterations
            break
        if path is not None and loop.iteration - saved >= checkpoint_every:
            _save(path, fingerprint, loop)
            saved = loop.iteration
    if path is not None and loop.iteration > saved:
        _save(path, fingerprint, loop)
    return loop.history(finished=finished)


def _goes_on(callbacks: Sequence[Callback], evaluation: Evaluation) -> bool:
    answers = [callback(evaluation) for callback in callbacks]  # all are told, whatever the first one says
    return all(answer is not False for answer in answers)


def _save(path: Path, fingerprint: str, loop: _Loop) -> None:
    generators = {str(row): rng for row, rng in enumerate(loop.generators)}
    save_checkpoint(
        path, fingerprint=fingerprint, iteration=loop.iteration, arrays=loop.arrays(), generators=generators
    )
