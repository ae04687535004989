"""BC-HG written as plain loops, and the same with mistakes that published code has made."""

import numpy as np

MISTAKES = (
    "no leader discount",
    "same suffix twice",
    "no response",
    "terminal state is -1",
    "no temperature",
    "padding is counted",
)


def plain_bc_hg(mistake=None):
    """Return a function (trajectories, context) → rows: the double sum over times, one trajectory after the other."""

    def estimator(trajectories, context):
        problem, theta = context.problem, context.theta
        tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)
        states = tables.states
        discount_leader, discount_follower = problem.discount_leader, problem.discount_follower
        value_follower = np.append(context.follower.value, 0.0)

        def of(name, *index):
            return jacobian[name][index] if name in jacobian else np.zeros(theta.size)

        def score(s, a, sn):
            if sn == states:
                missing = 1.0 - tables.transition[s, a].sum()
                return (
                    -of("transition", s, a).sum(axis=0) / missing if "transition" in jacobian else np.zeros(theta.size)
                )
            return of("transition", s, a, sn) / tables.transition[s, a, sn]

        rows = np.zeros((trajectories.streams, theta.size))
        for m in range(trajectories.streams):
            length = int(trajectories.valid[m].sum()) if mistake != "padding is counted" else trajectories.steps
            s, a, sn = (getattr(trajectories, name)[m] for name in ("state_t", "action_t", "state_tp1"))
            rows[m] += of("regulariser")
            rows[m] += of("initial", s[0]) / tables.initial[s[0]] * context.critic.value(s[0])
            for t in range(length):
                weight = 1.0 if mistake == "no leader discount" else discount_leader**t
                ahead = context.critic.value(-2 if mistake == "terminal state is -1" and sn[t] == states else sn[t])
                rows[m] += weight * of("reward_leader", s[t], a[t])
                rows[m] += weight * discount_leader * ahead * score(s[t], a[t], sn[t])
                if mistake == "no response":
                    continue
                action_value = context.critic.action_value(s[t], a[t])
                if mistake == "same suffix twice":
                    later = trajectories.reward_leader_t[m, t:length]
                    action_value = (discount_leader ** np.arange(later.size) * later).sum()
                benefit = action_value - context.critic.value(s[t])
                gradient = sum(
                    discount_follower ** (k - t)
                    * (
                        of("reward_follower", s[k], a[k])
                        + discount_follower * value_follower[sn[k]] * score(s[k], a[k], sn[k])
                    )
                    for k in range(t, length)
                )
                scale = 1.0 if mistake == "no temperature" else problem.temperature
                rows[m] += weight * benefit * gradient / scale
        return rows

    estimator.__name__ = f"plain_bc_hg({mistake})"
    return estimator
