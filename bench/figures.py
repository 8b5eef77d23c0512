"""The two figures of the README: python -m bench.figures [--accuracy FILE.png] [--speed FILE.png].

accuracy: the worst error of KL, Jensen-Shannon and squared Hellinger between softmaxes of 256 outcomes in float32,
against the tests' oracle (60 digits) on the same logits, from far apart to all but equal; peers that are installed
beside it.
speed: medians and quartiles of the largest size of bench/results/cpu.json.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np

from bench import cases
from bench.render import RESULTS
from bench.targets import LARGE, by_size
from kljax._plot import canvas
from tests import columns, corpus

ROWS, OUTCOMES = 8, 256
DISTANCES = 10.0 ** np.linspace(0.5, -6, 14)
CELLS = {"kl": "KL", "js": "Jensen-Shannon", "hellinger_sq": "squared Hellinger"}
OURS, GREY = "#c1272d", "#555555"
COLOURS = {
    "by hand": "#777777", "optax": "#1f77b4", "jax.scipy": "#2ca02c", "tfp": "#9467bd", "distrax": "#8c564b",
    "numpyro": "#e377c2", "scipy": "#bcbd22", "torch": "#ff7f0e", "torch.compile": "#17becf",
    "torch.distributions": "#7f7f00",
}  # fmt: skip
TICKS = (20, 50, 100, 200, 500, 1000)
EPS = float(np.finfo(np.float32).eps)


def sides(cell: str) -> dict:
    """kljax, the formula by hand, and the peers that are here."""
    found = {"by hand": cases.by_hand("logits", cell)}
    for peer, cells in cases.PEERS["logits"].items():
        if cell in cells and cases.installed(peer):
            found[peer] = cells[cell]
    return found | {"kljax": cases.ours("logits", cell)}


def errors(cell: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The median divergence at each distance, and by side the worst relative error of any row in eps."""
    functions, oracle, sizes, found = sides(cell), columns.COLUMNS["logits"], [], {}
    for distance in DISTANCES:
        p, q = cases.inputs("logits", ROWS, OUTCOMES, distance=float(distance))
        pairs = [
            corpus.Case("", "", *pair, {}, {}, False, False) for pair in zip(*map(np.asarray, (p, q)), strict=True)
        ]
        true = np.array([float(oracle.value(cell, case, np.dtype("float32"))) for case in pairs])
        sizes.append(np.median(true))
        for side, function in functions.items():
            given = (p, q) if side == "scipy" else (jnp.asarray(p), jnp.asarray(q))
            value = np.asarray(function(*given) if side == "scipy" else jax.jit(function)(*given), np.float64)
            wrong = np.where(np.isfinite(value), np.abs(value - true) / true, np.inf)
            found.setdefault(side, []).append(max(wrong.max() / EPS, 0.05))
    return np.array(sizes), {side: np.array(values) for side, values in found.items()}


def draw_accuracy(path: str) -> None:
    """A panel a divergence, both axes logarithmic."""
    made = canvas(11.5, 4.2)
    panels = made.subplots(1, 3, sharey=True)
    handles = {}
    for axes, (cell, title) in zip(panels, CELLS.items(), strict=True):
        size, found = errors(cell)
        for side, values in found.items():
            ours = side == "kljax"
            style = {"color": OURS, "lw": 2.6, "zorder": 3} if ours else {"color": COLOURS[side], "lw": 1.3}
            (handles[side],) = axes.loglog(size, values, **style)
        axes.axhline(1 / EPS, color=GREY, lw=0.8, ls=":")
        axes.invert_xaxis()
        axes.set(title=title, xlabel="the divergence itself, nats", ylim=(0.05, 1e12))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    panels[0].annotate(
        "no digit is right above this line",
        (0.02, 1.6 / EPS),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        color=GREY,
    )
    panels[0].set_ylabel("worst error, in eps of float32")
    order = ["kljax", *(side for side in handles if side != "kljax")]
    made.legend(
        [handles[s] for s in order], order, loc="outside lower center", ncols=len(order), frameon=False, fontsize=9
    )
    made.savefig(path)


def draw_speed(path: str) -> None:
    """Milliseconds of each side: the value, and the value with its gradient in q."""
    run = json.loads((RESULTS / "cpu.json").read_text())
    found = by_size(run["records"])["sizes", LARGE]
    cells = list(dict.fromkeys(cell for _, cell, _, _ in found))
    made = canvas(11.5, 4.6)
    panels = made.subplots(1, 2, sharey=True)
    for axes, (part, title) in zip(panels, {"value": "value", "q": "value and gradient in q"}.items(), strict=True):
        for row, cell in enumerate(reversed(cells)):
            for (_, c, side, p), record in found.items():
                if c == cell and p == part and side in (*COLOURS, "kljax", "textbook"):
                    low, median, high = record["ms"]
                    ours = side == "kljax"
                    colour = OURS if ours else COLOURS["by hand" if side == "textbook" else side]
                    axes.plot([low, high], [row, row], color=colour, lw=2, alpha=0.6)
                    axes.plot(
                        median, row, "D" if ours else "o", color=colour, ms=9 if ours else 6, zorder=3 if ours else 2
                    )
        axes.set(title=title, xlabel="milliseconds", xscale="log", yticks=range(len(cells)), yticklabels=cells[::-1])
        axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
        axes.set_xticks([], minor=True)
        axes.grid(axis="y", lw=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    shown = {"kljax": OURS} | {("by hand" if s == "textbook" else s): None for _, _, s, _ in found if s != "kljax"}
    handles = [
        panels[0].plot([], [], "D" if s == "kljax" else "o", color=OURS if s == "kljax" else COLOURS[s], ls="")[0]
        for s in shown
    ]
    made.legend(handles, list(shown), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    made.suptitle(f"{LARGE} logits, {run['device']}, {run['threads']} threads", fontsize=10, color=GREY)
    made.savefig(path)


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accuracy", metavar="PATH")
    parser.add_argument("--speed", metavar="PATH")
    options = parser.parse_args()
    if options.accuracy:
        draw_accuracy(options.accuracy)
    if options.speed:
        draw_speed(options.speed)


if __name__ == "__main__":
    main()
