"""Training on mixtures: one context is its member's training, drawn contexts average to the sum, and runs resume."""

import numpy as np
import pytest

from bilevelrl.estimators.contexts import MixtureTraining
from bilevelrl.estimators.training import Run, Training, published_simulator, train
from bilevelrl.reference import hypergradient, leader_objective
from bilevelrl.reference.contexts import Mixture
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError
from bilevelrl.tasks import contextual_four_rooms, four_rooms, random_lqr, random_mdp

pytestmark = pytest.mark.exact

REWARDS = ["reward_follower", "reward_leader"]
MEMBERS = [
    random_mdp(states=3, actions=2, parameters=3, seed=seed, theta_in=theta_in, termination=0.2)
    for seed, theta_in in ((0, REWARDS), (1, "transition"))
]
MIXTURE = Mixture(contexts=MEMBERS, weights=[0.3, 0.7])
RUNS = [Run(method=method, seed=seed, learning_rate=0.1) for method in ("bc_hg", "hpgd_mc", "exact") for seed in (0, 1)]
SMALL = {"iterations": 4, "streams": 2, "steps": 12, "evaluate_every": 1}


def same(one, other):
    np.testing.assert_array_equal(one.thetas, other.thetas)
    np.testing.assert_array_equal(one.objective, other.objective)


@pytest.mark.parametrize("contexts", ["draw", "sum"])
@pytest.mark.parametrize("member", MEMBERS)
def test_one_context_is_the_training_of_its_member(contexts, member):
    alone = train(Training(problem=member, runs=RUNS, **SMALL))
    mixture = Mixture(contexts=[member], weights=[1.0])
    found = train(MixtureTraining(problem=mixture, runs=RUNS, contexts=contexts, **SMALL))
    np.testing.assert_array_equal(found.thetas, alone.thetas)
    np.testing.assert_allclose(found.objective, alone.objective, rtol=1e-8)


@pytest.mark.parametrize("contexts", ["draw", "sum"])
def test_a_run_does_not_depend_on_the_others_and_resumes(contexts, tmp_path):
    together = MixtureTraining(problem=MIXTURE, runs=RUNS, contexts=contexts, **SMALL)
    whole = train(together)
    for row, run in enumerate(RUNS):
        alone = train(MixtureTraining(problem=MIXTURE, runs=[run], contexts=contexts, **SMALL))
        np.testing.assert_array_equal(alone.thetas[0], whole.thetas[row])
    path = tmp_path / "half.npz"
    ended = train(together, checkpoint=path, checkpoint_every=1, callbacks=[lambda entry: entry.iteration < 1])
    assert not ended.finished
    same(train(together, checkpoint=path), whole)
    other = MixtureTraining(
        problem=Mixture(contexts=MEMBERS, weights=[0.4, 0.6]), runs=RUNS, contexts=contexts, **SMALL
    )
    with pytest.raises(InvalidInputError, match="another configuration"):
        train(other, checkpoint=path)
    assert together.fingerprint() != other.fingerprint()


def share_of_the_first(mixture, draws=400):
    """How often the exact direction of a drawn context is that of the first; every one is that of one of them."""
    runs = [Run(method="exact", seed=0, learning_rate=1.0)]
    training = MixtureTraining(problem=mixture, runs=runs, iterations=1)
    world, theta = training.world(training.generators()), np.zeros((1, 3))
    each = np.array([hypergradient(member, theta[0]).value for member in mixture.contexts])
    first = 0
    for iteration in range(draws):
        world.prepare(theta, iteration)
        off = np.abs(world.direction(theta, 0) - each).max(axis=1)
        assert off.min() < 1e-7 < 1e-3 < off.max()
        first += int(off.argmin() == 0)
    return first / draws


def test_a_context_is_drawn_as_often_as_its_weight_says():
    """400 draws of .3 and of .5 are off by more than .1 once in 1e4; drawn uniformly, .3 would be seen to be wrong."""
    assert abs(share_of_the_first(MIXTURE) - 0.3) < 0.1
    assert abs(share_of_the_first(Mixture(contexts=MEMBERS, weights=[0.5, 0.5])) - 0.3) > 0.1
    assert share_of_the_first(Mixture(contexts=MEMBERS, weights=[0.0, 1.0]), draws=20) == 0.0


def test_what_is_summed_is_the_gradient_and_evaluations_are_exact():
    runs = [Run(method="exact", seed=0, learning_rate=0.1)]
    training = MixtureTraining(
        problem=MIXTURE, runs=runs, contexts="sum", start_scale=0.0, iterations=3, evaluate_every=1
    )
    summed = train(training)
    assert summed.values["relative_error"].max() < 1e-7
    assert (np.diff(summed.objective[:, 0]) > 0.0).all()
    assert summed.objective[0, 0] == pytest.approx(leader_objective(MIXTURE, np.zeros(3)), rel=1e-12)
    for place, member in enumerate(MEMBERS):
        found = summed.values[f"objective_{place}"][0, 0]
        assert found == pytest.approx(leader_objective(member, np.zeros(3)), rel=1e-12)


def test_samples_come_from_each_context_s_own_simulator():
    mixture = contextual_four_rooms(temperature=0.003, coefficient=1.0)
    goals = ((1, 9), (11, 11))
    simulators = tuple(published_simulator(four_rooms(kernel="paper", goal=goal)) for goal in goals)
    runs = [Run(method="hpgd_mc", seed=0, learning_rate=0.1)]
    found = [
        train(MixtureTraining(problem=mixture, runs=runs, iterations=3, steps=50, simulators=own, contexts="sum"))
        for own in (simulators, ())
    ]
    assert np.isfinite(found[0].thetas).all()
    assert np.abs(found[0].thetas - found[1].thetas).max() > 1e-3
    assert found[0].objective[0, 0] == pytest.approx(found[1].objective[0, 0], rel=1e-12)


def test_bad_trainings_are_refused_by_name():
    lqr = Mixture(contexts=[random_lqr()], weights=[1.0])
    with pytest.raises(UnsupportedError, match=r"problem.contexts\[0\].*ConfigurableLQR"):
        MixtureTraining(problem=lqr, runs=RUNS, iterations=1)
    with pytest.raises(InvalidInputError, match=r"len\(simulators\)=1"):
        MixtureTraining(problem=MIXTURE, runs=RUNS, iterations=1, simulators=(published_simulator(),))
    with pytest.raises(InvalidInputError, match="contexts='both'"):
        MixtureTraining(problem=MIXTURE, runs=RUNS, iterations=1, contexts="both")  # type: ignore[arg-type]
