"""Sample-based estimators of the hypergradient, one file per method, and what they need: samples and critics."""

from bilevelrl.estimators.critics.gradient_tables import GradientTable
from bilevelrl.estimators.critics.joint_tables import GameCritic, learn_game_critic
from bilevelrl.estimators.critics.least_squares import QuadraticRegression
from bilevelrl.estimators.critics.quadratic import QuadraticCritic, fit_lstd_critic
from bilevelrl.estimators.critics.quadratic_gradients import QuadraticGradientCritic, fit_lstd_gradient
from bilevelrl.estimators.critics.sarsa import SarsaCritic, sarsa_pass
from bilevelrl.estimators.critics.sarsa_lambda import SarsaLambdaCritic
from bilevelrl.estimators.critics.state_baselines import StateBaseline
from bilevelrl.estimators.critics.tables import ExactCritic, TableCritic
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
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.bchg_game import BCHGGame
from bilevelrl.estimators.methods.bchg_lambda import LambdaBCHG
from bilevelrl.estimators.methods.bi_ac import BiAC
from bilevelrl.estimators.methods.hpgd import HPGD
from bilevelrl.estimators.methods.hpgd_lqr import LQRHPGD
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.methods.policy_covariance import PolicyCovariance
from bilevelrl.estimators.methods.policy_gradient import PolicyGradient
from bilevelrl.estimators.methods.sobirl import SoBiRL
from bilevelrl.estimators.methods.total_derivative import TotalDerivative
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.tabular import (
    TabularSimulator,
    sample_stopped_trajectories,
    sample_suffixes,
    sample_trajectories,
)
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms import linear_quadratic as _lqr_kind  # registers configurable LQRs
from bilevelrl.estimators.terms.batched import SeedBatch, SeedEstimates
from bilevelrl.estimators.terms.joint_leader import GAME_ESTIMATORS
from bilevelrl.estimators.terms.linear_quadratic_registry import LQR_ESTIMATORS, register_lqr_estimator

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
