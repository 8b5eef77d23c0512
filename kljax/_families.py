"""The families whose log-normaliser is made of logarithms, masses and log Gamma, as functions for `expfam`.

Each family has the gap of two members (see `affinity`), the supremum of log(p/q), which is the Renyi divergence of
order inf, and its entropy. All take checked members: arrays of one dtype and batch, nan where a parameter is not one.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kljax import _num
from kljax._jensen import (
    STIRLING,
    cross,
    log1p_over,
    log_gap,
    log_over,
    mass_gap,
    mix,
    perspective_gap,
    positive,
    rest_drop,
    rest_gap,
    split,
    within,
)
from kljax._rest import rest, rest_fall, rest_slope


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


# entropy - log(2 pi e x)/2 = -sum of c_k x^-(k + 1)
_POISSON = (1 / 12, 1 / 24, 19 / 360, 9 / 80, 863 / 2520, 1375 / 1008, 33953 / 5040, 57281 / 1440, 273.605471,
            2149.72160, 19002.909, 186712.2)  # fmt: skip


def _poisson_reach(x: Array) -> tuple[float, int]:
    """From where on the asymptotic series has its digits, and how many counts matter below."""
    return (60.0, 160) if x.dtype == jnp.float64 else (12.0, 48)


def _log_factorial_rest(k: int) -> float:
    """log k! - k log k + k, on the host; the two logarithms would cancel."""
    if k < 16:
        return math.log(math.factorial(k) / max(k, 1) ** k) + k
    return math.log(2 * math.pi * k) / 2 + sum(c / k ** (2 * i + 1) for i, c in enumerate(STIRLING))


def _poisson_masses(x: Array) -> tuple[Array, Array, Array]:
    """Small rates, counts and their probabilities, as products: k log x - x - log k! would cancel."""
    most, count = _poisson_reach(x)
    rate = jnp.minimum(x, most)[..., None]
    k = jnp.arange(count, dtype=x.dtype).reshape((1,) * x.ndim + (-1,))
    factors = jnp.concatenate([jnp.exp(-rate), rate / k[..., 1:]], -1)
    return rate, k, jnp.cumprod(factors, -1)


@jax.custom_jvp
def _poisson_entropy_of(x: Array) -> Array:
    """The mean of -log mass = deviance + (log k! - k log k + k), terms >= 0."""
    rate, k, masses = _poisson_masses(x)
    table = np.array([_log_factorial_rest(i) for i in range(k.shape[-1])]).reshape(k.shape)
    d, near = k - rate, _num.magnitude(k - rate) < rate / 2
    some = jnp.where(rate > 0, rate, 1)
    y = jnp.where(near, d / some, 0)
    close = some * _num.xlogx_rest(y, 1 + y)
    far = k * (jnp.log(jnp.maximum(k, 1)) - jnp.log(some)) - d
    small = jnp.sum(masses * (jnp.where(near, close, far) + jnp.asarray(table, x.dtype)), -1)
    u = 1 / jnp.maximum(x, _poisson_reach(x)[0])
    large = 0.5 * (math.log(2 * math.pi) + 1 - jnp.log(u)) - sum(c * u ** (i + 1) for i, c in enumerate(_POISSON))
    return jnp.where(x < _poisson_reach(x)[0], small, large)


@_poisson_entropy_of.defjvp
def _(primals, tangents):
    """The mean of log((k + 1) / x)."""
    (x,) = primals
    rate, k, masses = _poisson_masses(jnp.where(x == 0, _num.tiny(x), x))
    apart = jnp.log(k + 1) - jnp.log(rate)  # (k + 1) / rate may overflow
    small = jnp.sum(masses * jnp.where(rate < 0.5, apart, log_over(k + 1, jnp.maximum(rate, 0.5))), -1)
    u = 1 / jnp.maximum(x, _poisson_reach(x)[0])
    large = u * (0.5 + sum((i + 1) * c * u ** (i + 1) for i, c in enumerate(_POISSON)))
    return _poisson_entropy_of(x), jnp.where(x < _poisson_reach(x)[0], small, large) * tangents[0]


def _poisson_entropy(p: Poisson) -> Array:
    return _poisson_entropy_of(p.rate)


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


def _gamma_largest(p: Gamma, q: Gamma) -> Array:
    x, y, s, t = p.concentration, q.concentration, p.rate, q.rate
    c, d = x - y, s - t
    bounded = (d > 0) & (c >= 0) | (c == 0) & (d == 0)
    broken = jnp.isnan(c + d)
    y, t, c, d = (jnp.where(bounded, v, w) for v, w in ((y, x), (t, s), (c, 0), (d, 0)))
    value = split(x, y, c, s, t, d) + rest_fall(x, y, c)
    return jnp.where(bounded, value, jnp.where(broken, jnp.nan, jnp.inf))


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
    y0 = jnp.where(2 * jnp.abs(h0) < x0, x0 + h0, _num.total(y))
    c = cross(x, y, h, _others(x, top), _others(y, top), _others(h, top))
    parts = perspective_gap(x, y, jnp.broadcast_to(x0, x.shape), jnp.broadcast_to(y0, x.shape), c, a)
    rests = jnp.where(top, 0, rest_gap(x, y, h, a))
    x1, y1, h1 = (jnp.sum(jnp.where(top, v, 0), -1) for v in (x, y, h))
    s, t, g = (jnp.sum(jnp.where(top, 0, v), -1) for v in (x, y, h))
    value = jnp.sum(parts + rests, -1) + rest_drop(x1, y1, s, t, (h1, g), a[..., 0])
    return jnp.where(outside, jnp.inf, value)


def _dirichlet_largest(p: Dirichlet, q: Dirichlet) -> Array:
    x, y, c = p.concentration, q.concentration, p.concentration - q.concentration
    outside = jnp.any(c < 0, -1, keepdims=True)
    y, c = jnp.where(outside, x, y), jnp.where(outside, 0, c)
    x0, c0 = _num.total(x), _num.total(c)
    y0 = jnp.where(2 * c0 < x0, x0 - c0, _num.total(y))
    value = jnp.sum(split(x, y, c, x0, y0, c0) + rest_fall(x, y, c), -1) - rest_fall(x0, y0, c0)[..., 0]
    return jnp.where(outside[..., 0], jnp.inf, value)


def _dirichlet_entropy(p: Dirichlet) -> Array:
    x = p.concentration
    x0 = _num.total(x)
    parts = jnp.sum(jnp.log(x / x0) + rest(x) - (x - 1) * rest_slope(x), -1)
    return parts - (rest(x0) - (x0 - x.shape[-1]) * rest_slope(x0))[..., 0]


def _as_dirichlet(p: Beta) -> Dirichlet:
    return Dirichlet(jnp.stack([p.concentration1, p.concentration0], -1))


class Family(NamedTuple):
    """What `expfam` knows of a type; the functions take members that went through `clean`."""

    events: tuple[int, ...]  # how many event axes each field has
    clean: Callable[[Any], Any]  # nan where a parameter is not one
    entropy: Callable[[Any], Array]
    gap: Callable[[Any, Any, Array], Array]
    largest: Callable[[Any, Any], Array]
    kl: Callable[[Any, Any], Array] | None = None  # if not the gap at 1
    least: Callable[[Any, Any], Array] | None = None  # the Renyi divergence of order 0, if it may be positive
    size: Callable[[Any], tuple[bool, str]] | None = None  # whether the event axes are right, and what to pass


def _positives(p: Any) -> Any:
    return type(p)(*(positive(x) for x in p))


def _all_positive(p: Dirichlet) -> Dirichlet:
    x = p.concentration
    return Dirichlet(jnp.where(jnp.all((x > 0) & (x < jnp.inf), -1, keepdims=True), x, jnp.nan))


def _rate(p: Poisson) -> Poisson:
    return Poisson(jnp.where((p.rate >= 0) & (p.rate < jnp.inf), p.rate, jnp.nan))


def _probability(p: Geometric) -> Geometric:
    return Geometric(jnp.where((p.probs > 0) & (p.probs <= 1), p.probs, jnp.nan))


def _through(convert: Callable[[Any], Any], function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of another family's members, for a family that converts to it."""
    return lambda p, q, *a: function(convert(p), convert(q), *a)


FAMILIES: dict[type, Family] = {
    Poisson: Family((0,), _rate, _poisson_entropy, _poisson_gap, _poisson_largest, least=_poisson_least),
    Geometric: Family(
        (0,), _probability, _geometric_entropy, _geometric_gap, _geometric_largest, least=_geometric_least
    ),
    Exponential: Family((0,), _positives, _exponential_entropy, _exponential_gap, _exponential_largest),
    Gamma: Family((0, 0), _positives, _gamma_entropy, _gamma_gap, _gamma_largest),
    InverseGamma: Family(
        (0, 0), _positives, _inverse_gamma_entropy, _through(_as_gamma, _gamma_gap), _through(_as_gamma, _gamma_largest)
    ),
    Beta: Family(
        (0, 0),
        _positives,
        lambda p: _dirichlet_entropy(_as_dirichlet(p)),
        _through(_as_dirichlet, _dirichlet_gap),
        _through(_as_dirichlet, _dirichlet_largest),
    ),
    Dirichlet: Family((1,), _all_positive, _dirichlet_entropy, _dirichlet_gap, _dirichlet_largest),
}
