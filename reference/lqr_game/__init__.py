"""LQR games: the leader plays Gaussian actions that the follower sees."""
