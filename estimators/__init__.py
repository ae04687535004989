"""Sample-based estimators of the hypergradient, one file per method, and what they need: samples and critics."""

from bilevelrl.estimators.critics import ExactCritic, SarsaCritic, TableCritic
from bilevelrl.estimators.estimator import Claim, Context, Draw, Estimate, Estimator, EstimatorEntry, LeaderCritic
from bilevelrl.estimators.methods import (
    BCHG,
    HPGD,
    BiAC,
    LambdaBCHG,
    NaivePGD,
    SoBiRL,
)
from bilevelrl.estimators.registry import ESTIMATORS, estimators_for
from bilevelrl.estimators.sampling import TabularSimulator, Trajectories, from_rollouts, sample_trajectories
from bilevelrl.reference.problem import Objective

__all__ = [
    "BCHG",
    "ESTIMATORS",
    "HPGD",
    "BiAC",
    "Claim",
    "Context",
    "Draw",
    "Estimate",
    "Estimator",
    "EstimatorEntry",
    "ExactCritic",
    "LambdaBCHG",
    "LeaderCritic",
    "NaivePGD",
    "Objective",
    "SarsaCritic",
    "SoBiRL",
    "TableCritic",
    "TabularSimulator",
    "Trajectories",
    "estimators_for",
    "from_rollouts",
    "sample_trajectories",
]
