"""Gauss-Legendre nodes on [0, 1]."""

import jax.numpy as jnp
import numpy as np
from jax import Array

NODES = {"float32": 7, "float64": 12}


def rule(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1], computed on the host in float64."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def gauss(like: Array, count: int | None = None) -> tuple[Array, Array]:
    """Nodes and weights in the dtype of an array, on a new last axis of it."""
    nodes, weights = rule(count or NODES[str(like.dtype)])
    shape = (1,) * like.ndim + (-1,)
    return jnp.asarray(nodes, like.dtype).reshape(shape), jnp.asarray(weights, like.dtype).reshape(shape)
