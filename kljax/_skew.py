"""Jensen-Shannon of any weight over w (1 - w), as functions of the ratio u = e^t, x = u - 1.

Both weights are given, w of the lesser mass and v = 1 - w: of w = 1e-6 what is 1 - (1 - w) is off by 1 %.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _num


def _mixture(t: Array, x: Array, w: Array, v: Array) -> tuple[Array, Array]:
    """m = v + w u over the larger mass, 1 for 0 (u has underflowed and v is 0), and its logarithm."""
    m, near = v + w * _num.ratio(t, x), w * x > -2 / 3
    some = jnp.where(m == 0, 1, m)
    far = jnp.where(m == 0, t, jnp.log(some))
    return some, jnp.where(near, _num.log1p(jnp.where(near, w * x, 0)), far)


def parts(t: Array, x: Array, w: Array, v: Array) -> tuple[Array, Array]:
    """KL of the lesser mass to m over v, and of the larger to m over w, with no division by a weight.

    Their sum is the row. The slope of w v times it in w is v times the first less w times the second.
    """
    m, log = _mixture(t, x, w, v)
    near = w * x > -2 / 3
    far = (x * w - log) / jnp.where(near, 1, w)
    y = jnp.where(near, w * x, 0)
    return v * x * x / m * _num.xlogx_gap(v * x / m), jnp.where(near, w * x * x * _num.log1p_gap(y), far)


def value(t: Array, x: Array, w: Array, v: Array) -> Array:
    """The row itself, f of the ratio."""
    lesser, larger = parts(t, x, w, v)
    return lesser + larger


def slope(t: Array, x: Array, w: Array, v: Array) -> Array:
    """log(u/m) / v."""
    m, log = _mixture(t, x, w, v)
    y = _num.quotient(v * x, m)
    near = y > -0.5  # at w = 1 this is x/u = 1 - 1/u, the slope of reverse KL
    some = (v > 0) | (_num.ratio(t, x) > 0)
    whole = jnp.where(some, _num.quotient(x, m), -jnp.inf)
    return jnp.where(near, whole * _num.log1p_ratio(jnp.where(near, y, 0)), (t - log) / jnp.where(near, 1, v))


def tail(t: Array, x: Array, w: Array, v: Array) -> Array:
    """What is left of the slope to its limit."""
    safe = jnp.where(w > 0, w, 1)  # w = 0 is KL, whose slope is unbounded: the tail is not used
    u = jnp.exp(t)
    return u / safe * _num.log1p_ratio(v / safe * u)


def of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of one weight, the last argument, and 1 - w."""

    def one(*given):
        return function(*given, 1 - given[-1])

    return one


def flipped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same with the two sides exchanged: its weights are 1 - w and w."""

    def other(*given):
        return function(*given[:-1], 1 - given[-1], given[-1])

    return other


@jax.custom_jvp
def at_an_end(w: Array, term: Array) -> Array:
    """What w (1 - w) times a term is at the ends, 0, with its slope in w there; no value pays for the term."""
    return jnp.zeros_like(w * term)


@at_an_end.defjvp
def _(primals, tangents):
    w, term = primals
    most = _num.slope_limit(term)
    slope = (1 - 2 * w) * jnp.clip(term, -most, most) * tangents[0]
    return at_an_end(w, term), slope + at_an_end(w, tangents[1])


@jax.custom_jvp
def turning(w: Array, slope: Array) -> Array:
    """0, with a slope in w that is given; what the value beside it depends on w for is to be a constant."""
    return jnp.zeros_like(w * slope)


@turning.defjvp
def _(primals, tangents):
    return turning(*primals), primals[1] * tangents[0]


def bend(y: Array, u: Array) -> Array:
    """xlogx_gap(y) - 1/2, about -y/6, for u = 1 + y >= 0 as in `_num.xlogx_mean`; a y of 1e30 is not squared."""
    near = (y > -2 / 3) & (y < 2)
    z, f = jnp.where(near, y, 0), jnp.where(near, 1, y)
    s = _num.over(z, 2 + z)
    inner = s * ((1 + s) * _num.atanh_remainder(s) - (2 + z) / 2) / (2 + z)
    return jnp.where(near, inner, _num.quotient(_num.xlogx_mean(f, jnp.where(near, 2, u)), f) - 0.5)


def weighted(function: Callable[..., Array]) -> Callable[..., Array]:
    """The same times w (1 - w), and 0 at the ends, where the function may be infinite."""

    def times(t, x, w):
        c, term = w * (1 - w), function(t, x, w)
        return jnp.where(c > 0, c * term, jnp.where(c == 0, at_an_end(w, term), jnp.nan))

    return times
