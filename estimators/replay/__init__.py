"""Leaders that replay: a model of the kernel from every transition ever seen, and what can be planned on it."""

from bilevelrl.estimators.replay.kernel_from_values import continuations, kernel_from_values
from bilevelrl.estimators.replay.learnt_model import model_hypergradients, with_kernel
from bilevelrl.estimators.replay.model_leader import MODEL_METHODS, SEARCHING, ModelTraining
from bilevelrl.estimators.replay.planning import Plan, Planner, RandomStarts
from bilevelrl.estimators.replay.transition_counts import TransitionCounts, learnt_kernel

__all__ = [
    "MODEL_METHODS",
    "SEARCHING",
    "ModelTraining",
    "Plan",
    "Planner",
    "RandomStarts",
    "TransitionCounts",
    "continuations",
    "kernel_from_values",
    "learnt_kernel",
    "model_hypergradients",
    "with_kernel",
]
