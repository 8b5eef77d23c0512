"""Discrete distributions as unnormalised log-weights `[..., K]`; log-probabilities are logits, -inf is no mass."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _cells, _check, _distances, _entropy, _num, _power, _softmax
from kljax._points import Column

__all__ = [
    "TopK",
    "alpha",
    "bhattacharyya",
    "chi2",
    "coarsen",
    "contributions",
    "cross_entropy",
    "entropy",
    "f_divergence",
    "fisher_rao",
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
    "renyi",
    "renyi_entropy",
    "reverse_kl",
    "scaled_js",
    "top_k",
    "tsallis",
    "tsallis_entropy",
    "tv",
    "wasserstein1",
]

COLUMN = Column(
    "logits",
    float("-inf"),
    _softmax.sums,
    _softmax.pair,
    _softmax.surprisal,
    _softmax.peaks,
    _softmax.pull,
    kl=_softmax.kl,
    costly=True,
    sharp=True,
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


class TopK(NamedTuple):
    """The k likeliest outcomes of a distribution, and the logarithm of what the others weigh together."""

    logits: Array  # [..., k], log-probabilities of the full softmax, largest first
    indices: Array  # [..., k], int32
    log_tail: Array  # [...], -inf where nothing is left


def _log_tail(a: Array, indices: Array, logits: Array) -> Array:
    """log of the mass outside `indices`: log1p where the tail is most of it, a sum of its own where it is little."""
    top = jnp.sum(jnp.exp(logits), -1)
    listed = indices.reshape(-1, indices.shape[-1])
    hit = jnp.zeros((listed.shape[0], a.shape[-1]), bool).at[jnp.arange(listed.shape[0])[:, None], listed].set(True)
    rest = jnp.where(hit.reshape(a.shape), -jnp.inf, -_softmax.surprisal(a)[1])
    rest = jnp.where(a == -jnp.inf, -jnp.inf, rest)
    alone = _power.log_sum(rest)[..., 0]
    return jnp.where(top < 0.5, _num.log1p(-jnp.minimum(top, 0.5)), alone)


def _log_probs(a: Array, indices: Array) -> Array:
    size = jnp.where(a == -jnp.inf, jnp.inf, _softmax.surprisal(a)[1])
    return -jnp.take_along_axis(size, indices, -1)


def _top_k(column: Column, p: ArrayLike, k: int) -> TopK:
    """The k likeliest outcomes of a softmax: log p at them, in [-inf, 0], and the log of the mass of all others.

    Shapes: p `[..., K] -> TopK([..., k], [..., k], [...])`, 1 <= k <= K. With `coarsen` of a second distribution at
    the same indices it makes a pair over k + 1 outcomes, whose f-divergences (and renyi, fisher_rao) bound those of the
    whole from below and see the tail.
    Zero mass: -inf logits stay -inf; `log_tail` is -inf where nothing is left.
    Errors: AssertionError at trace time unless 1 <= k <= K.

    >>> import jax.numpy as jnp, kljax
    >>> top = kljax.logits.top_k(jnp.log(jnp.array([0.2, 0.5, 0.3])), 2)
    >>> print(top.indices, [f"{jnp.exp(v):.4f}" for v in top.logits], f"{jnp.exp(top.log_tail):.4f}")
    [1 2] ['0.5000', '0.3000'] 0.2000
    """
    a = _check.events("kljax.logits.top_k", ("p",), (p,), -1, None, column.empty)[0]
    _check.within("kljax.logits.top_k", "k", k, 1, a.shape[-1])
    _, indices = jax.lax.top_k(a, k)
    logits = _log_probs(a, indices)
    return TopK(logits, indices, _log_tail(a, indices, logits))


def _coarsen(column: Column, q: ArrayLike, indices: Array) -> Array:
    """Log-probabilities of the outcomes at `indices` and of all the others together: log q, in [-inf, 0].

    Shapes: q `[..., K]`, indices `[..., k]` without repetition, `-> [..., k + 1]`, the last the tail.
    Zero mass: -inf stays -inf; the tail is -inf where nothing is left.
    Errors: AssertionError at trace time where the leading axes of q and indices do not match.

    >>> import jax.numpy as jnp, kljax
    >>> q = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    >>> print([f"{jnp.exp(v):.4f}" for v in kljax.logits.coarsen(q, jnp.array([1, 0]))])
    ['0.5000', '0.2000', '0.3000']
    """
    a = _check.events("kljax.logits.coarsen", ("q",), (q,), -1, None, column.empty)[0]
    a, indices = _check.batch("kljax.logits.coarsen", "q", a, "indices", jnp.asarray(indices))
    logits = _log_probs(a, indices)
    return jnp.concatenate([logits, _log_tail(a, indices, logits)[..., None]], -1)


top_k = _cells.bind(COLUMN, _top_k)
coarsen = _cells.bind(COLUMN, _coarsen)
