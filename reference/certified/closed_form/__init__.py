"""Closed forms of tables as data, and their enclosures in balls."""
