"""Terms that methods share: the leader's own, what kinds of problem answer, and fresh suffixes."""

from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.estimators.terms.answers import answers_of, follower_terms
from bilevelrl.estimators.terms.batched import SeedBatch, SeedEstimates

__all__ = ["AlongTrajectories", "SeedBatch", "SeedEstimates", "answers_of", "follower_terms"]
