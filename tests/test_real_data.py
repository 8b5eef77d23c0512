"""All pairs of real distributions: languages by their byte sequences, presidents' addresses by their words."""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

import kljax

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import real_data  # noqa: E402  a folder beside the package, not part of it
from tests import accuracy, matrix  # noqa: E402

languages, addresses = functools.cache(real_data.languages), functools.cache(real_data.addresses)
# each third language, or all 142: kl and hellinger_sq take 10 s each then
every = pytest.mark.parametrize(
    ("name", "step"),
    [
        pytest.param("js", 1, marks=pytest.mark.repeat),
        pytest.param("kl", 3, marks=pytest.mark.repeat),
        pytest.param("hellinger_sq", 3, marks=pytest.mark.repeat),
        *[pytest.param(n, 1, marks=pytest.mark.slow) for n in ("kl", "hellinger_sq")],
    ],
)


@functools.cache
def between_languages(name, step):
    return np.asarray(kljax.pairwise(getattr(kljax.logits, name), languages()[1][::step]))


@functools.cache
def between_addresses():
    return np.asarray(kljax.pairwise(kljax.probs.js, addresses()[2]))


def kl(log_p, log_q):
    return np.sum(np.exp(log_p) * (np.expm1(log_q - log_p) - (log_q - log_p)), -1)


def js(log_p, log_q):
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


def hellinger_sq(log_p, log_q):
    return np.sum(np.exp(log_p) * np.expm1((log_q - log_p) / 2) ** 2, -1) / 2


IN_FLOAT64 = {"kl": kl, "js": js, "hellinger_sq": hellinger_sq}


def nearest(found):
    return np.argmin(found + np.where(np.eye(len(found)), np.inf, 0), -1)


def test_what_the_tables_are():
    names, logs = languages()
    years, titles, counts = addresses()
    assert logs.shape == (142, 100_053) and logs.dtype == np.float32 and len(set(names)) == 142
    assert counts.shape == (249, 5000) and counts.dtype == np.float32 and (np.diff(years) >= 0).all()
    assert titles[0] == "1790-Washington-1" and (counts.sum(0) > 0).all() and set(real_data.EUROPEAN) <= set(names)


@every
def test_languages_keep_the_laws(name, step):
    found = between_languages(name, step)
    apart = found[~np.eye(len(found), dtype=bool)]
    assert (np.diag(found) == 0).all() and (apart > 0).all() and np.isfinite(apart).all()
    assert name not in matrix.SYMMETRIC or np.array_equal(found, found.T)
    assert apart.max() <= {"kl": np.inf, "js": np.log(2), "hellinger_sq": 1}[name]


@every
def test_languages_are_right_to_the_last_digits(name, step):
    """30 pairs at random and the 15 that are nearest. Seen: 1.4 eps at most."""
    found, rng = between_languages(name, step), np.random.default_rng(0)
    logs = languages()[1][::step].astype(np.float64)
    near = np.argsort((found + np.where(np.eye(len(found)), np.inf, 0)).ravel())[:15]
    for i, j in [
        *zip(*np.divmod(near, len(found)), strict=True),
        *[rng.choice(len(found), 2, False) for _ in range(30)],
    ]:
        p, q = (row - np.logaddexp.reduce(row) for row in (logs[i], logs[j]))
        accuracy.close(found[i, j], IN_FLOAT64[name](p, q), np.float32, accuracy.VALUE)


def test_a_product_by_hand_is_neither_0_nor_positive():
    """What pairwise avoids: in float32 a language is up to 3e-5 from itself, on either side of 0."""
    logs = np.asarray(jax.nn.log_softmax(languages()[1]))
    p = np.exp(logs)
    by_hand = np.sum(p * logs, -1)[:, None] - p @ logs.T
    assert by_hand.min() < 0 and (np.diag(by_hand) != 0).any()


RELATIVES = """
no da, da no, nn no, is fo, af nl, nl af, lb de, hr bs, bs hr, sr2 hr, cs sk, sk cs, uk ru, be uk, bg mk, mk bg, lv ltg,
fi et, et fi, ga gd, gd ga, gl pt, pt gl, es gl, ca oc, vec it, it vec, ms id, id ms, xh zu, zu xh, nso st, st nso,
zh wuu, as bn, arz ar, ba tt, tr crh, el grc, he hbo
"""


@pytest.mark.repeat
def test_the_nearest_language_is_a_relative():
    names = languages()[0]
    found = {name: names[j] for name, j in zip(names, nearest(between_languages("js", 1)), strict=True)}
    for pair in RELATIVES.split(","):
        one, other = pair.split()
        assert found[one] == other


@pytest.mark.repeat
def test_words_drift_away_from_the_early_addresses():
    """.0087 .0169 .0328 .0515 .0676 .1138 .1433 .1809 in periods of 30 years from 1790 on."""
    years, _, counts = addresses()
    firsts, found = real_data.drift(years, counts)
    assert firsts.tolist() == list(range(1790, 2001, 30)) and (np.diff(found) > 0).all()
    early = counts[years < real_data.EARLY].sum(0)
    for period, value in zip(real_data.pooled(years, counts, real_data.SPAN)[1], found, strict=True):
        accuracy.close(value, jensenshannon(*(x.astype(np.float64) for x in (period, early))) ** 2, np.float32, 8)


def test_the_more_years_between_the_farther():
    """Every period is the farther from another the more lie between: no row grows towards the diagonal."""
    found = np.asarray(kljax.pairwise(kljax.probs.js, real_data.pooled(*addresses()[::2], real_data.SPAN)[1]))
    for i, row in enumerate(found):
        assert (np.diff(row[i:]) > 0).all() and (np.diff(row[: i + 1]) < 0).all(), i


@pytest.mark.repeat
def test_single_addresses():
    years, titles, counts = addresses()
    found, rng = between_addresses(), np.random.default_rng(0)
    assert np.array_equal(found, found.T) and (np.diag(found) == 0).all()
    for i, j in [rng.choice(len(found), 2, False) for _ in range(60)]:
        p, q = counts[i].astype(np.float64), counts[j].astype(np.float64)
        accuracy.close(found[i, j], jensenshannon(p, q) ** 2, np.float32, accuracy.VALUE)
    titles, close = np.array(titles), nearest(found)
    assert titles[close[titles == "1980-Carter-1"]] == "1981-Carter-1"
    assert np.median(np.abs(years - years[close])) == 1  # the nearest address is that of the year before or after
