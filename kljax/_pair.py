"""What passes between columns and rows: a pair of distributions, and the slopes of a divergence between them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from kljax import _fold, _num


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


Part = Callable[[Array, Slope], Array]

# What is summed over the outcomes to centre a slope: apart, the outcome that holds almost all mass where one does
_OF_ANY: tuple[Part, ...] = (
    lambda p, slope: jnp.where(p > 0.5, slope.weighted, 0),
    lambda p, slope: jnp.where(p > 0.5, 0, slope.weighted),
    lambda p, slope: jnp.where(p > 0.5, 0, p),
)
_OF_FAR: tuple[Part, ...] = (
    *_OF_ANY[:2],
    lambda p, slope: jnp.where(_far(slope) & (p <= 0.5), p, 0),
    lambda p, slope: jnp.where(_far(slope) | (p > 0.5), 0, p),
    lambda p, slope: jnp.where(p > 0.5, jnp.where(_far(slope), p, -p), 0),
)


def _far(slope: Slope) -> Array:
    return jnp.zeros((), bool) if slope.far is None else slope.far


def parts(slope: Slope) -> tuple[Part, ...]:
    """What `centred` needs the totals of."""
    return _OF_ANY if slope.far is None else _OF_FAR


def totals_of(
    p: Array, slope: Slope, mass: Array, peak: Array, again: Callable[[], tuple[Array, Slope]]
) -> Sequence[Array]:
    """The totals of `parts`; on a CPU, where each is a sweep, of the one or two that matter to rows without a peak.

    `peak` is about the largest p. again() forms p and the slope anew: what several sums read would be stored.
    """
    if not _fold.on_cpu():
        return _fold.totals(*(part(p, slope) for part in parts(slope)))
    none = jnp.zeros_like(peak)
    beyond = none
    if slope.far is not None:
        p, slope = again()
        beyond = _fold.total(jnp.where(_far(slope), p, 0), mass)
    # a row that is nan is nan either way
    easy, whole = ~((peak >= 0.49) | (beyond > 0.75)), _fold.total(again()[1].weighted, mass)
    simple = (none, whole, 1 - beyond) if slope.far is None else (none, whole, beyond, 1 - beyond, none)

    def general() -> tuple[Array, ...]:
        found = again()
        return tuple(_num.total(part(*found)) for part in parts(found[1]))

    def alike(totals: tuple[Array, ...]) -> tuple[Array, ...]:
        return _fold.varying(totals, (whole, mass))  # one of p and q may be the same on all devices of a mesh

    return _fold.where_all(easy, lambda: alike(simple), lambda: alike(general()))


def support(pair: Pair) -> tuple[Array, Array]:
    """The outcomes where exactly one has mass, and those where neither has."""
    # masses alone do not tell: two logits may both underflow and still be the outcome that matters most
    return jnp.isinf(pair.d), (pair.p == 0) & (pair.q == 0) & (pair.d == 0)


def centred(p: Array, slope: Slope, totals: Sequence[Array] | None = None) -> tuple[Array, Array]:
    """p h and h minus the mean of h under p, from the limit of h in the rows where most of p is far.

    One outcome may hold almost all mass: its own difference from the mean is then what the others leave over.
    """
    if totals is None:
        totals = totals_of(p, slope, (peak := jnp.max(p, -1, keepdims=True)), peak, lambda: (p, slope))
    top, others, mass, *rest = totals
    weighted, plain = slope.weighted, slope.plain
    if slope.far is not None:
        (near, signed), far = rest, mass
        most = far + jnp.maximum(signed, 0) > 0.5
        step = jnp.where(most, -slope.reach, slope.reach)
        top += step * jnp.maximum(jnp.where(most, -signed, signed), 0)
        others += step * jnp.where(most, near, far)
        each = jnp.where(slope.far == most, 0, step)
        weighted, plain, mass = weighted + p * each, plain + each, far + near
    large, mean = p > 0.5, top + others
    rest = others - mean * mass
    own = -rest / jnp.where(large, p, 1)
    return jnp.where(large, -rest, weighted - p * mean), jnp.where(large, own, plain - mean)


def centre(p: Array, weighted: Array, plain: Array) -> tuple[Array, Array]:
    """p h and h minus the mean of h under p."""
    return centred(p, Slope(weighted, plain))
