"""Every door knows what its annotations ask for: a name that is not there would be a check left out without a word."""

import importlib
import pkgutil
from inspect import getmembers_static

import pytest

import bilevelrl.benchmarks
import bilevelrl.estimators
import bilevelrl.reference
import bilevelrl.tasks
import bilevelrl.verification
from bilevelrl.reference.doors import checked

pytestmark = pytest.mark.exact

PACKAGES = (bilevelrl.reference, bilevelrl.estimators, bilevelrl.tasks, bilevelrl.verification, bilevelrl.benchmarks)


def doors(package):
    """Yield (name, door) of all checked functions and methods of a package."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            if getattr(value, "__module__", None) == found.name:
                members = getmembers_static(value) if isinstance(value, type) else [("", value)]
                for name, member in members:
                    function = getattr(member, "__func__", member)
                    if hasattr(function, "rules"):
                        yield f"{found.name}.{value.__name__}.{name}".rstrip("."), function


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_all_annotations_of_all_doors_resolve(package):
    unresolved = {}
    for name, door in doors(package):
        try:
            door.rules()
        except NameError as error:
            unresolved[name] = str(error)
    assert not unresolved


def test_doors_are_found():
    names = {name for name, _ in doors(bilevelrl.reference)}
    assert {
        "bilevelrl.reference.registry.hypergradient",
        "bilevelrl.reference.registry.Hypergradient.__init__",
        "bilevelrl.reference.tabular.model.ConfigurableMDP.pullback",
    } <= names
    assert len(names) > 50


def test_a_name_that_is_not_there_is_an_error():
    @checked
    def planted(*, count: "NotImported") -> None:  # noqa: F821
        pass

    with pytest.raises(NameError, match="NotImported"):
        planted(count=3)
