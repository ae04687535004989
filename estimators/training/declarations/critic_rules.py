"""Where the critics of a run come from in training on configurable LQRs: the model, least squares, or networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.least_squares import QuadraticRegression, RegressionWeighting
from bilevelrl.estimators.critics.network_values import (
    ActionValueNetwork,
    Carried,
    StateNetwork,
    TDOptions,
    fit_network,
)
from bilevelrl.estimators.critics.networks import DenseNetwork
from bilevelrl.estimators.critics.quadratic import QuadraticCritic, fit_lstd_critic
from bilevelrl.estimators.critics.quadratic_gradients import (
    QuadraticGradientCritic,
    fit_lstd_gradient,
    score_rewards,
)
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.training.methods import Wanted
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Positive, checked

__all__ = ["CriticRule", "ExactCritics", "LearntCritics", "LeastSquaresCritics", "NetworkCritics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntCritics:
    """What a rule gives: critics for the context, and what the next outer iteration starts from."""

    leader: Any = None
    gradient: Any = None
    carried: Carried


class CriticRule(Protocol):
    """How critics are made from a batch."""

    def start(self, wanted: Wanted, states: int, actions: int, parameters: int, rng: Generator) -> Carried:
        """Return what is carried before the first outer iteration."""
        ...

    def learn(
        self, wanted: Wanted, trajectories: Trajectories, context: Context, carried: Carried, rng: Generator
    ) -> LearntCritics:
        """Return the critics of one outer iteration."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactCritics:
    """The exact critics of the model: no leader has them, they show what critics cost.

    Examples
    --------
    >>> ExactCritics().start(Wanted(), 4, 2, 8, np.random.default_rng(0))
    {}
    """

    def start(self, wanted: Wanted, states: int, actions: int, parameters: int, rng: Generator) -> Carried:
        """Return nothing."""
        return {}

    def learn(
        self, wanted: Wanted, trajectories: Trajectories, context: Context, carried: Carried, rng: Generator
    ) -> LearntCritics:
        """Solve for them."""
        gradient: Any = None if wanted.gradient is None else QuadraticGradientCritic.solve(context)
        if wanted.gradient == "state":
            gradient = gradient.over_policy()
        leader = None if wanted.leader is None else QuadraticCritic.solve(context)
        return LearntCritics(leader=leader, gradient=gradient, carried={})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquaresCritics:
    """Least-squares temporal differences on quadratic features, anew in every outer iteration.

    Parameters
    ----------
    weighting
        Of the transitions, see `QuadraticRegression`.
    """

    weighting: RegressionWeighting = "precision"

    def start(self, wanted: Wanted, states: int, actions: int, parameters: int, rng: Generator) -> Carried:
        """Return nothing."""
        return {}

    def learn(
        self, wanted: Wanted, trajectories: Trajectories, context: Context, carried: Carried, rng: Generator
    ) -> LearntCritics:
        """Solve the normal equations; values of the leader are those of states and actions whatever is wanted.

        Their average over the policy is exact, and so is the value of a state.
        """
        sums = QuadraticRegression.of(trajectories, context, weighting=self.weighting)
        leader = None if wanted.leader is None else fit_lstd_critic(trajectories, context, regression=sums)
        gradient: Any = None
        if wanted.gradient is not None:
            gradient = fit_lstd_gradient(
                trajectories,
                context,
                rewards=wanted.gradient_rewards,
                inputs=wanted.gradient,
                regression=sums
                if wanted.gradient == "state_action"
                else QuadraticRegression.of(trajectories, context, inputs="state", weighting=self.weighting),
            )
        return LearntCritics(leader=leader, gradient=gradient, carried={})


Precision: TypeAlias = Literal["float32", "float64"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCritics:
    """Networks with two hidden layers, trained by temporal differences; by default exactly as published.

    Parameters
    ----------
    steps, learning_rate
        Of Adam on the whole batch, in every outer iteration.
    warm_start
        Go on from the last outer iteration's weights, instead of the same initial ones every time.
    hidden, precision
        Of the networks.
    actions
        Drawn for each state to average Q_L to V_L.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> carried = NetworkCritics().start(Wanted(gradient="state"), 4, 2, 8, np.random.default_rng(0))
    >>> {name: weights.shape for name, weights in carried.items()}
    {'leader': (4673,), 'gradient': (5000,)}
    """

    steps: Count = 5000
    learning_rate: Positive = 1e-4
    warm_start: bool = False
    hidden: Count = 64
    precision: Precision = "float32"
    actions: Count = 256

    def start(self, wanted: Wanted, states: int, actions: int, parameters: int, rng: Generator) -> Carried:
        """Draw initial weights: orthogonal, the last layer hundred times smaller."""
        found = {}
        if wanted.leader is not None:
            inputs = states + (actions if wanted.leader == "state_action" else 0)
            found["leader"] = self._network(inputs, 1).initialise(rng, "orthogonal", output_gain=0.01)
        if wanted.gradient is not None:
            found["gradient"] = self._network(states, parameters).initialise(rng, "orthogonal", output_gain=0.01)
        return found

    def learn(
        self, wanted: Wanted, trajectories: Trajectories, context: Context, carried: Carried, rng: Generator
    ) -> LearntCritics:
        """Train on the batch."""
        state, after = trajectories.state_t, dict(carried)
        leader: Any = None
        if wanted.leader is not None:
            with_action = wanted.leader == "state_action"
            seen = np.concatenate([state, trajectories.action_t], axis=-1) if with_action else state
            network, weights, scale = self._fit(
                seen,
                trajectories.reward_leader_t[..., None],
                trajectories,
                start=carried["leader"],
                discount=context.problem.discount_leader,
                normalised=wanted.normalised,
            )
            after["leader"] = weights
            leader = StateNetwork(network=network, weights=weights, scale=scale)
            if with_action:
                leader = ActionValueNetwork(
                    network=network,
                    weights=weights,
                    scale=scale,
                    follower=context.follower,
                    actions=self.actions,
                    rng=rng,
                )
        gradient: Any = None
        if wanted.gradient is not None:
            network, weights, scale = self._fit(
                state,
                score_rewards(trajectories, context),
                trajectories,
                start=carried["gradient"],
                discount=context.problem.discount_follower,
                normalised=True,
            )
            after["gradient"] = weights
            gradient = StateNetwork(network=network, weights=weights, scale=scale)
        return LearntCritics(leader=leader, gradient=gradient, carried=after if self.warm_start else carried)

    def _fit(
        self,
        inputs: FloatArray,
        rewards: FloatArray,
        trajectories: Trajectories,
        *,
        start: FloatArray,
        discount: float,
        normalised: bool,
    ) -> tuple[DenseNetwork, FloatArray, FloatArray]:
        network = self._network(inputs.shape[2], rewards.shape[2])
        scale = np.ones(rewards.shape[2])
        if normalised:
            scale = np.maximum(np.abs(rewards).max(axis=(0, 1)), np.finfo(np.float64).tiny)
        options = TDOptions(steps=self.steps, learning_rate=self.learning_rate)
        weights = fit_network(network, start, inputs, rewards / scale, trajectories, discount=discount, options=options)
        return network, weights, scale

    def _network(self, inputs: int, outputs: int) -> DenseNetwork:
        return DenseNetwork(sizes=(inputs, self.hidden, self.hidden, outputs), dtype=np.dtype(self.precision))
