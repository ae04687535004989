"""Methods that the field compares BC-HG with, as estimators, one file each; exact forms: `reference.approximations`."""

from bilevelrl.estimators.rivals.amd import AMD
from bilevelrl.estimators.rivals.k_step import KStep
from bilevelrl.estimators.rivals.log_derivative import LogDerivative
from bilevelrl.estimators.rivals.logit_steps import LogitSteps
from bilevelrl.estimators.rivals.value_penalty import ValuePenalty
from bilevelrl.estimators.rivals.zero_order import ZeroOrder

__all__ = ["AMD", "KStep", "LogDerivative", "LogitSteps", "ValuePenalty", "ZeroOrder"]
