"""Recompute reference hypergradients with mpmath, from the JSON files alone.

Nothing of the package is imported. Objective and follower are computed from their definitions in 90 digits, and every
derivative is a central difference of step 1e-30 (error about 1e-60): neither the formula nor the arithmetic is the one
that the stored numbers were made with.

    python recompute_with_mpmath.py [FOLDER [NAME ...]]

FOLDER is `tasks/data`, or what `bilevelrl certify --data` prints. The exit status is 0 if all agree to 30 digits.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
from mpmath import mp, mpf

mp.dps = 90
STEP = mpf(10) ** -30
DIGITS = 30

NAMES = (
    "mdp_temperature_1", "mdp_temperature_0.01", "mdp_discount_0.999", "mdp_one_state", "mdp_layered",
    "mdp_terminating", "mdp_horizon_5_discounted", "mdp_horizon_20_undiscounted", "mdp_fork_0.0001_0.99_1",
    "mdp_near_periodic_14_temperature_1", "toy_game_1_optimum", "toy_game_2_unseen", "building_start",
    "lqr_game_published", "lqr_game_infinite_half_way",
)  # fmt: skip


def number(value):
    """A JSON number is the double next to its literal; a string is a rational."""
    if isinstance(value, str):
        fraction = Fraction(value)
        return mpf(fraction.numerator) / fraction.denominator
    return mpf(value)


def softmax(row):
    peak = max(row)
    weights = [mpmath.exp(x - peak) for x in row]
    return [w / sum(weights) for w in weights]


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def features(problem, theta):
    found = []
    for block in problem["features"]:
        start, length = len(found), block["length"]
        offset = [number(x) for x in block.get("offset", [0] * length)]
        row = [t + o for t, o in zip(theta[start : start + length], offset, strict=True)]
        link = block["link"]
        found += softmax(row) if link == "softmax" else [sigmoid(x) for x in row] if link == "sigmoid" else row
    return found


def table(entry, phi):
    """The table as a flat list in C order."""
    size, width = 1, entry["shape"][-1] if entry["shape"] else 1
    for length in entry["shape"]:
        size *= length
    z = [mpf(0)] * size
    base = entry.get("base", {"index": [], "value": []})
    for e, x in zip(base["index"], base["value"], strict=True):
        z[e] = number(x)
    slope = entry.get("slope", {"index": [], "feature": [], "value": []})
    for e, j, x in zip(slope["index"], slope["feature"], slope["value"], strict=True):
        z[e] += number(x) * phi[j]
    quadratic = entry.get("quadratic", {"index": [], "first": [], "second": [], "value": []})
    for e, i, j, x in zip(quadratic["index"], quadratic["first"], quadratic["second"], quadratic["value"], strict=True):
        z[e] += number(x) * phi[i] * phi[j]
    support = set(entry.get("support", range(size)))
    scale = entry.get("scale", 1)
    link, found = entry.get("link", "identity"), []
    for row in range(size // width):
        places = range(row * width, (row + 1) * width)
        by = number(scale[row] if isinstance(scale, list) else scale)
        if link == "softmax":
            inside = [e for e in places if e in support]
            shares = dict(zip(inside, softmax([z[e] for e in inside]), strict=True)) if inside else {}
            values = [shares.get(e, mpf(0)) for e in places]
        elif link == "normalise":
            mass = sum(z[e] for e in places)
            values = [z[e] / mass if mass else mpf(0) for e in places]
        else:
            apply = {"identity": lambda x: x, "tanh": mpmath.tanh, "sigmoid": sigmoid}[link]
            values = [apply(z[e]) for e in places]
        found += [by * x for x in values]
    return found


def nest(flat, shape):
    if len(shape) <= 1:
        return flat if shape else flat[0]
    step = len(flat) // shape[0]
    return [nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def solve(matrix, right):
    """Gaussian elimination with pivoting."""
    size = len(right)
    rows = [[*list(row), b] for row, b in zip(matrix, right, strict=True)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            if factor:
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    found = [mpf(0)] * size
    for i in reversed(range(size)):
        found[i] = (rows[i][size] - sum(rows[i][k] * found[k] for k in range(i + 1, size))) / rows[i][i]
    return found


# --- tabular problems: P[s][a][t], r[s][a] -------------------------------------------------------------------------


def best_response(P, r, gamma, beta, warm):
    """The soft optimum by Newton's method on V - T V = 0; `warm` keeps the last solution between calls."""
    V = warm.get("V", [mpf(0)] * len(P))
    for _ in range(200):
        Q = [
            [x + gamma * sum(p * v for p, v in zip(row, V, strict=True)) for x, row in zip(xs, rows, strict=True)]
            for xs, rows in zip(r, P, strict=True)
        ]
        pi = [softmax([q / beta for q in row]) for row in Q]
        peak = [max(row) for row in Q]
        TV = [
            m + beta * mpmath.log(sum(mpmath.exp((q - m) / beta) for q in row)) for m, row in zip(peak, Q, strict=True)
        ]
        change = [new - old for new, old in zip(TV, V, strict=True)]
        if max(map(abs, change)) <= mpf(10) ** (8 - mp.dps) * max(1, max(map(abs, V))):
            warm["V"] = V
            return pi
        V = [v + d for v, d in zip(V, solve(discounted_system(P, pi, gamma), change), strict=True)]
    raise RuntimeError("no convergence")


def discounted_system(P, pi, gamma):
    states = range(len(P))
    return [
        [(s == t) - gamma * sum(p * row[t] for p, row in zip(pi[s], P[s], strict=True)) for t in states] for s in states
    ]


def evaluate(P, r, mu, pi, gamma, horizon):
    earned = [sum(p * x for p, x in zip(ps, xs, strict=True)) for ps, xs in zip(pi, r, strict=True)]
    if horizon is None:
        V = solve(discounted_system(P, pi, gamma), earned)
    else:
        V = [mpf(0)] * len(P)
        chain = [
            [sum(p * row[t] for p, row in zip(pi[s], P[s], strict=True)) for t in range(len(P))] for s in range(len(P))
        ]
        for _ in range(horizon):
            V = [
                e + gamma * sum(c * v for c, v in zip(row, V, strict=True))
                for e, row in zip(earned, chain, strict=True)
            ]
    return sum(m * v for m, v in zip(mu, V, strict=True))


def mdp_objective(problem, tables, warm):
    """J with θ split: `tables(name, part)` is the table as that part sees it."""
    gamma_f, beta = number(problem["discount_follower"]), number(problem["temperature"])
    gamma_l = number(problem["discount_leader"]) if problem.get("discounted", True) else mpf(1)
    pi = best_response(tables("transition", "response"), tables("reward_follower", "response"), gamma_f, beta, warm)
    J = evaluate(
        tables("transition", "transition"), tables("reward_leader", "direct"), tables("initial", "initial"), pi,
        gamma_l, problem.get("horizon"),
    )  # fmt: skip
    return J + (tables("regulariser", "regulariser") if "regulariser" in problem["tables"] else 0)


def game_objective(problem, tables, warm):
    sees = problem["follower_sees_leader_action"]

    def reduced(part, reward):
        P, r, f = tables("transition", part), tables(reward, part), tables("policy", part)
        mu, S, L = tables("initial", part), len(P), len(P[0])
        A = range(len(P[0][0]))
        if sees:
            kernel = [
                [[P[s][lead][a][t] * f[t][m] for t in range(S) for m in range(L)] for a in A]
                for s in range(S) for lead in range(L)
            ]  # fmt: skip
            return (
                kernel,
                [r[s][lead] for s in range(S) for lead in range(L)],
                [mu[s] * f[s][lead] for s in range(S) for lead in range(L)],
            )
        kernel = [
            [[sum(f[s][lead] * P[s][lead][a][t] for lead in range(L)) for t in range(S)] for a in A] for s in range(S)
        ]
        return kernel, [[sum(f[s][lead] * r[s][lead][a] for lead in range(L)) for a in A] for s in range(S)], mu

    gamma_f, beta = number(problem["discount_follower"]), number(problem["temperature"])
    gamma_l = number(problem["discount_leader"]) if problem.get("discounted", True) else mpf(1)
    kernel, reward, _ = reduced("response", "reward_follower")
    pi = best_response(kernel, reward, gamma_f, beta, warm)
    kernel, reward, mu = reduced("policy", "reward_leader")
    J = evaluate(kernel, reward, mu, pi, gamma_l, problem.get("horizon"))
    return J + (tables("regulariser", "regulariser") if "regulariser" in problem["tables"] else 0)


# --- linear-quadratic problems --------------------------------------------------------------------------------


def riccati(A, B, Q, R, gamma):
    """The stabilising solution by structure-preserving doubling: quadratic, and no derivative is needed."""
    root = mpmath.sqrt(gamma)
    A, G, H = root * A, B * mpmath.inverse(R) * B.T * gamma, Q
    for _ in range(60):
        W = mpmath.inverse(mpmath.eye(A.rows) + G * H)
        AW = A * W
        A, G, H, last = AW * A, G + AW * G * A.T, H + A.T * H * W * A, H
        if mpmath.mnorm(H - last, "inf") <= mpf(10) ** (6 - mp.dps) * mpmath.mnorm(H, "inf"):
            return (H + H.T) / 2
    raise RuntimeError("no convergence")


def matrix(value):
    return mpmath.matrix(value if isinstance(value[0], list) else [[x] for x in value])


def lqr_objective(problem, tables, warm):
    def read(name, part):
        return matrix(tables(name, part))

    gamma, beta = number(problem["discount_follower"]), number(problem["temperature"])
    by = number(problem["discount_leader"]) if problem.get("discounted", True) else mpf(1)
    A, B = read("dynamics_state", "response"), read("dynamics_action", "response")
    R = read("cost_action_follower", "response")
    P = riccati(A, B, read("cost_state_follower", "response"), R, gamma)
    S = mpmath.inverse(R + gamma * B.T * P * B)
    K, spread = gamma * S * B.T * P * A, beta / 2 * S
    A, B = read("dynamics_state", "transition"), read("dynamics_action", "transition")
    C, D = read("cost_state_leader", "direct"), read("cost_action_leader", "direct")
    loop, noise = A - B * K, read("noise_covariance", "transition") + B * spread * B.T
    cost, always = C + K.T * D * K, trace(D * spread) + tables("cost_constant_leader", "direct")
    mean, covariance = read("initial_mean", "initial"), read("initial_covariance", "initial")
    # Forward in time: second moments of the state, summed until nothing is added.
    second, total, weight, step = mean * mean.T + covariance, mpf(0), mpf(1), 0
    while step != problem.get("horizon"):
        term = weight * (trace(cost * second) + always)
        total += term
        if problem.get("horizon") is None and abs(weight) * (1 + mpmath.mnorm(second, "inf")) < mpf(10) ** (4 - mp.dps):
            break
        second, weight, step = loop * second * loop.T + noise, weight * by, step + 1
    return -total + (tables("regulariser", "regulariser") if "regulariser" in problem["tables"] else 0)


def lqr_game_objective(problem, tables, warm):
    def read(name, part):
        return matrix(tables(name, part))

    gamma, beta = number(problem["discount_follower"]), number(problem["temperature"])
    by = number(problem["discount_leader"]) if problem.get("discounted", True) else mpf(1)
    A, B, C = (read(name, "policy") for name in ("dynamics_state", "dynamics_action", "dynamics_leader"))
    R = read("cost_action", "policy")
    P = riccati(A + C * read("gain", "response"), B, read("cost_state", "policy"), R, gamma)
    S = mpmath.inverse(R + gamma * B.T * P * B)
    through = mpmath.eye(A.rows) - B * (gamma * S * B.T * P)
    loop = through * (A + C * read("gain", "policy"))
    noise = through * C * read("covariance", "policy") * C.T * through.T + B * (beta / 2 * S) * B.T
    mean, covariance = read("initial_mean", "policy"), read("initial_covariance", "policy")
    target, width, total, t = read("target", "policy"), read("width", "policy"), mpf(0), 0
    while t != problem.get("horizon"):
        off, wide = mean - target, width + covariance
        shrink = mpmath.sqrt(mpmath.det(width) / mpmath.det(wide))
        reward = shrink * mpmath.exp(-(off.T * mpmath.inverse(wide) * off)[0] / 2)
        before = mean, covariance
        mean, covariance = loop * mean, loop * covariance * loop.T + noise
        still = max(mpmath.mnorm(new - old, "inf") for new, old in zip((mean, covariance), before, strict=True))
        if problem.get("horizon") is None and still < mpf(10) ** (4 - mp.dps):
            return total + by**t * reward / (1 - by)  # the state's law has settled: a geometric series is left
        total, t = total + by**t * reward, t + 1
    return total


def trace(M):
    return sum(M[i, i] for i in range(M.rows))


OBJECTIVES = {
    "configurable_mdp": mdp_objective,
    "markov_game": game_objective,
    "configurable_lqr": lqr_objective,
    "lqr_game": lqr_game_objective,
}


def reader(still, moved, moved_part):
    """Return which table each part of the objective reads: the moved one in one part, the unmoved ones elsewhere."""
    return lambda name, part: (moved if part == moved_part else still)[name]


def recompute(record):
    """Return (J, {part: ∇J}) by central differences of J with θ moved in one part at a time."""
    problem, objective, warm = record["problem"], OBJECTIVES[record["kind"]], {}
    theta = [number(x) for x in problem["theta"]]

    def all_tables(at):
        phi = features(problem, at)
        return {name: nest(table(entry, phi), entry["shape"]) for name, entry in problem["tables"].items()}

    still = all_tables(theta)
    J = objective(problem, lambda name, part: still[name], warm)
    parts = {}
    for moved_part in record["answer"]["parts"]:
        slopes = []
        for j in range(len(theta)):
            ends = []
            for sign in (1, -1):
                moved = all_tables([x + sign * STEP * (i == j) for i, x in enumerate(theta)])
                ends.append(objective(problem, reader(still, moved, moved_part), warm))
            slopes.append((ends[0] - ends[1]) / (2 * STEP))
        parts[moved_part] = slopes
    return J, parts


def worst_disagreement(record):
    """Return the largest error beyond the stored radius, relative to the largest entry of the same kind."""
    J, parts = recompute(record)
    answer = record["answer"]
    total = [sum(column) for column in zip(*parts.values(), strict=True)]
    pairs = [([J], [answer["objective"]["value"]], [answer["objective"]["radius"]])]
    pairs += [(total, answer["gradient"]["value"], answer["gradient"]["radius"])]
    pairs += [(parts[part], entry["value"], entry["radius"]) for part, entry in answer["parts"].items()]
    worst = mpf(0)
    size = max([abs(mpf(x)) for _, values, _ in pairs[1:] for x in values] + [abs(J)])
    for ours, values, radii in pairs:
        if len(ours) != len(values):
            raise ValueError(f"{record['name']}: {len(values)} numbers stored for {len(ours)}")
        scale = max(abs(mpf(value)) for value in values) or size
        for x, value, radius in zip(ours, values, radii, strict=True):
            worst = max(worst, (abs(x - mpf(value)) - mpf(radius)) / scale)
    return worst


def main(arguments):
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[2] / "tasks" / "data"
    failed = 0
    for name in arguments[1:] or NAMES:
        record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        worst = worst_disagreement(record)
        agrees = worst < mpf(10) ** -DIGITS
        failed += not agrees
        print(f"{name:<40} {'agrees' if agrees else 'DISAGREES'}   worst {mpmath.nstr(worst, 2)}", flush=True)
    print(f"{failed} disagree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
