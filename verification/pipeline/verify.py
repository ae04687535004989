"""The main job: hold every estimator against the truth; or one estimator of yours.

With no argument: all exact routes side by side on Four-Rooms, every registered estimator's exact bias by enumeration on
small problems, and its sampled bias, standard deviation, cosine and cost on the paper's four tasks. With an estimator:
exact bias by enumeration on problems that tell which part of it is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bilevelrl.estimators import ESTIMATORS, Claim, Estimator, estimators_for
from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, MarkovGame
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.tasks import Scenario
from bilevelrl.verification.checks.own_scenarios import hold_to_its_problem
from bilevelrl.verification.checks.verdicts import POWER_LIMIT
from bilevelrl.verification.enumeration.contract import EstimatorFunction
from bilevelrl.verification.pipeline.jobs import Job, Progress, run_jobs
from bilevelrl.verification.pipeline.results import EstimatorRow, Report, RouteRow, ordered
from bilevelrl.verification.pipeline.route_check import check_route
from bilevelrl.verification.pipeline.sampled import SamplingPlan, check_by_sampling
from bilevelrl.verification.pipeline.sampling_cases import (
    CONTINUOUS_CASES,
    FOUR_ROOMS_TEMPERATURES,
    GAME_CASES,
    SamplingCase,
    four_rooms_case,
)
from bilevelrl.verification.pipeline.scenario_rows import rows_on_scenarios
from bilevelrl.verification.pipeline.small_problems import (
    SmallProblem,
    check_by_enumeration,
    small_games,
    small_problems,
)
from bilevelrl.verification.statistics.means import ERROR_RATE, POWER
from bilevelrl.verification.testing.assertions import default_scenarios

__all__ = ["verify"]

# Rough seconds of a route on Four-Rooms, to begin with the longest.
_ROUTE_EFFORT = {"finite_difference": 6.0, "complex_step": 3.0}


@checked
def verify(
    estimator: Estimator | EstimatorFunction | None = None,
    *,
    scenarios: Iterable[Scenario] | None = None,
    problems: Sequence[SmallProblem] | None = None,
    cases: Sequence[SamplingCase] | None = None,
    claim: Claim | None = None,
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
    quick: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Hold estimators against the exact hypergradient and return what was found.

    Parameters
    ----------
    estimator
        A function (trajectories, context) → rows (M, N) or {part: rows}, or an `Estimator`, to be verified by
        enumeration alone. None: the main job over everything registered.
    scenarios
        Where to check one estimator; default: every scenario whose paths end, so that nothing is truncated.
    problems
        Small problems that the main job enumerates; default: `small_problems()` and `small_games()`.
    cases
        Larger problems that the main job samples, and on which it compares the routes; default: the paper's four tasks.
    claim
        What a plain function claims; default: unbiased.
    expected_failures
        {check: reason} for an estimator that is wrong by design; see `rows_on_scenarios`.
    seed
        Root entropy of all sampling.
    quick
        A tenth of the sampling, and Four-Rooms at one temperature only.
    workers
        Processes for the main job.
    progress
        Told after each piece.

    Returns
    -------
    Report
        `passed`, rows, `print`-able tables, `to_csv`, `to_json`, `save`.

    Raises
    ------
    InvalidInputError
        If the estimator is not callable, the number of workers is less than one, or a scenario's truth is not that of
        its problem (see `hold_to_its_problem`).

    Examples
    --------
    Your estimator is a function of trajectories and context. This one forgets the follower's response:

    >>> import numpy as np
    >>> def my_estimator(trajectories, context):
    ...     problem = context.problem
    ...     discount = problem.discount_leader ** trajectories.time_in_episode * trajectories.valid
    ...     V = context.critic.value
    ...     weights = {
    ...         "reward_leader": discount,
    ...         "log_transition": discount * problem.discount_leader * V(trajectories.state_tp1),
    ...         "log_initial": trajectories.episode_starts * V(trajectories.state_t),
    ...     }
    ...     rows = problem.pullback(context.theta, trajectories, weights, per_stream=True)
    ...     return rows + problem.regulariser_gradient(context.theta)
    >>> report = verify(my_estimator)
    >>> report.passed
    False
    >>> print(report.explanation)
    likely cause: the response part is missing (agrees with every difference)
    >>> wrong = {row.problem for row in report.failures}
    >>> "layered" in wrong, "layered, one action" in wrong  # where there is no choice there is no response
    (True, False)
    """
    if workers < 1:
        raise InvalidInputError(refusal("workers", workers, "an integer >= 1", "use 1 to stay in this process"))
    started = time.perf_counter()
    configuration: dict[str, Any] = {
        "seed": seed,
        "quick": quick,
        "error_rate": ERROR_RATE,
        "power": POWER,
        "power_limit": POWER_LIMIT,
    }
    if estimator is not None:
        if not callable(estimator):
            raise InvalidInputError(
                refusal("estimator", estimator, "a function (trajectories, context) → rows", "pass the function itself")
            )
        at = default_scenarios() if scenarios is None else tuple(map(hold_to_its_problem, scenarios))
        rows, explanation = rows_on_scenarios(estimator, at, claim=claim, expected_failures=expected_failures)
        return Report(
            estimators=tuple(rows),
            configuration={**configuration, "scenarios": [entry.name for entry in at]},
            seconds=time.perf_counter() - started,
            explanation=explanation,
        )
    temperatures = FOUR_ROOMS_TEMPERATURES[1:2] if quick else FOUR_ROOMS_TEMPERATURES
    plan = _plan(seed, quick)
    sampled = _cases(temperatures) if cases is None else cases
    jobs = [*_route_jobs(sampled, seed), *_sampling_jobs(sampled, plan)]
    jobs.extend(_enumeration_jobs((*small_problems(), *small_games()) if problems is None else problems))
    found = run_jobs(jobs, workers=workers, progress=progress)
    return Report(
        estimators=ordered([row for row in found if isinstance(row, EstimatorRow)]),
        routes=tuple(row for row in found if isinstance(row, RouteRow)),
        configuration={
            **configuration,
            "temperatures": list(temperatures),
            "horizon": plan.horizon,
            "step_budget": plan.step_budget,
            "checks": plan.checks,
        },
        seconds=time.perf_counter() - started,
    )


def check_registered(name: str, small: SmallProblem) -> EstimatorRow:
    """Enumerate a registered estimator, made for the truth that this problem's trajectories can see."""
    entry = ESTIMATORS[name]
    return replace(check_by_enumeration(entry.make(small.target), small, level=entry.level), estimator=name)


def _route_jobs(cases: Sequence[SamplingCase], seed: int) -> list[Job]:
    return [
        Job(
            function=check_route,
            arguments=(route, case, seed),
            label=f"route {route} on {case.title}, {' '.join(case.key)}",
            effort=_ROUTE_EFFORT.get(route, 0.5),
        )
        for case in cases
        for route, entry in HYPERGRADIENT_ROUTES.items()
        if type(case.make_problem()) in entry.kinds
    ]


def _cases(temperatures: Sequence[float]) -> tuple[SamplingCase, ...]:
    return (*(four_rooms_case(temperature) for temperature in temperatures), *GAME_CASES, *CONTINUOUS_CASES)


def _sampling_jobs(cases: Sequence[SamplingCase], plan: SamplingPlan) -> list[Job]:
    return [
        Job(
            function=check_by_sampling,
            arguments=(name, case, plan),
            label=f"{name} on {case.title}, {' '.join(case.key)}",
            effort=2.0 * case.share,
        )
        for case in cases
        for name in case.entries()
    ]


def _enumeration_jobs(problems: Sequence[SmallProblem]) -> list[Job]:
    return [
        Job(function=check_registered, arguments=(name, small), label=f"{name} on {small.name}")
        for small in problems
        for name, entry in estimators_for(MarkovGame if small.is_game else ConfigurableMDP).items()
        if entry.make(small.target).draw in small.draws
    ]


def _plan(seed: int, quick: bool) -> SamplingPlan:
    # The family does not shrink with `quick`, so that verdicts mean the same.
    checks = max(1, sum(len(case.entries()) for case in _cases(FOUR_ROOMS_TEMPERATURES)))
    if quick:
        return SamplingPlan(seed=seed, step_budget=600_000, batches=50, batch_budget=60_000, checks=checks)
    return SamplingPlan(seed=seed, checks=checks)
