"""Command lines with bad arguments, made from the parser: none may end in a traceback, nor as a failed check.

`python tests/helpers/fuzz_commands.py` runs all of them, each in a process of its own that may work for some seconds,
and prints how they ended; the gate runs some of them in its own process, up to where the work would begin.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from bilevelrl.tasks.scenarios.reference_data import reference_problem
from bilevelrl.verification.commands.command_line import build_parser, main
from bilevelrl.verification.processes.ending import CHECK_FAILED, OWN_MISTAKE

WORDS = (
    *("", " ", "-1", "0", "-0", "1", "2.5", "1e400", "-1e400", "1e-320", "nan", "inf", "-inf", "1_000", "٣", "0x10"),
    *("9" * 25, "9" * 5000, "2147483648", "x", "None", "True", "--", "-", "é\udc80", "a\nb", "1,2", "{}", "[]", "%s"),
    *("zeros", "layered", "implicit", "four_rooms", "x" * 300, "1e999999999"),
)
"""What is typed wrongly: empty, of other types, of other alphabets, out of every range, too long; and some right."""

BASE = {
    "gradient": ["--task", "chain"],
    "judge": ["draws.npy", "--scenario", "layered"],
    "train": ["--task", "chain", "--seeds", "1", "--iterations", "2", "--streams", "2", "--steps", "3"],
    "verify": ["--quick", "--workers", "1"],
    "report": ["--quick"],
    "fresh-seeds": ["--runs", "1"],
    "false-alarms": ["--judgements", "1"],
    "digits": ["--only", "one_state"],
    "mutants": ["no-such-mutant"],
    "certify": ["results.json"],
    "attribute": ["--scenario", "bandit", "--cause", "truncation"],
    "reproduce": ["--seeds", "1", "--iterations", "1", "--quick"],
}
"""What makes the rest of a command line right and quick, by command."""

RESULTS = '{"format": "bilevelrl-results", "version": 1, "results": {"mdp_one_state": {"objective": %s}}}'
FIGURE = "maps"
"""The figure of `reproduce` whose shared arguments stand for those of all others."""


def files():
    """Return {name: content} of files that are not what they should be, None for folders; and three right ones."""
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, np.linspace(0.0, 1.0, 60).reshape(20, 3))
    np.savez(archive, draws=np.ones((20, 3)))
    objects = io.BytesIO()
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    complex_, dates, huge = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(complex_, np.ones((20, 3)) * 1j)
    np.save(dates, np.array(["2020-01-01"], dtype="datetime64[D]"))
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)}
    np.lib.format.write_array_header_1_0(huge, header)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as made:
        made.writestr("draws.npy", b"no array")
    pickled = pickle.dumps({})
    contents = {"folder": None, "empty": b"", "binary": bytes(range(256)) * 4, "text": b"a,b\nc,d\n", "one": b"1\n"}
    contents |= {"bom": b"\xef\xbb\xbf1,2,3\n4,5,6\n", "latin": "é,1\n".encode("latin-1"), "nul": b"\0" * 64}
    contents |= {"ragged": b"1,2\n3\n", "nan": b"nan,inf\n1,2\n", "pickle": pickled, "deep": b"[" * 100_000}
    contents |= {"utf16": "1,2\n".encode("utf-16"), "long": b"9" * 100_000, "newlines": b"\n" * 100}
    right = repr(float(reference_problem("mdp_one_state").objective))
    found = {}
    for ending in ("npy", "npz", "csv", "json"):
        found |= {f"{name}.{ending}": content for name, content in contents.items()}
    found |= {"good.npy": array.getvalue(), "draws.npy": array.getvalue(), "good.npz": archive.getvalue()}
    found |= {
        "cut.npy": array.getvalue()[:200],
        "cut.npz": archive.getvalue()[:200],
        "header.npy": array.getvalue()[:9],
    }
    found |= {"objects.npy": objects.getvalue(), "complex.npy": complex_.getvalue(), "dates.npy": dates.getvalue()}
    found |= {"huge.npy": huge.getvalue(), "other.npz": other.getvalue(), "npy.npz": array.getvalue()}
    found |= {"results.json": (RESULTS % right).encode(), "cut.json": (RESULTS % right).encode()[:-9]}
    for name, value in {"nan": "NaN", "inf": "1e999", "list": "[[]]", "true": "true", "text": '"x"'}.items():
        found[f"value-{name}.json"] = (RESULTS % value).encode()
    found["deep-inside.json"] = (RESULTS % ("[" * 5000 + "]" * 5000)).encode()
    found["digits.json"] = (RESULTS % ("9" * 5000)).encode()
    found |= {"list.json": b"[1]", "null.json": b"null", "surrogate.json": (RESULTS % '"\\udc80"').encode()}
    return found


def write_files(folder):
    """Write them, with one that may not be read, and return all names, among them some that are not there."""
    for name, content in files().items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
    (folder / "closed.csv").write_text("1\n")
    (folder / "closed.csv").chmod(0)
    (folder / "loop.csv").symlink_to("loop.csv")
    special = ["missing.csv", "missing/missing.json", "good.npy/below.csv", "/proc/self/mem", "/proc/none.csv", "/"]
    return [*files(), "closed.csv", "loop.csv", *special]


def leaves(parser, path=()):
    """Yield (words, parser) of every command that has no subcommands."""
    parser.fill()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from leaves(below, (*path, name))
            return
    yield path, parser


def command_lines(names):
    """Return every command line: each argument of each command with each bad value, the others right."""
    lines, shared_by_figures = [], ("output", "quick", "seeds", "iterations", "workers")
    for path, parser in leaves(build_parser()):
        base = BASE.get(path[0], [])
        for action in parser._actions:
            shared = path[0] == "reproduce" and path[1] != FIGURE and action.dest in shared_by_figures
            if isinstance(action, argparse._HelpAction) or shared:
                continue
            takes_files = action.type is Path or action.dest == "theta"
            for value in (*WORDS, *(names if takes_files else ())):
                if action.option_strings:
                    lines.append([*path, *base, f"{action.option_strings[0]}={value}"])
                else:
                    rest = base[1:] if base and not base[0].startswith("--") else base
                    lines.append([*path, *rest, "--", value])
        lines.append([*path, *base, "--no-such-option"])
    return lines


def sample(lines, one_in):
    """Return some of the lines, the same ones every time."""
    digests = (hashlib.sha256(repr(line).encode()).digest() for line in lines)
    return [line for line, digest in zip(lines, digests, strict=True) if int.from_bytes(digest[:4]) % one_in == 0]


def run(line):
    """Run a command line here and return (status, what it printed)."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = main(line)
        except SystemExit as ended:
            status = ended.code
    return status, printed.getvalue()


def run_apart(line, seconds, said):
    """Run a command line in a process of its own; return its status, or None where it was still at work."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        status, text = OWN_MISTAKE, "did not return"
        try:
            status, text = run(line)
        except BaseException as broken:
            text = f"Traceback, out of `main`: {broken!r}"
        finally:
            Path(said).write_text(text, errors="replace")
            os._exit(status)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), Path(said).read_text()
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, ""


def ended_well(status, text):
    """Whether a command line that ended so was answered, refused, or failed a check and says which."""
    return "Traceback" not in text and (status in (None, 0, 2) or (status == 1 and "failed" in text.lower()))


def everything(seconds, one_in, only):
    """Run all command lines, print those that ended as they must not, and the counts."""
    counts, wrong = collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.mkdir("work")
        names = write_files(Path("work").resolve())
        os.chdir("work")
        for line in sample(command_lines(names), one_in):
            if only and line[0] not in only:
                continue
            status, text = run_apart(line, seconds, "../said")
            counts["at work" if status is None else status] += 1
            if not ended_well(status, text):
                wrong += 1
                shown = [word if len(word) < 60 else f"{word[:30]}... ({len(word)})" for word in line]
                print(f"{status}  {shown}\n    " + "\n    ".join(text.strip().splitlines()[-6:]), flush=True)
        for entry in Path().rglob("closed.csv"):
            entry.chmod(0o600)
        os.chdir("/")
    ends = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=str))
    print(f"{counts.total()} command lines: {ends} (0 answered, {CHECK_FAILED} failed, 2 refused, {OWN_MISTAKE} ours)")
    print(f"{wrong} ended in a traceback or as a failed check")
    return wrong


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3.0, help="that a command line may work")
    options.add_argument("--one-in", type=int, default=1, help="run only so many")
    options.add_argument("--only", nargs="*", help="of these commands")
    given = options.parse_args()
    sys.exit(min(1, everything(given.seconds, given.one_in, given.only)))
