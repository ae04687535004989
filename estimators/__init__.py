"""Sample-based estimators of the hypergradient, one file per method, and what they need: samples and critics."""

from bilevelrl.estimators.critics.sarsa import SarsaCritic
from bilevelrl.estimators.critics.tables import ExactCritic, TableCritic
from bilevelrl.estimators.estimator import Claim, Context, Draw, Estimate, Estimator
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.bchg_lambda import LambdaBCHG
from bilevelrl.estimators.methods.bi_ac import BiAC
from bilevelrl.estimators.methods.hpgd import HPGD
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.methods.policy_covariance import PolicyCovariance
from bilevelrl.estimators.methods.sobirl import SoBiRL
from bilevelrl.estimators.methods.total_derivative import TotalDerivative
from bilevelrl.estimators.registry import ESTIMATORS, register_estimator
from bilevelrl.estimators.sampling.tabular import TabularSimulator, sample_trajectories
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.objective import Objective

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
    "ExactCritic",
    "LambdaBCHG",
    "NaivePGD",
    "Objective",
    "PathwiseBCHG",
    "PolicyCovariance",
    "SarsaCritic",
    "SoBiRL",
    "TableCritic",
    "TabularSimulator",
    "TotalDerivative",
    "Trajectories",
    "register_estimator",
    "sample_trajectories",
]
