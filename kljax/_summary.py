"""What a matrix on disk holds, in a few lines, read in strips of rows."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kljax._store import KEY
from kljax._sweep import Swept

_PIXELS = 1000  # of a picture's sides, at most


class Extreme(NamedTuple):
    """A value and where it is."""

    value: float
    row: int
    column: int

    def __str__(self) -> str:
        return f"{self.value:.6g} (rows {self.row} and {self.column})"


class Summary(NamedTuple):
    """Of the finite values; a row with itself left out of the least."""

    least: Extreme | None
    most: Extreme | None
    mean: float
    infinite: int
    nan: int
    picture: np.ndarray  # means of parts

    def __str__(self) -> str:
        if self.least is None or self.most is None:
            return f"nothing finite: {self.infinite:,} infinite, {self.nan:,} nan"
        rest = [f"{count:,} {what}" for count, what in ((self.infinite, "infinite"), (self.nan, "nan")) if count]
        return ", ".join([f"least {self.least}", f"largest {self.most}", f"mean {self.mean:.6g}", *rest])


def summarise(matrix: Any, own: bool) -> Summary:
    """Of an array that is sliced along its first axis; own: its rows are its columns."""
    n, m = matrix.shape
    step = -(-n // _PIXELS), -(-m // _PIXELS)
    least, most, total, count, infinite, nan, picture = None, None, 0.0, 0, 0, 0, []
    for start, part in _strips(matrix, step[0]):
        finite = np.isfinite(part)
        infinite, nan = infinite + int(np.isinf(part).sum()), nan + int(np.isnan(part).sum())
        count, total = count + int(finite.sum()), total + float(part.sum(where=finite, dtype=np.float64))
        others = finite & (np.arange(start, start + len(part))[:, None] != np.arange(m)) if own else finite
        low = _extreme(np.argmin(np.where(others, part, np.inf)), part, start) if others.any() else None
        high = _extreme(np.argmax(np.where(others, part, -np.inf)), part, start) if others.any() else None
        least, most = min(filter(None, (least, low)), default=None), max(filter(None, (most, high)), default=None)
        picture.append(_means(part, finite, step))
    return Summary(least, most, total / max(1, count), infinite, nan, np.concatenate(picture))


def _strips(matrix: Any, step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Some chunks' worth of rows at a time, a multiple of `step`."""
    rows = step * max(1, matrix.chunks[0] // step)
    for start in range(0, matrix.shape[0], rows):
        yield start, np.asarray(matrix[start : start + rows])


def _extreme(place: np.integer, part: np.ndarray, start: int) -> Extreme:
    i, j = divmod(int(place), part.shape[1])
    return Extreme(float(part[i, j]), start + i, j)


def _means(part: np.ndarray, finite: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    def sums(x: np.ndarray) -> np.ndarray:
        down = np.add.reduceat(x, np.arange(0, x.shape[0], step[0]), 0)
        return np.add.reduceat(down, np.arange(0, x.shape[1], step[1]), 1)

    with np.errstate(invalid="ignore"):
        return sums(np.where(finite, part, 0).astype(np.float64)) / sums(finite.astype(np.float64))


def made(name: str, title: str, swept: Swept, own: bool) -> str:
    """What is there now, and how fast."""
    block = " x ".join(map(str, swept.matrix.attrs[KEY]["block"]))
    there = swept.tiles - swept.computed
    rest = f" ({there:,} were there)" if there else ""
    lines = [f"{name}: {title}, {swept.computed:,} tiles of {block}{rest} in {swept.seconds:.1f} s"]
    for side, rows in zip("P" if own else "PQ", swept.nan_rows, strict=False):
        if rows.size:
            shown = ", ".join(map(str, rows[:5])) + (f" and {rows.size - 5} more" if rows.size > 5 else "")
            lines.append(f"nan in rows of {side}, and so in theirs of the matrix: {shown}")
    return "\n".join(lines)


def closest(values: np.ndarray, indices: Any) -> str:
    """The nearest pair of all, and how far the nearest are."""
    first = values[:, 0]
    if np.isnan(first).all():
        return "no row has a neighbour"
    row = int(np.nanargmin(first))
    pair = Extreme(float(first[row]), row, int(indices[row, 0]))
    return f"nearest {pair}; to the nearest: median {np.nanmedian(first):.6g}, largest {np.nanmax(first):.6g}"
