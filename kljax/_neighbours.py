"""Sums and order statistics over all pairs of points, a block of rows at a time: distances are never all held.

Distances come from differences of points, not from their norms, which would lose every digit of data with an offset.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _num

BLOCK = 1 << 20  # distances of a block
_KNOWN = 512  # points of either sample in the median of distances


@partial(jax.tree_util.register_dataclass, data_fields=["bandwidth"], meta_fields=["function"])
@dataclass(frozen=True)
class Kernel:
    """A positive definite function of s = |x - y|^2 / bandwidth^2; bandwidth None is the median of distances."""

    function: Callable[[Array], Array]
    bandwidth: Any = None


def gaussian(bandwidth: ArrayLike | None = None) -> Kernel:
    """exp(-|x - y|^2 / (2 bandwidth^2)); without a bandwidth the median distance of the pooled points.

    >>> import jax.numpy as jnp, kljax
    >>> print(f"{kljax.samples.gaussian(2.0).function(jnp.array(1.0)):.4f}")  # at a distance of one bandwidth
    0.6065
    """
    return Kernel(_gaussian, bandwidth)


def laplace(bandwidth: ArrayLike | None = None) -> Kernel:
    """exp(-|x - y| / bandwidth); without a bandwidth the median distance of the pooled points.

    >>> import jax.numpy as jnp, kljax
    >>> print(f"{kljax.samples.laplace(2.0).function(jnp.array(1.0)):.4f}")  # at a distance of one bandwidth
    0.3679
    """
    return Kernel(_laplace, bandwidth)


def inverse_multiquadric(bandwidth: ArrayLike | None = None) -> Kernel:
    """1 / sqrt(1 + |x - y|^2 / bandwidth^2); without a bandwidth the median distance of the pooled points.

    >>> import jax.numpy as jnp, kljax
    >>> print(f"{kljax.samples.inverse_multiquadric(2.0).function(jnp.array(1.0)):.4f}")  # at one bandwidth
    0.7071
    """
    return Kernel(_inverse_multiquadric, bandwidth)


def _gaussian(s: Array) -> Array:
    return jnp.exp(-s / 2)


def _laplace(s: Array) -> Array:
    return jnp.exp(-_num.sqrt(s))


def _inverse_multiquadric(s: Array) -> Array:
    return lax.rsqrt(1 + s)


def minus_distance(s: Array) -> Array:
    """The kernel of the energy distance, positive definite but for a constant."""
    return -_num.sqrt(s)


def _by_rows(function: Callable[[Array, Array, Array], Array], x: Array, y: Array) -> Array:
    """function(squared distances `[m]` of a point of x to all of y, its number, the numbers of y), for each point."""

    @jax.checkpoint
    def row(each):
        point, i = each
        return function(jnp.sum(jnp.square(y - point[None]), -1), i, jnp.arange(len(y)))

    return lax.map(row, (x, jnp.arange(len(x))), batch_size=max(1, min(len(x), BLOCK // len(y))))


def in_units(*samples: Array) -> tuple[Array, ...]:
    """A power of two, and the samples in it: no float32 holds the square of 1e-21, nor that of 1e21.

    1 for float32 samples whose largest is 1 to 2^52, and no more than it takes beyond: distances may be 1e19 to 1e34
    times less than that, and their squares be summed.
    """
    size = _num.unit(jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in samples])))
    unit = size / jnp.clip(size, 1, 2.0 ** (jnp.finfo(size.dtype).maxexp * 13 // 32))
    return unit, *(x / unit for x in samples)


def nearest(x: Array, y: Array | None, k: int) -> Array:
    """The squared distance of every point of x to the k-th nearest of y, or of the other points of x."""

    def row(squares, i, numbers):
        others = squares if y is not None else jnp.where(numbers == i, jnp.inf, squares)
        return -lax.top_k(-others, k)[0][-1]

    return _by_rows(row, x, x if y is None else y)


def bandwidth(kernel: Kernel, x: Array, y: Array) -> Array:
    """The kernel's own, or the median distance among the first points of both samples."""
    if kernel.bandwidth is not None:
        return jnp.asarray(kernel.bandwidth).astype(x.dtype)
    unit, some = in_units(lax.stop_gradient(jnp.concatenate([x[:_KNOWN], y[:_KNOWN]])))
    i, j = np.triu_indices(len(some), 1)
    median = unit * jnp.sqrt(jnp.median(jnp.sum(jnp.square(some[i] - some[j]), -1)))
    return jnp.where(median > 0, median, 1)


def discrepancy(kernel: Callable[[Array], Array], width: Array, x: Array, y: Array, unbiased: bool) -> Array:
    """Mean kernel within x, within y, minus twice that between; if unbiased no point is paired with itself."""
    unit = _num.unit(width)
    x, y, width = x / unit, y / unit, width / unit

    def mean(a, b, own):
        def row(squares, i, numbers):
            values = kernel(squares / (width * width))
            return jnp.sum(jnp.where(numbers == i, 0, values) if own else values)

        return jnp.sum(_by_rows(row, a, b) / len(a) / (len(b) - own))

    return mean(x, x, unbiased) + mean(y, y, unbiased) - 2 * mean(x, y, False)


def quantile_gap(x: Array, y: Array) -> Array:
    """The mean over u of the distance between the u-quantiles of two samples `[..., n]`, `[..., m]`."""
    n, m = x.shape[-1], y.shape[-1]
    # in units of 1/(n m): where either quantile function steps, its left end deciding which values hold
    edges = np.union1d(np.arange(n + 1, dtype=np.int64) * m, np.arange(m + 1, dtype=np.int64) * n)
    starts, widths = edges[:-1], np.diff(edges) / (n * m)
    gaps = _num.magnitude(jnp.sort(x, -1)[..., starts // m] - jnp.sort(y, -1)[..., starts // n])
    return jnp.sum(gaps * jnp.broadcast_to(jnp.asarray(widths, x.dtype), gaps.shape), -1)
