"""The leader's training loop: optimisers, followers, methods, checkpoints; batched over seeds and hyper-parameters."""

from bilevelrl.estimators.optimisers import SCHEDULES, SGD, Adam, Optimiser, make_optimiser
from bilevelrl.estimators.training.declarations.critic_rules import (
    CriticRule,
    ExactCritics,
    LearntCritics,
    LeastSquaresCritics,
    NetworkCritics,
)
from bilevelrl.estimators.training.declarations.game import GameTraining
from bilevelrl.estimators.training.declarations.gaussian_game import LQRGameTraining, lqr_game_training
from bilevelrl.estimators.training.declarations.lqr import LQRTraining
from bilevelrl.estimators.training.declarations.options import PUBLISHED, SOUND, GameOptions
from bilevelrl.estimators.training.declarations.tabular import Training, published_simulator
from bilevelrl.estimators.training.direction_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.loop import Evaluation, History, train
from bilevelrl.estimators.training.methods import METHODS, Method, Wanted
from bilevelrl.estimators.training.runs import LeaderTraining, Run, World
from bilevelrl.estimators.training.worlds import contexts as _contexts  # worlds register themselves
from bilevelrl.estimators.training.worlds import game as _game
from bilevelrl.estimators.training.worlds import gaussian_game as _gaussian_game
from bilevelrl.estimators.training.worlds import lqr as _lqr
from bilevelrl.estimators.training.worlds import separate as _separate

__all__ = [
    "GRADIENT_COLUMNS",
    "METHODS",
    "PUBLISHED",
    "SCHEDULES",
    "SGD",
    "SOUND",
    "Adam",
    "CriticRule",
    "Evaluation",
    "ExactCritics",
    "GameOptions",
    "GameTraining",
    "History",
    "LQRGameTraining",
    "LQRTraining",
    "LeaderTraining",
    "LearntCritics",
    "LeastSquaresCritics",
    "Method",
    "NetworkCritics",
    "Optimiser",
    "Run",
    "Training",
    "Wanted",
    "World",
    "gradient_errors",
    "lqr_game_training",
    "make_optimiser",
    "published_simulator",
    "train",
]

del _contexts, _game, _gaussian_game, _lqr, _separate
