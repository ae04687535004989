"""What the README and the documents' examples say is run, and what they print is compared."""

import contextlib
import importlib.util
import io
import re
import runpy
import tomllib
from pathlib import Path

import numpy as np
import pytest

from bilevelrl import estimators, reference, tasks, verification

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LARGE = ("jax", "torch", "distributed")
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(text):
    """(language, content) of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run(text):
    """Run the python blocks one after the other; each text block is what the block before it prints.

    Blocks that import a large library stand on their own: without it they are left out, and so are the next ones that
    import nothing.
    """
    names, printed = {}, ""
    count = 0
    there = True
    for language, content in blocks(text):
        if language == "python":
            asked = [name for name in LARGE if re.search(rf"^(?:import|from) {name}\b", content, re.MULTILINE)]
            there = all(map(importlib.util.find_spec, asked)) and (there or "import " in content)
        if not there:
            continue
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(content, "README.md", "exec"), names)
            printed, count = output.getvalue(), count + 1
        elif language == "text":
            assert printed.splitlines() == content.splitlines()
    return count


def test_readme_runs_and_prints_what_it_shows():
    assert run(README) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documents_run_and_print_what_they_show(page):
    run(page.read_text(encoding="utf-8"))


def lines(page, heading):
    """How many lines the first block of python below a heading has, blank ones left out."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    return sum(bool(line.strip()) for line in blocks(text)[0][1].splitlines())


def test_the_tutorials_are_as_short_as_they_say():
    assert lines("other_libraries.md", "From an environment to a judged estimator") <= 15
    assert lines("sweeps.md", "From an idea to a cluster sweep and a plot") <= 20


def test_a_changed_output_is_noticed():
    with pytest.raises(AssertionError):
        run("```python\nprint(1)\n```\n```text\n2\n```\n")


def test_own_estimator_example():
    example = runpy.run_path(str(ROOT / "docs/examples/own_estimator.py"))
    assert example["verify"](example["bc_hg"]).passed
    report = example["verify"](example["forgetful"])
    assert not report.passed
    assert report.failures


def test_commands_name_extras_and_commands_that_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commands = [content for language, content in blocks(README) if language == "bash"]
    assert len(commands) == 2
    for command in commands:
        assert len(command.strip().splitlines()) == 1
        extra = re.search(r"'\.\[(\w+)\]'", command).group(1)
        assert extra in project["optional-dependencies"]
    assert "bilevelrl" in project["scripts"]
    assert commands[0].strip().endswith("bilevelrl verify")


def links(text):
    """(file, anchor) of every link inside this repository."""
    return re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", text)


def anchors(text):
    """The anchors of a page's headings, as Sphinx and code hosts make them."""
    titles = re.findall(r"^#{1,3} (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target, anchor in links(path.read_text(encoding="utf-8")):
        file = path.parent / target if target else path
        assert file.exists() or target == "names.md", target  # `make docs` writes that page
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_a_link_to_no_heading_is_noticed():
    assert links("[a](b.md#c), [d](#e) and [f](https://g.org/h#i)") == [("b.md", "c"), ("", "e")]
    assert anchors("# The limits: ±30, *ever*\n## `x`\n") == {"the-limits-30-ever", "x"}


def test_contributing_names_paths_and_targets_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:\w+/)+[\w.]*)(?:<|`)", text):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"^make (\w+)", text, flags=re.MULTILINE)) <= set(targets)


def calls(text):
    """The calls in the last column of the table "I have … I want … I call …"."""
    return re.findall(r"^\|[^|]*\|[^|]*\| `(\w+\(.*\))` \|$", text, flags=re.MULTILINE)


def test_every_call_of_the_table_is_answered():
    problem, theta = tasks.random_mdp(seed=0), np.full(3, 0.1)
    rng = np.random.default_rng(0)
    given = {
        "problem": problem,
        "theta": theta,
        "my_gradient": lambda problem, theta: reference.hypergradient(problem, theta).parts,
        "my_estimator": estimators.BCHG(),
        "my_estimates": rng.standard_normal((1000, tasks.scenario("bandit").theta.size)),
    }
    doors = {name: getattr(door, name) for door in (reference, verification, tasks) for name in door.__all__}
    answers = {call.partition("(")[0]: eval(call, {**doors, **given}) for call in calls(README)}
    assert len(answers) == 9
    exact = answers["hypergradient"]
    assert np.abs(float(answers["certified_hypergradient"].value[0]) - exact.value[0]) <= exact.error_bound
    assert answers["leader_objective"] == pytest.approx(exact.objective, abs=exact.objective_error_bound)
    assert answers["solve_follower"].value.shape == (4,)
    assert answers["check_derivatives"] == {}
    assert not any(result.failed for result in answers["check_gradient"])
    assert answers["verify"].passed
    assert answers["judge_draws"].verdict.outcome is verification.Outcome.FAILED
    assert answers["scenario"].theta.size == 1
