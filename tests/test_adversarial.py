"""Every cell on pairs that were made to break it: no nan, no negative, nothing beyond its range, asymmetric or unequal.

By default 6,000 pairs of a few cells, in the slow run 100,000 of each. What they found first follows by its numbers.
"""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kljax
from kljax import affinity
from tests import adversaries, corpus, families, gaussians, matrices, matrix
from tests.draws import EPS, SMALL

ROWS = 2000
FEW, MANY = 3, 50  # batches
CELLS = [(c, n) for c in matrix.DISCRETE for n in matrix.oracled("probs")]
QUICK = ("kl", "renyi", "tv", "cross_entropy")  # by default one of each engine, as each compiles for seconds
ENDS = {  # options beyond those that the corpus measures
    "alpha": ("order", (-1e-6, 1 + 2.0**-22, -3.0, 8.0, 50.0, -50.0)),
    "renyi": ("order", (1e-6, 30.0, 1 - 2.0**-23)), "tsallis": ("order", (1e-6, 30.0, 1 - 2.0**-23)),
    "js": ("weight", (1e-6, 1 - 2.0**-23, 1e-30)), "scaled_js": ("weight", (1e-6, 1 - 2.0**-23, 1e-30)),
    "geometric_js": ("weight", (0.0, 1.0, 1e-6)), "hockey_stick": ("gamma", (1 + 2.0**-23, 1e6)),
    "renyi_entropy": ("order", (1e-6, 30.0)), "tsallis_entropy": ("order", (1e-6, 30.0)),
}  # fmt: skip
FAMILIES = ("Bernoulli", "Poisson", "Geometric", "Exponential", "Gamma", "InverseGamma", "Beta", "Laplace")
DRAWS = {  # the column, and two of a kind by a seed and how many
    "probs": ("probs", adversaries.weights), "logits": ("logits", adversaries.logits),
    "Normal": ("normal", adversaries.normals),
    "LogScaleNormal": ("normal", functools.partial(adversaries.normals, kind=kljax.normal.LogScaleNormal)),
    "MVN": ("mvn", adversaries.gaussians), "LowRank": ("lowrank", adversaries.low_rank),
    **{n: ("expfam", functools.partial(adversaries.members, getattr(kljax.expfam, n))) for n in FAMILIES},
}  # fmt: skip
FIRST_ORDER = ("js_distance", "hellinger", "fisher_rao", "tv", "wasserstein1", "hockey_stick")


def amounts(cells, quick):
    """A few batches of the quick ones by default, many of each cell in the slow run."""
    few = [(*cell, FEW) for cell in quick]
    slow = [pytest.param(*cell, MANY, marks=pytest.mark.slow) for cell in cells]
    return pytest.mark.parametrize(("kind", "name", "batches"), few + slow)


@functools.cache
def program(column, name):
    """Value both ways and on equal arguments, and the gradients; one program for every batch and option."""
    f = corpus.cell(column, name)

    @jax.jit
    def run(p, q, options):
        def total(p, q):
            value = f(p, q, **options)
            return value.sum(), value

        (_, value), slopes = jax.value_and_grad(total, (0, 1), has_aux=True)(p, q)
        other = value if name in matrix.ONE else f(q, p, **options)
        return value, slopes, other, value if name in matrix.ONE else f(p, p, **options)

    return run


def every_option(name):
    """Those of the corpus, and the ends."""
    key, values = ENDS.get(name, ("", ()))
    return [*matrix.options(name), *({key: v} for v in values)]


def called(column, name, p, q, options):
    traced = {k: jnp.asarray(v, jnp.float32) for k, v in options.items()}
    value, slopes, other, equal = jax.tree.map(lambda x: np.asarray(x, np.float64), program(column, name)(p, q, traced))
    return value, jax.tree.leaves(slopes), other, equal


def refuse(bad, what, p, q):
    """Fail with the first pair where `bad`."""
    if bad.any():
        first = np.flatnonzero(bad)[0]
        pair = jax.tree.map(lambda x: np.asarray(x)[first].tolist(), (p, q))
        raise AssertionError(f"{what}: {bad.sum()} pairs, {pair[0]} and {pair[1]}")


def slack(column, name, p, q, value, slopes):
    """What rounding of the inputs allows two answers to be apart, relative: 16 eps, more where a step tells more."""
    sizes = [np.abs(g * (x if column == "probs" else 1)).sum(-1) for g, x in zip(slopes, (p, q), strict=True)]
    with np.errstate(all="ignore"):
        condition = sum(sizes) / value if column == "probs" else np.ones_like(value)
    return 16 * EPS * np.maximum(1, np.where(np.isfinite(condition), condition / 8, 1))


def highest(name, options):
    """`matrix.upper`, with the digits that 1 - 1e-30 loses."""
    if name in ("js", "scaled_js") and options["weight"] < 1e-8:
        w = options["weight"]
        return (1 - np.log(w)) * (w if name == "js" else 1)
    return matrix.upper(name, adversaries.OUTCOMES, **options)


@amounts(CELLS, [cell for cell in CELLS if cell[1] in QUICK])
def test_discrete_cells(kind, name, batches):
    (column, draw), options = DRAWS[kind], every_option(name)
    for batch in range(batches):
        chosen = options[batch % len(options)]
        what, (p, q) = f"{column}.{name} {chosen}, seed {batch}", draw(batch, ROWS)
        value, slopes, other, equal = called(column, name, p, q, chosen)
        refuse(~(value >= 0), f"nan or negative, {what}", p, q)
        refuse(value > highest(name, chosen) * (1 + 8 * EPS), f"out of range, {what}", p, q)
        refuse(np.any([np.isnan(g).any(-1) for g in slopes], 0), f"slope, {what}", p, q)
        if name not in (*matrix.ONE, "cross_entropy"):
            refuse(equal != 0, f"equal, {what}", p, p)
        if name in matrix.SYMMETRIC and chosen == matrix.options(name)[0]:
            # a total that is off by eps/16 shows in a pair whose largest masses are all but equal
            least = EPS if name in FIRST_ORDER else max(EPS**2, 16 * SMALL)
            with np.errstate(invalid="ignore"):
                apart = np.where(value == other, 0, np.abs(value - other))
                allowed = slack(column, name, p, q, value, slopes) * value + least
            refuse(~(apart <= allowed), f"asymmetric, {what}", p, q)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in matrix.METRIC])
@pytest.mark.parametrize("column", matrix.DISCRETE)
@pytest.mark.parametrize("batches", [1, pytest.param(MANY, marks=pytest.mark.slow)])
def test_triangle(column, name, batches):
    draw = DRAWS[column][1]
    for batch in range(batches):
        (p, q), r = draw(batch, ROWS), draw(batch + 1000, ROWS)[1]
        r = np.where(np.arange(ROWS)[:, None] % 2, np.roll(q, 1, 0), r)  # of the same kind as q, and of any
        sides = [
            called(column, name, *pair, matrix.options(name)[0])[0] ** matrix.METRIC[name]
            for pair in ((p, q), (q, r), (p, r))
        ]
        refuse(~(sides[2] <= (sides[0] + sides[1]) * (1 + 16 * EPS) + 16 * EPS), f"triangle of {column}.{name}", p, q)


OF_DENSITIES = [
    (kind, name)
    for kind, (column, _) in DRAWS.items()
    for name in matrix.EXISTS[column]
    if column not in matrix.DISCRETE and name not in matrix.SPECIAL and not matrix.signed(column, name)
]


@amounts(OF_DENSITIES, [("MVN", "renyi"), ("Laplace", "kl"), ("Beta", "hellinger_sq")])
def test_densities(kind, name, batches):
    """Slopes of what is beyond 1e20 leave the range, and may be the difference of two such."""
    (column, draw), options = DRAWS[kind], every_option(name)
    for batch in range(batches):
        chosen = options[batch % len(options)]
        what, (p, q) = f"{kind}.{name} {chosen}, seed {batch}", draw(batch, ROWS)
        if name in ("js", "js_distance", "tv"):  # closed forms of one coordinate
            p, q = jax.tree.map(lambda x: x[:, :1], (p, q))
        value, slopes, other, equal = called(column, name, p, q, chosen)
        refuse(~(value >= 0), f"nan or negative, {what}", p, q)
        refuse(equal != 0, f"equal, {what}", p, p)
        broken = np.any([np.isnan(g).reshape(ROWS, -1).any(-1) for g in slopes], 0)
        refuse(broken & (value < 1e20), f"slope, {what}", p, q)
        if name in affinity.SYMMETRIC and column == "expfam":  # a QR's error is that of whole rows of a factor
            with np.errstate(all="ignore"):
                steps = sum(np.abs(g * x) for g, x in zip(slopes, (*p, *q), strict=True))
                allowed = 64 * EPS * np.maximum(value, steps)
                apart = np.where(value == other, 0, np.abs(value - other))
            refuse(~(apart <= allowed + EPS**2), f"asymmetric, {what}", p, q)


def weights(*numbers):
    return jnp.array(numbers, jnp.float32)


MASKED = weights(1e38, -1e38, 0, 1)
FOUND = {  # (cell, p, q, options): what was nan, or inf, before
    "total_near_the_largest": ("probs.kl", weights(2e-27, 2e-12, 2e-9), weights(1.2e15, 5e37, 8e37), {}),
    "lost_on_both_sides": ("probs.cross_entropy", weights(1e15, 2e-38), weights(1e15, 0), {}),
    "order_times_largest": ("probs.tsallis", weights(2, 3, 3), weights(3.6e37, 0, 2), {"order": 8.0}),
    "cut_at_a_far_logarithm": ("logits.chi2", weights(-123, 1.8e9, 5e8), weights(-7e16, 0, 1e31), {}),
    "logits_apart": ("logits.kl", weights(0, 0, 0, 0), MASKED, {}),
    "power_of_logits_apart": ("logits.renyi", weights(0, 0, 0, 0), MASKED, {"order": 4.0}),
    "end_of_the_weight": ("probs.geometric_js", weights(1.2e-38, 1.2e-38), weights(2e-33, 3e-18), {"weight": 0.0}),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found(case):
    path, p, q, options = FOUND[case]
    column, name = path.split(".")
    value, slopes = jax.value_and_grad(
        lambda p, q: getattr(getattr(kljax, column), name)(p, q, **{k: jnp.float32(v) for k, v in options.items()}),
        (0, 1),
    )(p, q)
    assert value >= 0 and not any(np.isnan(g).any() for g in slopes), (value, slopes)
    assert np.isfinite(value) or name in ("renyi", "tsallis", "chi2") or case == "total_near_the_largest"


MEASURES = [(4e37, 6e37), (1e38, 1.2e38), (2.0, 1e38), (1e-30, 1e37), (1e20, 1e-10), (1e20, 1e-20)]


@pytest.mark.parametrize("path", ["probs.generalized_kl", "expfam.kl"])
def test_measures_of_any_size(path):
    """What is no share: equal by a reciprocal that was flushed to 0, nan by the logarithm of an infinite quotient."""
    kind = kljax.expfam.Poisson if path == "expfam.kl" else lambda x: x[:, None]
    column, name = path.split(".")
    f = getattr(getattr(kljax, column), name)
    x, y = (jnp.array(side, jnp.float32) for side in zip(*MEASURES, strict=True))
    value, slopes = jax.value_and_grad(
        lambda x, y: ((found := f(kind(x), kind(y))).sum(), found), (0, 1), has_aux=True
    )(x, y)
    with mp.workdps(40):
        for i, (p, q) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
            p, q = mp.mpf(p), mp.mpf(q)
            true = p * mp.log(p / q) - p + q
            assert abs(float(value[1][i]) / true - 1) <= 8 * EPS, (p, q, value[1][i], true)
            assert abs(float(slopes[0][i]) / mp.log(p / q) - 1) <= 16 * EPS, (p, q, slopes[0][i])
            assert not np.isnan(slopes[1][i])


def test_normals_far_apart_are_at_hellinger_distance_1():
    """The small part of the exponent of exp(-1e11) was itself out of range: 0 * inf."""
    z = jnp.array([[1e3], [1e6], [1e10], [1e11], [1e15]], jnp.float32)
    p, q = kljax.normal.Normal(0 * z, jnp.ones_like(z)), kljax.normal.Normal(z, jnp.full_like(z, 1.1))
    assert (np.asarray(kljax.normal.hellinger_sq(p, q)) == 1).all()


def test_an_order_has_its_slope_where_that_of_infinity_overflows():
    """The largest log ratio, 1e41 here, is another branch: its slope times 0 was nan."""
    p, q = (kljax.normal.Normal(jnp.float32(loc), jnp.float32(s)) for loc, s in ((-0.5, 1e-18), (-0.94, 1.0000011e-18)))
    slopes = jax.grad(lambda p, q: kljax.normal.renyi(p, q, order=1.5), (0, 1))(p, q)
    assert kljax.normal.renyi(p, q, order=jnp.inf) == jnp.inf
    assert slopes[0].loc > 0 > slopes[1].loc and slopes[0].scale == jnp.inf and slopes[1].scale == -jnp.inf, slopes


def test_slopes_that_cancel_do_so_before_a_tiny_scale_divides_them():
    """Of 1e35, as scales of 1e-18 give, the slopes in the scale are infinite: of two terms, and inf - inf of both."""
    p, q = (kljax.normal.Normal(jnp.float32(loc), jnp.float32(s)) for loc, s in ((0.5, 1e-18), (-0.25, 1.5e-18)))
    value, slopes = jax.value_and_grad(kljax.normal.geometric_js, (0, 1))(p, q)
    assert slopes[0].scale == slopes[1].scale == -jnp.inf, slopes
    for slope, side in ((slopes[0].loc, 1), (slopes[1].loc, -1)):  # all but 1e-35 of it is d^2 times a number
        assert abs(float(slope) / (side * 2 * float(value) / 0.75) - 1) <= 8 * EPS, (value, slope)


@pytest.mark.parametrize(("p", "q"), [((1.8e7, 1155.5), (2.02, 0.62)), ((1.0, 1e4), (0.57, 0.92))])
def test_beta_parameters_far_apart_from_either_side(p, q):
    """The sum of one side's parameters was that of the other's plus a difference without a digit of it: 3 % off."""
    true = [families.value("Beta", cell, *np.float32((p, q)).tolist()) for cell in ("hellinger_sq", "bhattacharyya")]
    for x, y in ((p, q), (q, p)):
        one, two = (kljax.expfam.Beta(*(jnp.full(1, v, jnp.float32) for v in side)) for side in (x, y))
        found = kljax.expfam.hellinger_sq(one, two), kljax.expfam.bhattacharyya(one, two)
        assert all(abs(float(f[0]) / t - 1) <= 8 * EPS for f, t in zip(found, true, strict=True)), (found, true)


def test_laplace_distributions_far_apart():
    """40 for 24070: of (e^z - 1 - z) / z / z XLA makes a quotient by z^2, which is infinite for a z of 2e22."""
    p, q = (0.0, 1e-9), (-24029815635968.0, 1e9)
    one, two = (kljax.expfam.Laplace(*jnp.float32(side)) for side in (p, q))
    exact = [np.float32(side).tolist() for side in (p, q)]
    value, slopes = jax.jit(jax.value_and_grad(kljax.expfam.kl, (0, 1)))(one, two)
    assert abs(float(value) / families.value("Laplace", "kl", *exact) - 1) <= 8 * EPS
    assert abs(float(slopes[0].loc) / 1e-9 - 1) <= 8 * EPS, slopes
    order = np.float32(1 + 2.0**-20)
    found = kljax.expfam.renyi(one, two, order=order)
    assert abs(float(found) / families.value("Laplace", "renyi", *exact, order=float(order)) - 1) <= 16 * EPS


@pytest.mark.parametrize(("scales", "order"), [((1.0, 2.5), 0.5), ((1.0, 2.5), 1e-3), ((1.0, 1.0), 0.9)])
def test_slopes_of_laplace_distributions_far_apart(scales, order):
    """1e20 scales apart: a mean that falls as the square of the distance underflowed before the square was there."""
    p, q, order = np.float32([0, scales[0]]), np.float32([1e20, scales[1]]), np.float32(order)
    found = jax.jit(jax.grad(lambda p, q: kljax.expfam.renyi(p, q, order=order), (0, 1)))(
        kljax.expfam.Laplace(*p), kljax.expfam.Laplace(*q)
    )
    over_p, over_q = families.gradients("Laplace", "renyi", p.tolist(), q.tolist(), order=float(order))
    for slope, true in zip(jax.tree.leaves(found), (*over_p, *over_q), strict=True):
        assert abs(float(slope) / true - 1) <= 16 * EPS, (slope, true)


def test_slopes_of_js_in_its_weight_at_an_end():
    """d/dw of the slopes at weight 1 is loc_q - loc_p over a variance: that of the share, which is 0 there."""

    def slopes(weight):
        p, q = (kljax.normal.Normal(jnp.full(1, loc, jnp.float32), jnp.ones(1, jnp.float32)) for loc in (0, 6))
        return jax.grad(lambda p, q: kljax.normal.js(p, q, weight=weight), (0, 1))(p, q)

    found = jax.tree.leaves(jax.jacfwd(slopes)(jnp.float32(1)))
    assert np.allclose(np.array(found).ravel(), [6, 36, -6, 0], rtol=64 * EPS, atol=36 * 64 * EPS), found


def test_a_slope_whose_square_root_squared_would_overflow():
    """d^2 / spread, in reverse mode: (d / spread)^2 came before the small ratio of the scales that it is times."""
    p, q = (kljax.normal.Normal(jnp.float32([loc]), jnp.float32([s])) for loc, s in ((8.0, 4.0), (0.0, 1e-9)))
    slopes = jax.grad(lambda p, q: kljax.normal.renyi(p, q, order=jnp.float32(1)), (0, 1))(p, q)
    s, d = float(np.float32(1e-9)), 8.0
    for found, true in zip(jax.tree.leaves(slopes), (d / s**2, 4 / s**2, -d / s**2, -(d**2 + 16) / s**3), strict=True):
        assert abs(float(found[0]) / true - 1) <= 8 * EPS, (found, true)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_slopes_of_js_of_normals_far_apart(weight):
    """They are e^(-z^2/8), and were -10 at z = 100: a share that had underflowed was taken for the smallest number."""
    z, s = np.float32([10, 14, 10, 20, 100, 1e4, 1e8]), np.float32([1, 1, 0.5, 1, 1, 0.1, 1])
    p, q = kljax.normal.Normal(0 * z, s), kljax.normal.Normal(z, 0 * z + 1)
    slopes = jax.grad(lambda p, q: kljax.normal.js(p, q, weight=jnp.float32(weight), axis=()).sum(), (0, 1))(p, q)
    found = np.array(jax.tree.leaves(slopes), np.float64).T
    if weight != 0.5:
        assert (found == 0).all(), found
    assert (np.abs(found[4:]) < 1e-30).all(), found
    for i in range(4 if weight == 0.5 else 0):
        over_p, over_q = gaussians.gradients("js", ([0.0], [float(s[i])]), ([float(z[i])], [1.0]), weight=0.5)
        assert (np.abs(found[i] / np.array([*over_p, *over_q], float) - 1) <= 2 * z[i] ** 2 * EPS).all(), (i, found[i])


CORRELATED = (
    [[1e6, 0, 0], [4016.774, 1e-6, 0], [9237.6924, -1.4071e-9, 1]],
    [[999971.3, 0, 0], [4016.6587, 9.999712e-7, 0], [9237.428, -1.407065e-9, 1]],
)  # fmt: skip
SPANNED = (
    ([3e8, 0, 0, 0], [[77.8, -24.4], [-0.23, 0.1457], [-2.6, -1.66], [8.52, -7.9]], [0.01, 100, 1, 1]),
    ([0, 0, 0, 0], [[0.411, -10.6], [-12.4, 13], [-0.036, -0.972], [0.22, -0.075]], [0.01, 100, 1, 1]),
)  # fmt: skip


def test_all_but_singular_covariances_are_at_no_negative_distance():
    """It was -0.42 for 1.89, and a squared Hellinger distance -inf where a mean lies in the span of large factors.

    A step of one entry in its last place, 4016.774 say, is 240 times the 1e-6 below it: 8192 eps are few.
    """
    p, q = (kljax.mvn.MVN(jnp.zeros(3), np.array(tril, np.float32)) for tril in CORRELATED)
    with mp.workdps(60):
        pair = matrices.Pair(
            mp.matrix([0, 0, 0]), *((lambda m: m * m.T)(mp.matrix(d.scale_tril.tolist())) for d in (p, q))
        )
        true = matrices.row("geometric_js", pair, weight=0.5).value
    assert abs(float(kljax.mvn.geometric_js(p, q)) / true - 1) <= 8192 * EPS
    # whose digits are lost there, so that this says nothing but that it is a distance
    assert 0 <= kljax.lowrank.hellinger_sq(*(kljax.lowrank.LowRank(*d) for d in SPANNED)) <= 1


WIDE = [[100, 0, 0], [0.149, 0.01, 0], [0.172, -6e-6, 0.01]], [[100, 0, 0], [-87.5, 0.01, 0], [-26.5, -7.6e-3, 0.01]]
APART = [[1, 0, 0], [-1e-3, 1e-4, 0], [-1e-3, 5e-8, 1e-4]], [[1, 0, 0], [0.73, 1e4, 0], [-0.35, -3658, 1]]


def _renyi_of_gaussians(p, q, order):
    """By its definition."""
    (m, s), (n, t), mean = p, q, order
    mixed, d = mean * t * t.T + (1 - mean) * s * s.T, m - n
    dets = mp.log(mp.det(mixed)) - 2 * sum((1 - mean) * mp.log(s[i, i]) + mean * mp.log(t[i, i]) for i in range(3))
    return mean / 2 * (d.T * mixed**-1 * d)[0] + dets / (2 * (1 - mean))


@pytest.mark.parametrize(("factors", "digits"), [(WIDE, 128), (APART, 64)], ids=["wide", "apart"])
def test_gaussians_of_scales_far_apart(factors, digits):
    """Value inf, slopes nan and slopes in the order wrong by half: I + b U is only known to eps times its size.

    `wide` has rows so nearly parallel that a factor of the mixture, whose error is that of the rows, leaves 77 eps
    (760 with locations 1 apart).
    """
    locs = np.array([[-0.6, -1.07, -0.53], [-0.75, 0.52, 0.48]], np.float32) * np.float32(
        1e-3 if factors is WIDE else 1
    )
    pair = [kljax.mvn.MVN(loc, np.array(tril, np.float32)) for loc, tril in zip(locs, factors, strict=True)]
    run = jax.jit(jax.value_and_grad(lambda p, q, order: kljax.mvn.renyi(p, q, order=order), (0, 1, 2)))
    with mp.workdps(60):
        exact = [(mp.matrix(d.loc.tolist()), mp.matrix(d.scale_tril.tolist())) for d in pair]
        for p, q, x, y in ((*pair, *exact), (*pair[::-1], *exact[::-1])):
            for order in (0.25, 0.5, 0.75):
                value, slopes = run(p, q, jnp.float32(order))
                assert abs(float(value) / _renyi_of_gaussians(x, y, order) - 1) <= digits * EPS, (order, value)
                true = mp.diff(lambda a, x=x, y=y: _renyi_of_gaussians(x, y, a), order)
                assert abs(float(slopes[2]) / true - 1) <= digits * EPS, (order, slopes[2], true)
                assert all(np.isfinite(g).all() for g in jax.tree.leaves(slopes))
    value, slopes = run(*pair, jnp.float32(1.5))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(slopes[:2])), (value, slopes)


FLAGS = {
    "debug_nans": lambda: jax.debug_nans(True), "strict_dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "leaks": jax.checking_leaks, "x64": lambda: jax.enable_x64(True),
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("column", matrix.DISCRETE)
@pytest.mark.parametrize("name", matrix.tiers(matrix.oracled("probs"), ("kl", "tv"), ("renyi",)))
def test_with_a_flag_of_jax(column, name, flag):
    """Value and gradient on valid pairs: with zeros, one-hot, equal, apart."""
    rows = [[0.5, 0.3, 0.2, 0], [1, 0, 0, 0], [0.25] * 4, [0.7, 0.3, 0, 0]]
    p, q = np.array(rows, np.float32), np.array([rows[2], rows[1], rows[2], [0, 0, 0.5, 0.5]], np.float32)
    if column == "logits":
        with np.errstate(divide="ignore"):
            p, q = np.log(p), np.log(q)
    options = {k: jnp.float32(v) for k, v in matrix.options(name)[0].items()}
    with FLAGS[flag]():
        value, slopes = jax.value_and_grad(lambda p, q: corpus.cell(column, name)(p, q, **options)[:3].sum(), (0, 1))(
            jnp.asarray(p), jnp.asarray(q)
        )
    assert not np.isnan(value) and all(np.isfinite(g).all() and g.dtype == np.float32 for g in slopes)
