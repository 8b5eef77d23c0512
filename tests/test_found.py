"""What the adversarial pairs found first, by its numbers: what was nan, negative, infinite or wrong before."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kljax
from tests import families, gaussians, matrices
from tests.draws import EPS


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


SLOPES = {
    name: jax.jit(jax.value_and_grad(lambda p, q, w, cell=cell: cell(p, q, weight=w), (0, 1, 2)))
    for name, cell in (("probs", kljax.probs.js), ("logits", kljax.logits.js))
}
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


PAIR = [0.5, 0.25, 0.25], [0.125, 0.125, 0.75]


@pytest.mark.parametrize("weight", [0.0, 1e-6, 1e-3, 1 - 2.0**-20, 1.0])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("column", SLOPES)
def test_js_of_small_weights(column, weight, swapped):
    """Slopes in q were off by 1.3 % at weight 1e-6, which 1 - (1 - w) is; slopes in w at the ends were 0."""
    weight, pair = np.float32(weight), np.float32(PAIR[::-1] if swapped else PAIR)
    inputs = np.log(pair) if column == "logits" else pair
    value, (*slopes, over_w) = SLOPES[column](*inputs, weight)
    if column == "probs":  # a mass of a total of 1 times its slope is the slope in its logarithm
        slopes = [s * x for s, x in zip(slopes, pair, strict=True)]
    with mp.workdps(40):
        w, sides = mp.mpf(float(weight)), []
        for x in inputs:
            masses = [mp.exp(mp.mpf(float(v))) if column == "logits" else mp.mpf(float(v)) for v in x]
            sides.append([m / mp.fsum(masses) for m in masses])
        p, q = sides
        m = [w * a + (1 - w) * b for a, b in zip(p, q, strict=True)]
        to_p, to_q = ([mp.log(a / b) for a, b in zip(side, m, strict=True)] for side in (p, q))
        kl_p, kl_q = (mp.fdot(x, y) for x, y in ((p, to_p), (q, to_q)))
        assert abs(float(value) - (w * kl_p + (1 - w) * kl_q)) <= 8 * EPS * (w * kl_p + (1 - w) * kl_q)
        assert abs(float(over_w) / (kl_p - kl_q) - 1) <= 16 * EPS, (over_w, kl_p - kl_q)
        for share, side, logs, mean, found in ((w, p, to_p, kl_p, slopes[0]), (1 - w, q, to_q, kl_q, slopes[1])):
            true = [share * a * (x - mean) for a, x in zip(side, logs, strict=True)]
            worst = max(abs(float(x) - y) for x, y in zip(found, true, strict=True))
            assert worst <= 16 * EPS * max(map(abs, true)), (found, true)


ALONE = [  # an outcome that one side all but lacks
    ([4.0763930425201134e-17, 2.783205465700434e17], [4.587548334653876e-23, 3.531180009755118e-19]),
    ([3.1e-11, 0.239, 3e-10, 1.4e-3], [3.4e-3, 9.4e15, 1.96e23, 7.8]), ([1, 3e-10, 1e-3], [1e-9, 2, 1e-9]),
]  # fmt: skip


@pytest.mark.parametrize("pair", range(len(ALONE)))
@pytest.mark.parametrize("name", ["js", "scaled_js"])
def test_js_where_a_side_has_all_but_none_of_an_outcome(name, pair):
    """27 eps off in float64: (1 + y) log(1 + y) of a 1 + y that was rounding alone."""
    p, q = ([mp.mpf(v) for v in side] for side in ALONE[pair])
    with mp.workdps(60):
        p, q = ([v / mp.fsum(side) for v in side] for side in (p, q))
        mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        true = sum(v * mp.log(v / m) for side in (p, q) for v, m in zip(side, mean, strict=True)) / 2
        true *= 1 if name == "js" else 4
    with jax.enable_x64(True):
        for x, y in (ALONE[pair], ALONE[pair][::-1]):
            found = getattr(kljax.probs, name)(jnp.asarray(x), jnp.asarray(y), weight=0.5)
            assert abs(mp.mpf(float(found)) / true - 1) <= 4 * np.finfo(float).eps, (found, true)


@functools.cache
def by_weight(column, name):
    """A function of p, q and the weight: the slope in the weight, and its slopes in p, q and the weight."""
    cell = getattr(getattr(kljax, column), name)
    return jax.jit(jax.jacfwd(jax.value_and_grad(lambda p, q, w: cell(p, q, weight=w), (0, 1, 2)), 2))


@pytest.mark.xdist_group("one program, of weights")
@pytest.mark.parametrize("weight", [0.0, 1e-6, 0.25, 1 - 2.0**-20, 1.0])
@pytest.mark.parametrize("name", ["js", pytest.param("scaled_js", marks=pytest.mark.repeat)])
@pytest.mark.parametrize("column", ["probs", pytest.param("logits", marks=pytest.mark.repeat)])
def test_second_derivatives_of_js_in_its_weight(column, name, weight):
    """At the ends d2/dw2 was -1.18 for -1.58, the gradients had no slope in w, and scaled_js none at all."""
    weight, pair = np.float32(weight), np.float32(PAIR)
    a, b = np.log(pair) if column == "logits" else pair
    over_w, (*mixed, twice) = by_weight(column, name)(a, b, weight)

    def shares(x):
        masses = [mp.exp(v) if column == "logits" else v for v in x]
        return [m / mp.fsum(masses) for m in masses]

    def true(w, step=None):
        sides = [[mp.mpf(float(v)) for v in x] for x in (a, b)]
        if step is not None:
            side, i, h = step
            sides[side][i] += h
        p, q = map(shares, sides)
        m = [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]
        value = sum(w * x * mp.log(x / z) + (1 - w) * y * mp.log(y / z) for x, y, z in zip(p, q, m, strict=True))
        return value if name == "js" else value / (w * (1 - w))

    with mp.workdps(100):  # by differences of steps that leave no weight exactly 0 or 1
        w, h = mp.mpf(float(weight)), mp.mpf(10) ** -20
        low, less, more, high = (true(w + k * h) for k in (-2, -1, 1, 2))
        first, second = (more - less) / (2 * h), (high - more - less + low) / (3 * h * h)
        cross = [
            [
                sum(i * j * true(w + i * h, (side, k, j * h)) for i in (-1, 1) for j in (-1, 1)) / (4 * h * h)
                for k in range(len(a))
            ]
            for side in (0, 1)
        ]
    assert abs(float(over_w) / first - 1) <= 32 * EPS, (over_w, first)
    assert abs(float(twice) / second - 1) <= 64 * EPS, (twice, second)
    for found, exact in zip(mixed, cross, strict=True):
        worst = max(abs(float(x) - y) for x, y in zip(found, exact, strict=True))
        assert worst <= 64 * EPS * max(map(abs, exact)), (found, exact)


@pytest.mark.parametrize("column", ["probs", "logits"])
def test_js_rises_without_bound_from_weight_0_where_q_has_no_mass(column):
    p, q = np.float32([0.5, 0.5, 0]), np.float32([0, 0.5, 0.5])
    if column == "logits":
        p, q = (np.log(np.maximum(x, 1e-38)).astype(np.float32) + np.where(x > 0, 0, -np.inf) for x in (p, q))
    slope = jax.grad(lambda w: getattr(kljax, column).js(jnp.float32(p), jnp.float32(q), weight=w))(jnp.float32(0))
    assert 1e8 < slope < np.inf


@pytest.mark.repeat
@pytest.mark.parametrize("name", ["js", "scaled_js"])
def test_slopes_of_js_in_tiny_weights(name):
    """Outcomes that q lacks were left out below 1e-18, and a Hessian of scaled_js in q nan at 1e-20."""
    p, q = np.float32([0.5, 0.5, 0]), np.float32([0, 0.5, 0.5])
    f = functools.partial(getattr(kljax.probs, name), p)
    for weight in np.float32([1e-6, 1e-20, 1e-30]):
        w = float(weight)
        slope = jax.grad(lambda w: f(q, weight=w))(weight)
        with mp.workdps(60):  # by hand: outcome 0 is p's alone, 1 is common, 2 is q's alone
            w = mp.mpf(w)
            if name == "js":
                true = (-mp.log(w) + mp.log(1 - w)) / 2
            else:
                true = mp.diff(lambda w: -mp.log(w) / (1 - w) / 2 - mp.log(1 - w) / w / 2, w, h=w / 10**20)
        assert abs(float(slope) / true - 1) <= 8 * EPS, (weight, slope, true)
        assert np.isfinite(jax.hessian(lambda q, w=weight: f(q, weight=w))(q)).all(), weight
        over_w = jax.grad(lambda w, p, q: getattr(kljax.probs, name)(p, q, weight=w))
        mixed = jax.jacfwd(over_w, (1, 2))(weight, p, q)
        assert np.isfinite(mixed).all(), (weight, mixed)
        if name == "js":
            half = (-mp.log(w) - 1) / 2  # half of log(p/m) of outcome 0, less that of 1
            assert all(abs(float(x) / half - y) <= 16 * EPS for x, y in zip(mixed[0], (1, -1), strict=False)), mixed


@pytest.mark.repeat
def test_js_of_what_is_hardly_a_number():
    """Second derivatives were 1/3 for 5e19, slopes -4e9 for -0.008, values nan: all for want of 1/m or m."""
    js, scaled = (lambda p, q, w, f=f: f(p, q, weight=w) for f in (kljax.probs.js, kljax.probs.scaled_js))
    p = np.float32([0.5, 0.5, 0])
    twice = jax.jit(jax.grad(jax.grad(scaled, 2), 2))
    for least, weight, true in (
        (0, 1e-10, 5e19),
        (0, 1e-15, 5e29),
        (1e-12, 1e-15, 4.1635e22),
        (1e-10, 1e-11, 3.8719e18),
    ):
        found = twice(p, np.float32([least, 0.5, 0.5]), np.float32(weight))
        assert np.isclose(found, true, rtol=1e-4), (least, weight, found)
    once, q = jax.jit(jax.grad(scaled, 2)), np.float32([0, 0.7, 0.3])
    for least, weight, true in ((5e-38, 1e-20, -0.00806145), (1e-30, 1e-30, -1.0080614), (1e-20, 1e-25, -1e5)):
        found = once(np.float32([least, 0.5, 0.5]), q, np.float32(weight))
        assert np.isclose(found, true, rtol=1e-4), (least, weight, found)
    bend, q = jax.jit(jax.grad(jax.grad(js, 2), 2)), np.float32([0, 0.5, 0.5])
    assert all(-np.inf < bend(p, q, np.float32(w)) < -1e9 for w in (0, 1)) and np.isclose(bend(p, q, 1e-30), -5e29)
    values = [jax.jit(js)(p, q, np.float32(w)) for w in (2e-38, 1e-37, 1e-36)]
    assert values[:2] == [0, 0] and abs(values[2] / ((1 + 36 * np.log(10)) / 2 * 1e-36) - 1) <= 8 * EPS, values
    for f in (js, scaled):
        assert all(jax.grad(f, 2)(p[::-1] + p, q + 0.1, np.float32(w)) == 0 for w in (-0.1, 1.1))


@pytest.mark.repeat
@pytest.mark.xdist_group("one program, of weights of Normals")
@pytest.mark.parametrize("weight", [0.0, 1e-6, 1e-3, 0.25, 1.0])
@pytest.mark.parametrize("swapped", [False, True])
def test_js_of_normals_by_its_weight(weight, swapped):
    """The value was off by 1.3 % at weight 1e-6 for p the wider; slopes in w nan below 1e-8, and theirs in p wrong."""

    def slopes(d, w):
        p, q = d[::-1] if swapped else d
        return jax.value_and_grad(lambda w: kljax.normal.js(p, q, weight=w))(w)

    line = np.linspace(-30, 30, 200_001)

    def sums(d, w):
        """KL of either to the mixture, and the slope of their difference in w."""
        p, q = (np.exp(-0.5 * ((line - m) / s) ** 2) / s for m, s in (d[::-1] if swapped else d))
        some, step = (p > 0) & (q > 0), (line[1] - line[0]) / np.sqrt(2 * np.pi)
        p, q = p[some], q[some]
        m = w * p + (1 - w) * q
        return [step * np.sum(x) for x in (p * np.log(p / m), q * np.log(q / m), -np.square(p - q) / m)]

    numbers = np.array([[0.0, 2.0], [1.5, 1.0]])
    pair = tuple(kljax.normal.Normal(*np.float32(x)[:, None]) for x in numbers)
    with jax.enable_x64(True):
        w, exact = np.float64(np.float32(weight)), jax.tree.map(np.float64, pair)
        mixed = jax.jacfwd(slopes)(exact, w)[1]
        other = jax.jacfwd(lambda w: jax.grad(lambda d: slopes(d, w)[0])(exact))(w)
        twice = float(jax.grad(lambda w: slopes(exact, w)[1])(w))
    over_p, over_q, bend = sums(numbers, w)
    value, slope = slopes(pair, np.float32(weight))
    assert abs(value - (w * over_p + (1 - w) * over_q)) <= 8 * EPS * (w * over_p + (1 - w) * over_q)
    assert abs(slope - (over_p - over_q)) <= 16 * EPS * (over_p + over_q)
    endless = w == (1 if swapped else 0)  # chi2 of the wider to the narrower
    assert -np.inf < twice < -1e30 if endless else np.isclose(twice, bend, rtol=1e-9), (twice, bend)
    for i, (x, y) in enumerate(zip(jax.tree.leaves(mixed), jax.tree.leaves(other), strict=True)):
        assert np.allclose(x.ravel(), y.ravel(), rtol=1e-9), (mixed, other)
        step = 1e-5 * np.eye(4)[i].reshape(2, 2)
        more, less = (np.subtract(*sums(numbers + k * step, w)[:2]) for k in (1, -1))
        assert np.isclose(np.ravel(x)[0], (more - less) / 2e-5, rtol=1e-7, atol=1e-8), (i, x, (more - less) / 2e-5)


def test_js_of_normals_far_apart_bends_at_weight_0():
    """The second derivative, there less chi2, was nan from 4 standard deviations on."""
    p, q = (kljax.normal.Normal(np.float32(loc), np.ones(3, np.float32)) for loc in ([0, 0, 0], [1, 4, 6]))
    found = jax.jacfwd(jax.jacfwd(lambda w: kljax.normal.js(p, q, weight=w, axis=())))(jnp.float32(0))
    assert np.allclose(found, -np.expm1([1.0, 16.0, 36.0]), rtol=1e-4), found


def test_no_js_of_a_weight_that_is_none():
    p, q = (kljax.normal.Normal(jnp.float32([0, 0, loc]), jnp.float32([1, 2, s])) for loc, s in ((0, 1), (1e4, 1)))
    for weight in (-0.5, 1.5, np.nan):
        assert np.isnan(kljax.normal.js(p, q, weight=jnp.float32(weight), axis=())).all()
    for weight in (0.0, 1.0):
        assert (kljax.normal.js(p, q, weight=jnp.float32(weight), axis=()) == 0).all()


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
    """It was -0.42 for 1.89.

    A step of one entry in its last place, 4016.774 say, is 240 times the 1e-6 below it: 8192 eps are few.
    """
    p, q = (kljax.mvn.MVN(jnp.zeros(3), np.array(tril, np.float32)) for tril in CORRELATED)
    with mp.workdps(60):
        pair = matrices.Pair(
            mp.matrix([0, 0, 0]), *((lambda m: m * m.T)(mp.matrix(d.scale_tril.tolist())) for d in (p, q))
        )
        true = matrices.row("geometric_js", pair, weight=0.5).value
    assert abs(float(kljax.mvn.geometric_js(p, q)) / true - 1) <= 8192 * EPS


THIN = {  # low-rank pairs, and how many eps the values may be off
    "mean in the span of large factors": (SPANNED, 8192),
    "all but of the factor": ((
        ([0.9311267, 0.4554235, 0, 0.3993086, 1.0226032], [[0.1, 0], [0, 0], [-0.1, 0.1], [10, -0.1], [0.1, 10]],
         [0.5750822, 3.8273072, 0.5248176, 1.5327499, 0.12885626]),
        ([0.9311267, 0.4554235, 0, 0.3993086, 1.022603], [[0.1, 0], [0, 0], [-0.1, 0.1], [10, -0.1], [0.1, 10]],
         [0.5750822, 3.8273072, 0.5248176, 1.5327499, 0.12885626])), 8),
    "parallel": ((
        ([0.1, -0.1, -10, 10, -0.1], [[-1e-3, 0], [-1, 1000], [-1e-3, 0], [-1000, -1], [0, -1e-3]],
         [1, 1e-3, 1e-3, 1e3, 1e3]),
        ([0, 1, 1, 0, 0.1], [[-4, 0], [-2, 0.125], [-1, 0], [-1, -2], [0, -8]], [1, 1e-3, 1e-3, 1e3, 1e3])), 4096),
}  # fmt: skip


@pytest.mark.repeat
@pytest.mark.parametrize("case", THIN)
def test_low_rank_gaussians_of_rows_of_sizes_far_apart(case):
    """kl was off by 856 eps at a condition of 800, orders -inf or nan where factors of 1000 meet small ones."""
    pairs, digits = THIN[case]
    p, q = (kljax.lowrank.LowRank(*(np.array(x, np.float32) for x in d)) for d in pairs)
    with mp.workdps(80):
        loc, covariances = [mp.matrix(d.loc.tolist()) for d in (p, q)], []
        for d in (p, q):
            f = mp.matrix(d.cov_factor.tolist())
            covariances.append(f * f.T + mp.diag(d.cov_diag.tolist()))
        pair = matrices.Pair(loc[0] - loc[1], *covariances)
        for order in (1, 0.5, 0.25):
            value, slopes = jax.value_and_grad(lambda p, q, a=order: kljax.lowrank.renyi(p, q, order=a), (0, 1))(p, q)
            true = matrices.row("renyi", pair, order=order).value
            assert abs(float(value) / true - 1) <= digits * EPS, (order, value, true)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))


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


FACTORS = [  # pairs of factors of scales far apart, of which a decomposition knows the small values not at all
    ([[0.25, 0, 0], [-4e-3, 8, 0], [1.7e-3, 0.0355, 0.125]], [[1e-9, 0, 0], [-1.6e-11, 1, 0], [6.8e-12, 4.4e-3, 1]]),
    ([[1e-9, 0, 0], [-7.7e-15, 1e9, 0], [6.3e-15, -13640, 1e9]], [[1, 0, 0], [0.42, 1e9, 0], [-0.23, -8.6e8, 1]]),
    ([[1e-9, 0, 0], [3.6e-13, 1, 0], [-7.6e-13, 9.7e-4, 1e9]], [[1.04e-9, 0, 0], [3.7e-13, 1.03, 0], [0, 9.9e-4, 1e9]]),
    ([[2.9, 0, 0], [7.4e-3, 5.6e-9, 0], [0, 5.6e-12, 12285]], [[2.9, 0, 0], [7.41e-3, 5.6e-9, 0], [0, 5.6e-12, 12285]]),
    ([[1, 0, 0], [0, 1e-9, 0], [0, 0, 1]], [[1, 0, 0], [0, 1e-30, 0], [0, 0, 1]]),
    ([[0.01, 0, 0], [0, 1, 0], [0, 0, 1]], [[1e-37, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ([[1e-9, 0, 0], [0, 1e-9, 0], [0, 0, 1e-30]], [[1e-30, 0, 0], [0, 1e-30, 0], [0, 0, 1e-30]]),
    ([[1e-21, 0, 0], [2e-21, 1e-21, 0], [0, 0, 2e-21]], [[2e-21, 0, 0], [0, 1e-21, 0], [0, 0, 1e-21]]),
    ([[3e17, 0, 0], [1e17, 1e17, 0], [0, 0, 1e17]], [[1e17, 0, 0], [-1e17, 2e17, 0], [0, 0, 1e-17]]),
]  # fmt: skip


@pytest.mark.parametrize("pair", range(len(FACTORS)))
def test_wasserstein_of_scales_far_apart(pair):
    """It was 1e13 times too large where the small singular values are rounding alone, and nan where they underflow.

    As far as rounding moves the larger factor, the smallest distance that there is to it.
    """
    distance = jax.value_and_grad(kljax.mvn.wasserstein2, (0, 1))
    factors = np.array(FACTORS[pair], np.float32)
    p, q = (kljax.mvn.MVN(jnp.zeros(3), x) for x in factors)
    with mp.workdps(200):
        one, two = (mp.matrix(x.tolist()) for x in factors)
        true = mp.sqrt(sum(x * x for m in (one, two) for x in m) - 2 * sum(mp.svd_r(two.T * one, compute_uv=False)))
        size = mp.norm(one) + mp.norm(two)
    for x, y in ((p, q), (q, p)):
        value, slopes = distance(x, y)
        assert abs(float(value) - true) <= 4 * EPS * size, (value, true)
        assert all(np.isfinite(s.scale_tril).all() for s in slopes)
        assert all(np.linalg.norm(s.scale_tril) <= 1 + 64 * EPS for s in slopes), slopes  # no more than one moves it
        assert kljax.mvn.wasserstein2(x, x) == 0
        apart = kljax.mvn.MVN(x.loc + np.float32(3 * size), x.scale_tril)
        assert abs(float(kljax.mvn.wasserstein2(apart, x)) / float(size) / 27**0.5 - 1) <= 8 * EPS
