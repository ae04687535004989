"""Configurable LQRs, and what all linear-quadratic problems share: solvers, primitives, scores."""
