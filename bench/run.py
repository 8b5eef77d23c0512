"""Times, memory and errors of kljax beside its peers: one program, JSON out, the tables of the README from it.

python -m bench.run [--quick] [--json [FILE]] [--readme]
measures everything on the default device, writes bench/results/DEVICE.json and renders the README's tables from all
files there; --quick takes less than 15 minutes on two cores. Peers that are not installed are left out and listed.
python -m bench.run --columns logits --cells kl,js --rows 256 --outcomes 4096
is a quick look: any of these narrows the run, and then nothing is written unless --json says where.

Each line: ratios kljax / textbook of the median times of the value, of value and gradient in q and of value and
gradients in both, kljax's milliseconds, and the temporary megabytes of the last as the compiler reports them.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from bench import cases, programs, render, targets
from bench.programs import PARTS

RESULTS = Path(__file__).parent / "results"
DISTANCES = (0.1, 1e-3)  # the first is timed, errors are measured at both
CHECKED = 16  # rows whose errors are measured
MAIN = ("kl", "js", "tv", "hellinger_sq", "renyi")  # at every size, against every peer
EVERY = (256, 4096)  # the size of every cell
FLOATS = ("float32", "bfloat16")
SIZES = {
    "cpu": ((64, 131072), (257, 1001), (64, 50257), (8, 151936), (4096, 10)),
    "gpu": ((8192, 128256), (4095, 50257), (64, 131072), (8192, 32000), (2048, 262144)),
}
PACKAGES = (
    "jax", "jaxlib", "numpy", "scipy", "optax", "tfp-nightly", "tensorflow-probability", "distrax", "numpyro", "torch",
    "liger-kernel", "triton",
)  # fmt: skip


class Case(NamedTuple):
    """One cell at one size."""

    suite: str
    column: str
    cell: str
    rows: int
    outcomes: int
    dtype: str

    def pair(self, distance: float) -> tuple:
        """Its inputs, on the device."""
        return jax.block_until_ready(
            cases.inputs(self.column, self.rows, self.outcomes, distance=distance, dtype=self.dtype)
        )


class Effort(NamedTuple):
    """How long to measure."""

    seconds: float  # of one race
    least: int  # turns
    most: int


def functions(case: Case, options) -> dict:
    """The sides of a case by name."""
    found = {"kljax": cases.ours(case.column, case.cell), "textbook": cases.by_hand(case.column, case.cell)}
    for peer, cells in cases.PEERS[case.column].items():
        if case.cell in cells and cases.installed(peer) and (peer != "scipy" or case.dtype == "float32"):
            found[peer] = cells[case.cell]
    if case.suite == "sizes" and case.column == "logits" and cases.installed("torch"):
        from bench import torch_cases

        slow = options.quick and not (case.dtype == "float32" and case.rows * case.outcomes > 1e6)
        for peer, cells in torch_cases.PEERS.items():
            if case.cell in cells and torch_cases.here(peer) and not (peer == "torch.compile" and slow):
                found[peer] = cells[case.cell]
    return {side: f for side, f in found.items() if not options.sides or side in options.sides}


def possible(side: str, part: str) -> bool:
    """scipy has no gradients, liger-kernel none in p."""
    return part == "value" or (side != "scipy" and (side != "liger" or part == "q"))


def built(case: Case, part: str, sides: dict, arguments) -> tuple[dict, dict]:
    """The programs of a part, and why some could not be made."""
    made, failed = {}, {}
    for side, function in sides.items():
        if possible(side, part):
            try:
                made[side] = programs.program(side, function, part, arguments)
            except Exception as problem:  # a peer's: out of memory, no compiler
                if side == "kljax":
                    raise
                failed[side] = f"{type(problem).__name__}: {problem}".splitlines()[0][:120]
    return made, failed


def measure(case: Case, options, effort: Effort) -> list[dict]:
    """One record a side and part."""
    pairs = [case.pair(distance) for distance in DISTANCES]
    true = [programs.truth(case.column, case.cell, *(x[:CHECKED] for x in pair)) for pair in pairs]
    sides, records, speeds = functions(case, options), [], []
    for part in PARTS:
        made, failed = built(case, part, sides, pairs[0])
        simplest, arrays = programs.MOVES[part]
        base = programs.Program(simplest, jax.block_until_ready, pairs[0], jax.device_put, None, {})
        times = programs.race(made | {"memory": base}, *effort)
        speeds.append(arrays * pairs[0][0].nbytes / times.pop("memory")[1] / 1e6)  # GB/s
        for side, each in made.items():
            errors = [
                programs.error(side, each, part, pair, case.column, t[part])
                for pair, t in zip(pairs, true, strict=True)
            ]
            found = {"side": side, "part": part, "ms": times[side], "error_eps": errors} | each.made
            records.append(case._asdict() | found)
        records += [case._asdict() | {"side": side, "part": part, "failed": why} for side, why in failed.items()]
    for record in records:
        if "ms" in record:
            arrays = programs.MOVES[record["part"]][1] - (case.cell in cases.ONE)  # q is not read
            least = arrays * pairs[0][0].nbytes / max(speeds) / 1e6
            record |= {"bandwidth_gb_s": max(speeds), "roofline": least / record["ms"][1]}
    return records


def measure_heads(name: str, effort: Effort) -> list[dict]:
    """Linear heads: kljax and the composite as they are, the error of either against the composite in float64."""
    *both, arguments = cases.heads_cases()[name]
    made = {s: programs.lowered(f, arguments) for s, f in zip(("kljax", "textbook"), both, strict=True)}
    times = programs.race(made, *effort)
    errors = {side: programs.apart(each.run(*arguments), both[1], arguments) for side, each in made.items()}
    case = {"suite": "heads", "column": "heads", "cell": name, "part": "whole"}
    return [case | {"side": s, "ms": times[s], "error_eps": errors[s]} | each.made for s, each in made.items()]


def plan(options) -> list[Case]:
    """What is measured: every cell at one size, the main ones at several."""
    sizes = SIZES["gpu" if jax.default_backend() == "gpu" else "cpu"]
    sizes, every = sizes[:2] if options.quick else sizes, EVERY
    if options.rows or options.outcomes:
        every = (options.rows or EVERY[0], options.outcomes or EVERY[1])
        sizes = (every,)
    found = [Case("sizes", "logits", cell, *size, d) for size in sizes for d in FLOATS for cell in MAIN]
    found += [Case("cells", column, cell, *every, "float32") for column in cases.PEERS for cell in cases.TEXTBOOK]
    return [
        c
        for c in found
        if (not options.suites or c.suite in options.suites)
        and (not options.columns or c.column in options.columns)
        and (not options.cells or c.cell in options.cells)
        and (not options.dtypes or c.dtype in options.dtypes)
    ]


def about(options) -> dict:
    """What the figures were measured with; no paths, no names of machines."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    here, git = Path(__file__).parent, ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=here, check=False).stdout.strip()
    absent = [peer for peer in cases.PACKAGES if not cases.installed(peer)]
    if "torch" not in absent and "liger" not in absent:
        from bench import torch_cases

        absent += [] if torch_cases.here("liger") else ["liger"]
    return {
        "schema": 1, "device": jax.devices()[0].device_kind, "platform": jax.default_backend(),
        "machine": platform.machine(), "threads": threads(), "load": os.getloadavg()[0],
        "quick": options.quick, "commit": commit, "versions": versions, "absent": absent,
    }  # fmt: skip


def threads() -> int:
    """How many this process may use; jax takes as many, and so does torch here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def import_seconds(turns: int) -> float:
    """What importing kljax takes over importing jax and chex: the difference of medians of fresh processes."""
    times = {"import jax, chex": [], "import jax, chex, kljax": []}
    for _ in range(turns):
        for code, found in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
            found.append(time.perf_counter() - start)
    before, after = (statistics.median(found) for found in times.values())
    return after - before


def line(records: list[dict]) -> str:
    """A case as one line."""
    first, found = records[0], {(r["side"], r["part"]): r for r in records if "ms" in r}
    ratios, ms = "", ""
    for part in PARTS:
        ours, theirs = (found.get((side, part)) for side in ("kljax", "textbook"))
        ratios += f"{ours['ms'][1] / theirs['ms'][1]:9.2f}" if ours and theirs else f"{'-':>9}"
        ms += f"{ours['ms'][1]:9.2f}" if ours else f"{'-':>9}"
    both = (found.get((side, PARTS[-1])) for side in ("kljax", "textbook"))
    temp = "".join(f"{r['temp_mb']:9.1f}" if r else f"{'-':>9}" for r in both)
    where = f"({first['rows']}, {first['outcomes']}) {first['dtype']}"
    return f"{first['column'] + '.' + first['cell']:24}{where:26}{ratios}{ms}{temp}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two sizes, fewer turns, torch.compile at one size")
    parser.add_argument("--json", nargs="?", const="", help="the file to write (default: bench/results/DEVICE.json)")
    parser.add_argument("--readme", action="store_true", help="write the README's tables from bench/results")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--outcomes", type=int)
    for name in ("suites", "columns", "cells", "dtypes", "sides"):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), help="only these, such as a,b")
    parser.add_argument("--seconds", type=float, help="time for one race")
    found = parser.parse_args()
    narrow = found.rows, found.outcomes, found.suites, found.columns, found.cells, found.dtypes, found.sides
    found.whole = not any(narrow)
    if not found.whole and (found.readme or found.json == ""):
        parser.error("a part of the run does not replace the whole: name a file with --json, without --readme")
    if found.readme and found.json is None:
        found.json = ""
    return found


def measured(options) -> Iterator[list[dict]]:
    """The records of one case after another, each printed as a line."""
    effort = Effort(options.seconds or (0.7 if options.quick else 3), 5, 15 if options.quick else 31)
    for case in plan(options):
        yield (new := measure(case, options, effort))
        print(line(new), flush=True)
        gc.collect()
    for name in cases.heads_cases() if options.whole or "heads" in (options.suites or ()) else ():
        yield (new := measure_heads(name, effort))
        print(f"heads {name:44}" + "".join(f"{r['ms'][1]:12.2f} ms {r['temp_mb']:9.1f} MB" for r in new), flush=True)


def run(options) -> Iterator[dict]:
    """Everything that the options ask for, as far as it is there: a run that is cut short leaves what it has."""
    if cases.installed("torch"):
        cases.package("torch").set_num_threads(threads())
    found, records, start = about(options), [], time.time()
    judged = [targets.of_import(import_seconds(3))] if options.whole else []
    print(json.dumps(found), f"\n{'kljax / textbook':50}" + "".join(f"{p:>9}" for p in PARTS) + f"{'ms':>27}{'MB':>18}")
    for new in measured(options):
        records += new
        found |= {"seconds": time.time() - start, "targets": judged + targets.judge(records, found["platform"])}
        yield found | {"records": records}


def main() -> None:
    """Measure, write, render, and say which targets are met."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared with torch
    options, found = arguments(), {"targets": []}
    for found in run(options):
        if options.json is not None:
            name = re.sub(r"\W+", "-", found["device"].lower())
            path = Path(options.json) if options.json else RESULTS / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n")
    if options.readme:
        render.readme()
    for t in found["targets"]:
        print(f"{'met    ' if t['met'] else 'NOT MET'} {t['ratio']:9.3g} ({t['limit']:g})  {t['what']}")


if __name__ == "__main__":
    main()
