"""Critics: where estimators read the leader's values, and the gradient of the follower's."""

from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic
from bilevelrl.estimators.critics.gaussian_networks import ExactGameCritics, GameNetworks
from bilevelrl.estimators.critics.gradient_tables import GradientTable
from bilevelrl.estimators.critics.joint_networks import JointNetworks, JointTables
from bilevelrl.estimators.critics.joint_tables import GameCritic, learn_game_critic
from bilevelrl.estimators.critics.networks import DenseNetwork, NetworkCritic
from bilevelrl.estimators.critics.quadratic import QuadraticCritic, fit_lstd_critic
from bilevelrl.estimators.critics.quadratic_gradients import QuadraticGradientCritic, fit_lstd_gradient
from bilevelrl.estimators.critics.sarsa import SarsaCritic, sarsa_pass
from bilevelrl.estimators.critics.sarsa_lambda import SarsaLambdaCritic
from bilevelrl.estimators.critics.state_baselines import BaselineKind, StateBaseline
from bilevelrl.estimators.critics.tables import ExactCritic, TableCritic

__all__ = [
    "BaselineKind",
    "DenseNetwork",
    "ExactCritic",
    "ExactGameCritics",
    "GameCritic",
    "GameNetworks",
    "GradientTable",
    "JointNetworks",
    "JointTables",
    "LQRGameCritic",
    "NetworkCritic",
    "QuadraticCritic",
    "QuadraticGradientCritic",
    "SarsaCritic",
    "SarsaLambdaCritic",
    "StateBaseline",
    "TableCritic",
    "fit_lstd_critic",
    "fit_lstd_gradient",
    "learn_game_critic",
    "sarsa_pass",
]
