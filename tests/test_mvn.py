"""Semantics of the Gaussian columns over vectors: shapes, bad elements, infinity, derivatives, laws, constructors.

Values and gradients on the corpus are in test_golden.py. One batch and one compiled program serve most of what is here.
"""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kljax
from kljax import mvn
from kljax.mvn import MVN
from tests import accuracy, corpus
from tests.columns import vector

pytestmark = pytest.mark.slow  # minutes of compilation; the golden cases and the examples run by default

EPS = float(np.finfo(np.float32).eps)
CELLS = {
    "kl": {}, "reverse_kl": {}, "jeffreys": {}, "hellinger_sq": {}, "hellinger": {}, "bhattacharyya": {},
    "renyi": {"order": 1.5}, "tsallis": {"order": 0.5}, "alpha": {"order": -1.0}, "chi2": {}, "geometric_js": {},
    "wasserstein2": {}, "tv_lower": {}, "tv_upper": {}, "js_lower": {}, "js_upper": {},
}  # fmt: skip
SMOOTH = {
    "kl": 1,
    "renyi": 1.5,
    "alpha": 1,
    "bhattacharyya": 0.25,
    "hellinger_sq": 0.25,
    "chi2": 2,
    "geometric_js": 0.25,
}
D, BATCH = 3, 8  # elements: 0 to 3 apart, 4 equal, 5 nan, 6 no positive diagonal, 7 p wide: infinite from order 1.5 on


@functools.cache
def inputs():
    rng = np.random.default_rng(3)
    lower = np.tril(rng.normal(size=(2, BATCH, D, D)) * 0.2) + np.eye(D) * rng.uniform(0.7, 1.2, (2, BATCH, 1, D))
    loc = rng.normal(size=(2, BATCH, D))
    loc[1, 4], lower[1, 4] = loc[0, 4], lower[0, 4]
    loc[0, 5, 1], lower[0, 6, 1, 1] = np.nan, -1
    lower[0, 7] *= 5
    upper = np.triu(np.full((D, D), 7.0), 1)  # never read
    return [MVN(*(np.array(x, np.float32) for x in (loc[i], lower[i] + upper))) for i in range(2)]


def test_sixty_four_coordinates(dtype):
    """The corpus' largest case, which the batteries leave out."""
    (case,) = (c for c in corpus.golden() if c["rep"] == "gauss_full" and c["meta"]["d"] == 64)
    p, q = (MVN(vector(d["loc"]), _lower(d["scale_tril"])) for d in map(case["params"].get, "pq"))
    p, q = jax.tree.map(lambda x: x.astype(dtype), (p, q))
    known = {"kl_pq": mvn.kl, "kl_qp": mvn.reverse_kl, "bhattacharyya": mvn.bhattacharyya, "w2": mvn.wasserstein2}
    for name, cell in known.items():
        accuracy.close(cell(p, q), accuracy.exact(case["values"][name]), dtype, 32)
    slopes = jax.jit(jax.grad(mvn.kl, (0, 1)))(p, q)
    for side, d in zip("pq", slopes, strict=True):
        for field, got in (("loc", d.loc), ("scale_tril", d.scale_tril[np.tril_indices(64)])):
            if known := case.get("grads", {}).get(f"kl_pq|{side}.{field}"):
                accuracy.close(got, accuracy.exact(known), dtype, accuracy.GRADIENT, norm=True)


def _lower(rows):
    lower = np.zeros((len(rows), len(rows)), np.float32)
    lower[np.tril_indices(len(rows))] = np.concatenate([vector(row) for row in rows])
    return lower


@functools.cache
def everything():
    """Values and gradients of every cell, in one program."""
    p, q = inputs()

    def values(p, q):
        found = {name: getattr(mvn, name)(p, q, **options) for name, options in CELLS.items()}
        return found | {"largest": mvn.renyi(p, q, order=jnp.inf)}

    def slopes(p, q):
        found, back = jax.vjp(values, p, q)
        one = {k: jnp.ones_like(v) for k, v in found.items()}
        zero = {k: jnp.zeros_like(v) for k, v in found.items()}
        return found, {k: back(zero | {k: one[k]}) for k in found}

    return jax.tree.map(np.asarray, jax.jit(slopes)(p, q))


@pytest.mark.smoke
@pytest.mark.xdist_group("one program, of Gaussians")
@pytest.mark.parametrize("name", [*CELLS, "largest"])
def test_equality_bad_elements_and_infinity(name):
    values, slopes = everything()
    value, good = values[name], [0, 1, 2, 3, 4, 7]
    assert np.isnan(value[[5, 6]]).all(), "a nan or a negative diagonal spoils its own element"
    assert (value[good] >= 0).all() and value[4] == 0
    assert name == "largest" or (value[:4] > 0).all()
    infinite = name in ("renyi", "chi2", "largest")
    assert np.isinf(value[7]) == infinite
    for side in slopes[name]:
        assert all(np.isfinite(x[good]).all() and (x[4] == 0).all() for x in side)
        assert (np.triu(side.scale_tril, 1) == 0).all()
        assert not infinite or all((x[7] == 0).all() for x in side)


def test_elements_and_vmap_agree_with_the_batch():
    p, q = inputs()
    for name in ("kl", "renyi", "wasserstein2"):
        cell = functools.partial(getattr(mvn, name), **CELLS[name])
        batch, mapped = everything()[0][name], np.asarray(jax.vmap(cell)(p, q))
        accuracy.close(mapped[:5], batch[:5].astype(float), np.float32)
        first = cell(*(jax.tree.map(lambda x: x[0], d) for d in (p, q)))
        accuracy.close(first, float(batch[0]), np.float32)
    prior = jax.tree.map(lambda x: x[0], q)
    every = MVN(*(jnp.broadcast_to(x, (5, *x.shape)) for x in prior))
    few = jax.tree.map(lambda x: x[:5], p)
    assert (np.asarray(mvn.kl(few, prior)) == np.asarray(mvn.kl(few, every))).all()
    shared = MVN(few.loc, few.scale_tril[0])
    assert mvn.kl(shared, prior).shape == (5,)


@pytest.mark.smoke
def test_shapes_are_checked_by_name():
    p = MVN(jnp.zeros((4, 3)), jnp.zeros((4, 3, 3)))
    with pytest.raises(AssertionError, match=r"kljax\.mvn\.kl: p has events of 3 coordinates and q of 2"):
        mvn.kl(p, MVN(jnp.zeros(2), jnp.zeros((2, 2))))
    with pytest.raises(AssertionError, match=r"q\.scale_tril \(3, 2\): expected \[\.\.\., D, D\] with D = 3"):
        mvn.kl(p, MVN(jnp.zeros(3), jnp.zeros((3, 2))))
    with pytest.raises(AssertionError, match="size 1 does not stretch"):
        mvn.kl(p, MVN(jnp.zeros((1, 3)), jnp.zeros((3, 3))))
    with pytest.raises(AssertionError, match=r"expected \[\.\.\., D\]"):
        mvn.entropy(MVN(jnp.zeros(()), jnp.zeros((3, 3))))
    with pytest.raises(TypeError, match=r"p is a tuple; pass a MVN, from MVN, from_covariance"):
        mvn.kl((jnp.zeros(3), jnp.zeros((3, 3))), p)
    with pytest.raises(AssertionError, match=r"from_covariance: covariance \(2, 3\)"):
        mvn.from_covariance(jnp.zeros(3), jnp.zeros((2, 3)))
    with pytest.raises(AssertionError, match="order"):
        mvn.renyi(p, p, order=jnp.ones(3))


@pytest.mark.smoke
def test_dtypes(dtype):
    p = MVN(jnp.arange(2), jnp.eye(2, dtype=jnp.int32))
    assert mvn.entropy(p).dtype == dtype
    half = MVN(jnp.zeros(2, jnp.bfloat16), jnp.eye(2, dtype=jnp.float16))
    assert mvn.entropy(half).dtype == jnp.float32
    assert mvn.cross_entropy(half, MVN(jnp.zeros(2, dtype), jnp.eye(2, dtype=dtype))).dtype == dtype
    with pytest.raises(TypeError, match="real numbers"):
        mvn.entropy(MVN(jnp.zeros(2, jnp.complex64), jnp.eye(2)))


def test_constructors_agree(dtype):
    rng = np.random.default_rng(0)
    lower = np.tril(rng.integers(-8, 9, (2, D, D)) / 8 + 3 * np.eye(D)).astype(dtype)
    loc, covariance = np.zeros(D, dtype), lower @ lower.swapaxes(-1, -2)
    p = mvn.from_covariance(loc, covariance)
    assert p.loc.shape == (2, D)
    accuracy.close(p.scale_tril.ravel(), lower.astype(float).ravel(), dtype, norm=True)
    precision = np.linalg.inv(covariance.astype(float)).astype(dtype)
    factor = mvn.from_precision(loc, precision).scale_tril
    accuracy.close(factor.ravel(), lower.astype(float).ravel(), dtype, accuracy.GRADIENT, norm=True)
    spoilt = np.stack([covariance[0], -covariance[1]])
    for made in (mvn.from_covariance(loc, spoilt), mvn.from_precision(loc, spoilt)):
        assert np.isfinite(made.scale_tril[0]).all() and np.isnan(mvn.kl(made, p)).tolist() == [False, True]
    scales = np.array([0.5, 1.0, 2.0], dtype)
    normal = kljax.normal.Normal(loc, scales)
    other = kljax.normal.Normal(loc + 1, scales[::-1])
    both = mvn.kl(mvn.from_normal(normal), mvn.from_normal(other))
    accuracy.close(both, float(kljax.normal.kl(normal, other)), dtype)
    assert mvn.from_normal(kljax.normal.Normal(loc, 2.0)).scale_tril[1, 1] == 2


@pytest.mark.parametrize("name", SMOOTH)
def test_hessian_at_equality_is_fishers(name, dtype):
    """The second derivative along a line is f''(1) (|Lq^-1 dloc|^2 + tr U^2 / 2), U = E + E', E = Lq^-1 dL."""
    q = jax.tree.map(lambda x: jnp.asarray(np.tril(x[0]) if x.ndim == 3 else x[0], dtype), inputs()[1])
    cell = functools.partial(getattr(mvn, name), **(CELLS[name] if name != "alpha" else {"order": 2.5}))
    step = MVN(jnp.asarray([1.0, -2.0, 0.5], dtype), jnp.tril(jnp.asarray(np.arange(9).reshape(3, 3) / 8, dtype)))

    def along(t):
        return cell(jax.tree.map(lambda x, d: x + t * d, q, step), q)

    found = jax.jit(jax.grad(jax.grad(along)))(jnp.zeros((), dtype))
    lower, moved = np.asarray(q.scale_tril, float), np.asarray(step.scale_tril, float)
    e, z = np.linalg.solve(lower, moved), np.linalg.solve(lower, np.asarray(step.loc, float))
    u = e + e.T
    accuracy.close(found, SMOOTH[name] * (np.sum(u * u) / 2 + z @ z), dtype, accuracy.GRADIENT)


def test_wasserstein_at_equality_and_with_equal_eigenvalues(dtype):
    one = jnp.eye(D, dtype=dtype)
    p, q = MVN(jnp.zeros(D, dtype), 2 * one), MVN(jnp.zeros(D, dtype), one)
    value, slopes = jax.jit(jax.value_and_grad(mvn.wasserstein2, (0, 1)))(p, q)
    accuracy.close(value, math.sqrt(D), dtype)
    for side, sign in zip(slopes, (1, -1), strict=True):
        accuracy.close(jnp.diagonal(side.scale_tril) * sign, np.full(D, 1 / math.sqrt(D)), dtype)
    square = jax.jit(jax.hessian(lambda x: mvn.wasserstein2(MVN(p.loc, x), q) ** 2))
    curved = np.asarray(square(one * 2)).reshape(D * D, D * D)
    true = np.tril(np.full((D, D), 1.5), -1) + 2 * np.eye(D)  # 2 |S|^2 + |A|^2 of the symmetric and the other part
    accuracy.close(np.diagonal(curved), true.ravel(), dtype, accuracy.GRADIENT)


@pytest.mark.parametrize("order", [0.5, 1.0])
def test_slopes_far_from_equality(order, dtype):
    """Covariances of condition 1e4, one of them moved by its own size and by a hundredth of it."""
    rng, size = np.random.default_rng(0), 10
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0] * np.logspace(0, -2, size)
    lower, step = np.linalg.cholesky(turn @ turn.T), np.tril(rng.normal(size=(size, size)))
    loc = rng.normal(size=size)

    def vector(share):
        moved = lower @ (np.eye(size) + share * step)
        moved *= np.sign(np.diagonal(moved))
        return np.concatenate([loc + share * lower.sum(-1), moved[np.tril_indices(size)]])

    pairs = [(vector(x), vector(0)) for x in (1, -1, 0.01)]
    corpus.agree("mvn", "renyi", pairs + [(q, p) for p, q in pairs], dtype, order=order)


def test_third_derivatives_are_finite(dtype):
    q = MVN(jnp.zeros(2, dtype), jnp.eye(2, dtype=dtype))
    for name in ("kl", "bhattacharyya", "wasserstein2"):

        def along(t, name=name):
            return getattr(mvn, name)(MVN(q.loc + t, q.scale_tril * (1 + t)), q) ** 2

        assert np.isfinite(jax.jit(jax.grad(jax.grad(jax.grad(along))))(jnp.asarray(0.5, dtype)))


def test_affine_maps_change_nothing_but_wasserstein():
    with jax.enable_x64(True):
        p, q = (jax.tree.map(lambda x: jnp.asarray(x[:4], jnp.float64), d) for d in inputs())
        p, q = (MVN(d.loc, jnp.tril(d.scale_tril)) for d in (p, q))
        a = jnp.asarray(np.tril(np.random.default_rng(5).normal(size=(D, D))) + 3 * np.eye(D))

        def moved(d):
            return MVN(d.loc @ a.T + 1, a @ d.scale_tril)

        for name, options in CELLS.items():
            cell = functools.partial(getattr(mvn, name), **options)
            before, after = cell(p, q), cell(moved(p), moved(q))
            if name == "wasserstein2":
                assert not np.allclose(before, after)
            else:
                accuracy.close(after, np.asarray(before), np.float64, 1000)


def test_laws():
    values, _ = everything()
    v = {k: x[:4].astype(float) for k, x in values.items()}
    slack = 1 + 8 * EPS
    assert (v["hellinger_sq"] <= v["tv_upper"] * slack).all()
    assert (v["tv_lower"] <= v["tv_upper"] * slack).all() and (v["js_lower"] <= v["js_upper"] * slack).all()
    assert (v["tv_upper"] <= np.sqrt(v["kl"] / 2) * slack).all() and (v["js_upper"] <= math.log(2) * slack).all()
    assert (2 * v["bhattacharyya"] <= v["kl"] * slack).all() and (v["kl"] <= v["renyi"] * slack).all()
    assert (v["renyi"] <= v["largest"] * slack).all()
    accuracy.close(v["jeffreys"], v["kl"] + v["reverse_kl"], np.float32)
    p, q = inputs()
    for order in (0.25, 3.0):  # (1 - a) D_a(p, q) = a D_(1-a)(q, p), and alpha likewise
        a, b = mvn.alpha(p, q, order=order), mvn.alpha(q, p, order=1 - order)
        accuracy.close(a[:4], np.asarray(b[:4], float), np.float32)
    entropy = np.asarray(mvn.entropy(p)[:4] + mvn.kl(p, q)[:4], float)
    assert np.allclose(mvn.cross_entropy(p, q)[:4], entropy, rtol=32 * EPS)


def test_one_coordinate_is_the_scalar_normal(dtype):
    p, q = (kljax.normal.Normal(*np.array(x, dtype)) for x in (([0.5], [1.25]), ([0.25], [1.5])))
    for name, options in CELLS.items():
        one, other = (functools.partial(getattr(m, name), **options) for m in (mvn, kljax.normal))
        accuracy.close(one(mvn.from_normal(p), mvn.from_normal(q)), float(other(p, q)), dtype)
    infinite = [m.renyi(f(p), f(q), order=np.inf) for m, f in ((mvn, mvn.from_normal), (kljax.normal, lambda x: x))]
    accuracy.close(infinite[0], float(infinite[1]), dtype)


def test_orders_are_swept_without_a_branch():
    p, q = (jax.tree.map(lambda x: x[0], d) for d in inputs())
    orders = jnp.asarray([0.0, 1e-6, 0.5, 1 - 1e-6, 1.0, 1 + 1e-6], jnp.float32)
    swept = jax.vmap(lambda a: mvn.alpha(p, q, order=a))(orders)
    accuracy.close(swept[4], float(mvn.kl(p, q)), np.float32)
    accuracy.close(swept[0], float(mvn.kl(q, p)), np.float32)
    assert (np.abs(np.diff(np.asarray(swept[3:]))) <= 1e-5 * swept[4]).all()
    with jax.enable_x64(True):
        a, h = jnp.asarray([0.3, 1.0, 1.2]), 1e-5
        p, q = (MVN(*(jnp.asarray(x, jnp.float64) for x in d)) for d in (p, q))
        cell = jax.vmap(lambda a: mvn.alpha(p, q, order=a))
        slope = jax.vmap(jax.grad(lambda a: mvn.alpha(p, q, order=a)))(a)
        assert np.allclose(slope, (cell(a + h) - cell(a - h)) / (2 * h), rtol=1e-6)


def test_largest_with_common_coordinates(dtype):
    """cov(p) < cov(q) in two coordinates, the third is the same: the limit."""
    p, q = (MVN(jnp.asarray([x, 0, 1], dtype), jnp.diag(jnp.asarray([s, 1, 2], dtype))) for x, s in ((0, 1), (1, 2)))
    accuracy.close(mvn.renyi(p, q, order=np.inf), math.log(2) + 1 / 6, dtype)
    assert mvn.renyi(q, p, order=np.inf) == np.inf
    assert mvn.renyi(MVN(p.loc + jnp.asarray([0, 1, 0], dtype), p.scale_tril), q, order=np.inf) == np.inf


def test_tv_shared(dtype):
    lower = jnp.asarray([[2.0, 0.0], [1.0, 0.5]], dtype)
    for size in (1e-30, 1e-8, 1.0, 3.0):
        step = np.array([2 * size, 1.5 * size], dtype)  # L^-1 step = size (1, 1)
        value, slope = jax.value_and_grad(mvn.tv_shared)(jnp.asarray(step), jnp.zeros(2, dtype), lower)
        exact = np.linalg.solve(np.asarray(lower, float), step.astype(float))
        accuracy.close(value, accuracy.exact(_erf(exact)), dtype)
        assert np.isfinite(slope).all() and (slope != 0).any()
    zero = jax.grad(mvn.tv_shared)(jnp.zeros(2, dtype), jnp.zeros(2, dtype), lower)
    assert (zero == 0).all()


def _erf(z):
    with accuracy.digits:
        return mp.erf(mp.sqrt(mp.fsum(mp.mpf(float(v)) ** 2 for v in z)) / mp.sqrt(8))


def test_draws_and_their_density():
    """Monte Carlo of -log p is the entropy, of log p/q the divergence, within 5 standard errors."""
    p, q = (jax.tree.map(lambda x: x[1], d) for d in inputs())
    x = mvn.sample(jax.random.key(1), p, (4096,))
    assert x.shape == (4096, D)
    logs = np.asarray(mvn.log_prob(p, x), float), np.asarray(mvn.log_prob(q, x), float)
    for draws, true in ((-logs[0], mvn.entropy(p)), (logs[0] - logs[1], mvn.kl(p, q))):
        assert abs(draws.mean() - float(true)) <= 5 * draws.std() / 64
    batch = mvn.sample(jax.random.key(1), jax.tree.map(lambda x: x[:4], inputs()[0]), (2,))
    assert batch.shape == (2, 4, D) and mvn.log_prob(q, batch).shape == (2, 4)
