"""Minimising a loss over a pytree. The only file that imports optax."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

_PARTS = 10  # how often progress is told


def minimise(
    loss: Callable[..., Array],
    params: Any,
    *data: Any,
    steps: int,
    learning_rate: float,
    progress: Callable[[int, float], Any] = lambda step, loss: None,
) -> tuple[Any, np.ndarray]:
    """`steps` steps of Adam on `loss(params, *data)`, its rate falling to 0 as a cosine: the params, the losses.

    losses[i] is the loss before step i. A loss that is not finite raises FloatingPointError with its step.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    # data is an argument: as constants of a closure, arrays of this size would be compiled into the program
    @partial(jax.jit, static_argnames="count")
    def advance(params, state, data, count):
        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, *data)
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        return lax.scan(step, (params, state), length=count)

    params = jax.tree.map(jnp.asarray, params)
    state, losses, part = optimiser.init(params), [], -(-steps // _PARTS)
    for start in range(0, steps, part):
        (params, state), values = advance(params, state, data, min(part, steps - start))
        values = np.asarray(values)
        if not np.isfinite(values).all():
            at = start + int(np.argmin(np.isfinite(values)))
            raise FloatingPointError(f"the loss is {values[at - start]} at step {at}")
        losses.append(values)
        progress(start + len(values), float(values[-1]))
    return params, np.concatenate(losses)
