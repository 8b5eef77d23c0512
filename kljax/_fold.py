"""Large event axes: the mergeable statistic of a pair of softmaxes, and evaluation over blocks of rows.

A divergence between two softmaxes is a fold over outcomes. The statistic of a set of outcomes holds, relative to the
outcome where p is largest, the mean c of the log-ratio r = a - b under p and how far E_p[e^(c - r)] is above 1; both
are accurate near p = q, where two log-normalisers subtracted from one another have no digit in common with the answer.
Statistics of two sets merge into that of their union. On a GPU or TPU the whole fold is one variadic reduction, which
reads each logit once; on a CPU, plain reductions over blocks of rows that stay in its cache are faster.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kljax import _num

T = TypeVar("T")

BLOCK = 1 << 19  # elements of an array in one block on a CPU: 2 MiB of float32
LARGE = 1 << 22  # and elsewhere, where a rare case needs as much memory as many arrays
_IN_A_LOOP: list[bool] = []  # while the body of a loop over blocks is traced
TARGET: str | None = None  # "gpu" to compile for one without having one, before anything is traced


class Fold(NamedTuple):
    """What a set of outcomes leaves of two rows of logits a, b: as few numbers as will do, for they are all stored."""

    top: Array  # the largest a, and
    other: Array  # the b of that outcome: r is measured from theirs, and logits from these
    mass: Array  # sum of e^(a - top), negative where p has mass and q has none
    mean: Array  # c, the mean of r = (a - top) - (b - other) under p
    excess: Array  # sum of e^(a - top) phi(c - r), phi(x) = e^x - 1 - x; where p has no mass, e^(b - other + c)
    top_q: Array  # the largest b
    mass_q: Array  # sum of e^(b - top_q)


class Sums(NamedTuple):
    """What whole rows of logits a, b leave, all `[..., 1]`."""

    from_p: Array  # what a and b are measured from where their difference is formed
    from_q: Array
    top_p: Array  # the largest of each, 0 in a row without mass
    top_q: Array
    mass_p: Array  # the sums of e^(a - top_p), e^(b - top_q)
    mass_q: Array
    shift: Array  # the log-normaliser of a - from_p minus that of b - from_q

    def swap(self) -> "Sums":
        """Those of (b, a)."""
        return Sums(self.from_q, self.from_p, self.top_q, self.top_p, self.mass_q, self.mass_p, -self.shift)


def element(a: Array, b: Array) -> Fold:
    """The statistic of single outcomes; all but `top_q` is finite, whatever has no mass."""
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    in_p, in_q = a != -jnp.inf, b != -jnp.inf
    top, other = jnp.where(in_p, a, jnp.where(in_q, b, 0)), jnp.where(in_q, b, jnp.where(in_p, a, 0))
    spoil = 0 * (top + other)  # nan where an input is nan or inf
    mass = jnp.where(in_p, jnp.where(in_q, one, -one), zero) + spoil
    return Fold(top, other, mass, zero, jnp.where(in_q & ~in_p, one, zero), b, jnp.where(in_q, one, zero))


def empty(like: Array) -> Fold:
    """The statistic of no outcome."""
    zero = jnp.zeros_like(like)
    return Fold(zero, zero, zero, zero, zero, jnp.full_like(like, -jnp.inf), zero)


def merge(x: Fold, y: Fold) -> Fold:
    """The statistic of two sets of outcomes that have none in common."""
    first = (x.mass != 0) & ((y.mass == 0) | (x.top >= y.top))  # the one whose mode is the mode
    first |= (x.mass == 0) & (y.mass == 0) & (x.mass_q > 0)
    hi, lo = (Fold(*(jnp.where(first, u, v) for u, v in zip(*two, strict=True))) for two in ((x, y), (y, x)))
    lost = (x.mass < 0) | (y.mass < 0)
    some = lo.mass != 0
    base = jnp.abs(hi.mass)
    share = jnp.where(some, jnp.exp(jnp.where(some, lo.top - hi.top, 0)), 0) * jnp.abs(lo.mass)
    mass = base + share
    whole = jnp.where(mass != 0, mass, 1)
    (dp, rest_p), (dq, rest_q) = _num.two_difference(lo.top, hi.top), _num.two_difference(lo.other, hi.other)
    step = (dp - dq) + (rest_p - rest_q)  # r of one mode seen from the other
    apart = jnp.where(some, step + lo.mean - hi.mean, 0)
    up = share / whole * apart
    mean = hi.mean + up
    excess = _moved(base, hi.excess, up, jnp.zeros_like(up))
    excess += _moved(jnp.abs(lo.mass), lo.excess, jnp.where(some, -(base / whole) * apart, mean - lo.mean - step), dp)
    top_q = jnp.maximum(x.top_q, y.top_q)
    down_x, down_y = (jnp.where(v.top_q == -jnp.inf, 0, v.top_q - top_q) for v in (x, y))
    mass_q = x.mass_q * jnp.exp(down_x) + y.mass_q * jnp.exp(down_y)
    return Fold(hi.top, hi.other, jnp.where(lost, -mass, mass), mean, excess, top_q, mass_q)


def _moved(mass: Array, excess: Array, move: Array, down: Array) -> Array:
    """e^down (mass phi(move) + e^move excess): `excess` for a mean that lies `move` higher and a mode that does."""
    near = jnp.abs(move) < 1
    small = jnp.where(near, move, 0)
    scale = jnp.where(mass != 0, jnp.exp(jnp.where(mass != 0, down, 0)), 0)
    bend = small * small * _num.exp_remainder_near(small)
    grown = jnp.exp(down + move)
    far = jnp.where(mass != 0, grown, 0) * mass - scale * mass * (1 + move)
    return jnp.where(near, scale * mass * bend, far) + jnp.where(excess != 0, grown * excess, 0)


def swept(a: Array, b: Array) -> Fold:
    """The statistic of whole rows by one variadic reduction, kept as an axis of size 1."""
    start = Fold(*(x[()] for x in empty(jnp.zeros((), a.dtype))))
    axis = a.ndim - 1
    found = lax.reduce(element(a, b), start, lambda x, y: merge(Fold(*x), Fold(*y)), (axis,))
    return Fold(*(jnp.expand_dims(v, axis) for v in found))


def sums(fold: Fold) -> Sums:
    """What whole rows leave."""
    mass = jnp.abs(fold.mass)
    w = _num.divide(fold.excess, mass)
    near = (w < 1) & (fold.mass > 0)
    apart = jnp.log(_num.divide(mass, fold.mass_q)) - (fold.top_q - fold.other)
    shift = jnp.where(near, fold.mean - _num.log1p(jnp.where(near, w, 0)), apart)
    shift = jnp.where(jnp.isfinite(shift), shift, 0)
    top_q = jnp.where(fold.top_q == -jnp.inf, 0, fold.top_q)
    return Sums(fold.top, fold.other, fold.top, top_q, mass, fold.mass_q, shift)


def kl(fold: Fold) -> Array:
    """KL(p || q) of whole rows."""
    mass = jnp.abs(fold.mass)
    w = _num.divide(fold.excess, mass)
    apart = fold.mean + jnp.log(_num.divide(fold.mass_q, mass)) + (fold.top_q - fold.other)
    value = jnp.where(jnp.isfinite(w), _num.log1p(w), apart)
    value = jnp.where(fold.mass < 0, jnp.inf, value)
    return jnp.where((mass > 0) & (fold.mass_q > 0), value, jnp.nan)


def plain_kl(a: Array, b: Array) -> tuple[Array, Sums]:
    """KL(p || q) of whole rows and what they leave, by plain reductions, measured from the largest of each."""
    in_p, in_q = a != -jnp.inf, b != -jnp.inf
    top, top_q = jnp.max(a, -1, keepdims=True), jnp.max(b, -1, keepdims=True)
    some = (top > -jnp.inf) & (top_q > -jnp.inf)
    top, top_q = (jnp.where(x == -jnp.inf, 0, x) for x in (top, top_q))
    (d, rest), (at_top, rest_top) = _num.two_difference(a, b), _num.two_difference(top, top_q)
    r = jnp.where(in_p & in_q, (d - at_top) + (rest - rest_top), 0)
    e = jnp.exp(a - top)
    mass = _num.total(e)
    # halved often enough that logits 1e38 apart have a finite sum; without mass, r itself may be infinite
    mean = _num.divide(_num.total(jnp.where(e > 0, e * (r * 2.0**-24), 0)), mass) * 2.0**24
    y = mean - r
    near = jnp.abs(y) < 1
    small = jnp.where(near, y, 0)
    lift = jnp.maximum(jnp.where(some, mean, 0) - _num.exp_limit(a) / 2, 0)
    scaled = e * jnp.exp(-lift)  # without it kl > 80 would overflow
    far = jnp.exp(b - top_q + (mean - lift)) - jnp.where(e > 0, scaled * (1 + y), 0)
    terms = jnp.where(near & in_p, scaled * (small * small * _num.exp_remainder_near(small)), far)
    w = _num.divide(_num.total(jnp.where(in_p & ~in_q, jnp.inf, terms)), mass)
    value = jnp.where(lift > 0, lift + jnp.log(w + jnp.exp(-lift)), _num.log1p(w))
    mass_q = _num.total(jnp.exp(b - top_q))
    shift = jnp.where(value < 0.5, mean - value, jnp.log(_num.divide(mass, mass_q)))
    left = Sums(top, top_q, top, top_q, mass, mass_q, jnp.where(jnp.isfinite(shift), shift, 0))
    return jnp.where(some, value, jnp.nan), left


def on_cpu() -> bool:
    """Whether programs are for a CPU, by the default backend when they are traced: either way they run anywhere."""
    return (TARGET or jax.default_backend()) == "cpu"


def total(x: Array, mass: Array) -> Array:
    """The sum over the event axis, kept as an axis of size 1, of what is not plain arithmetic; `mass` is `[..., 1]`.

    A CPU's reduction forms products and quotients itself, of which each factor is then an array in memory: behind a
    choice, which it cannot form, there is one array. A row whose mass is nan is nan anyway.
    """
    return _num.total(jnp.where(mass == mass, x, jnp.nan)) if on_cpu() else _num.total(x)


@jax.custom_jvp
def totals(*arrays: Array) -> tuple[Array, ...]:
    """Sums over the event axis, kept as axes of size 1, all in one sweep: what a GPU does well and a CPU does not."""
    axis, zeros = arrays[0].ndim - 1, tuple(jnp.zeros((), x.dtype) for x in arrays)
    found = lax.reduce(arrays, zeros, lambda x, y: tuple(u + v for u, v in zip(x, y, strict=True)), (axis,))
    return tuple(jnp.expand_dims(x, axis) for x in found)


@totals.defjvp
def _(primals, tangents):
    return totals(*primals), tuple(_num.total(t) for t in tangents)


def copies(function: Callable[..., T], *arrays: Array, given: Any, sweep: int, shared: bool) -> Iterator[T]:
    """function(*arrays, given) as often as asked for, each from numbers of its own, unless on a CPU `shared`.

    A compiler writes to memory what two sums have in common, so they must have nothing in common that it knows of:
    each copy adds another zero that only shows as one at run time, as do those of another sweep.
    """
    if shared and on_cpu():
        return itertools.repeat(function(*arrays, given))
    size = jnp.abs(jax.tree.leaves(given)[0])

    def each(i: int) -> T:  # no generator: suspended, it would keep a branch's zero when the branch is long traced
        zero = jnp.maximum(-i - size, 0)
        return function(*(x + zero for x in arrays), given)

    return map(each, itertools.count(100 * sweep + 1))


def where_all(easy: Array, simple: Callable[[], T], general: Callable[[], T]) -> T:
    """general(), or on a CPU its equal simple() where all rows are easy; a GPU would have to store what both read."""
    return lax.cond(jnp.all(easy), simple, general) if on_cpu() else general()


def along(coefficients: Callable[[], Array], inputs: tuple[Array, ...], step: Array) -> Array:
    """The derivative along a step in the first of the inputs that the coefficients are made of.

    Over blocks of rows the coefficients are a branch of a conditional, with which nothing is fused: reverse mode would
    else form them in the one thread that writes a block into its place.
    """
    if _IN_A_LOOP:
        taken = lax.optimization_barrier(jnp.array(True))
        none = varying(jnp.zeros_like(inputs[0]), inputs)
        return jnp.sum(lax.cond(taken, coefficients, lambda: none) * step, -1)
    return jnp.sum(coefficients() * step, -1)


def axes_of(x: Array) -> frozenset[Any]:
    """The mesh axes over which a value varies inside shard_map."""
    kind: Any = jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying


def varying(tree: T, like: Any) -> T:
    """Inside shard_map, as varying over the mesh as all of `like` together: branches and loops have one type."""
    axes = frozenset().union(*map(axes_of, jax.tree.leaves(like)))

    def cast(x: Array) -> Array:
        missing = tuple(axes - axes_of(x))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


def either(easy: Array, simple: Callable[[], T], general: Callable[[], T]) -> T:
    """simple() where all rows are easy, else general(), of which it is a special case: both a few numbers a row."""
    return lax.cond(jnp.all(easy), simple, general)


def hold(tree: T) -> T:
    """The same, once: a CPU compiler evaluates a polynomial again for each sum over it; on a GPU this costs memory."""
    return lax.optimization_barrier(tree) if on_cpu() else tree


def _in_one_place() -> bool:
    """Whether an array is sure to be whole where it is: a loop over a sharded axis would gather it."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.device_count() == 1 or (not mesh.empty and mesh.are_all_axes_manual)


def rows_of_a_block(batch: int, outcomes: int, rare: bool = False) -> int:
    """How many rows a block has; all of them where there is nothing to gain."""
    block = (BLOCK // 2 if rare else BLOCK) if on_cpu() else LARGE
    if batch * outcomes <= 2 * block or not ((rare or on_cpu()) and _in_one_place()):
        return batch
    most = max(1, block // outcomes)
    even = [r for r in range(most, most // 2, -1) if batch % r == 0]
    return even[0] if even else most


def by_rows(function: Callable[..., T], *trees: Any, rare: bool = False) -> T:
    """A function of arrays `[..., n]` with one batch (or 1 in its place), row by row.

    On a CPU, and everywhere where it is rare and needs much memory, in blocks of rows.
    """
    leaves, tree = jax.tree.flatten(trees)
    lead: tuple[int, ...] = np.broadcast_shapes(*(x.shape[:-1] for x in leaves))
    batch, longest = math.prod(lead), max(x.shape[-1] for x in leaves)
    size = rows_of_a_block(batch, longest, rare)
    if size >= batch:
        return function(*trees)
    flat = [_rows(x, lead, batch) for x in leaves]
    cut = [i for i, x in enumerate(flat) if x.shape[0] == batch]

    def block(parts):
        given = list(flat)
        for i, part in zip(cut, parts, strict=True):
            given[i] = part
        _IN_A_LOOP.append(True)
        try:
            return function(*jax.tree.unflatten(tree, given))
        finally:
            _IN_A_LOOP.pop()

    count = batch // size
    whole = [flat[i][: count * size].reshape(count, size, -1) for i in cut]
    found = jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:]), lax.map(block, whole))
    if count * size < batch:
        rest = block([flat[i][count * size :] for i in cut])
        found = jax.tree.map(lambda y, z: jnp.concatenate([y, z]), found, rest)
    return jax.tree.map(lambda y: y.reshape(*lead, *y.shape[1:]), found)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def numbers(function: Callable[..., T], rare: bool, *trees: Any) -> T:
    """`by_rows` inside the rule of a custom_jvp: there jax takes loops apart and loses the rules of what is in them.

    Second derivatives were then wrong by a third. What is itself a custom_jvp is left whole.
    """
    return by_rows(function, *trees, rare=rare)


@numbers.defjvp
def _(function, rare, primals, tangents):
    moved = jax.jvp(lambda *trees: by_rows(function, *trees, rare=rare), primals, tangents)[1]
    return numbers(function, rare, *primals), moved


def _rows(x: Array, lead: tuple[int, ...], batch: int) -> Array:
    """`[..., n]` as `[batch, n]`, or `[1, n]` where one row serves all."""
    if math.prod(x.shape[:-1]) == 1:
        return x.reshape(1, x.shape[-1])
    return jnp.broadcast_to(x, (*lead, x.shape[-1])).reshape(batch, x.shape[-1])
