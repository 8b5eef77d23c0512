"""Time and memory of every cell beside the textbook formula, both jitted, in turn in one process.

python -m bench.speed [--columns probs,logits] [--cells kl,js] [--rows 256] [--outcomes 4096] [--repeat 15] [--json F]
prints ratios kljax / textbook of the median times of the value, of value and gradient in q and of value and gradient
in both, their milliseconds, and the temporary megabytes of the last as the compiler reports them.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax

from bench import cases

SIDES = ("kljax", "textbook")
PARTS = ("value", "q", "p and q")


def compiled(function, arguments):
    """A compiled program."""
    return jax.jit(function).lower(*arguments).compile()


def parts(function) -> dict:
    """What is timed: the value, and the value with gradients of its sum over the batch."""

    def total(p, q):
        return function(p, q).sum()

    return {"value": function, "q": jax.value_and_grad(total, 1), "p and q": jax.value_and_grad(total, (0, 1))}


def race(programs: dict, arguments, repeat: int) -> dict[str, float]:
    """Median seconds of each program, run in turn."""
    times = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program(*arguments))
    for _ in range(repeat):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def measure(column: str, name: str, arguments, repeat: int) -> dict:
    """Milliseconds and temporary megabytes of each part, kljax and textbook."""
    functions = dict(zip(SIDES, (cases.ours(column, name), cases.by_hand(column, name)), strict=True))
    found = {}
    for part in PARTS:
        programs = {side: compiled(parts(f)[part], arguments) for side, f in functions.items()}
        for side, seconds in race(programs, arguments, repeat).items():
            memory = programs[side].memory_analysis().temp_size_in_bytes
            found[f"{part} {side}"] = {"ms": seconds * 1e3, "temp_mb": memory / 1e6}
    return found


def ratio(found: dict, part: str, figure: str) -> float:
    """kljax over the textbook."""
    ours, theirs = (found[f"{part} {side}"][figure] for side in SIDES)
    return ours / theirs if theirs else float("inf") if ours else 1.0


def main() -> None:
    """Print one line a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", default="probs,logits")
    parser.add_argument("--cells", default=",".join(cases.TEXTBOOK))
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--outcomes", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    print(f"({options.rows}, {options.outcomes}) float32 on {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{'kljax / textbook':24}" + "".join(f"{part:>9}" for part in PARTS) + f"{'ms':>27}{'MB':>18}")
    table = {}
    for column in options.columns.split(","):
        arguments = jax.device_put(
            tuple(cases.inputs(column, options.rows, options.outcomes))
        )  # copied before, not timed
        for name in options.cells.split(","):
            found = table[f"{column}.{name}"] = measure(column, name, arguments, options.repeat)
            times = "".join(f"{ratio(found, part, 'ms'):9.2f}" for part in PARTS)
            ms = "".join(f"{found[f'{part} kljax']['ms']:9.1f}" for part in PARTS)
            temp = "".join(f"{found[f'{PARTS[-1]} {side}']['temp_mb']:9.1f}" for side in SIDES)
            print(f"{column + '.' + name:24}{times}{ms}{temp}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
