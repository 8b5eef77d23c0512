"""Jensen-Shannon of any weight over w (1 - w), as functions of the ratio u = e^t, x = u - 1.

Both weights are given, w of the lesser mass and v = 1 - w: of w = 1e-6 what is 1 - (1 - w) is off by 1 %.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _num


def _log_mixture(t: Array, x: Array, w: Array, v: Array) -> Array:
    """log(v + w u), the mixture m over the larger mass; by two logarithms where u may have underflowed."""
    near = w * x > -2 / 3
    far = jnp.logaddexp(jnp.log(jnp.where(near, 1, v)), jnp.log(jnp.where(near, 1, w)) + jnp.where(near, 0, t))
    return jnp.where(near, _num.log1p(jnp.where(near, w * x, 0)), far)


def value(t: Array, x: Array, w: Array, v: Array) -> Array:
    """KL of each side to m = v + w u, with no division by a weight."""
    near = w * x > -2 / 3
    y = jnp.where(near, w * x, 0)
    from_q = w * x * x * _num.log1p_gap(y)
    far = (x * w - _log_mixture(t, x, w, v)) / jnp.where(near, 1, w)
    m = v + w * _num.ratio(t, x)
    to_p = v * x * x / jnp.where(m > 0, m, 1)  # m = 0 only where w = 1, and there the term is 0
    return to_p * _num.xlogx_gap(v * x / jnp.where(m > 0, m, 1)) + jnp.where(near, from_q, far)


def slope(t: Array, x: Array, w: Array, v: Array) -> Array:
    """log(u/m) / v."""
    m = v + w * _num.ratio(t, x)
    y = _num.quotient(v * x, jnp.where(m > 0, m, 1))
    near = y > -0.5  # at w = 1 this is x/u = 1 - 1/u, the slope of reverse KL
    far = (t - _log_mixture(t, x, w, v)) / jnp.where(near, 1, v)
    whole = jnp.where(m > 0, _num.quotient(x, jnp.where(m > 0, m, 1)), -jnp.inf)
    return jnp.where(near, whole * _num.log1p_ratio(jnp.where(near, y, 0)), far)


def tail(t: Array, x: Array, w: Array, v: Array) -> Array:
    """What is left of the slope to its limit."""
    safe = jnp.where(w > 0, w, 1)  # w = 0 is KL, whose slope is unbounded: the tail is not used
    u = jnp.exp(t)
    return u / safe * _num.log1p_ratio(v / safe * u)


def of(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function of the weight of the lesser mass alone."""

    def one(t, x, w):
        return function(t, x, w, 1 - w)

    return one


def flipped(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function of the weight of the larger mass alone: what r is to f in a skewed row."""

    def other(t, x, w):
        return function(t, x, 1 - w, w)

    return other


@jax.custom_jvp
def at_an_end(w: Array, term: Array) -> Array:
    """What w (1 - w) times a term is at the ends, 0, with its slope in w there; no value pays for the term."""
    return jnp.zeros_like(w * term)


@at_an_end.defjvp
def _(primals, tangents):
    w, term = primals
    most = _num.slope_limit(term)
    return at_an_end(w, term), (1 - 2 * w) * jnp.clip(term, -most, most) * tangents[0]


def weighted(function: Callable[..., Array]) -> Callable[..., Array]:
    """The same times w (1 - w), and 0 at the ends, where the function may be infinite."""

    def times(t, x, w):
        c, term = w * (1 - w), function(t, x, w)
        return jnp.where(c > 0, c * term, jnp.where(c == 0, at_an_end(w, term), jnp.nan))

    return times
