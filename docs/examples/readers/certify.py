"""Hold numbers from any program against the certified ones, with this file and the data folder alone.

    python certify.py results.json DATA [--digits 12] [--json]

DATA is the folder with the problems. Prints what `bilevelrl certify results.json` prints, and ends as it ends: 1 if
something failed, 0 if nothing did and something passed, 2 otherwise. Needs Python 3.11 and nothing else.
"""

import argparse
import json
import math
import re
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

USUAL_DIGITS, ALLOWANCE, LEAST, MOST = 6, 4.0, 2.0, 4000
NUMBER = re.compile(r"\s*[+-]?(\d+(/\d+)?|(?=\.?\d)\d*\.?\d*([eE](?P<exponent>[+-]?\d+))?)\s*", re.ASCII)
COLUMNS = ("problem", "level", "objective", "gradient", "worst", "doubles can", "asked", "verdict")


def expect(holds, message):
    if not holds:
        raise SystemExit(message)


def exact(value, where):
    """A JSON number is the double next to its literal, a string the rational that it says."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf:
        return Fraction(value)
    text = NUMBER.fullmatch(value) if isinstance(value, str) else None
    expect(text, f"{where}={value!r}: expected a finite number, or a string such as '1/3' or '2.5e-7'; write it so")
    power = text["exponent"] or "0"
    short = len(value) <= MOST and len(power) <= 9 and abs(int(power)) <= MOST
    expect(short, f"{where}: expected at most {MOST} digits, and powers of ten; round it")
    expect("/" not in value or int(value.split("/")[1]), f"{where}={value!r}: expected a denominator; write it so")
    return Fraction(value)


def agreeing_digits(given, stored, scale=Fraction(0)):
    """-log10(max |given - truth| / max |truth|), with the truth where it agrees least within its radius."""
    values, radii = ([exact(x, "data") for x in stored[key]] for key in ("value", "radius"))
    off = max((abs(x - v) + abs(r) for x, v, r in zip(given, values, radii, strict=True)), default=Fraction(0))
    size = max([scale, *map(abs, values)])
    if off == 0 or size == 0:
        return math.inf if off == 0 or not any(given) else 0.0
    return max(0.0, log10(size) - log10(off))


def log10(number):
    return float((Decimal(number.numerator) / Decimal(number.denominator)).log10())


def hold(name, given, stored, digits):
    """The digits of each quantity that was given, with the verdict."""
    expect(isinstance(given, dict) and given, f"{name}: expected an object with objective, gradient or parts")
    unknown = set(given) - {"objective", "gradient", "parts"}
    expect(not unknown, f"{name}: keys {sorted(unknown)} are unknown; expected objective, gradient, parts")
    answer, found = stored["answer"], {}
    scale = max((abs(exact(x, "data")) for x in answer["gradient"]["value"]), default=Fraction(0))

    def column(entries, where, length):
        expect(isinstance(entries, list), f"{where}: expected a list of numbers; write it in brackets")
        expect(len(entries) == length, f"{where}: length={len(entries)}: expected {length}, one entry per entry of θ")
        return [exact(x, f"{where}[{i}]") for i, x in enumerate(entries)]

    if "objective" in given:
        single = {key: [answer["objective"][key]] for key in ("value", "radius")}
        found["objective"] = agreeing_digits([exact(given["objective"], f"{name}: objective")], single)
    length = len(answer["gradient"]["value"])
    if "gradient" in given:
        found["gradient"] = agreeing_digits(column(given["gradient"], f"{name}: gradient", length), answer["gradient"])
    parts = given.get("parts", {})
    expect(isinstance(parts, dict), f"{name}: parts: expected an object, {{name of the part: [...]}}")
    for part, entries in parts.items():
        expect(part in answer["parts"], f"{name}: part {part!r} is unknown; expected one of {sorted(answer['parts'])}")
        found[part] = agreeing_digits(column(entries, f"{name}: {part}", length), answer["parts"][part], scale)
    expect(found, f"{name}: expected objective, gradient or parts; give at least one of them")
    attainable = stored["difficulty"]["digits_in_double"]
    required = digits if digits is not None else min(USUAL_DIGITS, attainable - ALLOWANCE)
    failed = required > 0 and min(found.values()) < required
    verdict = "failed" if failed else "passed" if required >= LEAST else "no power"
    return {
        "problem": name, "level": stored["difficulty"]["level"], "digits": found, "attainable": attainable,
        "required": max(0.0, float(required)), "verdict": verdict,
    }  # fmt: skip


def table(rows):
    def shown(digits):
        return "-" if digits is None else "all" if math.isinf(digits) else f"{digits:.1f}"

    cells = [
        (
            row["problem"], row["level"], *(shown(row["digits"].get(key)) for key in ("objective", "gradient")),
            " ".join((worst := min(row["digits"], key=row["digits"].get), shown(row["digits"][worst]))),
            f"{row['attainable']:.1f}", f"{row['required']:.1f}", row["verdict"],
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(COLUMNS, *cells, strict=True)]
    lines = ["Digits of agreement with the certified numbers"]
    for row in (COLUMNS, ["─" * width for width in widths], *cells):
        lined = [
            c.ljust(w) if i < 2 or i == 7 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(lined).rstrip())
    return "\n".join(lines)


def once(pairs):
    """The pairs of a JSON object, none of them named twice."""
    expect(len(dict(pairs)) == len(pairs), f"a key is there twice among {[key for key, _ in pairs][:8]}; leave one out")
    return dict(pairs)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--digits", type=float, help="ask for so many digits everywhere")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        expect(options.digits is None or 0 < options.digits < math.inf, "--digits: expected a finite number > 0")
        record = json.loads(options.results.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
        known = {path.stem: path for path in options.data.glob("*.json") if path.name != "schema.json"}
        expect(known, f"{options.data}: holds no problems; name the data folder")
        header = isinstance(record, dict) and record.get("format") == "bilevelrl-results" and record.get("version") == 1
        expect(header and type(record["version"]) is int, 'expected {"format": "bilevelrl-results", "version": 1, …}')
        results = record.get("results")
        expect(isinstance(results, dict) and results, "results: expected an object by problem; give one or more")
        unknown = sorted(set(results) - set(known))
        expect(not unknown, f"results: problems {unknown} are unknown; see the data folder")
        read = {name: json.loads(known[name].read_text(encoding="utf-8")) for name in results}
        rows = [hold(name, given, read[name], options.digits) for name, given in results.items()]
    except (OSError, ValueError, RecursionError, SystemExit) as refused:
        print(f"certify: {refused}", file=sys.stderr)
        return 2
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("passed", "failed", "no power")}
    if options.json:
        for row in rows:
            row["digits"] = {k: None if math.isinf(d) else round(d, 2) for k, d in row["digits"].items()}
        print(json.dumps(rows, indent=1))
    else:
        print(table(rows))
        print(
            f"{count['passed']} passed, {count['failed']} failed, {count['no power']} without power, "
            f"{len(known) - len(rows)} not given"
        )
    return 1 if count["failed"] else 0 if count["passed"] else 2


if __name__ == "__main__":
    raise SystemExit(main())
