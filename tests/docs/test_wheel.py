"""What is installed from a wheel: every package but the studies and the timings, and it does without them."""

import importlib
import os
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bilevelrl.benchmarks.sweeping.figures import FIGURE_MODULES, STUDY_MODULES, all_figures, studies_present

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = CONFIGURATION["tool"]["setuptools"]
DIRECTORIES = SETUPTOOLS["package-dir"]
NOT_INSTALLED = ("benchmarks/research", "benchmarks/suite")


def installed_folders() -> set[str]:
    """Return the packages of the tree that a wheel should have, as folders."""
    folders = {
        str(path.parent.relative_to(ROOT)) for name in DIRECTORIES.values() for path in (ROOT / name).rglob("*.py")
    }
    return {folder for folder in folders if not f"{folder}/".startswith(tuple(f"{name}/" for name in NOT_INSTALLED))}


def listed_folders(packages: list[str]) -> set[str]:
    """Return the folders of packages; that of `bilevelrl` itself is declared."""
    return {DIRECTORIES.get(package, package.removeprefix("bilevelrl.").replace(".", "/")) for package in packages}


def test_every_package_is_listed_and_none_that_does_not_exist() -> None:
    assert listed_folders(SETUPTOOLS["packages"]) == installed_folders()
    assert all((ROOT / folder / "__init__.py").is_file() for folder in installed_folders())
    assert len(SETUPTOOLS["packages"]) == len(set(SETUPTOOLS["packages"]))
    assert all((ROOT / name).is_dir() for name in NOT_INSTALLED)


def test_a_package_that_is_forgotten_or_too_many_is_seen() -> None:
    packages = SETUPTOOLS["packages"]
    assert all(listed_folders([*packages[:k], *packages[k + 1 :]]) != installed_folders() for k in range(len(packages)))
    assert listed_folders([*packages, "bilevelrl.benchmarks.research"]) != installed_folders()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds what a wheel would: links to the files of the listed packages, nothing else."""
    top = tmp_path_factory.mktemp("wheel")
    for package in SETUPTOOLS["packages"]:
        target, (folder,) = top / package.replace(".", "/"), listed_folders([package])
        target.mkdir(parents=True, exist_ok=True)
        for path in (ROOT / folder).iterdir():
            if path.is_file():
                (target / path.name).symlink_to(path)
    for name in ("benchmarks/data", "tasks/data"):
        (top / "bilevelrl" / name).symlink_to(ROOT / name)
    return top


def run_in(wheel: Path, code: str) -> str:
    """Run Python without the editable install of the tests (-S: no .pth file is read)."""
    path = os.pathsep.join([str(wheel), *site.getsitepackages()])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        cwd=wheel,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_listed_from_a_checkout() -> None:
    assert studies_present()
    assert {"building-drift", "fig2"} <= set(all_figures())


def test_a_wheel_lists_the_figures_of_the_paper_and_says_where_the_studies_are(wheel: Path) -> None:
    code = """
from bilevelrl.benchmarks.sweeping.figures import all_figures, studies_present
from bilevelrl.benchmarks.trainings import TRAINING_KINDS, training_kinds
from bilevelrl.verification.commands.command_line import main
assert not studies_present()
assert training_kinds() == TRAINING_KINDS
print(*all_figures())
try:
    main(["reproduce", "--help"])
except SystemExit as ended:
    assert ended.code == 0
"""
    names, _, shown = run_in(wheel, code).partition("\n")
    modules = [importlib.import_module(f"bilevelrl.benchmarks.{module}") for module in FIGURE_MODULES]
    assert set(names.split()) == {figure.name for module in modules for figure in module.FIGURES}
    assert "fig2" in shown
    assert "building-drift" not in shown
    assert "benchmarks/research" in shown


def test_every_module_of_a_wheel_can_be_imported(wheel: Path) -> None:
    code = """
import importlib, pkgutil
for package in ("reference", "estimators", "tasks", "verification", "benchmarks"):
    top = importlib.import_module(f"bilevelrl.{package}")
    for module in pkgutil.walk_packages(top.__path__, f"bilevelrl.{package}."):
        importlib.import_module(module.name)
        print(module.name)
"""
    imported = run_in(wheel, code).split()
    assert len(imported) > 200
    assert not [name for name in imported if "research" in name]


def test_studies_are_not_named_among_the_figures_of_the_paper() -> None:
    assert all(module.startswith("research.") for module in STUDY_MODULES)
    assert not any(module.startswith("research.") for module in FIGURE_MODULES)
