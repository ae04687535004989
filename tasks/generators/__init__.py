"""Generators of random and structured problems."""
