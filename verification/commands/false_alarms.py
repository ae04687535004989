"""The command `bilevelrl false-alarms`: how often `judge_draws` refuses draws that are right.

The law of one draw is known exactly where trajectories can be listed: BC-HG's and Naive-PGD's rows on every scenario
of a configurable MDP or a Markov game with at most `MOST_PATHS` of them, and their probabilities. Rows are sampled from
these laws with fresh seeds, in numbers from four to a hundred thousand, and judged against their own exact expectation,
which is what they claim. No scenario is left out for its law. Every "failed" or "not applicable" is a false alarm; each
judgement promises that they are no more frequent than its error rate. As a control the same rows are judged with the
response taken out of what they claim.
"""

from __future__ import annotations

import argparse
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from bilevelrl.estimators import BCHG, Context, NaivePGD
from bilevelrl.estimators.sampling import JointProcess
from bilevelrl.reference import MarkovGame, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.storage import software_versions, writable_file, write_atomically
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.commands.arguments import count, seed
from bilevelrl.verification.enumeration.paths import PathLaw
from bilevelrl.verification.processes.jobs import Progress
from bilevelrl.verification.reports.terminal import progress_bar
from bilevelrl.verification.testing.judge import judge_draws

__all__ = ["RowLaw", "false_alarms", "fill_false_alarms", "known_laws"]

MOST_PATHS = 2500
DRAWS = (4, 10, 30, 100, 300, 1000, 3000, 10_000, 100_000)
RATES = (1e-6, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLaw:
    """The law of an estimator's rows on a scenario.

    Attributes
    ----------
    scenario : Scenario
        Where.
    estimator : str
        Whose rows.
    rows, probability : (paths, N), (paths,)
        Its support, with repetitions.
    """

    scenario: Scenario
    estimator: str
    rows: FloatArray
    probability: FloatArray

    @property
    def expectation(self) -> FloatArray:
        """Exact mean of a row (N,)."""
        mean: FloatArray = self.probability @ self.rows
        return mean

    def sample(self, draws: int, rng: np.random.Generator) -> FloatArray:
        """Return independent rows (draws, N)."""
        chosen = np.searchsorted(np.cumsum(self.probability)[:-1], rng.random(draws), side="right")
        rows: FloatArray = self.rows[chosen]
        return rows


def known_laws() -> Iterator[RowLaw]:
    """Yield the laws of BC-HG's and Naive-PGD's rows on every scenario that has at most `MOST_PATHS` trajectories."""
    for at in (*scenarios(), *scenarios(kind=MarkovGame)):
        follower = solve_follower(at.problem, at.theta)
        joint = JointProcess.of(at.problem, at.theta, follower) if isinstance(at.problem, MarkovGame) else None
        model, policy = (at.problem, follower.policy) if joint is None else (joint.process, joint.policy)
        paths = PathLaw.of(model.tables_at(at.theta), policy)
        if paths.count(at.horizon) > MOST_PATHS:
            continue
        context = Context(problem=at.problem, theta=at.theta, follower=follower)
        ((listed, probability),) = paths.batches(at.horizon, largest=MOST_PATHS)
        listed = listed if joint is None else joint.split(listed)
        for estimator in (BCHG(), NaivePGD()):
            yield RowLaw(
                scenario=at, estimator=estimator.name, rows=estimator(listed, context), probability=probability
            )


def false_alarms(
    judgements: int,
    *,
    seed: int,
    rates: Sequence[float] = RATES,
    numbers: Sequence[int] = DRAWS,
    known: Sequence[dict[str, Any]] = (),
    keep: Callable[[list[dict[str, Any]]], None] = lambda records: None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return how judgements of right rows ended, one record per error rate and number of draws.

    Parameters
    ----------
    judgements
        In all, at least; each law is sampled equally often at each rate and number of draws.
    seed
        Root entropy.
    rates, numbers
        Error rates to claim, and how many draws to judge.
    known
        The first records of the same run, which was interrupted; they are not made again.
    keep
        Told all records so far, after each.
    progress
        Told (done, in all, what is done).
    """
    laws = list(known_laws())
    each = -(-judgements // (len(laws) * len(rates) * len(numbers)))
    records: list[dict[str, Any]] = list(known)
    for rate in rates:
        for draws in numbers:
            if any((record["error_rate"], record["draws"]) == (rate, draws) for record in known):
                continue
            found: Counter[Outcome] = Counter()
            planted: Counter[Outcome] = Counter()
            for law in laws:
                rng = named_stream(seed, law.scenario.name, law.estimator, str(rate), draws)
                for i in range(each):
                    rows = law.sample(draws, rng)
                    judged = judge_draws(rows, law.scenario, claim=law.expectation, error_rate=rate, causes=False)
                    found[judged.verdict.outcome] += 1
                    if i == 0:
                        claim = law.expectation + law.scenario.truth.parts["response"]
                        judged = judge_draws(rows, law.scenario, claim=claim, error_rate=rate, causes=False)
                        planted[judged.verdict.outcome] += 1
            alarms = found[Outcome.FAILED] + found[Outcome.NOT_APPLICABLE]
            total = found.total()
            records.append(
                {
                    "error_rate": rate,
                    "draws": draws,
                    "judgements": total,
                    "false_alarms": alarms,
                    # Clopper and Pearson's limits, 95 %.
                    "at_least": float(special.betaincinv(alarms, total - alarms + 1, 0.025)) if alarms > 0 else 0.0,
                    "at_most": float(special.betaincinv(alarms + 1, total - alarms, 0.975)) if alarms < total else 1.0,
                    "passed": found[Outcome.PASSED],
                    "no_power": found[Outcome.NO_POWER],
                    "planted_failed": planted[Outcome.FAILED],
                    "planted": planted.total(),
                }
            )
            keep(records)
            if progress is not None:
                progress(len(records), len(rates) * len(numbers), "judging right draws")
    return records


def fill_false_alarms(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `false-alarms`."""
    add.add_argument("--judgements", type=count, default=20_000, help="default 20,000")
    add.add_argument("--seed", type=seed, help="root of all of them (default: fresh, and written down)")
    add.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write the table as JSON, row by row; with --seed a file that was interrupted is continued",
    )
    add.set_defaults(run=_false_alarms)


def _false_alarms(parsed: argparse.Namespace) -> int:
    root, known = secrets.randbits(64) if parsed.seed is None else parsed.seed, []
    if parsed.output is not None:
        writable_file("--output", parsed.output)
        known = _interrupted(parsed.output, root, parsed.judgements)

    def keep(records: list[dict[str, Any]]) -> None:
        if parsed.output is not None:
            record = {"seed": str(root), "judgements": parsed.judgements, "rows": records}
            write_atomically(parsed.output, json.dumps({**record, "versions": software_versions()}, indent=1) + "\n")

    with progress_bar() as progress:
        records = false_alarms(parsed.judgements, seed=root, known=known, keep=keep, progress=progress)
    print(
        "| claimed rate | draws | judgements | false alarms | 95 % interval | passed | no power | wrong ones failed |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for r in records:
        print(
            f"| {r['error_rate']:g} | {r['draws']:,} | {r['judgements']:,} | {r['false_alarms']} | "
            f"{r['at_least']:.2g} to {r['at_most']:.2g} | {r['passed']:,} | {r['no_power']:,} | "
            f"{r['planted_failed']} of {r['planted']} |"
        )
    # A rate is exceeded where so many alarms would have a probability below 1e-3 for one of the rates and numbers.
    limit = 1e-3 / len(records)
    above = [r for r in records if special.bdtrc(r["false_alarms"] - 1, r["judgements"], r["error_rate"]) < limit]
    print(f"\nseed {root}: {len(above)} of {len(records)} rows have more false alarms than claimed")
    return 1 if above else 0


def _interrupted(path: Path, root: int, judgements: int) -> list[dict[str, Any]]:
    """Records of the same seed and number that an interrupted run has left, by the same software; else none."""
    try:
        left = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # whatever was there before
        return []
    same = {"seed": str(root), "judgements": judgements, "versions": json.loads(json.dumps(software_versions()))}
    alike = isinstance(left, dict) and all(left.get(name) == value for name, value in same.items())
    return list(left["rows"]) if alike else []
