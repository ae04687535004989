"""What each form of the transition derivative costs: spreads of BC-HG's parts beside their exact size.

python -m bilevelrl.benchmarks.research.building.variances --streams 4000
"""

from __future__ import annotations

import argparse

import numpy as np

from bilevelrl.estimators import BCHG, Context, sample_trajectories
from bilevelrl.estimators.methods import PathwiseBCHG
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.tasks import building_thermal_control

__all__ = ["building_spreads", "main"]

FORMS = {
    "score, raw value": BCHG(),
    "score, temporal difference": BCHG(scores="td_error"),
    "pathwise": PathwiseBCHG(),
}


def building_spreads(*, streams: int, steps: int = 100, entropy: int = 0) -> dict[str, dict[str, float]]:
    """Return {form: {part: root-mean-square deviation of one episode}} with exact critics at θ = 0.

    Examples
    --------
    >>> spreads = building_spreads(streams=200)
    >>> spreads["pathwise"]["transition"] < 0.1 * spreads["score, raw value"]["transition"]
    True
    """
    problem, theta = building_thermal_control(), np.zeros(8)
    follower = solve_follower(problem, theta)
    context = Context(problem=problem, theta=theta, follower=follower)
    batch = sample_trajectories(
        problem, theta, follower, streams=streams, steps=steps, rng=named_stream(entropy, "lqr_variances")
    )
    return {
        form: {
            part: float(np.linalg.norm(rows.std(axis=0)))
            for part, rows in estimator.parts_per_draw(batch, context).items()
        }
        for form, estimator in FORMS.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Print spreads, and the episodes that an error of a tenth of the part would take."""
    parser = argparse.ArgumentParser(description="Spreads of BC-HG on the building, by form of the derivative.")
    parser.add_argument("--streams", type=int, default=4000, help="episodes sampled (default 4000)")
    options = parser.parse_args(arguments)
    exact = hypergradient(building_thermal_control(), np.zeros(8)).parts
    print(f"{'form':28} {'part':12} {'exact size':>10} {'spread':>12} {'episodes for 10 %':>18}")
    for form, spreads in building_spreads(streams=options.streams).items():
        for part in ("transition", "response"):
            size, spread = float(np.linalg.norm(exact[part])), spreads[part]
            print(f"{form:28} {part:12} {size:10.2f} {spread:12.4g} {(10.0 * spread / size) ** 2:18.3g}")


if __name__ == "__main__":
    main()
