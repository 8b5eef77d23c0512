"""Every cell beside all that an opponent would use instead: time, memory and error, in one run.

python -m bench.run [--quick] [--columns logits,probs] [--cells kl,js] [--shapes 64x131072,256x50257] [--dtypes float32]
                    [--rivals kljax,textbook] [--repeat 11] [--json F] [--readme]

writes bench/results/<device>.json (or F) and prints one line a program: median milliseconds and quartiles of programs
run in turn, seconds to compile, temporary megabytes, how near it is to the time of the memory traffic that cannot be
avoided (measured beside it), and the worst error of value and gradient in eps against kljax in float64 on the same
inputs, whose own error mpmath bounds in the tests. --readme puts the tables into README.md. On a GPU the same command
times it there, liger-kernel included.
"""

import argparse
import json
import os
import platform
import re
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads would spin on while the next program is timed
from bench import cases, rivals  # noqa: E402  they import torch

ROOT = Path(__file__).parents[1]
WIDE = ("kl", "js", "tv", "hellinger_sq", "renyi")
FULL = {"logits": ["64x131072", "256x50257", "1000x4099", "4096x512"], "probs": ["64x131072", "256x4096"]}
QUICK = {"logits": ["64x131072"], "probs": ["64x131072"]}


def floor(part: str):
    """The traffic that the part cannot do without: both arrays read, gradients written."""
    return {
        "value": lambda p, q: (jnp.sum(p, -1), jnp.sum(q, -1)),
        "q": lambda p, q: p + q,
        "p and q": lambda p, q: (p + q, p - q),
    }[part]


def timed(programs: dict[str, rivals.Program], repeat: int) -> dict[str, list[float]]:
    """Milliseconds of each program, run in turn: lower quartile, median, upper quartile."""
    times = {name: [] for name in programs}
    for program in programs.values():
        program.run()
    for _ in range(repeat):
        for name, program in programs.items():
            start = time.perf_counter()
            program.run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: [round(x, 4) for x in statistics.quantiles(t, n=4)] for name, t in times.items()}


def truth(column: str, name: str, arrays: tuple[np.ndarray, ...], part: str):
    """The same in float64."""
    with jax.enable_x64(True):
        wide = [np.asarray(x, np.float64) for x in arrays]
        found = jax.jit(rivals.part_of(cases.ours(column, name), part))(*wide)
        return jax.tree.map(np.asarray, flat(found))


def flat(found) -> list:
    """Value and gradients of what a program gives."""
    if not isinstance(found, tuple):
        return [found]
    (_, value), slopes = found if isinstance(found[0], tuple) else ((None, found[0]), found[1])
    return [value if value is not None else found[0][0], *(slopes if isinstance(slopes, tuple) else (slopes,))]


def errors(found, true) -> list[float | None]:
    """In eps of float32: of the value the worst of any row, of the gradients the worst in norm."""
    eps, result = float(np.finfo(np.float32).eps), []
    for got, expected in zip(flat(found), true, strict=True):
        if got is None or np.shape(got) != np.shape(expected):
            result.append(None)  # a loss over the whole batch
            continue
        got = np.asarray(got.float() if hasattr(got, "float") else got, np.float64)
        gap, size = (np.abs(x) if x.ndim == 1 else np.linalg.norm(x, axis=-1) for x in (got - expected, expected))
        worst = float(np.max(gap / np.where(size > 0, size, 1)) / eps)
        result.append(round(worst, 3) if np.isfinite(worst) else None)
    return result


def measure(column: str, name: str, shape: str, dtype: str, part: str, options) -> list[dict]:
    """One record for every rival."""
    rows, outcomes = map(int, shape.split("x"))
    arrays = tuple(x.astype(jnp.dtype(dtype)) for x in cases.inputs(column, rows, outcomes))
    programs = {"floor": rivals.program(floor(part), "value", arrays)}
    for rival in rivals.names(column, name):
        if not rivals.lacking(rival) and (not options.rivals or rival in options.rivals.split(",")):
            made = rivals.make(rival, column, name, part, arrays)
            programs |= {rival: made} if made else {}
    times, true, found = timed(programs, options.repeat), truth(column, name, arrays, part), []
    for rival, program in programs.items():
        wrong = [] if rival == "floor" else errors(program.run(), true)
        record = {"cell": f"{column}.{name}", "shape": shape, "dtype": dtype, "part": part, "rival": rival}
        record |= {"ms": times[rival], "compile_s": round(program.compile_s, 2), "errors_eps": wrong}
        record |= {"temp_mb": None if program.temp is None else round(program.temp / 1e6, 2)}
        record |= {"of_floor": round(times["floor"][1] / times[rival][1], 3)}
        found.append(record)
        print(line(record), flush=True)
    return found


def line(record: dict) -> str:
    """One program as text."""
    low, middle, high = record["ms"]
    key = f"{record['cell']} {record['shape']} {record['dtype']} {record['part']}"
    memory = "" if record["temp_mb"] is None else f"{record['temp_mb']:9.1f} MB"
    wrong = " ".join("-" if e is None else f"{e:.3g}" for e in record["errors_eps"])
    return (
        f"{key:48}{record['rival']:14}{middle:9.2f} [{low:.2f} {high:.2f}] ms{memory} {record['of_floor']:.2f} {wrong}"
    )


def heads(repeat: int) -> list[dict]:
    """The loss of a linear head with its gradient, beside all logits at once."""
    found = []
    for name, (ours, composite, given) in cases.heads_cases().items():
        programs = {
            "kljax": rivals.program(ours, "value", given), "textbook": rivals.program(composite, "value", given)
        }  # fmt: skip
        times = timed(programs, repeat)
        for rival, program in programs.items():
            record = {"cell": name, "shape": "x".join(map(str, (*given[0].shape, given[1].shape[1])))}
            record |= {"dtype": "float32", "part": "q", "rival": rival, "ms": times[rival], "errors_eps": []}
            record |= {"compile_s": round(program.compile_s, 2), "temp_mb": round(program.temp / 1e6, 2)}
            found.append(record | {"of_floor": float("nan")})
            print(line(found[-1]), flush=True)
    return [{k: None if v != v else v for k, v in record.items()} for record in found]


# what DESIGN asks for at (64, 131072) in float32: cell, part, rival, most of its time, most of its memory
TARGETS = [("logits.kl", "value", "optax", 1 / 3, 0.1), ("logits.kl", "q", "optax", 1 / 1.3, 1.0)]
TARGETS += [(f"logits.{n}", part, "textbook", 1.0, None) for n in cases.TEXTBOOK for part in ("value", "q", "p and q")]
TARGETS += [(f"probs.{n}", part, "textbook", 1.5, None) for n in cases.TEXTBOOK for part in ("value", "q", "p and q")]
TARGETS += [("heads.loss", "q", "textbook", 1.1, 1 / 8)]


def verdicts(records: list[dict]) -> list[str]:
    """A line for each target that was measured."""
    table = {(r["cell"], r["part"], r["rival"]): r for r in records if r["dtype"] == "float32" and at_target(r)}
    found = []
    for cell, part, rival, most, memory in TARGETS:
        ours, theirs = table.get((cell, part, "kljax")), table.get((cell, part, rival))
        if ours and theirs:
            ratio = ours["ms"][1] / theirs["ms"][1]
            met = ratio <= most and (memory is None or ours["temp_mb"] <= memory * theirs["temp_mb"])
            found.append(f"{'met   ' if met else 'missed'} {cell} {part}: {ratio:.2f} of {rival}, at most {most:.2f}")
    return found


def at_target(record: dict) -> bool:
    return record["shape"] == "64x131072" or record["cell"] == "heads.loss"


def rendered(data: dict) -> str:
    """The table of the README: time over kljax's and errors of all rivals at the largest shape in float32."""
    keep = [r for r in data["records"] if r["dtype"] == "float32" and at_target(r) and r["rival"] != "floor"]
    head = (
        f"{data['device']}, jax {data['jax']}, (64, 131072) float32, medians in one run; errors of value and gradients"
    )
    lines = [f"{head} in eps.", "", "| | with | kljax | others: their time over ours, errors |", "|---|---|---|---|"]
    for cell, part in dict.fromkeys((r["cell"], r["part"]) for r in keep):
        group = {r["rival"]: r for r in keep if (r["cell"], r["part"]) == (cell, part)}
        if (own := group.pop("kljax", None)) and (cell.split(".")[1] in WIDE or cell == "heads.loss"):
            ours = f"{own['ms'][1]:.1f} ms, {own['temp_mb']:.0f} MB, {_said(own)}"
            others = [f"{n} {r['ms'][1] / own['ms'][1]:.2f}, {_said(r)}" for n, r in group.items()]
            what = {"value": "value", "q": "gradient in q", "p and q": "both gradients"}[part]
            lines.append(f"| `{cell}` | {what} | {ours} | {'; '.join(others)} |")
    return "\n".join(lines)


def _said(record: dict) -> str:
    return " / ".join("-" if e is None else f"{e:.2g}" for e in record["errors_eps"])


def into_readme(data: dict) -> str:
    """The README with the tables in their place."""
    text = (ROOT / "README.md").read_text()
    return re.sub(r"(<!-- bench -->\n).*?(\n<!-- /bench -->)", lambda m: m[1] + rendered(data) + m[2], text, flags=re.S)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shape, float32, under 15 minutes on 2 cores")
    for name in ("columns", "cells", "shapes", "dtypes", "rivals", "json"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    options = parser.parse_args()
    device = jax.devices()[0].device_kind
    absent = {name: why for name in rivals.MODULES if (why := rivals.lacking(name))}
    data = {"device": device, "processor": platform.processor() or platform.machine(), "jax": jax.__version__}
    data |= {"absent": absent, "records": []}
    for column in (options.columns or "logits,probs").split(","):
        named = options.cells.split(",") if options.cells else (WIDE if column == "logits" and options.quick else None)
        for name in named or cases.TEXTBOOK:
            shapes = options.shapes.split(",") if options.shapes else (QUICK if options.quick else FULL)[column]
            shapes = shapes if name in WIDE else shapes[:1]
            kinds = options.dtypes or ("float32" if options.quick or name not in WIDE else "float32,bfloat16")
            for shape, dtype in [(s, d) for s in shapes for d in kinds.split(",")]:
                for part in ("value",) if name in cases.ONE else rivals.PARTS:
                    data["records"] += measure(column, name, shape, dtype, part, options)
    data["records"] += [] if options.cells else heads(options.repeat)
    print("\n".join(verdicts(data["records"])))
    where = Path(options.json or ROOT / "bench" / "results" / f"{device.replace(' ', '-').lower()}.json")
    where.parent.mkdir(exist_ok=True)
    where.write_text(json.dumps(data, indent=None).replace('{"cell"', '\n{"cell"') + "\n")
    if options.readme:
        (ROOT / "README.md").write_text(into_readme(data))


if __name__ == "__main__":
    main()
