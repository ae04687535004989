"""Which of the leader's returns is meant: over how many steps, and with what weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import check_discount
from bilevelrl.reference.doors import Probability, checked
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, refusal
from bilevelrl.reference.problem.protocol import Question

__all__ = ["INFINITE_HORIZON", "Objective", "evaluate_objective"]


@dataclass(frozen=True, slots=True)
class Objective:
    """The return that the leader maximises, `E Σ_{t<T} w_t r_L` with `w_t = γ_L^t` or one.

    Attributes
    ----------
    horizon : int or None
        T, the steps of an episode (the follower still plans over an infinite horizon); None: infinite.
    discounted : bool
        False: weights one instead of γ_L^t; needs a horizon.

    Raises
    ------
    InvalidInputError
        If the horizon is not None or an integer ≥ 1, or `discounted` no boolean.
    IllPosedError
        If the return is undiscounted and the horizon infinite: it diverges.

    Examples
    --------
    >>> Objective(horizon=3).constant_return(1.0, 0.5), Objective(horizon=3, discounted=False).discount(0.5)
    (1.75, 1.0)
    """

    horizon: int | None = None
    discounted: bool = True

    def __post_init__(self) -> None:
        steps = self.horizon
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1):
            remedy = "count the steps of an episode"
            raise InvalidInputError(refusal("horizon", steps, "None or an integer >= 1", remedy))
        if not isinstance(self.discounted, (bool, np.bool_)):
            raise InvalidInputError(refusal("discounted", self.discounted, "True or False", "say whether γ_L counts"))
        if steps is None and not self.discounted:
            raise IllPosedError(
                "discounted=False with horizon=None: the leader's undiscounted return over an infinite horizon "
                "diverges; expected a finite horizon; pass horizon=T"
            )

    @checked
    def discount(self, discount_leader: Probability) -> float:
        """Return the weight of a step relative to the step before."""
        return discount_leader if self.discounted else 1.0

    @checked
    def constant_return(self, reward: float, discount_leader: Probability) -> float:
        """Return what a constant reward earns where no episode terminates."""
        if self.horizon is None:
            return reward / (1.0 - check_discount("discount_leader", discount_leader))
        if not self.discounted:
            return reward * self.horizon
        return reward * float(np.sum(discount_leader ** np.arange(self.horizon)))


INFINITE_HORIZON = Objective()

evaluate_objective: Question[float] = Question("leader's objective")
"""(at, objective=, follower=) → J, under the best response where no follower is given."""
