"""Estimates from draws with known densities: their terms, and slopes that are those of what is estimated."""

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _num, _ratio
from kljax._points import mirror
from kljax.rows import Row


class Estimate(NamedTuple):
    """A value `[...]` and its standard error: the deviation of the terms, n - 1 in it, over sqrt(n)."""

    value: Array
    stderr: Array


@jax.custom_jvp
def sloped(value: Array, slope_p: Array, slope_q: Array, log_p: Array, log_q: Array) -> Array:
    """The value, with these slopes in log_p and log_q in place of its own."""
    return value


@sloped.defjvp
def _(primals, tangents):
    value, slope_p, slope_q, *_ = primals
    most = _num.slope_limit(value)
    by_p, by_q = (jnp.clip(s, -most, most) * step for s, step in zip((slope_p, slope_q), tangents[3:], strict=True))
    return value, tangents[0] + by_p + by_q


def mean(terms: Array) -> Estimate:
    """The mean over the last axis."""
    return Estimate(jnp.mean(terms, -1), lax.stop_gradient(jnp.std(terms, -1, ddof=1)) / jnp.sqrt(1.0 * _count(terms)))


def _count(terms: Array) -> Array:
    return jnp.asarray(terms.shape[-1], terms.dtype)


def of_row(row: Row, log_p: Array, log_q: Array) -> Estimate:
    """The mean of f(p/q) over draws of q; as q moves, so do the draws, which the slope in log_q counts in."""
    t = lax.stop_gradient(log_p - log_q)
    slopes = lax.stop_gradient((_ratio.elasticity(row, t), _ratio.slope(mirror(row), -t)))
    return mean(sloped(_ratio.term(row, t), *slopes, log_p, log_q))


def k1(gap: Array) -> Array:
    """-log(q/p)."""
    return -gap


def k2(gap: Array) -> Array:
    """Half its square."""
    return gap * gap / 2


def k3(gap: Array) -> Array:
    """q/p - 1 - log(q/p) >= 0."""
    near = jnp.abs(gap) < 1
    some = jnp.where(near, gap, 0)
    return jnp.where(near, some * some * _num.exp_remainder_near(some), jnp.exp(gap) - 1 - gap)


KINDS = {"k1": k1, "k2": k2, "k3": k3}


def of_kl(kind: str, log_p: Array, log_q: Array, log_behaviour: Array | None) -> Estimate:
    """The mean of a term over draws of p, or over those of another distribution by their weights."""
    held_p, held_q = lax.stop_gradient((log_p, log_q))
    weight = jnp.ones_like(held_p) if log_behaviour is None else jnp.exp(held_p - lax.stop_gradient(log_behaviour))
    most = _num.slope_limit(held_p)
    ratio = jnp.clip(held_p - held_q, -most, most)
    level = jnp.sum(weight * ratio, -1, keepdims=True) / jnp.sum(weight, -1, keepdims=True)
    return mean(sloped(weight * KINDS[kind](held_q - held_p), weight * (ratio - level), -weight, log_p, log_q))


def of_mixture(key: Array, row_of: Any, p: Any, q: Any, half: int, column: ModuleType) -> Estimate:
    """D(p, q) as a mean over the mixture (p + q)/2, half of its draws from either."""
    shares = []
    for own, drawn in zip(jax.random.split(key), (p, q), strict=True):
        x = column.sample(own, drawn, (half,))
        t = jnp.moveaxis(column.log_prob(p, x) - column.log_prob(q, x), 0, -1)
        shares.append(mean(_ratio.share(row_of(t), t)))
    a, b = shares
    return Estimate((a.value + b.value) / 2, jnp.hypot(a.stderr, b.stderr) / 2)
