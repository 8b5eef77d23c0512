"""The fold over large event axes: its statistic, the one-sweep forms that GPUs run, and blocks of rows on a CPU."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import kljax
from bench import compiled
from kljax import _fold
from tests import accuracy, corpus, matrix
from tests.test_transformations import options


@contextlib.contextmanager
def target(platform, block=_fold.BLOCK):
    """Programs traced as for another platform, which run here all the same, or with blocks of another size."""
    before = _fold.TARGET, _fold.BLOCK

    def forget():
        jax.clear_caches()
        corpus.battery.cache_clear()

    forget()
    _fold.TARGET, _fold.BLOCK = platform, block
    try:
        yield
    finally:
        _fold.TARGET, _fold.BLOCK = before
        forget()


def halves(a, b):
    """The statistic of whole rows, merged as a tree."""
    return _tree(_fold.element(a, b))


def threads(a, b):
    """As a GPU does: each thread merges in sequence what it reads, then threads as a tree."""
    a, b = (x.reshape(*x.shape[:-1], -1, 64) for x in (a, b))
    return _tree(_fold.Fold(*(x[..., 0] for x in _fold.swept(a, b))))


def _tree(fold):
    while fold.top.shape[-1] > 1:
        half = fold.top.shape[-1] // 2
        left, right = (_fold.Fold(*(x[..., i : i + half] for x in fold)) for i in (0, half))
        fold = _fold.merge(left, right)
    return fold


@pytest.mark.parametrize("whole", [pytest.param(halves, marks=pytest.mark.slow), threads])
def test_the_statistic_gives_kl(whole, dtype):
    """In whatever order it is merged, on the whole corpus: masks, offsets, near and far."""
    ((group, indices),) = corpus.groups("logits", "kl").items()
    p, q, *_ = (x.astype(dtype) for x in corpus.stacked("logits", group, tuple(indices)))
    true = corpus.truths("logits", "kl", (), str(dtype))
    errors = accuracy.value_errors(jax.jit(lambda p, q: _fold.kl(whole(p, q))[..., 0])(p, q), true.values, dtype)
    known = ~np.isnan(true.values.high)
    assert (errors <= accuracy.target(true.kappa))[known].all(), np.nanmax(errors)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kl", "reverse_kl", "js", "tv", "chi2", "hellinger_sq", "renyi"])
@pytest.mark.parametrize("column", ["logits", "probs"])
def test_one_sweep_forms_are_as_accurate(column, name, dtype):
    """Values, gradients and Hessian-vector products of the programs that are compiled for a GPU.

    Of up to 100 outcomes, which is what a thread sees there; here a reduction runs through all of them in sequence.
    """
    with target("gpu"):
        found = corpus.measure(column, name, str(dtype))
    short = np.array([len(case.p) <= 100 for case in corpus.cases(column)])
    over = corpus.over(column, [e._replace(errors=np.where(short, e.errors, np.nan)) for e in found])
    assert not over, "\n".join(over)


def some(column, batch, outcomes, dtype=np.float32):
    rng = np.random.default_rng(5)
    a = rng.normal(size=(batch, outcomes))
    pair = np.stack([a, a + 0.3 * rng.normal(size=a.shape)])
    pair[0, 1, 2] = -np.inf
    return (pair if column == "logits" else np.exp(pair)).astype(dtype)


BLOCKED = ["js", "kl", "renyi", "tv", "entropy", "geometric_js", "cross_entropy", "wasserstein1"]


@pytest.mark.parametrize("name", matrix.tiers(BLOCKED, ("kl",), ("js", "renyi")))
@pytest.mark.parametrize("column", ["logits", pytest.param("probs", marks=pytest.mark.repeat)])
def test_blocks_of_rows_are_the_batch(column, name, monkeypatch):
    """7 rows in blocks of 2 and one left over; value, gradients and a Hessian-vector product."""
    p, q = some(column, 7, 24)
    cell, given = corpus.cell(column, name), options(name)

    def everything(p, q):
        def f(p, q):
            return cell(p, q, **given)

        def slopes(p, q):
            return jax.grad(lambda p, q: jnp.sum(f(p, q)), (0, 1))(p, q)

        step = (jnp.where(jnp.isfinite(p), 0.1 * p, 0), jnp.where(jnp.isfinite(q), 0.2 * q, 0))
        return f(p, q), *jax.jvp(slopes, (p, q), step)

    true = jax.jit(everything)(p, q)
    monkeypatch.setattr(_fold, "_in_one_place", lambda: True)
    with target("cpu", block=48):
        assert _fold.rows_of_a_block(7, 24) == 2
        program = jax.jit(everything).lower(p, q)
        assert "while" in program.as_text()
        found = program.compile()(p, q)
    for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        accuracy.close(got, accuracy.exact(np.asarray(expected)), eps=4 * accuracy.GRADIENT, norm=got.ndim > 1)


def test_blocks_divide_the_batch_where_they_can():
    with target("cpu"):
        assert _fold.rows_of_a_block(64, 131072) == 64, "eight devices: the axis may be sharded"


def test_logits_that_are_expressions(dtype):
    """A compiler may round them differently in each loop that reads them: no maximum is its own equal (was off by 0.2).

    Soft capping is such an expression; beside another use of it, XLA computes its tanh twice, by two routines.
    """
    rng = np.random.default_rng(0)
    z = (3 * rng.normal(size=(8, 37))).astype(dtype)

    @jax.jit
    def found(z, cap, temperature):
        a = cap * jnp.tanh(z / cap)
        peaked = jnp.where(jnp.arange(37) == 3, 60 * cap, a)
        values = [kljax.logits.entropy(x) for x in (a, peaked)] + [kljax.logits.renyi_entropy(a, order=jnp.inf)]
        return *values, kljax.logits.cross_entropy(a, a), kljax.logits.js(a / temperature, a / temperature + 0.1 * z)

    a = 3 * np.tanh(z.astype(np.float64) / 3)
    log_p = a - np.log(np.exp(a).sum(-1, keepdims=True))
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    got = found(z, dtype.type(3), dtype.type(1))
    for value, true in zip(got[:1] + got[2:4], (entropy, -log_p.max(-1), entropy), strict=True):
        assert np.abs(np.asarray(value) / true - 1).max() <= 16 * np.finfo(dtype).eps
    assert (np.asarray(got[1]) >= 0).all() and np.isfinite(got[1]).all()


SHARDED = ["kl", "js", "tv", "renyi", "chi2", "hellinger_sq", "entropy", "cross_entropy", "geometric_js", "fisher_rao"]


def value_and_slopes(name):
    cell, given = corpus.cell("logits", name), options(name)

    def both(p, q):
        return jax.value_and_grad(lambda p, q: jnp.sum(cell(p, q, **given)), (0, 1))(p, q)

    return both


def not_gathered(mesh, place, function, alone, batch, outcomes):
    """On 8 devices the same digits, and only numbers of the size of the batch are exchanged."""
    p, q = some("logits", batch, outcomes)
    with jax.set_mesh(mesh):
        arguments = [jax.device_put(x, jax.sharding.NamedSharding(mesh, place)) for x in (p, q)]
        program = jax.jit(function).lower(*arguments).compile()
        found = jax.tree.map(np.asarray, program(*arguments))
    exchanged = compiled.collectives(program.as_text())
    assert exchanged and max(exchanged.values()) <= 32 * 4 * batch, exchanged  # 32 numbers a row; a shard has 128
    for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(jax.jit(alone)(p, q)), strict=True):
        accuracy.close(got, accuracy.exact(np.asarray(expected)), eps=4 * accuracy.GRADIENT, norm=got.ndim > 1)


EACH = [pytest.param(n, marks=[pytest.mark.slow] * (i > 1)) for i, n in enumerate(SHARDED)]
KINDS = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])


@pytest.mark.parametrize("name", EACH)
@KINDS
def test_a_sharded_vocabulary_is_not_gathered(kind, name):
    """Value and both gradients of plain jit."""
    both = value_and_slopes(name)
    not_gathered(jax.make_mesh((8,), ("v",), axis_types=(kind,)), jax.P(None, "v"), both, both, 8, 1024)


@pytest.mark.parametrize("name", EACH)
def test_nor_inside_shard_map(name):
    """Of which the mesh axis of the vocabulary is left to the compiler, as the README says."""
    mesh, both = jax.make_mesh((2, 4), ("data", "v"), axis_types=(AxisType.Auto,) * 2), value_and_slopes(name)

    def parallel(p, q):
        value, slopes = both(p, q)
        return jax.lax.psum(value, "data"), slopes

    rows = jax.P("data")
    mapped = jax.shard_map(
        parallel, mesh=mesh, in_specs=(rows, rows), out_specs=(jax.P(), (rows, rows)), axis_names={"data"}
    )
    not_gathered(mesh, jax.P("data", "v"), mapped, both, 8, 1024)
