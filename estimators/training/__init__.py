"""The leader's training loop: optimisers, followers, methods, checkpoints; batched over seeds and hyper-parameters."""

from bilevelrl.estimators.training.checkpoints import load_checkpoint, save_checkpoint
from bilevelrl.estimators.training.followers.joint import GameFollowerRule
from bilevelrl.estimators.training.followers.sampled import NaturalPolicyGradient, SoftQLearning
from bilevelrl.estimators.training.followers.solving import (
    ExactFollower,
    FollowerRule,
    SharedDynamics,
    SweepingFollower,
)
from bilevelrl.estimators.training.game import world as _game_world  # worlds register themselves
from bilevelrl.estimators.training.game.methods import GAME_METHODS
from bilevelrl.estimators.training.game.options import GameOptions
from bilevelrl.estimators.training.game.training import GameTraining
from bilevelrl.estimators.training.gradient_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.loop import Callback, Evaluation, History, train
from bilevelrl.estimators.training.lqr.critics import ExactCritics, LeastSquaresCritics, NetworkCritics
from bilevelrl.estimators.training.lqr.methods import LQR_METHODS, LQRMethod
from bilevelrl.estimators.training.lqr.training import LQRTraining
from bilevelrl.estimators.training.lqr_game import world as _lqr_game_world
from bilevelrl.estimators.training.optimisers import SCHEDULES, SGD, Adam, Optimiser, clip_to_norm, make_optimiser
from bilevelrl.estimators.training.runs import LeaderTraining, Run, World
from bilevelrl.estimators.training.tabular import world as _tabular_world
from bilevelrl.estimators.training.tabular.methods import (
    METHODS,
    Method,
    batch_hypergradients,
    batch_objectives,
    get_method,
)
from bilevelrl.estimators.training.tabular.training import Training, published_simulator
from bilevelrl.reference.errors import StorageError

__all__ = [
    "GAME_METHODS",
    "GRADIENT_COLUMNS",
    "LQR_METHODS",
    "METHODS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "Callback",
    "Evaluation",
    "ExactCritics",
    "ExactFollower",
    "FollowerRule",
    "GameFollowerRule",
    "GameOptions",
    "GameTraining",
    "History",
    "LQRMethod",
    "LQRTraining",
    "LeaderTraining",
    "LeastSquaresCritics",
    "Method",
    "NaturalPolicyGradient",
    "NetworkCritics",
    "Optimiser",
    "Run",
    "SharedDynamics",
    "SoftQLearning",
    "StorageError",
    "SweepingFollower",
    "Training",
    "World",
    "batch_hypergradients",
    "batch_objectives",
    "clip_to_norm",
    "get_method",
    "gradient_errors",
    "load_checkpoint",
    "make_optimiser",
    "published_simulator",
    "save_checkpoint",
    "train",
]

del _game_world, _lqr_game_world, _tabular_world
