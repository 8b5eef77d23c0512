"""What every cell does to its arguments first: one dtype, the event axis last, shapes that match.

The only user of chex. Messages name the cell, the arguments, both shapes and what to pass instead.
"""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Shaped = Array | jax.ShapeDtypeStruct


def wide(*arrays: ArrayLike) -> list[Array]:
    """The arrays in one floating dtype: halves become float32, integers the default float, two dtypes the wider."""
    given = [jnp.asarray(a) for a in arrays]
    for a in given:
        if jnp.issubdtype(a.dtype, jnp.complexfloating):
            raise TypeError(f"kljax: expected real numbers, got {a.dtype}; pass the real part or the modulus")
    default = jnp.zeros(()).dtype
    floats = [a.dtype if jnp.issubdtype(a.dtype, jnp.floating) else default for a in given]
    widest = jnp.float64 if jnp.float64 in floats else jnp.float32
    return [a.astype(widest) for a in given]


def narrowest(*arrays: ArrayLike) -> Any:
    """The dtype that holds all of the arrays: half where all are one kind of half, else what `wide` makes of them."""
    kinds = {jnp.asarray(a).dtype for a in arrays}
    one = kinds.pop()
    return one if not kinds and one in (jnp.float16, jnp.bfloat16) else wide(*arrays)[0].dtype


def _last(cell: str, name: str, a: Array, axis: int) -> Array:
    """`a` with its event axis last; the only axis of a vector is its event axis."""
    hint = f"{cell}: {name} {a.shape}: needs an event axis; one distribution over K outcomes has shape (K,)"
    chex.assert_axis_dimension_gt(a, -1, 0, custom_message=hint) if a.ndim else chex.assert_rank(
        a, 1, custom_message=hint
    )
    if a.ndim > 1:
        hint = f"{cell}: {name} {a.shape}: axis={axis} is not one of its axes; pass -{a.ndim} <= axis < {a.ndim}"
        chex.assert_equal(-a.ndim <= axis < a.ndim, True, custom_message=hint)
        a = jnp.moveaxis(a, axis, -1)
    return a


def _tail(cell: str, name_a: str, a: Shaped, name_b: str, b: Shaped, trailing: int) -> None:
    """The axes that both have, counted from the last, must be equal; size 1 never stretches."""
    k = a.shape[-1] if a.ndim else 0
    if trailing and b.ndim:
        event = f"{cell}: {name_a} {a.shape} and {name_b} {b.shape}: the event axis must match"
        chex.assert_equal(k, b.shape[-1], custom_message=f"{event}; one {name_b} for all rows has shape ({k},)")
    both = min(a.ndim, b.ndim)
    hint = (
        f"{cell}: {name_a} {a.shape} and {name_b} {b.shape}: leading axes must be equal, or one shape the tail of the "
        f"other (size 1 does not stretch); one {name_b} for all rows has shape ({k},), otherwise broadcast it first"
    )
    if both:
        chex.assert_equal_shape_suffix([a, b], both, custom_message=hint)


def events(
    cell: str, names: Sequence[str], arrays: Sequence[ArrayLike], axis: int, where: ArrayLike | None, empty: float
) -> list[Array]:
    """The arguments as float arrays `[..., K]` of one shape, `empty` where `where` deletes an outcome."""
    given = [_last(cell, name, a, axis) for name, a in zip(names, wide(*arrays), strict=True)]
    longest = max(given, key=lambda a: a.ndim)
    for name, a in zip(names[1:], given[1:], strict=True):
        _tail(cell, names[0], given[0], name, a, 1)
    mask = None
    if where is not None:
        mask = _last(cell, "where", jnp.asarray(where).astype(bool), axis)
        _tail(cell, names[0], given[0], "where", mask, 1)
        longest = max(longest, mask, key=lambda a: a.ndim)
    given = [jnp.broadcast_to(a, longest.shape) for a in given]
    if mask is None:
        return given
    mask = jnp.broadcast_to(mask, longest.shape)
    return [jnp.where(mask, a, empty) for a in given]


def parameter(cell: str, name: str, value: ArrayLike, like: Array) -> Array:
    """An order or weight `[...]` as `[..., 1]` in the dtype of the events, a scalar for all rows or the tail rule."""
    value = jnp.asarray(value).astype(like.dtype)
    _tail(cell, "the batch", jax.ShapeDtypeStruct(like.shape[:-1], like.dtype), name, value, 0)
    return value.reshape((1,) * (like.ndim - 1 - value.ndim) + value.shape + (1,))


def parameter_for(cell: str, name: str, value: ArrayLike, like: Any) -> Array:
    """An order or weight by the tail rule, in the shape and dtype of a result `[...]`."""
    value = jnp.asarray(value).astype(like.dtype)
    _tail(cell, "the batch", jnp.zeros(like.shape), name, value, 0)
    return jnp.broadcast_to(value, like.shape)


def vector(cell: str, name: str, value: ArrayLike, like: Array) -> Array:
    """Positions or weights over the event axis, `[K]` or with leading axes by the tail rule, as `like`."""
    value = jnp.asarray(value).astype(like.dtype)
    _tail(cell, "p", like, name, value, 1)
    return jnp.broadcast_to(value, like.shape)


def axes(cell: str, p: Array, first: int, second: int) -> None:
    """Two different axes of p."""
    hint = f"{cell}: p {p.shape}: needs two axes; axes {first} and {second} must exist and differ"
    valid = p.ndim >= 2 and all(-p.ndim <= i < p.ndim for i in (first, second))
    chex.assert_equal(valid and first % p.ndim != second % p.ndim, True, custom_message=hint)


def within(cell: str, name: str, value: int, least: int, most: int) -> None:
    """A static integer in [least, most]."""
    hint = f"{cell}: {name}={value}: pass {least} <= {name} <= {most}"
    chex.assert_equal(least <= value <= most, True, custom_message=hint)


def batch(cell: str, name_a: str, a: Array, name_b: str, b: Array) -> tuple[Array, Array]:
    """Two arrays whose leading axes follow the tail rule and whose last axes are their own, broadcast to one batch."""
    leads = [jax.ShapeDtypeStruct(x.shape[:-1], x.dtype) for x in (a, b)]
    _tail(cell, name_a, leads[0], name_b, leads[1], 0)
    lead = max(a.shape[:-1], b.shape[:-1], key=len)
    return jnp.broadcast_to(a, (*lead, a.shape[-1])), jnp.broadcast_to(b, (*lead, b.shape[-1]))


def leading(cell: str, p: Any, q: Any) -> tuple[int, int]:
    """The sizes of the leading axes of two pytrees of rows."""
    sizes = []
    for name, side in (("P", p), ("Q", q)):
        shapes = [x.shape for x in jax.tree.leaves(side)]
        rows = {shape[0] if shape else 0 for shape in shapes}
        hint = (
            f"{cell}: {name} {', '.join(map(str, shapes))}: needs a leading axis of N > 0 rows, the same in all arrays"
        )
        chex.assert_equal(len(rows) == 1 and 0 not in rows, True, custom_message=hint)
        sizes.append(rows.pop())
    return sizes[0], sizes[1]


# independent coordinates: fields that are scalars, or arrays whose event axis moves last or is added


def instance(cell: str, name: str, value: Any, kind: type, makers: str) -> None:
    """A distribution of the column's own type."""
    if not isinstance(value, kind):
        raise TypeError(f"{cell}: {name} is a {type(value).__name__}; pass a {kind.__name__}, from {makers}")


def same_type(cell: str, p: Any, q: Any, hint: str) -> None:
    """Two distributions with the same parameters."""
    if type(p) is not type(q):
        raise TypeError(f"{cell}: p is a {type(p).__name__} and q a {type(q).__name__}: pass two of one type; {hint}")


def coordinates(cell: str, fields: Sequence[tuple[str, Any, Any]], axis: Any) -> list[Array]:
    """Fields (name, loc, scale), all scalars or `[..., D]`, as `[..., D]` of one shape, in the order given.

    With axis=() every coordinate is an event of its own: `[..., 1]`. A scalar stands for any number of coordinates.
    """
    whole = not isinstance(axis, tuple)
    hint = f"{cell}: axis={axis}: pass the event axis, or () for one value a coordinate"
    chex.assert_equal(whole or axis == (), True, custom_message=hint)
    for name, loc, scale in fields:
        hint = f"{cell}: {name} has loc {loc.shape} and scale {scale.shape}: pass a scale that is one number or has "
        hint += "the shape of loc; broadcast loc first if it is the shorter"
        chex.assert_equal(scale.ndim == 0 or scale.shape == loc.shape, True, custom_message=hint)
    last: Any = axis
    moved = [(n, *(_last(cell, n, x, last) if x.ndim and whole else x for x in two)) for n, *two in fields]
    arrays = [(name, loc) for name, loc, _ in moved if loc.ndim]
    for name, loc in arrays[1:]:
        _tail(cell, *arrays[0], name, loc, 1 if whole else 0)
    shape = max((loc.shape for _, loc in arrays), key=len, default=(1,) if whole else ())
    spread = [jnp.broadcast_to(x, shape) for _, *two in moved for x in two]
    return spread if whole else [x[..., None] for x in spread]


def one_coordinate(cell: str, size: int, instead: str) -> None:
    """An event of one coordinate, for what has no closed form with more."""
    hint = f"{cell}: the event has {size} coordinates, for which there is no closed form: call {instead}, or pass "
    hint += "axis=() for one value a coordinate"
    chex.assert_equal(size, 1, custom_message=hint)


# multivariate Gaussians: fields with an event of their own rank, batches by the tail rule


def _part(cell: str, name: str, a: Array, event: tuple[int | None, ...], letters: str) -> None:
    """The last axes of one field: as many as `event`, and of these sizes where a size is given."""
    hint = f"{cell}: {name} {a.shape}: expected [..., {letters}]"
    sizes = [f"{letter} = {size}" for letter, size in zip(letters.split(", "), event, strict=True) if size is not None]
    hint += f" with {', '.join(dict.fromkeys(sizes))}" if sizes else ""
    chex.assert_equal(a.ndim >= len(event), True, custom_message=hint)
    last = a.shape[a.ndim - len(event) :]
    ok = all(size is None or size == got for size, got in zip(event, last, strict=True)) and 0 not in last[:1]
    chex.assert_equal(ok, True, custom_message=hint)


def _leading(cell: str, name_a: str, a: Array, rank_a: int, name_b: str, b: Array, rank_b: int) -> None:
    """The axes before the event: equal, or one the tail of the other."""
    x, y = a.shape[: a.ndim - rank_a], b.shape[: b.ndim - rank_b]
    both = min(len(x), len(y))
    hint = (
        f"{cell}: {name_a} {a.shape} and {name_b} {b.shape}: the axes before the event, {x} and {y}, must be equal or "
        f"one the tail of the other (size 1 does not stretch); one for the whole batch has none, or broadcast it first"
    )
    chex.assert_equal(x[len(x) - both :], y[len(y) - both :], custom_message=hint)


def together(cell: str, fields: Sequence[tuple[str, Array, int]]) -> list[Array]:
    """Fields (name, array, rank of the event) broadcast to one batch by the tail rule."""
    leads = [a.shape[: a.ndim - rank] for _, a, rank in fields]
    longest = leads.index(max(leads, key=len))
    for field in fields:
        _leading(cell, *fields[longest], *field)
    return [jnp.broadcast_to(a, leads[longest] + a.shape[a.ndim - rank :]) for _, a, rank in fields]


def dense(cell: str, name: str, loc: Array, matrix: Array, field: str = "scale_tril") -> int:
    """loc `[..., D]` and a matrix `[..., D, D]`; the size of the event."""
    _part(cell, f"{name}.loc" if name else "loc", loc, (None,), "D")
    size = loc.shape[-1]
    _part(cell, f"{name}.{field}" if name else field, matrix, (size, size), "D, D")
    return size


def thin(cell: str, name: str, loc: Array, factor: Array, diag: Array) -> tuple[int, int]:
    """loc `[..., D]`, cov_factor `[..., D, R]` and cov_diag `[..., D]`; D and R."""
    _part(cell, f"{name}.loc", loc, (None,), "D")
    size = loc.shape[-1]
    _part(cell, f"{name}.cov_factor", factor, (size, None), "D, R")
    _part(cell, f"{name}.cov_diag", diag, (size,), "D")
    return size, factor.shape[-1]


def one_event(cell: str, name_a: str, size_a: int, name_b: str, size_b: int, of: str = "coordinates") -> None:
    """Two distributions over vectors of one length, or over outcomes of one number."""
    hint = f"{cell}: {name_a} has events of {size_a} {of} and {name_b} of {size_b}: they must be equal"
    chex.assert_equal(size_a, size_b, custom_message=hint)


# parameters of a family: fields, each with its own number of event axes


def fields(cell: str, given: Sequence[tuple[str, Array, int]]) -> list[Array]:
    """Fields (name, array, number of its event axes) with one batch shape by the tail rule; a scalar goes with all."""
    for name, a, events in given:
        one = ", ".join("d" * events)
        hint = f"{cell}: {name} {a.shape}: needs {events} event axes; one distribution has shape ({one},)"
        chex.assert_equal(a.ndim >= events, True, custom_message=hint)
    lead = [(name, a.shape, a.shape[: a.ndim - events]) for name, a, events in given]
    first, whole, longest = max(lead, key=lambda one: len(one[2]))
    for name, shape, batch_shape in lead:
        hint = (
            f"{cell}: {first} {whole} and {name} {shape}: leading axes must be equal, or one shape the tail of the "
            "other (size 1 does not stretch); one parameter for all rows is a scalar, otherwise broadcast it first"
        )
        chex.assert_equal(batch_shape, longest[len(longest) - len(batch_shape) :], custom_message=hint)
    return [jnp.broadcast_to(a, longest + a.shape[a.ndim - events :]) for _, a, events in given]


def same_event(cell: str, name: str, p: Array, q: Array, events: int) -> None:
    """The event axes of a field of p and q."""
    event = f"{cell}: p.{name} {p.shape} and q.{name} {q.shape}: the event axes must match"
    chex.assert_equal(p.shape[p.ndim - events :], q.shape[q.ndim - events :], custom_message=event)


def event_shape(cell: str, name: str, a: Array, ok: bool, hint: str) -> None:
    """What a family asks of its event axes."""
    chex.assert_equal(ok, True, custom_message=f"{cell}: {name} {a.shape}: {hint}")


# mixtures: a weight for each component, the components with their own axis before the event


def weighted(cell: str, name: str, logits: Array, loc: Array, rest: Array, event: tuple[int, ...]) -> int:
    """logits `[..., M]`, loc `[..., M, D]` and a field `[..., M, *event]`, a size 0 standing for D; the size of D."""
    hint = f"{cell}: {name}.logits {logits.shape} and {name}.components.loc {loc.shape}: expected [..., M] and "
    hint += "[..., M, D], one component on each entry of axis M; a coordinate of its own has D = 1, loc[..., None]"
    ok = logits.ndim > 0 and loc.ndim > 1 and 0 not in loc.shape[-2:] and logits.shape[-1:] == loc.shape[-2:-1]
    chex.assert_equal(ok, True, custom_message=hint)
    count, size = loc.shape[-2:]
    expected = (count, *(n or size for n in event))
    hint = f"{cell}: {name}.components {rest.shape} beside loc {loc.shape}: expected [..., {str(expected)[1:-1]}]"
    chex.assert_equal(rest.shape[max(rest.ndim - len(expected), 0) :], expected, custom_message=hint)
    return size


# linear heads: tokens by a weight over a vocabulary


def product(cell: str, name: str, hidden: Array, weight: Array, bias: Any) -> None:
    """hidden `[..., H]`, weight `[H, V]`, bias `[V]`."""
    hint = f"{cell}: {name}.hidden {hidden.shape} and {name}.weight {weight.shape}: expected [..., H] and [H, V]; "
    hint += "pass the transpose of a weight [V, H], such as an embedding"
    ok = hidden.ndim > 0 and weight.ndim == 2 and hidden.shape[-1] == weight.shape[0] and weight.shape[1] > 0
    chex.assert_equal(ok, True, custom_message=hint)
    if bias is not None:
        hint = f"{cell}: {name}.bias {jnp.shape(bias)}: expected [V] = {weight.shape[1:]}"
        chex.assert_equal(jnp.shape(bias), weight.shape[1:], custom_message=hint)


def top_k(cell: str, listed: Any, indices: Any, log_tail: Any) -> None:
    """The fields of a TopK: `[..., k]`, `[..., k]`, `[...]`."""
    shapes = jnp.shape(listed), jnp.shape(indices), jnp.shape(log_tail)
    hint = f"{cell}: p has logits {shapes[0]}, indices {shapes[1]}, log_tail {shapes[2]}: expected [..., k], [..., k], "
    hint += "[...] as kljax.logits.top_k gives them"
    ok = len(shapes[0]) > 0 and shapes[0] == shapes[1] and shapes[2] == shapes[0][:-1]
    chex.assert_equal(ok, True, custom_message=hint)


def number(cell: str, name: str, value: ArrayLike, dtype: Any) -> Array:
    """One number."""
    hint = f"{cell}: {name} {jnp.shape(value)}: pass one number; for several call vmap over it"
    chex.assert_equal(jnp.shape(value), (), custom_message=hint)
    return jnp.asarray(value).astype(dtype)


def mask(cell: str, where: ArrayLike, outcomes: int) -> Array:
    """A mask `[V]` of the vocabulary."""
    hint = f"{cell}: where {jnp.shape(where)}: expected [V] = ({outcomes},); what is to be left out of a token's loss "
    hint += "is its weight"
    chex.assert_equal(jnp.shape(where), (outcomes,), custom_message=hint)
    return jnp.asarray(where).astype(bool)


def by_tokens(cell: str, name: str, value: ArrayLike, lead: tuple[int, ...], dtype: Any) -> Array:
    """One number for all tokens or one each, `[...]`, as `[T]` of this dtype, which may be of integers."""
    value = jnp.asarray(value)
    hint = f"{cell}: {name} {value.shape}: pass one number, or one a token, {lead}"
    chex.assert_equal(value.shape in ((), lead), True, custom_message=hint)
    if jnp.issubdtype(dtype, jnp.integer) and not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{cell}: {name} are {value.dtype}: pass integers, the numbers of outcomes")
    return jnp.broadcast_to(value.astype(dtype), lead).reshape(-1)


# samples: one point on each entry of the leading axis


def points(cell: str, **given: ArrayLike) -> list[Array]:
    """Samples `[n, d]`, or `[n]` for d = 1, of one dtype and one d."""
    arrays = [a[:, None] if a.ndim == 1 else a for a in wide(*given.values())]
    for name, a in zip(given, arrays, strict=True):
        hint = f"{cell}: {name} {a.shape}: expected points [n, d] or numbers [n]; for a batch of samples vmap over it"
        chex.assert_equal(a.ndim == 2 and 0 not in a.shape, True, custom_message=hint)
        hint = f"{cell}: {', '.join(given)} have {[x.shape[-1] for x in arrays]} coordinates: they must be equal"
        chex.assert_equal(a.shape[-1], arrays[0].shape[-1], custom_message=hint)
    return arrays


def choice(cell: str, name: str, value: str, known: Sequence[str]) -> None:
    """One of a few words."""
    if value not in known:
        raise ValueError(f"{cell}: {name}={value!r}: pass one of {', '.join(map(repr, known))}")
