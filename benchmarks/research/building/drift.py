"""Which way the building's published estimators drift: pairs of batches with opposite noise in the dynamics.

Published directions are nearly odd in the process noise: scores are linear in it, and what they multiply hardly knows
it. So the two batches of a pair, with the same first states and the same action noise but opposite process noise, give
nearly opposite directions, and the mean of the two shows what does not cancel: signal or bias. With exact critics a
hundred pairs see as much as hundreds of thousands of independent batches. The drift is the mean entry of the clipped
directions; -1/2 and 1/2 are as far as it can go. A steady drift d moves every logit by d times the learning rate per
outer iteration, so that it can be read off the paper's curves of insulation and airflow costs, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.building.figures import COLOURS, paper_curve
from bilevelrl.benchmarks.paper.building.training import CRITICS, LEARNING_RATES
from bilevelrl.benchmarks.research.building.planted import PlantedCritics
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators import Context, Trajectories
from bilevelrl.estimators.sampling import LQRSimulator
from bilevelrl.estimators.sums import clip_to_norm
from bilevelrl.estimators.training import METHODS, CriticRule, NetworkCritics, Wanted
from bilevelrl.reference import ConfigurableLQR, hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.lqr import LQRFollower
from bilevelrl.tasks import building_thermal_control
from bilevelrl.verification.commands import natural

__all__ = ["FIGURES", "drift_cell", "opposite_noise", "paper_drift"]

_BLOCKS = (4, 4)
_COST_OF_ONE = 40.0  # four levels at one, summed with discount .9
_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"action_value": ("bc_hg", "hpgd_td"), "state_value": ("naive_pgd", "hpgd_mc")}
)
"""Methods that read the same critics: what is learnt for the second of a group serves the first."""

_RULES: Mapping[str, CriticRule] = MappingProxyType(
    {
        **{name: CRITICS[name]() for name in ("exact", "least_squares", "short_network", "published_network")},
        "no_gradient": CRITICS["exact"](),
        "offset": PlantedCritics(offset=4.0),
        "large_offset": PlantedCritics(offset=100.0),
        "at_rest": PlantedCritics(at_rest=1000.0),
        "surprise": PlantedCritics(surprise=0.2),
        "reverse_surprise": PlantedCritics(surprise=-0.2),
        "published_network_warm": NetworkCritics(warm_start=True),
    }
)
_PLANTED = ("no_gradient", "offset", "large_offset", "at_rest", "surprise", "reverse_surprise")
_ACTION_VALUES_ONLY = (
    *_PLANTED[1:],
    "published_network",
    "published_network_warm",
)  # the costly ones, where it matters
_HPGD = ("hpgd_mc", "hpgd_td")
_METHODS = ("naive_pgd", *_HPGD, "bc_hg")
_TITLES = {
    "exact": "exact",
    "no_gradient": "exact, ∇V_F not taken off",
    "offset": "exact, Q_L + 4",
    "large_offset": "exact, Q_L + 100",
    "at_rest": "exact, Q_L + 1000/‖x‖²",
    "surprise": "exact, Q_L + .2 of the surprise",
    "reverse_surprise": "exact, Q_L - .2 of the surprise",
    "least_squares": "least squares",
    "short_network": "short network",
    "published_network": "published network",
    "published_network_warm": "published network, warm",
}


def opposite_noise(batch: Trajectories, context: Context) -> Trajectories:
    """Return the batch with the same first states and action noise, and the opposite process noise.

    Raises
    ------
    InvalidInputError
        If the follower is not that of an LQR, or streams have several episodes or padding.

    Examples
    --------
    >>> problem, theta = building_thermal_control(), np.zeros(8)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> batch = LQRSimulator().sample(
    ...     problem, theta, context.follower, streams=2, steps=3, rng=np.random.default_rng(0))
    >>> there_and_back = opposite_noise(opposite_noise(batch, context), context)
    >>> bool(np.allclose(there_and_back.state_tp1, batch.state_tp1, rtol=0.0, atol=1e-12))
    True
    """
    follower = context.follower
    if not isinstance(follower, LQRFollower) or not batch.valid.all() or np.any(batch.time_in_episode[:, 1:] == 0):
        raise InvalidInputError("batch: expected one whole episode of an LQR in each stream; sample them so")
    matrices = context.problem.matrices_at(context.theta)
    forwards, backwards = matrices.dynamics_state.T, matrices.dynamics_action.T
    action_noise = batch.action_t - follower.mean(batch.state_t)
    noise = batch.state_tp1 - batch.state_t @ forwards - batch.action_t @ backwards
    state_t, action_t, state_tp1 = (np.empty_like(x) for x in (batch.state_t, batch.action_t, batch.state_tp1))
    state = batch.state_t[:, 0]
    for t in range(state_t.shape[1]):
        state_t[:, t] = state
        action_t[:, t] = follower.mean(state) + action_noise[:, t]
        state = state_tp1[:, t] = state @ forwards + action_t[:, t] @ backwards - noise[:, t]
    return replace(
        batch,
        state_t=state_t,
        action_t=action_t,
        state_tp1=state_tp1,
        reward_leader_t=np.asarray(matrices.reward_leader(state_t, action_t)),
        behaviour_log_prob=follower.log_prob(state_t, action_t, None),
    )


def paper_drift(method: str, learning_rate: float) -> float:
    """Return the mean change of the logits per outer iteration over the learning rate, read off the paper's curves.

    Of both costs, over the outer iterations until a level passes .9.

    Examples
    --------
    >>> round(paper_drift("BC-HG", 0.001), 2)
    0.07
    """
    found = []
    for quantity in ("insulation", "airflow"):
        curve = paper_curve(quantity, learning_rate, method)
        assert curve is not None  # the paper has them for all its methods
        level = np.sqrt(np.minimum(curve[1] / _COST_OF_ONE, 1.0 - 1e-9))
        passed = np.flatnonzero(level > 0.9)
        last = int(passed[0]) if passed.size else len(level) - 1
        logit = np.log(level / (1.0 - level))
        found.append((logit[last] - logit[0]) / (curve[0, last] - curve[0, 0]) / learning_rate)
    return float(np.mean(found))


class _NoGradient:
    """A critic of ∇V_F that takes nothing off."""

    def value(self, state: Any) -> FloatArray:
        return np.zeros((*np.shape(state)[:-1], sum(_BLOCKS)))


def _cosine(left: FloatArray, right: FloatArray) -> float:
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def drift_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Measure some pairs with one rule for critics, and one group of methods; one row per pair and method.

    Networks that start warm go on from pair to pair of the cell, on the first batch of each.
    """
    problem, theta, first = building_thermal_control(), np.zeros(sum(_BLOCKS)), int(cell["first_pair"])
    follower = solve_follower(problem, theta)
    rule, methods = _RULES[cell["critics"]], _GROUPS[cell["group"]]
    wanted = METHODS[ConfigurableLQR][methods[-1]].critic
    assert isinstance(wanted, Wanted)  # no exact gradient is among them
    stream = ("building drift", cell["critics"], cell["group"])
    carried = rule.start(wanted, 4, 2, theta.size, named_stream(0, *stream, "weights", first))
    rows: list[Row] = []
    for pair in range(first, first + int(configuration["pairs_per_cell"])):
        rng = named_stream(0, *stream, pair)
        context = Context(problem=problem, theta=theta, follower=follower, rng=rng)
        size = {"streams": configuration["episodes"], "steps": 100}
        batch = LQRSimulator().sample(problem, theta, follower, rng=rng, **size)
        directions: dict[str, list[FloatArray]] = {method: [] for method in methods}
        after = carried
        for opposite in (False, True):
            seen = opposite_noise(batch, context) if opposite else batch
            learnt = rule.learn(wanted, seen, context, carried, named_stream(0, *stream, pair, "actions"))
            gradient = _NoGradient() if cell["critics"] == "no_gradient" else learnt.gradient
            given = replace(context, critic=learnt.leader, follower_gradient=gradient)
            after = after if opposite else learnt.carried
            for method in methods:
                make = METHODS[ConfigurableLQR][method].make
                assert make is not None  # no exact gradient is among them
                found = make(_BLOCKS).estimate(seen, given)
                guiding = found.parts.get("response", np.zeros_like(theta))  # none in Naive-PGD
                directions[method].append(
                    clip_to_norm(np.stack([found.mean, found.mean - 2.0 * guiding]), 1.0, _BLOCKS)
                )
        carried = after
        rows += [
            {
                "critics": cell["critics"],
                "method": method,
                "pair": pair,
                "fits_before": pair - first if cell["critics"].endswith("warm") else 0,
                "drift": float(f"{np.mean([both[0][0], both[1][0]]):.5g}"),
                "drift_with_costs": float(f"{np.mean([both[0][1], both[1][1]]):.5g}"),
                "cosine_of_partners": float(f"{_cosine(both[0][0], both[1][0]):.5g}"),
            }
            for method, both in directions.items()
        ]
    return rows


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    pairs = options.iterations
    plan = dict.fromkeys(("exact", *_PLANTED, "least_squares"), (pairs, 10))
    if not options.quick:
        plan["short_network"] = (max(1, pairs // 5), 1)
        if options.own["networks"]:
            networks = int(options.own["networks"])
            plan |= {"published_network": (networks, 1), "published_network_warm": (networks, networks)}
    rows: list[Row] = []
    for critics, (count, each) in plan.items():
        each = each if count % each == 0 else 1
        axes: list[tuple[str, Sequence[Any]]] = [
            ("critics", [critics]),
            ("group", list(_GROUPS) if critics not in _ACTION_VALUES_ONLY else ["action_value"]),
            ("first_pair", list(range(0, count, each))),
        ]
        configuration = {"pairs_per_cell": each, "episodes": 100}
        place = folder / "cells" / critics
        rows += run(Sweep(function=drift_cell, grid=Grid(axes=axes), folder=place, configuration=configuration))
    return rows


_HEAD = ("method", "critics", "pairs", "drift", "with costs", "cosine of partners", "paper, rates .001, .01, .1")


def _shown(rows: Sequence[Row], method: str) -> dict[str, list[Row]]:
    """Rows of a method by its critics; planted errors of the benefit are BC-HG's, a gradient to take off is HPGD's."""
    found = {}
    for critics in dict.fromkeys(row["critics"] for row in rows):
        own = [row for row in rows if (row["method"], row["critics"]) == (method, critics)]
        if own and (critics not in _PLANTED or method in (_HPGD if critics == "no_gradient" else ("bc_hg",))):
            found[critics] = own
    return found


def _with_error(values: FloatArray) -> str:
    error = f"{values.std(ddof=1) / np.sqrt(len(values)):.4f}" if len(values) > 1 else "?"
    return f"{values.mean():+.4f} ± {error}"


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [" | ".join(_HEAD), " | ".join("---" for _ in _HEAD)]
    for method in _METHODS:
        title = METHODS[ConfigurableLQR][method].title
        paper = ", ".join(f"{paper_drift(title, rate):+.3f}" for rate in reversed(LEARNING_RATES))
        for critics, own in _shown(rows, method).items():
            drift, reverse = (np.array([row[name] for row in own]) for name in ("drift", "drift_with_costs"))
            cells = (
                title,
                _TITLES[critics],
                str(len(own)),
                _with_error(drift),
                "–" if method == "naive_pgd" else _with_error(reverse),
                f"{np.mean([row['cosine_of_partners'] for row in own]):+.3f}",
                paper,
            )
            lines.append(" | ".join(cells))
    truth = hypergradient(building_thermal_control(), np.zeros(sum(_BLOCKS)))
    exact, partial = (
        clip_to_norm(gradient[None], 1.0, _BLOCKS).mean()
        for gradient in (truth.value, truth.value - truth.parts["response"])
    )
    note = (
        "Mean entry of the clipped directions at θ = 0, over pairs of batches of 100 episodes with opposite process "
        f"noise, with its standard error; the exact hypergradient has {exact:+.2f}, its partial part {partial:+.2f}. "
        "With costs: the follower's costs in place of its values, which turns the guiding term round. "
        "The paper's: mean change of the logits per outer iteration over the learning rate, from its cost curves."
    )
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{note}"


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt: Any = pyplot()
    figure, axes = plt.subplots(2, 2, figsize=(10.5, 5.6), layout="constrained")
    for panel, method in zip(axes.flat, _METHODS, strict=True):
        title, shown = METHODS[ConfigurableLQR][method].title, _shown(rows, method)
        for place, own in enumerate(shown.values()):
            drift = np.array([row["drift"] for row in own])
            error = drift.std(ddof=1) / np.sqrt(len(drift)) if len(drift) > 1 else 0.0
            label = "ours, ± one standard error" if place == 0 else None
            panel.errorbar(drift.mean(), place, xerr=error, fmt="o", ms=5, color=COLOURS["bc_hg"], label=label)
        for place, rate in enumerate(LEARNING_RATES):
            label = "the paper's, at its three learning rates" if place == 0 else None
            panel.axvline(paper_drift(title, rate), color="#222222", ls="--", lw=0.9, label=label)
        panel.axvline(0.0, color="#999999", lw=0.8)
        panel.set_yticks(range(len(shown)), [_TITLES[critics] for critics in shown], fontsize=8)
        panel.set_ylim(len(shown) - 0.5, -0.5)
        panel.set_title(title, fontsize=10, loc="left")
        panel.locator_params(axis="x", nbins=6)
        panel.set_xlabel("drift")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    path = folder / "building-drift.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


def _arguments(parser: Any) -> None:
    parser.add_argument(
        "--networks", type=natural, default=0, help="pairs with the published network, cold and warm (4 CPU min each)"
    )


FIGURES = (
    Figure(
        name="building-drift",
        title="which way published estimators drift on the building; --iterations counts pairs of batches",
        seeds=1,
        iterations=100,
        quick_seeds=1,
        quick_iterations=4,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
