"""What is said of the slips: `python tests/verification/causes/slip_table.py` prints the tables of docs/causes.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import slips
import slips_fresh
import slips_held_out

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.contexts import Mixture
from bilevelrl.tasks import Scenario, random_mdp
from bilevelrl.verification.causes.explanation import Explanation
from bilevelrl.verification.checks.deterministic import check_estimator
from bilevelrl.verification.checks.own_scenarios import default_scenarios
from bilevelrl.verification.testing.failures import explain_results

LONG = 300.0


def default(kind: type) -> list[Scenario]:
    """Return the default scenarios of a kind with one episode a stream, as the slips expect."""
    return [on for on in default_scenarios(kind) if on.episodes == 1]


def mixtures() -> list[Scenario]:
    """Return two mixtures of two contexts, whose streams are cut."""
    theta, found = np.array([0.2, -0.1, 0.3]), []
    for seeds, weights in (((0, 1), [0.25, 0.75]), ((2, 3), [0.6, 0.4])):
        contexts = [random_mdp(states=2, actions=2, parameters=3, seed=seed) for seed in seeds]
        mixture = Mixture(contexts=contexts, weights=weights)
        found.append(Scenario.of(mixture, theta, horizon=3, name=f"contexts {seeds}"))
    return found


PLACES: dict[str, Callable[[], list[Scenario]]] = {
    "CONFIGURABLE": lambda: default(ConfigurableMDP),
    "GAMES": lambda: default(MarkovGame),
    "QUADRATIC": lambda: default(ConfigurableLQR),
    "PURSUIT": lambda: default(LQRGame),
    "MIXTURES": mixtures,
}
"""Where slips are looked for, by the name of their group in a module."""


def said_of(slip: Any, at: list[Scenario]) -> Explanation:
    """Return what is said of a slip on scenarios."""
    found = explain_results(check_estimator(slip(), at), at, seconds=LONG)
    assert found is not None, slip
    return found


def said_of_all(module: Any) -> Iterator[tuple[Any, Explanation]]:
    """Yield every slip of a module with what is said of it."""
    for group, places in PLACES.items():
        listed = getattr(module, group, ())
        at = places() if listed else []
        for slip in listed:
            yield slip, said_of(slip, at)


def row(slip: Any, found: Explanation) -> str:
    """Return a line of a table: what was changed, and what is said."""
    if not found.exact:
        near = "" if found.nearest is None else f"; nearest, but not it: {found.nearest} ({100 * found.share:.0f} %)"
        said = f"*none of the known{near}*"
    else:
        others = [f"or {other}" for other in found.alternatives[:2]]
        more = [f"or {len(found.alternatives) - 2} more"] if len(found.alternatives) > 2 else []
        words = [f"in other words: {found.synonyms[0]}"] if found.synonyms else []
        said = "; ".join([f"**{found.cause}**", *others, *more, *words])
    return f"| {slip.__doc__} | {said} |".replace("|B|", "abs B").replace("π(a|s)", "π(a\\|s)")


def table(module: Any) -> list[str]:
    """Return the lines of a module's table."""
    return ["| slip | what is said |", "| --- | --- |", *(row(*said) for said in said_of_all(module))]


if __name__ == "__main__":
    for module in (slips, slips_held_out, slips_fresh):
        print("\n".join(table(module)), end="\n\n")
