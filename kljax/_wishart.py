"""Two Wishart distributions from triangular factors, without an eigenvalue: all terms are >= 0.

With M = Lq^-1 Lp, lower triangular, 1 + e_i its diagonal, the log-determinants of the two precisions and of their
mixture differ row by row: a diagonal part, as in a Gamma distribution, and log(1 + a (1 - a) w_i / b_i) from the row
m_i left of the diagonal, where b_i = a + (1 - a) (1 + e_i)^2 and w_i = m_i' (a I + (1 - a) M' M)^-1 m_i, M being cut to
the rows above.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from kljax import _num
from kljax._jensen import cross, log1p_over, log_gap, log_over, mix, perspective_gap, rest_gap, split, within
from kljax._rest import rest, rest_fall, rest_slope


class Wishart(NamedTuple):
    """Scatter matrices of `df` `[...]` > d - 1 draws of covariance L L', L = `scale_tril` `[..., d, d]`."""

    df: Array
    scale_tril: Array


def clean(p: Wishart) -> Wishart:
    d = p.scale_tril.shape[-1]
    diagonal = jnp.diagonal(p.scale_tril, axis1=-2, axis2=-1)
    ok = (p.df > d - 1) & (p.df < jnp.inf) & jnp.all(diagonal > 0, -1)
    return Wishart(jnp.where(ok, p.df, jnp.nan), jnp.where(ok[..., None, None], jnp.tril(p.scale_tril), jnp.nan))


def _excess(p: Wishart, q: Wishart) -> Array:
    """Lq^-1 (Lp - Lq)."""
    return lax.linalg.triangular_solve(q.scale_tril, p.scale_tril - q.scale_tril, left_side=True, lower=True)


def _halves(p: Wishart) -> Array:
    """(df - j) / 2 for j < d, on the last axis."""
    j = jnp.arange(p.scale_tril.shape[-1], dtype=p.df.dtype)
    return (p.df[..., None] - j.reshape((1,) * p.df.ndim + (-1,))) / 2


def _unit(x: Array) -> Array:
    """The unit matrix with as many axes as x."""
    d = x.shape[-1]
    return jnp.eye(d, dtype=x.dtype).reshape((1,) * (x.ndim - 2) + (d, d))


def _transposed(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _product(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision="highest")


def _below(e: Array, a: Array) -> Array:
    """w_i for every row: row i meets the block of M' M of the rows and columns before it, and a unit matrix beyond."""
    d = e.shape[-1]
    i = jnp.arange(d)
    before = (i[None, :] < i[:, None]).reshape((1,) * (e.ndim - 2) + (d, d))  # [row, column]
    m = (e + _unit(e))[..., None, :, :]
    m = jnp.where(before[..., :, None] & before[..., None, :], m, 0)
    a = a[..., None, None]
    diagonal = jnp.where(before, a, 1)[..., None] * _unit(m)
    block = diagonal + (1 - a)[..., None] * _product(_transposed(m), m)
    factor = jnp.linalg.cholesky(block, symmetrize_input=False)
    row = jnp.tril(e, -1)[..., None]
    return jnp.sum(jnp.square(lax.linalg.triangular_solve(factor, row, left_side=True, lower=True)), (-2, -1))


def _indefinite(e: Array, a: Array) -> Array:
    """Whether a I + (1 - a) M M' has no Cholesky factor, for a outside [0, 1]."""
    eye = _unit(e)
    m, a = lax.stop_gradient(e + eye), lax.stop_gradient(a)[..., None, None]
    factor = jnp.linalg.cholesky(a * eye + (1 - a) * _product(m, _transposed(m)), symmetrize_input=False)
    broken = jnp.any(jnp.isnan(factor), (-2, -1))
    a = a[..., 0, 0]
    return broken & ((a < 0) | (a > 1)) & ~jnp.any(jnp.isnan(m), (-2, -1))


def _digamma_part(x: Array, y: Array, h: Array, a: Array) -> Array:
    """The gap of the sum over j of log Gamma(x - j/2) - x log x + x, for `[..., d]`, j the index."""
    s = jnp.arange(x.shape[-1], dtype=x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)) / 2
    whole, other = x + s, y + s
    parts = rest_gap(x, y, h, a) + perspective_gap(x, y, whole, other, -s * h, a) + s * log_gap(whole, other, h, a)
    return jnp.sum(parts, -1)


def _scale_part(p: Wishart, q: Wishart, a: Array, below: Array, e: Array) -> Array:
    """The gap of x log x - x log det over rows, x = df / 2."""
    z = jnp.diagonal(e, axis1=-2, axis2=-1)
    x, y, h, a = (jnp.broadcast_to(v[..., None], z.shape) for v in (p.df / 2, q.df / 2, (q.df - p.df) / 2, a))
    one, ratio, excess = jnp.ones_like(z), jnp.square(1 + z), z * (2 + z)
    parts = perspective_gap(x, y, one, ratio, cross(x, y, h, one, ratio, excess), a)
    mean = mix(one, ratio, excess, a)
    return jnp.sum(parts + mix(x, y, h, a) * log1p_over(below / mean, a * (1 - a)), -1)


def gap(p: Wishart, q: Wishart, a: Array) -> Array:
    e, least, h = _excess(p, q), _halves(p)[..., -1], (q.df - p.df) / 2
    outside, a = within(a, (least, _halves(q)[..., -1], h))
    outside |= _indefinite(e, a)
    a = jnp.where(outside, 0.5, a)
    all_a, all_h = (jnp.broadcast_to(v[..., None], e.shape[:-1]) for v in (a, h))
    value = _scale_part(p, q, a, _below(e, a), e) + _digamma_part(_halves(p), _halves(q), all_h, all_a)
    return jnp.where(outside, jnp.inf, value)


def kl(p: Wishart, q: Wishart) -> Array:
    e, one = _excess(p, q), jnp.ones_like(p.df)
    below = jnp.sum(jnp.square(jnp.tril(e, -1)), -1)
    h, all_one = (jnp.broadcast_to(v[..., None], e.shape[:-1]) for v in ((q.df - p.df) / 2, one))
    return _scale_part(p, q, one, below, e) + _digamma_part(_halves(p), _halves(q), h, all_one)


def _log_gamma_fall(n: Array, m: Array, c: Array) -> Array:
    """f(m) - f(n), terms >= 0, for n = m + c and f = log Gamma(n - j/2) - n log n + n, `[..., d]`, j the index."""
    s = jnp.arange(n.shape[-1], dtype=n.dtype).reshape((1,) * (n.ndim - 1) + (-1,)) / 2
    x, y, one = n - s, m - s, jnp.ones_like(n)
    bend = c * jnp.square(s / n) * _num.log1p_gap(-s / n)
    return rest_fall(x, y, c) + perspective_gap(x, y, n, m, s * c, one) + bend + s * log_over(n, m)


def largest(p: Wishart, q: Wishart) -> Array:
    """The supremum is at X = 2 c D^-1, c half the difference of the degrees, D that of the precisions, if D > 0."""
    e, d = _excess(p, q), p.scale_tril.shape[-1]
    c = (p.df - q.df) / 2
    z = jnp.diagonal(e, axis1=-2, axis2=-1)
    gap_of_precisions = -(e + _transposed(e) + _product(_transposed(e), e))
    same = jnp.all(e == 0, (-2, -1)) & (c == 0)
    eye = _unit(e)
    trial = jnp.where(same[..., None, None], eye, lax.stop_gradient(gap_of_precisions))
    definite = ~jnp.any(jnp.isnan(jnp.linalg.cholesky(trial, symmetrize_input=False)), (-2, -1))
    # a second factor, as the derivative of one that does not exist is nan even where it is not used
    inside = (definite & ~same & (c >= 0))[..., None, None]
    factor = jnp.linalg.cholesky(jnp.where(inside, gap_of_precisions, eye), symmetrize_input=False)
    ok = inside[..., 0]
    z, g = jnp.where(ok, z, -0.5), jnp.where(ok, jnp.square(jnp.diagonal(factor, axis1=-2, axis2=-1)), 0.75)
    n, m, h = (jnp.where(ok, v[..., None], w) + 0 * z for v, w in ((p.df / 2, d), (q.df / 2, d - 0.5), (c, 0.5)))
    shared = -z * (2 + z)  # what a pivot of the difference of the precisions is without the rows below
    value = split(n, m, h, jnp.ones_like(z), jnp.square(1 + z), shared) - h * log_over(g, shared)
    value = jnp.sum(value + _log_gamma_fall(n, m, h), -1)
    bad = jnp.isnan(p.df + q.df)
    return jnp.where(bad, jnp.nan, jnp.where(same, 0, jnp.where(definite & (c >= 0), value, jnp.inf)))


def entropy(p: Wishart) -> Array:
    x, d = _halves(p), p.scale_tril.shape[-1]
    j = jnp.arange(d, dtype=x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    spread = jnp.log(jnp.diagonal(p.scale_tril, axis1=-2, axis2=-1))
    terms = (d + 1 - j) / 2 * jnp.log(x) + j / 2 + rest(x) - (x[..., :1] - (d + 1) / 2) * rest_slope(x)
    constant = d * (d - 1) / 4 * math.log(math.pi) + d * (d + 1) / 2 * math.log(2)
    return constant + jnp.sum((d + 1) * spread + terms, -1)
