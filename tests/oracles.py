"""True values and gradients of every cell, by mpmath, from the stored inputs taken as exact numbers.

Nothing here is stable and nothing needs to be: textbook formulas with at least 60 digits, more where the masses of a
case span more. A cell is its value and its two slopes h = dD/dp, dD/dq on normalised masses; a column turns slopes into
the gradient of its own inputs. Two outcomes of one input are never told apart, so ties take part evenly.
"""

from typing import NamedTuple

import mpmath as mp
import numpy as np

INF = mp.inf


class Pair(NamedTuple):
    """Normalised masses of the outcomes that exist, their number in the input, and the sums that were divided out."""

    p: list
    q: list
    kept: list  # indices of the outcomes that exist
    size: int
    sums: tuple
    digits: int


def _masses(column, x, flush):
    if column == "logits":
        top = max(x)
        return [mp.exp(mp.mpf(float(v)) - mp.mpf(float(top))) if v > -np.inf else mp.mpf(0) for v in x]
    return [mp.mpf(float(v)) if v >= flush else mp.mpf(0) for v in x]


def _precision(column, *inputs):
    spans = []
    for x in inputs:
        finite = [float(v) for v in x if np.isfinite(float(v)) and (column == "logits" or v > 0)]
        spans.append((max(finite) - min(finite)) if column == "logits" else np.log(max(finite) / min(finite)))
    return 60 + int(min(max(spans) / 2.3, 400))


def pair(column, p, q, *, dtype=np.float64, missing=0, digits=0) -> Pair:
    """Two inputs of a column; `missing` is the mass to put where only one side has none (finfo.tiny for gradients).

    Subnormal weights of `dtype` are zeros, as the compiler has it. Inputs may be mpf (for finite differences).
    """
    digits = digits or _precision(column, p, q)
    with mp.workdps(digits):
        flush = float(np.finfo(dtype).tiny)
        a, b = _exact_masses(column, p, flush), _exact_masses(column, q, flush)
        kept = [i for i in range(len(a)) if a[i] > 0 or b[i] > 0]
        sums = mp.fsum(a), mp.fsum(b)
        a, b = ([x[i] / s for i in kept] for x, s in zip((a, b), sums, strict=True))
        if missing:
            a, b = ([mp.mpf(missing) if v == 0 else v for v in x] for x in (a, b))
        return Pair(a, b, kept, len(p), sums, digits)


def _exact_masses(column, x, flush):
    if isinstance(x[0], mp.mpf):
        return [mp.exp(v) for v in x] if column == "logits" else list(x)
    return _masses(column, x, flush)


def _log(u):
    return mp.log(u) if u > 0 else -INF


def _xlogx(u):
    return u * mp.log(u) if u > 0 else mp.mpf(0)


# f-divergences: f(u), f'(u), f(0), lim f(u)/u, with f(1) = f'(1) = 0
def _kl():
    return lambda u: _xlogx(u) - u + 1, mp.log, 1, INF


def _reverse_kl():
    return lambda u: u - 1 - mp.log(u), lambda u: 1 - 1 / u, INF, 1


def _jeffreys():
    return lambda u: (u - 1) * mp.log(u), lambda u: mp.log(u) + 1 - 1 / u, INF, INF


def _js(weight=0.5):
    w = mp.mpf(float(weight))

    def f(u):
        return w * _xlogx(u) - _xlogx(w * u + (1 - w))

    return f, lambda u: w * mp.log(u / (w * u + (1 - w))), -_xlogx(1 - w), -_xlogx(w)


def _scaled_js(weight):
    w = mp.mpf(float(weight))
    if w in (0, 1):
        return _reverse_kl() if w else _kl()
    f, df, zero, far = _js(weight)
    c = w * (1 - w)
    return lambda u: f(u) / c, lambda u: df(u) / c, zero / c, far / c


def _tv():
    half = mp.mpf(1) / 2
    return lambda u: abs(u - 1) / 2, lambda u: mp.sign(u - 1) / 2, half, half


def _hellinger_sq():
    half = mp.mpf(1) / 2
    return lambda u: (mp.sqrt(u) - 1) ** 2 / 2, lambda u: (1 - 1 / mp.sqrt(u)) / 2, half, half


def _chi2():
    return lambda u: (u - 1) ** 2, lambda u: 2 * (u - 1), 1, INF


def _le_cam():
    return lambda u: (u - 1) ** 2 / (u + 1), lambda u: 1 - 4 / (u + 1) ** 2, 1, 1


def _hockey_stick(gamma):
    g = mp.mpf(float(gamma))
    return lambda u: max(u - g, mp.mpf(0)), lambda u: mp.mpf(u > g), 0, 1


def _alpha(order):
    a = mp.mpf(float(order))
    if a in (0, 1):
        return _kl() if a else _reverse_kl()

    def f(u):
        return (u**a - 1 - a * (u - 1)) / (a * (a - 1))

    return f, lambda u: (u ** (a - 1) - 1) / (a - 1), 1 / a if a > 0 else INF, 1 / (1 - a) if a < 1 else INF


def _tsallis(order):
    a = mp.mpf(float(order))
    if a == 0:
        return lambda u: mp.mpf(0), lambda u: mp.mpf(0), 1, 0
    f, df, zero, far = _alpha(order)
    return lambda u: a * f(u), lambda u: a * df(u), a * zero, a * far


ROWS = {
    "kl": _kl,
    "reverse_kl": _reverse_kl,
    "jeffreys": _jeffreys,
    "js": _js,
    "scaled_js": _scaled_js,
    "tv": _tv,
    "hellinger_sq": _hellinger_sq,
    "chi2": _chi2,
    "le_cam": _le_cam,
    "hockey_stick": _hockey_stick,
    "alpha": _alpha,
    "tsallis": _tsallis,
}


def contributions(cell, x: Pair, **options):
    """What each outcome adds to an f-divergence."""
    f, _, zero, far = ROWS[cell](**options)
    with mp.workdps(x.digits):
        return [_add(f, zero, far, p, q) for p, q in zip(x.p, x.q, strict=True)]


def _add(f, zero, far, p, q):
    if p == 0:
        return q * zero if zero else mp.mpf(0)
    return q * f(p / q) if q > 0 else (p * far if far else mp.mpf(0))


def _row(cell, x, **options):
    """Value, and slopes f'(u), f(u) - u f'(u)."""
    value = mp.fsum(contributions(cell, x, **options))
    if any(v == 0 for v in x.p + x.q):
        return value, None, None
    f, df, _, _ = ROWS[cell](**options)
    u = [p / q for p, q in zip(x.p, x.q, strict=True)]
    slopes = [df(v) for v in u]
    return value, slopes, [f(v) - v * s for v, s in zip(u, slopes, strict=True)]


def _root(cell):
    def rooted(x, **options):
        value, hp, hq = _row(cell, x, **options)
        root = mp.sqrt(value)
        return root, *([v / (2 * root) for v in h] if h and root else None for h in (hp, hq))

    return rooted


def _power_sum(x, a):
    """Sum of p^a q^(1-a), its terms over p and over q; inf where a > 1 and q has no mass."""
    if a > 1 and any(q == 0 for q in x.q):
        return INF, None, None
    terms = [p**a * q ** (1 - a) if p > 0 and q > 0 else mp.mpf(0) for p, q in zip(x.p, x.q, strict=True)]
    if any(v == 0 for v in x.p + x.q):
        return mp.fsum(terms), None, None
    over = ([t / v for t, v in zip(terms, y, strict=True)] for y in (x.p, x.q))
    return mp.fsum(terms), *over


def _renyi(x, order):
    a = mp.mpf(float(order))
    full = all(v > 0 for v in x.p + x.q)
    if a == 1:
        return _row("kl", x)
    if a == 0:
        s = 1 - mp.fsum(q for p, q in zip(x.p, x.q, strict=True) if p == 0)
        return -_log(s), *(([mp.mpf(0)] * len(x.p), [-1 / s] * len(x.p)) if full else (None, None))
    if a == INF:
        u = [p / q if q > 0 else INF for p, q in zip(x.p, x.q, strict=True)]
        top = max(u)
        at = [mp.mpf(v == top or abs(v / top - 1) < mp.mpf(10) ** -30) for v in u]  # a tie, but for the digits here
        at = [v / sum(at) for v in at]
        over = (
            [s * t / v if v > 0 else mp.mpf(0) for t, v in zip(at, y, strict=True)] for s, y in ((1, x.p), (-1, x.q))
        )
        return mp.log(top), *(over if full else (None, None))
    s, over_p, over_q = _power_sum(x, a)
    value = mp.log(s) / (a - 1) if s > 0 else INF
    slopes = ([c * v / s for v in over] if over else None for c, over in ((a / (a - 1), over_p), (mp.mpf(-1), over_q)))
    return value, *slopes


def _bhattacharyya(x):
    s, over_p, over_q = _power_sum(x, mp.mpf(1) / 2)
    return -_log(s), *([-v / (2 * s) for v in over] if over else None for over in (over_p, over_q))


def _fisher_rao(x):
    s, over_p, over_q = _power_sum(x, mp.mpf(1) / 2)
    # of two equal distributions s is 1 to its own rounding, whose root would be a distance
    sine = mp.sqrt((1 - s) * (1 + s)) if 1 - s > 64 * mp.eps else mp.mpf(0)
    return 2 * mp.atan2(sine, s), *([-v / sine for v in over] if over and sine else None for over in (over_p, over_q))


def _geometric_js(x, weight=0.5):
    w = mp.mpf(float(weight))
    c = w * (1 - w)
    jeffreys, jp, jq = _row("jeffreys", x)
    z, over_p, over_q = _power_sum(x, w)
    value = c * jeffreys + mp.log(z) if jeffreys < INF else INF
    if not jp:
        return value, None, None
    hp = [c * j + w * v / z for j, v in zip(jp, over_p, strict=True)]
    return value, hp, [c * j + (1 - w) * v / z for j, v in zip(jq, over_q, strict=True)]


def _cross_entropy(x):
    if any(q == 0 < p for p, q in zip(x.p, x.q, strict=True)):
        return INF, None, None
    value = -mp.fsum(p * _log(q) for p, q in zip(x.p, x.q, strict=True) if p > 0)
    hp = [-_log(q) for q in x.q] if all(x.q) else None
    return value, hp, [-p / q for p, q in zip(x.p, x.q, strict=True)] if all(x.q) else None


def _entropy(x):
    return -mp.fsum(_xlogx(p) for p in x.p), [-_log(p) for p in x.p] if all(x.p) else None, None


def _renyi_entropy(x, order):
    a, mass = mp.mpf(float(order)), [p for p in x.p if p > 0]
    if a == 1:
        return _entropy(x)
    if a == 0:
        return mp.log(len(mass)), [mp.mpf(0)] * len(x.p), None
    if a == INF:
        top = max(mass)
        return -mp.log(top), [-mp.mpf(p == top) / top / mass.count(top) for p in x.p], None
    s = mp.fsum(p**a for p in mass)
    slopes = [a * p ** (a - 1) / (s * (1 - a)) for p in x.p] if all(x.p) else None
    return mp.log(s) / (1 - a), slopes, None


def _tsallis_entropy(x, order):
    a, mass = mp.mpf(float(order)), [p for p in x.p if p > 0]
    if a == 1:
        return _entropy(x)
    slopes = [-a * p ** (a - 1) / (a - 1) for p in x.p] if all(x.p) else None
    return (1 - mp.fsum(p**a for p in mass)) / (a - 1), slopes, None


def _wasserstein1(x, positions=None):
    """On the outcomes that exist, each at its own position."""
    place = [mp.mpf(float(v)) for v in (positions if positions is not None else range(x.size))]
    gaps = [place[j] - place[i] for i, j in zip(x.kept, x.kept[1:], strict=False)] + [mp.mpf(0)]
    ahead, total, signs = mp.mpf(0), mp.mpf(0), []
    for p, q, gap in zip(x.p, x.q, gaps, strict=True):
        ahead += p - q
        total += abs(ahead) * gap
        signs.append(mp.sign(ahead) * gap)
    slopes = [mp.fsum(signs[i:]) for i in range(len(signs))]
    return total, slopes, [-v for v in slopes]


CELLS = {name: (lambda x, name=name, **options: _row(name, x, **options)) for name in ROWS} | {
    "js_distance": _root("js"),
    "hellinger": _root("hellinger_sq"),
    "bhattacharyya": _bhattacharyya,
    "renyi": _renyi,
    "fisher_rao": _fisher_rao,
    "geometric_js": _geometric_js,
    "cross_entropy": _cross_entropy,
    "wasserstein1": _wasserstein1,
    "entropy": _entropy,
    "renyi_entropy": _renyi_entropy,
    "tsallis_entropy": _tsallis_entropy,
}


def value(cell, x: Pair, **options):
    """The divergence itself."""
    with mp.workdps(x.digits):
        return CELLS[cell](x, **options)[0]


def gradients(column, cell, x: Pair, **options):
    """The gradients in both inputs of the column, 0 for outcomes that do not exist; None where there is none."""
    with mp.workdps(x.digits):
        _, hp, hq = CELLS[cell](x, **options)
        sides = zip((x.p, x.q), (hp, hq), x.sums, strict=True)
        return tuple(_pull(column, x, masses, h, s) if h else None for masses, h, s in sides)


def _pull(column, x, masses, h, total):
    mean = mp.fsum(p * v for p, v in zip(masses, h, strict=True))
    inner = [(v - mean) * (p if column == "logits" else 1 / total) for p, v in zip(masses, h, strict=True)]
    full = [mp.mpf(0)] * x.size
    for i, v in zip(x.kept, inner, strict=True):
        full[i] = v
    return full


def second(column, cell, p, q, vp, vq, **options):
    """Hessian-vector products, by a central difference of the gradient at 160 digits with a step of 1e-40."""
    with mp.workdps(160):
        step, sides = mp.mpf(10) ** -40, []
        for sign in (1, -1):
            moved = (
                [mp.mpf(float(a)) + sign * step * mp.mpf(float(v)) for a, v in zip(*y, strict=True)]
                for y in ((p, vp), (q, vq))
            )
            sides.append(gradients(column, cell, pair(column, *moved, digits=160), **options))
        return tuple(
            [(a - b) / (2 * step) for a, b in zip(up, down, strict=True)] if up and down else None
            for up, down in zip(*sides, strict=True)
        )
