"""Two tables of distributions, row by row: `compare` for arrays, `stream` for files larger than memory."""

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kljax import probs
from kljax._blocks import read_ahead
from kljax._files import InputError, Rows
from kljax._report import Report, bounds, statistics, storage, top_outcomes
from kljax._tables import Form, Table, alike, as_table, floating_type, located, same_width, tables
from kljax._tally import Block, Tally, tempered

BRIEF = ("kl", "reverse_kl", "js", "tv")
FULL = (
    "kl", "reverse_kl", "jeffreys", "js", "geometric_js", "tv", "hellinger_sq", "bhattacharyya", "le_cam",
    "chi2", "reverse_chi2", "renyi@2", "reverse_renyi@2", "renyi@inf", "reverse_renyi@inf",
)  # fmt: skip

# the parameter that follows @ in a row's name, and its range
PARAMETERS = {
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
    p: Any,
    q: Any,
    *,
    column: ModuleType = probs,
    rows: Sequence[str] | None = None,
    top: int = 10,
) -> Report:
    """Every divergence D(p, q) of each pair of rows, in both directions, and what they have in common.

    p, q: shape [..., K], or what the cells of a Gaussian column take; leading axes are equal or one's are the tail of
    the other's (one q [K], one `Normal(0.0, 1.0)`, for all). column: `kljax.probs`, `kljax.logits`, `kljax.normal`,
    `kljax.mvn` or `kljax.lowrank`. rows: names of its cells, a parameter after @ (`renyi@2`, `js@0.1`, `alpha@0.5`,
    `hockey_stick@2`), `reverse_` for the arguments swapped; None means all, with bounds (`tv_lower`, `tv_upper`) where
    a column has no `tv` or `js`. top: how many of the outcomes that contribute most to kl to list, in `kljax.normal` of
    the coordinates. Infinite values are counted, not averaged. Row numbers count from 0 over the flattened leading
    axes. Raises ValueError where `kljax.check` would.

    >>> import kljax
    >>> report = kljax.compare([[0.5, 0.5], [0.2, 0.8]], [[0.5, 0.5], [0.4, 0.6]], rows=["tv"])
    >>> print(f"{report.rows['tv'].max:.2f} at row {report.rows['tv'].argmax}")
    0.20 at row 1
    >>> p, q = kljax.normal.Normal([[0.0, 1.0], [0.0, 3.0]], 1.0), kljax.normal.Normal(0.0, 1.0)
    >>> report = kljax.compare(p, q, column=kljax.normal, rows=["kl"])
    >>> print(f"{report.rows['kl'].mean:.2f}, most of it in coordinate {report.top[0].outcome}")
    2.50, most of it in coordinate 1
    """
    p, q = tables("kljax.compare", column, p=p, q=q)
    rows = defaults(p.form, p.event(0)[0], (*FULL, *p.form.more)) if rows is None else rows
    return stream(p, q, column=column, rows=rows, top=top)


def defaults(form: Form, size: int, names: Sequence[str]) -> list[str]:
    """Those of `names` that a column has for events of this size, bounds in place of what has no closed form."""
    known = [name for name in available(form.column) if size == 1 or name not in form.one]
    chosen = []
    for name in names:
        base = name.partition("@")[0]
        bounded = (f"{name}_lower", f"{name}_upper")
        if base in known or base.removeprefix("reverse_") in known:
            chosen.append(name)
        elif set(bounded) <= set(known):
            chosen += bounded
    return chosen


def cells(column: ModuleType, names: Sequence[str]) -> dict[str, Cell]:
    """The cells of a column by name, `renyi@2` and `reverse_chi2` included. Raises InputError."""
    if isinstance(names, str):
        raise InputError(f"rows {names!r}: expected a list of names")
    if not names:
        raise InputError("no rows to compare: name at least one")
    return {name: _cell(column, name) for name in names}


def _chosen(form: Form, size: int, names: Sequence[str]) -> dict[str, Cell]:
    """The cells for events of this size."""
    found = cells(form.column, names)
    for name, cell in found.items():
        if size > 1 and cell.function.__name__ in form.one:
            bound = cell.function.__name__.partition("_")[0]
            raise InputError(
                f"row {name!r}: no closed form for {size} coordinates, only for one; "
                f"expected {bound}_lower or {bound}_upper"
            )
    return found


def _cell(column: ModuleType, spec: str) -> Cell:
    name, at, text = spec.partition("@")
    known = available(column)
    swapped = name not in known and name.startswith("reverse_")
    name = name.removeprefix("reverse_") if swapped else name
    if name not in known:
        raise InputError(f"unknown row {spec!r}; expected some of {', '.join(known)}")
    parameter, low, high = PARAMETERS.get(name, (None, 0.0, 0.0))
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
    check_parameter(f"row {spec!r}", name, value)
    return Cell(function, swapped, parameter, value)


def check_parameter(who: str, name: str, value: float) -> None:
    """Raise InputError unless the parameter of a row is in its range."""
    parameter, low, high = PARAMETERS[name]
    if not low <= value <= high:
        raise InputError(f"{who}: {parameter} must be from {low:g} to {high:.3g}")


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
    p: Rows | Table,
    q: Rows | Table,
    *,
    column: ModuleType = probs,
    rows: Sequence[str] | None = None,
    where: Rows | None = None,
    temperature: float | None = None,
    top: int = 0,
    block_bytes: int = _BLOCK_BYTES,
    spill_bytes: int = _SPILL_BYTES,
    progress: Callable[[int], Any] = lambda done: None,
) -> Report:
    """`compare` for tables of any length, about `block_bytes` at a time, the next block being read meanwhile.

    rows: None means those of BRIEF. where: a mask [K] or [N, K], False deletes the outcome. temperature: divides both
    logits. The numbers of all rows are kept, beyond `spill_bytes` in a temporary file, so that percentiles are exact.
    Raises InputError.
    """
    p, q = as_table(column, p), as_table(column, q)
    count, outcomes = _common_shape(p, q, where)
    chosen = _chosen(p.form, outcomes, defaults(p.form, outcomes, BRIEF) if rows is None else rows)
    bytes_each = [max(floating_type(part.dtype).itemsize, 4) for part in (*p.parts, *q.parts)]
    widths = [part.shape[1] for part in (*p.parts, *q.parts)]
    size = min(count, max(1, block_bytes // sum(n * width for n, width in zip(bytes_each, widths, strict=True))))
    values = storage(len(chosen), count, spill_bytes)
    tally = Tally(p.form, outcomes, temperature, top)
    with jax.enable_x64(True) if max(bytes_each) == 8 else nullcontext():
        read = _readers(p, q, where, count)
        for start, block in read_ahead(lambda at: read(at, min(at + size, count)), range(0, count, size)):
            if start == 0 or not p.form.masses:  # a mass that is none makes every cell nan, an infinite loc does not
                _complain(block, start, (p, q))
            live = min(size, count - start)
            padded = _padded(block, p.form, size)
            found = _values(*padded, temperature, form=p.form, cells=tuple(chosen.values()))
            tally.add(block, padded, live)  # while the divergences are being computed
            part = values[:, start : start + live]
            part[:] = np.asarray(found)[:, :live]
            if np.isnan(part).any():
                _complain(block, start, (p, q))
                _complain_of_result(part, start, list(chosen), (p, q))
            progress(live)
    eps = float(np.finfo(np.float64 if max(bytes_each) == 8 else np.float32).eps)
    return _report(p.form, list(chosen), values, tally, top, eps, spill_bytes)


def _report(form: Form, names: list[str], values: np.ndarray, tally: Tally, top: int, eps: float, spill: int) -> Report:
    count, mean = values.shape[1], tally.mean()
    return Report(
        count=count,
        outcomes=tally.violated.shape[1],
        column=form.column.__name__.rpartition(".")[2],
        same_top=tally.same / count if form.masses else None,
        rows={name: statistics(row, spill) for name, row in zip(names, values, strict=True)},
        p_only=tally.support(0),
        q_only=tally.support(1),
        bounds=bounds(names, values, eps),
        top=[] if mean is None else top_outcomes(mean, top),
        values=values,
        contributions=mean,
        unit=form.unit,
    )


def _common_shape(p: Table, q: Table, where: Rows | None) -> tuple[int, int]:
    """How many rows there are, and the size of the event."""
    alike(p, q)
    parts, first = [*p.parts, *q.parts], p.parts[0]
    same_width([first, *([where] if where else [])], p.form.unit)
    long = next((part for part in parts if not part.single), first)
    for table in [*parts, *([where] if where else [])]:
        if not table.single and table.shape[0] != long.shape[0]:
            raise InputError(
                f"{table.name}: {table.shape[0]} rows where {long.name} has {long.shape[0]}; "
                f"one row for all has shape ({table.shape[1]},)"
            )
    return long.shape[0], first.shape[1]


def _readers(p: Table, q: Table, where: Rows | None, count: int) -> Callable[[int, int], Block]:
    """A function (start, stop) -> a block; a part of one row for all is read once and keeps no axis of rows."""

    def reader(part, event, convert=lambda block: block.astype(floating_type(block.dtype), copy=False)):
        if part.single and count > 1:
            row = convert(part.read(0, 1)).reshape(event)
            return lambda start, stop: row
        return lambda start, stop: convert(part.read(start, stop)).reshape(-1, *event)

    def mask(block):
        wrong = np.argwhere((block != 0) & (block != 1))
        if len(wrong):
            place = f"column {wrong[0][1]} holds {block[tuple(wrong[0])]}"
            raise InputError(f"{where.name if where else 'where'}: {place}; a mask holds 0 and 1 (False and True)")
        return block != 0

    sides = [[reader(part, table.event(i)) for i, part in enumerate(table.parts)] for table in (p, q)]
    keep = reader(where, where.shape[1:], mask) if where else lambda start, stop: None

    def read(start, stop):
        first, second = (tuple(part(start, stop) for part in side) for side in sides)
        return Block(first, second, keep(start, stop))

    return read


def _padded(block: Block, form: Form, size: int) -> Block:
    """The last block made as long as the others, by copies of its last row: nothing compiles twice."""

    def pad(part, rank):
        if part.ndim == rank or len(part) == size:
            return part
        return np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])

    ranks = [len(field.event) for field in form.fields]
    first, second = (tuple(pad(part, rank) for part, rank in zip(side, ranks, strict=True)) for side in block[:2])
    return Block(first, second, None if block.where is None else pad(block.where, 1))


@partial(jax.jit, static_argnames=("form", "cells"))
def _values(p, q, where, temperature, *, form: Form, cells: tuple[Cell, ...]) -> Array:
    """Every cell of a block, [rows, B], in one program, so that the cells share what they have in common."""
    p, q = (form.build([tempered(x, temperature) for x in side]) for side in (p, q))
    values = []
    for cell in cells:
        first, second = (q, p) if cell.swapped else (p, q)
        options = {cell.parameter: cell.value} if cell.parameter else {}
        values.append(cell.function(first, second, **options, **({} if where is None else {"where": where})))
    return jnp.stack(values)


def _complain(block: Block, start: int, tables: tuple[Table, Table]) -> None:
    """Raise InputError if a value of the block is one that no distribution has."""
    for table, side in zip(tables, block[:2], strict=True):
        ranks = [len(field.event) for field in table.form.fields]
        mask = block.where
        if mask is not None and mask.ndim > side[0].ndim:
            mask = np.any(mask, 0, keepdims=True)
        fault = table.form.fault([x if x.ndim > n else x[None] for x, n in zip(side, ranks, strict=True)], mask)
        if fault is not None:
            raise located(table, fault, None if side[fault.part].ndim == ranks[fault.part] else start + fault.row)


def _complain_of_result(values: np.ndarray, start: int, names: list[str], tables: tuple[Table, Table]) -> None:
    row, column = np.argwhere(np.isnan(values))[0]
    raise InputError(
        f"{tables[0].name}: row {start + column}: {names[row]} against {tables[1].name} is not a number, "
        "though each value alone is valid; expected less extreme values"
    )
