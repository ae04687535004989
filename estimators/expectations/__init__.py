"""Exact expectations and variances of estimators, by dynamic programming."""
