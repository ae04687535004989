"""An estimator of each context made one of the mixture: in a context that is drawn, or in all of them.

    draw    g = ĝ_ξ with ξ ~ p, one for the whole batch           sum    g = Σ p ĝ_ξ, a batch in each              (1)

Both have the mean Σ p E[ĝ_ξ] that `expectation` declares. Weights are known numbers, so that the draw has no score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.estimator import Context, Estimate, Estimator, LeaderCritic
from bilevelrl.estimators.terms.answers import answers_of
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.contexts import Mixture, MixtureFollower, weighted
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.problem import Part

__all__ = ["InContexts"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class InContexts:
    """An estimator on a mixture.

    Parameters
    ----------
    estimator
        That of each context; all kinds of problem in the mixture must be among those that it serves.
    contexts
        "draw": one context for the whole batch, as published. "sum": all of them, weighted.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG, Objective
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> mixture = Mixture(contexts=[layered_mdp(seed=0), layered_mdp(seed=1)], weights=[0.25, 0.75])
    >>> theta = np.zeros(3)
    >>> declared = InContexts(estimator=BCHG()).expectation(
    ...     mixture, theta, solve_follower(mixture, theta), horizon=3)
    >>> bool(np.allclose(sum(declared.values()), hypergradient(mixture, theta).value))
    True
    """

    estimator: Estimator
    contexts: Literal["draw", "sum"] = "draw"

    def context(
        self,
        mixture: Mixture,
        theta: FloatArray,
        follower: MixtureFollower,
        place: int,
        *,
        critics: Sequence[LeaderCritic | None] = (),
        rng: Generator | None = None,
    ) -> Context:
        """Return what the estimator may know in the context of a number; its critic is the exact one by default.

        Raises
        ------
        InvalidInputError
            If followers or critics are not one per context.
        """
        count = len(mixture.contexts)
        for name, given in (("follower.contexts", follower.contexts), ("critics", critics)):
            if len(given) != count and not (name == "critics" and not given):
                raise InvalidInputError(refusal(f"len({name})", len(given), f"{count}", "give one per context"))
        bare = Context(problem=mixture.contexts[place], theta=theta, follower=follower.contexts[place], rng=rng)
        self.estimator.check_problem(bare)
        critic: Any = critics[place] if critics else None
        if critic is None:
            target = self.estimator.target
            critic = answers_of(bare.problem).exact_critic(bare, target, target=target, operator="expected")
        return Context(problem=bare.problem, theta=theta, follower=bare.follower, critic=critic, rng=rng)

    @checked
    def expectation(
        self,
        mixture: Mixture,
        theta: FloatArray,
        follower: MixtureFollower,
        *,
        horizon: Count,
        critics: Sequence[Any] = (),
    ) -> Mapping[Part, FloatArray]:
        """Return the exact expectation part by part, the weighted sum of what is declared in each context.

        Raises
        ------
        EstimatorError
            If the estimator declares none.
        """
        each = [
            self.estimator.expectation(self.context(mixture, theta, follower, place, critics=critics), horizon=horizon)
            for place in range(len(mixture.contexts))
        ]
        return _parts(mixture.weights, each)

    @checked
    def estimate(
        self,
        mixture: Mixture,
        theta: FloatArray,
        follower: MixtureFollower,
        *,
        streams: Count,
        steps: Count,
        rng: Generator,
        critics: Sequence[Any] = (),
    ) -> Estimate:
        """Draw a context and a batch in it, or a batch in each context, and return the estimate."""
        if self.contexts == "draw":
            place = int(np.searchsorted(np.cumsum(mixture.weights)[:-1], rng.random(), side="right"))
            return self._in(mixture, theta, follower, place, streams, steps, rng, critics)  # (1)
        each = [
            self._in(mixture, theta, follower, place, streams, steps, rng, critics)
            for place in range(len(mixture.contexts))
        ]
        costs = dict.fromkeys(name for found in each for name in found.cost)
        return Estimate(
            mean=weighted(mixture.weights, [found.mean for found in each]),  # (1)
            parts=_parts(mixture.weights, [found.parts for found in each]),
            cost={name: sum(found.cost.get(name, 0) for found in each) for name in costs},
        )

    def _in(
        self,
        mixture: Mixture,
        theta: FloatArray,
        follower: MixtureFollower,
        place: int,
        streams: int,
        steps: int,
        rng: Generator,
        critics: Sequence[Any],
    ) -> Estimate:
        context = self.context(mixture, theta, follower, place, critics=critics, rng=rng)
        drawn = self.estimator.sample(context.problem, theta, context.follower, streams=streams, steps=steps, rng=rng)
        return self.estimator.estimate(drawn, context)


def _parts(weights: FloatArray, each: Sequence[Mapping[Part, FloatArray]]) -> dict[Part, FloatArray]:
    names: dict[Part, None] = dict.fromkeys(name for found in each for name in found)
    nothing = np.zeros_like(next(iter(each[0].values())))
    return {name: weighted(weights, [found.get(name, nothing) for found in each]) for name in names}
