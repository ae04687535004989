"""Two-player Markov games: the leader's policy is θ, the follower answers with or without seeing its action."""
