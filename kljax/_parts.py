"""What a bound of mixtures needs to know of its components, for the two types of them.

Functions of two components take arrays of one shape: every component of p with every one of q, `[..., M, N]`. Masses
are logarithms. What may have no finite value (an overlap, a tilted mean) is nan or inf there, and its slope 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from kljax import _dense, _normal, _num
from kljax._normal import HALF_LOG_TAU, Normal


class Kind(NamedTuple):
    """What a type of component supplies; pairs come as two arrays of components of one shape `[..., M, N]`."""

    standard: Callable[[Any], Any]
    entropy: Callable[[Any], Array]
    kl: Callable[[Any, Any], Array]
    bhattacharyya: Callable[[Any, Any], Array]
    log_overlap: Callable[[Any, Any], Array]  # log of the integral of f_a g_b
    log_prob: Callable[[Any, Array], Array]
    tilted: Callable[[Any, Any, Any], tuple[Array, Array]]  # log of the mean of g/h under f, and the size of its terms
    spread: Callable[[Array, Any], Array]  # the entropy of the Gaussian with the mixture's moments


def _normal_overlap(p: Normal, q: Normal) -> Array:
    """The log-density of N(0, scale_p^2 + scale_q^2) at loc_p - loc_q; no scale is squared."""
    small, large, _ = _normal.ordered(p, q)
    r = small.scale / large.scale
    root = jnp.sqrt(1 + r * r)
    whole = large.scale * root
    z = _normal.view(Normal(p.loc, whole), Normal(q.loc, whole)).z
    return -jnp.sum(0.5 * z * z + jnp.log(large.scale) + jnp.log(root) + HALF_LOG_TAU, -1)


def _normal_log_prob(p: Normal, x: Array) -> Array:
    z = _normal.view(Normal(x, p.scale), p).z
    return -jnp.sum(0.5 * z * z + (HALF_LOG_TAU + jnp.log(p.scale)), -1)


def _normal_bhattacharyya(p: Normal, q: Normal) -> Array:
    """(loc difference)^2 / (4 (scale_p^2 + scale_q^2)) + log((r + 1/r) / 2) / 2, r the ratio of the scales."""
    small, large, _ = _normal.ordered(p, q)
    r, e = small.scale / large.scale, (large.scale - small.scale) / large.scale
    near = r > 0.25
    some = jnp.where(near, r, 1)
    shape = jnp.where(near, _num.log1p(0.5 * e * e / some), jnp.log(1 + r * r) - jnp.log(2 * jnp.where(near, 1, r)))
    z = _normal.view(Normal(p.loc, large.scale), Normal(q.loc, large.scale)).z
    return jnp.sum(0.25 * z * z / (1 + r * r) + 0.5 * shape, -1)


def _density(lower: Array, delta: Array) -> Array:
    """The log-density of N(0, lower lower') at delta."""
    z = _dense.solve_vector(lower, delta)
    return -jnp.sum(0.5 * z * z + (HALF_LOG_TAU + jnp.log(_dense.diagonal(lower))), -1)


def _cholesky(a: Array) -> tuple[Array, Array]:
    """Where a matrix is positive definite, and its factor, that of the identity elsewhere."""
    found = lax.linalg.cholesky(lax.stop_gradient(a), symmetrize_input=False)
    ok = jnp.all(jnp.isfinite(found), (-2, -1))
    return ok, lax.linalg.cholesky(jnp.where(ok[..., None, None], a, _dense.identity(a)), symmetrize_input=True)


def _covariance(p: Any) -> Array:
    return _dense.product(p.scale_tril, _dense.turned(p.scale_tril))


def _dense_overlap(p: Any, q: Any) -> Array:
    """The log-density of N(0, cov(p) + cov(q)) at loc_p - loc_q; nan where that sum has no Cholesky factor."""
    ok, lower = _cholesky(_covariance(p) + _covariance(q))
    return jnp.where(ok, _density(lower, p.loc - q.loc), jnp.nan)


def _normal_tilted(f: Any, g: Any, h: Any) -> tuple[Array, Array]:
    """log of the mean of g/h under f, inf where it diverges, and the size of the terms that make it."""
    a, b = f.scale / g.scale, f.scale / h.scale
    u, w = (f.loc - g.loc) / g.scale, (f.loc - h.loc) / h.scale
    precision = 1 + (a - b) * (a + b)
    ok = precision > 0
    precision = jnp.where(ok, precision, 1)
    v = a * u - b * w
    terms = (jnp.log(h.scale / g.scale), -0.5 * jnp.log(precision), _num.quotient(0.5 * v * v, precision))
    squares = 0.5 * u * u, 0.5 * w * w
    value = sum(terms) + (squares[1] - squares[0])
    size = sum(_num.magnitude(t) for t in (*terms, *squares, v * (a * u) / precision, v * (b * w) / precision))
    return jnp.sum(jnp.where(ok, value, jnp.inf), -1), jnp.sum(jnp.asarray(size), -1)


def _dense_tilted(f: Any, g: Any, h: Any) -> tuple[Array, Array]:
    """The same, in the coordinates in which f is standard."""
    joint = jnp.concatenate([f.scale_tril, (f.loc - g.loc)[..., None]], -1), (f.loc - h.loc)[..., None]
    one = _dense.solve(g.scale_tril, joint[0])
    two = _dense.solve(h.scale_tril, jnp.concatenate([f.scale_tril, joint[1]], -1))
    (a, u), (b, w) = ((x[..., :-1], x[..., -1:]) for x in (one, two))
    spread = [_dense.product(_dense.turned(x), x) for x in (a, b)]
    ok, root = _cholesky(_dense.identity(a) + (spread[0] - spread[1]))
    moved = [_dense.product(_dense.turned(x), y) for x, y in ((a, u), (b, w))]
    v = _dense.solve(root, moved[0] - moved[1])
    logs = [jnp.log(_dense.diagonal(x)) for x in (h.scale_tril, g.scale_tril, root)]
    squares = [0.5 * _dense.squares(x, 2) for x in (v, w, u)]
    value = jnp.sum(logs[0] - logs[1] - logs[2], -1) + squares[0] + (squares[1] - squares[2])
    lost = sum(_dense.squares(x, 2) for x in (*spread, *moved)) + sum(squares)  # the factor may square their rounding
    return jnp.where(ok, value, jnp.inf), jnp.asarray(lost + sum(jnp.sum(_num.magnitude(x), -1) for x in logs))


def _moments(log_weights: Array, loc: Array) -> tuple[Array, Array]:
    """The weights `[..., M, 1]` and loc less its mean."""
    weights = jnp.exp(log_weights)[..., None]
    return weights, loc - jnp.sum(weights * loc, -2, keepdims=True)


def _normal_spread(log_weights: Array, c: Any) -> Array:
    """The entropy of independent coordinates with the mixture's variances, which bounds the mixture's."""
    weights, d = _moments(log_weights, c.loc)
    unit = jnp.max(lax.stop_gradient(jnp.maximum(jnp.abs(d), c.scale)), -2, keepdims=True)
    total = jnp.sum(weights * (jnp.square(c.scale / unit) + jnp.square(d / unit)), -2)
    return jnp.sum(0.5 * jnp.log(total) + jnp.log(unit[..., 0, :]) + (HALF_LOG_TAU + 0.5), -1)


def _dense_spread(log_weights: Array, c: Any) -> Array:
    """The entropy of the Gaussian with the mixture's mean and covariance."""
    weights, d = _moments(log_weights, c.loc)
    outer = d[..., :, None] * d[..., None, :]
    ok, lower = _cholesky(jnp.sum(weights[..., None] * (_covariance(c) + outer), -3))
    return jnp.where(ok, jnp.sum(jnp.log(_dense.diagonal(lower)) + (HALF_LOG_TAU + 0.5), -1), jnp.nan)


_NORMAL = Kind(
    lambda c: (jnp.zeros_like(c.loc), jnp.ones_like(c.scale)),
    lambda c: jnp.sum(_normal.entropy(c), -1),
    lambda p, q: jnp.sum(_normal.kl(p, q), -1),
    _normal_bhattacharyya,
    _normal_overlap,
    _normal_log_prob,
    _normal_tilted,
    _normal_spread,
)
_DENSE = Kind(
    lambda c: (jnp.zeros_like(c.loc), _dense.identity(c.scale_tril)),
    lambda c: jnp.sum(jnp.log(_dense.diagonal(c.scale_tril)) + (HALF_LOG_TAU + 0.5), -1),
    lambda p, q: _dense.kl(p.loc - q.loc, p.scale_tril, q.scale_tril),
    lambda p, q: _dense.gap(p.loc - q.loc, p.scale_tril, q.scale_tril, jnp.full_like(p.loc[..., 0], 0.5)) / 4,
    _dense_overlap,
    lambda p, x: _density(p.scale_tril, x - p.loc),
    _dense_tilted,
    _dense_spread,
)


def kind(components: Any) -> Kind:
    """By the type of the components."""
    return _NORMAL if isinstance(components, Normal) else _DENSE
