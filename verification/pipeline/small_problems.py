"""Estimators on problems small enough to list every trajectory: exact bias and standard deviation, no sampling error.

On layered problems every path ends by itself and nothing is truncated: what claims no bias must show none beyond
rounding. Elsewhere the trajectories stop at a horizon, and enumeration shows what that costs. Problems in
which θ enters one table only tell which part of an estimator is wrong. Markov games have estimators of their own, and
problems of both information structures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.estimators import Claim, Context, Draw, Estimator, ExactCritic, LeaderCritic, Objective
from bilevelrl.estimators.critics import GameCritic
from bilevelrl.reference import (
    ConfigurableMDP,
    Hypergradient,
    MarkovGame,
    Tables,
    hypergradient,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, SupportError, UnsupportedError
from bilevelrl.reference.storage import remade
from bilevelrl.tasks import garnet, layered_mdp, random_markov_game, random_mdp
from bilevelrl.tasks.generators import layered_markov_game
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, judge_exact, unjudged
from bilevelrl.verification.enumeration.contract import EstimatorFunction, estimator_name
from bilevelrl.verification.enumeration.moments import Moments, enumerate_moments
from bilevelrl.verification.pipeline.rows import EstimatorRow, exact_measures

__all__ = ["SmallProblem", "check_by_enumeration", "isolating_problems", "small_games", "small_problems"]


@remade
def layered_with_exits(*, parameters: int, seed: int, **options: Any) -> ConfigurableMDP:
    """Return a layered problem that may end at every step, with a probability that depends on θ.

    The derivative of ending is then weighed by the value of the end, zero: an estimator that reads another value there,
    the last state's for example, is biased here and nowhere else.
    """
    layered = layered_mdp(parameters=parameters, seed=seed, **options)
    first = layered.tables_at(np.zeros(parameters))
    slope = named_stream(seed, "exits").standard_normal((first.states, first.actions, parameters))

    def tables(theta: Any) -> Tables:
        stays = 1.0 / (1.0 + anp.exp(-1.0 - anp.dot(slope, theta)))
        inside = layered.tables(theta)
        return inside.replace({"transition": inside.transition * stays[:, :, None]})

    return replace(layered, tables=tables, tables_jacobian=None, tables_pullback=None, name="layered with exits")


_GENERATORS: dict[str, Callable[..., Any]] = {
    "layered": layered_mdp,
    "exits": layered_with_exits,
    "random": random_mdp,
    "garnet": garnet,
    "layered_game": layered_markov_game,
    "random_game": random_markov_game,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallProblem:
    """A problem whose trajectories can be listed.

    Attributes
    ----------
    name : str
        What tables call it.
    task, options
        Generator and its arguments; kept apart so that a problem can be sent to another process.
    horizon : int
        Where trajectories are truncated.
    ends : bool
        Every path ends by itself within the horizon: nothing is truncated.
    draws : tuple of Draw
        Kinds of estimators that it is for: batches of two paths need problems with few paths.
    """

    name: str
    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    horizon: int
    ends: bool
    draws: tuple[Draw, ...] = (Draw.TRAJECTORY,)

    def make(self) -> tuple[ConfigurableMDP | MarkovGame, FloatArray]:
        """Return the problem and a parameter at which nothing is special."""
        problem = _GENERATORS[self.task](**self.options)
        theta = 0.5 * named_stream(20260314, self.name).standard_normal(problem.theta_shape)
        return problem, theta

    @property
    def is_game(self) -> bool:
        """Whether it is a Markov game, for estimators in games."""
        return self.task.endswith("_game")

    @property
    def target(self) -> Objective:
        """The truth that its trajectories are held against."""
        return Objective(horizon=None if self.ends else self.horizon)


REWARDS = ("reward_follower", "reward_leader")


def small_problems() -> tuple[SmallProblem, ...]:
    """Return the problems of the main job.

    Examples
    --------
    >>> [problem.name for problem in small_problems()]
    ['layered', 'layered, with exits', 'layered, θ in rewards', 'going on', 'going on, θ in rewards', 'garnet',
     'two layers', 'two steps']
    """
    layered = {"layers": 3, "width": 2, "actions": 2, "parameters": 3, "seed": 1}
    random = {"states": 2, "actions": 2, "parameters": 3, "seed": 2}
    sparse = {"states": 4, "actions": 2, "branching": 2, "parameters": 4, "seed": 3, "termination": 0.2}
    rewards = {"theta_in": REWARDS}
    pairs = (Draw.BATCH,)
    return (
        SmallProblem(name="layered", task="layered", options=layered, horizon=3, ends=True),
        SmallProblem(name="layered, with exits", task="exits", options=layered, horizon=3, ends=True),
        SmallProblem(
            name="layered, θ in rewards", task="layered", options={**layered, **rewards}, horizon=3, ends=True
        ),
        SmallProblem(name="going on", task="random", options=random, horizon=5, ends=False),
        SmallProblem(
            name="going on, θ in rewards", task="random", options={**random, **rewards}, horizon=5, ends=False
        ),
        SmallProblem(name="garnet", task="garnet", options=sparse, horizon=4, ends=False),
        SmallProblem(
            name="two layers",
            task="layered",
            options={**layered, **rewards, "layers": 2},
            horizon=2,
            ends=True,
            draws=pairs,
        ),
        SmallProblem(
            name="two steps", task="random", options={**random, **rewards}, horizon=2, ends=False, draws=pairs
        ),
    )


def small_games() -> tuple[SmallProblem, ...]:
    """Return the Markov games of the main job.

    Examples
    --------
    >>> [problem.name for problem in small_games()]
    ['game', 'game, not seeing', 'game that goes on', 'game that goes on, not seeing', 'game of two layers']
    """
    layered = {"layers": 3, "width": 2, "seed": 1}
    random = {"states": 2, "actions": 2, "seed": 2, "termination": 0.2}
    blind = {"follower_sees_leader_action": False}
    return (
        SmallProblem(name="game", task="layered_game", options=layered, horizon=3, ends=True),
        SmallProblem(name="game, not seeing", task="layered_game", options={**layered, **blind}, horizon=3, ends=True),
        SmallProblem(name="game that goes on", task="random_game", options=random, horizon=4, ends=False),
        SmallProblem(
            name="game that goes on, not seeing",
            task="random_game",
            options={**random, **blind},
            horizon=4,
            ends=False,
        ),
        SmallProblem(
            name="game of two layers",
            task="layered_game",
            options={**layered, "layers": 2},
            horizon=2,
            ends=True,
            draws=(Draw.BATCH,),
        ),
    )


def isolating_problems() -> tuple[SmallProblem, ...]:
    """Return layered problems: θ in every table, and θ in one table only, one for each table.

    Examples
    --------
    >>> len(isolating_problems())
    6
    """
    layered = {"layers": 3, "width": 2, "actions": 2, "parameters": 3, "seed": 1}
    everywhere = SmallProblem(name="θ in every table", task="layered", options=layered, horizon=3, ends=True)
    single = [
        SmallProblem(
            name=f"θ in {table} only", task="layered", options={**layered, "theta_in": (table,)}, horizon=3, ends=True
        )
        for table in ("initial", "reward_leader", "transition", "reward_follower", "regulariser")
    ]
    return (everywhere, *single)


def check_by_enumeration(
    estimator: Estimator | EstimatorFunction,
    small: SmallProblem,
    *,
    level: str = "formula",
    claim: Claim | None = None,
    target: Objective | None = None,
) -> EstimatorRow:
    """Return exact bias and standard deviation of an estimator, held against what it claims.

    Parameters
    ----------
    estimator
        An `Estimator`, or a function (trajectories, context) → rows.
    small
        The problem.
    level
        For the table.
    claim, target
        For plain functions; an `Estimator` declares its own.

    Returns
    -------
    EstimatorRow
        "not applicable" where the estimator says that it does not apply, "failed" where it breaks its contract.
    """
    started = time.perf_counter()
    problem, theta = small.make()
    batched = getattr(estimator, "draw", Draw.TRAJECTORY) is Draw.BATCH
    stated = claim if claim is not None else getattr(estimator, "claim", Claim.UNBIASED)
    held_against = target if target is not None else getattr(estimator, "target", small.target)
    described: dict[str, Any] = {
        "problem": small.name,
        "temperature": problem.temperature,
        "estimator": estimator_name(estimator),
        "level": level,
        "claim": stated.name.lower(),
        "draw": "2 trajectories" if batched else "trajectory",
        "target": target_name(held_against),
        "method": "enumeration",
    }
    follower = solve_follower(problem, theta)
    truth = hypergradient(problem, theta, horizon=held_against.horizon, discounted=held_against.discounted)
    critic = _exact_critic(problem, theta, follower, held_against)
    try:
        moments = enumerate_moments(
            estimator,
            problem,
            theta,
            horizon=small.horizon,
            batch=2 if batched else None,
            follower=follower,
            critic=critic,
        )
        context = Context(problem=problem, theta=theta, follower=follower, critic=critic)
        expected = _expected(estimator, stated, truth, context, small.horizon)
    except (UnsupportedError, SupportError) as refused:
        return EstimatorRow(**described, verdict=unjudged(Outcome.NOT_APPLICABLE, str(refused)))
    except EstimatorError as broken:
        verdict = Verdict(outcome=Outcome.FAILED, detectable=0.0, reason=str(broken))
        return EstimatorRow(**described, verdict=verdict)
    return exact_row(described, moments, truth, expected, seconds=time.perf_counter() - started)


def _exact_critic(
    problem: ConfigurableMDP | MarkovGame, theta: FloatArray, follower: Any, target: Objective
) -> LeaderCritic:
    if isinstance(problem, MarkovGame):
        return GameCritic.solve(problem, theta, follower, target=target)
    return ExactCritic.solve(problem, theta, follower.policy, horizon=target.horizon, discounted=target.discounted)


def exact_row(
    described: Mapping[str, Any],
    moments: Moments,
    truth: Hypergradient,
    expected: FloatArray | None,
    *,
    seconds: float,
) -> EstimatorRow:
    """Turn exact moments into a row, judged against the claimed expectation (None: only measured)."""
    norm = float(np.linalg.norm(truth.value))
    if expected is None:
        verdict = unjudged(Outcome.MEASURED, "no expectation is claimed")
    else:
        # The truth's bound holds for its own error and for that of the follower and critic which the estimator reads.
        off, allowed = moments.mean - expected, moments.allowed(2 * truth.error_bound)
        verdict = judge_exact(off, tolerance=allowed, scale=norm if norm > 0.0 else 1.0)
        if verdict.failed:
            verdict = diagnosed(verdict, off, truth)
    measures = exact_measures(moments, truth.value, truth.parts, expected)
    return EstimatorRow(**described, **measures, seconds=seconds, verdict=verdict)


def diagnosed(verdict: Verdict, difference: FloatArray, truth: Hypergradient) -> Verdict:
    """Say so where the difference is minus one part of the truth: that part is missing."""
    for part, value in truth.parts.items():
        size = float(np.linalg.norm(value))
        if size > 0.0 and float(np.linalg.norm(difference + value)) <= 1e-9 * size:
            hint = f"; this is minus the whole {part} part: it is missing"
            return Verdict(outcome=verdict.outcome, detectable=verdict.detectable, reason=verdict.reason + hint)
    return verdict


def _expected(
    estimator: Estimator | EstimatorFunction, claim: Claim, truth: Hypergradient, context: Context, horizon: int
) -> FloatArray | None:
    if claim is Claim.MEASURED:
        return None
    if claim is Claim.UNBIASED:
        return truth.value
    declared = getattr(estimator, "expectation", None)
    if declared is None:
        raise EstimatorError(f"{estimator_name(estimator)}: claims an expectation but has no `expectation` method")
    return sum(declared(context, horizon=horizon).values(), np.zeros(context.theta.size))


def target_name(target: Objective) -> str:
    length = "infinite horizon" if target.horizon is None else f"{target.horizon} steps"
    return length if target.discounted else f"{length}, undiscounted"
