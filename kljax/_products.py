"""Matrices of divergences that are matrix products: kl and its kin, and those of one sum of p^a q^(1-a).

A plain product loses what pairs that are near have in common, and a good part of the digits of all others. So each
factor is cut into slices: the first are multiples of a power of two with so few digits that products of 1024 outcomes
are exact sums, the last is what is left. Two slices make one product out of three, three out of six. What rounding may
have cost is bounded from the sizes of the rows; a pair whose value is not far above that bound is not `sure`, and is
worked out otherwise.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from kljax import _num, _two
from kljax._fold import hold
from kljax._prepared import Prepared, Rows, sum_of

CHUNK = 1024  # outcomes whose products of slices have an exact sum
_LOSS = 8.0  # the rounding of a product of last slices, in eps of the sum of its terms' sizes
_ALLOWED = 4.0  # eps of a value that the rounding of products may use up


class Factor(NamedTuple):
    """Rows of one side of a product, and numbers `[n, chunks]` that bound its rounding."""

    slices: tuple[Array, ...]  # `[n, chunks, outcomes]`
    step: Array  # the largest size of the last slice
    size: Array  # the sum of sizes


class Product(NamedTuple):
    """A cell as a product: rows of P and of Q in so many slices, and the values of all pairs and whether they are sure.

    Where `first` is `second`, rows are prepared once for both sides.
    """

    first: Callable[[Rows, int], Any]
    second: Callable[[Rows, int], Any]
    tile: Callable[[Any, Any], tuple[Array, Array]]


def factor(x: _two.Two, slices: int, chunk: int = CHUNK) -> Factor:
    """Rows as a factor of products, so many outcomes at a time: the fewer, the more digits a slice may have."""
    bits = (int(jnp.finfo(x[0].dtype).nmant) + 1 - (chunk - 1).bit_length()) // 2
    chunk = min(chunk, x[0].shape[-1])
    fill = [(0, 0), (0, -x[0].shape[-1] % chunk)]
    # once: the compiler would evaluate what makes the rows again for each of their uses
    whole, rest = hold(tuple(jnp.pad(part, fill).reshape(len(part), -1, chunk) for part in x))
    size = jnp.abs(whole)
    top = jnp.max(size, -1, keepdims=True)
    step, cut = _num.power_of_two(jnp.where(top > 0, top, 1)) * 2.0 ** (1 - bits), []
    for _ in range(slices - 1):
        cut.append(jnp.round(whole / step) * step)
        whole, step = whole - cut[-1], step * 2.0**-bits
    return Factor((*cut, whole + rest), step[..., 0] * 2.0 ** (bits - 1), jnp.sum(size, -1))


def _dot(x: Array, y: Array) -> Array:
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)


def multiplied(x: Factor, y: Factor) -> tuple[_two.Two, Array]:
    """The products of all rows in two parts, `[n, m]`, and a bound of their error."""

    def add(total: Any, parts: Any) -> tuple[Any, None]:
        (*left, low), (*right, other) = parts
        rest = _dot(functools.reduce(jnp.add, left), other) + _dot(low, functools.reduce(jnp.add, right, other))
        for a in left:
            for b in right:
                total = _num.two_sum(total, (_dot(a, b), rest))
                rest = 0.0
        return total, None

    chunks = [[jnp.moveaxis(part, 1, 0) for part in side.slices] for side in (x, y)]
    total, _ = add((jnp.zeros((), x.size.dtype),) * 2, [[part[0] for part in side] for side in chunks])
    if x.size.shape[1] > 1:
        total, _ = lax.scan(add, total, [[part[1:] for part in side] for side in chunks])
    loss = _LOSS * float(jnp.finfo(x.size.dtype).eps)
    return total, loss * (_dot(x.size, y.step) + _dot(x.step, y.size))


def sure(value: Array, error: Array) -> Array:
    """Whether rounding by `error` leaves a value its digits."""
    return jnp.isfinite(value) & (error <= _ALLOWED * float(jnp.finfo(value.dtype).eps) * value)


class _Left(NamedTuple):
    factor: Factor
    own: _two.Two  # sum of p log p, `[n, 1]`
    excess: Array  # the sum of the masses less one
    entropy: Array


class _Right(NamedTuple):
    factor: Factor
    excess: Array


def logarithmic(name: str, prepared: Prepared) -> Product:
    """kl, reverse_kl, jeffreys and cross_entropy: sum of p log p - sum of p log q, the logarithms from log 1/K."""

    def left(rows: Rows, slices: int) -> _Left:
        p, log = hold(prepared.masses(rows))
        log, shift = _far((jnp.where(p[0] > 0, log[0], -jnp.inf), log[1]))
        own = sum_of(*_two.times(p, log))
        return _Left(factor(p, slices), own, _excess(p), (shift[0] - own[0]) + (shift[1] - own[1]))

    def right(rows: Rows, slices: int) -> _Right:
        p, log = hold(prepared.masses(rows))
        high, low = _far(log)[0]
        # no product knows what is infinite: where q has no mass nothing is sure
        return _Right(factor((jnp.where(p[0] > 0, high, jnp.nan), low), slices), _excess(p))

    def both(rows: Rows, slices: int) -> tuple[_Left, _Right]:
        return left(rows, slices), right(rows, slices)

    kinds = {"reverse_kl": (right, left, _reverse), "jeffreys": (both, both, _sum_of_both)}
    first, second, found = kinds.get(name, (left, right, _with_entropy if name == "cross_entropy" else _kl))

    def tile(x: Any, y: Any) -> tuple[Array, Array]:
        value, error = found(x, y)
        return value, sure(value, error)

    return Product(first, second, tile)


def _far(log: _two.Two) -> tuple[_two.Two, _two.Two]:
    """Logarithms from log 1/K, and its negative."""
    some = log[0] > -jnp.inf
    shift = _two.log(jnp.full((1, 1), log[0].shape[-1], log[0].dtype))
    parts = jnp.where(some, log[0], 0), jnp.where(some, log[1], 0)
    return _two.whole(_num.two_sum(parts, shift)), shift


def _kl(x: _Left, y: _Right) -> tuple[Array, Array]:
    (high, low), error = multiplied(x.factor, y.factor)
    first, rest = _num.two_difference(x.own[0], high)
    return first + (rest + (x.own[1] - low) - (x.excess - y.excess.T)), error


def _with_entropy(x: _Left, y: _Right) -> tuple[Array, Array]:
    value, error = _kl(x, y)
    # a normaliser's error, which the entropy does not cancel
    return value + x.entropy, error + float(jnp.finfo(value.dtype).eps)


def _reverse(x: _Right, y: _Left) -> tuple[Array, Array]:
    value, error = _kl(y, x)
    return value.T, error.T


def _sum_of_both(x: tuple[_Left, _Right], y: tuple[_Left, _Right]) -> tuple[Array, Array]:
    first, second = _kl(x[0], y[1]), _reverse(x[1], y[0])
    return first[0] + second[0], first[1] + second[1]


def _excess(p: _two.Two) -> Array:
    total = sum_of(*p)
    return (total[0] - 1) + total[1]


def power(name: str, prepared: Prepared, order: Any) -> Product:
    """The cells of S = sum of p^a q^(1-a), by 1 - S, which a (sum p - 1) + (1 - a) (sum q - 1) corrects."""
    half = isinstance(order, float) and order == 0.5

    def raised(rows: Rows, a: Array, slices: int) -> _Right:
        p, log = prepared.masses(rows)
        if half and prepared.exact:
            return _Right(factor(_two.root(p), slices), _excess(p))
        some = log[0] > -jnp.inf
        first, rest = (jnp.where(some, part, 0) for part in log)
        a = jnp.broadcast_to(a, first.shape)
        high, low = _two.exp(_two.whole(_two.times((first, rest), (a, jnp.zeros_like(a)))))
        whole = jnp.where(some, high, jnp.where(a > 0, 0, jnp.nan)), jnp.where(some, low, 0)
        return _Right(factor(whole, slices), _excess(p))

    def orders(like: Array) -> tuple[Array, Array]:
        a = jnp.asarray(order).astype(like.dtype).reshape(1, 1)
        return a, 1 - a

    def first(rows: Rows, slices: int) -> _Right:
        return raised(rows, orders(rows.p)[0], slices)

    def second(rows: Rows, slices: int) -> _Right:
        return raised(rows, orders(rows.p)[1], slices)

    def tile(x: _Right, y: _Right) -> tuple[Array, Array]:
        (high, low), error = multiplied(x.factor, y.factor)
        a, b = orders(high)
        moved = a * x.excess + b * y.excess.T
        gap, rest = (1 - high) - (low - moved), high + (low - moved)
        if name in ("renyi", "bhattacharyya"):
            near = gap < 0.5
            log = jnp.where(near, -_num.log1p(-jnp.where(near, gap, 0)), -jnp.log(jnp.where(near, 1, rest)))
            value, slope = log / b, 1 / (b * rest)
            value, slope = (value / 2, slope / 2) if name == "bhattacharyya" else (value, slope)
        else:
            slope = {"hellinger_sq": 1.0, "chi2": -1.0, "tsallis": 1 / b}.get(name, 1 / (a * b))
            value = gap * slope
        valid = a >= 0 if name in ("renyi", "tsallis") else a == a
        return value, sure(value, error * jnp.abs(slope)) & valid

    return Product(first, first if half else second, tile)
