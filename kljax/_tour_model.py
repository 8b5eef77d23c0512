"""The language model of the tour: the decoder that ships in glassllm, in JAX, and fewer bits for its weights."""

import importlib.util
import json
import re
import textwrap
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_GROUP = 32
_SHORTEST = 200  # characters: below, a paragraph is mostly a heading, a signature or an item of a list


class Shape(NamedTuple):
    """What the forward pass needs to know beside the weights."""

    layers: int
    heads: int
    kv_heads: int
    rope_base: float
    eps: float


def load() -> tuple[dict[str, Array], Shape, Any]:
    """The weights by name as float32, the shape and the tokenizer of glassllm's English model."""
    import glassllm  # the examples extra

    spec = importlib.util.find_spec("glassllm")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "weights"
    with np.load(folder / "en.npz", allow_pickle=False) as stored:
        config = json.loads(str(stored["__config__"]))
        weights = {name: jnp.asarray(stored[name], jnp.float32) for name in stored if name != "__config__"}
    names = ("n_layers", "n_heads", "n_kv_heads", "rope_base", "eps")
    tokenizer = glassllm.Tokenizer.load(folder / "en.tokenizer.json")
    return weights, Shape(*(config[name] for name in names)), tokenizer


def prose(alphabet: str) -> str:
    """Paragraphs of the language reference that every Python carries, those written in this alphabet alone.

    The model was trained on a novel, so the paragraphs with operators and code, whose characters it has never
    seen, are left out; straight double quotes become the curly ones it knows.
    """
    from pydoc_data.topics import topics

    known, found = set(alphabet) | set(" \n"), {}
    for topic in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[topic]):
            paragraph = re.sub(r'"([^"]*)"', r"“\1”", textwrap.dedent(block)).strip()
            if len(paragraph) >= _SHORTEST and set(paragraph) <= known:
                found[paragraph] = None  # topics repeat one another
    return "\n\n".join(found)


def quantise(weights: dict[str, Array], bits: int) -> dict[str, Array]:
    """Every matrix rounded to `bits` bits in groups of 32 inputs; the gains of the norms are kept."""

    def rounded(name, weight):
        if weight.ndim == 1:
            return weight
        # the embedding [V, d] is read by rows and, as the head, reduced over d: its groups run along d as well
        return round_groups(weight, bits) if name == "E" else round_groups(weight.T, bits).T

    return {name: rounded(name, weight) for name, weight in weights.items()}


@partial(jax.jit, static_argnames="bits")
def round_groups(x: Array, bits: int) -> Array:
    """Symmetric rounding of [N, K]: each 32 numbers of a row share a step, the largest / (2^(bits - 1) - 1)."""
    count, width = x.shape
    groups = jnp.pad(x, ((0, 0), (0, -width % _GROUP))).reshape(count, -1, _GROUP)
    largest = jnp.max(jnp.abs(groups), -1, keepdims=True)
    step = jnp.where(largest > 0, largest, 1) / (2 ** (bits - 1) - 1)
    return (jnp.round(groups / step) * step).reshape(count, -1)[:, :width]


@partial(jax.jit, static_argnames="shape")
@jax.default_matmul_precision("float32")
def forward(weights: dict[str, Array], tokens: Array, shape: Shape) -> Array:
    """Logits [B, T, V] of the next token after each of tokens [B, T]."""
    x = weights["E"][tokens]
    for i in range(shape.layers):
        x = x + _attention(weights, f"blocks.{i}.", _norm(x, weights[f"blocks.{i}.norm1.gamma"], shape), shape)
        h = _norm(x, weights[f"blocks.{i}.norm2.gamma"], shape)
        w1, w2, w3 = (weights[f"blocks.{i}.ffn.W{k}"] for k in (1, 2, 3))
        x = x + (jax.nn.silu(h @ w1) * (h @ w3)) @ w2
    return _norm(x, weights["norm_f.gamma"], shape) @ weights["E"].T


def _norm(x: Array, gamma: Array, shape: Shape) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + shape.eps) * gamma[None, None]


def _attention(weights: dict[str, Array], block: str, x: Array, shape: Shape) -> Array:
    batch, length, width = x.shape
    size = width // shape.heads

    def project(name, heads):
        return (x @ weights[f"{block}attn.{name}"]).reshape(batch, length, heads, size)

    q, k = (_rope(project(*each), shape.rope_base) for each in (("W_Q", shape.heads), ("W_K", shape.kv_heads)))
    k, v = (jnp.repeat(y, shape.heads // shape.kv_heads, 2) for y in (k, project("W_V", shape.kv_heads)))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / size**0.5
    past = jnp.tril(jnp.ones((length, length), bool))[None, None]
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(past, scores, -jnp.inf)), v)
    return mixed.reshape(batch, length, width) @ weights[f"{block}attn.W_O"]


def _rope(x: Array, base: float) -> Array:
    """Neighbouring coordinates (2i, 2i + 1) of [B, T, heads, d] turned by position x base^(-2i / d)."""
    length, size = x.shape[1], x.shape[-1]
    angles = np.outer(np.arange(length), base ** (-np.arange(0, size, 2) / size))
    cos, sin = (jnp.asarray(part, x.dtype)[None, :, None] for part in (np.cos(angles), np.sin(angles)))
    even, odd = x[..., ::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)
