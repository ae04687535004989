"""Derivatives of what users write: traces, closed forms, complex steps, and checks by differences."""

from bilevelrl.reference.derivatives.autodiff import directional_derivatives, gradient, log_sum_exp, sigmoid, softmax

__all__ = ["directional_derivatives", "gradient", "log_sum_exp", "sigmoid", "softmax"]
