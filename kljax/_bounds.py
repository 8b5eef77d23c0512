"""Bounds of total variation and Jensen-Shannon by rows that have closed forms, for columns of densities.

With H^2 the squared Hellinger distance, J the Jeffreys divergence and B the Bhattacharyya distance,
H^2 <= tv <= sqrt(H^2 (2 - H^2)) and log 2 H^2 <= js <= min(H^2, J/4 - B, log 2 tv).
"""

import math

import jax.numpy as jnp
from jax import Array

from kljax import _num
from kljax.affinity import Densities

LOG2 = math.log(2)


def _hellinger(column: Densities, p, q) -> tuple[Array, Array]:
    """The squared Hellinger distance and the Bhattacharyya distance."""
    kl = column.kl(p, q)
    distance = column.gap(p, q, jnp.full(kl.shape, 0.5, kl.dtype)) / 4
    return -_num.expm1(-distance), distance


def _upper(column: Densities, p, q, square: Array) -> Array:
    """The least of Hellinger's and Pinsker's bounds of total variation."""
    kl = jnp.minimum(column.kl(p, q), column.kl(q, p))
    return _num.sqrt(jnp.minimum(square * (2 - square), kl / 2))


def tv_lower(column: Densities, p, q, **shape) -> Array:
    """A lower bound of total variation, hellinger_sq, in [0, 1].

    @shapes
    @errors
    Source: Le Cam, Asymptotic methods in statistical decision theory (1986).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.tv_lower(p, q):.4f}")
    @value
    """
    p, q = column.checked("tv_lower", p, q, **shape)
    return _hellinger(column, p, q)[0]


def tv_upper(column: Densities, p, q, **shape) -> Array:
    """An upper bound of total variation, in [0, 1].

    The least of sqrt(h (2 - h)), h = hellinger_sq, and of Pinsker's sqrt(kl / 2) in both directions.
    At p = q its gradient, which does not exist, is 0.
    @shapes
    @errors
    Source: Le Cam (1986); Pinsker, Information and information stability (1964).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.tv_upper(p, q):.4f}")
    @value
    """
    p, q = column.checked("tv_upper", p, q, **shape)
    return _upper(column, p, q, _hellinger(column, p, q)[0])


def js_lower(column: Densities, p, q, **shape) -> Array:
    """A lower bound of Jensen-Shannon, log 2 hellinger_sq, in [0, log 2].

    @shapes
    @errors
    Source: Topsoe, Some inequalities for information divergence and related measures (2000).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.js_lower(p, q):.4f}")
    @value
    """
    p, q = column.checked("js_lower", p, q, **shape)
    return LOG2 * _hellinger(column, p, q)[0]


def js_upper(column: Densities, p, q, **shape) -> Array:
    """An upper bound of Jensen-Shannon, in [0, log 2].

    The least of hellinger_sq, jeffreys / 4 - bhattacharyya and log 2 times the upper bound of total variation.
    @shapes
    @errors
    Source: Lin, Divergence measures based on the Shannon entropy (1991); Topsoe (2000).

    >>> import kljax
    >>> p, q = @pair
    >>> print(f"{@column.js_upper(p, q):.4f}")
    @value
    """
    p, q = column.checked("js_upper", p, q, **shape)
    square, distance = _hellinger(column, p, q)
    both = column.kl(p, q) + column.kl(q, p)
    between = jnp.maximum(both / 4 - jnp.where(jnp.isinf(both), 0, distance), 0)  # rounding alone makes it less
    far = jnp.where(square > 0.25, _upper(column, p, q, square), 1)  # at p = q it is larger, and has no gradient
    return jnp.minimum(jnp.minimum(square, between), LOG2 * far)
