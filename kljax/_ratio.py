"""A row at one log-ratio t = log p/q of any sign and size: what bounds and estimates from samples are made of.

The functions of a row take u = p/q <= 1; where u > 1 they are those of its mirror at v = 1/u: f(u) = u r(v).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _num
from kljax._points import mirror
from kljax.rows import Row


@jax.custom_jvp
def slope(row: Row, t: Array) -> Array:
    """f'(e^t), which is r(v) - v r'(v) at v = e^-t where t > 0: a sum of terms of one sign."""
    s, power = -jnp.abs(t), _power(row, t)
    held, grown = _cut(s, jnp.maximum(power, 0), 0)
    cut, rest = _cut(s, power, 1)
    product = jnp.exp(cut) * row.dr(cut, _num.expm1(cut), *row.args) * rest
    far = row.r(held, _num.expm1(held), *row.args) * grown - product
    near, end = row.df(s, _num.expm1(s), *row.args), (-jnp.inf * jnp.ones_like(t), -jnp.ones_like(t))
    # where the f of a user's own row overflows, its limit
    far = jnp.where(jnp.isnan(far), row.r(*end, *row.args), far)
    near = jnp.where(jnp.isnan(near), row.df(*end, *row.args), near)
    return jnp.where(t <= 0, near, jnp.where(t > 0, far, jnp.nan))


@slope.defjvp
def _(primals, tangents):
    (row, t), value = primals, slope(*primals)
    s = jnp.where(jnp.isfinite(t), -jnp.abs(t), 0)
    # the slopes are safe to differentiate, as f and r are not: u f''(u), and v^2 r''(v) where u > 1
    cut, rest = _cut(s, _power(row, t), 1)
    rate = jnp.where(t <= 0, _rate(row.df, s, row), jnp.exp(cut) * _rate(row.dr, cut, row) * rest)
    rate = jnp.where(jnp.isfinite(rate) & jnp.isfinite(t), rate, 0)
    along = jnp.where(jnp.isinf(value) & jnp.isfinite(t), _num.slope_limit(t), rate) * tangents[1]
    for i, step in enumerate(tangents[0].args):
        along += _num.rate(partial(_moved, row, i, t), row.args[i]) * step
    return value, along


def _moved(row: Row, i: int, t: Array, value: Array) -> Array:
    """The slope with another value of the row's parameter i."""
    return slope.fun(replace(row, args=(*row.args[:i], value, *row.args[i + 1 :])), t)


def _rate(function: Callable[..., Array], s: Array, row: Row) -> Array:
    """The derivative of one of the row's slopes in s = log u."""
    return jax.jvp(lambda s: function(s, _num.expm1(s), *row.args), (s,), (jnp.ones_like(s),))[1]


def _power(row: Row, like: Array) -> Array:
    """The k of `Row.growth`: r(v), v r'(v) and v^2 r''(v) go like v^-k as v -> 0."""
    k = 0.0 if row.growth is None else row.growth(*row.args)[1]
    return jnp.broadcast_to(jnp.asarray(k).astype(like.dtype), like.shape)


def _cut(s: Array, power: Array, more: int) -> tuple[Array, Array]:
    """s, no lower than where e^-((power + more) s) still is a float, and the e^-(power s) that this leaves out."""
    steep = jnp.maximum(power, 0) + more
    least = _num.exp_limit(s) / jnp.where(steep > 0, steep, 1)
    least = lax.reduce_precision(least, 11 if s.dtype == jnp.float64 else 8, 7)  # so that its difference to s is exact
    held = jnp.maximum(s, jnp.where(steep > 0, -least, -jnp.inf))
    left = jnp.where((power == 0) | (held == s), 0, held - s)  # 0 * inf at s = -inf, inf - inf
    return held, _num.exp_product(power, left)


def term(row: Row, t: Array) -> Array:
    """f(e^t) >= 0."""
    low, high = _terms(row, t)
    return jnp.where(t <= 0, low, jnp.exp(jnp.maximum(t, 0)) * high)


def _terms(row: Row, t: Array) -> tuple[Array, Array]:
    s = -jnp.abs(t)
    return row.f(s, _num.expm1(s), *row.args), row.r(s, _num.expm1(s), *row.args)


def elasticity(row: Row, t: Array) -> Array:
    """u f'(u) at u = e^t, the derivative of `term` in t."""
    product = jnp.exp(t) * slope(row, t)
    return jnp.where(jnp.isfinite(product), product, term(row, t) - slope(mirror(row), -t))


@jax.custom_jvp
def share(row: Row, t: Array) -> Array:
    """2 f(u) / (1 + u) at u = e^t: what a draw from (p + q)/2 tells of D(p, q); bounded where f and r are."""
    low, high = _terms(row, t)
    return 2 * jnp.where(t <= 0, low, high) / (1 + jnp.exp(-jnp.abs(t)))


@share.defjvp
def _(primals, tangents):
    row, t = primals
    value, v = share(row, t), jnp.exp(-jnp.abs(t))
    rising = elasticity(row, jnp.minimum(t, 0))
    falling = -elasticity(mirror(row), jnp.minimum(-t, 0))
    own = 2 * jnp.where(t <= 0, rising, falling) / (1 + v)
    rate = own - jnp.where(t <= 0, value, -value) * v / (1 + v)
    return value, jnp.where(jnp.isfinite(rate), rate, 0) * tangents[1]
