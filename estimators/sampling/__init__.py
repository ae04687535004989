"""Samples: trajectories, how they are drawn from each kind of problem, and the memory of many runs' episodes."""

from bilevelrl.estimators.sampling.gaussian_game import (
    LQRGameBatch,
    StackedFollowers,
    check_linear_leader,
    sample_games,
)
from bilevelrl.estimators.sampling.joint_actions import JointProcess, joint_mdp
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator, gaussian_root
from bilevelrl.estimators.sampling.replay_memory import Draws, EpisodeMemory
from bilevelrl.estimators.sampling.rollouts import from_rollouts
from bilevelrl.estimators.sampling.sample import sample_suffixes, sample_trajectories
from bilevelrl.estimators.sampling.stopping import sample_stopped_trajectories
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories, TransitionVisits

__all__ = [
    "Draws",
    "EpisodeMemory",
    "JointProcess",
    "LQRGameBatch",
    "LQRSimulator",
    "StackedFollowers",
    "TabularSimulator",
    "Trajectories",
    "TransitionVisits",
    "check_linear_leader",
    "from_rollouts",
    "gaussian_root",
    "joint_mdp",
    "sample_games",
    "sample_stopped_trajectories",
    "sample_suffixes",
    "sample_trajectories",
]
