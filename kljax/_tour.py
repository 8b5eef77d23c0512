"""The tour: what rounding a language model's weights does to its predictions, and undoing part of it."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kljax import _compare, _files, _fit, _pairwise, _tour_model, logits

BITS = (8, 6, 5, 4, 3, 2)
REPAIRED = 3  # bits of the model that the fit repairs
ROWS, LENGTH, STEPS = 64, 128, 200
_NEEDED = {"glassllm": "examples", "matplotlib": "plot"}


def run(seed: int = 0, out: str | None = None) -> int:
    """Run the tour and return the exit status: 0, or 2 with one line on stderr.

    Prints the divergences of each rounded model from the original and those of all pairs of models, fits a temperature
    and a bias with optax, and draws a figure to `out`. The same seed gives the same numbers.
    """
    out = out or "kljax-tour.png"
    fault = _fault(out)
    if fault:
        print(f"kljax: {fault}", file=sys.stderr)
        return 2
    print(f"seed {seed}")
    weights, shape, tokenizer = _tour_model.load()
    tokens, size = _tokens(tokenizer, seed)
    print(
        f"model: glassllm, {sum(w.size for w in weights.values()):,} parameters; text: {ROWS} x {LENGTH} tokens of the"
    )
    print(f"Python language reference (pydoc_data.topics, {size:,} characters), V = {weights['E'].shape[0]}")
    original = _predict(weights, tokens, shape)
    base = _perplexity(original, tokens)
    print(f"\nweights   kl mean    kl p99        js        tv  same top  perplexity\noriginal{'':>54}{base:9.2f}")
    table, models = [], {}
    for bits in BITS:
        models[bits] = _predict(_tour_model.quantise(weights, bits), tokens, shape)
        table.append(_line(bits, original, models[bits], tokens))
    print(_verdict([{"bits": "the original", "kl": 0.0, "perplexity": base}, *table]))
    between = all_pairs({"original": original} | {str(bits): model for bits, model in models.items()})
    losses, report = repair(original, models[REPAIRED], seed)
    print("\n".join(report))
    _draw(out, table, base, between, losses)
    print(f"figure: {out}")
    return 0


def _fault(out: str) -> str | None:
    for name, extra in _NEEDED.items():
        if importlib.util.find_spec(name) is None:
            return f'the tour needs {name}: python3 -m pip install "kljax[{extra}]" (".[{extra}]" in a clone)'
    folder = Path(out).resolve().parent
    if not folder.is_dir() or Path(out).is_dir():
        return f"{out}: cannot be written; expected a file name in an existing folder"
    try:
        with open(out, "ab"):
            pass
    except OSError as error:
        return f"{out}: cannot be written: {error.strerror}"
    return None


def _tokens(tokenizer: Any, seed: int) -> tuple[np.ndarray, int]:
    """ROWS stretches of the text, in an order drawn from the seed."""
    text = _tour_model.prose("".join(tokenizer.alphabet))
    ids = np.asarray(tokenizer.encode(text), np.int32)
    starts = np.arange(len(ids) // LENGTH) * LENGTH
    chosen = np.random.default_rng(seed).permutation(starts)[:ROWS]
    return np.stack([ids[s : s + LENGTH] for s in chosen]), len(text)


def _predict(weights: dict[str, Any], tokens: np.ndarray, shape: Any) -> np.ndarray:
    """Logits [ROWS x LENGTH, V], a few rows at a time."""
    parts = [np.asarray(_tour_model.forward(weights, jnp.asarray(part), shape)) for part in np.split(tokens, 8)]
    return np.concatenate(parts).reshape(tokens.size, -1)


@jax.jit
def _surprise(a: jax.Array, target: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(a), target[:, None], -1)[:, 0].mean()


def _perplexity(a: np.ndarray, tokens: np.ndarray) -> float:
    known = a.reshape(*tokens.shape, -1)[:, :-1].reshape(-1, a.shape[-1])
    return float(jnp.exp(_surprise(jnp.asarray(known), jnp.asarray(tokens[:, 1:].reshape(-1)))))


def _line(bits: int, p: np.ndarray, q: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    names = ("original", f"{bits} bits")
    tables = [_files.arrays_as_rows(x, name) for x, name in zip((p, q), names, strict=True)]
    report = _compare.stream(*tables, column=logits, rows=("kl", "js", "tv"))
    kl, js, tv = (report.rows[name] for name in ("kl", "js", "tv"))
    found = {"bits": bits, "kl": kl.mean, "p99": kl.p99, "js": js.mean, "tv": tv.mean, "top": report.same_top}
    found["perplexity"] = _perplexity(q, tokens)
    print(
        f"{bits} bits  {found['kl']:10.5f}{found['p99']:10.5f}{found['js']:10.5f}{found['tv']:10.5f}"
        f"{found['top']:10.3f}{found['perplexity']:12.2f}",
        flush=True,
    )
    return found


def _verdict(table: list[dict[str, Any]]) -> str:
    """Which neighbours perplexity puts in the wrong order, from the numbers alone."""
    pairs = list(zip(table, table[1:], strict=False))
    wrong = [f"{a['bits']} and {b['bits']}" for a, b in pairs if a["perplexity"] >= b["perplexity"]]
    ordered = all(a["kl"] < b["kl"] for a, b in pairs)
    first = "KL grows with every bit taken away" if ordered else "KL does not grow with every bit taken away"
    second = f"perplexity has these the wrong way round: {', '.join(wrong)}" if wrong else "and so does perplexity"
    return f"{first}; {second}."


def mean_js(p: jax.Array, q: jax.Array) -> jax.Array:
    return logits.js(p, q).mean()


def all_pairs(models: dict[str, np.ndarray]) -> np.ndarray:
    """The mean over tokens of js between each two models; prints it."""
    found = np.asarray(_pairwise.pairwise(mean_js, np.stack(list(models.values()))))
    print(f"\nmean js of{''.join(f'{name:>10}' for name in models)}")
    for name, line in zip(models, found, strict=True):
        print(f"{name:10}{''.join(f'{value:10.5f}' for value in line)}", flush=True)
    return found


def repair(p: np.ndarray, q: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """Fit a temperature and a bias of q on half of the rows of p; the losses, and what to print."""
    order = np.random.default_rng(seed).permutation(len(p))
    halves = [(jnp.asarray(p[i]), jnp.asarray(q[i])) for i in np.split(order, 2)]

    def loss(params, p, q):
        return logits.kl(p, q * jnp.exp(params["log_scale"]) + params["bias"][None]).mean()

    start = {"log_scale": jnp.zeros(()), "bias": jnp.zeros(q.shape[-1])}
    print(f"\nfitting a temperature and a bias to the {REPAIRED} bit model, {STEPS} steps of Adam on KL", flush=True)
    found = _fit.fit(lambda params: loss(params, *halves[0]), start, steps=STEPS, progress=_tell)
    value = jax.jit(loss)
    lines = [f"temperature {float(jnp.exp(-found.params['log_scale'])):.3f}; mean KL before -> after"]
    for name, half in zip(("fitted half", "held-out half"), halves, strict=True):
        lines.append(f"  {name:14}{float(value(start, *half)):.5f} -> {float(value(found.params, *half)):.5f}")
    return found.losses, lines


def _tell(step: int, loss: float) -> None:
    print(f"  step {step:4d}  loss {loss:.5f}", flush=True)


def _draw(out: str, table: list[dict[str, float]], base: float, between: np.ndarray, losses: np.ndarray) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    bits = [line["bits"] for line in table]
    for name, label in (("kl", "KL, mean"), ("p99", "KL, 99th percentile"), ("js", "JS"), ("tv", "TV")):
        left.plot(bits, [line[name] for line in table], marker="o", label=label)
    change = [abs(line["perplexity"] / base - 1) for line in table]
    left.plot(bits, change, marker="s", color="grey", linestyle="--", label="|perplexity change|, relative")
    left.set(yscale="log", xlabel="bits a weight", title="rounded model against the original")
    left.set_xticks(bits)
    left.invert_xaxis()
    left.legend(fontsize=8)
    middle.plot(np.arange(len(losses)), losses)
    title = f"temperature and bias for the {REPAIRED} bit model"
    middle.set(xlabel="step of Adam", ylabel="mean KL, nats", title=title)
    middle.set_ylim(0)
    _draw_pairs(right, ["original", *map(str, bits)], between)
    figure.savefig(out, dpi=130, format="png")


def _draw_pairs(axes: Any, names: list[str], between: np.ndarray) -> None:
    from matplotlib.colors import LogNorm

    norm = LogNorm(between[between > 0].min(), between.max())
    image = axes.imshow(np.ma.masked_equal(between, 0), norm=norm, cmap="YlGnBu")  # a logarithm has no colour for 0
    for i, j in np.ndindex(*between.shape):
        dark = between[i, j] > 0 and norm(between[i, j]) > 0.6
        text = f"{between[i, j]:.2g}"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set(xlabel="bits a weight", title="JS of each two models, mean, nats")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.figure.colorbar(image, ax=axes, shrink=0.9)
