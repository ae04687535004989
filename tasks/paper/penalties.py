"""Problems in which the leader lays penalties on the cells of a grid, and pays for them when the follower is home.

    r_F(s) = 1[s ∈ goals] - penalty_s(θ) 1[s ∉ goals]
    r_L(s) = 1[s ∈ targets] - cost · Σ_s' penalty_s'(θ) 1[s ∈ goals]

No reward depends on the action and θ does not enter the dynamics, so derivatives have closed forms whose cost is
that of reading θ once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, Tables
from bilevelrl.reference.arrays import FloatArray, check_number, check_positive, store_floats
from bilevelrl.reference.derivatives import sigmoid, softmax
from bilevelrl.reference.doors import check_count
from bilevelrl.reference.storage import remade
from bilevelrl.reference.tabular import Transition

__all__ = ["LinearPenalties", "Penalties", "SigmoidPenalties", "SoftmaxPenalties", "penalised_grid"]


class Penalties(Protocol):
    """How θ becomes one penalty per cell."""

    @property
    def parameters(self) -> int:
        """Length of θ."""
        ...

    def values(self, theta: Any) -> Any:
        """Penalties (..., S) ≥ 0 of θ (..., N); traceable."""
        ...

    def pull(self, theta: FloatArray, cotangent: FloatArray) -> FloatArray:
        """Σ_s cotangent_s ∇penalty_s, shape (..., N), of cotangents (..., S)."""
        ...

    def jacobian(self, theta: FloatArray) -> FloatArray:
        """∇penalty, shape (S, N)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxPenalties:
    """A budget shared by all cells and one unused slot: `budget · softmax(θ)` without its last entry.

    Examples
    --------
    >>> SoftmaxPenalties(cells=3, budget=0.2).values(np.zeros(4))
    array([0.05, 0.05, 0.05])
    """

    cells: int
    budget: float

    def __post_init__(self) -> None:
        store_floats(self)
        check_count("cells", self.cells)
        check_positive("budget", self.budget, "pass the total of the penalties")

    @property
    def parameters(self) -> int:
        """One logit per cell and the unused slot's."""
        return self.cells + 1

    def values(self, theta: Any) -> Any:
        """Penalties (S,) > 0; traceable."""
        return self.budget * softmax(theta)[..., :-1]

    def pull(self, theta: FloatArray, cotangent: FloatArray) -> FloatArray:
        """Σ_s cotangent_s ∇penalty_s, shape (N,): the Jacobian of a softmax is diag(p) - p pᵀ."""
        share = softmax(theta)
        of_share = np.zeros(share.shape)
        of_share[..., :-1] = self.budget * cotangent
        result: FloatArray = share * (of_share - (share * of_share).sum(axis=-1, keepdims=True))
        return result

    def jacobian(self, theta: FloatArray) -> FloatArray:
        """∇penalty, shape (S, N)."""
        share = softmax(theta)
        moved: FloatArray = np.multiply.outer(-self.budget * share[:-1], share)
        moved.flat[:: share.size + 1] += self.budget * share[:-1]
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmoidPenalties:
    """A penalty of its own for every cell: `largest · sigmoid(θ)`.

    Examples
    --------
    >>> SigmoidPenalties(cells=2, largest=0.1).values(np.zeros(2))
    array([0.05, 0.05])
    """

    cells: int
    largest: float

    def __post_init__(self) -> None:
        store_floats(self)
        check_count("cells", self.cells)
        check_positive("largest", self.largest, "pass the penalty at θ → ∞")

    @property
    def parameters(self) -> int:
        """One logit per cell."""
        return self.cells

    def values(self, theta: Any) -> Any:
        """Penalties (S,) in (0, largest); traceable."""
        return self.largest * sigmoid(theta)

    def _slope(self, theta: FloatArray) -> FloatArray:
        share = sigmoid(theta)
        result: FloatArray = self.largest * share * (1.0 - share)
        return result

    def pull(self, theta: FloatArray, cotangent: FloatArray) -> FloatArray:
        """Σ_s cotangent_s ∇penalty_s, shape (N,)."""
        return cotangent * self._slope(theta)

    def jacobian(self, theta: FloatArray) -> FloatArray:
        """∇penalty, shape (S, N): diagonal."""
        return np.diag(self._slope(theta))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearPenalties:
    """Penalties in their own coordinates, `scale · θ`: θ ≥ 0 is left to the caller, who may look across the border.

    Examples
    --------
    >>> LinearPenalties(cells=2, scale=0.2).values(np.array([0.0, 0.5]))
    array([0. , 0.1])
    """

    cells: int
    scale: float

    def __post_init__(self) -> None:
        store_floats(self)
        check_count("cells", self.cells)
        check_positive("scale", self.scale, "pass the penalty of a cell at θ = 1")

    @property
    def parameters(self) -> int:
        """One share per cell."""
        return self.cells

    def values(self, theta: Any) -> Any:
        """Penalties (S,); traceable."""
        return self.scale * theta

    def pull(self, theta: FloatArray, cotangent: FloatArray) -> FloatArray:
        """Σ_s cotangent_s ∇penalty_s, shape (N,)."""
        return self.scale * cotangent

    def jacobian(self, theta: FloatArray) -> FloatArray:
        """∇penalty, shape (S, N)."""
        return self.scale * np.eye(self.cells)


@remade
def penalised_grid(
    *,
    transition: Transition,
    penalties: Penalties,
    initial: FloatArray,
    goals: FloatArray,
    targets: FloatArray,
    cost: float,
    temperature: float,
    discount_leader: float,
    discount_follower: float,
    name: str,
) -> ConfigurableMDP:
    """Return the problem of the module's text, with derivatives in closed form.

    Parameters
    ----------
    transition
        Dense or sparse kernel, the same at every θ.
    penalties
        θ → penalty per cell.
    initial : (S,)
        Law of the first state.
    goals, targets : (S,)
        1 at such cells, else 0.
    cost
        What the leader pays at a goal per unit of penalty laid out anywhere.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.
    name
        Of the problem.

    Raises
    ------
    InvalidInputError
        If the cost is not finite, or as `ConfigurableMDP`.
    """
    check_number("cost", cost)
    charged = 1.0 - goals
    actions = transition.shape[1]
    any_action = np.ones((1, actions))
    first_state = initial.copy()
    first_state.setflags(write=False)  # the same read-only array at every θ is checked once

    def by_cell(theta: Any) -> tuple[Any, Any]:
        penalty = penalties.values(theta)
        return goals - charged * penalty, targets - cost * goals * anp.sum(penalty, axis=-1, keepdims=True)

    def stacked_rewards(thetas: Any) -> tuple[Any, Any]:
        follower, leader = by_cell(thetas)
        return follower[..., None] * any_action, leader[..., None] * any_action

    def tables(theta: Any) -> Tables:
        follower, leader = by_cell(theta)
        return Tables(
            transition=transition,
            reward_follower=follower[:, None] * any_action,
            reward_leader=leader[:, None] * any_action,
            initial=first_state,
        )

    def tables_jacobian(theta: FloatArray) -> dict[str, FloatArray]:
        moved = penalties.jacobian(theta)
        follower = -charged[:, None] * moved
        leader = np.multiply.outer(-cost * goals, moved.sum(axis=0))
        return {
            "reward_follower": follower[:, None, :].repeat(actions, axis=1),
            "reward_leader": leader[:, None, :].repeat(actions, axis=1),
        }

    def tables_pullback(theta: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        of_penalty = np.zeros((*np.shape(theta)[:-1], goals.size))
        if "reward_follower" in cotangents:
            of_penalty -= charged * cotangents["reward_follower"].sum(axis=-1)
        if "reward_leader" in cotangents:
            paid = goals * cotangents["reward_leader"].sum(axis=-1)
            of_penalty -= cost * paid.sum(axis=-1, keepdims=True)
        return penalties.pull(theta, of_penalty)

    return ConfigurableMDP(
        tables=tables,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(penalties.parameters,),
        tables_jacobian=tables_jacobian,
        tables_pullback=tables_pullback,
        stacked_rewards=stacked_rewards,
        stacked_pullback=tables_pullback,
        name=name,
    )
