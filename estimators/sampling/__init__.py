"""Trajectories and the samplers that make them."""
