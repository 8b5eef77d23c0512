"""Normal distributions with independent coordinates, by standard deviations or by their logarithms.

Every cell takes two `Normal` or two `LogScaleNormal`. Coordinates are summed over `axis`, the event axis of loc, or
kept apart by axis=(), as in free bits. Two almost equal Normals are compared in the parameters given: a `Normal` by
the difference of the scales, a `LogScaleNormal` by the difference of their logarithms.
"""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _bounds, _check, _normal, _normal_exact, _num, _two, affinity
from kljax._normal import LogScaleNormal, Normal

__all__ = [
    "LogScaleNormal", "Normal", "alpha", "bhattacharyya", "chi2", "cross_entropy", "entropy", "fisher_rao",
    "geometric_js", "hellinger", "hellinger_sq", "jeffreys", "js", "js_distance", "js_lower", "js_upper", "kl",
    "log_prob", "renyi", "reverse_kl", "sample", "tsallis", "tv", "tv_lower", "tv_upper", "wasserstein2",
]  # fmt: skip

Pair = Normal | LogScaleNormal
_HINT = "LogScaleNormal(loc, jnp.log(scale)) is the Normal(loc, scale)"


def _checked(cell: str, *given: Any, axis: int | tuple[int, ...] = -1) -> tuple[Any, ...]:
    """The distributions with fields `[..., D]` of one dtype and shape; nan where a scale is no scale."""
    cell = f"kljax.normal.{cell}"
    for name, d in zip("pq", given, strict=False):
        if not isinstance(d, Pair):
            _check.instance(cell, name, d, Normal, "Normal(loc, scale) or LogScaleNormal(loc, log_scale)")
    if len(given) == 2:
        _check.same_type(cell, *given, _HINT)
    leaves = _check.wide(*(x for d in given for x in d))
    fields = [(name, leaves[2 * i], leaves[2 * i + 1]) for i, name in zip(range(len(given)), "pq", strict=False)]
    whole = _check.coordinates(cell, fields, axis)
    kind = type(given[0])
    return tuple(kind(whole[i], _valid(kind, whole[i + 1])) for i in range(0, len(whole), 2))


def _valid(kind: type, scale: Array) -> Array:
    """nan for what is no standard deviation: two negative ones would pass for a pair."""
    ok = jnp.isfinite(scale) & (scale >= _num.tiny(scale) if kind is Normal else True)
    return jnp.where(ok, scale, jnp.nan)


def _summed(function):
    return lambda *args: jnp.sum(function(*args), -1)


def _gap(p: Pair, q: Pair, a: Array) -> Array:
    return jnp.sum(_normal.gap(p, q, jnp.broadcast_to(a[..., None], p.loc.shape)), -1)


def _log_power(p: Pair, q: Pair, a: Array) -> _two.Two:
    high, low = _normal.log_power(p, q, jnp.broadcast_to(a[..., None], p.loc.shape))
    return jnp.sum(high, -1), jnp.sum(low, -1)


COLUMN = affinity.Densities(
    "normal", _checked, _summed(_normal.entropy), _summed(_normal.cross_entropy), _summed(_normal.kl), _gap,
    _summed(_normal.largest), _log_power, _normal.in_units,
)  # fmt: skip


def _wasserstein2(column: affinity.Densities, p: Pair, q: Pair, **shape) -> Array:
    """Wasserstein distance of order 2, sqrt(|loc difference|^2 + |scale difference|^2), in [0, inf]: a metric.

    At p = q the gradient, which does not exist, is 0.
    @shapes
    @errors
    Source: Givens and Shortt, A class of Wasserstein metrics for probability distributions (1984).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.wasserstein2(p, q):.4f}")
    @value
    """
    p, q = column.checked("wasserstein2", p, q, **shape)
    return _num.norm(jnp.concatenate([p.loc - q.loc, _normal.scale_difference(p, q)], -1))


def _fisher_rao(column: affinity.Densities, p: Pair, q: Pair, **shape) -> Array:
    """Fisher-Rao distance, in [0, inf]: a metric.

    The length of the geodesic in dloc^2 / scale^2 + 2 dscale^2 / scale^2. For one coordinate it is
    2 sqrt(2) asinh(sqrt((d^2 / 2 + e^2) / (4 scale_p scale_q))), d and e the differences of loc and of scale; for more
    the root of the sum of the squares. At p = q the gradient, which does not exist, is 0.
    @shapes
    @errors
    Source: Atkinson and Mitchell, Rao's distance measure (1981).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.fisher_rao(p, q):.4f}")
    @value
    """
    p, q = column.checked("fisher_rao", p, q, **shape)
    return _num.norm(_normal.fisher_rao(p, q))


def _tv(column: affinity.Densities, p: Pair, q: Pair, **shape) -> Array:
    """Total variation, half the integral of |p - q|, in [0, 1]: a metric. Of one coordinate only.

    With more coordinates there is no closed form: `tv_lower` and `tv_upper` bound it, axis=() gives one value a
    coordinate. At p = q the gradient, which does not exist, is 0.
    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.tv(p, q):.4f}")
    @value
    """
    p, q = column.checked("tv", p, q, **shape)
    _check.one_coordinate("kljax.normal.tv", p.loc.shape[-1], "tv_lower and tv_upper")
    return _normal_exact.tv(p, q)[..., 0]


def _js_of(column: affinity.Densities, cell: str, p: Pair, q: Pair, weight: ArrayLike, shape: dict) -> Array:
    p, q = column.checked(cell, p, q, **shape)
    cell = f"kljax.normal.{cell}"
    _check.one_coordinate(cell, p.loc.shape[-1], "js_lower and js_upper")
    weight = _check.parameter_for(cell, "weight", weight, jax.eval_shape(column.kl, p, q))
    return _normal_exact.js(p, q, weight[..., None])[..., 0]


def _js(column: affinity.Densities, p: Pair, q: Pair, *, weight: ArrayLike = 0.5, **shape) -> Array:
    """Jensen-Shannon divergence, w kl(p, m) + (1 - w) kl(q, m), m = w p + (1 - w) q, in [0, H(w)]. One coordinate only.

    `weight` is w, the weight of p, in [0, 1], nan elsewhere; H(w) = -w log w - (1 - w) log(1 - w). It may be traced.
    Gauss-Legendre quadrature to rounding error. With more coordinates there is no closed form: `js_lower` and
    `js_upper` bound js at weight 1/2, axis=() gives one value a coordinate.
    @shapes
    @errors
    Source: Lin, Divergence measures based on the Shannon entropy (1991).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.js(p, q):.4f}")
    @value
    """
    return _js_of(column, "js", p, q, weight, shape)


def _js_distance(column: affinity.Densities, p: Pair, q: Pair, **shape) -> Array:
    """Jensen-Shannon distance, the square root of js at weight 1/2, in [0, sqrt(log 2)]: a metric. One coordinate only.

    At p = q the gradient, which does not exist, is 0.
    @shapes
    @errors
    Source: Endres and Schindelin, A new metric for probability distributions (2003).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.js_distance(p, q):.4f}")
    @value
    """
    return _num.sqrt(_js_of(column, "js_distance", p, q, 0.5, shape))


_SHAPES = """
    Shapes: p, q `Normal([..., D], [..., D]) -> [...]`, in nats, or two `LogScaleNormal`; a scale may be one number for
    all coordinates, a Normal of two numbers stands for every coordinate. The event axis is `axis`, axis=() gives one
    value a coordinate, `[..., D]`. Shapes must be equal, or one the tail of the other.
"""
_ONE = """
    Shapes: p `Normal([..., D], [..., D]) -> [...]`, in nats, or a `LogScaleNormal`; a scale may be one number for all
    coordinates. The event axis is `axis`, axis=() gives one value a coordinate, `[..., D]`.
"""
_ERRORS = """
    Degenerate input: a scale that is not a positive normal number, or a nan, makes its own row nan alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for what is neither type or complex.
"""
_TEXT = {
    "@shapes": _SHAPES, "@one": _ONE, "@errors": _ERRORS,
    "@pair": "kljax.normal.Normal([0.0], [1.0]), kljax.normal.Normal([1.0], [2.0])",
    "entropy": "1.4189", "cross_entropy": "1.8621", "kl": "0.4431", "reverse_kl": "1.3069", "jeffreys": "1.7500",
    "hellinger_sq": "0.1492", "hellinger": "0.3863", "bhattacharyya": "0.1616", "renyi": "0.3231", "alpha": "0.5968",
    "tsallis": "0.2984", "chi2": "0.7440", "geometric_js": "0.2759", "tv_lower": "0.1492", "tv_upper": "0.4707",
    "js_lower": "0.1034", "js_upper": "0.1492", "wasserstein2": "1.4142", "fisher_rao": "1.1894", "tv": "0.3901",
    "js": "0.1282", "js_distance": "0.3580",
}  # fmt: skip
_AXIS = inspect.Parameter("axis", inspect.Parameter.KEYWORD_ONLY, default=-1, annotation=int | tuple[int, ...])
_cell = functools.partial(affinity.bind, COLUMN, text=_TEXT, extra=(_AXIS,))

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
fisher_rao = _cell(_fisher_rao)
tv = _cell(_tv)
js = _cell(_js)
js_distance = _cell(_js_distance)


@functools.partial(jax.jit, static_argnames="axis")
def log_prob(p: Pair, x: ArrayLike, *, axis: int | tuple[int, ...] = -1) -> Array:
    """The logarithm of the density of p at x, in [-inf, inf].

    Shapes: p `Normal([..., D], [..., D])` or a `LogScaleNormal`, x `[..., D] -> [...]`; shapes equal, or one the tail
    of the other. The event axis is `axis`, axis=() gives one value a coordinate.
    Degenerate input: a scale that is not a positive normal number, or a nan, makes its own row nan alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for what is neither type or complex.

    >>> import kljax
    >>> print(f"{kljax.normal.log_prob(kljax.normal.Normal(0.0, 1.0), [1.0, 2.0]):.4f}")
    -4.3379
    """
    cell = "kljax.normal.log_prob"
    if not isinstance(p, Pair):
        _check.instance(cell, "p", p, Normal, "Normal(loc, scale) or LogScaleNormal(loc, log_scale)")
    loc, scale, x = _check.wide(*p, x)
    loc, scale, x, _ = _check.coordinates(cell, [("p", loc, scale), ("x", x, jnp.ones((), x.dtype))], axis)
    p = type(p)(loc, _valid(type(p), scale))
    z = (x - p.loc) / _normal.scale(p)
    return -jnp.sum(0.5 * z * z + (_normal.HALF_LOG_TAU + _normal.log_scale(p)), -1)


@functools.partial(jax.jit, static_argnames="shape")
def sample(key: Array, p: Pair, shape: tuple[int, ...] = ()) -> Array:
    """Draws from p, differentiable in its parameters: loc + scale e, e standard normal.

    Shapes: p `Normal([..., D], [..., D]) -> shape + [..., D]`, or a `LogScaleNormal`; two numbers `-> shape`.
    Degenerate input: a scale that is not a positive normal number gives nan for its own coordinate.
    Errors: AssertionError at trace time where shapes do not match, TypeError for what is neither type.

    >>> import jax, kljax
    >>> print(kljax.normal.sample(jax.random.key(0), kljax.normal.Normal([0.0, 1.0], 2.0), (5,)).shape)
    (5, 2)
    """
    (p,) = _checked("sample", p, axis=())
    loc, scale = p.loc[..., 0], _normal.scale(p)[..., 0]
    shape = (*shape, *loc.shape)
    noise = jax.random.normal(key, shape, loc.dtype)
    return jnp.broadcast_to(loc, shape) + jnp.broadcast_to(scale, shape) * noise
