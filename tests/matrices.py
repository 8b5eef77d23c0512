"""True values and gradients of Gaussians over vectors, by mpmath, from textbook formulas of their covariances.

A quantity is a number with its slopes in the difference of the means and in both covariances, `Jet`; a row is a
function of a few quantities. The columns turn slopes in a covariance into slopes in their own parameters.
"""

import functools
from typing import NamedTuple

import mpmath as mp

DIGITS = 90


class Jet(NamedTuple):
    """A value with its slopes in delta, cov(p), cov(q); of matrices the symmetric ones."""

    value: mp.mpf
    slopes: tuple

    def through(self, value, slope):
        """A function of it, by its value and derivative."""
        return Jet(value, tuple(slope * s for s in self.slopes))

    def plus(self, other, factor=1):
        """self + factor other."""
        pairs = zip(self.slopes, other.slopes, strict=True)
        return Jet(self.value + factor * other.value, tuple(a + factor * b for a, b in pairs))


INFINITE = Jet(mp.inf, None)


def trace(a):
    """The sum of the diagonal."""
    return mp.fsum(a[i, i] for i in range(a.rows))


def log_det(a):
    """Of a positive definite matrix, None of another."""
    try:
        lower = mp.cholesky(a)
    except ValueError:
        return None
    return 2 * mp.fsum(mp.log(lower[i, i]) for i in range(a.rows))


class Pair:
    """Two Gaussians by delta = loc(p) - loc(q) and their covariances."""

    def __init__(self, delta, p, q):
        self.delta, self.p, self.q, self.zero = delta, p, q, 0 * p
        self.log_p, self.log_q = log_det(p), log_det(q)
        self.inverse_p, self.inverse_q = p**-1, q**-1
        self.gap = functools.cache(self._gap)

    @functools.cached_property
    def flipped(self):
        """q and p; its slopes are to be turned back."""
        return Pair(-self.delta, self.q, self.p)

    def turned(self, jet):
        """A quantity of `flipped` as one of self."""
        return jet if jet.slopes is None else Jet(jet.value, (-jet.slopes[0], jet.slopes[2], jet.slopes[1]))

    def entropy(self):
        """Of p."""
        value = (self.log_p + self.p.rows * mp.log(2 * mp.pi * mp.e)) / 2
        return Jet(value, (0 * self.delta, self.inverse_p / 2, self.zero))

    @functools.cached_property
    def kl(self):
        """KL(p || q)."""
        v = self.inverse_q * self.delta
        inner = trace(self.inverse_q * self.p) - self.p.rows + (self.delta.T * v)[0]
        over_q = (self.inverse_q - self.inverse_q * self.p * self.inverse_q - v * v.T) / 2
        return Jet((inner + self.log_q - self.log_p) / 2, (v, (self.inverse_q - self.inverse_p) / 2, over_q))

    def _gap(self, a):
        """-log(integral of p^a q^(1-a)) / (a (1 - a))."""
        if a == 1:
            return self.kl
        if a == 0:
            return self.turned(self.flipped.kl)
        mixed, b = a * self.q + (1 - a) * self.p, 1 - a
        size = log_det(mixed)
        if size is None:
            return INFINITE
        inverse = mixed**-1
        v = inverse * self.delta
        value = (self.delta.T * v)[0] / 2 + (size - a * self.log_q - b * self.log_p) / (2 * a * b)
        over_p = (inverse - self.inverse_p) / (2 * a) - b / 2 * v * v.T
        return Jet(value, (v, over_p, (inverse - self.inverse_q) / (2 * b) - a / 2 * v * v.T))

    def largest(self):
        """sup log(p/q)."""
        rest = self.q - self.p
        if log_det(rest) is None:
            return INFINITE
        v = rest**-1 * self.delta
        value = (self.log_q - self.log_p + (self.delta.T * v)[0]) / 2
        return Jet(value, (v, (v * v.T - self.inverse_p) / 2, (self.inverse_q - v * v.T) / 2))

    def transport(self):
        """The squared Wasserstein distance of order 2."""
        lower = mp.cholesky(self.q)
        values, vectors = mp.eigsy(lower.T * self.p * lower)
        root = vectors * mp.diag([mp.sqrt(v) for v in values]) * vectors.T
        inverse, one = lower**-1, mp.eye(self.p.rows)
        there = inverse.T * root * inverse
        value = (self.delta.T * self.delta)[0] + trace(self.p) + trace(self.q) - 2 * trace(root)
        return Jet(value, (2 * self.delta, one - there**-1, one - there))


def _power(pair, a):
    """The alpha divergence."""
    gap, c = pair.gap(a), a * (1 - a)
    if c == 0:
        return gap
    if gap.slopes is None:
        return INFINITE
    return gap.through(-mp.expm1(-c * gap.value) / c, mp.exp(-c * gap.value))


def _times(jet, factor):
    return jet if jet.slopes is None else jet.through(factor * jet.value, factor)


def _root(jet):
    """None for slopes at 0."""
    value = mp.sqrt(jet.value)
    return jet.through(value, 1 / (2 * value)) if value else Jet(value, None)


def row(cell, pair, order=None, weight=None):
    """A row of the table as a `Jet`."""
    half = mp.mpf(1) / 2
    if order is not None or weight is not None:
        a = mp.mpf(float(order if weight is None else weight))
    if cell == "renyi":
        return pair.largest() if a == mp.inf else Jet(mp.mpf(0), None) if a == 0 else _times(pair.gap(a), a)
    if cell == "tsallis":
        return Jet(mp.mpf(0), None) if a == 0 else _times(_power(pair, a), a)
    if cell == "geometric_js":
        both = pair.kl.plus(pair.turned(pair.flipped.kl))
        return _times(both.plus(pair.gap(a), -1), a * (1 - a))
    return {
        "entropy": pair.entropy,
        "cross_entropy": lambda: pair.kl.plus(pair.entropy()),
        "kl": lambda: pair.kl,
        "reverse_kl": lambda: pair.turned(pair.flipped.kl),
        "jeffreys": lambda: pair.kl.plus(pair.turned(pair.flipped.kl)),
        "hellinger_sq": lambda: _times(_power(pair, half), half / 2),
        "hellinger": lambda: _root(_times(_power(pair, half), half / 2)),
        "bhattacharyya": lambda: _times(pair.gap(half), half / 2),
        "alpha": lambda: _power(pair, a),
        "chi2": lambda: _times(_power(pair, mp.mpf(2)), 2),
        "wasserstein2": lambda: _root(pair.transport()),
    }[cell]()
