"""Programs to time, ours and those of peers, behind one face; the race between them; and how far off they are.

A part is what is computed of a cell: the value of each row, or the sum over the batch with its gradient in q or both.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import cases, compiled

PARTS = ("value", "q", "p and q")
# The simplest programs that read and write what a part must, and how many arrays that is
MOVES = {
    "value": (jax.jit(lambda p, q: jnp.sum(p + q, -1)), 2),
    "q": (jax.jit(lambda p, q: p + q), 3),
    "p and q": (jax.jit(lambda p, q: (p + q, p - q)), 4),
}


class Program(NamedTuple):
    """What runs, and what it took to make it."""

    run: Callable[..., Any]
    wait: Callable[[Any], Any]
    arguments: tuple  # where the library wants them
    place: Callable[[tuple], tuple]  # puts others there
    fetch: Callable[[Any], np.ndarray]  # brings a result back
    made: dict  # seconds of lowering and compiling, milliseconds of the first call, temporary megabytes, passes


def of(function, part: str):
    """A function of jax arrays as the part asks for it."""

    def total(p, q):
        return jnp.sum(function(p, q))

    return {"value": function, "q": jax.value_and_grad(total, 1), "p and q": jax.value_and_grad(total, (0, 1))}[part]


def _timed(function, *arguments):
    start = time.perf_counter()
    found = function(*arguments)
    return found, time.perf_counter() - start


def lowered(function, arguments: tuple) -> Program:
    """A function of jax arrays (or trees of them), compiled."""
    low, lower_s = _timed(jax.jit(function).lower, *arguments)
    program, compile_s = _timed(low.compile)
    _, first = _timed(lambda: jax.block_until_ready(program(*arguments)))
    made = {"lower_s": lower_s, "compile_s": compile_s, "first_ms": first * 1e3}
    made["temp_mb"] = program.memory_analysis().temp_size_in_bytes / 1e6
    if jax.default_backend() == "gpu":
        made["passes"] = compiled.traffic(program.as_text()) / max(x.nbytes for x in jax.tree.leaves(arguments))
    return Program(program, jax.block_until_ready, arguments, jax.device_put, np.asarray, made)


def _of_jax(function, part, arguments):
    return lowered(of(function, part), arguments)


def _of_numpy(function, part, arguments):
    def place(pair):
        return tuple(np.asarray(x) for x in pair)

    here = place(arguments)
    _, first = _timed(function, *here)
    return Program(function, lambda found: found, here, place, np.asarray, {"first_ms": first * 1e3})


def _of_torch(function, part, arguments, whole: bool):
    """Eager torch, or the whole of it compiled; a compiled function's first call compiles it."""
    import torch

    if whole:
        torch._dynamo.reset()  # else the ninth function of one source line is run eagerly, without a word
        function = torch.compile(function, dynamic=False)

    def run(p, q):
        if part == "value":
            with torch.no_grad():
                return function(p, q)
        p, q = p.detach().requires_grad_(part != "q"), q.detach().requires_grad_()
        value = function(p, q).sum()
        found = torch.autograd.grad(value, (q,) if part == "q" else (p, q))
        return value.detach(), found[0] if part == "q" else found

    def wait(found):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return found

    def place(pair):
        return tuple(torch.from_dlpack(x) for x in pair)

    here = place(arguments)
    base = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    _, first = _timed(lambda: wait(run(*here)))
    made = {"compile_s": first} if whole else {"first_ms": first * 1e3}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        found = wait(run(*here))
        kept = sum(x.nbytes for x in jax.tree.leaves(found))
        made["temp_mb"] = (torch.cuda.max_memory_allocated() - base - kept) / 1e6
    return Program(run, wait, here, place, lambda x: x.float().cpu().numpy(), made)


def program(side: str, function, part: str, arguments: tuple) -> Program:
    """The part of one side's function: `side` says whose it is."""
    if side.startswith("torch") or side == "liger":
        return _of_torch(function, part, arguments, side == "torch.compile")
    return (_of_numpy if side == "scipy" else _of_jax)(function, part, arguments)


def quartiles(seconds: list[float]) -> list[float]:
    """Milliseconds: the lower quartile, the median and the upper quartile."""
    return [1e3 * x for x in statistics.quantiles(seconds, n=4, method="inclusive")]


def race(programs: dict[str, Program], seconds: float, least: int, most: int) -> dict[str, list[float]]:
    """Quartiles of the milliseconds of each program, run in turn, each turn in another order.

    There are as many turns as fit into the seconds. Programs shorter than 2 ms run several times in one turn.
    """
    warm, rng = {}, np.random.default_rng(0)
    for name, each in programs.items():
        _, warm[name] = _timed(lambda e=each: e.wait(e.run(*e.arguments)))  # its second run or a later one
    calls = {name: max(1, min(50, int(2e-3 / max(once, 1e-6)))) for name, once in warm.items()}
    turns = int(seconds / sum(warm[name] * calls[name] for name in programs))
    times = {name: [] for name in programs}
    for _ in range(max(least, min(most, turns))):
        for name in rng.permutation(list(programs)):
            each, start = programs[name], time.perf_counter()
            each.wait([each.run(*each.arguments) for _ in range(calls[name])])
            times[name].append((time.perf_counter() - start) / calls[name])
    return {name: quartiles(found) for name, found in times.items()}


# how far off they are


def truth(column: str, name: str, p, q) -> dict:
    """Each part of a cell in float64 by the textbook formula, of inputs of float32 or less.

    At the distances of the benchmark it keeps more digits than float32 has; a test holds it to 60-digit values.
    """

    def function(p, q):
        if column == "probs":
            p, q = (x / jnp.sum(x, -1, keepdims=True) for x in (p, q))
        return cases.by_hand(column, name)(p, q)

    with jax.enable_x64(True):
        exact = tuple(jnp.asarray(np.asarray(x).astype(np.float64)) for x in (p, q))
        _, slopes = of(function, "p and q")(*exact)
        value, slope_p, slope_q = (np.asarray(x) for x in (function(*exact), *slopes))
    return {"value": (value,), "q": (slope_q,), "p and q": (slope_p, slope_q)}


def centred(p: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """The gradient in weights p of a formula that does not divide by their sum, as if it did."""
    total = p.sum(-1, keepdims=True)
    return (slope - (p / total * slope).sum(-1, keepdims=True)) / total


def worst(got, true, eps: float, *, norm: bool) -> float | None:
    """The largest relative error of a row (its gradient in norm) in eps; None is not finite."""
    size = (lambda x: np.linalg.norm(x, axis=-1)) if norm else np.abs
    wrong, right = size(got - true), size(true)
    with np.errstate(all="ignore"):
        found = np.max(np.where(wrong == 0, 0, wrong / right), initial=0) / eps
    return float(found) if np.isfinite(found) else None


def error(side: str, each: Program, part: str, pair: tuple, column: str, true: tuple) -> float | None:
    """The worst error of a program on one pair, whose first rows have these true parts, in eps of kljax's result.

    Rows where p and q are the same (there are short ones in bfloat16) have no relative error.
    """
    rows, mean = len(true[0]), side == "liger"
    apart = np.any(np.asarray(pair[0][:rows] != pair[1][:rows]), -1)
    given = tuple(x[:rows] for x in pair) if mean else pair
    found = each.wait(each.run(*each.place(given)))
    found = found if part == "value" else found[1]
    found = found if isinstance(found, tuple) else (found,)
    got = [each.fetch(x[:rows] if x.ndim else x).astype(np.float64) for x in found]
    if mean:
        true = (np.mean(true[0]),) if part == "value" else true
        got = got if part == "value" else [rows * x for x in got]
    if column == "probs" and side != "kljax" and part != "value":
        weights = [np.asarray(x[:rows]).astype(np.float64) for x in pair]
        got = [centred(w, x) for w, x in zip(weights[-len(got) :], got, strict=True)]
    if not mean or part != "value":
        got, true = ([x[apart] for x in two] for two in (got, true))
    eps = float(jnp.finfo(jnp.float32 if part == "value" else pair[0].dtype).eps)
    errors = [worst(*two, eps, norm=part != "value") for two in zip(got, true, strict=True)]
    return None if None in errors else max(errors)


def apart(found, composite, arguments) -> float | None:
    """The error in norm, in eps of float32, of a tree of results against the composite's in float64."""

    def wide(x):
        return jnp.asarray(np.asarray(x), np.float64 if jnp.issubdtype(x.dtype, jnp.floating) else None)

    with jax.enable_x64(True):
        true = jax.tree.leaves(composite(*jax.tree.map(wide, arguments)))
        pairs = [
            [np.asarray(x).astype(np.float64).ravel() for x in two]
            for two in zip(jax.tree.leaves(found), true, strict=True)
        ]
    errors = [worst(got[None], right[None], float(jnp.finfo(jnp.float32).eps), norm=True) for got, right in pairs]
    return None if None in errors else max(errors)
