# Recompute one certified problem in doubles:  Rscript recompute.R mdp_layered.json   (needs jsonlite)
# Configurable MDPs without horizon. Prints, per quantity, the digits that agree with the stored answer (16: all of a double).
file <- jsonlite::read_json(commandArgs(trailingOnly = TRUE)[1])
problem <- file$problem
if (file$kind != "configurable_mdp" || !is.null(problem$horizon)) stop("a configurable_mdp without horizon is expected")
number <- function(x) if (is.character(x)) Reduce(`/`, as.numeric(strsplit(x, "/")[[1]])) else as.numeric(x)
numbers <- function(xs) vapply(xs, number, 0)
indices <- function(xs) vapply(xs, as.integer, 0L) + 1L
`%or%` <- function(x, y) if (is.null(x)) y else x

# A link takes z, entry by entry or as a row, to its value and to the pullback of a cotangent on the value.
link <- function(name, z, inside = rep(TRUE, length(z))) {
  if (name %in% c("softmax", "normalise")) {
    w <- if (name == "softmax") ifelse(inside, exp(z - max(z[inside], -Inf)), 0) else z
    mass <- sum(w)
    y <- if (mass == 0) 0 * w else w / mass
    slope <- if (name == "softmax") y else if (mass == 0) 0 * w else 1 / mass
    return(list(value = y, pull = function(bar) slope * (bar - sum(bar * y))))
  }
  y <- switch(name, identity = z, tanh = tanh(z), sigmoid = 1 / (1 + exp(-z)))
  slope <- switch(name, identity = 1 + 0 * z, tanh = 1 - y^2, sigmoid = y * (1 - y))
  list(value = y, pull = function(bar) bar * slope)
}

theta <- numbers(problem$theta)
ends <- cumsum(vapply(problem$features, function(block) block$length, 0L))
blocks <- Map(function(block, end) seq_len(block$length) + end - block$length, problem$features, ends)
links <- Map(function(block, at) link(block$link, theta[at] + if (is.null(block$offset)) 0 else numbers(block$offset)),
             problem$features, blocks)
phi <- unlist(lapply(links, `[[`, "value"))

# A table is its values, row by row along the last axis, and the pullback to theta.
table <- function(name) {
  t <- problem$tables[[name]] %or% list(shape = list())
  shape <- vapply(t$shape, as.integer, 0L)
  z <- numeric(prod(shape))
  jacobian <- matrix(0, length(z), length(phi))
  for (k in seq_along(t$base$index)) z[t$base$index[[k]] + 1] <- number(t$base$value[[k]])
  for (k in seq_along(t$slope$index)) {
    e <- t$slope$index[[k]] + 1; j <- t$slope$feature[[k]] + 1
    jacobian[e, j] <- jacobian[e, j] + number(t$slope$value[[k]])
  }
  z <- z + as.vector(jacobian %*% phi)
  for (k in seq_along(t$quadratic$index)) {
    e <- t$quadratic$index[[k]] + 1; i <- t$quadratic$first[[k]] + 1; j <- t$quadratic$second[[k]] + 1
    by <- number(t$quadratic$value[[k]])
    z[e] <- z[e] + by * phi[i] * phi[j]
    jacobian[e, i] <- jacobian[e, i] + by * phi[j]
    jacobian[e, j] <- jacobian[e, j] + by * phi[i]
  }
  width <- if (length(shape)) tail(shape, 1) else 1L
  inside <- if (is.null(t$support)) rep(TRUE, length(z)) else seq_along(z) %in% indices(t$support)
  scale <- rep(numbers(t$scale %or% list(1)), length.out = length(z) / width)
  rows <- lapply(seq_len(length(z) / width), function(r) seq_len(width) + (r - 1) * width)
  linked <- lapply(rows, function(at) link(t$link %or% "identity", z[at], inside[at]))
  pull <- function(bar) {
    bar_z <- unlist(Map(function(l, at, by) l$pull(by * bar[at]), linked, rows, scale))
    bar_phi <- as.vector(crossprod(jacobian, bar_z))
    unlist(Map(function(l, at) l$pull(bar_phi[at]), links, blocks))
  }
  list(value = unlist(Map(function(l, by) by * l$value, linked, scale)), pull = pull, shape = shape)
}

transition <- table("transition"); r_f <- table("reward_follower"); r_l <- table("reward_leader")
initial <- table("initial"); regulariser <- table("regulariser")
S <- r_f$shape[1]; A <- r_f$shape[2]
P <- matrix(transition$value, S * A, S, byrow = TRUE)   # one row per pair (s, a), a fastest
gamma_l <- number(problem$discount_leader); gamma_f <- number(problem$discount_follower); beta <- number(problem$temperature)
of <- rep(seq_len(S), each = A)                         # the state of a pair
over_actions <- function(x) as.vector(rowsum(x, of))
system <- function(pi, gamma) diag(S) - gamma * rowsum(pi * P, of)
# The follower, by Newton's method on V = T V:  Q = r_F + gamma_F P V,  T V = beta log sum exp(Q/beta).
V <- numeric(S); last <- Inf
for (k in 1:202) {
  Q <- r_f$value + gamma_f * as.vector(P %*% V)
  peak <- as.vector(tapply(Q, of, max))
  w <- exp((Q - peak[of]) / beta); mass <- over_actions(w)
  pi <- w / mass[of]
  step <- solve(system(pi, gamma_f), peak + beta * log(mass) - V, tol = 0)
  V <- V + step; size <- max(abs(step))
  if (size == 0 || (size >= last / 2 && size <= 1e-9 * max(abs(V)))) break
  if (k > 200) stop("the follower's values did not converge")
  last <- size
}
# The leader and the adjoints: occupancy d, benefit B, and y, what a unit of the follower's reward is worth to the leader.
V_l <- solve(system(pi, gamma_l), over_actions(pi * r_l$value), tol = 0)
Q_l <- r_l$value + gamma_l * as.vector(P %*% V_l)
visits <- solve(t(system(pi, gamma_l)), initial$value, tol = 0)[of] * pi
c <- visits * (Q_l - over_actions(pi * Q_l)[of]) / beta
y <- c + solve(t(system(pi, gamma_f)), gamma_f * as.vector(crossprod(P, c)), tol = 0)[of] * pi
onto <- function(weights, gamma, W) as.vector(t(gamma * outer(weights, W)))
parts <- list(initial = initial$pull(V_l), direct = r_l$pull(visits), transition = transition$pull(onto(visits, gamma_l, V_l)),
              response = r_f$pull(y) + transition$pull(onto(y, gamma_f, V)), regulariser = regulariser$pull(1))
largest <- max(abs(numbers(file$answer$gradient$value)))
report <- function(name, found, stored, scale)
  cat(sprintf("%s %.1f\n", name, max(0, min(16, -log10(max(abs(found - numbers(stored))) / scale)))))
objective <- file$answer$objective$value
report("objective", sum(initial$value * V_l) + regulariser$value, list(objective), abs(number(objective)))
report("gradient", Reduce(`+`, parts), file$answer$gradient$value, largest)
for (name in names(parts)) report(name, parts[[name]], file$answer$parts[[name]]$value, largest)
