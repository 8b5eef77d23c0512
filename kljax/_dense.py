"""Two Gaussians by their Cholesky factors: kl, the gap and the largest log-ratio, with closed-form derivatives.

Everything follows from E = Lq^-1 (Lp - Lq), the difference formed before the solve, and U = E + E' + E E', so that
cov(p) = Lq (I + U) Lq'. Sums have only terms >= 0 (kl) or cancel by a bounded factor (gap), however close p and q are.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _num


def product(a: Array, b: Array) -> Array:
    """Matrix product of batches in full precision: accelerators would round float32 factors to 10 bits."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def turned(a: Array) -> Array:
    """The transpose of the last two axes."""
    return jnp.swapaxes(a, -1, -2)


def diagonal(a: Array) -> Array:
    """The diagonals of a batch of matrices."""
    return jnp.diagonal(a, axis1=-2, axis2=-1)


def identity(like: Array) -> Array:
    """Identity matrices of a batch's shape."""
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def solve(lower: Array, b: Array, *, transposed: bool = False) -> Array:
    """lower^-1 b, or lower'^-1 b."""
    return lax.linalg.triangular_solve(lower, b, left_side=True, lower=True, transpose_a=transposed)


def solve_vector(lower: Array, b: Array, *, transposed: bool = False) -> Array:
    """lower^-1 b for a batch of vectors."""
    return solve(lower, b[..., None], transposed=transposed)[..., 0]


def squares(x: Array, axes: int) -> Array:
    """The sum of squares over the last one or two axes."""
    return jnp.sum(x * x, tuple(range(-axes, 0)))


def along(ok: Array, slopes: Sequence[Array], steps: Sequence[Array]) -> Array:
    """The sum of slopes times steps of each element of a batch, 0 where not ok.

    Reverse mode multiplies the slopes by that 0, or by one of what saturates, as the Hellinger distance does: none may
    be infinite.
    """
    total, most = jnp.zeros(ok.shape, steps[0].dtype), jnp.finfo(steps[0].dtype).max
    for slope, step in zip(slopes, steps, strict=True):
        keep = ok.reshape(ok.shape + (1,) * (slope.ndim - ok.ndim))
        slope = jnp.clip(jnp.where(keep, slope, 0), -most, most)
        total += jnp.sum(slope * step, tuple(range(ok.ndim, slope.ndim)))
    return total


@jax.custom_jvp
def excess(e: Array, ratio: Array) -> Array:
    """e - log(ratio) >= 0 for ratio = 1 + e > 0, of which e is the exact view near 1 and `ratio` far from it."""
    near = (e > -0.5) & (e < 1)
    y = jnp.where(near, e, 0)
    return jnp.where(near, y * y * _num.log1p_gap(y), e - jnp.log(jnp.where(near, 1, ratio)))


@excess.defjvp
def _(primals, tangents):
    return excess(*primals), primals[0] / primals[1] * tangents[0]


def whitened(delta: Array, lp: Array, lq: Array) -> tuple[Array, Array]:
    """Lq^-1 delta and E = Lq^-1 (Lp - Lq)."""
    joint = jnp.concatenate([lp - lq, delta[..., None]], -1)
    joint = solve(lq, joint)
    return joint[..., -1], joint[..., :-1]


def twice_kl(w: Array, e: Array, ratio: Array) -> Array:
    """2 kl: every term >= 0, and 0 at p = q."""
    return squares(e, 2) + 2 * jnp.sum(excess(diagonal(e), ratio), -1) + squares(w, 1)


def kl(delta: Array, lp: Array, lq: Array) -> Array:
    """The Kullback-Leibler divergence of two Gaussians `[...]`."""
    w, e = whitened(delta, lp, lq)
    return twice_kl(w, e, diagonal(lp) / diagonal(lq)) / 2


def with_slopes_of_kl(cross_entropy: Callable, kl: Callable) -> Callable:
    """A cross-entropy whose slopes in q are those of kl, which vanish at p = q: its own would be differences there."""

    @jax.custom_jvp
    def function(p, q):
        return cross_entropy(p, q)

    @function.defjvp
    def _(primals, tangents):
        (p, q), (dp, dq) = primals, tangents
        value, over_p = jax.jvp(lambda p: cross_entropy(p, q), (p,), (dp,))
        return value, over_p + jax.jvp(lambda q: kl(p, q), (q,), (dq,))[1]

    return function


def symmetric(e: Array) -> Array:
    """U = E + E' + E E'."""
    return e + turned(e) + product(e, turned(e))


def factor(a: Array) -> Array:
    """F with (I + F)(I + F)' = I + A for symmetric A, to a relative error also where A is small; nan if indefinite."""
    one = identity(a)
    first = lax.linalg.cholesky(one + a, symmetrize_input=False) - one
    rest = a - product(first, turned(first))  # once more by the fixed point, whose error is that of F times F
    again = jnp.tril(rest, -1) + one * rest / 2
    return jnp.where((squares(a, 2) < 0.25)[..., None, None], again, first)


def trace_less_log_det(f: Array) -> Array:
    """tr A - log det(I + A) >= 0 of A by its `factor`."""
    return squares(f, 2) + 2 * jnp.sum(excess(diagonal(f), 1 + diagonal(f)), -1)


def _mixture(lp, lq, a, b, mode):
    """QR of the factor of R'R = a cov(q) + b cov(p), 0 < b < 1: without whitening, and the square is not formed."""
    sa, sb = (jnp.sqrt(x)[..., None, None] for x in (a, b))
    return jnp.linalg.qr(jnp.concatenate([sa * turned(lq), sb * turned(lp)], -2), mode=mode)


def _log_ratio(lp, lq):
    """The logarithms of the ratios of the diagonals, of which twice the sum is log det cov(p) - log det cov(q)."""
    return jnp.log(diagonal(lp) / diagonal(lq))


def _far_value(r, half, log_ratio, lq, a, b):
    """2 a b gap by the factor of the mixture and half = R'^-1 delta; rounding alone makes it negative."""
    size = _num.magnitude(diagonal(r)) / diagonal(lq)
    log_det = 2 * jnp.sum(jnp.log(size) - b[..., None] * log_ratio, -1)
    return jnp.maximum(log_det + a * b * squares(half, 1), 0)


def _far(delta, lp, lq, a, b):
    """2 a b gap, far apart."""
    r = _mixture(lp, lq, a, b, "r")
    return _far_value(r, solve_vector(turned(r), delta), _log_ratio(lp, lq), lq, a, b)


def _far_slopes(delta, lp, lq, a, b):
    """v = M^-1 delta, v' Lp, v' Lq, the lower triangles of (M^-1 - cov(p)^-1) Lp / a and (M^-1 - cov(q)^-1) Lq / b.

    M is the mixture; the inverse of L' has no lower triangle but its diagonal. The last is the slope of the gap in a.
    """
    rows, r = _mixture(lp, lq, a, b, "reduced")
    sa, sb = (jnp.sqrt(x)[..., None, None] for x in (a, b))
    by_q, by_p = jnp.split(rows, 2, -2)  # sqrt(b) Lp = R' by_p', so that M^-1 Lp is a solve away
    by_p, by_q = turned(by_p) / sb, turned(by_q) / sa
    over_p, over_q = (
        solve(turned(r), x, transposed=True) - identity(x) / diagonal(y)[..., None] for x, y in ((by_p, lp), (by_q, lq))
    )
    half = solve_vector(turned(r), delta)
    v = solve_vector(turned(r), half, transposed=True)
    v_p, v_q, log_ratio = _row(by_p, half), _row(by_q, half), _log_ratio(lp, lq)
    spread = squares(by_q, 2) - squares(by_p, 2) + 2 * jnp.sum(log_ratio, -1)
    moved = spread + (b - a) * squares(half, 1) - a * b * (squares(v_q, 2) - squares(v_p, 2))
    over_a = (moved - (b - a) / (a * b) * _far_value(r, half, log_ratio, lq, a, b)) / (2 * a * b)
    return v, v_p, v_q, over_p / (sa * sa), over_q / (sb * sb), over_a


def _parts(delta, lp, lq, a):
    """w, E, U, the factor of I + b U, where the mixture is better had without whitening, where it is one at all.

    b = 1 - a; I + b U is known to eps times its size only, but between two orders the mixture is positive definite.
    Up to a size of 8 that costs no more digits than a QR does, and far fewer where the rows of both are near parallel.
    Where the factor does not exist it and U are 0.
    """
    w, e = whitened(delta, lp, lq)
    u, b = symmetric(e), 1 - a
    inside = (b > 0) & ~(b * b * squares(u, 2) <= 64)
    f = factor(b[..., None, None] * u)
    some = ~jnp.any(jnp.isnan(f), (-2, -1))
    keep = some[..., None, None]
    return w, e, jnp.where(keep, u, 0), jnp.where(keep, f, 0), inside, some | inside


@jax.custom_jvp
def _gap(delta: Array, lp: Array, lq: Array, a: Array) -> Array:
    """The scaled gap for a >= 1/2, `affinity.Densities.gap`."""
    b = 1 - a
    w, e, _, f, inside, ok = _parts(delta, lp, lq, a)
    ratio = diagonal(lp) / diagonal(lq)
    lost = trace_less_log_det(f) / jnp.where(b == 0, 1, b)
    near = (twice_kl(jnp.zeros_like(w), e, ratio) - lost) / a + squares(solve_vector(identity(f) + f, w), 1)
    some = jnp.where(inside, a, 0.5)
    far = _far(delta, lp, lq, some, 1 - some) / (some * (1 - some))
    value = jnp.where(inside, far, near) / 2
    broken = jnp.any(jnp.isnan(e), (-2, -1)) | jnp.any(jnp.isnan(w), -1)
    return jnp.where(broken, jnp.nan, jnp.where(ok, value, jnp.inf))


def _slopes(delta, lp, lq, a):
    """Where the gap is finite, and there its derivatives."""
    w, e, u, f, inside, ok = _parts(delta, lp, lq, a)
    one = identity(e)
    c, m = one + f, jnp.where(one == 1, (diagonal(lp) / diagonal(lq))[..., None], e)  # I + E, of which 1e-8 is left
    to_p = e + turned(solve(m, e))  # M - M'^-1 = U M'^-1, U not formed; (I + b U)^-1 by that is a function of U
    to_p = solve(lq, solve(c, solve(c, to_p), transposed=True), transposed=True)
    z = solve_vector(c, solve_vector(c, w), transposed=True)
    over_a = _over_order(w, e, u, f, z, lp, lq, a)
    near = solve_vector(lq, z, transposed=True), _row(m, z), z[..., None, :], to_p, -product(to_p, turned(m)), over_a
    some = jnp.where(inside, a, 0.5)
    pairs = zip(_far_slopes(delta, lp, lq, some, 1 - some), near, strict=True)
    v, by_p, by_q, over_p, over_q, over_a = (
        jnp.where(inside[(..., *[None] * (x.ndim - a.ndim))], x, y) for x, y in pairs
    )
    outer = v[..., :, None]
    over_p -= (1 - a)[..., None, None] * outer * by_p
    over_q -= a[..., None, None] * outer * by_q
    return ok, (v, over_p, over_q, over_a)


def _row(lower, v):
    """v' L as a row."""
    return product(v[..., None, :], lower)


def _over_order(w, e, u, f, z, lp, lq, a):
    """The derivative of the gap in a."""
    b = 1 - a
    ratio = diagonal(lp) / diagonal(lq)
    inner = trace_less_log_det(f)
    some = b * b * squares(u, 2) > jnp.finfo(u.dtype).eps ** 2
    curve = jnp.where(some, inner / jnp.where(some, b * b, 1), squares(u, 2) / 2)
    gap = (twice_kl(jnp.zeros_like(w), e, ratio) - b * curve) / a
    c = identity(f) + f
    moved = jnp.sum(_row(u, z) * z[..., None, :], (-2, -1))
    return ((squares(solve(c, u), 2) - curve - gap) / a + moved) / 2


@_gap.defjvp
def _(primals, tangents):
    return _gap(*primals), along(*_slopes(*primals), tangents)


def gap(delta: Array, lp: Array, lq: Array, a: Array) -> Array:
    """The scaled gap of two Gaussians with loc(p) - loc(q) = delta, `affinity.Densities.gap`."""
    swap = a < 0.5  # gap(p, q, a) = gap(q, p, 1 - a); a >= 1/2 may be divided by
    lower = swap[..., None, None]
    return _gap(delta, jnp.where(lower, lq, lp), jnp.where(lower, lp, lq), jnp.where(swap, 1 - a, a))


def _below(delta, lp, lq):
    """w, E, the factor of -U, coordinates in common, and where cov(p) < cov(q) in the others."""
    w, e = whitened(delta, lp, lq)
    u = symmetric(e)
    same = jnp.all(u == 0, -1)
    root = lax.linalg.cholesky(identity(u) * jnp.where(same, 1, 0)[..., None] - u, symmetrize_input=False)
    ok = ~jnp.any(jnp.isnan(root), (-2, -1)) & ~jnp.any(same & (w != 0), -1)
    return w, e, jnp.where(ok[..., None, None], root, identity(u)), same, ok


@jax.custom_jvp
def largest(delta: Array, lp: Array, lq: Array) -> Array:
    """sup log(p/q): finite where cov(p) < cov(q), +inf elsewhere."""
    w, e, root, _, ok = _below(delta, lp, lq)
    d = diagonal(e)
    log_ratio = _num.log1p_by(d, diagonal(lp) / diagonal(lq))
    value = squares(solve_vector(root, w), 1) / 2 - jnp.sum(log_ratio, -1)
    broken = jnp.any(jnp.isnan(e), (-2, -1)) | jnp.any(jnp.isnan(w), -1)
    return jnp.where(broken, jnp.nan, jnp.where(ok, value, jnp.inf))


@largest.defjvp
def _(primals, tangents):
    delta, lp, lq = primals
    w, _, root, same, ok = _below(delta, lp, lq)
    z = solve_vector(root, solve_vector(root, w), transposed=True)
    v = solve_vector(lq, z, transposed=True)
    sizes = [jnp.where(same, 0, 1 / diagonal(x)) for x in (lp, lq)]
    over = [v[..., :, None] * _row(x, v) - identity(x) * s[..., None] for x, s in zip((lp, lq), sizes, strict=True)]
    return largest(*primals), along(ok, (v, over[0], -over[1]), tangents)
