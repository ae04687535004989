"""Sums along trajectories: traces and λ-returns; and how sums are shortened."""

from bilevelrl.estimators.sums.clipping import clip_to_norm
from bilevelrl.estimators.sums.lambda_returns import lambda_returns
from bilevelrl.estimators.sums.traces import backward_sum, discount_powers, forward_trace

__all__ = ["backward_sum", "clip_to_norm", "discount_powers", "forward_trace", "lambda_returns"]
