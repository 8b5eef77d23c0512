"""The expected matrix: every cell that exists (x), every hole (-) with its reason, and the laws that cells obey.

Tests, documentation and the README are checked against this text. `heads` has the cells that training uses; its truths
are those of `logits` (test_heads.py). What a cell is worth comes from `oracles.py`.
"""

import math

import numpy as np
import pytest

import kljax

MATRIX = """
cell                probs logits heads normal mvn lowrank mixture expfam
entropy               x     x      -     x      x   x       -       x      a mixture has bounds: entropy_lower, _upper
cross_entropy         x     x      -     x      x   x       -       x      minus log_prob of draws has no closed form
kl                    x     x      x     x      x   x       -       x      a mixture has bounds: kl_lower, kl_upper
reverse_kl            x     x      x     x      x   x       -       x      swap the arguments of the bounds
jeffreys              x     x      x     x      x   x       -       x      the sum of two bounds is a bound
js                    x     x      x     x      -   -       -       -      closed form of one Normal coordinate only
js_distance           x     x      -     x      -   -       -       -      goes with js
scaled_js             x     x      x     -      -   -       -       -      its limits are kl and reverse_kl
tv                    x     x      x     x      -   -       -       -      closed form of one Normal coordinate only
hellinger_sq          x     x      x     x      x   x       -       x      no closed form between mixtures
hellinger             x     x      -     x      x   x       -       x      goes with hellinger_sq
bhattacharyya         x     x      -     x      x   x       -       x      no closed form between mixtures
renyi                 x     x      x     x      x   x       -       x      no closed form between mixtures
tsallis               x     x      -     x      x   x       -       x      no closed form between mixtures
alpha                 x     x      x     x      x   x       -       x      no closed form between mixtures
chi2                  x     x      -     x      x   x       -       x      no closed form between mixtures
le_cam                x     x      -     -      -   -       -       -      no closed form between densities
hockey_stick          x     x      -     -      -   -       -       -      no closed form between densities
geometric_js          x     x      -     x      x   x       -       -      p^w q^(1-w) leaves the family of a mixture
f_divergence          x     x      -     -      -   -       -       -      of densities: samples.estimate
contributions         x     x      -     -      -   -       -       -      axis=() of normal has one value a coordinate
fisher_rao            x     x      -     x      -   -       -       -      open between Gaussians of unlike covariance
wasserstein1          x     x      -     -      -   -       -       -      on ordered outcomes only
wasserstein2          -     -      -     x      x   -       -       -      Gaussians; low rank has none in O(D R^2)
js_many               x     x      -     -      -   -       -       -      a mixture of densities is no density here
renyi_entropy         x     x      -     -      -   -       -       -      of outcomes
tsallis_entropy       x     x      -     -      -   -       -       -      of outcomes
mutual_information    x     -      -     -      -   -       -       -      a joint table is weights; exponentiate logits
generalized_kl        x     -      -     -      -   -       -       -      nothing but weights can be left unnormalised
top_k                 -     x      -     -      -   -       -       -      weights need no tail: 1 minus their sum
coarsen               -     x      -     -      -   -       -       -      goes with top_k
tv_lower              -     -      -     b      b   b       -       -      where tv has no closed form
tv_upper              -     -      -     b      b   b       -       -      where tv has no closed form
js_lower              -     -      -     b      b   b       -       -      where js has no closed form
js_upper              -     -      -     b      b   b       -       -      where js has no closed form
tv_shared             -     -      -     -      x   -       -       -      tv of Gaussians with one covariance
kl_lower              -     -      -     -      -   -       b       -      where kl has no closed form
kl_upper              -     -      -     -      -   -       b       -      where kl has no closed form
kl_variational        -     -      -     -      -   -       x       -      an approximation of kl
kl_product            -     -      -     -      -   -       x       -      an approximation of kl
entropy_lower         -     -      -     -      -   -       b       -      where entropy has no closed form
entropy_upper         -     -      -     -      -   -       b       -      where entropy has no closed form
kl_natural            -     -      -     -      -   -       -       x      of any log-normaliser
renyi_natural         -     -      -     -      -   -       -       x      of any log-normaliser
log_prob              -     -      -     x      x   x       x       -      outcomes are read off the array itself
sample                -     -      -     x      x   x       x       -      outcomes: jax.random.categorical
loss                  -     -      x     -      -   -       -       -      the sum over tokens that trains a linear head
"""

LINES = [line.split() for line in MATRIX.strip().splitlines()]
WRITTEN = LINES[0][1:]  # columns of the text, of which a module may not be there yet
COLUMNS = [column for column in WRITTEN if hasattr(kljax, column)]
MARKS = {line[0]: dict(zip(WRITTEN, line[1:], strict=False)) for line in LINES[1:]}
EXISTS = {column: [cell for cell, marks in MARKS.items() if marks[column] != "-"] for column in COLUMNS}
REASONS = {line[0]: " ".join(line[1 + len(WRITTEN) :]) for line in LINES[1:]}
DISCRETE = ("probs", "logits")

ONE = ("entropy", "renyi_entropy", "tsallis_entropy")  # cells of one distribution
SPECIAL = (
    "f_divergence", "contributions", "js_many", "mutual_information", "generalized_kl", "top_k", "coarsen", "tv_shared",
    "kl_variational", "kl_product", "kl_natural", "renyi_natural", "log_prob", "sample",
)  # fmt: skip
PAIRS = tuple(c for c in EXISTS["probs"] if c not in ONE + SPECIAL)


def tiers(names, default, repeat=None) -> list:
    """Of these `default` run by default, `repeat` (None: all others) among the repeats, others slow."""

    def marks(name):
        if name in default:
            return []
        return [pytest.mark.repeat if repeat is None or name in repeat else pytest.mark.slow]

    return [pytest.param(name, marks=marks(name)) for name in names]


def oracled(column: str) -> list[str]:
    """The cells of a column with an oracle and a battery: all but bounds and what has tests of its own."""
    if column == "heads":
        return []
    return [c for c in EXISTS[column] if c not in SPECIAL and MARKS[c][column] == "x"]


def signed(column: str, cell: str) -> bool:
    """Whether a cell may be negative: of densities, the entropies."""
    return column not in DISCRETE and cell in ("entropy", "cross_entropy")


INF = float("inf")
WEIGHTS = (0.9990234375, 0.875, 0.75, 0.5, 0.25, 0.0625)  # 1 - a of the corpus' js_skew@a, all dyadic
NEAR_ONE = (0.9990234375, 0.9999990463256836, 1.0000009536743164, 1.0009765625)
ORDERS = (0.0, 0.0009765625, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
# The options a cell is measured with; the first is the one for everything else.
OPTIONS = {
    "js": [{"weight": w} for w in (0.5, *WEIGHTS[:3], *WEIGHTS[4:], 0.0, 1.0)],
    "scaled_js": [{"weight": w} for w in (0.25, *WEIGHTS[:4], 0.0625, 0.0, 1.0)],
    "geometric_js": [{"weight": w} for w in (0.5, 0.75, 0.25)],
    "renyi": [{"order": a} for a in (1.5, 2.0, *ORDERS[:6], 4.0, *NEAR_ONE, INF)],
    "tsallis": [{"order": a} for a in (1.5, 2.0, *ORDERS[:6], *NEAR_ONE)],
    "alpha": [{"order": a} for a in (1.5, -1.0, *ORDERS[:6], 2.0, 3.0, *NEAR_ONE)],
    "hockey_stick": [{"gamma": g} for g in (2.0, 1.0, 1.25)],
    "renyi_entropy": [{"order": a} for a in (2.0, *ORDERS[:6], *NEAR_ONE, INF)],
    "tsallis_entropy": [{"order": a} for a in (2.0, *ORDERS[:6], *NEAR_ONE)],
}
DENSITY_OPTIONS = {"js": [{"weight": w} for w in (0.5, 0.25)]}  # the oracle of a density is a quadrature
PARAMETER = {cell: next(iter(options[0])) for cell, options in OPTIONS.items()}


def options(cell: str, column: str = "probs") -> list[dict]:
    """What to call a cell with; the first is the plain one."""
    plain = OPTIONS.get(cell, [{}])
    return plain if column in DISCRETE else DENSITY_OPTIONS.get(cell, plain)


F_DIVERGENCES = (
    "kl", "reverse_kl", "jeffreys", "js", "scaled_js", "tv", "hellinger_sq", "chi2", "le_cam", "hockey_stick", "alpha",
    "tsallis",
)  # fmt: skip
MONOTONE = (*F_DIVERGENCES, "renyi", "bhattacharyya", "hellinger", "js_distance", "fisher_rao")  # data processing
SYMMETRIC = (
    "jeffreys", "js", "js_distance", "tv", "hellinger_sq", "hellinger", "bhattacharyya", "le_cam", "geometric_js",
    "fisher_rao", "wasserstein1",
)  # fmt: skip
METRIC = {"js_distance": 1, "hellinger": 1, "tv": 1, "fisher_rao": 1, "wasserstein1": 1, "js": 0.5, "hellinger_sq": 0.5,
          "le_cam": 0.5}  # fmt: skip
# +inf where q lacks mass that p has (first) and where p lacks mass that q has (second), by the cell's first option
INFINITE = {
    "cross_entropy": (True, False), "kl": (True, False), "reverse_kl": (False, True), "jeffreys": (True, True),
    "chi2": (True, False), "geometric_js": (True, True), "renyi": (True, False), "tsallis": (True, False),
    "alpha": (True, False),
}  # fmt: skip


def binary_entropy(w: float) -> float:
    """The entropy of (w, 1 - w)."""
    return -sum(v * math.log(v) for v in (w, 1 - w) if v > 0)


def upper(cell: str, outcomes: int, *, weight: float = 0.5, order: float = 0.5, **_) -> float:
    """The largest value of a cell, where it has one."""
    log_k, inner = math.log(outcomes), 0 < order < 1
    power = log_k if order == 1 else math.expm1((1 - order) * log_k) / (1 - order)
    return {
        "entropy": log_k, "renyi_entropy": log_k, "tsallis_entropy": power if order < INF else 0.0,
        "js": binary_entropy(weight), "js_distance": math.sqrt(math.log(2)),
        "scaled_js": binary_entropy(weight) / (weight * (1 - weight)) if 0 < weight < 1 else INF,
        "tv": 1.0, "hellinger_sq": 1.0, "hellinger": 1.0, "le_cam": 2.0, "hockey_stick": 1.0, "fisher_rao": math.pi,
        "tsallis": 1 / (1 - order) if order < 1 else INF, "alpha": 1 / (order * (1 - order)) if inner else INF,
        "wasserstein1": outcomes - 1.0,
    }.get(cell, INF)  # fmt: skip


def fisher(cell: str, *, weight: float = 0.5, order: float = 1.0, **_) -> float:
    """f''(1): the Hessian at p = q is this many times the Fisher metric; nan where there is no Hessian."""
    return {
        "kl": 1.0, "reverse_kl": 1.0, "jeffreys": 2.0, "js": weight * (1 - weight), "scaled_js": 1.0,
        "hellinger_sq": 0.25, "bhattacharyya": 0.25, "chi2": 2.0, "le_cam": 1.0, "alpha": 1.0, "tsallis": order,
        "renyi": order, "geometric_js": weight * (1 - weight),
    }.get(cell, float("nan"))  # fmt: skip


FISHER = tuple(c for c in PAIRS if not np.isnan(fisher(c)))


def from_golden(name: str) -> list[tuple[str, bool, dict, float]]:
    """A quantity of the corpus as (cell, arguments swapped, options, divisor) with cell = quantity / divisor."""
    quantity, _, text = name.partition("@")
    a = float(text or "nan")
    plain = {
        "entropy_p": ("entropy", False), "entropy_q": ("entropy", True), "cross_entropy_pq": ("cross_entropy", False),
        "cross_entropy_qp": ("cross_entropy", True), "chi2_pearson": ("chi2", False), "chi2_neyman": ("chi2", True),
        "w1_ordinal": ("wasserstein1", False), "w2": ("wasserstein2", False),
    }  # fmt: skip
    if quantity == "kl_pq":
        return [("kl", False, {}, 1), ("reverse_kl", True, {}, 1)]
    if quantity == "kl_qp":
        return [("kl", True, {}, 1), ("reverse_kl", False, {}, 1)]
    if quantity in plain:
        return [(*plain[quantity], {}, 1)]
    if quantity == "js":
        return [("js", False, {"weight": 0.5}, 1), ("scaled_js", False, {"weight": 0.5}, 0.25)]
    if quantity == "js_skew":
        return [("js", False, {"weight": 1 - a}, 1), ("scaled_js", False, {"weight": 1 - a}, a * (1 - a))]
    if quantity == "js_geometric":
        return [("geometric_js", False, {"weight": 1 - a}, 1)]
    if quantity in ("renyi", "tsallis", "alpha_ca"):
        return [(quantity.removesuffix("_ca"), False, {"order": a}, 1)]
    if quantity == "hockey_stick":
        return [("hockey_stick", False, {"gamma": a}, 1)]
    return [(quantity, False, {}, 1)] if quantity in MARKS else []
