"""A pair of Normals as numbers of their ratio, and what the rows of `affinity` need, one coordinate at a time.

For each coordinate z = (loc_p - loc_q) / scale_q, and the ratio of the scales in three views, each with all its digits:
s = log(scale_p/scale_q), e = scale_p/scale_q - 1 and r = scale_p/scale_q. Near equality everything is formed from
e or s, far from it from r and s; every value is a sum of terms >= 0 and every slope is in closed form.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _num, _two
from kljax._points import is_zero

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Normal(NamedTuple):
    """Independent Normal coordinates: loc `[..., D]` and the standard deviations, `[..., D]` or one for all, > 0.

    Scalars stand for one coordinate or, beside another Normal, for every one of its coordinates.
    """

    loc: Any
    scale: Any


class LogScaleNormal(NamedTuple):
    """Independent Normal coordinates by the logarithm of their standard deviation, with the shapes of `Normal`."""

    loc: Any
    log_scale: Any


class View(NamedTuple):
    """p as seen from q: z = (loc_p - loc_q) / scale_q, and the ratio of the scales as s = log r, e = r - 1 and r."""

    z: Array
    s: Array
    e: Array
    r: Array


@jax.custom_jvp
def _ratio(p: Array, q: Array) -> tuple[Array, Array, Array]:
    """log(p/q), p/q - 1 and p/q of two scales."""
    r, e = p / q, (p - q) / q
    normal = (r > _num.tiny(p)) & jnp.isfinite(r)
    s = jnp.where(normal, _num.log1p_by(e, jnp.where(normal, r, 1)), jnp.log(p) - jnp.log(q))
    return s, e, r


@_ratio.defjvp
def _(primals, tangents):
    s, e, r = _ratio(*primals)
    ds = tangents[0] / primals[0] - tangents[1] / primals[1]
    dr = jnp.where(r < _num.slope_limit(r), r, 0) * ds  # an infinite r has no slope
    return (s, e, r), (ds, dr, dr)


@jax.custom_jvp
def _ratio_of_logs(s: Array) -> tuple[Array, Array]:
    """e^s - 1 and e^s."""
    return _num.expm1(s), jnp.exp(s)


@_ratio_of_logs.defjvp
def _(primals, tangents):
    e, r = _ratio_of_logs(*primals)
    dr = jnp.where(r < _num.slope_limit(r), r, 0) * tangents[0]
    return (e, r), (dr, dr)


@jax.custom_jvp
def _standard(d: Array, scale: Array) -> Array:
    return d / scale


@_standard.defjvp
def _(primals, tangents):
    d, scale = primals
    z = _standard(d, scale)
    ok = jnp.isfinite(z * z)  # an infinite divergence has slope 0: inf * 0 otherwise
    return z, jnp.where(ok, (tangents[0] - jnp.where(ok, z, 0) * tangents[1]) / scale, 0)


def view(p: Any, q: Any) -> View:
    """The numbers of a pair; differences are formed in the parameters that are given."""
    if isinstance(p, Normal):
        return View(_standard(p.loc - q.loc, q.scale), *_ratio(p.scale, q.scale))
    s = p.log_scale - q.log_scale
    return View(_standard(p.loc - q.loc, jnp.exp(q.log_scale)), s, *_ratio_of_logs(s))


def scale(p: Any) -> Array:
    """The standard deviations."""
    return p.scale if isinstance(p, Normal) else jnp.exp(p.log_scale)


def log_scale(p: Any) -> Array:
    """Their logarithms."""
    return jnp.log(p.scale) if isinstance(p, Normal) else p.log_scale


def scale_difference(p: Any, q: Any) -> Array:
    """scale_p - scale_q."""
    if isinstance(p, Normal):
        return p.scale - q.scale
    s = p.log_scale - q.log_scale
    near = jnp.abs(s) < 1  # beyond, the derivative in q would be a difference of terms e^s times as large
    difference = jnp.exp(p.log_scale) - jnp.exp(q.log_scale)
    return jnp.where(near, jnp.exp(q.log_scale) * _num.expm1(jnp.where(near, s, 0)), difference)


def ordered(p: Any, q: Any) -> tuple[Any, Any, Array]:
    """The distribution with the smaller scale, the other, and where the smaller is q."""
    up = p[1] > q[1]
    small = type(p)(*(jnp.where(up, b, a) for a, b in zip(p, q, strict=True)))
    return small, type(p)(*(jnp.where(up, a, b) for a, b in zip(p, q, strict=True))), up


def in_units(p: Any, q: Any) -> tuple[Any, Any]:
    """Both from the loc of q, in units of about its scale: slopes are divided by a tiny scale once, after their sum."""
    if isinstance(p, LogScaleNormal):
        return p, q
    r, most = p.scale / q.scale, _num.slope_limit(p.scale) ** 2
    one = _num.power_of_two(1 / q.scale)  # a product: of two quotients by one number XLA makes those of their products
    one = lax.stop_gradient(jnp.where((r < most) & (r * most > 1) & (one > 0), one, 1))
    return Normal((p.loc - q.loc) * one, p.scale * one), Normal(jnp.zeros_like(q.loc), q.scale * one)


def entropy(p: Any) -> Array:
    """log(scale sqrt(2 pi e)), by one logarithm where the two parts would cancel."""
    if isinstance(p, LogScaleNormal):
        return p.log_scale + (HALF_LOG_TAU + 0.5)
    near = (p.scale > 1 / 16) & (p.scale < 16)
    s = jnp.where(near, p.scale, 1)
    return jnp.where(near, jnp.log(s * math.sqrt(2 * math.pi * math.e)), jnp.log(p.scale) + (HALF_LOG_TAU + 0.5))


@jax.custom_jvp
def _cross_entropy(log_p: Array, log_q: Array, z: Array, e: Array, r: Array) -> Array:
    return log_q + (HALF_LOG_TAU + 0.5 * (r * r + z * z))


@_cross_entropy.defjvp
def _(primals, tangents):
    _, _, z, e, r = primals
    over_q = -e * (2 + e)  # 1 - r^2 in digits: at p = q the slope in q is 0, that in p is not
    moved = jnp.where(r < _num.slope_limit(r), r * r, 0) * tangents[0] + z * tangents[2]
    return _cross_entropy(*primals), moved + jnp.where(jnp.isfinite(over_q), over_q, 0) * tangents[1]


def cross_entropy(p: Any, q: Any) -> Array:
    """log(scale_q sqrt(2 pi)) + (r^2 + z^2) / 2."""
    v = view(p, q)
    return _cross_entropy(log_scale(p), log_scale(q), v.z, v.e, v.r)


@jax.custom_jvp
def _kl_of_scales(s: Array, e: Array) -> Array:
    """(r^2 - 1) / 2 - log r."""
    near = jnp.abs(s) < 0.5
    y = jnp.where(near, e, 0)
    return jnp.where(near, y * y * (0.5 + _num.log1p_gap(y)), 0.5 * e * (2 + e) - s)


@_kl_of_scales.defjvp
def _(primals, tangents):
    u = primals[1] * (2 + primals[1])
    return _kl_of_scales(*primals), jnp.where(jnp.isfinite(u), u, 0) * tangents[0]


def kl(p: Any, q: Any) -> Array:
    """KL(p || q) of each coordinate."""
    v = view(p, q)
    return 0.5 * v.z * v.z + _kl_of_scales(v.s, v.e)


def _square(z: Array) -> Array:
    """z^2, 0 where it overflows: the divergence is inf there, and inf * 0 would be its slope."""
    return jnp.square(jnp.where(jnp.isinf(z * z), 0, z))


def largest(p: Any, q: Any) -> Array:
    """sup log(p/q) = z^2 / (2 (1 - r^2)) - log r if r < 1, 0 if p = q, else inf."""
    v = view(p, q)
    inner = v.e < 0
    e, half = jnp.where(inner, v.e, -1), 0.5 * _square(v.z)
    far = half > jnp.finfo(half.dtype).max * -e * (2 + e)  # overflows, and its slope would be inf * 0 at a finite order
    finite = _num.quotient(jnp.where(far, 0, half), -e * (2 + e)) - jnp.where(inner, v.s, 0)
    inner &= ~(far | jnp.isinf(v.z * v.z))
    return jnp.where(inner | jnp.isnan(finite), finite, jnp.where((v.e == 0) & (v.z == 0), 0, jnp.inf))


def _exact_spread(a: _two.Two, b: _two.Two, small: _two.Two, large: _two.Two) -> tuple[_two.Two, _two.Two]:
    """a large^2 + b small^2 with the sign of the exact number, and large^2, both over a power of two squared."""
    unit = _num.power_of_two(large[0])
    small, large = (small[0] / unit, small[1] / unit), (large[0] / unit, large[1] / unit)
    square = _two.times(large, large)
    return _two.whole(_two.plus(_two.times(a, square), _two.times(b, _two.times(small, small)))), square


@jax.custom_jvp
def _spread(a: Array, b: Array, s: Array, r: Array, exact: Array) -> Array:
    """a + b r^2, of which `exact` is the value: the variance of q times the precision of p^a q^(1-a)."""
    return exact


@_spread.defjvp
def _(primals, tangents):
    _, b, _, r, _ = primals
    return _spread(*primals), tangents[0] + r * r * tangents[1] + 2 * b * r * r * tangents[2]


def _inside(a: Array, b: Array, x: Array) -> Array:
    """log(a e^(-b x) + b e^(a x)) / (a b) for a, b >= 0, a + b = 1 and small x: no order is divided by."""
    w = x * x * (b * _num.exp_remainder(-b * x) + a * _num.exp_remainder(a * x))
    return w * _num.log1p_ratio(a * b * w)


def _outside(big: Array, rest: Array, u: Array, x: Array, log_spread: Array) -> Array:
    """The same where one order is negative; u = e^x - 1, `log_spread` = log(1 + rest u) may be far below 0."""
    y = rest * u
    near = y > -2 / 3
    part = jnp.where(near, _num.log1p_gap(jnp.where(near, y, 0)), (y - log_spread) / jnp.where(near, 1, y * y))
    near = (u > -2 / 3) & (u < 2)
    whole = jnp.where(near, _num.log1p_gap(jnp.where(near, u, 0)), (u - x) / jnp.where(near, 1, u * u))
    return u * u * (whole - rest * part) / big


def _far(big: Array, rest: Array, u: Array, x: Array, log_spread: Array) -> Array:
    """The same for any orders where x is large; u and rest u may overflow."""
    y = rest * u
    near = (y > -0.5) & (y < _num.slope_limit(y))
    first = jnp.where(near, u, 0) * _num.log1p_ratio(jnp.where(near, y, 0))
    return (jnp.where(near, first, log_spread / jnp.where(near, 1, rest)) - x) / big


def _scales_value(a, b, s, e, r, spread):
    x, u, near = 2 * s, e * (2 + e), s > -1.25
    inner, first = (a >= 0) & (b >= 0), a >= b
    inside = _inside(jnp.where(inner, a, 0.5), jnp.where(inner, b, 0.5), jnp.where(near, x, 0))
    big, rest = jnp.where(first, a, b), jnp.where(first, b, a)
    floor = jnp.maximum(r * r, _num.tiny(r))
    arguments = jnp.where(first, u, -u / floor), jnp.where(first, x, -x), jnp.log(spread) - jnp.where(first, 0, x)
    outside = _outside(big, rest, *(jnp.where(near, y, 0) for y in arguments))
    far = _far(big, rest, *(jnp.where(near, 0, y) for y in arguments))
    return jnp.where(near, jnp.where(inner, inside, outside), far)


@jax.custom_jvp
def _scales(a: Array, b: Array, s: Array, e: Array, r: Array, spread: Array) -> Array:
    """log(r^(-2b) (a + b r^2)) / (a b) for r <= 1 and a + b = 1: twice the part of the scales in the gap."""
    return _scales_value(a, b, s, e, r, spread)


def _scales_jvp(primals, tangents):
    a, b, s, e, r, spread = primals
    tangent = jnp.zeros_like(s)
    if not is_zero(tangents[2]):
        tangent += 2 * _num.quotient(e * (2 + e), spread) * tangents[2]
    if not (is_zero(tangents[0]) and is_zero(tangents[1])):
        da, db = (jnp.zeros_like(s) if is_zero(t) else t for t in tangents[:2])
        moved = jax.jvp(lambda a, b, v: _scales_value(a, b, s, e, r, v), (a, b, spread), (da, db, da + r * r * db))
        tangent += moved[1]
    return _scales(*primals), tangent


_scales.defjvp(_scales_jvp, symbolic_zeros=True)


class _Far(NamedTuple):
    """What the part of the locs in the gap depends on; of the rest, numbers that the first five determine."""

    d: Array
    log_small: Array
    log_large: Array
    a: Array
    b: Array
    z: Array
    r: Array
    large: Array
    spread: Array


@jax.custom_jvp
def _locs(x: _Far) -> Array:
    """d^2 / (a large^2 + b small^2), twice the part of the locs in the gap; far apart its slopes would cancel in z."""
    return _num.quotient(_square(x.z), x.spread)


@_locs.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    y = _num.quotient(jnp.where(jnp.isinf(x.z * x.z), 0, x.z), x.spread)
    # y first: in reverse mode the square of it would overflow before a small r is reached
    scales = (y * x.a) * t.log_large + (y * x.b * x.r * x.r) * t.log_small
    return _locs(x), 2 * y * (t.d / x.large - scales - y * (0.5 * (t.a + x.r * x.r * t.b)))


class _Ordered(NamedTuple):
    """A pair by the sizes of its scales, the weights of the larger and of the smaller, and what follows from them."""

    small: Any
    large: Any
    v: View
    a: _two.Two
    b: _two.Two
    spread: _two.Two  # a + b (small/large)^2, over a power of two squared
    unit: _two.Two  # large^2 over the same


def _scales_in_two(small: Any, large: Any) -> tuple[_two.Two, _two.Two]:
    """Two scales, over the larger where they are known by their logarithms."""
    one = jnp.ones_like(large.loc)
    if isinstance(small, Normal):
        return (small.scale, 0 * one), (large.scale, 0 * one)
    return _two.exp(_num.two_difference(small.log_scale, large.log_scale)), (one, 0 * one)


def _pair(p: Any, q: Any, a: Array) -> _Ordered:
    b, left = _num.two_difference(jnp.ones_like(a), a)
    small, large, up = ordered(p, q)
    v = view(small, large)
    one = jnp.where(up, b, a), jnp.where(up, left, 0)
    two = jnp.where(up, a, b), jnp.where(up, 0, left)
    spread, unit = _exact_spread(one, two, *_scales_in_two(small, large))
    return _Ordered(small, large, v, one, two, lax.stop_gradient(spread), lax.stop_gradient(unit))


def gap(p: Any, q: Any, a: Array) -> Array:
    """-log(integral of p^a q^(1-a)) / (a (1 - a)) of each coordinate."""
    small, large, v, (one, _), (two, _), total, unit = _pair(p, q, a)
    spread = _spread(one, two, v.s, v.r, total[0] / unit[0])
    finite = spread > 0
    spread = jnp.where(finite, spread, 1)
    logs = log_scale(small), log_scale(large)
    locs = _locs(_Far(small.loc - large.loc, *logs, one, two, v.z, v.r, scale(large), spread))
    value = 0.5 * (locs + _scales(one, two, v.s, v.e, v.r, spread))
    finite &= ~jnp.isinf(v.z * v.z)
    return jnp.where(finite | jnp.isnan(value), value, jnp.inf)


def log_power(p: Any, q: Any, a: Array) -> _two.Two:
    """log of the integral of p^a q^(1-a) of each coordinate as an `exponent`: -a (1 - a) times the gap, else nan."""
    small, large, _, one, two, total, unit = _pair(p, q, a)
    zero = jnp.zeros_like(a)
    if isinstance(p, Normal):
        wide, (log_small, log_large) = (large.scale, zero), (_two.log(x.scale) for x in (small, large))
        ratio = _two.plus(log_small, (-log_large[0], -log_large[1]))
    else:
        wide = _two.exp((large.log_scale, zero))
        ratio = _num.two_difference(small.log_scale, large.log_scale)
    z = _two.over(_num.two_difference(small.loc, large.loc), wide)
    spread = _two.over(total, unit)
    size, rest = _two.log(spread[0]), spread[1] / spread[0]
    locs = _two.over(_two.times(_two.times(one, two), _two.times(z, z)), spread)
    half = _two.plus(locs, (size[0], size[1] + rest))
    return _two.exponent(_two.plus(_two.times(two, ratio), (-0.5 * half[0], -0.5 * half[1])))


def fisher_rao(p: Any, q: Any) -> Array:
    """2 sqrt(2) asinh(sqrt((z^2 / 2 + e^2) / (4 r))) of each coordinate."""
    small, large, _ = ordered(p, q)
    v = view(small, large)
    apart = _num.norm(jnp.stack([v.z * math.sqrt(0.5), v.e], -1))
    half = jnp.exp(-0.5 * v.s)  # 1 / sqrt(r), also where r underflows
    return 2 * math.sqrt(2) * _num.asinh(0.5 * apart * half)
