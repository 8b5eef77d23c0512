"""Rows of arrays that may lie on disk, block by block, and the digests by which a sweep knows them again."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from kljax import _check
from kljax._files import InputError
from kljax._store import DIGEST

Place = TypeVar("Place")
Block = TypeVar("Block")

_KEPT_BYTES = 1 << 28  # of rows that are kept for the tiles to come


def read_ahead(read: Callable[[Place], Block], places: Iterable[Place]) -> Iterator[tuple[Place, Block]]:
    """(place, what is read there), the next one being read in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending: tuple[Place, Future[Block]] | None = None
        for place in places:
            following = place, pool.submit(read, place)
            if pending:
                yield pending[0], pending[1].result()
            pending = following
        if pending:
            yield pending[0], pending[1].result()


class Side(NamedTuple):
    """P or Q: arrays of as many rows, and how they make up a distribution."""

    name: str
    arrays: tuple[Any, ...]
    tree: Any
    count: int

    def read(self, start: int, stop: int) -> list[np.ndarray]:
        """Some rows as they are stored. Raises InputError that names the first that cannot be read."""
        try:
            return [np.asarray(array[start:stop]) for array in self.arrays]
        except InputError:
            raise
        except Exception as error:
            if stop - start > 1:
                for row in range(start, stop):
                    self.read(row, row + 1)
            what = str(error).strip() or type(error).__name__
            raise InputError(f"{self.name}: row {start} cannot be read: {what}") from error

    @property
    def width(self) -> int:
        """Bytes of a row, as it is computed with."""
        return sum(4 * max(1, math.prod(x.shape[1:])) for x in self.arrays)

    def summary(self) -> dict[str, Any]:
        """Shapes and types."""
        whole = None if jax.tree_util.treedef_is_leaf(self.tree) else jax.tree.unflatten(self.tree, self.arrays)
        kind = "array" if whole is None else type(whole).__name__
        kinds = [f"{'x'.join(map(str, x.shape))} {_kind(x)}" for x in self.arrays]
        return {"arrays": ", ".join(kinds), "kind": kind}


def sides(P: Any, Q: Any) -> tuple[Side, Side]:
    """Both, Q None being P."""
    p, q = (jax.tree.flatten(given, is_leaf=_is_array) for given in (P, P if Q is None else Q))
    first, second = (tuple(x if _is_array(x) else np.asarray(x) for x in side[0]) for side in (p, q))
    n, m = _check.leading("kljax.sweep", first, second)
    return Side("P", first, p[1], n), Side("Q", second, q[1], m)


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _kind(array: Any) -> str:
    return str(np.dtype(getattr(array.dtype, "numpy_dtype", array.dtype)))  # tensorstore's own types


class Blocks:
    """Blocks of rows of either side, each as long as the others: the last is filled up with its last row."""

    def __init__(self, sides: tuple[Side, Side], sizes: tuple[int, int], own: bool):
        self.sides, self.sizes, self.own = sides, sizes, own
        self.float = jnp.zeros(()).dtype  # now: blocks are read in a thread, which has x64 off
        kept = _KEPT_BYTES // max(side.width * size for side, size in zip(sides, sizes, strict=True))
        self._kept = functools.lru_cache(max(8, kept))(self._block)

    def __call__(self, side: int, k: int) -> Any:
        """Block k of a side."""
        return self._kept(0 if self.own else side, k)

    def _block(self, side: int, k: int) -> Any:
        found, size = self.sides[side], self.sizes[side]
        # integers as floats: jax would wrap counts beyond 2**31 - 1
        stored = found.read(*self._range(side, k))
        parts = [x.astype(self.float) if x.dtype.kind in "iub" else x for x in stored]
        whole = [x if len(x) == size else np.concatenate([x, np.repeat(x[-1:], size - len(x), 0)]) for x in parts]
        return jax.tree.unflatten(found.tree, whole)

    def _range(self, side: int, k: int) -> tuple[int, int]:
        size = self.sizes[side]
        return k * size, min((k + 1) * size, self.sides[side].count)

    def scan(self) -> tuple[list[np.ndarray], dict[str, Any]]:
        """The rows with nan of either side, and a digest of every block: all is read once."""
        nan, digests = [], {}
        for which, side in enumerate(self.sides):
            if which and self.own:
                nan.append(nan[0])
                continue
            rows, known = [], side.summary()
            for k in range(-(-side.count // self.sizes[which])):
                start, stop = self._range(which, k)
                parts = side.read(start, stop)
                known[f"rows {start} to {stop - 1}"] = digest(parts)
                rows.append(start + np.flatnonzero(functools.reduce(np.logical_or, map(_nan, parts))))
            nan.append(np.concatenate(rows))
            digests[side.name] = known
        return nan, digests


def _nan(x: np.ndarray) -> np.ndarray:
    wrong = np.isnan(x) if x.dtype.kind not in "iub" else np.zeros(x.shape, bool)
    return np.any(wrong.reshape(len(x), -1), axis=1)


def digest(arrays: Sequence[np.ndarray]) -> str:
    """Of what they hold."""
    made = hashlib.blake2b(digest_size=12)
    for array in arrays:
        made.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return DIGEST + made.hexdigest()
