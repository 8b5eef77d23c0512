"""Semantics of every cell with two arguments: zero mass, equality, bad rows, shapes, dtypes, transformations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kljax
from tests import accuracy, matrix

CELLS = [
    ("kl", {}), ("reverse_kl", {}), ("jeffreys", {}), ("js", {"weight": 0.3}), ("js_distance", {}),
    ("scaled_js", {"weight": 0.0}), ("tv", {}), ("hellinger_sq", {}), ("hellinger", {}), ("bhattacharyya", {}),
    ("renyi", {"order": 0.0}), ("renyi", {"order": 2.0}), ("renyi", {"order": np.inf}), ("tsallis", {"order": 0.0}),
    ("tsallis", {"order": 1.0}), ("alpha", {"order": 0.5}), ("alpha", {"order": -1.0}), ("chi2", {}), ("le_cam", {}),
    ("hockey_stick", {"gamma": 2.0}), ("geometric_js", {}), ("fisher_rao", {}), ("wasserstein1", {}),
]  # fmt: skip
COLUMNS = ["probs", "logits"]
COMMON = ("kl", "js", "tv", "bhattacharyya")  # one of each engine
column = pytest.mark.parametrize("column", COLUMNS)

# rows: 0 shared zero, 1 each lacks one, 2 p empty, 3 q empty, 4 nan, 5 and 6 disjoint, 7 equal, 8 equal one-hot
P = [[.5, .3, .2, 0], [.5, .3, .2, 0], [0] * 4, [.1, .2, .3, .4], [.25] * 4, [.7, .3, 0, 0], [1, 0, 0, 0],
     [.4, .3, .2, .1], [1, 0, 0, 0]]  # fmt: skip
Q = [[.2, .3, .5, 0], [.2, .3, 0, .5], [.1, .2, .3, .4], [0] * 4, [np.nan, .2, .3, .1], [0, 0, .5, .5], [0, 1, 0, 0],
     [.4, .3, .2, .1], [1, 0, 0, 0]]  # fmt: skip
DISJOINT = {
    "js": 0.6108643020548935, "js_distance": np.sqrt(np.log(2)), "tv": 1, "hellinger_sq": 1, "hellinger": 1,
    "le_cam": 2, "hockey_stick": 1, "fisher_rao": np.pi,
}  # fmt: skip


def inputs(column):
    with np.errstate(divide="ignore"):
        return [np.array(x, np.float32) if column == "probs" else np.log(np.array(x, np.float32)) for x in (P, Q)]


@functools.cache
def found(column, name, options):
    cell = functools.partial(getattr(getattr(kljax, column), name), **dict(options))

    def total(p, q):
        value = cell(p, q)
        return value.sum(), value

    (_, value), slopes = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(*inputs(column))
    return np.asarray(value), *map(np.asarray, slopes)


@pytest.mark.parametrize(
    ("column", "name", "options"),
    [
        pytest.param(c, n, o, marks=[pytest.mark.repeat] * (c == "logits" and n not in COMMON))
        for c in COLUMNS
        for n, o in CELLS
    ],
)
def test_zero_mass_equality_and_bad_rows(column, name, options):
    value, over_p, over_q = found(column, name, tuple(options.items()))
    assert np.isnan(value[2:5]).all(), "no mass, nan"
    assert not np.isnan(value[[0, 1, 5, 6, 7, 8]]).any() and (value[[0, 1, 5, 6, 7, 8]] >= 0).all()
    limit = np.float32(np.finfo(np.float32).max) ** 0.25
    for slope in (over_p, over_q):
        assert np.isfinite(np.delete(slope, 4, 0)).all(), slope
        assert (np.abs(np.delete(slope, 4, 0)) <= limit * (1 + np.finfo(np.float32).eps)).all()
        assert (slope[2:4] == 0).all(), "padding"
        assert slope[0, 3] == 0, "deleted"
        assert (slope[7] == 0).all(), "equality"
    assert value[7] == 0 and value[8] == 0 and value[0] > 0 or options.get("order") == 0
    for row in (5, 6):
        if name in DISJOINT:
            assert abs(value[row] - DISJOINT[name]) <= 8 * np.finfo(np.float32).eps
        elif name in ("kl", "jeffreys", "chi2", "renyi", "bhattacharyya", "geometric_js", "scaled_js"):
            assert value[row] == np.inf


@pytest.mark.parametrize(
    ("column", "name", "options"),
    [
        pytest.param(c, n, o, marks=[pytest.mark.repeat] * (n not in COMMON))
        for c in COLUMNS
        for n, o in CELLS
        if n != "wasserstein1"  # a deleted outcome keeps its position
    ],
)
def test_where_deletes_and_batches_agree(column, name, options):
    cell = functools.partial(getattr(getattr(kljax, column), name), **options)
    p, q = (x[:1] for x in inputs(column))
    full = p.copy()
    full[0, 3] = 7.0
    masked = np.asarray(cell(full, q, where=np.array([True, True, True, False])))
    plain = np.asarray(cell(p, q))
    assert masked == plain
    assert np.asarray(cell(p[0], q[0])) == plain[0]
    assert np.asarray(cell(p[0], q)) == plain


@pytest.mark.smoke
@column
def test_shapes_are_checked_by_name(column):
    cell = getattr(kljax, column).kl
    with pytest.raises(AssertionError, match=rf"kljax\.{column}\.kl: p \(8, 16\) and q \(8, 1\): the event axis"):
        cell(jnp.ones((8, 16)), jnp.ones((8, 1)))
    with pytest.raises(AssertionError, match="size 1 does not stretch"):
        cell(jnp.ones((8, 16)), jnp.ones((1, 16)))
    with pytest.raises(AssertionError, match="needs an event axis"):
        cell(jnp.ones(()), jnp.ones(()))
    with pytest.raises(TypeError, match="unexpected keyword"):
        cell(jnp.ones(2), jnp.ones(2), axes=0)


@pytest.mark.smoke
@column
def test_dtypes(column, dtype):
    cell = getattr(kljax, column).kl
    x = jnp.arange(1, 5)
    assert cell(x, x[::-1]).dtype == dtype
    assert cell(x.astype(jnp.bfloat16), x.astype(jnp.float16)).dtype == jnp.float32
    assert cell(x.astype(jnp.float32), x.astype(dtype)).dtype == dtype


@column
def test_a_second_call_does_not_retrace_and_orders_are_swept(column):
    traces = []

    def counted(p, q, order):
        traces.append(None)
        return getattr(kljax, column).renyi(p, q, order=order)

    p, q = (x[7:8] + (np.arange(4, dtype=np.float32) / 40 if i else 0) for i, x in enumerate(inputs(column)))
    swept = jax.jit(jax.vmap(counted, (None, None, 0)))
    orders = jnp.array([0.0, 0.25, 0.5, 1.0, 2.0, np.inf], jnp.float32)
    values = np.asarray(swept(p, q, orders))[:, 0]
    swept(p, q, orders + 1)
    assert len(traces) == 1 and (np.diff(values) >= 0).all() and values[0] == 0 < values[1]


@pytest.mark.parametrize(("name", "options", "c"), [("kl", {}, 1), ("hellinger_sq", {}, 0.25), ("chi2", {}, 2)])
@column
def test_the_hessian_at_equality_is_fishers(column, name, options, c):
    x = jnp.array([0.1, 0.3, 0.2, 0.4], jnp.float32)
    fisher = np.diag(x) - np.outer(x, x) if column == "logits" else np.diag(1 / x) - 1
    at = jnp.log(x) if column == "logits" else x
    cell = getattr(getattr(kljax, column), name)
    hessian = jax.jit(jax.hessian(lambda p, q: cell(p, q, **options), (0, 1)))(at, at)
    for i, j, sign in ((0, 0, 1), (1, 1, 1), (0, 1, -1)):
        error = np.abs(np.asarray(hessian[i][j]) - sign * c * fisher).max() / np.abs(c * fisher).max()
        assert error <= 16 * np.finfo(np.float32).eps


@pytest.mark.smoke
@column
def test_inequalities(column):
    rng = np.random.default_rng(0)
    draws = [rng.dirichlet(np.full(12, 0.5), 200) + 1e-6 for _ in range(2)]
    p, q = (np.asarray(x if column == "probs" else np.log(x), np.float32) for x in draws)
    m = getattr(kljax, column)
    get = {n: np.asarray(getattr(m, n)(p, q), np.float64) for n in ("kl", "js", "tv", "hellinger", "chi2", "jeffreys")}
    slack = 1 + 32 * np.finfo(np.float32).eps
    assert (get["tv"] <= np.sqrt(get["kl"] / 2) * slack).all(), "Pinsker"
    assert (get["tv"] <= np.sqrt(-np.expm1(-get["kl"])) * slack).all(), "Bretagnolle-Huber"
    assert (get["hellinger"] ** 2 <= get["tv"] * slack).all()
    assert (get["tv"] <= np.sqrt(2) * get["hellinger"] * slack).all()
    assert (get["js"] <= np.log(2) * slack).all() and (get["kl"] <= np.log1p(get["chi2"]) * slack).all()
    assert (get["kl"] <= get["jeffreys"] * slack).all()
    # two answers, each within 8 eps of the truth
    assert np.abs(np.asarray(m.js(p, q)) / np.asarray(m.js(q, p)) - 1).max() <= 16 * np.finfo(np.float32).eps
    assert np.abs(np.asarray(m.contributions(p, q).sum(-1)) / get["kl"] - 1).max() <= 16 * np.finfo(np.float32).eps


@pytest.mark.smoke
def test_a_coarse_pair_bounds_from_below_and_sees_the_tail():
    p, q = jax.random.normal(jax.random.key(0), (2, 5, 50))
    top = kljax.logits.top_k(p, 4)
    coarse = [kljax.logits.coarsen(x, top.indices) for x in (p, q)]
    assert np.array_equal(np.asarray(coarse[0]), np.concatenate([top.logits, top.log_tail[:, None]], -1))
    small, whole = np.asarray(kljax.logits.kl(*coarse)), np.asarray(kljax.logits.kl(p, q))
    assert (0 < small).all() and (small < whole).all()


ROWS = {
    "kl": kljax.rows.kl, "reverse_kl": kljax.rows.reverse_kl, "jeffreys": kljax.rows.jeffreys, "tv": kljax.rows.tv,
    "hellinger_sq": kljax.rows.hellinger_sq, "chi2": kljax.rows.chi2, "le_cam": kljax.rows.le_cam,
    "js": kljax.rows.js(0.3), "scaled_js": kljax.rows.scaled_js(0.3), "hockey_stick": kljax.rows.hockey_stick(1.5),
    "alpha": kljax.rows.alpha(0.3), "tsallis": kljax.rows.tsallis(1.5),
}  # fmt: skip


@column
@pytest.mark.parametrize("name", matrix.tiers(ROWS, ("kl",)))
def test_a_row_written_out_says_the_same_as_its_functions(column, name):
    rng = np.random.default_rng(3)
    a = 2 * rng.standard_normal((6, 12))
    b = a + np.array([2, 1, 0.3, 0.1, 1e-3, 0])[:, None] * rng.standard_normal(a.shape)
    p, q = (jnp.asarray(x if column == "logits" else np.exp(x), jnp.float32) for x in (a, b))
    cell = getattr(kljax, column).f_divergence
    run = jax.value_and_grad(lambda p, q, row: (cell(p, q, row=row).sum(), cell(p, q, row=row)), (0, 1), has_aux=True)
    ((_, value), slopes), ((_, other), others) = (
        jax.jit(run)(p, q, row) for row in (ROWS[name], dataclasses.replace(ROWS[name], direct=None))
    )
    first_order = name in ("tv", "hockey_stick")  # near equality of the size of a rounding of the sums
    near = slice(0, 4) if first_order else slice(None)
    true = accuracy.exact(np.asarray(other)[near])
    errors = accuracy.value_errors(value[near], true, np.float32, absolute=name == "hockey_stick")
    assert (errors <= accuracy.AGREE).all(), errors
    for got, true in zip(slopes, others, strict=True):
        accuracy.close(got[near], np.asarray(true)[near], np.float32, accuracy.GRADIENT, norm=True)
