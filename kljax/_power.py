"""The cells made of one sum, S = sum of p^a q^(1-a): Renyi, Bhattacharyya, geometric Jensen-Shannon.

Two evaluations, each of which fails where the other works. Near, S >= 1/2: log S / (a - 1) is log1p of the Tsallis
divergence, a sum of terms >= 0. Far: a sum of exponentials of log masses.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _check, _fold, _num, rows
from kljax._cells import pair_of
from kljax._pair import Pair, centre, centred
from kljax._points import Column, divergence, finish, is_zero, mirror, points, slope


class _Sum(NamedTuple):
    near: Array  # whether S >= 1/2, all `[..., 1]`
    excess: Array  # S - 1, where near
    log: Array  # log S
    value: Array  # the Renyi divergence


def _exponents(order: Array, pair: Pair, stand_in: Array) -> Array:
    """log p^a q^(1-a); where one mass is missing, with finfo.tiny in its place if `stand_in`."""
    absent = jnp.isinf(pair.d)
    t = -jnp.abs(pair.tame)
    power = jnp.where(pair.gap <= 0, order, 1 - order)
    edge = jnp.where(power < 0, jnp.inf, -jnp.inf)
    return jnp.where(absent & ~stand_in, edge, pair.log_hi + power * t)


def log_sum(x: Array) -> Array:
    """log of the sum of exponentials over the last axis, kept as an axis of size 1; infinities are what they are."""
    top = jnp.max(x, -1, keepdims=True)
    safe = jnp.where(jnp.isfinite(top), top, 0)
    return jnp.where(jnp.isfinite(top), safe + jnp.log(_num.total(jnp.exp(x - safe))), top)


def _largest(pair: Pair) -> Array:
    """max log(p/q): one Newton step takes the normalisers' rounding out where the two are close."""
    lo = _num.total(jnp.where(pair.gap <= 0, pair.p, pair.q))
    drift = jnp.where(lo > 0.5, _num.total(pair.delta) / jnp.where(lo > 0.5, lo, 1), 0)
    top = jnp.max(jnp.where(pair.log_hi > -jnp.inf, pair.d, -jnp.inf), -1, keepdims=True)
    return jnp.maximum(top - drift, 0)


def _sum(order: Array, pair: Pair) -> _Sum:
    unbounded = order == jnp.inf
    a = jnp.where(unbounded, 2, order)
    t = _num.total(points(rows.tsallis(a), pair))
    excess = (a - 1) * jnp.where(jnp.isfinite(t), t, 0)
    near = jnp.isfinite(t) & (excess >= -0.5) & ~unbounded
    one = a == 1

    def apart() -> tuple[Array, Array]:
        return log_sum(_exponents(a, pair, jnp.array(False))), _largest(pair)

    log, largest = _fold.where_all(near, lambda: (_num.log1p(jnp.where(near, excess, 0)), jnp.zeros_like(t)), apart)
    far = jnp.where(one, t, log / jnp.where(one, 1, a - 1))
    close = jnp.where(near, t, 0) * _num.log1p_ratio(jnp.where(near, excess, 0))
    value = jnp.where(unbounded, largest, jnp.where(near, close, far))
    return _Sum(near | one, jnp.where(one, 0, excess), log, jnp.where(order >= 0, value, jnp.nan))


def _slopes(order: Array, pair: Pair, s: _Sum, first: bool, times: float) -> tuple[Array, Array, Array]:
    """(p h, h, wild) for the first argument, or for the second of the swapped pair."""
    a = jnp.where(order == jnp.inf, 2, order)
    row = rows.tsallis(a)
    given = slope(row if first else mirror(row), pair)
    weighted, plain = centred(pair.p, given._replace(weighted=_fold.hold(given.weighted)))
    tame = jnp.zeros_like(pair.p, bool) if given.wild is None else given.wild
    lacking = jnp.any(jnp.isinf(pair.d), -1, keepdims=True)
    easy = s.near & (s.excess < _num.slope_limit(pair.d)) & ~lacking & (order < jnp.inf)
    scale = times / (1 + s.excess)

    def simple() -> tuple[Array, Array, Array]:
        return weighted * scale, plain * scale, tame

    return _fold.where_all(easy, simple, lambda: _far_slopes(order, pair, s, first, times, (weighted, plain, tame)))


def _far_slopes(
    order: Array, pair: Pair, s: _Sum, first: bool, times: float, given: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """The same where S is small or an order or a slope is infinite; `given` is what holds elsewhere."""
    (weighted, plain, tame), a = given, jnp.where(order == jnp.inf, 2, order)
    oriented = pair if first else pair.swap()
    lacking = jnp.any(jnp.isinf(pair.d), -1, keepdims=True)
    stuck = s.value == jnp.inf
    terms = _exponents(a, oriented, jnp.array(True))
    log = jnp.where(lacking, log_sum(terms), s.log)
    scale = times / jnp.where(lacking, jnp.exp(jnp.minimum(log, _num.log_limit(log))), 1 + s.excess)
    share = jnp.exp(terms - jnp.where(jnp.isfinite(log), log, 0))
    d = pair.tame
    power = a - 1 if first else -a
    largest = math.log(jnp.finfo(d.dtype).max) - 3
    relative = jnp.exp(jnp.minimum(power * d - jnp.where(jnp.isfinite(log), log, 0), largest))
    top = (oriented.d == jnp.max(oriented.d, -1, keepdims=True)) & (pair.log_hi > -jnp.inf)
    unbounded = order == jnp.inf
    apart = s.value > 0
    ties = jnp.where(top, jnp.ones_like(pair.p), 0)
    ties = ties / jnp.maximum(_num.total(ties), 1)  # as jnp.max has it, a tie is shared out
    share = jnp.where(unbounded, jnp.where(apart, ties, pair.p), share)
    attained = jnp.where(apart, _num.quotient(ties, jnp.maximum(pair.p, _num.tiny(pair.p))), 1)
    relative = jnp.where(unbounded, attained, relative)
    off_one = jnp.where(a == 1, 2, a)
    factor = times * (jnp.where(unbounded, 1, off_one / (off_one - 1)) if first else -jnp.ones_like(a))
    near = s.near & (s.excess < _num.slope_limit(d))  # beyond it slopes overflow before they are divided by S
    wild = jnp.where(near, tame, jnp.isinf(pair.d) & (stuck | (power < 0)))
    share, relative = centre(pair.p, factor * (share - pair.p), factor * (relative - 1))
    return jnp.where(near, weighted * scale, share), jnp.where(near, plain * scale, relative), wild


@partial(jax.custom_jvp, nondiff_argnums=(0, 4))
def renyi_of(column: Column, order: Array, a: Array, b: Array, share: float = 1.0) -> Array:
    """The Renyi divergence of checked inputs, times `share`; `order` is `[..., 1]`."""

    def value(order, a, b):
        pair = column.pair(a, b)
        return share * jnp.where(pair.mass > 0, _sum(order, pair).value, jnp.nan)[..., 0]

    return _fold.by_rows(value, order, a, b)


def _renyi_jvp(column, share, primals, tangents):
    moving = [t for t in tangents if not is_zero(t)]

    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(order, a, b, *given):
        steps = iter(given)
        pair = column.pair(a, b)
        s = _sum(order, pair)  # taken from a loop of its own its second derivatives would be lost
        result = jnp.zeros(a.shape[:-1], a.dtype)
        if not is_zero(tangents[0]):
            turn = _num.rate(lambda v: _sum(v, pair).value, order)
            result += share * (jnp.where(pair.mass > 0, turn, 0) * next(steps))[..., 0]
        if not is_zero(tangents[1]):
            result += jnp.sum(finish(column, a, pair, *_slopes(order, pair, s, True, share)) * next(steps), -1)
        if not is_zero(tangents[2]):
            swapped = pair.swap()
            result += jnp.sum(finish(column, b, swapped, *_slopes(order, swapped, s, False, share)) * next(steps), -1)
        return result

    return renyi_of(column, *primals, share), _fold.by_rows(tangent, *primals, *moving)


renyi_of.defjvp(_renyi_jvp, symbolic_zeros=True)


def renyi(
    column: Column, p: ArrayLike, q: ArrayLike, *, order: ArrayLike, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Renyi divergence, log(sum of p^a q^(1-a)) / (a - 1), in [0, inf].

    `order` is a >= 0, nan below; -log q(p > 0) at 0, kl at 1, log max p/q at inf; traced orders serve a sweep by vmap.
    @shapes
    Zero mass: +inf where p has mass and q has none if a >= 1, and for disjoint supports at every order.
    @errors
    Source: van Erven and Harremoes, Renyi divergence and Kullback-Leibler divergence (2014).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.renyi(p, q, order=2.0):.4f} {@column.renyi(p, q, order=jnp.inf):.4f}")
    1.0217 1.6094
    """
    p, q = pair_of(column, "renyi", p, q, axis, where)
    return renyi_of(column, _check.parameter(f"kljax.{column.name}.renyi", "order", order, p), p, q)


def bhattacharyya(
    column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Bhattacharyya distance, -log of sum of sqrt(p q), in [0, inf]: half the Renyi divergence of order 1/2.

    @shapes
    Zero mass: +inf only where the supports are disjoint.
    @errors
    Source: Bhattacharyya, On a measure of divergence between two statistical populations (1943).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.bhattacharyya(p, q):.4f}")
    0.1116
    """
    p, q = pair_of(column, "bhattacharyya", p, q, axis, where)
    return renyi_of(column, _check.parameter("", "order", 0.5, p), p, q, 0.5)


def _to_mean(share: Array, mass: Array, y: Array, g: Array) -> Array:
    """share times mass (y - 1 + e^-y), y = log(mass / g): what an outcome adds to the KL to the geometric mean g."""
    near = jnp.abs(y) < 1
    s = jnp.where(near, y, 0)
    far = mass * (jnp.where(near, 1, y) - 1) + g
    return share * jnp.where(near, mass * s * s * _num.exp_remainder_near(-s), far)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _geometric(column: Column, w: Array, a: Array, b: Array) -> Array:
    """w kl(p, g) + (1 - w) kl(q, g), which an error of g's normaliser enters squared; w in (0, 1), `[..., 1]`."""
    return _fold.by_rows(partial(_geometric_rows, column), w, a, b)


def _geometric_rows(column: Column, w: Array, a: Array, b: Array) -> Array:
    pair = column.pair(a, b)
    normaliser = -(1 - w) * _sum(w, pair).value
    lacking = jnp.any(jnp.isinf(pair.d), -1, keepdims=True)
    log = jnp.where(lacking, 0, normaliser)
    g = jnp.exp(_exponents(w, pair, jnp.array(False)) - log)
    terms = _to_mean(w, pair.p, (1 - w) * pair.tame + log, g) + _to_mean(1 - w, pair.q, -w * pair.tame + log, g)
    value = jnp.where(lacking, jnp.inf, _num.total(jnp.where(pair.log_hi > -jnp.inf, terms, 0)))
    return jnp.where(pair.mass > 0, value, jnp.nan)[..., 0]


def _geometric_jvp(column, primals, tangents):
    moving = [i for i, t in enumerate(tangents) if not is_zero(t)]

    def by_parts(*some):
        w, a, b = (some[moving.index(i)] if i in moving else primals[i] for i in range(3))
        share = w[..., 0] * (1 - w[..., 0])
        return share * divergence(column, rows.jeffreys, a, b) - (1 - w[..., 0]) * renyi_of(column, w, a, b)

    tangent = jax.jvp(by_parts, [primals[i] for i in moving], [tangents[i] for i in moving])[1]
    return _geometric(column, *primals), tangent


_geometric.defjvp(_geometric_jvp, symbolic_zeros=True)


def geometric_js(
    column: Column,
    p: ArrayLike,
    q: ArrayLike,
    *,
    weight: ArrayLike = 0.5,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Geometric Jensen-Shannon, w kl(p, g) + (1 - w) kl(q, g), g proportional to p^w q^(1-w), in [0, inf].

    `weight` is w, the weight of p, in [0, 1]; it equals w (1 - w) jeffreys + log of sum of p^w q^(1-w), 0 at the ends.
    @shapes
    Zero mass: +inf where exactly one of the two has mass, for 0 < w < 1.
    @errors
    Source: Nielsen, On the Jensen-Shannon symmetrization of distances relying on abstract means (2019).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.geometric_js(p, q):.4f}")
    0.1082
    """
    p, q = pair_of(column, "geometric_js", p, q, axis, where)
    w = _check.parameter(f"kljax.{column.name}.geometric_js", "weight", weight, p)
    inside = (w > 0) & (w < 1)
    value = _geometric(column, jnp.where(inside, w, 0.5), p, q)
    ends = jnp.where((w == 0) | (w == 1), jnp.where(jnp.isnan(value), value, 0)[..., None], jnp.nan)[..., 0]
    return jnp.where(inside[..., 0], value, ends)
