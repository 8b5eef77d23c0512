"""The command line: `python -m kljax compare`, `sweep` and `tour`. Errors are one line."""

import argparse
import io
import json
import math
import os
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import kljax
from kljax import _compare, _files, _sweep_command, _tables
from kljax._output import check_figure, check_output, write
from kljax._progress import bar

_EXAMPLE = """examples:
  kljax compare teacher.npy student.npy --as logits --rows kl,js,tv
  kljax compare a.safetensors:logits b.npz --as logits --temperature 2 --json report.json --plot report.png
  kljax compare counts-may.csv counts-june.csv --rows jeffreys,js,renyi@2
  kljax compare posterior.npz prior.npz --as normal --rows kl,hellinger_sq,wasserstein2
  kljax compare last-year.csv this-year.csv --as samples
  kljax sweep P.npy --cell probs.js --out D.zarr --figure D.png
  kljax sweep P.npy Q.npy --cell logits.renyi --option order=0.5 --nearest 10 --out near.zarr
"""


class _Parser(argparse.ArgumentParser):
    """Complains in one line, like everything else here."""

    def error(self, message: str) -> NoReturn:
        raise _files.InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    summary = (kljax.__doc__ or "").partition("\n")[0]
    parser = _Parser("kljax", description=summary, epilog=_EXAMPLE, formatter_class=text)
    parser.add_argument("--version", action="version", version=f"kljax {version('kljax')}")
    commands = parser.add_subparsers(dest="command", metavar="{compare,sweep,tour}")
    compare = commands.add_parser(
        "compare",
        help="divergences between the rows of two files",
        description=(
            "Divergences between the rows of two files, which may be larger than memory:\n"
            ".npy, .npz, .safetensors, .zarr, .csv. FILE:NAME names one of several arrays.\n"
            "With --as normal P and Q are .npz or .safetensors, each with arrays loc and scale\n"
            "(standard deviations) or loc and log_scale, [N, D], or [D] for one that belongs to all rows.\n"
            "With --as samples rows are draws of one distribution a file, [N, D] and [M, D], or N and M numbers.\n"
            "Rows and columns count from 0."
        ),
        epilog=_EXAMPLE,
        formatter_class=text,
    )
    compare.add_argument("p", metavar="P", help="distributions [N, K], or one [K] for all rows of Q")
    compare.add_argument("q", metavar="Q", help="what to compare them with, [N, K] or [K]")
    compare.add_argument("--as", dest="column", choices=("probs", "logits", "normal", "samples"), default="probs",
                         help="weights >= 0 (default), log-weights, loc and scale, draws")  # fmt: skip
    compare.add_argument("--rows", metavar="NAMES",
                         help="divergences, as in kl,renyi@2,js@0.1 (default: " + ",".join(_compare.BRIEF)
                         + "; normal has tv_lower, tv_upper, ... for more than one coordinate)")  # fmt: skip
    compare.add_argument("--where", metavar="FILE", help="mask [K] or [N, K]; outcomes with 0 are deleted")
    compare.add_argument("--temperature", type=float, metavar="T", help="divide both logits by T")
    compare.add_argument("--top", type=int, metavar="N", help="list the N outcomes or coordinates that add most to kl")
    compare.add_argument("--json", metavar="F", help="write the report to F")
    compare.add_argument("--plot", metavar="F", help="draw histograms and top outcomes (.png, .pdf, .svg)")
    _sweep_command.add(commands, _EXAMPLE)
    tour = commands.add_parser("tour", help="what it does, on a small real language model")
    tour.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    tour.add_argument("--out", metavar="PNG", help="where to draw the figure")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's own) and return the exit status.

    >>> from kljax.__main__ import main
    >>> main(["--version"])  # doctest: +ELLIPSIS
    kljax ...
    0
    """
    parser = _parser()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names of files may be any bytes
    try:
        options = parser.parse_args(argv)
        if options.command == "compare":
            return _run_compare(options)
        if options.command == "sweep":
            return _sweep_command.run(options)
        if options.command == "tour":
            return _run_tour(options)
        parser.print_help()
        return 2
    except SystemExit as stop:  # argparse, after --help and --version
        return int(stop.code or 0)
    except BrokenPipeError:
        # the reader has left; the interpreter would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        print(": ".join(["kljax: interrupted", *map(str, stop.args)]), file=sys.stderr)
        return 130
    except (_files.InputError, ImportError, OSError, MemoryError) as error:
        print(f"kljax: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    finally:
        sys.stderr.flush()


def _run_tour(options: argparse.Namespace) -> int:
    from kljax import _tour

    return _tour.run(seed=options.seed, out=options.out)


def _run_samples(options: argparse.Namespace) -> int:
    from kljax import _drift

    for name in ("rows", "where", "temperature", "top", "plot"):
        if getattr(options, name) is not None:
            raise _files.InputError(f"--{name} has no meaning for draws: leave it out, or compare with another --as")
    _check_options(options)
    p, q = _drift.read(options.p, options.q)
    found = _drift.compare(p, q)
    if options.json:
        write(options.json, lambda file: Path(file).write_text(json.dumps(found, indent=1) + "\n"))
    print(f"{options.p} against {options.q}\n\n{_drift.text(found)}", flush=True)
    return 0


def _run_compare(options: argparse.Namespace) -> int:
    if options.column == "samples":
        return _run_samples(options)
    column = getattr(kljax, options.column)
    rows = options.rows if options.rows is None else [name.strip() for name in options.rows.split(",") if name.strip()]
    if rows is not None:
        _compare.cells(column, rows)
    _check_options(options)
    start = time.perf_counter()
    with ExitStack() as stack:
        p = _tables.open_table(options.p, column)
        stack.callback(p.close)
        q = _tables.open_table(options.q, column)
        stack.callback(q.close)
        where = _files.open_rows(options.where) if options.where else None
        stack.callback(where.close if where else lambda: None)
        progress = stack.enter_context(bar(max(p.count, q.count), "rows", show=sys.stderr.isatty()))
        top = options.top if options.top is not None else 10 if options.plot else 0
        report = _compare.stream(
            p, q, column=column, rows=rows, where=where,
            temperature=options.temperature, top=top, progress=progress,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    read = [*p.parts, *q.parts, *([where] if where else [])]
    size = sum(math.prod(part.shape) * part.dtype.itemsize for part in read)
    if options.json:
        measured = report.to_dict() | {"bytes": size, "seconds": seconds}
        write(
            options.json,
            lambda file: Path(file).write_text(json.dumps(measured, indent=1, allow_nan=False) + "\n"),
        )
    if options.plot:
        write(options.plot, report.plot)
    print(f"{options.p} against {options.q}\n\n{report}\n")
    print(f"{_bytes(size)} in {seconds:.2f} s: {_bytes(size / seconds)}/s", flush=True)
    return 0


def _check_options(options: argparse.Namespace) -> None:
    """What can be refused before hours of reading."""
    if options.temperature is not None:
        if options.column != "logits":
            raise _files.InputError("--temperature divides logits: it needs --as logits")
        if not 0 < options.temperature < math.inf:
            raise _files.InputError(f"--temperature {options.temperature:g}: expected a number above 0")
    if options.where and options.column == "normal":
        raise _files.InputError("--where deletes outcomes: it needs --as probs or --as logits")
    if options.top is not None and options.top < 0:
        raise _files.InputError(f"--top {options.top}: expected a number >= 0")
    if options.plot:
        check_figure("--plot", options.plot)
    for path in filter(None, (options.json, options.plot)):
        check_output(path, [options.p, options.q, options.where])


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


if __name__ == "__main__":
    sys.exit(main())
