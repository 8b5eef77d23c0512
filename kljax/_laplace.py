"""Two Laplace distributions: no exponential family unless they share a location, and still a closed form.

With u = D a / b_p and v = D (1 - a) / b_q, D the distance of the locations, the integral of p^a q^(1-a) is that of two
Laplace distributions of one location times (u e^-v - v e^-u) / (u - v) = 1 - u v V, V > 0 a mean of exponentials.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from kljax import _num
from kljax._jensen import log_gap, log_over, rule, within


class Laplace(NamedTuple):
    """Density e^(-|x - loc| / scale) / (2 scale), both `[...]`."""

    loc: Array
    scale: Array


def _ends(x: Array, y: Array, d: Array, a: Array) -> tuple[Array, Array, Array]:
    """The smaller of u and v, the larger, and whether u is the larger, at inverse scales x, y."""
    u, v = a * (_num.magnitude(d) * x), (1 - a) * (_num.magnitude(d) * y)
    turned = u >= v
    return jnp.where(turned, v, u), jnp.where(turned, u, v), turned


def _shift_value(x: Array, y: Array, d: Array, a: Array) -> Array:
    """-log((u e^-v - v e^-u) / (u - v)) / (a (1 - a))."""
    lo, hi, _ = _ends(x, y, d, a)
    width = hi - lo
    inner = _num.exp_ratio(-width)
    near = (lo < 1) & (lo > -0.5)
    s, w = jnp.where(near, lo, 0), jnp.where(near, width, 1)
    some = jnp.where(s + w > 0, s + w, 1)
    mean = jnp.exp(-s) * (s * _num.exp_remainder(s) + w * _num.exp_remainder(-w)) / some
    mean = jnp.where(s + w > 0, mean, 0.5)
    product = jnp.where(near, lo * hi * mean, 0)
    most = _num.magnitude(d) * jnp.maximum(x, y)  # times the mean, as its square may overflow
    close = (_num.magnitude(d) * jnp.minimum(x, y)) * (most * mean) * _num.log1p_ratio(-product)
    rest = jnp.where(lo > 0, 1 + lo * inner, (hi - lo * jnp.exp(-width)) / jnp.where(width > 0, width, 1))
    far = (lo - jnp.log(jnp.where(near, 1, rest))) / jnp.where(near, 1, a * (1 - a))
    return jnp.where(near, close, far)


def _shift_slopes(x: Array, y: Array, d: Array, a: Array) -> tuple[Array, Array, Array]:
    lo, hi, turned = _ends(x, y, d, a)
    width = hi - lo
    inner = _num.exp_ratio(-width)
    rest = jnp.where(lo > 0, 1 + lo * inner, (hi - lo * jnp.exp(-width)) / jnp.where(width > 0, width, 1))
    rest = jnp.where(width > 0, rest, 1 + lo)
    small = jnp.where(width < 1, width, 0)
    far = jnp.where(width < 1, 1, width)  # both means are times it: they fall as its square, which underflows
    low = far * _num.exp_remainder(-width) / rest
    high = jnp.where(width < 1, jnp.exp(-small) * _num.exp_remainder(small), (1 - jnp.exp(-far)) / far - jnp.exp(-far))
    high = high / rest
    along_u, along_v = jnp.where(turned, high, low), jnp.where(turned, low, high)
    over_d = (d * jnp.maximum(x, y) / far) * (along_u + along_v) * jnp.minimum(x, y)
    return (d * y) * ((d / far) * along_u), (d * x) * ((d / far) * along_v), over_d


def _value(x, y, d, h, a):
    return _shift_value(x, y, d, a)


def _slopes(x, y, d, h, a):
    return _shift_slopes(x, y, d, a)


_shift_gap = rule(_value, _slopes)


def gap(p: Laplace, q: Laplace, a: Array) -> Array:
    x, y, d = p.scale, q.scale, p.loc - q.loc
    outside, a = within(a, (y, x, x - y))
    value = log_gap(y, x, x - y, a) + _shift_gap(1 / x, 1 / y, d, jnp.zeros_like(d), a)
    return jnp.where(outside, jnp.inf, value)


def largest(p: Laplace, q: Laplace) -> Array:
    x, y = p.scale, q.scale
    some = jnp.where(x <= y, x, y)
    return jnp.where(x > y, jnp.inf, log_over(y, some) + _num.magnitude(p.loc - q.loc) / y)


def entropy(p: Laplace) -> Array:
    return 1 + jnp.log(2 * p.scale) + 0 * p.loc
