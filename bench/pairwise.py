"""All pairs against its peers: python -m bench.pairwise [--rows 512] [--outcomes 1024] [--rounds 5] [--scaling].

`pip install ".[peers]"` first. Interleaved medians of one run, values against float64, temporary memory of compiled
programs, and the elementwise limit: a program that evaluates one logarithm an outcome of every pair in the same tiles.
--near makes every eighth row of Q nearly one of P. --scaling times js of 100 to 100,000 rows against 256, of 1024 x
1024 on 1, 2, 4, 8 devices forced on the host, and a sweep by 1 and 2 processes.
"""

import argparse
import functools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.spatial.distance as ssd
import scipy.special as ss

import kljax

EPS = float(np.finfo(np.float32).eps)


def tables(rows: int, outcomes: int, near: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.ones(outcomes), rows).astype(np.float32) for _ in range(2))
    if near:
        q[::8] = p[::8] * (1 + 1e-4 * rng.normal(size=p[::8].shape)).astype(np.float32)
    return p, q


def _naive(cell):
    return jax.jit(jax.vmap(jax.vmap(cell, (None, 0)), (0, None)))


def _mapped(cell):
    return jax.jit(lambda p, q: jax.lax.map(lambda x: jax.vmap(cell, (None, 0))(x, q), p))


@jax.jit
def limit(p, q):
    """One logarithm for each outcome of each pair, in tiles of 16 x 32 rows."""
    parts = [
        jnp.pad(x, [(0, -len(x) % n), (0, 0)], mode="edge").reshape(-1, n, x.shape[1]) for x, n in ((p, 16), (q, 32))
    ]
    return jax.lax.map(lambda a: jax.lax.map(lambda b: jnp.sum(jnp.log(a[:, None] * b[None]), -1), parts[1]), parts[0])


def _js_by_numpy(p, q):
    def plogp(x):
        return np.sum(x * np.log(x), -1)

    return np.stack([(plogp(a) + plogp(q)) / 2 - plogp((a + q) / 2) for a in p])


def _rows_of(function):
    return lambda p, q: np.stack([function(a, q).sum(-1) for a in p])


def _callable(metric):
    from sklearn.metrics import pairwise_distances

    return lambda p, q: pairwise_distances(p[:32], q[:32], metric=metric)


def _fastjsd(p, q):
    import fastjsd

    return fastjsd.jsd_matrix(p, q, base=np.e, squared=True)


def _of_pairs(cell):
    return functools.partial(kljax.pairwise, cell)


# name: (function of p and q, the dtype it is given, the share of all pairs that it does)
def suites(rows: int) -> dict:
    part = (32 / rows) ** 2
    probs, narrow, wide = kljax.probs, np.float32, np.float64
    return {
        "js": {
            "kljax.pairwise": (_of_pairs(probs.js), narrow, 1),
            "kljax.pairwise, Q=None": (lambda p, q: kljax.pairwise(probs.js, p), narrow, 1),
            "scipy cdist": (lambda p, q: ssd.cdist(p, q, "jensenshannon") ** 2, wide, 1),
            "scipy pdist": (lambda p, q: ssd.pdist(p, "jensenshannon") ** 2, wide, 1),
            "fastjsd": (_fastjsd, wide, 1),
            "scikit-learn, a callable": (_callable(ssd.jensenshannon), wide, part),
            "vmap of vmap": (_naive(probs.js), narrow, 1),
            "lax.map": (_mapped(probs.js), narrow, 1),
            "numpy": (_js_by_numpy, narrow, 1),
            "elementwise limit": (limit, narrow, 1),
        },
        "kl": {
            "kljax.pairwise": (_of_pairs(probs.kl), narrow, 1),
            "scipy rel_entr": (_rows_of(ss.rel_entr), wide, 1),
            "scikit-learn, a callable": (_callable(lambda a, b: ss.rel_entr(a, b).sum()), wide, part),
            "numpy, a plain product": (lambda p, q: np.sum(p * np.log(p), -1)[:, None] - p @ np.log(q).T, narrow, 1),
        },
        "hellinger_sq": {
            "kljax.pairwise": (_of_pairs(probs.hellinger_sq), narrow, 1),
            "scipy cdist of roots": (lambda p, q: ssd.cdist(np.sqrt(p), np.sqrt(q), "sqeuclidean") / 2, wide, 1),
            "scikit-learn, a callable": (_callable(lambda a, b: ((a**0.5 - b**0.5) ** 2).sum() / 2), wide, part),
            "numpy, a plain product": (lambda p, q: 1 - np.sqrt(p) @ np.sqrt(q).T, narrow, 1),
        },
    }


def truth(name: str, p: np.ndarray, q: np.ndarray, some: int = 64) -> np.ndarray:
    """The first rows in float64."""
    with jax.enable_x64(True):
        p, q = (x[:some].astype(np.float64) for x in (p, q))
        return np.asarray(kljax.pairwise(getattr(kljax.probs, name), p, q))


def measure(name: str, entries: dict, p: np.ndarray, q: np.ndarray, rounds: int) -> dict[str, tuple[float, float]]:
    """(seconds for all pairs, the worst relative error in eps of float32), medians of interleaved rounds."""
    times, errors, true = {}, {}, truth(name, p, q)
    given = {label: (p.astype(kind), q.astype(kind)) for label, (_, kind, _) in entries.items()}
    for label, (function, _, _) in entries.items():
        found = np.asarray(jax.block_until_ready(function(*given[label])))
        square = found.ndim == 2 and "None" not in label and "limit" not in label
        part = found[: len(true), : len(true)] if square else None
        rest = true[: part.shape[0], : part.shape[1]] if part is not None else true
        errors[label] = float("nan") if part is None else float(np.max(np.abs(part - rest) / rest) / EPS)
        times[label] = []
    for _ in range(rounds):
        for label, (function, _, share) in entries.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*given[label]))
            times[label].append((time.perf_counter() - start) / share)
    return {label: (statistics.median(times[label]), errors[label]) for label in entries}


def temporary(cell, p: np.ndarray, q: np.ndarray) -> int:
    """Bytes that the program needs beside arguments and result."""
    program = jax.jit(lambda p, q: kljax.pairwise(cell, p, q)).lower(p, q).compile()
    return program.memory_analysis().temp_size_in_bytes


def table(rows: int, outcomes: int, rounds: int, near: bool, most: float) -> None:
    p, q = tables(rows, outcomes, near)
    for name, entries in suites(rows).items():
        if rows * rows * outcomes * 4 > most:
            entries = {k: v for k, v in entries.items() if k != "vmap of vmap"}
        found = measure(name, entries, p, q, rounds)
        ours = found["kljax.pairwise"][0]
        print(f"{name}, {rows} x {rows} rows of {outcomes}{', near rows' if near else ''}")
        for label, (seconds, error) in found.items():
            print(f"  {label:26} {1e3 * seconds:10.1f} ms  {seconds / ours:8.2f} x  {error:10.3g} eps")
        print(f"  temporary memory {temporary(getattr(kljax.probs, name), p, q) / 2**20:.1f} MiB")


def scaling(outcomes: int, rounds: int) -> None:
    for rows in (100, 1_000, 10_000, 100_000):
        p, q = tables(rows, 256, False)
        one(p, q[:256], rounds)
    for devices in (1, 2, 4, 8):
        flags = f"--xla_force_host_platform_device_count={devices}"
        code = f"from bench import pairwise as b; p, q = b.tables(1024, {outcomes}, False); b.one(p, q, {rounds})"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": flags})
    for processes in (1, 2):
        print(f"sweep of 8192 x 8192 rows of 256 by {processes} processes: {_swept(processes):.1f} s", flush=True)


def one(p: np.ndarray, q: np.ndarray, rounds: int) -> None:
    """Time js of two tables."""
    seconds, _ = measure("js", {"ours": (_of_pairs(kljax.probs.js), np.float32, 1)}, p, q, rounds)["ours"]
    each = 1e9 * seconds / (len(p) * len(q) * p.shape[1])
    print(
        f"{jax.device_count()} devices, {len(p)} x {len(q)} rows of {p.shape[1]}: {each:.3f} ns an outcome", flush=True
    )


def _swept(processes: int) -> float:
    """Seconds of a sweep by so many processes, from their start to the end of the last."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/P.npy", tables(8192, 256, False)[0])
        command = [
            sys.executable,
            "-m",
            "kljax",
            "sweep",
            f"{folder}/P.npy",
            "--cell",
            "probs.js",
            "--out",
            f"{folder}/D",
        ]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        some = ["--coordinator", address, "--processes", str(processes), "--process"] if processes > 1 else []
        start = time.perf_counter()
        running = [
            subprocess.Popen([*command, *some, *([str(i)] if some else [])], stdout=subprocess.DEVNULL)
            for i in range(processes)
        ]
        assert not any([process.wait() for process in running])
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("rows", 512), ("outcomes", 1024), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--near", action="store_true")
    parser.add_argument("--scaling", action="store_true")
    given = parser.parse_args()
    if given.scaling:
        return scaling(given.outcomes, given.rounds)
    table(given.rows, given.outcomes, given.rounds, given.near, 2e8)  # the naive way holds some twenty such arrays


if __name__ == "__main__":
    main()
