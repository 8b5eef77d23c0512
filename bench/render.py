"""The README's tables from bench/results/*.json: `python -m bench.render`, or --readme of bench.run.

A table stands between `<!-- bench:NAME -->` and `<!-- /bench -->`; what is between them is replaced, and nothing where
there are no figures yet.
"""

import json
import math
import re
import statistics
from pathlib import Path

from bench.programs import PARTS
from bench.targets import by_size

ROOT = Path(__file__).parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results"
MARKS = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench -->)", re.S)
HEADS = {"value": "value", "q": "+ gradient in q", "p and q": "+ gradient in both"}


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def short(x: float) -> str:
    """Three digits, never in powers of ten."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def eps(x: float | None) -> str:
    """An error; None was not finite."""
    return "not finite" if x is None else f"{x:.1g}" if x < 1 else f"{x:.0f}" if x < 1e4 else f"{x:.0e}"


def setting(run: dict) -> str:
    """A sentence on where the figures come from."""
    names = [n for n in run["versions"] if n not in ("python", "jaxlib", "numpy")]
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in names)
    absent = f"; not here: {', '.join(run['absent'])}" if run["absent"] else ""
    where = f"{run['device']}, {run['threads']} threads" if run["platform"] == "cpu" else run["device"]
    return f"{where}{', quick run' if run['quick'] else ''}, load {run['load']:.1f} at the start; {versions}{absent}.\n"


def _cell(record: dict | None) -> str:
    """Median and quartiles, share of the roofline, and errors."""
    if not record:
        return "-"
    low, median, high = (short(x) for x in record["ms"])
    return f"{median} ({low} to {high}), {100 * record['roofline']:.0f} %, {' / '.join(map(eps, record['error_eps']))}"


def _sides(found: dict, cell: str) -> list[str]:
    return list(dict.fromkeys(side for _, c, side, _ in found if c == cell))


def _rows(found: dict) -> list[list[str]]:
    rows = []
    for cell in dict.fromkeys(c for _, c, _, _ in found):
        for side in _sides(found, cell):
            parts = [found.get(("logits", cell, side, part)) for part in PARTS]
            temp = [short(r["temp_mb"]) if r and "temp_mb" in r else "-" for r in parts]
            name = f"`{cell}`" if side == "kljax" else side
            rows.append([name, *map(_cell, parts), ", ".join(temp)])
    return rows


def speed(runs: list[dict]) -> str:
    """The main cells at the first size, against every peer."""
    text = ""
    for run in runs:
        found = {where: each for (suite, where), each in by_size(run["records"]).items() if suite == "sizes"}
        first = next(iter(found), None)
        if first:
            text += f"{first} logits, {setting(run)}\n"
            text += table(["", *HEADS.values(), "temporary MB"], _rows(found[first])) + "\n"
    return text


def _fastest(found: dict, cell: str, part: str) -> str:
    """kljax's time over that of the textbook, and of the fastest other."""
    times = {side: found[k]["ms"][1] for side in _sides(found, cell) if (k := ("logits", cell, side, part)) in found}
    ours = times.pop("kljax", None)
    if not ours or not times:
        return "-"
    best = min(times, key=times.__getitem__)
    by_hand = short(ours / times["textbook"]) if "textbook" in times else "-"
    return f"{short(ours)} ms, {by_hand}" + (f", {short(ours / times[best])} {best}" if best != "textbook" else "")


def sizes(runs: list[dict]) -> str:
    """Every size: kljax's milliseconds, and as a multiple of the textbook's and of the fastest other's."""
    rows = []
    for run in runs:
        for (suite, where), found in by_size(run["records"]).items():
            for cell in dict.fromkeys(c for _, c, _, _ in found) if suite == "sizes" else ():
                name = f"`{cell}` {where}" + (f", {run['device']}" if len(runs) > 1 else "")
                rows.append([name, *(_fastest(found, cell, part) for part in PARTS)])
    return table(["", *HEADS.values()], rows) if rows else ""


def _ratio(found: dict, column: str, cell: str) -> str:
    """Times over the textbook's, and the worst errors of value and gradient of both sides at the first distance."""
    pairs = [[found.get((column, cell, side, part)) for side in ("kljax", "textbook")] for part in PARTS]
    if not all(a and b for a, b in pairs):
        return "-"
    times = " ".join(f"{a['ms'][1] / b['ms'][1]:.2f}" for a, b in pairs)
    errors = [[eps(pairs[i][side]["error_eps"][-1]) for i in (0, 2)] for side in (0, 1)]
    return f"{times}; {', '.join(errors[0])} against {', '.join(errors[1])}"


def cells(runs: list[dict]) -> str:
    """Every cell of both columns beside its textbook formula."""
    text = ""
    for run in runs:
        for (suite, where), found in by_size(run["records"]).items():
            if suite == "cells":
                names = dict.fromkeys(c for _, c, _, _ in found)
                rows = [[f"`{n}`", _ratio(found, "probs", n), _ratio(found, "logits", n)] for n in names]
                text += f"{where}, {setting(run)}\n" + table(["", "`probs`", "`logits`"], rows) + "\n"
    return text


def heads(runs: list[dict]) -> str:
    """Linear heads beside the composite."""
    rows = []
    for run in runs:
        found = {(r["cell"], r["side"]): r for r in run["records"] if r["suite"] == "heads"}
        for cell in dict.fromkeys(c for c, _ in found):
            pair = [found[cell, side] for side in ("kljax", "textbook")]
            figures = [f"{short(r['ms'][1])} ms, {short(r['temp_mb'])} MB, {eps(r['error_eps'])} eps" for r in pair]
            rows.append([f"`{cell}`", *figures])
    return table(["", "kljax", "composite"], rows) if rows else ""


def passes(runs: list[dict]) -> str:
    """Passes over memory and temporary memory of what is compiled for an H200, from `bench.compiled --json`."""
    found, rows = next((run["compiled"] for run in runs if "compiled" in run), None), []
    if not found:
        return ""
    heads = {f"{p}, {d}": (d, p) for d in ("float32", "bfloat16") for p in ("value", "value and gradient")}
    for cell in dict.fromkeys(key.split()[0] for key in found):
        for side, name in (("kljax", f"`{cell}`"), ("textbook", "by hand")):
            of = [found.get(f"{cell} {side} {dtype} {part}") for dtype, part in heads.values()]
            rows.append([name, *(f"{x['passes']:.2f}, {x['temp']:.3f}" if x else "-" for x in of)])
    return table(["", *heads], rows)


def targets(runs: list[dict]) -> str:
    """How many targets are met, and those that are not: alike ones in a line, with the median and the worst."""
    text = ""
    for run in runs:
        alike: dict[tuple, list[dict]] = {}
        for t in run["targets"]:
            alike.setdefault((re.sub(r"\.\w+ (.*), [^,:]*:", r" \1:", t["what"]), t["limit"]), []).append(t)
        lines = []
        for (what, limit), group in alike.items():
            missed = [t for t in group if not t["met"]]
            if len(group) == 1 or len(missed) == 1:
                lines += [f"missed: {t['what']} {short(t['ratio'])}, {t['limit']:g} wanted" for t in missed]
            elif missed:
                worst = max(missed, key=lambda t: abs(math.log(t["ratio"] / limit)))
                middle = statistics.median(t["ratio"] for t in group)
                lines.append(
                    f"missed by {len(missed)} of {len(group)}: {what}, {limit:g} wanted, the median {short(middle)}, "
                    f"the worst {short(worst['ratio'])} ({worst['what'].split(':')[0]})"
                )
        met = sum(t["met"] for t in run["targets"])
        text += f"{run['device']}: {met} of {len(run['targets'])} targets met."
        text += "".join(f"\n- {line}" for line in lines) + "\n\n"
    return text


TABLES = {"speed": speed, "sizes": sizes, "cells": cells, "heads": heads, "passes": passes, "targets": targets}


def rendered(text: str) -> str:
    """A README with its tables as the results say."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    runs = [result for result in results if "records" in result]

    def fresh(found: re.Match) -> str:
        inner = TABLES[found[2]](results if found[2] == "passes" else runs).strip()
        return f"{found[1]}\n{inner}\n\n{found[3]}" if inner else found[0]

    return MARKS.sub(fresh, text)


def readme() -> None:
    """Write the README's tables."""
    README.write_text(rendered(README.read_text()))


if __name__ == "__main__":
    readme()
