"""Hard problems whose rows are as rounding left them, and runs that hold every route's bound against 60 digits.

`python tests/helpers/number_runs.py 3000 --seed 1` from the repository's root makes that many:
one route on one problem each.
"""

import argparse
import dataclasses

import autograd.numpy as anp
import numpy as np
from high_precision import HighPrecision, HighPrecisionGame

from bilevelrl.reference import ConfigurableMDP, MarkovGame, Tables, hypergradient
from bilevelrl.reference.errors import TooLargeError

DISCOUNTS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
QUICK = {
    ConfigurableMDP: (
        "implicit",
        "theorem1",
        "hpgd_form",
        "m_sobirl",
        "mixed_derivative",
        "finite_difference",
        "certified",
    ),
    MarkovGame: (
        "implicit",
        "theorem2",
        "reduction",
        "total_derivative",
        "mixed_derivative",
        "finite_difference",
        "certified",
    ),
}
SWEEPING = ("forward", "unrolled", "complex_step")


def rounded_rows(rng, shape, *, ending):
    """Rows of floats as people write them: divided by their sums, in decimals, or off one by up to 5e-13."""
    rows = rng.random(shape) ** 3 * (rng.random(shape) < 0.8)
    rows[..., rng.integers(shape[-1])] += 0.05
    rows = rows / rows.sum(axis=-1, keepdims=True)
    kind = rng.integers(3)
    if kind == 1:
        rows = np.round(rows, 3)
        rows[..., -1] = 0.0
        rows[..., -1] = np.maximum(1.0 - rows.sum(axis=-1), 0.0)  # 1 - .1 - .2 is not the double .7
        rows = rows / np.maximum(rows.sum(axis=-1, keepdims=True), 1.0)
    if kind == 2:
        rows = rows * (1.0 + rng.uniform(-5e-13, 5e-13, rows.shape[:-1])[..., None])
    if ending:
        ends = rng.random(rows.shape[:-1]) < 0.3
        rows = np.where(ends[..., None], rows * rng.uniform(0.5, 0.999, rows.shape[:-1])[..., None], rows)
    return rows


def slopes_of(rng, rows, parameters):
    """Slopes of rows that keep their sums and signs, as far as rounding allows."""
    raw = rng.standard_normal((*rows.shape, parameters))
    mean = (rows[..., None] * raw).sum(axis=-2, keepdims=True) / rows.sum(axis=-1)[..., None, None]
    return rows[..., None] * (raw - mean)


def constants(rng):
    leader, follower = rng.choice(DISCOUNTS, 2)
    return {
        "discount_leader": float(leader),
        "discount_follower": float(follower),
        "temperature": float(10.0 ** rng.uniform(-4, 2)),
    }


def reward(rng, shape):
    return rng.choice([1.0, 1e-3, 1e3]) * rng.standard_normal(shape) + rng.choice([0.0, 1.0, 1e6, -1e6])


def line(base, slopes):
    """A table that is `base` at θ = 0 and a straight line around it, so that nothing rounds its derivative."""
    return lambda theta: base + anp.dot(slopes, theta)


def hard_mdp(rng):
    states, actions, parameters = (int(rng.integers(1, n + 1)) for n in (4, 3, 2))
    entries = {
        "transition": rounded_rows(rng, (states, actions, states), ending=rng.random() < 0.3),
        "reward_follower": reward(rng, (states, actions)),
        "reward_leader": reward(rng, (states, actions)),
        "initial": rounded_rows(rng, (states,), ending=False),
    }
    moving = {}
    for name, table in entries.items():
        if rng.random() < 0.6:
            law = name in ("transition", "initial")
            moving[name] = slopes_of(rng, table, parameters) if law else rng.standard_normal((*table.shape, parameters))

    def tables(theta):
        return Tables(**{n: line(t, moving[n])(theta) if n in moving else t for n, t in entries.items()})

    return ConfigurableMDP(tables=tables, theta_shape=(parameters,), **constants(rng)), np.zeros(parameters)


def hard_game(rng):
    states, leads, actions, parameters = (int(rng.integers(1, n + 1)) for n in (3, 3, 3, 2))
    policy = rounded_rows(rng, (states, leads), ending=False)
    game = MarkovGame(
        transition=rounded_rows(rng, (states, leads, actions, states), ending=rng.random() < 0.3),
        reward_follower=reward(rng, (states, leads, actions)),
        reward_leader=reward(rng, (states, leads, actions)),
        initial=rounded_rows(rng, (states,), ending=False),
        policy=line(policy, slopes_of(rng, policy, parameters)),
        follower_sees_leader_action=bool(rng.random() < 0.5),
        theta_shape=(parameters,),
        **constants(rng),
    )
    return game, np.zeros(parameters)


@dataclasses.dataclass
class Outcome:
    """One route on one problem: its largest error over value and parts, and the bound that it gave."""

    route: str
    error: float
    bound: float
    size: float

    @property
    def outside(self):
        return not self.error <= self.bound


def runs(problem, theta):
    """Every route that can be asked, over an infinite or a finite horizon, against the truth."""
    game = isinstance(problem, MarkovGame)
    routes = QUICK[type(problem)]
    if max(problem.discount_leader, problem.discount_follower) <= 0.9:
        routes += tuple(r for r in SWEEPING if not (game and r == "forward"))
    for objective in ({"horizon": None}, {"horizon": 3, "discounted": False}):
        parts = (HighPrecisionGame if game else HighPrecision)(problem, theta, **objective).parts()
        total = sum(parts.values())
        size = sum(float(np.abs(part).max()) for part in parts.values())
        for route in routes:
            try:
                found = hypergradient(problem, theta, route=route, **objective)
            except TooLargeError:
                continue
            off = [np.abs(found.parts[part] - exact).max() for part, exact in parts.items()]
            # The truth itself is rounded when its parts become floats, and when they are added.
            error = max(*off, np.abs(found.value - total).max()) - 5 * 2.0**-53 * size
            yield Outcome(route, float(error), found.error_bound, size)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    done, outside, unbounded, seed = 0, 0, 0, arguments.seed
    while done < arguments.runs:
        rng = np.random.default_rng(seed)
        problem, theta = (hard_mdp if seed % 2 else hard_game)(rng)
        for outcome in runs(problem, theta):
            done += 1
            unbounded += outcome.bound == np.inf
            if outcome.outside:
                outside += 1
                print(f"seed {seed}, {type(problem).__name__}, {outcome}", flush=True)
        seed += 1
    print(
        f"{done} runs on {seed - arguments.seed} problems: {outside} outside their bounds, {unbounded} without a bound"
    )
    return outside


if __name__ == "__main__":
    raise SystemExit(1 if main() else 0)
