"""Rows of numbers in files that may be larger than memory: .npy, .npz, .safetensors, .zarr and .csv.

`open_rows` looks at a header and returns `Rows`, whose `read(start, stop)` fetches that block and nothing
else. No format is read with pickle. Every complaint is an `InputError`: one line with the file, the place and
the remedy.
"""

import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kljax._input import KINDS, InputError, Rows, check_dtype, first_line, npy_header, row_shape

CLI_EXTRA = 'pip install "kljax[cli]"'
_SAFETENSORS_HEADER = 100_000_000  # the most that the format .safetensors allows


def open_rows(path: str | os.PathLike) -> Rows:
    """The rows of a file; FILE:NAME names one of several arrays (`.npz`, `.safetensors`, `.zarr`).

    An array of one axis is one row; of more than two, all axes but the last together are the rows. Raises
    InputError.
    """
    name = os.fspath(path)
    file, key = file_and_key(name)
    opener = _OPENERS.get(Path(file).suffix.lower())
    if opener is None:
        raise InputError(f"{name}: unknown kind of file; expected {', '.join(_OPENERS)}")
    if not os.path.exists(file):
        raise InputError(f"{name}: no such file")
    if opener is not _open_zarr and not os.path.isfile(file):
        raise InputError(f"{name}: not a regular file")
    try:
        return opener(file, key)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}") from error


def file_and_key(name: str) -> tuple[str, str | None]:
    """The file in FILE:NAME, and the name of an array in it or None."""
    named = re.match(r"^(.+\.(?:npz|safetensors|zarr)):(.+)$", name)
    return (named[1], named[2]) if named and not os.path.exists(name) else (name, None)


def whole(rows: Rows) -> np.ndarray:
    """All rows at once. Raises InputError where they outgrow memory: a small file may hold very many."""
    size = math.prod(rows.shape) * rows.dtype.itemsize
    if size > _memory():
        raise InputError(f"{rows.name}: {size} bytes, all of them needed at once; expected fewer than memory holds")
    return rows.read(0, rows.shape[0])


def _memory() -> int:
    """Bytes of this machine's memory, where it says so."""
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 1 << 40


def array_names(path: str) -> list[str]:
    """The names of the arrays in a `.npz` or `.safetensors`. Raises InputError."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    return _npz_names(path) if Path(path).suffix.lower() == ".npz" else sorted(_safetensors_header(path)[0])


def arrays_as_rows(array: np.ndarray, name: str) -> Rows:
    """An array in memory, [..., K], as Rows."""
    shape = row_shape(name, array.shape)
    table = array.reshape(shape)
    return Rows(name, shape, array.dtype, lambda start, stop: table[start:stop], array.ndim == 1)


def _raw(name: str, file: str, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Rows:
    """Rows that lie one after another in a file from `offset` on. The file is opened anew for each block, so
    that pages of it are never counted as this process's memory.
    """
    check_dtype(name, dtype)
    count, outcomes = row_shape(name, shape)
    width = outcomes * dtype.itemsize
    expected, found = offset + count * width, os.path.getsize(file)
    if found < expected:
        raise InputError(f"{name}: cut short, {found} bytes where its header promises {expected}")

    def read(start, stop):
        data = np.fromfile(file, np.uint8, (stop - start) * width, offset=offset + start * width)
        if data.size != (stop - start) * width:
            raise InputError(f"{name}: cut short while it was read, near row {start + data.size // width}")
        return data.view(dtype).reshape(stop - start, outcomes)

    return Rows(name, (count, outcomes), dtype, read, len(shape) == 1)


def _open_npy(file: str, key: str | None) -> Rows:
    with open(file, "rb") as stream:
        shape, fortran, dtype = npy_header(stream, file)
        offset = stream.tell()
    rows = _raw(file, file, offset, shape, dtype)
    if not fortran or len(shape) < 2:
        return rows
    if len(shape) > 2:
        raise InputError(f"{file}: Fortran order with {len(shape)} axes; save np.ascontiguousarray(array)")

    def read(start, stop):
        table = np.memmap(file, np.dtype(f"V{dtype.itemsize}"), "r", offset, shape, "F")
        return np.ascontiguousarray(table[start:stop]).view(dtype)

    return rows._replace(read=read)


def _choose(name: str, keys: list[str], key: str | None) -> str:
    if keys.count(key or "") > 1:
        raise InputError(f"{name}: holds {key!r} more than once; expected each name once")
    if key in keys:
        return str(key)
    listed = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
    if key is not None:
        raise InputError(f"{name}: no array {key!r}; it holds {listed or 'nothing'}")
    if len(keys) != 1:
        raise InputError(f"{name}: holds {len(keys)} arrays ({listed}); name one as {name}:NAME")
    return keys[0]


class _Member:
    """Rows of a zip member, inflated in one sweep; a step back starts the sweep again."""

    def __init__(self, file: str, member: str):
        self.archive = zipfile.ZipFile(file)
        self.member, self.name = member, f"{file}:{member.removesuffix('.npy')}"
        self.restart()

    def restart(self) -> None:
        self.stream = self.archive.open(self.member)  # a stream left behind closes when it is collected
        self.shape, self.fortran, self.dtype = npy_header(self.stream, self.name)
        self.row = 0

    def left(self) -> int:
        """Bytes behind the header, as the archive has it."""
        return self.archive.getinfo(self.member).file_size - self.stream.tell()

    def close(self) -> None:
        self.stream.close()  # an archive keeps its file open for its streams
        self.archive.close()

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.take(min(size, 1 << 24)))

    def take(self, size: int) -> bytes:
        try:
            data = self.stream.read(size)
        except MemoryError:
            raise
        except Exception as error:  # each way to compress has its own
            raise InputError(f"{self.name}: damaged near row {self.row} ({first_line(error)})") from error
        if len(data) != size:
            raise InputError(f"{self.name}: cut short after row {self.row}")
        return data

    def read(self, start: int, stop: int) -> np.ndarray:
        width = self.shape[-1] * self.dtype.itemsize
        if start < self.row:
            self.restart()
        self.skip((start - self.row) * width)
        data = self.take((stop - start) * width)
        self.row = stop
        return np.frombuffer(data, np.uint8).view(self.dtype).reshape(stop - start, -1)


def _npz_names(file: str) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except OSError:
        raise
    except Exception as error:  # zipfile's own, and whatever damaged numbers lead it to
        raise InputError(f"{file}: not a readable .npz file ({first_line(error)})") from error


def _open_npz(file: str, key: str | None) -> Rows:
    chosen = _choose(file, _npz_names(file), key) + ".npy"
    try:
        member = _Member(file, chosen)
    except (InputError, OSError):
        raise
    except Exception as error:  # as above
        raise InputError(f"{file}: not a readable .npz file ({first_line(error)})") from error
    check_dtype(member.name, member.dtype)
    if member.fortran and len(member.shape) > 1:
        raise InputError(f"{member.name}: Fortran order cannot be streamed; save np.ascontiguousarray(array)")
    shape = row_shape(member.name, member.shape)
    expected, found = math.prod(shape) * member.dtype.itemsize, member.left()
    if found < expected:
        raise InputError(f"{member.name}: cut short, {found} bytes where its header promises {expected}")
    return Rows(member.name, shape, member.dtype, member.read, len(member.shape) == 1, member.close)


_BAD_HEADER = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _safetensors_header(file: str) -> tuple[dict[str, Any], int]:
    """The entries of a .safetensors file, each under its name, and where the numbers begin."""
    with open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        text = stream.read(size) if size <= min(_SAFETENSORS_HEADER, os.path.getsize(file) - 8) else b""
    try:
        return {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}, 8 + size
    except _BAD_HEADER as error:
        raise InputError(f"{file}: not a .safetensors file: its header cannot be read") from error


def _open_safetensors(file: str, key: str | None) -> Rows:
    header, offset = _safetensors_header(file)
    keys = sorted(header)
    chosen = _choose(file, keys, key)
    name = file if key is None else f"{file}:{chosen}"
    try:
        entry = header[chosen]
        (start, stop), shape, kind = entry["data_offsets"], tuple(entry["shape"]), str(entry["dtype"])
        if not all(type(n) is int and 0 <= n < 1 << 63 for n in (start, stop, *shape)):
            raise ValueError("numbers that count nothing")
    except _BAD_HEADER as error:
        raise InputError(f"{file}: not a .safetensors file: its header cannot be read") from error
    if kind not in KINDS:
        raise InputError(f"{name}: holds {kind}; expected one of {', '.join(KINDS)}")
    dtype = np.dtype(KINDS[kind])
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise InputError(f"{name}: its header contradicts itself: {stop - start} bytes for shape {shape}")
    return _raw(name, file, offset + start, shape, dtype)


def _open_zarr(file: str, key: str | None) -> Rows:
    try:
        import zarr
    except ImportError as error:
        raise InputError(f"{file}: reading .zarr needs zarr: {CLI_EXTRA}") from error
    name = file if key is None else f"{file}:{key}"
    try:
        with warnings.catch_warnings(action="ignore"):  # zarr's own, of formats to come
            node: Any = zarr.open(file, mode="r")
        if isinstance(node, zarr.Group):
            node = node[key] if key is not None else node[_choose(file, sorted(node.array_keys()), None)]
        elif key is not None:
            raise InputError(f"{name}: {file} is one array without a name")
        if isinstance(node, zarr.Group):
            raise InputError(f"{name}: a group; name an array in it")
        shape, dtype = tuple(node.shape), np.dtype(node.dtype)
    except InputError:
        raise
    except Exception as error:  # zarr checks little of what it reads
        raise InputError(f"{name}: zarr cannot open it ({first_line(error)})") from error
    check_dtype(name, dtype)
    count, outcomes = row_shape(name, shape)

    def read(start, stop):
        try:
            pieces = [np.asarray(node[where]) for where in _slices(shape[:-1], start, stop)]
        except MemoryError:
            raise
        except Exception as error:
            raise InputError(f"{name}: zarr cannot read rows {start} to {stop} ({first_line(error)})") from error
        return np.concatenate([piece.reshape(-1, outcomes) for piece in pieces])

    return Rows(name, (count, outcomes), dtype, read, len(shape) == 1)


def _slices(lead: tuple[int, ...], start: int, stop: int):
    """Index tuples that cover rows start..stop-1 of an array with these leading axes, in order."""
    if not lead:
        yield ()
        return
    while start < stop:
        *prefix, first = (int(i) for i in np.unravel_index(start, lead))
        step = min(lead[-1] - first, stop - start)
        yield (*prefix, slice(first, first + step))
        start += step


def _lines(file: str, offset: int):
    """(offset behind the line, the line) for each line of a text file that is not blank."""
    with open(file, "rb") as stream:
        stream.seek(offset)
        for line in stream:
            offset += len(line)
            if line.strip():
                yield offset, line


def _open_csv(file: str, key: str | None) -> Rows:
    first = next((line for _, line in _lines(file, 0)), None)
    if first is None:
        raise InputError(f"{file}: empty; expected lines of numbers")
    fields = _fields(first)
    begin = _header_end(file, fields)
    count, outcomes = sum(1 for _ in _lines(file, begin)), len(fields)
    offsets = {0: begin}  # row -> where it begins: blocks are read in order, each from where the last one ended

    def read(start, stop):
        row = max(known for known in offsets if known <= start)
        chosen = list(islice(_lines(file, offsets[row]), start - row, stop - row))
        try:
            text = (line.decode("utf-8-sig") for _, line in chosen)
            block = np.loadtxt(text, delimiter=",", quotechar='"', comments=None, ndmin=2)
        except ValueError as error:
            raise _csv_fault(file, outcomes, begin) or InputError(f"{file}: {first_line(error)}") from error
        if block.shape != (stop - start, outcomes):
            raise _csv_fault(file, outcomes, begin) or InputError(f"{file}: changed while it was read")
        offsets[stop] = chosen[-1][0]
        return block

    if not count:
        raise InputError(f"{file}: a header and no rows")
    return Rows(file, (count, outcomes), np.dtype(np.float64), read)


def _fields(line: bytes) -> list[str]:
    return [field.strip().strip('"') for field in line.decode("utf-8-sig", "replace").split(",")]


def _number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # float takes 1_000, no other reader of CSV does


def _header_end(file: str, fields: list[str]) -> int:
    """Where the rows begin: behind the first line if it names its columns, at 0 if it is numbers."""
    numbers = [_number(field) for field in fields]
    if len(fields) > 1 and fields[0] == "" and "" not in fields[1:]:
        raise InputError(f"{file}: line 1: the first column has no name: an index? Write it with index=False")
    if len(fields) > 2 and fields == [str(i) for i in range(len(fields))]:
        raise InputError(f"{file}: line 1 reads 0,1,2,...: delete it if it is a header, else name the columns")
    if not any(numbers):
        return next(_lines(file, 0))[0]
    return 0


def _csv_fault(file: str, outcomes: int, begin: int) -> InputError | None:
    """The first line that is not `outcomes` numbers, found by reading again line by line."""
    with open(file, "rb") as stream:
        offset = 0
        for number, line in enumerate(stream, 1):
            offset += len(line)
            if offset <= begin or not line.strip():
                continue
            fields = _fields(line)
            if len(fields) != outcomes:
                return InputError(f"{file}: line {number}: {len(fields)} columns; expected {outcomes}")
            wrong = next((column for column, field in enumerate(fields, 1) if not _number(field)), None)
            if wrong is not None:
                found = fields[wrong - 1]
                return InputError(f"{file}: line {number}, column {wrong}: {found!r}; expected a number")
    return None


_OPENERS: dict[str, Callable[[str, str | None], Rows]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
    ".zarr": _open_zarr,
    ".csv": _open_csv,
}
