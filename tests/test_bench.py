"""Every entry of bench/cases.py runs, and is the divergence that it stands beside."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import cases  # noqa: E402  a folder beside the package, not part of it
from tests import accuracy, matrix  # noqa: E402

pytestmark = [pytest.mark.smoke, pytest.mark.lenient]
THOUSANDTH = 1e-3 / np.finfo(np.float32).eps  # in eps: a formula by hand is right to a few digits at distance 1
ENTRIES = [(c, "by hand", n) for c in matrix.DISCRETE for n in cases.TEXTBOOK]
ENTRIES += [(c, peer, n) for c, peers in cases.PEERS.items() for peer, cells in peers.items() for n in cells]


def test_every_cell_has_its_formula():
    assert set(cases.TEXTBOOK) == set(matrix.oracled("probs")) and set(cases.ONE) == set(matrix.ONE)


@pytest.mark.parametrize(("column", "peer", "name"), ENTRIES)
def test_an_entry_is_the_cell(column, peer, name):
    p, q = cases.inputs(column, 8, 16, distance=1.0)
    theirs = cases.by_hand(column, name) if peer == "by hand" else cases.PEERS[column][peer][name]
    got, ours = np.asarray(theirs(p, q), np.float64), np.asarray(cases.ours(column, name)(p, q))
    assert got.shape == ours.shape == (8,)
    accuracy.close(ours, accuracy.exact(got), np.float32, THOUSANDTH)
