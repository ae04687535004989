"""λ-returns and state baselines on Four-Rooms: spread and bias of BC-HG with them, with exact and with learnt critics.

python -m bilevelrl.benchmarks.research.escape.lambda_returns --output benchmarks/results/escape_lambda.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.estimators import BCHG, Context, LambdaBCHG, Trajectories, sample_trajectories
from bilevelrl.estimators.critics import BaselineKind, GradientTable, SarsaLambdaCritic, StateBaseline
from bilevelrl.estimators.training import Run, Training, published_simulator, train
from bilevelrl.reference import ConfigurableMDP, hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import four_rooms
from bilevelrl.verification import exact_spread

__all__ = ["exact_rows", "half_way", "learnt_rows", "main", "published_with"]

TEMPERATURES = (0.001, 0.003, 0.005)
DECAYS = (0.0, 0.5, 0.9, 1.0)
STEPS = 100
_RUN = 2500
"""Outer iterations of the run of BC-HG that is stopped half way."""
_STEP_SIZE = 0.5

_Arm = tuple[float, float | None, str | None]
"""λ of the leader's critic; λ of the gradient's critic and returns, None: the plain suffix; baseline."""

ARMS: tuple[_Arm, ...] = (
    *((decay, None, None) for decay in DECAYS),
    *((0.0, decay, baseline) for decay in DECAYS for baseline in (None, "value", "learnt")),
    *((decay, decay, "value") for decay in DECAYS[1:]),
)


def half_way(problem: ConfigurableMDP, iterations: int = _RUN // 2) -> FloatArray:
    """Return θ of a run of BC-HG as published, after half of its outer iterations."""
    run = Run(method="bc_hg", seed=0, learning_rate=0.1)
    theta: FloatArray = train(Training(problem=problem, runs=[run], iterations=iterations)).thetas[0]
    return theta


def exact_rows(problem: ConfigurableMDP, theta: FloatArray, steps: int = STEPS) -> list[Row]:
    """Return bias and spread of one episode of so many steps, exactly, with exact critics and no averages.

    Examples
    --------
    >>> rows = exact_rows(four_rooms(temperature=0.005), np.zeros(105), steps=2)
    >>> [row["baseline"] for row in rows[-3:]]
    ['value', 'step', 'estimate']
    """
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    truth = hypergradient(problem, theta, bound=False).value
    kinds: tuple[BaselineKind, ...] = ("value", "step", "estimate")
    chosen: list[tuple[float | None, str, BCHG]] = [(None, "", BCHG())]
    chosen += [(decay, "", LambdaBCHG(trace_decay=decay)) for decay in DECAYS]
    chosen += [
        (decay, kind, LambdaBCHG(trace_decay=decay, state_baseline=kind)) for decay in (0.0, 0.9, 1.0) for kind in kinds
    ]
    rows = []
    for decay, baseline, estimator in chosen:
        found = exact_spread(estimator, context, horizon=steps)
        rows.append(
            _row(
                critics="exact",
                leader_decay="",
                gradient_decay="plain" if decay is None else decay,
                baseline=baseline,
                truth=truth,
                mean=found.mean,
                spread=found.root_mean_square,
                bias_error=0.0,
                along_error=0.0,
            )
        )
    return rows


def published_with(gradient_decay: float | None, baseline: str | None) -> BCHG:
    """Return BC-HG with the averages of the paper's experiments; with λ-returns and a baseline, all of them learnt.

    Parameters
    ----------
    gradient_decay
        λ; None: the plain suffix.
    baseline
        None, "value", or "learnt": the context's.
    """
    averages: dict[str, Any] = {
        "critic": "context",
        "guiding_average": "pairs",
        "normalisation": "episodes",
        "leader_average": "start_visits",
    }
    if gradient_decay is None:
        return BCHG(**averages)
    kind: Any = "context" if baseline == "learnt" else baseline
    return LambdaBCHG(trace_decay=gradient_decay, gradient_critic="context", state_baseline=kind, **averages)


@dataclass(slots=True, kw_only=True)
class _Chain:
    """Critics that learn from one batch after another at a θ that does not move."""

    context: Context
    rng: Generator
    leader: dict[float, SarsaLambdaCritic] = field(default_factory=dict)
    gradient: dict[float, GradientTable] = field(default_factory=dict)
    baseline: dict[float, StateBaseline] = field(default_factory=dict)

    def begin(self) -> None:
        """Start from zeros."""
        start = SarsaLambdaCritic.start(
            self.context.follower, self.context.problem.discount_leader, step_size=_STEP_SIZE
        )
        zeros = GradientTable.zeros(self.context)
        self.leader = {decay: replace(start, trace_decay=decay) for decay in DECAYS}
        self.gradient = dict.fromkeys(DECAYS, zeros)
        self.baseline = dict.fromkeys(DECAYS, StateBaseline(table=zeros.gradients))

    def batch(self) -> Trajectories:
        """Draw one batch as the paper's experiments do."""
        context = self.context
        return sample_trajectories(
            context.problem,
            context.theta,
            context.follower,
            streams=1,
            steps=STEPS,
            rng=self.rng,
            simulator=published_simulator(),
        )

    def learn(self, batch: Trajectories) -> None:
        """Replace every critic by what it has learnt from a batch."""
        for decay in DECAYS:
            self.leader[decay] = self.leader[decay].updated(batch)
            self.gradient[decay] = self.gradient[decay].updated(
                batch, self.context, step_size=_STEP_SIZE, trace_decay=decay
            )
            self.baseline[decay] = StateBaseline.learn(
                batch,
                self.context,
                critic=self.leader[0.0],
                gradient_critic=self.gradient[decay],
                trace_decay=decay,
            )

    def estimates(self, batch: Trajectories) -> Iterator[FloatArray]:
        """Yield the estimate of each arm with the critics as they are."""
        for leader, gradient, baseline in ARMS:
            told = replace(self.context, critic=self.leader[leader])
            if gradient is not None:
                told = replace(told, follower_gradient=self.gradient[gradient], baseline=self.baseline[gradient])
            yield published_with(gradient, baseline).estimate(batch, told).mean


def learnt_rows(
    problem: ConfigurableMDP, theta: FloatArray, *, chains: int = 20, settle: int = 20, draws: int = 20
) -> list[Row]:
    """Return bias and spread of a batch of 100 steps with critics learnt from the same and from the previous batch.

    Parameters
    ----------
    problem, theta
        Four-Rooms, and where.
    chains, settle, draws
        Critics that learn independently; batches before and while it is measured.

    Examples
    --------
    >>> rows = learnt_rows(four_rooms(temperature=0.005), np.zeros(105), chains=2, settle=1, draws=1)
    >>> len(rows) == 2 * len(ARMS)
    True
    """
    follower = solve_follower(problem, theta)
    truth = hypergradient(problem, theta, bound=False).value
    found = np.zeros((2, chains, draws, len(ARMS), theta.size))
    for chain in range(chains):
        rng = named_stream(0, "escape_lambda", chain)
        state = _Chain(context=Context(problem=problem, theta=theta, follower=follower), rng=rng)
        state.begin()
        for index in range(settle + draws):
            batch, measured = state.batch(), index - settle
            if measured >= 0:
                found[0, chain, measured] = list(state.estimates(batch))
            state.learn(batch)
            if measured >= 0:
                found[1, chain, measured] = list(state.estimates(batch))
    rows = []
    for estimates, critics in zip(found, ("previous batch", "same batch"), strict=True):
        for arm, (leader, gradient, baseline) in enumerate(ARMS):
            by_chain = estimates[:, :, arm]
            # Batches of a chain share critics, so errors are those of independent chains' means.
            means = by_chain.mean(axis=1)
            shares = means @ truth / (truth @ truth)
            rows.append(
                _row(
                    critics=critics,
                    leader_decay=leader,
                    gradient_decay="plain" if gradient is None else gradient,
                    baseline=baseline or "",
                    truth=truth,
                    mean=means.mean(axis=0),
                    spread=float(np.sqrt(((by_chain - means.mean(axis=0)) ** 2).sum(axis=2).mean())),
                    bias_error=float(np.sqrt(means.var(axis=0, ddof=1).sum() / chains)),
                    along_error=float(shares.std(ddof=1) / np.sqrt(chains)),
                )
            )
    return rows


def _row(
    *, truth: FloatArray, mean: FloatArray, spread: float, bias_error: float, along_error: float, **arm: float | str
) -> Row:
    numbers = {
        "exact_norm": float(np.linalg.norm(truth)),
        "bias_norm": float(np.linalg.norm(mean - truth)),
        "bias_error": bias_error,
        "spread": spread,
        # The mean's component along the truth, in units of the truth: 1 is right, 0 says nothing.
        "along": float(mean @ truth / (truth @ truth)),
        "along_error": along_error,
    }
    return {**arm, **{name: float(f"{value:.4g}") for name, value in numbers.items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every panel and write one row per arm."""
    parser = argparse.ArgumentParser(prog="escape_lambda", description="λ-returns and baselines on Four-Rooms.")
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    parser.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")
    parser.add_argument("--chains", type=int, default=20, help="critics that learn independently")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for temperature in options.temperature:
        problem = four_rooms(temperature=temperature)
        for place, theta in (("start", np.zeros(105)), ("half way", half_way(problem))):
            panel = {"temperature": temperature, "theta": place}
            found = exact_rows(problem, theta) + learnt_rows(problem, theta, chains=options.chains)
            rows.extend({**panel, **row} for row in found)
            write_table(options.output, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
