"""Figures of what the verbs found. matplotlib, the `plot` extra, is imported only when a figure is drawn."""

import math
import os
from typing import Any

import numpy as np

PLOT_EXTRA = 'pip install "kljax[plot]"'

_FILL, _EDGE, _INK = "#4c78a8", "#2f4b6e", "#444444"
_MARKS = (("median", "-"), ("p99", "--"))
_BINS = 60
_COLUMNS = 3


def canvas(width: float, height: float) -> Any:
    """An empty Figure. Raises ImportError, in one line, if matplotlib is absent."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"drawing needs matplotlib: {PLOT_EXTRA}") from error
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure


def heat_map(values: np.ndarray, shape: tuple[int, int], title: str, own: bool, path: str | os.PathLike) -> None:
    """A matrix, or the means of its parts, of `shape` rows and columns. Nothing is drawn where it is not finite."""
    n, m = shape
    figure = canvas(6.4, 1.2 + 5.2 * min(2.0, max(0.4, n / m)))
    axes = figure.add_subplot()
    shown = axes.imshow(
        np.where(np.isfinite(values), values, np.nan), cmap="viridis", extent=(-0.5, m - 0.5, n - 0.5, -0.5),
        interpolation="nearest", aspect="auto",
    )  # fmt: skip
    axes.set_facecolor("#dddddd")
    _plain(axes, title)
    axes.set_xlabel(f"row of {'P' if own else 'Q'}", fontsize=8, color=_INK)
    axes.set_ylabel("row of P", fontsize=8, color=_INK)
    figure.colorbar(shown, ax=axes, shrink=0.8).ax.tick_params(labelsize=8, colors=_INK)
    figure.savefig(path)


def nearest(values: np.ndarray, title: str, path: str | os.PathLike) -> None:
    """How far the nearest of each row and the last that is kept are, rows in the order of that."""
    figure = canvas(6.4, 4.0)
    axes = figure.add_subplot()
    _plain(axes, title)
    for k, color in ((values.shape[1], _FILL), (1, _EDGE)) if values.shape[1] > 1 else ((1, _EDGE),):
        axes.plot(np.sort(values[:, k - 1]), color=color, label=f"neighbour {k}" if k > 1 else "nearest")
    axes.set_xlabel("rows of P, in the order of their distance", fontsize=8, color=_INK)
    axes.set_ylim(0)
    axes.set_ylabel("divergence", fontsize=8, color=_INK)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def draw(report: Any, path: str | os.PathLike | None = None) -> Any:
    """A Figure with a histogram for each divergence and, if known, the outcomes or coordinates that add most to kl.

    Saved to `path` if one is given, in the format of its suffix. Needs no display and leaves pyplot alone.
    Raises ImportError, in one line, if matplotlib is absent.
    """
    panels = len(report.rows) + bool(report.top)
    columns = min(_COLUMNS, 2 if panels in (2, 4) else panels)
    lines = math.ceil(panels / columns)
    figure = canvas(4.4 * columns, 3.0 * lines + 0.7)
    figure.suptitle(report.heading, fontsize=11)
    grid = figure.add_gridspec(lines, columns)
    for i, (name, values) in enumerate(zip(report.rows, report.values, strict=True)):
        _histogram(figure.add_subplot(grid[i // columns, i % columns]), name, values, report.rows[name])
    if report.top:
        _outcomes(figure.add_subplot(grid[-1, (panels - 1) % columns :]), report)
    if path is not None:
        figure.savefig(path)
    return figure


def _plain(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left", color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)


def _histogram(axes: Any, name: str, values: np.ndarray, found: Any) -> None:
    zero, below = int(np.count_nonzero(values == 0)), int(np.count_nonzero(values < 0))
    left_out = ((zero, "exactly 0"), (below, "below 0"), (found.infinite, "infinite"))
    notes = [f"{count:,} {what}" for count, what in left_out if count]
    _plain(axes, f"{name}  (not drawn: {', '.join(notes)})" if notes else name)
    drawn = values.size - zero - below - found.infinite
    if not drawn:
        return
    low = float(np.min(values, where=values > 0, initial=math.inf))
    high = float(np.max(values, where=values < math.inf, initial=0))
    bins = max(8, min(_BINS, math.isqrt(drawn) * 2))
    edges = np.geomspace(low * (1 - 1e-6), high * (1 + 1e-6), bins + 1)
    axes.stairs(np.histogram(values, edges)[0], edges, fill=True, color=_FILL)
    axes.set_xscale("log")
    axes.set_ylabel("rows", fontsize=8, color=_INK)
    marks = [(key, style, getattr(found, key)) for key, style in _MARKS]
    for key, style, value in marks:
        if 0 < value < math.inf:
            axes.axvline(value, color=_EDGE, linestyle=style, linewidth=1.2, label=f"{key} {value:.3g}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="best")


def _outcomes(axes: Any, report: Any) -> None:
    _plain(axes, f"{report.unit} that add most to kl, {sum(top.share for top in report.top):.0%} of its mean")
    labels = [str(top.outcome) for top in report.top]
    axes.barh(labels, [top.mean for top in report.top], color=_FILL)
    axes.invert_yaxis()
    axes.set_xlabel("mean contribution in nats", fontsize=8, color=_INK)
    axes.set_ylabel(report.unit[:-1], fontsize=8, color=_INK)
