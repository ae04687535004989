"""The main job: hold every estimator against the truth; or one estimator of yours.

With no argument: all exact routes side by side on Four-Rooms, every registered estimator's exact bias by enumeration on
small problems, and its sampled bias, standard deviation, cosine and cost on the paper's four tasks. With an estimator:
exact bias by enumeration on problems that tell which part of it is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from bilevelrl.estimators import Claim, Draw, Estimator, estimators_for
from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, Problem
from bilevelrl.reference.doors import Horizon, NonNegative, Positive, as_is, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import FOUR_ROOMS_TEMPERATURES, paper_scenarios, small_scenarios
from bilevelrl.verification.causes.explain import EXPLAIN_SECONDS
from bilevelrl.verification.checks.own_scenarios import chosen_scenarios, default_scenarios
from bilevelrl.verification.checks.verdicts import POWER_LIMIT
from bilevelrl.verification.enumeration.contract import EstimatorFunction
from bilevelrl.verification.pipeline.results import EstimatorRow, Report, RouteRow, ordered
from bilevelrl.verification.pipeline.route_check import check_route
from bilevelrl.verification.pipeline.sampled import check_by_sampling, sampled_estimators
from bilevelrl.verification.pipeline.sampling import SamplingPlan, share
from bilevelrl.verification.pipeline.scenario_rows import TIME_LIMIT, check_registered, rows_on_scenarios
from bilevelrl.verification.processes.jobs import Job, Progress, run_jobs
from bilevelrl.verification.statistics.designs import ERROR_RATE, POWER

__all__ = ["verify"]

# Rough seconds of a route on Four-Rooms, to begin with the longest.
_ROUTE_EFFORT = {"finite_difference": 6.0, "complex_step": 3.0}


@checked
def verify(
    estimator: Estimator | EstimatorFunction | None = None,
    *,
    scenarios: Iterable[Scenario | str] | None = None,
    problem: Annotated[Problem | None, as_is] = None,
    theta: object = None,
    horizon: Horizon = None,
    kind: type | None = None,
    claim: Claim | None = None,
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
    quick: bool = False,
    workers: int = 1,
    time_limit: Positive = TIME_LIMIT,
    accuracy: NonNegative = 0.0,
    explain_seconds: Positive = EXPLAIN_SECONDS,
    progress: Progress | None = None,
) -> Report:
    """Hold estimators against the exact hypergradient and return what was found.

    Parameters
    ----------
    estimator
        A function (trajectories, context) → rows (M, N) or {part: rows}, or an `Estimator`, to be verified by
        enumeration alone. None: the main job over everything registered.
    scenarios
        Where to check. Default for one estimator: every scenario whose paths end, so that nothing is truncated; for the
        main job: `small_scenarios`, which are enumerated, and `paper_scenarios`, which are sampled, and on which the
        routes are compared.
    problem, theta, horizon
        Instead of scenarios: your own problem of any kind, the leader's parameter (default: zeros), and steps of a
        stream (default: to the end of all paths, else as many as can be listed, or sampled). The truth, whether paths
        end and what the horizon cuts off are computed. A kind of your own is sampled by its method
        `sample(theta, follower, *, streams, steps, rng)` → Trajectories.
    kind
        Of problem, a class: where to check one estimator by default; None: `ConfigurableMDP`.
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
    time_limit
        Seconds that the estimator may take on a scenario.
    accuracy
        Error relative to the largest part of the truth that the estimator is allowed beside rounding. Rounding follows
        the dtype of its rows, so that single precision needs none.
    explain_seconds
        Seconds that the search for the cause of a failure may take; what it cuts off is said.
    progress
        Told after each piece.

    Returns
    -------
    Report
        `passed`, rows, `print`-able tables, `to_csv`, `to_json`, `save`.

    Raises
    ------
    InvalidInputError
        If the estimator is not callable, an argument would be ignored, or a scenario's truth is not that of its problem
        (see `hold_to_its_problem`).

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
    the cause: the response part is missing (agrees with every difference)
        ... known mistakes compared; ...
    >>> wrong = {row.problem for row in report.failures}
    >>> "layered" in wrong, "layered, one action" in wrong  # where there is no choice there is no response
    (True, False)
    """
    if workers < 1:
        raise InvalidInputError(refusal("workers", workers, "an integer >= 1", "use 1 to stay in this process"))
    asked = chosen_scenarios(scenarios, problem=problem, theta=theta, horizon=horizon, argument="scenarios")
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
        at = default_scenarios(kind or ConfigurableMDP) if asked is None else asked
        _refuse_ignored("scenarios or a problem say where", kind=kind is not None and asked is not None)
        sampled = any("large" in on.tags for on in at)
        _refuse_ignored("one estimator stays in this process", workers=workers != 1)
        _refuse_ignored(
            "nothing is sampled on these scenarios", seed=seed != 0 and not sampled, quick=quick and not sampled
        )
        rows, explanation = rows_on_scenarios(
            estimator,
            at,
            claim=claim,
            expected_failures=expected_failures,
            plan=_plan(seed, quick),
            time_limit=time_limit,
            accuracy=accuracy,
            explain_seconds=explain_seconds,
            progress=progress,
        )
        return Report(
            estimators=tuple(rows),
            configuration={**configuration, "scenarios": [entry.name for entry in at]},
            seconds=time.perf_counter() - started,
            explanation=explanation,
        )
    _refuse_ignored(
        "no estimator is given",
        kind=kind is not None,
        claim=claim is not None,
        expected_failures=expected_failures is not None,
        time_limit=time_limit != TIME_LIMIT,
        accuracy=accuracy != 0.0,
        explain_seconds=explain_seconds != EXPLAIN_SECONDS,
    )
    temperatures = FOUR_ROOMS_TEMPERATURES[1:2] if quick else FOUR_ROOMS_TEMPERATURES
    plan = _plan(seed, quick)
    at = (*paper_scenarios(temperatures, seed=seed), *small_scenarios()) if asked is None else asked
    found = run_jobs(_jobs(at, plan), workers=workers, progress=progress)
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


def _refuse_ignored(why: str, **given: bool) -> None:
    """Refuse arguments that would change nothing."""
    for name, wrong in given.items():
        if wrong:
            raise InvalidInputError(f"{name}: expected to be left out, for {why}")


def _jobs(at: Sequence[Scenario], plan: SamplingPlan) -> list[Job]:
    """Every route and draws of every estimator on large scenarios; exact moments of every estimator on the others."""
    large = [on for on in at if "large" in on.tags]
    jobs = [
        Job(
            function=check_route,
            arguments=(route, on),
            label=f"route {route} on {on.title}, {on.name}",
            effort=_ROUTE_EFFORT.get(route, 0.5),
        )
        for on in large
        for route, entry in HYPERGRADIENT_ROUTES.items()
        if type(on.problem) in entry.kinds
    ]
    jobs += [
        Job(
            function=check_by_sampling,
            arguments=(name, on, plan),
            label=f"{name} on {on.title}, {on.name}",
            effort=2.0 * share(on),
        )
        for on in large
        for name in sampled_estimators(on)
    ]
    jobs += [
        Job(function=check_registered, arguments=(name, on), label=f"{name} on {on.title}")
        for on in at
        if on not in large
        for name, entry in estimators_for(type(on.problem)).items()
        if (entry.make(on.target).draw is Draw.BATCH) == ("pairs" in on.tags)
    ]
    return jobs


def _plan(seed: int, quick: bool) -> SamplingPlan:
    # The family does not shrink with `quick`, so that verdicts mean the same.
    checks = max(1, sum(len(sampled_estimators(on)) for on in paper_scenarios()))
    if quick:
        return SamplingPlan(seed=seed, step_budget=600_000, batches=50, batch_budget=60_000, checks=checks)
    return SamplingPlan(seed=seed, checks=checks)
