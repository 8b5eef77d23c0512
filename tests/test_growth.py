"""What the README says of adding a row and a column, done to a copy of the package as it is written there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import matrix

HERE = Path(__file__).parent.parent
README = (HERE / "README.md").read_text()
MARKS = rf"(?m)^ *([a-z_0-9]+) +[xb-](?: +[xb-]){{{len(matrix.WRITTEN) - 1}}}"  # a line of the matrix
COLUMN = '''"""Waiting times by their rate."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from kljax import _check, affinity
from kljax._jensen import log_gap, log_over, within

__all__ = ["Waiting", "kl", "renyi"]


class Waiting(NamedTuple):
    """Density r e^(-r x)."""

    rate: Any  # [...]


def _checked(cell, *given):
    fields = zip("pq", _check.wide(*(d.rate for d in given)), (0, 0), strict=False)
    return tuple(map(Waiting, _check.together(f"kljax.waiting.{cell}", list(fields))))


def _gap(p, q, a):
    outside, a = within(a, (p.rate, q.rate, q.rate - p.rate))
    return jnp.where(outside, jnp.inf, log_gap(p.rate, q.rate, q.rate - p.rate, a))


def _kl(p, q):
    return _gap(p, q, jnp.ones_like(p.rate))


def _largest(p, q):
    return jnp.where(p.rate < q.rate, jnp.inf, log_over(p.rate, q.rate))


def _entropy(p):
    return 1 - jnp.log(p.rate)


COLUMN = affinity.Densities(
    "waiting", _checked, _entropy, lambda p, q: _entropy(p) + _kl(p, q), _kl, _gap, _largest
)
_TEXT = {
    "@shapes": "Shapes: p, q `Waiting([..., N]) -> [..., N]`, in nats.",
    "@errors": "Degenerate input: a nan spoils its own element alone.",
    "@pair": "kljax.waiting.Waiting(1.0), kljax.waiting.Waiting(2.0)",
    "kl": "0.3069", "renyi": "0.1178",
}
_cell = functools.partial(affinity.bind, COLUMN, text=_TEXT)

kl = _cell(affinity.kl)
renyi = _cell(affinity.renyi)
'''
USE_OF_THE_ROW = """
import jax, jax.numpy as jnp, kljax
p, q = jnp.array([[0.2, 0.3, 0.5], [0.3, 0.4, 0.3]]), jnp.array([[0.1, 0.6, 0.3], [0.3, 0.4001, 0.2999]])
for column, a, b in ((kljax.probs, p, q), (kljax.logits, jnp.log(p), jnp.log(q))):
    both = lambda a, b: column.chi2(a, b) + column.chi2(b, a)
    assert jnp.allclose(column.symmetric_chi2(a, b), both(a, b), rtol=2e-6, atol=0)
    slopes = [jax.grad(lambda b: f(a, b).sum())(b) for f in (column.symmetric_chi2, both)]
    assert jnp.abs(slopes[0] - slopes[1]).max() < 2e-6 * jnp.abs(slopes[1]).max()
    assert (column.f_divergence(a, b, row=kljax.rows.symmetric_chi2) == column.symmetric_chi2(a, b)).all()
"""
USE_OF_THE_COLUMN = """
import jax, jax.numpy as jnp, kljax
p, q = (jnp.array([1.0, 2.0]), jnp.array([1.5, 2.001]))
ours = kljax.waiting.kl(kljax.waiting.Waiting(p), kljax.waiting.Waiting(q))
assert (ours == kljax.expfam.kl(kljax.expfam.Exponential(p), kljax.expfam.Exponential(q))).all()
table = kljax.waiting.Waiting(jnp.array([1.0, 2.0, 4.0]))
assert kljax.pairwise(kljax.waiting.renyi, table, order=0.5).shape == (3, 3)
print(jax.grad(lambda p: kljax.waiting.kl(p, kljax.waiting.Waiting(3.0)))(kljax.waiting.Waiting(1.0)))
"""


@pytest.fixture
def copy(tmp_path):
    """The package, its README and the tests of its documentation."""
    shutil.copytree(HERE / "kljax", tmp_path / "kljax", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in (
        "README.md",
        "pyproject.toml",
        *(f"tests/{n}.py" for n in ("__init__", "conftest", "matrix", "test_docs")),
    ):
        shutil.copy(HERE / name, tmp_path / name)
    return tmp_path


def steps(title):
    """The steps of a section, and whether it is as short as it should be."""
    section = README.split(f"## {title}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?m)^\d\. (.*)$", section)
    assert 0 < len(found) <= 7
    return found


def change(path, *steps):
    """A file after some replacements, each of which must find something."""
    text = path.read_text()
    for pattern, new in steps:
        text, count = re.subn(pattern, new, text)
        assert count, (path.name, pattern)
    path.write_text(text)


def run(folder, *command):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.repeat
def test_a_row(copy):
    """One line of mathematics, and copies of the lines of another row."""
    first, *_ = steps("Add a row")
    name, line = "symmetric_chi2", re.search(r"`(symmetric_chi2 = .*?)`\.", first)[1]
    rows, cells = copy / "kljax/rows.py", copy / "kljax/_cells.py"
    rows.write_text(f"{rows.read_text()}\n\n{line}\n")
    cell = re.search(r"(?s)\ndef le_cam\(.*?\n\n\n", cells.read_text())[0].replace("le_cam", name)
    cell = re.sub(
        r'""".*?\n', '"""Symmetric chi-squared divergence, chi2(p, q) + chi2(q, p), in [0, inf].\n', cell, count=1
    )
    cells.write_text(cells.read_text() + "\n\n" + cell.replace("0.3810", "2.4178"))
    for column in ("probs", "logits"):
        change(
            copy / f"kljax/{column}.py", (r"(?m)^(.*le_cam.*)$", lambda m: f"{m[1]}\n{m[1].replace('le_cam', name)}")
        )
    for text in ("README.md", "kljax/__init__.py", "tests/matrix.py"):
        change(copy / text, (r"(?m)^( *)le_cam( +[xb-] .*)$", lambda m: f"{m[0]}\n{m[1]}{name}{m[2]}"))
    run(copy, "-c", USE_OF_THE_ROW)
    run(copy, "-m", "pytest", "-q", "-n", "0", "tests/test_docs.py", "-k", f"{name} or one_matrix")


def test_a_column(copy):
    """One file, an import and a mark for each row that it has."""
    assert "affinity.Densities" in steps("Add a column")[1]
    (copy / "kljax/waiting.py").write_text(COLUMN)
    change(copy / "kljax/__init__.py", ("from kljax import expfam, ", "from kljax import expfam, waiting, "))
    for text in ("README.md", "kljax/__init__.py", "tests/matrix.py"):
        change(
            copy / text,
            (MARKS, lambda m: f"{m[0]}  {'x' if m[1] in ('kl', 'renyi') else '-'}"),
            ("(?m)^( +probs|cell +probs)(.*) expfam", r"\1\2 expfam waiting"),
        )
    run(copy, "-c", USE_OF_THE_COLUMN)
    run(copy, "-m", "pytest", "-q", "-n", "0", "tests/test_docs.py", "-k", "waiting or one_matrix")
