"""Enclosures: what is no problem for them, precision that does not suffice, and how they print."""

from fractions import Fraction

import numpy as np
import pytest
from certified_cases import TABULAR, a_theta, form
from flint import arb, ctx

from bilevelrl.reference import ConfigurableMDP, Tables, certified_hypergradient, hypergradient
from bilevelrl.reference.certified import ClosedFormTable, Enclosure
from bilevelrl.reference.errors import (
    IllPosedError,
    InvalidInputError,
    MissingExtraError,
    PrecisionError,
    ShapeError,
    StochasticityError,
    TooLargeError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.tasks.scenarios.reference_data import reference_problem

pytestmark = pytest.mark.exact


# --- bad input --------------------------------------------------------------------------------------------------------


def test_precision_that_does_not_suffice_is_named():
    slow = reference_problem("mdp_discount_0.9999").closed_form
    with pytest.raises(PrecisionError, match=r"33 digits were not reached at 205 bits.*radius was.*maximum_bits=300"):
        certified_hypergradient(slow, digits=33, maximum_bits=300)
    assert certified_hypergradient(slow, digits=33, maximum_bits=500).bits == 410
    with pytest.raises(PrecisionError, match=r"at 0 bits.*762 bits would be the first"):
        certified_hypergradient(slow, digits=200, maximum_bits=700)


@pytest.mark.parametrize("digits", [0, -3, 1.5, True])
def test_invalid_digits(digits):
    with pytest.raises(InvalidInputError, match="digits="):
        certified_hypergradient(TABULAR["dense"], a_theta(TABULAR["dense"]), digits=digits)


def test_problems_without_certified_form():
    with pytest.raises(InvalidInputError, match="expected Problem or ClosedForm"):
        certified_hypergradient(object(), np.zeros(1))
    with pytest.raises(IllPosedError, match="diverges"):
        certified_hypergradient(TABULAR["dense"], a_theta(TABULAR["dense"]), discounted=False)


def test_too_many_states_are_refused(monkeypatch):
    monkeypatch.setattr("bilevelrl.reference.certified.tabular.tables.LARGEST_SYSTEM", 3)
    for name in ("dense", "toy"):  # the toy game has 3 states, and 6 with the leader's action
        with pytest.raises(TooLargeError, match="at most 3"):
            certified_hypergradient(TABULAR[name], a_theta(TABULAR[name]))


def test_a_row_whose_sum_moves_keeps_its_own_derivative():
    """Such a row means itself divided by its sum; its derivative is not divided."""
    listed, slopes = (0.5, 0.5 - 9e-13), np.array([[[1.0, 0.5]], [[0.0, 0.0]]])

    def tables(theta):
        transition = np.array([[listed], [[0.0, 1.0]]]) + slopes * theta[0]
        reward_leader = np.array([[1.0], [0.0]])
        return Tables(
            transition=transition, reward_follower=np.zeros((2, 1)), reward_leader=reward_leader,
            initial=np.array([1.0, 0.0]),
        )  # fmt: skip

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    stays = Fraction(listed[0]) / sum(map(Fraction, listed))
    truth = Fraction(1, 2) / (1 - stays / 2) ** 2  # of J = 1 / (1 - stays / 2), as stays moves by one
    found = certified_hypergradient(problem, np.zeros(1), digits=30)
    with ctx.workprec(200):
        assert found.value[0].contains(truth)
    for route in ("certified", "implicit", "complex_step"):
        answer = hypergradient(problem, np.zeros(1), route=route)
        assert abs(Fraction(float(answer.value[0])) - truth) <= answer.error_bound


def test_tables_that_are_no_problem():
    def problem(**changes):
        tables = {
            "transition": np.ones((1, 2, 1)),
            "reward_follower": np.zeros((1, 2)),
            "reward_leader": np.zeros((1, 2)),
            "initial": np.ones(1),
        } | changes
        return ConfigurableMDP(
            tables=lambda theta: Tables(**tables), discount_leader=0.5, discount_follower=0.9, temperature=1.0
        )

    with pytest.raises(InvalidInputError, match="reward_follower"):
        certified_hypergradient(problem(reward_follower=np.array([[0.0, np.nan]])), np.zeros(1))
    with pytest.raises(StochasticityError, match="transition"):
        certified_hypergradient(problem(transition=np.array([[[-0.5], [1.0]]])), np.zeros(1))


@pytest.mark.parametrize("discount", [1, 1.0, -0.5, float("nan")])
def test_closed_forms_refuse_discounts(discount):
    with pytest.raises(InvalidInputError, match="discount_follower"):
        form(discount_follower=discount)


def test_closed_forms_refuse_what_does_not_fit():
    with pytest.raises(InvalidInputError, match="temperature"):
        form(temperature=0)
    with pytest.raises(ShapeError, match="features"):
        form(theta=(0.0,))
    with pytest.raises(InvalidInputError, match="theta"):
        form(theta=(0.0, float("inf")))
    with pytest.raises(UnknownNameError, match="kind"):
        form(kind="bandit")
    tables = form().tables
    with pytest.raises(InvalidInputError, match="initial"):
        form(tables={name: table for name, table in tables.items() if name != "initial"})
    with pytest.raises(UnknownNameError, match="reward"):
        form(tables={**tables, "reward": tables["initial"]})
    with pytest.raises(InvalidInputError, match="feature of initial"):
        form(tables={**tables, "initial": ClosedFormTable(shape=(1,), slope=((0, 7, 1),))})
    with pytest.raises(InvalidInputError, match="flat index"):
        ClosedFormTable(shape=(2,), base={2: 1})
    with pytest.raises(InvalidInputError, match="finite"):
        ClosedFormTable(shape=(2,), base={1: float("nan")})
    for base, match in (({0: 2}, "sum of transition"), ({0: -1}, "transition")):
        wrong = ClosedFormTable(shape=(1, 3, 1), base=base)
        with pytest.raises(StochasticityError, match=match):
            certified_hypergradient(form(tables={**tables, "transition": wrong}))
    with pytest.raises(StochasticityError, match="initial"):
        certified_hypergradient(form(tables={**tables, "initial": ClosedFormTable(shape=(1,), base={0: 0.5})}))
    moving = ClosedFormTable(shape=(1, 3, 1), base={0: 1, 1: 1, 2: 1}, slope=((0, 0, 1),), link="normalise")
    with pytest.raises(UnsupportedError, match="normalise"):
        certified_hypergradient(form(tables={**tables, "transition": moving}))


def test_missing_flint_names_the_extra(monkeypatch):
    monkeypatch.setattr("bilevelrl.reference.certified.extra.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"bilevelrl\[certified\]"):
        hypergradient(TABULAR["dense"], a_theta(TABULAR["dense"]), route="certified")


def test_enclosures_as_decimals():
    with ctx.workprec(200):
        third = Enclosure(arb(1) / 3)
        value, radius = third.decimal(20)
        assert value == "3." + 19 * "3" + "e-1"
        read = Enclosure.parse(value, radius)
        assert read.contains(Fraction(1, 3))
        assert read.radius < 1e-19
        assert Enclosure(arb(0, "1e-50")).decimal(10)[0] == "0"
        assert float(Enclosure(arb("1e-60", "1e-50"))) == 0.0
    for wrong in (("x", "0"), ("1", "-1"), ("nan", "0"), ("1", "inf")):
        with pytest.raises(InvalidInputError, match="enclosure"):
            Enclosure.parse(*wrong)
