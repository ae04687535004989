"""The training loop: what is refused, whose checkpoint is another's, and masked games."""

from dataclasses import replace

import numpy as np
import pytest
from autograd.tracer import getval
from training_cases import training

from bilevelrl.estimators.followers import SharedDynamics
from bilevelrl.estimators.training import (
    SOUND,
    Adam,
    GameTraining,
    Run,
    Training,
    published_simulator,
    train,
)
from bilevelrl.estimators.training.worlds import game as game_module
from bilevelrl.reference import (
    ConfigurableMDP,
    MarkovGame,
    Tables,
    TabularSoftmaxPolicy,
)
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import four_rooms, random_mdp

ASCENT = {"runs": [Run(method="exact", seed=1, learning_rate=0.05)], "iterations": 2}


@pytest.mark.exact
def test_refusals():
    run = Run(method="bc_hg", seed=0, learning_rate=0.1)
    with pytest.raises(UnknownNameError, match="did you mean 'bc_hg'"):
        training(runs=[Run(method="bchg", seed=0, learning_rate=0.1)])
    for options, message in (
        ({"runs": []}, "at least one run"),
        ({"runs": [run, run]}, "is there twice"),
        ({"iterations": 0}, "iterations=0"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"largest_norm": -1.0}, "largest_norm=-1.0"),
        ({"clip_blocks": (0, 105)}, r"clip_blocks\[0\]=0"),
        ({"ascent_steps": 2}, "ascent_steps=2"),
        ({"start_scale": np.nan}, "start_scale=nan"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            training(**options)
    for options, message in (
        ({"seed": -1}, "seed=-1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"critic_step_size": 1.5}, "critic_step_size=1.5"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Run(**{"method": "bc_hg", "seed": 0, "learning_rate": 0.1, **options})
    moving = random_mdp(states=4, actions=2, parameters=3, seed=0)
    with pytest.raises(UnsupportedError, match="θ enters"):
        SharedDynamics(moving, np.zeros(3))
    with pytest.raises(InvalidInputError, match="checkpoint_every=0"):
        train(training(), checkpoint_every=0)


@pytest.mark.exact
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    run = Run(method="naive_pgd", seed=0, learning_rate=0.1)
    path = tmp_path / "state.npz"
    train(training(runs=[run], iterations=1), checkpoint=path)
    before = path.read_bytes()
    others = [
        training(runs=[replace(run, learning_rate=0.2)], iterations=1),
        training(runs=[run], iterations=1, problem=four_rooms(temperature=0.003, coefficient=4.0)),
        training(runs=[run], iterations=1, simulator=published_simulator()),
        training(runs=[run], iterations=1, optimiser=Adam()),
    ]
    for other in others:
        with pytest.raises(InvalidInputError, match="checkpoint of another configuration"):
            train(other, checkpoint=path)
    assert path.read_bytes() == before


def toll_of(slope):
    """Two states, a toll `slope · θ`: at θ = 0 all slopes make the same tables."""
    return ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.full((2, 2, 2), 0.45),
            reward_follower=np.eye(2) - slope * theta[0] * np.array([[1.0, 0.0], [1.0, 0.0]]),
            reward_leader=np.array([[0.0, 1.0], [1.0, 0.0]]),
            initial=np.array([0.5, 0.5]),
        ),
        discount_leader=0.9, discount_follower=0.9, temperature=0.5, theta_shape=(1,),
    )  # fmt: skip


def game_where(**changes):
    rng = np.random.default_rng(0)
    rewards = {name: rng.normal(size=(2, 2, 2)) for name in ("reward_follower", "reward_leader")}
    policy = TabularSoftmaxPolicy(states=2, leader_actions=2)
    return MarkovGame(
        transition=np.full((2, 2, 2, 2), 0.5), initial=np.array([0.5, 0.5]), policy=policy, discount_leader=0.9,
        discount_follower=0.8, temperature=0.5, follower_sees_leader_action=True, **rewards, **changes,
    )  # fmt: skip


@pytest.mark.exact
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            Training(problem=toll_of(1.0), start_scale=0.0, **ASCENT),
            Training(problem=toll_of(-3.0), start_scale=0.0, **ASCENT),
        ),
        (
            GameTraining(problem=game_where(), **ASCENT),
            GameTraining(problem=game_where(action_mask=np.array([[True, True], [True, False]])), **ASCENT),
        ),
    ],
    ids=["another slope, the same tables at the start", "another mask"],
)
def test_a_checkpoint_of_another_problem_is_refused(one, other, tmp_path):
    path = tmp_path / "state.npz"
    train(one, checkpoint=path)
    with pytest.raises(InvalidInputError, match="checkpoint of another configuration"):
        train(other, checkpoint=path)
    assert one.fingerprint() == replace(one).fingerprint()


@pytest.mark.exact
@pytest.mark.parametrize("exploring", [0, 1])
def test_masked_games_are_trained_and_no_masked_action_is_played(exploring, monkeypatch):
    """Two runs, so that the mask is that of the game of both; in exploring iterations too."""
    mask = np.array([[[True, False], [True, True]], [[True, True], [False, True]]])
    played = []
    sample = game_module.sample_codes

    def watched(game, leaders, followers, uniforms):
        played.append(followers)
        return sample(game, leaders, followers, uniforms)

    monkeypatch.setattr(game_module, "sample_codes", watched)
    options = replace(SOUND[MarkovGame], exploring_iterations=exploring)
    runs = [Run(method="bc_hg", seed=seed, learning_rate=0.05, critic_step_size=0.1) for seed in (0, 1)]
    training = GameTraining(problem=game_where(action_mask=mask), runs=runs, iterations=2, steps=20, options=options)
    history = train(training)
    assert np.isfinite(history.thetas).all()
    assert all((policy[..., ~mask] == 0.0).all() for policy in played)
    alone = train(replace(training, runs=runs[:1]))
    np.testing.assert_array_equal(alone.thetas[0], history.thetas[0])


@pytest.mark.exact
def test_a_start_at_the_edge_of_a_domain_has_a_fingerprint():
    """Beside the start the function raises: what it is at the start tells the problem then."""

    def of(slope):
        def tables(theta):
            if np.any(np.asarray(getval(theta)).real != 0.0):
                raise ValueError("outside")
            return toll_of(slope).tables(theta).replace({"regulariser": slope})

        return Training(problem=replace(toll_of(1.0), tables=tables), start_scale=0.0, **ASCENT)

    assert of(1.0).fingerprint() == of(1.0).fingerprint() != of(2.0).fingerprint()


def test_games_whose_regulariser_no_direction_would_see_are_refused():
    with pytest.raises(UnsupportedError, match="without a regulariser"):
        GameTraining(problem=game_where(regulariser=lambda theta: -theta @ theta), **ASCENT)
