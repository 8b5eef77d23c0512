"""Measure the worst error of every cell, dtype and family anew and store it in measured.json: review the diff.

Prints what is over its target, and after "owed" what only a condition number keeps from it.

python -m tests.record [CELL or COLUMN.CELL ...]
"""

import json
import sys

from tests import conftest, corpus, matrix  # noqa: F401  conftest sets the devices before jax starts


def main() -> None:
    """Write measured.json; print what is over its target."""
    measured = json.loads(corpus.MEASURED.read_text()) if corpus.MEASURED.exists() else {}
    names = sys.argv[1:]
    for column in matrix.COLUMNS:
        for name in [n for n in matrix.oracled(column) if not names or n in names or f"{column}.{n}" in names]:
            for dtype in corpus.DTYPES:
                found = corpus.measure(column, name, dtype)
                worst = corpus.worst(column, found)
                measured[f"{column}.{name}.{dtype}"] = {
                    family: [round(float(e), 2) for e in errors] for family, errors in sorted(worst.items())
                }
                owed = [f"owed: {line}" for line in corpus.owed(column, found)]
                print(f"{column} {name} {dtype}", *corpus.over(column, found), *owed, sep="\n  ", flush=True)
        corpus.MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
