"""The notebooks: each source and its executed pair agree, and each runs as it stands (slow, but CI runs them)."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
LIMIT = 1 << 20  # bytes of an executed notebook


def cells(notebook):
    """Kind and text of each cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_executed(source):
    executed = source.with_suffix(".ipynb")
    assert executed.stat().st_size < LIMIT
    notebook = nbformat.read(executed, 4)
    assert cells(notebook) == cells(jupytext.read(source)), "python -m jupytext --to ipynb --execute"
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    last = ast.parse([cell.source for cell in notebook.cells if cell.cell_type == "code"][-1])
    assert any(isinstance(node, ast.Assert) for node in ast.walk(last.body[-1]))


def test_every_executed_notebook_has_a_source():
    assert SOURCES and {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in SOURCES}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs(source):
    environment = {**os.environ, "MPLBACKEND": "Agg", "XLA_FLAGS": ""}
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(source)]
    subprocess.run(command, check=True, cwd=FOLDER, env=environment, timeout=360, stdout=subprocess.DEVNULL)
