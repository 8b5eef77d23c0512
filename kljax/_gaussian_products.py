"""Matrices of divergences of independent Gaussians that are matrix products: those quadratic in the means and scales.

D(p, q) is a sum over features of p times features of q, and a number of each; the rest is as in `_products.py`. Pairs
that are near, or whose means are far from 0 for their scales, are not sure of their digits.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from kljax import _num, _two
from kljax._normal import LogScaleNormal
from kljax._prepared import sum_of
from kljax._products import Factor, Product, factor, multiplied, sure

NAMES = ("kl", "reverse_kl", "jeffreys", "cross_entropy", "wasserstein2")
_CHUNK = 64  # precisions differ much from one coordinate to another: the more digits


class Side(NamedTuple):
    """Rows of one side."""

    factor: Factor
    own: _two.Two  # what a row adds to all its pairs, `[n, 1]`


def product(name: str) -> Product:
    """A cell as a product: sides are made of a distribution `[n, D]`, not of rows of masses."""
    first, second = partial(_first, name), partial(_second, name)
    if name == "reverse_kl":
        return Product(second, first, _other)
    if name == "jeffreys":
        return Product(_both, _both, _twice)
    return Product(first, second, partial(_one, root=name == "wasserstein2", signed=name == "cross_entropy"))


def valid(p: Any) -> Array:
    """1 where a row has means and scales, 0 where the cell is nan, `[n, 1]`."""
    positive = True if isinstance(p, LogScaleNormal) else p.scale >= _num.tiny(p.scale)
    fine = jnp.isfinite(p[1]) & positive & (p.loc == p.loc)
    return jnp.all(fine, -1, keepdims=True).astype(p.loc.dtype)


def _moments(p: Any) -> tuple[_two.Two, _two.Two, _two.Two]:
    """Mean, scale and its logarithm."""
    m, s = _exactly(p.loc), _exactly(p[1])
    if isinstance(p, LogScaleNormal):
        return m, _two.exp(s), s
    return m, s, _two.log(p.scale)


def _first(name: str, p: Any, slices: int) -> Side:
    m, s, log_scale = _moments(p)
    squares = _two.times(m, m), _two.times(s, s)
    if name == "wasserstein2":
        return Side(factor(_joined(m, s), slices, _CHUNK), sum_of(*_joined(*squares)))
    half = jnp.full_like(m[0][:, :1], p.loc.shape[-1] / 2)
    if name == "cross_entropy":
        own = _two.times(_exactly(half), _two.log(jnp.full_like(half, 2 * math.pi)))
    else:
        own = _num.two_sum(_scaled(sum_of(*log_scale), -1.0), _exactly(-half))
    return Side(factor(_joined(*squares, m), slices, _CHUNK), own)


def _second(name: str, p: Any, slices: int) -> Side:
    m, s, log_scale = _moments(p)
    if name == "wasserstein2":
        side = _first(name, p, slices)
        return side._replace(factor=factor(_scaled(_joined(m, s), -2.0), slices, _CHUNK))
    precision = _two.over(_exactly(jnp.full_like(s[0], 0.5)), _two.times(s, s))  # half of it
    pull = _two.times(_scaled(m, -2.0), precision)
    lengths = sum_of(*_two.times(_two.times(m, m), precision))
    own = _num.two_sum(sum_of(*log_scale), lengths)
    return Side(factor(_joined(precision, precision, pull), slices, _CHUNK), own)


def _both(p: Any, slices: int) -> tuple[Side, Side]:
    return _first("kl", p, slices), _second("kl", p, slices)


def _value(x: Side, y: Side) -> tuple[Array, Array]:
    total, error = multiplied(x.factor, y.factor)
    own = _num.two_sum(x.own, (y.own[0].T, y.own[1].T))
    high, low = _num.two_sum(total, own)
    return high + low, error


def _one(x: Side, y: Side, root: bool = False, signed: bool = False) -> tuple[Array, Array]:
    value, error = _value(x, y)
    known = sure(jnp.abs(value) if signed else value, error)
    return jnp.sqrt(jnp.where(known, value, value * 0)) if root else value, known


def _other(x: Side, y: Side) -> tuple[Array, Array]:
    value, known = _one(y, x)
    return value.T, known.T


def _twice(x: tuple[Side, Side], y: tuple[Side, Side]) -> tuple[Array, Array]:
    first, second = _value(x[0], y[1]), _value(y[0], x[1])
    value = first[0] + second[0].T
    return value, sure(value, first[1] + second[1].T)


def _exactly(x: Array) -> _two.Two:
    return x, jnp.zeros_like(x)


def _joined(*parts: _two.Two) -> _two.Two:
    high, low = (jnp.concatenate(same, -1) for same in zip(*parts, strict=True))
    return high, low


def _scaled(x: _two.Two, c: float) -> _two.Two:
    return c * x[0], c * x[1]  # c a power of 2, or -1
