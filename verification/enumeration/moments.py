"""Mean and covariance of any estimator over all trajectories of a small problem: bias and variance without sampling.

For a problem with finitely many trajectories up to a horizon, `E f = Σ_paths p(path) f(path)` is a finite sum. Batches
of m trajectories are summed over multisets with multinomial weights. An estimator with randomness of its own (fresh
suffixes after a reset, random stopping) is handled conditionally on the path by the laws of total expectation and total
covariance, `Cov f = E[Cov(f | path)] + Cov(E[f | path])`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

import numpy as np

from bilevelrl.estimators import Context, Draw, Estimator, LeaderCritic, TabularSimulator, Trajectories
from bilevelrl.estimators.sampling import JointProcess, joint_mdp
from bilevelrl.reference import ConfigurableMDP, MarkovGame, solve_follower
from bilevelrl.reference.arrays import FloatArray, check_array
from bilevelrl.reference.doors import Count, checked, like
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, TooLargeError, UnsupportedError, refusal
from bilevelrl.reference.problem import Follower
from bilevelrl.verification.enumeration.contract import (
    ContractedEstimator,
    EstimatorFunction,
    OwnRandomnessError,
    forbidden_generator,
    protect,
)
from bilevelrl.verification.enumeration.exact_sums import Moments, MomentSums
from bilevelrl.verification.enumeration.paths import PathLaw, check_path_horizon, multiset_count
from bilevelrl.verification.enumeration.streams import following, joined

__all__ = ["enumerate_moments"]

# Arrays alive at one time while a batch of trajectories is weighed take about this much memory.
MEMORY_BYTES = 128 * 2**20
# Batch estimators are called once per multiset of paths.
MAX_MULTISETS = 20_000
LARGEST_BATCH = 3


@checked
def enumerate_moments(
    estimator: Estimator | EstimatorFunction,
    problem: ConfigurableMDP | MarkovGame,
    theta: Any,
    *,
    horizon: int,
    max_paths: int = 2_000_000,
    max_multisets: int = MAX_MULTISETS,
    batch: int | None = None,
    episodes: Count = 1,
    follower: Annotated[Any, like(Follower | None)] = None,
    critic: LeaderCritic | None = None,
    simulator: TabularSimulator | None = None,
) -> Moments:
    """Return exact mean and covariance of an estimator over all trajectories of a tabular problem.

    Parameters
    ----------
    estimator
        An `Estimator`, or any function (trajectories, context) → rows (M, N), or → {part: rows}.
    problem, theta
        A small tabular problem or Markov game, and the leader's parameter.
    horizon
        Trajectories that have not ended by then are truncated, as a sampler would.
    max_paths, max_multisets
        Refuse to list more.
    batch
        Trajectories per draw, at most 3; needed by estimators whose draw is a batch, and it makes a plain function one.
    episodes
        That follow each other in a stream, each of at most `horizon` steps.
    follower
        Response that draws the actions and that the estimator is told; default: the best response.
    critic
        Leader's critic, handed to the estimator.
    simulator
        How trajectories are made, as in `sample_trajectories`: other dynamics, another start, episodes that follow each
        other. It is handed to the estimator too.

    Returns
    -------
    Moments
        For one draw. A sample mean of n independent draws has covariance `covariance / n`.

    Raises
    ------
    TooLargeError
        If there are more paths or multisets than allowed; the message tells how many.
    EstimatorError
        If the estimator breaks its contract: see `ContractedEstimator`.
    UnsupportedError
        If the problem is not tabular.

    Notes
    -----
    Memory for trajectories and rows stays at about 128 MiB whatever the number of paths. An estimator with an attribute
    `stopping` reads geometric stopping times; they are listed too, on problems that end within the horizon.

    Examples
    --------
    The expected discounted return of two steps, as an "estimator":

    >>> from bilevelrl.reference import Tables, leader_objective
    >>> problem = ConfigurableMDP(
    ...     tables=lambda theta: Tables(
    ...         transition=np.full((2, 2, 2), 0.5), reward_follower=np.eye(2), reward_leader=np.eye(2),
    ...         initial=np.array([1.0, 0.0])),
    ...     discount_leader=0.5, discount_follower=0.9, temperature=1.0)
    >>> def discounted_return(trajectories, context):
    ...     weights = context.problem.discount_leader ** trajectories.time_in_episode
    ...     return (weights * trajectories.reward_leader_t).sum(axis=1)[:, None]
    >>> moments = enumerate_moments(discounted_return, problem, np.zeros(1), horizon=2)
    >>> moments.paths, bool(np.isclose(moments.mean[0], leader_objective(problem, np.zeros(1), horizon=2)))
    (16, True)
    """
    if not isinstance(problem, (ConfigurableMDP, MarkovGame)):
        raise UnsupportedError(f"problem of type {type(problem).__name__}: only tabular problems can be enumerated")
    theta = problem.check_theta(theta)
    horizon = check_path_horizon(horizon)
    if follower is None:
        follower = solve_follower(problem, theta)
    if batch is not None and (isinstance(batch, bool) or not 1 <= batch <= LARGEST_BATCH):
        raise InvalidInputError(refusal("batch", batch, f"an integer in 1..{LARGEST_BATCH}", "larger: sample instead"))
    function_draw = Draw.TRAJECTORY if batch is None else Draw.BATCH
    checked = ContractedEstimator(call=estimator, parameters=theta.size, function_draw=function_draw)
    if checked.draw is Draw.BATCH and batch is None:
        raise EstimatorError(f"{checked.name}: draws whole batches; pass batch=m with m in 1..{LARGEST_BATCH}")
    joint = JointProcess.of(problem, theta, follower) if isinstance(problem, MarkovGame) else None
    law = _path_law(problem, theta, follower, simulator, horizon, joint)
    check_path_horizon(horizon * episodes, "horizon times episodes")
    paths = law.count(horizon) ** min(episodes, 64)  # two to that power are more than can be listed
    if paths > max_paths:
        raise TooLargeError(
            f"max_paths={max_paths}: the problem has {_readable(paths)} trajectories of {horizon} steps and "
            f"episodes={episodes}; take a shorter horizon, fewer episodes or a smaller problem, or raise max_paths"
        )
    context = Context(
        problem=problem, theta=theta, follower=follower, critic=critic, simulator=simulator, rng=forbidden_generator()
    )
    sums = MomentSums(theta.size)
    largest = max(256, MEMORY_BYTES // (8 * (12 * horizon + 6 * theta.size)))
    batches = law.batches(horizon, largest=largest)
    if joint is not None:
        batches = ((joint.split(trajectories), probability) for trajectories, probability in batches)
    if episodes > 1:
        batches = iter([following(batches, episodes)])
        horizon *= episodes
    draws = 0
    if checked.draw is Draw.BATCH:
        assert batch is not None
        batches = _multisets(checked.name, batches, paths, batch, max_multisets)
    if getattr(estimator, "stopping", None) is not None:
        batches = _stopped(checked.name, batches, problem, horizon)
    answer: Callable[..., _Found] | None = None
    with problem.derivatives.cache.keeping(theta):
        for trajectories, probability in batches:
            given = (checked, *protect(trajectories, context))
            answer, found = _first(*given) if answer is None else (answer, answer(*given))
            sums.add(probability, *found)
            draws += probability.size
    size = 1 if checked.draw is Draw.TRAJECTORY else int(batch or 1)
    return sums.moments(
        name=checked.name,
        paths=paths,
        draws=draws,
        draw=checked.draw,
        batch=size,
        horizon=horizon,
        epsilon=checked.epsilon,
    )


def _path_law(
    problem: ConfigurableMDP | MarkovGame,
    theta: FloatArray,
    follower: Any,
    simulator: TabularSimulator | None,
    horizon: int,
    joint: JointProcess | None,
) -> PathLaw:
    policy = check_array("follower.policy", getattr(follower, "policy", None))
    if joint is not None:
        # A game branches over the players' joint actions.
        problem, policy = joint.process, joint.policy
        if simulator is not None and isinstance(simulator.dynamics, MarkovGame):
            simulator = replace(simulator, dynamics=joint_mdp(simulator.dynamics))
    assert isinstance(problem, ConfigurableMDP)
    tables = problem.tables_at(theta)
    if simulator is None:
        return PathLaw.of(tables, policy)
    if simulator.step_limit is not None and simulator.step_limit < horizon:
        raise UnsupportedError(
            f"simulator.step_limit={simulator.step_limit}: episodes cut before the horizon {horizon} are not listed; "
            "take horizon <= step_limit"
        )
    return PathLaw.of(
        tables,
        policy,
        kernel=simulator.kernel(problem, theta),
        initial=simulator.start_law(problem, theta),
        single_episode=simulator.single_episode,
    )


_Found: TypeAlias = tuple[FloatArray, Mapping[str, FloatArray], FloatArray | None]
"""Rows, rows of the parts, and the covariance of each row given its path where the estimator draws numbers itself."""


def _first(
    checked: ContractedEstimator, trajectories: Trajectories, context: Context
) -> tuple[Callable[..., _Found], _Found]:
    """Hold the contract on the first batch; return what answers for the others, and the rows found."""
    try:
        return _rows, (*checked.check_repeatable(trajectories, context), None)
    except OwnRandomnessError:
        return _given_paths, _given_paths(checked, trajectories, context)


def _rows(checked: ContractedEstimator, trajectories: Trajectories, context: Context) -> _Found:
    return (*checked.rows(trajectories, context), None)


def _given_paths(checked: ContractedEstimator, trajectories: Trajectories, context: Context) -> _Found:
    mean, covariance = checked.conditional_moments(trajectories, context)
    return mean, {}, covariance


def _multisets(
    name: str, batches: Iterator[tuple[Trajectories, FloatArray]], paths: int, size: int, most: int
) -> Iterator[tuple[Trajectories, FloatArray]]:
    """Yield every multiset of `size` trajectories as a batch, with its multinomial probability."""
    count = multiset_count(paths, size)
    if count > most:
        raise TooLargeError(
            f"{name}: batch={size} of {_readable(paths)} trajectories makes {_readable(count)} multisets, "
            f"more than {most:,}; take a shorter horizon, a smaller problem or a smaller batch"
        )
    listed = list(batches)  # at most `most` trajectories
    place = [(batch, row) for batch in range(len(listed)) for row in range(listed[batch][1].size)]
    whole = joined(trajectories for trajectories, _ in listed)
    probability = np.concatenate([p for _, p in listed])
    for chosen in itertools.combinations_with_replacement(range(len(place)), size):
        orders = math.factorial(size)
        for path in set(chosen):
            orders //= math.factorial(chosen.count(path))
        weight = orders * math.prod(float(probability[i]) for i in chosen)
        yield whole.select(np.array(chosen)), np.array([weight])


def _stopped(
    name: str, batches: Iterator[tuple[Trajectories, FloatArray]], problem: ConfigurableMDP | MarkovGame, horizon: int
) -> Iterator[tuple[Trajectories, FloatArray]]:
    """Combine every trajectory with every pair of geometric stopping times.

    On trajectories that have ended, all times beyond the horizon are alike, so the tail of the law is one more value.
    """
    times = np.arange(horizon + 1)
    laws = []
    for discount in (problem.discount_leader, problem.discount_follower):
        law = (1.0 - discount) * discount**times
        law[-1] = discount**horizon
        laws.append(law)
    for trajectories, probability in batches:
        if bool(trajectories.truncated.any()):
            raise UnsupportedError(
                f"{name}: stops at geometric times, and the problem goes on beyond the horizon {horizon}: "
                "infinitely many lengths cannot be listed; enumerate it on a problem that ends"
            )
        for leader, follower in itertools.product(times, times):
            stopping = np.tile(np.array([[leader, follower]]), (trajectories.streams, 1))
            yield trajectories.with_stopping(stopping), probability * (laws[0][leader] * laws[1][follower])


def _readable(count: int) -> str:
    if count < 10**9:
        return f"{count:,}"
    exponent = int(math.log10(count))  # of any integer, where float(count) overflows
    return f"about {count / 10**exponent:.0f}e+{exponent}"
