"""Total derivatives through the logits of the follower's policy, with something else in place of the exact inverse."""

from bilevelrl.reference.approximations.through_logits import damped_inverse as _damped_inverse
from bilevelrl.reference.approximations.through_logits import log_derivative as _log_derivative
from bilevelrl.reference.approximations.through_logits import network_policy as _network_policy
from bilevelrl.reference.approximations.through_logits import nystroem as _nystroem
from bilevelrl.reference.approximations.through_logits import policy_gradient_steps as _policy_gradient_steps
from bilevelrl.reference.approximations.through_logits import unsolved as _unsolved
from bilevelrl.reference.approximations.through_logits.follower import fisher_blocks, follower_at

__all__ = ["fisher_blocks", "follower_at"]

del _damped_inverse, _log_derivative, _network_policy, _nystroem, _policy_gradient_steps, _unsolved
