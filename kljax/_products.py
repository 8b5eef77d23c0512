"""Matrices of divergences that are matrix products: kl and its kin, and those of one sum of p^a q^(1-a).

A plain product loses what pairs that are near have in common, and a good part of the digits of all others. So each
factor is split: the high part is a multiple of a power of two with so few digits that products of 1024 outcomes are
exact sums, the low part is what is left, and three products make one. What rounding may have cost is bounded from the
sizes of the rows; a pair whose value is not far above that bound is not `sure`, and is worked out otherwise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from kljax import _num, _two
from kljax._prepared import Prepared, Rows, sum_of

CHUNK = 1024  # outcomes whose products of high parts have an exact sum
_LOSS = 8.0  # the rounding of a product of low parts, in eps of the sum of its terms' sizes
_ALLOWED = 4.0  # eps of a value that the rounding of products may use up


class Factor(NamedTuple):
    """Rows of one side of a product, `[n, chunks, outcomes]`, and numbers `[n, chunks]` that bound its rounding."""

    high: Array
    low: Array
    step: Array  # the largest size of `low`
    size: Array  # the sum of sizes


class Side(NamedTuple):
    """Rows that may stand on either side."""

    left: Factor
    right: Factor
    own: _two.Two  # sum of p log p, `[n, 1]`
    excess: Array  # the sum of the masses less one
    entropy: Array


class Product(NamedTuple):
    """A cell as a product: from rows to a side, and from two sides to the values and whether they are sure."""

    side: Callable[[Rows], Side]
    tile: Callable[[Side, Side], tuple[Array, Array]]


def factor(x: _two.Two, chunk: int = CHUNK) -> Factor:
    """Rows as a factor of products, so many outcomes at a time: the fewer, the more digits a high part may have."""
    bits = (int(jnp.finfo(x[0].dtype).nmant) + 1 - (chunk - 1).bit_length()) // 2
    chunk = min(chunk, x[0].shape[-1])
    fill = [(0, 0), (0, -x[0].shape[-1] % chunk)]
    whole, rest = (jnp.pad(part, fill).reshape(len(part), -1, chunk) for part in x)
    size = jnp.abs(whole)
    top = jnp.max(size, -1, keepdims=True)
    step = _num.power_of_two(jnp.where(top > 0, top, 1)) * 2.0 ** (1 - bits)
    high = jnp.round(whole / step) * step
    return Factor(high, (whole - high) + rest, step[..., 0] / 2, jnp.sum(size, -1))


def _dot(x: Array, y: Array) -> Array:
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)


def multiplied(x: Factor, y: Factor) -> tuple[_two.Two, Array]:
    """The products of all rows in two parts, `[n, m]`, and a bound of their error."""

    def add(total, parts):
        high, low, other_high, other_low = parts
        rest = _dot(high, other_low) + _dot(low, other_high + other_low)
        return _num.two_sum(total, (_dot(high, other_high), rest)), None

    chunks = [jnp.moveaxis(part, 1, 0) for part in (*x[:2], *y[:2])]
    total, _ = add((jnp.zeros((), x.high.dtype),) * 2, [part[0] for part in chunks])
    if len(chunks[0]) > 1:
        total, _ = lax.scan(add, total, [part[1:] for part in chunks])
    loss = _LOSS * float(jnp.finfo(x.high.dtype).eps)
    return total, loss * (_dot(x.size, y.step) + _dot(x.step, y.size))


def sure(value: Array, error: Array) -> Array:
    """Whether rounding by `error` leaves a value its digits."""
    return jnp.isfinite(value) & (error <= _ALLOWED * float(jnp.finfo(value.dtype).eps) * value)


def logarithmic(name: str, prepared: Prepared) -> Product:
    """kl, reverse_kl, jeffreys and cross_entropy: sum of p log p - sum of p log q, the logarithms from log 1/K."""

    def side(rows: Rows) -> Side:
        p, log = prepared.masses(rows)
        some = p[0] > 0
        far = jnp.where(some, log[0], 0), jnp.where(some, log[1], 0)
        shift = _two.log(jnp.full((1, 1), p[0].shape[-1], p[0].dtype))
        far = _two.whole(_num.two_sum(far, shift))
        each = _two.times(p, far)
        # no product knows what is infinite: where q has no mass nothing is sure
        right = jnp.where(some, far[0], jnp.nan), far[1]
        own = sum_of(*each)
        return Side(factor(p), factor(right), own, _excess(p), (shift[0] - own[0]) + (shift[1] - own[1]))

    def one(x: Side, y: Side) -> tuple[Array, Array]:
        (high, low), error = multiplied(x.left, y.right)
        first, rest = _num.two_difference(x.own[0], high)
        return first + (rest + (x.own[1] - low) - (x.excess - y.excess.T)), error

    def tile(x: Side, y: Side) -> tuple[Array, Array]:
        if name == "reverse_kl":
            value, error = one(y, x)
            return value.T, sure(value, error).T
        value, error = one(x, y)
        if name == "jeffreys":
            other = one(y, x)
            value, error = value + other[0].T, error + other[1].T
        if name == "cross_entropy":
            value = value + x.entropy
            error = error + float(jnp.finfo(value.dtype).eps)  # a normaliser's, which the entropy does not cancel
        return value, sure(value, error)

    return Product(side, tile)


def _excess(p: _two.Two) -> Array:
    total = sum_of(*p)
    return (total[0] - 1) + total[1]


def power(name: str, prepared: Prepared, order: Any) -> Product:
    """The cells of S = sum of p^a q^(1-a), by 1 - S, which a (sum p - 1) + (1 - a) (sum q - 1) corrects."""

    def raised(log: _two.Two, a: Array) -> Factor:
        some = log[0] > -jnp.inf
        first, rest = (jnp.where(some, part, 0) for part in log)
        high, low = _two.exp(_two.whole(_two.times((first, rest), (a, jnp.zeros_like(a)))))
        return factor((jnp.where(some, high, jnp.where(a > 0, 0, jnp.nan)), jnp.where(some, low, 0)))

    def orders(like: Array) -> tuple[Array, Array]:
        a = jnp.asarray(order).astype(like.dtype).reshape(1, 1)
        return a, 1 - a

    def side(rows: Rows) -> Side:
        p, log = prepared.masses(rows)
        a, b = orders(p[0])
        left = raised(log, jnp.broadcast_to(a, p[0].shape))
        right = raised(log, jnp.broadcast_to(b, p[0].shape))
        zero = jnp.zeros_like(rows.mass)
        return Side(left, right, (zero, zero), _excess(p), zero)

    def tile(x: Side, y: Side) -> tuple[Array, Array]:
        (high, low), error = multiplied(x.left, y.right)
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

    return Product(side, tile)
