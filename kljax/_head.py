"""Linear heads: the logits of a block of tokens, and loops over blocks in which the logits of all tokens never exist.

A token's outcomes are all present in its block, so that every divergence costs the same products of matrices.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from kljax import _check, _fold, logits

BLOCK = 1 << 21  # logits of one distribution in one block on a CPU: 8 MiB of float32
LARGE = 1 << 26  # and elsewhere
FEWEST = 64  # tokens of a block, below which a product of matrices is slow


class Head(NamedTuple):
    """Logits hidden @ weight + bias, softly capped where `softcap` is given: softcap tanh(logits / softcap)."""

    hidden: ArrayLike  # [..., H]
    weight: ArrayLike  # [H, V]
    bias: ArrayLike | None = None  # [V]
    softcap: ArrayLike | None = None  # a number


class Side(NamedTuple):
    """A head or the most likely outcomes of one, as a loop takes it: what goes by tokens `[T, n]`, and the rest."""

    tokens: tuple[Array, ...]  # hidden states; of a TopK its log-probabilities and its indices
    shared: tuple[Any, ...]  # weight, bias, softcap; nothing of a TopK


class Problem(NamedTuple):
    """The checked arguments of a cell, tokens in one axis."""

    p: Side
    q: Side
    temperature: Array
    where: Array | None  # [V]
    lead: tuple[int, ...]  # the axes that the tokens came in
    outcomes: int


class _Fields(NamedTuple):
    hidden: Array
    weight: Array
    bias: Array | None
    softcap: Array | None


def checked(cell: str, p: Any, q: Any, temperature: ArrayLike, where: ArrayLike | None) -> Problem:
    """Two heads, or a TopK and a head, over one vocabulary and one batch of tokens."""
    cell = f"kljax.heads.{cell}"
    student = _fields(cell, "q", q, "kljax.heads.Head(hidden, weight)")
    outcomes = student.weight.shape[1]
    if isinstance(p, logits.TopK):
        _check.top_k(cell, *p)
        listed = jnp.concatenate(_check.wide(p.logits, p.log_tail[..., None]), -1)
        tokens, shared = (listed, jnp.asarray(p.indices)), ()
    else:
        teacher = _fields(cell, "p", p, "kljax.heads.Head(hidden, weight), or a TopK from kljax.logits.top_k")
        _check.one_event(cell, "p.weight", teacher.weight.shape[1], "q.weight", outcomes, "outcomes")
        tokens, shared = (teacher.hidden,), tuple(teacher[1:])
    lead = _check.batch(cell, "p", tokens[0], "q", student.hidden)[1].shape[:-1]

    def flat(x: Array) -> Array:
        return jnp.broadcast_to(x, (*lead, x.shape[-1])).reshape(-1, x.shape[-1])

    number = jnp.float64 if student.hidden.dtype == jnp.float64 else jnp.float32
    temperature = _check.number(cell, "temperature", temperature, number)
    mask = None if where is None else _check.mask(cell, where, outcomes)
    one, other = Side(tuple(map(flat, tokens)), shared), Side((flat(student.hidden),), tuple(student[1:]))
    return Problem(one, other, temperature, mask, lead, outcomes)


def _fields(cell: str, name: str, head: Any, makers: str) -> _Fields:
    _check.instance(cell, name, head, Head, makers)
    hidden, weight = (jnp.asarray(x) for x in head[:2])
    _check.product(cell, name, hidden, weight, head.bias)
    dtype = jnp.promote_types(hidden.dtype, weight.dtype)
    bias = None if head.bias is None else jnp.asarray(head.bias)
    softcap = None if head.softcap is None else _check.number(cell, f"{name}.softcap", head.softcap, jnp.float32)
    return _Fields(hidden.astype(dtype), weight.astype(dtype), bias, softcap)


def product(hidden: Array, weight: Array) -> Array:
    """hidden @ weight in float32 (float64), as the units for products of halves accumulate it."""
    kind = jnp.float64 if hidden.dtype == jnp.float64 else jnp.float32
    return lax.dot_general(hidden, weight, (((hidden.ndim - 1,), (0,)), ((), ())), preferred_element_type=kind)


def finished(z: Array, bias: Array | None, softcap: Array | None) -> Array:
    """The logits `[T, V]` from the product: biased and capped."""
    if bias is not None:
        z = z + bias.astype(z.dtype)[None]
    if softcap is not None:
        cap = softcap.astype(z.dtype)
        z = cap * jnp.tanh(z / cap)
    return z


def kept(z: Array, where: Array | None) -> Array:
    """-inf where deleted: after all arithmetic, of which the derivative at -inf is 0 * inf."""
    return z if where is None else jnp.where(where[None], z, -jnp.inf)


def pair(p: Side, z_p: Array | None, z_q: Array, problem: Problem) -> tuple[Array, Array]:
    """The two logits of a block from its products: over the vocabulary, or over the outcomes of a TopK and the tail."""
    temperature = problem.temperature.astype(z_q.dtype)
    b = kept(finished(z_q, *problem.q.shared[1:]) / temperature, problem.where)
    if z_p is None:
        listed, indices = p.tokens
        return listed.astype(b.dtype), logits.coarsen(b, indices)
    return kept(finished(z_p, *p.shared[1:]) / temperature, problem.where), b


def tokens_of_a_block(tokens: int, outcomes: int, block: int | None) -> int:
    """How many tokens a block has: blocks as even as can be."""
    if block is None:
        block = max(FEWEST, (BLOCK if _fold.on_cpu() else LARGE) // outcomes)
    return math.ceil(tokens / math.ceil(tokens / max(1, min(block, tokens)))) if tokens else 1


def in_blocks(size: int, tokens: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Arrays `[T, ...]` as `[blocks, size, ...]`, padded with zeros, and the way back."""
    count = jax.tree.leaves(tokens)[0].shape[0]
    blocks = max(1, math.ceil(count / size))

    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, blocks * size - count)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, size, *x.shape[1:])

    return jax.tree.map(cut, tokens), lambda tree: jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[:count], tree)


def by_tokens(function: Callable[[Array, Array], Array], problem: Problem, block: int | None, rest: Any = ()) -> Array:
    """function(logits of p, logits of q, *rest) -> [...] of all tokens, block by block; rest goes by tokens.

    Recomputed for derivatives. What is shared enters the loop in float32, so that its gradient is summed in that.
    """
    shared, kinds = _widened((problem.p.shared, problem.q.shared))

    @jax.checkpoint
    def one(shared, temperature, tokens):
        held = _narrowed(shared, kinds)
        here = problem._replace(q=Side(tokens[1], held[1]), temperature=temperature)
        z_p = product(tokens[0][0], held[0][0]) if held[0] else None
        z_q = product(tokens[1][0], held[1][0])
        return function(*pair(Side(tokens[0], held[0]), z_p, z_q, here), *tokens[2])

    given = problem.p.tokens, problem.q.tokens, rest
    size = tokens_of_a_block(problem.q.tokens[0].shape[0], problem.outcomes, block)
    cut, back = in_blocks(size, given)
    found = back(lax.map(lambda tokens: one(shared, problem.temperature, tokens), cut))
    return found.reshape(problem.lead)


def _widened(tree: Any) -> tuple[Any, Any]:
    return jax.tree.map(lambda x: _check.wide(x)[0], tree), jax.tree.map(lambda x: x.dtype, tree)


def _narrowed(tree: Any, kinds: Any) -> Any:
    return jax.tree.map(lambda x, kind: x.astype(kind), tree, kinds)
