"""Scenarios: problems with θ, stored truth and provenance."""
