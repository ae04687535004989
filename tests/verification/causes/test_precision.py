"""Rows in single precision are judged by what their dtype allows, or by what is asked for; everywhere the same."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.estimators import BCHG
from bilevelrl.reference import ConfigurableMDP, MarkovGame, Tables, hypergradient, named_stream
from bilevelrl.tasks import scenario
from bilevelrl.verification import Outcome, assert_unbiased, check_estimator, estimator_checks, verify
from bilevelrl.verification.checks.own_scenarios import default_scenarios
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.testing.failures import CheckFailedError

pytestmark = pytest.mark.exact

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
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


STRANGERS = {
    "jax": "likely cause: γ_L^(k-t) instead of γ_F^(k-t) in the suffix",
    "torch": "the cause: Q_L instead of Q_L less its mean over the follower's actions in the guiding term",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("library", STRANGERS)
def test_a_stranger_s_estimator_of_a_game_of_their_own_gets_its_cause_named(library, capsys):
    pytest.importorskip(library)
    name = f"own_game_{library}"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    sys.modules[name] = example
    try:
        spec.loader.exec_module(example)
        example.main()
    finally:
        del sys.modules[name]
    said = capsys.readouterr().out
    assert said.startswith("VERIFIED on 1 of 1")
    assert STRANGERS[library] in said


def layers(states=30, actions=3):
    """Three layers: paths end, and are too many to be listed."""
    rng = named_stream(3, "layers")
    kernel = np.zeros((3 * states, actions, 3 * states))
    for layer in (0, 1):
        rows = slice(layer * states, (layer + 1) * states)
        kernel[rows, :, (layer + 1) * states : (layer + 2) * states] = rng.dirichlet(np.ones(states), (states, actions))
    follower, leader, toll = rng.normal(size=(3, 3 * states, actions))

    def tables(theta):
        return Tables(
            transition=kernel,
            initial=np.repeat([1.0 / states, 0.0], [states, 2 * states]),
            reward_follower=follower + theta[0] * toll,
            reward_leader=leader + theta[1] * toll,
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.5, theta_shape=(2,))


@pytest.mark.parametrize("size", [np.float32, np.float64])
def test_sampled_rows_are_allowed_what_their_dtype_and_accuracy_allow(size):
    """Rows of one number, in which sampling hides nothing: off by 1e-5, then by 1e-2, of the truth."""
    problem = layers()

    def outcome(off, accuracy):
        def rows(trajectories, context):
            truth = hypergradient(problem, np.zeros(2)).value
            return np.tile((1.0 + off) * truth, (trajectories.streams, 1)).astype(size)

        (row,) = verify(rows, problem=problem, quick=True, accuracy=accuracy, explain_seconds=0.1).estimators
        assert row.method == "sampling"
        return row.verdict.outcome

    assert outcome(1e-5, 0.0) is (Outcome.PASSED if size is np.float32 else Outcome.FAILED)
    assert outcome(1e-5, 1e-4) is Outcome.PASSED
    assert outcome(1e-2, 1e-4) is Outcome.FAILED
    assert outcome(1e-2, 1e-1) in (Outcome.PASSED, Outcome.NO_POWER)
