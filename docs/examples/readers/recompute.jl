# Recompute one certified problem in doubles:  julia recompute.jl mdp_layered.json   (needs the package JSON)
# NOT RUN by the tests so far: no Julia was at hand. Its siblings in R, JavaScript and C, which are run, say the same.
# Configurable MDPs without horizon. Prints, per quantity, the digits that agree with the stored answer (16: all of a double).
using JSON, LinearAlgebra

file = JSON.parsefile(ARGS[1])
problem = file["problem"]
file["kind"] == "configurable_mdp" && get(problem, "horizon", nothing) === nothing ||
    error("a configurable_mdp without horizon is expected")
number(x) = x isa AbstractString ? foldl(/, parse.(Float64, split(x, "/"))) : Float64(x)
listed(table, key, entry) = haskey(table, key) ? table[key][entry] : []

# A link takes z, entry by entry or as a row, to its value and to the pullback of a cotangent on the value.
function link(name, z, inside = trues(length(z)))
    if name in ("softmax", "normalise")
        w = name == "softmax" ? ifelse.(inside, exp.(z .- maximum(z[inside]; init = -Inf)), 0.0) : z
        mass = sum(w)
        y = mass == 0 ? zero(w) : w ./ mass
        slope = name == "softmax" ? y : mass == 0 ? zero(w) : fill(1 / mass, length(w))
        return y, bar -> slope .* (bar .- dot(bar, y))
    end
    y = name == "tanh" ? tanh.(z) : name == "sigmoid" ? 1 ./ (1 .+ exp.(-z)) : z
    slope = name == "tanh" ? 1 .- y .^ 2 : name == "sigmoid" ? y .* (1 .- y) : one.(z)
    y, bar -> bar .* slope
end

theta = number.(problem["theta"])
ends = cumsum([block["length"] for block in problem["features"]])
blocks = [e-block["length"]+1:e for (block, e) in zip(problem["features"], ends)]
links = [link(b["link"], theta[at] .+ number.(get(b, "offset", zeros(length(at))))) for (b, at) in zip(problem["features"], blocks)]
phi = reduce(vcat, first.(links))

# A table is its values, row by row along the last axis, and the pullback to theta.
function table(name)
    t = get(problem["tables"], name, Dict("shape" => []))
    z = zeros(Int(prod(t["shape"]; init = 1)))
    jacobian = zeros(length(z), length(phi))
    for (e, v) in zip(listed(t, "base", "index"), listed(t, "base", "value"))
        z[e+1] = number(v)
    end
    for (e, j, v) in zip(listed(t, "slope", "index"), listed(t, "slope", "feature"), listed(t, "slope", "value"))
        jacobian[e+1, j+1] += number(v)
    end
    z += jacobian * phi
    for (e, i, j, v) in zip((listed(t, "quadratic", key) for key in ("index", "first", "second", "value"))...)
        z[e+1] += number(v) * phi[i+1] * phi[j+1]
        jacobian[e+1, i+1] += number(v) * phi[j+1]
        jacobian[e+1, j+1] += number(v) * phi[i+1]
    end
    width = isempty(t["shape"]) ? 1 : t["shape"][end]
    inside = haskey(t, "support") ? in.(0:length(z)-1, Ref(Set(t["support"]))) : trues(length(z))
    scale = get(t, "scale", 1)
    by(r) = number(scale isa AbstractVector ? scale[r] : scale)
    rows = [(r-1)*width+1:r*width for r in 1:length(z)÷width]
    linked = [link(get(t, "link", "identity"), z[at], inside[at]) for at in rows]
    function pull(bar)
        bar_phi = jacobian' * reduce(vcat, [linked[r][2](by(r) .* bar[rows[r]]) for r in eachindex(rows)])
        reduce(vcat, [l[2](bar_phi[at]) for (l, at) in zip(links, blocks)])
    end
    reduce(vcat, [by(r) .* linked[r][1] for r in eachindex(rows)]), pull, t["shape"]
end

(transition, pull_P), (r_F, pull_F, (S, A)), (r_L, pull_L) = table("transition"), table("reward_follower"), table("reward_leader")
(mu, pull_mu), (rho, pull_rho) = table("initial"), table("regulariser")
P = permutedims(reshape(transition, S, S * A))              # one row per pair (s, a), a fastest
gamma_L, gamma_F, beta = (number(problem[key]) for key in ("discount_leader", "discount_follower", "temperature"))
of = repeat(1:S, inner = A)                                 # the state of a pair
over_actions(x) = [sum(x[A*(s-1)+1:A*s]) for s in 1:S]
chain(pi) = reduce(vcat, [sum(pi[p] * P[p:p, :] for p in A*(s-1)+1:A*s) for s in 1:S])
# The follower, by Newton's method on V = T V:  Q = r_F + gamma_F P V,  T V = beta log sum exp(Q/beta).
function follower(V = zeros(S), last = Inf)
    for _ in 1:200
        Q = r_F + gamma_F * P * V
        peak = [maximum(Q[A*(s-1)+1:A*s]) for s in 1:S]
        w = exp.((Q - peak[of]) / beta)
        pi = w ./ over_actions(w)[of]
        step = (I - gamma_F * chain(pi)) \ (peak + beta * log.(over_actions(w)) - V)
        V, size = V + step, maximum(abs, step)
        (size == 0 || last / 2 <= size <= 1e-9 * maximum(abs, V)) && return V, pi
        last = size
    end
    error("the follower's values did not converge")
end
V, pi_F = follower()
# The leader and the adjoints: occupancy d, benefit B, and y, what a unit of the follower's reward is worth to the leader.
V_L = (I - gamma_L * chain(pi_F)) \ over_actions(pi_F .* r_L)
Q_L = r_L + gamma_L * P * V_L
visits = ((I - gamma_L * chain(pi_F))' \ mu)[of] .* pi_F
c = visits .* (Q_L - over_actions(pi_F .* Q_L)[of]) / beta
y = c + ((I - gamma_F * chain(pi_F))' \ (gamma_F * P' * c))[of] .* pi_F
onto(weights, gamma, W) = vec(gamma * W * weights')
parts = ["initial" => pull_mu(V_L), "direct" => pull_L(visits), "transition" => pull_P(onto(visits, gamma_L, V_L)),
         "response" => pull_F(y) + pull_P(onto(y, gamma_F, V)), "regulariser" => pull_rho([1.0])]
answer = file["answer"]
largest = maximum(abs, number.(answer["gradient"]["value"]))
report(name, found, stored, scale) = println(name, " ", round(clamp(-log10(maximum(abs, found .- number.(stored)) / scale), 0, 16), digits = 1))
report("objective", [dot(mu, V_L) + rho[1]], [answer["objective"]["value"]], abs(number(answer["objective"]["value"])))
report("gradient", sum(last.(parts)), answer["gradient"]["value"], largest)
for (name, part) in parts report(name, part, answer["parts"][name]["value"], largest) end
