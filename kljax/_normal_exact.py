"""Total variation and Jensen-Shannon of two Normals of one coordinate: closed form, and quadrature to rounding.

Both look at the pair from the Normal with the larger scale: small is N(z, r), large N(0, 1), r <= 1. Each point of the
line has two coordinates, y of the small and v = z + r y of the large one, and log(small/large) = (v^2 - y^2) / 2 - s.
Slopes are in closed form: those of tv need the densities where the two are equal, those of js the same quadrature.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kljax import _normal, _num, _skew
from kljax._points import is_zero

ROOT_TAU = math.sqrt(2 * math.pi)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
SHORT = np.polynomial.legendre.leggauss(10)
# where the intervals of the quadrature end, in the coordinate of either Normal
ENDS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.75, 3.5, 4.5, 6.0, 8.0, 10.0)
ENDS = np.array([-k for k in ENDS[:0:-1]] + list(ENDS))
FARTHEST = 1e4  # in standard deviations: no Normal has mass there, and its square does not overflow


def _along(numbers: Any, x: Array) -> Array:
    """Constants along a new last axis of x."""
    return jnp.asarray(numbers, x.dtype).reshape((1,) * x.ndim + (-1,))


def _density(y: Array) -> Array:
    return jnp.exp(-0.5 * y * y) / ROOT_TAU


def _between(start: Array, width: Array) -> Array:
    """The probability of a standard Normal between start and start + width, width >= 0, without cancellation."""
    half = 0.5 * width
    middle = start + half
    near = (half < 1) & (jnp.abs(middle) * half < 1)
    m, h = jnp.where(near, middle, 0), jnp.where(near, half, 0)
    node = h[..., None] * _along(SHORT[0], h)
    inner = jnp.sum(jnp.exp(-node * (m[..., None] + 0.5 * node)) * _along(SHORT[1], h), -1)
    small = h * _density(m) * inner
    # by symmetry an interval that does not hold 0 lies to the right of it; there erfc has all its digits
    low = jnp.where(middle < 0, -(start + width), start) / math.sqrt(2)
    high = low + width / math.sqrt(2)
    tails = jnp.where(low < 0, lax.erf(high) - lax.erf(low), lax.erfc(low) - lax.erfc(high))
    return jnp.where(near, small, 0.5 * tails)


def _crossings(z: Array, s: Array, e: Array, r: Array) -> tuple[Array, ...]:
    """Where the densities are equal, for z >= 0 and e <= 0, as (start, width) of two intervals.

    The near crossing has the coordinate start of the small and start + width of the large Normal, the far one start of
    the large and start + width of the small. Every number is a sum of terms of one sign. Where the scales are equal the
    far crossing is at infinity, for which FARTHEST stands.
    """
    apart = ~((z == 0) & (e == 0))  # also where one of them is nan
    z = jnp.where(apart, z, 1)
    skew = -e * (1 + r)
    root = _num.norm(jnp.stack([z, _num.sqrt(skew) * _num.sqrt(-2 * s)], -1))
    near = -(z * z - 2 * s) / (r * z + root)
    far = jnp.minimum((z + r * root) / jnp.where(e < 0, skew, 1), FARTHEST)
    return near, z + e * near, jnp.where(e < 0, far, FARTHEST), 2 * e * s / (root + z)


@jax.custom_jvp
def _tv(z: Array, s: Array, e: Array, r: Array) -> Array:
    start, width, far, more = _crossings(jnp.minimum(jnp.abs(z), FARTHEST), s, e, r)
    return jnp.where((z == 0) & (e == 0), 0, _between(start, width) + _between(far, more))


@_tv.defjvp
def _(primals, tangents):
    z, s, e, r = primals
    sign = jnp.where(z < 0, -jnp.ones_like(z), 1)  # not 0 at z = 0, where the slope has a slope
    start, width, far, more = _crossings(jnp.minimum(sign * z, FARTHEST), s, e, r)
    over_z = sign * (_density(start + width) - _density(far))
    over_s = start * _density(start) - (far + more) * _density(far + more)
    tangent = over_z * tangents[0] + over_s * tangents[1]
    return _tv(*primals), jnp.where((z == 0) & (e == 0), 0, tangent)


def tv(p: Any, q: Any) -> Array:
    """Total variation of each coordinate."""
    small, large, _ = _normal.ordered(p, q)
    return _tv(*_normal.view(small, large))


def _log_mean(w: Array, k: Array, odds: Array) -> Array:
    """log(1 - k + k e^w) for k in [0, 1]; odds = log((1 - k) / k), as k may have underflowed where k e^w matters."""
    far = ((w > 20) | (w < -10)) & (odds < jnp.inf)  # a share of exactly 0 has its slope by itself
    near = _num.log1p(k * _num.expm1(jnp.where(far, 0, jnp.minimum(w, _num.exp_limit(w)))))
    return jnp.where(far, jnp.logaddexp(-jax.nn.softplus(-odds), w - jax.nn.softplus(odds)), near)


def _log(w: Array) -> Array:
    """log(w), whose slope at 0, where no share is made of it, is 0."""
    return jnp.where(w > 0, jnp.log(jnp.where(w > 0, w, 1)), -jnp.inf)


class _Grid(NamedTuple):
    """The nodes of the quadrature: y and v = z + r y `[..., nodes]`, and their weights times dy and dv."""

    y: Array
    v: Array
    dy: Array
    dv: Array


def _grid(z: Array, r: Array) -> _Grid:
    """Gauss-Legendre between neighbours of ENDS in the coordinates of both Normals, of which each stays exact."""
    ends = jnp.broadcast_to(_along(ENDS, z), (*z.shape, len(ENDS)))
    z, r = z[..., None], r[..., None]
    y, v = jnp.concatenate([ends, (ends - z) / r], -1), jnp.concatenate([z + r * ends, ends], -1)
    order = jnp.argsort(v, -1)
    y, v = jnp.take_along_axis(y, order, -1), jnp.take_along_axis(v, order, -1)

    def spread(x):
        start, step = x[..., :-1, None], jnp.diff(x)[..., None]
        return start + step * _along((1 + NODES) / 2, y), step * _along(WEIGHTS / 2, y)

    (y, dy), (v, dv) = spread(y), spread(v)
    return _Grid(*(x.reshape(*x.shape[:-2], -1) for x in (y, v, dy, dv)))


def _js_terms(z: Array, s: Array, e: Array, w: Array, v: Array, grid: _Grid) -> tuple[Array, ...]:
    """log of lesser density over larger, that ratio - 1, their weights, the larger mass, where it is of large."""
    z, s, e, w, v = (x[..., None] for x in (z, s, e, w, v))
    t = 0.5 * (z + e * grid.y) * (grid.v + grid.y) - s
    less, t = t <= 0, -_num.magnitude(t)
    mass = jnp.where(less, _density(grid.v) * grid.dv, _density(grid.y) * grid.dy)
    return t, _num.expm1(t), jnp.where(less, w, v), jnp.where(less, v, w), mass, less


@jax.custom_jvp
def _js_weight(z: Array, s: Array, e: Array, r: Array, w: Array, v: Array) -> Array:
    """The slope of js in its weight w, v = 1 - w; its own slopes in z and s are those of `_js_slopes` in the weight."""
    t, x, w, v, mass, less = _js_terms(z, s, e, w, v, _grid(z, r))
    lesser, larger = _skew.parts(t, x, w, v)
    return jnp.sum(jnp.where(less, mass, -mass) * (v * lesser - w * larger), -1)


def _js_weight_jvp(primals, tangents):
    z, s, e, r, w, v = primals
    grid, step = lax.stop_gradient(_grid(z, r)), (jnp.ones_like(z), -jnp.ones_like(z))
    slopes = jax.jvp(lambda w, v: _js_slopes(z, s, e, r, w, v, grid), (w, v), step)[1]
    tangent = sum((slope * t for slope, t in zip(slopes, tangents, strict=False) if not is_zero(t)), jnp.zeros_like(z))
    if not is_zero(tangents[4]):  # -(p - q)^2 / m
        t, x, first, second, mass, _ = _js_terms(z, s, e, w, v, grid)
        m = jnp.maximum(second + first * _num.ratio(t, x), _num.tiny(t))
        tangent -= jnp.sum(mass * x * (x / m), -1) * tangents[4]
    return _js_weight(*primals), tangent


_js_weight.defjvp(_js_weight_jvp, symbolic_zeros=True)


@jax.custom_jvp
def _js(z: Array, s: Array, e: Array, r: Array, w: Array, v: Array) -> Array:
    """Of weights w and v = 1 - w, of which the smaller is exact."""
    t, x, first, second, mass, _ = _js_terms(z, s, e, w, v, _grid(z, r))
    value = w * v * jnp.sum(mass * _skew.value(t, x, first, second), -1)
    return jnp.where((w >= 0) & (v >= 0), value, jnp.nan)


def _js_slopes(z, s, e, r, w, v, grid):
    """w E[log(small/m) g(y)], g the score of the small Normal; from the logarithm its value at y = 0 is subtracted."""
    log_ratio = s - 0.5 * z * z
    at_zero = v * jnp.exp(log_ratio)
    share = jnp.where(w > 0, at_zero / jnp.where(w > 0, w + at_zero, 1), 1)[..., None]
    odds = (_log(w) - _log(v) - log_ratio)[..., None]
    y = grid.y
    step = -y * ((r * z)[..., None] + (0.5 * e * (2 + e))[..., None] * y)
    mass = -w[..., None] * _density(y) * grid.dy * _log_mean(step, share, odds)
    return jnp.sum(mass * y, -1) / r, jnp.sum(mass * (y - 1) * (y + 1), -1)


def _js_jvp(primals, tangents):
    z, s, e, r, w, v = primals
    grid = lax.stop_gradient(_grid(z, r))
    over_z, over_s = _js_slopes(z, s, e, r, w, v, grid)
    tangent = jnp.zeros_like(z)
    for slope, step in zip((over_z, over_s), tangents, strict=False):
        tangent += 0 if is_zero(step) else slope * step
    if not is_zero(tangents[4]):
        tangent += _js_weight(z, s, e, r, w, v) * tangents[4]
    return _js(*primals), tangent


_js.defjvp(_js_jvp, symbolic_zeros=True)


def js(p: Any, q: Any, weight: Array) -> Array:
    """Jensen-Shannon of each coordinate."""
    small, large, up = _normal.ordered(p, q)
    v = _normal.view(small, large)
    # a ratio below eps^2 is that of a point: all of js but a rounding error, and slope 0
    least = float(jnp.finfo(v.r.dtype).eps) ** 2
    near = v.r > least
    s, e, r = jnp.where(near, v.s, math.log(least)), jnp.where(near, v.e, -1), jnp.where(near, v.r, least)
    z = jnp.where(jnp.abs(v.z) < FARTHEST, v.z, jnp.where(v.z < 0, -FARTHEST, FARTHEST))
    other = 1 - weight  # each as it stands: of 1e-6 what is 1 - (1 - weight) is off by 1 %
    value = _js(z, s, e, r, jnp.where(up, other, weight), jnp.where(up, weight, other))
    return jnp.where(jnp.isnan(v.z + v.r), jnp.nan, value)
