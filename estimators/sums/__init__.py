"""Sums along trajectories: traces, λ-returns, geometric stopping, clipping."""
