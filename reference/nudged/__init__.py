"""The follower's own value where the leader pays it, for each kind of problem: what the mixed derivative reads."""

from bilevelrl.reference.nudged.real_pay import PaidFollower, PaidMoments, check_pay, check_rounding
from bilevelrl.reference.nudged.tabular import kernel_layout

__all__ = ["PaidFollower", "PaidMoments", "check_pay", "check_rounding", "kernel_layout"]
