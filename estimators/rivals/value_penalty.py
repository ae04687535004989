"""Value penalties from samples: what a paid follower and an unpaid one say of θ, and nobody else.

A penalty method maximises `J(θ, π) - (V*(θ) - V^π(θ)) / w` over π and θ. Its lower level solved, the best π is a
follower that is paid w of the leader's reward, and the gradient in θ is the difference of what the two populations say
(`estimators.methods.nudged` (1) and (2), on one side and without unpaid streams for the leader's own rewards):

    ∂_θR(π_w) + (∂_θF(π_w) - ∂_θF(π_0)) / w.                                                                      (1)

Its bias falls as w, two-sided as w². Single-loop methods sweep both followers once per iteration while the pay is
attenuated to β/√k: (1) at the policies that they play then, off by what the sweeps lag behind as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bilevelrl.estimators.estimator import Context, EstimatorEntry
from bilevelrl.estimators.methods.nudged import NudgedFollowers
from bilevelrl.estimators.terms.paid import PaidPlay, Population
from bilevelrl.reference import ConfigurableMDP, MarkovGame
from bilevelrl.reference.approximations import swept_followers
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal

__all__ = ["ValuePenalty"]


@checked
@dataclass(frozen=True, kw_only=True)
class ValuePenalty(NudgedFollowers):
    """Gradient of a value penalty of weight 1/w with a solved lower level, or of a single-loop one after k iterations.

    Parameters
    ----------
    pay, sides, numbers, target
        As in `NudgedFollowers`; on one side by default, as published. With two discounts the pay is
        `w (γ_L/γ_F)^t`, which a published penalty, whose pay does not change in time, does not know of.
    iterations
        k of a single loop with the pay `pay β/√k`, on one side, in configurable MDPs with one discount and without a
        horizon; None: the lower level is solved.

    Raises
    ------
    InvalidInputError
        As `NudgedFollowers`, or for a single loop from two sides.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.estimators import Context
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.reference.approximations import approximate_hypergradient
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0, discount_leader=0.9), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> declared = sum(ValuePenalty(pay=0.1).expectation(context, horizon=3).values())
    >>> exact = approximate_hypergradient(problem, theta, "value_penalty_one_sided", 0.1)
    >>> bool(np.allclose(declared, exact, rtol=1e-12))
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, MarkovGame)
    sides: int = 1
    unpaid: bool = field(init=False, default=False)
    iterations: Count | None = None
    name: str = field(default="value penalty")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations is not None and (self.sides != 1 or self.pay != 1.0):
            found = f"sides={self.sides}, pay={self.pay}"
            raise InvalidInputError(
                refusal(
                    f"{self.name}: {found} with iterations", self.iterations, "sides=1 and pay=1.0, β/√k", "drop it"
                )
            )

    def _play(self, context: Context, steps: int) -> PaidPlay:
        if self.iterations is None:
            return super()._play(context, steps)
        self.check_problem(context)
        problem = context.problem
        if not isinstance(problem, ConfigurableMDP):
            found = type(problem).__name__
            raise UnsupportedError(
                f"{self.name}: iterations={self.iterations} in a {found}: expected a ConfigurableMDP; solve the lower "
                "level, or reduce the game"
            )
        followers = swept_followers(problem.at(context.theta), self.target, self.iterations)
        pay = followers[0].pay
        one, other = (
            Population(sign / pay, share, each.worth[None], each.policy[None])
            for sign, share, each in zip((1.0, -1.0), (1.0, 0.0), followers, strict=True)
        )
        unpaid = context.follower.value_without(problem.at(context.theta).constant)
        return PaidPlay(
            context=context, populations=(one, other), unpaid=unpaid, leading=problem.discount_leader, horizon=None
        )


CONFIGURATIONS = (
    EstimatorEntry(
        name="value_penalty",
        summary="a value penalty with a solved lower level, w a tenth of β, one-sided",
        level="formula",
        make=lambda target: ValuePenalty(pay=0.1),
    ),
)
