"""Matrices of divergences of independent Gaussians that are matrix products: those quadratic in the means and scales.

D(p, q) is a sum over features of p times features of q, and a number of each; the rest is as in `_products.py`. Pairs
that are near, or whose means are far from 0 for their scales, are not sure of their digits.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from kljax import _num, _two
from kljax._normal import LogScaleNormal
from kljax._prepared import sum_of
from kljax._products import Factor, factor, multiplied, sure

NAMES = ("kl", "reverse_kl", "jeffreys", "cross_entropy", "wasserstein2")
_CHUNK = 64  # precisions differ much from one coordinate to another: the more digits


class Side(NamedTuple):
    """Rows that may stand on either side."""

    left: Factor
    right: Factor
    first: _two.Two  # what a row adds where it is p, `[n, 1]`
    second: _two.Two  # and where it is q
    valid: Array


def side(name: str, p: Any) -> Side:
    """Features of means and scales `[n, D]`."""
    m, s = _exactly(p.loc), _exactly(p[1])
    log_scale = _exactly(p.log_scale) if isinstance(p, LogScaleNormal) else _two.log(p.scale)
    s = _two.exp(s) if isinstance(p, LogScaleNormal) else s
    valid = jnp.isfinite(p[1]) & (s[0] >= _num.tiny(s[0])) & (p.loc == p.loc)
    valid = jnp.all(valid, -1, keepdims=True)
    squares = _two.times(m, m), _two.times(s, s)
    if name == "wasserstein2":
        each = _joined(m, s)
        both = sum_of(*_joined(*squares))
        return Side(factor(each, _CHUNK), factor(_scaled(each, -2.0), _CHUNK), both, both, valid)
    precision = _two.over(_exactly(jnp.full_like(s[0], 0.5)), squares[1])  # half of it
    pull = _two.times(_scaled(m, -2.0), precision)
    left, right = factor(_joined(*squares, m), _CHUNK), factor(_joined(precision, precision, pull), _CHUNK)
    logs, lengths = sum_of(*log_scale), sum_of(*_two.times(squares[0], precision))
    half = jnp.full_like(logs[0], p.loc.shape[-1] / 2)
    if name == "cross_entropy":
        first = _two.times(_exactly(half), _two.log(jnp.full_like(half, 2 * math.pi)))
    else:
        first = _num.two_sum(_scaled(logs, -1.0), _exactly(-half))
    return Side(left, right, first, _num.two_sum(logs, lengths), valid)


def tile(name: str, x: Side, y: Side) -> tuple[Array, Array, Array]:
    """The values, whether they are sure, and where there are any."""
    valid = x.valid & y.valid.T
    if name == "reverse_kl":
        value, error = (part.T for part in _one(y, x))
    else:
        value, error = _one(x, y)
    if name == "jeffreys":
        other = _one(y, x)
        value, error = value + other[0].T, error + other[1].T
    known = sure(jnp.abs(value) if name == "cross_entropy" else value, error)
    return jnp.sqrt(jnp.where(known, value, 1)) if name == "wasserstein2" else value, known, valid


def _one(x: Side, y: Side) -> tuple[Array, Array]:
    total, error = multiplied(x.left, y.right)
    rest = _num.two_sum(x.first, (y.second[0].T, y.second[1].T))
    return sum(_num.two_sum(total, rest)), error


def _exactly(x: Array) -> _two.Two:
    return x, jnp.zeros_like(x)


def _joined(*parts: _two.Two) -> _two.Two:
    high, low = (jnp.concatenate(same, -1) for same in zip(*parts, strict=True))
    return high, low


def _scaled(x: _two.Two, c: float) -> _two.Two:
    return c * x[0], c * x[1]  # c a power of 2, or -1
