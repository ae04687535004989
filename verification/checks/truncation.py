"""What the end of a stream takes away from an estimate of the infinite horizon, before anything else is blamed.

No estimator sees what comes after the last step of its streams. How much that is depends on what it puts in the place
of the rest: a critic's values, nothing, or an objective that is itself cut. Each of these has an exact mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from bilevelrl.estimators import BCHG, Context, LambdaBCHG
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.errors import BilevelRLError
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.enumeration.quadrature_truths import game_expected_parts

__all__ = ["truncated_truths"]


@lru_cache(maxsize=512)
def truncated_truths(on: Scenario, objective: Objective) -> dict[str, Truth]:
    """Return {how the rest is replaced: mean of a right estimate} on streams of a scenario's horizon.

    Empty where nothing is cut: where paths end, or the objective has a horizon of its own.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> cut = truncated_truths(scenario("random"), Objective())
    >>> list(cut)
    ['with a critic for the rest of the return', 'with the return that is observed',
     "with critics of both players' rest", 'for the objective of 5 steps']
    >>> all(np.abs(truth.value - scenario("random").truth.value).max() > 0.01 for truth in cut.values())
    True
    """
    if on.ends or objective.horizon is not None:
        return {}
    return dict(_means(on, objective))


def _means(on: Scenario, objective: Objective) -> Iterator[tuple[str, Truth]]:
    solved = on.solved(objective)
    context = Context(problem=on.problem, theta=on.theta, follower=solved.follower)
    styles: dict[str, BCHG] = {
        "with a critic for the rest of the return": BCHG(target=objective),
        "with the return that is observed": BCHG(target=objective, critic="monte_carlo"),
        "with critics of both players' rest": LambdaBCHG(target=objective, trace_decay=1.0),
    }
    if isinstance(on.problem, LQRGame):
        parts, fewer = (
            game_expected_parts(on.problem, on.theta, target=objective, steps=on.horizon, nodes=nodes)
            for nodes in (14, 12)
        )
        off = max(float(np.abs(parts[part] - fewer[part]).max()) for part in parts)
        yield next(iter(styles)), Truth(objective=np.nan, parts=parts, error_bound=solved.error_bound + 4.0 * off)
        styles = {}
    elif on.truth_of_problem is not None or not isinstance(on.problem, (ConfigurableMDP, MarkovGame, ConfigurableLQR)):
        styles = {}  # a kind of one's own, of whose estimates nothing is known, or estimates of another truth
    for said, estimator in styles.items():
        try:
            expected = dict(estimator.expectation(context, horizon=on.horizon))
        except BilevelRLError:  # this kind of problem knows no such estimate
            continue
        yield said, Truth(objective=np.nan, parts=expected, error_bound=solved.error_bound)
    yield f"for the objective of {on.horizon} steps", on.truncated
