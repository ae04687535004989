"""The leader's training loop: optimisers, followers, methods, checkpoints; batched over seeds and hyper-parameters."""

from bilevelrl.estimators.training.checkpoints import load_checkpoint, save_checkpoint
from bilevelrl.estimators.training.direction_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.kinds.game import GameTraining
from bilevelrl.estimators.training.kinds.gaussian_game import LQRGameTraining, lqr_game_training
from bilevelrl.estimators.training.kinds.lqr import LQRTraining
from bilevelrl.estimators.training.kinds.options import GameOptions
from bilevelrl.estimators.training.kinds.tabular import Training, published_simulator
from bilevelrl.estimators.training.loop import Callback, Evaluation, History, train
from bilevelrl.estimators.training.methods import METHODS, Method, get_method
from bilevelrl.estimators.training.optimisers import SCHEDULES, SGD, Adam, Optimiser, make_optimiser
from bilevelrl.estimators.training.runs import LeaderTraining, Run, World
from bilevelrl.estimators.training.worlds import game as _game  # worlds register themselves
from bilevelrl.estimators.training.worlds import gaussian_game as _gaussian_game
from bilevelrl.estimators.training.worlds import lqr as _lqr
from bilevelrl.estimators.training.worlds import separate as _separate
from bilevelrl.estimators.training.worlds.critic_rules import ExactCritics, LeastSquaresCritics, NetworkCritics

__all__ = [
    "GRADIENT_COLUMNS",
    "METHODS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "Callback",
    "Evaluation",
    "ExactCritics",
    "GameOptions",
    "GameTraining",
    "History",
    "LQRGameTraining",
    "LQRTraining",
    "LeaderTraining",
    "LeastSquaresCritics",
    "Method",
    "NetworkCritics",
    "Optimiser",
    "Run",
    "Training",
    "World",
    "get_method",
    "gradient_errors",
    "load_checkpoint",
    "lqr_game_training",
    "make_optimiser",
    "published_simulator",
    "save_checkpoint",
    "train",
]

del _game, _gaussian_game, _lqr, _separate
