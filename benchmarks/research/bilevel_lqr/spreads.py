"""How far one batch of the LQR game's estimators is from the exact hypergradient, with exact critics, at a few gains.

python -m bilevelrl.benchmarks.research.bilevel_lqr.spreads --batches 200
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.estimators.training import gradient_errors, lqr_game_training
from bilevelrl.reference import hypergradient
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import lqr_game

__all__ = ["FORMS", "GAINS", "BatchDirections", "Clipped", "main"]

GAINS = ((-3.0, 0.0), (-7.0, -2.0), (-9.9, -9.5))
FORMS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "pathwise": ("pathwise", {}),
        "pathwise, rewards not averaged": ("pathwise_raw", {}),
        "scores, quadratic fit": ("bc_hg", {"suffix": "fitted"}),
        "scores": ("bc_hg", {}),
        "scores, inner sum from k = 0": ("bc_hg", {"same_step": True}),
        "scores, the follower's value": ("bc_hg", {"influence_baseline": False}),
    }
)
"""Method and what differs from the sound set-up with exact critics, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDirections:
    """Estimates from independent batches of 4 episodes of 100 steps.

    Attributes
    ----------
    estimates : (batches, 2)
        As the method forms them: those of score forms are the hypergradient over `Σ_{t<100} γ_L^t`.
    truth : (2,)
        The exact hypergradient on the same scale.
    """

    estimates: FloatArray
    truth: FloatArray

    @classmethod
    def draw(cls, gain: tuple[float, float], form: str, *, batches: int) -> BatchDirections:
        """Draw them at θ = gain, for a name in `FORMS`.

        Examples
        --------
        >>> found = BatchDirections.draw((-9.9, -9.5), "pathwise", batches=3)
        >>> error, cosine = found.errors()
        >>> error < 0.1, cosine > 0.99
        (True, True)
        """
        game, (method, changes) = lqr_game(), FORMS[form]
        seeds = range(200, 200 + batches)
        training = lqr_game_training(game, method, seeds=seeds, iterations=1, critic="exact", **changes)
        world: Any = training.world(training.generators())
        thetas = np.tile(np.asarray(gain), (batches, 1))
        world.prepare(thetas, 0)
        truth = hypergradient(game, thetas[0], route="implicit", horizon=training.steps, bound=False).value
        return cls(estimates=world.direction(thetas, 0), truth=truth / world.scale[0])

    def errors(self) -> tuple[float, float]:
        """Return root-mean-square relative error, and median cosine with the truth."""
        found = gradient_errors(self.estimates, np.broadcast_to(self.truth, self.estimates.shape))
        return float(np.sqrt(np.mean(found["relative_error"] ** 2))), float(np.median(found["cosine"]))

    def clipped(self, largest_norm: float = 1.0) -> Clipped:
        """Return what is left of them after clipping."""
        norms = np.linalg.norm(self.estimates, axis=1)
        short = self.estimates * np.minimum(1.0, largest_norm / np.maximum(norms, 1e-300))[:, None]
        return Clipped(
            share=float(np.mean(norms > largest_norm)),
            mean=short.mean(axis=0),
            standard_error=short.std(axis=0, ddof=1) / np.sqrt(len(short)),
            truth=self.truth * min(1.0, largest_norm / float(np.linalg.norm(self.truth))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped:
    """What clipping leaves: the `share` of estimates that it shortens, their mean and its error, the clipped truth."""

    share: float
    mean: FloatArray
    standard_error: FloatArray
    truth: FloatArray


def main(arguments: list[str] | None = None) -> None:
    """Print two tables in Markdown: errors of single batches, and what clipping to norm 1 does to them."""
    parser = argparse.ArgumentParser(description="Errors of single batches on the LQR game, by form of the estimate.")
    parser.add_argument("--batches", type=int, default=200, help="of each form at each gain (default 200)")
    batches = parser.parse_args(arguments).batches
    named = [f"K = ({first:g}, {second:g})" for first, second in GAINS]
    found = {(gain, form): BatchDirections.draw(gain, form, batches=batches) for form in FORMS for gain in GAINS}
    print("| estimate | " + " | ".join(named) + " |\n|" + " --- |" * (len(GAINS) + 1))
    for form in FORMS:
        errors = (found[gain, form].errors() for gain in GAINS)
        print(f"| {form} | " + " | ".join(f"{error:.2g}, {cosine:.2f}" for error, cosine in errors) + " |")
    print("\n| clipped | " + " | ".join(named) + " |\n|" + " --- |" * (len(GAINS) + 1))
    for form in FORMS:
        cells = []
        for gain in GAINS:
            left = found[gain, form].clipped()
            parts = (f"{mean:.2g} ± {error:.1g}" for mean, error in zip(left.mean, left.standard_error, strict=True))
            truth = ", ".join(f"{entry:.2g}" for entry in left.truth)
            cells.append(f"{left.share:.0%}: ({', '.join(parts)}); truth ({truth})")
        print(f"| {form} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
