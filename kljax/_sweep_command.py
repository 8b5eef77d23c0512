"""`kljax sweep`: the arguments of the command, the rows in its files and what it prints."""

import argparse
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np

from kljax import _compare, _files, _plot, _summary, _sweep, _tables
from kljax._files import InputError
from kljax._output import check_apart, check_figure, check_output, write

_TEXT = """The cell of every row of P with every row of Q (without Q: with every other row of P), as a
Zarr v3 array, tile by tile: interrupted or killed, the same command goes on with what is left.
P and Q: .npy, .npz, .safetensors, .zarr, .csv, [N, K] and [M, K]; for the cells of normal, mvn and
lowrank files with arrays loc, scale, ...
With --nearest the result is a group of values and indices, [N, K].

More than one process, on machines that see the same folder: each computes its share.
  srun kljax sweep P.npy --cell probs.js --out D.zarr --slurm
  kljax sweep P.npy --cell probs.js --out D.zarr --coordinator 127.0.0.1:9999 --processes 2 --process 0 &
  kljax sweep P.npy --cell probs.js --out D.zarr --coordinator 127.0.0.1:9999 --processes 2 --process 1
"""


_PLACED = ("axis", "p", "q", *list(inspect.signature(_sweep.sweep).parameters)[:-1])
_ARRAYS = ("where", "positions")


def add(commands: Any, examples: str) -> None:
    """Describe the command."""
    sweep = commands.add_parser(
        "sweep",
        help="all pairs of rows of one file or two, on disk",
        description=_TEXT,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweep.add_argument("p", metavar="P", help="distributions, one a row")
    sweep.add_argument("q", metavar="Q", nargs="?", help="others (default: P itself)")
    sweep.add_argument("--cell", required=True, metavar="COLUMN.ROW", help="as in probs.js, logits.kl, normal.kl")
    sweep.add_argument("--out", required=True, metavar="F.zarr", help="the folder of the result")
    sweep.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                       help="of the cell, as in order=0.5, or a file with an array: where=mask.npy")  # fmt: skip
    sweep.add_argument("--block", type=int, metavar="N", help="rows of either side of a tile")
    sweep.add_argument("--nearest", type=int, metavar="K", help="keep only the K nearest of each row")
    sweep.add_argument("--figure", metavar="F", help="draw the result (.png, .pdf, .svg)")
    sweep.add_argument("--fresh", action="store_true", help="begin anew")
    sweep.add_argument("--slurm", action="store_true", help="all tasks of this SLURM step, as jax finds them")
    sweep.add_argument("--coordinator", metavar="HOST:PORT", help="where the first of several processes is")
    sweep.add_argument("--processes", type=int, metavar="N", help="how many there are")
    sweep.add_argument("--process", type=int, metavar="I", help="which this is, from 0")


def run(options: argparse.Namespace) -> int:
    """Carry it out."""
    column, cell = _cell(options.cell)
    if options.figure:
        check_figure("--figure", options.figure)
        check_output(options.figure, [options.p, options.q])
    inputs = filter(None, [options.p, options.q, *(text.partition("=")[2] for text in options.option)])
    check_apart(options.out, [name for name in inputs if os.path.isdir(_files.file_and_key(name)[0])])
    _join(options)
    with ExitStack() as stack:
        tables = []
        for path in filter(None, (options.p, options.q)):
            tables.append(_tables.open_table(path, column))
            stack.callback(tables[-1].close)
        _tables.alike(tables[0], tables[-1])
        given = dict(_option(cell, tables[0].parts[0].shape[1], text) for text in options.option)
        wide = any(_tables.floating_type(part.dtype).itemsize == 8 for table in tables for part in table.parts)
        stack.enter_context(jax.enable_x64(True) if wide else nullcontext())
        sides = [_tables.sliced(table) for table in tables]
        try:
            swept = _sweep.sweep(
                cell, *sides, out=options.out, block=options.block, nearest=options.nearest, resume=not options.fresh,
                progress=sys.stderr.isatty(), **given,
            )  # fmt: skip
        except (AssertionError, TypeError, ValueError) as error:
            raise InputError(str(error)) from error
    if jax.process_index() == 0:
        _report(options, swept)
    return 0


def _cell(name: str) -> tuple[ModuleType, Callable]:
    first, _, second = name.partition(".")
    known = {column.__name__.rpartition(".")[2]: column for column in _tables.FORMS}
    if first not in known:
        raise InputError(f"--cell {name}: expected COLUMN.ROW, COLUMN one of {', '.join(known)}")
    rows = _compare.available(known[first])
    if second not in rows:
        raise InputError(f"--cell {name}: {first} has {', '.join(rows)}")
    return known[first], getattr(known[first], second)


def _option(cell: Callable, size: int, text: str) -> tuple[str, Any]:
    """The name and the value of an option: a number in its range, or one row of `size` numbers in a file."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise InputError(f"--option {text}: expected NAME=VALUE")
    if name in _PLACED:
        raise InputError(f"--option {text}: no option of a cell; it is set by an argument of its own")
    parameter = _compare.PARAMETERS.get(cell.__name__, ("",))[0]
    try:
        number = float(value)
    except ValueError:
        if not os.path.exists(_files.file_and_key(value)[0]):
            raise InputError(f"--option {text}: {value} is neither a number nor a file") from None
        if name == parameter:
            raise InputError(f"--option {text}: expected a number") from None
        return name, _row(text, value, size)
    if name in _ARRAYS:
        raise InputError(f"--option {text}: expected a file with {size} numbers")
    if name == parameter:
        _compare.check_parameter(f"--option {text}", cell.__name__, number)
    return name, number


def _row(text: str, path: str, size: int) -> np.ndarray:
    rows = _files.open_rows(path)
    try:
        if rows.shape != (1, size):
            raise InputError(f"--option {text}: shape {rows.shape}; expected one row of {size} numbers")
        return np.array(rows.read(0, 1)[0])
    finally:
        rows.close()


def _join(options: argparse.Namespace) -> None:
    """Be one of several processes."""
    given = [options.coordinator, options.processes, options.process]
    if options.slurm or any(x is not None for x in given):
        if not options.slurm and None in given:
            raise InputError("--coordinator, --processes and --process come together")
        jax.config.update("jax_enable_recoverability", True)  # one that dies takes no others with it
        address, count, index = given
        jax.distributed.initialize(address, count, index, coordinator_bind_address=address)


def _report(options: argparse.Namespace, swept: _sweep.Swept) -> None:
    title = " ".join([options.cell, *options.option])
    print(_summary.made(options.out, title, swept, options.q is None))
    if options.nearest is None:
        found = _summary.summarise(swept.matrix, options.q is None)
        print(found, flush=True)
        draw = partial(_plot.heat_map, found.picture, swept.matrix.shape, title, options.q is None)
    else:
        values = swept.matrix["values"][:]
        print(_summary.closest(values, swept.matrix["indices"]), flush=True)
        draw = partial(_plot.nearest, values, title)
    if options.figure:
        write(options.figure, draw)
