"""Distributions of distrax, TFP on JAX, numpyro and torch.distributions as those of kljax, none of them imported.

An object is known by the name of its type, or of the nearest base that has a known name, and read by its attributes.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from kljax import _dense, expfam
from kljax.lowrank import LowRank
from kljax.mixture import Mixture
from kljax.mvn import MVN
from kljax.normal import Normal

__all__ = ["convert"]


def _array(x: Any) -> Array:
    """A JAX array of anything array-like; a torch tensor leaves its graph and device, bfloat16 through float32."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if "bfloat16" in str(x.dtype) else x).numpy()
    return jnp.asarray(x)


def _given(d: Any, *names: str) -> tuple[str, Any]:
    """The first of the attributes that was given, not derived: TFP has None for what was not."""
    own = getattr(d, "__dict__", {})
    if own.get("_param") is not None:  # torch caches what it derives beside what it was given
        names = tuple(n for n in names if own.get(n) is own["_param"]) or names
    for lookup in (lambda n: own.get(n), lambda n: own.get(f"_{n}"), lambda n: getattr(d, n, None)):
        for name in names:
            value = lookup(name)
            if value is not None and not callable(value):
                return name, value
    raise TypeError(f"kljax.interop.convert: a {type(d).__name__} without {' or '.join(names)}")


def _field(d: Any, *names: str) -> Array:
    return _array(_given(d, *names)[1])


def _log_weights(d: Any) -> Array:
    """Logits as given, or the logarithms of probabilities as given: libraries clip what they derive from them."""
    kind = type(d).__name__
    names = ("probs",) if kind.endswith("Probs") else ("logits",) if kind.endswith("Logits") else ("logits", "probs")
    name, value = _given(d, *names)
    return jnp.log(_array(value)) if name == "probs" else _array(value)


def _log_odds(d: Any) -> Array:
    kind = type(d).__name__
    names = ("probs",) if kind.endswith("Probs") else ("logits",) if kind.endswith("Logits") else ("logits", "probs")
    name, value = _given(d, *names)
    x = _array(value)
    return jnp.log(x) - jnp.log1p(-x) if name == "probs" else x


def _chance(d: Any) -> Array:
    kind = type(d).__name__
    names = ("logits",) if kind.endswith("Logits") else ("probs", "logits")
    name, value = _given(d, *names)
    x = _array(value)
    return 1 / (1 + jnp.exp(-x)) if name == "logits" else x


def _rate(d: Any) -> Array:
    name, value = _given(d, "rate", "log_rate")
    return jnp.exp(_array(value)) if name == "log_rate" else _array(value)


def _spread(*arrays: Array) -> list[Array]:
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    return [jnp.broadcast_to(x, shape) for x in arrays]


def _loc(d: Any, like: Array, axes: int) -> Array:
    """The mean, zeros where TFP was given none, with the batch of the field `like` that has `axes` event axes."""
    loc = getattr(d, "loc", None)
    shape = like.shape[: like.ndim - axes + 1]
    return jnp.zeros(shape, like.dtype) if loc is None else _array(loc)


def _normal(d: Any) -> Normal:
    return Normal(*_spread(_field(d, "loc"), _field(d, "scale")))


def _diagonal(d: Any) -> Normal:
    """By `scale_diag` (distrax), or by the diagonal of a linear operator (TFP)."""
    scale = getattr(d, "scale_diag", None)
    scale = _array(d.scale.diag_part() if scale is None else scale)
    return Normal(*_spread(_loc(d, scale, 1), scale))


def _batched(loc: Array, matrix: Array) -> MVN:
    lead = np.broadcast_shapes(loc.shape[:-1], matrix.shape[:-2])
    return MVN(jnp.broadcast_to(loc, lead + loc.shape[-1:]), jnp.broadcast_to(matrix, lead + matrix.shape[-2:]))


def _triangular(d: Any) -> MVN:
    """By `scale_tril`, or by a linear operator whose dense form is that."""
    tril = getattr(d, "scale_tril", None)
    if tril is None or callable(tril):
        scale = getattr(d, "scale_tri", None)
        if scale is not None and not getattr(d, "is_lower", True):
            return _dense_scale(_loc(d, _array(scale), 2), _array(scale))
        tril = d.scale.to_dense() if scale is None else scale
    tril = _array(tril)
    signs = jnp.sign(_dense.diagonal(tril))[..., None, :]  # a negative diagonal has the same covariance
    return _batched(_loc(d, tril, 2), tril * jnp.broadcast_to(signs, tril.shape))


def _dense_scale(loc: Array, scale: Array) -> MVN:
    """The covariance scale scale' of any square scale, by QR: it is not formed."""
    upper = jnp.linalg.qr(_dense.turned(scale), mode="r")
    signs = jnp.sign(_dense.diagonal(upper))[..., :, None]
    return _batched(loc, _dense.turned(upper * jnp.broadcast_to(signs, upper.shape)))


def _operator(d: Any) -> MVN:
    """A scale that is diagonal plus low rank (not the covariance): `scale_u_matrix` (distrax) or an operator (TFP)."""
    if hasattr(d, "scale_u_matrix"):
        u, v, diag = (_array(x) for x in (d.scale_u_matrix, d.scale_v_matrix, d.scale_diag))
        scale = _dense.product(u, _dense.turned(v)) + diag[..., None] * jnp.eye(diag.shape[-1], dtype=diag.dtype)
    else:
        scale = _array(d.scale.to_dense())
    return _dense_scale(_loc(d, scale, 2), scale)


def _low_rank(d: Any) -> LowRank:
    factor, diag = _field(d, "cov_factor", "cov_perturb_factor"), _field(d, "cov_diag", "cov_diag_factor")
    loc = _loc(d, diag, 1)
    lead = np.broadcast_shapes(loc.shape[:-1], factor.shape[:-2], diag.shape[:-1])
    size = loc.shape[-1:]
    parts = jnp.broadcast_to(factor, lead + factor.shape[-2:]), jnp.broadcast_to(diag, lead + size)
    return LowRank(jnp.broadcast_to(loc, lead + size), *parts)


def _independent(d: Any) -> Any:
    """Axes of the batch that became axes of the event: one event of all coordinates."""
    base = getattr(d, "base_dist", None) or d.distribution
    made: Any = convert(base)
    count = d.reinterpreted_batch_ndims
    if not count:
        return made
    if not isinstance(made, Normal):
        raise TypeError(
            f"kljax.interop.convert: Independent of a {type(base).__name__}: convert it alone and sum its divergences "
            f"over their last {count} axes; only of a Normal is Independent a distribution of kljax"
        )
    axes = count + len(base.event_shape)
    leaves: Any = made
    return Normal(*(jnp.reshape(x, (*x.shape[: x.ndim - axes], -1)) for x in leaves))


_MATRIX = {MVN: (1, 2), LowRank: (1, 2, 1), expfam.Categorical: (1,), expfam.Dirichlet: (1,)}


def _expanded(d: Any) -> Any:
    """numpyro's `expand`: the batch made larger."""
    made = convert(d.base_dist)
    events = _MATRIX.get(type(made), (len(d.base_dist.event_shape),) * len(made))
    pairs = zip(made, events, strict=True)
    return type(made)(*(jnp.broadcast_to(x, (*d.batch_shape, *x.shape[x.ndim - n :])) for x, n in pairs))


def _mixture(d: Any) -> Mixture:
    weights = getattr(d, "mixture_distribution", None) or d.mixing_distribution
    base = getattr(d, "components_distribution", None) or d.component_distribution
    parts: Any = convert(base)
    if isinstance(parts, Normal) and not base.event_shape:
        parts = Normal(*(jnp.expand_dims(x, -1) for x in parts))
    if not isinstance(parts, Normal | MVN):
        raise TypeError(f"kljax.interop.convert: a mixture of {type(base).__name__}; of Normals and MVNs is known")
    return Mixture(convert(weights).logits, parts)


_TYPES: dict[str, Callable[[Any], Any]] = {
    "Independent": _independent,
    "ExpandedDistribution": _expanded,
    "MixtureSameFamily": _mixture,
    "Normal": _normal,
    "MultivariateNormalDiag": _diagonal,
    "MultivariateNormal": _triangular,
    "MultivariateNormalTri": _triangular,
    "MultivariateNormalTriL": _triangular,
    "MultivariateNormalFullCovariance": _triangular,
    "MultivariateNormalDiagPlusLowRank": _operator,
    "MultivariateNormalLinearOperator": _operator,
    "MultivariateNormalDiagPlusLowRankCovariance": _low_rank,
    "LowRankMultivariateNormal": _low_rank,
    **dict.fromkeys(
        ("Categorical", "CategoricalProbs", "CategoricalLogits", "OneHotCategorical"),
        lambda d: expfam.Categorical(_log_weights(d)),
    ),
    **dict.fromkeys(("Bernoulli", "BernoulliProbs", "BernoulliLogits"), lambda d: expfam.Bernoulli(_log_odds(d))),
    **dict.fromkeys(("Geometric", "GeometricProbs", "GeometricLogits"), lambda d: expfam.Geometric(_chance(d))),
    "Beta": lambda d: expfam.Beta(*_spread(_field(d, "concentration1", "alpha"), _field(d, "concentration0", "beta"))),
    "Gamma": lambda d: expfam.Gamma(*_spread(_field(d, "concentration"), _rate(d))),
    "InverseGamma": lambda d: expfam.InverseGamma(*_spread(_field(d, "concentration"), _field(d, "rate", "scale"))),
    "Dirichlet": lambda d: expfam.Dirichlet(_field(d, "concentration")),
    "Poisson": lambda d: expfam.Poisson(_rate(d)),
    "Exponential": lambda d: expfam.Exponential(_rate(d)),
    "Laplace": lambda d: expfam.Laplace(*_spread(_field(d, "loc"), _field(d, "scale"))),
}


def convert(dist: Any) -> Any:
    """The distribution of kljax that a distribution of distrax, TFP on JAX, numpyro or torch is.

    Normal and diagonal multivariate normals become `kljax.normal.Normal`, other multivariate normals `kljax.mvn.MVN`,
    those whose covariance is low rank plus diagonal `kljax.lowrank.LowRank`; Categorical (by logits, or log of the
    probabilities), Bernoulli, Geometric, Beta, Gamma, InverseGamma, Dirichlet, Poisson, Exponential and Laplace the
    types of `kljax.expfam`; mixtures of normals of one type `kljax.mixture.Mixture`. A scale low rank plus diagonal
    gives an MVN. Parameters are taken as they were given, not derived, so that no library's clipping is in the value.

    Shapes: parameters `[..., D]` keep theirs, broadcast to each other. Independent(Normal, n) is a Normal whose last
    axis holds all coordinates of an event; a Normal that is a batch of scalars `[...]` has no event axis: pass axis=()
    to the cells for one divergence of each.
    Degenerate input: a probability 0 becomes a logit of -inf, no mass. Nothing is checked here; the cells do.
    Errors: TypeError for an object that is not known, with the list of those that are, and for Independent of what is
    no Normal.

    >>> import collections, kljax
    >>> Normal = collections.namedtuple("Normal", "loc scale")  # or distrax.Normal, numpyro.distributions.Normal, ...
    >>> p, q = kljax.interop.convert(Normal([0.0], [1.0])), kljax.interop.convert(Normal([1.0], [2.0]))
    >>> print(f"{kljax.normal.kl(p, q):.4f}")
    0.4431
    """
    if type(dist).__module__.startswith("kljax."):
        return dist
    for base in type(dist).__mro__:
        if base.__name__ in _TYPES:
            return _TYPES[base.__name__](dist)
    where = f"{type(dist).__module__}.{type(dist).__qualname__}"
    raise TypeError(f"kljax.interop.convert: {where} is not known; known are {', '.join(sorted(_TYPES))}")
