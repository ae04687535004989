"""The hypergradient as a mixed derivative of the follower's own value: no leader's values, no advantage, no adjoint.

Pay the follower `r_F + w (γ_L/γ_F)^t r_L` at time t, and let V*(θ, w) be what it is then worth at the start. By the
envelope theorem its derivative in w at zero is the leader's return, so that, derivatives taken in the other order,

    ∇J = ∇ρ + ∂/∂w [∂V*/∂θ] at w = 0,                                                                             (1)

and `∂V*/∂θ` at fixed w has no response in it. The derivation, and what the paper's formulas have to do with it, is in
docs/mixed_derivative.md. Each kind of problem pays its own follower (`nudged_slopes`) by a complex step w = ih: in the
real numbers a pay small enough not to bend the response drowns in rounding.
"""

from __future__ import annotations

from bilevelrl.reference.nudged.game import nudged_game
from bilevelrl.reference.nudged.gaussian_game import nudged_lqr_game
from bilevelrl.reference.nudged.lqr import nudged_lqr
from bilevelrl.reference.nudged.tabular import nudged_tabular
from bilevelrl.reference.problem import INFINITE_HORIZON, At, Objective, Problem, nudged_slopes
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.routes.implicit import pulled_back

__all__ = ["mixed_derivative", "nudged_game", "nudged_lqr", "nudged_lqr_game", "nudged_tabular"]


@register_route(
    "mixed_derivative",
    nudged_slopes,
    summary="derivative of the follower's own value in a pay w of the leader's reward (complex step) and in θ",
    family="complex pay",
    accuracy="rounding times conditioning",
)
def mixed_derivative(
    at: At[Problem], *, objective: Objective = INFINITE_HORIZON, warm_start: object = None, bound: bool = True
) -> Hypergradient:
    """∇J by (1), for every kind of problem whose follower can be paid."""
    found = nudged_slopes(at, objective, warm_start=warm_start)
    return pulled_back(at, found, objective, "mixed_derivative", bound)
