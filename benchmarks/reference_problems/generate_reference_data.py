"""Certify all reference problems and write them as JSON.

Run with `python -m bilevelrl.benchmarks.reference_problems.generate_reference_data --output tasks/data`; the same
versions give the same bytes. With `--check` nothing is written and the files are compared: each stored number has to
contain the new one. `--complete FILE` writes the answer and the difficulty of a new problem into its file, which has
`name`, `kind`, `summary` and `problem`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from bilevelrl.benchmarks.reference_problems.reference_cases import ENTROPY, ReferenceCase, reference_cases
from bilevelrl.reference import certified_hypergradient
from bilevelrl.reference.certified import Enclosure
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks.generators import (
    digits_surviving_rounding,
    level_of,
    parse_json,
    problem_from_json,
    problem_to_json,
)
from bilevelrl.tasks.scenarios import DATA_DIGITS, DATA_FORMAT, DATA_VERSION

__all__ = ["certify_case", "main"]

_SPARE = 3


def _record(entry: Enclosure) -> tuple[str, str]:
    return entry.decimal(DATA_DIGITS + _SPARE)


def _columns(entries: Sequence[Enclosure]) -> dict[str, list[str]]:
    pairs = [_record(entry) for entry in entries]
    return {"value": [value for value, _ in pairs], "radius": [radius for _, radius in pairs]}


def certify_case(case: ReferenceCase) -> dict[str, Any]:
    """Return the JSON record of one problem."""
    problem = case.problem
    certified = certified_hypergradient(problem, digits=DATA_DIGITS + _SPARE)
    survive = digits_surviving_rounding(problem, certified, entropy=ENTROPY)
    value, radius = _record(certified.objective)
    return {
        "format": DATA_FORMAT,
        "version": DATA_VERSION,
        "name": problem.name,
        "kind": problem.kind,
        "summary": case.summary,
        "difficulty": {
            "level": level_of(survive),
            "condition": float(f"{certified.condition:.4g}"),
            "digits_in_double": survive,
        },
        "provenance": {
            "command": "python -m bilevelrl.benchmarks.reference_problems.generate_reference_data",
            "entropy": ENTROPY,
            "method": "ball arithmetic (Arb)",
            "bits": certified.bits,
            "python-flint": metadata.version("python-flint"),
            "bilevelrl": metadata.version("bilevelrl"),
        },
        "problem": problem_to_json(problem),
        "answer": {
            "digits": DATA_DIGITS,
            "objective": {"value": value, "radius": radius},
            "gradient": _columns(certified.value),
            "parts": {name: _columns(part) for name, part in certified.parts.items()},
        },
    }


def dump(record: dict[str, Any]) -> str:
    """Return JSON with one line per key down to the tables and parts: small, and its differences can be read."""

    def lines(entries: dict[str, Any], depth: int) -> str:
        inner = " " * depth
        written = [
            f"{inner}{json.dumps(key)}: "
            + (
                lines(value, depth + 1)
                if depth < 3 and isinstance(value, dict) and key in ("problem", "answer", "tables", "parts")
                else json.dumps(value, ensure_ascii=False)
            )
            for key, value in entries.items()
        ]
        return "{\n" + ",\n".join(written) + "\n" + " " * (depth - 1) + "}"

    return lines(record, 1) + "\n"


def _given(path: Path) -> ReferenceCase:
    """A new problem from a file without an answer."""
    record = parse_json(path.read_text(encoding="utf-8"), str(path))
    missing = [
        key for key in ("name", "kind", "summary", "problem") if not isinstance(record, dict) or key not in record
    ]
    if missing:
        raise InvalidInputError(
            f"{path}: keys {missing} are missing; expected name, kind, summary and problem; add them"
        )
    problem = problem_from_json(record["problem"], name=record["name"], kind=record["kind"])
    return ReferenceCase(problem=problem, summary=record["summary"])


def _timed(case: ReferenceCase) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    return certify_case(case), time.perf_counter() - started


def main(arguments: Sequence[str] | None = None, report: Callable[[str], None] = print) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Certify all reference problems and write them as JSON.")
    parser.add_argument("--output", type=Path, default=Path("tasks/data"), help="folder (default tasks/data)")
    parser.add_argument("--only", default="", help="only problems whose name contains this")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--check", action="store_true", help="compare with the files; write nothing")
    parser.add_argument("--complete", type=Path, metavar="FILE", help="answer a new problem in its file, and stop")
    options = parser.parse_args(arguments)
    if options.complete is not None:
        write_atomically(options.complete, dump(certify_case(_given(options.complete))))
        report(f"wrote {options.complete}; check it with `bilevelrl certify --check-problem {options.complete}`")
        return 0
    cases = [case for case in reference_cases() if options.only in case.problem.name]
    started, differing = time.perf_counter(), 0
    with ProcessPoolExecutor(max_workers=options.workers) as pool:
        for record, seconds in pool.map(_timed, cases):
            path = options.output / f"{record['name']}.json"
            text = dump(record)
            if options.check:
                same = path.exists() and json.loads(path.read_text("utf-8"))["answer"] == record["answer"]
                differing += not same
                status = "same" if same else "DIFFERS"
            else:
                write_atomically(path, text)
                status = f"{len(text) / 1024:.0f} kB"
            difficulty = record["difficulty"]
            report(
                f"{record['name']:<44} {difficulty['level']:<9} condition {difficulty['condition']:8.2g}  "
                f"digits {difficulty['digits_in_double']:4.1f}  {record['provenance']['bits']:5d} bits  "
                f"{seconds:6.2f} s  {status}"
            )
    report(f"{len(cases)} problems in {time.perf_counter() - started:.1f} s")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
