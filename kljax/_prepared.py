"""Rows of distributions made ready to meet many others: what a single pair forms anew each time is kept for each row.

Masses and logarithms are kept in two parts, a float and what rounding left of it, so that the difference of two rows
has its digits even where they are almost equal. All arrays are `[..., K]`, but `mass`, which is `[..., 1]`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from kljax import _num, _softmax, _two, _weights
from kljax._pair import Pair

_LANES = 1024  # sums that are formed side by side


class Rows(NamedTuple):
    """Distributions: masses and their logarithms; a column fills in what it forms differences of."""

    p: Array
    rest: Array | None  # what p lacks
    log: Array | None
    log_rest: Array | None
    mass: Array  # positive; 0 or nan where there is no distribution


class Prepared(NamedTuple):
    """How a column prepares rows, and the pair of two of them."""

    rows: Callable[[Array], Rows]
    pair: Callable[[Rows, Rows], Pair]
    masses: Callable[[Rows], tuple[_two.Two, _two.Two]]  # masses and their logarithms, in two parts each
    exact: bool  # masses are given, none too small for a float
    apart: float  # in eps: pairs that are nearer than this are left to the cell, which has sums of their own


def sum_of(x: Array, rest: Array) -> _two.Two:
    """The sum over the last axis in two parts, kept as an axis of size 1."""
    count = x.shape[-1]
    size = min(_LANES, 1 << (count - 1).bit_length())
    fill = [(0, 0)] * (x.ndim - 1) + [(0, -count % size)]
    total = jnp.pad(x, fill), jnp.pad(rest, fill)
    if count > size:  # of a tree of so many levels the compiler makes slow loops
        steps = [jnp.moveaxis(part.reshape(*part.shape[:-1], -1, size), -2, 0) for part in total]
        first = steps[0][0], steps[1][0]
        total, _ = lax.scan(lambda so_far, new: (_num.two_sum(so_far, new), None), first, [part[1:] for part in steps])
    while size > 1:
        size //= 2
        halves = [tuple(part[..., i : i + size] for part in total) for i in (0, size)]
        total = _num.two_sum(*halves)
    return _two.whole(total)


def _of_weights(p: Array) -> Rows:
    p = _weights.masses(p)
    top = jnp.max(p, -1, keepdims=True)
    p = p / _num.power_of_two(jnp.where(top > 0, top, 1))
    total = sum_of(p, jnp.zeros_like(p))
    share, rest = _two.over((p, jnp.zeros_like(p)), total)
    return Rows(share, rest, None, None, total[0])


def _weights_apart(x: Rows, y: Rows) -> Pair:
    assert x.rest is not None and y.rest is not None
    delta = (x.p - y.p) + (x.rest - y.rest)
    p, q = jnp.broadcast_arrays(x.p, y.p)
    delta = jnp.where((p == 0) | (q == 0), p - q, delta)  # so that the gap is exactly 1 where a mass is missing
    return _weights.from_difference(p, q, delta, x.mass * y.mass)


def _logs_of_weights(x: Rows) -> tuple[_two.Two, _two.Two]:
    assert x.rest is not None
    some = x.p > 0
    mass = jnp.where(some, x.p, 1)
    high, low = _two.log(mass)
    low = low + x.rest / mass
    none = jnp.where(x.p == 0, -jnp.inf, x.p)  # or nan
    return (x.p, x.rest), (jnp.where(some, high, none), jnp.where(some, low, 0))


def _of_logits(a: Array) -> Rows:
    top = jnp.max(a, -1, keepdims=True)
    high, low = _num.two_difference(a, jnp.where(top == -jnp.inf, 0, top))
    e = jnp.exp(high) * (1 + low)
    mass, rest = sum_of(e, jnp.zeros_like(e))
    size, small = _two.log(mass)
    log, left = _num.two_difference(high, jnp.broadcast_to(size, high.shape))
    low = low - (small + rest / mass)
    return Rows(e / mass, None, log, jnp.where(jnp.isfinite(log), low + left, 0), mass)


def _logits_apart(x: Rows, y: Rows) -> Pair:
    assert x.log is not None and y.log is not None and x.log_rest is not None and y.log_rest is not None
    none = (x.log == -jnp.inf) & (y.log == -jnp.inf)
    d = jnp.where(none, 0, (x.log - y.log) + (x.log_rest - y.log_rest))
    p, q, log_p, log_q = jnp.broadcast_arrays(x.p, y.p, x.log, y.log)
    return _softmax.from_ratio(p, q, d, (log_p, log_q), x.mass * y.mass)


def _masses_of_logits(x: Rows) -> tuple[_two.Two, _two.Two]:
    assert x.log is not None and x.log_rest is not None
    log = x.log, x.log_rest
    return _two.exp(log), log


COLUMNS: dict[str, Any] = {
    "probs": Prepared(_of_weights, _weights_apart, _logs_of_weights, True, 2e-3),
    "logits": Prepared(_of_logits, _logits_apart, _masses_of_logits, False, 16.0),
}
