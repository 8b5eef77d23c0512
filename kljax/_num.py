"""The atoms: elementary functions that keep their digits near zero, and the only guards against bad derivatives.

XLA's own float64 `log1p` and `arctanh` are off by up to 120 eps on part of their range and its `expm1` by 3 eps in
both precisions, so near zero everything here comes from two polynomials, fitted by bench/fit_coefficients.py.
Series branches and their far branches are both evaluated, each on an argument that is safe for it: a `where` alone
would still put the derivative of the branch that is not taken into the gradient, as 0 * nan.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _log

# (e^y - 1 - y) / y^2 on [-1, 1], lowest power first: 8 terms reach 2^-27 (float32), 14 reach 2^-54 (float64).
_EXP_REMAINDER = (
    (0.49999999781421683, 0.16666666646842135, 0.04166673659523746, 0.00833333967591706, 0.0013885396911807102,
     0.00019838101968683888, 2.535851224463976e-05, 2.8062802582276946e-06),
    (0.5, 0.16666666666666666, 0.04166666666666609, 0.008333333333333299, 0.0013888888888981404,
     0.00019841269841324198, 2.4801587246096818e-05, 2.7557319191381816e-06, 2.755733506893373e-07,
     2.5052117695907823e-08, 2.0874435575864273e-09, 1.6057679623801638e-10, 1.1639194124150522e-11,
     7.746178593018827e-13),
)  # fmt: skip
# (atanh(s)/s - 1) / s^2 as a polynomial of s^2 on [0, 1/4].
_ATANH_REMAINDER = (
    (0.33333333437307106, 0.19999959336215828, 0.14288286042811285, 0.11050830395223991, 0.09751940865741168,
     0.040916230718241735, 0.1562916538185637),
    (0.3333333333333333, 0.20000000000000864, 0.14285714285490106, 0.11111111133938968, 0.09090907881509189,
     0.07692345940270638, 0.06665886352701884, 0.05893099692590042, 0.05160769881147162, 0.05441915418234587,
     0.012292448728540531, 0.13557903913692299, -0.14450491183414468, 0.21098097885975797),
)  # fmt: skip


def tiny(x: Array) -> float:
    """The smallest normal number: what stands in for a missing mass in a derivative (1e-38 would be flushed to 0)."""
    return float(jnp.finfo(x.dtype).tiny)


def exp_limit(x: Array) -> float:
    """An exponent that is far from overflowing, with e^-limit far below eps."""
    return 700.0 if x.dtype == jnp.float64 else 80.0


def log_limit(x: Array) -> float:
    """The logarithm of a number so large that 2^30 of it still have a finite sum."""
    return math.log(float(jnp.finfo(x.dtype).max)) - 21.0


def slope_limit(x: Array) -> float:
    """The largest size of a derivative that is reported where the true one-sided slope is infinite."""
    return float(jnp.finfo(x.dtype).max) ** 0.25


def polynomial(table: tuple[tuple[float, ...], ...], x: Array) -> Array:
    """One of two polynomials, for float32 and for float64, by their coefficients from the lowest power."""
    coefficients = table[1 if x.dtype == jnp.float64 else 0]
    result = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        result = result * x + c
    return result


def exp_remainder_near(y: Array) -> Array:
    """(e^y - 1 - y) / y^2 for |y| <= 1, which is 1/2 at 0."""
    return polynomial(_EXP_REMAINDER, y)


def exp_remainder(y: Array) -> Array:
    """(e^y - 1 - y) / y^2, which is 1/2 at 0; of (e^z - 1 - z) / z / z XLA makes one quotient, by an infinite z^2."""
    near = jnp.abs(y) < 1
    z = jnp.where(near, 1, y)  # y = 0 would put 0/0 into the far branch
    return jnp.where(near, polynomial(_EXP_REMAINDER, jnp.where(near, y, 0)), ((jnp.exp(z) - 1) / z - 1) / z)


def exp_ratio(y: Array) -> Array:
    """(e^y - 1) / y, which is 1 at 0."""
    near = jnp.abs(y) < 1
    z = jnp.where(near, 1, y)
    s = jnp.where(near, y, 0)
    return jnp.where(near, 1 + s * polynomial(_EXP_REMAINDER, s), (jnp.exp(z) - 1) / z)


def exp_product(c: Array, t: Array) -> Array:
    """e^(c t); the rounding of a product of size 300 alone would cost 150 eps."""
    usable = jnp.abs(t) < 1e4  # beyond, e^(c t) is 0 or inf, or c so small that c t is
    product, rest = _parts(c, jnp.where(usable, t, 0))
    scale = 1 + rest * (1 + rest * (1 / 2 + rest * (1 / 6 + rest / 24)))  # rest is below 0.05
    return jnp.exp(jnp.where(usable, product, c * t)) * scale


def exp_ratio_slope(y: Array) -> Array:
    """The derivative of (e^y - 1) / y, which is 1/2 at 0."""
    near = jnp.abs(y) < 1
    s = jnp.where(near, y, 0)
    z = jnp.where(near, 1, y)
    return jnp.where(near, 1 - (1 - s) * exp_remainder_near(s), (jnp.exp(z) - (jnp.exp(z) - 1) / z) / z)


@jax.custom_jvp
def expm1_over(t: Array, c: Array) -> Array:
    """(e^(c t) - 1) / c for t <= 0: t at c = 0, and -1/c at t = -inf for c > 0."""
    y = jnp.where(c == 0, 0, c) * jnp.where(c == 0, 0, t)
    near = jnp.abs(y) < 1
    s = jnp.where(near, y, 0)
    first = jnp.where(near, t, 0)
    far = (exp_product(jnp.where(near, 1, c), jnp.where(near, 1, t)) - 1) / jnp.where(near, 1, c)
    return jnp.where(near, first * (1 + s * polynomial(_EXP_REMAINDER, s)), far)


@expm1_over.defjvp
def _(primals, tangents):
    t, c = primals
    value = expm1_over(t, c)
    ok = jnp.isfinite(value) & jnp.isfinite(t)  # an infinite value or a constant one: inf * 0 otherwise
    t, c = jnp.where(ok, t, 0), jnp.where(ok, c, 0)
    over_t = jnp.where(ok, exp_product(c, t), 0)
    over_c = t * t * exp_ratio_slope(c * t)
    # where the one overflows though the value does not, a constant order would make the other a nan
    return value, over_t * tangents[0] + jnp.where(jnp.isfinite(over_c), over_c, 0) * tangents[1]


@jax.custom_jvp
def expm1(y: Array) -> Array:
    """e^y - 1."""
    near = jnp.abs(y) < 1
    s = jnp.where(near, y, 0)
    return jnp.where(near, s + s * s * polynomial(_EXP_REMAINDER, s), jnp.exp(y) - 1)


@expm1.defjvp
def _(primals, tangents):
    return expm1(primals[0]), jnp.exp(primals[0]) * tangents[0]


def ratio(t: Array, x: Array) -> Array:
    """u = e^t of x = u - 1: 1 + x has lost its digits where u is small, and e^t some of its where u is near 1."""
    return jnp.where(x > -0.5, 1 + x, jnp.exp(t))


def atanh_remainder(s: Array) -> Array:
    """(atanh(s)/s - 1) / s^2 for |s| <= 1/2."""
    return polynomial(_ATANH_REMAINDER, s * s)


@jax.custom_jvp
def log1p(x: Array) -> Array:
    """log(1 + x) for x >= -1: XLA's own is off by up to 120 eps in float64 on [-0.42, -0.36]."""
    near = (x > -2 / 3) & (x < 2)
    y = jnp.where(near, x, 0)
    s = over(y, 2 + y)
    return jnp.where(near, 2 * (s + s * (s * s) * atanh_remainder(s)), jnp.log(1 + jnp.where(near, 0, x)))


@log1p.defjvp
def _(primals, tangents):
    return log1p(primals[0]), tangents[0] / (1 + primals[0])


def log1p_by(x: Array, u: Array) -> Array:
    """log u for u = 1 + x > 0, of which x is the exact view near u = 1 and u the exact one far from it."""
    near = (x > -0.5) & (x < 1)
    y = jnp.where(near, x, 0)
    s = over(y, 2 + y)
    return jnp.where(near, 2 * (s + s * (s * s) * atanh_remainder(s)), jnp.log(jnp.where(near, 1, u)))


def log1p_gap(y: Array) -> Array:
    """(y - log(1 + y)) / y^2 for y >= -1, which is 1/2 at 0: the curvature of a reverse KL term."""
    near = (y > -2 / 3) & (y < 2)
    z = jnp.where(near, y, 0)
    s = over(z, 2 + z)
    f = jnp.where(near, 1, y)
    return jnp.where(near, (1 - s * atanh_remainder(s) * (1 - s)) / (2 + z), (f - jnp.log(1 + f)) / (f * f))


def xlogx_gap(y: Array) -> Array:
    """((1 + y) log(1 + y) - y) / y^2 for y >= -1, which is 1/2 at 0: the curvature of a KL term."""
    near = (y > -2 / 3) & (y < 2)
    z = jnp.where(near, y, 0)
    s = over(z, 2 + z)
    f = jnp.where(near, 1, y)
    g = 1 + f
    far = (jnp.where(g > 0, g, 0) * _log.normal(jnp.where(g > 0, g, 1)) - f) / (f * f)
    return jnp.where(near, (1 + (1 + s) * s * atanh_remainder(s)) / (2 + z), far)


def xlogx_mean(y: Array, u: Array) -> Array:
    """`xlogx_rest` over y, which is 0 at y = 0; a y of 1e30 is not squared."""
    near = (y > -2 / 3) & (y < 2)
    z, f, g = jnp.where(near, y, 0), jnp.where(near, 1, y), jnp.where(near, 1, u)
    s = over(z, 2 + z)
    far = quotient(g, f) * _log.normal(jnp.where(g > 0, g, 1)) - 1
    return jnp.where(near, s * (1 + (1 + s) * s * atanh_remainder(s)), far)


def xlogx_rest(y: Array, u: Array) -> Array:
    """u log u - y for u = 1 + y >= 0, of which y is the exact view near u = 1 and u the exact one far from it."""
    near = (y > -2 / 3) & (y < 2)
    z, g = jnp.where(near, y, 0), jnp.where(near, 1, u)
    s = over(z, 2 + z)
    far = g * _log.normal(jnp.where(g > 0, g, 1)) - y
    return jnp.where(near, z * s * (1 + (1 + s) * s * atanh_remainder(s)), far)


def log1p_ratio(x: Array) -> Array:
    """log(1 + x) / x for x > -1, which is 1 at 0."""
    near = (x > -2 / 3) & (x < 2)
    z = jnp.where(near, x, 0)
    s = over(z, 2 + z)
    f = jnp.where(near, 1, x)
    return jnp.where(near, 2 * (1 + s * s * atanh_remainder(s)) / (2 + z), jnp.log(1 + f) / f)


def root(x: Array) -> tuple[Array, Array]:
    """The square root and its derivative, 0 at 0, so that the root of a divergence is safe at p = q."""
    value = jnp.sqrt(x)
    return value, jnp.where(value > 0, 0.5 / jnp.where(value > 0, value, 1), 0)


def angle(x: Array) -> tuple[Array, Array]:
    """4 arcsin(sqrt(x / 2)), the Fisher-Rao distance of a squared Hellinger distance, and its derivative, 0 at 0."""
    half = jnp.minimum(x, 1) / 2
    value = 4 * jnp.arctan2(jnp.sqrt(half), jnp.sqrt(1 - half))
    some = jnp.where(half > 0, half, 0.5)
    return value, jnp.where(half > 0, 1 / jnp.sqrt(some * (1 - some)), 0)


def sqrt(x: Array) -> Array:
    """The square root of a mass, with derivative 0 at 0."""
    some = x > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, x, 1)), jnp.where(jnp.isnan(x), jnp.nan, 0))


@jax.custom_jvp
def norm(x: Array) -> Array:
    """The 2-norm over the last axis, with derivative 0 at 0; no square overflows or underflows."""
    size = jnp.max(jnp.abs(x), -1, keepdims=True)
    one = unit(size)
    return one[..., 0] * jnp.sqrt(jnp.sum(jnp.square(x / one), -1))


@norm.defjvp
def _(primals, tangents):
    (x,), length = primals, norm(*primals)
    some = (length > 0) & jnp.isfinite(length)
    unit = jnp.where(some[..., None], x, 0) / jnp.where(some, length, 1)[..., None]
    return length, jnp.sum(unit * tangents[0], -1)


@jax.custom_jvp
def asinh(y: Array) -> Array:
    """log(y + sqrt(y^2 + 1)) for y >= 0, which is y near 0."""
    near = y < slope_limit(y)
    z = jnp.where(near, y, 0)
    return jnp.where(near, log1p(z + z * z / (1 + jnp.sqrt(1 + z * z))), jnp.log(2.0) + jnp.log(y))


@asinh.defjvp
def _(primals, tangents):
    y = jnp.minimum(primals[0], slope_limit(primals[0]))
    return asinh(*primals), tangents[0] / jnp.sqrt(1 + y * y)


def two_difference(a: Array, b: Array) -> tuple[Array, Array]:
    """a - b as a rounded difference and its exact error; the error is 0 where the difference is not finite."""
    s = a - b
    v = a - s
    error = (a - (s + v)) + (v - b)
    return s, jnp.where(jnp.isfinite(error), error, 0)


def _split(x: Array) -> tuple[Array, Array]:
    """x = high + low, with so few digits in high that products of such parts are exact."""
    bits = (11, 25) if x.dtype == jnp.float64 else (8, 11)
    high = lax.reduce_precision(x, *bits)
    return high, x - high


def _parts(a: Array, b: Array) -> tuple[Array, Array]:
    """a * b as an exact product of parts and the small rest, which a fused multiply-add cannot spoil."""
    (ah, al), (bh, bl) = _split(a), _split(b)
    return ah * bh, ah * bl + al * b


def power_of_two(x: Array) -> Array:
    """A power of two near x > 0: dividing by it loses nothing."""
    return lax.reduce_precision(x, *((11, 0) if x.dtype == jnp.float64 else (8, 0)))


def unit(size: Array) -> Array:
    """A power of two, taken for a constant, near the size of what is to be squared; 1 where that is 0 or not finite."""
    size = lax.stop_gradient(size)
    return jnp.where((size > 0) & jnp.isfinite(size), power_of_two(size), 1)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a * b as a rounded product and its error."""
    high, low = _parts(a, b)
    product = high + low
    return product, (high - product) + low


def two_sum(a, b):
    """Sums of pairs (rounded, rest): associative up to the rounding of the rests."""
    s = a[0] + b[0]
    v = s - a[0]
    return s, (a[0] - (s - v)) + (b[0] - v) + a[1] + b[1]


def running_sum(x: Array, rest: Array) -> tuple[Array, Array]:
    """The cumulative sum over the last axis of numbers in two parts."""
    return lax.associative_scan(two_sum, (x, rest), axis=-1)


@jax.custom_jvp
def running_total(x: Array) -> Array:
    """The cumulative sum over the last axis, compensated: partial sums that cancel keep their digits."""
    s, rest = running_sum(x, jnp.zeros_like(x))
    return s + rest


@running_total.defjvp
def _(primals, tangents):
    return running_total(*primals), jnp.cumsum(tangents[0], -1)


def magnitude(x: Array) -> Array:
    """|x| with derivative 0 at 0."""
    return jnp.where(x > 0, x, jnp.where(x < 0, -x, jnp.zeros_like(x)))


def rate(function: Callable[[Array], Array], x: Array) -> Array:
    """The derivative of a function of one parameter, 0 where it is infinite; times a step it is a linear map."""
    slope = jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
    return jnp.where(jnp.isfinite(slope), slope, 0)


def total(x: Array) -> Array:
    """The sum over the event axis, kept as an axis of size 1."""
    return jnp.sum(x, -1, keepdims=True)


def pick(x: Array, mask: Array) -> Array:
    """The mean of x over the outcomes in the mask, kept as an axis of size 1: x at a mode, ties included."""
    count = total(jnp.where(mask, jnp.ones_like(x), 0))
    return total(jnp.where(mask, x, 0)) / jnp.where(count > 0, count, 1)


@jax.custom_jvp
def quotient(a: Array, b: Array) -> Array:
    """a / b for b other than 0; its derivative never squares b, which may be as small as finfo.tiny."""
    return a / b


@quotient.defjvp
def _(primals, tangents):
    value = quotient(*primals)
    return value, quotient(tangents[0] - value * tangents[1], primals[1])


def over(a: Array, b: Array) -> Array:
    """a / b for b in [finfo.tiny, 2^100]; in float32 so that a CPU's compiler stores nothing for a second use."""
    return a / b if a.dtype == jnp.float64 else a * quotient(jnp.ones_like(b), b)


def share_of(a: Array, b: Array) -> Array:
    """The same, and 0 where b is 0 or, as a GPU keeps it, subnormal."""
    some = ~(b < tiny(b))
    return jnp.where(some, over(a, jnp.where(some, b, 1)), 0)


def divide(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0 (a row without mass), in the value and in the derivative."""
    ok = b != 0
    return jnp.where(ok, quotient(a, jnp.where(ok, b, 1)), 0)


@jax.custom_jvp
def log_total(x: Array) -> Array:
    """The log of the sum of e^x over the last axis, -inf without any mass: the slope there, 0/0 otherwise, is 0."""
    top = jnp.max(x, -1, keepdims=True)
    top = jnp.where(jnp.isinf(top), 0, top)
    mass = jnp.sum(jnp.exp(x - top), -1)
    return jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)) + top[..., 0], mass - jnp.inf)


@log_total.defjvp
def _(primals, tangents):
    (x,), value = primals, log_total(*primals)
    whole = jnp.where(jnp.isinf(value), 0, value)[..., None]
    weights = jnp.where(jnp.isinf(x) | jnp.isinf(value)[..., None], 0, jnp.exp(x - whole))
    return value, jnp.sum(weights * jnp.where(weights > 0, tangents[0], 0), -1)
