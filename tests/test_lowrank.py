"""Semantics of low-rank Gaussians: agreement with mvn, bad elements, infinity, derivatives, shapes, memory."""

import functools
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from kljax import lowrank, mvn
from kljax.lowrank import LowRank
from tests import accuracy, corpus

pytestmark = pytest.mark.slow  # minutes of compilation; the golden cases and the examples run by default

CELLS = {
    "kl": {}, "jeffreys": {}, "hellinger": {}, "bhattacharyya": {}, "renyi": {"order": 1.5}, "alpha": {"order": -1.0},
    "tsallis": {"order": 0.5}, "chi2": {}, "geometric_js": {}, "tv_upper": {}, "js_upper": {},
}  # fmt: skip
D, BATCH = 4, 9  # elements: 0 to 4 apart, 5 equal, 6 nan, 7 no positive diagonal, 8 p wide: infinite from order 1.5 on
SMOOTH = {"kl": 1, "renyi": 1.5, "chi2": 2}


@functools.cache
def inputs():
    """p of rank 1, q of rank 2."""
    rng = np.random.default_rng(3)
    loc, diag = rng.normal(size=(2, BATCH, D)), rng.uniform(0.7, 1.2, (2, BATCH, D))
    p, q = rng.normal(size=(BATCH, D, 1)) / 2, rng.normal(size=(BATCH, D, 2)) / 2
    loc[1, 5], diag[1, 5], q[5, :, :1], q[5, :, 1] = loc[0, 5], diag[0, 5], p[5], 0
    p[6, 1, 0], diag[0, 7, 1] = np.nan, 0
    diag[0, 8] *= 9
    sides = (loc[0], p, diag[0]), (loc[1], q, diag[1])
    return [LowRank(*(np.array(x, np.float32) for x in side)) for side in sides]


def dense(p):
    """The same as an MVN, of float64."""
    p = [np.asarray(x, np.float64) for x in p]
    return mvn.from_covariance(p[0], p[1] @ p[1].swapaxes(-1, -2) + p[2][..., None] * np.eye(p[2].shape[-1]))


@functools.cache
def everything():
    """Values and gradients of every cell, in one program."""

    def values(p, q):
        found = {name: getattr(lowrank, name)(p, q, **options) for name, options in CELLS.items()}
        return found | {"largest": lowrank.renyi(p, q, order=jnp.inf)}

    def slopes(p, q):
        found, back = jax.vjp(values, p, q)
        zero = {k: jnp.zeros_like(v) for k, v in found.items()}
        return found, {k: back(zero | {k: jnp.ones_like(v)}) for k, v in found.items()}

    return jax.tree.map(np.asarray, jax.jit(slopes)(*inputs()))


@pytest.mark.smoke
@pytest.mark.xdist_group("one program, of low-rank Gaussians")
@pytest.mark.parametrize("name", [*CELLS, "largest"])
def test_equality_bad_elements_and_infinity(name):
    values, slopes = everything()
    value, good = values[name], [0, 1, 2, 3, 4, 5, 8]
    assert np.isnan(value[[6, 7]]).all(), "a nan or a diagonal of 0 spoils its own element"
    assert (value[good] >= 0).all() and value[5] == 0
    infinite = name in ("renyi", "chi2", "largest")
    assert np.isinf(value[8]) == infinite
    for side in slopes[name]:
        assert all(np.isfinite(x[good]).all() and (x[5] == 0).all() for x in side)
        assert not infinite or all((x[8] == 0).all() for x in side)


@pytest.mark.parametrize("name", [*CELLS, "largest", "entropy", "cross_entropy"])
def test_agrees_with_mvn(name):
    p, q = (jax.tree.map(lambda x: x[[0, 1, 2, 3, 4, 8]], d) for d in inputs())
    cell, options = ("renyi", {"order": np.inf}) if name == "largest" else (name, CELLS.get(name, {}))
    args = (p,) if name == "entropy" else (p, q)
    got = getattr(lowrank, cell)(*args, **options)
    with jax.enable_x64(True):
        true = np.asarray(getattr(mvn, cell)(*map(dense, args), **options))
    finite = np.isfinite(true)
    assert (np.isfinite(got) == finite).all()
    error = np.abs(np.asarray(got, float)[finite] / true[finite] - 1)  # chi2 and alpha are exponentials of a gap
    allowed = 64 * np.finfo(np.float32).eps * (1 + np.log1p(np.abs(true[finite])))
    assert (error <= allowed).all(), (error / allowed, got, true)


@pytest.mark.smoke
def test_shapes_and_dtypes(dtype):
    p = LowRank(jnp.zeros(3, dtype), jnp.zeros((3, 2), dtype), jnp.ones(3, dtype))
    assert lowrank.kl(p, LowRank(p.loc, jnp.zeros((3, 0), dtype), p.cov_diag)).dtype == dtype
    with pytest.raises(AssertionError, match=r"kljax\.lowrank\.kl: q\.cov_diag \(2,\): expected \[\.\.\., D\]"):
        lowrank.kl(p, p._replace(cov_diag=jnp.ones(2, dtype)))
    with pytest.raises(AssertionError, match="p has events of 3 coordinates and q of 2"):
        lowrank.kl(p, LowRank(jnp.zeros(2), jnp.zeros((2, 2)), jnp.ones(2)))
    with pytest.raises(AssertionError, match="size 1 does not stretch"):
        lowrank.kl(p._replace(loc=jnp.zeros((4, 3), dtype)), p._replace(loc=jnp.zeros((1, 3), dtype)))
    with pytest.raises(TypeError, match="q is a MVN; pass a LowRank"):
        lowrank.kl(p, mvn.MVN(p.loc, jnp.eye(3)))


def test_one_for_a_batch_and_vmap():
    p, q = inputs()
    p, prior = jax.tree.map(lambda x: x[:5], p), jax.tree.map(lambda x: x[0], q)
    one = np.asarray(lowrank.kl(p, prior))
    accuracy.close(jax.vmap(lowrank.kl, (0, None))(p, prior), one.astype(float), np.float32)
    assert one[0] == np.asarray(lowrank.kl(*(jax.tree.map(lambda x: x[:1], d) for d in (p, q))))[0]


@pytest.mark.parametrize("name", SMOOTH)
def test_hessian_at_equality_is_fishers(name, dtype):
    """The second derivative along a line is f''(1) (dloc' C^-1 dloc + tr (C^-1 dC)^2 / 2), C the covariance."""
    q = LowRank(*(jnp.asarray(x[0], dtype) for x in inputs()[1]))
    rng = np.random.default_rng(1)
    step = LowRank(*(jnp.asarray(rng.integers(-8, 9, x.shape) / 8, dtype) for x in q))

    def along(t):
        p = jax.tree.map(lambda x, d: x + t * d, q, step)
        return getattr(lowrank, name)(p, q, **CELLS[name])

    found = jax.jit(jax.grad(jax.grad(along)))(jnp.zeros((), dtype))
    (_, f, d), (dloc, df, dd) = (map(functools.partial(np.asarray, dtype=float), x) for x in (q, step))
    inverse = np.linalg.inv(f @ f.T + np.diag(d))
    moved = inverse @ (df @ f.T + f @ df.T + np.diag(dd))
    true = SMOOTH[name] * (dloc @ inverse @ dloc + np.trace(moved @ moved) / 2)
    accuracy.close(found, true, dtype, 2 * accuracy.GRADIENT)


@pytest.mark.parametrize("order", [0.5, 1.0])
def test_small_diagonals(order, dtype):
    """A factor 1e3 times the root of the diagonal against the same stretched, moved by so much, and another one."""
    rng, size = np.random.default_rng(0), 16
    f, other, step = rng.normal(size=(3, size, 4))
    loc, diag = rng.normal(size=(2, size)), 1e-6 * rng.uniform(0.5, 2, (2, size))
    loc[1] = loc[0] + 1e-3 * loc[1]

    def vector(i, factor):
        return np.concatenate([loc[i], factor.ravel(), diag[i]])

    pairs = [(vector(0, f), vector(1, x)) for x in (1.5 * f, f + step / 1000, other)]
    corpus.agree("lowrank", "renyi", pairs, dtype, order=order)


def test_order_derivative():
    with jax.enable_x64(True):
        p, q = (LowRank(*(jnp.asarray(x[0], jnp.float64) for x in d)) for d in inputs())
        a, h = jnp.asarray([0.2, 0.7, 1.0, 1.1]), 1e-4  # the difference is off by h^2 and by eps / h
        cell = jax.vmap(lambda a: lowrank.alpha(p, q, order=a))
        slope = jax.vmap(jax.grad(lambda a: lowrank.alpha(p, q, order=a)))(a)
        assert np.allclose(slope, (cell(a + h) - cell(a - h)) / (2 * h), rtol=1e-6)


def test_slopes_in_the_order_near_its_ends():
    """They were 42,000 eps off at order 0.999: what is left at an end was taken from a series of one term."""
    p, q = (jax.tree.map(lambda x: x[0], d) for d in inputs())
    with mp.workdps(60):
        step = mp.matrix(p.loc.tolist()) - mp.matrix(q.loc.tolist())
        factors = [mp.matrix(d.cov_factor.tolist()) for d in (p, q)]
        one, two = (f * f.T + mp.diag(d.cov_diag.tolist()) for f, d in zip(factors, (p, q), strict=True))
        dets = mp.log(mp.det(one)), mp.log(mp.det(two))

        def renyi(a):
            mean = a * two + (1 - a) * one
            spread = mp.log(mp.det(mean)) - a * dets[1] - (1 - a) * dets[0]
            return a / 2 * (step.T * mean**-1 * step)[0] + spread / (2 * (1 - a))

        slope = jax.jit(jax.grad(lambda a: lowrank.renyi(p, q, order=a)))
        for order in np.float32([1e-6, 1e-3, 0.25, 0.75, 0.999, 0.999999]):
            true = mp.diff(renyi, mp.mpf(float(order)), h=mp.mpf(10) ** -20)
            assert abs(float(slope(order)) / true - 1) <= 32 * np.finfo(np.float32).eps, (order, true)


MANY = """
import sys, jax, jax.numpy as jnp
from kljax import lowrank
p, q = (lowrank.LowRank(jax.random.normal(k, (1000, 50)), jax.random.normal(k, (1000, 50, 4)), jnp.ones((1000, 50)))
        for k in jax.random.split(jax.random.key(0)))
cell = getattr(lowrank, sys.argv[1])
value = jax.jit(cell)
slope = jax.jit(jax.grad(lambda p, q: cell(p, q).sum(), (0, 1)))
for _ in range(20):
    jax.block_until_ready((value(p, q), slope(p, q)))
"""


@pytest.mark.parametrize("name", ["kl", "cross_entropy", "hellinger_sq"])
def test_a_thousand_at_once_end(name):
    """Wide triangular solves of a thousand pairs, several at once, have hung for good on two cores."""
    subprocess.run([sys.executable, "-c", MANY, name], check=True, timeout=120)


def test_draws_and_their_density():
    """Monte Carlo of -log p is the entropy, of log p/q the divergence, within 5 standard errors."""
    p, q = (jax.tree.map(lambda x: x[1], d) for d in inputs())
    x = lowrank.sample(jax.random.key(1), p, (4096,))
    assert x.shape == (4096, D)
    logs = np.asarray(lowrank.log_prob(p, x), float), np.asarray(lowrank.log_prob(q, x), float)
    for draws, true in ((-logs[0], lowrank.entropy(p)), (logs[0] - logs[1], lowrank.kl(p, q))):
        assert abs(draws.mean() - float(true)) <= 5 * draws.std() / 64


def test_a_hundred_thousand_coordinates_without_a_square_array():
    """The compiled program of kl with its gradient holds a few arrays [D, R], and the value is the sum of blocks."""
    size, rank, blocks = 100_000, 16, 1000
    rng = np.random.default_rng(0)
    f = np.zeros((blocks, 100, rank), np.float32)  # every block of 100 coordinates has a factor of its own
    f[:rank, :, :] = np.eye(rank, dtype=np.float32)[:, None, :] * rng.normal(size=(rank, 100, 1)) / 4
    p = LowRank(rng.normal(size=size).astype(np.float32), f.reshape(size, rank), np.ones(size, np.float32))
    q = LowRank(p.loc + np.float32(0.01), p.cov_factor * np.float32(1.25), p.cov_diag * np.float32(1.5))
    program = jax.jit(jax.value_and_grad(lowrank.kl)).lower(p, q).compile()
    assert program.memory_analysis().temp_size_in_bytes < 40 * size * rank * 4
    value, _ = program(p, q)
    parts = [LowRank(*(x.reshape(blocks, 100, *x.shape[1:]) for x in d)) for d in (p, q)]
    some = [LowRank(d.loc[: rank + 1], d.cov_factor[: rank + 1], d.cov_diag[: rank + 1]) for d in parts]
    each = np.asarray(lowrank.kl(*some), float)
    step = np.asarray(q.loc, float) - np.asarray(p.loc, float)
    alone = (1 / 1.5 - 1 + math.log(1.5)) / 2 * (size - 100 * rank) + (step[100 * rank :] ** 2).sum() / 3
    accuracy.close(value, each[:rank].sum() + alone, np.float32, 32)
