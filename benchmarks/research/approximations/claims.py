"""Assumptions that convergence proofs make, computed on every reference problem: `bilevelrl reproduce claims`.

*Gradient alignment.* The partial gradient ∂J, the follower held fixed, may stand for ∇J: ⟨∂J, ∇J⟩ >= c |∇J|² with
c > 0, so that ascent on the one ascends the other. Assumed by arXiv:2509.15392 for Stackelberg mean-field games.

*Social gradient.* The gradient of what both players earn together, ∇(J + V*), ascends J; and so does what players have
who hold each other fixed, ∂J + ∇V*. Claimed in this spirit by arXiv:2604.11346, whose own text was not found: what
is computed is the sum of both players' values, V* the follower's regularised optimum from the initial law.

*PL condition.* The follower's return in its logits satisfies F* - F <= |∇F|² / 2μ around its optimum with μ the least
eigenvalue of -∂²F = β B that a softmax feels; penalty methods ask weights of the order of `largest / μ`.

*Constants of convergence.* Analyses of descent along hypergradients (HPGD, arXiv:2406.01575, among them) bound how fast
the response moves by what bounds the tables: with |∇r_F| <= K_1, Σ_s' |∇P(s'|s,a)| <= K_2 and |V_F - c| <= R,

    |∇log π| <= 2 (K_1 + γ_F K_2 R) / β (1 - γ_F),                                                              (1)

and from it the constant L of |∇J(θ) - ∇J(θ')| <= L |θ - θ'| and the rate 1/L. Computed here are both sides of (1), and
the L that θ itself shows: the largest modulus of an eigenvalue of ∂²J, from differences of exact hypergradients,
where these are smooth enough on the scale of the differences.

Linear-quadratic problems have no logits and no sup of a score: of the PL constant and of (1) their rows say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.research.approximations.errors import SHOWN
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.reference import ConfigurableLQR, LQRGame, hypergradient, solve_follower
from bilevelrl.reference.approximations import fisher_blocks, follower_at, tabular_at
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.nudged import PaidFollower
from bilevelrl.reference.problem import Objective, Problem
from bilevelrl.reference.tabular import dense_jacobian
from bilevelrl.tasks import toy_game_theta, toy_markov_game
from bilevelrl.tasks.scenarios import reference_problems

__all__ = ["FIGURES", "claim_cell", "claims_at", "curvature", "follower_value_gradient", "response_constants"]

PROBABILITIES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9)
"""Of blocking in A, along the toy game with R = 1."""

LARGEST = 200
"""Parameters for which ∂²J is worked out."""

NOTHING = 1e-9
"""Share of |∇J| below which a response counts as none."""


def follower_value_gradient(problem: Problem, theta: FloatArray) -> FloatArray:
    """Return ∇V* from the initial law, (N,), by the envelope theorem."""
    alone = tabular_at(problem, theta).problem
    at = replace(alone, discount_leader=alone.discount_follower).at(theta)  # the leader's plays no part
    follower = solve_follower(at.problem, theta)
    return PaidFollower(at, Objective(), follower).gradient(0.0)


def regulator_value_gradient(problem: ConfigurableLQR | LQRGame, theta: FloatArray) -> FloatArray:
    """Return ∇V* = -∇(E x_0'P x_0 + v) of a linear-quadratic problem, (N,), by differences of exact solutions."""

    def value(moved: FloatArray) -> float:
        follower = solve_follower(problem, moved)
        form = problem.at(moved).matrices if isinstance(problem, ConfigurableLQR) else problem
        mean, spread = np.asarray(form.initial_mean), np.asarray(form.initial_covariance)
        return -float(mean @ follower.cost_to_go @ mean + (follower.cost_to_go * spread).sum() + follower.offset)

    step = 1e-5 * max(1.0, float(np.abs(theta).max()))
    moves = [step * along.reshape(theta.shape) for along in np.eye(theta.size)]
    return np.array([(value(theta + move) - value(theta - move)) / (2.0 * step) for move in moves])


def response_constants(problem: Problem, theta: FloatArray) -> tuple[float, float]:
    """Return the largest |∇log π| of the best response, and the bound (1) on it."""
    at = tabular_at(problem, theta)
    mdp, tables = at.problem, at.tables
    follower, discount = solve_follower(mdp, at.theta), mdp.discount_follower
    jacobian = mdp.jacobian(at.theta)
    none = np.zeros((*follower.policy.shape, at.theta.size))
    reward = jacobian.get("reward_follower", none)
    whole = np.abs(at.kernel.sum(axis=2) - 1.0).max() <= 1e-9  # then a constant value moves nothing
    value = follower.value - 0.5 * (follower.value.max() + follower.value.min()) * whole
    moved, ahead = 0.0, none
    if (slopes := jacobian.get("transition")) is not None:
        dense = dense_jacobian(tables, slopes)
        moved = float(np.linalg.norm(dense, axis=-1).sum(axis=2).max())
        ahead = discount * np.einsum("satn,t->san", dense, value)
    policy = follower.policy
    own = reward + ahead
    chain = discount * np.matmul(policy[:, None, :], at.kernel)[:, 0, :]
    slope = np.linalg.solve(np.eye(len(chain)) - chain, np.einsum("sa,san->sn", policy, own))
    action = own + discount * np.einsum("sat,tn->san", at.kernel, slope)
    score = np.linalg.norm(action - slope[:, None], axis=-1)[policy > 0.0] / mdp.temperature
    steepest = float(np.linalg.norm(reward, axis=-1)[policy > 0.0].max())
    bound = (
        2.0 * (steepest + discount * moved * float(np.abs(value).max())) / (mdp.temperature * (1.0 - discount))
    )  # (1)
    return float(score.max()), bound


def curvature(problem: Problem, theta: FloatArray, **objective: Any) -> float | None:
    """Return the largest modulus of an eigenvalue of ∂²J(θ).

    None for more than `LARGEST` parameters, and where differences over two steps do not agree to a hundredth.
    """
    if theta.size > LARGEST:
        return None
    found = []
    for step in (1e-5 * max(1.0, float(np.abs(theta).max())) * share for share in (1.0, 0.25)):
        rows = []
        for along in np.eye(theta.size):
            one, other = (
                hypergradient(problem, theta + sign * step * along.reshape(theta.shape), bound=False, **objective).value
                for sign in (1.0, -1.0)
            )
            rows.append((one - other) / (2.0 * step))
        hessian = np.array(rows)
        found.append(float(np.abs(np.linalg.eigvalsh(0.5 * (hessian + hessian.T))).max()))
    return found[1] if abs(found[0] - found[1]) <= 0.01 * found[1] else None


def claims_at(problem: Problem, theta: FloatArray, *, horizon: int | None = None, discounted: bool = True) -> Row:
    """Return cosines, constants and the follower's PL constant at θ; None where there is nothing to compare."""
    truth = hypergradient(problem, theta, horizon=horizon, discounted=discounted)
    total, partial = truth.value, truth.value - truth.parts["response"]
    if isinstance(problem, (ConfigurableLQR, LQRGame)):
        value, constants = regulator_value_gradient(problem, theta), dict.fromkeys(_OF_TABLES)
    else:
        value, constants = follower_value_gradient(problem, theta), _constants_of_tables(problem, theta)
    size = float(np.linalg.norm(total))
    bend = curvature(problem, theta, horizon=horizon, discounted=discounted)
    return {
        "response_share": _short(float(np.linalg.norm(truth.parts["response"])) / size if size else 0.0),
        "cosine_partial": _cosine(partial, total),
        "alignment_constant": _short(float(partial @ total) / size**2) if size else None,
        "cosine_social": _cosine(total + value, total),
        "cosine_social_partial": _cosine(partial + value, total),
        **constants,
        "leader_curvature": None if bend is None else _short(bend),
    }


_OF_TABLES = ("pl_constant", "largest_curvature", "response_slope", "response_slope_bound")


def _constants_of_tables(problem: Problem, theta: FloatArray) -> Row:
    at = tabular_at(problem, theta)
    policy = solve_follower(at.problem, theta).policy
    found = follower_at(at, policy)
    sizes = np.linalg.eigvalsh(fisher_blocks(found.visits, policy)) * at.problem.temperature
    met = (found.visits[:, None] > 0.0) & (np.arange(policy.shape[1]) > 0)  # one direction that a softmax does not feel
    least = _short(max(float(sizes[met].min()), 0.0)) if met.any() else None
    constants = (least, _short(float(sizes.max())), *map(_short, response_constants(problem, theta)))
    return dict(zip(_OF_TABLES, constants, strict=True))


def _cosine(one: FloatArray, other: FloatArray) -> float | None:
    sizes = float(np.linalg.norm(one) * np.linalg.norm(other))
    return _short(float(one @ other) / sizes) if sizes > 0.0 else None


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def claim_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Return the row of one reference problem, or of the toy game at a probability of blocking, `p=...`."""
    name = cell["problem"]
    if name.startswith("p="):
        return [claims_at(toy_markov_game(), toy_game_theta(float(name.removeprefix("p="))))]
    stored = next(entry for entry in reference_problems() if entry.name == name)
    form = stored.closed_form
    return [claims_at(stored.problem(), stored.theta(), horizon=form.horizon, discounted=form.discounted)]


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    names = [entry.name for entry in reference_problems()]
    names = [*(names[:3] if options.quick else names), *(f"p={p:g}" for p in PROBABILITIES)]
    grid = Grid(axes=[("problem", names)], known=("problem",))
    return run(Sweep(function=claim_cell, grid=grid, folder=folder / "cells", configuration={}))


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    stored = [row for row in rows if not row["problem"].startswith("p=")]
    felt = [row for row in stored if row["response_share"] > NOTHING]
    lines = [
        f"**{len(stored)} reference problems**, {len(felt)} of them with a response",
        "",
        "| assumption | holds | fails | where it fails (cosine) |",
        "| --- | --- | --- | --- |",
    ]
    for column, what in (
        ("cosine_partial", "⟨∂J, ∇J⟩ > 0: gradient alignment"),
        ("cosine_social", "⟨∇(J + V*), ∇J⟩ > 0: the social gradient ascends J"),
        ("cosine_social_partial", "⟨∂J + ∇V*, ∇J⟩ > 0: so does the sum of own gradients"),
    ):
        wrong = [row for row in felt if not float(row[column] or 0.0) > 0.0]
        names = ", ".join(f"{row['problem']} ({float(row[column] or 0.0):.2g})" for row in wrong)
        lines.append(f"| {what} | {len(felt) - len(wrong)} | {len(wrong)} | {names} |")
    curved = [row for row in stored if row["pl_constant"] not in (None, "")]
    constants = np.array([float(row["pl_constant"]) for row in curved])
    ratios = np.array([float(row["largest_curvature"]) for row in curved]) / np.maximum(constants, 1e-300)
    lines += [
        "",
        f"The follower's PL constant: least {constants.min():.2g}, median {np.median(constants):.2g}, largest "
        f"{constants.max():.2g}; largest curvature over it: median {np.median(ratios):.2g}; above 1e6 on "
        f"{int((ratios > 1e6).sum())} of {len(curved)}.",
        "",
        *_convergence(felt),
        "",
        "**The toy game, R = 1, by the probability p of blocking in A**",
        "",
        "| p | cosine of ∂J | constant c | cosine of ∇(J + V*) | of ∂J + ∇V* | PL constant | L |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['problem'].removeprefix('p=')} | {row['cosine_partial']} | {row['alignment_constant']} "
        f"| {row['cosine_social']} | {row['cosine_social_partial']} | {row['pl_constant']} "
        f"| {row['leader_curvature']} |"
        for row in rows
        if row["problem"].startswith("p=")
    ]
    return "\n".join(lines)


def _convergence(felt: Sequence[Row]) -> list[str]:
    """Return what proofs' constants are, and what they are bounds of."""
    moving = [row for row in felt if float(row["response_slope"] or 0.0) > 0.0]
    ratios = np.array([float(row["response_slope_bound"]) / float(row["response_slope"]) for row in moving])
    bent = [row for row in felt if row["leader_curvature"] not in (None, "")]
    bends = np.array([float(row["leader_curvature"]) for row in bent])
    lines = [
        f"The bound on |∇log π| over what it is: least {ratios.min():.2g}, median {np.median(ratios):.2g}, largest "
        f"{ratios.max():.2g}. L at θ itself, on {len(bent)} where differences tell: least "
        f"{bends.min():.2g}, median {np.median(bends):.2g}, largest {bends.max():.2g}; a rate of 1/L is below 0.1 on "
        f"{int((bends > 10.0).sum())}, below 1e-3 on {int((bends > 1e3).sum())}.",
        "",
        "| problem | largest norm of ∇log π | its bound | L at θ |",
        "| --- | --- | --- | --- |",
    ]
    shown = [row for row in felt if row["problem"] in SHOWN]
    return lines + [
        f"| {row['problem']} | {row['response_slope']} | {row['response_slope_bound']} | {row['leader_curvature']} |"
        for row in shown
    ]


FIGURES = (
    Figure(
        name="claims",
        title="what convergence proofs assume, computed on every reference problem; no seeds",
        seeds=1,
        iterations=1,
        quick_seeds=1,
        quick_iterations=1,
        rows=_rows,
        table=_table,
    ),
)
