"""Total derivatives through the logits of the follower's policy, with something else in place of the exact inverse."""

from collections.abc import Callable, Mapping

from bilevelrl.reference.approximations.through_logits import network_policy as _network_policy
from bilevelrl.reference.approximations.through_logits import unsolved as _unsolved
from bilevelrl.reference.approximations.through_logits.damped_inverse import damped
from bilevelrl.reference.approximations.through_logits.follower import (
    Inverse,
    fisher_blocks,
    follower_at,
    solved_scores,
)
from bilevelrl.reference.approximations.through_logits.log_derivative import weighed_advantages
from bilevelrl.reference.approximations.through_logits.nystroem import columned
from bilevelrl.reference.approximations.through_logits.policy_gradient_steps import waited

__all__ = ["INVERSES", "fisher_blocks", "follower_at", "solved_scores", "weighed_advantages"]

INVERSES: Mapping[str, Callable[[float], Inverse]] = {"steps": waited, "damped": damped, "columns": columned}
"""What stands in place of the inverse of a solved follower's Hessian, by its knob."""

del _network_policy, _unsolved
