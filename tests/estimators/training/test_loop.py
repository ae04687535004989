"""The training loop: runs together are the runs alone, interruptions leave no trace, and one step is a plain loop."""

from dataclasses import replace

import numpy as np
import pytest
from autograd.tracer import getval

from bilevelrl.estimators.followers import SharedDynamics, SoftQLearning, SweepingFollower
from bilevelrl.estimators.sums import clip_to_norm
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.estimators.training import (
    METHODS,
    SOUND,
    Adam,
    GameTraining,
    Run,
    Training,
    gradient_errors,
    published_simulator,
    train,
)
from bilevelrl.estimators.training import loop as loop_module
from bilevelrl.estimators.training.checkpoints import save_checkpoint
from bilevelrl.estimators.training.worlds import game as game_module
from bilevelrl.reference import (
    ConfigurableMDP,
    MarkovGame,
    Tables,
    TabularSoftmaxPolicy,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import four_rooms, random_mdp

ASCENT = {"runs": [Run(method="exact", seed=1, learning_rate=0.05)], "iterations": 2}

LOGGED = (
    "objective",
    "played_objective",
    "gradient_norm",
    "follower_error",
    "hypergradient_error",
    "cosine",
    "relative_error",
)


def every_method(seeds=2, rates=(0.1, 0.5)):
    return [
        Run(method=name, seed=seed, learning_rate=rate, critic_step_size=0.5 if rate == 0.1 else 0.9)
        for name in METHODS[ConfigurableMDP]
        for seed in range(seeds)
        for rate in rates
    ]


def training(**options):
    problem = four_rooms(temperature=0.003)
    simulator = published_simulator(four_rooms(temperature=0.003, kernel="paper"))
    settings = {"iterations": 4, "streams": 2, "steps": 60, "evaluate_every": 2, "entropy": 5}
    given = {"problem": problem, "simulator": simulator, "runs": every_method(), **settings, **options}
    return Training(**given)


def assert_same(one, other, columns=slice(None)):
    np.testing.assert_array_equal(one.iterations, other.iterations)
    np.testing.assert_array_equal(one.thetas, other.thetas[columns])
    assert set(LOGGED) <= set(one.values)
    for name, ours in one.values.items():
        np.testing.assert_array_equal(ours, other.values[name][:, columns], err_msg=name)


@pytest.mark.exact
def test_a_run_is_the_same_bit_for_bit_whatever_is_trained_beside_it():
    whole = training()
    together = train(whole)
    assert np.isfinite(together.objective).all()
    assert len(np.unique(together.thetas[:, 0])) > len(METHODS[ConfigurableMDP])  # runs do differ
    for row in (0, 3, 6, 13, 17, 21, 26, 31):
        assert_same(train(replace(whole, runs=whole.runs[row : row + 1])), together, slice(row, row + 1))
    backwards = train(replace(whole, runs=whole.runs[::-1]))
    assert_same(backwards, together, slice(None, None, -1))


@pytest.mark.exact
def test_what_is_logged_does_not_depend_on_the_others_either():
    follower = SweepingFollower(iterations=2, carry=True, noise=1.0)
    runs = [Run(method=name, seed=0, learning_rate=0.1) for name in ("bc_hg", "exact")]
    together = train(training(runs=runs, follower=follower))
    assert_same(train(training(runs=runs[:1], follower=follower)), together, slice(0, 1))


@pytest.mark.exact
def test_random_numbers_belong_to_method_and_seed():
    seeds = [Run(method="bc_hg", seed=seed, learning_rate=0.1) for seed in range(2)]
    found = train(training(runs=seeds))
    other = train(training(runs=seeds, entropy=6))
    assert np.abs(found.thetas[0] - found.thetas[1]).max() > 1e-3
    assert np.abs(found.thetas - other.thetas).max() > 1e-3


FOLLOWERS = {
    "exact": None,
    "sweeping, carried": SweepingFollower(iterations=2, carry=True, noise=1.0),
    "sweeping, reset": SweepingFollower(iterations=2, carry=False, noise=1.0),
    "soft Q-learning": SoftQLearning(steps=50, carry=True),
}


@pytest.mark.exact
@pytest.mark.parametrize("follower", FOLLOWERS)
def test_an_interrupted_training_continues_to_the_same_bits(follower, tmp_path):
    options = {} if FOLLOWERS[follower] is None else {"follower": FOLLOWERS[follower]}
    runs = every_method(seeds=1, rates=(0.1,))
    whole = training(runs=runs, iterations=6, optimiser=Adam(), schedule="cosine", evaluate_every=1, **options)
    uninterrupted = train(whole)
    path = tmp_path / "state.npz"
    stopped = train(whole, checkpoint=path, checkpoint_every=1, callbacks=[lambda found: found.iteration < 2])
    assert not stopped.finished
    assert list(stopped.iterations) == [0, 1, 2]
    continued = train(whole, checkpoint=path, checkpoint_every=2)
    assert continued.finished
    assert_same(continued, uninterrupted)
    assert_same(train(whole, checkpoint=path), uninterrupted)  # nothing is left to do


@pytest.mark.exact
@pytest.mark.parametrize("lost", ["generators", "optimiser", "world.tables", "world.follower.table"])
def test_what_a_checkpoint_would_lose_is_seen(lost, tmp_path, monkeypatch):
    follower = SweepingFollower(iterations=2, carry=True, noise=1.0)
    whole = training(
        runs=[Run(method="bc_hg", seed=0, learning_rate=0.1)], iterations=4, optimiser=Adam(), follower=follower
    )
    uninterrupted = train(whole)

    def forgetful(path, *, arrays, generators, **rest):
        kept = {
            name: np.zeros_like(array) if name.startswith(lost) and name != "optimiser.count" else array
            for name, array in arrays.items()
        }
        if lost == "generators":
            generators = {name: np.random.default_rng(0) for name in generators}
        save_checkpoint(path, arrays=kept, generators=generators, **rest)

    monkeypatch.setattr(loop_module, "save_checkpoint", forgetful)
    path = tmp_path / "state.npz"
    train(whole, checkpoint=path, callbacks=[lambda found: found.iteration < 2])
    assert np.abs(train(whole, checkpoint=path).thetas - uninterrupted.thetas).max() > 0.0


def visit_averages(batch, of_follower, of_leader, rewards_leader, gamma):
    """Return averages over visits of suffix sums: of ∇r_F by pair and by state, of r_L likewise, of ∇r_L by state."""
    by_pair, by_state = {}, {}
    for e in range(batch.streams):
        running = [np.zeros(of_follower.shape[2]), np.zeros(of_follower.shape[2]), 0.0]
        for t in reversed(range(batch.steps)):
            pair = int(batch.state_t[e, t]), int(batch.action_t[e, t])
            keep = 0.0 if batch.terminated[e, t] or batch.truncated[e, t] else gamma
            now = of_follower[pair], of_leader[pair], rewards_leader[pair]
            running = [x + keep * y for x, y in zip(now, running, strict=True)]
            by_pair.setdefault(pair, []).append(running)
            by_state.setdefault(pair[0], []).append(running)

    def averages(found, which):
        return {key: np.mean([sums[which] for sums in every], axis=0) for key, every in found.items()}

    wanted = ((by_pair, 0), (by_state, 0), (by_pair, 2), (by_state, 2), (by_state, 1))
    return [averages(found, which) for found, which in wanted]


def plain_direction(method, batch, table, policy, rewards_leader, jacobians, problem, order, alpha, extra=None):
    """One direction of the published experiments, by loops over visits and whole vectors of derivatives.

    The oracle's averages over visits are those of an extra batch, 0 where it has none.
    """
    beta, gamma = problem.temperature, problem.discount_leader
    of_follower, of_leader = jacobians["reward_follower"], jacobians["reward_leader"]
    streams, steps = batch.state_t.shape
    visits = [(e, t) for e in range(streams) for t in range(steps)]
    state = {(e, t): int(batch.state_t[e, t]) for e, t in visits}
    action = {(e, t): int(batch.action_t[e, t]) for e, t in visits}
    done = {v: bool(batch.terminated[v] or batch.truncated[v]) for v in visits}
    time = {v: int(batch.time_in_episode[v]) for v in visits}
    table = table.copy()
    for k in order if method in ("bc_hg", "hpgd_sa") else ():
        e, t = divmod(int(k), steps)
        ahead = 0.0
        if not (done[e, t] or t == steps - 1):
            ahead = table[state[e, t + 1], action[e, t + 1]]
        pair = state[e, t], action[e, t]
        table[pair] += alpha * (rewards_leader[pair] + gamma * ahead - table[pair])
    by_pair, by_state, return_pair, return_state, from_state = visit_averages(
        batch, of_follower, of_leader, rewards_leader, gamma
    )
    if extra is not None:
        by_pair, by_state, return_pair, return_state, _ = visit_averages(
            extra, of_follower, of_leader, rewards_leader, gamma
        )
    first = np.mean([from_state[state[v]] for v in visits if time[v] == 0], axis=0)
    finished = max(1, sum(done.values()))
    guiding = np.zeros(of_follower.shape[2])
    for v in visits:
        pair = state[v], action[v]
        benefit = table[pair] - policy[state[v]] @ table[state[v]]
        gradient = by_pair.get(pair, 0.0)
        if method != "bc_hg":
            gradient = gradient - by_state.get(state[v], 0.0)
        if method in ("hpgd_mc", "hpgd_oracle"):
            benefit = return_pair.get(pair, 0.0) - return_state.get(state[v], 0.0)
        guiding += gamma ** time[v] * benefit * gradient / (beta * finished)
    if method in ("naive_pgd", "sobirl"):
        guiding = 0.0
    return first + guiding


@pytest.mark.exact
@pytest.mark.parametrize("method", ["bc_hg", "hpgd_mc", "hpgd_sa", "hpgd_oracle", "naive_pgd", "sobirl"])
def test_one_iteration_is_the_published_one_written_as_plain_loops(method):
    runs = [Run(method=method, seed=seed, learning_rate=0.1, critic_step_size=0.7) for seed in range(2)]
    # Short episodes and several streams, so that terminations, cuts and unfinished ends all occur.
    simulator = replace(published_simulator(four_rooms(kernel="paper")), step_limit=6)
    problem = four_rooms(temperature=0.005, start=(2, 8))
    whole = training(
        problem=problem, runs=runs, iterations=1, streams=3, steps=90, simulator=simulator, largest_norm=np.inf
    )
    found = (train(whole).thetas - whole.start()) / 0.1
    for row, run in enumerate(runs):
        theta = whole.start()[row]
        rng = named_stream(whole.entropy, "training", method, run.seed)
        follower = solve_follower(problem, theta)
        critic = method in ("bc_hg", "hpgd_sa")
        table = rng.standard_normal((104, 4)) if critic else np.zeros((104, 4))
        tables = problem.tables_at(theta)
        own = SeedBatch.solve(problem, theta[None])
        batch = own.sample(streams=3, steps=90, rng=[rng], simulator=simulator)
        assert batch.terminated.any()
        assert batch.truncated.any()
        order = rng.permutation(270) if critic else ()
        extra = None
        if method == "hpgd_oracle":
            extra = own.sample(streams=3, steps=3333, rng=[rng], simulator=replace(simulator, restart="uniform"))
        expected = plain_direction(
            method,
            batch,
            table,
            follower.policy,
            tables.reward_leader,
            problem.jacobian(theta),
            problem,
            order,
            0.7,
            extra,
        )
        # Followers known to 1e-9: π to 2e-9/β relative, and the benefit, of size 1/(1-γ), is divided by β once more.
        allowed = 1e-9 * 2.0 / 0.005 / 0.005 * np.abs(table).max() + 1e-12
        assert np.abs(found[row] - expected).max() <= max(allowed * np.linalg.norm(expected), 1e-12)
        assert np.linalg.norm(expected) > 1e-4
        for other in {"bc_hg", "hpgd_mc", "hpgd_sa", "naive_pgd"} - {method, "naive_pgd" if method == "sobirl" else ""}:
            start = table if critic else rng.standard_normal((104, 4))
            wrong = plain_direction(
                other, batch, start, follower.policy, tables.reward_leader, problem.jacobian(theta), problem, order, 0.7
            )
            assert np.abs(found[row] - wrong).max() > 1e-3 * np.linalg.norm(wrong)


@pytest.mark.exact
def test_exact_ascent_follows_the_published_trap():
    runs = [Run(method="exact", seed=0, learning_rate=0.5)]
    history = train(training(problem=four_rooms(temperature=0.005), runs=runs, iterations=300, evaluate_every=100))
    assert history.objective[0, 0] == pytest.approx(-0.667, abs=1e-3)
    assert (np.diff(history.objective[:, 0]) > 0.0).all()
    assert history.objective[-1, 0] < 0.0178  # not beyond the vertex of no penalty


@pytest.mark.exact
def test_evaluation_reports_the_error_of_an_early_follower():
    runs = [Run(method="naive_pgd", seed=0, learning_rate=0.1)]
    errors = []
    for iterations in (2, 5, 20, 100):
        follower = SweepingFollower(iterations=iterations, noise=1.0)
        history = train(training(runs=runs, iterations=1, follower=follower))
        errors.append((history.values["follower_error"][0, 0], history.values["hypergradient_error"][0, 0]))
    follower_errors, carried = np.array(errors).T
    assert (np.diff(follower_errors) < 0.0).all()
    assert follower_errors[0] > 0.1
    assert carried[0] > 1e-3
    assert follower_errors[-1] < 1e-9
    assert carried[-1] < 1e-9


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


@pytest.mark.exact
def test_blocks_are_shortened_one_by_one():
    rows = np.array([[3.0, 4.0, 0.1], [0.0, 0.0, -5.0]])
    np.testing.assert_allclose(clip_to_norm(rows, 1.0, blocks=(2, 1)), [[0.6, 0.8, 0.1], [0.0, 0.0, -1.0]], rtol=1e-15)
    assert np.abs(clip_to_norm(rows, 1.0) - clip_to_norm(rows, 1.0, blocks=(2, 1))).max() > 0.01
    with pytest.raises(InvalidInputError, match="add up to 3"):
        clip_to_norm(rows, 1.0, blocks=(2, 2))


@pytest.mark.exact
def test_gradient_errors_of_known_pairs():
    direction = np.array([[1.0, 0.0], [0.0, 0.0], [2e200, 0.0], [0.0, -3e-200]])
    truth = np.array([[1.0, 1.0], [0.0, 2.0], [1e200, 0.0], [0.0, 3e-200]])
    found = gradient_errors(direction, truth)
    np.testing.assert_allclose(found["cosine"], [np.sqrt(0.5), 0.0, 1.0, -1.0], rtol=1e-14)
    np.testing.assert_allclose(found["relative_error"], [np.sqrt(0.5), 1.0, 1.0, 2.0], rtol=1e-14)


@pytest.mark.exact
def test_exact_ascent_has_no_gradient_error_and_naive_has():
    runs = [Run(method=name, seed=0, learning_rate=0.1) for name in ("exact", "naive_pgd")]
    found = train(training(runs=runs)).values
    assert (found["relative_error"][:, 0] == 0.0).all()
    assert (found["cosine"][:, 0] > 1.0 - 1e-12).all()
    assert (found["relative_error"][:, 1] > 1e-3).all()


@pytest.mark.parametrize("method", sorted(METHODS[ConfigurableMDP]))
def test_every_method_trains_where_episodes_follow_each_other(method):
    runs = [Run(method=method, seed=0, learning_rate=0.1)]
    history = train(Training(problem=four_rooms(), runs=runs, iterations=2, steps=300, evaluate_every=1))
    assert np.isfinite(history.thetas).all()
