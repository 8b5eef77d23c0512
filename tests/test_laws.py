"""What is true of every pair of distributions, held against every cell of both columns, mostly by hypothesis.

All batches have one shape and options are traced, so each cell compiles once. Slack is a factor 1 + n eps only: with an
absolute slack, errors near equality would pass. n is 16 for two answers, each within 8 eps of the truth.
"""

import math

import numpy as np
import pytest
from hypothesis import Phase, given, settings

import kljax
from tests import accuracy, matrix
from tests.draws import EPS, KINDS, OUTCOMES, ROWS, SMALL, batch, call, counts, draws, padded, rows, values
from tests.draws import given as as_input

# of one column all in one process, which compiles each cell once
GROUPS = [pytest.mark.xdist_group(f"laws of {c}") for c in matrix.DISCRETE]
column = pytest.mark.parametrize(
    "column", [pytest.param(c, marks=g) for c, g in zip(matrix.DISCRETE, GROUPS, strict=True)]
)
ROOTS = ("js_distance", "hellinger {}", "fisher_rao", "triangle of hellinger", "Fisher-Rao")
LOGS = 64  # eps: the logarithm of a count up to 2^14 is rounded by up to 4 eps, which both masses of a ratio feel


def drawn(examples):
    """A property over drawn batches, the same ones in every run; a failure names its rows, so nothing is shrunk."""
    how = settings(deadline=None, max_examples=examples, derandomize=True, database=None, phases=[Phase.generate])
    return lambda f: how(given(draws)(f))


def below(lesser, greater, what, eps=accuracy.AGREE):
    """lesser <= greater, but for `eps` of rounding and values too small to be measured (hockey_stick: absolute)."""
    size = np.maximum(np.abs(greater), 1) if "hockey" in what else np.abs(greater)
    bad = ~((lesser <= greater + eps * EPS * size) | (lesser <= _smallest(what)))
    if bad.any():
        raise AssertionError(_told(what, bad, lesser, greater))


def same(got, other, what, eps=accuracy.AGREE, least=0.0):
    """Two answers to one question; those that are both below `least` agree."""
    # the largest ratio near equality: its condition number is 1 / value
    size = np.maximum(np.abs(other), 1) if "hockey" in what or "inf" in what else np.abs(other)
    with np.errstate(invalid="ignore"):
        off = np.abs(got - other) <= eps * EPS * size
    least = max(least, _smallest(what))
    bad = ~(off | (got == other) | ((got <= least) & (other <= least)))
    if bad.any():
        raise AssertionError(_told(what, bad, got, other))


def _smallest(what):
    """The least value that is measured; of a root, what its square says."""
    return math.sqrt(SMALL) if any(name in what for name in ROOTS) else SMALL


def _told(what, bad, a, b):
    rows = np.flatnonzero(bad)
    with np.errstate(all="ignore"):
        lines = [
            f"  row {i} {KINDS[i % ROWS]}: {np.ravel(a)[i]:.9g} {np.ravel(b)[i]:.9g}, "
            f"{(np.ravel(a)[i] / np.ravel(b)[i] - 1) / EPS:.3g} eps"
            for i in rows[:6]
        ]
    return "\n".join([f"{what}: {len(rows)} rows", *lines])


probs_first = pytest.mark.parametrize(
    "column", [pytest.param("probs", marks=GROUPS[0]), pytest.param("logits", marks=[GROUPS[1], pytest.mark.repeat])]
)


def every(names=matrix.PAIRS):
    """Each cell with each of its options."""
    return [(name, options) for name in names for options in matrix.options(name)]


@probs_first
@drawn(12)
def test_values_are_numbers_within_their_range(column, draw):
    p, q = batch(column, draw)
    for name, options in every(matrix.oracled("probs")):
        value = call(column, name, p, q, **options)
        assert (value >= 0).all(), f"{name} {options}: {[(KINDS[i], value[i]) for i in np.flatnonzero(~(value >= 0))]}"
        below(value, np.full(ROWS, matrix.upper(name, OUTCOMES, **options)), f"bound of {name} {options}", 8)


@probs_first
@drawn(6)
def test_zero_exactly_where_equal(column, draw):
    p, _ = batch(column, draw)
    plain = p if column == "probs" else np.round(p * 64) / 64  # a shift of these is exact
    for name, options in every([n for n in matrix.PAIRS if n != "cross_entropy"]):
        assert (call(column, name, p, p, **options) == 0).all(), (name, options)
        moved = plain * np.float32(0.125) if column == "probs" else plain + np.float32(37)
        value = call(column, name, plain, moved, **options)
        # hockey_stick is right to 8 eps of the masses, not of their difference
        assert (value <= (8 * EPS if name == "hockey_stick" else 0)).all(), (name, options)


@pytest.mark.repeat
@pytest.mark.smoke
def test_one_hot_weights_of_any_scale_are_equal():
    """A weight stands for itself over its sum, so all mass on one outcome is all mass, whatever the number."""
    p, q = (np.zeros((ROWS, OUTCOMES), np.float32) for _ in range(2))
    p[:, 3], q[:, 3] = np.linspace(0.1, 7, ROWS), np.linspace(0.9, 0.2, ROWS)
    wrong = {}
    for name, options in every([n for n in matrix.PAIRS if n != "hockey_stick"]):
        value = call("probs", name, p, q, **options)
        if (value != 0).any():
            wrong[f"{name} {options}"] = value[np.argmax(np.abs(value))]
    assert not wrong


@probs_first
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
        options = matrix.options(name)[0]
        same(call(column, name, p, q, **options), call(column, name, q, p, **options), f"{name} {options}")


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


IDENTITIES = {
    "tv is hockey_stick at 1": (("hockey_stick", {"gamma": 1.0}), lambda v: v["tv"]),
    "alpha at 1/2 is 4 H^2": (("alpha", {"order": 0.5}), lambda v: 4 * v["hellinger_sq"]),
    "alpha at 2 is chi2 / 2": (("alpha", {"order": 2.0}), lambda v: v["chi2"] / 2),
    "alpha at 1 is kl": (("alpha", {"order": 1.0}), lambda v: v["kl"]),
    "alpha at 0 is reverse_kl": (("alpha", {"order": 0.0}), lambda v: v["reverse_kl"]),
    "tsallis is order times alpha": (("tsallis", {"order": 1.5}), lambda v: 1.5 * v["alpha"]),
    "renyi is a logarithm of tsallis": (("renyi", {"order": 1.5}), lambda v: 2 * np.log1p(v["tsallis"] / 2)),
    "renyi at 2 is log(1 + chi2)": (("renyi", {"order": 2.0}), lambda v: np.log1p(v["chi2"])),
    "renyi at 1 is kl": (("renyi", {"order": 1.0}), lambda v: v["kl"]),
    "renyi at 1/2 is twice bhattacharyya": (("renyi", {"order": 0.5}), lambda v: 2 * v["bhattacharyya"]),
    "bhattacharyya is -log(1 - H^2)": (
        ("hellinger_sq", {}),
        lambda v: np.where(v["bhattacharyya"] < 1, -np.expm1(-v["bhattacharyya"]), v["hellinger_sq"]),
    ),
    "hellinger is a root": (("hellinger_sq", {}), lambda v: v["hellinger"] ** 2),
    "js_distance is a root": (("js", {"weight": 0.5}), lambda v: v["js_distance"] ** 2),
    "fisher_rao is an angle": (("hellinger_sq", {}), lambda v: 2 * np.sin(v["fisher_rao"] / 4) ** 2),
    "scaled_js is scaled": (("js", {"weight": 0.25}), lambda v: v["scaled_js"] * 0.25 * 0.75),
    "scaled_js at 0 is kl": (("scaled_js", {"weight": 0.0}), lambda v: v["kl"]),
    "scaled_js at 1 is reverse_kl": (("scaled_js", {"weight": 1.0}), lambda v: v["reverse_kl"]),
    "jeffreys is a sum": (("jeffreys", {}), lambda v: v["kl"] + v["reverse_kl"]),
}


@column
@drawn(6)
def test_identities_between_cells(column, draw):
    p, q = batch(column, draw)
    v = values(column, p, q)
    for what, ((name, options), other) in IDENTITIES.items():
        same(call(column, name, p, q, **options), other(v), what.replace("hockey_stick", "hockey"))
    entropy = call(column, "entropy", p, q)
    same(v["cross_entropy"], entropy + v["kl"], "cross_entropy is entropy + kl")


SWAPS = {  # D(q, p) with these options is D(p, q) with those
    "kl": ({}, "reverse_kl", {}, 1), "js": ({"weight": 0.25}, "js", {"weight": 0.75}, 1),
    "scaled_js": ({"weight": 0.25}, "scaled_js", {"weight": 0.75}, 1),
    "geometric_js": ({"weight": 0.25}, "geometric_js", {"weight": 0.75}, 1),
    "alpha": ({"order": 0.25}, "alpha", {"order": 0.75}, 1), "alpha ": ({"order": -1.0}, "alpha", {"order": 2.0}, 1),
    "renyi": ({"order": 0.25}, "renyi", {"order": 0.75}, 3),
}  # fmt: skip


@column
@drawn(6)
def test_swapped_arguments(column, draw):
    p, q = batch(column, draw)
    for name, (there, other, here, factor) in SWAPS.items():
        got = call(column, name.strip(), q, p, **there) * factor
        same(got, call(column, other, p, q, **here), f"{name} {there}")


@column
@drawn(6)
def test_order_and_unit_of_outcomes_do_not_matter(column, draw):
    p, q = batch(column, draw)
    order = np.random.default_rng(draw.seed).permutation(OUTCOMES)
    even = [x if column == "probs" else np.round(x * 64) / 64 for x in (p, q)]
    moved = [
        x * np.float32(2.0**k) if column == "probs" else x + np.float32(k) for x, k in zip(even, (-3, 5), strict=True)
    ]
    for name, options in every(matrix.oracled("probs")):
        what = f"{name} {options}"
        whole = call(column, name, p, q, **options)
        if name != "wasserstein1":
            same(call(column, name, p[:, order], q[:, order], **options), whole, f"permuted {what}")
        same(call(column, name, p[:, ::-1], q[:, ::-1], **options), whole, f"reversed {what}")
        same(call(column, name, *moved, **options), call(column, name, *even, **options), f"moved {what}", 0)


@probs_first
@drawn(4)
def test_contributions_add_up_to_the_cell(column, draw):
    p, q = batch(column, draw)
    for name, row in rows(("kl", "js", "tv", "chi2", "alpha", "hockey_stick")).items():
        parts = np.asarray(getattr(kljax, column).contributions(p, q, row=row), np.float64)
        assert (parts >= 0).all(), name
        what = f"contributions to {name} {{}}"
        value = call(column, name, p, q, **matrix.options(name)[0])
        # each outcome of tv alone has the normaliser's rounding in it, to first order; the cell takes it out
        same(parts.sum(-1), value, what, least=EPS if name == "tv" else 0.0)
        if name in ("kl", "alpha", "hockey_stick"):
            same(np.asarray(getattr(kljax, column).f_divergence(p, q, row=row), np.float64), value, what)


@column
@drawn(4)
def test_js_of_many(column, draw):
    p, q = batch(column, draw)
    m = getattr(kljax, column)
    stack = np.stack([p, q, np.roll(p, 1, 0)], -2)
    many = np.asarray(m.js_many(stack), np.float64)
    assert (many >= 0).all()
    below(many, np.full(ROWS, math.log(3)), "js_many <= log N", 8)
    same(np.asarray(m.js_many(stack[:, ::-1]), np.float64), many, "js_many, other order")
    only = np.asarray(m.js_many(stack, weights=np.array([0.75, 0.25, 0], np.float32)), np.float64)
    same(only, call(column, "js", p, q, weight=0.75), "js_many of two")
    assert (np.asarray(m.js_many(np.stack([p, p, p], -2))) == 0).all()


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
        # a mass of all but one takes its difference from the others, two of a half each know theirs to eps
        first_order = name in ("js_distance", "hellinger", "fisher_rao", "tv", "hockey_stick")
        same(whole, split, f"{name} {options}", least=EPS if first_order else EPS**2)


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


@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_mutual_information_is_kl_from_independence(spread):
    joint = counts("probs", 6, total=2**10, spread=spread)[0]
    table = joint.reshape(-1, 3, 4)
    apart = (table.sum(-1, keepdims=True) * table.sum(-2, keepdims=True)).reshape(joint.shape)
    information = np.asarray(kljax.probs.mutual_information(table), np.float64)
    same(information, call("probs", "kl", joint, apart), "mutual information")
    same(np.asarray(kljax.probs.mutual_information(table, axes=(2, 1)), np.float64), information, "of the transpose")
    assert (np.asarray(kljax.probs.mutual_information(apart.reshape(table.shape))) == 0).all(), "independent"


@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_generalized_kl_of_equal_sums_is_kl_times_the_sum(spread):
    p, q = counts("probs", 7, spread=spread)
    got = np.asarray(kljax.probs.generalized_kl(p, q), np.float64)
    same(got, 2**12 * call("probs", "kl", p, q), "generalized_kl")
    same(np.asarray(kljax.probs.generalized_kl(p, 2 * p), np.float64), np.full(ROWS, 2**12 * (1 - math.log(2))), "2 p")


@column
@pytest.mark.parametrize("name", ["kl", "reverse_kl", "jeffreys", "bhattacharyya", "renyi"])
def test_additive_over_products(column, name):
    p, q = counts("probs", 5, total=2**9, spread=1.0)
    a, b = ([x[:, :3], x[:, 3:7]] for x in (p, q))
    joint = [(x[0][:, :, None] * x[1][:, None]).reshape(len(p), -1) for x in (a, b)]
    for options in matrix.options(name):
        parts = sum(
            call(column, name, *(padded(column, as_input(column, x[i])) for x in (a, b)), **options) for i in (0, 1)
        )
        together = call(column, name, *(as_input(column, x) for x in joint), **options)
        same(together, parts, f"{name} {options}", _slack(column))
