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
# # Quantisation: what fewer bits do to a language model's predictions
#
# `python -m kljax tour` prints a table of rounded models. Here it is looked at token by token: how long the tails are,
# which tokens break, and which weights are to blame. The model is the small English decoder in `glassllm`, the text are
# paragraphs of the Python language reference, on which it was not trained. An accelerator needs no change.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import kljax
from kljax import _tour_model

weights, shape, tokenizer = _tour_model.load()
ids = np.asarray(tokenizer.encode(_tour_model.prose("".join(tokenizer.alphabet))), np.int32)
tokens = ids[: 32 * 128].reshape(32, 128)


def predict(weights):
    """Logits of the next token, [4096, 1024]."""
    parts = [_tour_model.forward(weights, jnp.asarray(part), shape) for part in np.split(tokens, 4)]
    return jnp.concatenate(parts).reshape(tokens.size, -1)


original = predict(weights)
print(f"{sum(w.size for w in weights.values()):,} parameters, {tokens.size} positions, {original.shape[1]} outcomes")

# %% [markdown]
# ## The table
#
# Each matrix is rounded to a few bits in groups of 32. Cells are per token; means and quantiles are taken here.


# %%
def perplexity(a):
    """Of the tokens that follow."""
    known = a.reshape(*tokens.shape, -1)[:, :-1]
    surprise = -jnp.take_along_axis(jax.nn.log_softmax(known), jnp.asarray(tokens)[:, 1:, None], -1)
    return float(jnp.exp(surprise.mean()))


BITS = (8, 6, 5, 4, 3, 2)
rounded = {bits: predict(_tour_model.quantise(weights, bits)) for bits in BITS}
kl = {bits: np.asarray(kljax.logits.kl(original, q)) for bits, q in rounded.items()}
print(" bits   kl mean    median       p99   largest        js      tv  same top  perplexity")
print(f"{'all':>5}{'':68}{perplexity(original):12.2f}")
for bits, q in rounded.items():
    js, tv = kljax.logits.js(original, q).mean(), kljax.logits.tv(original, q).mean()
    same = (original.argmax(-1) == q.argmax(-1)).mean()
    middle, late = np.quantile(kl[bits], [0.5, 0.99])
    print(
        f"{bits:5}{kl[bits].mean():10.5f}{middle:10.5f}{late:10.4f}{kl[bits].max():10.4f}{js:10.5f}{tv:8.4f}{same:10.3f}"
        f"{perplexity(q):12.2f}"
    )

# %% [markdown]
# KL grows with every bit taken away, 16-fold from 8 to 6. Perplexity calls the model at 8 bits better than the
# original, and moves by less than 1 % down to 5 bits: it asks only about the token that came next, and there a rounded
# model is better about as often as it is worse.

# %%
nll = {bits: -np.asarray(jax.nn.log_softmax(q))[np.arange(tokens.size - 1), tokens.reshape(-1)[1:]] for bits, q in
       ({0: original} | rounded).items()}  # fmt: skip
for bits in BITS:
    better = (nll[bits] < nll[0]).mean()
    print(f"{bits} bits: the next token is likelier than before at {100 * better:.0f} % of the positions")

# %% [markdown]
# ## Tails
#
# The mean hides that a few tokens suffer most. Below is the share of tokens whose KL exceeds x, both axes logarithmic.
# The curves are close to shifted copies of one another: a bit fewer moves all of them, not only the tail.

# %%
figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
colours = ("#000000", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00")
for bits, colour in zip(BITS, colours, strict=True):
    ax.plot(np.sort(kl[bits]), 1 - np.arange(tokens.size) / tokens.size, color=colour, label=f"{bits} bits")
ax.set(xscale="log", yscale="log", xlabel="KL of a token, nats", ylabel="share of tokens above", xlim=(1e-6, 20))
_ = ax.legend(frameon=False, loc="lower left")

# %% [markdown]
# ## Which tokens break
#
# At 4 bits, the positions with the largest KL, and the outcomes that contribute most to it. A contribution is
# $p \log(p/q) - p + q \ge 0$, and all of them sum to KL: it counts what lost mass and what gained it.


# %%
def shown(i):
    """A token as text."""
    return repr(tokenizer.decode([int(i)]))


p, q = original, rounded[4]
flat = tokens.reshape(-1)
for place in np.argsort(-kl[4])[:5]:
    parts = np.asarray(kljax.logits.contributions(p[place], q[place]))
    before = tokenizer.decode([int(t) for t in flat[max(place - place % 128, place - 8) : place + 1]])
    print(f"KL {kl[4][place]:.3f} after {before!r}")
    for i in np.argsort(-parts)[:3]:
        share = [float(jax.nn.softmax(a[place])[i]) for a in (p, q)]
        print(f"    {shown(i):14} {share[0]:.3f} -> {share[1]:.3f}, adds {parts[i]:.3f}")

# %% [markdown]
# ## Which weights are to blame
#
# One matrix at a time is rounded to 4 bits, all others are kept. The embedding E, which is also the head, does half of
# the harm; the parts add up to almost the whole.

# %%
blame = {}
for name, weight in weights.items():
    if weight.ndim == 2:
        only = _tour_model.quantise({name: weight}, 4)
        blame[name] = float(kljax.logits.kl(original, predict(weights | only)).mean())
ordered = sorted(blame, key=blame.get)
figure, ax = plt.subplots(figsize=(7, 6.2), layout="constrained")
ax.barh(ordered, [blame[name] for name in ordered], color="#0072b2")
ax.tick_params(axis="y", labelsize=8)
ax.margins(y=0.01)
_ = ax.set_xlabel("mean KL with this matrix alone at 4 bits, nats")

# %%
print(f"sum over matrices {sum(blame.values()):.4f}, all at once {kl[4].mean():.4f}")
print(f"the most: {ordered[-1]}, {blame[ordered[-1]]:.4f}")

# %% [markdown]
# ## What must hold
#
# The contributions of a token sum to its KL, and float32 agrees with float64 on the same logits, at 8 bits too, where
# the formula by hand no longer does.

# %%
some = np.argsort(kl[8])[:: tokens.size // 256]
a, b = np.asarray(original)[some], np.asarray(rounded[8])[some]
with jax.enable_x64(True):
    true = np.asarray(kljax.logits.kl(a.astype(np.float64), b.astype(np.float64)))
hand = np.sum(jax.nn.softmax(a) * (jax.nn.log_softmax(a) - jax.nn.log_softmax(b)), -1)
ours = np.asarray(kljax.logits.kl(a, b))
eps = float(np.finfo(np.float32).eps)
print(
    f"relative error at 8 bits, worst of {len(some)} tokens: kljax {np.max(np.abs(ours / true - 1)) / eps:.1f} eps, ",
    end="",
)
print(f"by hand {np.max(np.abs(hand / true - 1)) / eps:.0f} eps, {np.sum(hand < 0)} of them negative")
whole = np.asarray(kljax.logits.contributions(a, b)).sum(-1)
assert np.max(np.abs(whole / ours - 1)) < 64 * eps
assert np.max(np.abs(ours / true - 1)) < 16 * eps
