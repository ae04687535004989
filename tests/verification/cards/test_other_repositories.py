"""What other people's repositories run: the plug-in of pytest, and the GitHub Action's steps as they stand there."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bilevelrl.tasks import scenario
from bilevelrl.verification import Outcome, Report
from bilevelrl.verification.checks.verdicts import Verdict, unjudged
from bilevelrl.verification.commands import verify as verify_command
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.pipeline.route_check import check_route
from bilevelrl.verification.pipeline.rows import described
from bilevelrl.verification.testing.records import Finding
from bilevelrl.verification.testing.sarif import RULES, junit_xml, sarif_json

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[3]
ACTION = ROOT / ".github/actions/verify/action.yml"
PLUGIN = ROOT / "verification/testing/plugin/__init__.py"

MINE = """\
from bilevelrl.estimators import BCHG, NaivePGD


def right(trajectories, context):
    return BCHG()(trajectories, context)


def wrong(trajectories, context):
    return NaivePGD()(trajectories, context)


def narrow(trajectories, context):
    return right(trajectories, context)[:, :-1]
"""

TESTS = """\
import mine
import pytest
from bilevelrl.tasks import scenario
from bilevelrl.verification import assert_matches_truth, assert_unbiased, assert_variance_below
from bilevelrl.verification.testing.pytest_support import parametrize_with_checks

AT = [scenario("toll"), scenario("layered")]


def test_right():
    assert_unbiased(mine.right, AT)


def test_wrong():
    assert_unbiased(mine.wrong, AT)


def test_known_to_be_wrong():
    with pytest.raises(AssertionError):
        assert_unbiased(mine.wrong, "gamble")


def test_truth_and_variance():
    assert_matches_truth(AT[0].truth.parts, AT[0])
    assert_variance_below(mine.right, 1e9, "toll")


@parametrize_with_checks([mine.right], scenarios=AT)
def test_each(estimator, check):
    check(estimator)


def test_without_estimators():
    pass
"""


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **environment},
        text=True,
        capture_output=True,
        check=False,
    )


def checked_sarif(text: str) -> list[dict]:
    """Hold a log against what SARIF 2.1.0 asks of the parts that are used; return the results."""
    log = json.loads(text)
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    (one,) = log["runs"]
    rules = one["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [f"bilevelrl/{name}" for name in RULES]
    assert all(set(rule) >= {"id", "shortDescription"} and rule["shortDescription"]["text"] for rule in rules)
    assert all(call["executionSuccessful"] is True for call in one["invocations"])
    for result in one["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        assert all(isinstance(mark, str) for mark in result["partialFingerprints"].values())
        for location in result["locations"]:
            if "physicalLocation" in location:
                place = location["physicalLocation"]
                assert not place["artifactLocation"]["uri"].startswith(("/", "file:", ".."))
                assert place["artifactLocation"]["uriBaseId"] in one["originalUriBaseIds"]
                assert place["region"]["startLine"] >= 1
    return one["results"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    (folder / "test_mine.py").write_text(TESTS, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return folder


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess:
    # By its module, for the entry point is there only where this version is installed.
    chosen = ("-p", "no:bilevelrl", "-p", "bilevelrl.verification.testing.plugin", "-p", "no:cacheprovider")
    return run(sys.executable, "-m", "pytest", "-q", *chosen, *words, folder=folder, PYTHONPATH=str(folder))


class TestPlugin:
    @pytest.fixture(scope="class")
    @staticmethod
    def outcome(repository):
        return run_pytest(repository, "--junit-xml", "junit.xml", "--bilevelrl-sarif", "found.sarif")

    def test_the_summary_has_the_denominator_and_the_power(self, outcome):
        assert outcome.returncode == 1, outcome.stdout + outcome.stderr
        lines = outcome.stdout.splitlines()
        assert any(
            re.match(r"right: right on \d of \d checks on 2 scenarios; would have seen \de-\d\d of", x) for x in lines
        )
        # On toll and layered the mean is wrong; on gamble the test says so itself.
        (wrong,) = [line for line in lines if line.startswith("wrong: ")]
        assert "WRONG on" in wrong
        assert "wrong as expected on" in wrong
        assert "1 failed" in lines[-1]

    def test_properties_stand_in_the_junit_file(self, repository, outcome):
        cases = ElementTree.parse(repository / "junit.xml").iter("testcase")
        found = {case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases}
        assert found["test_right"]["bilevelrl.estimator"] == "right"
        asked = found["test_right"]["bilevelrl.right"]
        assert re.fullmatch(r"(\d) of \1", asked)
        assert 0.0 < float(found["test_right"]["bilevelrl.would_see"]) < 1e-9
        assert found["test_wrong"]["bilevelrl.would_see"] == "none"
        assert found["test_without_estimators"] == {}

    def test_sarif_names_what_failed_where_it_is_written(self, repository, outcome):
        results = checked_sarif((repository / "found.sarif").read_text(encoding="utf-8"))
        assert {result["ruleId"] for result in results} == {"bilevelrl/bias"}
        assert {result["message"]["text"].partition(":")[0] for result in results} == {
            "wrong on toll",
            "wrong on layered",
        }
        assert all("the response part is missing" in result["message"]["text"] for result in results)
        places = [result["locations"][0]["physicalLocation"] for result in results]
        line = MINE.splitlines().index("def wrong(trajectories, context):") + 1
        assert {(p["artifactLocation"]["uri"], p["region"]["startLine"]) for p in places} == {("mine.py", line)}

    def test_the_same_from_several_processes(self, repository, outcome):
        pytest.importorskip("xdist")
        assert run_pytest(repository, "-n", "2", "--bilevelrl-sarif", "shared.sarif").returncode == 1
        one, other = (json.loads((repository / name).read_text()) for name in ("found.sarif", "shared.sarif"))
        key = str
        assert sorted(one["runs"][0]["results"], key=key) == sorted(other["runs"][0]["results"], key=key)

    def test_a_place_that_cannot_be_written_is_refused_before_the_tests(self, repository):
        refused = run_pytest(repository, "--bilevelrl-sarif", "nowhere/found.sarif")
        assert refused.returncode == 4
        assert "--bilevelrl-sarif='nowhere/found.sarif'" in refused.stderr

    def test_runs_without_estimators_import_nothing(self, tmp_path):
        (tmp_path / "test_empty.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        code = f"""
import importlib.util, sys, pytest
spec = importlib.util.spec_from_file_location("bilevelrl_pytest", {str(PLUGIN)!r})
plugin = importlib.util.module_from_spec(spec)
sys.modules["bilevelrl_pytest"] = plugin
before = set(sys.modules)
spec.loader.exec_module(plugin)
assert set(sys.modules) == before, set(sys.modules) - before
assert pytest.main(["-q", "-p", "no:cacheprovider", "test_empty.py"], plugins=[plugin]) == 0
assert not [name for name in sys.modules if name.split(".")[0] in ("numpy", "scipy", "autograd", "bilevelrl")]
"""
        done = run(sys.executable, "-c", code, folder=tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        assert done.returncode == 0, done.stdout + done.stderr

    def test_it_is_declared(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert project["project"]["entry-points"]["pytest11"] == {"bilevelrl": "bilevelrl_pytest"}
        assert ROOT / project["tool"]["setuptools"]["package-dir"]["bilevelrl_pytest"] == PLUGIN.parent


class Action:
    """The action's own steps, with what GitHub puts in the place of expressions."""

    def __init__(self, **inputs: str) -> None:
        yaml = pytest.importorskip("yaml")
        self.read = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
        declared = self.read["inputs"]
        assert set(inputs) <= set(declared)
        assert all("default" in entry or entry.get("required") for entry in declared.values())
        self.inputs = {name: inputs.get(name, str(entry.get("default", ""))) for name, entry in declared.items()}

    def filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: self.inputs[found[1]], text)

    def wanted(self, step: dict) -> bool:
        condition = step.get("if", "always()").removeprefix("always() && ")
        found = re.fullmatch(r"inputs\.([\w-]+) (==|!=) '(\w*)'", condition)
        if found is None:
            assert condition == "always()"
            return True
        return (self.inputs[found[1]] == found[3]) is (found[2] == "==")

    def run(self, folder: Path) -> tuple[int, dict[str, str], str]:
        """Run every step that is a script; return the status of the first that fails, the outputs and the summary."""
        status, files = 0, {"GITHUB_OUTPUT": folder / "output.txt", "GITHUB_STEP_SUMMARY": folder / "summary.txt"}
        for step in self.read["runs"]["steps"]:
            assert ("run" in step) is not ("uses" in step)
            if "run" not in step or not self.wanted(step) or status:
                continue
            assert step["shell"] == "bash"
            assert "${{" not in step["run"]  # what users write is never part of a script
            given = {name: self.filled(value) for name, value in step.get("env", {}).items()}
            assert not any("${{" in value for value in given.values())
            places = {name: str(path) for name, path in files.items()}
            # As GitHub runs a step whose shell is bash.
            command = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"])
            done = run(*command, folder=folder, **given, **places)
            status = done.returncode
        texts = {name: path.read_text(encoding="utf-8") if path.exists() else "" for name, path in files.items()}
        outputs = dict(line.split("=", 1) for line in texts["GITHUB_OUTPUT"].splitlines())
        return status, outputs, texts["GITHUB_STEP_SUMMARY"]


class TestVerifyCommand:
    PLACE = ("--problem", "bilevelrl.tasks:layered_mdp")

    @pytest.mark.parametrize(
        ("name", "status", "rule"), [("right", 0, None), ("wrong", 1, "bias"), ("narrow", 1, "contract")]
    )
    def test_what_is_wrong_stands_beside_its_line_with_the_denominator(self, tmp_path, name, status, rule):
        (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
        files = ("--sarif", "new/found.sarif", "--junit", "new/found.xml")
        command = ("verify", "--estimator", f"mine:{name}", *self.PLACE, *files)
        done = run("bilevelrl", *command, folder=tmp_path, PYTHONPATH=str(tmp_path))
        assert done.returncode == status, done.stdout + done.stderr
        text = (tmp_path / "new" / "found.sarif").read_text(encoding="utf-8")
        results, said = checked_sarif(text), json.loads(text)["runs"][0]["properties"]
        assert done.stdout.startswith(said["headline"])
        (count,) = said["estimators"]
        assert (count["estimator"], count["right"], count["asked"]) == (name, int(status == 0), 1)
        assert (count["wouldSee"] is None) is (status == 1)
        assert [result["ruleId"] for result in results] == ([] if rule is None else [f"bilevelrl/{rule}"])
        suites = ElementTree.parse(tmp_path / "new" / "found.xml").getroot()
        assert suites.get("name") == f"bilevelrl: {said['headline']}"
        (suite,) = suites
        assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == (name, "1", str(status))
        assert [case.get("name").partition("[")[0] for case in suite.iter("testcase")] == [rule or "bias"]
        for result in results:
            assert "response part is missing" in result["message"]["text"] or rule == "contract"
            place = result["locations"][0]["physicalLocation"]
            line = MINE.splitlines().index(f"def {name}(trajectories, context):") + 1
            assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("mine.py", line)

    def test_it_counts_as_the_headline_does(self, tmp_path, monkeypatch):
        toll = scenario("toll")
        verdicts = {
            "bc_hg": Verdict(outcome=Outcome.PASSED, detectable=1e-9, reason="agrees"),
            "naive_pgd": unjudged(Outcome.MEASURED, "no expectation is claimed"),
            "sobirl": unjudged(Outcome.NO_POWER, "few draws"),
            "bc_hg_game": unjudged(Outcome.NOT_APPLICABLE, "another kind"),
        }
        rows = [replace(described(len, toll), estimator=name, verdict=said) for name, said in verdicts.items()]
        route = check_route("theorem1", toll)
        off = replace(route, verdict=Verdict(outcome=Outcome.FAILED, detectable=1e-9, reason="off by 1"))
        report = Report(estimators=tuple(rows), routes=(route, off), seconds=0.0)
        monkeypatch.setattr(verify_command, "verify", lambda **options: report)
        assert main(["verify", "--sarif", str(tmp_path / "all.sarif")]) == 1
        text = (tmp_path / "all.sarif").read_text(encoding="utf-8")
        said = json.loads(text)["runs"][0]["properties"]
        right, asked = (sum(count[name] for count in said["estimators"]) for name in ("right", "asked"))
        assert said["headline"] == report.headline
        assert report.headline.startswith(f"NOT VERIFIED: right on {right} of {asked} ")
        assert (right, asked) == (2, 5)
        assert {(result["ruleId"], result["level"]) for result in checked_sarif(text)} == {
            ("bilevelrl/truth", "error"),
            ("bilevelrl/bias", "warning"),
        }

    @pytest.mark.parametrize("flag", ["--sarif", "--junit"])
    def test_a_place_that_cannot_be_written_is_refused_before_the_work(self, monkeypatch, capsys, flag):
        monkeypatch.setattr(verify_command, "verify", lambda **options: pytest.fail("it began to work"))
        assert main(["verify", flag, "/proc/none/found"]) == 2
        assert f"{flag}='/proc/none/found'" in capsys.readouterr().err


class TestAction:
    OWN = "--problem bilevelrl.tasks:layered_mdp\n--quick"

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
        return tmp_path

    def test_a_right_estimator(self, folder):
        action = Action(estimators="mine:right bc_hg", arguments=self.OWN, package="", output="cards of mine")
        status, outputs, summary = action.run(folder)
        assert (status, outputs["status"]) == (0, "0")
        assert summary.count("keeps its claim on 1 of 1 scenarios") >= 2
        assert "would have been seen" in summary
        assert not checked_sarif((folder / outputs["sarif"]).read_text(encoding="utf-8"))
        suites = ElementTree.parse(folder / outputs["junit"]).getroot()
        assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
            ("right", "1", "0"),
            ("bc_hg", "1", "0"),
        ]
        assert {path.name for path in (folder / "cards of mine").iterdir()} >= {"bc_hg.html", "mine.right.json"}

    def test_a_wrong_estimator_fails_the_step_and_is_named(self, folder):
        status, outputs, summary = Action(estimators="mine:wrong", arguments=self.OWN, package="").run(folder)
        assert (status, outputs["status"]) == (1, "1")
        assert "BREAKS its claim, and keeps it on 0 of 1 scenarios" in summary
        (result,) = checked_sarif((folder / outputs["sarif"]).read_text(encoding="utf-8"))
        assert result["ruleId"] == "bilevelrl/bias"
        assert "the response part is missing" in result["message"]["text"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "mine.py"
        failure = ElementTree.parse(folder / outputs["junit"]).getroot().find(".//failure")
        assert "off by" in failure.get("message")

    def test_a_name_that_is_none_is_no_failed_check(self, folder):
        name = "mine:wrnog; touch stolen $(touch stolen)"
        status, outputs, summary = Action(estimators=name, arguments=self.OWN, package="").run(folder)
        assert (status, outputs["status"]) == (2, "2")
        assert "No card could be made (exit status 2)" in summary
        assert not (folder / "stolen").exists()

    def test_its_outputs_and_steps_are_what_it_says(self):
        action = Action(estimators="x").read
        ids = {step.get("id") for step in action["runs"]["steps"]}
        for output in action["outputs"].values():
            step, name = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.(\w+) \}\}", output["value"]).groups()
            assert step in ids
            assert name in ("status", "sarif", "junit")
        assert action["runs"]["using"] == "composite"


def test_findings_without_a_file_and_with_odd_characters():
    odd = Finding(estimator="a\x00<b>", check="other", scenario="x\ny", outcome="failed", reason="ÿ\x1b", file=__file__)
    (result,) = checked_sarif(sarif_json([odd], root=Path("/proc")))
    assert "physicalLocation" not in result["locations"][0]
    assert result["ruleId"] == "bilevelrl/judged"
    suite = ElementTree.fromstring(junit_xml([odd]).encode())[0]
    assert (suite.get("name"), suite.get("failures")) == ("a?<b>", "1")


def test_no_power_is_a_warning_and_the_rest_says_nothing():
    outcomes = ("passed", "expected failure", "measured", "not applicable", "no power")
    found = [Finding(estimator="e", check="bias", scenario=x, outcome=x, reason=x) for x in outcomes]
    (result,) = checked_sarif(sarif_json(found, root=Path()))
    assert result["level"] == "warning"
    suite = ElementTree.fromstring(junit_xml(found).encode())[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("5", "0", "3")
