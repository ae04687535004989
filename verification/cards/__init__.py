"""Estimator cards: what an estimator claims, and everything that enumeration says of it, on one page."""

from bilevelrl.verification.cards.card import Card, Mistake, Place
from bilevelrl.verification.cards.compare import Change, compare_cards
from bilevelrl.verification.cards.measure import make_card
from bilevelrl.verification.cards.storage import read_card, save_card

__all__ = ["Card", "Change", "Mistake", "Place", "compare_cards", "make_card", "read_card", "save_card"]
