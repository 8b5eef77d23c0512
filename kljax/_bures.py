"""The Bures distance of two covariances by Cholesky factors: the squared Wasserstein distance of centred Gaussians.

T, the symmetric map with T cov(q) T = cov(p), is Lq'^-1 (Lq' cov(p) Lq)^(1/2) Lq^-1, and the distance is the square
of (T - I) Lq. With the singular vectors P, Q of Lq' Lp and left ones V of Lq, of values c and s, that is V Y' P' for

    Y = P' Lq' (cov(p) - cov(q)) V / (c + s^2)
      = (V' (Lp Q - Lq P))'

of which the first forms the difference of the covariances first, so that nothing cancels near equality, and the second
divides by no singular value, of which a decomposition knows no more than eps times the largest. The derivatives are
2 V Y' Q' in Lp and -2 V Y' P' in Lq. Their own derivatives are Lyapunov equations; no decomposition is differentiated,
which equal eigenvalues would turn into 0/0.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax._dense import product, solve, squares, turned


def _spread(lp: Array, lq: Array):
    """Y, V, P, Q of the head of this page: each element of Y by the form that rounding moves less."""
    v, s, _ = jnp.linalg.svd(lq)
    p, c, q = jnp.linalg.svd(product(turned(lq), lp))
    q, step, moved = turned(q), lp - lq, product(lq, p)
    inner = product(step, product(turned(lp), v)) + product(lq, product(turned(step), v))
    size = c[..., :, None] + (s * s)[..., None, :]
    by_step = product(turned(moved), inner) / jnp.where(size == 0, 1, size)
    apart = turned(product(turned(v), product(lp, q) - moved))
    # eps times these is the error of the product, and of `size`
    error = _norm(step) * _norm(lp) * turned(_lengths(moved)) + _norm(lq) * _lengths(inner)
    error += jnp.abs(by_step) * (c[..., :1, None] + (s[..., :1] * s)[..., None, :])
    equal = jnp.all(step == 0, (-2, -1), keepdims=True)  # where `size` may have underflowed to 0
    y = jnp.where((error >= (_norm(lp) + _norm(lq)) * size) & ~equal, apart, by_step)
    # P and Q of singular values below eps are any: P = Q is as near, and no distance is larger than that of the factors
    unturned = (squares(step, 2) < 0.99 * squares(y, 2))[..., None, None]
    return jnp.where(unturned, turned(product(turned(v), product(step, p))), y), v, p, jnp.where(unturned, p, q)


def _norm(x):
    return jnp.sqrt(squares(x, 2))[..., None, None]


def _lengths(x):
    """Of the columns, in a row."""
    return jnp.sqrt(jnp.sum(x * x, -2, keepdims=True))


@jax.custom_jvp
def bures(lp: Array, lq: Array) -> Array:
    """tr(cov(p) + cov(q) - 2 (cov(q)^(1/2) cov(p) cov(q)^(1/2))^(1/2)) >= 0 of lower triangular factors of size 1."""
    return squares(_spread(lp, lq)[0], 2)


@bures.defjvp
def _(primals, tangents):
    over_p, over_q = _slopes(*primals)
    return bures(*primals), jnp.sum(over_p * tangents[0] + over_q * tangents[1], (-2, -1))


@jax.custom_jvp
def _slopes(lp: Array, lq: Array) -> tuple[Array, Array]:
    """2 (I - T^-1) Lp and 2 (I - T) Lq."""
    y, v, p, q = _spread(lp, lq)
    inner = 2 * product(v, turned(y))
    return product(inner, turned(q)), -product(inner, turned(p))


@_slopes.defjvp
def _(primals, tangents):
    (lp, lq), (dp, dq) = primals, tangents
    b = product(turned(lq), lp)
    c = _root(b)
    back = solve(lq, c, transposed=True)  # T Lq
    t = turned(solve(lq, turned(back), transposed=True))
    dcov = [_both(x, dx) for x, dx in ((lp, dp), (lq, dq))]
    inner = product(turned(lq), product(dcov[0], lq)) - product(turned(back), product(dcov[1], back))
    x = _lyapunov(c, inner)  # Lq' dT Lq
    over_p = dp - _unmap(lq, c, dp) + product(lq, jnp.linalg.solve(c, product(x, jnp.linalg.solve(c, b))))
    over_q = dq - product(t, dq) - solve(lq, x, transposed=True)
    return _slopes(lp, lq), (2 * over_p, 2 * over_q)


def _unmap(lq, c, x):
    """T^-1 x."""
    return product(lq, jnp.linalg.solve(c, product(turned(lq), x)))


def _both(x, dx):
    """The derivative of x x'."""
    half = product(dx, turned(x))
    return half + turned(half)


@jax.custom_jvp
def _root(b: Array) -> Array:
    """The positive square root of b b', which is not formed: its small eigenvalues would be lost."""
    vectors, values, _ = jnp.linalg.svd(b)
    return product(vectors * values[..., None, :], turned(vectors))


@_root.defjvp
def _(primals, tangents):
    root = _root(*primals)
    return root, _lyapunov(root, _both(*primals, *tangents))


def _lyapunov(c: Array, n: Array) -> Array:
    """X with X C + C X = N for positive definite C."""

    def apply(x):
        return product(x, c) + product(c, x)

    def solved(_, n):
        values, vectors = jnp.linalg.eigh(c)
        inner = product(turned(vectors), product(n, vectors)) / (values[..., :, None] + values[..., None, :])
        return product(vectors, product(inner, turned(vectors)))

    return lax.custom_linear_solve(apply, n, solved, symmetric=True)  # of which only `apply` is ever differentiated
