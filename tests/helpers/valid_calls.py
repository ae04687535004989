"""One valid call of every public function, constructor and method: where the fuzz test of arguments starts from.

`valid_calls()` maps a public name to a function that makes the call's keyword arguments. Constructors of results start
from a result; methods start from an instance of their class, with arguments by their names from the same kind of
problem. What this does not cover stands in `_written`. A public name without a call fails the test on the gate.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import autograd.numpy as anp
import gymnasium
import numpy as np
from public_names import estimators, reference, tasks, verification

from bilevelrl.reference import errors
from bilevelrl.verification.causes.explanation import Evidence
from bilevelrl.verification.mutants.attribution import CAUSES

# Protocols and abstract classes cannot be called; enumerations are called by nobody but Python.
NOT_CALLED = {"Follower", "Problem", "LeaderCritic", "Estimator", "Status", "Claim", "Draw", "Outcome"}
# What one part of the package asks of another: training of followers and optimisers, sums of estimators, many θ.
INNER = ("InContexts.", "MixtureTraining.", "Training.", "Adam.", "SGD.", "PathwiseGame.")
INNER_METHODS = {
    "ConfigurableMDP": ("pulled_rows", "stacked_pullback_at"),
    "GeneralObjective": ("value", "slopes", "weight", "pullback"),  # the last refuses every call, as these two do
    "Mixture": ("pullback", "pullback_at"),
    "WatchedFollower": ("seen",),
}


def public():
    """Yield (name, function) of everything public that takes arguments; a method that is inherited once."""
    raised = {name: getattr(errors, name) for name in errors.__all__}
    named = [
        entry
        for names in (vars(reference), raised, *map(vars, (estimators, tasks, verification)))
        for entry in names.items()
    ]
    seen = set()
    for name, entry in named:
        if not callable(entry) or name in NOT_CALLED or not str(entry.__module__).startswith("bilevelrl"):
            continue
        if not inspect.isclass(entry):
            if inspect.signature(entry).parameters:
                yield name, entry
            continue
        yield name, entry
        for base in entry.__mro__:
            if not base.__module__.startswith("bilevelrl") or issubclass(entry, BaseException):
                continue
            for key, value in vars(base).items():
                function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
                takes = inspect.isfunction(function) and set(inspect.signature(function).parameters) - {"self", "cls"}
                if (key.startswith("_") and key != "__call__") or not takes or function in seen:
                    continue
                seen.add(function)
                inner = key == "respond" or key in INNER_METHODS.get(name, ())
                if not inner and not f"{name}.{key}".startswith(INNER):
                    yield f"{name}.{key}", function


def _pennies():
    """Two agents who show a coin each, for ever."""
    quiet, over = {"a": {}, "b": {}}, {"a": False, "b": False}
    return SimpleNamespace(
        possible_agents=["a", "b"],
        action_space=lambda agent: gymnasium.spaces.Discrete(2),
        reset=lambda seed=None: ({"a": 0, "b": 0}, quiet),
        step=lambda actions: ({"a": 0, "b": 0}, {"a": float(actions["a"]), "b": 1.0}, over, over, quiet),
    )


def _kit(kind):
    """Arguments by name, all of one kind of problem."""
    rng = np.random.default_rng(0)
    if kind == "mdp":
        problem, theta = tasks.layered_mdp(seed=0), np.full(3, 0.1)
    elif kind == "game":
        problem, theta = tasks.layered_markov_game(seed=0), np.full(4, 0.1)
    elif kind == "lqr":
        problem, theta = tasks.random_lqr(seed=0), np.full(3, 0.1)
    else:
        problem, theta = tasks.random_lqr_game(seed=0), np.full(3, 0.1)
    follower = reference.solve_follower(problem, theta)
    context = estimators.Context(problem=problem, theta=theta, follower=follower, rng=rng)
    trajectories = estimators.sample_trajectories(problem, theta, follower, streams=4, steps=3, rng=rng)
    kit = {
        "problem": problem,
        "game": problem,
        "theta": theta,
        "follower": follower,
        "context": context,
        "rng": rng,
        "trajectories": trajectories,
        "batch": trajectories,
        "streams": 4,
        "steps": 3,
        "horizon": 3,
        "seed": 0,
        "state": trajectories.state_t[:, 0],
        "action": trajectories.action_t[:, 0],
        "discounted": True,
        "weights": {"reward_leader": np.ones((4, 3))}
        if kind in ("mdp", "lqr")
        else {"log_policy_leader": np.ones((4, 3))},
        "per_stream": True,
        "step_size": 0.5,
        "trace_decay": 0.5,
        "name": "an example",
        "power": 0.99,
        "error_rate": 1e-6,
        "comparisons": 2,
        "leader_action": None if trajectories.leader_action_t is None else trajectories.leader_action_t[:, 0],
        "policy": getattr(follower, "policy", None),
        "discount_leader": 0.5,
        "simulator": None,
        "previous": None,
        "warm_start": None,
        "steps_to_go": None,
        "per_draw": True,
    }
    if kind == "mdp":
        kit["tables"] = problem.tables_at(theta)
        kit["transition"], kit["reward"] = None, None
    return kit


kit = functools.cache(_kit)


def _kind_of(name):
    if name.split(".")[0] in ("LQRGame",):
        return "lqr_game"
    if any(word in name for word in ("LQR", "Quadratic", "Pathwise", "PolicyCovariance", "lstd", "lqr", "quadrature")):
        return "lqr"
    return "game" if any(word in name for word in ("Game", "game", "BiAC", "TotalDer")) else "mdp"


def _fields(instance):
    return {entry.name: getattr(instance, entry.name) for entry in dataclasses.fields(instance) if entry.init}


@functools.cache
def instances():
    """One instance of each public class, by the class's name."""
    mdp, game, lqr, lqr_game = (kit(kind) for kind in ("mdp", "game", "lqr", "lqr_game"))
    one = tasks.scenario("bandit")
    context = mdp["context"]
    rows = np.random.default_rng(0).standard_normal((200, 2))
    judged = verification.judge_draws(np.random.default_rng(0).standard_normal((200, one.theta.size)), one)
    report = verification.verify(estimators.BCHG(), scenarios=[one])
    exact = reference.hypergradient(mdp["problem"], mdp["theta"])
    exact.error_bound  # noqa: B018 - worked out where it is read
    attribution = verification.attribute_bias("bandit", causes=["truncation"])
    regression = estimators.QuadraticRegression.of(_long_batch(), lqr["context"])
    seeds = estimators.SeedBatch.solve(_paid(), np.full((2, 3), 0.1))
    found = [
        reference.hypergradients(mdp["problem"], np.full((2, 3), 0.1), bound=False),
        mdp["problem"],
        game["problem"],
        lqr["problem"],
        lqr_game["problem"],
        mdp["follower"],
        game["follower"],
        lqr["follower"],
        exact,
        mdp["tables"],
        lqr["problem"].matrices_at(lqr["theta"]),
        lqr_game["problem"].policy_at(lqr_game["theta"]),
        reference.SuboptimalFollower(iterations=2, carry=False),
        reference.TabularSoftmaxPolicy(states=2, leader_actions=2),
        reference.HYPERGRADIENT_ROUTES["implicit"],
        reference.NeuralPolicy(leader_actions=2, features=np.eye(3), hidden=(4,)),
        reference.SparseTransition(successor=np.array([[[0, 1]], [[1, 1]]]), probability=np.full((2, 1, 2), 0.5)),
        estimators.BCHG(),
        estimators.BiAC(),
        estimators.HPGD(),
        estimators.LambdaBCHG(),
        estimators.NaivePGD(),
        estimators.PathwiseBCHG(),
        estimators.PolicyCovariance(),
        estimators.SoBiRL(),
        estimators.TotalDerivative(),
        context,
        estimators.Objective(horizon=3),
        estimators.BCHG().contributions(mdp["trajectories"], context)[0],
        estimators.ESTIMATORS["bc_hg"],
        estimators.BCHG().estimate(mdp["trajectories"], context, per_draw=True),
        mdp["trajectories"],
        estimators.ExactCritic.solve(mdp["problem"], mdp["theta"], mdp["policy"]),
        estimators.GameCritic.solve(game["problem"], game["theta"], game["follower"]),
        estimators.GradientTable.solve(context),
        estimators.LQRSimulator(),
        estimators.TabularSimulator(),
        estimators.QuadraticCritic.solve(lqr["context"]),
        estimators.QuadraticGradientCritic.solve(lqr["context"]),
        regression,
        estimators.SarsaCritic.start(mdp["follower"], 0.5),
        estimators.StateBaseline(table=np.zeros((7, 3))),
        estimators.SarsaLambdaCritic.start(mdp["follower"], 0.5),
        seeds,
        estimators.SeedEstimates(mean=np.zeros((2, 3)), parts={"direct": np.zeros((2, 3))}),
        estimators.TableCritic(action_values=np.zeros((6, 2)), policy=mdp["policy"]),
        tasks.Building.of(2),
        tasks.game_moves(tasks.toy_markov_game())[0],
        tasks.reference_problem("four_rooms_0.001"),
        tasks.RoomGrid.from_text("xxxx\nx  x\nxxxx"),
        tasks.from_arrays(np.eye(2)[:, None, :], np.ones(2), initial=np.array([1.0, 0.0])),
        one,
        one.truth,
        one.provenance,
        tasks.TASKS["chain"],
        verification.BoundedDesign(low=-3.0, high=3.0),
        attribution,
        verification.ErrorBudget(),
        verification.check_gradient(_gradient, [one])[0],
        report.estimators[0],
        report,
        verification.exact_spread(estimators.BCHG(), context, horizon=3),
        verification.Explanation(cause=None, share=0.0, exact=True, alternatives=()),
        judged,
        verification.kill_matrix(mutants=["no discount"], correct=[], on=[one]),
        verification.mean_test(rows, np.zeros(2)),
        verification.enumerate_moments(estimators.BCHG(), mdp["problem"], mdp["theta"], horizon=3),
        verification.MUTANTS["no discount"],
        verification.SampleMoments.of(rows),
        verification.StudentDesign(),
        verification.run_study(on=[one], estimators=["bc_hg"], samples=[1], replicates=2).rows[0],
        judged.verdict,
        verification.run_study(on=[one], estimators=["bc_hg"], samples=[1], replicates=2),
        verification.Agreement(
            problem="p",
            level="l",
            digits={"J": 15.0},
            attainable=15.0,
            required=10.0,
            outcome=verification.Outcome.PASSED,
        ),
        verification.RouteRow(
            problem="p",
            temperature=0.1,
            route="implicit",
            family="f",
            norm=1.0,
            difference=0.0,
            error_bound=1e-12,
            seconds=0.1,
            verdict=judged.verdict,
        ),
    ]
    two = [mdp["problem"], tasks.layered_mdp(seed=1)]
    mixture = reference.Mixture(contexts=two, weights=np.array([0.25, 0.75]))
    run = estimators.Run(method="bc_hg", seed=0, learning_rate=0.5)
    training = {"runs": [run], "iterations": 2, "streams": 2, "steps": 3}
    found += [
        mixture,
        tasks.policy_norm(states=2, actions=2, parameters=3),
        reference.SeparateKernels(planned=mdp["problem"], measured=mdp["problem"]),
        estimators.InContexts(estimator=estimators.BCHG()),
        estimators.MixtureTraining(problem=mixture, **training),
        estimators.ExactFollower(),
        estimators.ExpectedSoftQLearning(),
        estimators.Imitation(),
        estimators.NaturalPolicyGradient(),
        estimators.SoftQLearning(),
        estimators.SweepingFollower(),
        estimators.WatchedFollower(),
        estimators.NudgedFollowers(),
        estimators.PathwiseGame(),
        estimators.Adam(),
        estimators.SGD(),
        run,
        estimators.Training(problem=mdp["problem"], **training),
    ]
    return {type(entry).__name__: entry for entry in found}


def _paid():
    """θ enters the rewards alone: what several seeds at once need."""
    return tasks.layered_mdp(seed=0, theta_in=("reward_follower", "reward_leader"))


def _long_batch():
    lqr = kit("lqr")
    return estimators.sample_trajectories(
        lqr["problem"], lqr["theta"], lqr["follower"], streams=60, steps=3, rng=np.random.default_rng(0)
    )


def _gradient(problem, theta, **options):
    return reference.hypergradient(problem, theta, **options).value


def _tables(theta):
    return reference.Tables(
        transition=np.ones((1, 2, 1)),
        reward_follower=anp.reshape(theta, (1, 2)),
        reward_leader=np.array([[0.0, 1.0]]),
        initial=np.ones(1),
    )


def _defaults(function):
    """The defaults of keyword arguments: a valid call that says everything."""
    return {
        name: entry.default
        for name, entry in inspect.signature(function).parameters.items()
        if entry.default is not inspect.Parameter.empty
    }


def _written():
    """Arguments that are not found by their names alone."""
    mdp, game, lqr = kit("mdp"), kit("game"), kit("lqr")
    one, grid = tasks.scenario("bandit"), tasks.FOUR_ROOMS_GRID
    rooms, rooms_theta = tasks.four_rooms(), np.zeros(105)
    rows, folder = np.random.default_rng(0).standard_normal((200, 2)), Path(tempfile.mkdtemp())
    np.savetxt(folder / "draws.csv", np.random.default_rng(0).standard_normal((50, 2)), delimiter=",")
    bchg, seeds, critic = estimators.BCHG(), instances()["SeedBatch"], instances()["ExactCritic"]
    reading = bchg.read(mdp["trajectories"], mdp["context"])
    lqr_critic = instances()["QuadraticCritic"]
    gradients = instances()["GradientTable"]
    chain = {"transition": mdp["tables"].transition, "policy": mdp["policy"], "start": 0, "stop": 2}
    single = tasks.random_lqr(states=2, actions=1, seed=0)
    evidence = Evidence(
        scenario=one,
        truth=one.truth,
        difference=-one.truth.parts["response"],
        uncertainty=np.full(one.theta.size, 1e-9),
    )
    statistics = {"rows": rows, "expected": np.zeros(2)}
    judged = {"estimator": bchg, "on": one}
    cotangents = {"reward_leader": np.ones_like(mdp["tables"].reward_leader)}
    return {
        "refusal": {"argument": "states", "value": 0, "expected": "an integer", "remedy": "pass one"},
        "MissingExtraError": {"purpose": "drawing", "package": "matplotlib", "extra": "cli"},
        "UnknownNameError": {"argument": "route", "name": "implicid", "known": ["implicit"]},
        "CheckFailedError": {"message": "m", "results": [], "explanation": None},
        "ErrorBudget": {"total": 1e-6},
        "ConfigurableMDP": {"tables": _tables, "discount_leader": 0.5, "discount_follower": 0.9, "temperature": 1.0},
        "named_stream": {"entropy": 7, "names": "task"},
        "Objective.discount": {"discount_leader": 0.5},
        "Objective.constant_return": {"reward": 1.0, "discount_leader": 0.5},
        "register_objective": {"kind": type("Kind", (), {})},
        "register_route": {"name": "own", "kind": type("Kind", (), {}), "summary": "s", "family": "f", "accuracy": "a"},
        "register_task": {"name": "own", "summary": "s"},
        "register_estimator": {"name": "own", "summary": "s", "level": "formula", "make": lambda target: bchg},
        "make_task": {"name": "chain", "states": 5},
        "hypergradients": {
            "problem": mdp["problem"],
            "thetas": np.full((2, 3), 0.1),
            "route": "implicit",
            "horizon": None,
            "discounted": True,
            "warm_start": None,
            "bound": True,
        },
        "solve_followers": {
            "problem": mdp["problem"],
            "thetas": np.zeros((2, 3)),
            "tolerance": 1e-12,
            "max_iterations": 50,
            "warm_start": None,
        },
        "certified_hypergradient": {
            "problem": tasks.random_mdp(states=2, parameters=2),
            "theta": np.zeros(2),
            "digits": 10,
            "horizon": None,
            "discounted": True,
            "maximum_bits": 1024,
        },
        "check_derivatives": {"problem": rooms, "theta": rooms_theta},
        "game_leader_action_values": {
            "game": game["problem"],
            "policy": game["problem"].policy_at(game["theta"]),
            "follower_policy": game["policy"],
            "horizon": 3,
            "discounted": True,
        },
        "leader_objective": {**{k: mdp[k] for k in ("problem", "theta", "follower")}, "horizon": 3, "discounted": True},
        "objective_error_bound": {
            **{k: mdp[k] for k in ("problem", "theta", "follower")},
            "horizon": 3,
            "discounted": True,
        },
        "hypergradient": {
            "problem": mdp["problem"],
            "theta": mdp["theta"],
            "route": "implicit",
            "horizon": 3,
            "discounted": True,
            "warm_start": mdp["follower"],
            "bound": True,
        },
        "solve_follower": {
            "problem": mdp["problem"],
            "theta": mdp["theta"],
            "method": "newton",
            "tolerance": 1e-12,
            "max_iterations": 50,
            "warm_start": mdp["follower"],
            "stop_after": None,
            "throw": True,
        },
        "LQRGame.planned_dynamics": {"policy": instances()["LeaderGaussian"]},
        "LQRMatrices.reward_leader": {"state": np.zeros(3), "action": np.zeros(2)},
        "LQRMatrices.replace": {"changes": {"cost_state_leader": np.eye(3)}},
        "MarkovGame.policy_pullback": {
            "theta": game["theta"],
            "cotangents": np.ones_like(game["problem"].policy_at(game["theta"]))[None],
        },
        "ConfigurableMDP.vector_jacobian": {"theta": mdp["theta"], "cotangents": cotangents},
        "ConfigurableMDP.vector_jacobians": {
            "thetas": np.zeros((2, 3)),
            "cotangents": {"reward_leader": np.ones((2, *mdp["tables"].reward_leader.shape))},
        },
        "ConfigurableMDP.rewards": {"thetas": np.zeros((2, 3))},
        "NeuralPolicy.__call__": {"theta": np.zeros(instances()["NeuralPolicy"].parameters)},
        "TabularSoftmaxPolicy.__call__": {"theta": np.zeros(2)},
        "TabularSoftmaxPolicy.theta_of": {"policy": np.full((2, 2), 0.5)},
        "Tables.replace": {"changes": {"regulariser": 1.0}},
        "TabularFollower.errors_without": {"constant": 0.0},
        "TabularFollower.value_without": {"constant": 0.0},
        "BCHG.partial_gradient": {"trajectories": mdp["trajectories"], "context": mdp["context"], "reading": reading},
        "BCHG.conditional_moments": {"trajectories": mdp["trajectories"], "context": mdp["context"]},
        "PathwiseBCHG.partial_contributions": {
            "trajectories": lqr["trajectories"],
            "context": lqr["context"],
            "critic": lqr_critic,
        },
        "LambdaBCHG.baseline_table": {"context": mdp["context"], "gradients": gradients},
        "GameCritic.baselines": {"kind": "state_value"},
        "GameCritic.rows": {"steps_to_go": None},
        "QuadraticCritic.row": {"steps_to_go": None},
        "QuadraticRegression.of": {
            "trajectories": _long_batch(),
            "context": lqr["context"],
            "inputs": "state_action",
            "weighting": "none",
        },
        "QuadraticRegression.solve": {"moments": np.zeros((16, 1)), "discount": 0.5, "ridge": 0.0},
        "fit_lstd_critic": {"trajectories": _long_batch(), "context": lqr["context"], "ridge": 0.0, "regression": None},
        "fit_lstd_gradient": {
            "trajectories": _long_batch(),
            "context": lqr["context"],
            "rewards": "expected",
            "inputs": "state_action",
            "ridge": 0.0,
            "regression": None,
        },
        "learn_game_critic": {
            "trajectories": game["trajectories"],
            "context": game["context"],
            "operator": "expected",
            "initial": None,
            "step_size": 0.5,
            "passes": 1,
        },
        "sample_suffixes": {
            **{k: mdp[k] for k in ("problem", "theta", "follower", "rng")},
            "state": np.zeros(3, int),
            "steps": 2,
            "action": np.zeros(3, int),
            "lengths": np.ones(3, int),
            "simulator": None,
        },
        "sarsa_pass": {
            "table": np.zeros_like(mdp["policy"]),
            "trajectories": mdp["trajectories"],
            "policy": mdp["policy"],
            "discount_leader": 0.5,
            "step_size": 0.5,
            "truncation": "bootstrap",
            "order": None,
        },
        "SarsaCritic.start": {
            "follower": mdp["follower"],
            "discount_leader": 0.5,
            "rng": mdp["rng"],
            "step_size": 0.5,
            "truncation": "bootstrap",
            "order": "random",
        },
        "SarsaCritic.updated": {"trajectories": mdp["trajectories"], "rng": mdp["rng"], "order": None},
        "SarsaLambdaCritic.updated": {"trajectories": mdp["trajectories"], "rng": mdp["rng"], "order": None},
        "SeedBatch.solve": {"problem": _paid(), "thetas": np.zeros((2, 3)), "tolerance": 1e-10, "warm_start": None},
        "SeedBatch.select": {"seeds": [0]},
        "SeedBatch.table_critic": {"action_values": np.zeros_like(seeds.action_value)},
        "SeedBatch.estimate": {
            "estimator": estimators.BCHG(critic="context"),
            "trajectories": seeds.sample(streams=2, steps=2, rng=mdp["rng"]),
            "critic": seeds.table_critic(np.zeros_like(seeds.action_value)),
            "parts": True,
        },
        "SeedBatch.numbered": {"trajectories": mdp["trajectories"], "seed": np.array([0, 0, 1, 1])},
        "StateBaseline.solve": {
            "kind": "value",
            "context": mdp["context"],
            "trace_decay": 0.5,
            "critic": critic,
            "gradient_critic": gradients,
        },
        "StateBaseline.learn": {
            "trajectories": mdp["trajectories"],
            "context": mdp["context"],
            "critic": critic,
            "gradient_critic": gradients,
            "trace_decay": 0.5,
        },
        "estimators_for": {"kind": reference.MarkovGame},
        "from_rollouts": {"streams": [{"states": [0, 1], "actions": [0], "rewards": [1.0]}], "states": 2},
        "Trajectories.count_in_batch": {"steps": mdp["trajectories"].valid},
        "Trajectories.select": {"streams": np.array([0, 1])},
        "Trajectories.with_stopping": {"stopping": np.zeros((4, 2), int)},
        "Trajectories.check_states": {"states": 6, "actions": 2, "leader_actions": None},
        "TabularSimulator.kernel": {"problem": mdp["problem"], "theta": mdp["theta"], "tables": None},
        "TabularSimulator.start_law": {"problem": mdp["problem"], "theta": mdp["theta"], "tables": None},
        "TabularSimulator.sample": {
            **{k: mdp[k] for k in ("problem", "theta", "follower", "streams", "steps", "rng")},
            "first_state": np.zeros(4, int),
            "first_action": np.zeros(4, int),
            "lengths": np.ones(4, int),
        },
        "LQRSimulator.sample": {
            **{k: lqr[k] for k in ("problem", "theta", "follower", "streams", "steps", "rng")},
            "lengths": np.ones(4, int),
        },
        "GameCritic.benefit_t": {"visits": game["trajectories"], "steps_to_go": None},
        "GameCritic.advantage_t": {"visits": game["trajectories"], "steps_to_go": None, "baseline": "none"},
        "Building.of": {"zones": 2},
        "Building.dynamics": {"insulation": np.full(2, 0.5), "airflow": np.full(2, 0.5)},
        "Building.dynamics_jacobian": {"insulation_slope": np.ones(2), "airflow_slope": np.ones(2)},
        "ReferenceProblem.scenario": {"horizon": 2},
        "RoomGrid.from_text": {"text": "xxxx\nx  x\nxxxx"},
        "RoomGrid.of_rooms": {"rooms_per_side": 1, "room_size": 2},
        "RoomGrid.index_of": {"cell": (1, 1), "name": "cell"},
        "RoomGrid.cell_of": {"state": 0},
        "RoomGrid.indicator": {"cells": (1, 1), "name": "cell"},
        "RoomGrid.kernel": {"intended": 0.6, "terminal": ((1, 1),)},
        "Scenario.of": {"problem": one.problem, "theta": one.theta, "horizon": 2, "name": "mine"},
        "Scenario.solved": {"objective": estimators.Objective()},
        "Scenario.truth_of": {"objective": estimators.Objective(horizon=2)},
        "Scenario.export_npz": {"path": folder / "scenario.npz"},
        "Scenario.as_gymnasium": {"horizon": 3},
        "Truth.of": {"objective": 1.0, "parts": {"direct": [2.0]}, "error_bound": 0.0},
        "draw_follower": {
            "grid": grid,
            "problem": rooms,
            "theta": rooms_theta,
            "marks": tasks.FOUR_ROOMS_MARKS,
            "follower": None,
            "path": "likely",
            "title": "t",
        },
        "draw_game": {"game": tasks.toy_markov_game(), "state_names": "SAB", "action_names": "sab", "title": "t"},
        "draw_map": {"grid": grid, "marks": tasks.FOUR_ROOMS_MARKS, "title": "t"},
        "draw_penalties": {
            "grid": grid,
            "problem": rooms,
            "theta": rooms_theta,
            "marks": None,
            "title": "t",
            "largest": 1.0,
        },
        "draw_values": {
            "grid": grid,
            "values": np.linspace(0.0, 1.0, 104),
            "label": "l",
            "marks": None,
            "title": "t",
            "colour_map": "OrRd",
            "power": 1.0,
            "largest": 1.0,
        },
        "game_moves": {"game": tasks.toy_markov_game()},
        "from_arrays": {
            "transition": np.full((2, 2, 2), 0.5),
            "reward": np.ones((2, 2)),
            "initial": np.array([1.0, 0.0]),
            "axes": "sas",
            "terminal": (),
            "absorbing": "end",
            "name": "n",
        },
        "from_explicit_files": {
            "transitions": _written(folder / "w.tra", "1 1 1\n0 0 0 1\n"),
            "labels": _written(folder / "w.lab", '0="init"\n0: 0\n'),
            "rewards": (),
            "initial": "init",
            "end": (),
            "absorbing": "keep",
        },
        "from_gymnasium": {
            "environment": SimpleNamespace(P={0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 0.0, True)]}}),
            "initial": np.ones(1),
            "absorbing": "end",
            "check_steps": True,
        },
        "from_pettingzoo": {
            "environment": _pennies(),
            "leader": "a",
            "follower_sees_leader_action": False,
            "key": lambda environment: 0,
            "seeds": (0,),
            "most_states": 3,
        },
        "from_jax": {"function": lambda theta: {"a": theta}, "into": dict},
        "from_torch": {"function": lambda theta: {"a": theta}, "into": dict},
        "ImportedMDP.problem": {
            "hook": "state toll",
            "reward_leader": np.zeros(2),
            "earned": 0.5,
            "discount_leader": 0.9,
            "discount_follower": 0.9,
            "temperature": 1.0,
        },
        "garnet": {"states": 4, "actions": 2, "branching": 2, "theta_in": ("transition",)},
        "hard_markov_game": {"case": "opposed", "seed": 0, "follower_sees_leader_action": True},
        "initial_theta": {"rng": mdp["rng"], "scale": 0.01, "size": 5},
        "intended_path": chain,
        "most_likely_path": chain,
        "reference_problem": {"name": "four_rooms_0.001"},
        "scenario": {"name": "bandit"},
        "smooth_mdp": {
            "name": "pair",
            "seed": 0,
            "support": np.ones((2, 1, 2), bool),
            "initial_support": np.array([True, False]),
            "parameters": 2,
            "temperature": 1.0,
            "discount_leader": 0.5,
            "discount_follower": 0.9,
            "termination": 0.25,
        },
        "toy_game_theta": {"p": 0.5},
        "BoundedDesign.along": {"directions": np.eye(2)},
        "BoundedDesign.half_width": {"draws": 100, "standard_deviation": 1.0},
        "StudentDesign.draws_for_tail": {"skewness": 1.0},
        **{
            f"{design}.{method}": call
            for design in ("BoundedDesign", "StudentDesign")
            for method, call in {
                "blocks": {"coordinates": 2},
                "detectable_bias": {"draws": 100, "standard_deviation": 1.0},
                "draws_expected": {"bias": 0.1, "sample": instances()["SampleMoments"]},
                "draws_needed": {"bias": 0.1, "standard_deviation": 1.0},
                "test": {"rows": np.clip(rows, -3, 3), "expected": np.zeros(2)},
                "test_of": {"sample": instances()["SampleMoments"], "expected": np.zeros(2), "medians": None},
            }.items()
        },
        "ErrorBudget.spend": {"check": "c", "rate": 1e-12, "comparisons": 1},
        "ErrorBudget.split": {"checks": {"c": 1}},
        "Report.count": {"outcome": verification.Outcome.PASSED},
        "Report.save": {"directory": folder},
        "Moments.allowed": {"known_to": 1e-12},
        "SampleMoments.columns": {"chosen": slice(0, 1)},
        "SampleMoments.of": {"rows": rows},
        "assert_matches_truth": {"gradient": _gradient, "on": one, "accuracy": 1e-9},
        "assert_unbiased": {**judged, "claim": None, "expected_failures": None, "error_rate": 1e-6},
        "assert_variance_below": {"estimator": bchg, "bound": 1e9, "on": one, "error_rate": 1e-6},
        "attribute": {
            "measure": lambda on: np.zeros(2),
            "truth": np.zeros(2),
            "causes": ["truncation"],
            "name": "n",
            "expected": None,
        },
        "attribute_bias": {
            "on": "bandit",
            "causes": [next(iter(CAUSES))],
            "horizon": 2,
            "critic_error": 0.1,
            "follower_sweeps": 2,
            "mixing": 0.16,
        },
        "certify_results": {
            "text": json.dumps(
                {"format": "bilevelrl-results", "version": 1, "results": {"four_rooms_0.001": {"objective": -0.7407}}}
            ),
            "where": "results",
            "digits": None,
        },
        "check_estimator": {"estimator": bchg, "on": [one], "claim": None, "made_for": False},
        "check_gradient": {"gradient": _gradient, "on": [one], "accuracy": 1e-9},
        "check_orders": {"gradient": _gradient, "on": [one]},
        "enumerate_moments": {
            "estimator": bchg,
            "problem": mdp["problem"],
            "theta": mdp["theta"],
            "horizon": 2,
            "batch": None,
            "follower": mdp["follower"],
            "critic": critic,
            "simulator": None,
            "max_paths": 10000,
        },
        "enumerate_scenario": {**judged, "claim": None, "batch": None, "max_multisets": 20},
        "estimator_checks": {"on": [one], "claim": None, "names": ["contract"]},
        "exact_spread": {"estimator": bchg, "context": mdp["context"], "horizon": 2},
        "explain": {"evidence": [evidence], "causes": None},
        "game_expected_parts": {
            "game": kit("lqr_game")["problem"],
            "theta": kit("lqr_game")["theta"],
            "target": estimators.Objective(horizon=2),
            "steps": 2,
            "nodes": 3,
        },
        "judge_draws": {
            "draws": np.random.default_rng(0).standard_normal((50, one.theta.size)),
            "on": one,
            "claim": "unbiased",
            "horizon": None,
            "tolerated_bias": 0.0,
        },
        "judge": {"draws": np.zeros((50, one.theta.size)), "on": one, "problem": None, "theta": None},
        "kill_matrix": {"mutants": ["no discount"], "correct": [], "on": [one]},
        "mean_test": {**statistics, "known_error": 0.0},
        "paired_squares": {"rows": rows},
        "parametrize_with_checks": {"estimators": [bchg], "scenarios": [one], "claim": None, "expected_failures": None},
        "quadrature_moments": {
            "estimator": bchg,
            "problem": tasks.random_lqr(states=1, actions=1, seed=0),
            "theta": np.zeros(3),
            "horizon": 1,
            "nodes": 3,
            "max_paths": 100000,
        },
        "read_draws": {"path": folder / "draws.csv"},
        "run_study": {"on": [one], "estimators": ["bc_hg"], "seed": 0, "samples": [1], "replicates": 2, "workers": 1},
        "soft_bellman_residual": {
            "problem": single,
            "theta": np.zeros(3),
            "follower": reference.solve_follower(single, np.zeros(3)),
            "states": np.eye(2),
            "nodes": 50,
        },
        "verify": {
            "estimator": bchg,
            "scenarios": [one],
            "claim": None,
            "expected_failures": None,
            "seed": 0,
            "quick": False,
        },
        "write_report": {"path": folder / "report.html", "report": instances()["Report"], "study": None, "title": "t"},
        **_of_folders(),
        "ConfigurableLQR.pullback": {**{k: lqr[k] for k in ("theta", "batch", "weights", "per_stream")}},
    }


def _of_folders():
    """Arguments of what folders show beside the facades."""
    mdp, one, folder = kit("mdp"), tasks.scenario("bandit"), Path(tempfile.mkdtemp())
    asked = {key: mdp[key] for key in ("problem", "theta", "horizon", "discounted")}
    learning = {"problem": mdp["problem"], "theta": mdp["theta"], "learner": "soft_q_learning", "updates": 3}
    both = {"contexts": [mdp["problem"], tasks.layered_mdp(seed=1)], "weights": np.array([0.25, 0.75])}
    mixture = reference.Mixture(**both)
    general, small = tasks.policy_norm(states=2, actions=2, parameters=3), tasks.random_mdp(states=2, parameters=2)
    counts = np.array([[3, 1], [2, 2]])
    run = estimators.Run(method="bc_hg", seed=0, learning_rate=0.5)
    training = {"runs": [run], "iterations": 2, "streams": 2, "steps": 3}
    stored = tasks.save_problem(folder / "problem.npz", small, np.zeros(2))
    return {
        "approximate_hypergradient": {**asked, "method": "differentiated_sweeps", "knob": 3.0},
        "follower_policy": learning,
        "formula_under": {**asked, "follower": mdp["follower"]},
        "hypergradient_through": {**learning, "horizon": 3},
        "hypergradient_through_sweeps": {**asked, "sweeps": 3},
        "sampled_soft_q_learning": {"problem": small, "theta": np.zeros(2), "samples": 2, "step_size": 0.1},
        "variation_bound": learning,
        "Mixture": {**both, "name": "two"},
        "reduce_contexts": {"mixture": mixture},
        "GeneralObjective": _fields(general),
        "ordinary_problem": {"problem": general, "theta": np.full(3, 0.1), "horizon": 3, "discounted": True},
        "check_actions": {"policy": np.full((2, 2), 0.5), "counts": counts, "error_rate": 1e-6},
        "count_actions": {"state": np.array([0, 1]), "action": np.array([1, 0]), "states": 2, "actions": 2},
        "policy_from_counts": {"counts": counts, "prior": 0.5},
        "reward_of_policy": {"problem": small, "theta": np.zeros(2), "policy": _policy_of(small), "value": None},
        "SeparateKernels": {"planned": small, "measured": small, "lived": None, "name": "two kernels"},
        "InContexts": {"estimator": estimators.BCHG(), "contexts": "draw"},
        "gradient_errors": {"direction": np.ones((2, 3)), "truth": np.full((2, 3), 2.0)},
        "make_optimiser": {"name": "adam"},
        "Run": {"method": "bc_hg", "seed": 0, "learning_rate": 0.5, "critic_step_size": 0.5},
        "train": {"training": estimators.Training(problem=mdp["problem"], **training), "checkpoint": folder / "c.npz"},
        "load_problem": {"path": stored},
        "save_problem": {"path": folder / "again.npz", "problem": small, "theta": np.zeros(2)},
        "problem_arrays": {"problem": small, "theta": np.zeros(2)},
        "scenario_arrays": {"on": one},
        "write_npz": {"on": one, "path": folder / "scenario.npz"},
        "policy_norm": {"states": 3, "actions": 2, "parameters": 3, "seed": 0, "temperature": 1.0, "discount": 0.5},
        "policy_norm_start": {"parameters": 3, "seed": 0},
        "published_four_rooms": {"planned": "planner", "measured": "planner", "lived": "paper"},
        "mixture_moments": {
            "estimator": estimators.BCHG(target=estimators.Objective(horizon=2)),
            "mixture": mixture,
            "theta": mdp["theta"],
            "horizon": 2,
        },
    }


def _policy_of(problem):
    return reference.solve_follower(problem, np.zeros(2)).policy


written = functools.cache(_written)


def _given(name, function):
    """Return the keyword arguments of a valid call, or None where one is missing."""
    cls, _, method = name.partition(".")
    listed = written().get(name)
    if listed is not None:
        left_out = {key: default for key, default in _defaults(function).items() if key not in listed}
        return listed | left_out
    made = instances().get(name)
    if made is not None:
        return _fields(made)
    known = kit(_kind_of(cls if method else name))
    parameters = inspect.signature(function).parameters
    given = {}
    for key, entry in parameters.items():
        if key in ("self", "cls"):
            continue
        if key in known and (method or entry.default is inspect.Parameter.empty):
            given[key] = known[key]
        elif entry.default is not inspect.Parameter.empty:
            given[key] = entry.default
        elif entry.kind is not entry.VAR_KEYWORD:
            return None
    return given


def _target(name, function):
    cls, _, method = name.partition(".")
    if name == "named_stream":
        return lambda entropy, names: reference.named_stream(entropy, names)
    if name == "RoomGrid.indicator":
        return lambda cells, name: tasks.FOUR_ROOMS_GRID.indicator(cells, name=name)
    if not method:
        return function
    if cls == "ErrorBudget":  # spent by each call
        return lambda **given: getattr(verification.ErrorBudget(), method)(**given)
    if cls == "PolicyCovariance":
        return getattr(estimators.PolicyCovariance(target=estimators.Objective(horizon=3)), method)
    return getattr(instances()[cls], method)


def _written(path, text):
    path.write_text(text)
    return path


@functools.cache
def valid_calls():
    """Return {public name: (function, keyword arguments) or None where no valid call is known}."""
    calls = {}
    for name, function in public():
        if inspect.isclass(function) and issubclass(function, errors.BilevelRLError) and name not in written():
            continue  # plain exceptions take any message
        given = _given(name, function)
        calls[name] = None if given is None else (_target(name, function), given)
    return calls
