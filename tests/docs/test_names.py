"""The page of names lists every public name, once, and each has a docstring of its own."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def maker():
    specification = importlib.util.spec_from_file_location("make_names", ROOT / "docs" / "make_names.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_name_of_the_packages_is_there_with_a_docstring(maker):
    listed = {name for names in maker.doors().values() for name in names}
    for package in ("reference", "estimators", "tasks", "verification"):
        module = importlib.import_module(f"bilevelrl.{package}")
        missing = {name for name in module.__all__ if callable(getattr(module, name))}
        assert missing - listed == set()
    page = maker.page()
    assert all(f"\n   {name}\n" in page for name in listed)
    for door, names in maker.doors().items():
        for name in names:
            entry = getattr(importlib.import_module(door), name)
            if inspect.isclass(entry) or inspect.isfunction(entry):
                assert inspect.getdoc(entry), f"{door}.{name}"


def test_plain_signs_of_docstrings_stay_text():
    text = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    names: dict = {}
    exec(text[text.index("_EMPHASIS") : text.index("def setup")], {"re": re}, names)
    pattern = names["_EMPHASIS"]
    plain = pattern.sub(lambda sign: sign[1] or f"\\{sign[2]}", "max |V - V*| of `|a|`, the *follower* and (*shape, N)")
    assert plain == "max \\|V - V\\*\\| of `|a|`, the *follower* and (\\*shape, N)"
