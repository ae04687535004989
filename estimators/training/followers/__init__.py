"""Followers during training: solved, stopped early, or learning from samples."""
