"""What every problem offers: the protocol that estimators, critics and checks are written against.

A problem is a leader parameter θ, a follower with a unique entropy-regularised best response, and the derivatives of
its ingredients. An estimator of the hypergradient needs only weighted sums of such derivatives over visited
transitions,

    Σ_m Σ_t w[m, t] ∇_θ term(state_t, action_t, state_tp1; θ),

with `term` one of `TERMS`. `Problem.pullback` is that sum: one vector-Jacobian product for a whole batch, or one row
per stream when asked. It is all that an estimator knows of a problem, so one estimator class serves every task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from bilevelrl.reference.arrays import FloatArray

__all__ = ["GAME_PARTS", "PARTS", "TERMS", "Part", "Problem", "Term", "TransitionBatch"]

Part: TypeAlias = Literal["initial", "direct", "transition", "response", "regulariser", "policy"]
"""Names of the parts of a hypergradient: partial derivatives of the objective with θ split by where it enters."""

PARTS: tuple[Part, ...] = ("initial", "direct", "transition", "response", "regulariser")
"""The parts of a configurable MDP's hypergradient, in the order in which tables print them."""

GAME_PARTS: tuple[Part, ...] = ("policy", "response", "regulariser")
"""The parts of a Markov game's hypergradient."""

Term: TypeAlias = Literal[
    "reward_leader", "reward_follower", "log_transition", "log_initial", "log_policy_leader", "path_transition"
]
"""Functions of one transition whose θ-derivatives estimators weigh and sum.

`path_transition` is the next state itself as a function of θ at fixed noise, and its weights are vectors
(streams, steps, n); only problems with continuous states have it, and `TERMS` lists what others may be asked for.
"""

TERMS: tuple[Term, ...] = ("reward_leader", "reward_follower", "log_transition", "log_initial", "log_policy_leader")


class TransitionBatch(Protocol):
    """Visited transitions, arrays of shape (streams, steps) or (streams, steps, dimension)."""

    @property
    def state_t(self) -> Any:
        """States before the step."""
        ...

    @property
    def action_t(self) -> Any:
        """The follower's actions."""
        ...

    @property
    def leader_action_t(self) -> Any:
        """The leader's actions; None where it has none."""
        ...

    @property
    def state_tp1(self) -> Any:
        """States after the step; S where the process ended."""
        ...


@runtime_checkable
class Problem(Protocol):
    """A bi-level problem: what solvers, estimators and checks may ask of it."""

    @property
    def discount_leader(self) -> float:
        """γ_L, in [0, 1)."""
        ...

    @property
    def discount_follower(self) -> float:
        """γ_F, in [0, 1)."""
        ...

    @property
    def temperature(self) -> float:
        """β, the follower's entropy weight."""
        ...

    @property
    def theta_shape(self) -> tuple[int, ...] | None:
        """Shape of θ; None: any one-dimensional θ."""
        ...

    def check_theta(self, theta: Any) -> FloatArray:
        """Return θ as a float64 array of the right shape, or raise."""
        ...

    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Return Σ w ∇term over the batch: (N,), or (streams, N) when `per_stream`."""
        ...

    def regulariser_gradient(self, theta: FloatArray) -> FloatArray:
        """Return ∇ρ(θ), shape (N,)."""
        ...
