"""From a plain convex function to the four functions of a row, without cancellation near u = 1."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kljax import _num

Function = Callable[[Array], Array]

# 12 Gauss-Legendre nodes on [0, 1]: enough for float64, as the nearest singularity, u = 0, is one length away
_NODES = [((1 + float(s)) / 2, float(w) / 2) for s, w in zip(*np.polynomial.legendre.leggauss(12), strict=True)]


def _slope(f: Function) -> Function:
    return lambda u: jax.jvp(f, (u,), (jnp.ones_like(u),))[1]


def terms(f: Function, at_zero: float, slope_at_infinity: float) -> tuple[Callable, Callable, Callable, Callable]:
    """The four functions (t, x) -> Array of a row, u = 1 + x: the term, its mirror image, and their slopes."""
    d1 = _slope(f)
    d2 = _slope(d1)

    def curvature(y, weight):  # the integral of weight(s, 1 + s y) f''(1 + s y) over s in [0, 1]
        return sum(w * weight(s, 1 + s * y) * d2(1 + s * y) for s, w in _NODES)

    def split(t, x, near, far, limit):  # far sees 1/2 where it does not count: f need not be finite elsewhere
        close, here = x > -0.5, t > -jnp.inf
        v = jnp.where(close | ~here, 0.5, jnp.maximum(jnp.exp(t), _num.tiny(t)))
        one = jnp.ones_like(v)
        value = jnp.where(close, near(jnp.where(close, x, 0)), far(v, f(one), d1(one)))
        return jnp.where(here, value, limit(f(one), d1(one)))

    def term(t, x):
        def near(x):
            return x * x * curvature(x, lambda s, u: 1 - s)

        return split(t, x, near, lambda u, c, s: f(u) - c - s * (u - 1), lambda c, s: at_zero - c + s)

    def mirror(t, x):
        def near(x):
            return x * x / (1 + x) * curvature(-x / (1 + x), lambda s, u: 1 - s)

        return split(t, x, near, lambda u, c, s: u * (f(1 / u) - c) - s * (1 - u), lambda c, s: slope_at_infinity - s)

    def slope(t, x):
        def near(x):
            return x * curvature(x, lambda s, u: 1)

        return split(t, x, near, lambda u, c, s: d1(u) - s, lambda c, s: -jnp.inf)

    def mirror_slope(t, x):
        def near(x):
            return x / (1 + x) * curvature(-x / (1 + x), lambda s, u: u)

        return split(t, x, near, lambda u, c, s: f(1 / u) - c + s - d1(1 / u) / u, lambda c, s: -jnp.inf)

    return term, mirror, slope, mirror_slope
