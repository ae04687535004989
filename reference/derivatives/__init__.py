"""Derivatives of what users write: traces, closed forms, complex steps, and checks by differences."""
