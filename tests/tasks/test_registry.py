"""Every task is found by its name, and can be built and judged without arguments."""

import functools

import numpy as np
import pytest

from bilevelrl.reference import hypergradient
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import TASKS, make_task
from bilevelrl.tasks.registry import register_task

pytestmark = pytest.mark.exact


def test_names():
    assert {"four_rooms", "random_mdp", "garnet", "chain", "layered_mdp", "grid_rooms"} <= set(TASKS)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_task_works_as_it_stands(name):
    problem = make_task(name)
    assert problem.theta_shape is not None
    exact = hypergradient(problem, np.zeros(problem.theta_shape))
    assert np.isfinite(exact.value).all()
    assert np.linalg.norm(exact.value) > 1e-4
    assert TASKS[name].summary


def test_options_reach_the_task():
    assert make_task("random_mdp", parameters=7).theta_shape == (7,)


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="did you mean 'four_rooms'"):
        make_task("four_room")


def test_registry_cannot_be_changed_but_by_registering():
    with pytest.raises(TypeError):
        TASKS["mine"] = TASKS["chain"]  # type: ignore[index]


def test_taken_name():
    with pytest.raises(InvalidInputError, match="a name that is not taken"):
        register_task("chain", "another")(lambda: None)
    with pytest.raises(InvalidInputError, match="a name that is not taken"):
        register_task("chain", "a callable that is no function")(functools.partial(make_task, "garnet"))
    assert TASKS["chain"].make.__name__ == "chain"


def test_registering_again_changes_nothing():
    task = TASKS["chain"]
    assert register_task("chain", task.summary)(task.make) is task.make
    assert TASKS["chain"] == task
