"""Spreads of the toy game's runs."""
