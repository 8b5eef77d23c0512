"""The power rows written out over a pair, as `_direct.py` does for the others: alpha and Tsallis of any order.

With s = log(other/m), m = q and b = a below order 1/2, m = p and b = 1 - a from there on, an outcome adds
m (e^s - 1 - (e^(b s) - 1) / b) / (1 - b): nothing is divided by an order, and orders 0 and 1 are no branch.
"""

import math

import jax.numpy as jnp
from jax import Array, lax

from kljax import _num
from kljax._direct import Direct, present, shown
from kljax._pair import Pair, Slope


def _slip(pair: Pair) -> Array:
    """The rounding error of log(p/q), which a power magnifies: the masses still know it, unless one has underflowed."""
    t = jnp.abs(pair.tame)
    ratio = _num.divide(jnp.minimum(pair.p, pair.q), jnp.maximum(pair.p, pair.q))
    slip = 1 - ratio * jnp.exp(jnp.minimum(t, _num.exp_limit(t)))
    slip = jnp.where((t > 1) & (jnp.abs(slip) < 1e-3), slip, 0)
    return lax.stop_gradient(jnp.where(pair.d < 0, -slip, slip))


def _scaled(mass: Array, log_hi: Array, c: Array, s: Array, slip: Array, cap: float) -> Array:
    """mass e^(c (s + slip)) for s = log(other/mass), at most e^cap; by logarithms where a factor leaves the range.

    There log mass = log_hi - max(s, 0) joins c s before anything is rounded: for two almost certain distributions that
    differ the two cancel. One exponential serves both.
    """
    inside = (jnp.abs(c * s) < 2 * _num.exp_limit(s)) & (mass > _num.tiny(mass))
    whole = log_hi + jnp.where(s > 0, c - 1, c) * s
    root = _num.exp_product(jnp.where(inside, c / 2, 0.5), jnp.where(inside, s, whole))
    root *= jnp.where(inside, 1 + c / 2 * slip, 1)
    return jnp.minimum(jnp.where(inside, mass, 1) * root * root, jnp.exp(cap))


def _alpha_term(pair: Pair, a: Array) -> Array:
    low = a < 0.5
    b, m = jnp.where(low, a, 1 - a), jnp.where(low, pair.q, pair.p)
    s, rise = jnp.where(low, pair.tame, -pair.tame), jnp.where(low, pair.delta, -pair.delta)
    flat = jnp.abs(b * s) < 1
    near = (jnp.abs(s) < 1) & flat
    t, z = jnp.where(near, s, 0), jnp.where(flat, b * s, 0)
    bend = _num.exp_remainder_near(z)
    series = m * t * t * (_num.exp_remainder_near(t) - b * bend)
    power = _scaled(m, pair.log_hi, b, s, jnp.where(low, 1, -1) * _slip(pair), jnp.inf)
    step = jnp.where(flat, m * s * (1 + z * bend), (power - m) / jnp.where(flat, 1, b))
    term = jnp.where(near, series, rise - step) / (1 - b)
    of_p = jnp.where(a < 1, pair.p / jnp.where(a < 1, 1 - a, 1), jnp.inf)
    of_q = jnp.where(a > 0, pair.q / jnp.where(a > 0, a, 1), jnp.inf)
    term = jnp.where(pair.d == jnp.inf, of_p, jnp.where(pair.d == -jnp.inf, of_q, term))
    return jnp.where(pair.log_hi == -jnp.inf, 0, term)


def _slope(pair: Pair, c: Array, times: Array) -> Slope:
    """`times` ((p/q)^c - 1) / c; where p is much larger and c < 0 from its limit -1/c."""
    d = pair.tame
    y = c * d
    near = jnp.abs(y) < 1
    z, over = jnp.where(near, y, 0), jnp.where(near, 1, c)
    step = jnp.where(near, d, 0) * (1 + z * _num.exp_remainder_near(z))
    mass, slip = present(pair.p), _slip(pair)
    power = _num.exp_product(c, d) * (1 + c * slip)
    share = _scaled(mass, pair.log_hi, -c, -d, -slip, _num.log_limit(d))  # p^(1 + c) q^-c
    far = (d > 0) & (c < 0) & (y < -math.log(2))  # by y: a column that needs no `plain` forms no power
    ground = jnp.where(far, 0, 1)
    over = jnp.where(far, jnp.where(far, c, 1), over)
    plain = jnp.where(near & ~far, step, (power - ground) / over)
    weighted = jnp.where(near & ~far, mass * step, (share - ground * mass) / over)
    wild = jnp.where(pair.d == -jnp.inf, c <= 0, (pair.d == jnp.inf) & (c >= 0))
    wild |= jnp.abs(weighted) >= jnp.exp(_num.log_limit(d)) / 2
    reach = jnp.where(c < 0, -1 / jnp.where(c < 0, c, 1), 0)
    plain = shown(times * shown(plain))  # an order of 30 times the largest number is inf again
    return Slope(times * weighted, plain, far, times * reach, wild)


def _alpha_slope(pair: Pair, a: Array) -> Slope:
    return _slope(pair, a - 1, jnp.ones_like(a))


def _alpha_mirrored(pair: Pair, a: Array) -> Slope:
    return _slope(pair, -a, jnp.ones_like(a))


def _tsallis_term(pair: Pair, a: Array) -> Array:
    lost = pair.d == -jnp.inf  # mass of q where p has none: a times 1/a of it, at a = 0 too
    term = jnp.where(lost, pair.q, a * jnp.where(lost, 0, _alpha_term(pair, a)))
    return jnp.where(a >= 0, term, jnp.nan)


def _tsallis_slope(pair: Pair, a: Array) -> Slope:
    return _slope(pair, a - 1, jnp.where(a >= 0, a, jnp.nan))


def _tsallis_mirrored(pair: Pair, a: Array) -> Slope:
    return _slope(pair, -a, jnp.where(a >= 0, a, jnp.nan))


def _told(slope: Slope, pair: Pair) -> Slope:
    """Wild wherever a mass is missing, also where the slope is finite."""
    return slope._replace(wild=jnp.isinf(pair.d) if slope.wild is None else slope.wild | jnp.isinf(pair.d))


def _renyi_slope(pair: Pair, a: Array) -> Slope:
    return _told(_tsallis_slope(pair, a), pair)


def _renyi_mirrored(pair: Pair, a: Array) -> Slope:
    return _told(_tsallis_mirrored(pair, a), pair)


alpha = Direct(_alpha_term, _alpha_slope, _alpha_mirrored, once=True)
tsallis = Direct(_tsallis_term, _tsallis_slope, _tsallis_mirrored, once=True)
renyi = Direct(_tsallis_term, _renyi_slope, _renyi_mirrored, once=True)  # Tsallis, as Renyi is made of it
