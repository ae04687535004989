"""Files of numbers are read as what they are, or refused with the place and what was expected there."""

import pickle
import re
import zipfile
from io import StringIO
from itertools import count

import numpy as np
import pytest

from bilevelrl.reference import named_stream
from bilevelrl.reference.errors import InvalidInputError, ShapeError
from bilevelrl.tasks import scenario
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.reading import csv_numbers
from bilevelrl.verification.reading.draws import open_draws, read_array, read_text
from bilevelrl.verification.testing.judge import judge_draws, read_draws

ROWS = named_stream(4, "rows").standard_normal((20, 3))
LINES = "\n".join(",".join(f"{x:.17g}" for x in row) for row in ROWS) + "\n"


def written(folder, content, name="draws.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestReadAsTheyAre:
    @pytest.mark.parametrize(
        "content",
        [
            LINES,
            LINES.rstrip("\n"),
            "\ufeff" + LINES,
            LINES.replace("\n", "\r\n"),
            LINES.replace("\n", "\r"),
            "\ufeffa,b,c\r\n" + LINES.replace("\n", "\r\n"),
            '"∂J/∂θ 0","∂J/∂θ 1","∂J/∂θ 2"\n' + LINES,
            "# three parameters, 20 draws\n\n# a,b,c\n" + LINES,
            "\n \n\t\n" + LINES.replace("\n", "\n\n \n"),
            LINES.replace("\n", "  # seed 3\n"),
            LINES.replace(",", " , "),
        ],
        ids=map(str, count()),
    )
    @pytest.mark.parametrize("chunk", [1, 100, 10**6])
    def test_csv(self, tmp_path, content, chunk, monkeypatch):
        monkeypatch.setattr(csv_numbers, "_CHUNK", chunk)
        assert np.array_equal(read_draws(written(tmp_path, content)), ROWS)

    def test_a_first_draw_is_not_lost(self, tmp_path):
        """A byte-order mark made the first line no number, and what is no number was taken for names."""
        with open_draws(written(tmp_path, "\ufeff" + LINES), 3) as draws:
            assert draws.count == 20

    def test_draws_of_whole_numbers_are_draws(self, tmp_path):
        assert read_draws(written(tmp_path, "0,1\n1,0\n2,2\n")).tolist() == [[0, 1], [1, 0], [2, 2]]
        assert read_draws(written(tmp_path, "a,b\n0,1\n0.5,0\n")).tolist() == [[0, 1], [0.5, 0]]

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "uint64", ">f8", "longdouble"])
    @pytest.mark.parametrize("suffix", ["npy", "npz", "NPY"])
    def test_numpy(self, tmp_path, dtype, suffix):
        rows = (8 * np.abs(ROWS)).astype(dtype)
        path = tmp_path / f"draws.{suffix}"
        with path.open("wb") as file:
            (np.savez if suffix == "npz" else np.save)(file, rows)
        assert np.array_equal(read_draws(path), rows.astype(np.float64))
        with open_draws(path, 3) as draws:
            assert np.array_equal(np.concatenate(list(draws.blocks())), rows.astype(np.float64))

    def test_one_column(self, tmp_path):
        np.save(tmp_path / "draws.npy", ROWS[:, 0])
        with open_draws(tmp_path / "draws.npy", 1) as draws:
            assert np.array_equal(np.concatenate(list(draws.blocks())), ROWS[:, :1])

    def test_text(self, tmp_path):
        assert read_text(written(tmp_path, "\ufeff{}", "x.json")) == "{}"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("1.0,2.0,oops\n" + LINES, r"line 1, column 3: 'oops'"),
        ("1.0,2.0,\n" + LINES, r"line 1, column 3: ''"),
        ("nan,nan,nan\n" + LINES, r"line 1, column 1"),
        ("NA,NA,NA\n" + LINES, r"line 1, column 1: 'NA'"),
        ("None,b,c\n" + LINES, r"line 1, column 1: 'None'"),
        ("--1.5,x,y\n" + LINES, r"line 1: .* neither numbers nor names"),
        ("a,a,a\n" + LINES, r"line 1: .* neither numbers nor names"),
        (",0,1,2\n" + LINES, r"line 1, column 1: ''"),
        ("0,1,2\n" + LINES, r"line 1: '0,1,2' counts the columns"),
        ("a,b\n" + LINES, r"names 2 columns where lines hold 3"),
        ("a,b,c\nd,e,f\n" + LINES, r"line 2, column 1: 'd'"),
        (LINES + "a,b,c\n", r"line 21, column 1: 'a'"),
        (LINES + "1,2\n", r"line 21: numbers=2: expected 3"),
        (LINES + "1,2,3,4\n", r"line 21: numbers=4: expected 3"),
        (LINES + "1,2,inf\n", r"line 21, column 3"),
        (LINES + "1,2,1e999\n", r"line 21, column 3=inf: expected finite"),
        (LINES + "1,2,3+4j\n", r"line 21, column 3: '3\+4j'"),
        (LINES + "1,2,2026-11-30\n", r"line 21, column 3: '2026-11-30'"),
        (LINES + "1,2,1_000\n", r"line 21, column 3: '1_000'"),
        (LINES + "1,2,\x003\n", r"line 21, column 3"),
        (LINES + "\n\n# and\n1,2," + 5000 * "x", r"line 24, column 3: 'x+…'"),
        (LINES.replace(",", ";"), r"line 1: .* neither numbers nor names"),
        (LINES.replace(",", ";").replace(".", ","), r"write points in numbers and commas"),
        (LINES.replace(",", " "), r"line 1: .* neither|line 1, column 1"),
        ("", "no numbers"),
        ("a,b,c\n", "no numbers"),
        ("# 1,2,3\n\n", "no numbers"),
        (LINES.encode("utf-16"), "UTF-8"),
        (b"\xff\xfe\x00" + LINES.encode(), "UTF-8"),
    ],
    ids=map(str, count()),
)
@pytest.mark.parametrize("chunk", [1, 10**6])
def test_csv_refusals_name_the_line(content, match, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_numbers, "_CHUNK", chunk)
    path = written(tmp_path, content)
    if chunk == 1 and "counts" in match:
        monkeypatch.setattr(csv_numbers, "_CHUNK", 100)  # the second line is looked at too
    with pytest.raises(InvalidInputError, match=match) as refused, open_draws(path, 3):
        pass
    assert "draws.csv" in str(refused.value)
    assert len(str(refused.value)) < 400
    with pytest.raises(InvalidInputError):
        read_draws(path)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (ROWS.astype(complex), "real numbers"),
        (ROWS > 0, "real numbers"),
        (ROWS.astype("datetime64[s]"), "real numbers"),
        (ROWS.astype("timedelta64[s]"), "real numbers"),
        (ROWS.astype("U8"), "real numbers"),
        (ROWS.astype("S8"), "real numbers"),
        (np.zeros(5, dtype=[("a", float), ("b", float), ("c", float)]), "real numbers"),
        (ROWS[:, :2], r"shape=\(20, 2\)"),
        (ROWS[:3], "R >= 4"),
        (ROWS[None], r"shape=\(1, 20, 3\)"),
        (np.float64(1.0), r"shape=\(\)"),
        (np.zeros((0, 3)), "R >= 4|cannot"),
        (np.where(ROWS > 2, np.nan, ROWS) * np.nan, r"\[0, 0\]=nan"),
        (np.full((4, 3), np.inf, dtype=np.float32), r"\[0, 0\]=inf"),
    ],
)
@pytest.mark.parametrize("where", ["memory", "npy", "npz"])
def test_arrays_of_something_else(array, match, where, tmp_path):
    path = tmp_path / f"draws.{where}"
    if where == "npz":
        np.savez(path, array)
    elif where == "npy":
        np.save(path, array)
    with pytest.raises(InvalidInputError, match=match) as refused:
        judge_draws(array if where == "memory" else path, "layered")
    assert ("draws.np" in str(refused.value)) == (where != "memory")


class TestArraysInMemory:
    def test_masks(self):
        masked = np.ma.masked_greater(ROWS, 1.0)
        hidden = int(masked.mask.sum())
        for draws in (masked, list(masked)):
            with pytest.raises(InvalidInputError, match=f"{hidden} of 60 entries are masked"):
                judge_draws(draws, "layered")
        unmasked = judge_draws(np.ma.array(ROWS), "layered")
        assert np.array_equal(unmasked.mean, judge_draws(ROWS, "layered").mean)

    def test_what_does_not_convert(self):
        class Elsewhere:
            def __array__(self, dtype=None, copy=None):
                raise RuntimeError("on another device")

        with pytest.raises(ShapeError, match=r"Elsewhere does not convert .*another device"):
            judge_draws(Elsewhere(), "layered")
        with pytest.raises(ShapeError, match="list does not convert"):
            judge_draws([[1.0, 2.0, 3.0], [1.0]], "layered")
        with pytest.raises(InvalidInputError, match="dtype"):
            judge_draws([[1.0, None, 3.0]] * 5, "layered")

    def test_dtypes_wider_than_doubles(self):
        rows = np.full((4, 3), np.finfo(np.longdouble).max)
        with pytest.raises(InvalidInputError, match=r"draws\[0, 0\]"):
            judge_draws(rows, "layered")


class TestBrokenFiles:
    def contents(self, folder):
        np.save(folder / "whole.npy", ROWS)
        np.savez(folder / "whole.npz", ROWS)
        np.save(folder / "objects.npy", np.array([None, 1]), allow_pickle=True)
        npy, npz = ((folder / f"whole.{kind}").read_bytes() for kind in ("npy", "npz"))
        return npy, npz, (folder / "objects.npy").read_bytes()

    def test_broken_and_foreign_files(self, tmp_path):
        npy, npz, objects = self.contents(tmp_path)
        huge = npy.replace(b"(20, 3)", b"(2**9,)")
        cases = {
            "empty.npy": b"",
            "half.npy": npy[:-100],
            "head.npy": npy[:40],
            "objects.npy": objects,
            "pickle.npy": pickle.dumps(ROWS),
            "text.npy": LINES.encode(),
            "header.npy": huge,
            "empty.npz": b"",
            "half.npz": npz[:-60],
            "torn.npz": npz[:200] + b"\x00" * 50 + npz[250:],
            "objects.npz": None,
        }
        with zipfile.ZipFile(tmp_path / "objects.npz", "w") as archive:
            archive.writestr("a.npy", objects)
        for name, content in cases.items():
            path = tmp_path / name if content is None else written(tmp_path, content, name)
            for read in (read_array, lambda path: judge_draws(path, "layered")):
                with pytest.raises(InvalidInputError, match=f"{name}: cannot be read.*expected one array"):
                    read(path)

    def test_archives_of_several_arrays(self, tmp_path):
        np.savez(tmp_path / "two.npz", a=ROWS, b=ROWS)
        with pytest.raises(InvalidInputError, match=r"holds 2 arrays \['a', 'b'\]"):
            read_draws(tmp_path / "two.npz")

    def test_folders_missing_files_and_other_names(self, tmp_path):
        (tmp_path / "folder.csv").mkdir()
        for name in ("folder.csv", "none.csv", "none.npy", "none.npz"):
            with pytest.raises(InvalidInputError, match=f"{name}: cannot be read"):
                read_draws(tmp_path / name)
        with pytest.raises(InvalidInputError, match=r"\.csv"):
            read_draws(tmp_path / "draws.txt")
        with pytest.raises(InvalidInputError, match=r"x\.json: cannot be read"):
            read_text(tmp_path / "x.json")
        with pytest.raises(InvalidInputError, match="UTF-8"):
            read_text(written(tmp_path, "{}".encode("utf-16"), "y.json"))


def test_the_command_reads_files_of_draws(tmp_path, capsys):
    path = written(tmp_path, "1.0,2.0,oops\n" + LINES)
    assert main(["judge", str(path), "--scenario", "layered"]) == 2
    assert "line 1, column 3" in capsys.readouterr().err
    truth = scenario("layered").truth.value
    named = "\ufeffa;b;c\n" + LINES
    assert main(["judge", str(written(tmp_path, named)), "--scenario", "layered"]) == 2
    np.savetxt(path, truth + named_stream(5, "rows").standard_normal((20_000, 3)), delimiter=",")
    assert main(["judge", str(path), "--scenario", "layered"]) == 0


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_how_far_the_reading_is(terminal, tmp_path, monkeypatch):
    np.save(tmp_path / "draws.npy", scenario("layered").truth.value + ROWS)
    said = StringIO()
    said.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", said)
    assert main(["judge", str(tmp_path / "draws.npy"), "--scenario", "layered"]) == 2  # no power
    assert bool(said.getvalue()) == terminal


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros(3) + 1j, "real numbers"),
        (np.zeros(3, dtype="datetime64[D]"), "real numbers"),
        (np.array([0.0, np.nan, 0.0]), r"\[1\]=nan"),
    ],
)
def test_theta_is_read_as_what_it_is(array, match, tmp_path, capsys):
    np.save(tmp_path / "theta.npy", array)
    assert main(["gradient", "--task", "chain", "--theta", str(tmp_path / "theta.npy")]) == 2
    assert re.search(match, capsys.readouterr().err)
