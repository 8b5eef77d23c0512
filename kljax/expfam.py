"""Exponential families (and Laplace): typed ones with every cell, and any other by its log-normaliser.

A cell takes two members of one type and looks it up in one table: `_FAMILIES` has, for each type, its entropy, the
scaled Jensen gap of its log-normaliser and the supremum of log(p/q), and the rows of `kljax.affinity` follow. Bernoulli
and Categorical are softmaxes and go to `kljax.logits`. A new family is a NamedTuple and one entry.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _check, _families, _laplace, _num, _sphere, _wishart, affinity, logits
from kljax._families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Exponential,
    Family,
    Gamma,
    Geometric,
    InverseGamma,
    Poisson,
    positive,
)
from kljax._laplace import Laplace
from kljax._natural import kl_natural, renyi_natural
from kljax._sphere import VonMisesFisher
from kljax._wishart import Wishart

__all__ = [
    "Bernoulli", "Beta", "Categorical", "Dirichlet", "Exponential", "Gamma", "Geometric", "InverseGamma", "Laplace",
    "Poisson", "VonMisesFisher", "Wishart", "alpha", "bhattacharyya", "chi2", "cross_entropy", "entropy", "hellinger",
    "hellinger_sq", "jeffreys", "kl", "kl_natural", "renyi", "renyi_natural", "reverse_kl", "tsallis",
]  # fmt: skip

_FAMILIES: dict[type, Family] = _families.FAMILIES | {
    Laplace: Family(
        (0, 0), lambda p: Laplace(p.loc, positive(p.scale)), _laplace.entropy, _laplace.gap, _laplace.largest
    ),
    Wishart: Family(
        (0, 2), _wishart.clean, _wishart.entropy, _wishart.gap, _wishart.largest, kl=_wishart.kl,
        size=lambda p: (
            p.scale_tril.shape[-1] == p.scale_tril.shape[-2], "pass a square lower triangular factor `[..., d, d]`"
        ),
    ),
    VonMisesFisher: Family(
        (1,), lambda p: p, _sphere.entropy, _sphere.gap, _sphere.largest,
        size=lambda p: (
            p.eta.shape[-1] in (2, 3),
            "events of 2 or 3 coordinates only; for others give the log-normaliser to kl_natural",
        ),
    ),
}  # fmt: skip


def _two_outcomes(p: Bernoulli) -> Array:
    """Logits of the outcomes 0 and 1, none of them inf."""
    x = p.logits
    return jnp.where(x[..., None] > 0, jnp.stack([-x, jnp.zeros_like(x)], -1), jnp.stack([jnp.zeros_like(x), x], -1))


_SOFTMAX: dict[type, tuple[int, Callable[[Any], Array]]] = {
    Bernoulli: (0, _two_outcomes),
    Categorical: (1, lambda p: p.logits),
}
_MAKERS = ", ".join(f"{t.__name__}({', '.join(t._fields)})" for t in (*_SOFTMAX, *_FAMILIES))


def _checked(cell: str, *given: Any) -> tuple[Any, ...]:
    """The members with fields of one dtype and batch; nan where a parameter is not one."""
    cell, kind = f"kljax.expfam.{cell}", type(given[0])
    for name, d in zip("pq", given, strict=False):
        if type(d) not in _FAMILIES and type(d) not in _SOFTMAX:
            what = "an array" if isinstance(d, Array) else f"a {type(d).__name__}"
            raise TypeError(f"{cell}: {name} is {what}; pass one of {_MAKERS}")
        if type(d) is not kind:
            raise TypeError(
                f"{cell}: p is a {kind.__name__} and q a {type(d).__name__}: pass two of one type; draws compare "
                "others, kljax.samples.estimate"
            )
    events = (_SOFTMAX[kind][0],) if kind in _SOFTMAX else _FAMILIES[kind].events
    leaves = _check.wide(*(x for d in given for x in d))
    names = [
        (f"{side}.{field}", n) for side in "pq"[: len(given)] for field, n in zip(kind._fields, events, strict=True)
    ]
    whole = _check.fields(cell, [(name, leaf, n) for (name, n), leaf in zip(names, leaves, strict=True)])
    members = [kind(*whole[i : i + len(events)]) for i in range(0, len(whole), len(events))]
    for field, n, *two in zip(kind._fields, events, *members, strict=True):
        _check.same_event(cell, field, two[0], two[-1], n)
    if kind in _SOFTMAX:
        return tuple(members)
    family = _FAMILIES[kind]
    if family.size is not None:
        _check.event_shape(cell, names[len(events) - 1][0], members[0][-1], *family.size(members[0]))
    return tuple(family.clean(d) for d in members)


def _batch_like(p: Any) -> Array:
    """An array of ones with the batch shape of a member."""
    leaf, events = p[0], _FAMILIES[type(p)].events[0]
    return jnp.ones(leaf.shape[: leaf.ndim - events], leaf.dtype)


def _entropy(p: Any) -> Array:
    return _FAMILIES[type(p)].entropy(p)


def _gap(p: Any, q: Any, a: Array) -> Array:
    return _FAMILIES[type(p)].gap(p, q, a)


def _kl(p: Any, q: Any) -> Array:
    special = _FAMILIES[type(p)].kl
    return special(p, q) if special else _gap(p, q, _batch_like(p))


def _cross_entropy(p: Any, q: Any) -> Array:
    return _entropy(p) + _kl(p, q)


def _largest(p: Any, q: Any) -> Array:
    return _FAMILIES[type(p)].largest(p, q)


COLUMN = affinity.Densities("expfam", _checked, _entropy, _cross_entropy, _kl, _gap, _largest)
_TEXT = {
    "@shapes": """
    Shapes: p and q two members of one family, parameters `[...]` or with event axes `[..., K] -> [...]`, in nats.
    Leading axes must be equal, or one shape the tail of the others'; a scalar parameter goes with all.
    """,
    "@one": """
    For the discrete families it is -sum of p log p, and >= 0.
    Shapes: p a member of a family, parameters `[...]` or with event axes `[..., K] -> [...]`, in nats.
    """,
    "@errors": """
    Degenerate input: a parameter that is none of its family, or a nan, makes its own row nan alone.
    Errors: AssertionError at trace time where shapes do not match, TypeError for two types, no family or complex.
    """,
    "@pair": "kljax.expfam.Gamma(2.0, 1.0), kljax.expfam.Gamma(3.0, 2.0)",
    "entropy": "1.5772", "cross_entropy": "1.7681", "kl": "0.1909", "reverse_kl": "0.1159", "jeffreys": "0.3069",
    "hellinger_sq": "0.0352", "hellinger": "0.1876", "bhattacharyya": "0.0358", "renyi": "0.0717", "alpha": "0.1408",
    "tsallis": "0.0704", "chi2": "inf",
}  # fmt: skip


def _cell(function: Callable[..., Array]) -> Callable[..., Array]:
    """The public cell: that of `kljax.logits` for a softmax, else the row of `kljax.affinity`."""
    name = function.__name__.lstrip("_")

    @functools.wraps(function)
    def cell(column, *members, **options):
        named = [options.pop(side) for side in "pq" if side in options]
        given = (*members, *named)
        kind = type(given[0])
        if kind in _SOFTMAX:
            convert = _SOFTMAX[kind][1]
            return getattr(logits, name)(*(convert(d) for d in _checked(name, *given)), **options)
        return function(column, *given, **options)

    return affinity.bind(COLUMN, cell, _TEXT)


def _with_order_zero(value: Array, p: Any, q: Any, order: ArrayLike, finish: Callable[[Array], Array]) -> Array:
    """At order 0 the support of p counts: a Poisson of rate 0 has less of it than another."""
    p, q = _checked("renyi", p, q)
    least = _FAMILIES[type(p)].least
    if least is None:
        return value
    order = _check.parameter_for("kljax.expfam.renyi", "order", order, value)
    return jnp.where(order == 0, finish(least(p, q)), value)


@functools.wraps(affinity.renyi)
def _renyi(column, p, q, *, order, **shape):
    return _with_order_zero(affinity.renyi(column, p, q, order=order), p, q, order, lambda x: x)


@functools.wraps(affinity.tsallis)
def _tsallis(column, p, q, *, order, **shape):
    value = affinity.tsallis(column, p, q, order=order)
    return _with_order_zero(value, p, q, order, lambda x: -_num.expm1(-x))


entropy = _cell(affinity.entropy)
cross_entropy = _cell(affinity.cross_entropy)
kl = _cell(affinity.kl)
reverse_kl = _cell(affinity.reverse_kl)
jeffreys = _cell(affinity.jeffreys)
hellinger_sq = _cell(affinity.hellinger_sq)
hellinger = _cell(affinity.hellinger)
bhattacharyya = _cell(affinity.bhattacharyya)
renyi = _cell(_renyi)
alpha = _cell(affinity.alpha)
tsallis = _cell(_tsallis)
chi2 = _cell(affinity.chi2)
