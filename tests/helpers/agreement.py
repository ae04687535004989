"""Whether exact routes agree: every pair, every part, within the sum of the two error bounds."""

from itertools import combinations

import numpy as np

from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, hypergradient

# The route in ball arithmetic takes the derivatives of probabilities as the doubles that they are, whose sums are not
# quite zero; its own tests hold it against these.
ROUTES = sorted(
    name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableMDP in route.kinds and name != "certified"
)


def by_every_route(problem, theta, **objective):
    return {route: hypergradient(problem, theta, route=route, **objective) for route in ROUTES}


def disagreements(results):
    """Sentences about every pair that differs by more than its bounds; empty if all agree."""
    found = []
    for (first, one), (second, other) in combinations(results.items(), 2):
        allowed = one.error_bound + other.error_bound
        quantities = {"value": (one.value, other.value)}
        quantities |= {f"part {name}": (one.parts[name], other.parts[name]) for name in one.parts}
        for name, (left, right) in quantities.items():
            difference = float(np.max(np.abs(left - right), initial=0.0))
            if not difference <= allowed:
                found.append(f"{first} and {second}: {name} differs by {difference:.3g}, allowed {allowed:.3g}")
    return found
