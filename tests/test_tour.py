"""The tour: its parts in isolation, and one whole run."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from kljax import _tour, _tour_model, logits
from tests import accuracy


def test_rounding_is_within_half_a_step_and_keeps_what_is_on_the_grid():
    x = np.random.default_rng(0).normal(size=(4, 96)).astype(np.float32)
    once = np.asarray(_tour_model.round_groups(jnp.asarray(x), 4))
    step = np.abs(x.reshape(4, 3, 32)).max(-1, keepdims=True) / 7
    eps = np.finfo(np.float32).eps
    assert (np.abs(once - x).reshape(4, 3, 32) <= step / 2 * (1 + 8 * eps)).all()
    assert len(np.unique(np.round(once.reshape(4, 3, 32) / step))) <= 15


@pytest.mark.smoke
def test_a_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _tour.run() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "pip install" in err


@pytest.mark.smoke
def test_a_path_that_cannot_be_written_is_one_line(tmp_path, capsys):
    assert _tour.run(out=str(tmp_path / "none" / "x.png")) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "cannot be written" in err


@pytest.mark.lenient
def test_all_pairs_is_the_mean_of_each_two_models(capsys):
    models = np.random.default_rng(0).normal(size=(3, 5, 40)).astype(np.float32)
    found = _tour.all_pairs(dict(zip("abc", models, strict=True)))
    pairs = [[logits.js(p, q).mean() for q in models] for p in models]
    accuracy.close(found, np.asarray(pairs))
    accuracy.close(found, found.T)  # of a function of the user pairwise works out both triangles
    assert (np.diag(found) == 0).all()
    assert len(capsys.readouterr().out.splitlines()) == 5


def check_pairs(lines, js):
    """The printed matrix: symmetric, 0 on the diagonal, the table's js beside it; its root is a distance."""
    start = lines.index(["mean", "js", "of", "original", *map(str, _tour.BITS)])
    found = np.array([line[1:] for line in lines[start + 1 : start + 2 + len(_tour.BITS)]], float)
    last = 1.01e-5  # the last digit printed, where two ways to one value may round apart
    assert np.abs(found - found.T).max() <= last and (np.diag(found) == 0).all()
    assert np.abs(found[0, 1:] - js).max() <= last
    root = np.sqrt(found)
    rounded = np.sqrt(last)  # of a value that prints as 0
    assert (root[:, :, None] <= root[:, None] + root.T[None] + rounded).all()


@pytest.mark.slow
@pytest.mark.lenient
def test_the_whole_tour(tmp_path, capsys):
    picture = tmp_path / "tour.png"
    printed = []
    for _ in range(2):
        assert _tour.run(seed=3, out=str(picture)) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and picture.read_bytes().startswith(b"\x89PNG")
    lines = [line.split() for line in printed[0].splitlines()]
    kl = [float(line[2]) for line in lines if line[1:2] == ["bits"]]
    js = [float(line[4]) for line in lines if line[1:2] == ["bits"]]
    assert len(kl) == len(_tour.BITS) and kl == sorted(kl)
    check_pairs(lines, js)
    before, after = (float(next(x for x in lines if x[:1] == ["held-out"])[i]) for i in (2, 4))
    assert after < before
