"""One declared rate of false alarms for a whole run, and an account of what each check has spent of it.

The probability that some check of a run fails something correct is at most the sum of their rates (Boole), whatever
their dependence. So a run declares one rate, every check takes its rate out of it, and nothing can be taken twice.
Within a check the rate is split evenly over its comparisons (Bonferroni); that is the check's own affair, and the
number of comparisons is written down with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bilevelrl.reference.doors import Count, Positive, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.verification.statistics.designs import ERROR_RATE, TestRate

__all__ = ["ErrorBudget", "Expense"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expense:
    """What one check has taken.

    Attributes
    ----------
    check : str
        Which.
    rate : float
        Probability of a false alarm by this check, at most.
    comparisons : int
        Over how many comparisons it is split.
    """

    check: str
    rate: float
    comparisons: int


class ErrorBudget:
    """A rate of false alarms for a whole run, spent check by check.

    Parameters
    ----------
    total
        Probability, at most, that any check of the run fails something correct.

    Raises
    ------
    InvalidInputError
        If the total is not strictly between 0 and 1.

    Examples
    --------
    >>> budget = ErrorBudget(1e-6)
    >>> rates = budget.split({"mean": 105, "covariance": 5565})
    >>> rates["mean"], budget.remaining
    (5e-07, 0.0)
    >>> print(budget)
    error budget 1e-06: 1e-06 spent on 2 checks (mean: 5e-07 over 105 comparisons; covariance: 5e-07 over 5565)
    """

    @checked
    def __init__(self, total: TestRate = ERROR_RATE) -> None:
        self.total = total
        self._expenses: list[Expense] = []

    @property
    def spent(self) -> float:
        """Sum of the rates taken so far."""
        return math.fsum(expense.rate for expense in self._expenses)

    @property
    def remaining(self) -> float:
        """What is left, never negative."""
        left = self.total - self.spent
        return left if left > 4 * math.ulp(self.total) * max(1, len(self._expenses)) else 0.0

    @checked
    def spend(self, check: str, rate: Positive, *, comparisons: Count = 1) -> float:
        """Take a rate for one check and return it.

        Raises
        ------
        InvalidInputError
            If the rate is not positive, or more than what remains.
        """
        if rate - self.remaining > 4 * math.ulp(self.total) * (1 + len(self._expenses)):
            raise InvalidInputError(
                refusal(
                    "rate",
                    rate,
                    f"at most the remaining {self.remaining:.3g} of {self.total:.3g}",
                    f"declare a larger budget, or split it over all checks at the start; {check!r} gets nothing",
                )
            )
        self._expenses.append(Expense(check=check, rate=rate, comparisons=comparisons))
        return rate

    @checked
    def split(self, checks: Mapping[str, int]) -> dict[str, float]:
        """Spend all that remains evenly on {check: number of comparisons}; return {check: rate}."""
        if not checks:
            raise InvalidInputError(refusal("checks", dict(checks), "at least one check", "name what will be tested"))
        rate = self.remaining / len(checks)
        return {check: self.spend(check, rate, comparisons=count) for check, count in checks.items()}

    def __str__(self) -> str:
        """The account in one line."""
        entries = [f"{e.check}: {e.rate:.2g} over {e.comparisons}" for e in self._expenses]
        if entries:
            entries[0] += " comparisons"
        listed = f" ({'; '.join(entries)})" if entries else ""
        return f"error budget {self.total:.2g}: {self.spent:.2g} spent on {len(entries)} checks{listed}"
