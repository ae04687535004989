"""Exact moments of estimators over all trajectories of a small problem."""

from bilevelrl.verification.enumeration.quadrature import quadrature_moments

__all__ = ["quadrature_moments"]
