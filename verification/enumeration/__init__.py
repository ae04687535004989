"""Exact moments of estimators over all trajectories of a small problem."""

from bilevelrl.verification.enumeration.contexts import mixture_moments
from bilevelrl.verification.enumeration.quadrature import quadrature_moments

__all__ = ["mixture_moments", "quadrature_moments"]
