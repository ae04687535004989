"""Linear systems of tabular problems beyond one dense or sparse factorisation."""
