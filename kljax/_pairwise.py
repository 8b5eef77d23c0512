"""All pairs: a matrix of divergences, tile by tile, on one device or on the devices of a mesh.

A tile is what `_tiles.py` plans; here tiles are laid out, shared among devices and differentiated. On a mesh each
device has a share of the rows of P and a share of those of Q, which go round: the devices exchange rows, never tiles,
but for a symmetric cell of P with itself, where two shares meet once and their tiles travel home with the rows.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as Spec

from kljax import _bind, _check, _fold
from kljax._points import is_zero
from kljax._tiles import Plan, alone, block_of, blocks, chosen, rows_of

_WORTH = 1 << 22  # elements of all pairs from which on one call uses all local devices


class Task(NamedTuple):
    """What a program is compiled for, beside the shapes of its arguments."""

    cell: Callable[..., Array]
    options: Any  # structure and static leaves of the options
    block: int | None
    mesh: Any  # None for one device

    def filled(self, leaves: Any) -> dict[str, Any]:
        """The options, with these in place of their arrays."""
        tree, fixed = self.options
        rest = iter(leaves)
        return jax.tree.unflatten(tree, [next(rest) if leaf is _TRACED else leaf for leaf in fixed])


class _Traced:
    def __repr__(self) -> str:
        return "traced"


_TRACED = _Traced()


def pairwise(cell: Callable[..., Array], P: Any, Q: Any = None, *, block: int | None = None, **options: Any) -> Array:
    """All pairs of rows: D[i, j] = cell(P[i], Q[j]), by tiles that never hold an (N, M, K) array, in the cell's range.

    cell: `kljax.<column>.<row>` of any column, or a function of (p, q) (define it once: another function compiles
    anew). options: those of the cell, such as `order`, `weight`, `where` or `positions`, one for all pairs; numbers
    with a point and arrays may be traced.
    Shapes: P, Q arrays `[N, K]`, `[M, K]` or distributions whose fields have a leading axis, `-> [N, M]`; Q=None is P
    with itself: a symmetric cell is evaluated once a pair, and the diagonal of a divergence is exactly 0. block: rows
    of either side in a tile, from the shapes unless given.
    Zero mass: that of the cell; a row without mass is nan in its row and column alone.
    Differentiable in P, Q and options to any order, by the cell's own derivatives, one tile at a time. Called with
    arrays, outside of transformations, it shares large matrices among all local devices; within a mesh
    (`jax.set_mesh`), or of arrays that are sharded on one, it keeps to that mesh, the rows of the result sharded.
    Errors: those of the cell; AssertionError where P and Q have no leading axis.

    >>> import jax.numpy as jnp, kljax
    >>> p = jnp.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])
    >>> for row in kljax.pairwise(kljax.probs.js, p):
    ...     print([f"{v:.4f}" for v in row])
    ['0.0000', '0.1017', '0.1017']
    ['0.1017', '0.0000', '0.3681']
    ['0.1017', '0.3681', '0.0000']
    """
    P, Q = jax.tree.map(jnp.asarray, (P, Q))
    n, m = _check.leading("kljax.pairwise", P, P if Q is None else Q)
    fixed, traced = parted(cell, options)
    size = n * m * max(1, sum(leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(P)))
    return _matrix(Task(cell, fixed, block, _mesh((P, Q), size)), P, Q, traced)


def parted(cell: Callable[..., Array], options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """What is static of a cell's options, and their arrays. Raises TypeError for what the cell does not take."""
    try:
        inspect.signature(cell).bind(None, None, **options)
    except ValueError:  # a function that has no signature
        pass
    except TypeError as error:
        raise TypeError(f"{getattr(cell, '__module__', '')}.{getattr(cell, '__name__', cell)}: {error}") from None
    leaves, tree = jax.tree.flatten(options)
    names = [str(getattr(path[0], "key", "")) for path, _ in jax.tree_util.tree_leaves_with_path(options)]
    arrays = [n not in _bind.STATIC and _is_array(x) for n, x in zip(names, leaves, strict=True)]
    fixed = tuple(_TRACED if array else x for array, x in zip(arrays, leaves, strict=True))
    return (tree, fixed), [x for array, x in zip(arrays, leaves, strict=True) if array]


def _is_array(x: Any) -> bool:
    return isinstance(x, float) or hasattr(x, "dtype") or (isinstance(x, list) and bool(x))


@partial(jax.jit, static_argnums=0)
def _matrix(task: Task, P: Any, Q: Any, traced: list[Any]) -> Array:
    return _of(task, P, Q, traced)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of(task: Task, P: Any, Q: Any, traced: list[Any]) -> Array:
    plan, p, q = chosen(task.cell, task.filled(traced), P, Q)
    count = [jax.tree.leaves(x)[0].shape[0] for x in (p, p if q is None else q)]
    if task.mesh is None:
        found = _one_device(task, plan, p, q)
    else:
        p, q = (x if x is None else _spread(task.mesh, x) for x in (p, q))
        found = _shared(task, plan.symmetric, p, q, traced)
    return _cut(task.mesh, found, *count)


def _cut(mesh: Any, found: Array, n: int, m: int) -> Array:
    if found.shape[:2] == (n, m):
        return found
    if mesh is not None and _explicit(mesh) and n < found.shape[0]:
        found = jax.reshard(found, NamedSharding(mesh, Spec()))  # an axis that the mesh does not divide
    return found[:n, :m]


def _one_device(task: Task, plan: Plan, p: Any, q: Any) -> Array:
    first, second = rows_of(plan, p, q)
    n, m = (jax.tree.leaves(x)[0].shape[0] for x in (p, p if q is None else q))
    block = block_of(plan, task.block, n, m, square=q is None and plan.symmetric)
    return filled(plan, first, second, block, q is None)


def filled(plan: Plan, x: Any, y: Any, block: tuple[int, int], own: Any, live: Any = None) -> Array:
    """The matrix of prepared rows, each side filled up to whole blocks; `own` where x and y are the same rows.

    live: how many rows of either side count, the others being copies.
    """
    live = [jax.tree.leaves(side)[0].shape[0] for side in (x, y)] if live is None else live
    first, second = blocks(x, block[0]), blocks(y, block[1])
    rows, columns = (jax.tree.leaves(side)[0].shape[0] for side in (first, second))
    half = own is True and plan.symmetric

    def tile(i: Any, j: Any) -> Array:
        row, column = _places(i, block[0])[:, None], _places(j, block[1])[None]
        # a copy counts as a row with itself, lest a pair of copies be taken for a pair that is too near for a product
        here = (row == column) & jnp.asarray(own) | (row >= live[0]) | (column >= live[1])
        sides = (lambda: jax.tree.map(lambda a: a[i], first)), (lambda: jax.tree.map(lambda a: a[j], second))
        found = plan.tile(*sides, here)
        return jnp.where(i == j, _mirrored(found), found) if half else found

    def put(i: Any, j: Any, found: Array) -> Array:
        new = tile(i, j)
        rest = (0,) * (found.ndim - 2)
        found = lax.dynamic_update_slice(found, new, (i * block[0], j * block[1], *rest))
        if half:
            found = lax.dynamic_update_slice(found, new.swapaxes(0, 1), (j * block[1], i * block[0], *rest))
        return found

    like = jax.eval_shape(tile, jnp.int32(0), jnp.int32(0))
    start = _fold.varying(jnp.zeros((rows * block[0], columns * block[1], *like.shape[2:]), like.dtype), (x, y))
    zero = jnp.int32(0)  # in float64, too
    return lax.fori_loop(
        zero, rows, lambda i, found: lax.fori_loop(i if half else zero, columns, partial(put, i), found), start
    )


def one_tile(task: Task, P: Any, Q: Any, traced: list[Any], own: Any, live: Any) -> Array:
    """The matrix of some rows on this device; own, which may be traced: Q is P itself; live: as in `filled`."""
    plan, p, q = chosen(task.cell, task.filled(traced), P, Q)
    n, m = _check.leading("kljax.sweep", p, q)
    found = filled(plan, *rows_of(plan, p, q), block_of(plan, None, n, m), own, live)[:n, :m]
    return jnp.where(own, _mirrored(found), found) if plan.symmetric and n == m else found


def _places(i: Array, block: int) -> Array:
    """The numbers of the rows of a block."""
    return i * block + jnp.arange(block, dtype=jnp.int32)


def _mirrored(tile: Array) -> Array:
    """A square tile with what is above its diagonal below it, too."""
    above = jnp.arange(len(tile))[:, None] <= jnp.arange(len(tile))[None]
    return jnp.where(above.reshape(*above.shape, *(1,) * (tile.ndim - 2)), tile, tile.swapaxes(0, 1))


# derivatives: those of the cell itself, tile by tile


def _plainly(task: Task, P: Any, Q: Any, traced: list[Any], block: tuple[int, int]) -> Array:
    """The same matrix by the cell alone; nothing is kept for a derivative but the arguments."""
    plan = alone(task.cell, task.filled(traced), P)
    n, m = (jax.tree.leaves(x)[0].shape[0] for x in (P, Q))

    @partial(jax.checkpoint, prevent_cse=False)
    def column(x: Any, y: Any) -> Array:
        return plan.tile(lambda: x, lambda: y, jnp.zeros((), bool))

    @partial(jax.checkpoint, prevent_cse=False)
    def row(x: Any, others: Any) -> Array:
        tiles = lax.map(partial(column, x), others)
        return jnp.moveaxis(tiles, 0, 1).reshape(block[0], -1, *tiles.shape[3:])

    columns = blocks(Q, block[1])
    found = lax.map(lambda x: row(x, columns), blocks(P, block[0]))
    return found.reshape(-1, *found.shape[2:])[:n, :m]


def _of_jvp(task: Task, primals: Any, tangents: Any) -> tuple[Array, Array]:
    leaves, tree = jax.tree.flatten(primals)
    steps = tree.flatten_up_to(tangents)
    moving = [i for i, t in enumerate(steps) if not is_zero(t) and jnp.issubdtype(t.dtype, jnp.inexact)]

    def again(*some: Array) -> Array:
        given = list(leaves)
        for i, x in zip(moving, some, strict=True):
            given[i] = x
        P, Q, traced = jax.tree.unflatten(tree, given)
        return _differentiable(task, P, P if Q is None else Q, traced)

    value = _of(task, *primals)
    if not moving:
        return value, jnp.zeros_like(value)
    return value, jax.jvp(again, [leaves[i] for i in moving], [steps[i] for i in moving])[1]


_of.defjvp(_of_jvp, symbolic_zeros=True)


def _differentiable(task: Task, P: Any, Q: Any, traced: list[Any]) -> Array:
    plan = alone(task.cell, task.filled(traced), P)
    n, m = (jax.tree.leaves(x)[0].shape[0] for x in (P, Q))
    if task.mesh is None:
        return _plainly(task, P, Q, traced, block_of(plan, task.block, n, m))
    rows = _spread(task.mesh, P)
    share = jax.tree.leaves(rows)[0].shape[0] // task.mesh.size
    block = block_of(plan, task.block, share, m)

    def body(p: Any, q: Any, traced: list[Any]) -> Array:
        return _plainly(task, p, *_fold.varying((q, traced), p), block)

    axes = Spec(task.mesh.axis_names)
    whole = [_everywhere(task.mesh, x) for x in (Q, traced)]
    found = jax.shard_map(body, mesh=task.mesh, in_specs=(axes, Spec(), Spec()), out_specs=axes)(rows, *whole)
    return _cut(task.mesh, found, n, m)


# devices


def _mesh(arrays: Any, size: int) -> Any:
    """The mesh to share the rows on, None for one device."""
    active = jax.sharding.get_abstract_mesh()
    if not active.empty:
        return None if active.manual_axes else (active if active.size > 1 else None)
    leaves = jax.tree.leaves(arrays)
    traced = any(isinstance(x, Tracer) for x in leaves)
    placed = [jax.typeof(x).sharding.mesh if traced else getattr(x.sharding, "mesh", None) for x in leaves]
    for mesh in placed:
        if mesh is not None and not mesh.empty and mesh.size > 1:
            return mesh
    if traced or size < _WORTH or jax.local_device_count() == 1 or any(x.committed for x in leaves):
        return None
    return jax.sharding.Mesh(jax.local_devices(), ("rows",), axis_types=(AxisType.Auto,))


def _explicit(mesh: Any) -> bool:
    return any(kind == AxisType.Explicit for kind in mesh.axis_types)


def _placed(mesh: Any, x: Array, spec: Spec) -> Array:
    return jax.reshard(x, NamedSharding(mesh, spec)) if _explicit(mesh) else x


def _everywhere(mesh: Any, tree: Any) -> Any:
    return jax.tree.map(lambda x: _placed(mesh, jnp.asarray(x), Spec()), tree)


def _spread(mesh: Any, tree: Any) -> Any:
    """The rows shared out evenly, filled up with the last one."""

    def one(x: Array) -> Array:
        more = -x.shape[0] % mesh.size
        if more:
            x = jnp.pad(_placed(mesh, x, Spec()), [(0, more)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        return _placed(mesh, x, Spec(mesh.axis_names))

    return jax.tree.map(one, tree)


def _shared(task: Task, symmetric: bool, p: Any, q: Any, traced: list[Any]) -> Array:
    """The matrix of rows that are spread over a mesh; all devices do the same amount of work."""
    mesh, axes = task.mesh, task.mesh.axis_names
    n, m = (jax.tree.leaves(x)[0].shape[0] // mesh.size for x in (p, p if q is None else q))
    twice = q is None and symmetric

    def body(p: Any, q: Any, traced: list[Any]) -> Array:
        # an order that does not vary over the mesh cannot meet rows that do in the rule of a derivative
        plan, p, q = chosen(task.cell, task.filled(_fold.varying(traced, p)), p, q, axes)
        block = block_of(plan, task.block, n, m, square=twice)
        if twice:
            return _meet_halfway(plan, block, n, mesh.size, axes, p)
        return _meet(plan, block, (n, m), mesh.size, axes, p, q)

    spec = Spec(axes)
    whole = _everywhere(mesh, traced)
    return jax.shard_map(body, mesh=mesh, in_specs=(spec, spec, Spec()), out_specs=spec)(p, q, whole)


def _next(size: int, steps: int) -> list[tuple[int, int]]:
    """Who sends to whom, so that device d has what device d + steps had."""
    return [((d + steps) % size, d) for d in range(size)]


def _tile_of(plan: Plan, block: tuple[int, int], shape: tuple[int, int], x: Any, y: Any, own: Any) -> Array:
    return filled(plan, x, y, block, own)[: shape[0], : shape[1]]


def _meet(plan: Plan, block: Any, shape: tuple[int, int], size: int, axes: Any, p: Any, q: Any) -> Array:
    """Each device's rows of P with all rows of Q, which go round."""
    x, y = rows_of(plan, p, q)
    me = lax.axis_index(axes)

    def step(s: Any, state: Any) -> Any:
        found, y = state
        own = jnp.equal(s, 0) & (q is None)
        new = _tile_of(plan, block, shape, x, y, own)
        found = lax.dynamic_update_slice_in_dim(found, new, (me + s) % size * shape[1], 1)
        return found, lax.ppermute(y, axes, _next(size, 1))

    like = jax.eval_shape(lambda: _tile_of(plan, block, shape, x, y, False))
    start = _fold.varying(jnp.zeros((shape[0], shape[1] * size, *like.shape[2:]), like.dtype), (x, y))
    return lax.fori_loop(jnp.int32(0), size, step, (start, y))[0]


def _meet_halfway(plan: Plan, block: Any, n: int, size: int, axes: Any, p: Any) -> Array:
    """Each device's rows with its own and those of the next half of the devices; the rest comes home with the rows."""
    (x, other), me, half = rows_of(plan, p, None), lax.axis_index(axes), size // 2
    mine = _tile_of(plan, block, (n, n), x, other, True)
    start = _fold.varying(jnp.zeros((n, n * size, *mine.shape[2:]), mine.dtype), x)
    found = lax.dynamic_update_slice_in_dim(start, mine, me * n, 1)

    def step(s: Any, state: Any) -> Any:
        found, guest = state
        y, theirs = lax.ppermute(guest, axes, _next(size, 1))
        new = _tile_of(plan, block, (n, n), x, y, False)
        found = lax.dynamic_update_slice_in_dim(found, new, (me + s) % size * n, 1)
        return found, (y, lax.dynamic_update_slice_in_dim(theirs, new.swapaxes(0, 1), me * n, 1))

    found, (_, theirs) = lax.fori_loop(jnp.int32(1), half + 1, step, (found, (other, start)))
    home = lax.ppermute(theirs, axes, _next(size, size - half))
    ahead = (jnp.arange(size) - me) % size  # of two devices that are opposite both have their tiles: one is taken
    kept = (2 * ahead < size) | ((2 * ahead == size) & (me < half))
    return jnp.where(jnp.repeat(kept, n).reshape(1, -1, *(1,) * (found.ndim - 2)), found, home)
