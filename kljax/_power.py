"""The cells made of one sum, S = sum of p^a q^(1-a): Renyi, Bhattacharyya, geometric Jensen-Shannon.

Two evaluations, each of which fails where the other works. Near, S >= 1/2: log S / (a - 1) is log1p of the Tsallis
divergence, a sum of terms >= 0. Far: a sum of exponentials of log masses.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _check, _direct_power, _fold, _num, rows
from kljax._cells import pair_of
from kljax._pair import Pair, Slope, centred, totals_of
from kljax._points import Column, Given, divergence, finish, is_zero, mirror, points, slope, total_of


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


def power_sum(order: Array, pair: Pair) -> _Sum:
    unbounded = order == jnp.inf
    a = jnp.where(unbounded, 2, order)
    t = _fold.total(points(rows.tsallis(a), pair), pair.mass)
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


class _Rows(NamedTuple):
    """What the slopes need of whole rows, all `[..., 1]`."""

    near: Array  # where the slopes are those of the Tsallis divergence over S
    scale: Array  # 1 / S
    log: Array  # log S with finfo.tiny for missing masses, as slopes see it
    value: Array
    top: Array  # max log(p/q) and how many outcomes attain it, for order inf
    ties: Array


def _row(order: Array) -> rows.Row:
    """The Tsallis divergence, as the derivatives of Renyi's want it."""
    return replace(rows.tsallis(jnp.where(order == jnp.inf, 2, order)), direct=_direct_power.renyi)


def _simple(order: Array, t: Array) -> tuple[_Rows, Array]:
    """For rows that are near, and whether they are, from their Tsallis divergence alone."""
    a = jnp.where(order == jnp.inf, 2, order)
    excess = (a - 1) * jnp.where(jnp.isfinite(t), t, 0)
    near = jnp.isfinite(t) & (excess >= -0.5) & (order < jnp.inf)
    value = t * _num.log1p_ratio(jnp.where(near, excess, 0))
    zero, one = jnp.zeros_like(t), jnp.ones_like(t)
    found = _Rows(zero == 0, 1 / (1 + jnp.where(near, excess, 0)), zero, value, zero, one)
    # a row that is nan is nan either way
    return found, (near & (excess < _num.slope_limit(t))) | jnp.isnan(t)


def _general(order: Array, pair: Pair) -> _Rows:
    """For any rows."""
    a, s = jnp.where(order == jnp.inf, 2, order), power_sum(order, pair)
    lacking = jnp.any(jnp.isinf(pair.d), -1, keepdims=True)
    log = log_sum(_exponents(a, pair, jnp.array(True)))
    whole = jnp.where(lacking, jnp.exp(jnp.minimum(log, _num.log_limit(log))), 1 + s.excess)
    top = jnp.max(pair.d, -1, keepdims=True)
    ties = _num.total(jnp.where(_attains(pair, top), jnp.ones_like(pair.d), 0))
    near = s.near & (s.excess < _num.slope_limit(log))  # beyond it slopes overflow before they are divided by S
    scale = jnp.where(near, 1 / jnp.where(near, whole, 1), 1)  # S of 0 would leave 0 * inf in what is not taken
    value = jnp.where(pair.mass > 0, s.value, jnp.nan)
    return _Rows(near, scale, log, value, top, jnp.maximum(ties, 1))


def _attains(pair: Pair, top: Array) -> Array:
    """Up to the rounding by which one compiled loop may differ from another in the same number."""
    slack = 4 * float(jnp.finfo(top.dtype).eps) * jnp.abs(top)
    return (pair.d >= jnp.where(jnp.isfinite(top), top - slack, top)) & (pair.log_hi > -jnp.inf)


def _near_slope(order: Array, pair: Pair, whole: _Rows, first: bool) -> Slope:
    """The slope in the first argument, or in the second as `pair.p` of the swapped pair, of rows that are near."""
    row = _row(order)
    given = slope(row if first else mirror(row), pair)
    given = given._replace(weighted=given.weighted * whole.scale, plain=given.plain * whole.scale)
    return given._replace(reach=given.reach * whole.scale)


def _slope(order: Array, pair: Pair, whole: _Rows, first: bool) -> Slope:
    """The same of any rows: S may be small, an order or a slope infinite."""
    given = _near_slope(order, pair, whole, first)
    a, oriented = jnp.where(order == jnp.inf, 2, order), pair if first else pair.swap()
    log, d = jnp.where(jnp.isfinite(whole.log), whole.log, 0), pair.tame
    # beyond the range, as of logits 1e38 apart, all of the sum is where it is infinite
    exponents, beyond = _exponents(a, oriented, jnp.array(True)), whole.log == jnp.inf
    share = jnp.where(beyond, (exponents == jnp.inf).astype(d.dtype), jnp.exp(exponents - log))
    power = a - 1 if first else -a
    largest = math.log(jnp.finfo(d.dtype).max) - 3
    relative = jnp.exp(jnp.minimum(power * d - log, largest))
    unbounded, apart = order == jnp.inf, whole.value > 0
    # as jnp.max has it, a tie is shared out
    ties = jnp.where(_attains(oriented, whole.top), jnp.ones_like(pair.p), 0) / whole.ties
    share = jnp.where(unbounded, jnp.where(apart, ties, pair.p), share)
    attained = jnp.where(apart, _num.quotient(ties, jnp.maximum(pair.p, _num.tiny(pair.p))), 1)
    relative = jnp.where(unbounded, attained, relative)
    off_one = jnp.where(a == 1, 2, a)
    factor = jnp.where(unbounded, 1, off_one / (off_one - 1)) if first else -jnp.ones_like(a)
    wild = jnp.isinf(pair.d) & ((whole.value == jnp.inf) | (power < 0))
    near, far = whole.near, jnp.asarray(given.far) & whole.near
    weighted = jnp.where(near, given.weighted, factor * (share - pair.p))
    plain = jnp.where(near, given.plain, factor * (relative - 1))
    return Slope(weighted, plain, far, given.reach, jnp.where(near, jnp.asarray(given.wild), wild))


def _found(
    column: Column, kind: Any, order: Array, a: Array, b: Array, sides: tuple[bool, bool]
) -> tuple[_Rows, Given]:
    """What whole rows leave; the far ones are looked at in blocks, for they take the memory of many arrays.

    `kind` is the dtype that a and b came in: what only a branch reads is a copy, which halves make half as large.
    """
    given = total_of(column, _row(order), a, b, sides)
    simple, easy = _simple(order, given.total)
    for totals, needed in zip(given.sides, sides, strict=True):
        easy &= ~(totals[-1] > 0) if needed else True  # none is wild, or the row is nan

    def near() -> tuple[_Rows, Any]:
        scaled = ((simple.scale * x[0], simple.scale * x[1], *x[2:]) if x else x for x in given.sides)
        return simple, tuple(scaled)

    def general(order, a, b, sums):
        pair = column.given(a.astype(sums[0].dtype), b.astype(sums[0].dtype), sums)
        whole, found = _general(order, pair), []
        for seen, first, needed in ((pair, True, sides[0]), (pair.swap(), False, sides[1])):
            h = _slope(order, seen, whole, first)
            wild = jnp.any(jnp.asarray(h.wild), -1, keepdims=True)
            rough = jnp.where(wild, jnp.ones_like(whole.log), 0)
            peak = jnp.max(seen.p, -1, keepdims=True)
            found.append((*totals_of(seen.p, h, peak, peak, lambda p=seen.p, h=h: (p, h)), rough) if needed else ())
        return whole, tuple(found)

    x, y = a.astype(kind), b.astype(kind)
    whole, found = _fold.either(easy, near, lambda: _fold.numbers(general, True, order, x, y, given.sums))
    return whole, given._replace(sides=found)


@partial(jax.custom_jvp, nondiff_argnums=(0, 4, 5))
def renyi_of(column: Column, order: Array, a: Array, b: Array, share: float, kind: Any) -> Array:
    """The Renyi divergence of checked inputs, which came as `kind`, times `share`; `order` is `[..., 1]`."""
    return share * _found(column, kind, order, a, b, (False, False))[0].value[..., 0]


def _renyi_jvp(column, share, kind, primals, tangents):
    moving = [t for t in tangents if not is_zero(t)]
    order, a, b = primals
    whole, given = _found(column, kind, order, a, b, (not is_zero(tangents[1]), not is_zero(tangents[2])))

    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(order, a, b, whole, given, *some):
        steps, order = iter(some), _fold.varying(order, (a, b))
        pairs = _fold.copies(column.given, a, b, given=given.sums, sweep=2, shared=True)
        result = jnp.zeros(a.shape[:-1], a.dtype)
        if not is_zero(tangents[0]):
            pair = next(pairs)
            turn = _num.rate(lambda v: power_sum(v, pair).value, order)
            result += share * (jnp.where(pair.mass > 0, turn, 0) * next(steps))[..., 0]
        for x, totals, first in ((a, given.sides[0], True), (b, given.sides[1], False)):
            if totals:

                def by(slope_of, x=x, totals=totals, first=first):
                    pair = next(pairs)
                    seen = pair if first else pair.swap()
                    weighted, plain = centred(seen.p, slope_of(order, seen, whole, first), totals[:-1])
                    return finish(column, x, seen, share * weighted, share * plain, totals[-1])

                def coefficients(by=by):
                    return _fold.where_all(whole.near, partial(by, _near_slope), partial(by, _slope))

                result += _fold.along(coefficients, (x, a, b, order), next(steps))
        return result

    return share * whole.value[..., 0], _fold.by_rows(tangent, *primals, whole, given, *moving)


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
    kind = _check.narrowest(p, q)
    p, q = pair_of(column, "renyi", p, q, axis, where)
    return renyi_of(column, _check.parameter(f"kljax.{column.name}.renyi", "order", order, p), p, q, 1.0, kind)


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
    kind = _check.narrowest(p, q)
    p, q = pair_of(column, "bhattacharyya", p, q, axis, where)
    return renyi_of(column, _check.parameter("", "order", 0.5, p), p, q, 0.5, kind)


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
    normaliser = -(1 - w) * power_sum(w, pair).value
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
        return share * divergence(column, rows.jeffreys, a, b) - (1 - w[..., 0]) * renyi_of(
            column, w, a, b, 1.0, a.dtype
        )

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
