"""The expected matrix: every cell that exists (x), every hole (-) with its reason, and the laws that cells obey.

Tests, documentation and the README are checked against this text. What a cell is worth comes from `oracles.py`.
"""

import math

import numpy as np

MATRIX = """
cell                probs  logits
entropy               x      x
cross_entropy         x      x
kl                    x      x
reverse_kl            x      x
jeffreys              x      x
js                    x      x
js_distance           x      x
scaled_js             x      x
tv                    x      x
hellinger_sq          x      x
hellinger             x      x
bhattacharyya         x      x
renyi                 x      x
tsallis               x      x
alpha                 x      x
chi2                  x      x
le_cam                x      x
hockey_stick          x      x
geometric_js          x      x
f_divergence          x      x
contributions         x      x
fisher_rao            x      x
wasserstein1          x      x
js_many               x      x
renyi_entropy         x      x
tsallis_entropy       x      x
mutual_information    x      -     a joint table is a table of weights; its exponential goes to probs
generalized_kl        x      -     log-weights have no scale of their own, so there is nothing left unnormalised
top_k                 -      x     weights need no tail outcome: the rest of the mass is 1 minus their sum
coarsen               -      x     goes with top_k
"""

LINES = [line.split(maxsplit=3) for line in MATRIX.strip().splitlines()]
COLUMNS = LINES[0][1:]
EXISTS = {column: [line[0] for line in LINES[1:] if line[1 + i] == "x"] for i, column in enumerate(COLUMNS)}
REASONS = {line[0]: line[3] for line in LINES[1:] if len(line) > 3}

ONE = ("entropy", "renyi_entropy", "tsallis_entropy")  # cells of one distribution
SPECIAL = ("f_divergence", "contributions", "js_many", "mutual_information", "generalized_kl", "top_k", "coarsen")
PAIRS = tuple(c for c in EXISTS["probs"] if c not in ONE + SPECIAL)
ORACLED = ONE + PAIRS  # cells with an oracle and a battery

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
PARAMETER = {cell: next(iter(options[0])) for cell, options in OPTIONS.items()}


def options(cell: str) -> list[dict]:
    """What to call a cell with; the first is the plain one."""
    return OPTIONS.get(cell, [{}])


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
        "w1_ordinal": ("wasserstein1", False),
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
    return [(quantity, False, {}, 1)] if quantity in ORACLED else []
