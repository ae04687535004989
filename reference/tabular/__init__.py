"""Configurable MDPs: a tabular process whose tables depend on θ, its follower and its leader."""
