"""The table of rows that follow from closed forms: what a column of densities gets for a few functions of its own.

A column supplies `kl` and the scaled gap of two densities,

    gap(p, q, a) = -log(integral of p^a q^(1-a)) / (a (1 - a)),   kl(q, p) at a = 0 and kl(p, q) at a = 1,

which is >= 0, smooth in a through both ends, and +inf where the integral diverges (a outside [0, 1]). It is the
logarithm of the affinity, divided by what would cancel: every row below is a product of it, so that no order is a
branch and none loses digits near 0, near 1 or near p = q. A new row is one function here.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _bind, _check, _num, _two

# D(p, q) = D(q, p), where no weight is given
SYMMETRIC = (
    "jeffreys", "hellinger_sq", "hellinger", "bhattacharyya", "geometric_js", "tv_lower", "tv_upper", "js_lower",
    "js_upper",
)  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")


class Densities(NamedTuple):
    """What a column of densities supplies; but for `checked` every function takes and returns checked arrays."""

    name: str
    checked: Callable[..., tuple[Any, ...]]  # (cell, *distributions, **shape) -> the same, of one dtype and batch
    entropy: Callable[[Any], Array]
    cross_entropy: Callable[[Any, Any], Array]
    kl: Callable[[Any, Any], Array]
    gap: Callable[[Any, Any, Array], Array]
    largest: Callable[[Any, Any], Array]  # sup log(p/q): the Renyi divergence of order inf
    log_power: Callable[[Any, Any, Array], _two.Two] | None = None  # log of the integral of p^a q^(1-a), in two parts
    units: Callable[[Any, Any], tuple[Any, Any]] | None = None  # the same pair in units of its own, see `geometric_js`


def bind(
    column: Densities,
    function: Callable[Concatenate[Densities, P], T],
    text: Mapping[str, str],
    extra: tuple[inspect.Parameter, ...] = (),
) -> Callable[P, T]:
    """The public, jitted cell of one column.

    `text` has the column's words "@shapes", "@one" (the shapes of a cell of one distribution), "@errors" and "@pair"
    (two distributions, as code), and by the name of each cell what its example prints. `extra` are the arguments that
    the column's `checked` takes beside the distributions, such as `axis`.
    """
    name = function.__name__.lstrip("_")
    words = {word: value for word, value in text.items() if word.startswith("@")}
    words = {word: value.strip() for word, value in words.items()} | {"@column": f"kljax.{column.name}"}
    return _bind.public(column, function, words | {"@value": text[name]}, extra)


def _order(column: Densities, cell: str, name: str, value: ArrayLike, p: Any, q: Any) -> Array:
    """An order or weight in the dtype and with the batch shape of the result."""
    like = jax.eval_shape(column.kl, p, q)
    return _check.parameter_for(f"kljax.{column.name}.{cell}", name, value, like)


def _at(column: Densities, p: Any, q: Any, a: Array | float) -> Array:
    """(integral of p^a q^(1-a) - 1) / (a (a - 1)) of checked arguments: the alpha divergence."""
    like = jax.eval_shape(column.kl, p, q)
    a = jnp.broadcast_to(jnp.asarray(a, like.dtype), like.shape)
    gap, c = column.gap(p, q, a), a * (1 - a)
    if column.log_power is None:
        return -_num.expm1_over(-gap, c)
    y = column.log_power(*lax.stop_gradient((p, q, a)))
    inside = jnp.isfinite(gap) & jnp.isfinite(y[0])  # far away an order may overflow one of them alone
    plain = jnp.where(c == 0, 0, -c) * jnp.where(c == 0, 0, gap)
    return _two.power(gap, c, (jnp.where(inside, y[0], plain), jnp.where(inside, y[1], 0)))


def entropy(column: Densities, p: Any, **shape) -> Array:
    """Differential entropy, -integral of p log p, in [-inf, inf].

    @one
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.entropy(p):.4f}")
    @value
    """
    (p,) = column.checked("entropy", p, **shape)
    return column.entropy(p)


def cross_entropy(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Cross-entropy, -integral of p log q = entropy(p) + kl(p, q), in [-inf, inf].

    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.cross_entropy(p, q):.4f}")
    @value
    """
    p, q = column.checked("cross_entropy", p, q, **shape)
    return column.cross_entropy(p, q)


def kl(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Kullback-Leibler divergence, integral of p log(p/q), in [0, inf].

    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.kl(p, q):.4f}")
    @value
    """
    p, q = column.checked("kl", p, q, **shape)
    return column.kl(p, q)


def reverse_kl(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Reverse Kullback-Leibler divergence, kl(q, p), in [0, inf].

    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.reverse_kl(p, q):.4f}")
    @value
    """
    p, q = column.checked("reverse_kl", p, q, **shape)
    return column.kl(q, p)


def jeffreys(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Jeffreys divergence, kl(p, q) + kl(q, p), in [0, inf].

    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.jeffreys(p, q):.4f}")
    @value
    """
    p, q = column.checked("jeffreys", p, q, **shape)
    return column.kl(p, q) + column.kl(q, p)


def hellinger_sq(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Squared Hellinger distance, 1 - integral of sqrt(p q), in [0, 1].

    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.hellinger_sq(p, q):.4f}")
    @value
    """
    p, q = column.checked("hellinger_sq", p, q, **shape)
    return _at(column, p, q, 0.5) / 4


def hellinger(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Hellinger distance, sqrt(1 - integral of sqrt(p q)), in [0, 1]: a metric.

    At p = q the gradient, which does not exist, is 0.
    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.hellinger(p, q):.4f}")
    @value
    """
    p, q = column.checked("hellinger", p, q, **shape)
    return _num.sqrt(_at(column, p, q, 0.5) / 4)


def bhattacharyya(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Bhattacharyya distance, -log of the integral of sqrt(p q), in [0, inf].

    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.bhattacharyya(p, q):.4f}")
    @value
    """
    p, q = column.checked("bhattacharyya", p, q, **shape)
    like = jax.eval_shape(column.kl, p, q)
    return column.gap(p, q, jnp.full(like.shape, 0.5, like.dtype)) / 4


def renyi(column: Densities, p: Any, q: Any, *, order: ArrayLike, **shape) -> Array:
    """Renyi divergence, log(integral of p^a q^(1-a)) / (a - 1), in [0, inf].

    `order` is a >= 0, nan below: 0 at 0, kl at 1, sup log(p/q) at inf; +inf where the integral diverges.
    It may be traced, a scalar or one for each row.
    @shapes
    @errors
    Source: van Erven and Harremoes, Renyi divergence and Kullback-Leibler divergence (2014).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.renyi(p, q, order=0.5):.4f}")
    @value
    """
    p, q = column.checked("renyi", p, q, **shape)
    order = _order(column, "renyi", "order", order, p, q)
    a = jnp.where(order == jnp.inf, 1, order)
    gap = column.gap(p, q, a)
    value = a * jnp.where((a == 0) & jnp.isinf(gap), 0, gap)  # 0 at order 0, also where kl(q, p) overflows
    value = jnp.where(order == jnp.inf, column.largest(p, q), value)
    return jnp.where(order >= 0, value, jnp.nan)


def alpha(column: Densities, p: Any, q: Any, *, order: ArrayLike, **shape) -> Array:
    """Alpha divergence (Cichocki-Amari), (integral of p^a q^(1-a) - 1) / (a (a - 1)), in [0, inf].

    `order` is a, any real: reverse_kl at 0, 4 hellinger_sq at 1/2, kl at 1, chi2 / 2 at 2; +inf where the integral
    diverges. It may be traced, a scalar or one for each row.
    @shapes
    @errors
    Source: Cichocki and Amari, Families of alpha- beta- and gamma-divergences (2010).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.alpha(p, q, order=0.5):.4f}")
    @value
    """
    p, q = column.checked("alpha", p, q, **shape)
    return _at(column, p, q, _order(column, "alpha", "order", order, p, q))


def tsallis(column: Densities, p: Any, q: Any, *, order: ArrayLike, **shape) -> Array:
    """Tsallis divergence, (integral of p^a q^(1-a) - 1) / (a - 1), in [0, inf]: kl at order 1.

    `order` is a >= 0, nan below, 0 at 0; +inf where the integral diverges. It may be traced.
    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.tsallis(p, q, order=0.5):.4f}")
    @value
    """
    p, q = column.checked("tsallis", p, q, **shape)
    order = _order(column, "tsallis", "order", order, p, q)
    value = _at(column, p, q, order)
    return jnp.where(order > 0, order * value, jnp.where(order == 0, 0, jnp.nan))


def chi2(column: Densities, p: Any, q: Any, **shape) -> Array:
    """Pearson chi-square divergence, integral of (p - q)^2 / q, in [0, inf]; swap for Neyman's.

    +inf where the integral diverges: 2 cov(q) - cov(p) must be positive definite for Gaussians.
    @shapes
    @errors

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.chi2(p, q):.4f}")
    @value
    """
    p, q = column.checked("chi2", p, q, **shape)
    return 2 * _at(column, p, q, 2.0)


def geometric_js(column: Densities, p: Any, q: Any, *, weight: ArrayLike = 0.5, **shape) -> Array:
    """Geometric Jensen-Shannon, w kl(p, g) + (1 - w) kl(q, g), g ~ p^w q^(1-w), in [0, inf].

    `weight` is w, the weight of p, in [0, 1], nan elsewhere.
    @shapes
    @errors
    Source: Nielsen, On the Jensen-Shannon symmetrization of distances relying on abstract means (2019).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.geometric_js(p, q):.4f}")
    @value
    """
    p, q = column.checked("geometric_js", p, q, **shape)
    w = _order(column, "geometric_js", "weight", weight, p, q)
    if column.units is not None:  # of scales of 1e-12 each slope overflows, and the difference of two would be nan
        p, q = column.units(p, q)
    # kl + kl - gap is half of kl + kl near equality; at an end it is one of the two, which may be small, or infinite
    inside, gap = (w > 0) & (w < 1), column.gap(p, q, w)
    rest = column.kl(p, q) + column.kl(q, p) - jnp.where(inside & jnp.isfinite(gap), gap, 0)
    rest = jnp.where(rest < 0, 0, rest)  # rounding alone makes it negative, where covariances are all but singular
    value = w * (1 - w) * jnp.where(inside, rest, 0)
    return jnp.where((w >= 0) & (w <= 1), value, jnp.nan)
