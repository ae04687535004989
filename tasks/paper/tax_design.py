"""Tax design: the leader sets value-added taxes and an income tax, the follower works, buys and lets its assets drift.

The follower has assets s, works h hours and spends c_i on each of three goods; with taxes τ_i on goods and y on income

    s' = m + 5 ε,  m = clip(s + (1 - y) h - Σ_i c_i, -100, 100),  ε standard normal, truncated so that s' stays in  (1)
    r_F = U(s) - h²/10 + Π_i (c_i / (1 + τ_i))^{ρ_i},   U(s) = log(1 + s/20) for s > 0, else s                      (2)
    r_L = min(s, 0) + 15 · mean_i (c_i / (1 + τ_i)) / 5 + 5 log(1 + Σ_i τ_i c_i / (1 + τ_i) + y h)                  (3)
    τ_i = 2 sigmoid(θ_i),  y = 2 sigmoid(θ_3),  θ ∈ R^4                                                             (4)

The preferences ρ are the context: (.6, .3, .1) or (.1, .7, .2), each with probability ½. Prices and the wage are 1.
Assets are put into cells of one width, and stand for their cell's centre; a cell's probability is what (1) lays on it.
The first assets are √2 times standard normal.

Reference: Thoma et al. (2024), arXiv:2406.01575 (HPGD), tax design; constants as released.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.scipy.special import erfc

from bilevelrl.reference import ConfigurableMDP, Tables
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.contexts import Mixture
from bilevelrl.reference.derivatives import sigmoid
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.registry import register_task

__all__ = ["PREFERENCES", "TAX_ACTIONS", "household", "tax_actions", "tax_design", "tax_rates", "tax_theta"]

PREFERENCES = ((0.6, 0.3, 0.1), (0.1, 0.7, 0.2))
"""ρ by context."""

HOURS = 0.89 * np.arange(10.0)
SPENDING = 1.25 * np.arange(5.0)
TAX_ACTIONS = (HOURS.size, SPENDING.size, SPENDING.size, SPENDING.size)
"""Choices of hours and of spending on each good; an action is one of each, in C order."""

BORDER = 100.0
NOISE = 5.0
DISCOUNT = 0.9
START_RATE = 0.3


def tax_theta(rate: float = START_RATE) -> FloatArray:
    """Return θ (4,) at which all four taxes are the same; published runs begin at .3.

    Raises
    ------
    InvalidInputError
        If the rate is not in (0, 2).

    Examples
    --------
    >>> [round(float(each), 12) for each in tax_rates(tax_theta(0.3))]
    [0.3, 0.3, 0.3, 0.3]
    """
    if not 0.0 < rate < 2.0:
        raise InvalidInputError(refusal("rate", rate, "a number in (0, 2)", "taxes are 2 sigmoid(θ)"))
    return np.full(4, np.log(rate / (2.0 - rate)))


def tax_rates(theta: Any) -> Any:
    """Return the taxes τ_1, τ_2, τ_3 and y at θ, formula (4) of the module's text, (4,); traceable."""
    return 2.0 * sigmoid(theta)  # (4)


def tax_actions() -> tuple[FloatArray, FloatArray]:
    """Return hours (A,) and spending (A, 3) of the A = 1250 actions.

    Examples
    --------
    >>> hours, spending = tax_actions()
    >>> hours.shape, spending.shape, float(hours.max()), spending[-1].tolist()
    ((1250,), (1250, 3), 8.01, [5.0, 5.0, 5.0])
    """
    hours, *goods = np.indices(TAX_ACTIONS).reshape(4, -1)
    return HOURS[hours], SPENDING[np.stack(goods, axis=1)]


def _between(low: Any, high: Any) -> Any:
    """The standard normal law of an interval; of one above zero by its mirror image, as probabilities near 1 round."""
    mirrored = low + high > 0.0
    low, high = anp.where(mirrored, -high, low), anp.where(mirrored, -low, high)
    return 0.5 * (erfc(-high / np.sqrt(2.0)) - erfc(-low / np.sqrt(2.0)))


@remade
@checked
def household(
    *, preferences: tuple[float, float, float] = PREFERENCES[0], temperature: float = 0.1, cells: Count = 21
) -> ConfigurableMDP:
    """Return tax design for one context.

    Parameters
    ----------
    preferences
        ρ_1, ρ_2, ρ_3 > 0.
    temperature
        β; published: .1, .2 and .3.
    cells
        Into which assets from -100 to 100 are put; from 21 to 81 entries of the hypergradient move by up to 5 %.

    Returns
    -------
    ConfigurableMDP
        S = cells, A = 1250; traced.

    Raises
    ------
    InvalidInputError
        If a preference is not positive.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> found = hypergradient(household(temperature=0.3, cells=11), tax_theta())
    >>> found.value.shape
    (4,)
    """
    if not all(share > 0.0 for share in preferences):
        raise InvalidInputError(refusal("preferences", preferences, "positive numbers", "leave no good unwanted"))
    width = 2.0 * BORDER / cells
    edges = -BORDER + width * np.arange(cells + 1)
    assets = edges[:-1] + width / 2.0
    hours, spending = tax_actions()
    worth = np.where(assets > 0.0, np.log1p(np.maximum(assets, 0.0) / 20.0), assets)
    liked = np.prod(spending ** np.array(preferences), axis=1)
    # Where an action leads depends on its hours and on all that is spent: 130 laws for 1250 actions.
    (worked, spent), law = np.unique(np.stack([hours, spending.sum(axis=1)]), axis=1, return_inverse=True)
    first = _between(edges[:-1] / np.sqrt(2.0), edges[1:] / np.sqrt(2.0))

    def tables(theta: Any) -> Tables:
        rates = tax_rates(theta)
        vat, income = rates[:3], rates[3]
        wanted = assets[:, None] + (1.0 - income) * worked - spent
        mean = anp.where(wanted > BORDER, BORDER, anp.where(wanted < -BORDER, -BORDER, wanted))
        steps = (edges - mean[..., None]) / NOISE
        moved = _between(steps[..., :-1], steps[..., 1:])
        moved = moved / anp.sum(moved, axis=-1, keepdims=True)  # (1)
        bought = spending / (1.0 + vat)
        pleasure = liked * anp.exp(-anp.sum(np.array(preferences) * anp.log(1.0 + vat)))
        taxes = anp.sum(vat * bought, axis=1) + income * hours
        return Tables(
            transition=moved[:, law],
            reward_follower=worth[:, None] + (pleasure - hours**2 / 10.0)[None],  # (2)
            reward_leader=np.minimum(assets, 0.0)[:, None]
            + (3.0 * anp.mean(bought, axis=1) + 5.0 * anp.log(1.0 + taxes))[None],  # (3)
            initial=first,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=DISCOUNT,
        discount_follower=DISCOUNT,
        temperature=temperature,
        theta_shape=(4,),
        name=f"household({preferences}, temperature={temperature:g}, cells={cells})",
    )


@register_task("tax_design", "HPGD's tax design, assets in cells: taxes on goods and income, two kinds of households")
@checked
def tax_design(*, temperature: float = 0.1, cells: Count = 21) -> Mixture:
    """Return tax design with both contexts; what is not listed is as in `household`.

    Parameters
    ----------
    temperature, cells
        As in `household`.

    Returns
    -------
    Mixture

    References
    ----------
    Thoma et al. (2024), arXiv:2406.01575 (HPGD), tax design.

    Examples
    --------
    >>> tax_design(cells=11).weights
    array([0.5, 0.5])
    """
    contexts = [household(preferences=each, temperature=temperature, cells=cells) for each in PREFERENCES]
    weights = np.full(len(contexts), 1.0 / len(contexts))
    return Mixture(contexts=contexts, weights=weights, name=f"tax_design(temperature={temperature:g}, cells={cells})")
