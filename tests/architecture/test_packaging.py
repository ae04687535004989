"""What a project that installs this one sees: types, and a version."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")
pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("reference", "estimators", "tasks", "verification", "benchmarks")
PROJECT = """\
import bilevelrl
from bilevelrl.reference import hypergradient
reveal_type(hypergradient)
reveal_type(bilevelrl.__version__)
"""


def run(*command: str, folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=False, text=True, capture_output=True).stdout


def installed(folder: Path, backend: str) -> Path:
    """Install a copy of the sources as pip does, without a network; return the interpreter that has it."""
    sources = folder / "sources"
    sources.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    made = run(sys.executable, "-c", f"import setuptools.build_meta as b; print(b.{backend})", folder=sources)
    run(sys.executable, "-m", "venv", "--without-pip", "venv", folder=folder)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(sources / made.splitlines()[-1]) as wheel:
        wheel.extractall(site)
    return folder / "venv" / "bin" / "python"


# A plain editable install goes through an import hook, which type checkers do not run: README's command says strict.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "typed"),
    [
        ('build_editable(".", {"editable_mode": "strict"})', True),
        ('build_wheel(".")', True),
        ('build_editable(".")', False),
    ],
    ids=["strict", "wheel", "import hook"],
)
def test_a_type_checker_of_another_project(tmp_path, backend, typed):
    python = installed(tmp_path, backend)
    assert run(str(python), "-c", "import bilevelrl; print(bilevelrl.__version__)", folder=tmp_path).strip() == version(
        "bilevelrl"
    )
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "own.py").write_text(PROJECT)
    seen = run(sys.executable, "-m", "mypy", "--python-executable", str(python), "own.py", folder=tmp_path / "project")
    kinds = re.findall(r'Revealed type is "(.*)"', seen)
    assert len(kinds) == 2, seen
    if typed:
        assert kinds[0].startswith("def (problem: ")
        assert kinds[0].endswith("-> bilevelrl.reference.registry.Hypergradient")
        assert kinds[1] == "str"
    else:
        assert kinds == ["Any", "Any"]


def test_the_readme_installs_so_that_types_are_found():
    commands = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "'.[cli]'" in line]
    assert commands
    assert all("--config-settings editable_mode=strict" in line for line in commands)
