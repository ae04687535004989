"""How far one batch of the LQR game's estimators is from the exact hypergradient, with exact critics, at a few gains.

python -m bilevelrl.benchmarks.experiments.lqr_game_spreads --seeds 20
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.estimators.training.lqr_game import SOUND, changed, lqr_game_training
from bilevelrl.tasks import lqr_game

__all__ = ["FORMS", "GAINS", "batch_errors", "main"]

GAINS = ((-3.0, 0.0), (-7.0, -2.0), (-9.9, -9.5))
FORMS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "pathwise": ("pathwise", {}),
        "pathwise, rewards not averaged": ("pathwise_raw", {}),
        "scores, quadratic fit": ("bc_hg", {"form.suffix": "fitted"}),
        "scores": ("bc_hg", {}),
        "scores, inner sum from k = 0": ("bc_hg", {"form.same_step": True}),
        "scores, the follower's value": ("bc_hg", {"form.influence": "value"}),
    }
)
"""Method and what differs from the sound set-up with exact critics, by name."""


def batch_errors(gain: tuple[float, float], form: str, *, seeds: int) -> tuple[float, float]:
    """Return root-mean-square relative error and median cosine of estimates from 4 episodes of 100 steps.

    Parameters
    ----------
    gain
        θ.
    form
        A name in `FORMS`.
    seeds
        Independent batches.

    Examples
    --------
    >>> error, cosine = batch_errors((-9.9, -9.5), "pathwise", seeds=3)
    >>> error < 0.1, cosine > 0.99
    (True, True)
    """
    method, changes = FORMS[form]
    theta = np.asarray(gain)
    setup = changed(SOUND, {"critic.kind": "exact", **changes})
    training = lqr_game_training(lqr_game(), method, seeds=range(200, 200 + seeds), iterations=1, setup=setup)
    world = training.world(training.generators())
    thetas = np.tile(theta, (seeds, 1))
    world.prepare(thetas, 0)
    errors = world.evaluate(thetas, world.direction(thetas, 0))
    return float(np.sqrt(np.mean(errors["relative_error"] ** 2))), float(np.median(errors["cosine"]))


def main(arguments: list[str] | None = None) -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description="Errors of single batches on the LQR game, by form of the estimate.")
    parser.add_argument("--seeds", type=int, default=20, help="batches of each (default 20)")
    seeds = parser.parse_args(arguments).seeds
    print("| estimate | " + " | ".join(f"K = ({first:g}, {second:g})" for first, second in GAINS) + " |")
    print("|" + " --- |" * (len(GAINS) + 1))
    for form in FORMS:
        found = (batch_errors(gain, form, seeds=seeds) for gain in GAINS)
        print(f"| {form} | " + " | ".join(f"{error:.2g}, {cosine:.2f}" for error, cosine in found) + " |")


if __name__ == "__main__":
    main()
