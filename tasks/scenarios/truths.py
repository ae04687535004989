"""Generate the stored truths: `python -m bilevelrl.tasks.scenarios.truths [path]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.reference import Hypergradient, hypergradient
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks.scenarios.catalogue import COMMAND, TRUTHS_FILE
from bilevelrl.tasks.scenarios.problems import STORED

__all__ = ["ROUTES", "generate", "main"]

ROUTES = ("implicit", "theorem1", "complex_step", "unrolled")
"""Of four families: no two of them share Bellman code."""


def _agreed(answers: Collection[Hypergradient]) -> tuple[dict[str, Any], float]:
    """The first route's answer as the truth, with its bound, and the digits to which the others agree."""
    first, *others = answers
    size = max(float(np.abs(part).max()) for part in first.parts.values())
    off = max(float(np.abs(other.parts[part] - value).max()) for other in others for part, value in first.parts.items())
    digits = min(16.0, -np.log10(max(off, 1e-17 * size) / size)) if size > 0.0 else 16.0
    truth = {
        "objective": first.objective,
        "parts": {part: value.tolist() for part, value in first.parts.items() if np.any(value)} or {"direct": [0.0]},
        "error_bound": first.error_bound,
    }
    return truth, float(digits)


def generate() -> dict[str, Any]:
    """Return the truths of all scenarios without a closed form, as they are stored."""
    records = {}
    for name, (_, make, tags, horizon) in STORED.items():
        problem, theta = make()
        record: dict[str, Any] = {"theta": theta.tolist(), "routes": list(ROUTES)}
        horizons = {"truth": None} if "ends" in tags.split() else {"truth": None, "truncated": horizon}
        digits = []
        for kind, steps in horizons.items():
            answers = [hypergradient(problem, theta, route=route, horizon=steps) for route in ROUTES]
            record[kind], agreed = _agreed(answers)
            digits.append(agreed)
        record["digits"] = round(min(digits), 2)
        records[name] = record
    return {"format": "bilevelrl-scenario-truths", "version": 1, "command": COMMAND, "scenarios": records}


def main(arguments: list[str] | None = None) -> int:
    """Write the truths next to this file, or to the path that is given; return the exit status.

    Parameters
    ----------
    arguments
        At most one path; default: those of this process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    path = Path(given[0]) if given else Path(str(resources.files("bilevelrl.tasks") / TRUTHS_FILE))
    write_atomically(path, json.dumps(generate(), indent=1) + "\n")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
