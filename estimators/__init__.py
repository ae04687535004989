"""Sample-based estimators of the hypergradient, one file per method, and what they need: samples and critics."""

from bilevelrl.estimators import lqr_kind as _lqr_kind  # registers configurable LQRs
from bilevelrl.estimators.batched import SeedBatch, SeedEstimates
from bilevelrl.estimators.bchg import BCHG
from bilevelrl.estimators.bchg_game import BCHGGame
from bilevelrl.estimators.bchg_lambda import LambdaBCHG
from bilevelrl.estimators.bi_ac import BiAC
from bilevelrl.estimators.critics import ExactCritic, TableCritic
from bilevelrl.estimators.estimator import (
    ESTIMATORS,
    Claim,
    Context,
    Contribution,
    Draw,
    Estimate,
    Estimator,
    EstimatorEntry,
    LeaderCritic,
    Target,
    register_estimator,
)
from bilevelrl.estimators.game_critics import GameCritic, learn_game_critic
from bilevelrl.estimators.game_side import GAME_ESTIMATORS
from bilevelrl.estimators.gradient_tables import GradientTable
from bilevelrl.estimators.hpgd import HPGD
from bilevelrl.estimators.lqr_covariance import PolicyCovariance
from bilevelrl.estimators.lqr_critics import QuadraticCritic, fit_lstd_critic
from bilevelrl.estimators.lqr_gradient_critics import QuadraticGradientCritic, fit_lstd_gradient
from bilevelrl.estimators.lqr_hpgd import LQRHPGD
from bilevelrl.estimators.lqr_registry import LQR_ESTIMATORS, register_lqr_estimator
from bilevelrl.estimators.lqr_regression import QuadraticRegression
from bilevelrl.estimators.naive_pgd import NaivePGD
from bilevelrl.estimators.pathwise import PathwiseBCHG
from bilevelrl.estimators.policy_gradient import PolicyGradient
from bilevelrl.estimators.sampling import (
    TabularSimulator,
    sample_stopped_trajectories,
    sample_suffixes,
    sample_trajectories,
)
from bilevelrl.estimators.sampling_lqr import LQRSimulator
from bilevelrl.estimators.sarsa import SarsaCritic, sarsa_pass
from bilevelrl.estimators.sarsa_lambda import SarsaLambdaCritic
from bilevelrl.estimators.sobirl import SoBiRL
from bilevelrl.estimators.state_baselines import StateBaseline
from bilevelrl.estimators.total_derivative import TotalDerivative
from bilevelrl.estimators.trajectories import Trajectories

__all__ = [
    "BCHG",
    "ESTIMATORS",
    "GAME_ESTIMATORS",
    "HPGD",
    "LQRHPGD",
    "LQR_ESTIMATORS",
    "BCHGGame",
    "BiAC",
    "Claim",
    "Context",
    "Contribution",
    "Draw",
    "Estimate",
    "Estimator",
    "EstimatorEntry",
    "ExactCritic",
    "GameCritic",
    "GradientTable",
    "LQRSimulator",
    "LambdaBCHG",
    "LeaderCritic",
    "NaivePGD",
    "PathwiseBCHG",
    "PolicyCovariance",
    "PolicyGradient",
    "QuadraticCritic",
    "QuadraticGradientCritic",
    "QuadraticRegression",
    "SarsaCritic",
    "SarsaLambdaCritic",
    "SeedBatch",
    "SeedEstimates",
    "SoBiRL",
    "StateBaseline",
    "TableCritic",
    "TabularSimulator",
    "Target",
    "TotalDerivative",
    "Trajectories",
    "fit_lstd_critic",
    "fit_lstd_gradient",
    "learn_game_critic",
    "register_estimator",
    "register_lqr_estimator",
    "sample_stopped_trajectories",
    "sample_suffixes",
    "sample_trajectories",
    "sarsa_pass",
]

del _lqr_kind
