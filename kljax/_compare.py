"""Two tables of distributions, row by row: `compare` for arrays, `stream` for files larger than memory."""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from kljax import _check, probs
from kljax import rows as row_table
from kljax._files import InputError, Rows, arrays_as_rows
from kljax._report import Report, Support, bounds, statistics, storage, top_outcomes
from kljax._validate import find_fault

BRIEF = ("kl", "reverse_kl", "js", "tv")
FULL = (
    "kl", "reverse_kl", "jeffreys", "js", "geometric_js", "tv", "hellinger_sq", "bhattacharyya", "le_cam",
    "chi2", "reverse_chi2", "renyi@2", "reverse_renyi@2", "renyi@inf", "reverse_renyi@inf",
)  # fmt: skip

# the parameter that follows @ in a row's name, and its range
_PARAMETERS = {
    "renyi": ("order", 0.0, math.inf),
    "tsallis": ("order", 0.0, np.finfo(np.float32).max),
    "alpha": ("order", -np.finfo(np.float32).max, np.finfo(np.float32).max),
    "js": ("weight", 0.0, 1.0),
    "scaled_js": ("weight", 0.0, 1.0),
    "geometric_js": ("weight", 0.0, 1.0),
    "hockey_stick": ("gamma", 1.0, np.finfo(np.float32).max),
}
_BLOCK_BYTES = 1 << 25
_SPILL_BYTES = 1 << 26


class Cell(NamedTuple):
    """A divergence to compute: the column's function, the arguments swapped or not, one parameter or none."""

    function: Callable[..., Array]
    swapped: bool
    parameter: str | None
    value: float


def compare(
    p: ArrayLike,
    q: ArrayLike,
    *,
    column: ModuleType = probs,
    rows: Sequence[str] | None = None,
    top: int = 10,
) -> Report:
    """Every divergence D(p, q) of each pair of rows, in both directions, and what they have in common.

    p, q: shape [..., K]; leading axes are equal or one's are the tail of the other's (one q [K] for all).
    column: `kljax.probs` or `kljax.logits`. rows: names of its cells, a parameter after @ (`renyi@2`,
    `js@0.1`, `alpha@0.5`, `hockey_stick@2`), `reverse_` for the arguments swapped; None means all. top: how
    many of the outcomes that contribute most to kl to list. Infinite values are counted, not averaged. Row
    numbers count from 0 over the flattened leading axes. Raises ValueError where `kljax.check` would.

    >>> import kljax
    >>> report = kljax.compare([[0.5, 0.5], [0.2, 0.8]], [[0.5, 0.5], [0.4, 0.6]], rows=["tv"])
    >>> print(f"{report.rows['tv'].max:.2f} at row {report.rows['tv'].argmax}")
    0.20 at row 1
    """
    tables = _tables(np.asarray(p), np.asarray(q))
    return stream(*tables, column=column, rows=FULL if rows is None else rows, top=top)


def _tables(p: np.ndarray, q: np.ndarray) -> tuple[Rows, Rows]:
    shapes = f"kljax.compare: p {p.shape} and q {q.shape}"
    for array in (p, q):
        if array.dtype.kind in "cOSUM":
            raise InputError(f"kljax.compare: p {p.dtype} and q {q.dtype}: expected real numbers")
        if array.ndim == 0 or array.size == 0:
            raise InputError(f"{shapes}: expected [..., K] with at least one row and one outcome")
    small, large = sorted((p.shape, q.shape), key=len)
    if small[-1] != large[-1]:
        raise InputError(f"{shapes}: the event axis, the last, must match")
    if large[len(large) - len(small) :] != small:
        raise InputError(f"{shapes}: leading axes must be equal, or one's the tail of the other's")
    if 1 < len(small) < len(large):
        p, q = np.broadcast_to(p, large), np.broadcast_to(q, large)
    return arrays_as_rows(p, "p"), arrays_as_rows(q, "q")


def cells(column: ModuleType, names: Sequence[str]) -> dict[str, Cell]:
    """The cells of a column by name, `renyi@2` and `reverse_chi2` included. Raises InputError."""
    if isinstance(names, str):
        raise InputError(f"rows {names!r}: expected a list of names")
    if not names:
        raise InputError("no rows to compare: name at least one")
    return {name: _cell(column, name) for name in names}


def _cell(column: ModuleType, spec: str) -> Cell:
    name, at, text = spec.partition("@")
    known = available(column)
    swapped = name not in known and name.startswith("reverse_")
    name = name.removeprefix("reverse_") if swapped else name
    if name not in known:
        raise InputError(f"unknown row {spec!r}; expected some of {', '.join(known)}")
    parameter, low, high = _PARAMETERS.get(name, (None, 0.0, 0.0))
    function = getattr(column, name)
    if parameter is None and at:
        raise InputError(f"row {spec!r}: {name} has no parameter")
    if parameter is None or not at:
        if parameter and inspect.signature(function).parameters[parameter].default is inspect.Parameter.empty:
            raise InputError(f"row {spec!r} needs its {parameter}, as in {name}@{min(max(low, 2), high / 2):g}")
        return Cell(function, swapped, None, 0.0)
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"row {spec!r}: {parameter} {text!r} is not a number") from error
    if not low <= value <= high:
        raise InputError(f"row {spec!r}: {parameter} must be from {low:g} to {high:.3g}")
    return Cell(function, swapped, parameter, value)


def available(column: ModuleType) -> list[str]:
    """The names of a column's divergences: its public functions of p, q that need at most a parameter."""
    found = []
    for name, function in vars(column).items():
        if name.startswith("_") or not callable(function) or inspect.isclass(function):
            continue
        parameters = list(inspect.signature(function).parameters)
        if parameters[:2] == ["p", "q"] and "row" not in parameters:
            found.append(name)
    return found


def stream(
    p: Rows,
    q: Rows,
    *,
    column: ModuleType = probs,
    rows: Sequence[str] = BRIEF,
    where: Rows | None = None,
    temperature: float | None = None,
    top: int = 0,
    block_bytes: int = _BLOCK_BYTES,
    spill_bytes: int = _SPILL_BYTES,
    progress: Callable[[int], Any] = lambda done: None,
) -> Report:
    """`compare` for Rows of any length, about `block_bytes` at a time, the next block being read meanwhile.

    where: a mask [K] or [N, K], False deletes the outcome. temperature: divides both logits. The numbers of
    all rows are kept, beyond `spill_bytes` in a temporary file, so that percentiles are exact. Raises
    InputError.
    """
    count, outcomes = _common_shape(p, q, where)
    chosen = cells(column, rows)
    bytes_each = [max(floating_type(table.dtype).itemsize, 4) for table in (p, q)]
    size = min(count, max(1, block_bytes // (outcomes * sum(bytes_each))))
    values = storage(len(chosen), count, spill_bytes)
    tally = _Tally(column, outcomes, temperature, top)
    with jax.enable_x64(True) if max(bytes_each) == 8 else nullcontext():
        for start, block in _ahead(_readers(p, q, where, count), count, size):
            if start == 0:
                _complain(block, start, (p, q), column)
            live = min(size, count - start)
            padded = [_pad(part, size) for part in block]
            found = _values(*padded, temperature, cells=tuple(chosen.values()))
            tally.add(block, padded, live)  # while the divergences are being computed
            part = values[:, start : start + live]
            part[:] = np.asarray(found)[:, :live]
            if np.isnan(part).any():
                _complain(block, start, (p, q), column)
                _complain_of_result(part, start, list(chosen), (p, q))
            progress(live)
    names, eps = list(chosen), float(np.finfo(np.float64 if max(bytes_each) == 8 else np.float32).eps)
    return Report(
        count=count,
        outcomes=outcomes,
        column=column.__name__.rpartition(".")[2],
        same_top=tally.same / count,
        rows={name: statistics(row, spill_bytes) for name, row in zip(names, values, strict=True)},
        p_only=tally.support(0),
        q_only=tally.support(1),
        bounds=bounds(names, values, eps),
        top=[] if tally.total is None else top_outcomes(tally.mean(), top),
        values=values,
        contributions=None if tally.total is None else tally.mean(),
    )


def _common_shape(p: Rows, q: Rows, where: Rows | None) -> tuple[int, int]:
    for table in (q, where):
        if table is None:
            continue
        if table.shape[1] != p.shape[1]:
            raise InputError(
                f"{table.name}: {table.shape[1]} columns where {p.name} has {p.shape[1]}: outcomes must match"
            )
    count = p.shape[0] if not p.single else q.shape[0]
    for table in (q, where):
        if table is not None and not table.single and table.shape[0] != count:
            raise InputError(
                f"{table.name}: {table.shape[0]} rows where {p.name} has {count}; "
                f"one row for all has shape ({table.shape[1]},)"
            )
    return count, p.shape[1]


def floating_type(dtype: np.dtype) -> np.dtype:
    """What a stored number is computed from: floats as they are (8-bit as float32), others as float64."""
    native = dtype.newbyteorder("=")
    if native in (np.dtype(np.float16), np.dtype(jnp.bfloat16), np.dtype(np.float32)):
        return native
    return np.dtype(np.float32 if dtype.name.startswith("float8") else np.float64)


def _readers(p: Rows, q: Rows, where: Rows | None, count: int) -> list[Callable[[int, int], Any]]:
    """Functions (start, stop) -> arrays; a table of one row for all is read once and keeps its one axis."""

    def reader(table, convert):
        if table is None:
            return lambda start, stop: None
        if table.single and count > 1:
            row = convert(table.read(0, 1))[0]
            return lambda start, stop: row
        return lambda start, stop: convert(table.read(start, stop))

    def number(block):
        return block.astype(floating_type(block.dtype), copy=False)

    def mask(block):
        wrong = np.argwhere((block != 0) & (block != 1))
        if len(wrong):
            place = f"column {wrong[0][1]} holds {block[tuple(wrong[0])]}"
            raise InputError(f"{where.name if where else 'where'}: {place}; a mask holds 0 and 1 (False and True)")
        return block != 0

    return [reader(p, number), reader(q, number), reader(where, mask)]


def _ahead(
    readers: list[Callable[[int, int], Any]], count: int, size: int
) -> Iterator[tuple[int, list[np.ndarray | None]]]:
    """(start, one block of each reader), the next one being read in a thread meanwhile."""

    def read(start):
        return [reader(start, min(start + size, count)) for reader in readers]

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(read, 0)
        for start in range(0, count, size):
            block = pending.result()
            if start + size < count:
                pending = pool.submit(read, start + size)
            yield start, block


def _pad(part: np.ndarray | None, size: int) -> np.ndarray | None:
    """The last block made as long as the others, by copies of its last row: nothing compiles twice."""
    if part is None or part.ndim == 1 or len(part) == size:
        return part
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])


@partial(jax.jit, static_argnames="cells")
def _values(p, q, where, temperature, *, cells: tuple[Cell, ...]) -> Array:
    """Every cell of a block, [rows, B], in one program, so that the cells share what they have in common."""
    p, q = _tempered(p, temperature), _tempered(q, temperature)
    values = []
    for cell in cells:
        first, second = (q, p) if cell.swapped else (p, q)
        options = {cell.parameter: cell.value} if cell.parameter else {}
        values.append(cell.function(first, second, where=where, **options))
    return jnp.stack(values)


def _tempered(x: Array, temperature: Array | None) -> Array:
    return x if temperature is None else _check.wide(x)[0] / temperature


def _same_top(p: np.ndarray, q: np.ndarray, where: np.ndarray | None) -> int:
    """In how many rows p and q have the same arg max. NumPy's is several times faster than XLA's on a CPU."""
    tops = []
    for x in (p, q):
        tops.append((x if where is None else np.where(where, x, x.dtype.type(-np.inf))).argmax(-1))
    return int(np.count_nonzero(tops[0] == tops[1]))


@partial(jax.jit, static_argnames="column")
def _one_sided(p, q, where, *, column: ModuleType) -> tuple[Array, Array, Array]:
    """Mass of p where q has none and the reverse: which rows [2, B], which outcomes [2, K], how much [2, B]."""
    # users may forbid implicit rank promotion, so the one shape is said aloud
    shape = np.broadcast_shapes(p.shape, q.shape)
    p, q = (jnp.broadcast_to(x, shape) for x in (p, q))
    where = where if where is None else jnp.broadcast_to(where, shape)
    nothing = 0.0 if column is probs else -jnp.inf
    in_p, in_q = p > nothing, q > nothing
    sides, shares = [], []
    for x, side in ((p, in_p & ~in_q), (q, in_q & ~in_p)):
        side = side if where is None else side & where
        x = _check.wide(x)[0]
        mass = x if column is probs else jax.nn.softmax(x, -1, where=where)
        sides.append(side)
        shares.append(jnp.sum(mass, -1, where=side) / jnp.sum(mass, -1, where=where))
    side = jnp.stack(sides)
    return side.any(-1), side.any(-2), jnp.stack(shares)


@partial(jax.jit, static_argnames="column")
def _contributions(p, q, where, live, temperature, *, column: ModuleType) -> tuple[Array, Array]:
    """What each outcome adds to kl, summed over the rows before `live` with a finite kl, and their number."""
    p, q = _tempered(p, temperature), _tempered(q, temperature)
    each = column.contributions(p, q, row=row_table.kl, where=where)
    keep = jnp.isfinite(jnp.sum(each, -1)) & (jnp.arange(each.shape[0]) < live)
    return jnp.sum(jnp.where(keep[:, None], each, 0), 0), jnp.sum(keep)


class _Tally:
    """What is added up from block to block."""

    def __init__(self, column: ModuleType, outcomes: int, temperature: float | None, top: int):
        self.column, self.temperature = column, temperature
        self.same = 0
        self.finite = 0
        self.total = np.zeros(outcomes) if top else None
        self.violated = np.zeros((2, outcomes), bool)
        self.rows = np.zeros(2, int)
        self.mass = np.zeros(2)

    def add(self, block: list[Any], padded: list[Any], live: int) -> None:
        p, q, _ = block
        self.same += _same_top(*block)
        nothing = 0.0 if self.column is probs else -np.inf
        if not min(p.min(), q.min()) > nothing:
            rows, outcomes, mass = (np.asarray(x) for x in _one_sided(*padded, column=self.column))
            self.rows += rows[:, :live].sum(1)
            self.violated |= outcomes
            self.mass = np.maximum(self.mass, mass.max(1))
        if self.total is not None:
            total, finite = _contributions(*padded, live, self.temperature, column=self.column)
            self.total += np.asarray(total)
            self.finite += int(finite)

    def mean(self) -> np.ndarray:
        assert self.total is not None
        return self.total / max(self.finite, 1)

    def support(self, side: int) -> Support:
        outcomes = int(np.count_nonzero(self.violated[side]))
        return Support(int(self.rows[side]), outcomes, float(self.mass[side]))


def _complain(block: list[Any], start: int, tables: tuple[Rows, Rows], column: ModuleType) -> None:
    """Raise InputError if a value of the block is one that no distribution has."""
    *sides, where = block
    for table, side in zip(tables, sides, strict=True):
        mask = where if where is None or where.ndim <= side.ndim else where.any(0)
        fault = find_fault(np.atleast_2d(side), column, mask)
        if fault is not None:
            place = [] if side.ndim == 1 else [f"row {start + fault.row}"]
            place += [] if fault.outcome is None else [f"column {fault.outcome}"]
            raise InputError(f"{table.name}: {', '.join(place)} {fault.text}".replace(":  ", ": "))


def _complain_of_result(values: np.ndarray, start: int, names: list[str], tables: tuple[Rows, Rows]) -> None:
    row, column = np.argwhere(np.isnan(values))[0]
    raise InputError(
        f"{tables[0].name}: row {start + column}: {names[row]} against {tables[1].name} is not a number, "
        "though each value alone is valid; expected less extreme values"
    )
