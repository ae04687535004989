"""Deterministic checks and three-valued verdicts."""
