"""What is true of every pair of distributions, held against every cell of both columns, mostly by hypothesis.

All batches have one shape and options are traced, so each cell compiles once. Slack is a factor 1 + n eps only: with an
absolute slack, errors near equality would pass. n is 16 for two answers, each within 8 eps of the truth.
"""

import math

import numpy as np
import pytest
from hypothesis import Phase, given, settings

from tests import accuracy, matrix
from tests.draws import EPS, KINDS, OUTCOMES, ROWS, SMALL, batch, call, counts, draws, padded, values
from tests.draws import given as as_input

column = pytest.mark.parametrize("column", matrix.COLUMNS)
LOGS = 64  # eps: the logarithm of a count up to 2^14 is rounded by up to 4 eps, which both masses of a ratio feel


def drawn(examples):
    """A property over drawn batches, the same ones in every run; a failure names its rows, so nothing is shrunk."""
    how = settings(deadline=None, max_examples=examples, derandomize=True, database=None, phases=[Phase.generate])
    return lambda f: how(given(draws)(f))


def below(lesser, greater, what, eps=accuracy.AGREE):
    """lesser <= greater, but for `eps` of rounding and values too small to be measured (hockey_stick: absolute)."""
    size = np.maximum(np.abs(greater), 1) if "hockey" in what else np.abs(greater)
    bad = ~((lesser <= greater + eps * EPS * size) | (lesser <= SMALL))
    if bad.any():
        raise AssertionError(_told(what, bad, lesser, greater))


def same(got, other, what, eps=accuracy.AGREE):
    """Two answers to one question."""
    size = np.maximum(np.abs(other), 1) if "hockey" in what else np.abs(other)
    with np.errstate(invalid="ignore"):
        off = np.abs(got - other) <= eps * EPS * size
    bad = ~(off | (got == other) | ((np.abs(got) <= SMALL) & (np.abs(other) <= SMALL)))
    if bad.any():
        raise AssertionError(_told(what, bad, got, other))


def _told(what, bad, a, b):
    rows = np.flatnonzero(bad)
    with np.errstate(all="ignore"):
        lines = [
            f"  row {i} {KINDS[i % ROWS]}: {np.ravel(a)[i]:.9g} {np.ravel(b)[i]:.9g}, "
            f"{(np.ravel(a)[i] / np.ravel(b)[i] - 1) / EPS:.3g} eps"
            for i in rows[:6]
        ]
    return "\n".join([f"{what}: {len(rows)} rows", *lines])


def every(names=matrix.PAIRS):
    """Each cell with each of its options."""
    return [(name, options) for name in names for options in matrix.options(name)]


@column
@drawn(12)
def test_values_are_numbers_within_their_range(column, draw):
    p, q = batch(column, draw)
    for name, options in every(matrix.ORACLED):
        value = call(column, name, p, q, **options)
        assert (value >= 0).all(), f"{name} {options}: {[(KINDS[i], value[i]) for i in np.flatnonzero(~(value >= 0))]}"
        below(value, np.full(ROWS, matrix.upper(name, OUTCOMES, **options)), f"bound of {name} {options}", 8)


@column
@drawn(8)
def test_zero_exactly_where_equal(column, draw):
    p, _ = batch(column, draw)
    # not by subtraction: the shift must be exact
    moved = p * np.float32(2.0**-3) if column == "probs" else np.where(p < -np.inf, p, np.round(p * 64) / 64 + 37)
    same_p = p if column == "probs" else np.where(p < -np.inf, p, np.round(p * 64) / 64)
    for name, options in every([n for n in matrix.PAIRS if n != "cross_entropy"]):
        if options.get("order") == 0 and name in ("tsallis", "renyi"):
            continue  # the mass of q outside the support of p: below
        assert (call(column, name, p, p, **options) == 0).all(), (name, options)
        assert (call(column, name, same_p, moved.astype(np.float32), **options) == 0).all(), (name, options)


@column
@drawn(8)
def test_positive_where_supports_or_digits_differ(column, draw):
    """A pair that differs visibly has no divergence 0: no floor, no rounding away."""
    p, q = batch(column, draw)
    visible = np.array([relation in ("apart", "lacking", "lacked", "disjoint") for _, relation in KINDS])
    tv = call(column, "tv", p, q)
    visible &= tv > 1e-3
    for name, value in values(column, p, q).items():
        if name not in ("cross_entropy", "hockey_stick"):
            assert (value[visible] > 0).all(), name


@column
@drawn(8)
def test_symmetry(column, draw):
    p, q = batch(column, draw)
    for name in matrix.SYMMETRIC:
        options = {} if name not in ("js", "geometric_js") else {"weight": 0.5}
        same(call(column, name, p, q, **options), call(column, name, q, p, **options), name)


@column
@drawn(8)
def test_triangle_inequality(column, draw):
    p, q = batch(column, draw)
    r = np.roll(q, 1, 0)  # near, far and equal in turn
    near = batch(column, draw._replace(nearness=draw.nearness % 7 + 1))[1]
    for name, power in matrix.METRIC.items():
        for a, b, c in ((p, q, near), (p, r, q), (p, near, r)):
            ab, bc, ac = (call(column, name, *pair, **matrix.options(name)[0]) for pair in ((a, b), (b, c), (a, c)))
            below(ac, (np.power(ab, power) + np.power(bc, power)) ** (1 / power), f"triangle of {name}")


INEQUALITIES = {
    "Pinsker": lambda v: (2 * v["tv"] ** 2, v["kl"]),
    "Bretagnolle-Huber": lambda v: (v["tv"] ** 2, -np.expm1(-v["kl"])),
    "Bretagnolle-Huber, linear": lambda v: (v["tv"], 1 - np.exp(-v["kl"]) / 2),
    "H^2 <= TV": lambda v: (v["hellinger_sq"], v["tv"]),
    "TV^2 <= H^2 (2 - H^2)": lambda v: (v["tv"] ** 2, v["hellinger_sq"] * (2 - v["hellinger_sq"])),
    "TV^2 <= 2 H^2": lambda v: (v["tv"] ** 2, 2 * v["hellinger_sq"]),
    "TV^2 / 2 <= JS": lambda v: (v["tv"] ** 2 / 2, v["js"]),
    "JS <= log2 TV": lambda v: (v["js"], math.log(2) * v["tv"]),
    "JS <= log 2": lambda v: (v["js"], np.full(ROWS, math.log(2))),
    "log2 H^2 <= JS": lambda v: (math.log(2) * v["hellinger_sq"], v["js"]),
    "JS <= H^2": lambda v: (v["js"], v["hellinger_sq"]),
    "LC / 4 <= JS": lambda v: (v["le_cam"] / 4, v["js"]),
    "JS <= LC log2 / 2": lambda v: (v["js"], v["le_cam"] * math.log(2) / 2),
    "LC / 4 <= H^2": lambda v: (v["le_cam"] / 4, v["hellinger_sq"]),
    "H^2 <= LC / 2": lambda v: (v["hellinger_sq"], v["le_cam"] / 2),
    "TV^2 <= LC / 2": lambda v: (v["tv"] ** 2, v["le_cam"] / 2),
    "LC / 2 <= TV": lambda v: (v["le_cam"] / 2, v["tv"]),
    "2 H^2 <= 2 BD": lambda v: (v["hellinger_sq"], v["bhattacharyya"]),
    "2 BD <= KL": lambda v: (2 * v["bhattacharyya"], v["kl"]),
    "KL <= log(1 + chi2)": lambda v: (v["kl"], np.log1p(v["chi2"])),
    "KL <= chi2": lambda v: (v["kl"], v["chi2"]),
    "TV <= sqrt(chi2) / 2": lambda v: (4 * v["tv"] ** 2, v["chi2"]),
    "KL <= J": lambda v: (v["kl"], v["jeffreys"]),
    "JS <= J / 4": lambda v: (v["js"], v["jeffreys"] / 4),
    "GJS <= J / 4": lambda v: (v["geometric_js"], v["jeffreys"] / 4),
    "hockey stick <= TV": lambda v: (v["hockey_stick"], v["tv"]),
    "2 H <= Fisher-Rao": lambda v: (2 * v["hellinger"], v["fisher_rao"]),
    "W1 <= range TV": lambda v: (v["wasserstein1"], (OUTCOMES - 1) * v["tv"]),
    "TV <= W1": lambda v: (v["tv"], v["wasserstein1"]),
    "KL <= Renyi 3/2": lambda v: (v["kl"], v["renyi"]),
    "Renyi 3/2 <= Tsallis 3/2": lambda v: (v["renyi"], v["tsallis"]),
    "KL <= cross-entropy": lambda v: (v["kl"], v["cross_entropy"]),
}


@column
@drawn(12)
def test_inequalities_between_cells(column, draw):
    v = values(column, *batch(column, draw))
    for name, sides in INEQUALITIES.items():
        below(*sides(v), name)


@column
@drawn(6)
def test_renyi_grows_with_its_order_and_entropies_fall(column, draw):
    p, q = batch(column, draw)
    orders = sorted({o["order"] for o in matrix.options("renyi")})
    for name, sign in (("renyi", 1), ("renyi_entropy", -1)):
        ladder = [call(column, name, p, q, order=a) for a in orders][::sign]
        for low, high, a in zip(ladder, ladder[1:], orders[::sign], strict=False):
            below(low, high, f"{name} from order {a}")


def test_laws_notice_a_planted_error():
    with pytest.raises(AssertionError, match="planted: 1 rows\n  row 0"):
        below(np.array([1.0 + 20 * EPS, 1.0]), np.ones(2), "planted")
    with pytest.raises(AssertionError, match=" 20 eps"):
        same(np.array([1.0 + 20 * EPS]), np.ones(1), "planted")


def _slack(column):
    return accuracy.AGREE if column == "probs" else LOGS


def _merged(p):
    """Outcomes 2 i and 2 i + 1 made one: exact on counts."""
    return p.reshape(*p.shape[:-1], OUTCOMES // 2, 2).sum(-1)


@column
@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_data_processing(column, spread):
    p, q = counts("probs", 1, spread=spread)
    noise = np.random.default_rng(2).multinomial(8, np.full(OUTCOMES, 1 / OUTCOMES), OUTCOMES).astype(np.float32)
    for channel, x, y in (("merge", _merged(p), _merged(q)), ("mix", p @ noise, q @ noise)):
        for name, options in every(matrix.MONOTONE):
            after, before = (
                call(column, name, *(padded(column, as_input(column, z)) for z in pair), **options)
                for pair in ((x, y), (p, q))
            )
            below(after, before, f"{channel} {name} {options}", _slack(column))


@column
@drawn(4)
def test_splitting_every_outcome_in_two_changes_nothing(column, draw):
    """Data processing both ways, exact on logits too."""
    p, q = (x[:, : OUTCOMES // 2] for x in batch(column, draw))
    alive = [np.isfinite(x if column == "logits" else np.where(x > 0, 0, np.inf)).any(-1) for x in (p, q)]
    keep = (alive[0] & alive[1])[:, None]
    p, q = (np.where(keep, x, np.float32(1)) for x in (p, q))
    for name, options in every(matrix.MONOTONE):
        whole, split = (
            call(column, name, *(f(x) for x in (p, q)), **options)
            for f in (lambda x: padded(column, x), lambda x: np.concatenate([x, x], -1))
        )
        same(whole, split, f"{name} {options}")


@column
@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_joint_convexity(column, spread):
    p, q, r, s = counts("probs", 3, spread=spread, number=4)
    for name, options in every(matrix.F_DIVERGENCES):
        first, second, mixed = (
            call(column, name, *(as_input(column, x) for x in pair), **options)
            for pair in ((p, q), (r, s), ((p + 3 * r), (q + 3 * s)))
        )
        below(mixed, (first + 3 * second) / 4, f"{name} {options}", _slack(column))


@column
def test_chain_rule_of_kl(column):
    p, q = counts("probs", 4, spread=3.0)
    tables = [x.reshape(-1, 3, 4) for x in (p, q)]
    whole = call(column, "kl", *(as_input(column, x) for x in (p, q)))
    marginal = call(column, "kl", *(padded(column, as_input(column, x.sum(-1))) for x in tables))
    for i in range(3):
        inner = call(column, "kl", *(padded(column, as_input(column, x[:, i])) for x in tables))
        marginal = marginal + tables[0][:, i].sum(-1) / p.sum(-1) * inner
    same(whole, marginal, "chain rule", _slack(column))


@column
@pytest.mark.parametrize("name", ["kl", "reverse_kl", "jeffreys", "bhattacharyya", "renyi"])
def test_additive_over_products(column, name):
    p, q = counts("probs", 5, total=2**9, spread=1.0)
    a, b = ([x[:, :3], x[:, 3:7]] for x in (p, q))
    joint = [(x[0][:, :, None] * x[1][:, None]).reshape(len(p), -1) for x in (a, b)]
    for options in matrix.options(name):
        parts = sum(call(column, name, *(padded(column, as_input(column, x[i])) for x in (a, b)), **options) for i in (0, 1))
        together = call(column, name, *(as_input(column, x) for x in joint), **options)
        same(together, parts, f"{name} {options}", _slack(column))
