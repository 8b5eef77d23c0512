"""Two files of draws compared: what `kljax compare P Q --as samples` prints."""

import os
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kljax import _files, probs, samples

_PAIRED = 500  # draws of either file, spread evenly over it, whose distances are all taken
_RELABELLED = 199
_BINS, _PSEUDOCOUNT = 10, 0.5
_LISTED = 20


def read(*paths: str | os.PathLike) -> list[np.ndarray]:
    """The draws in each file, `[n, d]`; an array of one axis holds n numbers. Raises InputError."""
    found = []
    with ExitStack() as stack:
        for path in paths:
            rows = _files.open_rows(path)
            stack.callback(rows.close)
            draws = np.asarray(_files.whole(rows), np.float32)
            draws = draws.reshape(-1, 1) if rows.single else draws
            bad = np.argwhere(~np.isfinite(draws))
            if len(bad):
                row, column = bad[0]
                value = draws[row, column]
                raise _files.InputError(f"{path}: row {row}, column {column}: {value}; expected finite numbers")
            if len(draws) < 10:
                raise _files.InputError(f"{path}: {len(draws)} draws; expected at least 10")
            found.append(draws)
    if found[0].shape[1] != found[-1].shape[1]:
        widths = " and ".join(f"{path} has {len(x[0])}" for path, x in zip(paths, found, strict=True))
        raise _files.InputError(f"{widths} columns; draws of one distribution have one number of columns")
    return found


def compare(p: np.ndarray, q: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Distances of the draws as points, with p-values, and of each of their columns."""
    x, y = (jnp.asarray(z[np.linspace(0, len(z) - 1, min(len(z), _PAIRED)).astype(int)]) for z in (p, q))
    keys, whole = jax.random.split(jax.random.key(seed), 3), {}
    for key, name in zip(keys, ("energy", "mmd_sq"), strict=False):
        test = samples.permutation_test(key, getattr(samples, name), x, y, n=_RELABELLED)
        whole[name] = {"value": float(test.statistic), "p_value": float(test.p_value)}
    whole["knn_kl"] = {"value": float(samples.knn_kl(x, y))}
    sliced = samples.sliced_wasserstein(keys[2], x, y)
    whole["sliced_wasserstein"] = {"value": float(sliced.value), "stderr": float(sliced.stderr)}
    h = jax.vmap(lambda a, b: samples.histogram(a, b, bins=_BINS, pseudocount=_PSEUDOCOUNT))(p.T, q.T)
    columns = {
        "psi": probs.jeffreys(h.p, h.q), "js": probs.js(h.p, h.q), "tv": probs.tv(h.p, h.q),
        "wasserstein1": samples.wasserstein1(p.T, q.T), "mean of P": p.mean(0), "mean of Q": q.mean(0),
    }  # fmt: skip
    each = {name: [float(v) for v in values] for name, values in columns.items()}
    return {"draws": [len(p), len(q)], "of which paired": [len(x), len(y)], "points": whole, "columns": each}


def text(found: dict[str, Any]) -> str:
    """The report, columns with the largest index first."""
    (n, m), paired = found["draws"], found["of which paired"]
    lines = [f"{n} and {m} draws, {paired[0]} and {paired[1]} of them for distances of points"]
    for name, numbers in found["points"].items():
        lines.append("  ".join([f"{name:20}", *(f"{k} {v:.4g}" for k, v in numbers.items())]))
    each = found["columns"]
    order = sorted(range(len(each["psi"])), key=lambda i: -each["psi"][i])
    title = f"\n{_BINS} bins of equal counts of P, {_PSEUDOCOUNT} added to each; wasserstein1 in units of the column"
    lines += [title, "column" + "".join(f"{name:>14}" for name in each)]
    lines += [f"{i:6}" + "".join(f"{values[i]:14.4g}" for values in each.values()) for i in order[:_LISTED]]
    return "\n".join(lines + ([f"... {len(order) - _LISTED} more columns"] if len(order) > _LISTED else []))
