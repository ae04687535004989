"""What `bilevelrl train` needs to know of trainings with a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bilevelrl.benchmarks.research.model_based.model_leader import MODEL_METHODS, SEARCHING, ModelTraining
from bilevelrl.benchmarks.trainings import TrainingKind
from bilevelrl.reference import ConfigurableMDP

__all__ = ["TRAINING_KINDS"]


def _plans(iterations: int) -> Mapping[str, Any]:
    return {"plans": tuple(sorted({int(share * iterations) for share in (0.3, 0.4, 0.6)}))}


TRAINING_KINDS = (
    TrainingKind(
        problem=ConfigurableMDP,
        training=ModelTraining,
        titles={name: title for name, title in MODEL_METHODS.items() if name not in SEARCHING},
        of_iterations=_plans,
    ),
    TrainingKind(
        problem=ConfigurableMDP,
        training=ModelTraining,
        titles={name: title for name, title in MODEL_METHODS.items() if name in SEARCHING},
        learning_rate=1.0,
        settings={"largest_norm": np.inf},
        of_iterations=_plans,
    ),
)
