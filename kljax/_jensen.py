"""Jensen gaps of the convex functions that log-normalisers are made of, each without a cancelling difference.

The gap of F between x and y = x + h at weight a of x,

    (a F(x) + (1 - a) F(y) - F(m)) / (a (1 - a)),   m = a x + (1 - a) y,

is h^2 times the second divided difference of F at x, m, y. So it is smooth in a through 0 and 1, where it is a Bregman
divergence, and it is symmetric in its three points: for a outside [0, 1], where m lies outside [x, y], the points are
put in order first, and a sum of terms >= 0 it is for every a. Its slopes are -h times the divided difference of F'
between x and m, and h times that between m and y.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _num, _weights, rows
from kljax._points import is_zero, points
from kljax._quadrature import gauss

# log Gamma(x) - x log x + x + log(x)/2 - log(2 pi)/2 = sum of c_k x^-(2k + 1)
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)


class Weights(NamedTuple):
    """The weights of the outer two of three points in order, and their distance over that of x and y."""

    a: Array
    b: Array
    step: Array


class Line(NamedTuple):
    """Three points in order along a segment; `h` is the difference of the outer two."""

    lo: Array
    mid: Array
    hi: Array
    h: Array


def weights(a: Array) -> Weights:
    over, under = a > 1, a < 0
    step = jnp.where(over, a, jnp.where(under, 1 - a, 1))
    first = jnp.where(over, 1 / step, jnp.where(under, -a / step, a))
    second = jnp.where(over, (a - 1) / step, jnp.where(under, 1 / step, 1 - a))
    return Weights(first, second, step)


def mix(x: Array, y: Array, h: Array, a: Array) -> Array:
    """a x + (1 - a) y, exactly x at a = 1 and y at a = 0."""
    return jnp.where(a > 0.5, x + (1 - a) * h, y - a * h)


def line(x: Array, y: Array, h: Array, a: Array) -> Line:
    m, over, under = mix(x, y, h, a), a > 1, a < 0
    lo, hi = jnp.where(over, m, x), jnp.where(under, m, y)
    return Line(lo, jnp.where(over, x, jnp.where(under, y, m)), hi, h * weights(a).step)


def rule(value: Callable[..., Array], slopes: Callable[..., tuple[Array, ...]]) -> Callable[..., Array]:
    """value(*points, h, a) with the derivatives slopes(*points, h, a) in its points.

    h is a function of the points that the caller forms without rounding: a tangent of it is theirs already. The order
    a is differentiated through the formula of the value, which has no pole in it.
    """
    function = jax.custom_jvp(value)

    def jvp(primals, tangents):
        (*_, a), (*given, _, da) = primals, tangents
        out = value(*primals)
        result = jnp.zeros_like(out)
        if not all(is_zero(t) for t in given):
            most = jnp.finfo(out.dtype).max  # an infinite slope would be nan at order 0, which multiplies it by 0
            parts = (jnp.clip(s, -most, most) for s in slopes(*primals))
            result += sum(s * t for s, t in zip(parts, given, strict=True) if not is_zero(t))
        if not is_zero(da):
            result += jax.jvp(lambda v: value(*primals[:-1], v), (a,), (da,))[1]
        return out, result

    function.defjvp(jvp, symbolic_zeros=True)
    return function


def positive(x: Array) -> Array:
    """A parameter in (0, inf), nan where it is not."""
    return jnp.where((x > 0) & (x < jnp.inf), x, jnp.nan)


def cross(x: Array, y: Array, h: Array, s: Array, t: Array, g: Array) -> Array:
    """x t - y s for y = x + h and t = s + g: from the differences if those are small, else as it stands."""
    small = x * _num.magnitude(g) + _num.magnitude(h) * s < x * t + y * s
    return jnp.where(small, x * g - h * s, x * t - y * s)


def within(a: Array, *pairs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Where a parameter a x + (1 - a) y is not positive, and the order with 1/2 put there."""
    outside = jnp.zeros(a.shape, bool)
    for x, y, h in pairs:
        left = mix(x, y, h, a) <= 0
        outside |= left
    return outside, jnp.where(outside, 0.5, a)


def log_over(x: Array, y: Array) -> Array:
    """log(x/y)."""
    return _num.log1p_by((x - y) / y, x / y)


def log_ratio(z: Array, u: Array) -> Array:
    """log(u) / z for u = 1 + z > 0, of which z is the exact view near u = 1 and u the exact one far from it."""
    near = (z > -0.5) & (z < 1)
    return jnp.where(
        near, _num.log1p_ratio(jnp.where(near, z, 0)), jnp.log(jnp.where(near, 1, u)) / jnp.where(near, 1, z)
    )


def _log_gap(z: Array, u: Array) -> Array:
    """(z - log u) / z^2 for the same two views; z^2 itself may overflow, and XLA makes a / z / z that."""
    near = (z > -0.5) & (z < 1)
    far = jnp.where(near, 1, z)
    return jnp.where(near, _num.log1p_gap(jnp.where(near, z, 0)), (1 - jnp.log(jnp.where(near, 1, u)) / far) / far)


def split(x: Array, y: Array, c: Array, s: Array, t: Array, d: Array) -> Array:
    """x KL of (c, y) / x and (d, t) / s, for x = y + c and s = t + d: terms >= 0."""
    w = cross(x, y, -c, s, t, -d)
    some = jnp.where(d > 0, d, 1)
    over_d, over_t = w / x / some, -w / x / t
    first = jnp.where(d > 0, d * (x / s) * _num.xlogx_rest(over_d, 1 + over_d), 0)
    return first + t * (x / s) * _num.xlogx_rest(over_t, 1 + over_t)


def _xlogx_gap(z: Array) -> Array:
    """(u log u - z) / z^2 for u = 1 + z >= 0."""
    near = (z > -0.5) & (z < 1)
    far = jnp.where(near, 1, z)
    u = jnp.where(far > -1, 1 + far, 1)
    rest = jnp.where(far > -1, u * (jnp.log(u) / far), 0) - 1
    return jnp.where(near, _num.xlogx_gap(jnp.where(near, z, 0)), rest / far)


def _log_value(x: Array, y: Array, h: Array, a: Array) -> Array:
    w, (lo, mid, hi, _) = weights(a), line(x, y, h, a)
    r = h / mid
    inner = w.step * r
    first = _log_gap(-w.b * inner, lo / mid)
    second = _log_gap(w.a * inner, hi / mid)
    return r * (w.b * (r * first) + w.a * (r * second))


def _log_slopes(x, y, h, a):
    m = mix(x, y, h, a)
    return -(h / x) / m, (h / y) / m


log_gap = rule(_log_value, _log_slopes)  # of -log x


def _perspective_value(x: Array, y: Array, s: Array, t: Array, c: Array, a: Array) -> Array:
    """c = x t - y s, whose size alone a common step of both pairs changes."""
    w, (lo_s, mid_s, hi_s, _) = weights(a), line(s, t, t - s, a)
    r = c / line(x, y, y - x, a).mid
    first = _xlogx_gap(w.b * w.step * r / lo_s)
    second = _xlogx_gap(-w.a * w.step * r / hi_s)
    return (r / mid_s) * (w.b * (c / lo_s) * first + w.a * (c / hi_s) * second)


def _perspective_slopes(x, y, s, t, c, a):
    m, n = mix(x, y, y - x, a), mix(s, t, t - s, a)
    r, u = c / m, c / n
    first = log_ratio((1 - a) * r / s, (x / m) * (n / s))
    second = log_ratio(-a * r / t, (y / m) * (n / t))
    return r / s * first, -r / t * second, -u / s, u / t


# of x log(x/s) between the pairs (x, s) and (y, t), given x, y, s, t and c = x t - y s
perspective_gap = rule(_perspective_value, _perspective_slopes)


def stirling_terms(x: Array) -> tuple[int, int]:
    """How far log Gamma is shifted, and how many terms of its asymptotic series reach eps there."""
    return (12, 8) if x.dtype == jnp.float64 else (6, 4)


def shifts(x: Array, count: int) -> Array:
    """x, x + 1, ... on a new last axis: one array, as unrolled they take most of a minute to compile."""
    return x[..., None] + jnp.arange(count, dtype=x.dtype).reshape((1,) * x.ndim + (-1,))


def _shift_gap(at: Line, w: Weights, h: Array) -> Array:
    """The gap of (x + 1) log(x + 1) - (x + 1) log x: that of x log(x/s) between the points (x + 1, x)."""
    r = h / (at.mid + 1)
    first = _xlogx_gap(w.b * w.step * r / at.lo)
    second = _xlogx_gap(-w.a * w.step * r / at.hi)
    return (r / at.mid) * (w.b * (h / at.lo) * first + w.a * (h / at.hi) * second)


def _complete(u: Array, v: Array, w: Array, count: int) -> list[Array]:
    """The complete homogeneous polynomials of degrees 0 to count - 1 in three variables."""
    one, two, three = jnp.ones_like(u), jnp.ones_like(u), jnp.ones_like(u)
    found = [three]
    for _ in range(count - 1):
        one = one * u
        two = two * v + one
        three = three * w + two
        found.append(three)
    return found


def _rest_value(x: Array, y: Array, h: Array, a: Array) -> Array:
    shift, terms = stirling_terms(x)
    w, at = weights(a), line(x, y, h, a)
    spread = Weights(*(v[..., None] for v in w))
    shifted = Line(shifts(at.lo, shift), shifts(at.mid, shift), shifts(at.hi, shift), at.h[..., None])
    total = jnp.sum(_shift_gap(shifted, spread, h[..., None]), -1)
    u, v, s = (1 / (p + shift) for p in at[:3])
    powers = _complete(u, v, s, 2 * terms)
    series = sum(c * powers[2 * k] for k, c in enumerate(STIRLING[:terms]))
    return total + log_gap(x + shift, y + shift, h, a) / 2 + (h * v) * (h * s) * u * series


def rest_slope(x: Array, y: Array, h: Array) -> Array:
    """The divided difference of the derivative of log Gamma(x) - x log x + x between x and y = x + h: >= 0."""
    shift, terms = stirling_terms(x)
    lo, hi, h = jnp.where(h < 0, y, x), jnp.where(h < 0, x, y), jnp.where(h < 0, -h, h)
    s, t, g = shifts(lo, shift), shifts(hi, shift), h[..., None]
    one = 1 / (s * (t + 1))
    total = jnp.sum(one / t + one * (g * one) * _num.log1p_gap(g * one), -1)
    u, w = 1 / (lo + shift), 1 / (hi + shift)
    powers = _complete(u, w, jnp.zeros_like(u), 2 * terms)
    return total + u * w * (0.5 + sum((2 * k + 1) * c * powers[2 * k + 1] for k, c in enumerate(STIRLING[:terms])))


def _rest_slopes(x, y, h, a):
    m = mix(x, y, h, a)
    return -h * rest_slope(x, m, (1 - a) * h), h * rest_slope(m, y, a * h)


rest_gap = rule(_rest_value, _rest_slopes)  # of log Gamma(x) - x log x + x, which is convex


def _drop_slopes(x, y, s, t, h, a):
    whole = h[0] + h[1]
    first, second = _rest_slopes(x, y, h[0], a)
    third, fourth = _rest_slopes(x + s, y + t, whole, a)
    return first - third, second - fourth, -third, -fourth


def _drop_value(x: Array, y: Array, s: Array, t: Array, h: tuple[Array, Array], a: Array) -> Array:
    """h: y - x and t - s. Where s and t are small, of x and of the step too, it is an integral over their share."""
    m, n = mix(x, y, h[0], a), mix(s, t, h[1], a)
    near = (4 * s < x) & (4 * t < y) & (4 * n < m) & (s + t < _num.magnitude(h[0]))
    nodes, masses = gauss(x, (7 if x.dtype == jnp.float64 else 4))
    x_s, y_s, s_s, t_s, h_s, g_s, a_s = (v[..., None] for v in (x, y, s, t, *h, a))
    share = jnp.where(near[..., None], nodes, 0)
    first, second = _rest_slopes(
        x_s + share * s_s, y_s + share * t_s, h_s + share * g_s, jnp.broadcast_to(a_s, share.shape)
    )
    close = -jnp.sum(masses * (first * s_s + second * t_s), -1)
    return jnp.where(near, close, _rest_value(x, y, h[0], a) - _rest_value(x + s, y + t, h[0] + h[1], a))


# of rest(x) - rest(x + s): what the largest parameter of a Dirichlet distribution and their sum s + x leave
rest_drop = rule(_drop_value, _drop_slopes)


def _mass_pair(x: Array, y: Array, h: Array):
    return _weights.from_difference(x, y, -h, jnp.ones_like(x), measures=True)


def _mass_value(x: Array, y: Array, h: Array, a: Array) -> Array:
    return points(rows.alpha(a), _mass_pair(x, y, h))


def _mass_slopes(x, y, h, a):
    most, d = _num.slope_limit(x), _mass_pair(x, y, h).tame
    t = jnp.where(d <= 0, d, -d)  # not -|d|: its derivative 0 at 0 would be the Hessian at p = q
    first = jnp.where(d <= 0, _num.expm1_over(t, a - 1), -_num.expm1_over(t, 1 - a))
    second = jnp.where(d <= 0, -_num.expm1_over(t, a), _num.expm1_over(t, -a))
    return tuple(jnp.where((x == 0) & (y == 0), 0, jnp.clip(s, -most, most)) for s in (first, second))


mass_gap = rule(_mass_value, _mass_slopes)  # of e^t between t = log x and log y: the alpha divergence of two masses


@partial(jax.custom_jvp)
def log1p_over(w: Array, c: Array) -> Array:
    """log(1 + c w) / c for w >= 0: w at c = 0."""
    return w * _num.log1p_ratio(c * w)


@log1p_over.defjvp
def _(primals, tangents):
    (w, c), (dw, dc) = primals, tangents
    y = c * w
    turn = jnp.where(y > 2, _num.log1p_ratio(y) / jnp.where(y > 2, y, 1) - 1 / (1 + y) / jnp.where(y > 2, y, 1), 0)
    turn = jnp.where(y > 2, turn, 1 / (1 + y) - _num.log1p_gap(jnp.where(y > 2, 0, y)))
    return log1p_over(w, c), dw / (1 + y) - w * w * turn * dc
