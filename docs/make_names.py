"""Write `names.md`, the list of every public name for the API reference, from what the packages and folders show.

    python docs/make_names.py

`make docs` does so before it builds. A name is listed once, at the shallowest door that shows it.
"""

import importlib
import inspect
import pkgutil
import typing
from pathlib import Path

PACKAGES = ("reference", "estimators", "tasks", "verification", "benchmarks")
MODULES = (
    "reference.best_response",
    "reference.errors",
    "reference.registry",
    "estimators.registry",
    "tasks.registry",
    "benchmarks.sweeping.own_studies",
    "benchmarks.sweeping.sweep_grid",
    "benchmarks.sweeping.sweeps",
)
"""Modules behind the doors that users are sent to."""
PLUMBING = ("arrays", "doors", "package", "storage")
"""Folders whose doors are for the package itself."""
PAGE = Path(__file__).with_name("names.md")
HEAD = """# Names

Every public name, with its docstring and its source. What commands do is told by `bilevelrl --help`.
"""


def doors() -> dict[str, list[str]]:
    """Return {package or folder: names that it shows first}, packages before their folders."""
    modules = []
    for package in PACKAGES:
        top = importlib.import_module(f"bilevelrl.{package}")
        folders = sorted(
            entry.name for entry in pkgutil.iter_modules(top.__path__) if entry.ispkg and entry.name not in PLUMBING
        )
        modules += [top, *(importlib.import_module(f"bilevelrl.{package}.{folder}") for folder in folders)]
    modules += [importlib.import_module(f"bilevelrl.{module}") for module in MODULES]
    seen: set[tuple[str, int]] = set()
    found: dict[str, list[str]] = {}
    for module in sorted(modules, key=lambda module: module.__name__.count(".")):
        for name in sorted(getattr(module, "__all__", ())):
            entry = getattr(module, name)
            alias = typing.get_origin(entry) is not None or isinstance(entry, typing.TypeVar)
            if (name, id(entry)) not in seen and not alias and not inspect.ismodule(entry):
                seen.add((name, id(entry)))
                found.setdefault(module.__name__, []).append(name)
    order = {package: place for place, package in enumerate(PACKAGES)}
    return dict(sorted(found.items(), key=lambda pair: (order[pair[0].split(".")[1]], pair[0])))


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for door, names in doors().items():
        listed = "\n".join(f"   {name}" for name in names)
        parts.append(
            f"## {door}\n\n```{{eval-rst}}\n.. currentmodule:: {door}\n.. autosummary::\n   :toctree: api\n"
            f"   :nosignatures:\n\n{listed}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
