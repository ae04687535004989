"""Leader policies for Markov games: functions θ → f_θ(l|s), written so that they can be differentiated.

θ is always flat. Both families give every action a positive probability as long as no logit differs from the largest by
more than about 700, where the exponential underflows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, Traced, check_parameter, check_shape, is_differentiated
from bilevelrl.reference.derivatives.autodiff import softmax
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, StochasticityError, refusal
from bilevelrl.reference.tabular.transitions import ROW_SUM_TOLERANCE, check_rows

__all__ = ["NeuralPolicy", "TabularSoftmaxPolicy", "check_leader_policy"]

Activation: TypeAlias = Literal["relu", "tanh"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class TabularSoftmaxPolicy:
    """Softmax of one logit per state and leader action, action 0 being the reference with logit zero.

    θ has `states · (leader_actions - 1)` entries, in C order: with two actions one logit per state, the logit of
    action 1 against action 0. No direction in θ leaves the policy unchanged.

    Parameters
    ----------
    states, leader_actions
        S and L.

    Raises
    ------
    InvalidInputError
        If a count is not a positive integer.

    Examples
    --------
    >>> policy = TabularSoftmaxPolicy(states=2, leader_actions=2)
    >>> policy.parameters, policy(np.array([0.0, np.log(3.0)])).tolist()
    (2, [[0.5, 0.5], [0.25, 0.75]])
    """

    states: Count
    leader_actions: Count

    @property
    def parameters(self) -> int:
        """N, the length of θ."""
        return self.states * (self.leader_actions - 1)

    def __call__(self, theta: Traced) -> Traced:
        """Return f_θ(l|s), (S, L)."""
        theta = check_parameter("theta", theta, (self.parameters,))
        free = anp.reshape(theta, (self.states, self.leader_actions - 1))
        return softmax(anp.concatenate([np.zeros((self.states, 1)), free], axis=1))

    @checked
    def theta_of(self, policy: FloatArray) -> FloatArray:
        """Return the θ at which the policy is a given one, (S, L) with positive entries.

        Raises
        ------
        InvalidInputError
            If an entry is not positive: no finite logit gives probability zero.
        """
        check_shape("policy", policy, (self.states, self.leader_actions), "give every state a row")
        if not (policy > 0.0).all():
            raise InvalidInputError("policy: expected positive probabilities; a softmax has no other")
        logits: FloatArray = np.log(policy[:, 1:] / policy[:, :1]).ravel()
        return logits


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralPolicy:
    """A small fully connected network: features of the state → hidden layers → logits → softmax.

    θ holds, layer after layer, the weights (inputs, outputs) in C order and then the biases.

    Parameters
    ----------
    leader_actions
        L.
    features : (S, F)
        What the network sees of each state; `numpy.eye(S)` for one-hot.
    hidden
        Widths of the hidden layers.
    activation
        "relu" or "tanh". A ReLU has kinks, where derivatives do not exist: θ drawn by `initial_theta` avoids them.

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        If a width is not positive, the features not a finite matrix, or the activation unknown.

    Examples
    --------
    >>> policy = NeuralPolicy(leader_actions=2, features=np.eye(3), hidden=(4,))
    >>> theta = policy.initial_theta(np.random.default_rng(0))
    >>> theta.shape, policy(theta).shape
    ((26,), (3, 2))
    """

    leader_actions: Count
    features: FloatArray
    hidden: tuple[Count, ...] = (64, 64)
    activation: Activation = "relu"
    _layers: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.size == 0:
            raise ShapeError(refusal("features.shape", self.features.shape, "(S, F), both >= 1", "one-hot?"))
        widths = (self.features.shape[1], *self.hidden, self.leader_actions)
        object.__setattr__(self, "_layers", tuple(itertools.pairwise(widths)))

    @property
    def parameters(self) -> int:
        """N, the length of θ."""
        return sum((inputs + 1) * outputs for inputs, outputs in self._layers)

    @checked
    def initial_theta(self, rng: Generator) -> FloatArray:
        """Return Xavier-uniform weights and zero biases."""
        pieces = []
        for inputs, outputs in self._layers:
            limit = np.sqrt(6.0 / (inputs + outputs))
            pieces += [rng.uniform(-limit, limit, inputs * outputs), np.zeros(outputs)]
        return np.concatenate(pieces)

    def __call__(self, theta: Traced) -> Traced:
        """Return f_θ(l|s), (S, L)."""
        theta = check_parameter("theta", theta, (self.parameters,))
        values: Traced = self.features
        first = 0
        for index, (inputs, outputs) in enumerate(self._layers):
            weights = anp.reshape(theta[first : first + inputs * outputs], (inputs, outputs))
            first += inputs * outputs
            values = anp.dot(values, weights) + theta[first : first + outputs]
            first += outputs
            if index < len(self._layers) - 1:
                values = anp.tanh(values) if self.activation == "tanh" else values * _is_active(values)
        return softmax(values)


def _is_active(values: Traced) -> Traced:
    """Where a ReLU passes its input, as a constant; judged by the real part, so that complex θ can be used."""
    while values is not getval(values):
        values = getval(values)
    return np.real(values) > 0.0


def check_leader_policy(table: Traced, shape: tuple[int, int]) -> None:
    """Refuse what is no table of laws (S, L).

    Raises
    ------
    ShapeError
        If it has another shape.
    StochasticityError
        If a probability is negative or not finite, or a row does not sum to one.
    """
    if np.shape(table) != shape:
        raise ShapeError(refusal("policy(theta).shape", np.shape(table), f"(S, L) = {shape}", "one row per state"))
    if is_differentiated(table):
        raise InvalidInputError("policy(theta): expected real numbers for a real θ; do not keep autograd values")
    values: FloatArray = np.asarray(table, dtype=np.float64)
    check_rows("policy(theta)", values, "normalise each row over the leader's actions")
    sums = values.sum(axis=1)
    if abs(sums - 1.0).max() > ROW_SUM_TOLERANCE:
        state = int(np.argmax(abs(sums - 1.0)))
        raise StochasticityError(
            refusal(f"sum of policy(theta)[{state}]", float(sums[state]), "1", "normalise over the leader's actions")
        )
