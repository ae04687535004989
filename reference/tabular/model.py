"""Configurable MDPs: tabular problems whose tables depend on the leader's parameter θ.

The follower maximises `E Σ_t γ_F^t (r_F + β H(π(.|s_t)))`, the leader `ρ(θ) + E Σ_t γ_L^t r_L` under the follower's
best response π* (paper, Section 3.1). θ may enter every table; whatever is written with `autograd.numpy` is
differentiated automatically, and a problem may bring closed forms. Either is held against differences of the tables
before it is used first (`bilevelrl.reference.derivatives.entries`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property

import autograd.numpy as anp  # noqa: F401  (for the doctest)
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced, check_shape, check_thetas, is_frozen
from bilevelrl.reference.derivatives.array_values import called
from bilevelrl.reference.derivatives.cache import Cache
from bilevelrl.reference.derivatives.differentiated import Differentiated, hold_row
from bilevelrl.reference.derivatives.entries import Derivatives
from bilevelrl.reference.derivatives.numerical import linearised
from bilevelrl.reference.derivatives.probes import STEPS, check_directions
from bilevelrl.reference.doors import Discount, Temperature, checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.problem import At, Term, TransitionBatch
from bilevelrl.reference.tabular.fixed_point import reward_centre
from bilevelrl.reference.tabular.linear_systems.krylov import Pattern
from bilevelrl.reference.tabular.pullback import tabular_pullback
from bilevelrl.reference.tabular.tables import TABLE_NAMES, UNPLAYABLE, Tables, check_values, hold_rewards
from bilevelrl.reference.tabular.transitions import SparseTransition, to_dense

__all__ = ["ConfigurableMDP", "TabularAt", "check_derivatives"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurableMDP(Differentiated):
    """A tabular bi-level problem: θ configures an MDP, a follower solves it softly, the leader is paid.

    Parameters
    ----------
    tables
        θ → `Tables`, written with `autograd.numpy` so that it can be differentiated (and evaluated at complex θ).
    discount_leader, discount_follower
        γ_L and γ_F, each in [0, 1).
    temperature
        β > 0, the follower's entropy weight, in units of the follower's reward.
    theta_shape
        Shape of θ; None accepts any one-dimensional θ. Gradients are flat, (N,), in C order.
    tables_jacobian
        Optional closed form: θ → {table name: (*table shape, N)}; tables left out do not depend on θ.
    tables_pullback
        Optional closed form: (θ, {table name: cotangent of the table's shape}) → (N,), the vector-Jacobian product.
    stacked_rewards, stacked_pullback
        Optional forms for many θ at once, (R, *theta_shape): rewards of follower and leader, (R, S, A) each, traceable
        as `tables`, and the vector-Jacobian products (R, N) of cotangents with R in front. Rows must not mix.
    verify_derivatives
        Whether traced and closed-form derivatives are held against differences of the tables, once and again where a
        table begins to depend on θ. What does not agree is a `DerivativeError`.
    name
        Used in messages and tables.

    Raises
    ------
    InvalidInputError
        If a discount or the temperature is out of range.

    Examples
    --------
    >>> from bilevelrl.reference import ConfigurableMDP, Tables, leader_objective
    >>> def tables(theta):
    ...     return Tables(
    ...         transition=np.ones((1, 2, 1)), reward_follower=anp.reshape(theta, (1, 2)),
    ...         reward_leader=np.array([[0.0, 1.0]]), initial=np.ones(1))
    >>> problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.9, temperature=1.0)
    >>> round(leader_objective(problem, np.zeros(2)), 12)
    1.0
    """

    tables: Callable[[Traced], Tables]
    discount_leader: Discount
    discount_follower: Discount
    temperature: Temperature
    theta_shape: tuple[int, ...] | None = None
    tables_jacobian: Callable[[FloatArray], Mapping[str, FloatArray]] | None = None
    tables_pullback: Callable[[FloatArray, Mapping[str, FloatArray]], FloatArray] | None = None
    stacked_rewards: Callable[[Traced], tuple[Traced, Traced]] | None = None
    stacked_pullback: Callable[[FloatArray, Mapping[str, FloatArray]], FloatArray] | None = None
    verify_derivatives: bool = True
    name: str = "configurable MDP"
    _cache: Cache = field(default_factory=Cache, init=False, repr=False, compare=False)

    def at(self, theta: object) -> TabularAt:
        """Evaluate the tables once at a real θ and check their values.

        Raises
        ------
        InvalidInputError
            If θ or any table is invalid, naming the entry.
        """
        theta = np.array(self.check_theta(theta))
        tables = self._cache.once("values", theta, lambda: self._checked_tables(theta))
        return TabularAt(problem=self, theta=theta, tables=tables)

    def tables_at(self, theta: object) -> Tables:
        """Return the tables at a real θ, checked; raises as `at`."""
        tables = self.at(theta).tables
        return tables if self._cache.get("kept") is None else deepcopy(tables)

    def _checked_tables(self, theta: FloatArray) -> Tables:
        tables = self.evaluate(theta)
        self.derivatives.refresh(theta, tables.differentiable())
        # Probabilities that are the same read-only array at every θ are checked once.
        known = self._cache.get("checked", {})
        laws = {"transition": tables.transition, "initial": tables.initial}
        check_values(tables, checked=[name for name, law in laws.items() if known.get(name) is law])
        self._cache["checked"] = {name: law for name, law in laws.items() if _stays(law)}
        return tables

    def states_at(self, theta: object) -> int:
        """Return the number of states S."""
        return self.tables_at(theta).states

    def evaluate(self, theta: object) -> Tables:
        """Evaluate the tables at any θ, traced and complex ones too; their values are not checked.

        Raises
        ------
        InvalidInputError
            If the function raises or returns something else; with θ.
        """
        tables = called("tables", self.tables, theta)
        if not isinstance(tables, Tables):
            raise InvalidInputError(refusal("tables(theta)", type(tables).__name__, "a Tables", "return Tables(...)"))
        return tables

    @property
    def derivatives(self) -> Derivatives:
        """The derivatives of the tables by name."""
        return Derivatives(
            entries=lambda theta: self.evaluate(theta).differentiable(),
            label="tables",
            cache=self._cache,
            jacobian_given=self.tables_jacobian,
            pullback_given=self.tables_pullback,
            verify=self.verify_derivatives,
        )

    def linearised(self, theta: FloatArray) -> ConfigurableMDP:
        """Return the problem whose tables are affine in θ and the same at this θ to first order, without a trace."""
        theta = self.check_theta(theta)
        tables, affine = self.evaluate(theta), linearised(self.derivatives.entries, theta, "tables")
        return replace(
            self, tables=lambda x: tables.replace(affine(x)), tables_jacobian=None, tables_pullback=None,
            stacked_rewards=None, stacked_pullback=None, verify_derivatives=False,
        )  # fmt: skip

    @checked
    def vector_jacobian(self, theta: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        """Return Σ_tables ⟨cotangent, ∂table/∂θ⟩, shape (N,): the closed form, or one reverse pass.

        Parameters
        ----------
        theta
            The point.
        cotangents
            {table name: array of that table's shape}; tables left out have weight zero.
        """
        theta = self.check_theta(theta)
        self._check_cotangents(theta, cotangents)
        return self.pullback_at(theta)(cotangents)

    def _check_cotangents(
        self, theta: FloatArray, cotangents: Mapping[str, FloatArray], front: tuple[int, ...] = ()
    ) -> None:
        """Refuse cotangents of no table, or of another shape than their table's with axes in front."""
        entries = self.evaluate(theta).differentiable()
        remedy = "give it its table's shape" + (", with one for each of thetas in front" if front else "")
        for name, value in cotangents.items():
            if name not in entries:
                raise UnknownNameError("cotangents", name, entries)
            check_shape(f"cotangents[{name!r}]", value, (*front, *np.shape(entries[name])), remedy)

    def rewards(self, thetas: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the rewards of follower and leader at many θ, (R, S, A) each; stacked forms are held at two of them.

        Parameters
        ----------
        thetas : (R, *theta_shape)
            The points.
        """
        thetas = check_thetas(thetas, self.theta_shape)
        if self.stacked_rewards is not None:
            follower, leader = self.stacked_rewards(thetas)
            if "mask" not in self._cache:  # no table of θ: it is the same everywhere
                self._cache["mask"] = self.evaluate(thetas[0]).action_mask
            if self._cache["mask"] is not None:
                follower = np.where(self._cache["mask"], follower, UNPLAYABLE)
            if self._is_held("stacked_rewards"):
                for row in {0, len(thetas) - 1}:
                    hold_rewards(thetas[row], follower[row], leader[row], self.evaluate(thetas[row]))
            return follower, leader
        tables = [self.evaluate(theta) for theta in thetas]
        return np.stack([each.reward_follower for each in tables]), np.stack([each.reward_leader for each in tables])

    def _is_held(self, name: str) -> bool:
        """Whether a stacked form is held against those for one θ now: at its first, second, fourth ... call."""
        calls = self._cache[name] = self._cache.get(name, 0) + 1
        return self.verify_derivatives and not calls & (calls - 1)

    def _varying_anywhere(self, thetas: FloatArray, rewards: tuple[FloatArray, FloatArray]) -> frozenset[str]:
        """The tables that depend on θ at one of many θ: rewards by differences of all, the others at the first."""
        names = set(self.varying(thetas[0]))
        moved = zip(
            ("reward_follower", "reward_leader"),
            self.rewards(thetas + STEPS[0] * check_directions(thetas)),
            rewards,
            strict=True,
        )
        return frozenset(names | {name for name, ahead, base in moved if not np.array_equal(ahead, base)})

    @checked
    def vector_jacobians(self, thetas: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        """Return `vector_jacobian` at many θ, (R, N).

        Parameters
        ----------
        thetas : (R, *theta_shape)
            The points.
        cotangents
            {table name: (R, *table shape)}.
        """
        thetas = check_thetas(thetas, self.theta_shape)
        self._check_cotangents(thetas[0], cotangents, front=(len(thetas),))
        return self.pulled_rows(thetas, cotangents)

    def pulled_rows(self, thetas: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        """Return `vector_jacobians` of θ and cotangents that are known to fit."""
        if self.stacked_pullback is not None:
            return self.stacked_pullback_at(thetas, self.rewards(thetas))(cotangents)
        rows = np.zeros((len(thetas), thetas[0].size))
        for row, theta in enumerate(thetas):
            own = {name: value[row] for name, value in cotangents.items() if np.any(value[row])}
            rows[row] = self.pullback_at(theta)(own)
        return rows

    def stacked_pullback_at(
        self, thetas: FloatArray, rewards: tuple[FloatArray, FloatArray]
    ) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
        """Return `vector_jacobians` as a function of the cotangents, given `rewards(thetas)`; by the stacked form."""
        stacked = self.stacked_pullback
        assert stacked is not None
        names = self._varying_anywhere(thetas, rewards)

        def pulled(cotangents: Mapping[str, FloatArray]) -> FloatArray:
            relevant = {name: value for name, value in cotangents.items() if name in names}
            if not relevant:
                return np.zeros((len(thetas), thetas[0].size))
            found = np.array(stacked(thetas, relevant))  # a copy, as of pullbacks
            if self._is_held("stacked_pullback"):
                for row in {0, len(thetas) - 1}:
                    own = {name: value[row] for name, value in relevant.items()}
                    hold_row("stacked_pullback", thetas[row], found[row], self.pullback_at(thetas[row])(own))
            return found

        return pulled

    def conserves_mass(self, theta: FloatArray) -> bool:
        """Whether the rows' sums stand still around θ, by differences of the tables."""
        theta = self.check_theta(theta)
        if self.derivatives.stands_still(theta, "transition"):
            return True
        probe = self.derivatives.probe(theta)
        sums = [np.asarray(side["transition"]).sum(axis=-1) for side in probe.sides if side is not None]
        base = np.asarray(probe.base["transition"])
        rounding = 4.0 * float(np.finfo(np.float64).eps) * base.shape[-1] ** 0.5
        return all(np.abs(moved - base.sum(axis=-1)).max(initial=0.0) <= rounding for moved in sums)

    @checked
    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Return Σ w ∇term over the batch: (N,), or (streams, N) when `per_stream`.

        Raises
        ------
        SupportError
            If a score is weighted where a probability is zero but its derivative is not.
        """
        return tabular_pullback(self, self.check_theta(theta), batch, weights, per_stream=per_stream)


def _stays(law: Traced) -> bool:
    """Whether probabilities can no longer be written to."""
    if isinstance(law, SparseTransition):
        return is_frozen(law.successor) and is_frozen(law.probability)
    return is_frozen(law)


@dataclass(frozen=True, eq=False, kw_only=True)
class TabularAt(At[ConfigurableMDP]):
    """A configurable MDP evaluated at one θ.

    Attributes
    ----------
    tables
        Its tables, checked.
    """

    tables: Tables

    @property
    def values(self) -> Tables:
        """The tables."""
        return self.tables

    @cached_property
    def varying(self) -> frozenset[str]:
        """The tables that depend on θ."""
        return self.problem.derivatives.varying(self.theta)

    @cached_property
    def kernel(self) -> FloatArray:
        """P (S, A, S), dense."""
        return to_dense(self.tables.transition)

    @cached_property
    def pattern(self) -> Pattern | None:
        """What its kernel's systems are iterated on with; None where they are factorised."""
        return Pattern.of(self.tables.transition, self.problem._cache)

    @cached_property
    def centres(self) -> tuple[float, float]:
        """The constants (follower's, leader's) that may be subtracted from the rewards without moving a derivative.

        Where every row sums to one at θ but not around it, a constant reward does move it, and both are zero.
        """
        tables = self.tables
        centres = reward_centre(tables, tables.reward_follower), reward_centre(tables, tables.reward_leader)
        return centres if centres == (0.0, 0.0) or self.problem.conserves_mass(self.theta) else (0.0, 0.0)

    @property
    def constant(self) -> float:
        """What the follower's centre adds to each of its values."""
        return self.centres[0] / (1.0 - self.problem.discount_follower)


@checked
def check_derivatives(problem: ConfigurableMDP, theta: object) -> dict[str, float]:
    """Hold a problem's closed-form derivatives against autograd; return the largest relative error of each.

    Parameters
    ----------
    problem
        Any configurable MDP; without closed forms the answer is empty. Where its tables cannot be traced, derivatives
        by the complex step or by differences take autograd's place.
    theta
        Where to compare.

    Returns
    -------
    dict
        {"jacobian of <table>" or "pullback of <table>": max |difference| / max |either|}.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> max(check_derivatives(four_rooms(), np.zeros(105)).values()) < 1e-14
    True
    """
    theta = problem.check_theta(theta)
    if problem.tables_jacobian is None and problem.tables_pullback is None:
        return {}
    automatic = problem.derivatives.automatic_jacobian(theta)
    errors: dict[str, float] = {}

    def record(name: str, ours: FloatArray, truth: FloatArray) -> None:
        size = max(float(np.abs(ours).max(initial=0.0)), float(np.abs(truth).max(initial=0.0)))
        errors[name] = float(np.abs(ours - truth).max(initial=0.0)) / size if size > 0.0 else 0.0

    if problem.tables_jacobian is not None:
        closed = problem.tables_jacobian(theta)
        for table in (name for name in TABLE_NAMES if name in closed or name in automatic):
            shape = automatic[table].shape if table in automatic else closed[table].shape
            record(f"jacobian of {table}", closed.get(table, np.zeros(shape)), automatic.get(table, np.zeros(shape)))
    if problem.tables_pullback is not None:
        rng = np.random.default_rng(0)
        for name, slopes in automatic.items():
            cotangent = rng.standard_normal(slopes.shape[:-1])
            truth = np.tensordot(cotangent, slopes, axes=cotangent.ndim)
            record(f"pullback of {name}", problem.tables_pullback(theta, {name: cotangent}), truth)
    return errors
