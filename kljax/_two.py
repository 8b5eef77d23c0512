"""Numbers in two parts, a float and what rounding left of it: for exponents, whose own rounding e^x would magnify."""

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _num

Two = tuple[Array, Array]


plus = _num.two_sum


def whole(x: Two) -> Two:
    """The same number with the nearest float first."""
    first = x[0] + x[1]
    return first, (x[0] - first) + x[1]


def times(a: Two, b: Two) -> Two:
    """a b."""
    high, low = _num.two_product(a[0], b[0])
    return high, low + (a[0] * b[1] + a[1] * b[0])


def over(a: Two, b: Two) -> Two:
    """a / b."""
    first = a[0] / b[0]
    high, low = _num.two_product(first, b[0])
    return first, (((a[0] - high) - low) + (a[1] - first * b[1])) / b[0]


def root(a: Two) -> Two:
    """The square root of a >= 0."""
    first = jnp.sqrt(a[0])
    high, low = _num.two_product(first, first)
    return first, jnp.where(first > 0, (((a[0] - high) - low) + a[1]) / jnp.where(first > 0, 2 * first, 1), 0)


_LOG_2 = ((0.693359375, -2.1219444e-4), (0.6931471803691238, 1.9082149292705877e-10))  # 9 and 21 bits are free


def _log_2(x: Array) -> tuple[float, float]:
    """The logarithm of 2 in two parts, of which the product of an exponent and the first is exact."""
    return _LOG_2[x.dtype == jnp.float64]


def log(x: Array) -> Two:
    """log x: its error is a part of eps, not a part of eps of the logarithm."""
    unit = _num.power_of_two(x)
    k = jnp.round(jnp.log2(unit))
    high, low = _log_2(x)
    return whole(plus((k * high, k * low), (jnp.log(x / unit), jnp.zeros_like(x))))


def exp(x: Two) -> Two:
    """e^x of a float and a small rest, within the range of normal numbers."""
    high, low = _log_2(x[0])
    k = jnp.round(x[0] / high)
    f = x[0] - k * high, x[1] - k * low
    y = f[0] + f[1]
    unit = _num.power_of_two(jnp.exp(k * high))  # not 1: of a sum with a constant the compiler makes another one
    bend = unit * (y * y * _num.exp_remainder(y))
    return whole(plus(plus((unit, 0 * unit), (unit * f[0], unit * f[1])), (bend, 0 * unit)))


def exponent(x: Two) -> Two:
    """The number as a multiple of 2^-14 (of 2^-40 in float64), of which sums are exact, and the small rest."""
    grid = 2.0**40 if x[0].dtype == jnp.float64 else 2.0**14
    coarse = jnp.round(x[0] * grid) / grid
    return coarse, jnp.where(jnp.isfinite(x[0]), (x[0] - coarse) + x[1], 0)


def _exp_of(y: Two) -> Array:
    """e^y; the compiler makes exp(a) exp(b) an exp(a + b), from which the small part is gone."""
    high = jnp.exp(y[0])
    step = high * (y[1] * _num.exp_ratio(y[1]))
    # of an exponent of -1e11 the small part may be 1e3: 0 * inf
    return jnp.where((high > 0) & jnp.isfinite(high), high + step, high)


@jax.custom_jvp
def _exp(gap: Array, c: Array, y: Two) -> Array:
    """e^(-c gap), y being -c gap in two parts: their product and not they carry the tangents."""
    return _exp_of(y)


@_exp.defjvp
def _(primals, tangents):
    gap, c, _ = primals
    value = _exp(*primals)
    return value, -value * (c * tangents[0] + gap * tangents[1])


@jax.custom_jvp
def power(gap: Array, c: Array, y: Two) -> Array:
    """(1 - e^(-c gap)) / c, gap at c = 0, y being -c gap in two parts."""
    near = jnp.abs(y[0]) < 1
    some = jnp.where(near, 1, c)
    far = (1 - _exp_of((jnp.where(near, 0, y[0]), jnp.where(near, 0, y[1])))) / some
    return jnp.where(near, -_num.expm1_over(-jnp.where(near, gap, 0), c), far)


@power.defjvp
def _(primals, tangents):
    gap, c, y = primals
    value = power(*primals)
    ok = jnp.isfinite(value) & jnp.isfinite(gap)  # an infinite value or a constant one: inf * 0 otherwise
    gap, c = jnp.where(ok, gap, 0), jnp.where(ok, c, 0)
    slope = jnp.where(ok, _exp(gap, c, tuple(jnp.where(ok, part, 0) for part in y)), 0)
    return value, slope * tangents[0] - gap * gap * _num.exp_ratio_slope(-c * gap) * tangents[1]
