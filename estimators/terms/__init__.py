"""Terms that methods share: the leader's own, what kinds of problem answer, and fresh suffixes."""

from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.estimators.terms.batched import SeedBatch, SeedEstimates
from bilevelrl.estimators.terms.kinds import answers_of, follower_terms

__all__ = ["AlongTrajectories", "SeedBatch", "SeedEstimates", "answers_of", "follower_terms"]
