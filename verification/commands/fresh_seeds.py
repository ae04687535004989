"""The command `bilevelrl fresh-seeds`: many runs with fresh seeds, in which no correct estimator may fail.

Every run draws new problems, new θ and new trajectories, and holds each registered estimator that claims an expectation
against it: all of them by sampling, and one of them (each in turn) exactly by enumeration. As a control the same draws
are judged with the follower's response taken out; a check that fails nothing would show there. The control counts
where the planted bias is one that the test says it sees with its stated power, and how often it did.

Sampling says nothing of events that it is likely to miss: a nearly greedy follower whose rare actions carry the mean
looks constant in most samples. So problems to sample are chosen beforehand, by their laws alone, such that every pair
of a state and an action is expected `LEAST_VISITS` times or more; problems to enumerate are not chosen.

Each run has an error budget of its own, 1e-6; a thousand runs fail something correct with probability at most 1e-3.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators import Claim, Context, Draw, Estimator, ExactCritic, Objective, estimators_for
from bilevelrl.reference import ConfigurableMDP, TabularFollower, hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.storage import software_versions, writable_file, write_atomically
from bilevelrl.reference.tabular import to_dense
from bilevelrl.tasks import layered_mdp, random_mdp
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.commands.arguments import count, seed
from bilevelrl.verification.enumeration.moments import enumerate_moments
from bilevelrl.verification.statistics.designs import ERROR_RATE, POWER
from bilevelrl.verification.statistics.error_budget import ErrorBudget
from bilevelrl.verification.statistics.means import mean_test
from bilevelrl.verification.testing.judge import comparison_directions

__all__ = ["Tally", "fill_fresh_seeds", "fresh_run", "fresh_seeds"]

DRAWS = 600
HORIZON = 4
LEAST_VISITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What happened to one estimator over all runs.

    Attributes
    ----------
    estimator : str
        Registered name.
    sampled, sampled_failed : int
        Runs judged by sampling, and failed: a correct estimator's are false alarms.
    enumerated, enumerated_failed : int
        The same by enumeration.
    planted, planted_caught : int
        Runs in which the response taken out was a bias that the test promises to see, and those in which it did.
    """

    estimator: str
    sampled: int = 0
    sampled_failed: int = 0
    enumerated: int = 0
    enumerated_failed: int = 0
    planted: int = 0
    planted_caught: int = 0


def fresh_seeds(
    runs: int, *, seed: int, progress: Callable[[int, int], None] | None = None, draws: int = DRAWS
) -> tuple[Tally, ...]:
    """Return the tally of every correct estimator over runs with problems, θ and trajectories of their own.

    Parameters
    ----------
    runs
        How many.
    seed
        Root entropy; run i is a function of it and i.
    progress
        Told (runs done, runs) after each.
    draws
        Per estimator and run.

    Raises
    ------
    InvalidInputError
        If there is no run.

    Examples
    --------
    >>> tallies = fresh_seeds(2, seed=0)
    >>> sum(tally.sampled_failed + tally.enumerated_failed for tally in tallies)
    0
    """
    if runs < 1:
        raise InvalidInputError(refusal("runs", runs, "an integer >= 1", "ask for at least one"))
    totals: dict[str, Tally] = {}
    for run in range(runs):
        for found in fresh_run(seed, run, draws=draws):
            before = totals.get(found.estimator, Tally(estimator=found.estimator))
            counts = {
                name: getattr(before, name) + value for name, value in asdict(found).items() if name != "estimator"
            }
            totals[found.estimator] = replace(before, **counts)
        if progress is not None:
            progress(run + 1, runs)
    return tuple(totals.values())


def fresh_run(seed: int, run: int, *, draws: int = DRAWS) -> list[Tally]:
    """Return the tallies of one run: problems that end in even runs, problems that go on in odd ones."""
    rng = named_stream(seed, "fresh", run)
    at = _Drawn.of(run, rng)
    while draws * at.rarest_visit() < LEAST_VISITS:
        at = _Drawn.of(run, rng)
    theta, follower, target = at.theta, at.follower, at.target
    truth, context = at.truth(), at.context(rng)
    unchosen = _Drawn.of(run, rng)
    correct = _correct_estimators(target)
    directions, names = comparison_directions(truth)
    budget = ErrorBudget(ERROR_RATE)
    rates = budget.split({name: len(names) for name, _ in correct})
    tallies = []
    for place, (name, estimator) in enumerate(correct):
        expected = _expected(estimator, truth, context)
        if expected is None:
            continue
        trajectories = estimator.sample(context.problem, theta, follower, streams=draws, steps=HORIZON, rng=rng)
        projected = estimator(trajectories, context) @ directions
        test = mean_test(projected, expected @ directions, error_rate=rates[name], known_error=truth.error_bound)
        shift = np.abs(truth.parts["response"] @ directions)
        without = projected - truth.parts["response"] @ directions
        promised = bool((shift >= test.detectable).any())
        caught = promised and bool(
            mean_test(
                without, expected @ directions, error_rate=rates[name], known_error=truth.error_bound
            ).rejected.any()
        )
        chosen = (run // 2) % len(correct) == place
        wrong = _enumerated_failed(estimator, unchosen) if chosen else None
        tallies.append(
            Tally(
                estimator=name,
                sampled=1,
                sampled_failed=int(test.rejected.any()),
                enumerated=int(wrong is not None),
                enumerated_failed=int(wrong is True),
                planted=int(promised),
                planted_caught=int(caught),
            )
        )
    return tallies


def fill_fresh_seeds(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `fresh-seeds`."""
    add.add_argument("--runs", type=count, default=1000, help="default 1000")
    add.add_argument("--seed", type=seed, help="root of all runs (default: fresh, and written down)")
    add.add_argument("--output", metavar="FILE", type=Path, help="write the tallies as JSON")
    add.set_defaults(run=_fresh_seeds)


def _fresh_seeds(parsed: argparse.Namespace) -> int:
    root = secrets.randbits(64) if parsed.seed is None else parsed.seed

    if parsed.output is not None:
        writable_file("--output", parsed.output)

    def progress(done: int, runs: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {runs} runs", end="" if done < runs else "\n", file=sys.stderr)

    tallies = fresh_seeds(parsed.runs, seed=root, progress=progress)
    failed = sum(tally.sampled_failed + tally.enumerated_failed for tally in tallies)
    missed = sum(tally.planted - tally.planted_caught for tally in tallies)
    width = max(len(tally.estimator) for tally in tallies)
    print(f"{'estimator':<{width}}  sampled   failed  enumerated   failed  planted  caught")
    for t in tallies:
        print(
            f"{t.estimator:<{width}}  {t.sampled:7}  {t.sampled_failed:7}  {t.enumerated:10}  "
            f"{t.enumerated_failed:7}  {t.planted:7}  {t.planted_caught:6}"
        )
    total = sum(tally.sampled + tally.enumerated for tally in tallies)
    said = f"{failed} of {total} judgements failed something correct; {missed} planted biases missed"
    print(f"{parsed.runs} runs, seed {root}: {said}")
    if parsed.output is not None:
        record = {
            "runs": parsed.runs,
            "seed": str(root),
            "draws": DRAWS,
            "error_rate_per_run": ERROR_RATE,
            "power": POWER,
            "judgements": total,
            "correct_failed": failed,
            "planted_missed": missed,
            "estimators": [asdict(tally) for tally in tallies],
            "versions": software_versions(),
        }
        write_atomically(parsed.output, json.dumps(record, indent=1) + "\n")
    return 0 if failed == 0 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """A drawn problem with its solution."""

    problem: ConfigurableMDP
    theta: FloatArray
    follower: TabularFollower
    target: Objective

    @classmethod
    def of(cls, run: int, rng: Generator) -> _Drawn:
        seed, theta = int(rng.integers(2**31)), rng.standard_normal(3)
        temperature = float(rng.choice([0.3, 1.0, 3.0]))
        if run % 2 == 0:
            problem, target = layered_mdp(layers=3, width=2, actions=2, parameters=3, seed=seed), Objective()
        else:
            problem, target = random_mdp(states=2, actions=2, parameters=3, seed=seed), Objective(horizon=HORIZON)
        problem = replace(problem, temperature=temperature)
        # All estimators read the same θ: its Jacobians are computed once.
        slopes = problem.jacobian(theta)
        problem = replace(problem, tables_jacobian=lambda _: slopes)
        return cls(problem=problem, theta=theta, follower=solve_follower(problem, theta), target=target)

    def rarest_visit(self) -> float:
        """Smallest expected number of visits of a pair in one trajectory."""
        tables, policy = self.problem.tables_at(self.theta), np.asarray(self.follower.policy)
        chain = np.einsum("sa,sap->sp", policy, to_dense(tables.transition))
        law = np.asarray(tables.initial)
        visits = np.zeros_like(law)
        for _ in range(HORIZON):
            visits += law
            law = law @ chain
        return float((visits[:, None] * policy).min())

    def truth(self) -> Truth:
        exact = hypergradient(self.problem, self.theta, horizon=self.target.horizon)
        return Truth.of(objective=exact.objective, parts=exact.parts, error_bound=exact.error_bound)

    def context(self, rng: Generator | None) -> Context:
        critic = ExactCritic.solve(self.problem, self.theta, self.follower.policy, horizon=self.target.horizon)
        return Context(problem=self.problem, theta=self.theta, follower=self.follower, critic=critic, rng=rng)


def _correct_estimators(target: Objective) -> list[tuple[str, Estimator]]:
    made = [
        (name, entry.make(target))
        for name, entry in estimators_for(ConfigurableMDP).items()
        if entry.level == "formula"
    ]
    return [
        (n, e) for n, e in made if e.draw is Draw.TRAJECTORY and e.claim is not Claim.MEASURED and e.target == target
    ]


def _expected(estimator: Estimator, truth: Truth, context: Context) -> FloatArray | None:
    if estimator.claim is Claim.UNBIASED:
        return truth.value
    try:
        declared = estimator.expectation(context, horizon=HORIZON)
    except UnsupportedError:
        return None
    return sum(declared.values(), np.zeros(context.theta.size))


def _enumerated_failed(estimator: Estimator, at: _Drawn) -> bool | None:
    """Whether the exact mean is not what is claimed; None where draws cannot be listed."""
    truth, context = at.truth(), at.context(None)
    expected = _expected(estimator, truth, context)
    if expected is None:
        return None
    try:
        found = enumerate_moments(
            estimator, at.problem, at.theta, horizon=HORIZON, follower=at.follower, critic=context.critic
        )
    except UnsupportedError:
        return None
    rounding = 16 * HORIZON * float(np.finfo(np.float64).eps) * found.magnitude
    return bool((np.abs(found.mean - expected) > 3 * truth.error_bound + found.rounding + rounding).any())
