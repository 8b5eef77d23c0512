"""Exponential families given by their log-normaliser alone: a convex function of the natural parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kljax import _check, _num
from kljax._jensen import weights
from kljax._quadrature import rule

_NODES = {"float32": (10, 7), "float64": (16, 12)}  # the second rule tells how far off the first may be


class Line(NamedTuple):
    """A log-normaliser along the segment from x to x + h, as functions of t in [0, 1]."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    curvature: Callable[[Array], Array]


def _line(log_normalizer: Callable[[Any], Array], x: Any, h: Any) -> Line:
    def value(t):
        return log_normalizer(jax.tree.map(lambda u, v: u + t * v, x, h))

    def slope(t):
        return jax.jvp(value, (t,), (jnp.ones_like(t),))[1]

    return Line(value, slope, lambda t: jax.jvp(slope, (t,), (jnp.ones_like(t),))[1])


def _integral(integrand: Callable[[Array], Array], like: Array) -> tuple[Array, Array]:
    """The integral over [0, 1], and a bound of its error from a second rule."""

    def of(count):
        nodes, masses = (jnp.asarray(v, like.dtype) for v in rule(count))
        return jnp.sum(masses * jax.vmap(integrand)(nodes))

    fine, coarse = (of(count) for count in _NODES[str(like.dtype)])
    return fine, _num.magnitude(jax.lax.stop_gradient(fine - coarse))


def _better(near: tuple[Array, Array], far: tuple[Array, Array]) -> tuple[Array, Array]:
    """The value with the smaller error bound; nan never wins against a number."""
    chosen = (near[1] <= jax.lax.stop_gradient(far[1])) | ~jnp.isfinite(far[0])
    return jnp.where(chosen, near[0], far[0]), jnp.where(chosen, near[1], far[1])


def _noise(*terms: Array) -> Array:
    return 4 * float(jnp.finfo(terms[0].dtype).eps) * jnp.sum(jnp.stack([_num.magnitude(t) for t in terms]), 0)


def _kl_of_one(log_normalizer, x, y):
    line = _line(log_normalizer, x, jax.tree.map(lambda u, v: v - u, x, y))
    first, last = log_normalizer(x), log_normalizer(y)
    drop = line.slope(jnp.zeros_like(first))
    near = _integral(lambda t: (1 - t) * line.curvature(t), first)
    return _better(near, ((last - first) - drop, _noise(first, last, drop)))[0]


def _chord(line: Line, start: Array, share: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """(A(start + share) - A(start)) / share, also at share = 0, where u and v are the two values."""
    near = _integral(lambda s: line.slope(start + s * share), u)
    some = jnp.where(share > 0, share, 1)
    return _better(near, ((v - u) / some, jnp.where(share > 0, _noise(u, v) / some, jnp.inf)))


def _gap_of_one(log_normalizer, a, x, y):
    """The gap at a >= 0; the three points in order, so that the segment is inside the domain if its ends are."""
    over, w = a > 1, weights(a)
    mixed = jax.tree.map(lambda u, v: jnp.where(a > 0.5, u + (1 - a) * (v - u), v - a * (v - u)), x, y)
    outside = ~jnp.isfinite(log_normalizer(mixed)) & jnp.isfinite(log_normalizer(x) + log_normalizer(y))
    a, b = jnp.where(outside, 0.5, w.a), jnp.where(outside, 0.5, w.b)
    over, step = over & ~outside, jnp.where(outside, 1, w.step)
    lo = jax.tree.map(lambda u, v: jnp.where(over, v, u), x, mixed)
    line = _line(log_normalizer, lo, jax.tree.map(lambda u, v: step * (v - u), x, y))
    near = _integral(lambda s: s * (b * line.curvature(b * s) + a * line.curvature(1 - a * s)), a)
    u, m, v = (line.value(t) for t in (jnp.zeros_like(a), b, jnp.ones_like(a)))
    (first, one), (second, two) = _chord(line, jnp.zeros_like(a), b, u, m), _chord(line, b, a, m, v)
    value = _better(near, (second - first, one + two + _noise(first, second)))[0] / jnp.square(step)
    return jnp.where(outside, jnp.inf, value)


def _batched(cell: str, function, eta_p: Any, eta_q: Any, *parameters: Any) -> Array:
    """`function(*parameters, x, y)` of one event, over the batch."""
    cell = f"kljax.expfam.{cell}"
    (p, structure), (q, other) = (jax.tree.flatten(eta) for eta in (eta_p, eta_q))
    if structure != other:
        raise TypeError(f"{cell}: eta_p is {structure} and eta_q {other}: pass two of one structure")
    leaves = _check.wide(*p, *q)
    names = [f"eta_{side}[{i}]" for side in "pq" for i in range(len(p))]
    whole = _check.fields(cell, [(name, leaf, 1) for name, leaf in zip(names, leaves, strict=True)])
    for i in range(len(p)):
        _check.same_event(cell, f"eta[{i}]", whole[i], whole[len(p) + i], 1)
    batch = whole[0].shape[:-1]
    x, y = (jax.tree.unflatten(structure, whole[i : i + len(p)]) for i in (0, len(p)))
    given = [_check.parameter_for(cell, "order", v, whole[0][..., 0]) for v in parameters]
    for _ in batch:
        function = jax.vmap(function)
    return function(*given, x, y)


def kl_natural(log_normalizer: Callable[[Any], Array], eta_p: Any, eta_q: Any) -> Array:
    """Kullback-Leibler divergence in an exponential family, A(q) - A(p) - (q - p) . grad A(p), in [0, inf].

    `log_normalizer` is A, a function of the natural parameters of one distribution, arrays `[d]` or a pytree of them,
    that returns a scalar and can be differentiated twice. Whether that formula or the integral of (1 - t) g''(t) over
    the segment g between the two, which does not cancel near equality, has the smaller error is decided by estimates
    of both; A'' has to keep its digits where the two are close. A typed family, where there is one, is better still.
    Shapes: eta_p, eta_q `[..., d] -> [...]`, in nats, or pytrees of such arrays with one batch. Leading axes must be
    equal, or one side's shape the tail of the other's; a scalar parameter has shape `(1,)`. Not jitted, as A may differ
    at each call: jit the caller.
    Degenerate input: outside of the domain A may be inf or nan, and so is the value.
    Errors: AssertionError at trace time where shapes do not match, TypeError for two structures or complex numbers.

    >>> import jax.numpy as jnp, kljax
    >>> poisson = lambda eta: jnp.exp(eta[0])
    >>> p, q = jnp.log(jnp.array([2.0])), jnp.log(jnp.array([3.0]))
    >>> print(f"{kljax.expfam.kl_natural(poisson, p, q):.4f}")
    0.1891
    """
    return _batched("kl_natural", lambda x, y: _kl_of_one(log_normalizer, x, y), eta_p, eta_q)


def renyi_natural(log_normalizer: Callable[[Any], Array], eta_p: Any, eta_q: Any, *, order: ArrayLike) -> Array:
    """Renyi divergence in an exponential family, (a A(p) + (1 - a) A(q) - A(a p + (1 - a) q)) / (1 - a), in [0, inf].

    `log_normalizer` is A, as in `kl_natural`. `order` is a in [0, inf), nan elsewhere, as the supremum of log(p/q) does
    not follow from A: 0 at 0, kl at 1. It may be traced, a scalar or one for each row.
    Shapes: eta_p, eta_q `[..., d] -> [...]`, in nats, or pytrees of such arrays with one batch. Leading axes must be
    equal, or one side's shape the tail of the other's; a scalar parameter has shape `(1,)`.
    Degenerate input: +inf where a p + (1 - a) q is outside of the domain, where A has to be inf or nan.
    Errors: AssertionError at trace time where shapes do not match, TypeError for two structures or complex numbers.
    Source: van Erven and Harremoes, Renyi divergence and Kullback-Leibler divergence (2014).

    >>> import jax.numpy as jnp, kljax
    >>> poisson = lambda eta: jnp.exp(eta[0])
    >>> p, q = jnp.log(jnp.array([2.0])), jnp.log(jnp.array([3.0]))
    >>> print(f"{kljax.expfam.renyi_natural(poisson, p, q, order=0.5):.4f}")
    0.1010
    """

    def one(a, x, y):
        ok = (a >= 0) & (a < jnp.inf)
        some = jnp.where(ok & (a > 0), a, 0.5)
        value = some * _gap_of_one(log_normalizer, some, x, y)
        return jnp.where(ok, jnp.where(a > 0, value, 0), jnp.nan)

    return _batched("renyi_natural", one, eta_p, eta_q, order)


kl_natural.__module__ = renyi_natural.__module__ = "kljax.expfam"  # where they are public
