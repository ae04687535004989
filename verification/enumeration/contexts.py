"""Exact moments of an estimator on a mixture, from those in each of its contexts.

With means m_ξ and covariances C_ξ of one trajectory, for batches of M trajectories:

    draw    mean Σ p m,      covariance Σ p C/M + Σ p (m - m̄)(m - m̄)ᵀ                                             (1)
    sum     mean Σ p m,      covariance Σ p² C/M                                                                   (2)

What the draw of the context adds does not shrink with the batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from bilevelrl.estimators import Draw, Estimator
from bilevelrl.reference import ConfigurableMDP, MarkovGame
from bilevelrl.reference.contexts import Mixture, weighted
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.verification.enumeration.contract import EstimatorFunction
from bilevelrl.verification.enumeration.exact_sums import Moments
from bilevelrl.verification.enumeration.moments import enumerate_moments

__all__ = ["mixture_moments"]


@checked
def mixture_moments(
    estimator: Estimator | EstimatorFunction,
    mixture: Mixture,
    theta: Any,
    *,
    horizon: Count,
    contexts: Literal["draw", "sum"] = "draw",
    trajectories: Count = 1,
    **options: Any,
) -> Moments:
    """Return exact mean and covariance of what an outer iteration on a mixture estimates.

    Parameters
    ----------
    estimator
        As of `enumerate_moments`.
    mixture, theta
        Of configurable MDPs and Markov games, and the leader's parameter.
    horizon, options
        As of `enumerate_moments`.
    contexts
        "draw": one context for the whole batch. "sum": a batch in each, weighted.
    trajectories
        M, averaged over in a batch; one where the estimator's draw is a batch itself.

    Raises
    ------
    UnsupportedError
        If a context has no paths that can be listed.
    InvalidInputError
        If a batch of trajectories is asked of an estimator whose draw is a batch.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG
    >>> from bilevelrl.tasks import layered_mdp
    >>> mixture = Mixture(contexts=[layered_mdp(seed=0), layered_mdp(seed=1)], weights=[0.5, 0.5])
    >>> drawn, summed = (
    ...     mixture_moments(BCHG(), mixture, np.zeros(3), horizon=3, contexts=contexts) for contexts in ("draw", "sum"))
    >>> bool(np.allclose(drawn.mean, summed.mean)), bool((drawn.standard_deviation > summed.standard_deviation).all())
    (True, True)
    """
    each = []
    for place, context in enumerate(mixture.contexts):
        if not isinstance(context, (ConfigurableMDP, MarkovGame)):
            found = type(context).__name__
            raise UnsupportedError(
                refusal(f"contexts[{place}]", found, "a ConfigurableMDP or a MarkovGame", "sample its estimates")
            )
        each.append(enumerate_moments(estimator, context, theta, horizon=horizon, **options))
    first, p = each[0], mixture.weights
    if trajectories > 1 and first.draw is Draw.BATCH:
        expected = "1, for its draw is a batch"
        raise InvalidInputError(refusal("trajectories", trajectories, expected, "pass batch=... instead"))
    mean = weighted(p, [found.mean for found in each])
    covariances = [found.covariance / trajectories for found in each]
    if contexts == "draw":
        off = [found.mean - mean for found in each]
        covariance = weighted(p, [own + np.outer(x, x) for own, x in zip(covariances, off, strict=True)])  # (1)
    else:
        covariance = weighted(p**2, covariances)  # (2)
    names = dict.fromkeys(name for found in each for name in found.parts)
    nothing = np.zeros_like(mean)
    magnitude = weighted(p, [found.magnitude for found in each])
    epsilon = max(found.epsilon for found in each)
    return replace(
        first,
        mean=mean,
        covariance=covariance,
        parts={name: weighted(p, [found.parts.get(name, nothing) for found in each]) for name in names},
        magnitude=magnitude,
        rounding=weighted(p, [found.rounding for found in each]) + (len(each) + 2) * epsilon * magnitude,
        probability=weighted(p, [found.probability for found in each]),
        paths=sum(found.paths for found in each),
        draws=sum(found.draws for found in each),
        batch=first.batch * trajectories,
        epsilon=epsilon,
    )
