"""The families whose log-normaliser is made of logarithms, masses and log Gamma, as functions for `expfam`.

Each family has the gap of two members (see `affinity`), the supremum of log(p/q), which is the Renyi divergence of
order inf, and its entropy. All take checked members: arrays of one dtype and batch, nan where a parameter is not one.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from kljax import _num
from kljax._jensen import (
    cross,
    log1p_over,
    log_gap,
    log_over,
    mass_gap,
    mix,
    perspective_gap,
    rest_drop,
    rest_gap,
    within,
)
from kljax._rest import rest, rest_slope


class Bernoulli(NamedTuple):
    """An outcome that is 1 with log-odds `logits` `[...]`; -inf and inf are certainty."""

    logits: Array


class Categorical(NamedTuple):
    """One of K outcomes with unnormalised log-weights `logits` `[..., K]`; -inf is no mass."""

    logits: Array


class Poisson(NamedTuple):
    """Counts of mean `rate` `[...]` >= 0; at rate 0 all mass is at 0."""

    rate: Array


class Geometric(NamedTuple):
    """Failures before the first success, which comes with probability `probs` `[...]` in (0, 1]."""

    probs: Array


class Exponential(NamedTuple):
    """Waiting times of density r e^(-r x), r = `rate` `[...]`."""

    rate: Array


class Gamma(NamedTuple):
    """Density proportional to x^(a - 1) e^(-b x), a = `concentration`, b = `rate`, both `[...]`."""

    concentration: Array
    rate: Array


class InverseGamma(NamedTuple):
    """Density proportional to x^(-a - 1) e^(-b/x), a = `concentration`, b = `scale`, both `[...]`."""

    concentration: Array
    scale: Array


class Beta(NamedTuple):
    """Density proportional to x^(a - 1) (1 - x)^(b - 1), a = `concentration1`, b = `concentration0`, both `[...]`."""

    concentration1: Array
    concentration0: Array


class Dirichlet(NamedTuple):
    """Density proportional to the product of x_i^(a_i - 1) on the simplex, a = `concentration` `[..., K]`."""

    concentration: Array


def _exponential_gap(p: Exponential, q: Exponential, a: Array) -> Array:
    x, y = p.rate, q.rate
    outside, a = within(a, (x, y, y - x))
    return jnp.where(outside, jnp.inf, log_gap(x, y, y - x, a))


def _exponential_largest(p: Exponential, q: Exponential) -> Array:
    some = jnp.where(p.rate >= q.rate, p.rate, q.rate)
    return jnp.where(p.rate < q.rate, jnp.inf, log_over(some, q.rate))


def _exponential_entropy(p: Exponential) -> Array:
    return 1 - jnp.log(p.rate)


def _poisson_gap(p: Poisson, q: Poisson, a: Array) -> Array:
    return mass_gap(p.rate, q.rate, q.rate - p.rate, a)


def _poisson_largest(p: Poisson, q: Poisson) -> Array:
    return jnp.where(p.rate > q.rate, jnp.inf, q.rate - p.rate)


def _poisson_least(p: Poisson, q: Poisson) -> Array:
    """The Renyi divergence of order 0: -log q(support of p)."""
    return jnp.where(p.rate == 0, q.rate, 0)


_POISSON_SERIES = {"float32": (), "float64": ()}


def _geometric_gap(p: Geometric, q: Geometric, a: Array) -> Array:
    x, y = p.probs, q.probs
    outside, a = within(a, (x, y, y - x))
    masses = mass_gap(1 - x, 1 - y, x - y, a)
    outside |= masses == jnp.inf
    over = jnp.where(outside, 0, masses) / mix(x, y, y - x, a)
    beyond = a * (1 - a) * over <= -1
    value = log_gap(x, y, y - x, a) + log1p_over(jnp.where(beyond, 0, over), a * (1 - a))
    return jnp.where(outside | beyond, jnp.inf, value)


def _geometric_largest(p: Geometric, q: Geometric) -> Array:
    some = jnp.where(p.probs >= q.probs, p.probs, q.probs)
    return jnp.where(p.probs < q.probs, jnp.inf, log_over(some, q.probs))


def _geometric_least(p: Geometric, q: Geometric) -> Array:
    return jnp.where(p.probs == 1, -jnp.log(q.probs), 0)


def _geometric_entropy(p: Geometric) -> Array:
    """(-(1 - x) log(1 - x) - x log x) / x."""
    x = p.probs
    some = jnp.where(x < 1, x, 0.5)
    return jnp.where(x < 1, -(1 - some) * _num.log1p(-some) / some - jnp.log(some), 0)


def _gamma_gap(p: Gamma, q: Gamma, a: Array) -> Array:
    x, y, h = p.concentration, q.concentration, q.concentration - p.concentration
    ratio, excess = q.rate / p.rate, (q.rate - p.rate) / p.rate
    one = jnp.ones_like(ratio)
    outside, a = within(a, (x, y, h), (one, ratio, excess))
    value = perspective_gap(x, y, one, ratio, cross(x, y, h, one, ratio, excess), a) + rest_gap(x, y, h, a)
    return jnp.where(outside, jnp.inf, value)


def _split_excess(c: Array, x: Array, y: Array) -> Array:
    """c log c + y log y - x log x for x = y + c, c >= 0: minus an entropy, with 0 log 0 = 0."""
    return jnp.where(c > 0, c * jnp.log(jnp.where(c > 0, c, 1) / x), 0) + y * log_over(y, x)


def _gamma_largest(p: Gamma, q: Gamma) -> Array:
    x, y, s, t = p.concentration, q.concentration, p.rate, q.rate
    c, d = x - y, s - t
    bounded = (d > 0) & (c >= 0) | (c == 0) & (d == 0)
    some = jnp.where(c > 0, c, 1)
    peak = jnp.where(c > 0, some * jnp.log((some / x) / (jnp.where(d > 0, d, 1) / s)), 0)
    value = peak + y * log_over(y / x, t / s) + rest(y) - rest(x)
    return jnp.where(bounded | jnp.isnan(c + d), value, jnp.inf)


def _gamma_entropy(p: Gamma) -> Array:
    x = p.concentration
    return jnp.log(x / p.rate) + rest(x) + (1 - x) * rest_slope(x)


def _inverse_gamma_entropy(p: InverseGamma) -> Array:
    x = p.concentration
    return jnp.log(p.scale / x) + rest(x) - (1 + x) * rest_slope(x)


def _as_gamma(p: InverseGamma) -> Gamma:
    """The distribution of 1/x, which changes no divergence."""
    return Gamma(p.concentration, p.scale)


def _top(x: Array) -> Array:
    """Where the largest parameter is: one place only."""
    return jnp.argmax(x, -1, keepdims=True) == jnp.arange(x.shape[-1]).reshape((1,) * (x.ndim - 1) + (-1,))


def _others(x: Array, top: Array) -> Array:
    """Sums over all outcomes but one: for the largest summed afresh, as most of the total is its own."""
    return jnp.where(top, _num.total(jnp.where(top, 0, x)), _num.total(x) - x)


def _dirichlet_gap(p: Dirichlet, q: Dirichlet, a: Array) -> Array:
    x, y, h = p.concentration, q.concentration, q.concentration - p.concentration
    a = jnp.broadcast_to(a[..., None], x.shape)
    outside = jnp.any(within(a, (x, y, h))[0], -1)
    a, top = jnp.where(outside[..., None], 0.5, a), _top(x)
    x0, h0 = _num.total(x), _num.total(h)
    y0 = jnp.where(jnp.abs(h0) < x0, x0 + h0, _num.total(y))
    c = cross(x, y, h, _others(x, top), _others(y, top), _others(h, top))
    parts = perspective_gap(x, y, jnp.broadcast_to(x0, x.shape), jnp.broadcast_to(y0, x.shape), c, a)
    rests = jnp.where(top, 0, rest_gap(x, y, h, a))
    x1, y1, h1 = (jnp.sum(jnp.where(top, v, 0), -1) for v in (x, y, h))
    s, t, g = (jnp.sum(jnp.where(top, 0, v), -1) for v in (x, y, h))
    value = jnp.sum(parts + rests, -1) + rest_drop(x1, y1, s, t, (h1, g), a[..., 0])
    return jnp.where(outside, jnp.inf, value)


def _dirichlet_largest(p: Dirichlet, q: Dirichlet) -> Array:
    x, y = p.concentration, q.concentration
    c, x0, y0 = x - y, _num.total(x), _num.total(y)
    c0 = _num.total(c)
    some, c0 = jnp.where(c > 0, c, 1), jnp.where(c0 > 0, c0, 1)
    peak = jnp.where(c > 0, some * jnp.log((some / x) / (c0 / x0)), 0)
    value = jnp.sum(peak + y * log_over(y / x, y0 / x0) + rest(y) - rest(x), -1) - (rest(y0) - rest(x0))[..., 0]
    return jnp.where(jnp.any(c < 0, -1), jnp.inf, value)


def _dirichlet_entropy(p: Dirichlet) -> Array:
    x = p.concentration
    x0 = _num.total(x)
    parts = jnp.sum(jnp.log(x / x0) + rest(x) - (x - 1) * rest_slope(x), -1)
    return parts - (rest(x0) - (x0 - x.shape[-1]) * rest_slope(x0))[..., 0]


def _as_dirichlet(p: Beta) -> Dirichlet:
    return Dirichlet(jnp.stack([p.concentration1, p.concentration0], -1))
