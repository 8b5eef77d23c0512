"""Exponential families for the corpus: flat vectors of parameters, and the truth by mpmath from the affinity alone.

Every row but the supremum and the entropies follows from log of the integral of p^a q^(1-a), evaluated at 140 digits;
kl and reverse_kl are its slopes at a = 1 - 1e-40 and 1e-40. Gradients are central differences of the values.
"""

from typing import NamedTuple

import jax.numpy as jnp
import mpmath as mp
import numpy as np

import kljax
from tests import matrix

DIGITS = 140
NUDGE = mp.mpf(10) ** -40
STEP = mp.mpf(10) ** -30


class Truth(NamedTuple):
    """What a family is, on flat lists of parameters."""

    log_power: object  # (p, q, a) -> log of the integral of p^a q^(1-a), None where it diverges
    entropy: object
    largest: object  # the supremum of log(p/q)


def _family(normaliser, inside=lambda t: all(x > 0 for x in t)):
    """The affinity of an exponential family, in parameters that are linear in its natural ones."""

    def log_power(p, q, a):
        m = [a * u + (1 - a) * v for u, v in zip(p, q, strict=True)]
        return normaliser(m) - a * normaliser(p) - (1 - a) * normaliser(q) if inside(m) else None

    return log_power


def _sum_lgamma(t):
    return mp.fsum(mp.loggamma(x) for x in t) - mp.loggamma(mp.fsum(t))


def _gamma(t):
    return mp.loggamma(t[0]) - t[0] * mp.log(t[1])


def _gamma_entropy(t):
    return t[0] - mp.log(t[1]) + mp.loggamma(t[0]) + (1 - t[0]) * mp.digamma(t[0])


def _gamma_largest(p, q):
    c, d = p[0] - q[0], p[1] - q[1]
    if c == 0 and d >= 0:
        return p[0] * mp.log(p[1] / q[1])
    if c < 0 or d <= 0:
        return mp.inf
    return c * mp.log(c / d) - c - _gamma(p) + _gamma(q)


def _inverse_gamma_entropy(t):
    return t[0] + mp.log(t[1]) + mp.loggamma(t[0]) - (1 + t[0]) * mp.digamma(t[0])


def _dirichlet_entropy(t):
    whole = mp.fsum(t)
    return _sum_lgamma(t) + (whole - len(t)) * mp.digamma(whole) - mp.fsum((x - 1) * mp.digamma(x) for x in t)


def _dirichlet_largest(p, q):
    c = [u - v for u, v in zip(p, q, strict=True)]
    if any(x < 0 for x in c):
        return mp.inf
    peak = mp.fsum(x * mp.log(x / mp.fsum(c)) for x in c if x > 0)
    return peak - _sum_lgamma(p) + _sum_lgamma(q)


def _poisson_entropy(t):
    x, k, mass, total = t[0], 0, mp.exp(-t[0]), mp.mpf(0)
    while k <= x or mass > mp.mpf(10) ** -DIGITS:
        total -= mass * (k * mp.log(x) - x - mp.loggamma(k + 1))
        k += 1
        mass *= x / k
    return total


def _geometric(p, q, a):
    ratio = (1 - p[0]) ** a * (1 - q[0]) ** (1 - a)
    return None if ratio >= 1 else a * mp.log(p[0]) + (1 - a) * mp.log(q[0]) - mp.log(1 - ratio)


def _one_sided(function):
    """A supremum that is finite on one side only."""
    return lambda p, q: function(p[0], q[0])


def _laplace(p, q, a):
    (m, s), (n, t) = p, q
    rate = a / s + (1 - a) / t
    if rate <= 0:
        return None
    u, v = a * abs(m - n) / s, (1 - a) * abs(m - n) / t
    inner = (u * mp.exp(-v) - v * mp.exp(-u)) / (u - v) if u != v else mp.exp(-u) * (1 + u)
    return -a * mp.log(s) - (1 - a) * mp.log(t) - mp.log(rate) + mp.log(inner)


def _laplace_largest(p, q):
    (m, s), (n, t) = p, q
    return mp.inf if s > t else mp.log(t / s) + abs(m - n) / t


def _norm(t):
    return mp.sqrt(mp.fsum(x * x for x in t))


def _sphere(t):
    k = _norm(t)
    if len(t) == 2:
        return mp.log(2 * mp.pi * mp.besseli(0, k))
    return mp.log(4 * mp.pi * mp.sinh(k) / k) if k else mp.log(4 * mp.pi)


def _sphere_entropy(t):
    k = _norm(t)
    slope = mp.besseli(1, k) / mp.besseli(0, k) if len(t) == 2 else mp.coth(k) - 1 / k
    return _sphere(t) - k * slope


def _sphere_largest(p, q):
    return _norm([u - v for u, v in zip(p, q, strict=True)]) - _sphere(p) + _sphere(q)


def _factor(t):
    """The size d and the triangular factor of a flat Wishart: df, then the rows of the triangle."""
    d = int(round((np.sqrt(8 * len(t) - 7) - 1) / 2))
    rows = iter(t[1:])
    return d, mp.matrix([[next(rows) if j <= i else mp.mpf(0) for j in range(d)] for i in range(d)])


def _log_gamma_of(x, d):
    return mp.fsum(mp.loggamma(x - mp.mpf(j) / 2) for j in range(d)) + d * (d - 1) * mp.log(mp.pi) / 4


def _wishart_normaliser(df, precision, d):
    """None outside of the domain."""
    if df <= d - 1:
        return None
    try:
        factor = mp.cholesky(precision)
    except ValueError:
        return None
    return _log_gamma_of(df / 2, d) + df * d * mp.log(2) / 2 - df * mp.fsum(mp.log(factor[i, i]) for i in range(d))


def _precision(t):
    inverse = _factor(t)[1] ** -1
    return inverse.T * inverse


def _wishart(p, q, a):
    d, x, y = _factor(p)[0], _precision(p), _precision(q)
    mixed = _wishart_normaliser(a * p[0] + (1 - a) * q[0], a * x + (1 - a) * y, d)
    ends = _wishart_normaliser(p[0], x, d), _wishart_normaliser(q[0], y, d)
    return None if mixed is None else mixed - a * ends[0] - (1 - a) * ends[1]


def _wishart_entropy(t):
    (d, factor), x = _factor(t), t[0] / 2
    psi = mp.fsum(mp.digamma(x - mp.mpf(j) / 2) for j in range(d))
    size = 2 * mp.fsum(mp.log(factor[i, i]) for i in range(d))
    return (d + 1) * (size + d * mp.log(2)) / 2 + _log_gamma_of(x, d) - (t[0] - d - 1) * psi / 2 + t[0] * d / 2


def _wishart_largest(p, q):
    d, c, gap = _factor(p)[0], (p[0] - q[0]) / 2, _precision(p) - _precision(q)
    if not c > 0:
        return mp.inf
    try:
        factor = mp.cholesky(gap)
    except ValueError:
        return mp.inf
    size = 2 * mp.fsum(mp.log(factor[i, i]) for i in range(d))
    ends = (_wishart_normaliser(t[0], _precision(t), d) for t in (p, q))
    return c * (d * mp.log(2 * c) - size) - c * d - next(ends) + next(ends)


def _softplus(t):
    return mp.log1p(mp.exp(t[0]))


def _bernoulli_entropy(t):
    return _softplus(t) - t[0] / (1 + mp.exp(-t[0]))


def _bernoulli_largest(p, q):
    one = p[0] - _softplus(p) - q[0] + _softplus(q)
    return max(one, _softplus(q) - _softplus(p))


TRUTH = {
    "Bernoulli": Truth(_family(_softplus, lambda t: True), _bernoulli_entropy, _bernoulli_largest),
    "Poisson": Truth(
        lambda p, q, a: p[0] ** a * q[0] ** (1 - a) - a * p[0] - (1 - a) * q[0],
        _poisson_entropy,
        _one_sided(lambda u, v: mp.inf if u > v else v - u),
    ),
    "Geometric": Truth(
        _geometric,
        lambda t: -((1 - t[0]) * mp.log(1 - t[0]) + t[0] * mp.log(t[0])) / t[0],
        _one_sided(lambda u, v: mp.inf if u < v else mp.log(u / v)),
    ),
    "Exponential": Truth(
        _family(lambda t: -mp.log(t[0])),
        lambda t: 1 - mp.log(t[0]),
        _one_sided(lambda u, v: mp.inf if u < v else mp.log(u / v)),
    ),
    "Gamma": Truth(_family(_gamma), _gamma_entropy, _gamma_largest),
    "InverseGamma": Truth(_family(_gamma), _inverse_gamma_entropy, _gamma_largest),
    "Beta": Truth(_family(_sum_lgamma), _dirichlet_entropy, _dirichlet_largest),
    "Dirichlet": Truth(_family(_sum_lgamma), _dirichlet_entropy, _dirichlet_largest),
    "Laplace": Truth(_laplace, lambda t: 1 + mp.log(2 * t[1]), _laplace_largest),
    "Wishart": Truth(_wishart, _wishart_entropy, _wishart_largest),
    "VonMisesFisher": Truth(_family(_sphere, lambda t: True), _sphere_entropy, _sphere_largest),
}


def wrap(name: str, x):
    """The members of a family with flat parameters `[..., n]`."""
    kind = getattr(kljax.expfam, name)
    if name in ("Dirichlet", "VonMisesFisher", "Categorical"):
        return kind(x)
    if name == "Wishart":
        d = int(round((np.sqrt(8 * x.shape[-1] - 7) - 1) / 2))
        rows, columns = np.tril_indices(d)
        factor = jnp.zeros((*x.shape[:-1], d, d), x.dtype).at[..., rows, columns].set(x[..., 1:])
        return kind(x[..., 0], factor)
    return kind(*(x[..., i] for i in range(x.shape[-1])))


def exact(x) -> list:
    """The numbers of a vector, which may be mpf already."""
    return [v if isinstance(v, mp.mpf) else mp.mpf(float(v)) for v in x]


def _gap(truth, p, q, a):
    """-log of the affinity over a (1 - a), inf where it diverges."""
    a = a + NUDGE if a == 0 else a - NUDGE if a == 1 else a
    value = truth.log_power(p, q, a)
    return mp.inf if value is None else -value / (a * (1 - a))


def _alpha(truth, p, q, order):
    value = _gap(truth, p, q, order)
    a = order + NUDGE if order == 0 else order - NUDGE if order == 1 else order
    if value == mp.inf:
        return 1 / (a * (1 - a)) if 0 < a < 1 else mp.inf
    return mp.expm1(-a * (1 - a) * value) / (a * (a - 1))


def value(family: str, cell: str, p, q, order=1.0):
    """The true value of a cell."""
    truth, half = TRUTH[family], mp.mpf(1) / 2
    with mp.workdps(DIGITS):
        p, q, order = exact(p), exact(q), mp.mpf(order)
        if cell == "entropy":
            return truth.entropy(p)
        if p == q:
            return truth.entropy(p) if cell == "cross_entropy" else mp.mpf(0)
        rows = {
            "kl": lambda: _gap(truth, p, q, 1),
            "reverse_kl": lambda: _gap(truth, p, q, 0),
            "jeffreys": lambda: _gap(truth, p, q, 1) + _gap(truth, p, q, 0),
            "cross_entropy": lambda: _gap(truth, p, q, 1) + truth.entropy(p),
            "bhattacharyya": lambda: _gap(truth, p, q, half) / 4,
            "hellinger_sq": lambda: _alpha(truth, p, q, half) / 4,
            "hellinger": lambda: mp.sqrt(_alpha(truth, p, q, half) / 4),
            "chi2": lambda: 2 * _alpha(truth, p, q, mp.mpf(2)),
            "alpha": lambda: _alpha(truth, p, q, order),
            "tsallis": lambda: order * _alpha(truth, p, q, order) if order else mp.mpf(0),
            "renyi": lambda: _renyi(truth, p, q, order),
        }
        return rows[cell]()


def _renyi(truth, p, q, order):
    if order == mp.inf:
        return truth.largest(p, q)
    return order * _gap(truth, p, q, order) if order else mp.mpf(0)


def gradients(family: str, cell: str, p, q, step=STEP, **options):
    """The true gradients in p and q by central differences; None where the value is infinite."""
    with mp.workdps(DIGITS):
        p, q = exact(p), exact(q)
        if not mp.isfinite(value(family, cell, p, q, **options)):
            return None, None
        sides = []
        for side in range(1 if cell in matrix.ONE else 2):
            found = []
            for i in range(len(p)):
                ends = []
                for sign in (1, -1):
                    moved = [list(p), list(q)]
                    moved[side][i] += sign * step * (abs(moved[side][i]) or 1)
                    ends.append(value(family, cell, *moved, **options))
                found.append((ends[0] - ends[1]) / (2 * step * (abs((p, q)[side][i]) or 1)))
            sides.append(found if all(mp.isfinite(v) for v in found) else None)
        return tuple(sides) if len(sides) == 2 else (sides[0], None)
