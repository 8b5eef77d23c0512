"""Worst error of every cell by family of the golden corpus, in eps, beside that of the peers that have the cell.

python -m bench.accuracy [--cells kl,js]
prints for each column, cell and family: kljax float32 and float64 (value / gradient, from tests/measured.json, which
`python -m tests.record` measures), then the value error of optax, jax.scipy and scipy on the same float32 inputs, with
how many of their values are negative, nan or wrongly infinite.
"""

import argparse
import json
import warnings

import numpy as np

from bench import cases
from tests import accuracy, corpus, matrix

BAD = "bad"  # negative, nan, or wrongly infinite


def peer_errors(column: str, name: str, function) -> dict[str, tuple[float, int]]:
    """By family the worst finite error in eps of float32, and how many values are bad."""
    true = corpus.truths(column, name, tuple(matrix.options(name, column)[0].items()), "float32").values
    families, found = np.array([case.family for case in corpus.cases(column)]), []
    for case in corpus.cases(column):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found.append(np.asarray(function(case.p[None], case.q[None]))[0])
    errors = accuracy.value_errors(np.array(found), true, np.float32)
    errors = np.where(np.isnan(true.high), 0, errors)
    table = {}
    for family in dict.fromkeys(families):
        here = errors[families == family]
        table[family] = float(np.max(here[np.isfinite(here)], initial=0.0)), int(np.isinf(here).sum())
    return table


def lines(column: str, name: str) -> list[str]:
    """One line a family."""
    measured = json.loads(corpus.MEASURED.read_text())
    ours = [measured.get(f"{column}.{name}.{dtype}") for dtype in corpus.DTYPES]
    if None in ours:
        return [f"| {column}.{name} | not measured yet | | | |"]
    peers = {peer: table[name] for peer, table in cases.PEERS.get(column, {}).items() if name in table}
    peers = {peer: function for peer, function in peers.items() if cases.installed(peer)}
    theirs = {peer: peer_errors(column, name, function) for peer, function in peers.items()}
    found = []
    for family in ours[0]:
        own = [f"{o[family][0]:.1f} / {o[family][1]:.1f}" for o in ours]
        others = [f"{peer} {worst[family][0]:.1e}, {worst[family][1]} {BAD}" for peer, worst in theirs.items()]
        found.append(f"| {column}.{name} | {family} | " + " | ".join(own) + " | " + "; ".join(others) + " |")
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", help="only these, such as kl,js")
    options = parser.parse_args()
    print("| cell | family | f32 value / gradient | f64 value / gradient | peers, f32 value |\n|---|---|---|---|---|")
    for column in matrix.COLUMNS:
        for name in matrix.oracled(column):
            if not options.cells or name in options.cells.split(","):
                print(*lines(column, name), sep="\n", flush=True)


if __name__ == "__main__":
    main()
