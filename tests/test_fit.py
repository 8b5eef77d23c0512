"""kljax.fit: known optima, the same bits however a run is cut, what stops it, what it compiles, sharded batches."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as Spec

import kljax
from bench import recovery
from kljax import _fit
from kljax.normal import LogScaleNormal
from tests import accuracy, matrix

DATA = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32) * [1.0, 0.5, 2.0] + [1.0, -2.0, 3.0]
START = LogScaleNormal(np.zeros(3, np.float32), np.zeros(3, np.float32))
COMPILED = []


@jax.monitoring.register_event_duration_secs_listener
def _(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(duration)


def likelihood(x):
    """The KL projection of the data onto Normals, but for a constant: its minimum matches the moments."""
    return lambda q: -kljax.normal.log_prob(q, x).mean()


def noisy(q, key):
    some = jax.random.choice(key, jnp.asarray(DATA, jnp.float32), (8,))
    return -kljax.normal.log_prob(q, some).mean()


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def same(a, b):
    assert a.steps == b.steps and a.converged == b.converged
    for field in ("losses", "grad_norms", "params", "opt_state"):
        assert bits(getattr(a, field)) == bits(getattr(b, field)), field


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [(None, 1000), (optax.lbfgs(), 60), (optax.sgd(optax.cosine_decay_schedule(0.3, 400), momentum=0.9), 400)],
    ids=["default", "lbfgs", "schedule"],
)
@pytest.mark.lenient  # optax promotes dtypes
def test_the_moments_are_matched(optimizer, steps, dtype):
    x = jnp.asarray(DATA, dtype)
    start = jax.tree.map(lambda a: a.astype(dtype), START)
    found = kljax.fit(likelihood(x), start, optimizer=optimizer, steps=steps)
    true = np.asarray(x, np.float64)
    exact = true.mean(0), np.log(true.std(0))
    # at a minimum the gradient, not the params, is known to the last digits: params are off by its rounding
    least = 1e3 * np.finfo(dtype if optimizer and steps == 60 else np.float32).eps
    for got, right in zip(found.params, exact, strict=True):
        assert np.abs(got - right).max() < least
    assert found.losses.dtype == found.grad_norms.dtype == dtype and found.params.loc.dtype == dtype
    assert found.losses.shape == found.grad_norms.shape == (steps + 1,) and found.steps == steps
    assert found.losses[0] == jax.jit(likelihood(x))(start) and found.grad_norms[-1] < least


@pytest.mark.lenient
@pytest.mark.parametrize(
    ("optimizer", "random"),
    [
        (None, False),
        (None, True),
        pytest.param(optax.lbfgs(), False, marks=pytest.mark.repeat),
        *(pytest.param(optax.adam(0.1), random, marks=pytest.mark.repeat) for random in (False, True)),
    ],
)
def test_a_run_in_parts_has_the_same_bits(optimizer, random):
    loss = noisy if random else likelihood(jnp.asarray(DATA, jnp.float32))
    key = jax.random.key(3) if random else None
    whole = kljax.fit(loss, START, optimizer=optimizer, steps=130, key=key)

    def stop(step, loss):
        if step >= 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupted:
        kljax.fit(loss, START, optimizer=optimizer, steps=130, key=key, progress=stop)
    part = interrupted.value.fit
    assert 70 <= part.steps < 130 and part.losses.shape == (part.steps + 1,)
    assert f"{part.steps} of 130" in interrupted.value.__notes__[0]
    same(kljax.fit(loss, START, optimizer=optimizer, steps=130, key=key, resume=part), whole)
    if optimizer is not None:  # the default's rate depends on the number of steps
        for first in (1, 33)[: 1 if random else 2]:
            part = kljax.fit(loss, START, optimizer=optimizer, steps=first, key=key)
            part = jax.tree.map(np.asarray, part)  # as from a file
            same(kljax.fit(loss, START, optimizer=optimizer, steps=130, key=key, resume=part), whole)


QUICK = ("kl", "reverse_kl", "js", "chi2", "tv")


@pytest.mark.parametrize("name", matrix.tiers(recovery.ROWS, QUICK))
@pytest.mark.lenient
def test_a_row_recovers_its_optimum(name):
    """Where the distributions agree."""
    run, exact, error = recovery.optimum(name)
    assert run.losses[0] > exact + 0.05 and run.losses[-1] < exact + 1e-5 and error < 1e-5


@pytest.mark.slow
@pytest.mark.lenient
@pytest.mark.parametrize("solver", recovery.SOLVERS)
@pytest.mark.parametrize("name", recovery.projections())
def test_projections_recover_their_closed_forms(name, solver):
    """Moments, precisions, maximum likelihood; Adam with its decaying rate creeps along the last of the precisions."""
    run, exact, error = recovery.projected(name, solver)
    assert abs(run.losses[-1] - exact) < 2e-6 and error < (1e-3 if solver == "Adam" else 2e-6)


@pytest.mark.lenient
def test_the_key_makes_the_noise():
    runs = [kljax.fit(noisy, START, steps=20, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    same(runs[0], runs[1])
    assert not np.array_equal(runs[0].losses, runs[2].losses) and len(set(runs[0].losses.tolist())) == 21
    assert runs[0].losses[2] != kljax.fit(lambda q: noisy(q, jax.random.key(0)), START, steps=2).losses[2]


@pytest.mark.lenient
def test_tolerance_stops_at_the_first_params_within_it():
    loss = likelihood(jnp.asarray(DATA, jnp.float32))
    whole = kljax.fit(loss, START, steps=300, optimizer=optax.adam(0.1))
    found = kljax.fit(loss, START, steps=300, optimizer=optax.adam(0.1), tolerance=0.05)
    first = int(np.argmax(whole.grad_norms <= 0.05))
    assert found.converged and not whole.converged and 0 < found.steps == first < 300
    assert bits((found.losses, found.grad_norms)) == bits((whole.losses[: first + 1], whole.grad_norms[: first + 1]))
    norm = optax.tree.norm(jax.grad(loss)(found.params))
    accuracy.close(found.grad_norms[-1], float(norm), np.float32, 1e3)
    same(kljax.fit(loss, START, steps=300, optimizer=optax.adam(0.1), resume=found), whole)
    again = kljax.fit(loss, START, steps=300, optimizer=optax.adam(0.1), resume=found, tolerance=0.05)
    same(again, found)
    assert kljax.fit(loss, START, steps=first, resume=found) is found


@pytest.mark.parametrize("bad", [1, 2, 9, 10, 11, 25, 30])  # chunks of 10: first, last and inner steps of them
@pytest.mark.lenient
def test_what_is_not_finite_is_named_and_the_fit_before_it_kept(bad):
    limit = 0.1 * bad - 0.05  # one step of 0.1 more and the loss is a nan

    def loss(x):
        return jnp.where(x < limit, -x, jnp.nan)

    with pytest.raises(FloatingPointError, match=f"the loss is nan at step {bad};") as failed:
        kljax.fit(loss, 0.0, optimizer=optax.sgd(0.1), steps=100)
    kept = failed.value.fit
    assert kept.steps == bad - 1 and np.isfinite(kept.losses).all() and len(kept.losses) == bad
    if bad > 1:
        same(kept, kljax.fit(loss, 0.0, optimizer=optax.sgd(0.1), steps=bad - 1))
    accuracy.close(kept.params, 0.1 * (bad - 1), np.float32, 64)
    on = kljax.fit(lambda x: -x, 0.0, optimizer=optax.sgd(0.1), steps=40, resume=kept)
    same(on, kljax.fit(lambda x: -x, 0.0, optimizer=optax.sgd(0.1), steps=40))


@pytest.mark.lenient
def test_a_gradient_that_is_not_finite_and_a_start():
    with pytest.raises(FloatingPointError, match="loss is 0.0 but the norm of its gradient inf at step 0") as failed:
        kljax.fit(lambda x: jnp.sqrt(x), 0.0, steps=3)
    assert failed.value.fit.steps == 0 and failed.value.fit.params == 0
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        kljax.fit(lambda x: jnp.log(x).sum(), -jnp.ones(2), steps=3)
    found = kljax.fit(lambda x: 1e25 * x.sum(), jnp.zeros(4), optimizer=optax.sgd(1e-30), steps=2)
    accuracy.close(found.grad_norms, [2e25] * 3)  # their squares overflow


@pytest.mark.lenient
def test_one_program_serves_all_chunks():
    x, seen = jnp.asarray(DATA, jnp.float32), []
    kljax.fit(likelihood(x), START, steps=333, progress=lambda step, loss: seen.append((step, len(COMPILED))))
    assert seen[-1][0] == 333 and len(seen) >= 7
    assert seen[0][1] == seen[-1][1]
    _, constants = _fit._pure(likelihood(x), START, None)
    assert any(c is x or np.array_equal(c, x) for c in constants)


@pytest.mark.lenient
@pytest.mark.parametrize(
    "kind", [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.repeat)], ids=["auto", "explicit"]
)
def test_a_sharded_batch(kind):
    x = jnp.asarray(DATA, jnp.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    spread, seen = jax.device_put(x, NamedSharding(mesh, Spec("data"))), []
    alone = kljax.fit(likelihood(x), START, steps=120)
    found = kljax.fit(likelihood(spread), START, steps=120, progress=lambda *_: seen.append(len(COMPILED)))
    for got, right in zip(found.params, alone.params, strict=True):
        assert got.sharding.num_devices == 8 and got.sharding.is_fully_replicated
        assert np.abs(got - right).max() < 1e-4
    assert seen[0] == seen[-1]
    placed = jax.tree.map(lambda a: jax.device_put(a, NamedSharding(mesh, Spec())), START)
    same(kljax.fit(likelihood(spread), placed, steps=120), found)
    whole = kljax.fit(likelihood(spread), START, steps=60, optimizer=optax.adam(0.1))
    part = kljax.fit(likelihood(spread), START, steps=25, optimizer=optax.adam(0.1))
    same(kljax.fit(likelihood(spread), START, steps=60, optimizer=optax.adam(0.1), resume=part), whole)


def test_params_keep_their_sharding():
    mesh = jax.make_mesh((8,), ("width",), axis_types=(AxisType.Auto,))
    start = jax.device_put(jnp.zeros(16), NamedSharding(mesh, Spec("width")))
    target = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, Spec("width")))
    found = kljax.fit(lambda x: jnp.square(x - target).sum(), start, optimizer=optax.sgd(0.25), steps=60)
    assert found.params.sharding.spec == Spec("width")
    accuracy.close(found.params, np.arange(16.0), eps=accuracy.VALUE)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: kljax.fit(lambda x: x.sum(), jnp.arange(3)), TypeError, "int32"),
        (lambda: kljax.fit(lambda x: x, jnp.ones(3)), TypeError, "one real number"),
        (lambda: kljax.fit(lambda x: (x.sum(), x), jnp.ones(3)), TypeError, "one real number"),
        (
            lambda: kljax.fit(jnp.sum, jnp.ones(3), resume=kljax.fit(jnp.sum, jnp.ones(2), steps=2)),
            ValueError,
            r"\(3,\).*\(2,\)",
        ),
    ],
)
@pytest.mark.lenient
def test_errors_say_what_to_pass(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_progress_tells_ten_times(capsys):
    kljax.fit(lambda x: x * x, 1.0, optimizer=optax.sgd(0.1), steps=200, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[0].startswith("step  20 of 200  loss ")
