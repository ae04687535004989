"""Certify all reference problems and write them as JSON.

Run with `python -m bilevelrl.benchmarks.reference_problems.generate_reference_data --output tasks/data`; the same
versions give the same bytes. With `--check` nothing is written and the files are compared: each stored number has to
contain the new one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

from numpy.random import Generator

from bilevelrl.benchmarks.reference_problems.reference_cases import ENTROPY, ReferenceCase, reference_cases
from bilevelrl.reference import certified_hypergradient, named_stream
from bilevelrl.reference.certified import CertifiedHypergradient, ClosedForm, ClosedFormTable, Enclosure, Exact
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks.generators import problem_to_json
from bilevelrl.tasks.scenarios import DATA_FORMAT, DATA_VERSION

__all__ = ["DIGITS", "certify_case", "digits_surviving_rounding", "main", "perturbed"]

DIGITS = 30
"""Digits that every stored number has."""

_SPARE = 3
_LEVELS = ((12.5, "easy"), (10.5, "moderate"), (8.0, "hard"), (-math.inf, "cruel"))


def perturbed(problem: ClosedForm, rng: Generator) -> ClosedForm:
    """Return the problem with every number moved by one part in 2^53, up or down at random; symmetry is kept."""

    def moved(number: Exact, up: bool) -> Fraction:
        return Fraction(number) * (1 + Fraction(1 if up else -1, 2**53))

    def numbers(values: tuple[Exact, ...]) -> tuple[Exact, ...]:
        return tuple(moved(value, bool(up)) for value, up in zip(values, rng.integers(0, 2, len(values)), strict=True))

    def table(entry: ClosedFormTable) -> ClosedFormTable:
        draws = rng.integers(0, 2, entry.size)
        symmetric = problem.kind.endswith(("lqr", "lqr_game")) and len(set(entry.shape)) == 1 and len(entry.shape) == 2
        width = entry.width

        def up(place: int) -> bool:
            row, column = divmod(place, width)
            return bool(draws[max(row, column) * width + min(row, column)] if symmetric else draws[place])

        return ClosedFormTable(
            shape=entry.shape,
            base={place: moved(number, up(place)) for place, number in entry.base.items()},
            slope=tuple((place, j, moved(number, up(place))) for place, j, number in entry.slope),
            quadratic=tuple((place, i, j, moved(number, up(place))) for place, i, j, number in entry.quadratic),
            link=entry.link,
            support=entry.support,
            scale=numbers(entry.scale) if isinstance(entry.scale, tuple) else entry.scale,
        )

    leader, follower, temperature = numbers((problem.discount_leader, problem.discount_follower, problem.temperature))
    return replace(
        problem,
        tables={name: table(entry) for name, entry in problem.tables.items()},
        theta=numbers(problem.theta),
        discount_leader=leader,
        discount_follower=follower,
        temperature=temperature,
    )


def digits_surviving_rounding(problem: ClosedForm, certified: CertifiedHypergradient, draws: int = 3) -> float:
    """Return how many digits of ∇J stand when every number of the problem is moved by its last bit: the worst draw.

    No double-precision code can promise more, however it computes: this much is lost before it starts.
    """
    size = max((abs(float(entry)) for entry in certified.value), default=0.0)
    off = 0.0
    for draw in range(draws):
        rng = named_stream(ENTROPY, problem.name, "last bits", str(draw))
        other = certified_hypergradient(perturbed(problem, rng), digits=18)
        for new, old in zip(other.value, certified.value, strict=True):
            off = max(off, abs(float(Enclosure(new.ball - old.ball).ball.mid())))
    if size == 0.0:
        return 0.0
    return 16.0 if off == 0.0 else round(min(16.0, -math.log10(off / size)), 1)


def _record(entry: Enclosure) -> tuple[str, str]:
    return entry.decimal(DIGITS + _SPARE)


def _columns(entries: Sequence[Enclosure]) -> dict[str, list[str]]:
    pairs = [_record(entry) for entry in entries]
    return {"value": [value for value, _ in pairs], "radius": [radius for _, radius in pairs]}


def certify_case(case: ReferenceCase) -> dict[str, Any]:
    """Return the JSON record of one problem."""
    problem = case.problem
    certified = certified_hypergradient(problem, digits=DIGITS + _SPARE)
    survive = digits_surviving_rounding(problem, certified)
    value, radius = _record(certified.objective)
    return {
        "format": DATA_FORMAT,
        "version": DATA_VERSION,
        "name": problem.name,
        "kind": problem.kind,
        "summary": case.summary,
        "difficulty": {
            "level": next(level for floor, level in _LEVELS if survive >= floor),
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
            "digits": DIGITS,
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
    options = parser.parse_args(arguments)
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
