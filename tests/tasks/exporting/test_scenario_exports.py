"""Scenarios for other code: what is exported is the scenario, and the environment plays it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.reference import named_stream
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import scenario, scenarios
from bilevelrl.tasks.exporting import scenario_arrays
from bilevelrl.verification.commands.command_line import main

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "judge_jax_gradient.py"


class TestArrays:
    @pytest.mark.parametrize("at", scenarios(), ids=lambda at: at.name)
    def test_the_truth_follows_from_the_exported_arrays_alone(self, at):
        """Theorem 1 in plain NumPy, from nothing but the file's entries."""
        x = scenario_arrays(at)
        gamma_l, gamma_f, beta = x["discount_leader"], x["discount_follower"], x["temperature"]
        policy, kernel = x["follower_policy"], x["transition"]
        chain = np.einsum("sa,sap->sp", policy, kernel)
        eye = np.eye(len(chain))
        value_l = np.linalg.solve(eye - gamma_l * chain, (policy * x["reward_leader"]).sum(axis=1))
        action_value = x["reward_leader"] + gamma_l * kernel @ value_l
        benefit = action_value - value_l[:, None]
        occupancy = np.linalg.solve((eye - gamma_l * chain).T, x["initial"])
        c = x["jacobian_reward_follower"] + gamma_f * np.einsum(
            "sapn,p->san", x["jacobian_transition"], x["follower_value"]
        )
        d_value = np.linalg.solve(eye - gamma_f * chain, np.einsum("sa,san->sn", policy, c))
        d_action = c + gamma_f * np.einsum("sap,pn->san", kernel, d_value)
        inner = x["jacobian_reward_leader"] + gamma_l * np.einsum("sapn,p->san", x["jacobian_transition"], value_l)
        inner = inner + (benefit / beta)[:, :, None] * d_action
        total = np.einsum("s,sa,san->n", occupancy, policy, inner)
        total = total + x["jacobian_regulariser"] + np.einsum("sn,s->n", x["jacobian_initial"], value_l)
        # The textbook formula is not built for cold followers or long chains: its conditioning is in the bound.
        size = max(np.abs(part).max() for part in at.truth.parts.values())
        assert total == pytest.approx(x["truth"], abs=1e-9 * max(1.0, size) + at.truth.error_bound)
        objective = x["initial"] @ value_l + x["regulariser"]
        assert objective == pytest.approx(x["truth_objective"], rel=1e-9, abs=1e-9)

    def test_file(self, tmp_path, capsys):
        at = scenario("survival")
        with np.load(at.export_npz(tmp_path / "survival.npz")) as found:
            assert str(found["name"]) == "survival"
            assert np.array_equal(found["truth"], at.truth.value)
            assert np.array_equal(found["truncated_transition"], at.truncated.parts["transition"])
        with pytest.raises(InvalidInputError, match=r"\.npz"):
            at.export_npz(tmp_path / "survival.csv")
        assert main(["scenarios", "--export", "toll", "--output", str(tmp_path / "toll.npz")]) == 0
        assert (tmp_path / "toll.npz").exists()
        assert main(["scenarios", "--tag", "textbook"]) == 0
        listed = capsys.readouterr().out
        assert "envelope bandit" in listed
        assert "garnet" not in listed


class TestEnvironment:
    @pytest.mark.parametrize("name", ["layered", "survival", "garnet", "periodic", "random, terminating"])
    def test_gymnasiums_own_checker(self, name):
        gymnasium = pytest.importorskip("gymnasium")
        from gymnasium.utils.env_checker import check_env

        environment = scenario(name).as_gymnasium()
        assert isinstance(environment, gymnasium.Env)
        check_env(environment, skip_render_check=True)

    def test_the_process_is_the_scenarios(self):
        """Means of many episodes under the follower's policy are the exact return, within declared intervals."""
        pytest.importorskip("gymnasium")
        from bilevelrl.verification.statistics.means import mean_test

        at = scenario("layered")
        x = scenario_arrays(at)
        environment, rng = at.as_gymnasium(), named_stream(1, "actions")
        returns = np.zeros((4000, 1))
        environment.reset(seed=7)
        for episode in range(len(returns)):
            state, _ = environment.reset()
            over, weight = False, 1.0
            while not over:
                action = rng.choice(2, p=x["follower_policy"][state])
                state, _, terminated, truncated, info = environment.step(int(action))
                returns[episode] += weight * info["reward_leader"]
                weight *= float(x["discount_leader"])
                over = terminated or truncated
                assert not truncated  # paths end by themselves: truncation is not termination
        expected = np.array([at.truth.objective - float(x["regulariser"])])
        assert not mean_test(returns, expected).rejected.any()
        assert mean_test(returns, expected + 0.5).rejected.all()

    def test_truncation_is_not_termination(self):
        pytest.importorskip("gymnasium")
        environment = scenario("pendulum").as_gymnasium(horizon=2)
        environment.reset(seed=0)
        assert environment.step(0)[2:4] == (False, False)
        assert environment.step(0)[2:4] == (False, True)
        with pytest.raises(InvalidInputError, match="horizon"):
            scenario("pendulum").as_gymnasium(horizon=0)

    def test_a_step_before_a_reset(self):
        pytest.importorskip("gymnasium")
        with pytest.raises(InvalidInputError, match="reset"):
            scenario("layered").as_gymnasium().step(0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_jax_example_runs(capsys):
    pytest.importorskip("jax")
    spec = importlib.util.spec_from_file_location("judge_jax_gradient", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    sys.modules["judge_jax_gradient"] = example
    try:
        spec.loader.exec_module(example)
        example.main()
    finally:
        del sys.modules["judge_jax_gradient"]
    said = capsys.readouterr().out
    assert "agrees with the stored truth" in said
    assert said.count("the response part is missing (agrees") == 2
    assert "PASSED" in said
    assert "FAILED" in said
