"""The house: who may import whom, no circles, no crowded folder, no long module, small facades, no kind in a name."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"reference": 0, "estimators": 1, "tasks": 1, "verification": 2, "benchmarks": 3}
"""A package imports itself and packages on lower floors."""

MOST_FILES, MOST_LINES, MOST_NAMES, MOST_IN_ALL = 15, 400, 30, 90


def source_files(root: Path) -> dict[str, Path]:
    """Return {dotted module: file} of the product, packages by their own name."""
    found = {}
    for package in FLOORS:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(("bilevelrl", *parts)).removesuffix(".__init__")] = path
    return found


def imports(source: str, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that a source imports, in types and in function bodies too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules else node.module


def graph(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Return {module: modules that it imports}."""
    return {name: set(imports(path.read_text(encoding="utf-8"), modules)) for name, path in modules.items()}


def circles(arrows: dict[str, set[str]]) -> list[frozenset[str]]:
    """Return the strongly connected components of more than one module, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[frozenset[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for following in sorted(arrows.get(node, ())):
            if following not in index:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in stack:
                low[node] = min(low[node], index[following])
        if low[node] == index[node]:
            component = frozenset(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(component)

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found


MODULES = source_files(ROOT)
ARROWS = graph(MODULES)


def test_no_circle_of_imports_in_types_and_in_function_bodies_neither() -> None:
    assert not circles(ARROWS)


def inner_arrows(folder: str, arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return which folders and modules right inside a folder, or package, import which."""
    inside = f"{folder}."
    found: dict[str, set[str]] = {}
    for module, targets in arrows.items():
        if module.startswith(inside):
            child = module.removeprefix(inside).split(".")[0]
            into = {target.removeprefix(inside).split(".")[0] for target in targets if target.startswith(inside)}
            found.setdefault(child, set()).update(into - {child})
    return found


@pytest.mark.parametrize("folder", ["bilevelrl", *(name for name, path in MODULES.items() if path.stem == "__init__")])
def test_no_circle_between_folders(folder: str) -> None:
    assert not circles(inner_arrows(folder, ARROWS))


def test_data_flows_one_way() -> None:
    def package(module: str) -> str:
        return module.split(".")[1]

    upward = [
        f"{module} imports {imported}"
        for module, targets in ARROWS.items()
        for imported in targets
        if package(imported) != package(module) and FLOORS[package(imported)] >= FLOORS[package(module)]
    ]
    assert not upward


def names_of(facade: str) -> list[str]:
    """Return the names that a facade lists in `__all__`."""
    for node in ast.parse(MODULES[facade].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


FACADES = {name: names_of(name) for name, path in MODULES.items() if name.count(".") < 3 and path.stem == "__init__"}
"""What packages and the folders in them show to other packages."""


def past_facades(arrows: dict[str, set[str]]) -> set[str]:
    """Return the modules that another package imports past the facades of packages and of their folders.

    A module that the facade of its package names, `errors`, is not past it.
    """
    named = {f"{facade}.{name}" for facade, names in FACADES.items() for name in names}
    return {
        imported
        for module, targets in arrows.items()
        for imported in targets - FACADES.keys() - named
        if imported.split(".")[1] != module.split(".")[1]
    }


def test_packages_import_each_other_through_facades() -> None:
    assert not past_facades(ARROWS)


@pytest.mark.parametrize("top", [*FLOORS, "tests"])
def test_no_folder_is_crowded(top: str) -> None:
    files: dict[Path, int] = defaultdict(int)
    for path in (ROOT / top).rglob("*.py"):
        files[path.parent.relative_to(ROOT)] += 1
    assert not {str(folder): count for folder, count in files.items() if count > MOST_FILES}


def test_no_module_is_long() -> None:
    lengths = {name: path.read_text(encoding="utf-8").count("\n") for name, path in MODULES.items()}
    assert max(lengths.values()) > 300
    tests = ((str(path), path) for path in (ROOT / "tests").rglob("test_*.py"))
    lengths.update({name: path.read_text(encoding="utf-8").count("\n") for name, path in tests})
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def test_no_file_carries_its_kind_in_its_name() -> None:
    named = re.compile(r"(lqr|games?)_\w*\.py")
    assert not [str(path.relative_to(ROOT)) for path in MODULES.values() if named.fullmatch(path.name)]


LATER_KINDS = {"SeparateKernels": "separate_kernels", "GeneralObjective": "general_objective", "Mixture": "contexts"}
KNOWN_TO = {
    "bilevelrl.reference.approximations.approximation": "weighs what each context of a mixture gives",
    "bilevelrl.reference.best_response": "the type of the answer",
    "bilevelrl.reference.certified.certify": "evaluations of mixtures, by precision",
    "bilevelrl.tasks.scenarios.scenario": "a mixture is taken as one MDP, under its own name",
    "bilevelrl.verification.mutants.composed": "planted errors of them, by a formula that shares no code with routes",
}
"""Modules outside a later kind's own that know of it; may only shrink."""


def test_later_kinds_are_known_in_their_own_folders() -> None:
    knowing = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                knowing |= {(module, LATER_KINDS[alias.name]) for alias in node.names if alias.name in LATER_KINDS}
    assert {kind for _, kind in knowing} == set(LATER_KINDS.values())
    problems = ("bilevelrl.benchmarks.", "bilevelrl.tasks.paper.")  # which are made of them
    strangers = {
        module for module, kind in knowing if kind not in module.split(".") and not module.startswith(problems)
    }
    assert strangers == KNOWN_TO.keys()


def test_facades_are_small() -> None:
    sizes = {facade.removeprefix("bilevelrl."): len(names) for facade, names in FACADES.items()}
    assert {"reference", "estimators.training"} <= {facade for facade, size in sizes.items() if size > 10}
    assert not {facade: size for facade, size in sizes.items() if size > MOST_NAMES}
    assert 60 < sum(sizes.get(package, 0) for package in FLOORS) <= MOST_IN_ALL


def test_the_map_of_formulas_names_files_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    formulas = text.partition("## Where a formula stands")[2].partition("\n## ")[0]
    named = re.findall(r"`([\w/]+\.py)`", formulas)
    assert len(named) >= 12
    assert not [path for path in named if not (ROOT / path).is_file()]


def test_tests_mirror_the_folders() -> None:
    own = {"architecture", "docs", "fuzz", "helpers"}
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    strangers = [str(folder) for folder in folders if folder.parts[0] not in own and not (ROOT / folder).is_dir()]
    assert not strangers


def test_planted_circles_are_found() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}}
    assert circles(arrows) == [frozenset("abc")]
    apart = {"p.low.a": {"p.high.b"}, "p.high.b": set(), "p.high.c": {"p.low.d", "q"}, "p.low.d": {"p.low.a"}}
    assert not circles(apart)
    assert circles(inner_arrows("p", apart)) == [frozenset({"low", "high"})]
    allowed = {"bilevelrl.reference", "bilevelrl.reference.errors", "bilevelrl.reference.tabular", "bilevelrl.tasks.d"}
    past = {"bilevelrl.reference.registry", "bilevelrl.reference.tabular.model"}
    assert past_facades({"bilevelrl.tasks.a": allowed | past}) == past
    modules = {"x.y": Path(), "x.z": Path()}
    hidden = "def f():\n    from x import y\n    import x.z\n"
    assert set(imports(hidden, {**modules, "x": Path()})) == {"x.y", "x.z"}
