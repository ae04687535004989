"""Followers that are not best responses."""
