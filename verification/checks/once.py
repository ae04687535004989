"""What checks compute once per scenario, however many estimators they hold against it."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

from bilevelrl.estimators import Context, LeaderCritic, Objective
from bilevelrl.estimators.terms import answers_of
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.tasks import Scenario

__all__ = ["evaluated_once", "exact_critic"]


def evaluated_once(on: Scenario) -> AbstractContextManager[None]:
    """Return a block in which the problem's derivatives at θ are those that an earlier one has found, if any."""
    derivatives = getattr(on.problem, "derivatives", None)
    return nullcontext() if derivatives is None else derivatives.cache.keeping(on.theta, _known(on))


@lru_cache(maxsize=512)
def _known(on: Scenario) -> dict[Hashable, object]:
    return {}


@lru_cache(maxsize=512)
def exact_critic(on: Scenario, objective: Objective) -> LeaderCritic | None:
    """Return the leader's exact values of an objective under the best response; None where a kind has no critic."""
    context = Context(problem=on.problem, theta=on.theta, follower=on.solved(objective).follower)
    if not isinstance(on.problem, (ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame)):
        return None
    return answers_of(on.problem).exact_critic(context, objective, target=objective, operator="expected")
