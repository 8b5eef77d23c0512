"""The loss of a linear head: a weighted sum over tokens whose gradient is formed in the forward pass, block by block.

The backward products take the dtype of the hidden states; the gradient of a weight is summed in float32. It is a
custom_vjp, so that only reverse mode works, once; the cells of `heads` have derivatives of any order.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _check, _fold, _head, _softmax, logits
from kljax._head import Head, Problem, Side
from kljax.rows import Row


class _Given(NamedTuple):
    """Everything that a loss depends on, tokens in one axis."""

    row: Row
    problem: Problem
    weights: Array  # [T]
    labels: Array | None  # [T]
    label_weight: Array


class _Products(NamedTuple):
    """What the products of matrices of a block are made of and where their gradient goes."""

    hidden: Array
    weight: Array


def loss(
    column,
    row: Row,
    p,
    q: Head,
    *,
    weights: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    block: int | None = None,
    labels: ArrayLike | None = None,
    label_weight: ArrayLike = 0.0,
) -> Array:
    """Sum over tokens of weights times D(p, q) + label_weight times the cross-entropy to `labels`, for training.

    D is the f-divergence of `row`, such as `kljax.rows.kl`; weights `[...]` are 1 unless given, and a token of weight 0
    is left out even if it holds nan. labels `[...]` are outcomes of q at temperature 1; a negative one has no term. No
    factor temperature^2 is applied. Reverse mode once (jax.grad); a gradient that is not asked for costs nothing.
    @shapes
    @errors
    Source: Hinton, Vinyals and Dean, Distilling the knowledge in a neural network (2015).

    >>> import jax, jax.numpy as jnp, kljax
    >>> p, q = @heads
    >>> print(f"{kljax.heads.loss(kljax.rows.kl, p, q, weights=jnp.array([1.0, 0.0])):.4f}")
    0.5108
    """
    problem = _head.checked("loss", p, q, temperature, where)
    name, like = "kljax.heads.loss", problem.temperature
    row = jax.tree.map(lambda x: _check.number(name, "a parameter of the row", x, like.dtype), row)
    shares = _check.by_tokens(name, "weights", 1.0 if weights is None else weights, problem.lead, like.dtype)
    marked = None if labels is None else _check.by_tokens(name, "labels", labels, problem.lead, jnp.int32)
    label_weight = _check.number(name, "label_weight", label_weight, like.dtype)
    size = _head.tokens_of_a_block(shares.shape[0], problem.outcomes, block)
    lead, outcomes = problem.lead, problem.outcomes
    given = _Given(row, problem._replace(lead=None, outcomes=None), shares, marked, label_weight)
    return _loss((size, lead, outcomes), given)


def _split(given: _Given) -> tuple[Any, _Given]:
    """What goes by tokens, and the rest with None in its place."""
    problem = given.problem
    rest = problem._replace(p=problem.p._replace(tokens=None), q=problem.q._replace(tokens=None))
    tokens = problem.p.tokens, problem.q.tokens, given.weights, given.labels
    return tokens, given._replace(problem=rest, weights=None, labels=None)


def _joined(tokens: Any, rest: _Given) -> _Given:
    p, q, weights, labels = tokens
    problem = rest.problem._replace(p=rest.problem.p._replace(tokens=p), q=rest.problem.q._replace(tokens=q))
    return rest._replace(problem=problem, weights=weights, labels=labels)


def _kept(given: _Given) -> _Given:
    """Tokens of weight 0 without what they hold, which may be nan."""
    keep = (given.weights != 0)[:, None]

    def held(side: Side) -> Side:
        return side._replace(tokens=tuple(jnp.where(keep, x, jnp.zeros((), x.dtype)) for x in side.tokens))

    return given._replace(problem=given.problem._replace(p=held(given.problem.p), q=held(given.problem.q)))


def _factors(given: _Given) -> dict[str, _Products]:
    sides = {"p": given.problem.p, "q": given.problem.q}
    return {name: _Products(side.tokens[0], side.shared[0]) for name, side in sides.items() if side.shared}


def _of_products(given: _Given, z: dict[str, Array]) -> Array:
    """The loss of a block from its products, which hold all that depends on hidden states and weights."""
    problem = given.problem
    a, b = _head.pair(problem.p, z.get("p"), z["q"], problem)
    value = logits.f_divergence(a, b, row=given.row)
    if given.labels is not None:
        plain = _head.kept(_head.finished(z["q"], *problem.q.shared[1:]), problem.where)
        chosen = jnp.maximum(given.labels, 0)[:, None]
        lost = jnp.take_along_axis(plain, chosen, -1) == -jnp.inf
        size = jnp.take_along_axis(_softmax.surprisal(plain)[1], chosen, -1)
        term = jnp.where(lost, jnp.inf, size)[:, 0]
        value = value + given.label_weight * jnp.where(given.labels >= 0, term, 0)
    return jnp.sum(jnp.where(given.weights != 0, given.weights * value, 0))


def _of_block(given: _Given) -> Array:
    given = _kept(given)
    return _of_products(given, {name: _head.product(*x) for name, x in _factors(given).items()})


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(static: tuple[int, tuple[int, ...], int], given: _Given) -> Array:
    tokens, rest = _split(given)
    cut, _ = _head.in_blocks(static[0], tokens)

    def step(total, tokens):
        return total + _of_block(_joined(tokens, rest)), None

    start = jnp.zeros((), given.problem.temperature.dtype)
    return lax.scan(step, _fold.varying(start, given), cut)[0]


def _gradients(given: _Given, wanted: _Given) -> tuple[Array, _Given]:
    """The loss of a block and its gradient in what is wanted, None elsewhere; weights' in float32."""
    keep, given = given.weights != 0, _kept(given)
    factors = _factors(given)
    z = {name: _head.product(*x) for name, x in factors.items()}
    z_wanted = {name: any(x) for name, x in _factors(wanted).items()}
    # the hidden states and weights are constants of the rest, for it reads them through the products alone
    mild = _masked(wanted, {name: (False, False) for name in z})
    leaves, tree = jax.tree.flatten((given, z))
    moving = [i for i, flag in enumerate(jax.tree.leaves((mild, z_wanted))) if flag]

    def value(*some):
        held = list(leaves)
        for i, x in zip(moving, some, strict=True):
            held[i] = x
        return _of_products(*jax.tree.unflatten(tree, held))

    total, pull = jax.vjp(value, *(leaves[i] for i in moving))
    found: list[Any] = [None] * len(leaves)
    for i, g in zip(moving, pull(jnp.ones_like(total)), strict=True):
        found[i] = g
    slopes, turned = jax.tree.unflatten(tree, found)
    return total, _masked(slopes, {n: _backward(factors[n], turned[n], _factors(wanted)[n], keep) for n in z})


def _backward(factors: _Products, g: Array | None, wanted: _Products, keep: Array) -> tuple[Any, Any]:
    """The gradients in hidden and weight, where wanted, from that in their product."""
    if g is None:
        return None, None
    hidden, weight = factors
    g, kind = g.astype(hidden.dtype), g.dtype
    back = over = None
    if wanted.hidden:
        (back,) = jax.linear_transpose(lambda h: h @ weight, hidden)(g)
        back = jnp.where(keep[:, None], back, jnp.zeros((), hidden.dtype))
    if wanted.weight:
        over = lax.dot_general(hidden, g, (((0,), (0,)), ((), ())), preferred_element_type=kind)
    return back, over


def _masked(given: _Given, parts: dict[str, tuple[Any, Any]]) -> _Given:
    """The same with other hidden states and weights."""
    problem = given.problem
    for name, (hidden, weight) in parts.items():
        side = getattr(problem, name)
        side = Side((hidden, *side.tokens[1:]), (weight, *side.shared[1:]))
        problem = problem._replace(**{name: side})
    return given._replace(problem=problem)


def _forward(static, given):
    wanted = jax.tree.map(
        lambda x: x.perturbed and jnp.issubdtype(x.value.dtype, jnp.floating), given, is_leaf=_is_leaf
    )
    given = jax.tree.map(lambda x: x.value, given, is_leaf=_is_leaf)
    tokens, rest = _split(given)
    cut, back = _head.in_blocks(static[0], tokens)

    def step(carried, tokens):
        total, summed = carried
        value, slopes = _gradients(_joined(tokens, rest), wanted)
        by_token, shared = _split(slopes)
        summed = jax.tree.map(jnp.add, summed, shared)
        return (total + value, summed), by_token

    one = jax.tree.map(lambda x: x[0], cut)
    shape, slopes = jax.eval_shape(lambda x: _gradients(_joined(x, rest), wanted), one)
    start = jnp.zeros((), shape.dtype), _zeros(rest, _split(slopes)[1])
    (total, summed), by_token = lax.scan(step, _fold.varying(start, given), cut)
    return total, (given, _joined(back(by_token), summed))


def _zeros(like: _Given, slopes: _Given) -> _Given:
    """Nothing yet of the gradient in what is shared, laid out over a mesh as that is."""
    leaves, tree = jax.tree.flatten(like)
    found = [
        None if s is None else jnp.zeros_like(x, dtype=s.dtype)
        for x, s in zip(leaves, tree.flatten_up_to(slopes), strict=True)
    ]
    return jax.tree.unflatten(tree, found)


def _is_leaf(x: Any) -> bool:
    return isinstance(x, jax.custom_derivatives.CustomVJPPrimal)


def _pulled_back(static, residuals, cotangent):
    given, slopes = residuals

    def one(x: Array, slope: Array | None):
        if slope is None:
            return None
        result = slope.astype(cotangent.dtype) * cotangent
        summed = tuple(_fold.axes_of(result) - _fold.axes_of(x))  # one for all shards: its gradient is their sum
        return (lax.psum(result, summed) if summed else result).astype(x.dtype)

    flat, tree = jax.tree.flatten(given)
    return (jax.tree.unflatten(tree, [one(x, s) for x, s in zip(flat, tree.flatten_up_to(slopes), strict=True)]),)


_loss.defvjp(_forward, _pulled_back, symbolic_zeros=True)
