"""The training loop: runs together are the runs alone, interruptions leave no trace, and one step is a plain loop."""

from dataclasses import replace

import numpy as np
import pytest
from training_cases import every_method, training

from bilevelrl.estimators.followers import SoftQLearning, SweepingFollower
from bilevelrl.estimators.sums import clip_to_norm
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.estimators.training import (
    METHODS,
    Adam,
    Run,
    Training,
    gradient_errors,
    published_simulator,
    train,
)
from bilevelrl.estimators.training import loop as loop_module
from bilevelrl.estimators.training.checkpoints import save_checkpoint
from bilevelrl.reference import (
    ConfigurableMDP,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import four_rooms

LOGGED = (
    "objective",
    "played_objective",
    "gradient_norm",
    "follower_error",
    "hypergradient_error",
    "cosine",
    "relative_error",
)


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
