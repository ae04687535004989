"""Every public name by package: those of the facade, and those that users import from folders and modules."""

import importlib
from types import SimpleNamespace

BESIDE = {
    "reference": {
        "best_response": "SuboptimalFollower",
        "game.follower": "GameFollower",
        "approximations": "approximate_hypergradient follower_policy formula_under hypergradient_through "
        "hypergradient_through_sweeps sampled_soft_q_learning variation_bound",
        "contexts": "Mixture reduce_contexts",
        "general_objective": "GeneralObjective ordinary_problem",
        "observed": "check_actions count_actions policy_from_counts reward_of_policy",
        "separate_kernels": "SeparateKernels",
        "game.leader": "game_leader_action_values",
        "game.leader_policies": "NeuralPolicy",
        "game.reduction": "reduce_game",
        "lqr.follower": "LQRFollower",
        "lqr_game.model": "LeaderGaussian",
        "many": "Hypergradients hypergradients",
        "problem": "GAME_PARTS PARTS Follower Part Status TERMS Term",
        "registry": "Route objective_error_bound register_objective register_route",
        "tabular.leader": "leader_action_values",
        "tabular.stacked.newton": "solve_followers",
    },
    "estimators": {
        "contexts": "InContexts MixtureTraining",
        "followers": "ExactFollower ExpectedSoftQLearning Imitation NaturalPolicyGradient SoftQLearning "
        "SweepingFollower WatchedFollower",
        "training": "Adam Run SGD Training gradient_errors make_optimiser train",
        "critics.gradient_tables": "GradientTable",
        "critics.joint_tables": "GameCritic learn_game_critic",
        "critics.least_squares": "QuadraticRegression",
        "critics.quadratic": "QuadraticCritic fit_lstd_critic",
        "critics.quadratic_gradients": "QuadraticGradientCritic fit_lstd_gradient",
        "critics.sarsa": "sarsa_pass",
        "critics.sarsa_lambda": "SarsaLambdaCritic",
        "critics.state_baselines": "StateBaseline",
        "estimator": "Contribution EstimatorEntry LeaderCritic",
        "methods": "NudgedFollowers PathwiseBCHG PathwiseGame PolicyCovariance TotalDerivative",
        "registry": "register_estimator",
        "sampling.linear_quadratic": "LQRSimulator",
        "sampling.sample": "sample_suffixes",
        "sampling.stopping": "sample_stopped_trajectories",
        "terms.batched": "SeedBatch SeedEstimates",
    },
    "tasks": {
        "exporting": "load_problem problem_arrays save_problem scenario_arrays write_npz",
        "paper": "policy_norm policy_norm_start published_four_rooms",
        "generators.mdps": "absorbing_mdp periodic_mdp small_problems unreachable_mdp",
        "generators.random_games": "GAME_CASES hard_markov_game layered_markov_game",
        "generators.smooth_mdp": "smooth_mdp",
        "paper.building": "Building",
        "paper.four_rooms": "FOUR_ROOMS_GRID FOUR_ROOMS_KERNELS FOUR_ROOMS_MARKS",
        "paper.room_grid": "RoomGrid",
        "paper.toy_game": "TOY_GAME_STATES",
        "pictures.diagram": "GameMove draw_game game_moves",
        "pictures.paths": "intended_path most_likely_path",
        "pictures.rendering": "draw_follower draw_map draw_penalties draw_values",
        "importing": "ImportedMDP",
        "registry": "Task register_task",
        "scenarios.catalogue": "scenario_names",
        "scenarios.reference_data": "ReferenceProblem reference_names reference_problems",
        "scenarios.scenario": "Provenance SCENARIO_TAGS Truth",
    },
    "verification": {
        "enumeration": "mixture_moments",
        "causes.explain": "explain",
        "causes.explanation": "Explanation",
        "checks.deterministic": "enumerate_scenario",
        "checks.order": "check_orders",
        "checks.results": "CheckResult",
        "checks.verdicts": "POWER_LIMIT Verdict",
        "commands.certify": "Agreement",
        "enumeration.exact_spread": "ExactSpread",
        "enumeration.exact_sums": "Moments",
        "enumeration.quadrature": "quadrature_moments",
        "enumeration.quadrature_truths": "game_expected_parts soft_bellman_residual",
        "mutants.attribution": "Attribution CAUSES attribute attribute_bias",
        "mutants.catalogue": "MUTANTS Mutant",
        "mutants.kill_matrix": "KillMatrix",
        "pipeline.results": "EstimatorRow RouteRow",
        "pipeline.study_tables": "Study StudyRow",
        "statistics.bounded": "BoundedDesign",
        "statistics.error_budget": "ErrorBudget",
        "statistics.means": "MeanTest SampleMoments StudentDesign",
        "statistics.variances": "paired_squares",
        "testing.failures": "CheckFailedError",
        "testing.judge": "read_draws",
        "testing.judgement": "Judgement",
    },
}


def _names(package):
    facade = importlib.import_module(f"bilevelrl.{package}")
    named = {name: getattr(facade, name) for name in facade.__all__}
    for module, names in BESIDE[package].items():
        loaded = importlib.import_module(f"bilevelrl.{package}.{module}")
        named.update({name: getattr(loaded, name) for name in names.split()})
    return SimpleNamespace(**named)


reference, estimators, tasks, verification = map(_names, BESIDE)
