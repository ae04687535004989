"""Scalars are Python floats from the door on: a number's type changes no answer, and what is none is refused."""

import math
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import public_names
import pytest

import bilevelrl.benchmarks.research.model_based
import bilevelrl.estimators.training
from bilevelrl.reference import hypergradient
from bilevelrl.reference.arrays import as_float, check_discount, check_number, check_positive
from bilevelrl.reference.best_response import SuboptimalFollower
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import random_lqr, random_lqr_game, random_markov_game, random_mdp

THETA = np.array([0.1, -0.2, 0.05])
KINDS = {
    "mdp": random_mdp(states=4, actions=2, parameters=3, seed=0),
    "game": random_markov_game(states=3, leader_actions=2, actions=2, seed=0),
    "lqr": random_lqr(states=2, actions=1),
    "lqr game": random_lqr_game(states=1),
}
NAMES = ("discount_leader", "discount_follower", "temperature")
HALF = [
    np.float16(0.5),
    np.float32(0.5),
    np.longdouble(0.5),
    np.array(0.5),
    np.array(0.5, "f4"),
    Fraction(1, 2),
    Decimal("0.5"),
]
NO_NUMBERS = [
    True,
    np.bool_(True),
    np.array(True),
    "0.5",
    np.str_("0.5"),
    b"1",
    None,
    0.5 + 0j,
    np.complex128(0.5),
    math.nan,
    np.float32("nan"),
    np.array(np.nan),
    Decimal("NaN"),
    Decimal("sNaN"),
    [0.5],
    np.array([0.5]),
    np.datetime64("2026-01-01"),
    np.timedelta64(1, "s"),
    10**400,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half", HALF, ids=repr)
def test_the_type_of_a_scalar_changes_no_bit(kind, half):
    problem = KINDS[kind]
    wanted = hypergradient(replace(problem, **dict.fromkeys(NAMES, 0.5)), THETA)
    for name in NAMES:
        found = replace(problem, **{**dict.fromkeys(NAMES, 0.5), name: half})
        assert all(type(getattr(found, name)) is float for name in NAMES)
        assert np.array_equal(hypergradient(found, THETA).value, wanted.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [np.float32(0.9), np.float16(0.9)], ids=repr)
def test_a_coarse_discount_is_its_exact_value_and_shares_nothing(kind, number):
    # 0.9 in float32 is 0.89999997615814208984375, in float16 0.89990234375; neither is 0.9.
    mixed = replace(KINDS[kind], discount_leader=0.9, discount_follower=number)
    exact = {np.float32: 0.89999997615814208984375, np.float16: 0.89990234375}[type(number)]
    assert mixed.discount_follower == exact
    assert mixed.discount_follower != mixed.discount_leader
    found = hypergradient(mixed, THETA)
    truth = hypergradient(replace(mixed, discount_follower=exact), THETA, route="finite_difference")
    assert np.abs(found.value - truth.value).max() <= found.error_bound + truth.error_bound
    shared = hypergradient(replace(mixed, discount_leader=exact), THETA)  # what reusing the factorisation would give
    assert np.abs(found.value - shared.value).max() > found.error_bound + shared.error_bound


@pytest.mark.parametrize("number", [1, np.int64(1), np.uint8(1), np.array(1)], ids=repr)
def test_whole_numbers_are_temperatures(number):
    for problem in KINDS.values():
        assert replace(problem, temperature=number).temperature == 1.0


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused_by_name(value):
    for problem in KINDS.values():
        for name in NAMES:
            with pytest.raises(InvalidInputError, match=f"^{name}="):
                replace(problem, **{name: value})
    for check in (as_float, check_discount, check_number):
        with pytest.raises(InvalidInputError, match=r"^argument="):
            check("argument", value)
    with pytest.raises(InvalidInputError, match=r"^argument="):
        check_positive("argument", value, "pass one")
    with pytest.raises(InvalidInputError, match=r"^noise="):
        SuboptimalFollower(iterations=1, carry=False, noise=value)


NUMBERS = {"float", "Real", "Share", "Rate", "Positive", "NonNegative", "Probability"}


def default_instances():
    """Every public dataclass with float fields that can be made without arguments."""
    named = {**vars(public_names.estimators), **vars(public_names.tasks)}
    for module in (bilevelrl.estimators.training, bilevelrl.benchmarks.research.model_based):
        named.update({name: getattr(module, name) for name in module.__all__})
    for name, kind in named.items():
        if isinstance(kind, type) and is_dataclass(kind) and hasattr(kind, "__post_init__"):
            try:
                instance = kind()
            except TypeError:
                continue
            numbers = [entry.name for entry in fields(instance) if str(entry.type).removesuffix(" | None") in NUMBERS]
            if numbers:
                yield pytest.param(instance, numbers, id=name)


@pytest.mark.parametrize(("instance", "numbers"), list(default_instances()))
def test_every_public_class_stores_floats(instance, numbers):
    for name in numbers:
        value = getattr(instance, name)
        given = np.float32(0.5) if value is None else np.float64(value)
        try:
            assert type(getattr(replace(instance, **{name: given}), name)) is float
        except InvalidInputError as refused:  # an option that others of this instance exclude
            assert value is None, refused  # noqa: PT017
        for wrong in ("0.5", True, 1j, math.nan):
            with pytest.raises(InvalidInputError, match=f"^{name}="):
                replace(instance, **{name: wrong})


def test_classes_are_found():
    found = {parameter.id for parameter in default_instances()}
    assert {"BCHG", "SGD", "Adam"} & found
    assert len(found) >= 6, found


class Large:
    """An object whose text costs more than what is done with it."""

    def __repr__(self):
        raise AssertionError("no message was needed")


class Larger(Large):
    """Another."""


@pytest.mark.parametrize("value", [Larger(), Large(), None])
def test_what_one_of_several_kinds_accepts_is_never_written_out(value):
    @checked
    def solve(given: SuboptimalFollower | Large | None) -> object:
        return given

    assert solve(value) is value
    with pytest.raises(InvalidInputError, match="given='none of these': expected None or SuboptimalFollower or Large"):
        solve("none of these")
