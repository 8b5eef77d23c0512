"""True values and gradients of Normals with independent coordinates, by mpmath, from textbook formulas.

A row is a sum over coordinates and a function of the sum. Gradients are central differences with a step of 1e-40 at
130 digits: what is left of their error is far below a last digit. Only js has slopes of its own, under an integral.
"""

import functools

import mpmath as mp
import numpy as np

DIGITS = 130
STEP = mp.mpf(10) ** -40
HALF = mp.mpf(1) / 2


def _kl(m, s, n, t):
    return mp.log(t / s) + (s * s + (m - n) ** 2) / (2 * t * t) - HALF


def _jeffreys(m, s, n, t):
    return _kl(m, s, n, t) + _kl(n, t, m, s)


def _log_power(m, s, n, t, a):
    """The logarithm of the integral of p^a q^(1-a), inf where it diverges."""
    v = a * t * t + (1 - a) * s * s
    if v <= 0:
        return mp.inf
    return (1 - a) * mp.log(s) + a * mp.log(t) - mp.log(v) / 2 - a * (1 - a) * (m - n) ** 2 / (2 * v)


def _largest(m, s, n, t):
    if s < t:
        return mp.log(t / s) + (m - n) ** 2 / (2 * (t * t - s * s))
    return mp.mpf(0) if s == t and m == n else mp.inf


def _renyi(m, s, n, t, order):
    if order == mp.inf:
        return _largest(m, s, n, t)
    if order in (0, 1):
        return _kl(m, s, n, t) if order else mp.mpf(0)
    return _log_power(m, s, n, t, order) / (order - 1)


def _geometric_js(m, s, n, t, weight):
    return weight * (1 - weight) * _jeffreys(m, s, n, t) + _log_power(m, s, n, t, weight)


def _entropy(m, s, *_):
    return mp.log(s) + mp.log(2 * mp.pi * mp.e) / 2


def _fisher_rao_sq(m, s, n, t):
    return 2 * mp.acosh(1 + ((m - n) ** 2 / 2 + (s - t) ** 2) / (2 * s * t)) ** 2


def _tv(m, s, n, t):
    """A difference of two distribution functions at the crossings of the densities."""
    if s > t:
        m, s, n, t = n, t, m, s
    d = m - n
    if s == t:
        return mp.erf(abs(d) / (2 * mp.sqrt(2) * s))
    # log p - log q = 0 in x = y - n: a x^2 + b x + c = 0
    a, b = (1 / t**2 - 1 / s**2) / 2, d / s**2
    c = mp.log(t / s) - d * d / (2 * s * s)
    half = -(b + (1 if b >= 0 else -1) * mp.sqrt(b * b - 4 * a * c)) / 2
    low, high = sorted((half / a, c / half))

    def within(m, s):
        return (mp.erf((high - m) / s / mp.sqrt(2)) - mp.erf((low - m) / s / mp.sqrt(2))) / 2

    return within(d, s) - within(mp.mpf(0), t)


def _cross_entropy(m, s, n, t):
    return _kl(m, s, n, t) + _entropy(m, s)


def _power(order, scale=1):
    """(integral - 1) / (order (order - 1)) of the sum of logarithms, and times `scale`."""
    return functools.partial(_log_power, a=order), lambda x: scale * mp.expm1(x) / (order * (order - 1))


def _identity(x):
    return x


def row(cell, order=None, weight=None):
    """A row as what each coordinate adds and a function of the sum."""
    a = mp.mpf(float(order if weight is None else weight)) if (order, weight) != (None, None) else None
    if cell in ("alpha", "tsallis"):
        if a in (0, 1):
            same = functools.partial(_kl) if a == 1 else lambda m, s, n, t: _kl(n, t, m, s)
            return same, _identity if cell == "alpha" or a == 1 else lambda x: 0 * x
        return _power(a, 1 if cell == "alpha" else a)
    return {
        "kl": (_kl, _identity),
        "reverse_kl": (lambda m, s, n, t: _kl(n, t, m, s), _identity),
        "jeffreys": (_jeffreys, _identity),
        "entropy": (_entropy, _identity),
        "cross_entropy": (_cross_entropy, _identity),
        "renyi": (functools.partial(_renyi, order=a), _identity),
        "bhattacharyya": (lambda *x: -_log_power(*x, HALF), _identity),
        "geometric_js": (functools.partial(_geometric_js, weight=a), _identity),
        "hellinger_sq": (functools.partial(_log_power, a=HALF), lambda x: -mp.expm1(x)),
        "hellinger": (functools.partial(_log_power, a=HALF), lambda x: mp.sqrt(-mp.expm1(x))),
        "chi2": (functools.partial(_log_power, a=mp.mpf(2)), mp.expm1),
        "wasserstein2": (lambda m, s, n, t: (m - n) ** 2 + (s - t) ** 2, mp.sqrt),
        "fisher_rao": (_fisher_rao_sq, mp.sqrt),
        "tv": (_tv, _identity),
    }[cell]


def value(cell, p, q, **options):
    """The value for p = (locs, scales), q likewise."""
    if cell in ("js", "js_distance"):
        return _js(cell, _key(p), _key(q), **options)[0]
    with mp.workdps(DIGITS):
        each, outer = row(cell, **options)
        return outer(mp.fsum(each(*x) for x in zip(*p, *q, strict=True)))


def gradients(cell, p, q, **options):
    """Two lists, locs then scales; None where the value is infinite."""
    if cell in ("js", "js_distance"):
        return _js(cell, _key(p), _key(q), **options)[1:]
    with mp.workdps(DIGITS):
        each, outer = row(cell, **options)
        points = list(zip(*p, *q, strict=True))
        parts = [each(*x) for x in points]
        total = mp.fsum(parts)
        if options.get("order") == 0 and cell != "alpha":
            return [mp.mpf(0)] * (2 * len(points)), [mp.mpf(0)] * (2 * len(points))
        if mp.isinf(total) or (total == 0 and outer is mp.sqrt):
            return None, None
        slope = (outer(total + STEP * abs(total)) - outer(total - STEP * abs(total))) / (2 * STEP * abs(total) or 1)
        slopes = [[slope * _difference(each, x, i) for x in points] for i in range(4)]
        return slopes[0] + slopes[1], slopes[2] + slopes[3]


def _difference(each, x, i):
    step = STEP * x[1 if i < 2 else 3]
    up, down = ([v + sign * step * (j == i) for j, v in enumerate(x)] for sign in (1, -1))
    return (each(*up) - each(*down)) / (2 * step)


def _key(p):
    return tuple(v for part in p for v in part)


# Gauss-Legendre between the points loc + k scale of both Normals: the integrand is smooth on each interval
ENDS = (0, 0.5, 1, 1.5, 2, 2.75, 3.5, 4.5, 6, 8, 11)


@functools.cache
def _nodes(count):
    """Gauss-Legendre nodes and weights, from those of NumPy by Newton's method."""
    rule = []
    for x in np.polynomial.legendre.leggauss(count)[0]:
        x = mp.mpf(x)
        for _ in range(3):
            here = mp.legendre(count, x)
            slope = count * (x * here - mp.legendre(count - 1, x)) / (x * x - 1)
            x -= here / slope
        rule.append((x, 2 / ((1 - x * x) * slope * slope)))
    return rule


def _ends(p, q):
    """Where the intervals of the quadrature end: no two closer than a fifth of the smaller scale."""
    at = sorted({c + k * u for c, u in (p, q) for e in ENDS for k in (mp.mpf(e), -mp.mpf(e))})
    kept = at[:1]
    for x in at[1:]:
        if x - kept[-1] > min(p[1], q[1]) / 5:
            kept.append(x)
    return kept


def _js(cell, p, q, weight=0.5):
    """js of one coordinate with its slopes, (value, (loc, scale) of p, of q); the root of it for js_distance."""
    with mp.workdps(40):
        value, over_p, over_q = _both(p, q, weight) if p < q else _both(q, p, 1 - weight)
        slopes = [over_p, over_q] if p < q else [over_q, over_p]
        if cell == "js_distance":
            value = mp.sqrt(value)
            slopes = [[v / (2 * value) for v in side] for side in slopes]
        return value, *slopes


@functools.cache
def _both(p, q, weight):
    at, w, sums = _ends(p, q), mp.mpf(float(weight)), [mp.mpf(0)] * 5
    for low, high in zip(at, at[1:], strict=False):
        for x, size in _nodes(30):
            terms, size = _terms(x, low, high, p, q, w), size * (high - low) / 2
            sums = [a + size * b for a, b in zip(sums, terms, strict=True)]
    return sums[0], sums[1:3], sums[3:]


def _terms(x, low, high, p, q, w):
    (m, s), (n, t) = p, q
    x = (low + high) / 2 + (high - low) / 2 * x
    y, v = (x - m) / s, (x - n) / t
    root = mp.sqrt(2 * mp.pi)
    dp, dq = mp.exp(-y * y / 2) / (s * root), mp.exp(-v * v / 2) / (t * root)
    mixed = w * dp + (1 - w) * dq
    if not dp or not dq:
        return [mp.mpf(0)] * 5
    lp, lq = w * mp.log(dp / mixed), (1 - w) * mp.log(dq / mixed)
    whole = dp * lp + dq * lq
    return whole, dp * lp * y / s, dp * lp * (y * y - 1) / s, dq * lq * v / t, dq * lq * (v * v - 1) / t
