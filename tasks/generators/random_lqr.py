"""Linear-quadratic problems drawn at random, in which every matrix depends on θ."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableLQR, LQRGame, LQRMatrices
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Deviation, Seed, checked
from bilevelrl.reference.lqr import spectral_radius
from bilevelrl.reference.lqr_game import LeaderGaussian
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.registry import register_task

__all__ = ["random_lqr", "random_lqr_game"]


class _Draw:
    """Matrices that move smoothly with θ, drawn from one generator."""

    def __init__(self, seed: int, parameters: int, coupling: float) -> None:
        self._rng = np.random.default_rng(seed)
        self._parameters, self._coupling = parameters, coupling

    def affine(self, *shape: int, scale: float = 1.0, radius: float | None = None) -> Any:
        """Return θ → array: a drawn one plus drawn directions times sin θ; `radius` fixes the spectral radius."""
        base = scale * self._rng.standard_normal(shape)
        if radius is not None:
            base = base * (radius / max(spectral_radius(base), 1e-3))
        moved = scale * self._coupling * self._rng.standard_normal((self._parameters, *shape))
        return lambda theta: base + anp.tensordot(anp.sin(theta), moved, axes=1)

    def definite(self, size: int, *, floor: float, scale: float = 1.0) -> Any:
        """Return θ → positive definite matrix with eigenvalues above `floor`."""
        root = self.affine(size, size, scale=scale / np.sqrt(size))
        return lambda theta: anp.dot(root(theta), root(theta).T) + floor * np.eye(size)


@register_task("random_lqr", "a drawn linear-quadratic problem whose every matrix depends on the parameters")
@remade
@checked
def random_lqr(
    *,
    states: Count = 3,
    actions: Count = 2,
    parameters: Count = 3,
    seed: Seed = 0,
    radius: float = 0.95,
    coupling: float = 0.1,
    noise: Deviation = 0.3,
    temperature: float = 0.5,
    discount_leader: float = 0.8,
    discount_follower: float = 0.9,
) -> ConfigurableLQR:
    """Return a linear-quadratic problem drawn from a seed.

    Parameters
    ----------
    states, actions, parameters
        n, m and N.
    seed
        Of NumPy's default generator.
    radius
        Spectral radius of A at θ = 0.
    coupling
        How strongly θ moves the matrices, relative to them.
    noise
        Scale of the disturbance.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> problem, theta = random_lqr(seed=1), np.zeros(3)
    >>> exact, unrolled = (hypergradient(problem, theta, route=route).value for route in ("implicit", "unrolled"))
    >>> bool(np.allclose(exact, unrolled, rtol=1e-10))
    True
    """
    draw = _Draw(seed, parameters, coupling)
    entries = {
        "dynamics_state": draw.affine(states, states, radius=radius),
        "dynamics_action": draw.affine(states, actions),
        "noise_covariance": draw.definite(states, floor=0.1 * noise**2, scale=noise),
        "cost_state_follower": draw.definite(states, floor=0.1),
        "cost_action_follower": draw.definite(actions, floor=0.3),
        "cost_state_leader": draw.definite(states, floor=0.1),
        "cost_action_leader": draw.definite(actions, floor=0.1),
        "initial_mean": draw.affine(states),
        "initial_covariance": draw.definite(states, floor=0.1),
        "cost_constant_leader": draw.affine(),
        "regulariser": draw.affine(),
    }
    return ConfigurableLQR(
        matrices=lambda theta: LQRMatrices(**{name: entry(theta) for name, entry in entries.items()}),
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(parameters,),
        name=f"random_lqr(states={states}, actions={actions}, seed={seed})",
    )


@register_task("random_lqr_game", "a drawn linear-quadratic game whose leader is a noisy linear policy")
@remade
@checked
def random_lqr_game(
    *,
    states: Count = 2,
    actions: Count = 1,
    leader_actions: Count = 1,
    parameters: Count = 3,
    seed: Seed = 0,
    radius: float = 0.9,
    coupling: float = 0.3,
    temperature: float = 0.5,
    discount_leader: float = 0.8,
    discount_follower: float = 0.9,
) -> LQRGame:
    """Return a linear-quadratic game drawn from a seed; θ moves the leader's gain, its covariance and a regulariser.

    Parameters
    ----------
    states, actions, leader_actions, parameters
        n, m, p and N.
    seed, radius, coupling, temperature, discount_leader, discount_follower
        As in `random_lqr`.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> random_lqr_game(seed=1).dynamics_leader.shape
    (2, 1)
    """
    draw = _Draw(seed, parameters, coupling)
    nowhere = np.zeros(parameters)

    def drawn(entry: Any) -> FloatArray:
        return np.asarray(entry(nowhere))

    gain = draw.affine(leader_actions, states, scale=0.3)
    covariance = draw.definite(leader_actions, floor=0.05, scale=0.3)
    regulariser = draw.affine()
    return LQRGame(
        dynamics_state=drawn(draw.affine(states, states, radius=radius)),
        dynamics_action=drawn(draw.affine(states, actions)),
        dynamics_leader=drawn(draw.affine(states, leader_actions)),
        cost_state=drawn(draw.definite(states, floor=0.1)),
        cost_action=drawn(draw.definite(actions, floor=0.3)),
        target=drawn(draw.affine(states)),
        width=drawn(draw.definite(states, floor=0.5)),
        initial_mean=drawn(draw.affine(states)),
        initial_covariance=drawn(draw.definite(states, floor=0.1)),
        leader_policy=lambda theta: LeaderGaussian(
            gain=gain(theta), covariance=covariance(theta), regulariser=regulariser(theta)
        ),
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(parameters,),
        name=f"random_lqr_game(states={states}, actions={actions}, seed={seed})",
    )
