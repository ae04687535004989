"""What estimators see of problems that they do not see as they are."""

from bilevelrl.reference.seen.question import Seen, seen_by_estimators

__all__ = ["Seen", "seen_by_estimators"]
