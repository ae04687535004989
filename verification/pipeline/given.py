"""A function of trajectories and context as an estimator, so that it can be sampled as those of the package are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bilevelrl.estimators import Claim, Context, Draw, Estimate, Estimator, Trajectories
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError
from bilevelrl.tasks import Scenario
from bilevelrl.verification.enumeration.contract import ContractedEstimator, EstimatorFunction, estimator_name, protect

__all__ = ["GivenEstimator"]


class GivenEstimator(Estimator):
    """A function whose every answer is held against the contract.

    Parameters
    ----------
    call
        (trajectories, context) → rows (M, N) or {part: rows}.
    on
        Where; its target is the function's.
    claim
        What it claims.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.tasks import scenario
    >>> given = GivenEstimator(lambda visited, context: np.zeros((visited.streams, 1)), scenario("toll"), None)
    >>> given.name, given.claim.name
    ('<lambda>', 'UNBIASED')
    """

    kinds = (object,)

    def __init__(self, call: EstimatorFunction, on: Scenario, claim: Claim | None) -> None:
        self.name, self.target = estimator_name(call), on.target
        self.claim = Claim.UNBIASED if claim is None else claim
        self.draw = Draw.TRAJECTORY
        self.call = call
        self._contract = ContractedEstimator(call=call, parameters=on.theta.size)

    @property
    def epsilon(self) -> float:
        """Unit of the last place of the coarsest dtype that it has returned so far."""
        return self._contract.epsilon

    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Any]:
        """Raise: a function gives rows."""
        raise EstimatorError(f"{self.name}: gives rows, and no weights of its parts")

    def __call__(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """Return one row per draw, (draws, N)."""
        return self._contract.rows(*protect(trajectories, context))[0]

    def estimate(self, trajectories: Trajectories, context: Context, *, per_draw: bool = False) -> Estimate:
        """Return the mean of the rows."""
        rows = self(trajectories, context)
        cost = self.cost(trajectories, context)
        return Estimate(mean=rows.mean(axis=0), parts={}, per_draw=rows if per_draw else None, cost=cost)

    def hold_contract(self, trajectories: Trajectories, context: Context) -> None:
        """Raise unless two calls agree, inputs stay as they were and rows do not depend on each other."""
        self._contract.check_repeatable(*protect(trajectories, context))
