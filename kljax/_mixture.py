"""Mixtures as numbers of their pairs of components, and the bounds that follow; every sum of masses is one of logs.

A pair of mixtures becomes a `Pairs`, whose components without mass are standard Gaussians, so that nothing of theirs is
seen, not even nan.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kljax import _num, logits
from kljax._parts import kind

STEPS = 16  # of the alternating minimisation of `coupled`
GUARD = 4  # eps: a bound that is a difference is moved by this much of its terms, so that rounding keeps it a bound


class Pairs(NamedTuple):
    """Log-weights `[..., M]` and `[..., N]`, and of each pair of components kl, gap at 1/2 over 4 and log overlap."""

    log_p: Array
    log_q: Array
    entropy: Array  # [..., M], of each component of p
    within: tuple[Array, Array, Array]  # p with p, [..., M, M]
    across: tuple[Array, Array, Array]  # p with q, [..., M, N]
    cross: Array  # [..., M], a bound of the mean of log q under a component of p, plus the entropy of that
    spread: Array  # [...], the entropy of the Gaussian with the moments of p


def present(weights: Array, components: Any) -> tuple[Array, Array, Any]:
    """Whether there is mass `[...]`, log-weights `[..., M]` and components, standard ones where there is no mass."""
    alive = weights != -jnp.inf
    some = jnp.any(alive, -1)
    weights = jnp.where(some[..., None], weights, 0)
    log_weights = weights - _num.log_total(weights)[..., None]
    leaves = zip(components, kind(components).standard(components), strict=True)
    clean = [jnp.where(alive.reshape(alive.shape + (1,) * (x.ndim - alive.ndim)), x, s) for x, s in leaves]
    return some, log_weights, type(components)(*clean)


def _grid(p: Any, q: Any, axis: int) -> tuple[Any, Any]:
    """Every component of p with every one of q; axis M is at `axis` of logits."""
    m, n = (c.loc.shape[axis] for c in (p, q))

    def spread(x, new, size):
        x = jnp.expand_dims(x, new)
        return jnp.broadcast_to(x, (*x.shape[:new], size, *x.shape[new + 1 :]))

    return type(p)(*(spread(x, axis + 1, n) for x in p)), type(q)(*(spread(x, axis, m) for x in q))


def _numbers(p: Any, q: Any, axis: int) -> tuple[Array, Array, Array]:
    p, q = _grid(p, q, axis)
    known = kind(p)
    return known.kl(p, q), known.bhattacharyya(p, q), known.log_overlap(p, q)


def _tilted(log_q: Array, p: Any, q: Any, kl: Array) -> Array:
    """Jensen's bound of the mean of log(q / h) under each component of p, less its kl to h, the nearest one of q.

    With one component of q it is minus the kl. A mean that diverges is inf, and so is the bound: none.
    """
    axis = log_q.ndim - 1
    near = jnp.argmax(lax.stop_gradient(log_q[..., None, :] - kl), -1)  # [..., M]
    chosen = [jnp.take_along_axis(x, near.reshape(*near.shape, *(1,) * (x.ndim - near.ndim)), axis) for x in q]
    h, _ = _grid(type(q)(*chosen), q, axis)
    table, size = kind(p).tilted(*_grid(p, q, axis), h)
    other = near[..., None] != lax.broadcasted_iota(near.dtype, kl.shape, axis + 1)
    table += lax.stop_gradient(GUARD * float(jnp.finfo(kl.dtype).eps) * size)
    table = jnp.where(other, jnp.where(jnp.isnan(table), jnp.inf, table), 0)
    return log_mix(log_q, table) - jnp.take_along_axis(kl, near[..., None], -1)[..., 0]


def pairs(log_p: Array, p: Any, log_q: Array, q: Any) -> Pairs:
    """The numbers of two mixtures; the compiler drops what a bound does not use."""
    axis = log_p.ndim - 1
    across = _numbers(p, q, axis)
    cross, spread = _tilted(log_q, p, q, across[0]), kind(p).spread(log_p, p)
    return Pairs(log_p, log_q, kind(p).entropy(p), _numbers(p, p, axis), across, cross, spread)


def log_mix(log_weights: Array, table: Array) -> Array:
    """log of the sum over b of weight b e^(table[a, b]) `[..., M]`."""
    return _num.log_total(log_weights[..., None, :] + table)


def mean(log_weights: Array, terms: Array) -> Array:
    """The mean of terms `[..., M]` under the weights; a term without mass is nothing, whatever it is."""
    weights = jnp.exp(log_weights)
    return jnp.sum(weights * jnp.where(weights > 0, terms, 0), -1)


def slack(log_weights: Array, *terms: Array) -> Array:
    """What the rounding of a difference of terms may be."""
    size = jnp.asarray(sum(mean(log_weights, _num.magnitude(t)) for t in terms))
    return lax.stop_gradient(GUARD * float(jnp.finfo(log_weights.dtype).eps) * size)


def least(best: Array, *others: Array) -> Array:
    """The smallest; a nan among the others is no bound, one in the first is a nan of the arguments."""
    for x in others:
        best = jnp.where(x < best, x, best)
    return best


def cost(x: Pairs, weights: tuple[Array, Array], log_t: Array) -> Array:
    """KL of the weights that a channel T `[..., M, N]` makes of those of p, to those of q, plus the mean kl of pairs.

    It bounds the divergence for any T, by the log-sum inequality; every term is >= 0.
    """
    arrived = _num.log_total(jnp.swapaxes(weights[0][..., :, None] + log_t, -1, -2))
    mass = jnp.exp(log_t)
    moved = jnp.sum(mass * jnp.where(mass > 0, x.across[0], 0), -1)
    return logits.kl(arrived, weights[1]) + mean(x.log_p, moved)


def coupled(x: Pairs) -> Array:
    """log T after STEPS steps down from T = the weights of q, each to the optimum for the weights that arrived."""
    dear = jnp.minimum(x.across[0], float(jnp.finfo(x.log_p.dtype).max) ** 0.5)

    def step(log_t, _):
        arrived = _num.log_total(jnp.swapaxes(x.log_p[..., :, None] + log_t, -1, -2))
        some = arrived > -jnp.inf  # an unused component of q: -inf + inf otherwise
        gain = jnp.where(some, x.log_q - jnp.where(some, arrived, 0), 0)
        log_t = log_t + (gain[..., None, :] - dear)
        return log_t - _num.log_total(log_t)[..., None], None

    start = jnp.broadcast_to(x.log_q[..., None, :], dear.shape)
    return lax.scan(step, start, None, length=STEPS)[0]


def nearest(x: Pairs) -> Array:
    """log T to the nearest component of q alone, to equal ones by their weights: it sees permuted and split ones."""
    kl = lax.stop_gradient(jnp.where(x.log_q[..., None, :] == -jnp.inf, jnp.inf, x.across[0]))
    tied = kl == jnp.min(kl, -1, keepdims=True)
    log_t = jnp.where(tied, jnp.broadcast_to(x.log_q[..., None, :], kl.shape), -jnp.inf)
    return log_t - _num.log_total(log_t)[..., None]


def upper(x: Pairs, weights: tuple[Array, Array]) -> Array:
    """The least of five upper bounds of the divergence, `mixture.kl_upper`."""
    bounds = [cost(x, weights, coupled(x)), cost(x, weights, nearest(x))]
    if x.log_p.shape == x.log_q.shape:  # component a with component a
        diagonal = jnp.diagonal(x.across[0], axis1=-2, axis2=-1)
        bounds.append(logits.kl(*weights) + mean(x.log_p, diagonal))
    cross = log_mix(x.log_q, -x.across[0])
    for own in (log_mix(x.log_p, -x.within[1]), log_mix(x.log_p, x.within[2]) + x.entropy):
        bounds.append(mean(x.log_p, own - cross) + slack(x.log_p, own, cross, x.entropy))
    return least(*bounds)


def _overlap(x: Pairs) -> Array:
    """-2 log of a bound on the integral of sqrt(p q), the sum of all sqrt(weights) e^-bhattacharyya."""
    table = 0.5 * (x.log_p[..., :, None] + x.log_q[..., None, :]) - x.across[1]
    value = -2 * _num.log_total(table.reshape(*table.shape[:-2], -1))
    return value - GUARD * float(jnp.finfo(value.dtype).eps) * (1 + lax.stop_gradient(value))


def lower(x: Pairs) -> Array:
    """The largest of 0 and three lower bounds of the divergence, `mixture.kl_lower`."""
    if x.log_p.shape[-1] == x.log_q.shape[-1] == 1:
        return x.across[0][..., 0, 0]
    own = log_mix(x.log_p, -x.within[0])
    overlap = log_mix(x.log_q, x.across[2]) + x.entropy
    affinity = 2 * log_mix(0.5 * x.log_q, -x.across[1])
    cross = least(affinity, overlap, x.cross)
    less = slack(x.log_p, own, cross, x.entropy)
    bounds = mean(x.log_p, own - cross) - less, -x.spread - mean(x.log_p, cross - x.entropy) - less
    return 0 - least(jnp.where(jnp.isnan(bounds[0]), jnp.nan, 0), *(-b for b in bounds), -_overlap(x))


def variational(x: Pairs) -> Array:
    """The mean over p's components of log(sum of weights e^-kl in p / the same in q)."""
    return mean(x.log_p, log_mix(x.log_p, -x.within[0]) - log_mix(x.log_q, -x.across[0]))


def product(x: Pairs) -> Array:
    """The mean over p's components of log(sum of weights times overlap in p / the same in q)."""
    return mean(x.log_p, log_mix(x.log_p, x.within[2]) - log_mix(x.log_q, x.across[2]))


def same(p: Any, q: Any) -> Array:
    """Where two mixtures have equal parameters `[...]`."""
    leaves = list(zip(jax.tree.leaves(p), jax.tree.leaves(q), strict=True))
    if any(a.shape != b.shape for a, b in leaves):
        return jnp.zeros(leaves[0][0].shape[:-1], bool)
    lead = leaves[0][0].ndim - 1
    return jnp.all(jnp.stack([jnp.all(a == b, tuple(range(lead, a.ndim))) for a, b in leaves]), 0)


def entropy_bounds(log_p: Array, p: Any) -> tuple[Array, Array]:
    """The bounds of Kolchinsky and Tracey on the entropy, the lower one with Jensen's."""
    kl, apart, overlap = _numbers(p, p, log_p.ndim - 1)
    known = kind(p).entropy(p)
    high = least(mean(log_p, known - log_mix(log_p, -kl)), kind(p).spread(log_p, p))
    low = mean(log_p, known - log_mix(log_p, -apart))
    return -least(-low, mean(log_p, log_mix(log_p, overlap))), high
