"""Every entry of the benchmark runs and is the divergence that it stands beside; its truth, targets and tables hold."""

import argparse
import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import cases, programs, render, run, targets  # noqa: E402  a folder beside the package, not part of it
from tests import accuracy, matrix, oracles  # noqa: E402

pytestmark = [pytest.mark.smoke, pytest.mark.lenient]
EPS = float(np.finfo(np.float32).eps)
THOUSANDTH = 1e-3 / EPS  # in eps: a formula by hand is right to a few digits at distance 1
ENTRIES = [(c, "by hand", n) for c in matrix.DISCRETE for n in cases.TEXTBOOK]
ENTRIES += [(c, peer, n) for c, peers in cases.PEERS.items() for peer, cells in peers.items() for n in cells]
CELLS = [(c, n) for c in matrix.DISCRETE for n in cases.TEXTBOOK]
FLOAT = "float32"
ONCE = run.Effort(0, 2, 2)


def chosen(**given):
    names = "quick rows outcomes suites columns cells dtypes sides"
    return argparse.Namespace(**dict.fromkeys(names.split()) | given)


def test_every_cell_has_its_formula():
    assert set(cases.TEXTBOOK) == set(matrix.oracled("probs")) and set(cases.ONE) == set(matrix.ONE)


@pytest.mark.parametrize(("column", "peer", "name"), ENTRIES)
def test_an_entry_is_the_cell(column, peer, name):
    if not cases.installed(peer):
        pytest.skip(f"{peer} is not installed")
    p, q = cases.inputs(column, 8, 16, distance=1.0)
    theirs = cases.by_hand(column, name) if peer == "by hand" else cases.PEERS[column][peer][name]
    got, ours = np.asarray(theirs(p, q), np.float64), np.asarray(cases.ours(column, name)(p, q))
    assert got.shape == ours.shape == (8,)
    accuracy.close(ours, accuracy.exact(got), np.float32, THOUSANDTH)


@pytest.mark.parametrize("part", programs.PARTS)
@pytest.mark.parametrize("name", run.MAIN)
@pytest.mark.filterwarnings("ignore")
def test_torch(name, part):
    pytest.importorskip("torch")
    from bench import torch_cases

    pair = cases.inputs("logits", 8, 16, distance=1.0)
    true = programs.truth("logits", name, *pair)[part]
    for peer, cells in torch_cases.PEERS.items():
        if name in cells and torch_cases.here(peer) and run.possible(peer, part) and peer != "torch.compile":
            each = programs.program(peer, cells[name], part, pair)
            assert programs.error(peer, each, part, pair, "logits", true) < THOUSANDTH, peer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torch_compile():
    pytest.importorskip("torch")
    found = run.measure(run.Case("sizes", "logits", "kl", 3, 5, "float32"), chosen(sides=["torch.compile"]), ONCE)
    assert [r["part"] for r in found] == list(programs.PARTS) and all(r["compile_s"] > 0 for r in found)


@pytest.mark.parametrize(("column", "name"), CELLS)
def test_the_truth_has_more_digits_than_float32(column, name):
    """Against 60 digits, at the distances where errors are measured, to a tenth of an eps."""
    pairs = [cases.inputs(column, 2, 8, distance=distance) for distance in run.DISTANCES]
    p, q = (jnp.concatenate(x) for x in zip(*pairs, strict=True))
    found, options = programs.truth(column, name, p, q), matrix.options(name)[0]
    both = [oracles.pair(column, *two) for two in zip(np.asarray(p), np.asarray(q), strict=True)]
    accuracy.close(found["value"][0], accuracy.exact([oracles.value(name, x, **options) for x in both]), eps=0.1)
    slopes = zip(*(oracles.gradients(column, name, x, **options) for x in both), strict=True)
    for got, true in zip(found["p and q"], slopes, strict=True):
        if true[0] is not None:
            accuracy.close(got, accuracy.exact(list(true)), eps=0.1, norm=True)


@pytest.mark.parametrize(
    ("column", "cell", "dtype"),
    [
        ("logits", "kl", "float32"),
        ("logits", "tv", "bfloat16"),
        ("probs", "js", "float32"),
        ("probs", "entropy", "float32"),
    ],
)
def test_a_case_is_measured(column, cell, dtype):
    case = run.Case("cells", column, cell, 5, 7, dtype)
    sides = ["kljax", "textbook", "scipy"]
    records = run.measure(case, chosen(sides=sides), ONCE)
    found = {(r["side"], r["part"]): r for r in records}
    assert set(found) == {(s, p) for s in sides for p in programs.PARTS if run.possible(s, p)} - (
        {("scipy", "value")} if dtype != "float32" or cell == "tv" else set()
    )
    for (side, part), record in found.items():
        low, median, high = record["ms"]
        assert 0 < low <= median <= high and record["roofline"] > 0 and len(record["error_eps"]) == 2
        if side == "kljax":
            limit = accuracy.VALUE if part == "value" else accuracy.GRADIENT
            assert all(e <= limit for e in record["error_eps"]), (part, record["error_eps"])
    assert f"{column}.{cell}" in run.line(records)


def test_a_planted_error_is_seen():
    pair = cases.inputs("logits", 3, 5)
    true = programs.truth("logits", "kl", *pair)["value"]
    exact = programs.program("kljax", lambda p, q: cases.ours("logits", "kl")(p, q) * (1 + 2**-10), "value", pair)
    assert programs.error("kljax", exact, "value", pair, "logits", true) == pytest.approx(2**13, rel=0.01)
    assert programs.worst(np.array([np.nan]), np.array([1.0]), EPS, norm=False) is None


def test_heads_are_measured(monkeypatch):
    x = jnp.linspace(0, 1, 12).reshape(3, 4)
    both = (lambda x: (x @ x.T).sum(), lambda x: (x.sum(0) ** 2).sum())
    monkeypatch.setattr(cases, "heads_cases", lambda: {"loss": (*both, (x,))})
    records = run.measure_heads("loss", ONCE)
    assert [r["side"] for r in records] == ["kljax", "textbook"] and all(r["error_eps"] < 8 for r in records)
    assert "`loss`" in render.heads([{"records": records, "device": "cpu"}])


def test_the_plan():
    """Every cell of both columns; the main ones at sizes that are multiples of nothing; any part of it on request."""
    for quick in (True, False):
        plan = run.plan(chosen(quick=quick))
        assert {(c.column, c.cell) for c in plan if c.suite == "cells"} == set(CELLS)
        main = [c for c in plan if c.suite == "sizes"]
        assert {(c.cell, c.dtype) for c in main} == {(n, d) for n in run.MAIN for d in run.FLOATS}
        assert any(c.outcomes % 2 for c in main) and (64, 131072) in {c[3:5] for c in main}
    part = run.plan(chosen(cells=["kl"], rows=3, outcomes=5, columns=["probs"]))
    assert part == [run.Case("cells", "probs", "kl", 3, 5, "float32")]


def record(side, part, ms, *, column="logits", cell="kl", temp=1.0, suite="sizes"):
    case = run.Case(suite, column, cell, 64, 131072, "float32")._asdict()
    figures = {"ms": [ms, ms, ms], "temp_mb": temp, "error_eps": [1.0, None], "roofline": 0.5, "bandwidth_gb_s": 9.0}
    return case | {"side": side, "part": part} | figures


RUN = {
    "device": "cpu", "platform": "cpu", "threads": 2, "load": 0.5, "quick": True, "versions": {"jax": "1"},
    "absent": ["liger"],
}  # fmt: skip


def test_targets_are_judged():
    kl = [record("kljax", "value", 1.0), record("kljax", "q", 1.0, temp=2.0)]
    kl += [record("optax", "value", 3.5, temp=20.0), record("optax", "q", 1.2)]
    kl += [record("kljax", "q", 1.6, column="probs"), record("textbook", "q", 1.0, column="probs")]
    found = targets.judge(kl, "cpu")
    assert [(t["met"], round(t["ratio"], 3)) for t in found] == [(True, 3.5), (False, 1.2), (True, 0.05), (False, 1.6)]
    fast = record("kljax", "value", 10.0) | {"passes": 2.5}
    gpu = targets.judge([fast, record("liger", "value", 12.0)], "gpu")  # 2.5 passes of 33.6 MB in 10 ms of 9 GB/s
    assert [(t["met"], round(t["ratio"], 3)) for t in gpu] == [(True, 0.932), (True, 0.833)]


def test_the_tables_of_the_readme(monkeypatch, tmp_path):
    text = render.README.read_text()
    assert render.rendered(text) == text, "python -m bench.render"
    assert {m[2] for m in render.MARKS.finditer(text)} == set(render.TABLES)
    each = itertools.product(("sizes", "cells"), ("kljax", "textbook", "tfp"), programs.PARTS)
    parts = [record(side, part, 1.0, suite=suite) for suite, side, part in each]
    heads = [{"suite": "heads", "cell": "loss", "side": s, "ms": [1, 1, 1], "temp_mb": 1, "error_eps": 1.0}
             for s in ("kljax", "textbook")]  # fmt: skip
    found = RUN | {"records": parts + heads, "targets": targets.judge(parts, "cpu")}
    compiled = {f"kl {s} {d} {p}": {"passes": 2.0, "temp": 0.1} for s in ("kljax", "textbook") for d in run.FLOATS
                for p in ("value", "value and gradient")}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(found))
    (tmp_path / "b.json").write_text(json.dumps({"compiled": compiled}))
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    new = render.rendered(text)
    assert render.rendered(new) == new and "1.0 (1.0 to 1.0)".replace(".0", "") in new
    assert all(m[0].count("\n") > 3 for m in render.MARKS.finditer(new))


def test_the_command(monkeypatch, tmp_path, capsys):
    path = tmp_path / "found.json"
    view = "bench.run --rows 3 --outcomes 5 --columns probs --cells tv --sides kljax,textbook"
    monkeypatch.setattr(sys, "argv", [*view.split(), "--seconds", "0.01", "--json", str(path)])
    run.main()
    found = json.loads(path.read_text())
    assert found["schema"] == 1 and {r["cell"] for r in found["records"]} == {"tv"}
    assert len(found["targets"]) == 3 and "probs.tv" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*view.split(), "--readme"])
    with pytest.raises(SystemExit):  # a part would replace the whole
        run.arguments()


def test_what_is_said_of_the_machine():
    found = run.about(chosen(quick=True))
    assert found["versions"]["jax"] == jax.__version__ and set(found["absent"]) <= set(cases.PACKAGES)
    assert json.loads(json.dumps(found)) == found
