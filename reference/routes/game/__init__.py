"""Routes for Markov games."""
