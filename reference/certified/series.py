"""Truncated power series in one direction of θ with ball coefficients, and matrices of them.

`θ(t) = θ + t e_j`: the coefficient of t in the objective is a derivative, twice that of t² a curvature, and with θ
itself a ball both hold over a whole box. Solutions of equations are carried order by order, so that nothing but the
equation and one linear solve per order is needed; this is independent of all adjoint forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from flint import arb, arb_mat, arb_series

from bilevelrl.reference.certified.balls import ball, peak
from bilevelrl.reference.certified.closed_form import ClosedForm, ClosedFormTable
from bilevelrl.reference.errors import PrecisionError

__all__ = [
    "Matrix",
    "coefficient_matrix",
    "constant",
    "feature_series",
    "frozen",
    "identity",
    "inverse",
    "matrix_of",
    "minus",
    "plus",
    "product",
    "scaled",
    "table_series",
    "tables_series",
    "trace",
    "transpose",
]

Matrix: TypeAlias = list[list[arb_series]]


def constant(value: arb, order: int) -> arb_series:
    """Return a series of `order` coefficients without a slope."""
    return arb_series([value], order)


def frozen(series: arb_series, order: int) -> arb_series:
    """Return the series' value at t = 0, without a slope."""
    return arb_series([series[0]], order)


def feature_series(problem: ClosedForm, theta: Sequence[arb], direction: Sequence[arb], order: int) -> list[arb_series]:
    """Return φ(θ + t · direction)."""
    features: list[arb_series] = []
    for block in problem.features:
        start = len(features)
        moved = [
            arb_series([theta[j] + ball(offset), direction[j]], order)
            for j, offset in enumerate(block.offset, start=start)
        ]
        features += linked(block.link, moved, order)
    return features


def linked(link: str, arguments: Sequence[arb_series], order: int) -> list[arb_series]:
    """Send a row of series through a link."""
    one = constant(arb(1), order)
    if link == "identity":
        return list(arguments)
    if link == "sigmoid":
        return [one / (one + (-z).exp()) for z in arguments]
    if link == "tanh":
        return [one - (one + one) / (one + (z + z).exp()) for z in arguments]
    shift = constant(peak([z[0] for z in arguments]), order) if link == "softmax" else one
    weights = [(z - shift).exp() for z in arguments] if link == "softmax" else list(arguments)
    mass = sum(weights, constant(arb(0), order))
    return [w / mass for w in weights]


def table_series(table: ClosedFormTable, features: Sequence[arb_series], order: int) -> list[arb_series]:
    """Return the table's entries in C order."""
    zero = constant(arb(0), order)
    entries = [zero] * table.size
    for place, number in table.base.items():
        entries[place] = constant(ball(number), order)
    for place, j, number in table.slope:
        entries[place] = entries[place] + features[j] * constant(ball(number), order)
    for place, i, j, number in table.quadratic:
        entries[place] = entries[place] + features[i] * features[j] * constant(ball(number), order)
    chosen = set(range(table.size)) if table.support is None else set(table.support)
    for row in range(table.rows):
        places = [e for e in range(row * table.width, (row + 1) * table.width) if e in chosen]
        whole = table.link != "normalise" or any(not entries[e][0].is_zero() for e in places)
        values = linked(table.link, [entries[e] for e in places], order) if places and whole else []
        entries[row * table.width : (row + 1) * table.width] = [zero] * table.width
        for e, value in zip(places, values, strict=False):
            entries[e] = value * constant(ball(table.row_scale(row)), order)
    return entries


def tables_series(
    problem: ClosedForm, theta: Sequence[arb], direction: Sequence[arb], order: int
) -> dict[str, list[arb_series]]:
    """Return all tables along a direction."""
    features = feature_series(problem, theta, direction, order)
    return {name: table_series(table, features, order) for name, table in problem.tables.items()}


def matrix_of(problem: ClosedForm, entries: Mapping[str, Sequence[arb_series]], name: str) -> Matrix:
    """Return a table as a matrix; vectors become columns, numbers 1 × 1."""
    shape = problem.tables[name].shape
    columns = shape[1] if len(shape) == 2 else 1
    rows = len(entries[name]) // columns
    return [list(entries[name][i * columns : (i + 1) * columns]) for i in range(rows)]


def identity(size: int, order: int) -> Matrix:
    """Return I."""
    return [[constant(arb(int(i == j)), order) for j in range(size)] for i in range(size)]


def product(left: Matrix, *others: Matrix) -> Matrix:
    """Return the product of several matrices."""
    for right in others:
        order = left[0][0].prec
        columns = list(zip(*right, strict=True))
        left = [
            [sum((x * y for x, y in zip(row, column, strict=True)), constant(arb(0), order)) for column in columns]
            for row in left
        ]
    return left


def plus(left: Matrix, *others: Matrix) -> Matrix:
    """Return the sum of several matrices."""
    for right in others:
        left = [[x + y for x, y in zip(a, b, strict=True)] for a, b in zip(left, right, strict=True)]
    return left


def minus(left: Matrix, right: Matrix) -> Matrix:
    """Return left - right."""
    return [[x - y for x, y in zip(a, b, strict=True)] for a, b in zip(left, right, strict=True)]


def scaled(factor: arb, matrix: Matrix) -> Matrix:
    """Return factor · matrix."""
    by = constant(factor, matrix[0][0].prec)
    return [[by * entry for entry in row] for row in matrix]


def transpose(matrix: Matrix) -> Matrix:
    """Return the transpose."""
    return [list(row) for row in zip(*matrix, strict=True)]


def trace(matrix: Matrix) -> arb_series:
    """Return the sum of the diagonal."""
    return sum((matrix[i][i] for i in range(len(matrix))), constant(arb(0), matrix[0][0].prec))


def coefficient_matrix(matrix: Matrix, k: int) -> arb_mat:
    """Return the coefficients of t^k."""
    return arb_mat([[entry[k] for entry in row] for row in matrix])


def inverse(matrix: Matrix) -> Matrix:
    """Return the inverse of a series of matrices: Newton's recursion on the inverse at t = 0.

    Raises
    ------
    PrecisionError
        If the matrix at t = 0 cannot be shown to be regular.
    """
    order, size = matrix[0][0].prec, len(matrix)
    try:
        start = coefficient_matrix(matrix, 0).inv()
    except ZeroDivisionError:
        raise PrecisionError("matrix inverse: not shown to be regular; raise the precision or shrink the box") from None
    found = [[constant(start[i, j], order) for j in range(size)] for i in range(size)]
    twice = scaled(arb(2), identity(size, order))
    known = 1
    while known < order:
        found = product(found, minus(twice, product(matrix, found)))
        known *= 2
    return found
