"""Pairs of softmaxes: where `logits` gets its normalised log-ratio from, and nothing else does.

The differences of the logits are formed first, in error-free arithmetic, and the difference of the log-normalisers is
log1p of a mean of expm1 of those differences. The two normalisers are never subtracted from one another.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _fold, _num
from kljax._pair import Pair, centre


def _shifted(a: Array) -> tuple[Array, Array, Array]:
    """a - max a in two parts, rounded and rest, and its exponential, which carries the rest along."""
    top = jnp.max(a, -1, keepdims=True)
    high, low = _num.two_difference(a, jnp.where(top == -jnp.inf, 0, top))
    e = jnp.exp(high)
    return high, low, e + e * low


@jax.custom_jvp
def pair(a: Array, b: Array) -> Pair:
    """The softmaxes of two logits, -inf being no mass."""
    la, ra, ea = _shifted(a)
    lb, rb, eb = _shifted(b)
    neither = (a == -jnp.inf) & (b == -jnp.inf)
    raw = jnp.where(neither, 0, (la - lb) + (ra - rb))
    sa, sb = _num.total(ea), _num.total(eb)
    small = jnp.abs(raw) < 1
    moved = _num.total(jnp.where(small, eb * _num.expm1(jnp.where(small, raw, 0)), ea - eb))
    u = _num.divide(moved, sb)
    close = jnp.abs(u) < 0.4
    shift = jnp.where(close, _num.log1p(jnp.where(close, u, 0)), jnp.log(_num.divide(sa, sb)))
    d = jnp.where(neither, 0, raw - jnp.where(jnp.isfinite(shift), shift, 0))
    one_a, one_b = (_num.divide(jnp.ones_like(s), s) for s in (sa, sb))
    p, q = ea * one_a, eb * one_b
    near = jnp.abs(d) < 1
    s = jnp.where(near, d, 0)
    delta = jnp.where(near, q * (s + s * s * _num.exp_remainder_near(s)), p - q)
    gap = -jnp.sign(d) * _num.expm1(-jnp.abs(d))
    log_hi = jnp.where(d <= 0, (lb + rb) - jnp.log(sb), (la + ra) - jnp.log(sa))
    floor = jnp.minimum(math.log(_num.tiny(d)) - log_hi, -1)
    tame = jnp.where(d == jnp.inf, -floor, jnp.where(d == -jnp.inf, floor, d))
    return Pair(p, q, delta, d, tame, gap, log_hi, sa * sb)


def kl(a: Array, b: Array) -> Array:
    """KL of the softmaxes, `[..., 1]`."""
    return _fold.plain_kl(a, b) if _fold.on_cpu() else _fold.kl(_fold.swept(a, b))


def centred(p: Array, tangent: Array) -> Array:
    """The tangent minus its mean under p."""
    return centre(p, jnp.where(p > 0, p * tangent, 0), tangent)[1]


@pair.defjvp
def _(primals, tangents):
    value = pair(*primals)
    da, db = centred(value.p, tangents[0]), centred(value.q, tangents[1])
    one_a, one_b = (jnp.where(x > -jnp.inf, t, 0) for x, t in zip(primals, (da, db), strict=True))
    dd = jnp.where(jnp.isfinite(value.d), one_a - one_b, 0)
    dp, dq = value.p * da, value.q * db
    dhi, dgap = jnp.where(value.gap <= 0, db, da), (1 - jnp.abs(value.gap)) * dd
    return value, Pair(dp, dq, dp - dq, dd, one_a - one_b, dgap, dhi, jnp.zeros_like(value.mass))


@jax.custom_jvp
def surprisal(a: Array) -> tuple[Array, Array, Array]:
    """Masses, -log masses (0 where there is no mass) and the total mass, which is 0 or >= 1."""
    high, low, e = _shifted(a)
    others = _num.total(jnp.where(high == 0, 0, e)) + (_num.total(jnp.where(high == 0, jnp.ones_like(a), 0)) - 1)
    log_total = _num.log1p(jnp.maximum(others, 0))  # of -1 in a row without mass
    s = _num.total(e)
    return _num.divide(e, s), jnp.where(high == -jnp.inf, 0, log_total - (high + low)), s


@surprisal.defjvp
def _(primals, tangents):
    value = surprisal(*primals)
    turn = centred(value[0], tangents[0])
    dp = value[0] * turn
    return value, (dp, jnp.where(primals[0] > -jnp.inf, -turn, 0), jnp.zeros_like(value[2]))


def pull(a: Array, weighted: Array, plain: Array) -> Array:
    """The gradient in the logits from P h, h = dD/dP with mean 0 under P: that is it."""
    return weighted
