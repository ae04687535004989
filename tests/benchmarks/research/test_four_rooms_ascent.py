"""Exact ascent on Four-Rooms: start and end values, and the certificate of the vertex of no penalty."""

import csv

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from bilevelrl.benchmarks.research.escape.ascent import ascend, certify_no_penalty, main
from bilevelrl.reference import leader_objective, named_stream
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import four_rooms, initial_theta
from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID

pytestmark = pytest.mark.exact

# temperature: objective at no penalty, largest slope there, objective after 10,000 steps
KNOWN = {0.001: (0.00083, -0.743, 0.0006), 0.003: (0.00150, -0.720, 0.0013), 0.005: (0.01781, -0.491, 0.0176)}


@pytest.mark.parametrize("temperature", KNOWN)
def test_no_penalty_is_a_strict_local_maximum(temperature):
    certificate = certify_no_penalty(temperature)
    objective, slope, _ = KNOWN[temperature]
    assert certificate.objective == pytest.approx(objective, abs=5.1e-6)
    assert certificate.slope == pytest.approx(slope, abs=5.1e-4)
    assert certificate.strict_local_maximum
    assert certificate.error_bound < 1e-5
    # The slope itself, from the objective alone.
    problem = four_rooms(temperature=temperature, coordinates="shares")
    share = np.zeros(104)
    share[FOUR_ROOMS_GRID.index_of(certificate.cell)] = step = 1e-6
    difference = (leader_objective(problem, share) - leader_objective(problem, -share)) / (2.0 * step)
    assert difference == pytest.approx(certificate.slope, abs=1e-6)


def test_ascent_climbs_and_reports_where_it_is():
    theta = initial_theta(named_stream(0, "four_rooms_ascent", "start"))
    run = ascend(0.005, theta, steps=50)
    assert (np.diff(run.objective) > 0.0).all()
    assert run.objective[-1] == pytest.approx(leader_objective(four_rooms(temperature=0.005), run.theta), rel=1e-12)
    # To first order a step of length η gains η |∇J|².
    gain = 0.5 * run.gradient_norm[:-1] ** 2
    np.testing.assert_allclose(np.diff(run.objective), gain, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", KNOWN)
def test_ten_thousand_steps_end_at_no_penalty(temperature):
    theta = initial_theta(named_stream(0, "four_rooms_ascent", "start"))
    run = ascend(temperature, theta, steps=10_000)
    vertex, _, end = KNOWN[temperature]
    assert run.objective[-1] == pytest.approx(end, abs=5.1e-5)
    assert run.objective[-1] < vertex
    assert 1.0 - run.unused_share[-1] < 4e-4


def test_step_is_clipped():
    run = ascend(0.005, np.zeros(105), steps=1, learning_rate=1.0, largest_norm=1e-3)
    assert np.linalg.norm(run.theta) == pytest.approx(1e-3, rel=1e-12)


def test_command_writes_its_files(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "run"), "--steps", "3", "--temperature", "0.001", "0.005"]) == 0
    assert "largest slope -0.743" in capsys.readouterr().out
    with (tmp_path / "run" / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["temperature"], row["step"]) for row in rows[:5]] == [
        ("0.001", "0"),
        ("0.001", "1"),
        ("0.001", "2"),
        ("0.001", "3"),
        ("0.005", "0"),
    ]
    assert (tmp_path / "run" / "ascent.png").stat().st_size > 10_000


def test_bad_arguments():
    with pytest.raises(InvalidInputError, match="steps=-1"):
        ascend(0.001, np.zeros(105), steps=-1)
    with pytest.raises(InvalidInputError, match=r"learning_rate=0\.0"):
        ascend(0.001, np.zeros(105), steps=1, learning_rate=0.0)
    with pytest.raises(InvalidInputError, match=r"largest_norm=0\.0"):
        ascend(0.001, np.zeros(105), steps=1, largest_norm=0.0)
