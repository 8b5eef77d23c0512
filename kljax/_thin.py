"""Two Gaussians with covariances F F' + diag(d): kl, the gap and the largest log-ratio in O(D R^2), no D x D array.

Coordinates are scaled by sqrt(d_q), in which cov(q) = I + G G', cov(p) = diag(rho) + H H', and the differences
eta = rho - 1 and K = H - G are formed before anything else. For the mixture of covariances
a cov(q) + b cov(p) = diag(m) + F F' + a b K K', b = 1 - a, m = 1 + b eta, F = G + b K (a rotation of both factors), the
determinant lemma gives with C = I + G'G = L L'

    2 gap = sum g(eta) + [h(Psi) - h(b Theta) / b] / a + tr log(I + a b V) / (a b) - sum |L^-1 (K - eta G)|^2 / (rho m)
            + delta' (a cov(q) + b cov(p))^-1 delta

where h(X) = tr X - log det(I + X), g is the gap of one coordinate, V = K' (diag(m) + F F')^-1 K, I + b Theta is
L^-1 (I + F' F/m) L'^-1 and Psi is Theta at b = 1. All of first order has cancelled on paper: no digit is lost for
being near p = q. b < 0 makes the mixture indefinite, which the inertia of the small matrices decides.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kljax import _num, _woodbury
from kljax._dense import along, diagonal, excess, identity, product, solve, squares, turned
from kljax._woodbury import More, by_one_more, diagonal_of_inverse, gram, inverse, regular_root, small_inverse


class Scaled(NamedTuple):
    """Two Gaussians in the coordinates of the head of this page."""

    x: Array  # [..., D], loc(p) - loc(q)
    g: Array  # [..., D, R]
    k: Array  # [..., D, R]
    eta: Array  # [..., D]
    rho: Array  # [..., D]


def scaled(delta: Array, fp: Array, dp: Array, fq: Array, dq: Array) -> Scaled:
    """The pair in coordinates scaled by sqrt(d_q)."""
    root = jnp.sqrt(dq)
    wide = root[..., None]
    return Scaled(delta / root, fq / wide, (fp - fq) / wide, (dp - dq) / dq, dp / dq)


def over(lower: Array, x: Array) -> Array:
    """lower^-1 X for X `[..., R, N]` by the small inverse: solves of a thousand wide X at once have hung on CPUs."""
    return product(solve(lower, identity(lower)), x)


def both_sides(lower: Array, a: Array) -> Array:
    """lower^-1 A lower'^-1 for symmetric A."""
    return over(lower, turned(over(lower, a)))


def coordinate(eta: Array, rho: Array, a: Array, b: Array) -> Array:
    """Twice the gap of one coordinate, [log|1 + b eta| - b log(rho)] / (a b) for a >= 1/2."""
    near = b * eta <= 2  # beyond, eta and what is subtracted from it would cancel
    far = log_ratio(eta, b) - jnp.log(rho)
    return jnp.where(near, excess(eta, rho) - log_excess(jnp.where(near, eta, 0), b), far) / a


def log_ratio(x: Array, b: Array) -> Array:
    """log|1 + b x| / b, which is x at b = 0."""
    y = b * x
    near = jnp.abs(y) < 0.5
    far = jnp.log(_num.magnitude(jnp.where(near, 1, 1 + y))) / jnp.where(near, 1, b)
    return jnp.where(near, x * _num.log1p_ratio(jnp.where(near, y, 0)), far)


def log_excess(x: Array, b: Array) -> Array:
    """x - log|1 + b x| / b, to a relative error also near 0."""
    return b * curved(x, b)


def curved(x: Array, b: Array) -> Array:
    """[b x - log|1 + b x|] / b^2, which is x^2 / 2 at b = 0."""
    y = b * x
    near = jnp.abs(y) < 0.5
    far = (x - log_ratio(x, b)) / jnp.where(near, 1, b)
    return jnp.where(near, x * x * _num.log1p_gap(jnp.where(near, y, 0)), far)


def mixed(s: Scaled, a: Array) -> More:
    """The mixture of covariances."""
    b = (1 - a)[..., None]
    m = 1 + b * s.eta
    f = s.g + b[..., None] * s.k
    least = 4 * jnp.finfo(m.dtype).eps * (1 + jnp.sum(f * f, -1))  # a few roundings of the diagonal
    m = jnp.where(m == 0, least, m)  # a coordinate where nothing of its own is left
    return _woodbury.more(m, f, s.k, a * (1 - a))


def difference(s: Scaled, x: Array) -> Array:
    """cov(p) - cov(q), scaled, times x `[..., D, N]`."""
    first = product(turned(s.g + s.k), x)
    return s.eta[..., None] * x + product(s.k, first) + product(s.g, product(turned(s.k), x))


def theta(s: Scaled, lower: Array, b: Array, m: Array) -> Array:
    """Theta of the head of this page."""
    cross = gram(s.g, 1 / m, s.k)
    inner = cross + turned(cross) + b[..., None, None] * gram(s.k, 1 / m, s.k) - gram(s.g, s.eta / m, s.g)
    return both_sides(lower, (inner + turned(inner)) / 2)


def _count(x: Array) -> Array:
    return jnp.sum(jnp.where(x, 1, 0), -1)


class Spectra(NamedTuple):
    """Roots and eigenvalues of the small matrices; of each kind one batch, for many at once have hung on CPUs."""

    lower: Array  # [..., R, R], of I + G'G
    to_p: Array  # [..., R, R], of I + H' H/rho
    to_both: Array  # [..., R, R], of I + F' F/m, where m > 0
    whole: Array  # [..., R], Psi's
    part: Array  # [..., R], Theta's
    v: Array  # [..., R]


def _spectra(s: Scaled, a: Array, mix: More) -> Spectra:
    h, b = s.g + s.k, 1 - a
    grams = product(turned(s.g), s.g), gram(h, 1 / s.rho, h), gram(mix.base.f, 1 / mix.base.m, mix.base.f)
    lower, to_p, to_both = regular_root(jnp.stack(grams))
    thetas = theta(s, lower, jnp.ones_like(a), s.rho), theta(s, lower, b, mix.base.m)
    return Spectra(lower, to_p, to_both, *jnp.linalg.eigvalsh(jnp.stack([*thetas, mix.v])))


def _log_det(lower: Array) -> Array:
    return 2 * jnp.sum(jnp.log(diagonal(lower)), -1)


def _log_det_ratio(s: Scaled, of: Spectra) -> tuple[Array, Array]:
    """log det(I + Psi) by eigenvalues, or by two determinants where it is False that Psi keeps its digits."""
    logs = _log_det(of.to_p), _log_det(of.lower)
    parts = [jnp.sum(jnp.square(over(of.lower, turned(x))), -2) for x in (s.g, s.k)]
    lost = jnp.sum((jnp.abs(s.eta) * parts[0] + parts[1]) / s.rho, -1)
    least = jnp.maximum(1 + of.whole[..., 0], _num.tiny(lost))  # of which eps are known
    known = jnp.maximum(lost, 1 / least - 1) < logs[0] + logs[1] + s.g.shape[-1]
    return jnp.where(known, jnp.sum(_num.log1p_by(of.whole, 1 + of.whole), -1), logs[0] - logs[1]), known


def _rest(s: Scaled, lower: Array) -> Array:
    """|L^-1 (K - eta G)|^2 of each coordinate."""
    return jnp.sum(jnp.square(over(lower, turned(s.k - s.eta[..., None] * s.g))), -2)


def _terms(s: Scaled, a: Array, mix: More, of: Spectra) -> tuple[Array, Array]:
    """2 gap without the means, and where the mixture is positive definite."""
    b = 1 - a
    crossed = a * jnp.sum(_rest(s, of.lower) / (s.rho * mix.base.m), -1)  # tr Psi - tr Theta
    log_whole, known = _log_det_ratio(s, of)
    vague = (b > 0) & (1 + b * of.part[..., 0] < 1 / 16)  # of that, eps times the sizes of what cancels are known
    dets = (_log_det(of.to_both) - _log_det(of.lower)) / jnp.where(vague, b, 1)
    log_part = jnp.where(vague, dets, jnp.sum(log_ratio(of.part, b[..., None]), -1))
    near = jnp.sum(excess(of.whole, 1 + of.whole), -1) - jnp.sum(log_excess(of.part, b[..., None]), -1) - crossed
    far = log_part - log_whole  # what is left where the traces are large and cancel
    known &= ~vague & (jnp.abs(crossed) < jnp.abs(log_part) + jnp.abs(log_whole))
    spread = jnp.where(known, near, far)
    alone = jnp.sum(coordinate(s.eta, s.rho, a[..., None], b[..., None]), -1)
    value = alone + spread / a + jnp.sum(log_ratio(of.v, mix.w[..., None]), -1)
    negative = _count(mix.base.m < 0) + _count(1 + mix.w[..., None] * of.v <= 0)
    return value, (b >= 0) | (negative == _count(1 + b[..., None] * of.part <= 0))


def _broken(s: Scaled) -> Array:
    """Whether a nan was given."""
    return jnp.isnan(squares(s.k, 2) + squares(s.eta, 1) + squares(s.x, 1))


@jax.custom_jvp
def _gap(delta: Array, fp: Array, dp: Array, fq: Array, dq: Array, a: Array) -> Array:
    """The scaled gap for a >= 1/2, `affinity.Densities.gap`."""
    s = scaled(delta, fp, dp, fq, dq)
    mix = mixed(s, a)
    value, ok = _terms(s, a, mix, _spectra(s, a, mix))
    y = inverse(mix, s.x[..., None])
    apart = jnp.sum(s.x[..., None] * y, (-2, -1))  # rounding alone makes either negative
    value = jnp.maximum(value, 0) + jnp.maximum(apart, 0)
    return jnp.where(_broken(s), jnp.nan, jnp.where(ok, value / 2, jnp.inf))


def _inverses(s: Scaled, mix: More, a: Array) -> tuple[Array, Array]:
    """The inverse of the mixture times G and K: it is large, and to those it may do what 1/(1 + x) does to large x.

    So G goes in closed form, and K where it is small against H = G + K; else it is the difference of the other two.
    """
    a, b = a[..., None, None], (1 - a)[..., None, None]
    k, g = s.k / mix.base.m[..., None], s.g / mix.base.m[..., None]
    first = turned(by_one_more(a * product(turned(s.g), g), turned(g)))  # by diag(m) + a G G' alone
    rest = k - a * product(first, product(turned(g), s.k))
    cross = product(turned(s.k), first)
    own = product(turned(s.g), first)
    square = own + cross + turned(cross) + product(turned(s.k), rest)  # H' by that H
    to_h = first + rest
    to_h = turned(by_one_more(b * square, turned(to_h)))
    to_g = first - b * product(to_h, own + cross)
    size, others = (jnp.sum(x * x, -2, keepdims=True) for x in (k, jnp.concatenate([to_h, to_g], -2)))
    return to_g, jnp.where(size <= others, inverse(mix, s.k), to_h - to_g)


def _side(s: Scaled, mix: More, inner: tuple, f: Array, weight: Array, p: bool) -> tuple[Array, Array]:
    """M^-1 X C^-1 F and the diagonal of M^-1 X C^-1 for the mixture M, X = cov(p) - cov(q), C = F F' + diag(1/weight).

    X = diag(eta) + K H' + G K', H = G + K, term by term, with `inner` M^-1 G and M^-1 K. F is H for p and G for q.
    """
    to_g, to_k = inner
    fw, kw = f * weight[..., None], s.k * weight[..., None]
    flat = turned(by_one_more(product(turned(f), fw), turned(fw)))  # C^-1 F, not by a difference
    own = inverse(mix, s.eta[..., None] * flat)
    over_f = own + product(to_k, product(turned(s.g + s.k), flat)) + product(to_g, product(turned(s.k), flat))
    by_k = kw - product(flat, product(turned(f), kw))
    by_h = flat if p else flat + by_k
    alone = diagonal_of_inverse(mix) * s.eta * weight - jnp.sum(own * fw, -1)
    return over_f, alone + jnp.sum(to_k * by_h + to_g * by_k, -1)


def _slopes(delta, fp, dp, fq, dq, a):
    """The derivatives of the gap."""
    s = scaled(delta, fp, dp, fq, dq)
    mix = mixed(s, a)
    h = s.g + s.k
    y = inverse(mix, s.x[..., None])
    inner = _inverses(s, mix, a)
    over_fp, over_dp = _side(s, mix, inner, h, 1 / s.rho, True)
    over_fq, over_dq = _side(s, mix, inner, s.g, jnp.ones_like(s.rho), False)
    a, b = a[..., None], (1 - a)[..., None]
    root, flat = jnp.sqrt(dq), y[..., 0]
    over_fp -= b[..., None] * product(y, product(turned(y), h))
    over_fq += a[..., None] * product(y, product(turned(y), s.g))
    over_dp -= b * flat * flat
    over_dq += a * flat * flat
    wide = root[..., None]
    return flat / root, over_fp / wide, over_dp / dq / 2, -over_fq / wide, -over_dq / dq / 2


def _gap_rule(primals, tangents):
    value = _gap(*primals)
    finite = jnp.isfinite(value)
    delta, fp, dp, fq, dq, a = primals
    a = jnp.where(finite, a, 1)  # where the gap is infinite its derivative is 0
    moved = [not isinstance(t, jax.custom_derivatives.SymbolicZero) for t in tangents]
    slopes = _slopes(delta, fp, dp, fq, dq, a) if any(moved[:-1]) else primals[:-1]
    # an order that nobody moves costs nothing
    slopes = [*slopes, _over_order(delta, fp, dp, fq, dq, a) if moved[-1] else a]
    some = [(slope, tangent) for slope, tangent, m in zip(slopes, tangents, moved, strict=True) if m]
    return value, along(finite, *zip(*some, strict=True))


_gap.defjvp(_gap_rule, symbolic_zeros=True)


def _over_order(delta, fp, dp, fq, dq, a):
    """The derivative of the gap in a."""
    s = scaled(delta, fp, dp, fq, dq)
    mix, base = mixed(s, a), mixed(s, jnp.ones_like(a))
    of = _spectra(s, a, mix)
    value, _ = _terms(s, a, mix, of)
    y = inverse(mix, s.x[..., None])
    moved = jnp.sum(y * difference(s, y), (-2, -1))
    return ((_second(s, mix, base) - _curve(s, a, mix, base, of) - value) / a + moved) / 2


def _curve(s: Scaled, a: Array, mix: More, base: More, of: Spectra) -> Array:
    """[b tr E - log det(I + b E)] / b^2 for E = cov(q)^-1 X: by `_terms` (value at a = 1 - a times value) / b.

    Not divided by b here: what `base`, the mixture at a = 1, has in common with `mix` is subtracted on paper.
    """
    b, m = (1 - a)[..., None], mix.base.m
    alone = jnp.sum(curved(s.eta, b) - _rest(s, of.lower) / m, -1) + jnp.sum(curved(of.part, b), -1)
    across = difference(s, mix.z) - a[..., None, None] * product(s.k, mix.v)
    common = jnp.sum(of.v + a[..., None] ** 2 * curved(of.v, mix.w[..., None]), -1)
    return alone + common + jnp.sum(inverse(base, s.k) * across, (-2, -1))


def _second(s: Scaled, mix: More, base: More) -> Array:
    """tr(mixture^-1 X cov(q)^-1 X), X = cov(p) - cov(q), `base` the mixture that is cov(q)."""
    to_q = inverse(mix, difference(s, turned(by_one_more(product(turned(s.g), s.g), turned(s.g)))))
    own = diagonal_of_inverse(mix) * s.eta
    own += jnp.sum(inverse(mix, s.k) * (s.g + s.k), -1) + jnp.sum(inverse(mix, s.g) * s.k, -1)
    own -= jnp.sum(to_q * s.g, -1)
    first = inverse(mix, difference(s, inverse(base, s.k))) * (s.g + s.k)
    return jnp.sum(own * s.eta, -1) + jnp.sum(first + to_q * s.k, (-2, -1))


def swapped(delta: Array, p: tuple, q: tuple, a: Array) -> tuple:
    """Arguments of `_gap` with a >= 1/2: gap(p, q, a) = gap(q, p, 1 - a)."""
    swap = a < 0.5

    def choose(x, y):
        return jnp.where(swap.reshape(swap.shape + (1,) * (x.ndim - swap.ndim)), x, y)

    pairs = [(choose(y, x), choose(x, y)) for x, y in zip(p, q, strict=True)]
    (fp, fq), (dp, dq) = pairs
    return delta, fp, dp, fq, dq, choose(1 - a, a)


def gap(delta: Array, p: tuple, q: tuple, a: Array) -> Array:
    """The scaled gap of two Gaussians given as (cov_factor, cov_diag), factors of one width."""
    return _gap(*swapped(delta, p, q, a))


def log_det(f: Array, d: Array, unit: float) -> Array:
    """log det of unit (diag(d) + F F'), by logarithms of products of what would cancel."""
    c = jnp.square(diagonal(regular_root(gram(f, 1 / d, f))))
    short = min(d.shape[-1], c.shape[-1])
    first = jnp.log(unit * d[..., :short] * c[..., :short])
    return jnp.sum(first, -1) + jnp.sum(jnp.log(unit * d[..., short:]), -1) + jnp.sum(jnp.log(c[..., short:]), -1)


def size(delta: Array, p: tuple, q: tuple) -> Array:
    """tr(cov(q)^-1 (cov(p) + delta delta'))."""
    s = scaled(delta, *p, *q)
    mix = mixed(s, jnp.ones_like(delta[..., 0]))
    h = jnp.concatenate([s.g + s.k, s.x[..., None]], -1)
    own = jnp.sum(diagonal_of_inverse(mix) * s.rho, -1)
    return own + jnp.sum(inverse(mix, h) * h, (-2, -1))


def _below(s: Scaled):
    """eta, the small matrix of cov(q) - cov(p) by the indefinite lemma, and where that is positive definite."""
    apart = (s.eta == 0) & jnp.all((s.g == 0) & (s.k == 0), -1)  # coordinates in common, independent of the others
    eta = jnp.where(apart, -1, jnp.where(s.eta == 0, 1, s.eta))
    f = jnp.concatenate([s.g, s.k], -1)
    one = identity(gram(s.g, eta, s.g))
    core = jnp.concatenate([jnp.concatenate([one, -one], -1), jnp.concatenate([-one, jnp.zeros_like(one)], -1)], -2)
    small = core - gram(f, 1 / eta, f)
    values = jnp.linalg.eigvalsh(small)
    rank = s.g.shape[-1]
    ok = (_count(eta > 0) + _count(values > 0) == rank) & jnp.all(values != 0, -1)
    ok &= jnp.all(jnp.where(apart, s.x == 0, s.eta != 0), -1)
    small = jnp.where(ok[..., None, None], small, identity(small))
    return eta, f, small, ok


def _solved(s: Scaled):
    """(cov(q) - cov(p))^-1 delta, scaled, and where the matrix is positive definite."""
    eta, f, small, ok = _below(s)
    y = -s.x / eta
    inner = product(small_inverse(small), product(turned(f), y[..., None]))
    return jnp.where(ok[..., None], y + product(f, inner)[..., 0] / eta, 0), ok


@jax.custom_jvp
def largest(delta: Array, fp: Array, dp: Array, fq: Array, dq: Array) -> Array:
    """sup log(p/q): finite where cov(p) < cov(q), +inf elsewhere."""
    s = scaled(delta, fp, dp, fq, dq)
    y, ok = _solved(s)
    one = jnp.ones_like(delta[..., 0])
    change = jnp.sum(_num.log1p_by(s.eta, s.rho), -1) + _log_det_ratio(s, _spectra(s, one, mixed(s, one)))[0]
    value = (jnp.sum(s.x * y, -1) - change) / 2
    same = jnp.all(s.eta == 0, -1) & jnp.all(s.k == 0, (-2, -1)) & jnp.all(s.x == 0, -1)
    value = jnp.where(same, 0, jnp.where(ok, value, jnp.inf))
    return jnp.where(_broken(s), jnp.nan, value)


@largest.defjvp
def _(primals, tangents):
    delta, fp, dp, fq, dq = primals
    y, ok = _solved(scaled(*primals))
    v = y / jnp.sqrt(dq)
    slopes = [v]
    for sign, f, d in ((1, fp, dp), (-1, fq, dq)):
        w = f / d[..., None]
        inner = turned(by_one_more(gram(f, 1 / d, f), turned(w)))  # cov^-1 F
        own = 1 / d - jnp.sum(inner * w, -1)
        over_f = product(v[..., None], product(v[..., None, :], f)) - inner
        slopes += [sign * over_f, sign * (v * v - own) / 2]
    return largest(*primals), along(ok, slopes, tangents)


def precision(f: Array, d: Array, x: Array) -> Array:
    """(diag(d) + F F')^-1 x."""
    return _woodbury.solved(_woodbury.whole(d, f), x)[0]
