"""What is said of the slips: `python tests/verification/causes/slip_table.py` prints the tables of docs/causes.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import slips
import slips_held_out

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, MarkovGame
from bilevelrl.verification.causes.explanation import Explanation
from bilevelrl.verification.checks.deterministic import check_estimator
from bilevelrl.verification.checks.own_scenarios import default_scenarios
from bilevelrl.verification.testing.failures import explain_results

LONG = 300.0


def said_of(slip: Any, kind: type) -> Explanation:
    """Return what is said of a slip on the default scenarios of its kind with one episode a stream, as it expects."""
    at = [on for on in default_scenarios(kind) if on.episodes == 1]
    found = explain_results(check_estimator(slip(), at), at, seconds=LONG)
    assert found is not None, slip
    return found


def said_of_all(module: Any) -> Iterator[tuple[Any, Explanation]]:
    """Yield every slip of a module with what is said of it."""
    for group, kind in (
        (module.CONFIGURABLE, ConfigurableMDP),
        (module.GAMES, MarkovGame),
        (module.QUADRATIC, ConfigurableLQR),
    ):
        for slip in group:
            yield slip, said_of(slip, kind)


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
    for module in (slips, slips_held_out):
        print("\n".join(table(module)), end="\n\n")
