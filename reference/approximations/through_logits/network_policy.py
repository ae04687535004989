"""The total derivative through the parameters of a network that is the follower's policy.

The follower's logits are `z = W₂ tanh(W₁ e_s)` of one-hot states, of a given width. It climbs its own return F as far
as BFGS takes it, and is differentiated there:

    H_φ = z'ᵀ H z' + Σ G ∂²z,   y = -H_φ⁺ z'ᵀ p,   ∇J ≈ ∂_θJ + (z'y)ᵀ ∂²_zθF,                                     (1)

H, G, p and ∂²_zθF being those of the table of logits. Where the network can express every table of logits and z' has
full rank, G = 0 at its optimum, z' drops out, and (1) is exact at convergence. A narrower network is another follower,
with another best response and another hypergradient, that no inverse mends. Parameters start from fixed random
numbers; local optima are possible, and are what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from bilevelrl.reference.approximations.adjoints import steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.approximations.through_logits.follower import FollowerAt, follower_at, mixed_slope, partial_at
from bilevelrl.reference.approximations.through_logits.unsolved import own_hessian
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import NotConvergedError, TooLargeError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["network_policy"]

LARGEST = 60
"""Logits of the largest problem that is trained."""

_STILL = 1e-6
"""Of β: largest gradient of F at which the follower counts as having arrived."""

_POLISHED = 20
"""Newton steps at most, after BFGS."""

_KEPT = 1e-9
"""Of the largest: eigenvalues of the Hessian that are inverted."""


@dataclass(frozen=True, slots=True)
class _Network:
    """z (S, A) of parameters (W₁ (width, S), W₂ (A, width)) in one vector, and its derivatives."""

    width: int
    states: int
    actions: int

    def _weights(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return tanh W₁ and W₂."""
        split = self.width * self.states
        return np.tanh(phi[:split].reshape(self.width, self.states)), phi[split:].reshape(self.actions, self.width)

    def logits(self, phi: FloatArray) -> FloatArray:
        hidden, out = self._weights(phi)
        result: FloatArray = (out @ hidden).T
        return result

    def pulled(self, phi: FloatArray, cotangent: FloatArray) -> FloatArray:
        """Return Σ cotangent ∂z, (n,)."""
        hidden, out = self._weights(phi)
        first = (out.T @ cotangent.T) * (1.0 - hidden**2)
        return np.concatenate([first.ravel(), (cotangent.T @ hidden.T).ravel()])

    def jacobian(self, phi: FloatArray) -> FloatArray:
        """Return ∂z, (S·A, n)."""
        units = np.eye(self.states * self.actions).reshape(-1, self.states, self.actions)
        return np.stack([self.pulled(phi, unit) for unit in units])

    def bent(self, phi: FloatArray, cotangent: FloatArray) -> FloatArray:
        """Return Σ cotangent ∂²z, (n, n)."""
        hidden, out = self._weights(phi)
        split, slope = hidden.size, 1.0 - hidden**2
        found = np.zeros((phi.size, phi.size))
        diagonal = -2.0 * (out.T @ cotangent.T) * hidden * slope
        found[range(split), range(split)] = diagonal.ravel()
        cross = np.zeros((self.width, self.states, self.actions, self.width))
        units = range(self.width)
        cross[units, :, :, units] = slope[:, :, None] * cotangent
        found[:split, split:] = cross.reshape(split, -1)
        found[split:, :split] = found[:split, split:].T
        return found


def network_policy(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return (1) for a network of so many hidden units.

    Raises
    ------
    TooLargeError
        If the problem has more than `LARGEST` logits.
    NotConvergedError
        If the follower does not come to rest.
    """
    width, (states, actions) = steps_of(knob), np.asarray(at.tables.reward_follower).shape
    if states * actions > LARGEST:
        raise TooLargeError(f"network_policy: {states * actions} logits, expected at most {LARGEST}")
    if at.tables.action_mask is not None:
        raise TooLargeError("network_policy: expected a problem without action_mask; a network plays every action")

    network = _Network(width, states, actions)

    def played(phi: FloatArray) -> FollowerAt:
        table = network.logits(phi)
        weights = np.exp(table - table.max(axis=1, keepdims=True))
        return follower_at(at, weights / weights.sum(axis=1, keepdims=True))

    def climbed(phi: FloatArray) -> tuple[float, FloatArray]:
        follower = played(phi)
        moved = follower.visits[:, None] * follower.policy * follower.advantage
        earned = float(np.asarray(at.tables.initial) @ follower.value)
        return -earned, -network.pulled(phi, moved)

    def curved(phi: FloatArray) -> FloatArray:
        """Return H_φ."""
        follower, jacobian = played(phi), network.jacobian(phi)
        bent = network.bent(phi, follower.visits[:, None] * follower.policy * follower.advantage)
        hessian = jacobian.T @ own_hessian(at, follower).reshape(states * actions, -1) @ jacobian + bent
        return np.asarray(0.5 * (hessian + hessian.T))

    start = np.random.default_rng(0).standard_normal(width * (states + actions))
    phi = optimize.minimize(climbed, start, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 3000}).x
    slope = climbed(phi)[1]
    for _ in range(_POLISHED):  # BFGS stops where differences of F are rounding
        moved = phi + np.linalg.pinv(curved(phi), rcond=_KEPT, hermitian=True) @ slope
        if not np.abs(climbed(moved)[1]).max() < np.abs(slope).max():
            break
        phi, slope = moved, climbed(moved)[1]
    left = float(np.abs(slope).max())
    if not left <= _STILL * at.problem.temperature:
        raise NotConvergedError(
            f"network_policy: knob={knob}: the follower's gradient is {left:.2g} at the end, expected at most "
            f"{_STILL:g} β; try another width"
        )
    follower, jacobian = played(phi), network.jacobian(phi)
    own, pushed = partial_at(at, follower.policy, objective)
    inverse = np.linalg.pinv(curved(phi), rcond=_KEPT, hermitian=True)
    solved = -inverse @ (jacobian.T @ pushed.ravel())
    return own + mixed_slope(at, follower.policy, (jacobian @ solved).reshape(states, actions))  # (1)


register_approximation(
    Approximation(
        name="network_policy",
        summary="total derivative through a small network that is the follower's policy, trained to rest",
        knob="hidden units",
        knobs=(1, 2, 4, 8),
        geometric=False,
        rate=None,
        source="Zheng et al. (2022), arXiv:2109.12286; Yang et al. (2023), arXiv:2305.03735",
        function=network_policy,
    )
)
