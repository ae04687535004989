"""Methods, one file each."""

from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.bchg_lambda import LambdaBCHG
from bilevelrl.estimators.methods.bi_ac import BiAC
from bilevelrl.estimators.methods.hpgd import HPGD
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.methods.nudged import NudgedFollowers
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.methods.pathwise_game import PathwiseGame
from bilevelrl.estimators.methods.policy_covariance import PolicyCovariance
from bilevelrl.estimators.methods.score_game import LeaderValues, ScoreForm, score_directions
from bilevelrl.estimators.methods.sobirl import SoBiRL
from bilevelrl.estimators.methods.total_derivative import TotalDerivative

__all__ = [
    "BCHG",
    "HPGD",
    "BiAC",
    "LambdaBCHG",
    "LeaderValues",
    "NaivePGD",
    "NudgedFollowers",
    "PathwiseBCHG",
    "PathwiseGame",
    "PolicyCovariance",
    "ScoreForm",
    "SoBiRL",
    "TotalDerivative",
    "score_directions",
]
