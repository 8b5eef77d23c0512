"""diag(m) + F F' + w K K', m and w of any sign, and its inverse in O(D R^2).

By the lemma y = (x - F c - K e)/m with c = F' y, e = w K' y. Where a coordinate of little variance of its own accounts
for a column of the factor, y is all but cancelled there: after one step of refinement by the residuals of *all* these
equations it is that of matrices whose every entry is moved by a few eps, be the rows of F of sizes 1e3 apart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kljax._dense import diagonal, identity, product, turned


class Whole(NamedTuple):
    """diag(m) + F F' and what its inverse needs."""

    m: Array  # [..., D]
    f: Array  # [..., D, R]
    small: Array  # [..., R, R], (I + F' F/m)^-1


class More(NamedTuple):
    """diag(m) + F F' + w K K' and what its inverse needs.

    In two steps: (I + [F K]' [F K]/m)^-1 has lost what these keep where large columns of F and K are near parallel.
    """

    base: Whole  # diag(m) + F F'
    k: Array  # [..., D, R]
    w: Array  # [...]
    z: Array  # [..., D, R], base^-1 K
    t: Array  # [..., R, R], F' Z
    v: Array  # [..., R, R], K' Z
    own: Array  # [..., R, R], (I + w V)^-1


def gram(f: Array, weight: Array, g: Array) -> Array:
    """F' diag(weight) G."""
    return product(turned(f), g * weight[..., None])


@jax.custom_jvp
def small_inverse(a: Array) -> Array:
    """The inverse of a small matrix; its closed-form derivative compiles several times faster than that of a solve."""
    return jnp.linalg.inv(a)


@small_inverse.defjvp
def _(primals, tangents):
    value = small_inverse(*primals)
    return value, -product(value, product(tangents[0], value))


def _regular(a: Array) -> Array:
    """I + A, not singular for A >= 0 of whose rounding 1 and more would make it so.

    There every diagonal entry is moved by eps of itself: of columns of sizes far apart none loses digits to another.
    """
    slip = jnp.finfo(a.dtype).eps
    lost = a.shape[-1] * slip * jnp.abs(jnp.sum(diagonal(a), -1))[..., None, None] > 1
    return (identity(a) + a) * (1 + jnp.where(lost, slip, 0) * identity(a))


def by_one_more(a: Array, x: Array) -> Array:
    """(I + A)^-1 x, A similar to one >= 0."""
    return product(small_inverse(_regular(a)), x)


def regular_root(a: Array) -> Array:
    """L of L L' = I + A, A >= 0 but for its rounding."""
    return jnp.linalg.cholesky(_regular(a))


def whole(m: Array, f: Array) -> Whole:
    """diag(m) + F F'."""
    return Whole(m, f, small_inverse(_regular(gram(f, 1 / m, f))))


def more(m: Array, f: Array, k: Array, w: Array) -> More:
    """diag(m) + F F' + w K K', w `[...]`."""
    base = whole(m, f)
    z, t = solved(base, k)
    v = gram(z, m, z) + product(turned(t), t)  # of terms >= 0 where m > 0
    return More(base, k, w, z, t, v, small_inverse(_regular(w[..., None, None] * v)))


def _step(a: Whole, x: Array, less: Array | float) -> tuple[Array, Array]:
    """(x - F c)/m and c = F' y - less."""
    m = a.m[..., None]
    c = product(a.small, product(turned(a.f), x / m) - less)
    return (x - product(a.f, c)) / m, c


def solved(a: Whole, x: Array) -> tuple[Array, Array]:
    """y = (diag(m) + F F')^-1 x for x `[..., D, N]`, and F' y."""
    y, c = _step(a, x, 0)
    rest, over = _step(a, x - a.m[..., None] * y - product(a.f, c), c - product(turned(a.f), y))
    return y + rest, c + over


def inverse(a: More, x: Array) -> Array:
    """(diag(m) + F F' + w K K')^-1 x for x `[..., D, N]`."""
    w = a.w[..., None, None]

    def step(x, less, lesser):
        y, c = _step(a.base, x, less)
        e = product(a.own, w * (product(turned(a.z), x) + product(turned(a.t), less)) - lesser)
        return y - product(a.z, e), c - product(a.t, e), e

    y, c, e = step(x, jnp.zeros_like(a.t[..., :1]), 0)
    left = x - a.base.m[..., None] * y - product(a.base.f, c) - product(a.k, e)
    rest, _, _ = step(left, c - product(turned(a.base.f), y), e - w * product(turned(a.k), y))
    return y + rest


def diagonal_of_inverse(a: More) -> Array:
    """The diagonal of (diag(m) + F F' + w K K')^-1."""
    f = a.base.f / a.base.m[..., None]
    lost = jnp.sum(turned(product(a.base.small, turned(f))) * f, -1)
    over = jnp.sum(turned(product(a.own, turned(a.z))) * a.z, -1)
    return 1 / a.base.m - lost - a.w[..., None] * over
