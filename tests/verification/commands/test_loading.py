"""What is loaded when: `bilevelrl --help` loads no command, and facades load a name when it is asked for."""

import importlib
import pickle
import pkgutil
import subprocess
import sys

import pytest

from bilevelrl import verification
from bilevelrl.verification import commands
from bilevelrl.verification.commands.arguments import Parser
from bilevelrl.verification.commands.command_line import build_parser

pytestmark = pytest.mark.exact

HEAVY = ("scipy.stats", "scipy.optimize", "matplotlib", "rich", "hypothesis", "joblib", "numba", "flint")
OURS = ("bilevelrl.estimators", "bilevelrl.tasks", "bilevelrl.verification.pipeline", "bilevelrl.benchmarks.sweeping")


def loaded(code):
    """The names of all modules that are there after a statement, in a process of its own."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_help_loads_no_command():
    parser = "from bilevelrl.verification.commands.command_line import build_parser\nparser = build_parser()\n"
    modules = loaded(f"{parser}assert 'false-alarms' in parser.format_help() and 'train' in parser.format_help()")
    assert not modules & {*HEAVY, *OURS}
    assert "scipy.optimize" in loaded("import scipy.optimize")


def test_every_command_is_filled_by_a_function_that_is_there():
    (below,) = (action for action in build_parser()._actions if action.choices is not None)
    assert {"verify", "judge", "scenarios", "mutants", "reproduce", "study", "train"} <= set(below.choices)
    for name, parser in below.choices.items():
        assert isinstance(parser, Parser)
        parser.fill()
        parser.fill()  # once is enough
        assert "run" in parser._defaults or any(action.choices for action in parser._actions), name


@pytest.mark.parametrize("facade", [verification, commands])
def test_a_facade_shows_its_names_and_nothing_else(facade):
    assert set(facade.__all__) <= set(dir(facade))
    names = {}
    exec(f"from {facade.__name__} import *", names)
    assert set(facade.__all__) <= set(names)
    below = {module.name for module in pkgutil.iter_modules(facade.__path__)}
    assert not below & set(facade.__all__)  # a folder that is loaded would hide the name
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = facade.no_such_name


def test_names_of_a_facade_are_those_of_their_modules_and_pickle():
    assert verification.verify is importlib.import_module("bilevelrl.verification.pipeline.verify").verify
    for entry in (verification.verify, verification.Outcome.PASSED, verification.judge_draws):
        assert pickle.loads(pickle.dumps(entry)) is entry
