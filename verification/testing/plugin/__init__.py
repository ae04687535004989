"""The pytest plug-in: what tests of estimators say beside passed and failed, the denominator and the power.

Installed as `bilevelrl_pytest`, outside the package, and imports nothing but pytest: test runs that never meet an
estimator do not pay for it. What assertions found is read from where they kept it, once a test has ended.

    --bilevelrl-sarif PATH     write what is wrong as SARIF 2.1.0

In JUnit's XML (`--junit-xml`) a test that asserts an estimator has properties: bilevelrl.estimator, .right, .would_see.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["FoundByAssertions", "summary_lines"]

_RECORDS = "bilevelrl.verification.testing.records"
_PASSED, _EXPECTED, _FAILED = "passed", "expected failure", "failed"
_PLUGIN, _ATTRIBUTE = "bilevelrl-findings", "bilevelrl"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--bilevelrl-sarif`."""
    group = parser.getgroup("bilevelrl")
    group.addoption("--bilevelrl-sarif", metavar="PATH", help="write what is wrong with estimators as SARIF 2.1.0")


def pytest_configure(config: pytest.Config) -> None:
    """Collect findings, and refuse a file that cannot be written before the tests, not after them."""
    path = config.getoption("--bilevelrl-sarif")
    if path is not None:
        file = Path(path)
        if file.is_dir() or not file.parent.is_dir():
            raise pytest.UsageError(f"--bilevelrl-sarif={path!r}: expected a file in a folder that exists")
    config.pluginmanager.register(FoundByAssertions(config), _PLUGIN)


class FoundByAssertions:
    """What assertions found, test by test.

    Parameters
    ----------
    config
        Of the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: list[dict[str, Any]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach what a test found to its report, in which other processes send it too, and to its properties."""
        kept = sys.modules.get(_RECORDS)  # nobody has asserted anything where it was never imported
        found = kept.taken() if kept is not None else []
        if found:
            path, line, _ = item.location
            found = [{**one, "test": item.nodeid, "test_file": path, "test_line": (line or 0) + 1} for one in found]
            item.user_properties += [
                pair
                for count in counted(found)
                for pair in (
                    ("bilevelrl.estimator", count["estimator"]),
                    ("bilevelrl.right", f"{count['right']} of {count['asked']}"),
                    ("bilevelrl.would_see", "none" if count["would_see"] is None else f"{count['would_see']:.3g}"),
                )
            ]
        report = yield
        cause = getattr(getattr(call.excinfo, "value", None), "explanation", None)
        for one in found:
            if one["outcome"] == _FAILED and report.outcome != "failed":
                one["outcome"] = _EXPECTED  # the test says that it fails
            elif one["outcome"] == _FAILED and cause is not None:
                one["cause"] = str(cause)
        vars(report)[_ATTRIBUTE] = found
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect from every process."""
        self._found.extend(getattr(report, _ATTRIBUTE, ()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say for each estimator how much of what was asked is right, and what would have been seen."""
        if self._found:
            terminalreporter.section("bilevelrl")
            for line in summary_lines(self._found):
                terminalreporter.line(line)
            path = self._config.getoption("--bilevelrl-sarif")
            if path is not None:
                terminalreporter.line(f"wrote {path}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the SARIF file, in the process that has all reports."""
        path = self._config.getoption("--bilevelrl-sarif")
        if path is None or hasattr(self._config, "workerinput"):
            return
        from bilevelrl.reference.storage import write_atomically
        from bilevelrl.verification.testing.records import Finding
        from bilevelrl.verification.testing.sarif import sarif_json

        findings = [Finding(**{key: one[key] for key in Finding.__slots__}) for one in self._found]
        write_atomically(path, sarif_json(findings, root=self._config.rootpath))


def counted(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each estimator how many checks are right, of how many different ones, and the power of the right."""
    counts = []
    for name in dict.fromkeys(one["estimator"] for one in found):
        own = {(one["check"], one["scenario"]): one for one in found if one["estimator"] == name}.values()
        right = [one for one in own if one["outcome"] == _PASSED]
        seen = [(one["detectable"], one["scenario"]) for one in right if one["detectable"]]
        least, where = max(seen, default=(None, ""))
        counts.append(
            {
                "estimator": name,
                "right": len(right),
                "asked": len(own),
                "scenarios": len({one["scenario"] for one in own}),
                "failed": sum(one["outcome"] == _FAILED for one in own),
                "expected": sum(one["outcome"] == _EXPECTED for one in own),
                "would_see": least,
                "where": where,
            }
        )
    return counts


def summary_lines(found: list[dict[str, Any]]) -> list[str]:
    """Return what the terminal says of findings.

    Examples
    --------
    >>> seen = {"estimator": "mine", "check": "bias", "scenario": "toll", "outcome": "passed", "detectable": 3e-12}
    >>> summary_lines([seen, {**seen, "check": "parts", "outcome": "failed"}])
    ['mine: right on 1 of 2 checks on 1 scenarios, WRONG on 1; would have seen 3e-12 of the truth (least on toll)']
    """
    lines = []
    for count in counted(found):
        wrong = f", WRONG on {count['failed']}" if count["failed"] else ""
        wrong += f", wrong as expected on {count['expected']}" if count["expected"] else ""
        least = count["would_see"]
        power = "no power" if least is None else f"would have seen {least:.1g} of the truth (least on {count['where']})"
        asked = f"{count['right']} of {count['asked']} checks on {count['scenarios']} scenarios"
        lines.append(f"{count['estimator']}: right on {asked}{wrong}; {power}")
    return lines
