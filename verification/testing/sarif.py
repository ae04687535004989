"""What checks found, for the tools of other people's repositories: SARIF 2.1.0 and JUnit's XML.

SARIF (Static Analysis Results Interchange Format, OASIS 2020) is what code hosts show beside the lines it names; the
denominator and the power are in the run's properties, for a list of what is wrong says nothing of what was looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bilevelrl.reference.storage import software_versions, write_atomically
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.testing.pytest_support import CHECKS
from bilevelrl.verification.testing.records import Finding

__all__ = ["junit_xml", "sarif_json", "write_findings"]

RULES = {
    **CHECKS,
    "truth": "a gradient is the exact hypergradient",
    "truth of parts": "so is each of its parts",
    "variance": "the variance of one draw is below a bound",
    "draws": "independent draws have the mean that is claimed",
    "judged": "enough could be judged to say that a claim holds",
}
"""Every rule, by its name, and what it asks."""

_LEVELS = {Outcome.FAILED.value: "error", Outcome.NO_POWER.value: "warning"}


def sarif_json(findings: Sequence[Finding], *, root: Path, headline: str = "") -> str:
    """Return findings as SARIF: a result for each that is wrong or could not be told, the counts as properties.

    Parameters
    ----------
    findings
        Of any number of estimators.
    root
        Folder that paths are relative to; files elsewhere are named in words only.
    headline
        What all of it comes to, for the run's properties; empty: left out.

    Examples
    --------
    >>> wrong = Finding(estimator="mine", check="bias", scenario="toll", outcome="failed", reason="off by 1")
    >>> log = json.loads(sarif_json([wrong], root=Path(".")))
    >>> log["version"], log["runs"][0]["results"][0]["ruleId"], log["runs"][0]["properties"]["estimators"]
    ('2.1.0', 'bilevelrl/bias', [{'estimator': 'mine', 'right': 0, 'asked': 1, 'wouldSee': None}])
    """
    rules = list(RULES)
    results = [_result(finding, rules, root) for finding in findings if finding.outcome in _LEVELS]
    version = software_versions()["bilevelrl"]
    driver = {
        "name": "bilevelrl",
        "version": version,
        "rules": [
            {
                "id": f"bilevelrl/{name}",
                "name": name.title().replace(" ", ""),
                "shortDescription": {"text": said},
                "defaultConfiguration": {"level": "error"},
            }
            for name, said in RULES.items()
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True}],
        "originalUriBaseIds": {"ROOT": {"description": {"text": "the root of the checked repository"}}},
        "results": results,
        "properties": {**({"headline": headline} if headline else {}), "estimators": counts(findings)},
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def counts(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return for each estimator how many checks it passed, of how many, and the smallest bias seen by all of them."""
    found = []
    for name in dict.fromkeys(finding.estimator for finding in findings):
        own = [finding for finding in findings if finding.estimator == name]
        right = [finding for finding in own if finding.right]
        seen = [finding.detectable for finding in right if finding.detectable is not None]
        found.append(
            {"estimator": name, "right": len(right), "asked": len(own), "wouldSee": max(seen) if seen else None}
        )
    return found


def _result(finding: Finding, rules: list[str], root: Path) -> dict[str, Any]:
    rule = finding.check if finding.check in RULES else "judged"
    cause = f" {finding.cause}." if finding.cause else ""
    result: dict[str, Any] = {
        "ruleId": f"bilevelrl/{rule}",
        "ruleIndex": rules.index(rule),
        "level": _LEVELS[finding.outcome],
        "message": {"text": f"{finding.estimator} on {finding.scenario}: {finding.reason}.{cause}"},
        "partialFingerprints": {"bilevelrl/v1": f"{finding.estimator}/{rule}/{finding.scenario}"},
    }
    location: dict[str, Any] = {"logicalLocations": [{"name": finding.estimator, "kind": "function"}]}
    path = _below(finding.file, root)
    if path is not None:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": path, "uriBaseId": "ROOT"},
            "region": {"startLine": max(1, finding.line)},
        }
    return {**result, "locations": [location]}


def _below(file: str, root: Path) -> str | None:
    """A file relative to a folder, with slashes; None where it is elsewhere."""
    if not file:
        return None
    path, top = Path(os.path.realpath(file)), Path(os.path.realpath(root))
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else None


def junit_xml(findings: Sequence[Finding], *, headline: str = "") -> str:
    """Return findings as JUnit's XML: a suite per estimator with the denominator, a case per check and scenario.

    `headline`, what all of it comes to, is the name of the whole; empty: "bilevelrl".

    Examples
    --------
    >>> seen = Finding(estimator="mine", check="bias", scenario="toll", outcome="passed", reason="agrees")
    >>> suite = ElementTree.fromstring(junit_xml([seen]).encode())[0]
    >>> suite.get("name"), suite.get("tests"), suite.get("failures")
    ('mine', '1', '0')
    """
    top = ElementTree.Element("testsuites", name=_legal(f"bilevelrl: {headline}" if headline else "bilevelrl"))
    for count in counts(findings):
        own = [finding for finding in findings if finding.estimator == count["estimator"]]
        failed = sum(finding.outcome == Outcome.FAILED.value for finding in own)
        skipped = sum(finding.outcome != Outcome.FAILED.value and not finding.right for finding in own)
        suite = ElementTree.SubElement(
            top, "testsuite", name=_legal(str(count["estimator"])), tests=str(len(own)), failures=str(failed),
            errors="0", skipped=str(skipped), time="0",
        )  # fmt: skip
        properties = ElementTree.SubElement(suite, "properties")
        seen = "none" if count["wouldSee"] is None else f"{count['wouldSee']:.3g}"
        for name, value in (("right", f"{count['right']} of {count['asked']}"), ("would_see", seen)):
            ElementTree.SubElement(properties, "property", name=f"bilevelrl.{name}", value=value)
        for finding in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=_legal(finding.estimator),
                name=_legal(f"{finding.check}[{finding.scenario}]"), time="0",
            )  # fmt: skip
            if finding.outcome == Outcome.FAILED.value:
                said = ElementTree.SubElement(case, "failure", message=_legal(finding.reason))
                said.text = _legal("\n".join(filter(None, (finding.reason, finding.cause))))
            elif not finding.right:
                ElementTree.SubElement(case, "skipped", message=_legal(f"{finding.outcome}: {finding.reason}"))
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=False) + "\n"


def write_findings(
    findings: Sequence[Finding], *, sarif: Path | None, junit: Path | None, headline: str = ""
) -> tuple[Path, ...]:
    """Write the files that are asked for, with paths relative to the current folder, and return them."""
    texts = {}
    if sarif is not None:
        texts[sarif] = sarif_json(findings, root=Path.cwd(), headline=headline)
    if junit is not None:
        texts[junit] = junit_xml(findings, headline=headline)
    return tuple(write_atomically(file, text) for file, text in texts.items())


def _legal(text: str) -> str:
    """Text without the characters that XML does not know."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
