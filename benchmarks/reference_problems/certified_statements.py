"""Certified statements about solutions: stationary points in boxes, active bounds, and the trap of Four-Rooms.

Three tasks, each with a proof in ball arithmetic: the toy game has exactly one stationary point in a box around its
optimum; the building's optimum has one free coordinate, and every other at a bound with a slope that points out of the
box; on Four-Rooms, in shares of the budget, all 104 derivatives at the vertex of no penalty are negative, so that the
vertex is a strict local maximum. `lqr_game`'s hypergradient norm is certified at the best K known.

Run with `python -m bilevelrl.benchmarks.reference_problems.certified_statements --output
results/certified_statements.json`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bilevelrl.benchmarks.reference_problems.reference_games import toy_game_form
from bilevelrl.benchmarks.reference_problems.reference_lqrs import BUILDING_OPTIMUM, building_form, lqr_game_form
from bilevelrl.reference import certified_hypergradient
from bilevelrl.reference.certified import Enclosure, certify_bounded_maximum, certify_vertex, isolate_stationary_point
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks import reference_problem
from bilevelrl.tasks.paper import FOUR_ROOMS_GRID

__all__ = ["main", "statements"]

FREE_AIRFLOW = 5
"""The building's coordinate that is at no bound: the airflow at the second wall."""


def _written(entry: Enclosure, digits: int = 32) -> list[str]:
    return list(entry.decimal(digits))


def statements() -> dict[str, Any]:
    """Prove all statements; return them as a record for JSON, numbers as [midpoint, radius]."""
    found: dict[str, Any] = {}
    for bonus, start in ((1, -1.6), (2, 0.0)):
        point = isolate_stationary_point(toy_game_form(f"toy_game_{bonus}", bonus=bonus, logit=start), 1)
        found[f"toy_game_{bonus}"] = {
            "statement": "the box holds exactly one stationary point in the logit of state A",
            "box": _written(point.box, 12),
            "logit": _written(point.point),
            "probability": 1.0 / (1.0 + math.exp(-float(point.point))),
            "objective": _written(point.objective),
            "maximum": point.maximum,
        }
    bounded = certify_bounded_maximum(building_form("building", theta=BUILDING_OPTIMUM, link="identity"), FREE_AIRFLOW)
    found["building"] = {
        "statement": "a strict local maximum over insulation and airflow in [0, 1], seven of eight at bounds",
        "free": _written(bounded.free.point),
        "box": _written(bounded.free.box, 12),
        "objective": _written(bounded.free.objective),
        "slopes": {str(j): _written(slope, 12) for j, slope in bounded.slopes.items()},
        "strict": bounded.strict,
    }
    for temperature in ("0.001", "0.003", "0.005"):
        certified = certified_hypergradient(reference_problem(f"four_rooms_vertex_{temperature}").closed_form)
        vertex = certify_vertex(certified)
        found[f"four_rooms_{temperature}"] = {
            "statement": "no penalty is a strict local maximum: all 104 feasible derivatives are negative",
            "objective": _written(certified.objective),
            "largest derivative": _written(vertex.slope),
            "at cell": list(FOUR_ROOMS_GRID.cell_of(vertex.coordinate)),
            "strict": vertex.strict,
        }
    game = certified_hypergradient(lqr_game_form("lqr_game", gain=(-9.9615, -10.0)))
    found["lqr_game"] = {
        "statement": "the norm of the hypergradient at K = (-9.9615, -10)",
        "norm": _written(game.norm()),
        "objective": _written(game.objective),
    }
    return found


def main(arguments: Sequence[str] | None = None, report: Callable[[str], None] = print) -> int:
    """Run the command; returns the exit status, 1 where a statement is not proven."""
    parser = argparse.ArgumentParser(description="Prove statements about the solutions of the paper's tasks.")
    parser.add_argument("--output", type=Path, help="also write them as JSON")
    options = parser.parse_args(arguments)
    found = statements()
    proven = True
    for name, entry in found.items():
        proven &= entry.get("maximum", entry.get("strict", True))
        report(f"{name}: {entry['statement']}")
        for key, value in entry.items():
            if key not in ("statement", "slopes"):
                report(f"    {key}: {' ± '.join(value) if isinstance(value, list) and key != 'at cell' else value}")
    if options.output is not None:
        write_atomically(options.output, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        report(f"wrote {options.output}")
    return 0 if proven else 1


if __name__ == "__main__":
    raise SystemExit(main())
