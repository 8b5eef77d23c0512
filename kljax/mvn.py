"""The column of Gaussians over vectors, given by a mean and the Cholesky factor of the covariance.

Cells compare two `MVN` of one event size. `scale_tril` is lower triangular with a positive diagonal; only its lower
triangle is read, and the gradient above it is 0. A factor that is not (nan from a covariance that is not positive
definite, say) spoils its own batch element alone.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _bounds, _bures, _check, _dense, _num, affinity

__all__ = [
    "MVN", "alpha", "bhattacharyya", "chi2", "cross_entropy", "entropy", "from_covariance", "from_normal",
    "from_precision", "geometric_js", "hellinger", "hellinger_sq", "jeffreys", "js_lower", "js_upper", "kl",
    "log_prob", "renyi", "reverse_kl", "sample", "tsallis", "tv_lower", "tv_shared", "tv_upper", "wasserstein2",
]  # fmt: skip

LOG_TAU = math.log(2 * math.pi)


class MVN(NamedTuple):
    """Gaussians over vectors: mean `loc` and lower Cholesky factor `scale_tril` of the covariance."""

    loc: Any  # [..., D]
    scale_tril: Any  # [..., D, D]


def _checked(cell: str, *given: Any) -> tuple[MVN, ...]:
    """Each distribution in one dtype and of one batch, its factor cut to the lower triangle."""
    cell = f"kljax.mvn.{cell}"
    for name, d in zip("pq", given, strict=False):
        _check.instance(cell, name, d, MVN, "MVN, from_covariance, from_precision or from_normal")
    leaves = _check.wide(*(x for d in given for x in d))
    sizes = [
        _check.dense(cell, n, leaves[2 * i], leaves[2 * i + 1]) for i, n in zip(range(len(given)), "pq", strict=False)
    ]
    if len(given) > 1:
        _check.one_event(cell, "p", sizes[0], "q", sizes[1])
    names = ("p.loc", "p.scale_tril", "q.loc", "q.scale_tril")
    fields = list(zip(names, leaves, (1, 2, 1, 2), strict=False))
    whole = _check.together(cell, fields)
    return tuple(MVN(whole[i], _lower(whole[i + 1])) for i in range(0, len(whole), 2))


def _lower(a: Array) -> Array:
    """The lower triangle, and nan if the diagonal is not positive: two negative ones would pass for a pair."""
    d = _dense.diagonal(a)
    ok = jnp.all((d >= _num.tiny(d)) & jnp.isfinite(d), -1)
    return jnp.where(ok[..., None, None], jnp.tril(a), jnp.nan)


def _entropy(p: MVN) -> Array:
    return jnp.sum(jnp.log(_dense.diagonal(p.scale_tril)) + (LOG_TAU + 1) / 2, -1)


def _cross_entropy(p: MVN, q: MVN) -> Array:
    joint = jnp.concatenate([p.scale_tril, (p.loc - q.loc)[..., None]], -1)
    size = _dense.squares(_dense.solve(q.scale_tril, joint), 2)
    return jnp.sum(jnp.log(_dense.diagonal(q.scale_tril)) + LOG_TAU / 2, -1) + size / 2


def _kl(p: MVN, q: MVN) -> Array:
    return _dense.kl(p.loc - q.loc, p.scale_tril, q.scale_tril)


def _gap(p: MVN, q: MVN, a: Array) -> Array:
    return _dense.gap(p.loc - q.loc, p.scale_tril, q.scale_tril, a)


def _largest(p: MVN, q: MVN) -> Array:
    return _dense.largest(p.loc - q.loc, p.scale_tril, q.scale_tril)


COLUMN = affinity.Densities(
    "mvn", _checked, _entropy, _dense.with_slopes_of_kl(_cross_entropy, _kl), _kl, _gap, _largest
)


def _wasserstein2(column: affinity.Densities, p: MVN, q: MVN) -> Array:
    """Wasserstein distance of order 2: sqrt(|loc difference|^2 + Bures distance of the covariances), in [0, inf].

    The Bures distance is tr(cov(p) + cov(q) - 2 (cov(q)^(1/2) cov(p) cov(q)^(1/2))^(1/2)). At p = q the gradient, which
    does not exist, is 0. Equal eigenvalues are harmless in every derivative.
    @shapes
    @errors
    Source: Bhatia, Jain and Lim, On the Bures-Wasserstein distance between positive definite matrices (2019).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.wasserstein2(p, q):.4f}")
    @value
    """
    p, q = column.checked("wasserstein2", p, q)
    delta, factors = p.loc - q.loc, (p.scale_tril, q.scale_tril)
    size = jnp.max(jnp.abs(jnp.stack(factors)), (0, -2, -1))
    inner = _num.unit(size)  # products of four numbers of 1e-10 or of 1e10 leave the range
    unit = _num.unit(jnp.maximum(size, jnp.max(jnp.abs(delta), -1)))
    spread = _bures.bures(*(x / inner[..., None, None] for x in factors))
    return unit * _num.sqrt(_dense.squares(delta / unit[..., None], 1) + spread * (inner / unit) ** 2)


_SHAPES = """
    Shapes: p, q `MVN([..., D], [..., D, D]) -> [...]`, in nats. Batches must be equal, or one side's the tail of the
    other's.
"""
_ONE = """
    Shapes: p `MVN([..., D], [..., D, D]) -> [...]`, in nats.
"""
_ERRORS = """
    Degenerate input: a nan or a factor without a positive diagonal spoils its own batch element alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for what is no MVN or complex.
"""
_PAIR = """(
    ...     kljax.mvn.MVN([0.0, 0.0], [[1.0, 0.0], [0.5, 1.0]]),
    ...     kljax.mvn.MVN([1.0, 0.0], [[1.0, 0.0], [0.5, 2.0]]),
    ... )"""
_TEXT = {
    "@shapes": _SHAPES, "@one": _ONE, "@errors": _ERRORS, "@pair": _PAIR,
    "entropy": "2.8379", "cross_entropy": "3.6873", "kl": "0.8494", "reverse_kl": "1.4319", "jeffreys": "2.2812",
    "hellinger_sq": "0.2205", "hellinger": "0.4695", "bhattacharyya": "0.2491", "renyi": "0.4981", "alpha": "0.8819",
    "tsallis": "0.4410", "chi2": "3.2591", "geometric_js": "0.3212", "tv_lower": "0.2205", "tv_upper": "0.6264",
    "js_lower": "0.1528", "js_upper": "0.2205", "wasserstein2": "1.3869",
}  # fmt: skip
_cell = functools.partial(affinity.bind, COLUMN, text=_TEXT)

entropy = _cell(affinity.entropy)
cross_entropy = _cell(affinity.cross_entropy)
kl = _cell(affinity.kl)
reverse_kl = _cell(affinity.reverse_kl)
jeffreys = _cell(affinity.jeffreys)
hellinger_sq = _cell(affinity.hellinger_sq)
hellinger = _cell(affinity.hellinger)
bhattacharyya = _cell(affinity.bhattacharyya)
renyi = _cell(affinity.renyi)
tsallis = _cell(affinity.tsallis)
alpha = _cell(affinity.alpha)
chi2 = _cell(affinity.chi2)
geometric_js = _cell(affinity.geometric_js)
tv_lower = _cell(_bounds.tv_lower)
tv_upper = _cell(_bounds.tv_upper)
js_lower = _cell(_bounds.js_lower)
js_upper = _cell(_bounds.js_upper)
wasserstein2 = _cell(_wasserstein2)


@jax.jit
def from_covariance(loc: ArrayLike, covariance: ArrayLike) -> MVN:
    """The Gaussian of a mean and a covariance, of which the mean with its transpose is taken.

    Shapes: loc `[..., D]`, covariance `[..., D, D] -> MVN([..., D], [..., D, D])`, of one batch.
    A covariance that is not positive definite gives a factor of nan, for its batch element alone. Two covariances that
    agree to n digits have factors that agree to about n: distances of near equal ones keep more in `scale_tril`.
    Errors: AssertionError at trace time where shapes do not match, TypeError for complex numbers.

    >>> import kljax
    >>> print(kljax.mvn.from_covariance([0.0, 1.0], [[4.0, 2.0], [2.0, 10.0]]).scale_tril)
    [[2. 0.]
     [1. 3.]]
    """
    cell = "kljax.mvn.from_covariance"
    loc, matrix = _check.wide(loc, covariance)
    _check.dense(cell, "", loc, matrix, "covariance")
    loc, matrix = _check.together(cell, [("loc", loc, 1), ("covariance", matrix, 2)])
    return MVN(loc, jnp.linalg.cholesky(matrix))


@jax.jit
def from_precision(loc: ArrayLike, precision: ArrayLike) -> MVN:
    """The Gaussian of a mean and a precision, the inverse of the covariance, which is not formed.

    Shapes: loc `[..., D]`, precision `[..., D, D] -> MVN([..., D], [..., D, D])`, of one batch.
    A precision that is not positive definite gives a factor of nan, for its batch element alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for complex numbers.

    >>> import kljax
    >>> print(kljax.mvn.from_precision([0.0, 1.0], [[0.5, -0.5], [-0.5, 1.0]]).scale_tril)
    [[2. 0.]
     [1. 1.]]
    """
    cell = "kljax.mvn.from_precision"
    loc, matrix = _check.wide(loc, precision)
    _check.dense(cell, "", loc, matrix, "precision")
    loc, matrix = _check.together(cell, [("loc", loc, 1), ("precision", matrix, 2)])
    upper = jnp.flip(jnp.linalg.cholesky(jnp.flip(matrix, (-2, -1))), (-2, -1))  # precision = upper upper'
    return MVN(loc, lax.linalg.triangular_solve(upper, _dense.identity(upper), left_side=True, transpose_a=True))


def from_normal(p: Any) -> MVN:
    """The Gaussian of independent coordinates, `kljax.normal.Normal` or anything with `loc` and `scale`.

    Shapes: p.loc `[..., D]`, p.scale `[..., D]` or what broadcasts to it `-> MVN([..., D], [..., D, D])`.
    Errors: AssertionError at trace time for a loc without an event axis, TypeError for complex numbers.

    >>> import collections, kljax
    >>> p = collections.namedtuple("Normal", "loc scale")([0.0, 1.0], [1.0, 2.0])
    >>> print(kljax.mvn.from_normal(p).scale_tril)
    [[1. 0.]
     [0. 2.]]
    """
    loc, scale = _check.wide(p.loc, p.scale)
    scale = jnp.broadcast_to(scale, loc.shape)
    tril = _dense.identity(jnp.broadcast_to(scale[..., None, :], (*scale.shape, scale.shape[-1]))) * scale[..., None]
    _check.dense("kljax.mvn.from_normal", "p", loc, tril)
    return MVN(loc, tril)


@jax.jit
def tv_shared(loc_p: ArrayLike, loc_q: ArrayLike, scale_tril: ArrayLike) -> Array:
    """Total variation of two Gaussians with one covariance, erf(|Lq^-1 (loc_p - loc_q)| / sqrt 8), in [0, 1].

    Shapes: loc_p, loc_q `[..., D]`, scale_tril `[..., D, D] -> [...]`, batches equal or one the tail of the other.
    Degenerate input: at loc_p = loc_q the gradient, which does not exist, is 0; a factor without a positive diagonal
    spoils its own batch element alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for complex numbers.

    >>> import kljax
    >>> print(f"{kljax.mvn.tv_shared([0.0, 1.0], [0.0, 0.0], [[1.0, 0.0], [0.5, 1.0]]):.4f}")
    0.3829
    """
    cell = "kljax.mvn.tv_shared"
    loc_p, loc_q, lower = _check.wide(loc_p, loc_q, scale_tril)
    size = _check.dense(cell, "", loc_p, lower)
    _check.one_event(cell, "loc_p", size, "loc_q", loc_q.shape[-1] if loc_q.ndim else 0)
    fields = [("loc_p", loc_p, 1), ("loc_q", loc_q, 1), ("scale_tril", lower, 2)]
    loc_p, loc_q, lower = _check.together(cell, fields)
    return lax.erf(_num.norm(_dense.solve_vector(_lower(lower), loc_p - loc_q)) / math.sqrt(8))


@jax.jit
def log_prob(p: MVN, x: ArrayLike) -> Array:
    """The logarithm of the density of p at x, in [-inf, inf].

    Shapes: p `MVN([..., D], [..., D, D])`, x `[..., D] -> [...]`, batches equal or one the tail of the other.
    Degenerate input: a nan or a factor without a positive diagonal spoils its own batch element alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for what is no MVN or complex.

    >>> import kljax
    >>> p = kljax.mvn.MVN([0.0, 0.0], [[1.0, 0.0], [0.5, 1.0]])
    >>> print(f"{kljax.mvn.log_prob(p, [1.0, 0.5]):.4f}")
    -2.3379
    """
    cell = "kljax.mvn.log_prob"
    _check.instance(cell, "p", p, MVN, "MVN, from_covariance, from_precision or from_normal")
    loc, lower, x = _check.wide(*p, x)
    size = _check.dense(cell, "p", loc, lower)
    _check.one_event(cell, "p", size, "x", x.shape[-1] if x.ndim else 0)
    loc, lower, x = _check.together(cell, [("p.loc", loc, 1), ("p.scale_tril", lower, 2), ("x", x, 1)])
    z = _dense.solve_vector(_lower(lower), x - loc)
    return -jnp.sum(z * z / 2 + jnp.log(_dense.diagonal(lower)) + LOG_TAU / 2, -1)


@functools.partial(jax.jit, static_argnames="shape")
def sample(key: Array, p: MVN, shape: tuple[int, ...] = ()) -> Array:
    """Draws from p, differentiable in its parameters: loc + scale_tril e, e standard normal.

    Shapes: p `MVN([..., D], [..., D, D]) -> shape + [..., D]`.
    Errors: AssertionError at trace time where shapes do not match, TypeError for what is no MVN or complex.

    >>> import jax, kljax
    >>> p = kljax.mvn.MVN([0.0, 0.0], [[1.0, 0.0], [0.5, 1.0]])
    >>> print(kljax.mvn.sample(jax.random.key(0), p, (5,)).shape)
    (5, 2)
    """
    (p,) = _checked("sample", p)
    noise = jax.random.normal(key, (*shape, *p.loc.shape), p.loc.dtype)
    lower = jnp.broadcast_to(p.scale_tril, (*shape, *p.scale_tril.shape))
    moved = _dense.product(lower, noise[..., None])[..., 0]
    return jnp.broadcast_to(p.loc, moved.shape) + moved
