// Recompute one certified problem in doubles:  node recompute.js mdp_layered.json
// Configurable MDPs without horizon. Prints, per quantity, the digits that agree with the stored answer (16: all of a double).
"use strict";
const { kind, problem, answer } = JSON.parse(require("fs").readFileSync(process.argv[2], "utf8"));
if (kind !== "configurable_mdp" || (problem.horizon ?? null) !== null) throw new Error("a configurable_mdp without horizon is expected");
const number = (x) => (typeof x === "number" ? x : x.split("/").map(Number).reduce((p, q) => p / q));
const zeros = (n) => new Array(n).fill(0), sum = (xs) => xs.reduce((total, x) => total + x, 0), range = (n) => [...Array(n).keys()], dot = (x, y) => sum(x.map((v, i) => v * y[i]));

function solve(rows, right) { // elimination with pivoting
  const n = right.length, m = rows.map((row, i) => [...row, right[i]]), x = zeros(n);
  for (let i = 0; i < n; i++) {
    const best = range(n).slice(i).reduce((b, k) => (Math.abs(m[k][i]) > Math.abs(m[b][i]) ? k : b));
    [m[i], m[best]] = [m[best], m[i]];
    for (let k = i + 1; k < n; k++)
      for (let j = n, factor = m[k][i] / m[i][i]; factor !== 0 && j >= i; j--) m[k][j] -= factor * m[i][j];
  }
  for (let i = n - 1; i >= 0; i--) x[i] = (m[i][n] - sum(range(n).slice(i + 1).map((k) => m[i][k] * x[k]))) / m[i][i];
  return x;
}

// A link takes z, entry by entry or as a row, to its value and to the pullback of a cotangent on the value.
function link(name, z, inside) {
  if (name === "softmax" || name === "normalise") {
    const peak = Math.max(...z.filter((_, i) => inside[i]));
    const w = name === "softmax" ? z.map((x, i) => (inside[i] ? Math.exp(x - peak) : 0)) : z;
    const mass = sum(w), y = w.map((x) => (mass === 0 ? 0 : x / mass));
    const slope = y.map((v) => (name === "softmax" ? v : mass === 0 ? 0 : 1 / mass));
    return [y, (bar) => bar.map((b, i) => slope[i] * (b - dot(bar, y)))];
  }
  const y = z.map({ identity: (x) => x, tanh: Math.tanh, sigmoid: (x) => 1 / (1 + Math.exp(-x)) }[name]);
  const slope = { identity: () => 1, tanh: (v) => 1 - v * v, sigmoid: (v) => v * (1 - v) }[name];
  return [y, (bar) => bar.map((b, i) => b * slope(y[i]))];
}

const theta = problem.theta.map(number), phi = [], pulls = [];
for (const block of problem.features) {
  const at = phi.length, z = theta.slice(at, at + block.length).map((t, i) => t + (block.offset ? number(block.offset[i]) : 0));
  const [y, pull] = link(block.link, z, z.map(() => true));
  phi.push(...y), pulls.push((bar) => pull(bar.slice(at, at + block.length)));
}

// A table is its values and the pullback to θ.
function table(name) {
  const t = problem.tables[name] ?? { shape: [] }, size = t.shape.reduce((p, n) => p * n, 1), width = t.shape.at(-1) ?? 1;
  const z = zeros(size), jacobian = (t.slope?.index ?? []).map((e, k) => [e, t.slope.feature[k], number(t.slope.value[k])]);
  t.base?.index.forEach((e, k) => (z[e] = number(t.base.value[k])));
  for (const [e, j, by] of jacobian) z[e] += by * phi[j]; // by = dz_e / dφ_j
  t.quadratic?.index.forEach((e, k) => {
    const [i, j, by] = [t.quadratic.first[k], t.quadratic.second[k], number(t.quadratic.value[k])];
    z[e] += by * phi[i] * phi[j], jacobian.push([e, i, by * phi[j]], [e, j, by * phi[i]]);
  });
  const support = t.support && new Set(t.support), inside = z.map((_, e) => !support || support.has(e));
  const rows = range(size / width).map((r) => {
    const places = [r * width, (r + 1) * width], by = number(Array.isArray(t.scale) ? t.scale[r] : t.scale ?? 1);
    return [by, ...link(t.link ?? "identity", z.slice(...places), inside.slice(...places)), places];
  });
  const pull = (bar) => {
    const barZ = rows.flatMap(([by, , back, places]) => back(bar.slice(...places).map((b) => by * b))), barPhi = zeros(phi.length);
    for (const [e, j, by] of jacobian) barPhi[j] += by * barZ[e];
    return pulls.flatMap((back) => back(barPhi));
  };
  return { value: rows.flatMap(([by, y]) => y.map((x) => by * x)), pull, shape: t.shape };
}

const [P, rF, rL, mu, rho] = ["transition", "reward_follower", "reward_leader", "initial", "regulariser"].map(table);
const [S, A] = rF.shape, states = range(S), actions = range(A), pairs = range(S * A), row = (p) => P.value.slice(p * S, p * S + S);
const [gammaL, gammaF, beta] = ["discount_leader", "discount_follower", "temperature"].map((key) => number(problem[key]));
const overActions = (x) => states.map((s) => sum(actions.map((a) => x[s * A + a])));
const next = (r, gamma, V) => pairs.map((p) => r.value[p] + gamma * dot(row(p), V));
const system = (pi, gamma) => states.map((s) => states.map((t) => (s === t) - gamma * sum(actions.map((a) => pi[s * A + a] * P.value[(s * A + a) * S + t]))));
const transposed = (m) => m.map((_, i) => m.map((r) => r[i]));
// The follower, by Newton's method on V = T V:  Q = r_F + γ_F P V,  T V = β log Σ exp(Q/β),  π = exp((Q - T V)/β).
let V = zeros(S), pi, last = Infinity;
for (let k = 0; ; k++) {
  const Q = next(rF, gammaF, V), peak = states.map((s) => Math.max(...Q.slice(s * A, s * A + A)));
  const w = Q.map((q, p) => Math.exp((q - peak[Math.floor(p / A)]) / beta)), mass = overActions(w);
  const TV = mass.map((m, s) => peak[s] + beta * Math.log(m));
  pi = w.map((x, p) => x / mass[Math.floor(p / A)]);
  const step = solve(system(pi, gammaF), TV.map((v, s) => v - V[s])), size = Math.max(...step.map(Math.abs));
  V = V.map((v, s) => v + step[s]);
  if (size === 0 || (size >= last / 2 && size <= 1e-9 * Math.max(...V.map(Math.abs)))) break;
  if (k > 200) throw new Error("the follower's values did not converge"); else last = size;
}
// The leader and the adjoints: occupancy d, benefit B, and y, what a unit of the follower's reward is worth to the leader.
const VL = solve(system(pi, gammaL), overActions(pi.map((p, i) => p * rL.value[i]))), QL = next(rL, gammaL, VL);
const d = solve(transposed(system(pi, gammaL)), mu.value), mean = overActions(pi.map((p, i) => p * QL[i]));
const c = pairs.map((p) => (d[Math.floor(p / A)] * pi[p] * (QL[p] - mean[Math.floor(p / A)])) / beta);
const e = solve(transposed(system(pi, gammaF)), states.map((t) => gammaF * sum(pairs.map((p) => c[p] * P.value[p * S + t]))));
const y = pairs.map((p) => c[p] + e[Math.floor(p / A)] * pi[p]), visits = pairs.map((p) => d[Math.floor(p / A)] * pi[p]);
const outer = (weights, gamma, W) => pairs.flatMap((p) => W.map((v) => gamma * weights[p] * v)), plus = (x, z) => x.map((v, i) => v + z[i]);
const parts = { initial: mu.pull(VL), direct: rL.pull(visits), transition: P.pull(outer(visits, gammaL, VL)), regulariser: rho.pull([1]),
  response: plus(rF.pull(y), P.pull(outer(y, gammaF, V))) };
const gradient = Object.values(parts).reduce(plus), largest = Math.max(...answer.gradient.value.map((x) => Math.abs(Number(x))));
function report(name, found, stored, scale) {
  const off = Math.max(...found.map((x, i) => Math.abs(x - Number(stored[i])))) / scale;
  console.log(name, Math.max(0, Math.min(16, -Math.log10(off))).toFixed(1));
}
report("objective", [dot(mu.value, VL) + rho.value[0]], [answer.objective.value], Math.abs(Number(answer.objective.value)));
report("gradient", gradient, answer.gradient.value, largest);
for (const name of Object.keys(parts)) report(name, parts[name], answer.parts[name].value, largest);
