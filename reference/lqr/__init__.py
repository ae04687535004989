"""Configurable LQRs, and what all linear-quadratic problems share: solvers, their derivatives, scores."""

from bilevelrl.reference.lqr.follower import LQRFollower
from bilevelrl.reference.lqr.leader import evaluate_lqr_leader, leader_costs
from bilevelrl.reference.lqr.solvers import discounted_lyapunov, spectral_radius

__all__ = ["LQRFollower", "discounted_lyapunov", "evaluate_lqr_leader", "leader_costs", "spectral_radius"]
