"""Training of leaders of Markov games."""
