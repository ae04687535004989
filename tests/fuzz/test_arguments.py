"""No bad argument to a public function ends in a foreign exception: a sample of the cases, and the fuzz's own tests."""

import zlib
from typing import Protocol

import numpy as np
import pytest
from fuzz_arguments import GOOD, bad_values, cases, has_nan, is_container, judge, run_case
from valid_calls import public, valid_calls

from bilevelrl.reference.doors import Count, Probability, checked, like
from bilevelrl.reference.errors import InvalidInputError, TooLargeError

# What takes long, or writes files, is left to the large run.
SLOW = (
    "draw_",
    "certif",
    "check_",
    "assert_",
    "kill_matrix",
    "verify",
    "run_study",
    "reference_problem",
    "attribut",
    "Report",
)
SHARE = 60  # one case in so many


def test_every_public_name_has_a_valid_call():
    missing = [name for name, call in valid_calls().items() if call is None]
    assert not missing, f"no valid call is known for {missing}: add it to valid_calls.py"
    assert {name for name, _ in public()} >= set(valid_calls())


def _sample():
    for name, (function, arguments) in valid_calls().items():
        if any(part in name for part in SLOW):
            continue
        for argument, what in cases(name, arguments):
            if zlib.crc32(f"{name} {argument} {what}".encode()) % SHARE == 0:
                yield name, function, arguments, argument, what


@pytest.mark.exact
def test_bad_arguments_are_refused_by_name():
    bad = []
    for name, function, arguments, argument, what in _sample():
        outcome, detail = run_case(function, arguments, argument, what, is_container(function))
        if outcome not in GOOD:
            bad.append(f"{name}({argument}={what}): {outcome} {detail}")
    assert not bad, "\n".join(bad)


def planted(*, count=1, share=0.5):
    if share == 1.5:
        return np.nan
    return [0] * count  # a foreign TypeError for 1.5 and None


@pytest.mark.parametrize(
    ("argument", "value", "outcome"),
    [("count", 1.5, "foreign"), ("count", None, "foreign"), ("share", 1.5, "NaN"), ("count", 3, "answered")],
)
def test_planted_faults_are_reported(argument, value, outcome):
    assert judge(planted, {argument: value}, argument)[0] == outcome


def test_an_error_that_names_another_argument_is_reported():
    def wrong(*, states):
        raise InvalidInputError("actions=0: expected an integer >= 1; pass one")

    assert judge(wrong, {"states": 0}, "states")[0] == "unnamed"


def test_a_warning_is_reported():
    assert judge(lambda *, x: np.log(np.array(x)), {"x": -1.0}, "x")[0] == "foreign"


def test_nans_are_found_where_they_hide():
    assert has_nan({"a": [np.array([1.0, np.nan])]})
    assert not has_nan({"a": [np.array([1.0]), "nan", None]})


def test_bad_values_are_what_they_say():
    values = bad_values()
    assert len(values) >= 50
    assert np.isnan(values["array with nan"](np.zeros((2, 2)))[0, 0])
    assert not values["array, read only"](np.zeros(2)).flags.writeable
    assert values["array doubled"](np.zeros((2, 3))).shape == (4, 3)


class TestDoor:
    @checked
    def example(self, count: Count, share: Probability = 0.5, *, names: tuple[str, ...] = ()) -> tuple[int, float]:
        assert all(isinstance(name, str) for name in names)
        return count, share

    def test_right_arguments_pass_as_python_numbers(self):
        count, share = self.example(np.int64(2), np.float32(0.25), names=["a"])
        assert (type(count), type(share), count, share) == (int, float, 2, 0.25)

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ({"count": 0}, r"count=0: expected an integer >= 1"),
            ({"count": True}, r"count=True"),
            ({"count": 1.0}, r"count=1\.0"),
            ({"count": 1, "share": 1.5}, r"share=1\.5: expected a probability"),
            ({"count": 1, "share": "0.5"}, r"share='0\.5'"),
            ({"count": 1, "share": np.ma.masked}, r"share=masked"),
            ({"count": 1, "names": "ab"}, r"names='ab': expected a tuple"),
            ({"count": 1, "names": [1]}, r"names\[0\]=1: expected a str"),
        ],
    )
    def test_wrong_arguments_are_named(self, given, match):
        with pytest.raises(InvalidInputError, match=match):
            self.example(**given)

    def test_memory_is_spoken_of_in_the_sizes_that_the_caller_wrote(self):
        @checked
        def inner(*, entries: Count) -> None:
            raise MemoryError

        @checked
        def outer(*, rows: Count) -> None:
            inner(entries=rows**2)

        with pytest.raises(TooLargeError, match=r"outer\(rows=1000\): memory") as refused:
            outer(rows=1000)
        assert isinstance(refused.value.__cause__, MemoryError)

    def test_protocols_ask_for_their_members_or_for_a_function(self):
        class Named(Protocol):
            @property
            def title(self) -> str: ...

        class Told(Protocol):
            def __call__(self, text: str) -> None: ...

        class Right:
            title = "of the class"

        class Maybe:
            def __init__(self, title):
                if title:
                    self.title = title

        named, told = like(Named), like(Told)
        for right in (Right(), Maybe("of the instance"), Right()):
            assert named("it", right) is right
        for wrong in (Maybe(""), 1.0):
            with pytest.raises(InvalidInputError, match=r"^it=.*an object with title; it lacks title"):
                named("it", wrong)
        assert told("it", print) is print
        with pytest.raises(InvalidInputError, match=r"^it=1\.0: expected a function"):
            told("it", 1.0)
