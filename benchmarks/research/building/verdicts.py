"""Estimators for configurable LQRs against what they declare: on the building by sampling, in one dimension exactly.

On the building scores leave some estimators with spreads of 10^4 times the truth, which no affordable sample sees
through; the verdict is then "no power". Gaussian quadrature on one-dimensional problems has no sampling error, and the
same formulas are judged there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators import BCHG, HPGD, Claim, Context, Estimator, NaivePGD, Objective
from bilevelrl.estimators.methods import PathwiseBCHG, PolicyCovariance
from bilevelrl.estimators.sampling import LQRSimulator
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import building_thermal_control, random_lqr
from bilevelrl.verification import Outcome, mean_test
from bilevelrl.verification.checks import Verdict, judge_exact, judge_sampled, unjudged
from bilevelrl.verification.enumeration import quadrature_moments

__all__ = ["FIGURES", "FORMS", "sampled_verdict", "verdict_cell", "verdict_in_one_dimension"]

FORMS: Mapping[str, tuple[type[Any], Mapping[str, Any]]] = {
    "Naive-PGD": (NaivePGD, {}),
    "Naive-PGD, scores shortened": (NaivePGD, {"largest_score": 1.0}),
    "Naive-PGD, centred": (NaivePGD, {"scores": "td_error"}),
    "BC-HG": (BCHG, {}),
    "BC-HG, centred": (BCHG, {"scores": "td_error"}),
    "BC-HG, pathwise": (PathwiseBCHG, {}),
    "HPGD, benefit": (HPGD, {"variant": "critic"}),
    "HPGD, benefit, centred": (HPGD, {"variant": "critic", "scores": "td_error"}),
    "HPGD, raw Q_L": (HPGD, {"variant": "critic", "factor": "action_value"}),
    "HPGD, raw return": (HPGD, {"variant": "critic", "factor": "return"}),
    "policy covariance": (PolicyCovariance, {}),
}
"""Estimators with exact critics, by what tables call them."""

_STEPS, _GROUP, _NODES = 100, 1000, 7


def _estimator(form: str, target: Objective) -> Estimator:
    make, options = FORMS[form]
    critic = "exact" if target.horizon is None else "exact_truncated"
    estimator: Estimator = make(target=target, critic=critic, **options)
    return estimator


def sampled_verdict(form: str, *, episodes: int, entropy: int = 0) -> tuple[Verdict, FloatArray]:
    """Judge independent episodes of the building at θ = 0 against the declared expectation.

    Returns
    -------
    verdict
        With the smallest bias along the truth that would have been seen.
    rows : (episodes, N)

    Examples
    --------
    >>> verdict, rows = sampled_verdict("policy covariance", episodes=1000)
    >>> verdict.outcome.value, rows.shape
    ('no power', (1000, 8))
    """
    problem, theta = building_thermal_control(), np.zeros(8)
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    estimator = _estimator(form, Objective())
    rng, groups = named_stream(entropy, "building verdicts"), []
    for begin in range(0, episodes, _GROUP):
        streams = min(_GROUP, episodes - begin)
        batch = LQRSimulator().sample(problem, theta, context.follower, streams=streams, steps=_STEPS, rng=rng)
        groups.append(estimator(batch, context))
    rows = np.concatenate(groups)
    if estimator.claim is Claim.MEASURED:
        return unjudged(Outcome.MEASURED, "no expectation is claimed"), rows
    truth = hypergradient(problem, theta).value
    norm = float(np.linalg.norm(truth))
    expected = sum(estimator.expectation(context, horizon=_STEPS).values(), np.zeros(8))
    directions = np.column_stack([truth / norm, np.eye(8)])
    test = mean_test(rows @ directions, expected @ directions, comparisons=len(FORMS) * directions.shape[1])
    names = ["along the truth", *(f"in coordinate {i}" for i in range(8))]
    return judge_sampled(test, along=0, scale=norm, names=names), rows


def verdict_in_one_dimension(form: str, *, seed: int) -> tuple[Verdict, float]:
    """Judge the mean over two steps of a one-dimensional problem by quadrature, and return its bias over the truth.

    Examples
    --------
    >>> verdict, bias = verdict_in_one_dimension("policy covariance", seed=0)
    >>> verdict.outcome.value, bias < 1e-10
    ('passed', True)
    """
    problem, theta = random_lqr(states=1, actions=1, seed=seed), np.array([0.3, -0.2, 0.1])
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    estimator = _estimator(form, Objective(horizon=2))
    moments = quadrature_moments(estimator, problem, theta, horizon=2, nodes=_NODES)
    truth = hypergradient(problem, theta, horizon=2).value
    norm = float(np.linalg.norm(truth))
    bias = float(np.linalg.norm(moments.mean - truth)) / norm
    if estimator.claim is Claim.MEASURED:
        return unjudged(Outcome.MEASURED, "no expectation is claimed"), bias
    expected = sum(estimator.expectation(context, horizon=2).values(), np.zeros(3))
    tolerance = 64.0 * moments.rounding  # paths, and two formulas of as many operations
    return judge_exact(moments.mean - expected, tolerance=tolerance, scale=norm), bias


def verdict_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Judge one estimator both ways."""
    form = str(cell["form"])
    sampled, rows = sampled_verdict(form, episodes=configuration["episodes"])
    in_one = [verdict_in_one_dimension(form, seed=seed) for seed in range(3)]
    worst = max((verdict for verdict, _ in in_one), key=lambda verdict: verdict.failed)
    truth = hypergradient(building_thermal_control(), np.zeros(8)).value
    norm = float(np.linalg.norm(truth))
    noise = float(rows.var(axis=0, ddof=1).sum())
    return [
        {
            "form": form,
            "claim": _estimator(form, Objective()).claim.name.lower(),
            "episodes": len(rows),
            "spread": float(f"{np.sqrt(noise) / norm:.4g}"),
            "distance_from_truth": float(f"{np.linalg.norm(rows.mean(axis=0) - truth) / norm:.4g}"),
            "distance_noise": float(f"{np.sqrt(noise / len(rows)) / norm:.4g}"),
            "verdict": sampled.outcome.value,
            "detectable": float(f"{sampled.detectable:.4g}") if np.isfinite(sampled.detectable) else None,
            "one_dimension": worst.outcome.value,
            "one_dimension_bias": float(f"{max(bias for _, bias in in_one):.3g}"),
        }
    ]


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    grid = Grid(axes=[("form", list(FORMS))])
    return run(
        Sweep(function=verdict_cell, grid=grid, folder=folder / "cells", configuration={"episodes": options.iterations})
    )


_HEAD = (
    "estimator, exact critics",
    "claim",
    "spread of an episode",
    "distance of the mean ± noise",
    "verdict on the building",
    "smallest bias seen",
    "verdict in one dimension",
    "its bias there",
)


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [" | ".join(_HEAD), " | ".join("---" for _ in _HEAD)]
    for row in rows:
        cells = (
            row["form"],
            row["claim"],
            f"{row['spread']:.3g}",
            f"{row['distance_from_truth']:.3g} ± {row['distance_noise']:.2g}",
            row["verdict"],
            "–" if row["detectable"] is None else f"{row['detectable']:.2g}",
            row["one_dimension"],
            f"{row['one_dimension_bias']:.2g}",
        )
        lines.append(" | ".join(cells))
    note = (
        f"Building: {rows[0]['episodes']} episodes of {_STEPS} steps at θ = 0, everything relative to the norm of the "
        "exact hypergradient; an estimator is held against what it declares, which for Naive-PGD is the partial "
        "gradient. One dimension: two steps, three problems, by quadrature; the bias is against the truth of two steps."
    )
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{note}"


FIGURES = (
    Figure(
        name="building-verdicts",
        title="estimators for LQRs against what they declare; --iterations counts episodes",
        seeds=1,
        iterations=20_000,
        quick_seeds=1,
        quick_iterations=2000,
        rows=_rows,
        table=_table,
    ),
)
