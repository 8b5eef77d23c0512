"""What a table of distributions is: the arrays that make up each of them, row by row, in memory or in a file."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from kljax import _faults, logits, lowrank, mvn, normal, probs
from kljax import rows as row_table
from kljax._faults import Fault, Rule
from kljax._files import InputError, Rows, array_names, arrays_as_rows, open_rows


class Field(NamedTuple):
    """One array of a distribution, a letter for each of its event axes: K outcomes, D coordinates, R columns."""

    name: str
    event: str
    rule: Rule | None = None


class Form(NamedTuple):
    """What the distributions of a column are made of."""

    column: ModuleType
    kind: type | None  # what holds the arrays of one distribution; None if it is one bare array
    fields: tuple[Field, ...]
    fault: Callable[[Sequence[np.ndarray], np.ndarray | None], Fault | None]
    contributions: Callable[..., Array] | None  # what each outcome or coordinate adds to kl
    one: tuple[str, ...] = ()  # rows for events of one coordinate only
    more: tuple[str, ...] = ()  # rows beyond those that every column reports

    @property
    def masses(self) -> bool:
        """Whether events are countable, so that each has a mass and one of them the largest."""
        return self.kind is None

    @property
    def unit(self) -> str:
        """What the event axis counts."""
        return "outcomes" if self.masses else "coordinates"

    def build(self, parts: Sequence[Array]) -> Any:
        """What the cells take, from parts [B, *event], or [*event] for one that belongs to every row."""
        leads = [part.shape[: part.ndim - len(f.event)] for part, f in zip(parts, self.fields, strict=True)]
        lead = max(leads, key=len)
        whole = [jnp.broadcast_to(x, lead + x.shape[len(own) :]) for x, own in zip(parts, leads, strict=True)]
        return whole[0] if self.kind is None else self.kind(*whole)


def _discrete(column: ModuleType) -> Form:
    def each(p, q, where):
        return column.contributions(p, q, row=row_table.kl, where=where)

    return Form(column, None, (Field("", "K"),), partial(_faults.discrete, column=column), each)


def _continuous(column: ModuleType, kind: type, *fields: Field, **other) -> Form:
    fault = partial(_faults.continuous, rules=tuple(field.rule for field in fields))
    return Form(column, kind, fields, fault, other.pop("each", None), **other)


_NORMAL = {
    "each": lambda p, q, where: normal.kl(p, q, axis=()),
    "one": ("tv", "js", "js_distance"),
    "more": ("wasserstein2", "fisher_rao"),
}
_LOC = Field("loc", "D")
FORMS: dict[ModuleType, tuple[Form, ...]] = {
    probs: (_discrete(probs),),
    logits: (_discrete(logits),),
    normal: (
        _continuous(normal, normal.Normal, _LOC, Field("scale", "D", _faults.SCALE), **_NORMAL),
        _continuous(normal, normal.LogScaleNormal, _LOC, Field("log_scale", "D"), **_NORMAL),
    ),
    mvn: (_continuous(mvn, mvn.MVN, _LOC, Field("scale_tril", "DD", _faults.FACTOR), more=("wasserstein2",)),),
    lowrank: (
        _continuous(
            lowrank, lowrank.LowRank, _LOC, Field("cov_factor", "DR"), Field("cov_diag", "D", _faults.VARIANCE)
        ),
    ),
}


class Table(NamedTuple):
    """N distributions; each part is [N, size of its event], or one row that belongs to all N."""

    form: Form
    parts: tuple[Rows, ...]
    close: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        """What messages call it: the name of its first part, less that of the field."""
        field = self.form.fields[0].name
        return self.parts[0].name[: -len(field) - 1] if field else self.parts[0].name

    @property
    def count(self) -> int:
        """How many distributions there are."""
        return max(part.shape[0] for part in self.parts)

    def event(self, part: int) -> tuple[int, ...]:
        """The event axes of one part."""
        size = self.parts[0].shape[1]
        width = self.parts[part].shape[1]
        return {"DD": (size, size), "DR": (size, width // size)}.get(self.form.fields[part].event, (width,))


def floating_type(dtype: np.dtype) -> np.dtype:
    """What a stored number is computed from: floats as they are (8-bit as float32), others as float64."""
    native = dtype.newbyteorder("=")
    if native in (np.dtype(np.float16), np.dtype(jnp.bfloat16), np.dtype(np.float32)):
        return native
    return np.dtype(np.float32 if dtype.name.startswith("float8") else np.float64)


def as_table(column: ModuleType, given: Rows | Table) -> Table:
    """Rows are the table of a column whose distributions are one array."""
    return Table(_forms("kljax.compare", column)[0], (given,)) if isinstance(given, Rows) else given


def _forms(who: str, column: ModuleType) -> tuple[Form, ...]:
    if column not in FORMS:
        name = getattr(column, "__name__", column)
        known = "kljax.probs or kljax.logits (arrays), kljax.normal, kljax.mvn or kljax.lowrank"
        raise InputError(f"{who}: column {name}: expected {known}")
    return FORMS[column]


# ---------------------------------------------------------------------------------------------- in memory


class Item(NamedTuple):
    """One array of the distributions in memory, the name it has in messages, and what it is."""

    name: str
    array: np.ndarray
    field: Field

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes before the event."""
        return self.array.shape[: self.array.ndim - len(self.field.event)]

    @property
    def event(self) -> tuple[int, ...]:
        """The axes of the event."""
        return self.array.shape[len(self.lead) :]


def tables(who: str, column: ModuleType, **given: Any) -> list[Table]:
    """Distributions in memory, by the names they have in messages, as tables. Raises InputError."""
    form, found = items(who, column, **given)
    rows = [arrays_as_rows(item.array.reshape(*item.lead, -1), item.name) for item in found]
    size = len(form.fields)
    return [Table(form, tuple(rows[i : i + size])) for i in range(0, len(rows), size)]


def items(who: str, column: ModuleType, **given: Any) -> tuple[Form, list[Item]]:
    """The arrays of distributions in memory, each of the whole batch or of no batch axis. Raises InputError."""
    forms = [_form_of(who, column, name, value) for name, value in given.items()]
    form = forms[0]
    if forms[-1] is not form:
        kinds = [type(value).__name__ for value in given.values()]
        raise InputError(
            f"{who}: p is a {kinds[0]} and q a {kinds[1]}: pass two of one type; "
            "LogScaleNormal(loc, jnp.log(scale)) is the Normal(loc, scale)"
        )
    found = []
    for name, value in given.items():
        for field, part in zip(form.fields, (value,) if form.kind is None else value, strict=True):
            found.append(Item(f"{name}.{field.name}" if field.name else name, np.asarray(part), field))
    for item in found:
        if item.array.dtype.kind in "cOSUM":
            raise InputError(f"{who}: {item.name} holds {item.array.dtype}: expected real numbers")
    return form, _spread(who, form, _scalars_filled(found, len(form.fields)) if column is normal else found)


def _form_of(who: str, column: ModuleType, name: str, value: Any) -> Form:
    known = {form.kind: form for forms in FORMS.values() for form in forms if form.kind}
    forms = _forms(who, column)
    form = known.get(type(value), None if forms[0].kind else forms[0])
    if form is not None and form in forms:
        return form
    kind = type(value).__name__
    if form is not None:
        raise InputError(f"{who}: {name} is a {kind}: pass column={form.column.__name__}")
    raise InputError(f"{who}: {name} is a {kind}: pass a {' or '.join(f.kind.__name__ for f in forms if f.kind)}")


def _scalars_filled(found: list[Item], parts: int) -> list[Item]:
    """A number stands for every coordinate of its own distribution, or else of the other, in the type of the arrays."""
    arrays = [item.array for item in found if item.array.ndim]
    wide = not arrays or any(floating_type(a.dtype).itemsize == 8 for a in arrays)
    kind = np.float64 if wide else np.float32
    filled = []
    for i in range(0, len(found), parts):
        own = found[i : i + parts]
        sizes = [a.shape[-1:] for a in [*(item.array for item in own if item.array.ndim), *arrays]]
        event = (sizes or [(1,)])[0]
        for item in own:
            number = None if item.array.ndim else np.broadcast_to(item.array.astype(kind), event)
            filled.append(item if number is None else item._replace(array=number))
    return filled


def _spread(who: str, form: Form, found: list[Item]) -> list[Item]:
    """The arrays of one batch: those without a batch axis as they are, those of its last axes broadcast."""
    for name, array, field in found:
        if array.ndim < len(field.event) or array.size == 0:
            expected = f"expected [..., {', '.join(field.event)}] with at least one row and one {form.unit[:-1]}"
            raise InputError(f"{who}: {name} has shape {array.shape}: {expected}")
    shapes = f"{who}: {' and '.join(f'{item.name} {item.array.shape}' for item in found)}"
    sizes = {size for item in found for size, x in zip(item.event, item.field.event, strict=True) if x != "R"}
    if len(sizes) > 1:
        raise InputError(f"{shapes}: the event axis, the last, must match")
    lead = max((item.lead for item in found), key=len)
    if any(lead[len(lead) - len(item.lead) :] != item.lead for item in found):
        raise InputError(f"{shapes}: leading axes must be equal, or one's the tail of the other's")
    return [
        item if item.lead in ((), lead) else item._replace(array=np.broadcast_to(item.array, lead + item.event))
        for item in found
    ]


# ---------------------------------------------------------------------------------------------- in a file


def open_table(path: str | os.PathLike, column: ModuleType) -> Table:
    """The distributions in a file: one array, or one for each field under its name. Raises InputError."""
    forms = FORMS[column]
    if forms[0].kind is None:
        rows = open_rows(path)
        return Table(forms[0], (rows,), rows.close)
    form = _form_in(os.fspath(path), forms)
    with ExitStack() as stack:
        parts = []
        for field in form.fields:
            parts.append(open_rows(f"{os.fspath(path)}:{field.name}"))
            stack.callback(parts[-1].close)
        return Table(form, tuple(parts), stack.pop_all().close)


def _form_in(path: str, forms: tuple[Form, ...]) -> Form:
    """The form whose arrays a file holds."""
    column = forms[0].column.__name__.rpartition(".")[2]
    wanted = " or ".join(" and ".join(field.name for field in form.fields) for form in forms)
    suffixes = (".npz", ".safetensors")
    if Path(path).suffix.lower() not in suffixes:
        raise InputError(
            f"argument --as: invalid choice: {column!r} for {path}: it takes a file with arrays {wanted}, "
            f"{' or '.join(suffixes)}"
        )
    names = array_names(path)
    found = [form for form in forms if all(field.name in names for field in form.fields)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if found:
        both = " and ".join(form.fields[-1].name for form in found)
        raise InputError(f"{path}: holds both {both}; expected one of them beside loc")
    raise InputError(f"{path}: expected arrays {wanted}; it holds {listed or 'nothing'}")


@dataclass(frozen=True)
class Sliced:
    """An array in a file, to be sliced along its first axis; each block is checked once, as it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]

    def __getitem__(self, where: slice) -> np.ndarray:
        """Rows where.start to where.stop."""
        return self.read(where.start, where.stop)


def sliced(table: Table) -> Any:
    """What the cells of a column take, of arrays that are read when they are sliced.

    Raises InputError for a value that no distribution has, but for nan, which spoils its own row alone.
    """
    arrays = []
    for i, part in enumerate(table.parts):
        event = table.event(i) if len(table.form.fields[i].event) > 1 else (part.shape[1],)

        def read(start: int, stop: int, part: Rows = part, event: tuple[int, ...] = event) -> np.ndarray:
            one = part.single and table.count > 1
            found = part.read(0, 1) if one else part.read(start, stop)
            return np.broadcast_to(found.reshape(-1, *event), (stop - start, *event)).astype(floating_type(part.dtype))

        arrays.append(Sliced((table.count, *event), floating_type(part.dtype), read))
    checked: set[int] = set()

    def checking(start: int, stop: int, unchecked: tuple[Sliced, ...] = tuple(arrays)) -> np.ndarray:
        parts = [array.read(start, stop) for array in (unchecked[:1] if start in checked else unchecked)]
        if start not in checked:
            _complain(table, start, parts)
            checked.add(start)
        return parts[0]

    arrays[0] = replace(arrays[0], read=checking)
    return arrays[0] if table.form.kind is None else table.form.kind(*arrays)


def _complain(table: Table, start: int, parts: list[np.ndarray]) -> None:
    """Raise InputError if a row without nan is no distribution."""
    whole = ~np.logical_or.reduce([np.isnan(x.astype(np.float32)).reshape(len(x), -1).any(-1) for x in parts])
    fault = table.form.fault([x[whole] for x in parts], None) if whole.any() else None
    if fault is not None:
        fault = fault._replace(text=fault.text.replace("--as ", "--cell "))
        raise located(table, fault, start + int(np.flatnonzero(whole)[fault.row]))


def alike(p: Table, q: Table) -> None:
    """Raise InputError unless both hold the same kind of distribution over the same event axis."""
    if p.form is not q.form:
        kinds = [" and ".join(field.name for field in table.form.fields) for table in (p, q)]
        raise InputError(f"{q.name}: holds {kinds[1]} where {p.name} holds {kinds[0]}; save both alike")
    parts = [*zip(p.parts, p.form.fields, strict=True), *zip(q.parts, q.form.fields, strict=True)]
    same_width([part for part, field in parts if len(field.event) == 1], p.form.unit)


def same_width(parts: Sequence[Rows], unit: str) -> None:
    """Raise InputError unless all have as many columns."""
    for part in parts:
        if part.shape[1] != parts[0].shape[1]:
            raise InputError(
                f"{part.name}: {part.shape[1]} columns where {parts[0].name} has {parts[0].shape[1]}: {unit} must match"
            )


def located(table: Table, fault: Fault, row: int | None) -> InputError:
    """What to raise for a fault; a row of None is the one that belongs to all."""
    place = ([] if row is None else [f"row {row}"]) + (
        ["column " + ", ".join(map(str, fault.place))] * bool(fault.place)
    )
    return InputError(f"{table.parts[fault.part].name}: {', '.join(place)} {fault.text}".replace(":  ", ": "))
