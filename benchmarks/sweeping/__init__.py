"""Grids of runs and what is made of them: sweeps that resume, tidy tables, curves, comparisons, figures."""
