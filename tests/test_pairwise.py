"""All pairs: against mpmath and against the cell itself, under every transformation, in bounded memory, on meshes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import kljax
from kljax import _gaussian_products, _half, _pairwise, _prepared, _products, _tiles
from tests import accuracy, corpus, matrix
from tests.columns import COLUMNS
from tests.test_transformations import options

OUTCOMES = 65  # enough for the products, and no multiple of anything
FAST = ("js", "kl")
NAMES = [n for n in (*matrix.PAIRS, "f_divergence", "cross_entropy") if n in matrix.EXISTS["logits"]]
every = pytest.mark.parametrize("name", matrix.tiers(NAMES, FAST, ()))
at_ease = pytest.mark.parametrize("name", matrix.tiers(NAMES, ("kl",), ("js",)))
column = pytest.mark.parametrize("column", matrix.DISCRETE)


def given(name, dtype=np.float32):
    return {"row": kljax.rows.le_cam} if name == "f_divergence" else options(name, dtype)


def cell(column, name):
    return getattr(getattr(kljax, column), name)


@functools.cache
def table(column, rows=11):
    """Rows [N, K] in float32: apart, near to 1e-3 and to 1e-6, equal, with zeros, peaked, one-hot."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=(rows, OUTCOMES))
    a[1] = a[0] + 1e-3 * rng.normal(size=OUTCOMES)
    a[2] = a[0] + 1e-6 * rng.normal(size=OUTCOMES)
    a[3] = a[0]
    a[4, :3] = -np.inf
    a[5] = np.where(np.arange(OUTCOMES) == 7, 12.0, a[5])
    a[6] = np.where(np.arange(OUTCOMES) == 7, 0.0, -np.inf)
    a[7] += 3.0
    return (a if column == "logits" else np.exp(a)).astype(np.float32)


def naive(function, **given):
    return jax.vmap(jax.vmap(functools.partial(function, **given), (None, 0)), (0, None))


def agree(got, true, eps=accuracy.AGREE, dtype=np.float32, **how):
    got, true = np.asarray(got), np.asarray(true, np.float64)
    none = np.isnan(true)
    assert got.shape == true.shape and (none == np.isnan(got)).all()
    true = np.where(none, 1, true)
    accuracy.close(np.where(none, 1, got), accuracy.Exact(true, np.zeros_like(true)), dtype, eps, **how)


def wrong(column, name, p, q, got, dtype):
    """By how many times the error of a value exceeds what DESIGN 7 allows it, by mpmath."""
    kind, case = COLUMNS[column], corpus.Case("", "", p, q, {}, {}, False, False)
    some = {k: v if k == "row" else float(v) for k, v in given(name, dtype).items()}
    true = kind.value("le_cam" if "row" in some else name, case, dtype, **{k: v for k, v in some.items() if k != "row"})
    error = accuracy.value_errors(got, accuracy.exact(true), dtype, absolute=name == "hockey_stick")
    if error <= accuracy.VALUE or "row" in some:
        return error / accuracy.VALUE
    sides = zip((p, q), kind.slopes(name, case, dtype, **some), strict=True)
    moved = sum(abs(float(x) * float(g)) for xs, gs in sides if gs for x, g in zip(xs, gs, strict=True) if x > -np.inf)
    return error / accuracy.target(moved / abs(float(true)))


@column
@every
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.repeat)], indirect=True)
def test_values_are_true(column, name, dtype):
    """Two sides with near, equal, sparse and one-hot rows; each of few values by mpmath, all others by the cell."""
    p = table(column).astype(dtype)
    q = p[::-1][:9].copy()
    found = np.asarray(kljax.pairwise(cell(column, name), p, q, **given(name, dtype)))
    true = np.asarray(naive(cell(column, name), **given(name, dtype))(p, q))
    assert found.dtype == dtype and not (found < 0).any() and not np.isnan(found).any()
    assert (np.isinf(found) == np.isinf(true)).all() and ((found == 0) == (true == 0)).all()
    for i, j in [(0, 8), (1, 8), (2, 8), (0, 7), (4, 2), (5, 4), (6, 4), (8, 1), (7, 3), (9, 0), (5, 0)]:
        assert wrong(column, name, p[i], q[j], found[i, j], dtype) <= 1, (i, j, found[i, j], true[i, j])


@pytest.mark.parametrize("column", ["probs", pytest.param("logits", marks=pytest.mark.repeat)])
@at_ease
def test_a_table_with_itself(column, name):
    """Symmetric bit for bit where the cell is, 0 on the diagonal, nan where a row is none."""
    p = table(column).copy()
    p[4], p[8, 2] = COLUMNS[column].empty, np.nan
    function = cell(column, name)
    found = np.asarray(kljax.pairwise(function, p, block=4, **given(name)))
    spoiled = np.isin(np.arange(len(p)), (4, 8))
    assert np.isnan(found[spoiled]).all() and np.isnan(found[:, spoiled]).all()
    found = found[~spoiled][:, ~spoiled]
    assert not np.isnan(found).any()
    if name != "cross_entropy":
        assert (np.diag(found) == 0).all()
    if _tiles.symmetric(function, given(name)):
        assert name in (*matrix.SYMMETRIC, "f_divergence") and np.array_equal(found, found.T)
    if name != "cross_entropy":
        agree(
            np.delete(found, [1, 2], 1),
            kljax.pairwise(function, p[~spoiled], p[~spoiled][[0, *range(3, 9)]], **given(name)),
        )


def test_what_is_symmetric():
    for name in set(matrix.SYMMETRIC) - {"js_distance", "fisher_rao"}:
        for module in (kljax.probs, kljax.normal):
            assert not hasattr(module, name) or _tiles.symmetric(getattr(module, name), {})
    assert not _tiles.symmetric(kljax.probs.js, {"weight": 0.5}) and not _tiles.symmetric(kljax.probs.kl, {})
    assert _tiles.symmetric(kljax.probs.f_divergence, {"row": kljax.rows.tv})
    assert not _tiles.symmetric(lambda p, q: p, {}) and not _tiles.symmetric(test_what_is_symmetric, {})


GAUSSIANS = ["kl", "hellinger_sq", "wasserstein2", "renyi"]


def gaussians(kind, rows):
    rng = np.random.default_rng(rows)
    loc, scale = rng.normal(size=(rows, 3)).astype(np.float32), np.exp(rng.normal(size=(rows, 3))).astype(np.float32)
    if kind == "mvn":
        return kljax.mvn.MVN(
            loc, np.float32(0.3) * np.tril(np.ones((3, 3), np.float32)) + scale[..., None] * np.eye(3, dtype=np.float32)
        )
    return kljax.normal.Normal(loc, scale)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("normal", "kl"), ("mvn", "kl"), *[pytest.param("normal", n, marks=pytest.mark.slow) for n in GAUSSIANS[1:]]],
)
def test_gaussians(kind, name):
    p, q, function = gaussians(kind, 7), gaussians(kind, 5), cell(kind, name)
    agree(kljax.pairwise(function, p, q, block=3, **options(name)), naive(function, **options(name))(p, q))
    own = np.asarray(kljax.pairwise(function, p, block=3, **options(name)))
    assert (np.diag(own) == 0).all() and (name not in matrix.SYMMETRIC or np.array_equal(own, own.T))


def test_one_value_a_coordinate():
    p, q = gaussians("normal", 7), gaussians("normal", 5)
    found = kljax.pairwise(kljax.normal.kl, p, q, axis=())
    assert found.shape == (7, 5, 3)
    agree(found, naive(kljax.normal.kl, axis=())(p, q))


def test_a_function_of_the_user():
    """Nothing is assumed of it: not symmetry, not a diagonal of zeros; its parameters are options."""
    p = table("probs")[:5]

    def margin(p, q, *, shift):
        return jnp.max(p["x"] - q["x"]) + shift

    found = kljax.pairwise(margin, {"x": p}, block=2, shift=jnp.float32(1.0))
    assert np.array_equal(found, (p[:, None] - p[None]).max(-1) + 1)


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 8)])
def test_any_size_and_block(n, m, block):
    p, q = table("probs")[:n], table("probs")[-m:]
    function = kljax.probs.tv
    agree(kljax.pairwise(function, p, q, block=block), naive(function)(p, q))


SLOPE = 2 * accuracy.GRADIENT


@pytest.mark.parametrize("column", ["logits", pytest.param("probs", marks=pytest.mark.repeat)])
@at_ease
def test_gradients_are_those_of_the_cell(column, name):
    p, q = table(column)[[0, 1, 5, 7, 8]], table(column)[[0, 2, 9]]
    function, weights = cell(column, name), np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

    def both(matrix):
        return jax.jit(jax.grad(lambda p, q: jnp.sum(weights * matrix(p, q)), (0, 1)))(p, q)

    found = both(lambda p, q: kljax.pairwise(function, p, q, block=2, **given(name)))
    for got, true in zip(found, both(naive(function, **given(name))), strict=True):
        agree(np.asarray(got), true, SLOPE, norm=True)
    own = jax.jit(jax.grad(lambda p: jnp.sum(kljax.pairwise(function, p, block=2, **given(name)))))(p)
    true = jax.jit(jax.grad(lambda p: jnp.sum(naive(function, **given(name))(p, p))))(p)
    agree(np.asarray(own), true, SLOPE, norm=True)


def test_options_are_traced_and_passed():
    p, q = table("probs")[:5], table("probs")[5:8]
    keep, place = np.arange(OUTCOMES) % 3 > 0, np.linspace(0, 1, OUTCOMES, dtype=np.float32) ** 2
    agree(kljax.pairwise(kljax.probs.js, p, q, where=keep), naive(kljax.probs.js, where=keep)(p, q))
    function = kljax.probs.wasserstein1
    agree(kljax.pairwise(function, p, q, positions=place), naive(function, positions=place)(p, q))
    with pytest.raises(TypeError):
        kljax.pairwise(kljax.probs.kl, p, q, order=2.0)
    with pytest.raises(AssertionError, match="leading axis"):
        kljax.pairwise(kljax.probs.kl, jnp.float32(1), q)


def test_a_sweep_is_one_program():
    """vmap over an order, a weight, a temperature: nothing compiles again, and each is what it is alone."""
    p, q = table("logits")[:4], table("logits")[5:8]
    orders = jnp.array([0.25, 0.5, 1.0, 2.0], np.float32)
    sweep = jax.jit(jax.vmap(lambda a: kljax.pairwise(kljax.logits.alpha, p, q, order=a)))
    found = sweep(orders)
    sweep(orders + 0.125)
    assert sweep._cache_size() == 1
    agree(found[3], naive(kljax.logits.alpha, order=np.float32(2.0))(p, q))
    slope = jax.jacfwd(lambda a: kljax.pairwise(kljax.logits.alpha, p, q, order=a))(np.float32(0.5))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.slow
def test_temperature_and_weight_sweep():
    p, q = table("logits")[[0, 1, 5]], table("logits")[[7, 8]]
    heat = jnp.array([0.5, 1.0, 2.0], np.float32)
    found = jax.vmap(lambda t: kljax.pairwise(kljax.logits.js, p / t, q / t))(heat)
    agree(found[2], naive(kljax.logits.js)(p / heat[2], q / heat[2]))
    found = jax.vmap(lambda w: kljax.pairwise(kljax.logits.js, p, q, weight=w))(heat / 4)
    agree(found[0], naive(kljax.logits.js, weight=heat[0] / 4)(p, q))


def test_vmap_over_tables():
    p, q = table("probs")[:6].reshape(2, 3, -1), table("probs")[6:8]
    found = jax.jit(jax.vmap(lambda p: kljax.pairwise(kljax.probs.kl, p, q)))(p)
    agree(found[1], naive(kljax.probs.kl)(p[1], q))


@pytest.mark.parametrize("name", [pytest.param("js", marks=pytest.mark.repeat), "kl"])
def test_memory_is_that_of_tiles(name):
    """Of the value a few tiles beside prepared rows, of the gradient no more: not an (N, M, K) array, 256 MiB here."""
    n, k = 256, 1024
    shape = jax.ShapeDtypeStruct((n, k), jnp.float32)
    function = cell("probs", name)
    value = jax.jit(lambda p, q: kljax.pairwise(function, p, q))
    slope = jax.jit(jax.grad(lambda p, q: jnp.sum(value(p, q)), (0, 1)))
    for program, most in ((value, 2**26), (slope, 2**27)):
        assert program.lower(shape, shape).compile().memory_analysis().temp_size_in_bytes < most < 4 * n * n * k / 2 + 1


@pytest.mark.parametrize("step", [1e-3, 1e-5, 2e-7])
def test_near_rows_keep_their_wasserstein_distance(step):
    """Shares in two parts do not tell rows apart that are nearer than float32 can say: 335 eps were lost at 2e-7."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(50), 4).astype(np.float32)
    q = (p * (1 + step * rng.normal(size=p.shape))).astype(np.float32)
    shares = [x.astype(np.float64) / x.astype(np.float64).sum(-1, keepdims=True) for x in (p, q)]
    true = np.abs(np.cumsum(shares[0][:, None] - shares[1][None], -1)).sum(-1)
    found = np.asarray(kljax.pairwise(kljax.probs.wasserstein1, p, q))
    assert np.abs(found / true - 1).max() <= 8 * np.finfo(np.float32).eps


def rows_apart(kind, size, rng):
    """Sixteen rows of a kind of which no two are near."""
    usual = 1 / np.arange(1, size + 1)
    made = {
        "flat": lambda: rng.gamma(10, 1, size),
        "plain": lambda: rng.gamma(1, 1, size),
        "sparse": lambda: rng.gamma(0.1, 1, size),
        "alike": lambda: usual * rng.gamma(1, 1, size),
        "ranked": lambda: rng.permutation(usual),
        "peaked": lambda: usual * rng.gamma(1, 1, size) + (np.arange(size) == rng.integers(size)),
    }
    return np.stack([made[kind]() for _ in range(16)]).astype(np.float32)


@pytest.mark.xdist_group("one program, of kinds of data")
@pytest.mark.parametrize("kind", ["flat", "plain", "sparse", "alike", "ranked", "peaked"])
def test_the_mixture_knows_what_rounding_cost(kind):
    """What is sure of Jensen-Shannon by one logarithm is right, and a table of rows apart is sure but for few pairs."""
    rng = np.random.default_rng(5)
    p, q = (rows_apart(kind, 1024, rng) for _ in range(2))
    p[3], q[7, 1::2], q[9] = p[2], 0, q[8] * (1 + 1e-3 * rng.normal(size=1024))
    found, sure = map(np.asarray, mixtures(p, q))
    with jax.enable_x64(True):
        true = np.asarray(kljax.pairwise(kljax.probs.js, p.astype(np.float64), q.astype(np.float64)))
        own = np.asarray(kljax.pairwise(kljax.probs.js, p.astype(np.float64)))
    assert sure.mean() > (0.5 if kind == "peaked" else 0.95)
    agree(np.where(sure, found, true), true, accuracy.VALUE)
    agree(kljax.pairwise(kljax.probs.js, p, q), true, accuracy.VALUE)
    agree(kljax.pairwise(kljax.probs.js, p), own, accuracy.VALUE)
    assert not np.asarray(mixtures(p, p)[1])[[0, 2], [0, 3]].any()  # equal rows


@jax.jit
def mixtures(p, q):
    """JS by the difference of three terms of each outcome, and which pairs are sure."""
    reference = _tiles._reference("probs", lambda a: a, p, q)
    x, y = (_half.beside(_prepared.COLUMNS["probs"].rows(a).p, reference) for a in (p, q))
    value, error = _half.apart(x, y, reference)
    return value, _products.sure(value, error)


def slices(name, p, q, many):
    """Values by products of so many slices, and which of them are sure."""
    prepared, product = _prepared.COLUMNS["probs"], _tiles._product("probs", name, {})
    x, y = (side(prepared.rows(jnp.asarray(a)), many) for side, a in ((product.first, p), (product.second, q)))
    return map(np.asarray, product.tile(x, y))


@pytest.mark.parametrize("name", matrix.tiers(("kl", "hellinger_sq", "jeffreys"), ("kl",)))
def test_products_know_what_they_lost(name):
    """Pairs apart come from two slices, near ones from three, and what is nearer still from sums of its own."""
    rng = np.random.default_rng(2)
    p, q = (rng.dirichlet(np.ones(512), 40).astype(np.float32) for _ in range(2))
    for k, step in enumerate((0.1, 1e-4)):
        q[k] = p[5] * (1 + step * rng.normal(size=512)).astype(np.float32)
    found = np.asarray(kljax.pairwise(cell("probs", name), p, q))
    with jax.enable_x64(True):
        true = np.asarray(naive(cell("probs", name))(p.astype(np.float64), q.astype(np.float64)))
    agree(found, true, accuracy.VALUE)
    unsure = []
    for many in (2, 3):
        value, known = slices(name, p, q, many)
        agree(np.where(known, value, true), true, accuracy.VALUE)
        unsure.append(list(zip(*np.nonzero(~known), strict=True)))
    assert unsure[0] == [(5, 0), (5, 1)] and unsure[1] == [(5, 1)]


@pytest.mark.parametrize("name", matrix.tiers(_gaussian_products.NAMES, (), ("kl", "wasserstein2")))
def test_gaussians_by_products(name):
    """Apart, near, equal, far from 0, with scales that are none or out of range: as the cell, in either type."""
    rng = np.random.default_rng(5)

    def drawn():
        loc, log_scale = rng.normal(size=(2, 9, 70)).astype(np.float32)
        return loc, log_scale / 2

    loc, log_scale = drawn()
    other = list(drawn())
    for k, step in enumerate((0, 1e-6, 1e-3, 1e-1)):
        other[0][k], other[1][k] = loc[0] + step, log_scale[0] - step
    loc[4], other[0][4] = loc[4] + 300, other[0][4] + 300
    for kind in (kljax.normal.Normal, kljax.normal.LogScaleNormal):
        p, q = (kind(m, np.exp(s) if kind is kljax.normal.Normal else s) for m, s in ((loc, log_scale), other))
        function = cell("normal", name)
        assert _tiles.chosen(function, {}, *jax.tree.map(jnp.asarray, (p, q)))[0].second is not None, "by products"
        for bad in (False, True):
            if bad:
                p[1][6, 3], q[1][8, 5] = np.nan, 80.0 if kind is kljax.normal.LogScaleNormal else 1e30
            agree(kljax.pairwise(function, p, q), naive(function)(p, q), 2 * accuracy.AGREE)
        if name != "cross_entropy":
            own = np.asarray(kljax.pairwise(function, q))
            assert (np.diag(own) == 0).all()


MESHES = [
    (AxisType.Auto, (8,)),
    pytest.param(AxisType.Explicit, (8,), marks=pytest.mark.slow),
    pytest.param(AxisType.Explicit, (2, 4), marks=pytest.mark.slow),
    pytest.param(AxisType.Auto, (2, 4), marks=pytest.mark.slow),
]


def made(kind, shape):
    return jax.make_mesh(shape, ("a", "b")[: len(shape)], axis_types=(kind,) * len(shape))


@pytest.mark.parametrize(("kind", "shape"), MESHES)
def test_on_a_mesh(kind, shape):
    """11 and 9 rows on 8 devices, and 8 rows, which the mesh divides."""
    p, q = table("probs"), table("probs")[:9]
    with jax.set_mesh(made(kind, shape)):
        agree(kljax.pairwise(kljax.probs.js, p, q), naive(kljax.probs.js)(p, q))
        own = np.asarray(kljax.pairwise(kljax.probs.js, p))
        found = kljax.pairwise(kljax.probs.js, p[:8], q)
        slope = jax.jit(jax.grad(lambda p: jnp.sum(kljax.pairwise(kljax.probs.js, p, q))))(jnp.asarray(p))
    assert np.array_equal(own, own.T) and (np.diag(own) == 0).all() and len(found.sharding.device_set) == 8
    assert not found.sharding.is_fully_replicated
    agree(own, naive(kljax.probs.js)(p, p))
    agree(np.asarray(slope), jax.jit(jax.grad(lambda p: jnp.sum(naive(kljax.probs.js)(p, q))))(p), SLOPE, norm=True)


@pytest.mark.repeat
def test_a_traced_option_on_a_mesh():
    """The same on all devices, where the rows are not: the derivative of a branch met both."""
    p = table("probs")[:8]

    def value(order):
        return jnp.sum(kljax.pairwise(kljax.probs.renyi, p, p[::-1], order=order))

    with jax.set_mesh(made(AxisType.Auto, (8,))):
        found = jax.jit(jax.value_and_grad(value))(0.3)
    true = jax.jit(
        jax.value_and_grad(lambda a: jnp.sum(naive(functools.partial(kljax.probs.renyi, order=a))(p, p[::-1])))
    )(0.3)
    agree(jnp.stack(found), jnp.stack(true), SLOPE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kl", "tv", "hellinger_sq"])
def test_products_and_bands_on_a_mesh(name):
    p = table("probs")
    with jax.set_mesh(made(AxisType.Auto, (8,))):
        agree(kljax.pairwise(cell("probs", name), p), kljax.pairwise(cell("probs", name), p, p))


@pytest.mark.slow
def test_sharded_rows_stay_and_large_tables_use_all_devices(monkeypatch):
    p = table("probs")[:8]
    true = naive(kljax.probs.js)(p, p)
    placed = jax.device_put(p, NamedSharding(made(AxisType.Auto, (8,)), P("a")))
    found = kljax.pairwise(kljax.probs.js, placed)
    assert found.sharding.spec[0] is not None and len(found.sharding.device_set) == 8
    agree(found, true)
    assert len(kljax.pairwise(kljax.probs.js, p).sharding.device_set) == 1
    monkeypatch.setattr(_pairwise, "_WORTH", 1)
    found = kljax.pairwise(kljax.probs.js, p)
    assert len(found.sharding.device_set) == 8
    agree(found, true)


@pytest.mark.slow
def test_inside_shard_map():
    p, q = table("probs")[:8], table("probs")[8:]

    @jax.jit
    @functools.partial(jax.shard_map, mesh=made(AxisType.Auto, (8,)), in_specs=(P("a"), P()), out_specs=P("a"))
    def rows(p, q):
        return kljax.pairwise(kljax.probs.kl, p, q)

    agree(rows(p, q), naive(kljax.probs.kl)(p, q))


def test_gaussians_whose_fields_do_not_fit_are_refused_by_the_cell():
    p = kljax.normal.Normal(np.zeros(9, np.float32), np.ones((9, 70), np.float32))
    with pytest.raises(AssertionError, match=r"kljax.normal.kl: p has loc \(\) and scale \(70,\)"):
        kljax.pairwise(kljax.normal.kl, p)
