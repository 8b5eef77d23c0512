"""Minimising a loss over a pytree, in chunks of steps that stay on the device. The only file that imports optax.

A chunk is one `lax.scan` that evaluates the loss at its first parameters, after every step and after its last, so that
whatever stops a fit is seen at the parameters it concerns. Steps that are not to be made change nothing: one compiled
program serves chunks of any number of steps, and whole runs, resumed ones and repeated ones give the same bits.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as Spec

from kljax import _check, _num

_PARTS = 10  # a run has at least so many chunks,
_MOST = 50  # and no chunk more steps
_RATE = 0.05


class Fit(NamedTuple):
    """What a fit has reached.

    params, opt_state: after `steps` updates. losses, grad_norms `[steps + 1]`: before the first update and after each,
    the last ones at `params`. converged: whether the last gradient norm is within the tolerance.
    """

    params: Any
    opt_state: Any
    losses: np.ndarray
    grad_norms: np.ndarray
    steps: int
    converged: bool


def fit(
    loss: Callable[..., Array],
    params: Any,
    *,
    optimizer: Any = None,
    steps: int = 1000,
    tolerance: float | None = None,
    key: Array | None = None,
    resume: Fit | None = None,
    progress: bool | Callable[[int, float], Any] = False,
) -> Fit:
    """Minimise loss(params) over a pytree of floating arrays with an optax optimiser: params - update, `steps` times.

    loss: a function of params to a scalar, in whatever unit (nats for the cells); arrays that it closes over are
    arguments of the compiled program, not constants in it. With `key` it is loss(params, key), another key each step,
    fold_in(key, step). optimizer: any of optax, also those that need the value of the loss or evaluate it themselves,
    such as optax.lbfgs() (within a step they see one key). The default is Adam with a rate of 0.05 that falls to 0 as a
    cosine over `steps`: the size of its steps does not depend on that of the loss, so it can move any parameter by some
    25 in 1000 steps, noise does no harm, and the end is quiet. steps: how many in all, those of `resume` included.
    tolerance: stop at the first params where the 2-norm of the gradient is not above it. resume: the Fit to go on from,
    instead of params; the same call with it gives the same bits as a run without a break. progress: True writes a line
    to stderr ten times a run, a function is called with (steps, loss) after each chunk of up to 50 steps.
    Shapes: params of any; losses and grad_norms `[steps + 1]`. Params, and with them the optimiser's state, stay on the
    devices where they are; those that are not committed to any are replicated where the arrays of the loss are sharded.
    Degenerate input: where the loss or its gradient is not finite, FloatingPointError names the step, and its `.fit` is
    the last Fit that was finite (if even the first is not, the start). KeyboardInterrupt takes effect after the chunk
    that runs and is raised again with a `.fit` of all steps that were finished: pass it as `resume`. At a prompt it is
    `sys.last_value.fit`.
    Errors: AssertionError for steps < 1; TypeError where the loss is not one real number or a parameter not floating;
    ValueError where `resume` has params of another structure or shape.
    Source: Kingma and Ba, Adam: a method for stochastic optimization (2015).

    >>> import jax.numpy as jnp, kljax
    >>> from kljax.normal import LogScaleNormal
    >>> p = LogScaleNormal(jnp.array([1.0, -2.0]), jnp.array([0.5, 0.0]))
    >>> found = kljax.fit(lambda q: kljax.normal.kl(p, q), LogScaleNormal(jnp.zeros(2), jnp.zeros(2)))
    >>> print(found.steps, found.params.loc.round(3), f"{found.losses[0]:.3f} {abs(found.losses[-1]):.3f}")
    1000 [ 1. -2.] 2.859 0.000
    """
    import optax

    _check.within("kljax.fit", "steps", steps, 1, 2**31 - 1)
    _check_parameters(params, resume)
    start = jax.tree.map(_strong, params if resume is None else resume.params)
    if resume is not None and resume.steps >= steps:
        return resume
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, steps))
    optimizer = optax.with_extra_args_support(optimizer)
    pure, constants = _pure(loss, start, key)
    if _mesh(constants):  # in an explicit mesh the traced program says where everything is, params too
        start = _placed(start, constants)
        pure, constants = _pure(loss, start, key)
    state = optimizer.init(start) if resume is None else resume.opt_state
    state = _placed(jax.tree.map(_strong, state), constants)
    none = np.zeros(0, np.float32)
    now = Fit(start, state, none, none, 0, False) if resume is None else resume._replace(params=start, opt_state=state)
    length = -(-steps // max(_PARTS, -(-steps // _MOST)))
    shardings = jax.tree.map(lambda x: x.sharding, (start, state)) if _mesh(constants) else (None, None)
    advance = _program(optimizer, pure, max(length, 2), shardings)

    def go(now: Fit, count: int) -> Fit:
        most = -1.0 if tolerance is None else float(tolerance)
        start = now.params, now.opt_state
        (params, state), step, *seen = advance(start, np.int32(now.steps), count, most, key, constants)
        seen = [np.asarray(x)[: int(step) - now.steps + 1] for x in seen]
        before = now.losses, now.grad_norms
        losses, norms = (np.concatenate([a[: now.steps], b]) for a, b in zip(before, seen, strict=True))
        return Fit(params, state, losses, norms, int(step), bool(norms[-1] <= most))

    return _loop(go, now, steps, length, _teller(progress, steps))


def _loop(go: Callable[[Fit, int], Fit], now: Fit, steps: int, length: int, tell: Callable[[int, float], Any]) -> Fit:
    """Chunk by chunk, to the end, to the tolerance or to what is not finite."""
    try:
        while True:
            found = go(now, min(length, steps - now.steps))
            if not np.isfinite([found.losses[-1], found.grad_norms[-1]]).all():
                # the loss before a step is finite or the run would have stopped: repeat all steps but the last
                last = go(now, found.steps - now.steps - 1) if found.steps > now.steps else now
                raise _not_finite(found, last)
            now = found
            tell(now.steps, float(now.losses[-1]))
            if now.converged or now.steps >= steps:
                return now
    except KeyboardInterrupt as stop:
        stop.fit = now  # type: ignore[attr-defined]
        stop.add_note(f"kljax.fit: {now.steps} of {steps} steps are done; pass the .fit of this exception as resume")
        raise


def _not_finite(found: Fit, last: Fit) -> FloatingPointError:
    loss, norm = found.losses[-1], found.grad_norms[-1]
    what = f"the loss is {loss}" if not np.isfinite(loss) else f"the loss is {loss} but the norm of its gradient {norm}"
    error = FloatingPointError(
        f"kljax.fit: {what} at step {found.steps}; the .fit of this exception is the last finite one, of step "
        f"{last.steps}. A smaller learning rate, or optax.clip_by_global_norm, may help"
    )
    error.fit = last  # type: ignore[attr-defined]
    return error


def _program(optimizer: Any, pure: Callable[..., Array], length: int, shardings: Any) -> Callable[..., Any]:
    """The compiled chunk: up to `count` steps, and the loss and its gradient's norm before each and at the end."""
    import optax

    @partial(jax.jit, out_shardings=(shardings, None, None, None))
    def advance(start, first, count, tolerance, key, constants):
        def step(carry, _):
            params, state, at = carry
            value_of = partial(pure, constants, () if key is None else (jax.random.fold_in(key, at),))
            if key is None and _evaluated(state):
                value, slope = optax.value_and_grad_from_state(value_of)(params, state=state)
            else:
                value, slope = jax.value_and_grad(value_of)(params)
            value = jnp.asarray(value)
            norm = _norm(slope).astype(value.dtype)
            go = jnp.isfinite(value) & jnp.isfinite(norm) & (norm > tolerance) & (at < first + count)
            updates, after = optimizer.update(slope, state, params, value=value, grad=slope, value_fn=value_of)
            moved = optax.apply_updates(params, updates), after
            params, state = jax.tree.map(lambda new, old: jnp.where(go, new, old), moved, (params, state))
            return (params, state, at + jnp.where(go, 1, 0)), (value, norm)

        (params, state, at), seen = lax.scan(step, (*start, first), length=length + 1)
        return (params, state), at, *seen

    return advance


def _evaluated(state: Any) -> bool:
    """Whether the optimiser keeps the loss and gradient at its params: a line search has just evaluated them."""
    import optax

    return all(len(optax.tree_utils.tree_get_all_with_path(state, name)) == 1 for name in ("value", "grad"))


def _norm(tree: Any) -> Array:
    """The 2-norm of all leaves: that of their norms, in which no square overflows."""
    return _num.norm(jnp.stack([_num.norm(_check.wide(x)[0].ravel()) for x in jax.tree.leaves(tree)]))


def _pure(loss: Callable[..., Array], params: Any, key: Array | None) -> tuple[Callable[..., Array], list[Any]]:
    """The loss as a function of (constants, keys, params): closed-over arrays would be compiled in, shards gathered."""
    keys = () if key is None else (key,)
    closed, shape = jax.make_jaxpr(loss, return_shape=True)(params, *keys)
    leaves = jax.tree.leaves(shape)
    if len(leaves) != 1 or leaves[0].shape != () or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(f"kljax.fit: the loss returns {shape}: pass a function to one real number, such as a mean")

    def pure(constants, keys, params):
        run = jex.jaxpr_as_fun(jex.ClosedJaxpr(closed.jaxpr, constants))
        return _check.wide(run(*jax.tree.leaves((params, *keys)))[0])[0]

    return pure, closed.consts


def _strong(x: Any) -> Array:
    """An array of its own dtype: a weak one would change its type, and so compile anew, after the first step."""
    x = jnp.asarray(x)
    return x.astype(x.dtype) if x.weak_type else x


def _mesh(constants: Any) -> Any:
    """The mesh of the first array that is on one."""
    found = (getattr(x, "sharding", None) for x in constants)
    return next((s.mesh for s in found if isinstance(s, NamedSharding) and s.num_devices > 1), None)


def _placed(tree: Any, constants: list[Any]) -> Any:
    """What is on no device by the user's choice, replicated over the mesh of the constants."""
    mesh = _mesh(constants)
    if mesh is None:
        return tree
    return jax.tree.map(lambda x: x if x.committed else jax.device_put(x, NamedSharding(mesh, Spec())), tree)


def _check_parameters(params: Any, resume: Fit | None) -> None:
    given = [jax.tree.map(jnp.asarray, params)] + ([] if resume is None else [resume.params])
    for x in jax.tree.leaves(given[0]):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"kljax.fit: a parameter is {x.dtype}: pass floating arrays, and close over what is fixed")
    shapes = [jax.tree.map(jnp.shape, tree) for tree in given]
    if shapes[0] != shapes[-1]:
        raise ValueError(f"kljax.fit: params {shapes[0]} and those of resume {shapes[1]}: they must be alike")


def _teller(progress: bool | Callable[[int, float], Any], steps: int) -> Callable[[int, float], Any]:
    if not isinstance(progress, bool):
        return progress
    told = [0]

    def tell(step: int, loss: float) -> None:
        if step * _PARTS // steps > told[0]:
            told[0] = step * _PARTS // steps
            print(f"step {step:{len(str(steps))}d} of {steps}  loss {loss:.6g}", file=sys.stderr, flush=True)

    return tell if progress else lambda step, loss: None
