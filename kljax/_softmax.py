"""Pairs of softmaxes: where `logits` gets its normalised log-ratio from, and nothing else does.

The differences of the logits are formed first, in error-free arithmetic, and the difference of the log-normalisers is
log1p of a mean of expm1 of those differences. The two normalisers are never subtracted from one another.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _fold, _num
from kljax._fold import Sums
from kljax._pair import Pair, centre


def _raised(a: Array, top: Array) -> tuple[Array, Array, Array]:
    """a - top in two parts, rounded and rest, and its exponential, which carries the rest along."""
    high, low = _num.two_difference(a, top)
    e = jnp.exp(high)
    return high, low, e + e * low


def _top(a: Array) -> Array:
    top = jnp.max(a, -1, keepdims=True)
    return jnp.where(top == -jnp.inf, 0, top)


def _raw(a: Array, b: Array, from_p: Array, from_q: Array) -> Array:
    """(a - from_p) - (b - from_q), nan where neither has mass."""
    (d, rest), (at, rest_at) = _num.two_difference(a, b), _num.two_difference(from_p, from_q)
    return (d - at) + (rest - rest_at)


def sums(a: Array, b: Array) -> Sums:
    """The sums of two logits, by plain reductions on a CPU and by one sweep elsewhere.

    They are constants: the derivative of `pair` knows what they depend on.
    """
    a, b = lax.stop_gradient((a, b))
    if not _fold.on_cpu():
        return _fold.sums(_fold.swept(a, b))
    top_a, top_b = _top(a), _top(b)
    (_, _, ea), (_, _, eb) = _raised(a, top_a), _raised(b, top_b)
    raw = _raw(a, b, top_a, top_b)
    sa, sb = _num.total(ea), _num.total(eb)
    small = jnp.abs(raw) < 1
    moved = _num.total(jnp.where(small, eb * _num.expm1(jnp.where(small, raw, 0)), ea - eb))
    u = _num.divide(moved, sb)
    close = jnp.abs(u) < 0.4
    shift = jnp.where(close, _num.log1p(jnp.where(close, u, 0)), jnp.log(_num.divide(sa, sb)))
    return Sums(top_a, top_b, top_a, top_b, sa, sb, jnp.where(jnp.isfinite(shift), shift, 0))


@jax.custom_jvp
def pair(a: Array, b: Array, given: Sums) -> Pair:
    """The softmaxes of two logits with these sums, -inf being no mass."""
    la, ra, ea = _raised(a, given.top_p)
    lb, rb, eb = _raised(b, given.top_q)
    d = _raw(a, b, given.from_p, given.from_q) - given.shift
    d = jnp.where(jnp.isnan(d), 0, d)  # an input that is nan spoils its row through the masses
    one_a, one_b = (_num.divide(jnp.ones_like(s), s) for s in (given.mass_p, given.mass_q))
    logs = (la + ra) - jnp.log(given.mass_p), (lb + rb) - jnp.log(given.mass_q)
    return from_ratio(ea * one_a, eb * one_b, d, logs, given.mass_p * given.mass_q)


def from_ratio(p: Array, q: Array, d: Array, logs: tuple[Array, Array], mass: Array) -> Pair:
    """The pair from its masses, their accurate log-ratio and the logarithms of either."""
    near = jnp.abs(d) < 1
    s = jnp.where(near, d, 0)
    delta = jnp.where(near, q * (s + s * s * _num.exp_remainder_near(s)), p - q)
    gap = -jnp.sign(d) * _num.expm1(-jnp.abs(d))
    log_hi = jnp.where(d <= 0, logs[1], logs[0])
    floor = jnp.minimum(math.log(_num.tiny(d)) - log_hi, -1)
    tame = jnp.where(d == jnp.inf, -floor, jnp.where(d == -jnp.inf, floor, d))
    return Pair(p, q, delta, d, tame, gap, log_hi, mass)


def kl(a: Array, b: Array) -> tuple[Array, Sums]:
    """KL of the softmaxes, `[..., 1]`, and their sums, all without derivatives."""
    a, b = lax.stop_gradient((a, b))
    if _fold.on_cpu():
        return _fold.plain_kl(a, b)
    fold = _fold.swept(a, b)
    return _fold.kl(fold), _fold.sums(fold)


def centred(p: Array, tangent: Array) -> Array:
    """The tangent minus its mean under p."""
    return centre(p, jnp.where(p > 0, p * tangent, 0), tangent)[1]


@pair.defjvp
def _(primals, tangents):
    value = pair(*primals)  # the sums are those of a and b: their own tangents are in the means
    da, db = centred(value.p, tangents[0]), centred(value.q, tangents[1])
    one_a, one_b = (jnp.where(x > -jnp.inf, t, 0) for x, t in zip(primals[:2], (da, db), strict=True))
    dd = jnp.where(jnp.isfinite(value.d), one_a - one_b, 0)
    dp, dq = value.p * da, value.q * db
    dhi, dgap = jnp.where(value.gap <= 0, db, da), (1 - jnp.abs(value.gap)) * dd
    return value, Pair(dp, dq, dp - dq, dd, one_a - one_b, dgap, dhi, jnp.zeros_like(value.mass))


@jax.custom_jvp
def surprisal(a: Array) -> tuple[Array, Array, Array]:
    """Masses, -log masses (0 where there is no mass) and the total mass, which is 0 or >= 1."""
    high, low, e = _raised(a, _top(a))
    s = _num.total(e)
    # by its size, for the mode may miss its own maximum: compiled loops round a, if it is an expression, each their way
    alone, mode = s < 1.5, e > 0.75
    others = _num.total(jnp.where(mode, 0, e))
    log_total = jnp.where(alone, _num.log1p(jnp.where(s > 0, others, -1)), jnp.log(jnp.where(alone, 1, s)))
    size = log_total - jnp.where(alone & mode, 0, high + low)
    return _num.divide(e, s), jnp.where(high == -jnp.inf, 0, size), s


@surprisal.defjvp
def _(primals, tangents):
    value = surprisal(*primals)
    turn = centred(value[0], tangents[0])
    dp = value[0] * turn
    return value, (dp, jnp.where(primals[0] > -jnp.inf, -turn, 0), jnp.zeros_like(value[2]))


def peaks(given: Sums) -> tuple[Array, Array]:
    """The largest mass of either, 0 without any."""
    one = jnp.ones_like(given.mass_p)
    return _num.divide(one, given.mass_p), _num.divide(one, given.mass_q)


def pull(a: Array, weighted: Array, plain: Array) -> Array:
    """The gradient in the logits from P h, h = dD/dP with mean 0 under P: that is it."""
    return weighted
