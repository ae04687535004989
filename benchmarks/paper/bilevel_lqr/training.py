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
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import History, lqr_game_training, train
from bilevelrl.estimators.training.kinds.gaussian_game import PUBLISHED, SOUND, Setup, changed
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.tasks import lqr_game

__all__ = ["ARMS", "PARTS", "SWITCHES", "Arm", "Switch", "game_cell", "game_sweep", "run_rows"]

PARTS = ("published", "leaders", "steps", "causes", "noise")
"""What can be run; see the module."""

_FEW, _FEWEST = 10, 5  # seeds of arms that show a cause, and of those with the costly exact critic
_EVALUATE_EVERY = 5
_DEVIATIONS = (0.03, 0.1, 0.3)  # of the leader's actions, for the part "noise"
_MANY_STEPS = 100  # of a critic in each outer iteration, where the sound set-up makes 5
_CURVE = ("objective_undiscounted", "cosine", "relative_error", "dead_units", "theta_0", "theta_1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One departure of the published set-up.

    Attributes
    ----------
    title : str
        What the published code does.
    published, sound : mapping
        Fields of `Setup`, as `changed` takes them.
    """

    title: str
    published: Mapping[str, Any]
    sound: Mapping[str, Any]


def _switch(title: str, field: str, published: Any, sound: Any) -> Switch:
    return Switch(title=title, published={field: published}, sound={field: sound})


SWITCHES: Mapping[str, Switch] = MappingProxyType(
    {
        "exploration": _switch("random first actions while it learns", "exploring_iterations", 11, 0),
        "steps": _switch("ten ascent steps on each batch", "ascent_steps", 10, 1),
        "influence": _switch("the follower's value, not its advantage", "form.influence", "value", "advantage"),
        "same_step": _switch("inner sum from k = 0", "form.same_step", True, False),
        "baseline": _switch("baseline at the follower's action", "form.baseline", "action_dependent", "coupled"),
        "critic_rate": _switch("critic's learning rate 0.1", "critic.rate", 0.1, 1e-3),
        "modes": _switch("critic's targets at modes", "critic.modes", True, False),
        "target_share": _switch("targets follow by 0.01", "critic.target_share", 0.01, 0.05),
        "minibatch": _switch("64 drawn transitions per step", "minibatch", 64, None),
        "schedule": _switch("constant learning rate", "schedule", "constant", "cosine"),
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
        A name in `lqr_game_world.METHODS`.
    setup : Setup
    most_seeds : int
        More are not run.
    policy_deviation : float
        Of the leader's actions in the game that is played; .001 is the paper's.
    """

    part: str
    title: str
    method: str
    setup: Setup
    most_seeds: int = 1000
    policy_deviation: float = 1e-3


def _arms() -> Iterator[tuple[str, Arm]]:
    off = changed(PUBLISHED, {"ascent_steps": 2})
    published = {"bc_hg": PUBLISHED, "naive_pgd_on": PUBLISHED, "naive_pgd_off": off}
    for method, setup in published.items():
        yield f"published/{method}", Arm(part="published", title="as published", method=method, setup=setup)
    for method in ("pathwise", "pathwise_raw", "pathwise_partial", "exact", "exact_partial"):
        yield f"leaders/{method}", Arm(part="leaders", title="", method=method, setup=SOUND)
    fast = changed(PUBLISHED, {"form.averages": "quadrature"})
    for method in published:
        for steps in (1, 2, 5, 10):
            setup = changed(fast, {"ascent_steps": steps})
            yield f"steps/{method}/{steps}", Arm(part="steps", title=f"{steps}", method=method, setup=setup)
    exact = changed(SOUND, {"critic.kind": "exact"})
    exact_published = changed(fast, {"critic.kind": "exact"})
    for base, setup, towards, most in (
        ("from_published", fast, "sound", _FEW),
        ("from_sound", SOUND, "published", _FEW),
        ("from_exact_critic", exact, "published", _FEWEST),
    ):
        yield f"{base}/none", Arm(part="causes", title="", method="bc_hg", setup=setup, most_seeds=_FEW)
        for name, switch in SWITCHES.items():
            if base == "from_exact_critic" and next(iter(switch.sound)).startswith("critic."):
                continue
            arm = changed(setup, getattr(switch, towards))
            yield f"{base}/{name}", Arm(part="causes", title=switch.title, method="bc_hg", setup=arm, most_seeds=most)
    others = {
        "from_published/exact_critic": ("bc_hg", exact_published, _FEWEST),
        "from_exact_critic/naive": ("naive_pgd_on", exact, _FEWEST),
        "from_naive/none": ("naive_pgd_on", fast, _FEW),
        "from_naive/clipping": ("naive_pgd_on", changed(fast, {"clipping": "all"}), _FEW),
        "from_naive/exploration": ("naive_pgd_on", changed(fast, {"exploring_iterations": 0}), _FEW),
        "from_exact_critic/fitted": ("bc_hg", changed(exact, {"form.suffix": "fitted"}), _FEW),
        "from_exact_critic/slower": ("bc_hg", changed(exact, {"learning_rate": 0.02}), _FEWEST),
        "from_naive/both": ("naive_pgd_on", changed(fast, {"clipping": "all", "exploring_iterations": 0}), _FEW),
        "from_sound/naive": ("naive_pgd_on", SOUND, _FEW),
    }
    for name, (method, setup, most) in others.items():
        yield name, Arm(part="causes", title="", method=method, setup=setup, most_seeds=most)
    yield from _noise_arms()


def _noise_arms() -> Iterator[tuple[str, Arm]]:
    common: dict[str, Any] = {"part": "noise", "title": "", "method": "bc_hg", "most_seeds": _FEWEST}
    for deviation in _DEVIATIONS:
        wider = changed(SOUND, {"critic.data_deviation": deviation})
        yield f"noise/sampled/critic/{deviation}", Arm(setup=wider, **common)
        yield f"noise/sampled/policy/{deviation}", Arm(setup=SOUND, policy_deviation=deviation, **common)
    longer = changed(SOUND, {"form.suffix": "fitted", "critic.steps": _MANY_STEPS})
    yield "noise/longer/policy/0.001", Arm(setup=longer, **common)
    yield "noise/longer/critic/0.1", Arm(setup=changed(longer, {"critic.data_deviation": 0.1}), **common)


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
        setup=arm.setup,
        evaluate_every=_EVALUATE_EVERY,
        entropy=int(configuration.get("entropy", 0)),
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
