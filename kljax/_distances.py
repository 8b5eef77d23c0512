"""The cells that no single row gives: total variation, Fisher-Rao, Wasserstein, Jensen-Shannon of many, differences.

All start from p - q as the column forms it. Total variation and Wasserstein are first order in a normaliser's rounding,
which the rows are only in second order, so both take it out.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _check, _fold, _num, rows
from kljax._cells import pair_of
from kljax._pair import centre
from kljax._points import Column, divergence, is_zero


def tv(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Total variation distance, sum of |p - q| / 2, in [0, 1]: a metric.

    @shapes
    Zero mass: finite always, 1 for disjoint supports. At p = q the gradient is the subgradient 0.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.tv(p, q):.4f}")
    0.4000
    """
    return divergence(column, rows.tv, *pair_of(column, "tv", p, q, axis, where))


def fisher_rao(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Fisher-Rao distance, 2 arccos(sum of sqrt(p q)), in [0, pi]: a metric, here 4 arcsin(hellinger / sqrt 2).

    @shapes
    Zero mass: finite always, pi for disjoint supports. At p = q the gradient, which does not exist, is 0.
    @errors
    Source: Rao, Information and the accuracy attainable in the estimation of statistical parameters (1945).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.fisher_rao(p, q):.4f}")
    0.9273
    """
    p, q = pair_of(column, "fisher_rao", p, q, axis, where)
    return divergence(column, rows.hellinger_sq, p, q, _num.angle)


def wasserstein1(
    column: Column,
    p: ArrayLike,
    q: ArrayLike,
    *,
    positions: ArrayLike | None = None,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Wasserstein-1 (earth mover's) distance between ordered outcomes, integral of |F_p - F_q|, in [0, range].

    `positions` `[K]` (or with leading axes) are where the outcomes lie, in any order; 0, 1, ..., K-1 unless given.
    @shapes
    Zero mass: finite always; an outcome deleted by `where` keeps its position.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.wasserstein1(p, q, positions=jnp.array([0.0, 3.0])):.4f}")
    1.2000
    """
    p, q = pair_of(column, "wasserstein1", p, q, axis, where)
    name = f"kljax.{column.name}.wasserstein1"
    placed = [] if positions is None else [_check.vector(name, "positions", positions, p)]
    moved = jax.checkpoint(partial(_moved, column), prevent_cse=False)
    return _fold.by_rows(moved, p, q, *placed)


def _moved(column: Column, p: Array, q: Array, placed: Array | None = None) -> Array:
    """The integral of |F_p - F_q|; recomputed for a gradient, which would otherwise keep every cumulative sum."""
    width = jnp.ones((), p.dtype)
    if placed is not None:
        order = jnp.argsort(placed, -1)
        p, q, placed = (jnp.take_along_axis(x, order, -1) for x in (p, q, placed))
        width = jnp.diff(placed, axis=-1)
    pair = column.pair(p, q)
    ahead = _num.running_total(pair.delta)
    ahead = ahead - jnp.cumsum(pair.p, -1) * ahead[..., -1:]  # one Newton step for the normaliser
    distance = _num.magnitude(ahead[..., :-1]) * width
    return jnp.where(pair.mass > 0, _num.total(distance), jnp.nan)[..., 0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spread(column: Column, weights: Array, a: Array) -> Array:
    """Sum of w_i kl(p_i, m), m the mean of the p_i; a `[..., N, K]`, weights `[..., N, 1]` summing to one."""
    p, deviation, mean, mass = _deviations(column, weights, a)
    value = jnp.sum(jnp.where(weights > 0, weights * _to_mean(p, deviation, mean), 0), (-2, -1))
    lost = jnp.where(weights > 0, mass, 1)
    return jnp.where(jnp.all(lost > 0, (-2, -1)), value, jnp.nan)


def _to_mean(p: Array, deviation: Array, mean: Array) -> Array:
    """p log(p/m) - p + m from p / m - 1, and from p itself where it is small beside m and the deviation is near -1."""
    near = deviation > -0.5
    y = jnp.where(near, deviation, 0)
    share = jnp.where(near, 1, _num.divide(p, mean))
    log = jnp.log(jnp.where(share > 0, share, 1))
    return mean * jnp.where(near, y * y * _num.xlogx_gap(y), share * log - deviation)


def _deviations(column: Column, weights: Array, a: Array) -> tuple[Array, Array, Array, Array]:
    """Masses, (p_i - m) / m, m and total masses, the p_i relative to the one of largest weight."""
    a = jnp.where(weights > 0, a, jnp.zeros((), a.dtype) if column.empty else jnp.ones((), a.dtype))
    chosen = jnp.argmax(weights, -2, keepdims=True)
    reference = jnp.broadcast_to(jnp.take_along_axis(a, chosen, -2), a.shape)
    pair = column.pair(a, reference)
    mean = jnp.sum(weights * pair.p, -2, keepdims=True)
    delta = pair.delta - jnp.sum(weights * pair.delta, -2, keepdims=True)
    deviation = jnp.where(pair.p > 0, jnp.maximum(_num.divide(delta, mean), -1), -1)
    return pair.p, jnp.where(mean > 0, deviation, 0), mean, pair.mass


def _spread_jvp(column, primals, tangents):
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(weights, a, *given):
        steps = iter(given)
        p, deviation, mean, mass = _deviations(column, weights, a)
        ok = jnp.all(jnp.where(weights > 0, mass, 1) != 0, (-2, -1))
        result = jnp.zeros(a.shape[:-2], a.dtype)
        if not is_zero(tangents[0]):
            each = jnp.sum(_to_mean(p, deviation, mean), -1, keepdims=True)
            result += jnp.sum(each * next(steps), (-2, -1))
        if not is_zero(tangents[1]):
            near = deviation > -0.5
            low = jnp.log(jnp.maximum(p, _num.tiny(p))) - jnp.log(jnp.where(mean > 0, mean, 1))
            h = jnp.where(near, _num.log1p(jnp.where(near, deviation, 0)), low)
            h = weights * h
            coefficients = column.pull(a, *centre(p, p * h, h))
            deleted = (mean == 0) | (weights == 0)
            result += jnp.sum(jnp.where(deleted, 0, coefficients) * next(steps), (-2, -1))
        return jnp.where(ok, result, 0)

    return _spread(column, *primals), tangent(*primals, *(t for t in tangents if not is_zero(t)))


_spread.defjvp(_spread_jvp, symbolic_zeros=True)


def js_many(
    column: Column,
    p: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    over: int = -2,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Jensen-Shannon divergence of N distributions, sum of w_i kl(p_i, m), m = sum of w_i p_i, in [0, log N].

    Shapes: p `[..., N, K] -> [...]`, in nats; `over` is the axis of the N distributions and `axis` that of the events;
    `weights` `[N]`, non-negative, are divided by their sum, equal unless given; a weight of 0 removes its distribution.
    `where` `[K]` or as p keeps the outcomes that are True.
    Zero mass: finite always; 0 log 0 = 0.
    @errors
    Source: Lin, Divergence measures based on the Shannon entropy (1991).

    >>> import jax.numpy as jnp, kljax
    >>> p = @three
    >>> print(f"{@column.js_many(p):.4f}")
    0.2454
    """
    name = f"kljax.{column.name}.js_many"
    p = _check.wide(p)[0]
    _check.axes(name, p, over, axis)
    p = jnp.moveaxis(p, (over, axis), (-2, -1))
    if where is not None:
        where = jnp.asarray(where)
        where = jnp.moveaxis(where, (over, axis), (-2, -1)) if where.ndim > 1 else where
    p = _check.events(name, ("p",), (p,), -1, where, column.empty)[0]
    if weights is None:
        share = jnp.full(p.shape[:-1] + (1,), 1 / p.shape[-2], p.dtype)
    else:
        given = _check.vector(name, "weights", weights, p[..., 0])
        given = jnp.where(given >= 0, given, jnp.nan)
        share = (given / jnp.sum(given, -1, keepdims=True))[..., None]
    return _spread(column, share, p)
