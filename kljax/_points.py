"""The engine: a row applied to a pair of distributions, outcome by outcome, and its derivatives in closed form.

A column hands over a `Pair`, the two views of each ratio that rows want; everything here is the same for every column
and every row. Values are sums of terms >= 0. Gradients use the rows' own slopes, because autodiff of the stable forms
is not stable, and are centred at the mode of the distribution they belong to: a constant in the slope changes nothing,
as masses sum to one, and with the mode's own slope as that constant a peaked row keeps the digits of the others.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _direct, _fold, _num
from kljax._pair import Pair, Part, Slope, centred, parts, support, totals_of
from kljax.rows import Row

Outer = Callable[[Array], tuple[Array, Array]]


class Column(NamedTuple):
    """What a representation of discrete distributions has to supply."""

    name: str
    empty: float  # the input that stands for no mass
    sums: Callable[[Array, Array], Any]  # what whole rows of p and q leave, a NamedTuple of `[..., 1]` with `swap`
    given: Callable[[Array, Array, Any], Pair]  # the pair from p, q and their sums, one outcome as good as alone
    surprisal: Callable[[Array], tuple[Array, Array, Array]]  # a -> masses, -log masses, total mass
    peaks: Callable[[Any], tuple[Array, Array]]  # about the largest mass of either, from the sums
    pull: Callable[[Array, Array, Array], Array]  # (a, P h, h) -> gradient in a, h = dD/dP minus its mean under P
    kl: Callable[[Array, Array], tuple[Array, Any]] | None = None  # a faster sum of the points of kl, and the sums
    support: Callable[[Pair], tuple[Array, Array]] = support  # where exactly one has mass, and where neither has
    costly: bool = False  # whether on a CPU a pair had better be stored than formed again
    sharp: bool = False  # whether p - q has all its digits even at a mode that has almost all mass

    def pair(self, a: Array, b: Array) -> Pair:
        """The two distributions."""
        return self.given(a, b, self.sums(a, b))


def mirror(row: Row) -> Row:
    """The row of D(q, p)."""
    tails = row.tails and (row.tails[1], row.tails[0])
    growth = row.growth and partial(_mirrored, row.growth)
    return Row(row.r, row.f, row.dr, row.df, row.args, tails, growth, row.direct and row.direct.swap())


def _mirrored(growth, *args):
    return growth(*args)[::-1]


def _both(row: Row, names: tuple[str, str], rising: Array, t: Array, x: Array) -> Array:
    """f where p <= q and r where p > q; one evaluation for the rows in which they are the same function."""
    f, r = (getattr(row, name) for name in names)
    if f is r:
        return f(t, x, *row.args)
    return jnp.where(rising, f(t, x, *row.args), r(t, x, *row.args))


@jax.custom_jvp
def _term(row: Row, rising: Array, t: Array, x: Array) -> Array:
    return _both(row, ("f", "r"), rising, t, x)


@_term.defjvp
def _(primals, tangents):
    row, rising, t, x = primals
    slope = _both(row, ("df", "dr"), rising, t, x)
    ratio = jnp.where(x > -0.5, 1 + x, jnp.exp(t))
    finite = jnp.isfinite(t)
    along = jnp.where(finite, ratio * jnp.where(finite, slope, 0), 0) * tangents[2]
    if row.args:
        values, turn = jax.jvp(
            lambda *args: _both(_with(row, args), ("f", "r"), rising, t, x), row.args, tangents[0].args
        )
        return values, along + jnp.where(jnp.isfinite(values) & jnp.isfinite(turn), turn, 0)
    return _term(*primals), along


def _with(row: Row, args) -> Row:
    return replace(row, args=tuple(args))


def _power(row: Row, rising: Array, like: Array) -> Array | None:
    """The exponents k of `Row.growth`, chosen for each outcome."""
    if row.growth is None:
        return None
    k_f, k_r = row.growth(*row.args)
    return jnp.where(rising, k_f, k_r).astype(like.dtype)


def _cut(pair: Pair, hi: Array, t: Array, power: Array, least: Array, cap: float = jnp.inf) -> tuple[Array, Array]:
    """t cut at `least`, and the larger mass times the u^-power that the cut leaves out."""
    over = (t < least) & (t > -jnp.inf)
    cut = jnp.where(over, least, t)
    beyond = pair.log_hi + power * jnp.where(over, least - t, 0)
    return cut, jnp.where(over, jnp.exp(jnp.minimum(beyond, cap + power * jnp.where(over, least, 0))), hi)


def _slip(pair: Pair, rising: Array, hi: Array, t: Array) -> Array:
    """The rounding error of t, which u^-k magnifies by k |t|: the masses still know u, unless one has underflowed."""
    u = _num.divide(jnp.where(rising, pair.p, pair.q), hi)
    slip = u * jnp.exp(-jnp.maximum(t, -_num.exp_limit(t))) - 1
    return jnp.where((t < -1) & (jnp.abs(slip) < 1e-3), slip, 0)


def downhill(pair: Pair, rising: Array) -> tuple[Array, Array]:
    """t = log u <= 0 and x = u - 1: by a branch, because |d| would turn the derivative around at p = q."""
    return jnp.where(rising, pair.d, -pair.d), jnp.where(rising, pair.gap, -pair.gap)


def points(row: Row, pair: Pair) -> Array:
    """What each outcome adds to D(p, q): >= 0, +inf where the row is infinite without mass on one side."""
    if row.direct is not None:
        return row.direct.term(pair, *row.args)
    rising = pair.gap <= 0
    t, x = downhill(pair, rising)
    hi = jnp.where(rising, pair.q, pair.p)
    power = _power(row, rising, t)
    if power is not None:
        power = jnp.maximum(power, 0)
        least = jnp.where(power > 0, -_num.exp_limit(t) / jnp.where(power > 0, power, 1), -jnp.inf)
        slip = _slip(pair, rising, hi, t)
        t, hi = _cut(pair, hi, t, power, least)
        hi = hi * (1 - power * slip)
    term = _term(row, rising, t, x)
    # support is decided by d, not by masses that may have underflowed: inf even where the larger mass rounds to 0
    return jnp.where(term == jnp.inf, jnp.inf, hi * term)


def _edges(row: Row, rising: Array, like: Array) -> tuple[Array, Array]:
    """Term and slope at the end of the range, where the smaller mass is 0."""
    one = jnp.ones((1,) * like.ndim, like.dtype)
    end = (-jnp.inf * one, -one)
    return _both(row, ("f", "r"), rising, *end), _both(row, ("df", "dr"), rising, *end)


def slope(row: Row, pair: Pair) -> Slope:
    """The slope in p, by the row's functions; a missing mass is finfo.tiny in it."""
    if row.direct is not None:
        return row.direct.slope(pair, *row.args)
    rising, absent = pair.gap <= 0, jnp.isinf(pair.d)
    hi = jnp.where(rising, pair.q, pair.p)
    t, x = jnp.where(rising, pair.tame, -pair.tame), downhill(pair, rising)[1]
    edge, edge_slope = _edges(row, rising, t)
    limit, cap = _num.exp_limit(t), _num.log_limit(t)
    power = _power(row, rising, t)
    rate = jnp.zeros_like(t) if power is None else jnp.maximum(power, -1)
    grows = jnp.maximum(rate, 0)
    # u f'(u), where the product of e^t and the slope has a limit though each leaves the range
    least = -limit / (1 + grows)
    cut, amplitude = _cut(pair, hi, t, rate, least, cap)
    slip = jnp.zeros_like(t) if power is None else _slip(pair, rising, hi, t)
    amplitude = amplitude * (1 - grows * slip)
    product = amplitude * (jnp.exp(cut) * _both(row, ("df", "dr"), rising, cut, x))
    whole, size = _cut(pair, hi, t, grows, jnp.where(grows > 0, least, -jnp.inf), cap)
    size = size * (1 - grows * slip)
    term = _both(row, ("f", "r"), rising, whole, x)
    high = size * term - product
    low = _both(row, ("df", "dr"), rising, t, x) * (1 - jnp.maximum(1 + rate, 0) * slip)
    # where t was cut or corrected `term` is not the whole term
    beyond = ((whole != t) | (slip != 0)) & (pair.p > 0)
    plain_high = jnp.where(beyond, _num.quotient(high, jnp.where(beyond, pair.p, 1)), term - jnp.exp(t) * low)
    plain = jnp.where(rising, low, plain_high)
    most = _num.slope_limit(t)
    plain = jnp.where(jnp.isfinite(plain), plain, jnp.where(plain > 0, most, -most))
    weighted = jnp.where(rising, product, high)
    wild = absent & ~jnp.isfinite(jnp.where(rising, edge_slope, edge)) | (jnp.abs(weighted) >= jnp.exp(cap) / 2)
    given = Slope(weighted, plain, wild=wild)
    return given if row.tails is None else _from_the_limit(row, pair, given, t, x)


def _from_the_limit(row: Row, pair: Pair, given: Slope, t: Array, x: Array) -> Slope:
    """The same slopes, where p is much larger than q as what is left to their limit f'(inf)."""
    assert row.tails is not None
    end = jnp.full((1,) * t.ndim, -jnp.inf, t.dtype), -jnp.ones((1,) * t.ndim, t.dtype)
    reach = row.r(*end, *row.args)
    far = (pair.d > 0) & jnp.isfinite(reach)
    tail = jnp.where(far, row.tails[0](jnp.where(far, t, -1), jnp.where(far, x, -1), *row.args), 0)
    far &= tail < reach / 2
    weighted, plain = jnp.where(far, -pair.p * tail, given.weighted), jnp.where(far, -tail, given.plain)
    return Slope(weighted, plain, far, jnp.where(jnp.isfinite(reach), reach, 0), given.wild)


def gradient(column: Column, row: Row, a: Array, pair: Pair, scale: Array | float, totals: Any) -> Array:
    """The gradient of D(p, q) in the input a that p was made of, times the outer derivative."""
    given = slope(row, pair)
    wild = given.wild
    if totals and wild is not None:
        *totals, wild = totals
    weighted, plain = centred(pair.p, given, totals or None) if _parts(column, given) else given[:2]
    return finish(column, a, pair, weighted * scale, plain * scale, wild)


def finish(column: Column, a: Array, pair: Pair, weighted: Array, plain: Array, wild: Array | None = None) -> Array:
    """From centred slopes to the gradient in a: 0 for deleted outcomes and rows without mass, bounded where wild."""
    result = column.pull(a, weighted, plain)
    one, deleted = column.support(pair)
    most, reported = _num.slope_limit(a), one
    # weights of total 1e-38 take a slope out of range: inf would be a nan beside another such slope or times 0
    result = jnp.clip(result, jnp.finfo(a.dtype).min, jnp.finfo(a.dtype).max)
    if wild is not None:
        reported |= jnp.any(wild.astype(bool), -1, keepdims=True)
    result = jnp.where(reported, jnp.clip(result, -most, most), result)
    return jnp.where(deleted | (pair.mass == 0), 0, result)


def is_zero(tangent: Any) -> bool:
    return tangent is None or isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def itself(x: Array) -> tuple[Array, Array]:
    """No function of a divergence: its value and its derivative."""
    return x, jnp.ones_like(x)


@partial(jax.custom_jvp, nondiff_argnums=(0, 4))
def divergence(column: Column, row: Row, a: Array, b: Array, outer: Outer = itself) -> Array:
    """Sum of `points` over the last axis, or a function of it: nan for a row without any mass."""
    return _fold.by_rows(
        lambda row, a, b: outer(_totals(column, row, a, b, (False, False)).total)[0][..., 0], row, a, b
    )


class Given(NamedTuple):
    """What a sweep leaves for the derivatives, all `[..., 1]`."""

    total: Any  # None where no function of it is asked for
    sums: Any
    sides: Any = (None, None)  # for either argument the totals of `parts` and of wildness, if formed


@partial(jax.custom_jvp, nondiff_argnums=(0, 4))
def total_of(column: Column, row: Row, a: Array, b: Array, sides: tuple[bool, bool]) -> Given:
    """The sum itself and what else the derivatives in these sides need from whole rows."""
    return _moving(column, sides, row, a, b)


def _totals(column: Column, row: Row, a: Array, b: Array, sides: tuple[bool, bool]) -> Given:
    if _fold.on_cpu():
        return _totals_on_cpu(column, row, a, b, sides)
    shortcut = _shortcut(column, row, a, b)
    sums = column.sums(a, b) if shortcut is None else shortcut[1]
    pairs = _fold.copies(column.given, a, b, given=sums, sweep=1, shared=_shared(column, row))
    terms = [] if shortcut else [term(next(pairs)) for term in _terms(row)]
    ends = [len(terms)]
    for side, needed in enumerate(sides):
        turned = mirror(row) if side else row
        given = slope(turned, next(pairs))
        for part in (*_parts(column, given), *_wildness(given)) if needed else ():
            pair = next(pairs)
            pair = pair.swap() if side else pair
            terms.append(part(pair.p, slope(turned, pair)))
        ends.append(len(terms))
    found = _fold.totals(*terms) if terms else ()
    total = shortcut[0] if shortcut else _joined(row, found[: ends[0]], next(pairs).mass)
    return Given(total, sums, tuple(tuple(found[i:j]) for i, j in itertools.pairwise(ends)))


def _totals_on_cpu(column: Column, row: Row, a: Array, b: Array, sides: tuple[bool, bool]) -> Given:
    """The same, each sum a sweep over the block of rows."""
    row = _fold.varying(row, (a, b))  # what a branch reads
    shortcut = _shortcut(column, row, a, b)
    sums = column.sums(a, b) if shortcut is None else shortcut[1]
    pairs = _fold.copies(column.given, a, b, given=sums, sweep=1, shared=_shared(column, row))

    def sloped(side: int) -> tuple[Array, Slope]:
        pair = next(pairs)
        pair, turned = (pair.swap(), mirror(row)) if side else (pair, row)
        return pair.p, slope(turned, pair)

    pair = next(pairs)
    total = shortcut[0] if shortcut else summed(row, pair)
    found = []
    for side, needed in enumerate(sides):
        p, given = sloped(side)
        again = partial(lambda *found: found, p, given) if _shared(column, row) else partial(sloped, side)
        some = needed and _parts(column, given)
        centre = totals_of(p, given, pair.mass, column.peaks(sums)[side], again) if some else ()
        wild = (_fold.total(part(p, given), pair.mass) for part in _wildness(given) if needed)
        found.append((*centre, *wild))
    return Given(total, sums, tuple(found))


def _shared(column: Column, row: Row) -> bool:
    """Whether on a CPU a pair and its slope are formed once, for all sums over it."""
    return column.costly or (row.direct is not None and row.direct.once)


def _wildness(given: Slope) -> tuple[Part, ...]:
    """Whether any slope of a row is wild, as a number that is not 0."""
    return () if given.wild is None else (lambda p, slope: jnp.where(jnp.asarray(slope.wild), jnp.ones_like(p), 0),)


def _parts(column: Column, given: Slope) -> tuple[Part, ...]:
    """What centring the slope needs the totals of."""
    return () if given.balanced and column.sharp else parts(given)


def _terms(row: Row) -> tuple[Callable[[Pair], Array], ...]:
    """What is summed over outcomes."""
    if row.direct is not None and row.direct.several:
        return row.direct.several
    return (partial(points, row),)


def summed(row: Row, pair: Pair) -> Array:
    """The divergence `[..., 1]` of a pair."""
    return _joined(row, [_fold.total(term(pair), pair.mass) for term in _terms(row)], pair.mass)


def _joined(row: Row, totals: Any, mass: Array) -> Array:
    """The divergence from the totals of its terms."""
    joined = row.direct.joined if row.direct is not None else None
    value = totals[0] if joined is None else joined(*totals)
    return jnp.where(mass > 0, value, jnp.nan)


def _shortcut(column: Column, row: Row, a: Array, b: Array) -> tuple[Array, Any] | None:
    """kl and the sums in one go, where the column can."""
    if column.kl is not None and row.direct == _direct.kl:
        return column.kl(a, b)
    if column.kl is not None and row.direct == _direct.kl.swap():
        value, sums = column.kl(b, a)
        return value, sums.swap()
    return None


def _moved(row: Row, i: int, pair: Pair, value: Array) -> Array:
    """The row's points with another value of its parameter i."""
    return points(_with(row, (*row.args[:i], value, *row.args[i + 1 :])), pair)


def tangent_of(
    column: Column, row: Row, a: Array, b: Array, given: Given, da: Any, db: Any, dargs: Any = (), outer: Outer = itself
) -> Array:
    """The derivative of `divergence`; a side whose tangent is symbolically zero is free.

    Recomputed from the arguments and what is given, which are thus all that reverse mode keeps.
    """

    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(row, a, b, given, *some):
        steps = iter(some)
        pairs = _fold.copies(column.given, a, b, given=given.sums, sweep=2, shared=_shared(column, row))
        scale = 1.0 if outer is itself else outer(given.total)[1]
        result = jnp.zeros(a.shape[:-1], a.dtype)
        if not is_zero(da):
            pair = next(pairs)
            result += _fold.along(lambda: gradient(column, row, a, pair, scale, given.sides[0]), (a, b), next(steps))
        if not is_zero(db):
            turned = next(pairs).swap()
            mirrored = mirror(row)
            result += _fold.along(
                lambda: gradient(column, mirrored, b, turned, scale, given.sides[1]), (b, a), next(steps)
            )
        for i, d in enumerate(dargs):
            if not is_zero(d):
                pair = next(pairs)
                turn = _num.total(_num.rate(partial(_moved, row, i, pair), row.args[i]))
                result += (jnp.where(pair.mass > 0, turn * scale, 0) * next(steps))[..., 0]
        return result

    return _fold.by_rows(tangent, row, a, b, given, *(d for d in (da, db, *dargs) if not is_zero(d)))


def _divergence_jvp(column, outer, primals, tangents):
    (row, a, b), (drow, da, db) = primals, tangents
    given = total_of(column, row, a, b, (not is_zero(da), not is_zero(db)))
    return outer(given.total)[0][..., 0], tangent_of(column, row, a, b, given, da, db, drow.args, outer)


divergence.defjvp(_divergence_jvp, symbolic_zeros=True)


def _total_jvp(column, sides, primals, tangents):
    """The sums are constants: the derivatives of a column's pair know what they depend on."""
    (row, a, b), (drow, da, db) = primals, tangents
    given = total_of(column, row, a, b, sides)
    along = tangent_of(column, row, a, b, given, da, db, drow.args)[..., None]
    turned = jax.tree.map(jnp.zeros_like, given)
    if jax.tree.leaves(given.sides):
        turned = jax.jvp(partial(_moving, column, sides), primals, _instantiated(tangents))[1]
    return given, turned._replace(total=along, sums=jax.tree.map(jnp.zeros_like, given.sums))


def _moving(column, sides, row, a, b):
    return _fold.by_rows(lambda row, a, b: _totals(column, row, a, b, sides), row, a, b)


def _instantiated(tangents):
    return jax.tree.map(lambda t: jnp.zeros(t.shape, t.dtype) if is_zero(t) else t, tangents, is_leaf=is_zero)


total_of.defjvp(_total_jvp, symbolic_zeros=True)
