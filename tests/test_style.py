"""The rules of the house, read off the source."""

import ast
import graphlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import kljax
from tests import matrix

FOLDER = Path(kljax.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))
OTHER = ("top_k", "coarsen", "sample", "kl_natural", "renyi_natural", "tv_shared", "loss")  # not of p, or of p and q
CELLS = [getattr(getattr(kljax, c), n) for c in matrix.COLUMNS for n in matrix.EXISTS[c] if n not in OTHER]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{node.name}: {length} lines"


@pytest.mark.parametrize("cell", CELLS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_arguments(cell):
    parameters = inspect.signature(cell).parameters
    assert list(parameters)[0] in ("p", "joint")
    for parameter in parameters.values():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        assert keyword == (parameter.name not in ("p", "q", "joint", "x")), parameter
    known = "p q x joint axis axes where order weight weights gamma row over positions temperature block".split()
    assert set(parameters) <= set(known)


@pytest.mark.parametrize(("name", "owner"), [("chex", "_check.py"), ("optax", "_fit.py")])
def test_one_file_imports_each(name, owner):
    users = {p.name for p in FILES if f"import {name}" in p.read_text()}
    assert users == {owner}


def imported(path):
    """The files of the package that one imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kljax":
            names = [node.module.partition(".")[2]] if "." in node.module else [alias.name for alias in node.names]
            found.update(f"{name.split('.')[0]}.py" for name in names)
    return {name for name in found if (FOLDER / name).exists()}


def test_imports_form_no_circle():
    graph = {path.name: imported(path) for path in FILES}
    assert len(set().union(*graph.values())) > 50
    tuple(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the files of a circle


def test_importing_starts_no_backend():
    code = "import sys, kljax; from jax._src import xla_bridge as b; "
    code += "sys.exit(bool(b._backends) + ('optax' in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FOLDER.parent)


@pytest.mark.parametrize("column", matrix.COLUMNS)
def test_columns_have_what_the_matrix_says(column):
    public = [n for n in getattr(kljax, column).__all__ if n.islower() and not n.startswith("from_")]
    assert sorted(public) == sorted(matrix.EXISTS[column])
    assert all(matrix.REASONS[n] for n, marks in matrix.MARKS.items() if "-" in marks.values())


@pytest.mark.smoke
@pytest.mark.xdist_group("groups")
def test_groups_of_tests_stay_in_one_process(request):
    """pytest 9.2 took the names away by which pytest-xdist 3.8 keeps groups (its issue 1386), and nothing said so."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("not in a process of pytest-xdist that distributes by groups")
    assert request.node.nodeid.endswith("@groups")
