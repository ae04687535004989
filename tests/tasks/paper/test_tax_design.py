"""Tax design in cells: the formulas of its module, evaluated one action at a time with SciPy's distributions."""

import numpy as np
import pytest
from scipy.stats import norm, truncnorm

from bilevelrl.reference import hypergradient, leader_objective
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks.paper.tax_design import (
    PREFERENCES,
    TAX_ACTIONS,
    household,
    tax_actions,
    tax_design,
    tax_rates,
    tax_theta,
)

pytestmark = pytest.mark.exact

THETA = np.array([-1.2, 0.3, -2.0, 0.4])


@pytest.mark.parametrize("preferences", PREFERENCES)
def test_tables_are_what_the_formulas_say(preferences):
    cells = 8
    tables = household(preferences=preferences, temperature=0.2, cells=cells).tables_at(THETA)
    vat, income = 2.0 / (1.0 + np.exp(-THETA[:3])), 2.0 / (1.0 + np.exp(-THETA[3]))
    edges = np.linspace(-100.0, 100.0, cells + 1)
    np.testing.assert_allclose(tables.initial, np.diff(norm.cdf(edges, scale=np.sqrt(2.0))), rtol=1e-12, atol=1e-15)
    for index in range(0, 1250, 97):
        place = np.unravel_index(index, TAX_ACTIONS)
        hours, spent = 0.89 * place[0], 1.25 * np.array(place[1:])
        bought = spent / (1.0 + vat)
        for state in range(cells):
            assets = -100.0 + 25.0 * (state + 0.5)
            mean = min(max(assets + (1.0 - income) * hours - spent.sum(), -100.0), 100.0)
            law = truncnorm((-100.0 - mean) / 5.0, (100.0 - mean) / 5.0, loc=mean, scale=5.0)
            np.testing.assert_allclose(tables.transition[state, index], np.diff(law.cdf(edges)), rtol=0.0, atol=1e-13)
            worth = np.log(1.0 + assets / 20.0) if assets > 0.0 else assets
            liked = worth - 0.1 * hours**2 + np.prod(bought ** np.array(preferences))
            assert tables.reward_follower[state, index] == pytest.approx(liked, rel=1e-13)
            raised = 5.0 * np.log(1.0 + vat @ bought + income * hours)
            welfare = (assets if assets <= 0.0 else 0.0) + 15.0 * bought.mean() / 5.0 + raised
            assert tables.reward_leader[state, index] == pytest.approx(welfare, rel=1e-13)


def test_the_hypergradient_is_the_difference_of_objectives():
    problem, h = household(temperature=0.3, cells=7), 2e-4
    found = hypergradient(problem, THETA)

    def slope(step):
        return (leader_objective(problem, THETA + step) - leader_objective(problem, THETA - step)) / (2.0 * step.sum())

    for entry, unit in enumerate(np.eye(4)):
        near, far = slope(h * unit), slope(2.0 * h * unit)
        # Fourth order: h^4 J^(5) / 30, some 1e-14 here; rounding 1e-14 / h.
        assert found.value[entry] == pytest.approx((4.0 * near - far) / 3.0, abs=1e-9 * abs(found.value).max() + 1e-9)


def test_both_contexts_weigh_the_same_and_share_their_kernel():
    mixture = tax_design(temperature=0.3, cells=7)
    single = [leader_objective(context, THETA) for context in mixture.contexts]
    assert leader_objective(mixture, THETA) == pytest.approx(np.mean(single), rel=1e-13)
    one, other = (context.tables_at(THETA).transition for context in mixture.contexts)
    np.testing.assert_array_equal(one, other)


def test_cells_approach_what_has_none():
    found = [leader_objective(household(temperature=0.3, cells=cells), tax_theta()) for cells in (11, 21, 41)]
    assert abs(found[1] - found[2]) < abs(found[0] - found[1]) / 3.0


def test_bad_input_is_named():
    with pytest.raises(InvalidInputError, match="preferences"):
        household(preferences=(0.5, 0.5, 0.0))
    with pytest.raises(InvalidInputError, match="rate"):
        tax_theta(2.0)
    np.testing.assert_allclose(tax_rates(tax_theta(0.7)), 0.7, rtol=1e-14)
    assert tax_actions()[0].size == 1250
