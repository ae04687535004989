"""The leader's endless return along a Gaussian chain in balls, as a power series in t: N steps, and a proven tail.

    m_{i+1} = M m_i,   Z_{i+1} = M Z_i M' + W,   J = Σ_i γ_L^i r(m_i, Z_i),                                        (1)
    r(m, Z) = |I + D⁻¹Z|^{-1/2} exp(-½ (m - x*)'(D + Z)⁻¹(m - x*)).                                                (2)

M, W, m_0 and Z_0 are series with ball coefficients. All bounds are in one norm, submultiplicative on matrices of
truncated series: `‖M‖ = Σ_k w^k max(row sum, column sum of |M_k|)`. With ‖M^p‖ = q < 1 proven and H ≥ ‖M^i‖ for i < p,

    Σ_i ‖M^i‖ ≤ p H / (1 - q),        Σ_i ‖M^i‖² ≤ p H² / (1 - q²).                                                (3)

*Steps.* Midpoints are carried, and what each step neglects is measured: `m_i - midpoint = Σ_j M^j (neglected at i - j)`
is at most the first sum times the largest neglect, and Z likewise with the second. However many steps there are,
nothing wraps.

*Tail.* From N on `m_i = M^{i-N} m_N` has norm at most H ‖m_N‖, and `Z_i - Z_N = Σ_{j<i-N} M^j (Z_{N+1} - Z_N) M^j'` at
most the second sum times ‖Z_{N+1} - Z_N‖. Every reward from N on thus lies, coefficient by coefficient, in the ball
that r takes over these two; so does their weighted mean, and the tail is γ_L^N / (1 - γ_L) times it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from flint import arb, arb_mat, arb_series, ctx

from bilevelrl.reference.certified.balls import largest, upper
from bilevelrl.reference.certified.series import Matrix, coefficient_matrix
from bilevelrl.reference.errors import IllPosedError, PrecisionError, TooLargeError, UnsupportedError

__all__ = ["GaussianChain", "PowerBound", "endless_return", "power_bound"]

Coefficients: TypeAlias = list[arb_mat]
"""A matrix of series as its coefficient matrices."""

LARGEST_STEPS = 200_000
_DOUBLINGS = 40  # powers of M up to 2^40 are tried
_DIRECT = 256  # powers up to here are bounded one by one, beyond by products
_SPARE_BITS = 80  # a tail below 2^-(precision - this) of its coefficient is small enough


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianChain:
    """The law of the state and the leader's reward, as matrices of series.

    Attributes
    ----------
    loop, noise : (n, n)
        M and W.
    mean, covariance : (n, 1), (n, n)
        m_0 and Z_0.
    target, width : (n, 1), (n, n)
        x* and D.
    """

    loop: Matrix
    noise: Matrix
    mean: Matrix
    covariance: Matrix
    target: Matrix
    width: Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerBound:
    """What is proven of the powers of M.

    Attributes
    ----------
    weight : arb
        w of the norm.
    any_power : arb
        H, at least ‖M^i‖ for every i.
    total, total_squares : arb
        Bounds on Σ_i ‖M^i‖ and Σ_i ‖M^i‖².
    """

    weight: arb
    any_power: arb
    total: arb
    total_squares: arb


def _split(matrix: Matrix) -> Coefficients:
    return [coefficient_matrix(matrix, k) for k in range(matrix[0][0].prec)]


def _times(left: Coefficients, right: Coefficients) -> Coefficients:
    found = [left[0] * entry for entry in right]
    for i in range(1, len(left)):
        for k in range(i, len(right)):
            found[k] = found[k] + left[i] * right[k - i]
    return found


def _turned(matrix: Coefficients) -> Coefficients:
    return [entry.transpose() for entry in matrix]


def _sum(left: Coefficients, right: Coefficients) -> Coefficients:
    return [a + b for a, b in zip(left, right, strict=True)]


def _difference(left: Coefficients, right: Coefficients) -> Coefficients:
    return [a - b for a, b in zip(left, right, strict=True)]


def _sizes(matrix: Coefficients) -> list[arb]:
    """The largest row or column sum by coefficient; a single column is a vector and gives its largest entry."""
    found = []
    for entry in matrix:
        rows = [[upper(e) for e in row] for row in entry.tolist()]
        sums = [sum(row, arb(0)) for row in rows]
        if entry.ncols() > 1:
            sums += [sum(column, arb(0)) for column in zip(*rows, strict=True)]
        found.append(largest(sums))
    return found


def _norm(matrix: Coefficients, weight: arb) -> arb:
    return _weighted(_sizes(matrix), weight)


def _weighted(sizes: Sequence[arb], weight: arb) -> arb:
    total = arb(0)
    for size in reversed(sizes):
        total = upper(total * weight + size)
    return total


def _one(like: Coefficients) -> Coefficients:
    size = like[0].nrows()
    return [
        arb_mat([[arb(int(i == j and k == 0)) for j in range(size)] for i in range(size)]) for k in range(len(like))
    ]


def power_bound(loop: Coefficients) -> PowerBound:
    """Prove that powers of M decay, derivatives and all.

    Raises
    ------
    UnsupportedError
        If no power is shown to be a contraction: the closed loop is unstable, or too nearly so.
    PrecisionError
        If one is at the midpoints and not over the balls.
    """
    powers = [loop]  # M^(2^i)
    half = arb(1) / 2
    while True:
        size = _sizes(powers[-1])[0]
        if size <= half:
            break
        if size.is_finite() and size < arb(2) ** ctx.prec and len(powers) <= _DOUBLINGS:
            powers.append(_times(powers[-1], powers[-1]))
            continue
        if _sizes([entry.mid() for entry in powers[-1]])[0] <= half:
            raise PrecisionError(f"closed loop: stable at its midpoint, not shown to be so at {ctx.prec} bits")
        raise UnsupportedError(
            "LQR game with horizon=None: the closed loop (I - B G)(A + C K) is not shown to be stable, no power of it "
            f"up to 2^{len(powers) - 1} being a contraction; expected a spectral radius below 1; pass a horizon"
        )
    weight, contraction = arb(1), _norm(powers[-1], arb(1))
    while not contraction <= half + half / 2:
        weight = weight / 2
        if weight < arb(2) ** (-4 * ctx.prec):
            raise PrecisionError(f"closed loop: derivatives of its powers are not finite at {ctx.prec} bits")
        contraction = _norm(powers[-1], weight)
    # H: powers below `direct` one by one; above, a product of one of those with some of M^direct, M^(2 direct), ...
    doublings = len(powers) - 1
    direct = min(doublings, _DIRECT.bit_length() - 1)
    below = [_one(loop)]
    for factor in powers[:direct]:  # few factors each, so that radii stay small
        below += [_times(factor, power) for power in below]
    highest = largest(_norm(power, weight) for power in below)
    for bigger in powers[direct:doublings]:
        highest = upper(highest * largest([arb(1), _norm(bigger, weight)]))
    steps = arb(2) ** doublings
    return PowerBound(
        weight=weight,
        any_power=highest,
        total=upper(steps * highest / (1 - contraction)),  # (3)
        total_squares=upper(steps * highest * highest / (1 - contraction * contraction)),
    )


@dataclass(slots=True)
class _Neglected:
    """The largest thing that a step neglected, and a ball around a midpoint that makes up for all of it."""

    weight: arb
    factor: arb
    start: arb
    largest_step: arb
    cushion: Coefficients

    @classmethod
    def of(cls, middle: Coefficients, *, weight: arb, any_power: arb, factor: arb, start: arb) -> _Neglected:
        found = cls(weight, factor, upper(any_power * start), arb(0), [])
        found._refill(middle)
        return found

    def _refill(self, like: Coefficients) -> None:
        self.cushion = _cushion(like, upper(self.start + self.factor * self.largest_step), self.weight)

    def step(self, moved: Coefficients) -> Coefficients:
        """Return the midpoints of a step, and remember how far they may be off."""
        middle = [entry.mid() for entry in moved]
        off = _weighted(
            [arb(max(e.nrows(), e.ncols())) * largest(x.rad() for x in e.entries()) for e in moved], self.weight
        )
        if not off <= self.largest_step:
            self.largest_step = 2 * off  # doubled: few steps are larger than all before
            self._refill(middle)
        return middle


def _cushion(like: Coefficients, size: arb, weight: arb) -> Coefficients:
    """Everything of norm at most `size`, coefficient by coefficient."""
    found, radius = [], upper(size)
    for entry in like:
        found.append(arb_mat(entry.nrows(), entry.ncols(), [arb(0, radius)] * (entry.nrows() * entry.ncols())))
        radius = upper(radius / weight)
    return found


@dataclass(frozen=True, slots=True)
class _Reward:
    """(2)."""

    target: Coefficients
    width: Coefficients
    log_width: list[arb]

    @classmethod
    def of(cls, chain: GaussianChain) -> _Reward:
        width = _split(chain.width)
        return cls(_split(chain.target), width, _log_determinant(width, _inverse(width)))

    def __call__(self, mean: Coefficients, covariance: Coefficients) -> arb_series:
        """Return the expected reward.

        Raises
        ------
        ZeroDivisionError
            If D + Z is not shown to be regular.
        """
        wide, off = _sum(self.width, covariance), _difference(mean, self.target)
        narrow = _inverse(wide)
        pulled = _times(_turned(off), _times(narrow, off))
        logarithm = _log_determinant(wide, narrow)
        exponent = [
            -(pull[0, 0] + log - still) / 2 for pull, log, still in zip(pulled, logarithm, self.log_width, strict=True)
        ]
        return arb_series(exponent, len(exponent)).exp()


def _inverse(matrix: Coefficients) -> Coefficients:
    """Order by order: `X_k = -X_0 Σ_{i>0} A_i X_{k-i}`."""
    found = [matrix[0].inv()]
    for k in range(1, len(matrix)):
        known = matrix[1] * found[k - 1]
        for i in range(2, k + 1):
            known = known + matrix[i] * found[k - i]
        found.append(-(found[0] * known))
    return found


def _log_determinant(matrix: Coefficients, inverse: Coefficients) -> list[arb]:
    """From `(log det A)' = tr(A⁻¹ A')`."""
    found = [matrix[0].det().log()]
    for k in range(1, len(matrix)):
        slope = arb(0)
        for i in range(1, k + 1):
            product = inverse[k - i] * matrix[i]
            slope += i * sum((product[e, e] for e in range(product.nrows())), arb(0))
        found.append(slope / k)
    return found


def endless_return(chain: GaussianChain, discount: arb) -> arb_series:
    """Return Σ_t γ_L^t E r_L(x_t) over an infinite horizon, enclosed to about the working precision.

    Parameters
    ----------
    chain
        The closed loop, its start, and the reward.
    discount
        γ_L < 1.

    Raises
    ------
    IllPosedError
        If the discount is not below 1.
    UnsupportedError
        If the closed loop is not shown to be stable.
    PrecisionError
        If the precision does not suffice.
    TooLargeError
        If the tail is not small after 200 000 steps.
    """
    if not discount < 1:
        raise IllPosedError("LQR game with horizon=None: expected a discount below 1; pass a horizon")
    loop, noise = _split(chain.loop), _split(chain.noise)
    bound, reward = power_bound(loop), _Reward.of(chain)
    turned = _turned(loop)
    start_mean, start_covariance = _split(chain.mean), _split(chain.covariance)
    mean, covariance = [e.mid() for e in start_mean], [e.mid() for e in start_covariance]
    mean_off = _Neglected.of(
        mean,
        weight=bound.weight,
        any_power=bound.any_power,
        factor=bound.total,
        start=_norm(_difference(start_mean, mean), bound.weight),
    )
    covariance_off = _Neglected.of(
        covariance,
        weight=bound.weight,
        any_power=bound.any_power * bound.any_power,
        factor=bound.total_squares,
        start=_norm(_difference(start_covariance, covariance), bound.weight),
    )

    def tail() -> arb_series | None:
        here = _sum(mean, mean_off.cushion)
        there = _sum(covariance, covariance_off.cushion)
        ahead = _sum(_times(_times(loop, there), turned), noise)
        drift = bound.total_squares * _norm(_difference(ahead, there), bound.weight)
        spread = _sum(there, _cushion(there, drift, bound.weight))
        try:
            later = reward(_cushion(here, bound.any_power * _norm(here, bound.weight), bound.weight), spread)
        except ZeroDivisionError:
            return None  # not yet: the ball is so wide that D + Z may be singular
        return later * arb_series([weight / (1 - discount)], later.prec)

    order = len(loop)
    total, weight, check = arb_series([arb(0)], order), arb(1), 16
    for step in range(1, LARGEST_STEPS + 1):
        try:
            earned = reward(_sum(mean, mean_off.cushion), _sum(covariance, covariance_off.cushion))
        except ZeroDivisionError:
            raise PrecisionError(f"reward: D + Z is not shown to be regular at {ctx.prec} bits") from None
        total = total + earned * arb_series([weight], order)
        weight = weight * discount
        mean = mean_off.step(_times(loop, mean))  # (1)
        covariance = covariance_off.step(_sum(_times(_times(loop, covariance), turned), noise))
        if step == check:
            check += max(16, step // 16)
            rest = tail()
            if rest is not None and _is_small(rest, total, order):
                return total + rest
    raise TooLargeError(
        f"LQR game with horizon=None: the tail after {LARGEST_STEPS} steps is not negligible at {ctx.prec} bits; ask "
        "for fewer digits, lower the discount or pass a horizon"
    )


def _is_small(rest: arb_series, total: arb_series, order: int) -> bool:
    """Whether the tail's uncertainty is below what is asked of, or already lost in, each coefficient of the sum."""
    highest = largest(total[k] for k in range(order))
    for k in range(order):
        radius, size = rest[k].rad(), total[k]
        if not rest[k].is_finite():
            return False
        asked = upper(size) * arb(2) ** (_SPARE_BITS - ctx.prec)
        lost = total[k].rad() + highest * arb(2) ** (16 - ctx.prec)
        if not (radius <= asked or radius <= lost):
            return False
    return True
