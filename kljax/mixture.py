"""Mixtures of Gaussians: no divergence of theirs has a closed form, so that there are bounds and two approximations.

`kl_lower <= kl <= kl_upper` always; `kl_variational` and `kl_product` are neither. Cells compare two `Mixture` whose
components are both `kljax.normal.Normal` or both `kljax.mvn.MVN`; the numbers of components may differ. A component
with logit -inf does not exist: nothing of it is seen, not even nan, and its gradient is 0.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _check, _dense, _mixture, _num, _parts
from kljax._normal import Normal
from kljax.mvn import MVN

__all__ = [
    "Mixture", "entropy_lower", "entropy_upper", "kl_lower", "kl_product", "kl_upper", "kl_variational", "log_prob",
    "sample",
]  # fmt: skip


class Mixture(NamedTuple):
    """M components, a Normal or an MVN with axis M before the event, and the logarithms of their weights."""

    logits: Any  # [..., M], unnormalised
    components: Any  # Normal([..., M, D], [..., M, D]) or MVN([..., M, D], [..., M, D, D])


def _valid(components: Any) -> Any:
    """nan for what is no standard deviation or factor; only the lower triangle of a factor is read."""
    loc, scale = components
    sizes = scale if isinstance(components, Normal) else _dense.diagonal(scale)
    ok = jnp.isfinite(sizes) & (sizes >= _num.tiny(sizes))
    if isinstance(components, Normal):
        return Normal(loc, jnp.where(ok, scale, jnp.nan))
    return MVN(loc, jnp.where(jnp.all(ok, -1)[..., None, None], jnp.tril(scale), jnp.nan))


def _checked(cell: str, *given: Any, x: ArrayLike | None = None) -> tuple[Any, ...]:
    """The mixtures, and x if there is one, in one dtype and of one batch."""
    cell = f"kljax.mixture.{cell}"
    for name, d in zip("pq", given, strict=False):
        _check.instance(cell, name, d, Mixture, "Mixture(logits, components)")
        if not isinstance(d.components, MVN):
            _check.instance(cell, f"{name}.components", d.components, Normal, "Normal or MVN with axis M")
    if len(given) == 2:
        hint = "kljax.mvn.from_normal turns a Normal into an MVN"
        _check.same_type(f"{cell} (components)", given[0].components, given[1].components, hint)
    leaves = _check.wide(*(a for d in given for a in (d.logits, *d.components)), *([] if x is None else [x]))
    rank = 2 if isinstance(given[0].components, Normal) else 3
    fields, sizes = [], []
    for i, name in zip(range(len(given)), "pq", strict=False):
        logits, loc, scale = leaves[3 * i : 3 * i + 3]
        scale = jnp.broadcast_to(scale, loc.shape) if scale.ndim == 0 else scale
        sizes.append(_check.weighted(cell, name, logits, loc, scale, (0,) * (rank - 1)))
        fields += [(f"{name}.logits", logits, 1), (f"{name}.components.loc", loc, 2)]
        fields.append((f"{name}.components.{given[i].components._fields[1]}", scale, rank))
    if len(given) == 2:
        _check.one_event(cell, "p", sizes[0], "q", sizes[1])
    if x is not None:
        _check.one_event(cell, "p", sizes[0], "x", leaves[-1].shape[-1] if leaves[-1].ndim else 0)
        fields.append(("x", leaves[-1], 1))
    whole = _check.together(cell, fields)
    made = [
        Mixture(whole[3 * i], _valid(type(d.components)(*whole[3 * i + 1 : 3 * i + 3]))) for i, d in enumerate(given)
    ]
    return (*made, *whole[3 * len(given) :])


def _pair(cell: str, p: Mixture, q: Mixture) -> tuple[Mixture, Mixture, _mixture.Pairs, Array]:
    """The checked mixtures, the numbers of their pairs, and where both have mass."""
    p, q = _checked(cell, p, q)
    some_p, log_p, parts_p = _mixture.present(*p)
    some_q, log_q, parts_q = _mixture.present(*q)
    return p, q, _mixture.pairs(log_p, parts_p, log_q, parts_q), some_p & some_q


def _zero_at_equality(p: Mixture, q: Mixture, value: Array) -> Array:
    """The value, exactly 0 where the two are equal; the slope there is not 0 and stays."""
    return value - jnp.where(_mixture.same(p, q), lax.stop_gradient(value), 0)


@jax.jit
def kl_upper(p: Mixture, q: Mixture) -> Array:
    """An upper bound of integral of p log(p/q), in [0, inf]: the least of five, each from closed forms.

    With w, v the weights and f, g the components of p, q, and D(a, b) = kl(f_a, g_b):
    1 kl(wT, v) + sum w_a T_ab D(a, b), a channel T from p's components to q's, after 16 steps of alternating
    minimisation from T_ab = v_b, which is the convexity bound, each of which lowers it;
    2 the same with T to the nearest component; 3 with component a to a, where the numbers of components are equal;
    4 sum w_a log(sum w_c e^-B(a, c) / sum v_b e^-D(a, b)), B the Bhattacharyya distance (Kolchinsky-Tracey);
    5 Durrieu's: in place of e^-B the overlap of f_a and f_c times the exponential of the entropy of f_a.
    1 to 3 are sums of terms >= 0, 0 at p = q; 2 is about 0 too where components are permuted or split. The gradient is
    that of the least.

    Shapes: p `Mixture([..., M], components [..., M, D]) -> [...]`, q with its own M, in nats; batches equal or one the
    tail of the other's. Time and memory are O(M N) pairs.
    Degenerate input: no mass makes its own row nan (gradient 0), so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.
    Source: Hershey and Olsen, Approximating the KL divergence between Gaussian mixture models (2007); Durrieu, Thiran
    and Kelly, Lower and upper bounds for approximation of the KL divergence between Gaussian mixture models (2012).

    >>> import jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-1.0], [1.0]]), 1.0))
    >>> q = kljax.mixture.Mixture(jnp.zeros(1), kljax.normal.Normal(jnp.zeros((1, 1)), 1.5))
    >>> print(f"{kljax.mixture.kl_upper(p, q):.4f}")
    0.1235
    """
    p, q, x, ok = _pair("kl_upper", p, q)
    return jnp.where(ok, _mixture.upper(x, (p.logits, q.logits)), jnp.nan)


@jax.jit
def kl_lower(p: Mixture, q: Mixture) -> Array:
    """A lower bound of integral of p log(p/q), in [0, inf]: the largest of 0 and three from closed forms.

    With w, v the weights, f, g the components, B the Bhattacharyya distance and H_a the entropy of f_a, a bound is
    sum w_a (log sum w_c e^-kl(f_a, f_c) - c_a), where c_a - H_a bounds the mean of log q under f_a. c_a is the least of
    H_a + log sum v_b <f_a, g_b> (Durrieu's), 2 log sum sqrt(v_b) e^-B(a, b), and Jensen's -kl(f_a, h) + log sum v_b
    mean_a(g_b / h) at the nearest component h of q, where these means are finite. Another has minus the entropy of the
    Gaussian with p's moments in place of the first part, less H_a: the two are exact if p has one component, the c_a if
    q has. The third is -2 log(sum sqrt(w_a v_b) e^-B(a, b)). All may be negative, where 0 is the answer and its slope
    0. They are lowered by 4 eps of their terms, so that rounding keeps them bounds. With one component on each side
    the value is the divergence itself.

    Shapes: p `Mixture([..., M], components [..., M, D]) -> [...]`, q with its own M, in nats; batches equal or one the
    tail of the other's. Time and memory are O(M N) pairs.
    Degenerate input: no mass makes its own row nan (gradient 0), so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.
    Source: Durrieu, Thiran and Kelly, Lower and upper bounds for approximation of the KL divergence between Gaussian
    mixture models (2012).

    >>> import jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-3.0], [3.0]]), 1.0))
    >>> q = kljax.mixture.Mixture(jnp.zeros(1), kljax.normal.Normal(jnp.zeros((1, 1)), 1.0))
    >>> print(f"{kljax.mixture.kl_lower(p, q):.4f}")
    3.8068
    """
    _, _, x, ok = _pair("kl_lower", p, q)
    return jnp.where(ok, _mixture.lower(x), jnp.nan)


@jax.jit
def kl_variational(p: Mixture, q: Mixture) -> Array:
    """The variational approximation of kl, sum w_a log(sum w_c e^-kl(f_a, f_c) / sum v_b e^-kl(f_a, g_b)), any real.

    w, v are the weights and f, g the components of p, q. It is no bound and may be negative; it is 0 at p = q, and kl
    itself with one component on each side. Near p = q it is a difference, known to eps of its terms.

    Shapes: p `Mixture([..., M], components [..., M, D]) -> [...]`, q with its own M, in nats; batches equal or one the
    tail of the other's. Time and memory are O(M N) pairs.
    Degenerate input: no mass makes its own row nan (gradient 0), so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.
    Source: Hershey and Olsen, Approximating the KL divergence between Gaussian mixture models (2007).

    >>> import jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-1.0], [1.0]]), 1.0))
    >>> q = kljax.mixture.Mixture(jnp.zeros(1), kljax.normal.Normal(jnp.zeros((1, 1)), 1.5))
    >>> print(f"{kljax.mixture.kl_variational(p, q):.4f}")
    -0.2163
    """
    p, q, x, ok = _pair("kl_variational", p, q)
    return jnp.where(ok, _zero_at_equality(p, q, _mixture.variational(x)), jnp.nan)


@jax.jit
def kl_product(p: Mixture, q: Mixture) -> Array:
    """The product approximation of kl, sum w_a log(sum w_c <f_a, f_c> / sum v_b <f_a, g_b>), any real.

    <f, g> is the integral of f g; w, v are the weights and f, g the components of p, q. It is no bound, may be
    negative, is 0 at p = q, and is not kl with one component on each side. Near p = q it is a difference, known to eps
    of its terms. nan where the sum of two covariances has no Cholesky factor.

    Shapes: p `Mixture([..., M], components [..., M, D]) -> [...]`, q with its own M, in nats; batches equal or one the
    tail of the other's. Time and memory are O(M N) pairs.
    Degenerate input: no mass makes its own row nan (gradient 0), so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.
    Source: Hershey and Olsen, Approximating the KL divergence between Gaussian mixture models (2007).

    >>> import jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-1.0], [1.0]]), 1.0))
    >>> q = kljax.mixture.Mixture(jnp.zeros(1), kljax.normal.Normal(jnp.zeros((1, 1)), 1.5))
    >>> print(f"{kljax.mixture.kl_product(p, q):.4f}")
    0.0167
    """
    p, q, x, ok = _pair("kl_product", p, q)
    return jnp.where(ok, _zero_at_equality(p, q, _mixture.product(x)), jnp.nan)


def _entropy(cell: str, p: Mixture, which: int) -> Array:
    (p,) = _checked(cell, p)
    some, log_p, parts = _mixture.present(*p)
    return jnp.where(some, _mixture.entropy_bounds(log_p, parts)[which], jnp.nan)


@jax.jit
def entropy_upper(p: Mixture) -> Array:
    """An upper bound of -integral of p log p, sum w_a (H_a - log sum w_c e^-kl(f_a, f_c)), in [-inf, inf].

    w are the weights, f the components and H_a their entropies; it is at most the weights' entropy above sum w_a H_a.
    Or, where it is less, the entropy of the Gaussian with the mixture's mean and covariance (of Normals: variances).

    Shapes: p `Mixture([..., M], components [..., M, D]) -> [...]`, in nats. Time and memory are O(M^2) pairs.
    Degenerate input: no mass makes its own row nan (gradient 0), so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.
    Source: Kolchinsky and Tracey, Estimating mixture entropy with pairwise distances (2017).

    >>> import jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-1.0], [1.0]]), 1.0))
    >>> print(f"{kljax.mixture.entropy_upper(p):.4f}")
    1.7655
    """
    return _entropy("entropy_upper", p, 1)


@jax.jit
def entropy_lower(p: Mixture) -> Array:
    """A lower bound of -integral of p log p, sum w_a (H_a - log sum w_c e^-B(f_a, f_c)), in [-inf, inf].

    w are the weights, f the components, H_a their entropies and B the Bhattacharyya distance; or, where it is larger,
    Jensen's -sum w_a log(sum w_c <f_a, f_c>), <f, g> the integral of f g.

    Shapes: p `Mixture([..., M], components [..., M, D]) -> [...]`, in nats. Time and memory are O(M^2) pairs.
    Degenerate input: no mass makes its own row nan (gradient 0), so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.
    Source: Kolchinsky and Tracey, Estimating mixture entropy with pairwise distances (2017).

    >>> import jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-1.0], [1.0]]), 1.0))
    >>> print(f"{kljax.mixture.entropy_lower(p):.4f}")
    1.6454
    """
    return _entropy("entropy_lower", p, 0)


@jax.jit
def log_prob(p: Mixture, x: ArrayLike) -> Array:
    """The logarithm of the density of p at x, in [-inf, inf].

    Shapes: p `Mixture([..., M], components [..., M, D])`, x `[..., D] -> [...]`; batches equal or one the tail of the
    other.
    Degenerate input: no mass makes its own row nan (gradient 0), so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.

    >>> import jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-1.0], [1.0]]), 1.0))
    >>> print(f"{kljax.mixture.log_prob(p, [0.0]):.4f}")
    -1.4189
    """
    p, points = _checked("log_prob", p, x=x)
    some, log_p, parts = _mixture.present(*p)
    points = jnp.broadcast_to(points[..., None, :], parts.loc.shape)
    return jnp.where(some, _num.log_total(log_p + _parts.kind(parts).log_prob(parts, points)), jnp.nan)


@functools.partial(jax.jit, static_argnames="shape")
def sample(key: Array, p: Mixture, shape: tuple[int, ...] = ()) -> Array:
    """Draws from p, loc + scale e of a component drawn by weight, e standard normal.

    Differentiable in loc and scale of the drawn component, but not in the weights, whose gradient is 0.

    Shapes: p `Mixture([..., M], components [..., M, D]) -> shape + [..., D]`.
    Degenerate input: no mass makes its own row nan, so do a nan and a scale that is not positive.
    Errors: AssertionError at trace time where shapes do not match, TypeError for other types or complex numbers.

    >>> import jax, jax.numpy as jnp, kljax
    >>> p = kljax.mixture.Mixture(jnp.zeros(2), kljax.normal.Normal(jnp.array([[-1.0], [1.0]]), 1.0))
    >>> print(kljax.mixture.sample(jax.random.key(0), p, (5,)).shape)
    (5, 1)
    """
    (p,) = _checked("sample", p)
    some, log_p, parts = _mixture.present(*p)
    keys, whole = jax.random.split(key), (*shape, *some.shape)
    drawn = jax.random.categorical(keys[0], lax.stop_gradient(log_p), shape=whole)

    def pick(a):
        a = jnp.broadcast_to(a, (*shape, *a.shape))
        index = drawn.reshape(*whole, *(1,) * (a.ndim - len(whole)))
        return jnp.take_along_axis(a, index, len(whole)).squeeze(len(whole))

    loc, scale = (pick(a) for a in parts)
    noise = jax.random.normal(keys[1], loc.shape, loc.dtype)
    moved = scale * noise if scale.ndim == loc.ndim else _dense.product(scale, noise[..., None])[..., 0]
    some = jnp.broadcast_to(some, whole)[..., None]
    return jnp.where(some, loc + moved, jnp.nan)
