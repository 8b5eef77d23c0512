"""Pairs of non-negative weights, each standing for itself over its sum: what `probs` is made of.

The normalisers enter through the difference p - q, not by dividing first, so that vectors whose sums are 1 only up to
rounding mean what their owner meant. Scaling is by powers of two, which is exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _log, _num
from kljax._pair import Pair


def masses(p: Array) -> Array:
    """The weights, nan where one is negative, infinite or nan: it then spoils its own row through the sum."""
    return jnp.where((p >= 0) & (p < jnp.inf), p, jnp.nan)


def _log_quotient(p: Array, q: Array) -> Array:
    """log(p/q) of positive numbers of any size: of 1e20 and 1e-20 no quotient exists."""
    r = p / q
    exists = (r >= _num.tiny(r)) & jnp.isfinite(r)
    return jnp.where(exists, jnp.log(jnp.where(exists, r, 1)), jnp.log(p) - jnp.log(q))


def from_difference(p: Array, q: Array, delta: Array, mass: Array, *, measures: bool = False) -> Pair:
    """The pair from its shares, or from `measures` of any size, and their accurate difference."""
    over = _num.divide if measures else _num.share_of
    rising = delta <= 0
    hi = jnp.where(rising, q, p)
    share = over(delta, p + q)  # log(p/q) is twice its inverse hyperbolic tangent
    near = jnp.abs(share) < 0.5
    s = jnp.where(near, share, 0)
    one, least = jnp.ones_like(p), _num.tiny(p)
    top, bottom = jnp.maximum(p, least), jnp.maximum(q, least)
    if measures:
        far = _log_quotient(jnp.where(near, one, top), jnp.where(near, one, bottom))
    else:
        far = _log.normal(jnp.where(near, one, _num.over(top, bottom)))
    tame = jnp.where(near, 2 * (s + s * (s * s) * _num.atanh_remainder(s)), far)
    d = jnp.where(p == 0, jnp.where(q == 0, 0, -jnp.inf), jnp.where(q == 0, jnp.inf, tame))
    return Pair(p, q, delta, d, tame, over(delta, hi), jnp.log(hi), mass)


class Sums(NamedTuple):
    """What whole rows of weights leave, all `[..., 1]`."""

    unit_p: Array  # powers of two that bring the totals near 1 and near each other
    unit_q: Array
    total_p: Array  # the totals of the weights in these units
    total_q: Array
    excess: Array  # the total of p - q over that of q
    others: Array  # of two masses that are all but 1, p - q; else inf, as jax_debug_nans stops at a nan
    peak_p: Array  # about the largest share
    peak_q: Array

    def swap(self) -> "Sums":
        """Those of (q, p)."""
        excess = _num.divide(-self.excess * self.total_q, self.total_p)
        units, totals = (self.unit_q, self.unit_p), (self.total_q, self.total_p)
        return Sums(*units, *totals, excess, -self.others, self.peak_q, self.peak_p)


def _shares(p: Array, q: Array, given: Sums) -> tuple[Array, Array, Array]:
    """The weights over their sums, and the difference of these."""
    x, y = p * given.unit_p, q * given.unit_q
    one_p, one_q = (_num.divide(jnp.ones_like(s), s) for s in (given.total_p, given.total_q))
    delta = ((x - y) - given.excess * y) * one_p
    # what is no weight spoils its own row; a mass that underflowed in the division is no mass
    x, y = (jnp.where(given >= 0, share * one, jnp.nan) for given, share, one in ((p, x, one_p), (q, y, one_q)))
    return x, y, delta


def sums(p: Array, q: Array) -> Sums:
    """The sums of two weights, constants: the derivative of `pair` knows what they depend on."""
    p, q = lax.stop_gradient((p, q))
    sp, sq = _num.total(p), _num.total(q)
    # totals of 2^126 (1e38) and more: their own units, and halves of them, would be subnormal, so flushed to 0
    most = 1 / _num.tiny(sp)
    unit_p, unit_q = (1 / jnp.minimum(_num.power_of_two(jnp.where(s > 0, s, 1)), most) for s in (sp, sq))
    ratio = _num.power_of_two(_num.divide(sp * unit_p, sq * unit_q))
    ratio = jnp.where(ratio > 0, ratio, 1)
    unit_p, unit_q = (jnp.minimum(u * jnp.maximum(r, 1), 2 * most) for u, r in ((unit_p, 1 / ratio), (unit_q, ratio)))
    sp, sq = sp * unit_p, sq * unit_q
    zero = jnp.maximum(-1 - sp, 0)  # a number of its own, so that these products are not those of `_shares`, and stored
    excess = _num.divide(_num.total(p * (unit_p + zero) - q * (unit_q + zero)), sq)
    peaks = (_num.divide(jnp.max(x, -1, keepdims=True) * u, s) for x, u, s in ((p, unit_p, sp), (q, unit_q, sq)))
    given = Sums(unit_p, unit_q, sp, sq, excess, jnp.full_like(sp, jnp.inf), *peaks)
    return given._replace(others=_others(p, q, given))


def _others(p: Array, q: Array, given: Sums) -> Array:
    """`Sums.others`: of two masses that are all but 1 only the others know the difference, [8, 7e26] against [0, 1]."""
    x, y, delta = _shares(p, q, given)
    most = (x > 0.5) & (y > 0.5)
    others, rest = (_num.total(jnp.where(most, 0, v)) for v in (delta, x + y))
    return jnp.where(rest < float(jnp.finfo(p.dtype).eps) ** 0.5, -others, jnp.inf)


@jax.custom_jvp
def pair(p: Array, q: Array, given: Sums) -> Pair:
    """The two weights, each over its sum."""
    x, y, delta = _shares(p, q, given)
    delta = jnp.where((x > 0.5) & (y > 0.5) & jnp.isfinite(given.others), given.others, delta)
    delta = jnp.where((x == 0) | (y == 0), x - y, delta)  # so that the gap is exactly 1 where a mass is missing
    return from_difference(x, y, delta, given.total_p * given.total_q)


def _turns(p: Array, share: Array, dp: Array) -> tuple[Array, Array]:
    """Derivatives of the share p / sum p and of its logarithm, the latter 0 where there is no mass."""
    s = _num.total(p)
    mean = _num.divide(_num.total(dp), s)
    return _num.divide(dp, s) - share * mean, jnp.where(share > 0, _num.divide(dp, p) - mean, 0)


@pair.defjvp
def _(primals, tangents):
    value = pair(*primals)
    deleted = (value.p == 0) & (value.q == 0)
    (dp, up), (dq, uq) = (
        _turns(x, share, jnp.where(deleted, 0, t))
        for x, share, t in zip(primals[:2], (value.p, value.q), tangents[:2], strict=True)
    )
    rising = value.gap <= 0
    hi, dhi = jnp.where(rising, value.q, value.p), jnp.where(rising, dq, dp)
    dd = jnp.where(jnp.isfinite(value.d) & (hi > 0), up - uq, 0)
    dgap = _num.divide(dp - dq - value.gap * dhi, hi)
    dlog = jnp.where(rising, uq, up)
    return value, Pair(dp, dq, dp - dq, dd, up - uq, dgap, dlog, jnp.zeros_like(value.mass))


@jax.custom_jvp
def surprisal(p: Array) -> tuple[Array, Array, Array]:
    """Shares, -log shares (0 where there is no mass) and the total weight."""
    p = masses(p)
    s = _num.total(p)
    share = _num.divide(p, s)
    rest = _num.divide(_num.total(jnp.where(share > 0.5, 0, p)), s)  # what is left beside one large share
    size = jnp.where(share > 0.5, -_num.log1p(-rest), -jnp.log(jnp.where(share > 0, share, 1)))
    return share, size, s


@surprisal.defjvp
def _(primals, tangents):
    value = surprisal(*primals)
    dp, turn = _turns(primals[0], value[0], tangents[0])
    return value, (dp, -turn, jnp.zeros_like(value[2]))


def support(pair: Pair) -> tuple[Array, Array]:
    """The outcomes where exactly one has mass, and those where neither has, without a logarithm."""
    no_p, no_q = pair.p == 0, pair.q == 0
    return no_p != no_q, no_p & no_q


def peaks(given: Sums) -> tuple[Array, Array]:
    """About the largest share of either."""
    return given.peak_p, given.peak_q


def pull(a: Array, weighted: Array, plain: Array) -> Array:
    """The gradient in the weights from h = dD/dP, which has mean 0 under P: h over the sum of the weights."""
    return _num.divide(plain, _num.total(a))
