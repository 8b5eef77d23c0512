"""The cells that are one row summed over outcomes, the same for every discrete column; `bind` makes them public.

Each takes the column first; `probs.kl = bind(PROBS, kl)` drops that argument (see `_bind`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Concatenate, ParamSpec, TypeVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _bind, _check, _num, rows
from kljax._points import Column, Outer, divergence, itself, points
from kljax.rows import Row

P = ParamSpec("P")
T = TypeVar("T")

_SHAPES = """
    Shapes: p, q `[..., K] -> [...]`, in nats; the event axis is `axis` (last unless said otherwise), `where` `[..., K]`
    or `[K]` keeps the outcomes that are True. Leading axes must be equal, or one side's shape the tail of the other's.
"""
_INPUTS = {
    "probs": "p, q are non-negative weights, each standing for itself over its sum; subnormal numbers are zeros.",
    "logits": "p, q are unnormalised log-weights, such as log-probabilities; -inf is no mass.",
}
_ERRORS = """
    A row without any mass is nan, with gradient 0; a nan or an input that is no {weight} spoils its own row alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for complex numbers.
"""


def bind(column: Column, function: Callable[Concatenate[Column, P], T]) -> Callable[P, T]:
    """The public, jitted cell of one discrete column."""
    text = {
        "@shapes": _SHAPES.strip() + "\n    " + _INPUTS[column.name],
        "@errors": _ERRORS.strip().replace("{weight}", "weight" if column.name == "probs" else "log-weight"),
        "@pair": _example(column, "[0.5, 0.5]") + ", " + _example(column, "[0.9, 0.1]"),
        "@zeros": _example(column, "[1.0, 0.0]") + ", " + _example(column, "[0.0, 1.0]"),
        "@one": _example(column, "[0.5, 0.25, 0.25]"),
        "@three": _example(column, "[[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]]"),
        "@column": f"kljax.{column.name}",
    }
    return _bind.public(column, function, text)


def _example(column: Column, numbers: str) -> str:
    return f"jnp.array({numbers})" if column.name == "probs" else f"jnp.log(jnp.array({numbers}))"


def pair_of(column: Column, cell: str, p: ArrayLike, q: ArrayLike, axis: int, where: ArrayLike | None):
    """The checked arguments of a cell with two distributions."""
    return _check.events(f"kljax.{column.name}.{cell}", ("p", "q"), (p, q), axis, where, column.empty)


def _row(column: Column, cell: str, row: Row, p, q, axis, where, outer: Outer = itself) -> Array:
    p, q = pair_of(column, cell, p, q, axis, where)
    return divergence(column, with_parameters(column, cell, row, p), p, q, outer)


def with_parameters(column: Column, cell: str, row: Row, like: Array) -> Row:
    """The row with its parameters as arrays that go with events like `like`."""
    return replaced(f"kljax.{column.name}.{cell}", row, like)


def replaced(name: str, row: Row, like: Array) -> Row:
    """The same, for what is no cell of a column."""
    return replace(row, args=tuple(_check.parameter(name, "a parameter of the row", v, like) for v in row.args))


def kl(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Kullback-Leibler divergence, sum of p log(p/q), in [0, inf].

    @shapes
    Zero mass: 0 log 0 = 0; +inf where p has mass and q has none. The gradient there is that of a mass of finfo.tiny.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.kl(p, q):.4f}")
    0.5108
    """
    return _row(column, "kl", rows.kl, p, q, axis, where)


def reverse_kl(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Reverse Kullback-Leibler divergence, kl(q, p) = sum of q log(q/p), in [0, inf].

    @shapes
    Zero mass: +inf where q has mass and p has none.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.reverse_kl(p, q):.4f}")
    0.3681
    """
    return _row(column, "reverse_kl", rows.reverse_kl, p, q, axis, where)


def jeffreys(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Jeffreys divergence, kl(p, q) + kl(q, p) = sum of (p - q) log(p/q), in [0, inf].

    @shapes
    Zero mass: +inf where exactly one of the two has mass.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.jeffreys(p, q):.4f}")
    0.8789
    """
    return _row(column, "jeffreys", rows.jeffreys, p, q, axis, where)


def js(
    column: Column,
    p: ArrayLike,
    q: ArrayLike,
    *,
    weight: ArrayLike = 0.5,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Jensen-Shannon divergence, w kl(p, m) + (1 - w) kl(q, m), m = w p + (1 - w) q, in [0, H(w)].

    `weight` is w, the weight of p, in [0, 1]; H(w) = -w log w - (1 - w) log(1 - w), log 2 at w = 1/2. The value is the
    divergence, not its square root (`js_distance`).
    @shapes
    Zero mass: finite always, H(w) for disjoint supports. `weight` may be traced, a scalar or one for each row.
    @errors
    Source: Lin, Divergence measures based on the Shannon entropy (1991).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.js(p, q):.4f}")
    0.1017
    """
    return _row(column, "js", rows.js(weight), p, q, axis, where)


def js_distance(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Jensen-Shannon distance, the square root of js at weight 1/2, in [0, sqrt(log 2)]: a metric.

    @shapes
    Zero mass: finite always. At p = q the gradient, which does not exist, is 0.
    @errors
    Source: Endres and Schindelin, A new metric for probability distributions (2003).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.js_distance(p, q):.4f}")
    0.3190
    """
    return _row(column, "js_distance", rows.js(), p, q, axis, where, _num.root)


def scaled_js(
    column: Column, p: ArrayLike, q: ArrayLike, *, weight: ArrayLike, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Jensen-Shannon over w (1 - w), continuous at the ends: kl(p, q) at w = 0, kl(q, p) at w = 1, in [0, inf].

    `weight` is w, the weight of p in the mixture, in [0, 1].
    @shapes
    Zero mass: finite for 0 < w < 1; at w = 0 as kl, at w = 1 as reverse_kl.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.scaled_js(p, q, weight=0.0):.4f} {@column.scaled_js(p, q, weight=0.5):.4f}")
    0.5108 0.4070
    """
    return _row(column, "scaled_js", rows.scaled_js(weight), p, q, axis, where)


def hellinger_sq(
    column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Squared Hellinger distance, 1 - sum of sqrt(p q) = sum of (sqrt p - sqrt q)^2 / 2, in [0, 1].

    @shapes
    Zero mass: finite always, 1 for disjoint supports.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.hellinger_sq(p, q):.4f}")
    0.1056
    """
    return _row(column, "hellinger_sq", rows.hellinger_sq, p, q, axis, where)


def hellinger(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Hellinger distance, sqrt(1 - sum of sqrt(p q)), in [0, 1]: a metric.

    @shapes
    Zero mass: finite always, 1 for disjoint supports. At p = q the gradient, which does not exist, is 0.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.hellinger(p, q):.4f}")
    0.3249
    """
    return _row(column, "hellinger", rows.hellinger_sq, p, q, axis, where, _num.root)


def chi2(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Pearson chi-square divergence, sum of (p - q)^2 / q, in [0, inf]; swap the arguments for Neyman's.

    @shapes
    Zero mass: +inf where p has mass and q has none.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.chi2(p, q):.4f}")
    1.7778
    """
    return _row(column, "chi2", rows.chi2, p, q, axis, where)


def le_cam(column: Column, p: ArrayLike, q: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    """Le Cam (triangular) divergence, sum of (p - q)^2 / (p + q), in [0, 2].

    @shapes
    Zero mass: finite always, 2 for disjoint supports.
    @errors
    Source: Le Cam, Asymptotic methods in statistical decision theory (1986).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.le_cam(p, q):.4f}")
    0.3810
    """
    return _row(column, "le_cam", rows.le_cam, p, q, axis, where)


def hockey_stick(
    column: Column, p: ArrayLike, q: ArrayLike, *, gamma: ArrayLike, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Hockey-stick divergence, sum of max(p - gamma q, 0), gamma >= 1, in [0, 1].

    It is the delta of (log gamma, delta) differential privacy, and tv at gamma = 1; nan for gamma < 1.
    @shapes
    Zero mass: finite always, 1 for disjoint supports.
    @errors
    Source: Sason and Verdu, f-divergence inequalities (2016).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.hockey_stick(p, q, gamma=2.0):.4f}")
    0.3000
    """
    return _row(column, "hockey_stick", rows.hockey_stick(gamma), p, q, axis, where)


def alpha(
    column: Column, p: ArrayLike, q: ArrayLike, *, order: ArrayLike, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Alpha divergence (Cichocki-Amari), (sum of p^a q^(1-a) - 1) / (a (a - 1)), in [0, inf].

    `order` is a, any real: reverse_kl at 0, 4 hellinger_sq at 1/2, kl at 1, chi2 / 2 at 2, without a jump between.
    @shapes
    Zero mass: +inf where p has mass and q has none if a >= 1, and where q has mass and p has none if a <= 0.
    @errors
    Source: Cichocki and Amari, Families of alpha- beta- and gamma-divergences (2010).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.alpha(p, q, order=2.0):.4f}")
    0.8889
    """
    return _row(column, "alpha", rows.alpha(order), p, q, axis, where)


def tsallis(
    column: Column, p: ArrayLike, q: ArrayLike, *, order: ArrayLike, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Tsallis divergence, (sum of p^a q^(1-a) - 1) / (a - 1), in [0, inf]: kl at order 1.

    `order` is a >= 0, nan below; at a = 0 it is the mass of q where p has none.
    @shapes
    Zero mass: +inf where p has mass and q has none if a >= 1.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.tsallis(p, q, order=2.0):.4f}")
    1.7778
    """
    return _row(column, "tsallis", rows.tsallis(order), p, q, axis, where)


def f_divergence(
    column: Column, p: ArrayLike, q: ArrayLike, *, row: Row, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """Any f-divergence, sum of q f(p/q), in [0, inf], for a `row` of kljax.rows or one's own.

    @shapes
    Zero mass: as the row's functions say at t = -inf. `row` may hold traced parameters.
    @errors
    Source: Csiszar, Information-type measures of difference of probability distributions (1967).

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print(f"{@column.f_divergence(p, q, row=kljax.rows.le_cam):.4f}")
    0.3810
    """
    return _row(column, "f_divergence", row, p, q, axis, where)


def contributions(
    column: Column, p: ArrayLike, q: ArrayLike, *, row: Row = rows.kl, axis: int = -1, where: ArrayLike | None = None
) -> Array:
    """What each outcome adds to a divergence, q f(p/q) >= 0 with f'(1) = 0; their sum is the divergence.

    For kl an outcome adds p log(p/q) - p + q. `row` is any row of kljax.rows or one's own.
    Shapes: p, q `[..., K] -> [..., K]`, the event axis where it was; `where` deletes outcomes, which add 0.
    Zero mass: +inf at the outcomes that make the divergence infinite.
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @pair
    >>> print([f"{v:.4f}" for v in @column.contributions(p, q)])
    ['0.1061', '0.4047']
    """
    last = pair_of(column, "contributions", p, q, axis, where)
    pair = column.pair(*last)
    terms = points(with_parameters(column, "contributions", row, last[0]), pair)
    terms = jnp.where(pair.mass > 0, terms, jnp.nan)
    return jnp.moveaxis(terms, -1, axis) if max(jnp.ndim(p), jnp.ndim(q)) > 1 else terms
