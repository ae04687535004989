"""Rows in single precision are judged by what their dtype allows, or by what is asked for; everywhere the same."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.estimators import BCHG
from bilevelrl.reference import MarkovGame, named_stream
from bilevelrl.tasks import scenario
from bilevelrl.verification import assert_unbiased, check_estimator, estimator_checks, verify
from bilevelrl.verification.checks.own_scenarios import default_scenarios
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.testing.failures import CheckFailedError

pytestmark = pytest.mark.exact

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "own_game_jax.py"
PLACES = ["layered", "layered, hot", "revisits, two states", "gamble", "toll"]


def exact(trajectories, context):
    return BCHG()(trajectories, context)


def single(trajectories, context):
    """Rows as JAX and PyTorch return them by default."""
    return exact(trajectories, context).astype(np.float32)


def single_and_wrong(trajectories, context):
    """Off by 1e-4 where float32 allows about 1e-5."""
    return (1.0001 * exact(trajectories, context)).astype(np.float32)


def rounded(trajectories, context):
    """Single precision inside, doubles outside: what the dtype says does not excuse it."""
    return exact(trajectories, context).astype(np.float32).astype(np.float64)


def test_the_tolerance_follows_the_dtype():
    report = verify(single)
    assert report.passed, report.failures
    assert verify(single, kind=MarkovGame).passed
    wrong = verify(single_and_wrong, scenarios=PLACES, explain_seconds=60.0)
    assert len(wrong.failures) == len(PLACES)
    allowed = [result.margin for result in check_estimator(single, default_scenarios()) if result.check == "bias"]
    assert max(allowed) < 1.0


def test_single_precision_inside_is_a_cause():
    found = verify(rounded, scenarios=PLACES, explain_seconds=60.0)
    assert not found.passed
    assert "single precision?" in found.explanation.cause
    assert not found.explanation.certain


def test_accuracy_is_the_same_everywhere(tmp_path, monkeypatch, capsys):
    assert verify(rounded, scenarios=PLACES, accuracy=1e-5).passed
    assert_unbiased(rounded, "layered", accuracy=1e-5)
    with pytest.raises(CheckFailedError, match="single precision"):
        assert_unbiased(rounded, "layered")
    for check in estimator_checks([on for on in default_scenarios() if on.name == "layered"], accuracy=1e-5):
        check(rounded)
    (tmp_path / "rounds.py").write_text(
        "import numpy as np\nfrom bilevelrl.estimators import BCHG\nfrom bilevelrl.tasks import layered_mdp\n"
        "def rounded(trajectories, context):\n"
        "    return BCHG()(trajectories, context).astype(np.float32).astype(np.float64)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["verify", "--estimator", "rounds:rounded", "--problem", "rounds:layered_mdp"]
    assert main([*words, "--accuracy", "1e-5", "--explain-seconds", "20"]) == 0
    assert main([*words, "--explain-seconds", "20"]) == 1
    assert "single precision?" in capsys.readouterr().out
    words = ["report", *words[1:], "--output", str(tmp_path / "page.html")]
    assert main([*words, "--accuracy", "1e-5"]) == 0
    assert main([*words, "--explain-seconds", "20"]) == 1
    assert main(["report", "--accuracy", "1e-5", "--output", words[-1]]) == 2
    assert "--accuracy=1e-05: expected an estimator" in capsys.readouterr().err
    truth = scenario("layered").truth.value
    draws = 1.001 * truth + 1e-4 * named_stream(8, "draws").standard_normal((2_000, 3))
    np.save(tmp_path / "draws.npy", draws)
    words = ["judge", str(tmp_path / "draws.npy"), "--scenario", "layered"]
    assert main(words) == 1
    assert main([*words, "--accuracy", "0.01"]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_stranger_s_jax_estimator_of_a_game_of_their_own_gets_its_cause_named(capsys):
    pytest.importorskip("jax")
    spec = importlib.util.spec_from_file_location("own_game_jax", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    sys.modules["own_game_jax"] = example
    try:
        spec.loader.exec_module(example)
        example.main()
    finally:
        del sys.modules["own_game_jax"]
    said = capsys.readouterr().out
    assert said.startswith("VERIFIED on 1 of 1")
    assert "likely cause: γ_L^(k-t) instead of γ_F^(k-t) in the suffix" in said
