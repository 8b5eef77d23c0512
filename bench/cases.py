"""What the benchmarks run: for each cell the formula that a user would write by hand, and the peers that have it.

A textbook function takes masses p, q and their logarithms; on logits it is given log_softmax, as by hand. torch's are
in `torch_cases.py`. A smoke test calls every entry, so that none of them rots.
"""

import functools
import importlib
import warnings

import jax
import jax.numpy as jnp
import jax.scipy.special as jss
import numpy as np
import optax
import scipy.spatial.distance as ssd
import scipy.special as ss
import scipy.stats as st

import kljax


def _sum(x):
    return jnp.sum(x, -1)


def _js(p, q, weight=0.5):
    m = weight * p + (1 - weight) * q
    return weight * _sum(p * jnp.log(p / m)) + (1 - weight) * _sum(q * jnp.log(q / m))


def _power_sum(a, b, order):
    return _sum(jnp.exp(order * a + (1 - order) * b))


def _geometric(p, q, a, b):
    g = (a + b) / 2
    g = g - jax.nn.logsumexp(g, -1, keepdims=True)
    return (_sum(p * (a - g)) + _sum(q * (b - g))) / 2


# cell: (options, formula of p, q, log p, log q)
TEXTBOOK = {
    "entropy": ({}, lambda p, q, a, b: -_sum(p * a)),
    "cross_entropy": ({}, lambda p, q, a, b: -_sum(p * b)),
    "kl": ({}, lambda p, q, a, b: _sum(p * (a - b))),
    "reverse_kl": ({}, lambda p, q, a, b: _sum(q * (b - a))),
    "jeffreys": ({}, lambda p, q, a, b: _sum((p - q) * (a - b))),
    "js": ({}, lambda p, q, a, b: _js(p, q)),
    "js_distance": ({}, lambda p, q, a, b: jnp.sqrt(_js(p, q))),
    "scaled_js": ({"weight": 0.25}, lambda p, q, a, b: _js(p, q, 0.25) / (0.25 * 0.75)),
    "tv": ({}, lambda p, q, a, b: _sum(jnp.abs(p - q)) / 2),
    "hellinger_sq": ({}, lambda p, q, a, b: 1 - _sum(jnp.sqrt(p * q))),
    "hellinger": ({}, lambda p, q, a, b: jnp.sqrt(1 - _sum(jnp.sqrt(p * q)))),
    "bhattacharyya": ({}, lambda p, q, a, b: -jnp.log(_sum(jnp.sqrt(p * q)))),
    "renyi": ({"order": 1.5}, lambda p, q, a, b: jnp.log(_power_sum(a, b, 1.5)) / 0.5),
    "tsallis": ({"order": 1.5}, lambda p, q, a, b: (_power_sum(a, b, 1.5) - 1) / 0.5),
    "alpha": ({"order": 1.5}, lambda p, q, a, b: (_power_sum(a, b, 1.5) - 1) / 0.75),
    "chi2": ({}, lambda p, q, a, b: _sum((p - q) ** 2 / q)),
    "le_cam": ({}, lambda p, q, a, b: _sum((p - q) ** 2 / (p + q))),
    "hockey_stick": ({"gamma": 2.0}, lambda p, q, a, b: _sum(jnp.maximum(p - 2 * q, 0))),
    "geometric_js": ({}, _geometric),
    "fisher_rao": ({}, lambda p, q, a, b: 2 * jnp.arccos(_sum(jnp.sqrt(p * q)))),
    "wasserstein1": ({}, lambda p, q, a, b: _sum(jnp.abs(jnp.cumsum(p, -1) - jnp.cumsum(q, -1)))),
    "renyi_entropy": ({"order": 2.0}, lambda p, q, a, b: -jnp.log(_sum(p * p))),
    "tsallis_entropy": ({"order": 2.0}, lambda p, q, a, b: 1 - _sum(p * p)),
}
ONE = ("entropy", "renyi_entropy", "tsallis_entropy")


def ours(column: str, name: str):
    """The cell as a function of p and q."""
    cell, (options, _) = getattr(getattr(kljax, column), name), TEXTBOOK[name]
    return (lambda p, q: cell(p, **options)) if name in ONE else (lambda p, q: cell(p, q, **options))


def by_hand(column: str, name: str):
    """The textbook formula as a function of p and q, weights that sum to one or logits."""
    _, formula = TEXTBOOK[name]

    def on_probs(p, q):
        return formula(p, q, jnp.log(p), jnp.log(q))

    def on_logits(p, q):
        a, b = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        return formula(jnp.exp(a), jnp.exp(b), a, b)

    return on_probs if column == "probs" else on_logits


# torch first: its compiler crashes when it is imported after what brings other copies of the same libraries
PACKAGES = {
    "torch": "torch",
    "tfp": "tensorflow_probability.substrates.jax",
    "distrax": "distrax",
    "numpyro": "numpyro.distributions",
    "liger": "liger_kernel.transformers",
}


@functools.cache
def package(peer: str):
    """The module of a peer that need not be installed, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if peer == "torch":
                importlib.import_module("torch._dynamo")
            return importlib.import_module(PACKAGES[peer])
        except (ImportError, AttributeError):  # not installed, or older than this jax
            return None


def installed(peer: str) -> bool:
    """Whether the package behind a peer is here."""
    first = peer.split(".")[0]
    return first not in PACKAGES or package(first) is not None


def _tfp(column):
    def kl(p, q):
        d = package("tfp").distributions
        return d.kl_divergence(d.Categorical(**{column: p}), d.Categorical(**{column: q}))

    return kl


def _distrax(column):
    def kl(p, q):
        d = package("distrax")
        return d.Categorical(**{column: p}).kl_divergence(d.Categorical(**{column: q}))

    return kl


def _numpyro(column):
    """Its CategoricalLogits has no KL."""

    def kl(p, q):
        d = package("numpyro")
        p, q = (p, q) if column == "probs" else (jax.nn.softmax(p), jax.nn.softmax(q))
        return d.kl_divergence(d.CategoricalProbs(p), d.CategoricalProbs(q))

    return kl


def _from_logits(function):
    """Of scipy, which has no logits: by its own softmax."""
    return lambda p, q: function(ss.softmax(p, -1), ss.softmax(q, -1))


def _wasserstein(p, q):
    places = np.arange(p.shape[-1])
    return np.array([st.wasserstein_distance(places, places, *pair) for pair in zip(p, q, strict=True)])


SCIPY = {
    "entropy": lambda p, q: st.entropy(p, axis=-1),
    "kl": lambda p, q: st.entropy(p, q, axis=-1),
    "reverse_kl": lambda p, q: st.entropy(q, p, axis=-1),
    "js": lambda p, q: ssd.jensenshannon(p, q, axis=-1) ** 2,
    "js_distance": lambda p, q: ssd.jensenshannon(p, q, axis=-1),
    "wasserstein1": _wasserstein,
}
# column: peer: cell: function of p and q
PEERS = {
    "probs": {
        "optax": {
            "kl": lambda p, q: optax.losses.kl_divergence(jnp.log(q), p),
            "reverse_kl": lambda p, q: optax.losses.kl_divergence(jnp.log(p), q),
        },
        "jax.scipy": {
            "entropy": lambda p, q: _sum(jss.entr(p)),
            "kl": lambda p, q: _sum(jss.rel_entr(p, q)),
            "reverse_kl": lambda p, q: _sum(jss.rel_entr(q, p)),
        },
        "tfp": {"kl": _tfp("probs")},
        "distrax": {"kl": _distrax("probs")},
        "numpyro": {"kl": _numpyro("probs")},
        "scipy": SCIPY,
    },
    "logits": {
        "optax": {
            "cross_entropy": lambda p, q: optax.losses.softmax_cross_entropy(q, jax.nn.softmax(p)),
            "kl": lambda p, q: optax.losses.kl_divergence(jax.nn.log_softmax(q), jax.nn.softmax(p)),
            "reverse_kl": lambda p, q: optax.losses.kl_divergence(jax.nn.log_softmax(p), jax.nn.softmax(q)),
        },
        "jax.scipy": {
            "entropy": lambda p, q: _sum(jss.entr(jax.nn.softmax(p))),
            "kl": lambda p, q: _sum(jss.rel_entr(jax.nn.softmax(p), jax.nn.softmax(q))),
            "reverse_kl": lambda p, q: _sum(jss.rel_entr(jax.nn.softmax(q), jax.nn.softmax(p))),
        },
        "tfp": {"kl": _tfp("logits")},
        "distrax": {"kl": _distrax("logits")},
        "numpyro": {"kl": _numpyro("logits")},
        "scipy": {name: _from_logits(function) for name, function in SCIPY.items()},
    },
}


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 4))
def inputs(column: str, rows: int, outcomes: int, distance: float = 0.1, dtype: str = "float32"):
    """Random p and q on the device, always the same; q is p with noise of this size in its logits."""
    keys = jax.random.split(jax.random.key(0))
    a, noise = (jax.random.normal(key, (rows, outcomes), jnp.float32) for key in keys)
    pair = 2 * a, 2 * a + distance * noise
    return tuple((x if column == "logits" else jax.nn.softmax(x)).astype(dtype) for x in pair)


def heads_cases(tokens: int = 512, hidden: int = 64, outcomes: int = 32000) -> dict:
    """name: (loss and gradient in the student of a linear head, the same with all logits at once, arguments)."""
    rng = np.random.default_rng(0)
    shapes = (tokens, hidden), (hidden, outcomes), (tokens, hidden), (hidden, outcomes)
    given = tuple((rng.standard_normal(s) / s[0] ** 0.5).astype(np.float32) for s in shapes)

    def ours(h, w, student, weight):
        return kljax.heads.loss(kljax.rows.kl, kljax.heads.Head(h, w), kljax.heads.Head(student, weight))

    def composite(h, w, student, weight):
        return jnp.sum(optax.losses.kl_divergence(jax.nn.log_softmax(student @ weight), jax.nn.softmax(h @ w)))

    return {"heads.loss": (jax.value_and_grad(ours, (2, 3)), jax.value_and_grad(composite, (2, 3)), given)}
