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


@pytest.mark.lenient
@pytest.mark.parametrize("verb", [kljax.pairwise, kljax.fit], ids=lambda f: f.__name__)
def test_a_verb_is_documented(verb):
    run(verb.__doc__, verb.__name__)


FROM_DRAWS = [(m, name) for m in (kljax.samples, kljax.variational) for name in m.__all__ if name.islower()]
KERNELS = ("gaussian", "inverse_multiquadric", "laplace")


@pytest.mark.lenient
@pytest.mark.parametrize(("module", "name"), FROM_DRAWS, ids=lambda v: getattr(v, "__name__", v))
def test_what_draws_tell_is_documented(module, name):
    doc = getattr(module, name).__doc__
    assert name in KERNELS or all(word in doc for word in ("Shapes:", "`[", "Degenerate input:", "Errors:"))
    run(doc, f"{module.__name__}.{name}")


def written(text):
    """The matrix as a text shows it: cell -> marks of all columns."""
    columns = len(expected.WRITTEN)
    return dict(re.findall(rf"^ *([a-z_0-9]+) +([xb-](?: +[xb-]){{{columns - 1}}}) *$", text, re.M))


def test_one_matrix():
    marks = {cell: [row[column] for column in expected.WRITTEN] for cell, row in expected.MARKS.items()}
    for text in (README, kljax.__doc__):
        assert {cell: line.split() for cell, line in written(text).items()} == marks
    for column in expected.COLUMNS:
        module = getattr(kljax, column)
        types = [name for name in module.__all__ if name[0].isupper() or name.startswith("from_")]
        assert set(module.__all__) - set(types) == set(expected.EXISTS[column]), column


@pytest.mark.lenient
def test_the_code_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(block, {})
