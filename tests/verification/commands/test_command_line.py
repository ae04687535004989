"""The command: what it prints, what it writes, how it ends, and whom it lets in."""

import json
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from small_report import a_report

from bilevelrl.estimators import ESTIMATORS
from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient
from bilevelrl.tasks import TASKS, four_rooms
from bilevelrl.verification import Outcome
from bilevelrl.verification.commands import verify as verify_command
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.mutants.attribution import attribute_bias


@pytest.mark.exact
def test_gradient_prints_the_truth_as_json(capsys):
    assert main(["gradient", "--task", "four_rooms", "--temperature", "0.003", "--route", "theorem1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    truth = hypergradient(four_rooms(temperature=0.003), np.zeros(105))
    np.testing.assert_allclose(record["value"], truth.value, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(sum(map(np.array, record["parts"].values())), record["value"], atol=1e-15)
    assert record["route"] == "theorem1"
    assert record["temperature"] == 0.003
    assert record["objective"] == pytest.approx(-0.725819, abs=1e-6)


@pytest.mark.exact
@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_gradient_reads_theta(capsys, tmp_path, suffix):
    theta = np.linspace(-1.0, 1.0, 105)
    path = tmp_path / f"theta{suffix}"
    if suffix == ".npy":
        np.save(path, theta)
    else:
        np.savetxt(path, theta[None], delimiter=",", fmt="%.17g")
    assert main(["gradient", "--task", "four_rooms", "--theta", str(path), "--horizon", "7", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    truth = hypergradient(four_rooms(), theta, horizon=7)
    np.testing.assert_allclose(record["value"], truth.value, rtol=1e-9, atol=1e-18)
    assert record["horizon"] == 7


@pytest.mark.exact
def test_gradient_prints_parts_for_people(capsys):
    assert main(["gradient", "--task", "random_mdp"]) == 0
    text = capsys.readouterr().out
    for word in ("J(θ)", "‖∇J‖", "response", "initial", "route implicit"):
        assert word in text


FILES = {"SHORT": "short.npy", "TEXT": "text.csv", "EMPTY": "empty.csv"}


@pytest.mark.exact
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "four_roms"], "did you mean 'four_rooms'"),
        (["--task", "four_rooms", "--route", "implict"], "did you mean 'implicit'"),
        (["--task", "four_rooms", "--temperature", "-1"], "temperature=-1.0"),
        (["--task", "four_rooms", "--horizon", "0"], "--horizon: '0'"),
        (["--task", "four_rooms", "--undiscounted"], "horizon"),
        (["--task", "four_rooms", "--theta", "ones"], "theta='ones'"),
        (["--task", "four_rooms", "--theta", "missing.npy"], "cannot be read"),
        (["--task", "four_rooms", "--theta", "SHORT"], "theta"),
        (["--task", "four_rooms", "--theta", "TEXT"], "holds no numbers"),
        (["--task", "four_rooms", "--theta", "EMPTY"], "holds no numbers"),
    ],
)
def test_errors_are_one_clear_line(capsys, tmp_path, words, message):
    np.save(tmp_path / "short.npy", np.zeros(3))
    (tmp_path / "text.csv").write_text("a,b", encoding="utf-8")
    (tmp_path / "empty.csv").touch()
    replaced = {word: str(tmp_path / name) for word, name in FILES.items()}
    assert main(["gradient", *(replaced.get(word, word) for word in words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("bilevelrl: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


@pytest.mark.exact
def test_routes_and_list_name_everything(capsys):
    assert main(["routes"]) == 0
    routes = capsys.readouterr().out
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in routes for name in HYPERGRADIENT_ROUTES)
    assert all(name in listed for name in (*TASKS, *ESTIMATORS))


@pytest.mark.exact
def test_attribute_prints_what_a_cut_takes_away(capsys):
    assert main(["attribute", "--cause", "truncation", "--horizon", "1"]) == 0
    found = attribute_bias(causes=["truncation"], horizon=1)
    assert capsys.readouterr().out == f"{found}\n"
    assert np.abs(found.alone["truncation"]).max() > 0.1 * np.abs(found.truth).max()
    assert main(["attribute", "--cause", "trunc"]) == 2
    assert "did you mean 'truncation'?" in capsys.readouterr().err


@pytest.mark.exact
def test_no_command_prints_help(capsys):
    assert main([]) == 2
    assert "verify" in capsys.readouterr().out
    assert main(["no-such-command"]) == 2
    assert "invalid choice: 'no-such-command'" in capsys.readouterr().err


@pytest.mark.exact
def test_verify_refuses_an_output_that_is_no_directory_before_it_works(monkeypatch, capsys, tmp_path):
    def never(**options):
        raise AssertionError("a minute of work before the answer")

    monkeypatch.setattr(verify_command, "verify", never)
    (tmp_path / "file").touch()
    assert main(["verify", "--output", str(tmp_path / "file")]) == 2
    assert "expected a folder that can be written (File exists)" in capsys.readouterr().err


@pytest.mark.exact
@pytest.mark.parametrize(("outcome", "status"), [(Outcome.PASSED, 0), (Outcome.FAILED, 1), (Outcome.NO_POWER, 2)])
def test_verify_ends_with_the_verdict_and_writes_files(monkeypatch, capsys, tmp_path, outcome, status):
    asked = {}

    def fake(**options):
        asked.update(options)
        return a_report(outcome)

    monkeypatch.setattr(verify_command, "verify", fake)
    folder = tmp_path / "results"
    assert main(["verify", "--output", str(folder), "--seed", "3", "--quick", "--workers", "1"]) == status
    printed = capsys.readouterr()
    assert ("NOT VERIFIED" in printed.out) == (status != 0)
    assert "mine" in printed.out
    assert {path.name for path in folder.iterdir()} == {"verify.csv", "verify.json", "verify.png"}
    assert (asked["seed"], asked["quick"], asked["workers"]) == (3, True, 1)
    # Not a terminal: no progress, and nothing on standard error but the files.
    assert asked["progress"] is None
    assert all(line.startswith("wrote ") for line in printed.err.splitlines())


class FakeEntry:
    def __init__(self, name, load):
        self.name, self.value, self.load = name, f"package:{name}", load


@pytest.mark.exact
def test_other_packages_add_commands_and_broken_ones_do_no_harm(monkeypatch, capsys):
    def register(commands):
        parser = commands.add_parser("hello")
        parser.add_argument("--to", default="you")
        parser.set_defaults(run=lambda parsed: print(f"hello {parsed.to}") or 5)

    def broken():
        raise ImportError("no module")

    entries = [FakeEntry("zz_broken", broken), FakeEntry("hello", lambda: register)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries if group == "bilevelrl.commands" else [])
    assert main(["hello", "--to", "world"]) == 5
    printed = capsys.readouterr()
    assert printed.out == "hello world\n"
    assert "'zz_broken'" in printed.err
    assert "no module" in printed.err


@pytest.mark.exact
def test_a_reader_that_leaves_early_is_no_error():
    program = [
        sys.executable,
        "-c",
        "import sys; from bilevelrl.verification.commands.command_line import main; sys.exit(main())",
    ]
    with subprocess.Popen(
        [*program, "gradient", "--task", "four_rooms"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.exact
def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "bilevelrl.verification.commands.command_line", "gradient", "--task", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "task name='nothing' is not known" in done.stderr
