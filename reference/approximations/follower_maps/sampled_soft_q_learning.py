"""The exact law of soft Q-learning from samples, and the exact derivative of the leader's mean return against it.

Each sample draws a pair out of S·A uniformly and a successor, or the end, which is worth nothing:

    Q(s,a) ← (1 - α) Q(s,a) + α (r_F(s,a) + γ_F V(s')).                                                          (1)

After n samples there are finitely many tables, one for each sequence of pairs and successors. With p their
probabilities, `∇ E J = Σ p (∇J(θ, π_i(θ)) + J_i ∇log p_i)`: the sequences' own law moves with P.                (2)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.approximations.follower_maps.follower_map import cotangent_of_logits, soft_tables
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import Horizon, Share, Steps, checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.leader import evaluate_leader, visited_next
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.transitions import SparseTransition

__all__ = ["LearntLaw", "sampled_soft_q_learning"]

MOST_SEQUENCES = 50_000

_ENDS = 1e-12  # rows that miss one by less are laws


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntLaw:
    """What a follower has learnt from n samples: a law over sequences.

    Attributes
    ----------
    probability : (K,)
        Of each sequence.
    table, policy : (K, S, A)
        Q_n and softmax(Q_n/β) after it.
    objective : float
        E J(θ, π_n).
    hypergradient : (N,)
        Its exact derivative, (2).
    """

    probability: FloatArray
    table: FloatArray
    policy: FloatArray
    objective: float
    hypergradient: FloatArray


@checked
def sampled_soft_q_learning(
    problem: ConfigurableMDP,
    theta: object,
    *,
    samples: Steps,
    step_size: Share = 0.1,
    horizon: Horizon = None,
    discounted: bool = True,
) -> LearntLaw:
    """Return the exact law of a follower that learns from n samples, from a table of zeros.

    Parameters
    ----------
    problem, theta
        A small problem, without masks, and the leader's parameter.
    samples, step_size
        n and α.
    horizon, discounted
        Which objective: see `leader_objective`.

    Raises
    ------
    InvalidInputError
        If there are more than 50,000 sequences.
    UnsupportedError
        If the kernel is sparse or some action cannot be taken.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = random_mdp(states=2, actions=2, parameters=3, seed=0)
    >>> law = sampled_soft_q_learning(problem, np.zeros(3), samples=3)
    >>> law.table.shape, round(float(law.probability.sum()), 12)
    ((512, 2, 2), 1.0)
    """
    at = problem.at(theta)
    tables, kernel = at.tables, at.tables.transition
    if isinstance(kernel, SparseTransition) or not (tables.action_mask is None or np.all(tables.action_mask)):
        raise UnsupportedError(f"{problem.name}: expected a dense kernel and no action_mask; draw samples instead")
    moves = _Moves.of(np.asarray(kernel))
    if len(moves.chance) ** samples > MOST_SEQUENCES:
        wanted = f"at most {MOST_SEQUENCES} sequences, of {len(moves.chance)} outcomes per sample"
        raise InvalidInputError(refusal("samples", samples, wanted, "draw samples instead"))
    beta, discount, objective = problem.temperature, problem.discount_follower, Objective(horizon, discounted)
    reward, shape = np.asarray(tables.reward_follower), (tables.states, tables.actions)
    probability, levels = np.ones(1), [np.zeros((1, *shape))]
    for _ in range(samples):
        value, _ = soft_tables(levels[-1], beta)
        target = reward[moves.state, moves.action] + discount * np.pad(value, ((0, 0), (0, 1)))[:, moves.after]
        children = np.repeat(levels[-1][:, None], len(moves.chance), axis=1)
        changed = children[:, moves.each, moves.state, moves.action]
        children[:, moves.each, moves.state, moves.action] = (1.0 - step_size) * changed + step_size * target  # (1)
        levels.append(children.reshape(-1, *shape))
        probability = np.outer(probability, moves.chance).ravel()
    _, policies = soft_tables(levels[-1], beta)
    _ = at.pullback  # first: its trace tells what varies
    cotangents = {
        "initial": np.zeros(tables.states),
        "reward_leader": np.zeros(shape),
        "transition": np.zeros(kernel.shape),
        "reward_follower": np.zeros(shape),
    }
    likelihood, on_table = np.zeros(len(probability)), np.zeros(levels[-1].shape)
    for i, (p, policy) in enumerate(zip(probability, policies, strict=True)):
        found = evaluate_leader(tables, policy, problem.discount_leader, objective=objective, centre=0.0)
        likelihood[i] = p * found.objective
        on_table[i] = p / beta * cotangent_of_logits(found.benefit_weight, policy)
        cotangents["initial"] += p * found.value
        cotangents["reward_leader"] += p * found.occupancy[:, None] * policy
        cotangents["transition"] += p * visited_next(tables, found.state_factor, policy, found.value_factor)
    mean = float(likelihood.sum())
    for parents in reversed(levels[:-1]):
        of_children = likelihood.reshape(-1, len(moves.chance))
        moves.add_scores(of_children.sum(axis=0), cotangents["transition"])
        likelihood = of_children.sum(axis=1)
        _, policy = soft_tables(parents, beta)
        on_children = on_table.reshape(len(parents), -1, *shape)
        changed = step_size * on_children[:, moves.each, moves.state, moves.action]
        np.add.at(cotangents["reward_follower"], (moves.state, moves.action), changed.sum(axis=0))
        on_children[:, moves.each, moves.state, moves.action] *= 1.0 - step_size
        on_value = discount * changed @ np.eye(tables.states + 1)[moves.after, :-1]
        on_table = on_children.sum(axis=1) + on_value[:, :, None] * policy
    return LearntLaw(
        probability=probability,
        table=levels[-1],
        policy=policies,
        objective=mean,
        hypergradient=at.pullback({**cotangents, "regulariser": np.ones(())}),
    )  # (2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moves:
    """Outcomes of one sample: their chances, pairs, and states after them, S for the end."""

    chance: FloatArray
    state: IntArray
    action: IntArray
    after: IntArray
    kernel: FloatArray

    @classmethod
    def of(cls, kernel: FloatArray) -> _Moves:
        over = np.clip(1.0 - kernel.sum(axis=2), 0.0, 1.0)
        whole = np.concatenate([kernel, np.where(over > _ENDS, over, 0.0)[:, :, None]], axis=2)
        state, action, after = np.nonzero(whole)
        pairs = kernel.shape[0] * kernel.shape[1]
        return cls(chance=whole[state, action, after] / pairs, state=state, action=action, after=after, kernel=kernel)

    @property
    def each(self) -> IntArray:
        """Numbers of the outcomes."""
        return np.arange(len(self.chance))

    def add_scores(self, weight: FloatArray, on_kernel: FloatArray) -> None:
        """Add Σ weight ∇log of each outcome's probability to a kernel's cotangent."""
        pairs = self.kernel.shape[0] * self.kernel.shape[1]
        for w, s, a, t in zip(weight / (self.chance * pairs), self.state, self.action, self.after, strict=True):
            if t < len(self.kernel):
                on_kernel[s, a, t] += w
            else:
                on_kernel[s, a] -= w
