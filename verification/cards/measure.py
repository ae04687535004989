"""One computation of a card: exact moments on every scenario, what one draw costs, and the known mistakes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from bilevelrl.estimators import Claim, Context, Draw, Estimator, sample_trajectories
from bilevelrl.reference import ConfigurableLQR, LQRGame, named_stream
from bilevelrl.reference.doors import NonNegative, Positive, checked
from bilevelrl.reference.errors import BilevelRLError, EstimatorError, SupportError, TooLargeError, UnsupportedError
from bilevelrl.reference.problem import INFINITE_HORIZON, Objective
from bilevelrl.reference.storage import software_versions
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.cards.card import Card, Place
from bilevelrl.verification.cards.mistakes import told_apart
from bilevelrl.verification.cards.subjects import KINDS, Subject, find_subject
from bilevelrl.verification.checks.deterministic import MAX_MULTISETS, enumerate_scenario
from bilevelrl.verification.checks.enumerated import Enumerated, judge_enumerated
from bilevelrl.verification.checks.once import evaluated_once, exact_critic
from bilevelrl.verification.checks.results import CheckResult, failed_by, shown
from bilevelrl.verification.checks.truncation import truncated_truths
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.enumeration.limits import within
from bilevelrl.verification.pipeline.scenario_rows import PAIRS, TIME_LIMIT
from bilevelrl.verification.processes.jobs import Progress
from bilevelrl.verification.testing.failures import check_kind, explain_results

__all__ = ["ERROR_WANTED", "draws_for", "make_card"]

ERROR_WANTED = 0.1
"""Root mean square error, relative to the truth, that draws are counted for."""

_STREAMS = 64  # trajectories of a call that cost is read from
_BATCHES = 4  # batches, where a draw is a batch

CLAIMS = {
    Claim.UNBIASED: "its expectation is the exact hypergradient of its target",
    Claim.DECLARED: "biased by design: its expectation is the one that it computes itself",
    Claim.MEASURED: "nothing: its bias is only measured",
}


@checked
def make_card(
    estimator: str,
    *,
    on: Sequence[Scenario] | None = None,
    kinds: Sequence[str] = (),
    claim: Claim | None = None,
    seed: int = 0,
    time_limit: Positive = TIME_LIMIT,
    accuracy: NonNegative = 0.0,
    mistakes: bool = True,
    progress: Progress | None = None,
) -> Card:
    """Return the card of an estimator.

    Parameters
    ----------
    estimator
        As in `find_subject`: a registered name, or "package.module:function".
    on
        Scenarios; default: all of the kinds.
    kinds
        Of problem: "mdp", "game", "lqr", "lqr_game"; default: those that it is listed for; plain functions: "mdp".
    claim
        What a plain function claims; default: unbiased.
    seed
        Root of the draws that costs are read from; nothing else is sampled.
    time_limit
        Seconds that the estimator may take on a scenario.
    accuracy
        Error relative to the largest part of the truth that is allowed beside rounding, that of the rows' dtype.
    mistakes
        Whether to hold it against every known mistake.
    progress
        Told after each scenario.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `find_subject`. Whatever the estimator does on a scenario is a row with a reason.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> card = make_card("naive_pgd", on=[scenario("toll")], mistakes=False)
    >>> card.headline
    'keeps its claim on 1 of 1 scenarios (1 passed), but for parts that are 0 there: initial, transition, regulariser'
    >>> round(card.places[0].bias, 2), card.places[0].parts["response"] == card.places[0].bias
    (19.12, True)
    """
    subject = find_subject(estimator, kinds=kinds, claim=claim)
    return card_of(
        subject, on=on, seed=seed, time_limit=time_limit, accuracy=accuracy, mistakes=mistakes, progress=progress
    )


def card_of(
    subject: Subject,
    *,
    on: Sequence[Scenario] | None = None,
    problem: str = "",
    seed: int = 0,
    time_limit: float = TIME_LIMIT,
    accuracy: float = 0.0,
    mistakes: bool = True,
    progress: Progress | None = None,
) -> Card:
    """Return the card of what `find_subject` found, as `make_card`; `problem`: what the only scenario is made of."""
    started = time.process_time()
    at = [entry for kind in subject.kinds for entry in scenarios(kind=kind)] if on is None else list(on)
    places: list[Place] = []
    seen: list[Enumerated] = []
    results: list[CheckResult] = []
    for done, entry in enumerate(at, 1):
        place, found, judged = _place(subject, entry, seed, time_limit, accuracy)
        places.append(place)
        results.extend(judged)
        seen.extend([] if found is None else [found])
        if progress is not None:
            progress(done, len(at) + mistakes, f"{subject.name} on {entry.name}")
    made = subject.make(at[0].target if at else Objective())
    stated = sorted({Claim[place.claim.upper()] for place in places}, key=list(CLAIMS).index)
    failed = any(result.failed for result in results)
    cause = explain_results(results, at) if failed else None
    compared = told_apart(seen) if mistakes else ()
    if progress is not None and mistakes:
        progress(len(at) + 1, len(at) + 1, f"{subject.name} beside known mistakes")
    return Card(
        estimator=subject.name,
        source=subject.source,
        summary=subject.summary,
        level=subject.level,
        claim=" or ".join(claim.name.lower() for claim in stated),
        claim_said="; or, for other targets, ".join(CLAIMS[claim] for claim in stated),
        draw="two trajectories" if _batched(made) else "one trajectory",
        problem=problem,
        theta=tuple(at[0].theta.ravel().tolist()) if problem else None,
        horizon=at[0].horizon if problem else None,
        accuracy=accuracy,
        kinds=tuple(dict.fromkeys(place.kind for place in places)),
        places=tuple(places),
        mistakes=compared,
        cause="" if cause is None else str(cause),
        seed=seed,
        versions=software_versions(),
        sources=subject.sources(),
        seconds=time.process_time() - started,
    )


def _place(
    subject: Subject, on: Scenario, seed: int, time_limit: float, accuracy: float
) -> tuple[Place, Enumerated | None, list[CheckResult]]:
    estimator = subject.make(on.target)
    if not hasattr(estimator, "target"):
        on = _open_ended(on)
    target: Objective = getattr(estimator, "target", on.target)
    length = "infinite horizon" if target.horizon is None else f"{target.horizon} steps"
    place = Place(
        scenario=on.name,
        kind=next(
            (kind.__name__ for kind in KINDS.values() if isinstance(on.problem, kind)), type(on.problem).__name__
        ),
        claim=subject.claim_of(estimator).name.lower(),
        target=length if target.discounted else f"{length}, undiscounted",
        temperature=float(on.problem.temperature),
        outcome=Outcome.NOT_APPLICABLE.value,
        reason="more paths than can be listed; `bilevelrl verify` holds draws against it",
    )
    if "large" in on.tags:
        return place, None, []
    on.solved(target)  # what is wrong with the problem is not the estimator's failure
    try:
        with within(time_limit, subject.name):
            most = PAIRS if "pairs" in on.tags else MAX_MULTISETS
            found = enumerate_scenario(estimator, on, claim=subject.claim, max_multisets=most, accuracy=accuracy)
            judged = judge_enumerated(found)
            steps, cpu = _cost(estimator, on, target, named_stream(seed, "card", subject.name, on.name))
    except (UnsupportedError, SupportError, TooLargeError) as refused:
        return replace(place, reason=str(refused)), None, []
    except BilevelRLError as broken:
        broke = failed_by("contract", on.name, str(broken))
        return replace(place, check="contract", outcome=Outcome.FAILED.value, reason=str(broken)), None, [broke]
    return _filled(place, found, judged, steps, cpu), found, judged


@lru_cache(maxsize=512)
def _open_ended(on: Scenario) -> Scenario:
    """A scenario held against the infinite horizon: a plain function does not say that it aims at fewer steps.

    What a cut takes away is then taken off, in whichever way the function treats it.
    """
    return on if on.target == INFINITE_HORIZON else replace(on, objective=INFINITE_HORIZON)


def _filled(
    place: Place, found: Enumerated, judged: list[CheckResult], steps: dict[str, float], cpu: float | None
) -> Place:
    by_kind = {check_kind(result.check): result for result in judged}
    told = next((result for result in judged if result.failed), by_kind["bias"])
    norm = float(np.linalg.norm(found.truth.value))
    scale = norm if norm > 0.0 else 1.0
    difference, held = by_kind["bias"].difference, by_kind["bias"].truth
    trace = max(0.0, float(np.trace(found.covariance)))  # a baseline can take all variance away, up to rounding
    truths = tuple(truncated_truths(found.scenario, found.target).values())
    right = held if held is not None and held is not found.truth else (*truths, found.truth)[0]
    bias = float(np.linalg.norm(found.moments.mean - right.value))
    known_to = float(np.linalg.norm(found.tolerance + (right.error_bound if right is not found.truth else 0.0)))
    return replace(
        place,
        outcome=told.verdict.outcome.value,
        reason=told.verdict.reason,
        check=check_kind(told.check),
        method="quadrature" if isinstance(found.scenario.problem, (ConfigurableLQR, LQRGame)) else "enumeration",
        draws=found.moments.draws,
        truth_norm=norm,
        bias=bias / scale,
        off_claim=None if difference is None else float(np.linalg.norm(difference)) / scale,
        cut=float(np.linalg.norm(right.value - found.truth.value)) / scale if truths else None,
        would_see=2.0 * known_to / scale,
        parts=_part_bias(found, right, scale),
        tested=shown(right, found.tolerance),
        standard_deviation=math.sqrt(trace) / scale,
        draws_for_tenth=draws_for(bias, trace, norm, known_to=2.0 * known_to),
        steps=steps,
        cpu=cpu,
    )


def _part_bias(found: Enumerated, right: Truth, scale: float) -> dict[str, float]:
    """The bias of each part, also of those that the estimator leaves out; nothing where it tells none."""
    told = found.moments.parts
    if not told:
        return {}
    zero = np.zeros(right.value.size)
    claimed = {str(part): value for part, value in right.parts.items()}
    names = dict.fromkeys([*claimed, *told])
    return {name: float(np.linalg.norm(told.get(name, zero) - claimed.get(name, zero))) / scale for name in names}


def draws_for(
    bias: float, variance: float, norm: float, *, known_to: float = 0.0, error: float = ERROR_WANTED
) -> float | None:
    """Return how many draws n have a mean with `bias² + variance / n = (error · norm)²`, or None: no number has.

    Parameters
    ----------
    bias, variance, norm
        Norm of the bias of one draw, trace of its covariance, norm of the truth.
    known_to
        A bias up to this is rounding, and none.
    error
        Relative to the truth.

    Examples
    --------
    >>> draws_for(0.0, 4.0, 2.0), draws_for(0.06, 4.0, 1.0), draws_for(0.1, 4.0, 1.0)
    (100.0, 625.0, None)
    """
    left = (error * norm) ** 2 - (bias**2 if bias > known_to else 0.0)
    if left <= 1e-12 * (error * norm) ** 2:
        return None
    return round(max(1.0, variance / left), 9)


def _cost(
    estimator: Any, on: Scenario, target: Objective, rng: np.random.Generator
) -> tuple[dict[str, float], float | None]:
    """What one draw costs, as declared, and the processor time of one call, on sampled trajectories of one episode."""
    batched = _batched(estimator)
    critic, follower = exact_critic(on, target), on.solved(target).follower
    context = Context(problem=on.problem, theta=on.theta, follower=follower, critic=critic, rng=rng)
    sample: Callable[..., Any] = estimator.sample if isinstance(estimator, Estimator) else sample_trajectories
    totals: dict[str, float] = {}
    cpu = math.inf
    calls = _BATCHES if batched else 2
    try:
        for _ in range(calls):
            streams = 2 if batched else _STREAMS
            batch = sample(on.problem, on.theta, follower, streams=streams, steps=on.horizon, rng=rng)
            with evaluated_once(on):
                started = time.process_time()
                estimator(batch, context)
                cpu = min(cpu, time.process_time() - started)
            declared = getattr(estimator, "cost", None)
            spent = {"environment_steps": batch.valid.sum()} if declared is None else declared(batch, context)
            for name, count in spent.items():
                share = on.episodes / (calls * (1 if batched else streams))
                totals[name] = totals.get(name, 0.0) + float(count) * share
    except BilevelRLError:
        raise
    except Exception as broken:  # whatever somebody else's code raises
        raise EstimatorError(f"{type(broken).__name__} on sampled trajectories: {broken}") from broken
    return totals, cpu


def _batched(estimator: Any) -> bool:
    return bool(getattr(estimator, "draw", Draw.TRAJECTORY) is Draw.BATCH)
