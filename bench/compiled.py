"""What the compiler makes of a cell: memory, passes over device memory and collectives, without running it.

KLJAX_H200=1 python -m bench.compiled [--cells kl,js] [--rows 8192] [--outcomes 128256] [--json F]
compiles for an NVIDIA H200 without one (jax with the CUDA plugin in an environment of its own) and prints for float32
and bfloat16 the passes over one (rows, outcomes) array and the temporary memory in units of it, of the value and of
value and gradient in q, kljax and the textbook formula. These numbers are the same on every run. The README's table is
that of bench/results/compiled-h200.json.
"""

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

SIZE = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
FREE = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "constant", "iota", "after-all", "partition-id", "call",
    "conditional",
}  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# NVIDIA's figures for an H200, as the compiler takes them
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } device_description_str: "NVIDIA H200"
"""


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    kind: str
    rest: str


def size_of(shape: str) -> int:
    """Bytes of a shape or a tuple of them, as the compiler writes it."""
    total = 0
    for dtype, axes in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape):
        count = 1
        for axis in filter(None, axes.split(",")):
            count *= int(axis)
        total += SIZE.get(dtype, 0) * count
    return total


def computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations of a compiled program by name, and the name of its entry."""
    found, entry, here = {}, "", None
    head = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
    line_of = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
    for line in text.splitlines():
        if start := head.match(line):
            here = start[2]
            found[here] = []
            entry = here if start[1] else entry
        elif here is not None and (parts := line_of.match(line)):
            found[here].append(Instruction(*parts.groups()))
    return found, entry


def traffic(text: str) -> int:
    """Bytes that a compiled program reads and writes: results and operands of what it runs, loops by their trips."""
    found, entry = computations(text)

    def of(name: str) -> int:
        shapes, total = {i.name: i.shape for i in found[name]}, 0
        for i in found[name]:
            if i.kind == "while":
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', i.rest)
                body = re.search(r"body=%?([\w.\-]+)", i.rest)
                total += of(body[1]) * (int(trips[1]) if trips else 1) if body else 0
            elif i.kind not in FREE and not i.kind.endswith("-done"):
                operands = set(re.findall(r"%([\w.\-]+)", i.rest.split("), ")[0]))  # read twice is read once
                total += size_of(i.shape) + sum(size_of(shapes.get(operand, "")) for operand in operands)
        return total

    return of(entry)


def collectives(text: str) -> dict[str, int]:
    """The largest result in bytes of each kind of collective."""
    found = {}
    for computation in computations(text)[0].values():
        for i in computation:
            kind = i.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                found[kind] = max(found.get(kind, 0), size_of(i.shape))
    return found


def for_h200(function, *shapes: jax.ShapeDtypeStruct):
    """The function compiled for one H200 that need not be there."""
    from jax.experimental import topologies

    from kljax import _fold

    _fold.TARGET = "gpu"
    topology = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1")
    place = jax.sharding.NamedSharding(topologies.make_mesh(topology, (1,), ("x",)), jax.sharding.PartitionSpec())
    placed = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place) for s in shapes]
    return jax.jit(function).lower(*placed).compile(compiler_options={"xla_gpu_autotune_level": 0})


def parts(cell) -> dict:
    """What is measured of a cell."""

    def loss(p, q):
        return jnp.sum(cell(p, q))

    return {"value": cell, "value and gradient": jax.value_and_grad(loss, 1)}


def measure(function, rows: int, outcomes: int, dtype) -> dict[str, float]:
    """Passes and temporary memory in units of one array."""
    shape = jax.ShapeDtypeStruct((rows, outcomes), dtype)
    program, unit = for_h200(function, shape, shape), rows * outcomes * jnp.dtype(dtype).itemsize
    return {
        "passes": traffic(program.as_text()) / unit,
        "temp": program.memory_analysis().temp_size_in_bytes / unit,
    }


def main() -> None:
    """Print one line a cell, dtype and part."""
    from bench import cases

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="kl,js,tv,hellinger_sq,renyi")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--outcomes", type=int, default=128256)
    parser.add_argument("--ours", action="store_true", help="without the textbook formula")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    found = {}
    print(f"compiled for an H200, ({options.rows}, {options.outcomes}): passes / temporary memory in arrays")
    for name in options.cells.split(","):
        for side, cell in (("kljax", cases.ours), ("textbook", cases.by_hand))[: 1 if options.ours else 2]:
            for dtype in (jnp.float32, jnp.bfloat16):
                for part, function in parts(cell("logits", name)).items():
                    key = f"{name} {side} {jnp.dtype(dtype).name} {part}"
                    found[key] = measure(function, options.rows, options.outcomes, dtype)
                    print(f"{key:50}{found[key]['passes']:8.2f} {found[key]['temp']:8.3f}", flush=True)
    if options.json:
        about = {"rows": options.rows, "outcomes": options.outcomes, "jax": jax.__version__, "compiled": found}
        Path(options.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
