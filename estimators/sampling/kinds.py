"""What estimators ask of a kind of problem beyond the protocol: samples, exact critics and the follower's values.

Tabular problems answer by their tables. Other kinds register their answers here, so that one estimator class serves
all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["ProblemKind", "default_simulator", "kind_of", "register_kind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemKind:
    """The answers of one kind of problem.

    Attributes
    ----------
    simulator : function
        () → the simulator that samples the problem's own model.
    exact_critic : function
        (context, horizon=, discounted=) → `LeaderCritic` under the context's follower.
    follower_value_tp1 : function
        (context, visits) → V_F(state_tp1), (streams, steps).
    follower_td_baseline : function
        (context, visits) → γ_F E[V_F(state_tp1) | state_t, action_t], (streams, steps).
    expected_parts : function
        (estimator, context, horizon=, guiding=) → {part: (N,)}, exact expectations along trajectories.
    """

    simulator: Callable[[], Any]
    exact_critic: Callable[..., Any]
    follower_value_tp1: Callable[..., Any]
    follower_td_baseline: Callable[..., Any]
    expected_parts: Callable[..., Any]


_KINDS: dict[type, ProblemKind] = {}


def register_kind(problem_type: type, kind: ProblemKind) -> None:
    """Register the answers of a kind of problem (a class)."""
    _KINDS[problem_type] = kind


def kind_of(problem: Any) -> ProblemKind | None:
    """Return the registered answers; None for tabular problems.

    Examples
    --------
    >>> from bilevelrl.tasks import building_thermal_control, random_mdp
    >>> kind_of(random_mdp()) is None, kind_of(building_thermal_control()) is None
    (True, False)
    """
    return next((_KINDS[entry] for entry in type(problem).__mro__ if entry in _KINDS), None)


def default_simulator(problem: Any) -> Any:
    """Return the simulator of the problem's own model; None for tabular problems.

    Examples
    --------
    >>> from bilevelrl.tasks import building_thermal_control
    >>> type(default_simulator(building_thermal_control())).__name__
    'LQRSimulator'
    """
    kind = kind_of(problem)
    return None if kind is None else kind.simulator()
