"""Every mutant dies by the check meant for it; what is right survives; and the matrix would show it if not."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.estimators import ESTIMATORS, Claim
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import ConfigurableMDP, Tables, hypergradient
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.tasks import scenarios
from bilevelrl.verification.checks.independence import check_independence
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.mutants.along import TraceFormula
from bilevelrl.verification.mutants.along_slips import KINDS
from bilevelrl.verification.mutants.attribution import mixed_dynamics
from bilevelrl.verification.mutants.catalogue import MUTANTS
from bilevelrl.verification.mutants.composed import COMPOSED, ComposedFormula, MixedFormula
from bilevelrl.verification.mutants.exact import ExactFormula, conjugate_gradients
from bilevelrl.verification.mutants.kill_matrix import (
    ESTIMATOR_CHECKS,
    GRADIENT_CHECKS,
    KillMatrix,
    KillRow,
    correct_subjects,
    kill_matrix,
    kill_row,
)
from bilevelrl.verification.mutants.page import kill_page
from bilevelrl.verification.mutants.paid import PaidFormula
from bilevelrl.verification.mutants.sample import SampleFormula

# A margin of ten is one digit away from rounding; the Taylor test's is at most about two by construction.
CLEAR = {"Taylor order": 1.5}

DRAW_FOR_THEMSELVES = (
    "bc_hg_independent", "hpgd_oracle", "hpgd_oracle_independent", "nudged", "nudged_one_sided", "value_penalty",
    "zero_order",
)  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed_by_the_check_meant_for_it(name: str) -> None:
    mutant = MUTANTS[name]
    row = kill_row(mutant)
    assert row.as_it_should
    assert row.margins[mutant.meant_for] > CLEAR.get(mutant.meant_for, 10.0)


@pytest.mark.parametrize("name", [name for name in correct_subjects() if name not in ESTIMATORS])
def test_right_formulas_and_routes_survive_every_check(name: str) -> None:
    row = kill_matrix(mutants=[], correct=[name]).correct[0]
    assert row.killed_by == ()
    checks = GRADIENT_CHECKS if row.kind == "gradient" else ESTIMATOR_CHECKS
    # Survived, and not for want of being judged. Every check of its kind had something to say; LQRs never end, and
    # formulas draw no numbers of their own. Of what is made of other problems the truth alone is known.
    wanted = set(checks) - {"independence"} - ({"bias"} if "LQR" in name else set())
    if name.partition(", ")[2] in COMPOSED:
        wanted = {"contract", "truth"} if row.kind == "gradient" else {"contract", "bias"}
    assert set(row.margins) == wanted
    assert max(row.margins.values()) < 0.5


@pytest.mark.parametrize("name", estimators_for(ConfigurableMDP))
def test_registered_estimators_survive_every_check(name: str) -> None:
    quick = scenarios(tags="textbook") + scenarios(tags=["ends", "random"])[:3] + scenarios(tags=["goes_on", "sparse"])
    row = kill_matrix(mutants=[], correct=[name], on=quick).correct[0]
    assert row.killed_by == ()
    assert ("independence" in row.margins) == (name in DRAW_FOR_THEMSELVES)


def test_what_rests_on_rare_draws_is_not_judged_by_its_sample() -> None:
    assert check_independence(NudgedFollowers(pay=0.3, numbers="common")) == []
    assert check_independence(NudgedFollowers(pay=0.3))[0].margin < 1.0


def test_a_mixed_kernel_averages_over_actions_that_can_be_taken() -> None:
    kernel = np.tile(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), (2, 1, 1))
    mask, still = np.array([[True, True, False], [True, False, False]]), np.zeros((2, 3))

    def tables(theta: object) -> Tables:
        return Tables(
            transition=kernel, reward_follower=still, reward_leader=still, initial=np.ones(2) / 2, action_mask=mask
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    mixed = mixed_dynamics(problem, 1.0).tables_at(np.zeros(1))
    np.testing.assert_array_equal(mixed.action_mask, mask)
    np.testing.assert_array_equal(mixed.transition[:, 0], [[0.5, 0.5], [1.0, 0.0]])


def test_there_are_enough_and_each_says_where_it_comes_from() -> None:
    assert len(MUTANTS) >= 200
    for kind, least in (*((kind, 10) for kind in KINDS.values()), *((kind, 5) for kind in COMPOSED.values())):
        assert sum(mutant.problem is kind for mutant in MUTANTS.values()) >= least
    for name, mutant in MUTANTS.items():
        assert mutant.name == name
        assert mutant.changes
        assert mutant.origin
        assert mutant.meant_for in (ESTIMATOR_CHECKS if mutant.kind == "estimator" else GRADIENT_CHECKS)
    # Every check is meant to kill something, or it is not known to check.
    meant = {(mutant.kind, mutant.meant_for) for mutant in MUTANTS.values()}
    for check in ESTIMATOR_CHECKS:
        assert ("estimator", check) in meant
    for check in GRADIENT_CHECKS:
        assert check == "contract" or ("gradient", check) in meant


def test_every_switch_of_both_formulas_is_some_mutant() -> None:
    """A switch that nobody turns would be dead code; right alternatives are turned by correct subjects."""
    for formula, kind in (
        (SampleFormula, "estimator"),
        (TraceFormula, "estimator"),
        (MixedFormula, "estimator"),
        (ExactFormula, "gradient"),
        (ComposedFormula, "gradient"),
    ):
        turned = set()
        for mutant in MUTANTS.values():
            if mutant.kind == kind and isinstance(made := mutant.make(), formula):
                right = formula()
                turned |= {name for name in formula.__dataclass_fields__ if getattr(made, name) != getattr(right, name)}
        left = set(formula.__dataclass_fields__) - turned - {"name"}
        assert left <= {"guiding", "start", "problem", "resets", "_buffer"}


def test_a_harmless_mutant_would_be_reported() -> None:
    """The zero mutant: nothing is wrong with it, so the matrix must say that nobody killed it."""
    right = kill_matrix(mutants=[], correct=["sample formula"]).correct[0]
    harmless = KillRow(name="harmless", kind="estimator", meant_for="bias", margins=right.margins, where=right.where)
    matrix = KillMatrix(mutants=(harmless,), correct=(), seconds=0.0)
    assert not matrix.complete
    assert "not as it should be" in str(matrix)
    assert "0 of 1 mutants" in str(matrix)


def test_a_wrongly_refused_subject_would_be_reported() -> None:
    wrong = kill_row(MUTANTS["response dropped"], on=scenarios(tags="textbook"))
    accused = KillRow(name="accused", kind="estimator", meant_for="", margins=wrong.margins, where=wrong.where)
    assert not accused.as_it_should
    assert not KillMatrix(mutants=(), correct=(accused,), seconds=0.0).complete


def test_the_table_and_its_csv_say_the_same() -> None:
    matrix = kill_matrix(mutants=["V for Q", "sign of the adjoint"], correct=["exact formula"])
    rows = list(csv.DictReader(io.StringIO(matrix.to_csv())))
    killed = {(row["subject"], row["check"]) for row in rows if row["killed"] == "yes"}
    expected = {(row.name, check) for row in matrix.mutants for check in row.killed_by}
    assert killed == expected
    assert "2 of 2 mutants killed" in str(matrix)


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    files = ["--output", str(tmp_path / "kill.csv"), "--page", str(tmp_path / "kill.md")]
    assert main(["mutants", "response dropped", *files]) == 0
    assert "1 of 1 mutants killed" in capsys.readouterr().out
    page = (tmp_path / "kill.md").read_text(encoding="utf-8")
    assert "| response dropped | no guiding term | bias | 10^13 |" in page
    assert (tmp_path / "kill.csv").read_text().startswith("subject,kind,")
    assert main(["mutants", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(MUTANTS)
    assert main(["mutants", "respons dropped"]) == 2
    assert "response dropped" in capsys.readouterr().err


def test_the_page_says_what_is_not_as_it_should_be() -> None:
    right = kill_matrix(mutants=[], correct=["exact formula"]).correct[0]
    wrong = kill_row(MUTANTS["V for B"], on=scenarios(tags="textbook"))
    harmless = KillRow(name="V for B", kind="gradient", meant_for="truth", margins=right.margins, where=right.where)
    accused = KillRow(name="accused", kind="gradient", meant_for="", margins=wrong.margins, where=wrong.where)
    page = kill_page(KillMatrix(mutants=(harmless,), correct=(right, accused), seconds=0.0))
    assert "0 of 1 mutants killed" in page
    assert "| V for B | V_L ∇Q_F | truth | **alive** |" in page
    assert "| accused | gradient | 9 | **refused** |" in page
    assert "| exact formula | gradient | 9 | 0." in page


def test_the_page_of_the_documentation_knows_every_mutant_and_every_right_subject() -> None:
    text = (Path(__file__).parents[3] / "docs/planted_errors.md").read_text(encoding="utf-8")
    for name, mutant in MUTANTS.items():
        shown = name.rpartition(", ")[0] if mutant.problem is not None else name
        changes = mutant.changes.replace("|", "\\|")
        assert f"| {shown} | {changes} | {mutant.meant_for} | " in text, name
    for name in correct_subjects():
        assert f"| {name} | " in text, name
    assert "**" not in text  # nothing alive that should be dead, nothing refused that is right
    assert f"{len(MUTANTS)} of {len(MUTANTS)} mutants" in text


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="exact formula"):
        kill_matrix(mutants=[], correct=["exact formul"])


def test_right_conjugate_gradients_solve_and_stale_ones_do_not() -> None:
    rng = np.random.default_rng(1)
    root = rng.standard_normal((4, 4))
    matrix, right = root @ root.T + np.eye(4), rng.standard_normal((4, 2))
    truth = np.linalg.solve(matrix, right)
    assert np.abs(conjugate_gradients(matrix, right, stale=False) - truth).max() < 1e-10
    assert np.abs(conjugate_gradients(matrix, right, stale=True) - truth).max() > 1e-3


def test_the_one_page_formula_agrees_with_a_route_on_parts() -> None:
    for entry in scenarios(tags="goes_on"):
        exact = hypergradient(entry.problem, entry.theta, route="forward")
        found = ExactFormula()(entry.problem, entry.theta)
        for part, value in exact.parts.items():
            assert np.abs(found[part] - value).max() <= 3 * exact.error_bound


def test_the_paid_formula_without_a_slip_is_right() -> None:
    for entry in scenarios(tags="goes_on"):
        exact = hypergradient(entry.problem, entry.theta, route="forward")
        found = PaidFormula()(entry.problem, entry.theta)
        for part, value in exact.parts.items():
            assert np.abs(found[part] - value).max() <= 3 * exact.error_bound


def test_a_mutant_that_claims_nothing_is_not_judged() -> None:
    from bilevelrl.verification.checks.deterministic import check_estimator
    from bilevelrl.verification.checks.results import worst

    found = check_estimator(SampleFormula(response=0.0), scenarios(tags="textbook"), claim=Claim.MEASURED)
    assert "bias" not in worst(found)
