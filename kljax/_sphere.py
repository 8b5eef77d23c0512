"""Von Mises-Fisher on the circle and the sphere: the log-normaliser A is a function of the size k of eta alone.

Its gap is that of A between the two sizes, plus the mean of A' between the size of the mixed eta and the mixed size
times what the triangle inequality loses. Divided differences of A are integrals of A' and A'' (Gauss-Legendre) where
the ends are close, as differences would cancel there, and A'' is a ratio of power series with terms >= 0, or an
asymptotic series.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import i0e

from kljax import _num
from kljax._jensen import mix, weights
from kljax._points import is_zero
from kljax._quadrature import gauss

_LARGE = (16, 40)  # from here on (float32, float64) the asymptotic series of log I0 has its digits
# log(I0(k) e^-k sqrt(2 pi k)) = sum of b_j k^-j, j >= 1
_HANKEL = (0.125, 0.0625, 0.06510416666666667, 0.1015625, 0.2095703125, 0.5364583333333334, 1.6380658830915178,
           5.809814453125, 23.475127749972874, 106.467822265625, 535.640519510616, 2960.739786783854,
           17837.279688947478, 116339.24666050503, 816737.8421910767, 6140798.86346674, 49232732.339998595,
           419272864.964833, 3779795380.667541, 35961831603.669014)  # fmt: skip
_CIRCLE = 2 * math.pi
_SPHERE = 4 * math.pi


class VonMisesFisher(NamedTuple):
    """Density proportional to e^(eta . x) on the unit vectors x of d = 2 or 3 coordinates; `eta` `[..., d]`."""

    eta: Array


def _wide(x: Array) -> int:
    return int(x.dtype == jnp.float64)


def _horner(coefficients: list[float], y: Array) -> Array:
    result = jnp.full_like(y, coefficients[-1])
    for c in coefficients[-2::-1]:
        result = result * y + c
    return result


def _positive_series(coefficient: Callable[[int], Fraction], y: Array, most: int, count: int) -> Array:
    """The sum of coefficient(n) y^n for y <= most^2, scaled so that no coefficient underflows."""
    table = [float(coefficient(n) * Fraction(most) ** (2 * n)) for n in range(count)]
    return _horner(table, jnp.minimum(y / (most * most), 1))


def _circle_series(y: Array, shift: int) -> Array:
    """I_shift(k) / (k/2)^shift, y = k^2."""
    most, count = _LARGE[_wide(y)], (34, 76)[_wide(y)]
    return _positive_series(lambda n: Fraction(1, 4**n * math.factorial(n) * math.factorial(n + shift)), y, most, count)


def _circle_slope(k: Array) -> Array:
    most = _LARGE[_wide(k)]
    near = k / 2 * _circle_series(k * k, 1) / _circle_series(k * k, 0)
    return jnp.where(k < most, near, 1 - _circle_tail(k))


def _circle_tail(k: Array) -> Array:
    """1 - I1(k)/I0(k)."""
    most = _LARGE[_wide(k)]
    u = 1 / jnp.maximum(k, most)
    far = u * (0.5 + u * _horner([(j + 1) * b for j, b in enumerate(_HANKEL[: (11, 20)[_wide(k)]])], u))
    # trapezoidal sums of e^(k (cos t - 1)), exact to rounding with 64 angles up to k = 40: I0 - I1 itself cancels
    angle = np.arange(33) * (math.pi / 32)
    depth = jnp.asarray(2 * np.sin(angle / 2) ** 2, k.dtype).reshape((1,) * k.ndim + (-1,))
    masses = jnp.where((depth > 0) & (depth < 2), 1, 0.5) * jnp.exp(-jnp.minimum(k, most)[..., None] * depth)
    near = jnp.sum(masses * depth, -1) / jnp.sum(masses, -1)
    return jnp.where(k < most, near, far)


def _circle_curvature(k: Array) -> Array:
    most, count = _LARGE[_wide(k)], (46, 104)[_wide(k)]
    top = _positive_series(lambda n: _square_term(n) / (2 * (n + 1) ** 2), k * k, most, count)
    near = top / _positive_series(_square_term, k * k, most, count)
    u = 1 / jnp.maximum(k, most)
    far = u * u * (0.5 + u * _horner([(j + 1) * (j + 2) * b for j, b in enumerate(_HANKEL[: (11, 20)[_wide(k)]])], u))
    return jnp.where(k < most, near, far)


def _square_term(n: int) -> Fraction:
    """The coefficient of k^(2n) in I0(k)^2."""
    return Fraction(math.comb(2 * n, n), 4**n * math.factorial(n) ** 2)


def _sphere_series(y: Array) -> Array:
    """sinh(k) / k for y = k^2 < 9."""
    return _positive_series(lambda n: Fraction(1, math.factorial(2 * n + 1)), y, 3, (12, 17)[_wide(y)])


def _sphere_top(y: Array) -> Array:
    """The derivative of sinh(k) / k, over k, for y = k^2 < 9."""
    return _positive_series(lambda n: Fraction(2 * n + 2, math.factorial(2 * n + 3)), y, 3, (12, 17)[_wide(y)])


def _sphere_slope(k: Array) -> Array:
    return jnp.where(k < 3, k * _sphere_top(k * k) / _sphere_series(k * k), 1 - _sphere_tail(k))


def _sphere_tail(k: Array) -> Array:
    """1 - coth(k) + 1/k."""
    some = jnp.maximum(k, 0.5)
    far = 1 / some - 2 * jnp.exp(-2 * some) / (1 - jnp.exp(-2 * some))
    low = jnp.minimum(k, 0.5)
    near = 1 - low * _sphere_top(low * low) / _sphere_series(low * low)
    return jnp.where(k < 0.5, near, far)


def _sphere_curvature(k: Array) -> Array:
    top = _positive_series(
        lambda n: Fraction(2 ** (2 * n + 3), math.factorial(2 * n + 4)), k * k, 3, (16, 23)[_wide(k)]
    )
    some = jnp.maximum(k, 3)
    decay = jnp.exp(-2 * some)
    far = 1 / (some * some) - 4 * decay / jnp.square(1 - decay)
    return jnp.where(k < 3, top / jnp.square(_sphere_series(k * k)), far)


class Normaliser(NamedTuple):
    """A(k) - k and the derivatives of A; `tail` is 1 - A'."""

    d: int

    def scaled(self, k: Array) -> Array:
        """e^(A - k) over the area of the sphere."""
        return i0e(k) if self.d == 2 else _num.exp_ratio(-2 * k)

    def rest(self, k: Array) -> Array:
        return math.log(_CIRCLE if self.d == 2 else _SPHERE) + jnp.log(self.scaled(k))

    def ratio(self, y: Array) -> Array:
        """A'(k) / k as a function of y = k^2 < 9."""
        if self.d == 2:
            return _circle_series(y, 1) / _circle_series(y, 0) / 2
        return _sphere_top(y) / _sphere_series(y)

    def slope(self, k: Array) -> Array:
        return _circle_slope(k) if self.d == 2 else _sphere_slope(k)

    def tail(self, k: Array) -> Array:
        return _circle_tail(k) if self.d == 2 else _sphere_tail(k)

    def curvature(self, k: Array) -> Array:
        return _circle_curvature(k) if self.d == 2 else _sphere_curvature(k)


def _near(u: Array, v: Array) -> Array:
    """Whether 12 nodes integrate A' and A'' from u to v: its poles are near +-2.4i on the circle, +-3.1i else."""
    return _num.magnitude(v - u) <= 2 + jnp.minimum(u, v)


def _integral(f, u: Array, step: Array) -> Array:
    """The integral of f(u + s step) over s in [0, 1]."""
    nodes, masses = gauss(u)
    return jnp.sum(masses * f(u[..., None] + nodes * step[..., None]), -1)


def _mean_rest(A: Normaliser, u: Array, v: Array) -> Array:
    """The divided difference of A(k) - k."""
    near = _near(u, v)
    close = _integral(A.tail, jnp.where(near, u, 0), jnp.where(near, v - u, 1))
    return jnp.where(near, -close, jnp.log(A.scaled(v) / A.scaled(u)) / jnp.where(near, 1, v - u))


def _mean_slope(A: Normaliser, u: Array, v: Array) -> Array:
    """The divided difference of A."""
    near = _near(u, v)
    close = _integral(A.slope, jnp.where(near, u, 0), jnp.where(near, v - u, 1))
    return jnp.where(near, close, 1 + _mean_rest(A, u, v))


def _mean_curvature(A: Normaliser, u: Array, v: Array) -> Array:
    """(A'(v) - A'(u)) / (v - u)."""
    near = _near(u, v)
    close = _integral(A.curvature, jnp.where(near, u, 0), jnp.where(near, v - u, 1))
    return jnp.where(near, close, (A.tail(u) - A.tail(v)) / jnp.where(near, 1, v - u))


def _sizes_gap(A: Normaliser, u: Array, v: Array, h: Array, a: Array, b: Array) -> Array:
    """The gap of A between the sizes u and v = u + h, 0 <= a <= 1, b = 1 - a."""
    near = _near(u, v)
    nodes, masses = gauss(u)
    x, y, step = jnp.where(near, u, 0), jnp.where(near, v, 1), jnp.where(near, h, 1)
    inner = nodes * step[..., None]
    ahead = A.curvature(x[..., None] + b[..., None] * inner)
    back = A.curvature(y[..., None] - a[..., None] * inner)
    close = step * step * jnp.sum(masses * nodes * (b[..., None] * ahead + a[..., None] * back), -1)
    mean = mix(u, v, h, a)
    return jnp.where(near, close, h * (_mean_rest(A, mean, v) - _mean_rest(A, u, mean)))


def _dot(x: Array, y: Array) -> Array:
    return jnp.sum(x * y, -1)


def size(x: Array) -> Array:
    """The 2-norm over the last axis, with derivative 0 at 0."""
    top = jnp.max(_num.magnitude(x), -1)
    unit = jnp.where(top > 0, top, 1)
    return unit * _num.sqrt(_dot(x / unit[..., None], x / unit[..., None]))


def _cross(x: Array, h: Array) -> list[Array]:
    """The components of x cross h, exact before they are rounded: eta and its step may be almost parallel."""

    def minor(i, j):
        (s, es), (t, et) = _num.two_product(x[..., i], h[..., j]), _num.two_product(x[..., j], h[..., i])
        return (s - t) + (es - et)

    return [minor(0, 1)] if x.shape[-1] == 2 else [minor(1, 2), minor(2, 0), minor(0, 1)]


def _lost(x: Array, y: Array, h: Array, kx: Array, ky: Array) -> Array:
    """|x| |y| - x . y for y = x + h, from the cross product where the angle is acute."""
    inner = _dot(x, y)
    acute = inner > 0
    square = sum(jnp.square(c) for c in _cross(x, h))
    return jnp.where(acute, square / jnp.where(acute, kx * ky + inner, 1), kx * ky - inner)


def _across(x: Array, h: Array) -> Array:
    """What of h is orthogonal to x; all of it at x = 0."""
    square = _dot(x, x)
    some = square > 0
    c = [v / jnp.where(some, square, 1) for v in _cross(x, h)]
    if x.shape[-1] == 2:
        turned = jnp.stack([-c[0] * x[..., 1], c[0] * x[..., 0]], -1)
    else:
        turned = jnp.cross(jnp.stack(c, -1), x)
    return jnp.where(some[..., None], turned, h)


def _value(x: Array, y: Array, a: Array) -> Array:
    A, w, h = Normaliser(x.shape[-1]), weights(a), y - x
    over, under = (a > 1)[..., None], (a < 0)[..., None]
    m = mix(x, y, h, a[..., None])
    lo, mid, hi = jnp.where(over, m, x), jnp.where(over, x, jnp.where(under, y, m)), jnp.where(under, m, y)
    inner = h * w.step[..., None]
    u, k, v = size(lo), size(mid), size(hi)
    both = u + v
    step = _dot(inner, lo + hi) / jnp.where(both > 0, both, 1)
    mean = mix(u, v, step, w.a)
    loss = 2 * _lost(lo, hi, inner, u, v) / jnp.where(mean + k > 0, mean + k, 1)
    value = _sizes_gap(A, u, v, step, w.a, w.b) + loss * _mean_slope(A, k, mean)
    return value / jnp.square(w.step)


def _toward(x: Array, h: Array, b: Array) -> Array:
    """(grad A(x) - grad A(m)) / b for m = x + b h."""
    small = (_dot(x, x) < 1)[..., None]
    first = (jnp.arange(x.shape[-1]) == 0).reshape((1,) * (x.ndim - 1) + (-1,))
    away = jnp.where(small, jnp.where(first, 1, 0), x), jnp.where(small, 0, h)  # sizes have no derivative at 0
    return jnp.where(small, _toward_small(jnp.where(small, x, 0), h, b), _toward_large(*away, b))


def _toward_small(x: Array, h: Array, b: Array) -> Array:
    """For |x| < 1, by A'(k)/k as a function of k^2, which is smooth at 0."""
    A, m = Normaliser(x.shape[-1]), x + b[..., None] * h
    y, ym = _dot(x, x), _dot(m, m)
    near = ym < 4
    nodes, masses = gauss(y)
    points = y[..., None] + nodes * (jnp.where(near, ym, 1) - y)[..., None]
    close = jnp.sum(masses * jax.jvp(A.ratio, (points,), (jnp.ones_like(points),))[1], -1)
    far_ratio = _per_size(A, jnp.sqrt(jnp.where(near, 4, ym)))
    ratio = jnp.where(near, A.ratio(jnp.where(near, ym, 0)), far_ratio)
    far = (ratio - A.ratio(y)) / jnp.where(near, 1, ym - y)
    bend = jnp.where(near, close, far) * _dot(h, x + m)
    return -ratio[..., None] * h - x * bend[..., None]


def _toward_large(x: Array, h: Array, b: Array) -> Array:
    """Along x and across it: where A'' is far below A'/k the two would cancel."""
    A, m = Normaliser(x.shape[-1]), x + b[..., None] * h
    k, km = size(x), size(m)
    rate = -_dot(h, x + m) / (k + km)  # (|x| - |m|) / b
    unit = x / k[..., None]
    forward, across = _dot(m, unit), _across(x, h)
    acute = forward > 0
    turn = b * _dot(across, across) / jnp.where(acute, km * (km + forward), 1)
    turn = jnp.where(acute, turn, (km - forward) / jnp.where(acute, 1, jnp.where(km > 0, km, 1) * b))
    along = _mean_curvature(A, k, km) * rate + A.slope(km) * turn
    return along[..., None] * unit - _per_size(A, km)[..., None] * across


def _per_size(A: Normaliser, k: Array) -> Array:
    """A'(k) / k, 1/d at 0."""
    return jnp.where(k > 0, A.slope(k) / jnp.where(k > 0, k, 1), 1 / A.d)


@jax.custom_jvp
def _gap(x: Array, y: Array, a: Array) -> Array:
    return _value(x, y, a)


@partial(_gap.defjvp, symbolic_zeros=True)
def _(primals, tangents):
    (x, y, a), (dx, dy, da) = primals, tangents
    out = _value(x, y, a)
    result = jnp.zeros_like(out)
    if not is_zero(dx):
        result += _dot(_toward(x, y - x, 1 - a), dx)
    if not is_zero(dy):
        result += _dot(_toward(y, x - y, a), dy)
    if not is_zero(da):
        result += jax.jvp(lambda v: _value(x, y, v), (a,), (da,))[1]
    return out, result


def gap(p: VonMisesFisher, q: VonMisesFisher, a: Array) -> Array:
    return _gap(p.eta, q.eta, a)


def largest(p: VonMisesFisher, q: VonMisesFisher) -> Array:
    A, u, v = Normaliser(p.eta.shape[-1]), size(p.eta), size(q.eta)
    rise = _dot(q.eta - p.eta, p.eta + q.eta) / jnp.where(u + v > 0, u + v, 1)
    return size(p.eta - q.eta) + rise * _mean_slope(A, u, v)


@jax.custom_jvp
def _entropy(x: Array) -> Array:
    """A - k A'."""
    A, k = Normaliser(x.shape[-1]), size(x)
    return A.rest(k) + k * A.tail(k)


@_entropy.defjvp
def _(primals, tangents):
    (x,) = primals
    return _entropy(x), -Normaliser(x.shape[-1]).curvature(size(x)) * _dot(x, tangents[0])


def entropy(p: VonMisesFisher) -> Array:
    return _entropy(p.eta)
