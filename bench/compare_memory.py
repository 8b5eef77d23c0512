"""Memory and throughput of `kljax compare` on two files larger than it may hold.

python bench/compare_memory.py --dir DIR [--rows 6000] [--outcomes 131072] [--json F] makes two float32 files
of logits in DIR, reads them plainly block by block, compares them in a process of its own, deletes them, and
reports.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BLOCK = 1 << 25


def write_logits(path: Path, rows: int, outcomes: int, seed: int, shift: float) -> None:
    """Random logits, block by block; two files of one seed differ by noise of scale `shift`."""
    common, own = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, outcomes)}
    step = max(1, BLOCK // (4 * outcomes))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, step):
            shape = (min(step, rows - start), outcomes)
            block = 3 * common.standard_normal(shape, np.float32)
            if shift:
                block += shift * own.standard_normal(shape, np.float32)
            block.tofile(file)


def read_plainly(paths: list[Path]) -> float:
    """Seconds to read the files once, block by block, into memory that is thrown away."""
    start = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return time.perf_counter() - start


def run_compare(paths: list[Path], rows: str) -> tuple[float, float, str]:
    """Seconds, maximum resident bytes and output of the command in a process of its own."""
    command = [sys.executable, "-m", "kljax", "compare", *map(str, paths), "--as", "logits", "--rows", rows]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"kljax compare ended with status {process.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * scale, text


def measure(directory: str | None, rows: int, outcomes: int, names: str) -> dict:
    """The report; the files are deleted whatever happens."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        paths = [Path(folder, name) for name in ("p.npy", "q.npy")]
        for path, shift in zip(paths, (0.0, 0.2), strict=True):
            write_logits(path, rows, outcomes, 0, shift)
        size = sum(path.stat().st_size for path in paths)
        plain = read_plainly(paths)
        seconds, resident, text = run_compare(paths, names)
        again = read_plainly(paths)
    print(text)
    return {
        "rows": rows,
        "outcomes": outcomes,
        "bytes": size,
        "max_resident_bytes": resident,
        "compare_seconds": seconds,
        "compare_bytes_per_second": size / seconds,
        "read_seconds": [plain, again],
        "read_bytes_per_second": [size / plain, size / again],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", help="where to make the files (default: the temporary directory)")
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--outcomes", type=int, default=131072)
    parser.add_argument("--names", default="kl,js,tv", help="the divergences")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    found = measure(options.dir, options.rows, options.outcomes, options.names)
    before, after = found["read_bytes_per_second"]
    print(f"two files of {found['bytes'] / 2e9:.2f} GB, {found['rows']} x {found['outcomes']} float32")
    print(f"maximum resident memory  {found['max_resident_bytes'] / 1e9:.2f} GB")
    print(f"compare, start included  {found['compare_bytes_per_second'] / 1e9:.2f} GB/s")
    print(f"plain read before, after {before / 1e9:.2f}, {after / 1e9:.2f} GB/s")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
