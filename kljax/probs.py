"""Discrete distributions as non-negative weights `[..., K]`, each standing for itself over its sum.

Probabilities, counts and histograms are all weights. Because a weight is divided by the sum, gradients differ from the
textbook partial derivatives by a constant along the mass: 1 - p/q in place of -p/q.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _cells, _check, _distances, _entropy, _num, _power, _weights, rows
from kljax._pair import centred
from kljax._points import Column, finish, is_zero, mirror, points, slope

__all__ = [
    "alpha",
    "bhattacharyya",
    "chi2",
    "contributions",
    "cross_entropy",
    "entropy",
    "f_divergence",
    "fisher_rao",
    "generalized_kl",
    "geometric_js",
    "hellinger",
    "hellinger_sq",
    "hockey_stick",
    "jeffreys",
    "js",
    "js_distance",
    "js_many",
    "kl",
    "le_cam",
    "mutual_information",
    "renyi",
    "renyi_entropy",
    "reverse_kl",
    "scaled_js",
    "tsallis",
    "tsallis_entropy",
    "tv",
    "wasserstein1",
]

COLUMN = Column(
    "probs",
    0.0,
    _weights.sums,
    _weights.pair,
    _weights.surprisal,
    _weights.peaks,
    _weights.pull,
    support=_weights.support,
)

entropy = _cells.bind(COLUMN, _entropy.entropy)
cross_entropy = _cells.bind(COLUMN, _entropy.cross_entropy)
kl = _cells.bind(COLUMN, _cells.kl)
reverse_kl = _cells.bind(COLUMN, _cells.reverse_kl)
jeffreys = _cells.bind(COLUMN, _cells.jeffreys)
js = _cells.bind(COLUMN, _cells.js)
js_distance = _cells.bind(COLUMN, _cells.js_distance)
scaled_js = _cells.bind(COLUMN, _cells.scaled_js)
tv = _cells.bind(COLUMN, _distances.tv)
hellinger_sq = _cells.bind(COLUMN, _cells.hellinger_sq)
hellinger = _cells.bind(COLUMN, _cells.hellinger)
bhattacharyya = _cells.bind(COLUMN, _power.bhattacharyya)
renyi = _cells.bind(COLUMN, _power.renyi)
tsallis = _cells.bind(COLUMN, _cells.tsallis)
alpha = _cells.bind(COLUMN, _cells.alpha)
chi2 = _cells.bind(COLUMN, _cells.chi2)
le_cam = _cells.bind(COLUMN, _cells.le_cam)
hockey_stick = _cells.bind(COLUMN, _cells.hockey_stick)
geometric_js = _cells.bind(COLUMN, _power.geometric_js)
f_divergence = _cells.bind(COLUMN, _cells.f_divergence)
contributions = _cells.bind(COLUMN, _cells.contributions)
fisher_rao = _cells.bind(COLUMN, _distances.fisher_rao)
wasserstein1 = _cells.bind(COLUMN, _distances.wasserstein1)
js_many = _cells.bind(COLUMN, _distances.js_many)
renyi_entropy = _cells.bind(COLUMN, _entropy.renyi_entropy)
tsallis_entropy = _cells.bind(COLUMN, _entropy.tsallis_entropy)


def _independent(joint: Array):
    """The joint table and the product of its marginals as a pair; joint `[..., A, B]`, the pair `[..., A B]`."""
    p = _weights.masses(joint)
    total = jnp.sum(p, (-2, -1), keepdims=True)
    p = p / jnp.where(total > 0, _num.power_of_two(total), 1)
    total = jnp.sum(p, (-2, -1), keepdims=True)
    row, col = jnp.sum(p, -1, keepdims=True), jnp.sum(p, -2, keepdims=True)
    # p_ij / N - r_i c_j / N^2: each product in two parts, because nearly independent tables cancel
    ours, ours_rest = _num.two_product(p, jnp.broadcast_to(total, p.shape))
    both, both_rest = _num.two_product(jnp.broadcast_to(row, p.shape), jnp.broadcast_to(col, p.shape))
    delta = _num.divide((ours - both) + (ours_rest - both_rest), total * total)
    shares = (_num.divide(p, total), _num.divide(both, total * total), delta)
    share, product, delta = (x.reshape(*x.shape[:-2], -1) for x in shares)
    return _weights.from_difference(share, product, delta, total[..., 0])


@jax.custom_jvp
def _information(joint: Array) -> Array:
    pair = _independent(joint)
    return jnp.where(pair.mass > 0, _num.total(points(rows.kl, pair)), jnp.nan)[..., 0]


@_information.defjvp
def _(primals, tangents):
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(joint, djoint):
        pair = _independent(joint)
        flat = joint.reshape(*joint.shape[:-2], -1)
        return jnp.sum(
            finish(COLUMN, flat, pair, *centred(pair.p, slope(rows.kl, pair))) * djoint.reshape(flat.shape), -1
        )

    return _information(*primals), tangent(*primals, *tangents)


def _mutual_information(column: Column, joint: ArrayLike, *, axes: tuple[int, int] = (-2, -1)) -> Array:
    """Mutual information of a joint table, sum of p(x, y) log(p(x, y) / (p(x) p(y))), in [0, inf].

    Shapes: joint `[..., A, B] -> [...]`, in nats; `axes` are the two axes of the table. The table holds non-negative
    weights (probabilities or counts), standing for themselves over their sum.
    Zero mass: 0 log 0 = 0.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> print(f"{kljax.probs.mutual_information(jnp.array([[0.4, 0.1], [0.1, 0.4]])):.4f}")
    0.1927
    """
    table = _check.wide(joint)[0]
    _check.axes("kljax.probs.mutual_information", table, *axes)
    return _information(jnp.moveaxis(table, axes, (-2, -1)))


@jax.custom_jvp
def _generalized(p: Array, q: Array) -> Array:
    return jnp.sum(points(rows.kl, _unscaled(p, q)), -1)


def _unscaled(p: Array, q: Array):
    p, q = _weights.masses(p), _weights.masses(q)
    return _weights.from_difference(p, q, p - q, jnp.ones((*p.shape[:-1], 1), p.dtype), measures=True)


def _generalized_jvp(primals, tangents):
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(p, q, *given):
        steps = iter(given)
        pair = _unscaled(p, q)
        sides = ((rows.kl, pair), (mirror(rows.kl), pair.swap()))
        result = jnp.zeros(p.shape[:-1], p.dtype)
        for step, (row, side) in zip(tangents, sides, strict=True):
            if not is_zero(step):
                result += jnp.sum(jnp.where(side.log_hi == -jnp.inf, 0, slope(row, side).plain) * next(steps), -1)
        return result

    return _generalized(*primals), tangent(*primals, *(t for t in tangents if not is_zero(t)))


_generalized.defjvp(_generalized_jvp, symbolic_zeros=True)


def _generalized_kl(
    column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Generalised Kullback-Leibler (I-) divergence of measures, sum of p log(p/q) - p + q, in [0, inf].

    Nothing is normalised: p and q are non-negative measures of any total, which need not agree. The gradients are
    log(p/q) and 1 - p/q.
    Shapes: p, q `[..., K] -> [...]`, in nats; `axis` and `where` as in every cell.
    Zero mass: +inf where p has mass and q has none; a measure of total 0 is a measure, and the value the other's total.
    Errors: AssertionError at trace time where shapes do not match, TypeError for complex numbers.
    Source: Csiszar, Why least squares and maximum entropy? (1991).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = jnp.array([1.0, 2.0]), jnp.array([2.0, 2.0])
    >>> print(f"{kljax.probs.generalized_kl(p, q):.4f}")
    0.3069
    """
    return _generalized(*_cells.pair_of(column, "generalized_kl", p, q, axis, where))


mutual_information = _cells.bind(COLUMN, _mutual_information)
generalized_kl = _cells.bind(COLUMN, _generalized_kl)
