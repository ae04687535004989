"""Exact moments of estimators over all trajectories of a small problem."""
