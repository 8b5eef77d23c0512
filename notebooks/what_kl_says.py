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
# # What KL says and does not say
#
# The Kullback-Leibler divergence is one number for "how different is $q$ from $p$". This notebook takes the words that
# come with it (cross-entropy, asymmetry, support, mode seeking, outliers) one at a time, as code, and asks the same of
# the alternatives. Everything here runs unchanged on a CPU, a GPU or a TPU.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import kljax
from kljax.mixture import Mixture
from kljax.normal import LogScaleNormal, Normal

# %% [markdown]
# ## The formula
#
# $$\mathrm{KL}(p, q) = \sum_i p_i \log \frac{p_i}{q_i} \ge 0$$
#
# is the number of nats by which a code made for $q$ is longer, on average over $p$, than the code made for $p$. The
# code made for $q$ has the length of the cross-entropy, the one made for $p$ that of the entropy. So
# $H(p, q) = H(p) + \mathrm{KL}(p, q)$, and minimising a cross-entropy over $q$ minimises KL: $H(p)$ does not depend on
# $q$. But a cross-entropy does not fall to 0 when the fit is perfect, and KL does.

# %%
p = jnp.array([0.5, 0.3, 0.2])
q = jnp.array([0.4, 0.4, 0.2])
kl, cross, entropy = kljax.probs.kl(p, q), kljax.probs.cross_entropy(p, q), kljax.probs.entropy(p)
print(f"KL {kl:.6f} = cross-entropy {cross:.6f} - entropy {entropy:.6f} = {cross - entropy:.6f}")
print("gradient of KL in the logits of q:           ", jax.grad(kljax.logits.kl, 1)(jnp.log(p), jnp.log(q)))
print("gradient of cross-entropy in the logits of q:", jax.grad(kljax.logits.cross_entropy, 1)(jnp.log(p), jnp.log(q)))

# %% [markdown]
# ## Asymmetry and support
#
# KL is no distance: $\mathrm{KL}(p, q) \ne \mathrm{KL}(q, p)$, and no triangle inequality holds. The two directions
# differ most where one distribution has mass and the other has none. One outcome that $p$ has and $q$ has not makes
# $\mathrm{KL}(p, q)$ infinite, however small its mass; an outcome that only $q$ has costs little.
#
# Below are ten divergences and distances of five pairs: close, supports of which one is within the other, an outlier of
# mass $10^{-4}$ to which $q$ gives all but nothing ($10^{-12}$), and disjoint supports.

# %%
uniform = jnp.ones(4) / 4
outlier = jnp.array([0.25, 0.25, 0.25, 0.2499, 1e-4])
PAIRS = {
    "close": (jnp.array([0.25, 0.25, 0.25, 0.25]), jnp.array([0.26, 0.24, 0.25, 0.25])),
    "q lacks one": (uniform, jnp.array([1 / 3, 1 / 3, 1 / 3, 0])),
    "p lacks one": (jnp.array([1 / 3, 1 / 3, 1 / 3, 0]), uniform),
    "outlier": (outlier, outlier.at[4].set(1e-12)),
    "disjoint": (jnp.array([0.5, 0.5, 0, 0]), jnp.array([0, 0, 0.5, 0.5])),
}
NAMES = ("kl", "reverse_kl", "jeffreys", "chi2", "js", "tv", "hellinger_sq", "le_cam", "bhattacharyya", "fisher_rao")
print(f"{'':14}" + "".join(f"{pair:>13}" for pair in PAIRS))
for name in NAMES:
    print(f"{name:14}" + "".join(f"{getattr(kljax.probs, name)(*pair):13.3g}" for pair in PAIRS.values()))

# %% [markdown]
# - The unbounded ones (kl, reverse_kl, jeffreys, chi2, bhattacharyya) say infinity for disjoint supports, and so give
#   no direction in which to move $q$.
# - The bounded ones end at a constant: js at $\log 2$, tv and hellinger_sq at 1, le_cam at 2, fisher_rao at $\pi$. They
#   are finite, but flat there: two disjoint distributions are as far apart as two others that are further away.
# - chi2 is the one that the outlier of mass $10^{-4}$ excites most: it is divided by what $q$ gives it. KL counts it
#   by a logarithm, the bounded ones by little more than its mass.
#
# Only a divergence that knows distances between outcomes sees how far apart disjoint supports are. Wasserstein's does:

# %%
for gap in (1, 2, 6):
    left, right = jnp.zeros(8).at[0].set(1.0), jnp.zeros(8).at[gap].set(1.0)
    values = {name: float(getattr(kljax.probs, name)(left, right)) for name in ("kl", "js", "wasserstein1")}
    print(f"points {gap} apart:", "  ".join(f"{name} {value:.3f}" for name, value in values.items()))

# %% [markdown]
# ## One Gaussian for two modes
#
# Now the textbook picture, computed: $p$ is a mixture of two Gaussians with weights 0.65 and 0.35, $q$ one Gaussian.
# Both densities are taken at 2561 points, so that their values are logits of two discrete distributions and any cell
# of `kljax.logits` compares them. `kljax.fit` minimises each divergence over the mean and the scale of $q$, from nine
# means at once (they are independent, so the sum of their losses serves them all); the lowest of the nine is kept.

# %%
x = jnp.linspace(-16, 16, 2561)[:, None]
mixture = Mixture(jnp.log(jnp.array([0.65, 0.35])), Normal(jnp.array([[-2.0], [3.0]]), jnp.array([[0.8], [0.6]])))
DIVERGENCES = {
    "forward KL": kljax.logits.kl,
    "Rényi, order 2": lambda p, q: kljax.logits.renyi(p, q, order=2.0),
    "reverse KL": kljax.logits.reverse_kl,
    "Jensen-Shannon": kljax.logits.js,
    "Hellinger²": kljax.logits.hellinger_sq,
    "total variation": kljax.logits.tv,
}


def log_density(q):
    return jax.vmap(lambda each: kljax.normal.log_prob(each, x))(q)  # [starts, 2561]


def fitted(divergence, log_p, starts):
    means = jnp.asarray(starts)[:, None]
    found = kljax.fit(
        lambda q: divergence(log_p, log_density(q)).sum(), LogScaleNormal(means, jnp.zeros_like(means)), steps=1000
    ).params
    values = divergence(log_p, log_density(found))
    return jax.tree.map(lambda a: a[jnp.argmin(values)], found), values


log_p = kljax.mixture.log_prob(mixture, x)
starts = np.linspace(-5, 5, 9)
best = {}
print(f"{'':16}     mean    scale   lowest  the nine starts end at")
for name, divergence in DIVERGENCES.items():
    best[name], values = fitted(divergence, log_p, starts)
    mean, scale = float(best[name].loc[0]), float(jnp.exp(best[name].log_scale[0]))
    ends = sorted({f"{value:.2f}" for value in np.asarray(values)})
    print(f"{name:16} {mean:8.3f} {scale:8.3f} {values.min():8.4f}  {' '.join(ends)}")

# %%
figure, axes = plt.subplots(2, 3, figsize=(10, 5.2), sharex=True, sharey=True, layout="constrained")
for ax, (name, q) in zip(axes.flat, best.items(), strict=True):
    ax.fill_between(x[:, 0], jnp.exp(log_p), color="0.85", label="p")
    ax.plot(x[:, 0], jnp.exp(log_density(jax.tree.map(lambda a: a[None], q))[0]), color="#0072b2", label="q")
    ax.set(title=name, xlim=(-6, 6), ylim=(0, 0.62))
axes[0, 0].legend(loc="upper left", frameon=False)
_ = figure.supylabel("density")

# %% [markdown]
# Forward KL covers: wherever $p$ has mass $q$ must have some, so $q$ spreads over both modes and puts its own peak
# where $p$ has almost nothing. Its optimum is known in closed form, the mean and the variance of $p$ (moment matching),
# which is checked at the end. Rényi's divergence of order 2 weighs $p/q$ even more and spreads a little further.
# Reverse KL seeks: mass of $q$ where $p$ has none is what it pays for, so $q$ settles in one mode; the start tells
# which, and the heavier mode has the lower value (0.43 against 1.05). The bounded ones are in between, and not all on
# one side: Jensen-Shannon prefers the heavier mode, total variation too, with a wider Gaussian; Hellinger's best
# covers both, and its seeking ends are only local minima.

# %% [markdown]
# ## An outlier
#
# $p$ is a standard Gaussian of mass 0.95 and a narrow bump of mass 0.05 that moves away from it. Where does the best
# single Gaussian go?

# %%
places = np.linspace(0, 8, 17)


def contaminated(place):
    parts = Normal(jnp.stack([jnp.zeros(1), place[None]]), jnp.array([[1.0], [0.3]]))
    return kljax.mixture.log_prob(Mixture(jnp.log(jnp.array([0.95, 0.05])), parts), x)


log_ps = jax.vmap(contaminated)(jnp.asarray(places))  # [17, 2561]: all places are fitted at once
moved = {}
for name, divergence in DIVERGENCES.items():
    start = LogScaleNormal(jnp.zeros((len(places), 1)), jnp.zeros((len(places), 1)))
    moved[name] = kljax.fit(lambda q, d=divergence: d(log_ps, log_density(q)).sum(), start, steps=800).params

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
colours = ("#d55e00", "#cc79a7", "#0072b2", "#009e73", "#e69f00", "0.3")
lines = ("-", "--", "-", "-", "--", ":")
for (name, q), colour, line in zip(moved.items(), colours, lines, strict=True):
    axes[0].plot(places, q.loc[:, 0], color=colour, linestyle=line, label=name)
    axes[1].plot(places, jnp.exp(q.log_scale[:, 0]), color=colour, linestyle=line)
axes[0].set(xlabel="place of the bump", ylabel="fitted mean")
axes[1].set(xlabel="place of the bump", ylabel="fitted scale")
_ = axes[0].legend(frameon=False, loc="upper left")

# %%
print(f"the bump at 8: {'':12} mean    scale")
for name, q in moved.items():
    print(f"{name:24} {q.loc[-1, 0]:8.3f} {jnp.exp(q.log_scale[-1, 0]):8.3f}")

# %% [markdown]
# Under forward KL the mean follows the bump without end, by 5 % of its distance, and the scale grows with it: 5 % of
# the data is worth a lot of nats when $q$ gives it none. Rényi's of order 2 follows further still. The others let go of
# it once it is far enough to be a mode of its own; total variation has many minima there, as it does not care how mass
# is spread as long as it covers the 95 %.
#
# ## The number itself
#
# All of this supposes that the number is right. The formula by hand in float32 is a sum of terms of both signs that
# cancel: near equality it is mostly rounding.

# %%
a = jax.random.normal(jax.random.key(0), (1000,))
direction = jax.random.normal(jax.random.key(1), (1000,))


def by_hand(p, q):
    return jnp.sum(jax.nn.softmax(p) * (jax.nn.log_softmax(p) - jax.nn.log_softmax(q)))


print("step      float64        kljax, float32   by hand, float32")
for step in (1e-1, 1e-2, 1e-3, 1e-4):
    b = a + step * direction
    with jax.enable_x64(True):
        true = float(kljax.logits.kl(np.float64(a), np.float64(b)))
    print(f"{step:.0e}   {true:.8e}   {kljax.logits.kl(a, b):.8e}   {by_hand(a, b):+.8e}")

# %% [markdown]
# ## What must hold
#
# The forward fit is the mean and the scale of $p$, here by L-BFGS to the last digits. Nothing in the fit knows that;
# a wrong value or a wrong gradient would end elsewhere.

# %%
share = np.exp(np.asarray(log_p, np.float64))
share /= share.sum()
mean = (share * np.asarray(x[:, 0], np.float64)).sum()
scale = np.sqrt((share * (np.asarray(x[:, 0], np.float64) - mean) ** 2).sum())
start = LogScaleNormal(jnp.ones((1, 1)), jnp.zeros((1, 1)))
found = kljax.fit(lambda q: kljax.logits.kl(log_p, log_density(q)).sum(), start, optimizer=optax.lbfgs(), steps=40)
fitted_mean, fitted_scale = found.params.loc.item(), jnp.exp(found.params.log_scale).item()
print(f"moments of p: {mean:.6f} {scale:.6f}   forward KL's Gaussian: {fitted_mean:.6f} {fitted_scale:.6f}")
assert abs(fitted_mean - mean) < 2e-5 and abs(fitted_scale - scale) < 2e-5
