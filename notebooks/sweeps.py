# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sweeps: many parameters, many pairs, one program
#
# A divergence is rarely wanted once. Here an order, a temperature and a weight are swept by `vmap`, then all pairs of
# 142 languages over 100,053 outcomes by `kljax.pairwise`, then a matrix that lies on disk by `kljax.sweep`. Each sweep
# is one compiled program. An accelerator needs no change.
#
# The languages are the model of `py3langid`: log-probabilities of short byte sequences.

# %%
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from py3langid import langid

import kljax

model = langid._get_identifier()
codes = list(model.nb_classes)
names = [code if code not in codes[:i] else f"{code}2" for i, code in enumerate(codes)]  # a second alphabet
logs = jnp.asarray(np.ascontiguousarray(model.nb_ptc.T, np.float32))
FULL = {
    "no": "Norwegian", "da": "Danish", "es": "Spanish", "pt": "Portuguese", "en": "English", "de": "German",
    "fi": "Finnish", "hu": "Hungarian", "cs": "Czech", "sk": "Slovak", "uk": "Ukrainian", "hr": "Croatian",
    "sv": "Swedish", "nl": "Dutch", "fr": "French", "it": "Italian", "ru": "Russian", "et": "Estonian",
    "bs": "Bosnian", "gl": "Galician", "nn": "Nynorsk", "bg": "Bulgarian", "sl": "Slovene",
}  # fmt: skip
print(f"{len(names)} languages, log-probabilities of {logs.shape[1]:,} byte sequences")

# %% [markdown]
# ## Orders
#
# Rényi's divergence of order $\alpha$ goes from $-\log q(p > 0)$ at 0 through KL at 1 to the logarithm of the
# largest ratio at infinity. The order is an argument like any other: it may be traced, batched and
# differentiated, and the limits are orders too.

# %%
traced = []


@jax.jit
def by_order(orders, p, q):
    """Rényi's divergence for each order."""
    traced.append("once")
    return jax.vmap(lambda order: kljax.logits.renyi(p, q, order=order))(orders)


orders = jnp.concatenate([jnp.linspace(0, 2, 41), jnp.array([4.0, 8.0, 16.0, jnp.inf])])
PAIRS = (("no", "da"), ("es", "pt"), ("en", "de"), ("fi", "hu"))
curves = {pair: by_order(orders, *(logs[names.index(name)] for name in pair)) for pair in PAIRS}
print("order             0       1/2         1         2       inf")
for pair, curve in curves.items():
    print(f"{' - '.join(pair):8}" + "".join(f"{curve[i]:10.4f}" for i in (0, 10, 20, 40, -1)))
print(f"programs traced: {len(traced)}")

# %% [markdown]
# ## Temperatures and weights
#
# Softmaxes at temperature $\tau$ are `logits / tau`. As $\tau$ grows both become uniform and KL falls like
# $\tau^{-2}$: that is why distillation losses carry a factor $\tau^2$. The weight of Jensen-Shannon is swept alike;
# $D_w(p, q) = D_{1 - w}(q, p)$.

# %%
p, q = (logs[names.index(name)] for name in ("en", "de"))
temperatures = jnp.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
cooled = jax.jit(jax.vmap(lambda t: kljax.logits.kl(p / t, q / t)))(temperatures)
for t, value in zip(temperatures, cooled, strict=True):
    print(f"temperature {t:4.1f}: KL {value:.6f}, times its square {value * t**2:.4f}")
weights = jnp.linspace(0.0, 1.0, 21)
js = jax.jit(jax.vmap(lambda w: kljax.logits.js(p, q, weight=w)))(weights)
swapped = jax.jit(jax.vmap(lambda w: kljax.logits.js(q, p, weight=w)))(1 - weights)
print(f"js at weights w of p and 1 - w of q differ by at most {jnp.max(jnp.abs(js - swapped)):.1e}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
colours = ("#0072b2", "#009e73", "#e69f00", "#d55e00")
for (pair, curve), colour in zip(curves.items(), colours, strict=True):
    axes[0].plot(orders[:41], curve[:41], color=colour, label=" - ".join(FULL[name] for name in pair))
axes[0].set(xlabel="order", ylabel="Rényi divergence, nats", xlim=(0, 2), ylim=(0, None))
axes[0].legend(frameon=False)
axes[1].plot(weights, js, color="#0072b2")
axes[1].set(xlabel="weight of English", ylabel="js of English and German, nats", xlim=(0, 1), ylim=(0, None))
_ = axes[1].set_title("0 at both ends: there m is p or q", fontsize=10)

# %% [markdown]
# ## All pairs
#
# `kljax.pairwise` evaluates 142 x 142 pairs of 100,053 outcomes, 2 billion terms, in tiles: an array of all of them
# would have 8 GB. KL is made of matrix products, whose lost digits are watched: pairs that are near go to the cell
# itself. The diagonal is exactly 0.

# %%
for name in ("kl", "js", "hellinger_sq"):
    cell = getattr(kljax.logits, name)
    jax.block_until_ready(kljax.pairwise(cell, logs))
    start = time.perf_counter()
    matrix = jax.block_until_ready(kljax.pairwise(cell, logs))
    seconds = time.perf_counter() - start
    off = np.asarray(matrix)[~np.eye(len(names), dtype=bool)]
    span = f"from {off.min():.4f} to {off.max():.4f}"
    print(f"{name:13} {seconds:5.1f} s, {span}, diagonal {jnp.abs(jnp.diag(matrix)).max()}")

# %%
distances = np.array(kljax.pairwise(kljax.logits.js_distance, logs))
np.fill_diagonal(distances, np.inf)
for name in ("no", "cs", "es", "fi", "uk", "hr"):
    first = np.argsort(distances[names.index(name)])[:3]
    row = distances[names.index(name)]
    print(f"{FULL[name]:10}", "  ".join(f"{FULL.get(names[i], names[i])} {row[i]:.3f}" for i in first))

# %% [markdown]
# A whole matrix can be swept over a parameter too: does the nearest of 16 languages depend on the
# weight? For most it does not.

# %%
some = logs[jnp.array([names.index(name) for name in list(FULL)[:16]])]
by_weight = jax.jit(jax.vmap(lambda w: kljax.pairwise(kljax.logits.js, some, weight=w)))(jnp.array([0.1, 0.5, 0.9]))
nearest = np.argsort(np.asarray(by_weight) + 9 * np.eye(16), -1)[:, :, 0]
alike = (nearest == nearest[0]).all(0).sum()
print(f"matrices {by_weight.shape}; languages with one nearest at all three weights: {alike} of 16")

# %% [markdown]
# ## More than memory
#
# `kljax.sweep` reads rows from a memory map, writes tiles to a Zarr array, and goes on where it was stopped. The first
# call below does everything. Then a tile is removed, as if the machine had been switched off before it was written, and
# the same call computes that one alone.

# %%
with tempfile.TemporaryDirectory() as folder:
    np.save(f"{folder}/P.npy", np.random.default_rng(0).dirichlet(np.ones(128), 2000).astype(np.float32))
    P = np.load(f"{folder}/P.npy", mmap_mode="r")
    first = kljax.sweep(kljax.probs.js, P, out=f"{folder}/D.zarr", block=500, progress=False)
    chunks = sorted(path for path in Path(f"{folder}/D.zarr/c").rglob("*") if path.is_file())
    chunks[3].unlink()
    again = kljax.sweep(kljax.probs.js, P, out=f"{folder}/D.zarr", progress=False)
    swept = np.asarray(again.matrix[:300, :300])
    print(f"tiles computed: {first.computed}, then {again.computed}; matrix {again.matrix.shape}")
    direct = np.asarray(kljax.pairwise(kljax.probs.js, jnp.asarray(P[:300])))

# %% [markdown]
# ## What must hold
#
# Order 1 is KL. No Rényi curve falls. Two ways to a matrix, from disk and in memory, give the same numbers. One pair by
# itself is what the matrix says.

# %%
eps = float(np.finfo(np.float32).eps)
for (a, b), curve in curves.items():
    kl = kljax.logits.kl(logs[names.index(a)], logs[names.index(b)])
    assert abs(curve[20] / kl - 1) < 16 * eps and (jnp.diff(curve) > -16 * eps * curve[1:]).all()
alone = float(kljax.logits.hellinger_sq(p, q))
table = float(matrix[names.index("en"), names.index("de")])
print(f"hellinger_sq of English and German, alone {alone:.7f}, in the matrix {table:.7f}")
assert len(traced) == 1 and first.computed == 10
assert abs(table / alone - 1) < 16 * eps
assert np.abs(swept - direct).max() < 8 * eps * direct.max() and (np.diag(swept) == 0).all()
