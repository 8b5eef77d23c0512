"""The pages of kljax: its docstrings, and the notebooks as they were executed. Built by

python -m sphinx -W -b html -c notebooks/site notebooks build/site
"""

import re
from pathlib import Path

import kljax

FOLDER = Path(__file__).parent
COLUMNS = ("probs", "logits", "heads", "normal", "mvn", "lowrank", "mixture", "expfam")
MARKS = {"x": "x", "b": "bound", "-": ""}

project = "kljax"
release = kljax.__version__
root_doc = "site/index"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "myst_nb"]
exclude_patterns = ["*.py", "**/*.py", "figures", "README.md", ".ipynb_checkpoints"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "kljax"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
default_role = "code"


def _matrix() -> str:
    """Which quantity exists of which column, from the docstring of the package, each cell a link to its own."""
    width = len(COLUMNS)
    rows = re.findall(rf"^ *([a-z_0-9]+) +([xb-](?: +[xb-]){{{width - 1}}}) *$", kljax.__doc__ or "", re.M)
    lines = [
        "| | " + " | ".join(f"{{py:mod}}`~kljax.{column}`" for column in COLUMNS) + " |",
        "|---" * (width + 1) + "|",
    ]
    for name, marks in rows:
        cells = [
            f"{{py:obj}}`{MARKS[mark]} <kljax.{column}.{name}>`" if mark != "-" else ""
            for column, mark in zip(COLUMNS, marks.split(), strict=True)
        ]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _written(app, name: str, source: list[str]) -> None:
    """Put the matrix where its page has a place for it."""
    source[0] = source[0].replace("@matrix@", _matrix())


def _marked(app, what: str, name: str, thing, options, lines: list[str]) -> None:
    """From the plain text of a docstring to reStructuredText: paragraphs at labels, nothing else has a meaning."""
    found, code = [], False
    for line in lines:
        code = line.startswith(">>>") or (code and bool(line))
        if not code and not line.startswith("    "):
            parts = re.split(r"(`[^`]*`)", line)
            line = "".join(re.sub(r"([*|_\\])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))
            label = re.match(r"(Shapes|Zero mass|Degenerate input|Errors|Source|Limits):", line)
            if label:
                found.append("")
                line = f"**{label[0]}**{line[label.end() :]}"
        elif not code and found and not found[-1].startswith("    "):
            if found[-1]:
                line = line.strip()  # no formula, a line that goes on
            else:
                found[-1:] = ["::", ""]
        elif line and not code and found and found[-1].startswith("    "):
            found.append("")
        found.append(line)
    lines[:] = found


def _skipped(app, what: str, name: str, thing, skip: bool, options) -> bool | None:
    """Fields of named tuples are written in the text of the class."""
    return True if (getattr(thing, "__doc__", "") or "").startswith("Alias for field number") else None


def setup(app) -> None:
    """Connect the three."""
    app.connect("source-read", _written)
    app.connect("autodoc-process-docstring", _marked)
    app.connect("autodoc-skip-member", _skipped)
