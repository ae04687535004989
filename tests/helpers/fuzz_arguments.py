"""Bad arguments to every public function: one argument at a time is replaced by each of many bad values.

Good is an error of the package's own that names the argument, or an answer without NaN where the value will do. Bad is
a foreign exception, a warning, a NaN, an own error that does not name the argument, or no answer within the limit.

    python tests/helpers/fuzz_arguments.py --all             every case, counts by function and package
    python tests/helpers/fuzz_arguments.py --only Tables     the functions whose name contains it, with their bad cases
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import inspect
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from valid_calls import kit, valid_calls

from bilevelrl.reference.errors import BilevelRLError, MissingExtraError

LIMIT = 5.0  # seconds of CPU for one call: a busy machine is no fault
MEMORY = 6 * 2**30  # what a call may take, so that sizes out of reach fail at once
GOOD = ("answered", "refused")


plt.switch_backend("Agg")


class PlantedError(Exception):
    """What a user's function raises."""


class OutOfTimeError(BaseException):
    """No answer within the limit; no `except Exception` catches it."""


def _raises(*args, **kwargs):
    raise PlantedError("a user's function failed")


def _returns(value):
    return lambda *args, **kwargs: value


def _array_like(good, change):
    """The valid value changed, where it is an array of numbers; else a small array changed."""
    usable = isinstance(good, np.ndarray) and good.dtype.kind in "fiub" and good.size
    return change(np.array(good if usable else np.ones(3)))


def _filled(array, value):
    array = array.astype(float)
    array.reshape(-1)[0] = value
    return array


def _read_only(array):
    array.setflags(write=False)
    return array


def _keys(good, change):
    return change(dict(good)) if isinstance(good, Mapping) and good else change({"direct": np.ones(2)})


def _plain(value):
    return lambda good: value


def bad_values():
    """Return {what it is: valid value → bad value}."""
    plain = {
        "None": None,
        "text": "nonsense",
        "empty text": "",
        "bytes": b"bytes",
        "True": True,
        "-1": -1,
        "0": 0,
        "1.5": 1.5,
        "-0.5": -0.5,
        "nan": np.nan,
        "inf": np.inf,
        "-inf": -np.inf,
        "2**40": 2**40,
        "10**30": 10**30,
        "-10**30": -(10**30),
        "1e300": 1e300,
        "complex": 1j,
        "float32": np.float32(0.5),
        "int8": np.int8(3),
        "0-d": np.array(0.5),
        "empty list": [],
        "empty dict": {},
        "ragged": [[1.0], [1.0, 2.0]],
        "list of None": [None],
        "list of text": ["a", "b"],
        "set": {1, 2},
        "tuple": (1, 2),
        "object": object(),
        "a class": dict,
        "raises": _raises,
        "returns None": _returns(None),
        "returns nan": _returns(np.nan),
        "returns text": _returns("nonsense"),
        "returns a wrong shape": _returns(np.ones((2, 3))),
        "no entries": np.zeros(0),
        "four axes": np.ones((2, 2, 2, 2)),
        "text array": np.array(["a", "b"]),
        "objects": np.array([None, object()]),
        "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
        "masked": np.ma.masked_array(np.ones(3), [0, 1, 0]),
        "masked constant": np.ma.masked,
    }
    values = {what: _plain(value) for what, value in plain.items()}
    values |= {
        "generator": lambda good: (entry for entry in (1, 2)),
        "another problem": lambda good: (
            kit("lqr")["problem"] if type(good).__name__ != "ConfigurableLQR" else kit("game")["problem"]
        ),
        "its class": lambda good: type(good),
        "array with nan": lambda good: _array_like(good, lambda array: _filled(array, np.nan)),
        "array with inf": lambda good: _array_like(good, lambda array: _filled(array, np.inf)),
        "array negated": lambda good: _array_like(good, lambda array: -array if array.dtype.kind != "b" else ~array),
        "array doubled": lambda good: _array_like(good, lambda array: np.concatenate(2 * [np.atleast_1d(array)])),
        "array with an axis more": lambda good: _array_like(good, lambda array: array[None]),
        "array of complex": lambda good: _array_like(good, lambda array: array.astype(complex)),
        "array of float32": lambda good: _array_like(good, lambda array: array.astype(np.float32)),
        "array of booleans": lambda good: _array_like(good, lambda array: array.astype(bool)),
        "array as a list": lambda good: _array_like(good, lambda array: array.tolist()),
        "array, read only": lambda good: _array_like(good, _read_only),
        "array plus 1000": lambda good: _array_like(good, lambda array: array + 1000),
        "unknown key": lambda good: _keys(good, lambda entries: entries | {"unknown": next(iter(entries.values()))}),
        "bad entry": lambda good: _keys(good, lambda entries: dict.fromkeys(entries, "nonsense")),
        "nan entry": lambda good: _keys(good, lambda entries: dict.fromkeys(entries, np.nan)),
    }
    return values


def has_nan(value, depth=4):
    """Whether there is a NaN in a number, an array, a container or a dataclass."""
    if depth == 0 or isinstance(value, (str, bytes, type)):
        return False
    if isinstance(value, (float, complex, np.number)):
        return bool(np.isnan(value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc" and bool(np.isnan(value).any())
    if isinstance(value, Mapping):
        return any(has_nan(entry, depth - 1) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_nan(entry, depth - 1) for entry in value[:100])
    if dataclasses.is_dataclass(value):
        return any(has_nan(getattr(value, entry.name, None), depth - 1) for entry in dataclasses.fields(value))
    return False


NO_ANSWER = {"PolicyCovariance.conditional_moments"}
"""What refuses every call, and says why."""

TAKES_LONG = {
    ("check_estimator", "on", "None"),
    ("kill_matrix", "mutants", "None"),
    ("kill_matrix", "correct", "None"),
    ("run_study", "estimators", "None"),
    ("run_study", "on", "None"),
    ("verify", "estimator", "None"),
    ("verify", "scenarios", "None"),
}
"""Right calls that do all there is to do."""


CONTAINERS = ("Tables", "LQRMatrices", "LeaderGaussian", "SparseTransition")


def is_container(function):
    """Whether it makes a record of results, or entries that are judged when a problem is evaluated: they hold NaN."""
    owner = getattr(function, "__self__", None)
    if not inspect.isclass(function):  # copies with some entries replaced are judged no earlier than what they copy
        return type(owner).__name__ in CONTAINERS and function.__name__ == "replace"
    return function.__name__ in CONTAINERS or not getattr(function.__init__, "finite", True)


def _where(error):
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    frame = (own or frames or [None])[-1]
    return "" if frame is None else f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"


def judge(function, arguments, argument, may_be_nan=False):
    """Return (outcome, detail) of one call; outcomes in `GOOD` are good."""

    def out_of_time(*_):
        raise OutOfTimeError

    previous = signal.signal(signal.SIGPROF, out_of_time)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = function(**arguments)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        return ("NaN", "") if has_nan(found) and not may_be_nan else ("answered", "")
    except BilevelRLError as error:
        named = re.search(rf"\b{re.escape(argument)}\b", str(error)) or isinstance(error, AssertionError)
        return ("refused", "") if named else ("unnamed", f"{type(error).__name__}: {str(error)[:150]}")
    except OutOfTimeError as error:
        return "hang", _where(error)
    except Exception as error:
        return "foreign", f"{type(error).__name__} at {_where(error)}: {str(error)[:120]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        plt.close("all")
        signal.signal(signal.SIGPROF, previous)


def cases(name, arguments):
    """Return [(argument, what the bad value is)]."""
    every = [(argument, what) for argument in arguments for what in bad_values()]
    return [(argument, what) for argument, what in every if (name, argument, what) not in TAKES_LONG]


def run_case(function, arguments, argument, what, may_be_nan=False):
    """Judge a call with one argument replaced."""
    return judge(function, arguments | {argument: bad_values()[what](arguments[argument])}, argument, may_be_nan)


def _work(name, start, pipe):
    function, arguments = valid_calls()[name]
    os.chdir(tempfile.mkdtemp())  # bad paths are written to
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    may_be_nan = name not in NO_ANSWER and (is_container(function) or has_nan(function(**arguments)))
    for argument, what in cases(name, arguments)[start:]:
        pipe.send(run_case(function, arguments, argument, what, may_be_nan))
    pipe.close()


def run_function(name):
    """Return [((argument, what), (outcome, detail))] of all cases of one function, run in processes of their own."""
    listed, outcomes = cases(name, valid_calls()[name][1]), []
    context = multiprocessing.get_context("fork")
    while len(outcomes) < len(listed):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, len(outcomes), writer))
        process.start()
        writer.close()
        while len(outcomes) < len(listed):
            try:
                if not reader.poll(12 * LIMIT):
                    outcomes.append(("hang", "no signal was heard"))
                    process.kill()
                    break
                outcomes.append(reader.recv())
            except EOFError:
                outcomes.append(("died", "the process ended"))
                break
        process.join()
    return list(zip(listed, outcomes, strict=True))


def main(argv=None):
    parser = argparse.ArgumentParser(description="Call every public function with bad arguments.")
    parser.add_argument("--all", action="store_true", help="every function")
    parser.add_argument("--only", nargs="*", default=[], help="functions whose name contains one of these")
    parser.add_argument("--package", help="functions of this package")
    options = parser.parse_args(argv)
    if not (options.all or options.only or options.package):
        parser.error("expected --all, --only NAME or --package NAME")
    totals = collections.defaultdict(collections.Counter)
    for name in valid_calls():
        package = package_of(name)
        try:
            if name in ("from_jax", "from_torch"):  # of another library, which may be absent
                function, arguments = valid_calls()[name]
                function(**arguments)
        except MissingExtraError as missing:
            print(f"{package}.{name}: left out: {missing}")
            continue
        if options.only and not any(part in name for part in options.only):
            continue
        if options.package and package != options.package:
            continue
        found = run_function(name)
        counts = collections.Counter(outcome for _, (outcome, _) in found)
        totals[package].update(counts)
        bad = [entry for entry in found if entry[1][0] not in GOOD]
        print(f"{package}.{name}: {len(bad)} bad of {len(found)}  {dict(counts)}", flush=True)
        for (argument, what), (outcome, detail) in bad:
            print(f"    {argument} = {what}: {outcome} {detail}")
    for package, counts in totals.items():
        bad = sum(counts.values()) - sum(counts[good] for good in GOOD)
        print(f"{package}: {bad} bad of {sum(counts.values())}  {dict(counts)}")
    total = sum(totals.values(), collections.Counter())
    bad = sum(total.values()) - sum(total[good] for good in GOOD)
    print(f"total: {bad} bad of {sum(total.values())}")
    return int(bad > 0)


def package_of(name):
    """Return the package in whose facade a name stands."""
    from valid_calls import public

    module = inspect.unwrap(dict(public())[name]).__module__
    return module.split(".")[1]


if __name__ == "__main__":
    sys.exit(main())
