"""Enclosures of linear-quadratic problems."""
