"""What every reader of files shares: the table it returns, its complaint, and what it asks of a header."""

import io
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.lib import format as npy_format

KINDS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip
_MOST = 1 << 55  # numbers of an array: their bytes and those of the results can be counted in 64 bits
_HEADER_BYTES = 10_000  # beyond which numpy refuses a header, too, but reads it first


class InputError(ValueError):
    """What is wrong with an input, in one line: the file, the row, the column and what was expected."""


class Rows(NamedTuple):
    """A table of N rows and K columns; `read(start, stop)` gives rows start..stop-1, [stop - start, K].

    single: the array had one axis, so that its one row belongs to every row of the other file.
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    single: bool = False
    close: Callable[[], None] = lambda: None


def row_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many rows and columns an array has. Raises InputError where it has none, or more than there can be."""
    if not shape:
        raise InputError(f"{name}: a single number; expected an array of one axis or more")
    if min(shape) < 0 or math.prod(shape) >= _MOST:
        raise InputError(f"{name}: its header declares a shape that no array has; expected from 1 to 2**55 numbers")
    if 0 in shape:
        raise InputError(f"{name}: shape {shape} is empty; expected at least one row and one column")
    return math.prod(shape[:-1]), int(shape[-1])


def check_dtype(name: str, dtype: np.dtype) -> None:
    """Raise InputError unless an array holds real numbers."""
    if dtype.hasobject:
        raise InputError(f"{name}: holds pickled Python objects, which are refused; save an array of numbers")
    if dtype.kind not in "fiub" and dtype not in map(np.dtype, KINDS.values()):
        raise InputError(f"{name}: holds {dtype}; expected real numbers")


def npy_header(stream: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order or not, and dtype; the stream is left where the numbers begin. Raises InputError."""
    try:
        version = npy_format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version}")
        first = version == (1, 0)
        length = stream.read(2 if first else 4)
        size = int.from_bytes(length, "little")
        if size > _HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        read = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            shape, fortran, dtype = read(io.BytesIO(length + stream.read(size)))
    except OSError:
        raise
    except Exception as error:  # numpy parses it as Python, which fails in as many ways as Python does
        raise InputError(f"{name}: not a .npy file of numbers ({first_line(error)})") from error
    # np.save writes bfloat16 as two anonymous bytes, and float16 under its own name
    return shape, fortran, np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
