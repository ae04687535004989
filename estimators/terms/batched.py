"""One outer iteration for many seeds at once: every seed has its own θ, follower, critic and trajectories.

Training is run over many seeds, and on small problems a step of one seed is mostly overhead. Here the followers are
solved as stacked linear systems, all streams of all seeds walk together, and the estimator computes its weights once:
the seeds are read as one problem whose states are the pairs (seed, state), in which nothing leads from one seed to
another. What is left per seed is one vector-Jacobian product per part. The numbers are those of seed after seed.

The transition kernel and the initial law must not depend on θ, so that one sampler serves all seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.tables import ExactCritic, TableCritic
from bilevelrl.estimators.estimator import Context, Draw, Estimator, LeaderCritic
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.union import Union, UnionFollower
from bilevelrl.reference import ConfigurableMDP, Problem, SparseTransition, Tables
from bilevelrl.reference.arrays import FloatArray, IntArray, check_indices, check_rows_chosen, check_shape, check_thetas
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import EstimatorError, ShapeError, UnsupportedError, refusal
from bilevelrl.reference.problem import Part, Term
from bilevelrl.reference.tabular import newton_batch

__all__ = ["SeedBatch", "SeedEstimates"]

_TABLES: Mapping[Term, str] = {"reward_leader": "reward_leader", "reward_follower": "reward_follower"}


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class SeedEstimates:
    """One estimate per seed.

    Attributes
    ----------
    mean : (seeds, N)
        The estimates.
    parts : {name: (seeds, N)}
        Their parts; they sum to the mean.
    """

    mean: FloatArray
    parts: Mapping[Part, FloatArray]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SeedBatch:
    """The solved followers of several seeds, from which trajectories, critics and estimates are made together.

    Attributes
    ----------
    problem
        One problem for all seeds.
    thetas : (seeds, *theta_shape)
        One parameter per seed.
    value, action_value, policy : (seeds, S), (seeds, S, A), (seeds, S, A)
        V_F, Q_F and π of every seed.
    rewards_leader : (seeds, S, A)
        r_L of every seed.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG
    >>> from bilevelrl.estimators.terms.batched import SeedBatch
    >>> from bilevelrl.tasks import four_rooms
    >>> problem, rng = four_rooms(), np.random.default_rng(0)
    >>> seeds = SeedBatch.solve(problem, 0.01 * rng.standard_normal((5, 105)))
    >>> batch = seeds.sample(streams=2, steps=50, rng=rng)
    >>> seeds.estimate(BCHG(critic="context"), batch, seeds.exact_critic()).mean.shape
    (5, 105)
    """

    problem: ConfigurableMDP
    thetas: FloatArray
    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    rewards_leader: FloatArray

    @classmethod
    @checked
    def solve(
        cls,
        problem: ConfigurableMDP,
        thetas: Any,
        *,
        tolerance: float = 1e-10,
        warm_start: SeedBatch | None = None,
    ) -> SeedBatch:
        """Solve the follower of every seed by Newton's method on stacked systems.

        Parameters
        ----------
        problem
            With a dense kernel and an initial law that do not depend on θ.
        thetas
            (seeds, *theta_shape).
        tolerance
            As in `solve_follower`.
        warm_start
            The seeds one outer iteration earlier.

        Raises
        ------
        ShapeError
            If `thetas` is empty.
        UnsupportedError
            If the kernel is sparse, or θ enters it or the initial law.
        NotConvergedError
            If a seed's follower does not converge.
        """
        members = list(check_thetas(thetas, problem.theta_shape))
        moved = problem.varying(members[0]) & {"transition", "initial"}
        if moved:
            raise UnsupportedError(
                f"{problem.name}: θ enters {sorted(moved)}: expected dynamics shared by all seeds; "
                "solve and sample seed after seed"
            )
        tables = [problem.tables_at(theta) for theta in members]
        kernel = tables[0].transition
        if isinstance(kernel, SparseTransition):
            raise UnsupportedError(f"{problem.name}: expected a dense kernel; call solve_follower for each seed")
        value, action_value, policy = newton_batch(
            kernel[None],
            np.stack([entry.reward_follower for entry in tables]),
            discount=problem.discount_follower,
            temperature=problem.temperature,
            tolerance=tolerance,
            warm_start=None if warm_start is None else warm_start.value,
        )
        return cls(
            problem=problem,
            thetas=np.stack(members),
            value=value,
            action_value=action_value,
            policy=policy,
            rewards_leader=np.stack([entry.reward_leader for entry in tables]),
        )

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return int(self.value.shape[0])

    @property
    def states(self) -> int:
        """Number of states S of the problem."""
        return int(self.value.shape[1])

    def _tables(self) -> Tables:
        return self.problem.tables(self.thetas[0])

    @checked
    def sample(
        self,
        *,
        streams: int,
        steps: int,
        rng: Generator | Sequence[Generator],
        simulator: TabularSimulator | None = None,
    ) -> Trajectories:
        """Draw `streams` streams per seed; rows `streams * seed` and following belong to a seed.

        Parameters
        ----------
        streams, steps, simulator
            As in `sample_trajectories`.
        rng
            One generator for all seeds, or one for each: what a seed gets then does not depend on the others.
        """
        chosen = TabularSimulator() if simulator is None else simulator
        batch = chosen.sample(
            self.problem,
            self.thetas[0],
            self.policy,
            streams=self.seeds * streams,
            steps=steps,
            rng=rng,
        )
        # The sampler paid the first seed's rewards.
        seed = self._seed_of(batch)
        reward = self.rewards_leader[seed[:, None], batch.state_t, batch.action_t]
        return batch.changed(reward_leader_t=np.where(batch.valid, reward, 0.0), batch_index=seed)

    @checked
    def select(self, seeds: Any) -> SeedBatch:
        """Return some of the seeds (an index array or slice)."""
        seeds = check_rows_chosen("seeds", seeds, self.seeds)
        if np.array_equal(seeds, np.arange(self.seeds)):  # all of them
            return self
        return replace(
            self,
            thetas=self.thetas[seeds],
            value=self.value[seeds],
            action_value=self.action_value[seeds],
            policy=self.policy[seeds],
            rewards_leader=self.rewards_leader[seeds],
        )

    def _seed_of(self, trajectories: Trajectories) -> IntArray:
        per_seed, rest = divmod(trajectories.streams, self.seeds)
        if rest:
            raise ShapeError(
                refusal("streams", trajectories.streams, f"a multiple of {self.seeds} seeds", "sample with this batch")
            )
        seed: IntArray = np.repeat(np.arange(self.seeds), per_seed)
        return seed

    def exact_critic(self) -> ExactCritic:
        """Return the leader's exact values of every seed, over an infinite horizon, on the states (seed, state)."""
        kernel, discount = self._tables().transition, self.problem.discount_leader
        system = np.matmul(self.policy[:, :, None, :], kernel)[:, :, 0, :]
        system *= -discount
        system.reshape(self.seeds, -1)[:, :: self.states + 1] += 1.0
        earned = np.vecdot(self.policy, self.rewards_leader)
        value = np.linalg.solve(system, earned[:, :, None])[:, :, 0]
        # One product per seed: its rounding must not depend on the other seeds.
        ahead = np.matmul(kernel.reshape(-1, self.states), value[:, :, None]).reshape(self.policy.shape)
        action_value = self.rewards_leader + discount * ahead
        return ExactCritic(
            action_values=action_value.reshape(1, -1, action_value.shape[2]), values=np.append(value.ravel(), 0.0)[None]
        )

    @checked
    def table_critic(self, action_values: FloatArray) -> TableCritic:
        """Return given tables Q̂_L (seeds, S, A) as one critic on the states (seed, state)."""
        check_shape("action_values", action_values, self.policy.shape, "one table per seed")
        actions = self.policy.shape[2]
        return TableCritic(
            action_values=np.reshape(action_values, (-1, actions)), policy=self.policy.reshape(-1, actions)
        )

    @checked
    def estimate(
        self,
        estimator: Estimator,
        trajectories: Trajectories,
        critic: LeaderCritic,
        *,
        parts: bool = True,
        simulator: TabularSimulator | None = None,
        rng: Sequence[Generator] = (),
    ) -> SeedEstimates:
        """Return the estimate of every seed from its own streams.

        Parameters
        ----------
        estimator
            One that reads its critic from the context, or brings it from the batch. Averages inside a batch are of a
            seed's own streams.
        trajectories
            As `sample` gives them.
        critic
            As `exact_critic` or `table_critic` give it.
        parts
            False: the mean alone, by one vector-Jacobian product per seed; `parts` of the result is empty.
        simulator, rng
            Where estimators that draw an extra batch get it from: how samples are made, and one generator per seed.

        Raises
        ------
        UnsupportedError
            If the estimator needs more of the problem than its discounts, its temperature and the follower's rewards.
        EstimatorError
            If an estimate is not finite.
        """
        seed = self._seed_of(trajectories)
        if trajectories.batch_index is None or not np.array_equal(trajectories.batch_index, seed):
            trajectories = trajectories.changed(batch_index=seed)
        actions = self.policy.shape[2]
        context = Context(
            problem=Union(self.problem),
            theta=self.thetas,
            follower=UnionFollower(
                value=self.value.ravel(),
                action_value=self.action_value.reshape(-1, actions),
                policy=self.policy.reshape(-1, actions),
            ),
            critic=critic,
            simulator=_UnionSimulator.of(self, simulator, rng),
            rng=next(iter(rng), None),
        )
        varying = self.problem.varying(self.thetas[0])
        by_part: dict[Part, dict[str, FloatArray]] = {}
        for item in estimator.contributions(self.numbered(trajectories, seed), context):
            if item.rows is not None:
                raise EstimatorError(f"{estimator.name}: expected weights alone; tables of many seeds take no rows")
            gathered = by_part.setdefault(item.part, {})
            for term, weight in item.weights.items():
                name = _TABLES.get(term)
                if name in varying:
                    gathered[name] = gathered.get(name, 0.0) + self._gather(item.batch, weight)
        draws = trajectories.streams_per_batch if estimator.draw is Draw.TRAJECTORY else 1
        regulariser = self._pull({"regulariser": np.ones(self.seeds)} if "regulariser" in varying else {})
        found: dict[Part, FloatArray] = {}
        if parts:
            found = {part: self._pull(cotangents) / draws for part, cotangents in by_part.items()}
            found["regulariser"] = regulariser
            mean = sum(found.values(), np.zeros_like(regulariser))
        else:
            together: dict[str, FloatArray] = {}
            for cotangents in by_part.values():
                for name, cotangent in cotangents.items():
                    together[name] = together.get(name, 0.0) + cotangent
            mean = self._pull(together) / draws + regulariser
        if not np.isfinite(mean).all():
            worst = int(np.argmin(np.isfinite(mean).all(axis=1)))
            raise EstimatorError(f"{estimator.name}: the estimate of seed {worst} is not finite; check its critic")
        return SeedEstimates(mean=mean, parts=found)

    def _pull(self, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        """Return one vector-Jacobian product per seed, (seeds, N); NaN for seeds whose weights are not finite."""
        if not cotangents:
            return np.zeros((self.seeds, self.thetas[0].size))
        entries = cotangents.values()
        finite = np.array([all(np.isfinite(each[seed]).all() for each in entries) for seed in range(self.seeds)])
        kept = {
            name: np.where(finite.reshape(-1, *(1,) * (each.ndim - 1)), each, 0.0) for name, each in cotangents.items()
        }
        return np.where(finite[:, None], self.problem.pulled_rows(self.thetas, kept), np.nan)

    @checked
    def numbered(self, trajectories: Trajectories, seed: IntArray) -> Trajectories:
        """Number the states (seed, state) through; the end is the same for all."""
        check_shape("seed", seed, (trajectories.streams,), "one per stream")
        first = self.states * check_indices("seed", seed, self.seeds)[:, None]
        ended = trajectories.state_tp1 == self.states
        return trajectories.changed(
            state_t=trajectories.state_t + first,
            state_tp1=np.where(ended, self.states * self.seeds, trajectories.state_tp1 + first),
        )

    def _gather(self, batch: Any, weight: FloatArray) -> FloatArray:
        """Sum weights over the visits of each (seed, state, action)."""
        shape = self.policy.shape
        entry = batch.state_t * shape[2] + batch.action_t
        gathered: Any = np.bincount(entry.ravel(), weights=weight.ravel(), minlength=int(np.prod(shape)))
        result: FloatArray = gathered.reshape(shape)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnionSimulator(TabularSimulator):
    """Draws for every seed by its own generator, on the states (seed, state); follower and θ are the seeds' own."""

    union: SeedBatch
    generators: tuple[Generator, ...]

    @classmethod
    def of(
        cls, union: SeedBatch, simulator: TabularSimulator | None, generators: Sequence[Generator]
    ) -> _UnionSimulator:
        given = TabularSimulator() if simulator is None else simulator
        own = {each.name: getattr(given, each.name) for each in fields(TabularSimulator) if each.init}
        return cls(union=union, generators=tuple(generators), **own)

    def sample(
        self, problem: Problem, theta: Any, follower: Any, *, streams: int, steps: int, **_: Any
    ) -> Trajectories:
        own = {each.name: getattr(self, each.name) for each in fields(TabularSimulator) if each.init}
        policy = np.reshape(getattr(follower, "policy", follower), self.union.policy.shape)
        union = replace(self.union, policy=policy)
        batch = union.sample(streams=streams, steps=steps, rng=self.generators, simulator=TabularSimulator(**own))
        assert batch.batch_index is not None  # `sample` sets it
        return self.union.numbered(batch, batch.batch_index)
