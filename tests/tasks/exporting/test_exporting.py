"""Problems of all kinds leave the package as they are: the same answers from the file, the same law in rollouts."""

import numpy as np
import pytest

from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    hypergradient,
    leader_objective,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError
from bilevelrl.tasks import (
    building_thermal_control,
    from_gymnasium,
    lqr_game,
    random_lqr,
    random_lqr_game,
    random_markov_game,
    random_mdp,
    toy_game_theta,
    toy_markov_game,
)
from bilevelrl.tasks.exporting import as_gymnasium, as_pettingzoo, load_problem, save_problem
from bilevelrl.tasks.exporting.worlds import world_of
from bilevelrl.verification.statistics.means import mean_test

gymnasium = pytest.importorskip("gymnasium")


def survival():
    """Two states, from which episodes end by missing mass; one action cannot be taken."""
    return ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=SparseTransition(
                successor=np.array([[[0, 1], [1, 1]], [[0, 0], [1, 0]]]),
                probability=np.array([[[0.5, 0.25], [0.5, 0.0]], [[0.75, 0.0], [0.5, 0.125]]]),
            ),
            reward_follower=np.array([[0.0, 1.0], [0.5, -1.0]]) * theta[0],
            reward_leader=np.array([[1.0, 0.0], [0.0, 2.0]]) + theta[1],
            initial=np.array([0.25, 0.75]),
            action_mask=np.array([[True, True], [True, False]]),
            regulariser=theta[0] ** 2,
        ),
        discount_leader=0.9, discount_follower=0.8, temperature=0.5, theta_shape=(2,),
    )  # fmt: skip


def seeing(sees):
    return random_markov_game(seed=1, follower_sees_leader_action=sees)


PROBLEMS = {
    "mdp": lambda: (random_mdp(), np.array([0.1, -0.2, 0.3])),
    "sparse, masked, ending": lambda: (survival(), np.array([0.7, -0.3])),
    "game, seen": lambda: (seeing(True), np.linspace(-0.5, 0.5, seeing(True).theta_shape[0])),
    "game, unseen": lambda: (seeing(False), np.linspace(-0.5, 0.5, seeing(False).theta_shape[0])),
    "toy game": lambda: (toy_markov_game(), toy_game_theta(0.4)),
    "lqr": lambda: random_lqr(seed=3),
    "lqr game": lambda: (lqr_game(), np.array([-9.7, -10.3])),
    "random lqr game": lambda: random_lqr_game(seed=2),
}


def made(name):
    found = PROBLEMS[name]()
    return found if isinstance(found, tuple) else (found, np.zeros(found.theta_shape))


@pytest.mark.exact
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_file_gives_the_same_answers(name, tmp_path):
    problem, theta = made(name)
    again, at = load_problem(save_problem(tmp_path / "problem.npz", problem, theta))
    assert type(again) is type(problem)
    for horizon in (None, 5):
        first, second = (hypergradient(p, t, horizon=horizon) for p, t in ((problem, theta), (again, at)))
        # The same numbers enter: only sums over Jacobians may be taken in another order.
        scale = max(np.abs(part).max() for part in first.parts.values())
        assert second.objective == pytest.approx(first.objective, rel=1e-13)
        for part in first.parts:
            assert np.abs(second.parts[part] - first.parts[part]).max() <= 1e-11 * scale
    assert (
        np.array_equal(solve_follower(again, at).policy, solve_follower(problem, theta).policy)
        if hasattr(solve_follower(problem, theta), "policy")
        else np.array_equal(solve_follower(again, at).gain, solve_follower(problem, theta).gain)
    )


@pytest.mark.exact
def test_a_planted_slope_is_seen_in_the_answer(tmp_path):
    problem, theta = made("mdp")
    path = save_problem(tmp_path / "problem.npz", problem, theta)
    with np.load(path) as read:
        arrays = {name: read[name] for name in read.files}
    arrays["jacobian_reward_follower"] = -arrays["jacobian_reward_follower"]
    np.savez(path, **arrays)
    again, at = load_problem(path)
    right, wrong = hypergradient(problem, theta), hypergradient(again, at)
    assert np.abs(right.value - wrong.value).max() > 1e-3 * np.abs(right.value).max()


@pytest.mark.exact
def test_files_that_are_no_problems_are_refused_by_name(tmp_path):
    problem, theta = made("mdp")
    path = save_problem(tmp_path / "p.npz", problem, theta)
    with np.load(path) as read:
        arrays = {name: read[name] for name in read.files}
    del arrays["entry_initial"], arrays["jacobian_transition"]
    np.savez(path, **arrays)
    with pytest.raises(InvalidInputError, match="jacobian_transition"):
        load_problem(path)
    np.savez(path, kind=np.array("bandit"))
    with pytest.raises(InvalidInputError, match="format"):
        load_problem(path)
    (tmp_path / "text.npz").write_text("no")
    for wrong in ("text.npz", "none.npz"):
        with pytest.raises(InvalidInputError, match="cannot be read"):
            load_problem(tmp_path / wrong)
    with pytest.raises(InvalidInputError, match=r"\.npz"):
        save_problem(tmp_path / "p.csv", problem, theta)
    with pytest.raises(UnsupportedError, match="one of configurable_mdp"):
        save_problem(tmp_path / "p.npz", object(), theta)
    with pytest.raises(UnsupportedError, match="kinds"):
        world_of(object(), theta)


def follower_plays(problem, theta):
    """(observation, rng) → the best response's action."""
    follower = solve_follower(problem, theta)
    if hasattr(follower, "gain"):
        gain = follower.gain if follower.gain_leader is None else np.hstack([follower.gain, follower.gain_leader])
        return lambda seen, rng: rng.multivariate_normal(-gain @ seen, follower.covariance)
    policy = np.asarray(follower.policy)
    if policy.ndim == 3 and problem.follower_sees_leader_action:
        policy = policy.reshape(-1, policy.shape[-1])
    elif policy.ndim == 3:
        policy = policy[:, 0]
    return lambda seen, rng: int(rng.choice(policy.shape[-1], p=policy[seen]))


def returns(environment, play, discount, *, episodes, rng):
    """Discounted returns of the leader, (episodes, 1)."""
    found = np.zeros((episodes, 1))
    environment.reset(seed=11)
    for episode in range(episodes):
        seen, _ = environment.reset()
        weight, over = 1.0, False
        while not over:
            seen, _, terminated, truncated, said = environment.step(play(seen, rng))
            found[episode] += weight * said["reward_leader"]
            weight, over = weight * discount, terminated or truncated
    return found


@pytest.mark.statistical
@pytest.mark.parametrize("name", PROBLEMS)
def test_rollouts_have_the_problems_law(name):
    """Means of 1,500 episodes of three steps; a false alarm in a million, ten standard errors are always seen."""
    problem, theta = made(name)
    environment = as_gymnasium(problem, theta, horizon=3)
    rng = named_stream(17, "rollouts", name)
    found = returns(environment, follower_plays(problem, theta), problem.discount_leader, episodes=1500, rng=rng)
    truth = np.array([leader_objective(problem, theta, horizon=3)])
    truth -= float(problem.derivatives.entries(theta)["regulariser"])  # added once, by nobody's steps
    assert not mean_test(found, truth).rejected.any()
    assert mean_test(found, truth + 10.0 * found.std() / np.sqrt(len(found))).rejected.all()


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_gymnasiums_own_checker(name):
    from gymnasium.utils.env_checker import check_env

    if "masked" in name:
        pytest.skip("the checker takes actions that the mask forbids")
    check_env(as_gymnasium(*made(name), horizon=5), skip_render_check=True)


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["game, seen", "game, unseen", "toy game", "lqr game"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")
def test_pettingzoo_plays_the_game(name):
    pytest.importorskip("pettingzoo")
    with pytest.raises(UnsupportedError, match="as_gymnasium"):
        as_pettingzoo(*made("mdp"))
    problem, theta = made(name)
    environment = as_pettingzoo(problem, theta, horizon=3)
    if name != "lqr game":
        from pettingzoo.test import api_test

        api_test(environment, num_cycles=40)
    play, rng = follower_plays(problem, theta), named_stream(5, "both", name)
    found = np.zeros((800, 1))
    environment.reset(seed=3)
    for episode in range(len(found)):
        environment.reset()
        weight = 1.0
        for agent in environment.agent_iter():
            seen, _, terminated, truncated, said = environment.last()
            if terminated or truncated:
                environment.step(None)
            elif agent == "leader":
                environment.step(
                    int(rng.choice(len(said["policy"]), p=said["policy"]))
                    if "policy" in said
                    else rng.multivariate_normal(said["mean"], said["covariance"])
                )
            else:
                environment.step(play(seen, rng))
                found[episode] += weight * environment.rewards["leader"]
                weight *= problem.discount_leader
    truth = np.array([leader_objective(problem, theta, horizon=3)])
    truth -= float(problem.derivatives.entries(theta)["regulariser"])
    assert not mean_test(found, truth).rejected.any()
    assert mean_test(found, truth + 10.0 * found.std() / np.sqrt(len(found))).rejected.all()


@pytest.mark.exact
def test_there_and_back_from_gymnasium():
    world = from_gymnasium(gymnasium.make("CliffWalking-v1"))
    problem = world.problem("state toll", discount_leader=0.9, discount_follower=0.9, temperature=0.5)
    environment = as_gymnasium(problem, np.zeros(48))
    source = gymnasium.make("CliffWalking-v1")
    seen, _ = environment.reset(seed=0)
    other, _ = source.reset(seed=0)
    for action in (0, 1, 1, 0, *[1] * 12, 2, 2):
        seen, paid, over, _, _ = environment.step(action)
        other, also_paid, ended, _, _ = source.step(action)
        assert (paid, over) == (also_paid, ended)
        assert over or seen == other


def test_building_is_exported_too():
    problem = building_thermal_control()
    environment = as_gymnasium(problem, np.full(problem.theta_shape, 0.5), horizon=2)
    seen, _ = environment.reset(seed=0)
    assert environment.observation_space.contains(seen)
    assert environment.step(np.zeros(environment.action_space.shape))[4].keys() == {"reward_leader"}
