"""Who is timed: kljax, the textbook formula, and the peers that are installed; a rival that is not is recorded absent.

A rival makes of a column, a cell and a part of it ("value", "q", "p and q": with the gradient of the sum in these) a
program that runs on given arrays and waits for all its results.
"""

import functools
import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import cases

PARTS = {"value": (), "q": (1,), "p and q": (0, 1)}


class Program(NamedTuple):
    """Something to time."""

    run: Callable[[], Any]
    compile_s: float
    temp: int | None  # bytes beside arguments and results, where the compiler says so


def part_of(function: Callable, part: str) -> Callable:
    """The value, or the value with gradients of its sum over the batch."""
    sides = PARTS[part]
    if not sides:
        return function

    def total(p, q):
        value = function(p, q)
        return jnp.sum(value), value

    return jax.value_and_grad(total, sides if len(sides) > 1 else sides[0], has_aux=True)


def program(function: Callable, part: str, arrays: tuple[np.ndarray, ...]) -> Program:
    """A function of jax arrays, compiled."""
    given = jax.block_until_ready(jax.device_put(arrays))
    start = time.perf_counter()
    compiled = jax.jit(part_of(function, part)).lower(*given).compile()
    spent, memory = time.perf_counter() - start, compiled.memory_analysis().temp_size_in_bytes
    return Program(lambda: jax.block_until_ready(compiled(*given)), spent, memory)


def _categorical(library: str) -> Callable:
    """KL between the library's own categorical distributions."""
    if library == "distrax":
        from distrax import Categorical

        return lambda p, q: Categorical(logits=p).kl_divergence(Categorical(logits=q))
    from tensorflow_probability.substrates.jax.distributions import Categorical, kl_divergence

    return lambda p, q: kl_divergence(Categorical(logits=p), Categorical(logits=q))


# torch before what brings its own copies of the same libraries: after them its compiler crashes as it is imported
MODULES = {"torch": "torch", "torch.compile": "torch._dynamo", "liger": "liger_kernel", "distrax": "distrax",
           "tfp": "tensorflow_probability.substrates.jax"}  # fmt: skip


@functools.cache
def lacking(name: str) -> str:
    """Why a rival cannot be timed here, "" where it can: not installed, or not to be imported beside this jax."""
    if name == "liger" and jax.default_backend() != "gpu":
        return "needs a GPU"
    try:
        importlib.import_module(MODULES.get(name, "jax"))
    except (ImportError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _torch_formula(column: str, name: str) -> Callable | None:
    """The textbook in torch, KL by its own function."""
    import torch
    from torch.nn import functional

    def logs(x):
        return torch.log_softmax(x, -1) if column == "logits" else torch.log(x)

    def kl(a, b):
        return functional.kl_div(b, a, reduction="none", log_target=True).sum(-1)

    def js(a, b):
        m = torch.logaddexp(a, b) - 0.6931471805599453
        return (kl(a, m) + kl(b, m)) / 2

    formulas = {
        "kl": kl,
        "js": js,
        "tv": lambda a, b: (a.exp() - b.exp()).abs().sum(-1) / 2,
        "hellinger_sq": lambda a, b: 1 - ((a + b) / 2).exp().sum(-1),
        "renyi": lambda a, b: torch.logsumexp(1.5 * a - 0.5 * b, -1) / 0.5,
    }
    formula = formulas.get(name)
    return formula and (lambda p, q: formula(logs(p), logs(q)))


def _torch(column: str, name: str, part: str, arrays: tuple[np.ndarray, ...], optimised: bool) -> Program | None:
    """Eager or compiled, on the GPU where there is one."""
    import torch

    formula = _torch_formula(column, name)
    if formula is None:
        return None
    device, half = "cuda" if torch.cuda.is_available() else "cpu", arrays[0].dtype == jnp.bfloat16
    p, q = (torch.tensor(np.asarray(x, np.float32), device=device) for x in arrays)
    p, q = (x.bfloat16() if half else x for x in (p, q))
    sides = [(p, q)[i].requires_grad_() for i in PARTS[part]]
    function = torch.compile(formula) if optimised else formula

    def run():
        value = function(p, q)
        slopes = torch.autograd.grad(value.sum(), sides) if sides else ()
        if device == "cuda":
            torch.cuda.synchronize()
        found = [x.detach() for x in (value, *slopes)]
        return (found[0], None), tuple(found[1:]) if len(slopes) > 1 else found[-1]

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
    return Program(run if sides else lambda: run()[0][0], time.perf_counter() - start, None)


def _liger(name: str, part: str, arrays: tuple[np.ndarray, ...]) -> Program | None:
    """liger-kernel, which has KL, JS and TV in Triton, over a whole batch at once."""
    if name not in ("kl", "js", "tv") or part == "p and q":
        return None
    import torch
    from liger_kernel import transformers

    p, q = (torch.tensor(np.asarray(x, np.float32), device="cuda") for x in arrays)
    q.requires_grad_(part == "q")
    losses = {
        "kl": lambda: transformers.LigerKLDIVLoss("batchmean", log_target=True)(q.log_softmax(-1), p.log_softmax(-1)),
        "js": lambda: transformers.LigerJSD(0.5)(q.log_softmax(-1), p.log_softmax(-1)),
        "tv": lambda: transformers.LigerTVDLoss("batchmean")(q.softmax(-1), p.softmax(-1)),
    }

    def run():
        value = losses[name]()
        slope = torch.autograd.grad(value, q)[0] if part == "q" else None
        torch.cuda.synchronize()
        return value, slope

    start = time.perf_counter()
    run()
    return Program(run, time.perf_counter() - start, None)


def names(column: str, name: str) -> list[str]:
    """All who have the cell, ours first."""
    others = [peer for peer, cells in cases.PEERS[column].items() if name in cells]
    if column == "logits" and name == "kl":
        others += ["tfp", "distrax"]  # numpyro has no KL of categoricals
    return ["kljax", "textbook", *others, *(("torch", "torch.compile", "liger") if column == "logits" else ())]


def make(rival: str, column: str, name: str, part: str, arrays: tuple[np.ndarray, ...]) -> Program | None:
    """The program, or None where the rival has no such thing."""
    if rival in ("torch", "torch.compile"):
        return _torch(column, name, part, arrays, rival != "torch")
    if rival == "liger":
        return _liger(name, part, arrays)
    if rival == "scipy":
        function = cases.PEERS[column]["scipy"][name]
        wide = [np.asarray(x, np.float32) for x in arrays]  # it has no halves
        return Program(lambda: function(*wide), 0.0, None) if part == "value" else None
    if rival in MODULES:
        return program(_categorical(rival), part, arrays)
    own = {"kljax": cases.ours, "textbook": cases.by_hand}.get(rival)
    return program(own(column, name) if own else cases.PEERS[column][rival][name], part, arrays)
