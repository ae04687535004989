"""A stranger's Markov game and PyTorch estimator, single precision by default, with one thing left out: the baseline.

Needs PyTorch: `pip install torch`. The five lines that ask for the verdict are `main`.
"""

import numpy as np
import torch

from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy
from bilevelrl.verification import verify

rng = np.random.default_rng(4)
game = MarkovGame(
    transition=0.5 * rng.dirichlet(np.ones(2), (2, 2, 2)),  # half of all steps are the last
    reward_follower=rng.normal(size=(2, 2, 2)),
    reward_leader=rng.normal(size=(2, 2, 2)),
    initial=np.array([0.6, 0.4]),
    discount_leader=0.95,
    discount_follower=0.7,
    temperature=0.4,
    policy=TabularSoftmaxPolicy(states=2, leader_actions=2),
    follower_sees_leader_action=True,
)


def surrogate(theta, state, action, weights):
    """Σ weights log f of one stream; a logit in each state for action 1, and 0 for action 0."""
    logits = torch.stack([torch.zeros_like(theta), theta], dim=1)
    return (weights * torch.log_softmax(logits, dim=1)[state, action]).sum()


def estimator(batch, context, baseline=False):
    """One gradient per stream: the leader's own scores, and the response by the scores of later actions."""
    critic, follower = context.critic, context.follower
    state, action = torch.tensor(batch.state_t), torch.tensor(batch.leader_action_t)
    now = torch.tensor(0.95**batch.time_in_episode * batch.valid)
    q = torch.tensor(critic.action_value(batch.state_t, batch.action_t, leader_action=batch.leader_action_t))
    advantage = torch.tensor(critic.benefit_t(batch)) if baseline else q  # "a baseline only lowers the variance"
    apart = torch.arange(batch.steps)[None, :] - torch.arange(batch.steps)[:, None]
    suffix = torch.where(apart > 0, 0.7 ** apart.clamp(min=0), 0.0).double()
    worth = torch.tensor(follower.value[batch.state_t, batch.leader_action_t] * batch.valid)
    weights = (now * q + (now * advantage / 0.4) @ suffix * worth).float()
    rows = torch.func.vmap(torch.func.grad(surrogate), in_dims=(None, 0, 0, 0))
    return rows(torch.tensor(context.theta, dtype=torch.float32), state, action, weights)


def right(batch, context):
    """The same with the baseline, which the response needs."""
    return estimator(batch, context, baseline=True)


def main():
    """Print what is said of both."""
    for mine in (right, estimator):
        report = verify(mine, problem=game, theta=np.array([0.3, -0.2]), horizon=4)
        print(report.headline)
        print(report.explanation)


if __name__ == "__main__":
    main()
