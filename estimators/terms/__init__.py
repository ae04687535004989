"""Terms that methods share: the leader's own, and what is read along trajectories."""
