"""Matrices of divergences that outgrow the machine: tiles read from disk, computed on all devices, written to disk.

Three things go on at once: a thread reads the rows of the tiles that come next, the devices compute, and another thread
writes what is finished. Only a handful of tiles are ever between reading and writing; they are what a kill costs.
"""

import errno
import functools
import inspect
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as Spec

from kljax import _fold, _store
from kljax._blocks import Blocks, Side, digest, read_ahead, sides
from kljax._files import InputError
from kljax._pairwise import Task, one_tile, parted
from kljax._progress import bar
from kljax._store import Grid, Tile
from kljax._tiles import symmetric

_SIDE = 1 << 10  # rows of either side of a tile
_BLOCK_BYTES = 1 << 26  # the most that they take
_FLIGHT = 2  # calls of the program that may wait to be written


class Swept(NamedTuple):
    """What a sweep has made."""

    matrix: Any  # the Zarr array, open for reading; with `nearest` a group of `values` and `indices`
    tiles: int  # that all of it takes, mirror images not counted
    computed: int  # of these, in this process and call
    seconds: float
    nan_rows: tuple[np.ndarray, np.ndarray]  # the rows of P and of Q that hold nan: so do theirs of the matrix


def sweep(
    cell: Callable[..., Array],
    P: Any,
    Q: Any = None,
    *,
    out: Any,
    block: int | None = None,
    nearest: int | None = None,
    resume: bool = True,
    progress: bool = True,
    **options: Any,
) -> Swept:
    """`kljax.pairwise` for matrices that outgrow memory: D[i, j] = cell(P[i], Q[j]) in a Zarr v3 array on disk.

    cell, options: as in `pairwise`. P, Q: anything with shape, dtype and slices (`np.load(F, mmap_mode="r")`, arrays of
    zarr or tensorstore), `[N, K]` and `[M, K]`, or distributions whose fields are such; Q=None is P with itself, of
    which a symmetric cell computes half. out: a folder, made here: an array `[N, M]` whose chunks are tiles, nan where
    nothing is yet. block: rows of either side of a tile, from the shapes unless given. nearest: keep only so many of
    the least of each row, without the row itself: `out` is then a group of `values` and `indices`, `[N, nearest]`, nan
    and -1 where there are fewer. progress: a bar on stderr with rate and time left.
    A tile is there by a rename or not at all. After Ctrl-C, SIGTERM, kill -9 or a full disk the same call goes on with
    what is left; it refuses an `out` that was begun with another cell, option, tile or version or with other numbers
    (all of P and Q is read once for that). resume=False begins anew.
    All local devices take part, and under `jax.distributed` all processes that see the same folder, each with its share
    of what is left. They wait for each other at the end alone, so that one that dies costs its share, which the same
    call computes.
    Zero mass: as in `pairwise`; rows that hold nan are named in the result.
    Errors: ValueError for what is wrong with `out`, and for a row that cannot be read; OSError for what the disk says,
    ConnectionError when a process has died; those of the cell.

    >>> import numpy as np, kljax, tempfile
    >>> P = np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]], np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     swept = kljax.sweep(kljax.probs.js, P, out=f"{folder}/D.zarr", progress=False)
    ...     print(swept.computed, "tile", f"{swept.matrix[1, 2]:.4f}")
    1 tile 0.3681
    """
    started = time.perf_counter()
    out, both, own = Path(out), sides(P, Q), Q is None
    _check_numbers(block, nearest, both[1].count - own)
    fixed, traced = parted(cell, options)
    grid = _grid(out, both, block, own and nearest is None and symmetric(cell, options), resume)
    blocks = Blocks(both, grid.block, own)
    nan_rows, numbers = blocks.scan()
    like = _like(Task(cell, fixed, None, None), blocks, traced)
    manifest = {
        "cell": _described(cell), "options": {name: _value(x) for name, x in options.items()}, "nearest": nearest,
        "block": list(grid.block), "result": str(like.dtype), **numbers,
        "versions": _versions(),
    }  # fmt: skip
    store, mine = _shared_out(out, _store.Matrix if nearest is None else _store.Nearest, grid, like, manifest, resume)
    tiles = [tile for unit in mine for tile in unit]
    task = Task(cell, fixed, None, _mesh(len(tiles)))
    with _stoppable(out, store), bar(_pairs(grid, tiles), "pairs", show=progress and jax.process_index() == 0) as tell:
        _compute(task, nearest, traced, blocks, store, tiles, lambda done: tell(_pairs(grid, done)))
        _wait_for_others(out, store)
    if jax.process_index() == 0:
        _store.tidy(out)
    return Swept(
        store.opened(), len(grid.tiles()), len(tiles), time.perf_counter() - started, (nan_rows[0], nan_rows[1])
    )


def _check_numbers(block: int | None, nearest: int | None, others: int) -> None:
    for name, value in (("block", block), ("nearest", nearest)):
        if value is not None and value < 1:
            raise InputError(f"kljax.sweep: {name} is {value}: expected a number of rows, 1 or more")
    if nearest is not None and nearest > others:
        raise InputError(f"kljax.sweep: nearest is {nearest}: each row has {others} others")


def _grid(out: Path, both: tuple[Side, Side], block: int | None, mirrored: bool, resume: bool) -> Grid:
    """Tiles of `block` rows of either side, or else as the result that is there has them."""
    n, m = (side.count for side in both)
    old = _store.manifest_of(out) if resume and block is None else None
    side = block or max(1, min(_SIDE, _BLOCK_BYTES // max(s.width for s in both)))
    first, second = old["block"] if old else (side, side)
    return Grid(n, m, (min(first, n), min(second, m)), mirrored)


def _pairs(grid: Grid, tiles: list[Tile]) -> int:
    return sum(n * m for n, m in map(grid.sizes, tiles))


# ---------------------------------------------------------------------------------------------- what it is of


def _versions() -> dict[str, str]:
    return {name: sys.modules[name].__version__ for name in ("kljax", "jax", "jaxlib")}  # installed or on the path


def _described(cell: Any) -> str:
    """The name of a cell; of a user's function its code as well."""
    if isinstance(cell, functools.partial):
        return f"{_described(cell.func)} of {_value((cell.args, cell.keywords))}"
    name = f"{getattr(cell, '__module__', '')}.{getattr(cell, '__qualname__', type(cell).__name__)}"
    code = getattr(inspect.unwrap(cell), "__code__", None)
    if name.startswith("kljax.") or code is None:
        return name
    caught = [_value(x.cell_contents) for x in inspect.unwrap(cell).__closure__ or ()]
    text = _plain(repr((code.co_code, code.co_consts, code.co_names, caught)))
    return f"{name} {digest([np.frombuffer(text.encode(), np.uint8)])}"


def _value(x: Any) -> str:
    """An option: numbers and text as they are, arrays as their digest."""
    leaves, tree = jax.tree.flatten(x)
    shown = [
        digest([np.asarray(leaf)]) + f" {np.shape(leaf)}" if np.ndim(leaf) else _plain(repr(leaf)) for leaf in leaves
    ]
    return shown[0] if jax.tree_util.treedef_is_leaf(tree) else f"{_plain(str(tree))} {shown}"


def _plain(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)  # which differ from process to process


def _like(task: Task, blocks: Blocks, traced: list[Any]) -> Any:
    """Shape and type of a tile."""
    return jax.eval_shape(
        partial(one_tile, task), blocks(0, 0), blocks(1, 0), traced, np.zeros((), bool), np.ones(2, np.int32)
    )


# ---------------------------------------------------------------------------------------------- the work


def _mesh(tiles: int) -> Any:
    devices = np.array(jax.local_devices()[: max(1, tiles)])
    return jax.sharding.Mesh(devices, ("tiles",), axis_types=(AxisType.Auto,))


@partial(jax.jit, static_argnums=(0, 1))
def _tiles(task: Task, nearest: int | None, batch: Any, traced: list[Any]) -> Any:
    """A tile on every device."""

    def one(batch: Any, traced: list[Any]) -> Any:
        p, q, own, live = jax.tree.map(lambda x: x[0], batch)
        found = one_tile(task, p, q, _fold.varying(traced, own), own, live)
        if nearest is not None:
            found = _least(min(nearest, found.shape[1]), found, own, live[1])
        return jax.tree.map(lambda x: x[None], found)

    spec = Spec("tiles")
    return jax.shard_map(one, mesh=task.mesh, in_specs=(spec, Spec()), out_specs=spec)(batch, traced)


def _least(k: int, found: Array, own: Array, columns: Array) -> tuple[Array, Array]:
    """The k least of each row and where they are: among the first `columns`, no nan, no row with itself."""
    n, m = found.shape
    here = jnp.arange(m)[None]
    out = (here >= columns) | (own & (jnp.arange(n)[:, None] == here)) | jnp.isnan(found)
    key = jnp.where(out, jnp.inf, jnp.minimum(found, jnp.finfo(found.dtype).max))  # +inf is a distance, too
    index = lax.top_k(-key, k)[1]
    value, gone = (jnp.take_along_axis(x, index, 1) for x in (found, out))
    return jnp.where(gone, jnp.nan, value), jnp.where(gone, -1, index)


def _compute(
    task: Task, nearest: int | None, traced: list[Any], blocks: Blocks, store: Any, tiles: list[Tile],
    tell: Callable[[list[Tile]], Any],
) -> None:  # fmt: skip
    """Read, compute and write, at once."""
    size = task.mesh.size
    spread = NamedSharding(task.mesh, Spec("tiles"))

    def read(tiles: tuple[Tile, ...]) -> Any:
        full = [*tiles, *tiles[-1:] * (size - len(tiles))]  # nothing compiles twice
        sides = [[blocks(which, tile[which]) for tile in full] for which in (0, 1)]
        own = np.array([blocks.own and i == j for i, j in full])
        live = np.array([store.grid.sizes(tile) for tile in full], np.int32)
        return *(jax.tree.map(lambda *x: np.stack(x), *side) for side in sides), own, live

    def write(tiles: tuple[Tile, ...], found: Any) -> list[Tile]:
        parts = jax.tree.map(np.asarray, found)
        for k, tile in enumerate(tiles):
            store.put(tile, jax.tree.map(lambda x, k=k: x[k], parts))
        return list(tiles)

    batches = [tuple(tiles[k : k + size]) for k in range(0, len(tiles), size)]
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(1) as writer:
        for batch, arrays in read_ahead(read, batches):
            found = _tiles(task, nearest, jax.device_put(arrays, spread), traced)
            waiting.append(writer.submit(write, batch, found))
            while len(waiting) > _FLIGHT:
                tell(waiting.popleft().result())
        while waiting:
            tell(waiting.popleft().result())


# ---------------------------------------------------------------------------------------------- processes, early ends


def _shared_out(
    out: Path, kind: Any, grid: Grid, like: Any, manifest: Mapping[str, Any], resume: bool
) -> tuple[Any, list[list[Tile]]]:
    """The result to write into, and what of it this process is to compute.

    The first process prepares it and says what is left: each that looked by itself would see what others have just
    written, and shares would overlap.
    """
    units = kind.units(grid)
    state = np.ones(1 + len(units), np.int8)
    try:
        if jax.process_index() == 0:
            _store.begin(out, kind, grid, like, manifest, resume)
            state[:] = [0, *map(kind(out, grid).done, units)]
    finally:  # nobody waits for a process that could not begin
        if jax.process_count() > 1:
            state = np.asarray(multihost_utils.broadcast_one_to_all(state))
    if state[0]:
        raise InputError(f"{out}: the first process could not begin; it says why")
    if jax.process_index():
        _store.match(out, _store.manifest_of(out) or {}, manifest)
    left = [unit for unit, done in zip(units, state[1:], strict=True) if not done]
    return kind(out, grid), left[jax.process_index() :: jax.process_count()]


def _wait_for_others(out: Path, store: Any) -> None:
    """Until all processes are here: the runtime kills them when the first one leaves."""
    if jax.process_count() == 1:
        return
    try:
        multihost_utils.sync_global_devices(f"kljax.sweep {out}")
    except Exception as error:  # whatever the backend says of a peer that is gone
        if not all(map(store.done, store.units(store.grid))):
            raise ConnectionError(f"{out}: a process has died; {_left(store)}") from error


def _left(store: Any) -> str:
    units = store.units(store.grid)
    done = sum(map(store.done, units))
    return f"{done} of {len(units)} {store.unit} are there, the same call computes the others"


@contextmanager
def _stoppable(out: Path, store: Any) -> Iterator[None]:
    """Say what is there when something ends a sweep early. SIGTERM does it as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{out}: {_left(store)}") from None
    except SystemExit:
        print(f"kljax: terminated; {out}: {_left(store)}", file=sys.stderr, flush=True)
        raise
    except InputError as error:
        raise InputError(f"{error}; {out}: {_left(store)}") from error
    except ConnectionError:
        raise
    except OSError as error:
        what = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, f"{what}; {out}: {_left(store)}") from error
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
