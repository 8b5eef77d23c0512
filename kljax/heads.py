"""Divergences between the softmaxes of linear heads over a vocabulary, whose logits are never held whole.

`kl(p, q)` and the others are values a token; `loss` is their weighted sum with its gradient, for training.
"""

import inspect
from typing import Any

from jax import Array
from jax.typing import ArrayLike

from kljax import _bind, _check, _head, _head_loss, logits
from kljax._head import Head

__all__ = [
    "Head",
    "alpha",
    "hellinger_sq",
    "jeffreys",
    "js",
    "kl",
    "loss",
    "renyi",
    "reverse_kl",
    "scaled_js",
    "tv",
]

_TEXT = {
    "@shapes": """p, q are `Head(hidden, weight, bias=None, softcap=None)`, whose logits are divided by `temperature`.

    Shapes: hidden `[..., H]`, weight `[H, V]`, bias `[V] -> [...]`, in nats; H may differ between p and q. `where`
    `[V]` keeps the outcomes that are True. p may be a `logits.TopK`, taken as it is (make it from logits over the
    temperature): then the k outcomes and the tail are compared, a lower bound. `block` tokens at a time have logits, in
    float32, in the derivatives of any order too; chosen by size unless given.
    Zero mass: outcomes that `where` deletes have none; see the cell of the same name in `kljax.logits`.""",
    "@errors": "Errors: AssertionError at trace time where shapes do not match, TypeError where p or q is no head.",
    "@heads": "kljax.heads.Head(jnp.eye(2), jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))), kljax.heads.Head("
    "jnp.eye(2), jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]])))",
}


class _Column:
    name = "heads"


_SHARED = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, default, kind in (
        ("temperature", 1.0, ArrayLike), ("where", None, ArrayLike | None), ("block", None, int | None)
    )
)  # fmt: skip


def _public(function):
    return _bind.public(_Column, function, _TEXT, _SHARED)


def _tokens(name: str, p: Any, q: Head, *, temperature=1.0, where=None, block=None, **options) -> Array:
    problem = _head.checked(name, p, q, temperature, where)
    cell, like = getattr(logits, name), problem.temperature
    rest = {
        key: _check.by_tokens(f"kljax.heads.{name}", key, x, problem.lead, like.dtype) for key, x in options.items()
    }

    def value(a: Array, b: Array, *given: Array) -> Array:
        return cell(a, b, **dict(zip(rest, given, strict=True)))

    return _head.by_tokens(value, problem, block, tuple(rest.values()))


def _kl(column, p: Any, q: Head, **shared) -> Array:
    """Kullback-Leibler divergence of every token, sum of p log(p/q), in [0, inf].

    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.kl(p, q)])
    ['0.5108', '0.3681']
    """
    return _tokens("kl", p, q, **shared)


def _reverse_kl(column, p: Any, q: Head, **shared) -> Array:
    """Reverse Kullback-Leibler divergence of every token, kl(q, p) = sum of q log(q/p), in [0, inf].

    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.reverse_kl(p, q)])
    ['0.3681', '0.5108']
    """
    return _tokens("reverse_kl", p, q, **shared)


def _jeffreys(column, p: Any, q: Head, **shared) -> Array:
    """Jeffreys divergence of every token, kl(p, q) + kl(q, p), in [0, inf].

    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.jeffreys(p, q)])
    ['0.8789', '0.8789']
    """
    return _tokens("jeffreys", p, q, **shared)


def _js(column, p: Any, q: Head, *, weight: ArrayLike = 0.5, **shared) -> Array:
    """Jensen-Shannon divergence of every token, w kl(p, m) + (1 - w) kl(q, m), m = w p + (1 - w) q, in [0, H(w)].

    `weight` is w, the weight of p, a number or one a token.
    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.js(p, q)])
    ['0.1017', '0.1017']
    """
    return _tokens("js", p, q, weight=weight, **shared)


def _scaled_js(column, p: Any, q: Head, *, weight: ArrayLike, **shared) -> Array:
    """Jensen-Shannon divergence of every token over w (1 - w), in [0, inf]: kl(p, q) at w = 0, kl(q, p) at w = 1.

    `weight` is w, the weight of p, a number or one a token.
    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.scaled_js(p, q, weight=0.0)])
    ['0.5108', '0.3681']
    """
    return _tokens("scaled_js", p, q, weight=weight, **shared)


def _tv(column, p: Any, q: Head, **shared) -> Array:
    """Total variation distance of every token, sum of |p - q| / 2, in [0, 1].

    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.tv(p, q)])
    ['0.4000', '0.4000']
    """
    return _tokens("tv", p, q, **shared)


def _hellinger_sq(column, p: Any, q: Head, **shared) -> Array:
    """Squared Hellinger distance of every token, 1 - sum of sqrt(p q), in [0, 1].

    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.hellinger_sq(p, q)])
    ['0.1056', '0.1056']
    """
    return _tokens("hellinger_sq", p, q, **shared)


def _renyi(column, p: Any, q: Head, *, order: ArrayLike, **shared) -> Array:
    """Renyi divergence of every token, log(sum of p^a q^(1-a)) / (a - 1), in [0, inf].

    `order` is a >= 0, a number or one a token.
    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.renyi(p, q, order=2.0)])
    ['1.0217', '0.4947']
    """
    return _tokens("renyi", p, q, order=order, **shared)


def _alpha(column, p: Any, q: Head, *, order: ArrayLike, **shared) -> Array:
    """Alpha divergence of every token, (sum of p^a q^(1-a) - 1) / (a (a - 1)), in [0, inf].

    `order` is a, any real number, one for all or one a token.
    @shapes
    @errors

    >>> import jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print([f"{v:.4f}" for v in kljax.heads.alpha(p, q, order=2.0)])
    ['0.8889', '0.3200']
    """
    return _tokens("alpha", p, q, order=order, **shared)


kl = _public(_kl)
reverse_kl = _public(_reverse_kl)
jeffreys = _public(_jeffreys)
js = _public(_js)
scaled_js = _public(_scaled_js)
tv = _public(_tv)
hellinger_sq = _public(_hellinger_sq)
renyi = _public(_renyi)
alpha = _public(_alpha)
loss = _bind.public(
    _Column, _head_loss.loss, _TEXT | {"@shapes": _TEXT["@shapes"].replace("`[V] -> [...]`", "`[V] -> []`")}
)
