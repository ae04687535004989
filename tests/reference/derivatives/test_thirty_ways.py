"""However a reward, a kernel, a regulator or a leader's policy is written, each route is right or refuses by name.

Right answers come from dense formulas (`tests/helpers/thirty_ways.py`); a refusal is an error of this package. No
wrong number, no NaN, no foreign exception passes. Every problem is asked at θ on either side of a kink, in both orders.
"""

import importlib.util
import types
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from thirty_ways import FORMULAS, KINDS, POINTS, RETURNS, problem_of, truth
from thirty_ways_written import JAX, TORCH, WAYS

from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient, leader_objective
from bilevelrl.reference.errors import BilevelRLError

HEAVY = frozenset({"certified", "finite_difference", "unrolled", "complex_step", "forward"})
"""Asked once per way, after another θ has been; of tables that begin to depend on θ as often as all others."""

INSTALLED = [
    *WAYS,
    *(JAX if importlib.util.find_spec("jax") else []),
    *(TORCH if importlib.util.find_spec("torch") else []),
]
CASES = [(kind, way) for way in INSTALLED for kind in KINDS if kind in way.kinds]
FLINT = importlib.util.find_spec("flint") is not None


def routes_of(problem):
    return sorted(
        name
        for name, route in HYPERGRADIENT_ROUTES.items()
        if type(problem) in route.kinds and (FLINT or name != "certified")
    )


def answer(compute):
    """What a user gets: ("value", array), ("refused", sentence) or ("foreign", exception)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a number that comes with a warning is a number
            return "value", np.atleast_1d(np.asarray(compute(), dtype=np.float64))
    except BilevelRLError as refused:
        return "refused", str(refused)
    except Exception as foreign:  # whatever it is: it is what is looked for
        return "foreign", repr(foreign)


def judged(outcome, right, relative):
    """ "right", "refused", or a sentence about what is wrong."""
    kind, found = outcome
    if kind == "refused":
        return "refused"
    if kind == "foreign":
        return f"raises {found}"
    right = np.atleast_1d(right)
    size = max(float(np.abs(right).max()), 0.1)  # gradients here are of size 1; one of them is zero
    if found.shape == right.shape and np.abs(found - right).max() <= relative * size:
        return "right"
    return f"says {found.tolist()}, right is {right.tolist()}"


def verdicts(kind, way):
    """{(order, point, route): verdict}; one problem object answers for both points of an order."""
    found = {}
    once = sum(map(ord, way.name)) % 2  # the point at which heavy routes are asked
    for order in (0, 1):
        problem = problem_of(kind, way)
        for point in (order, 1 - order):
            everything = way.formula == "toll" or (order != once and point == once)
            objective, gradient = truth(kind, way.formula, point)
            theta = POINTS[point].copy()
            outcome = answer(lambda: leader_objective(problem, theta))  # noqa: B023
            found[order, point, "J"] = judged(outcome, objective, max(way.relative, 1e-10))
            for route in routes_of(problem):
                if route in HEAVY and not everything:
                    continue
                theta = POINTS[point].copy()
                outcome = answer(lambda: hypergradient(problem, theta, route=route, bound=False).value)  # noqa: B023
                found[order, point, route] = judged(outcome, gradient, way.relative)
                assert np.array_equal(theta, POINTS[point])
    return found


def wrong(found):
    """The verdicts that are neither right nor a refusal."""
    return {where: verdict for where, verdict in found.items() if verdict not in ("right", "refused")}


@pytest.mark.parametrize(("kind", "way"), CASES, ids=[f"{kind}: {way.name}" for kind, way in CASES])
def test_right_or_refused(kind, way):
    assert wrong(verdicts(kind, way)) == {}


WRAPPED = [way for way in INSTALLED if way.name.endswith(("from_jax", "from_torch"))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WRAPPED, ids=lambda way: way.name)
def test_another_library_s_functions_are_right(kind, way):
    """Not only not wrong: what they refuse is a complex θ that an operation of theirs does not take."""
    assert {route for (_, _, route), verdict in verdicts(kind, way).items() if verdict == "refused"} <= {"complex_step"}


def test_there_are_thirty_ways_of_each():
    for kind in KINDS:
        names = {way.name for way in WAYS if kind in way.kinds}
        assert len(names) >= 30


# --- the test is tested --------------------------------------------------------------------------------------------


def test_right_answers_hold_by_differences():
    """The complex step through the dense formulas against differences of the dense formulas."""
    for kind in KINDS:
        for point, theta in enumerate(POINTS):
            value, gradient = truth(kind, "full", point)
            for j, unit in enumerate(np.eye(2)):
                ahead, behind = (RETURNS[kind](FORMULAS["full"](theta + h * unit)).real for h in (1e-5, -1e-5))
                assert (ahead - behind) / 2e-5 == pytest.approx(gradient[j], rel=1e-6, abs=1e-8)
                assert 0.5 * (ahead + behind) == pytest.approx(value, rel=1e-6)


def named(name):
    return next(way for way in WAYS if way.name == name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "planted",
    [
        lambda exact: 0.0 * exact,
        lambda exact: exact * [1.0, -1.0],
        lambda exact: exact * (1.0 + 1e-6),
        lambda exact: exact + np.nan,
    ],
    ids=["zero", "a sign", "the seventh digit", "NaN"],
)
def test_a_wrong_route_is_seen(kind, planted, monkeypatch):
    way = named("autograd, dot")
    right = verdicts(kind, way)
    assert wrong(right) == {}
    assert set(right.values()) == {"right"}
    exact = HYPERGRADIENT_ROUTES["implicit"].kinds[type(problem_of(kind, way))]

    def silently_wrong(*arguments, **options):
        found = exact(*arguments, **options)
        return replace(found, value=planted(found.value))

    monkeypatch.setitem(HYPERGRADIENT_ROUTES["implicit"].kinds, type(problem_of(kind, way)), silently_wrong)
    assert {route for _, _, route in wrong(verdicts(kind, way))} == {"implicit"}


def test_a_foreign_exception_and_a_remembered_answer_are_seen(monkeypatch):
    way, kind = named("toll, if and autograd"), "reward"
    cls = type(problem_of(kind, way))
    exact = HYPERGRADIENT_ROUTES["implicit"].kinds[cls]

    def raises(*arguments, **options):
        raise TypeError("only length-1 arrays")

    # As if it were the package's own: what a caller's route raises is told as such.
    own = types.FunctionType(raises.__code__, {"__name__": "bilevelrl.planted", "__builtins__": __builtins__})
    monkeypatch.setitem(HYPERGRADIENT_ROUTES["implicit"].kinds, cls, own)
    assert set(wrong(verdicts(kind, way)).values()) == {"raises TypeError('only length-1 arrays')"}

    first: dict[int, Any] = {}

    def remembers(at, **options):
        return first.setdefault(id(at.problem), exact(at, **options))

    monkeypatch.setitem(HYPERGRADIENT_ROUTES["implicit"].kinds, cls, remembers)
    assert set(wrong(verdicts(kind, way))) == {(0, 1, "implicit"), (1, 0, "implicit")}


def test_plain_numpy_by_differences_and_autograd_everywhere():
    """Refusals are no excuse: what a route promises for a way, it gives."""
    for kind in KINDS:
        found = verdicts(kind, named("floats and math"))
        gives = {route for (_, _, route), verdict in found.items() if verdict == "right"}
        assert gives == {"J", "finite_difference"}
