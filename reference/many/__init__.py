"""Exact hypergradients at many θ of one problem: together where its kind can, else one after the other."""

from bilevelrl.reference.many.hypergradients import Hypergradients, hypergradients

__all__ = ["Hypergradients", "hypergradients"]
