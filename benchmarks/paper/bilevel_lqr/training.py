"""Training on the bi-level LQR game as the paper's Figure 5 shows it, and what each part of that set-up does.

Every arm of the comparison is a method and a set-up; one arm is one cell of a sweep.

Parts
-----
"published": the three methods of the figure as their code runs them. "steps": the same over the published grid of
ascent steps. "leaders": pathwise and exact ascent. "causes": one switch at a time, from the published set-up towards
the sound one, from the sound one back, and from the sound one with the exact critic back. "noise": the sound one where
the leader's actions spread further, in the episodes that the critic learns from or in the game itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import History, lqr_game_training, train
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.tasks import lqr_game

__all__ = ["ARMS", "PARTS", "SWITCHES", "Arm", "Switch", "game_cell", "game_sweep", "run_rows"]

PARTS = ("published", "leaders", "steps", "causes", "noise")
"""What can be run; see the module."""

_FEW, _FEWEST = 10, 5  # seeds of arms that show a cause, and of those with the costly exact critic
_EVALUATE_EVERY = 5
_DEVIATIONS = (0.03, 0.1, 0.3)  # of the leader's actions, for the part "noise"
_OF_LEARNT_CRITICS = ("critic_rate", "modes", "target_share")  # switches that an exact critic does not have
_MANY_STEPS = 100  # of a critic in each outer iteration, where the sound set-up makes 5
_CURVE = ("objective_undiscounted", "cosine", "relative_error", "dead_units", "theta_0", "theta_1")


@dataclass(frozen=True, slots=True)
class Switch:
    """One departure of the published set-up.

    Attributes
    ----------
    title : str
        What the published code does.
    field : str
        Of `GameOptions` or `LQRGameTraining`.
    published, sound
        Its values.
    """

    title: str
    field: str
    published: Any
    sound: Any

    def towards(self, side: str) -> Mapping[str, Any]:
        """Return the change to the "published" or the "sound" value."""
        return {self.field: getattr(self, side)}


SWITCHES: Mapping[str, Switch] = MappingProxyType(
    {
        "exploration": Switch("random first actions while it learns", "exploring_iterations", 11, 0),
        "steps": Switch("ten ascent steps on each batch", "ascent_steps", 10, 1),
        "influence": Switch("the follower's value, not its advantage", "influence_baseline", False, True),
        "same_step": Switch("inner sum from k = 0", "same_step", True, False),
        "baseline": Switch("baseline at the follower's action", "baseline", "action_dependent", "coupled"),
        "critic_rate": Switch("critic's learning rate 0.1", "critic_rate", 0.1, 1e-3),
        "modes": Switch("critic's targets at modes", "targets", "modes", "sampled"),
        "target_share": Switch("targets follow by 0.01", "target_rate", 0.01, 0.05),
        "minibatch": Switch("64 drawn transitions per step", "minibatch", 64, None),
        "schedule": Switch("constant learning rate", "schedule", "constant", "cosine"),
    }
)
"""Each departure by name. Clipping is one too, but only the naive methods are not clipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One curve of a comparison.

    Attributes
    ----------
    part : str
        In `PARTS`.
    title : str
        What is special about it.
    method : str
        A name in `METHODS[LQRGame]`.
    published : bool
        Whether it departs from the published runs or from the sound ones.
    changes : mapping
        Fields of `GameOptions` and of `LQRGameTraining` that differ from those.
    most_seeds : int
        More are not run.
    policy_deviation : float
        Of the leader's actions in the game that is played; .001 is the paper's.
    """

    part: str
    title: str
    method: str
    published: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    most_seeds: int = 1000
    policy_deviation: float = 1e-3


_METHODS = ("bc_hg", "naive_pgd_on", "naive_pgd_off")
_FAST = {"averages": "quadrature"}  # a published run without its draws of both players' actions
_EXACT = {"critic": "exact"}


def _arms() -> Iterator[tuple[str, Arm]]:
    for method in _METHODS:
        fewer = {"ascent_steps": 2} if method == "naive_pgd_off" else {}
        arm = Arm(part="published", title="as published", method=method, published=True, changes=fewer)
        yield f"published/{method}", arm
    for method in ("pathwise", "pathwise_raw", "pathwise_partial", "exact", "exact_partial"):
        yield f"leaders/{method}", Arm(part="leaders", title="", method=method)
    for method in _METHODS:
        for steps in (1, 2, 5, 10):
            faster = {**_FAST, "ascent_steps": steps}
            arm = Arm(part="steps", title=f"{steps}", method=method, published=True, changes=faster)
            yield f"steps/{method}/{steps}", arm
    for base, published, common, towards, most in (
        ("from_published", True, _FAST, "sound", _FEW),
        ("from_sound", False, {}, "published", _FEW),
        ("from_exact_critic", False, _EXACT, "published", _FEWEST),
    ):
        shared: dict[str, Any] = {"part": "causes", "method": "bc_hg", "published": published}
        yield f"{base}/none", Arm(title="", changes=common, most_seeds=_FEW, **shared)
        for name, switch in SWITCHES.items():
            if base == "from_exact_critic" and name in _OF_LEARNT_CRITICS:
                continue
            changed = {**common, **switch.towards(towards)}
            yield f"{base}/{name}", Arm(title=switch.title, changes=changed, most_seeds=most, **shared)
    one, whole = {"exploring_iterations": 0}, {"largest_norm": 1.0}
    others: dict[str, tuple[str, bool, Mapping[str, Any], int]] = {
        "from_published/exact_critic": ("bc_hg", True, {**_FAST, **_EXACT}, _FEWEST),
        "from_exact_critic/naive": ("naive_pgd_on", False, _EXACT, _FEWEST),
        "from_naive/none": ("naive_pgd_on", True, _FAST, _FEW),
        "from_naive/clipping": ("naive_pgd_on", True, {**_FAST, **whole}, _FEW),
        "from_naive/exploration": ("naive_pgd_on", True, {**_FAST, **one}, _FEW),
        "from_exact_critic/fitted": ("bc_hg", False, {**_EXACT, "suffix": "fitted"}, _FEW),
        "from_exact_critic/slower": ("bc_hg", False, {**_EXACT, "learning_rate": 0.02}, _FEWEST),
        "from_naive/both": ("naive_pgd_on", True, {**_FAST, **whole, **one}, _FEW),
        "from_sound/naive": ("naive_pgd_on", False, {}, _FEW),
    }
    for name, (method, published, changes, most) in others.items():
        arm = Arm(part="causes", title="", method=method, published=published, changes=changes, most_seeds=most)
        yield name, arm
    yield from _noise_arms()


def _noise_arms() -> Iterator[tuple[str, Arm]]:
    common: dict[str, Any] = {"part": "noise", "title": "", "method": "bc_hg", "most_seeds": _FEWEST}
    for deviation in _DEVIATIONS:
        yield f"noise/sampled/critic/{deviation}", Arm(changes={"data_deviation": deviation}, **common)
        yield f"noise/sampled/policy/{deviation}", Arm(policy_deviation=deviation, **common)
    longer = {"suffix": "fitted", "critic_steps": _MANY_STEPS}
    yield "noise/longer/policy/0.001", Arm(changes=longer, **common)
    yield "noise/longer/critic/0.1", Arm(changes={**longer, "data_deviation": 0.1}, **common)


ARMS: Mapping[str, Arm] = MappingProxyType(dict(_arms()))
"""Every arm by name."""


def game_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one arm; return rows of its curves, and one row of each run as a whole (see `run_rows`)."""
    arm = ARMS[cell["arm"]]
    first = int(configuration.get("first_seed", 0))
    training = lqr_game_training(
        lqr_game(policy_deviation=arm.policy_deviation),
        arm.method,
        seeds=range(first, first + min(int(configuration["seeds"]), arm.most_seeds)),
        iterations=int(configuration["iterations"]),
        published=arm.published,
        evaluate_every=_EVALUATE_EVERY,
        entropy=int(configuration.get("entropy", 0)),
        **arm.changes,
    )
    history = train(training, checkpoint=checkpoint, checkpoint_every=100)
    curves = curve_rows(history, points=int(configuration["points"]), names=_CURVE)
    kept = ("method", "seed", "iteration", *_CURVE)
    return [{"kind": "curve", **{name: row[name] for name in kept}} for row in curves] + run_rows(history)


def run_rows(history: History) -> list[Row]:
    """Return one row per run: its end, its best, its gradients' errors along the path, and its critic's dead units."""
    rows: list[Row] = []
    end, best = history.final(name="objective_undiscounted"), history.values["objective_undiscounted"].max(axis=0)
    middle = {name: np.median(history.values[name], axis=0) for name in ("cosine", "relative_error")}
    dead = history.final(name="dead_units")
    milliseconds = 1e3 * history.seconds / (history.training.iterations * len(history.training.runs))
    for place, run in enumerate(history.training.runs):
        rows.append(
            {
                "kind": "run",
                "method": run.method,
                "seed": run.seed,
                "end": round(float(end[place]), 5),
                "end_discounted": round(float(history.final()[place]), 5),
                "best": round(float(best[place]), 5),
                "median_cosine": round(float(middle["cosine"][place]), 4),
                "median_relative_error": float(f"{middle['relative_error'][place]:.4g}"),
                "dead_units": round(float(dead[place]), 4),
                "last_theta_0": round(float(history.thetas[place, 0]), 5),
                "last_theta_1": round(float(history.thetas[place, 1]), 5),
                "cpu_ms_per_iteration": round(milliseconds, 3),
            }
        )
    return rows


def game_sweep(
    folder: Path,
    *,
    parts: Sequence[str] = PARTS,
    seeds: int = 20,
    iterations: int = 500,
    first_seed: int = 0,
    points: int = 50,
    arms: Sequence[str] | None = None,
) -> Sweep:
    """Return the sweep over arms.

    Parameters
    ----------
    folder
        Where cells are kept.
    parts
        Names in `PARTS`.
    seeds, first_seed, iterations
        Runs of each arm, and their outer iterations.
    points
        Of each curve.
    arms
        Only these, in place of whole parts.

    Raises
    ------
    UnknownNameError
        If a part or an arm is not known.

    Examples
    --------
    >>> len(game_sweep(Path("none"), parts=["published"]).grid)
    3
    """
    for part in parts:
        if part not in PARTS:
            raise UnknownNameError("part", part, PARTS)
    chosen = [name for name, arm in ARMS.items() if arm.part in parts] if arms is None else list(arms)
    for name in chosen:
        if name not in ARMS:
            raise UnknownNameError("arm", name, ARMS)
    configuration = {"seeds": seeds, "first_seed": first_seed, "iterations": iterations, "points": points}
    return Sweep(function=game_cell, grid=Grid(axes=[("arm", chosen)]), folder=folder, configuration=configuration)
