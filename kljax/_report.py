"""What `kljax.compare` found: statistics of a number per row, bounds between the numbers, and their text."""

import math
import os
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

_CHUNK = 1 << 20  # numbers looked at together, so that the statistics of a temporary file need little memory
_SLACK = 16  # rounding of two values of one bound, in eps: Pinsker is attained in the limit of equal rows


class Statistics(NamedTuple):
    """One divergence over all rows. Infinite values are counted, left out of mean and stderr, and rank
    highest in the percentiles (linear between neighbouring values, as numpy.percentile). stderr takes the
    rows as independent.
    """

    mean: float
    stderr: float
    median: float
    p90: float
    p99: float
    p999: float
    max: float
    argmax: int
    infinite: int


class Support(NamedTuple):
    """Mass of one side where the other has none: in how many rows, on how many outcomes, the most in one."""

    rows: int
    outcomes: int
    mass: float


class Bound(NamedTuple):
    """An inequality between two divergences of each row: how often it fails and how nearly it is attained."""

    name: str
    statement: str
    violations: int
    closest: float  # the largest left side / right side


class Top(NamedTuple):
    """An outcome, or a coordinate, and what it adds to kl, on average over the rows where kl is finite."""

    outcome: int
    mean: float
    share: float


@dataclass(frozen=True)
class Report:
    """What a comparison of N pairs of rows with K outcomes found: `str(report)`, `to_dict()`, `plot(path)`.

    `values` holds every row's number for every divergence, [rows, N]; `contributions` what each outcome (in
    `kljax.normal` each coordinate) adds to the mean kl, [K], or None if it was not asked for or has no meaning.
    `same_top`, `p_only` and `q_only` are None for densities, whose events have no mass. `unit` is what K counts.
    """

    count: int
    outcomes: int
    column: str
    same_top: float | None
    rows: dict[str, Statistics]
    p_only: Support | None
    q_only: Support | None
    bounds: list[Bound]
    top: list[Top]
    values: np.ndarray = field(repr=False)
    contributions: np.ndarray | None = field(default=None, repr=False)
    unit: str = "outcomes"

    def to_dict(self) -> dict[str, Any]:
        """The report as strict JSON: infinite numbers are the string "inf", undefined ones None."""
        sides = {"p_only": self.p_only, "q_only": self.q_only}
        report = {
            "count": self.count,
            "outcomes": self.outcomes,
            "as": self.column,
            "same_top": self.same_top,
            "rows": {name: found._asdict() for name, found in self.rows.items()},
            "support": {side: found._asdict() for side, found in sides.items() if found} or None,
            "bounds": [bound._asdict() for bound in self.bounds],
            "top": [top._asdict() for top in self.top],
        }
        return _strict(report)

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """A matplotlib Figure, saved to `path` if given: histograms and the outcomes or coordinates that add most."""
        from kljax import _plot

        return _plot.draw(self, path)

    @property
    def heading(self) -> str:
        """What was compared, in a line."""
        head = f"{self.count:,} rows of {self.outcomes:,} {self.unit} as {self.column}"
        return head if self.same_top is None else f"{head}; same top outcome in {self.same_top:.2%}"

    def __str__(self) -> str:
        parts = [self.heading, _statistics_table(self.rows)]
        if self.p_only and self.q_only:
            parts.append(_support_text("p", "q", self.p_only) + "\n" + _support_text("q", "p", self.q_only))
        if any(found.infinite for found in self.rows.values()):
            parts[1] += "\n(infinite values are left out of mean and stderr)"
        if self.top:
            lines = [[self.unit[:-1], "adds to mean kl", "share"]]
            lines += [[str(top.outcome), _short(top.mean), f"{top.share:.1%}"] for top in self.top]
            parts.append(aligned(lines))
        if self.bounds:
            lines = [["bound, row by row", "", "fails", "closest"]]
            lines += [[b.statement, b.name, f"{b.violations:,}", f"{b.closest:.3f}"] for b in self.bounds]
            parts.append(aligned(lines, left=2))
        return "\n\n".join(parts)


def storage(rows: int, count: int, spill: int) -> np.ndarray:
    """Room for [rows, count] float64; above `spill` bytes it lies in a temporary file without a name."""
    if rows * count * 8 <= spill:
        return np.empty((rows, count), np.float64)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float64, "w+", shape=(rows, count))


def statistics(values: np.ndarray, spill: int) -> Statistics:
    """The statistics of one divergence's values [N], none of them NaN."""
    ordered = storage(1, values.size, spill)[0]
    ordered[:] = values
    ordered.sort()
    finite = ordered[: np.searchsorted(ordered, np.inf)]
    count = finite.size
    mean = sum(float(chunk.sum()) for chunk in _chunks(finite)) / count if count else math.nan
    squares = sum(float(np.square(chunk - mean).sum()) for chunk in _chunks(finite))
    stderr = math.sqrt(squares / (count - 1) / count) if count > 1 else math.nan
    median, p90, p99, p999 = (_percentile(ordered, share) for share in (0.5, 0.9, 0.99, 0.999))
    infinite, largest = int(values.size - count), float(ordered[-1])
    return Statistics(mean, stderr, median, p90, p99, p999, largest, int(np.argmax(values)), infinite)


def _percentile(ordered: np.ndarray, share: float) -> float:
    place = share * (ordered.size - 1)
    low, high = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    if low == high or high == math.inf:  # inf - inf would be nan
        return high
    part = place - math.floor(place)
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def _chunks(values: np.ndarray):
    return (values[start : start + _CHUNK] for start in range(0, values.shape[-1], _CHUNK))


_Side = Callable[[dict[str, np.ndarray]], np.ndarray]

_STAND_INS = ("_lower", "_upper")  # of a divergence without a closed form, on the two sides of a bound

# name, statement, the rows it needs, both sides (FORMULAS.md, inequalities)
_BOUNDS: list[tuple[str, str, set[str], _Side, _Side]] = [
    ("Pinsker", "tv <= sqrt(kl / 2)", {"tv", "kl"},
     lambda v: v["tv"], lambda v: np.sqrt(v["kl"] / 2)),
    ("Bretagnolle-Huber", "tv <= sqrt(1 - exp(-kl))", {"tv", "kl"},
     lambda v: v["tv"], lambda v: np.sqrt(-np.expm1(-v["kl"]))),
    ("Le Cam", "hellinger_sq <= tv", {"tv", "hellinger_sq"},
     lambda v: v["hellinger_sq"], lambda v: v["tv"]),
    ("Le Cam", "tv <= sqrt(hellinger_sq (2 - hellinger_sq))", {"tv", "hellinger_sq"},
     lambda v: v["tv"], lambda v: np.sqrt(v["hellinger_sq"] * (2 - v["hellinger_sq"]))),
    ("Lin", "js <= log(2) tv", {"js", "tv"},
     lambda v: v["js"], lambda v: math.log(2) * v["tv"]),
    ("", "tv^2 / 2 <= js", {"js", "tv"},
     lambda v: np.square(v["tv"]) / 2, lambda v: v["js"]),
    ("", "js <= jeffreys / 4", {"js", "jeffreys"},
     lambda v: v["js"], lambda v: v["jeffreys"] / 4),
    ("", "bhattacharyya <= kl / 2", {"bhattacharyya", "kl"},
     lambda v: v["bhattacharyya"], lambda v: v["kl"] / 2),
    ("", "kl <= log(1 + chi2)", {"kl", "chi2"},
     lambda v: v["kl"], lambda v: np.log1p(v["chi2"])),
]  # fmt: skip


def _present(side: str, suffix: str, needs: set[str], names: Collection[str]) -> dict[str, str] | None:
    """The row for each divergence in one side of a bound: its own, or else one that bounds it on that side."""
    found = {}
    for name in needs & set(re.findall(r"\w+", side)):
        found[name] = name if name in names else name + suffix
    return found if set(found.values()) <= set(names) else None


def bounds(names: list[str], values: np.ndarray, eps: float) -> list[Bound]:
    """The bounds whose rows are all among `names`, over values [rows, N]; 16 eps are allowed for rounding.

    All grow with every divergence: tv_lower and js_lower may stand on the smaller side, tv_upper and js_upper on the
    larger.
    """
    known = []
    for name, statement, needs, *functions in _BOUNDS:
        texts = statement.split(" <= ")
        sides = [_present(text, suffix, needs, names) for text, suffix in zip(texts, _STAND_INS, strict=True)]
        left, right = sides
        if left is not None and right is not None:
            text = " <= ".join(_named(side, found) for side, found in zip(texts, (left, right), strict=True))
            known.append((name, text, (left, right), functions))
    failures, closest = [0] * len(known), [0.0] * len(known)
    for chunk in _chunks(values):
        rows = dict(zip(names, chunk, strict=True))
        for i, (_, _, sides, functions) in enumerate(known):
            a, b = (f({k: rows[row] for k, row in side.items()}) for f, side in zip(functions, sides, strict=True))
            failures[i] += int(np.count_nonzero(a > b * (1 + _SLACK * eps)))
            ratio = np.divide(a, b, out=np.zeros_like(a), where=(b > 0) & np.isfinite(b))
            closest[i] = max(closest[i], float(ratio.max()))
    found = zip(known, failures, closest, strict=True)
    return [Bound(name, text, bad, near) for (name, text, *_), bad, near in found]


def _named(side: str, rows: dict[str, str]) -> str:
    return re.sub(r"\w+", lambda word: rows.get(word[0], word[0]), side)


def top_outcomes(contributions: np.ndarray, count: int) -> list[Top]:
    """The `count` outcomes that contribute most, largest first."""
    total = contributions.sum()
    order = np.argsort(-contributions, kind="stable")[:count]
    return [Top(int(i), float(contributions[i]), float(contributions[i] / total)) for i in order if total]


def aligned(lines: list[list[str]], *, left: int = 1) -> str:
    """Columns of text, two spaces apart: the first `left` aligned to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _statistics_table(rows: dict[str, Statistics]) -> str:
    lines = [["", "mean", "± stderr", "median", "90 %", "99 %", "99.9 %", "max", "at row", "infinite"]]
    for name, s in rows.items():
        numbers = [_short(v) for v in (s.mean, s.stderr, s.median, s.p90, s.p99, s.p999, s.max)]
        numbers[1] = f"± {s.stderr:.2g}" if not math.isnan(s.stderr) else "-"
        lines.append([name, *numbers, str(s.argmax), f"{s.infinite:,}"])
    return aligned(lines)


def _support_text(side: str, other: str, found: Support) -> str:
    text = f"{side} has mass where {other} has none: "
    if not found.rows:
        return text + "nowhere"
    return text + f"in {found.rows:,} rows, on {found.outcomes:,} outcomes, at most {found.mass:.3g} of a row"


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _strict(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_strict(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
