"""Thirty proven digits: Four-Rooms, a small problem, the toy game and the building."""

from typing import Any

import pytest

pytest.importorskip("flint")

from bilevelrl.reference import certified_hypergradient
from bilevelrl.tasks import reference_problem


@pytest.mark.parametrize(
    "name", ["four_rooms_0.001", "mdp_temperature_1", "mdp_discount_0.9999", "toy_game_1_optimum", "building_start"]
)
def test_certified(benchmark: Any, name: str) -> None:
    form = reference_problem(name).closed_form
    benchmark.group = "certified to 30 digits"
    found = benchmark.pedantic(certified_hypergradient, (form,), {"digits": 30}, rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(bits=found.bits, parameters=form.parameters, steps=found.steps)
