"""Entropies of one distribution, from its surprisals -log p, each of which is >= 0 and known to its last digit.

-log p of a mass near 1 is log1p of what the others weigh. Gradients are centred at the mode, as in `_points`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _check, _fold, _num, rows
from kljax._cells import pair_of
from kljax._pair import centre
from kljax._points import Column, Given, is_zero, tangent_of


def _powers(a: Array, p: Array, size: Array) -> Array:
    """p^a of the outcomes that exist, from p or from -log p, whichever loses less: p may have underflowed."""
    far = (a < 0.5) | (size > _num.exp_limit(p))
    rest = jnp.where(far, 0, (1 - a) * size)
    return jnp.where(far, jnp.exp(-a * size), p * jnp.exp(rest))


SHANNON, TSALLIS, RENYI = 2, 0, 1  # which entropy


def _values(order: Array, p: Array, size: Array) -> tuple[Array, Array]:
    """Tsallis and Renyi entropy of `order`, all `[..., 1]`."""
    a = jnp.where(order == jnp.inf, 2, order)
    h = 1 - a
    present = (p > 0) | (size > 0)
    close = jnp.abs(h * size) < 1
    few = jnp.where(close, size, 0)
    terms = jnp.where(close, p * few * _num.exp_ratio(h * few), (_powers(a, p, size) - p) / jnp.where(close, 1, h))
    tsallis = _num.total(jnp.where(present, terms, 0))
    scaled = h * tsallis
    near = (scaled >= -0.5) & jnp.isfinite(tsallis)
    least = jnp.min(jnp.where(present, size, jnp.inf), -1, keepdims=True)
    least = jnp.where(jnp.isfinite(least), least, 0)
    tail = jnp.log(_num.total(jnp.where(present, jnp.exp(-a * (size - least)), 0)))
    far = (tail - a * least) / jnp.where(h == 0, 1, h)
    renyi = jnp.where(near, tsallis * _num.log1p_ratio(jnp.where(near, scaled, 0)), far)
    tsallis = jnp.where(order == jnp.inf, 0, tsallis)
    renyi = jnp.where(order == jnp.inf, least, renyi)
    return jnp.where(order >= 0, tsallis, jnp.nan), jnp.where(order >= 0, renyi, jnp.nan)


def _slopes(order: Array, p: Array, size: Array, which: int) -> tuple[Array, Array]:
    """(p h, h), h the slope in p minus that at the mode; for Renyi over S, in a form that no order overflows."""
    present = (p > 0) | (size > 0)
    mode = p >= jnp.max(p, -1, keepdims=True) * (1 - 4 * float(jnp.finfo(p.dtype).eps))  # of loops that round apart
    least = _num.pick(size, mode)
    beyond = jnp.where(mode | ~present, 0, size - least)
    if which == SHANNON:
        return p * beyond, beyond
    unbounded, a = order == jnp.inf, jnp.where(order == jnp.inf, 2, order)
    peak = _num.pick(p, mode)
    lost = size > _num.exp_limit(p)  # p h is then what is left of it where p has underflowed
    h = a * beyond * _num.exp_ratio((1 - a) * beyond)
    power = jnp.exp(-a * beyond)
    beneath = jnp.where(lost & (a < 1), a * peak * power / jnp.where(a < 1, 1 - a, 1), 0)
    weighted = jnp.where(lost, beneath, p * jnp.where(lost, 0, h))
    less = jnp.where(beyond > 0, jnp.ones_like(p), 0)
    h, weighted = jnp.where(unbounded, less, h), jnp.where(unbounded, p * less, weighted)
    power = jnp.where(unbounded, 1 - less, power)
    weight = _num.divide(jnp.ones_like(peak), peak * _num.total(jnp.where(present, power, 0)))
    if which == TSALLIS:
        weight = jnp.where(unbounded, 0, jnp.exp((1 - a) * least))
    most = float(jnp.finfo(p.dtype).max) / 4
    return weighted * weight, jnp.minimum(h * weight, most)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def entropy_of(column: Column, which: int, order: Array, a: Array) -> Array:
    """An entropy of checked input; Tsallis' and Renyi's are Shannon's at order 1."""

    def value(order, a):
        p, size, mass = column.surprisal(a)
        found = _num.total(p * size) if which == SHANNON else _values(order, p, size)[which]
        return jnp.where(mass > 0, found, jnp.nan)[..., 0]

    return _fold.by_rows(value, order, a)


def _entropy_jvp(column, which, primals, tangents):
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(order, a, *given):
        steps = iter(given)
        p, size, mass = column.surprisal(a)
        result = jnp.zeros(a.shape[:-1], a.dtype)
        if not is_zero(tangents[0]):
            turn = _num.rate(lambda v: _values(v, p, size)[which], order)
            result += (jnp.where(mass > 0, turn, 0) * next(steps))[..., 0]
        if not is_zero(tangents[1]):

            def coefficients() -> Array:
                pulled = column.pull(a, *centre(p, *_slopes(order, p, size, which)))
                return jnp.where((mass == 0) | (a == column.empty), 0, pulled)

            result += _fold.along(coefficients, (a, order), next(steps))
        return result

    moving = (t for t in tangents if not is_zero(t))
    return entropy_of(column, which, *primals), _fold.by_rows(tangent, *primals, *moving)


entropy_of.defjvp(_entropy_jvp, symbolic_zeros=True)


def _one(column: Column, cell: str, p: ArrayLike, axis: int, where: ArrayLike | None) -> Array:
    return _check.events(f"kljax.{column.name}.{cell}", ("p",), (p,), axis, where, column.empty)[0]


def entropy(column: Column, p: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Shannon entropy, -sum of p log p, in [0, log K].

    @shapes
    Zero mass: 0 log 0 = 0, with gradient 0.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p = @one
    >>> print(f"{@column.entropy(p):.4f}")
    1.0397
    """
    p = _one(column, "entropy", p, axis, where)
    return entropy_of(column, SHANNON, _check.parameter("", "order", 1.0, p), p)


def renyi_entropy(
    column: Column, p: ArrayLike, *, order: ArrayLike, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Renyi entropy, log(sum of p^a) / (1 - a), in [0, log K].

    `order` is a >= 0, nan below: the log of the support's size at 0, Shannon's at 1, -log max p at inf.
    @shapes
    Zero mass: adds nothing at any order, with gradient 0.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p = @one
    >>> print(f"{@column.renyi_entropy(p, order=2.0):.4f}")
    0.9808
    """
    p = _one(column, "renyi_entropy", p, axis, where)
    return entropy_of(column, RENYI, _check.parameter(f"kljax.{column.name}.renyi_entropy", "order", order, p), p)


def tsallis_entropy(
    column: Column, p: ArrayLike, *, order: ArrayLike, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Tsallis entropy, (1 - sum of p^a) / (a - 1), in [0, (1 - K^(1-a)) / (a - 1)].

    `order` is a >= 0, nan below: the size of the support less one at 0, Shannon's at 1, 0 at inf.
    @shapes
    Zero mass: adds nothing at any order, with gradient 0.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p = @one
    >>> print(f"{@column.tsallis_entropy(p, order=2.0):.4f}")
    0.6250
    """
    p = _one(column, "tsallis_entropy", p, axis, where)
    return entropy_of(column, TSALLIS, _check.parameter(f"kljax.{column.name}.tsallis_entropy", "order", order, p), p)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _cross(column: Column, a: Array, b: Array) -> Array:
    """-sum of p log q, a sum of terms >= 0."""
    return _fold.by_rows(partial(_cross_rows, column), a, b)


def _cross_rows(column: Column, a: Array, b: Array) -> Array:
    p, size_p, mass_p = column.surprisal(a)
    _, size, mass_q = column.surprisal(b)
    here = (a != column.empty) if column.sharp else (p > 0) | (size_p > 0)
    blocked = jnp.any(here & (b == column.empty), -1, keepdims=True)
    value = jnp.where(blocked, jnp.inf, _num.total(p * size))
    return jnp.where((mass_p > 0) & (mass_q > 0), value, jnp.nan)[..., 0]


def _cross_jvp(column, primals, tangents):
    @partial(jax.checkpoint, prevent_cse=False)
    def slope(a, b, da):
        p, _, mass_p = column.surprisal(a)
        q, size, mass_q = column.surprisal(b)
        size = jnp.where(b == column.empty, -jnp.log(_num.tiny(b)), size)
        h = size
        deleted = ((a == column.empty) & (b == column.empty)) | (mass_p == 0) | (mass_q == 0)
        return _fold.along(lambda: jnp.where(deleted, 0, column.pull(a, *centre(p, p * h, h))), (a, b), da)

    (a, b), (da, db) = primals, tangents
    result = jnp.zeros(a.shape[:-1], a.dtype)
    if not is_zero(da):
        result += _fold.by_rows(slope, a, b, da)
    if not is_zero(db):
        sums = _fold.by_rows(column.sums, a, b)
        result += tangent_of(column, rows.kl, a, b, Given(None, sums), None, db)
    return _cross(column, a, b), result


_cross.defjvp(_cross_jvp, symbolic_zeros=True)


def cross_entropy(
    column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Cross-entropy, -sum of p log q = entropy(p) + kl(p, q), in [0, inf].

    @shapes
    Zero mass: 0 log 0 = 0; +inf where p has mass and q has none.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.cross_entropy(p, q):.4f}")
    1.2040
    """
    p, q = pair_of(column, "cross_entropy", p, q, axis, where)
    return _cross(column, p, q)
