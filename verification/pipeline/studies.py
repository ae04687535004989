"""Studies: bias, standard deviation, error, cosine and cost of every estimator against the number of samples.

Where the law of a draw can be enumerated, its mean m and covariance C are exact, and so is everything quadratic at
every number of samples n: bias `‖m - ∇J‖`, standard deviation `√(tr C / n)`, mean squared error `bias² + tr C / n`. The
mean cosine with the truth is not, so means of n fresh draws are drawn for it; and where a draw is a whole batch, or
cannot be enumerated, everything is. A row says which. All sizes are relative to ‖∇J‖, the truth of the estimator's own
target.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators import ESTIMATORS, Context, Draw, Estimator, estimators_for
from bilevelrl.reference import ConfigurableMDP, Problem, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Seed, checked
from bilevelrl.reference.errors import (
    EstimatorError,
    InvalidInputError,
    SupportError,
    TooLargeError,
    UnknownNameError,
    UnsupportedError,
    refusal,
)
from bilevelrl.reference.storage import software_versions
from bilevelrl.tasks import Scenario, scenario, scenarios
from bilevelrl.verification.checks.deterministic import enumerate_scenario
from bilevelrl.verification.checks.once import exact_critic
from bilevelrl.verification.checks.own_scenarios import hold_to_its_problem
from bilevelrl.verification.enumeration.contract import EstimatorFunction
from bilevelrl.verification.pipeline.given import GivenEstimator
from bilevelrl.verification.pipeline.study_tables import Study, StudyRow
from bilevelrl.verification.processes.jobs import Job, Progress, run_jobs

__all__ = ["REPLICATES", "SAMPLES", "own_study_rows", "run_study", "study_estimator"]


SAMPLES = (1, 4, 16, 64, 256)
REPLICATES = 24


def study_estimator(
    name: str,
    on: Scenario | str,
    seed: int = 0,
    samples: Sequence[int] = SAMPLES,
    replicates: int = REPLICATES,
) -> list[StudyRow]:
    """Return the rows of a registered estimator on a scenario; none where it does not apply, or the truth is zero.

    Parameters
    ----------
    name, on
        Name of an entry of `ESTIMATORS`, and a scenario or its name.
    seed
        Root entropy; every pair has a stream of its own.
    samples
        Numbers of trajectories per estimate.
    replicates
        Estimates per number of samples.

    Examples
    --------
    >>> rows = study_estimator("naive_pgd", "layered", samples=(1, 16), replicates=20)
    >>> [row.moments for row in rows], rows[0].bias == rows[1].bias
    (['exact', 'exact'], True)
    >>> round(rows[0].standard_deviation / rows[1].standard_deviation, 9)
    4.0
    """
    at, entry = scenario(on) if isinstance(on, str) else on, ESTIMATORS[name]
    estimator = entry.make(at.target)
    if not at.truth_of(estimator.target).value.any():
        return []
    rng = named_stream(seed, "study", name, at.name)
    try:
        return _study(estimator, at, rng, samples, replicates, name=name, level=entry.level)
    except (UnsupportedError, SupportError, EstimatorError):
        return []


def own_study_rows(
    given: str | Estimator | EstimatorFunction,
    problem: Problem,
    theta: object,
    *,
    steps: int,
    seed: int = 0,
    samples: Sequence[int] = SAMPLES,
    replicates: int = REPLICATES,
) -> list[StudyRow]:
    """Return the rows of any estimator on any problem at θ, from episodes of `steps` steps.

    Parameters
    ----------
    given
        Name of a registered estimator, an `Estimator`, or a function of trajectories and context that returns a row per
        draw.
    problem, theta
        Of any kind; θ in its shape.
    steps
        Of an episode; what is cut is told as bias.
    seed, samples, replicates
        As in `study_estimator`.

    Raises
    ------
    UnknownNameError
        If no estimator of the name serves the kind.
    InvalidInputError
        If the truth is zero: sizes are relative to it.
    UnsupportedError, SupportError, EstimatorError
        If the estimator does not apply, or breaks its contract.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> rows = own_study_rows("bc_hg", random_mdp(), np.zeros(3), steps=3, samples=(1, 4), replicates=5)
    >>> [row.samples for row in rows], rows[0].scenario
    ([1, 4], 'random_mdp(4x2, seed=0), 3 steps')
    """
    known = getattr(problem, "name", type(problem).__name__)
    at = Scenario.of(problem, theta, horizon=steps, name=f"{known}, {steps} steps")
    estimator, level = _made(given, at)
    if not at.truth_of(estimator.target).value.any():
        raise InvalidInputError(
            refusal("theta", at.theta.tolist(), "a hypergradient other than zero, which all sizes are relative to",
                    "study another θ")
        )  # fmt: skip
    rng = named_stream(seed, "study", estimator.name, at.name)
    return _study(estimator, at, rng, samples, replicates, name=estimator.name, level=level)


def _made(given: str | Estimator | EstimatorFunction, at: Scenario) -> tuple[Estimator, str]:
    """The estimator that a name, an instance or a function stands for, and its level."""
    if isinstance(given, str):
        names = estimators_for(type(at.problem))
        if given not in names:
            raise UnknownNameError("estimators", given, names)
        return ESTIMATORS[given].make(at.target), ESTIMATORS[given].level
    return (given if isinstance(given, Estimator) else GivenEstimator(given, at, None)), "given"


def _study(
    estimator: Estimator,
    at: Scenario,
    rng: Generator,
    samples: Sequence[int],
    replicates: int,
    *,
    name: str,
    level: str,
) -> list[StudyRow]:
    """One row per number of samples."""
    truth = at.truth_of(estimator.target).value
    norm = float(np.linalg.norm(truth))
    sampler = _Sampler(estimator, at, rng)
    exact = _exact_moments(estimator, at)
    means = sampler.means(samples, replicates)
    rows = []
    for count in samples:
        estimates, steps = means[count]
        if exact is not None:
            bias, spread = exact[0] / norm, math.sqrt(exact[1] / count) / norm
        else:
            bias, spread = _sampled_moments(estimates, truth, norm)
        lengths = np.linalg.norm(estimates, axis=1) * norm
        cosines = np.divide(estimates @ truth, lengths, out=np.zeros(len(estimates)), where=lengths > 0.0)
        low, high = np.percentile(cosines, [5, 95])
        rows.append(
            StudyRow(
                scenario=at.name,
                estimator=name,
                level=level,
                samples=count,
                moments="sampled" if exact is None else "exact",
                bias=bias,
                standard_deviation=spread,
                root_mean_square=math.hypot(bias, spread),
                cosine=float(cosines.mean()),
                cosine_low=float(low),
                cosine_high=float(high),
                steps=steps,
            )
        )
    return rows


@checked
def run_study(
    *,
    on: Iterable[Scenario] | None = None,
    estimators: Iterable[str] | None = None,
    seed: Seed = 0,
    samples: Sequence[Count] = SAMPLES,
    replicates: Count = REPLICATES,
    workers: Count = 1,
    progress: Progress | None = None,
) -> Study:
    """Return the rows of every registered estimator on every scenario.

    Parameters
    ----------
    on, estimators
        Default: all.
    seed, samples, replicates
        As in `study_estimator`.
    workers
        Processes.
    progress
        Told after each pair.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an estimator is not registered, or an argument is out of range.
    """
    names = tuple(estimators_for(ConfigurableMDP) if estimators is None else estimators)
    for name in names:
        if name not in ESTIMATORS:
            raise UnknownNameError("estimators", name, ESTIMATORS)
    if not samples or replicates < 2:
        raise InvalidInputError(
            f"samples={samples}, replicates={replicates}: expected at least one number of samples, and two replicates; "
            "a spread needs two"
        )
    places = scenarios() if on is None else tuple(map(hold_to_its_problem, on))
    jobs = [
        Job(
            function=study_estimator,
            arguments=(name, place, seed, tuple(samples), replicates),
            label=f"{name} on {place.name}",
        )
        for place in places
        for name in names
    ]
    return Study(
        rows=tuple(row for found in run_jobs(jobs, workers=workers, progress=progress) for row in found),
        scenarios=tuple(place.name for place in places),
        estimators=names,
        seed=seed,
        samples=tuple(samples),
        replicates=replicates,
        versions=software_versions(),
    )


class _Sampler:
    """Estimates from fresh trajectories of a scenario."""

    def __init__(self, estimator: Estimator, on: Scenario, rng: Generator) -> None:
        self._estimator, self._on, self._rng = estimator, on, rng
        follower, critic = on.solved(estimator.target).follower, exact_critic(on, estimator.target)
        self._context = Context(problem=on.problem, theta=on.theta, follower=follower, critic=critic, rng=rng)

    def means(self, samples: Sequence[int], replicates: int) -> dict[int, tuple[FloatArray, float]]:
        """Return {n: (estimates (replicates, N), steps per estimate)}."""
        if self._estimator.draw is Draw.TRAJECTORY:
            # The same draws are averaged in groups of every size: curves of one estimator are smooth in n.
            rows, steps = self._rows(max(samples) * replicates)
            return {
                count: (rows[: count * replicates].reshape(replicates, count, -1).mean(axis=1), count * steps)
                for count in samples
            }
        found = {}
        for count in samples:
            pairs = [self._batch(count) for _ in range(replicates)]
            found[count] = (np.array([mean for mean, _ in pairs]), float(np.mean([steps for _, steps in pairs])))
        return found

    def _rows(self, draws: int) -> tuple[FloatArray, float]:
        trajectories = self._draw(draws)
        rows = self._estimator(trajectories, self._context)
        return rows, sum(self._estimator.cost(trajectories, self._context).values()) / draws

    def _batch(self, streams: int) -> tuple[FloatArray, float]:
        trajectories = self._draw(streams)
        estimate = self._estimator.estimate(trajectories, self._context)
        return estimate.mean, float(sum(self._estimator.cost(trajectories, self._context).values()))

    def _draw(self, streams: int) -> Any:
        return self._estimator.sample(
            self._on.problem,
            self._on.theta,
            self._context.follower,
            streams=streams,
            steps=self._on.horizon,
            rng=self._rng,
        )


def _exact_moments(estimator: Estimator, on: Scenario) -> tuple[float, float] | None:
    """Exact ‖bias‖ and tr Cov of one draw, where draws are trajectories and can be enumerated."""
    if estimator.draw is not Draw.TRAJECTORY:
        return None
    try:
        found = enumerate_scenario(estimator.call if isinstance(estimator, GivenEstimator) else estimator, on)
    except (TooLargeError, UnsupportedError):
        return None
    # A baseline can take away all variance, up to rounding of either sign.
    return float(np.linalg.norm(found.bias)), max(0.0, float(np.trace(found.covariance)))


def _sampled_moments(estimates: FloatArray, truth: FloatArray, norm: float) -> tuple[float, float]:
    variance = float(estimates.var(axis=0, ddof=1).sum())
    # The squared norm of a noisy mean is too large by its variance.
    squared = float(np.sum((estimates.mean(axis=0) - truth) ** 2)) - variance / len(estimates)
    return math.sqrt(max(0.0, squared)) / norm, math.sqrt(variance) / norm
