"""Routes of linear-quadratic problems held against each other."""

import numpy as np

from bilevelrl.reference import (
    hypergradient,
)

ROUTES = ("closed_form", "unrolled")


def disagreement(problem, theta, routes=ROUTES, **options):
    """Largest difference to the implicit route, part by part, relative to the largest part."""
    exact = hypergradient(problem, theta, bound=False, **options)
    size = max(np.abs(part).max() for part in exact.parts.values())
    worst = 0.0
    for route in routes:
        other = hypergradient(problem, theta, route=route, bound=False, **options)
        assert abs(other.objective - exact.objective) <= 1e-10 * (1.0 + abs(exact.objective))
        for name, part in exact.parts.items():
            worst = max(worst, np.abs(other.parts[name] - part).max() / size)
    return worst
