"""Every example in a docstring runs, in the module under its installed name, with warnings as errors."""

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("reference", "estimators", "tasks", "verification", "benchmarks")


def modules():
    for name in PACKAGES:
        package = importlib.import_module(f"bilevelrl.{name}")
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.rpartition(".")[2].startswith("test_"):
                yield found.name


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples(name):
    module = importlib.import_module(name)
    failures = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(example, out=failures.append)
    assert not failures, "".join(failures)


def test_wrong_examples_are_caught():
    failures = []
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "planted", None, 0)
    doctest.DocTestRunner().run(example, out=failures.append)
    assert failures
