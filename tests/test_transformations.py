"""Every cell of both columns under every transformation: the numbers are those of the plain call.

One battery per cell holds what compiles, on one batch; a wrong derivative is named by comparing it with another way to
it (a jvp with a gradient, a Hessian with its product), the gradients themselves being measured by the corpus.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import kljax
from tests import accuracy, corpus, matrix
from tests.columns import COLUMNS

ROWS, OUTCOMES = 8, 16
column = pytest.mark.parametrize("column", matrix.DISCRETE)
SLOPE = 2 * accuracy.GRADIENT  # eps in norm, of two gradients that each may be off by GRADIENT


def cells(*fast):
    """All cells, those that are not named here in the slow run: one of each engine is compiled by default."""
    names = {name if isinstance(name, str) else name.values[0] for name in fast}
    others = [pytest.param(name, marks=pytest.mark.slow) for name in matrix.oracled("probs") if name not in names]
    return pytest.mark.parametrize("name", [*fast, *others])


every = cells("kl", pytest.param("renyi", marks=pytest.mark.repeat), "entropy")
some = cells("kl")
PARAMETERS = [(name, option) for name, option in matrix.PARAMETER.items()]


def inputs(column, dtype=np.float32, where=None):
    """A batch well apart, and steps; row 0 has an outcome deleted on both sides."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(4, ROWS, OUTCOMES))
    p, q = x[:2] if column == "logits" else np.exp(x[:2])
    p[0, 3] = q[0, 3] = COLUMNS[column].empty
    return [a.astype(dtype) for a in (p, q, *(x[2:] * (1 if column == "logits" else 0.1)))]


def options(name, dtype=np.float32):
    return {k: jnp.asarray(v, dtype) for k, v in matrix.options(name)[0].items()}


def plain(column, name):
    """The cell with its first option, of p and q alone."""
    function, given = corpus.cell(column, name), options(name)
    return lambda p, q: function(p, q, **given)


def agree(got, true, eps=accuracy.AGREE, *, norm=False):
    """Two ways to the same numbers; values that are infinite must be so both ways."""
    got, true = np.asarray(got), np.asarray(true, np.float64)
    assert got.shape == true.shape
    accuracy.close(got, accuracy.Exact(true, np.zeros_like(true)), np.float32, eps, norm=norm)


@functools.cache
def battery(column, name):
    """Value, gradients, tangent and Hessian-vector products with the number of traces, compiled once."""
    f, traces = plain(column, name), []

    @jax.jit
    def run(p, q, dp, dq):
        traces.append(None)

        def slopes(p, q):
            (_, value), g = jax.value_and_grad(lambda p, q: (f(p, q).sum(), f(p, q)), (0, 1), has_aux=True)(p, q)
            return g, value

        g, second, value = jax.jvp(slopes, (p, q), (dp, dq), has_aux=True)
        return value, g, jax.jvp(f, (p, q), (dp, dq))[1], second

    return run, traces


@functools.cache
def results(column, name):
    run, traces = battery(column, name)
    arguments = inputs(column)
    first = jax.tree.map(np.asarray, run(*arguments))
    run(*(a.copy() for a in arguments))
    return *first, len(traces)


@column
@every
def test_value_gradient_and_tangent_agree(column, name):
    p, q, dp, dq = inputs(column)
    value, slopes, tangent, second, traces = results(column, name)
    assert traces == 1, "a second call retraces"
    agree(value, plain(column, name)(p, q))  # eager; the cell itself is jitted
    assert np.isfinite(value).all() and all(np.isfinite(g).all() for g in (*slopes, *second, tangent))
    terms = [g.astype(np.float64) * d for g, d in zip(slopes, (dp, dq), strict=True)]
    size = sum(np.abs(t).sum(-1) for t in terms)
    along = np.abs(sum(t.sum(-1) for t in terms) - tangent)
    assert (along <= SLOPE * np.finfo(np.float32).eps * size).all(), along / size
    for g, x in zip(slopes, (p, q), strict=True):
        # a constant added to logits, a factor of weights, change nothing; each of the terms is rounded
        terms = g.astype(np.float64) * (1 if column == "logits" else x)
        assert (np.abs(terms.sum(-1)) <= accuracy.AGREE * np.finfo(np.float32).eps * np.abs(terms).sum(-1)).all()
        assert g[0, 3] == 0 or name == "wasserstein1", "deleted"


@column
@some
def test_rows_alone_and_vmapped_are_the_batch(column, name):
    p, q, _, _ = inputs(column)
    f = plain(column, name)
    value = results(column, name)[0]
    agree(jax.vmap(f)(p, q), value)
    agree(f(p[1], q[1]), value[1])
    if name not in matrix.ONE:
        agree(jax.jit(jax.vmap(f, (0, None)))(p, q[1])[1], value[1])


@column
@every
def test_a_nan_stays_in_its_row(column, name):
    """In value and gradient; the other rows are the same to the last bit."""
    run, _ = battery(column, name)
    p, q, dp, dq = inputs(column)
    before = results(column, name)
    for side in (0, 1)[: 1 if name in matrix.ONE else 2]:
        spoiled = [p.copy(), q.copy()]
        spoiled[side][2, 5] = np.nan
        value, slopes, tangent, second = jax.tree.map(np.asarray, run(*spoiled, dp, dq))
        assert np.isnan(value[2]) and not np.isnan(np.delete(value, 2)).any()
        for got, true in zip(jax.tree.leaves((value, slopes, tangent)), jax.tree.leaves(before[:3]), strict=True):
            assert np.array_equal(np.delete(got, 2, 0), np.delete(true, 2, 0))


@column
@some
def test_hessians_are_their_products(column, name):
    p, q, dp, dq = (a[1] for a in inputs(column))
    f = plain(column, name)
    blocks = jax.jit(jax.hessian(f, (0, 1)))(p, q)
    second = results(column, name)[3]
    for i in (0, 1):
        product = sum(np.asarray(blocks[i][j], np.float64) @ d for j, d in ((0, dp), (1, dq)))
        size = sum(np.abs(np.asarray(blocks[i][j], np.float64)) @ np.abs(d) for j, d in ((0, dp), (1, dq)))
        assert (np.abs(product - second[i][1]) <= SLOPE * np.finfo(np.float32).eps * size.max()).all()
    most = max(np.abs(block).max() for block in jax.tree.leaves(blocks))  # wasserstein1 has none between p and q
    for i, j in ((0, 0), (0, 1), (1, 1)):
        off = np.abs(np.asarray(blocks[i][j]) - np.asarray(blocks[j][i]).T).max()
        assert off <= SLOPE * np.finfo(np.float32).eps * most, "symmetric"


THIRD = ["kl", "reverse_kl", "js", "hellinger_sq", "chi2", "alpha", "renyi", "fisher_rao", "entropy"]


@pytest.mark.slow
@column
@pytest.mark.parametrize("name", THIRD)
def test_third_derivatives(column, name):
    """Along a line, against a central difference of the second in float64."""
    with jax.enable_x64(True):
        p, q, dp, dq = (a[1] for a in inputs(column, np.float64))
        f, given = corpus.cell(column, name), options(name, np.float64)

        def line(t):
            return f(p + t * dp, q + t * dq, **given)

        second = jax.jit(jax.grad(jax.grad(line)))
        third = float(jax.jit(jax.grad(jax.grad(jax.grad(line))))(0.0))
        step = 1e-4
        difference = float(second(step) - second(-step)) / (2 * step)
        curve = float(second(step) - 2 * second(0.0) + second(-step)) / step**2
        assert abs(third - difference) <= step * (abs(curve) + abs(third) + 1)  # its error is step^2 / 6 D5


@column
@some
def test_checkpoint_and_float0(column, name):
    p, q, _, _ = inputs(column)
    f = plain(column, name)
    kept = jax.jit(jax.grad(lambda p, q: jax.checkpoint(f)(p, q).sum()))(p, q)
    agree(kept, results(column, name)[1][0], SLOPE, norm=True)
    mask = np.ones((ROWS, OUTCOMES), bool)
    mask[0, 3] = name == "wasserstein1"
    function, given = corpus.cell(column, name), options(name)
    total = jax.jit(jax.grad(lambda p, m: function(p, q, where=m, **given).sum(), (0, 1), allow_int=True))
    slope, zero = total(p, mask)
    assert zero.dtype == jax.dtypes.float0 and zero.shape == mask.shape
    agree(slope, kept, SLOPE, norm=True)


def test_integers_have_float0_tangents():
    counts = np.arange(1, 9).reshape(2, 4)
    q = np.full((2, 4), 0.25, np.float32)
    over_p, over_q = jax.grad(lambda p, q: kljax.probs.kl(p, q).sum(), (0, 1), allow_int=True)(counts, q)
    assert over_p.dtype == jax.dtypes.float0
    agree(over_q, jax.grad(lambda q: kljax.probs.kl(counts.astype(np.float32), q).sum())(q), norm=True)
    value, tangent = jax.jvp(
        lambda p, q: kljax.probs.js(p, q), (counts, q), (np.zeros(counts.shape, jax.dtypes.float0), q)
    )
    assert np.isfinite(value).all() and np.isfinite(tangent).all()


@column
@pytest.mark.parametrize(
    ("name", "option"), [pytest.param(*p, marks=[pytest.mark.slow] * (p[0] not in ("js", "renyi"))) for p in PARAMETERS]
)
def test_slope_in_order_and_weight(column, name, option):
    """Against a central difference in float64; where the parameter has a limit, on both sides of it."""
    with jax.enable_x64(True):
        p, q, _, _ = inputs(column, np.float64)
        function = corpus.cell(column, name)
        f = jax.jit(lambda v: function(p, q, **{option: v}))
        slope = jax.jit(jax.jacfwd(lambda v: function(p, q, **{option: v})))
        back = jax.jit(jax.jacrev(lambda v: function(p, q, **{option: v})))
        ends = {"order": (0.5, 1.0, 1.0 + 1e-9, 1.5, 3.0), "weight": (0.25, 0.5, 0.9), "gamma": (1.5, 2.0)}
        step = 1e-4
        for v in ends[option]:
            up, down, far_up, far_down = (np.asarray(f(v + s * step)) for s in (1, -1, 2, -2))
            wide, narrow = (far_up - far_down) / (4 * step), (up - down) / (2 * step)
            got = np.asarray(slope(v))
            allowed = np.abs(wide - narrow) + 1e-10 * (1 + np.abs(narrow))  # Richardson: narrow is off by a third
            kink = np.abs(up - 2 * np.asarray(f(v)) + down) > 1e-2 * step * np.abs(narrow) + 1e-12
            assert ((np.abs(got - narrow) <= allowed) | (kink & (option == "gamma"))).all(), (v, got, narrow)
            if v == ends[option][0]:
                accuracy.close(np.asarray(back(v)), accuracy.exact(got), np.float64, SLOPE, norm=True)


@column
@some
def test_gradients_keep_their_arguments_and_little_else(column, name):
    """Reverse mode holds p and q, which the caller has anyhow, and O(batch) more."""
    p, q, _, _ = (jnp.asarray(a) for a in inputs(column))
    _, back = jax.vjp(plain(column, name), p, q)
    for kept in jax.tree.leaves(back):
        ours = any(kept.shape == a.shape and np.array_equal(kept, a) for a in (p, q))
        assert ours or kept.size <= 2 * ROWS, f"{kept.dtype}{kept.shape}"


@column
@some
def test_float32_is_the_same_with_x64(column, name):
    p, q, _, _ = inputs(column)
    with jax.enable_x64(True):
        value = plain(column, name)(p, q)
        double = corpus.cell(column, name)(p.astype(np.float64), q.astype(np.float64), **options(name, np.float64))
        slope = jax.grad(lambda p: plain(column, name)(p, q).sum())(p)
        assert value.dtype == slope.dtype == np.float32 and double.dtype == np.float64
    agree(value, results(column, name)[0])
    agree(slope, results(column, name)[1][0], SLOPE, norm=True)
    accuracy.close(value, accuracy.exact(np.asarray(double)))


MIXED = [("kl", {}), *(pytest.param(n, o, marks=pytest.mark.repeat) for n, o in (("js", {"weight": 0.25}), ("chi2", {}),
         ("renyi", {"order": 1.5}), ("alpha", {"order": 0.5})))]  # fmt: skip


@pytest.mark.parametrize("column", ["probs", pytest.param("logits", marks=pytest.mark.repeat)])
@pytest.mark.parametrize(("name", "chosen"), MIXED)
def test_second_derivatives_of_one_side_in_another(column, name, chosen):
    """They raised a ValueError one at a time; all together they never did."""
    p, q, _, _ = (jnp.asarray(a[0]) for a in inputs(column))
    cell, given = corpus.cell(column, name), [jnp.float32(v) for v in chosen.values()]

    def value(*given):
        return cell(*given[:2], **dict(zip(chosen, given[2:], strict=True)))

    over = tuple(range(2 + len(given)))

    @jax.jit  # one program: what two of them share is compiled once
    def all_and_each(*given):
        each = [[jax.jacfwd(jax.grad(value, i), j)(*given) for j in over] for i in over]
        return jax.hessian(value, over)(*given), each

    whole, each = all_and_each(p, q, *given)
    for i in over:
        for j in over:
            agree(np.atleast_1d(each[i][j]), np.atleast_1d(whole[i][j]).astype(float), SLOPE, norm=True)


def mesh():
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))


@column
@some
@pytest.mark.parametrize("spec", [P("x"), P(None, "x")], ids=["batch", "outcomes"])
def test_sharded_arguments(column, name, spec):
    p, q, _, _ = inputs(column)
    f, place = plain(column, name), NamedSharding(mesh(), spec)
    total = jax.jit(jax.value_and_grad(lambda p, q: (f(p, q).sum(), f(p, q)), (0, 1), has_aux=True))
    (_, value), slopes = total(*(jax.device_put(a, place) for a in (p, q)))
    agree(value, results(column, name)[0])
    for got, true in zip(slopes, results(column, name)[1], strict=True):
        agree(got, true, SLOPE, norm=True)


@column
@some
def test_shard_map_over_the_batch(column, name):
    """q is one for all devices: its gradient is summed over them, which check_vma sees to."""
    p, q, _, _ = inputs(column)
    f, one = plain(column, name), q[1]

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh(), in_specs=(P("x"), P()), out_specs=P("x"))
    def rowwise(p, one):
        return f(p, one)

    agree(rowwise(p, one), f(p, one))
    over = jax.jit(jax.grad(lambda p, one: rowwise(p, one).sum(), (0, 1)))(p, one)
    true = jax.jit(jax.grad(lambda p, one: f(p, one).sum(), (0, 1)))(p, one)
    inside = jax.shard_map(
        jax.grad(lambda p, one: f(p, one).sum()), mesh=mesh(), in_specs=(P("x"), P()), out_specs=P("x")
    )
    of_one = jax.grad(lambda one, p: (f(one, p) + f(p, one)).sum())
    within = jax.shard_map(lambda p, one: of_one(one, p), mesh=mesh(), in_specs=(P("x"), P()), out_specs=P())
    found = (*over, jax.jit(inside)(p, one), jax.jit(within)(p, one))
    for got, expected in zip(found, (*true, true[0], jax.jit(of_one)(one, p)), strict=True):
        agree(got, expected, SLOPE, norm=True)
