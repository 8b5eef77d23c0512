"""What log Gamma is beside x log x - x, and its derivatives: what entropies are made of beside logarithms."""

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _num
from kljax._jensen import STIRLING, rest_gap, shifts, stirling_terms

_HALF_LOG_2PI = 0.9189385332046727


@jax.custom_jvp
def rest(x: Array) -> Array:
    """log Gamma(x) - x log x + x for x > 0."""
    shift, terms = stirling_terms(x)
    at = shifts(x, shift)
    y = 1 / at
    far = jnp.where(y < 2, 1, at)  # y may be so large that its square overflows
    terms_of = jnp.where(y < 2, y * _num.xlogx_gap(jnp.where(y < 2, y, 0)), (far + 1) * jnp.log((far + 1) / far) - 1)
    total = _HALF_LOG_2PI - jnp.log(x + shift) / 2 + jnp.sum(terms_of, -1)
    u = 1 / (x + shift)
    return total + sum(c * u ** (2 * k + 1) for k, c in enumerate(STIRLING[:terms]))


@jax.custom_jvp
def rest_slope(x: Array) -> Array:
    """Its derivative, digamma(x) - log(x) < 0."""
    shift, terms = stirling_terms(x)
    y = 1 / shifts(x, shift)
    near = y < 2
    far = jnp.where(near, 1, y)
    total = -jnp.sum(jnp.where(near, y * y * _num.log1p_gap(jnp.where(near, y, 0)), far - jnp.log(1 + far)), -1)
    u = 1 / (x + shift)
    return total - u / 2 - sum((2 * k + 1) * c * u ** (2 * k + 2) for k, c in enumerate(STIRLING[:terms]))


def rest_curvature(x: Array) -> Array:
    """Its second derivative, trigamma(x) - 1/x > 0."""
    shift, terms = stirling_terms(x)
    at = shifts(x, shift)
    total = jnp.sum(1 / at / at / (at + 1), -1)
    u = 1 / (x + shift)
    series = sum((2 * k + 1) * (2 * k + 2) * c * u ** (2 * k + 1) for k, c in enumerate(STIRLING[:terms]))
    return total + u * u * (0.5 + series)


@rest.defjvp
def _(primals, tangents):
    return rest(*primals), rest_slope(*primals) * tangents[0]


@rest_slope.defjvp
def _(primals, tangents):
    return rest_slope(*primals), rest_curvature(*primals) * tangents[0]


def rest_fall(x: Array, y: Array, c: Array) -> Array:
    """rest(y) - rest(x) for x = y + c, c >= 0, as rest is convex and falls."""
    return rest_gap(x, y, -c, jnp.ones_like(x)) - c * rest_slope(x)
