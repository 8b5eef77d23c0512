"""What a sweep leaves on disk: a Zarr v3 array whose chunks are tiles, or the nearest rows in two such arrays.

A chunk appears by a rename or not at all, and what has its chunks is done: there is no journal that could say
otherwise. The array's attributes are the manifest, which a sweep that goes on must match.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kljax._files import CLI_EXTRA, InputError

Tile = tuple[int, int]
KEY = "kljax"
_METADATA = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")
DIGEST = "blake2b:"  # how the digests of inputs begin


class Grid(NamedTuple):
    """An n x m matrix in tiles of block rows and columns; of a mirrored one the upper half is enough."""

    n: int
    m: int
    block: tuple[int, int]
    mirrored: bool

    @property
    def counts(self) -> tuple[int, int]:
        """How many tiles there are along either axis."""
        return -(-self.n // self.block[0]), -(-self.m // self.block[1])

    def tiles(self) -> list[Tile]:
        """Those to compute, row by row."""
        rows, columns = self.counts
        return [(i, j) for i in range(rows) for j in range(i if self.mirrored else 0, columns)]

    def sizes(self, tile: Tile) -> tuple[int, int]:
        """The rows and columns of a tile, those at the edges being smaller."""
        n, m = (min(b, size - b * k) for b, size, k in zip(self.block, self.shape, tile, strict=True))
        return n, m

    @property
    def shape(self) -> tuple[int, int]:
        """That of the matrix."""
        return self.n, self.m

    def place(self, tile: Tile) -> tuple[slice, slice]:
        """Where a tile lies."""
        first, second = (
            slice(b * k, b * k + size) for b, k, size in zip(self.block, tile, self.sizes(tile), strict=True)
        )
        return first, second


class Matrix:
    """The matrix itself: a tile is done when its chunk is there, and that of its mirror image."""

    unit = "tiles"
    names = ("",)

    def __init__(self, path: Path, grid: Grid):
        self.grid, self.path = grid, path
        self.array = _zarr().open_array(path, mode="r+", zarr_format=3).with_config({"write_empty_chunks": True})

    @staticmethod
    def units(grid: Grid) -> list[list[Tile]]:
        """All of it, in pieces each of which is done as a whole."""
        return [[tile] for tile in grid.tiles()]

    def done(self, unit: list[Tile]) -> bool:
        """Whether that is so of one."""
        images = {unit[0], unit[0][::-1]} if self.grid.mirrored else {unit[0]}
        return all(_has(self.array, self.path, tile) for tile in images)

    def put(self, tile: Tile, found: np.ndarray) -> None:
        """Keep a tile, and its mirror image."""
        n, m = self.grid.sizes(tile)
        if self.grid.mirrored and tile[0] != tile[1]:
            self.array[self.grid.place(tile)[::-1]] = found[:n, :m].swapaxes(0, 1)
        self.array[self.grid.place(tile)] = found[:n, :m]

    def opened(self) -> Any:
        """For reading."""
        return _zarr().open_array(self.path, mode="r", zarr_format=3)

    @staticmethod
    def create(path: Any, grid: Grid, like: Any, manifest: Mapping[str, Any]) -> None:
        """An empty one, for values like `like` in shape and dtype behind the first two axes."""
        shape, chunk = ((*two, *like.shape[2:]) for two in (grid.shape, grid.block))
        _array(path, "", shape, chunk, like.dtype, np.nan, manifest)


class Nearest:
    """The k nearest of each row: `values`, least first, and the rows of Q that have them, `indices`.

    A row of tiles is done as a whole. Where there are fewer than k, nan and -1 follow.
    """

    unit = "rows of tiles"
    names = ("values", "indices")

    def __init__(self, path: Path, grid: Grid):
        self.grid, self.path = grid, path
        group = _zarr().open_group(path, mode="r+", zarr_format=3)
        self.arrays = [group[name].with_config({"write_empty_chunks": True}) for name in self.names]
        self.best: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}

    @staticmethod
    def units(grid: Grid) -> list[list[Tile]]:
        """All of it, in pieces each of which is done as a whole."""
        rows, columns = grid.counts
        return [[(i, j) for j in range(columns)] for i in range(rows)]

    def done(self, unit: list[Tile]) -> bool:
        """Whether that is so of one."""
        return all(_has(array, self.path / array.basename, (unit[0][0], 0)) for array in self.arrays)

    def put(self, tile: Tile, found: tuple[np.ndarray, np.ndarray]) -> None:
        """Keep the nearest of a tile's own nearest and of those before; of equals the first."""
        row, column = tile
        k = self.arrays[0].shape[1]
        values, indices, seen = self.best.pop(row, (found[0][:, :0], found[1][:, :0], 0))
        mine = np.where(found[1] < 0, -1, found[1] + column * self.grid.block[1])
        values, indices = np.concatenate([values, found[0]], 1), np.concatenate([indices, mine], 1)
        order = np.argsort(values, 1, kind="stable")[:, :k]  # nan, which stands for no row, comes last
        values, indices = (np.take_along_axis(a, order, 1) for a in (values, indices))
        if seen + 1 < self.grid.counts[1]:
            self.best[row] = values, indices, seen + 1
            return
        for array, part in zip(self.arrays, (values, indices), strict=True):
            array[self.grid.place(tile)[0]] = part[: self.grid.sizes(tile)[0]]

    def opened(self) -> Any:
        """For reading."""
        return _zarr().open_group(self.path, mode="r", zarr_format=3)

    @staticmethod
    def create(path: Any, grid: Grid, like: Any, manifest: Mapping[str, Any]) -> None:
        """An empty one of `manifest["nearest"]` columns."""
        _zarr().create_group(path, zarr_format=3, attributes={KEY: dict(manifest)})
        shape, chunk = ((rows, manifest["nearest"]) for rows in (grid.n, grid.block[0]))
        _array(path, "values", shape, chunk, like.dtype, np.nan, {})
        _array(path, "indices", shape, chunk, np.dtype(np.int64), -1, {})


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise InputError(f"kljax.sweep writes with zarr: {CLI_EXTRA}") from error
    return zarr


def _array(path: Any, name: str, shape: Any, chunk: Any, dtype: Any, fill: Any, manifest: Mapping[str, Any]) -> None:
    _zarr().create_array(
        path, name=name or None, shape=shape, chunks=chunk, dtype=dtype, fill_value=fill, zarr_format=3,
        compressors=None, attributes={KEY: dict(manifest)} if manifest else None,
    )  # fmt: skip


def _has(array: Any, path: Path, tile: Sequence[int]) -> bool:
    """Whether a chunk is there as a whole: a disk that lost power, or a copy, may leave less."""
    place = (*tile, *(0,) * (array.ndim - len(tile)))
    file = path / array.metadata.encode_chunk_key(place)
    return file.is_file() and file.stat().st_size == math.prod(array.chunks) * array.dtype.itemsize


def manifest_of(out: Path) -> dict[str, Any] | None:
    """The manifest of a sweep that was begun there, None where nothing is. Raises InputError."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        found = _zarr().open(out, mode="r", zarr_format=3).attrs.get(KEY)
    except InputError:
        raise
    except Exception as error:  # whatever zarr makes of a file that is none of its own
        raise InputError(f"{out}: exists and is no result of kljax.sweep; choose another name") from error
    block = found.get("block") if isinstance(found, dict) else None
    if not (isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block)):
        raise InputError(f"{out}: exists and is no result of kljax.sweep; choose another name")
    return found


def begin(out: Path, kind: type, grid: Grid, like: Any, manifest: Mapping[str, Any], resume: bool) -> None:
    """Have a result at `out` that this manifest may go on with. Raises InputError."""
    old = manifest_of(out)
    if old is not None and resume:
        match(out, old, manifest)
        return _check_arrays(out, kind, grid, like, manifest)
    if not out.parent.is_dir():
        raise InputError(f"{out}: no folder {out.parent}")
    # under another name first: who finds `out` finds all of it
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        kind.create(work / "new", grid, like, manifest)
        if old is not None:
            os.rename(out, work / "old")
        os.rename(work / "new", out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_arrays(out: Path, kind: type, grid: Grid, like: Any, manifest: Mapping[str, Any]) -> None:
    """Raise InputError unless the arrays of a result are those that its manifest would have now."""
    model = _zarr().storage.MemoryStore()
    kind.create(model, grid, like, manifest)
    for name in kind.names:
        try:
            found, expected = (
                _zarr().open_array(place, path=name, mode="r", zarr_format=3).metadata.to_dict()
                for place in (out, model)
            )
        except Exception as error:  # whatever zarr makes of metadata that is damaged
            raise InputError(
                f"{out}: damaged: it has no {name or 'array'}; choose another name, or delete it"
            ) from error
        different = [key for key in _METADATA if found[key] != expected[key]]
        if different:
            raise InputError(f"{out}: damaged: {different[0]} is not as begun; choose another name, or delete it")


def match(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise InputError that says what differs."""
    different = _difference("", old, new)
    if different:
        raise InputError(f"{out}: begun with {different}; choose another name, or resume=False (--fresh) to begin anew")


def _difference(name: str, old: Any, new: Any) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        parts = (_difference(f"{name} {key}".strip(), old.get(key), new.get(key)) for key in {**new, **old})
        return next(filter(None, parts), "")
    if old == new:
        return ""
    if isinstance(old, str) and old.startswith(DIGEST):
        return f"other numbers in {name}"
    return f"{name} {_shown(old)}, not {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("arrays"))
    return "none" if value is None else "x".join(map(str, value)) if isinstance(value, list) else str(value)


def tidy(out: Path) -> None:
    """Remove what killed processes had begun to write, once nobody writes any more."""
    for left in out.rglob("*.partial"):
        left.unlink(missing_ok=True)
