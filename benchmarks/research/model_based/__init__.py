"""Leaders that replay: a model of the kernel from every transition ever seen, and what can be planned on it."""

from bilevelrl.benchmarks.research.model_based.kernel_from_values import continuations, kernel_from_values
from bilevelrl.benchmarks.research.model_based.learnt_model import model_hypergradients, with_kernel
from bilevelrl.benchmarks.research.model_based.model_leader import MODEL_METHODS, SEARCHING, ModelTraining
from bilevelrl.benchmarks.research.model_based.planning import Plan, Planner, RandomStarts
from bilevelrl.benchmarks.research.model_based.transition_counts import TransitionCounts, learnt_kernel

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
