"""Estimators and training on mixtures: a context drawn for a whole batch, or all contexts summed."""

from bilevelrl.estimators.contexts.in_contexts import InContexts
from bilevelrl.estimators.training.declarations.contexts import MixtureTraining
from bilevelrl.estimators.training.worlds.contexts import MixtureWorld

__all__ = ["InContexts", "MixtureTraining", "MixtureWorld"]
