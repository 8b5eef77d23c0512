"""What passes between columns and rows: a pair of distributions, and the slopes of a divergence between them."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from kljax import _num


class Pair(NamedTuple):
    """Two distributions over the same outcomes; all `[..., K]` but `mass`, which is `[..., 1]`."""

    p: Array  # masses, each summing to one
    q: Array
    delta: Array  # p - q
    d: Array  # log(p / q): -inf or inf where one has no mass, 0 where neither has
    tame: Array  # the same with finfo.tiny for a missing mass, as derivatives see it
    gap: Array  # (p - q) / max(p, q), in [-1, 1]
    log_hi: Array  # log of the larger mass
    mass: Array  # positive; 0 where one of the two has no mass at all, nan where an input is not a mass

    def swap(self) -> "Pair":
        """The pair (q, p)."""
        return self._replace(p=self.q, q=self.p, delta=-self.delta, d=-self.d, tame=-self.tame, gap=-self.gap)


class Slope(NamedTuple):
    """The slope h = dD/dp up to a constant, with and without p: p h stays finite where p underflows and h overflows.

    Between almost disjoint pairs every slope is near its limit f'(inf). Where `far`, `plain` and `weighted` are
    therefore those of h - reach, reach being that limit.
    """

    weighted: Array
    plain: Array
    far: Array | None = None
    reach: Array | float = 0.0
    wild: Array | None = None  # where the true slope is infinite or out of range, so that a finite one stands for it
    balanced: bool = False  # whether the mean of h under p is 0


def centre(p: Array, weighted: Array, plain: Array) -> tuple[Array, Array]:
    """p h and h minus the mean of h under p.

    One outcome may hold almost all mass: its own difference from the mean is then what the others leave over.
    """
    mean = _num.total(weighted)
    weighted, plain = weighted - p * mean, plain - mean
    large = p > 0.5
    rest = _num.total(jnp.where(large, 0, weighted))
    return jnp.where(large, -rest, weighted), jnp.where(large, -rest / jnp.where(large, p, 1), plain)


def centred(p: Array, slope: Slope) -> tuple[Array, Array]:
    """`centre` of a slope, seen from its limit in the rows where most of p is far."""
    if slope.far is None:
        return centre(p, slope.weighted, slope.plain)
    most = _num.total(jnp.where(slope.far, p, 0)) > 0.5
    step = jnp.where(slope.far & ~most, slope.reach, jnp.where(most & ~slope.far, -slope.reach, 0))
    return centre(p, slope.weighted + p * step, slope.plain + step)
