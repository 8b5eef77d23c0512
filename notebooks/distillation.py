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
# # Distilling a language model by four divergences
#
# A student $q$ learns to predict what a teacher $p$ predicts, token by token. The loss is a divergence between the two
# softmaxes over the vocabulary. This notebook trains one small student by each of four divergences, then from the
# teacher's most likely tokens alone, and measures what the loss costs at a larger vocabulary. It ends with a check of
# `kljax.heads.loss` and its gradient against the same sum in float64.
#
# To run this on an accelerator, change nothing.

# %%
import time
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import kljax
from kljax import _tour_model
from kljax.heads import Head

# %% [markdown]
# ## Teacher and text
#
# The teacher is the English model that ships in the package `glassllm`: 4 layers of width 128, a vocabulary of 1024
# byte pairs, trained on a novel. `python -m kljax tour` uses it too, and its `_tour_model` loads it. The text is prose
# from the language reference that comes with Python, cut into rows of 64 tokens. 96 rows of the last
# fifth are held out.

# %%
weights, shape, tokenizer = _tour_model.load()
ids = np.asarray(tokenizer.encode(_tour_model.prose("".join(tokenizer.alphabet))), np.int32)
LENGTH = 64
rows = jnp.asarray(ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH))
cut = len(rows) * 4 // 5
train, test = rows[:cut], rows[cut:][:96]
print(
    f"teacher: {sum(w.size for w in weights.values()):,} parameters; "
    f"rows of {LENGTH} tokens: {len(train)} to train on, {len(test)} held out"
)


# %% [markdown]
# `kljax.heads` wants the last hidden states and the matrix that turns them into logits, `Head(hidden, weight)`, so we
# write the decoder out up to its last norm. It must give the logits that `_tour_model.forward` gives.


# %%
def norm(x, gamma):
    """Root-mean-square norm."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + shape.eps) * gamma


def turned(x):
    """Rotary positions of [B, T, heads, d]: neighbouring coordinates as a complex number times a phase."""
    length, size = x.shape[1], x.shape[-1]
    angles = jnp.arange(length)[:, None] * shape.rope_base ** (-jnp.arange(0, size, 2) / size)
    z = jax.lax.complex(x[..., ::2], x[..., 1::2]) * jnp.exp(1j * angles)[:, None]
    return jnp.stack([z.real, z.imag], -1).reshape(x.shape)


def attention(w, x):
    """Causal attention, two heads of queries sharing one of keys and values."""
    heads = {name: (x @ w[f"W_{name}"]).reshape(*x.shape[:2], -1, x.shape[-1] // shape.heads) for name in "QKV"}
    mixed = jax.nn.dot_product_attention(turned(heads["Q"]), turned(heads["K"]), heads["V"], is_causal=True)
    return mixed.reshape(x.shape) @ w["W_O"]


@partial(jax.jit, static_argnames="layers")
@jax.default_matmul_precision("float32")
def hidden(weights, tokens, layers):
    """The last hidden states [B, T, 128] of the first `layers` layers."""
    x = weights["E"][tokens]
    for i in range(layers):
        w = {name.removeprefix(f"blocks.{i}."): x for name, x in weights.items() if name.startswith(f"blocks.{i}.")}
        inner = {name.removeprefix("attn."): x for name, x in w.items() if name.startswith("attn.")}
        x = x + attention(inner, norm(x, w["norm1.gamma"]))
        h = norm(x, w["norm2.gamma"])
        x = x + (jax.nn.silu(h @ w["ffn.W1"]) * (h @ w["ffn.W3"])) @ w["ffn.W2"]
    return norm(x, weights["norm_f.gamma"])


states, test_states = (jnp.concatenate([hidden(weights, part, 4) for part in np.split(x, range(96, len(x), 96))])
                       for x in (train, test))  # fmt: skip
off = jnp.abs(test_states @ weights["E"].T - _tour_model.forward(weights, test, shape)).max()
print(f"largest difference of a logit: {off:.1e}; stored: {states.nbytes >> 20} MiB of hidden states,")
print(f"not {train.size * len(weights['E']) * 4 >> 20} MiB of logits")

# %% [markdown]
# ## Students
#
# A student has one layer instead of four. It starts as the teacher with the upper three layers taken away, which
# is much better than a random start and still far from the teacher. The losses are of one family, `rows.scaled_js(w)`,
#
# $$\frac{w\,\mathrm{KL}(p, m) + (1 - w)\,\mathrm{KL}(q, m)}{w\,(1 - w)}, \qquad m = w p + (1 - w) q,$$
#
# which is $\mathrm{KL}(p, q)$ at $w = 0$, $\mathrm{KL}(q, p)$ at $w = 1$ and four times the Jensen-Shannon divergence
# at $w = \frac12$, without a jump on the way. (`rows.kl`, `rows.reverse_kl` and `rows.js()` are these by name.) Adam
# does not see the factor 4. A weight may be traced, so four students with $w$ of 0, 1, 1/2 and 0.1 train in one
# program, by `vmap`. Every student gets the same start, the same 120 minibatches of 8 rows and the same Adam.
#
# We expect each student to be best at what it was trained for, forward KL to cover all that the teacher finds
# possible, reverse KL to leave some of it out.

# %%
STEPS, BATCH = 120, 8
LOSSES = {"kl": 0.0, "reverse_kl": 1.0, "js": 0.5, "scaled_js(0.1)": 0.1}
start = {name: w for name, w in weights.items() if not name.startswith("blocks.") or name.startswith("blocks.0.")}
adam = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))


def minibatch(key):
    """The numbers of some rows."""
    return jax.random.randint(key, (BATCH,), 0, len(train))


def student_of(params, tokens):
    """The student as a head over the vocabulary."""
    return Head(hidden(params, tokens, 1), params["E"].T)


def distance(params, weight, chosen):
    """The mean over the tokens of a minibatch of the divergence from the teacher."""
    teacher = Head(states[chosen], weights["E"].T)
    row = kljax.rows.scaled_js(weight)
    return kljax.heads.loss(row, teacher, student_of(params, train[chosen])) / (BATCH * LENGTH)


def of_all(params, key):
    """The sum of the losses of students that share nothing but the minibatch."""
    return jax.vmap(distance, (0, 0, None))(params, jnp.array(list(LOSSES.values())), minibatch(key)).sum()


def trained(loss, start):
    """The parameters after training."""
    return kljax.fit(loss, start, optimizer=adam, steps=STEPS, key=jax.random.key(0)).params


fitted = trained(of_all, jax.tree.map(lambda x: jnp.stack([x] * len(LOSSES)), start))
students = {"untrained": start} | {name: jax.tree.map(itemgetter(i), fitted) for i, name in enumerate(LOSSES)}
print(f"student: {sum(w.size for w in start.values()):,} parameters")

# %% [markdown]
# On held-out rows, all divergences of each student from the teacher, in nats a token; the entropy of the student's
# predictions; and how often its likeliest token is the teacher's.


# %%
MEASURES = ("kl", "reverse_kl", "js", "tv")
teacher = Head(test_states, weights["E"].T)


@jax.jit
def measured(params, teacher):
    """Of every held-out token: the divergences, the entropy, whether the likeliest token is the same."""
    student = student_of(params, test)
    p, q = (head.hidden @ head.weight for head in (teacher, student))
    found = {name: getattr(kljax.heads, name)(teacher, student) for name in MEASURES}
    return found | {"entropy": kljax.logits.entropy(q), "same top": 1.0 * (p.argmax(-1) == q.argmax(-1))}


def table(names):
    """Print the means over held-out tokens."""
    columns = (*MEASURES, "entropy", "same top")
    print(f"{'trained by':16}" + "".join(f"{column:>12}" for column in columns))
    for name in names:
        print(f"{name:16}" + "".join(f"{results[name][column].mean():12.4f}" for column in columns))


results = {name: measured(params, teacher) for name, params in students.items()}
table(results)
print("the student's own measure against each other student's, difference of means and its standard error over rows:")
for name in ("kl", "reverse_kl", "js"):
    gaps = {other: (results[other][name] - results[name][name]).mean(-1) for other in LOSSES if other != name}
    told = [f"{other} {gap.mean():+.4f} +- {gap.std() / len(gap) ** 0.5:.4f}" for other, gap in gaps.items()]
    print(f"{name:12}{', '.join(told)}")
print(f"entropy of the teacher: {kljax.logits.entropy(teacher.hidden @ teacher.weight).mean():.4f}")

# %% [markdown]
# Trained by KL, the student has the least KL, by more than six standard errors against any other; it is also the
# flattest, with the largest entropy. Trained by reverse KL it has less reverse KL than after KL and the least entropy
# of the four, which is still above the teacher's: none of these four is as sure as the teacher. But it is not the best
# in reverse KL: the JS student is a little better, by 2.7 standard errors over the held-out rows. Scaled JS at 0.1 lies
# near KL in KL and near JS in JS and total variation. The gap between untrained and trained is far larger than that
# between losses. This is one seed and a short training: read no more than the signs of the larger gaps from it.
#
# ## The teacher's most likely tokens alone
#
# `logits.top_k` keeps the $k$ likeliest outcomes of the teacher and the logarithm of the mass of all others, its
# tail: here 4 tokens, $2 k + 1$ numbers instead of 1024. `heads.loss` takes it for the teacher and compares $k + 1$
# outcomes, the last being "any other token". The common contrast renormalises both softmaxes over the $k$ tokens; then
# no loss says how much the student should give to the others.

# %%
K = 4


@jax.jit
def most_likely(states, weight):
    """The teacher's top k of every token, a few rows at a time."""
    return jax.lax.map(lambda h: kljax.logits.top_k(h @ weight, K), states)


top = most_likely(states, weights["E"].T)


def with_tail(params, chosen):
    """Forward KL over the k tokens and the tail."""
    some = jax.tree.map(lambda x: x[chosen], top)
    return kljax.heads.loss(kljax.rows.kl, some, student_of(params, train[chosen])) / (BATCH * LENGTH)


def renormalised(params, chosen):
    """Forward KL over the k tokens alone, as if there were no other."""
    head = student_of(params, train[chosen])
    kept = jnp.take_along_axis(head.hidden @ head.weight, top.indices[chosen], -1)
    return kljax.logits.kl(top.logits[chosen], kept).mean()


TAILS = {"top 4 and tail": with_tail, "top 4 alone": renormalised}


def of_both(params, key):
    """The sum of the losses of both students."""
    return sum(loss(params[name], minibatch(key)) for name, loss in TAILS.items())


students |= trained(of_both, dict.fromkeys(TAILS, start))
results |= {name: measured(students[name], teacher) for name in TAILS}
table(["kl", *TAILS])


@jax.jit
def tails(params, top):
    """The mass that teacher and student give to all but the teacher's k likeliest tokens."""
    head = student_of(params, test)
    return jnp.exp(top.log_tail), jnp.exp(kljax.logits.coarsen(head.hidden @ head.weight, top.indices)[..., -1])


test_top = most_likely(test_states, weights["E"].T)
masses = {name: tails(students[name], test_top) for name in ("kl", *TAILS)}
print("mass of the tail: teacher " + f"{masses['kl'][0].mean():.3f}", end="")
print("".join(f"; trained by {name} {q.mean():.3f}" for name, (_, q) in masses.items()))

# %% [markdown]
# Four tokens hold half of the teacher's mass. With the tail in the loss the student knows how much to give to the
# others, here a little closer to the teacher's than after the whole KL, though not to which: its KL is far behind that
# of the student that saw all 1024 outcomes. Without the tail the student gives nine tenths of its mass to tokens that
# are not among the teacher's four, and it is no better than untrained.

# %%
COLOURS = {"kl": "#0072B2", "reverse_kl": "#D55E00", "js": "#009E73", "scaled_js(0.1)": "#CC79A7"}
TAIL_COLOURS = {"kl": "#0072B2", "top 4 and tail": "#E69F00", "top 4 alone": "#000000"}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), dpi=100, layout="constrained")
best = {measure: min(results[name][measure].mean() for name in COLOURS) for measure in MEASURES}
for i, (name, colour) in enumerate(COLOURS.items()):
    values = [results[name][measure].mean() / best[measure] for measure in MEASURES]
    left.scatter(np.arange(len(MEASURES)) + 0.12 * (i - 1.5), values, color=colour, marker="osD^"[i], label=name)
left.set_xticks(range(len(MEASURES)), MEASURES)
left.set(ylabel="held-out mean over the least of the four", title="students by the loss that trained them")
left.legend(title="trained by", loc="upper right")
left.grid(axis="y", color="0.9")
bins = np.linspace(0, 1, 13)
for (name, (p, q)), marker in zip(masses.items(), "osD", strict=True):
    of = np.digitize(p.ravel(), bins)
    counts = np.bincount(of)
    x, y = (np.bincount(of, np.asarray(z.ravel(), np.float64)) / np.maximum(counts, 1) for z in (p, q))
    right.plot(x[counts > 20], y[counts > 20], marker=marker, color=TAIL_COLOURS[name], label=name)
right.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="equal")
right.set(xlabel="teacher's mass outside its top 4", ylabel="student's mean mass there", title="who sees the tail")
_ = right.legend(title="trained by")

# %% [markdown]
# Left: how far each student is from the best of the four in each measure. Right: the student trained on the top 4 alone
# gives the tail 0.8 to 0.95, whatever the teacher gives it; the other two follow the teacher, with too much in the tail
# where the teacher is sure.
#
# ## What the loss costs at a larger vocabulary
#
# At 1024 tokens the logits fit anywhere. Take a batch of 1024 tokens, hidden states of width 64 and $V = 32000$ (random
# weights: cost does not ask what they mean), and the loss with its gradient in the student's hidden states and matrix,
# by `heads.loss` and by the plain composite, in which the logits of all tokens stand in memory.

# %%
TOKENS, WIDTH, VOCABULARY = 1024, 64, 32000
keys = jax.random.split(jax.random.key(1), 4)
big, small = (
    Head(jax.random.normal(a, (TOKENS, WIDTH)), 0.25 * jax.random.normal(b, (WIDTH, VOCABULARY)))
    for a, b in (keys[:2], keys[2:])
)


def plain_kl(p, q):
    """Sum over tokens of KL(p, q), by hand."""
    log_p, log_q = (jax.nn.log_softmax(head.hidden @ head.weight) for head in (p, q))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))


def plain_js(p, q):
    """Sum over tokens of JS(p, q), by hand."""
    log_p, log_q = (jax.nn.log_softmax(head.hidden @ head.weight) for head in (p, q))
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    return 0.5 * jnp.sum(jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m))


programs = {
    "kl, heads.loss": partial(kljax.heads.loss, kljax.rows.kl),
    "kl, by hand": plain_kl,
    "js, heads.loss": partial(kljax.heads.loss, kljax.rows.js()),
    "js, by hand": plain_js,
}
temporary = {}
for name, loss in programs.items():
    compiled = jax.jit(jax.value_and_grad(loss, argnums=1)).lower(big, small).compile()
    jax.block_until_ready(compiled(big, small))
    begun = time.perf_counter()
    value, slope = jax.block_until_ready(compiled(big, small))
    seconds = time.perf_counter() - begun
    temporary[name] = compiled.memory_analysis().temp_size_in_bytes / 2**20
    size = np.linalg.norm([jnp.linalg.norm(x) for x in (slope.hidden, slope.weight)])
    print(f"{name:16}{temporary[name]:8.0f} MiB, {seconds:5.2f} s; value {value:.2f}, gradient's norm {size:.4f}")
print(f"one array of logits: {TOKENS * VOCABULARY * 4 / 2**20:.0f} MiB")

# %% [markdown]
# The values agree. By hand several arrays of the size of all logits stand at once; `heads.loss` has blocks of 64
# tokens, the gradient of the matrix and little else. Here it was not slower for it; times vary with the machine, the
# memory hardly.
#
# ## The check: float64
#
# The value and both gradients of `heads.loss` in float32, over blocks of 16 tokens, against the plain composite in
# float64, on the first 64 of those tokens. Errors are relative, in units of the float32 epsilon $1.2 \times 10^{-7}$;
# those of gradients are in norm. Both sides multiply the same float32 numbers; what differs is the rounding of the
# products and of all that follows.

# %%
p, q = (Head(head.hidden[:64], head.weight) for head in (big, small))
found = {
    "kl": jax.value_and_grad(partial(kljax.heads.loss, kljax.rows.kl, block=16), argnums=1)(p, q),
    "js": jax.value_and_grad(partial(kljax.heads.loss, kljax.rows.js(), block=16), argnums=1)(p, q),
}
with jax.enable_x64(True):
    wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (p, q))
    exact = {name: jax.value_and_grad(f, argnums=1)(*wide) for name, f in (("kl", plain_kl), ("js", plain_js))}
exact = jax.tree.map(np.asarray, exact)


def in_eps(got, want):
    """The relative error, in norm, in float32 epsilons."""
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want) / np.finfo(np.float32).eps


errors = {name: [in_eps(*pair) for pair in zip(*map(jax.tree.leaves, (found[name], exact[name])), strict=True)]
          for name in found}  # fmt: skip
for name, (value, back, over) in errors.items():
    print(f"{name}: value {value:.2f} eps, gradient in the hidden states {back:.1f} eps, in the matrix {over:.1f} eps")

covered = kljax.heads.kl(test_top, student_of(students["kl"], test))
whole = results["kl"]["kl"]
print(f"KL over the top 4 and the tail {covered.mean():.4f}, over all outcomes {whole.mean():.4f}")

# %% [markdown]
# The rounding of the products of matrices is what is seen in the gradients. The last line is a second law: merging
# outcomes cannot raise a divergence, so that the KL with the tail is a lower bound of the whole at every token.

# %%
for name, (value, *slopes) in errors.items():
    assert value < 10, (name, value)
    assert max(slopes) < 40, (name, slopes)
assert (covered <= whole * (1 + 1e-5) + 1e-6).all()
assert temporary["kl, heads.loss"] * 2**20 < TOKENS * VOCABULARY * 4  # less than one array of logits
