"""Documentation that runs: every docstring's example, the README's code, and one matrix in three places."""

import doctest
import re
from pathlib import Path

import pytest

import kljax
from kljax import rows
from tests import matrix as expected

README = (Path(__file__).parent.parent / "README.md").read_text()
PUBLIC = [(getattr(kljax, column), name) for column in expected.COLUMNS for name in expected.EXISTS[column]]


def run(text, name):
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert test.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.lenient
@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda v: getattr(v, "__name__", v))
def test_a_cell_is_documented(module, name):
    cell = getattr(module, name)
    assert cell.__name__ == name and cell.__module__ == module.__name__
    doc = cell.__doc__
    assert "@" not in doc and ("`[..., " in doc or "([..., " in doc or "`[K]" in doc), doc
    assert "Zero mass" in doc or "Degenerate input" in doc or name == "sample", doc
    run(doc, f"{module.__name__}.{name}")


@pytest.mark.lenient
def test_rows_are_documented():
    run(rows.from_convex.__doc__, "from_convex")


def matrix(text):
    return dict(re.findall(r"^ *([a-z_0-9]+) +([x-] +[x-])$", text, re.M))


def test_one_matrix():
    assert matrix(README) == matrix(kljax.__doc__)
    for name, marks in matrix(README).items():
        for module, mark in zip((kljax.probs, kljax.logits), marks.split(), strict=True):
            assert (name in module.__all__) == (mark == "x"), name
    discrete = {name for module, name in PUBLIC if module in (kljax.probs, kljax.logits)}
    assert set(matrix(README)) == discrete


@pytest.mark.lenient
def test_the_code_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(block, {})
