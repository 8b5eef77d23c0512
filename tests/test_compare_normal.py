"""kljax.compare, kljax.check and the command line for Gaussians: numbers against NumPy, errors to the letter."""

import doctest
import json
import re
from pathlib import Path

import jax.numpy as jnp
import matplotlib.image
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import kljax
from kljax import _compare, _report, _tables
from kljax.__main__ import main
from tests.accuracy import close

Normal, LogScaleNormal, MVN = kljax.normal.Normal, kljax.normal.LogScaleNormal, kljax.mvn.MVN
NORMAL = {"column": kljax.normal}
RANDOM = np.random.default_rng(11)
ROWS, SIZE = 23, 4


def draw(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


LOC_P, LOC_Q = draw(ROWS, SIZE), draw(ROWS, SIZE)
SCALE_P, SCALE_Q = np.exp(0.4 * draw(ROWS, SIZE) - 0.5), np.exp(0.4 * draw(ROWS, SIZE) + 0.5)
P, Q = Normal(LOC_P, SCALE_P), Normal(LOC_Q, SCALE_Q)
TRIL_P, TRIL_Q = (np.tril(0.3 * draw(ROWS, SIZE, SIZE), -1) + scale[..., None] * np.eye(SIZE, dtype=np.float32)
                  for scale in (SCALE_P, SCALE_Q))  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder to stand in with p.npz and q.npz."""
    monkeypatch.chdir(tmp_path)
    np.savez("p.npz", loc=LOC_P, scale=SCALE_P)
    np.savez("q.npz", loc=LOC_Q, scale=SCALE_Q)
    return tmp_path


def failure(capsys, *arguments):
    """What a failing command says: status 2, one line on stderr, nothing on stdout."""
    assert main(["compare", *arguments, "--as", "normal"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kljax: ") and err.endswith("\n") and err.count("\n") == 1
    return err.removeprefix("kljax: ").rstrip()


def textbook_kl(p, q):
    """Of each coordinate, in float64."""
    (m, s), (n, t) = (tuple(np.asarray(x, np.float64) for x in side) for side in (p, q))
    return np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5


def textbook_renyi(p, q, order):
    """Of each coordinate, +inf where the combined variance is not positive."""
    (m, s), (n, t) = (tuple(np.asarray(x, np.float64) for x in side) for side in (p, q))
    mixed = (1 - order) * s**2 + order * t**2
    valid = np.where(mixed > 0, mixed, 1)
    logs = np.log(valid) - 2 * (1 - order) * np.log(s) - 2 * order * np.log(t)
    return np.where(mixed > 0, order * (m - n) ** 2 / (2 * valid) - logs / (2 * (order - 1)), np.inf)


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.smoke
def test_the_numbers_are_the_textbooks():
    report = kljax.compare(P, Q, rows=["kl", "reverse_kl", "hellinger_sq", "renyi@0.5", "reverse_renyi@2"], **NORMAL)
    values = dict(zip(report.rows, report.values, strict=True))
    close(values["kl"], textbook_kl(P, Q).sum(-1))
    close(values["reverse_kl"], textbook_kl(Q, P).sum(-1))
    close(values["hellinger_sq"], -np.expm1(-textbook_renyi(P, Q, 0.5).sum(-1) / 2))
    close(values["renyi@0.5"], textbook_renyi(P, Q, 0.5).sum(-1))
    true = textbook_renyi(Q, P, 2.0).sum(-1)
    assert np.array_equal(np.isinf(values["reverse_renyi@2"]), np.isinf(true)) and np.isinf(true).any()
    found = report.rows["kl"]
    close([found.mean, found.max], [values["kl"].mean(), values["kl"].max()])
    assert found.argmax == values["kl"].argmax()
    assert report.rows["reverse_renyi@2"].infinite == np.isinf(true).sum()


def test_the_report_has_every_row_and_nothing_that_densities_lack():
    report = kljax.compare(P, Q, top=2, **NORMAL)
    assert (report.count, report.outcomes, report.column, report.unit) == (ROWS, SIZE, "normal", "coordinates")
    named = {"kl", "reverse_kl", "jeffreys", "js_lower", "js_upper", "tv_lower", "tv_upper", "reverse_renyi@inf",
             "wasserstein2", "fisher_rao", "geometric_js", "chi2", "reverse_chi2", "bhattacharyya"}  # fmt: skip
    assert named <= set(report.rows) and not {"tv", "js", "le_cam"} & set(report.rows)
    assert report.same_top is None and report.p_only is None and report.q_only is None
    close(report.contributions, textbook_kl(P, Q).mean(0))
    assert [top.outcome for top in report.top] == list(np.argsort(-textbook_kl(P, Q).mean(0))[:2])
    text, loaded = str(report), json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert text.startswith(f"{ROWS} rows of {SIZE} coordinates as normal\n") and "\ncoordinate " in text
    assert not re.search("outcome|same top|has mass", text)
    assert loaded["same_top"] is None and loaded["support"] is None and loaded["outcomes"] == SIZE
    assert all(bound.violations == 0 and 0 < bound.closest < 1 for bound in report.bounds)
    assert "tv_lower <= sqrt(kl / 2)" in [bound.statement for bound in report.bounds]


@pytest.mark.repeat
def test_one_coordinate_has_exact_rows():
    p, q = (Normal(x.loc[:, :1], x.scale[:, :1]) for x in (P, Q))
    report = kljax.compare(p, q, **NORMAL)
    assert {"tv", "js"} <= set(report.rows) and not {"tv_lower", "js_upper"} & set(report.rows)
    close(report.values[list(report.rows).index("tv")], np.asarray(kljax.normal.tv(p, q), np.float64))
    names = [bound.statement for bound in report.bounds]
    assert len(names) == len(_report._BOUNDS) and all(bound.violations == 0 for bound in report.bounds)


def test_bounds_stand_in_for_what_has_no_closed_form():
    names = ["tv_lower", "tv_upper", "hellinger_sq"]
    found = _report.bounds(names, np.array([[0.5], [0.6], [0.7]]), eps=1e-16)
    assert [(bound.statement, bound.violations) for bound in found] == [
        ("hellinger_sq <= tv_upper", 1),
        ("tv_lower <= sqrt(hellinger_sq (2 - hellinger_sq))", 0),
    ]


@pytest.mark.parametrize("prior", [Normal(0.0, 1.0), Normal(np.zeros(SIZE), 1.0), Normal(LOC_Q[0], SCALE_Q[0])])
def test_one_prior_for_all(prior):
    whole = Normal(*(np.broadcast_to(np.asarray(x, np.float64), LOC_P.shape) for x in prior))
    there, back = (kljax.compare(*pair, rows=["kl"], **NORMAL) for pair in ((P, prior), (prior, P)))
    close(there.values[0], textbook_kl(P, whole).sum(-1))
    close(back.values[0], textbook_kl(whole, P).sum(-1))
    close(there.contributions, textbook_kl(P, whole).mean(0))


def test_leading_axes_and_one_scale_for_all():
    deep = [x[:18].reshape(3, 3, 2, SIZE) for x in P]
    report = kljax.compare(Normal(*deep), Normal(LOC_Q[:2], SCALE_Q[0]), rows=["kl"], **NORMAL)
    whole = Normal(np.tile(LOC_Q[:2], (9, 1)), SCALE_Q[0])
    close(report.values[0], textbook_kl(Normal(LOC_P[:18], SCALE_P[:18]), whole).sum(-1))
    single = kljax.compare(Normal(LOC_P[0], SCALE_P[0]), Normal(0.0, 1.0), rows=["kl"], **NORMAL)
    assert (single.count, single.outcomes) == (1, SIZE)
    assert kljax.compare(Normal(1.0, 1.0), Normal(0.0, 1.0), rows=["kl", "tv"], **NORMAL).rows["kl"].mean == 0.5


def test_log_scales_and_half_precision():
    p, q = (LogScaleNormal(x.loc, np.log(x.scale)) for x in (P, Q))
    report = kljax.compare(p, q, rows=["kl"], **NORMAL)
    exact = [Normal(x.loc, np.exp(x.log_scale.astype(np.float64))) for x in (p, q)]
    close(report.values[0], textbook_kl(*exact).sum(-1))
    half = Normal(*(jnp.asarray(x, jnp.bfloat16) for x in P))
    report = kljax.compare(half, Q, rows=["kl"], **NORMAL)
    close(report.values[0], textbook_kl(Normal(*(np.asarray(x, np.float64) for x in half)), Q).sum(-1))


def test_mvn():
    p, q = MVN(LOC_P, TRIL_P), MVN(LOC_Q[0], TRIL_Q[0])
    report = kljax.compare(p, q, column=kljax.mvn)
    solve = np.linalg.solve(np.broadcast_to(TRIL_Q[0], TRIL_P.shape).astype(np.float64), TRIL_P.astype(np.float64))
    z = np.linalg.solve(TRIL_Q[0].astype(np.float64), (LOC_P - LOC_Q[0]).astype(np.float64)[..., None])
    logs = np.log(np.diagonal(TRIL_Q[0]).astype(np.float64)).sum() - np.log(SCALE_P.astype(np.float64)).sum(-1)
    close(report.values[0], ((solve**2).sum((-1, -2)) + (z**2).sum((-1, -2)) - SIZE) / 2 + logs, eps=32)
    assert report.top == [] and report.contributions is None and "wasserstein2" in report.rows
    shared = kljax.compare(MVN(LOC_P, TRIL_P[0]), q, rows=["kl"], column=kljax.mvn)
    close(shared.values[0], np.asarray(kljax.mvn.kl(MVN(LOC_P, TRIL_P[0]), q), np.float64))


@pytest.mark.repeat
def test_lowrank_of_two_ranks():
    low = kljax.lowrank.LowRank
    p, q = low(LOC_P, draw(ROWS, SIZE, 2), SCALE_P**2), low(LOC_Q, draw(ROWS, SIZE, 1), SCALE_Q**2)
    report = kljax.compare(p, q, rows=["kl", "reverse_kl"], column=kljax.lowrank)
    close(report.values[1], np.asarray(kljax.lowrank.kl(q, p), np.float64), eps=32)


@pytest.mark.parametrize("block", [1, 300, 1 << 20])
def test_blocks_change_nothing(block):
    options = {"column": kljax.normal, "rows": ["kl", "wasserstein2"], "top": 3}
    whole = kljax.compare(P, Normal(LOC_Q, SCALE_Q[0]), rows=options["rows"], top=3, **NORMAL)
    tables = _tables.tables("test", kljax.normal, p=P, q=Normal(LOC_Q, SCALE_Q[0]))
    moved = []
    parts = _compare.stream(*tables, block_bytes=block, progress=moved.append, **options)
    close(parts.values, whole.values, eps=4)
    close(parts.contributions, whole.contributions, eps=40)
    assert sum(moved) == ROWS and len(moved) == {1: ROWS, 300: 6, 1 << 20: 1}[block]


@pytest.mark.parametrize(
    ("p", "q", "column", "text"),
    [
        (LOC_P, LOC_P, "normal", "kljax.compare: p is a ndarray: pass a Normal or LogScaleNormal"),
        (P, Q, "probs", "kljax.compare: p is a Normal: pass column=kljax.normal"),
        (P, MVN(LOC_P, TRIL_P), "normal", "kljax.compare: q is a MVN: pass column=kljax.mvn"),
        (P, LogScaleNormal(*P), "normal", "p is a Normal and q a LogScaleNormal: pass two of one type; "
         "LogScaleNormal(loc, jnp.log(scale)) is the Normal(loc, scale)"),
        (P, Normal(np.zeros(3), 1.0), "normal", "p.loc (23, 4) and p.scale (23, 4) and q.loc (3,) and q.scale (3,): "
         "the event axis, the last, must match"),
        (P, Normal(LOC_Q[:5], 1.0), "normal", "leading axes must be equal, or one's the tail of the other's"),
        (P, Normal(LOC_Q, SCALE_Q * np.float32(-1)), "normal", "q.scale: row 0, column 0 is -"),
        (P, Normal(LOC_Q, 1j), "normal", "kljax.compare: q.scale holds complex128: expected real numbers"),
        (MVN(LOC_P, SCALE_P), MVN(LOC_P, TRIL_P), "mvn", "the event axis, the last, must match"),
    ],
)  # fmt: skip
def test_compare_refuses(p, q, column, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        kljax.compare(p, q, column=getattr(kljax, column))


def test_rows_of_one_coordinate_only():
    text = "row 'reverse_tv': no closed form for 4 coordinates, only for one; expected tv_lower or tv_upper"
    with pytest.raises(ValueError, match=re.escape(text)):
        kljax.compare(P, Q, rows=["reverse_tv"], **NORMAL)
    with pytest.raises(ValueError, match=re.escape("unknown row 'le_cam'; expected some of ")):
        kljax.compare(P, Q, rows=["le_cam"], **NORMAL)


# -------------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize(
    ("p", "column"),
    [
        (Normal(0.0, 1.0), "normal"),
        (P, "normal"),
        (Normal(LOC_P, 2), "normal"),
        (LogScaleNormal(LOC_P, -LOC_P), "normal"),
        (MVN(LOC_P, TRIL_P), "mvn"),
        (MVN(LOC_P, TRIL_P[0]), "mvn"),
        (kljax.lowrank.LowRank(LOC_P, TRIL_P, SCALE_P), "lowrank"),
    ],
)
def test_gaussians_pass(p, column):
    assert kljax.check(p, column=getattr(kljax, column)) is None


@pytest.mark.parametrize(
    ("p", "column", "message"),
    [
        (Normal([[0.0, 1.0]], [[1.0, -0.7]]), "normal", "p.scale[0, 1] is -0.7: expected a standard deviation > 0; "
         "like its logarithm? use LogScaleNormal (an array log_scale)"),
        (Normal([0.0, 1.0], 0.0), "normal", "p.scale[0] is 0: expected a standard deviation > 0"),
        (Normal([0.0, 1.0], [1.0, np.nan]), "normal", "p.scale[1] is nan: expected a number"),
        (Normal([0.0, 1.0], np.array([1.0, 2.0**-130], np.float32)), "normal", "p.scale[1] is 7.34684e-40: expected a "
         "standard deviation of at least 1.18e-38, the smallest normal number"),
        (Normal(np.full((2, 2, 1), [[0.0], [np.inf]]), 1.0), "normal", "p.loc[0, 1, 0] is inf: expected a finite "
         "number"),
        (LogScaleNormal([0.0], [np.inf]), "normal", "p.log_scale[0] is inf: expected a finite number"),
        (MVN([0.0, 0.0], [[1.0, 0.0], [1.0, -2.0]]), "mvn", "p.scale_tril[1, 1] is -2: expected a diagonal > 0"),
        (MVN([0.0, 0.0], [[1.0, 0.5], [1.0, 2.0]]), "mvn", "p.scale_tril[0, 1] is 0.5: expected 0 above the diagonal"),
        (MVN([0.0, 0.0], [[1.0, 0.5], [0.5, 2.0]]), "mvn", "p.scale_tril[0, 1] is 0.5: expected a lower triangular "
         "factor; like a covariance? use kljax.mvn.from_covariance"),
        (kljax.mvn.from_covariance([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "mvn", "p.scale_tril[0, 0] is nan: expected "
         "a number"),
        (kljax.lowrank.LowRank([0.0], [[1.0]], [-1.0]), "lowrank", "p.cov_diag[0] is -1: expected a variance > 0"),
        ([0.0], "mvn", "p is a list: pass a MVN"),
        (P, "logits", "p is a Normal: pass column=kljax.normal"),
        (Normal(LOC_P, SCALE_P[:, :2]), "normal", "p.loc (23, 4) and p.scale (23, 2): the event axis, the last, must "
         "match"),
        (Normal(np.zeros((0, 2)), 1.0), "normal", "p.loc has shape (0, 2): expected [..., D] with at least one row and "
         "one coordinate"),
    ],
)  # fmt: skip
def test_faults_name_the_place_the_value_and_the_remedy(p, column, message):
    with pytest.raises(ValueError) as caught:
        kljax.check(p, column=getattr(kljax, column))
    assert str(caught.value) == f"kljax.check: {message}"


# ------------------------------------------------------------------------------------------- command line


def test_the_command_prints_a_table_and_writes_json(files, capsys):
    names = ["--rows", "kl,wasserstein2", "--json", "r.json", "--top", "2"]
    assert main(["compare", "p.npz", "q.npz", "--as", "normal", *names]) == 0
    out, err = capsys.readouterr()
    assert err == "" and f"{ROWS} rows of {SIZE} coordinates as normal" in out and "same top" not in out
    found = json.loads(Path("r.json").read_text())
    assert (found["count"], found["outcomes"], found["as"]) == (ROWS, SIZE, "normal")
    assert found["same_top"] is None and found["support"] is None and len(found["top"]) == 2
    assert found["bytes"] == 4 * LOC_P.nbytes and list(found["rows"]) == ["kl", "wasserstein2"]
    close(found["rows"]["kl"]["mean"], textbook_kl(P, Q).sum(-1).mean())


def test_a_prior_log_scales_default_rows_and_the_figure(files, capsys):
    half = {"loc": LOC_P.astype(ml_dtypes.bfloat16), "log_scale": np.log(SCALE_P)}
    safetensors.numpy.save_file(half, "p.safetensors")
    np.savez_compressed("prior.npz", loc=np.zeros(SIZE, np.float32), log_scale=np.zeros(SIZE, np.float32))
    options = ["--as", "normal", "--json", "r.json", "--plot", "a.png"]
    assert main(["compare", "p.safetensors", "prior.npz", *options]) == 0
    found = json.loads(Path("r.json").read_text())
    assert list(found["rows"]) == ["kl", "reverse_kl", "js_lower", "js_upper", "tv_lower", "tv_upper"]
    loc, scale = half["loc"].astype(np.float64), np.exp(half["log_scale"].astype(np.float64))
    close(found["rows"]["kl"]["mean"], textbook_kl((loc, scale), (0.0, 1.0)).sum(-1).mean())
    assert matplotlib.image.imread("a.png").std() > 0.05 and "coordinate" in capsys.readouterr().out


def test_files_of_many_blocks(files):
    np.savez_compressed("q.npz", loc=LOC_Q[0], scale=SCALE_Q[0])
    p, q = (_tables.open_table(name, kljax.normal) for name in ("p.npz", "q.npz"))
    moved = []
    report = _compare.stream(p, q, column=kljax.normal, rows=["kl"], block_bytes=400, progress=moved.append)
    close(report.values[0], textbook_kl(P, Normal(LOC_Q[0], SCALE_Q[0])).sum(-1))
    assert sum(moved) == ROWS and len(moved) > 3
    p.close(), q.close()


def broken(array, value):
    """A copy with `value` in row 21, column 2."""
    copy = array.copy()
    copy[21, 2] = value
    return copy


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"loc": LOC_Q, "std": SCALE_Q}, "bad.npz: expected arrays loc and scale or loc and log_scale; it holds loc, "
         "std"),
        ({}, "bad.npz: expected arrays loc and scale or loc and log_scale; it holds nothing"),
        ({"loc": LOC_Q, "scale": SCALE_Q, "log_scale": SCALE_Q}, "bad.npz: holds both scale and log_scale; expected "
         "one of them beside loc"),
        ({"loc": LOC_Q, "log_scale": SCALE_Q}, "bad.npz: holds loc and log_scale where p.npz holds loc and scale; save "
         "both alike"),
        ({"loc": LOC_Q, "scale": SCALE_Q[:, :3]}, "bad.npz:scale: 3 columns where p.npz:loc has 4: coordinates must "
         "match"),
        ({"loc": LOC_Q, "scale": SCALE_Q[:9]}, "bad.npz:scale: 9 rows where p.npz:loc has 23; one row for all has "
         "shape (4,)"),
        ({"loc": LOC_Q[:9], "scale": SCALE_Q[:9]}, "bad.npz:loc: 9 rows where p.npz:loc has 23; one row for all has "
         "shape (4,)"),
        ({"loc": LOC_Q, "scale": broken(SCALE_Q, -0.5)}, "bad.npz:scale: row 21, column 2 is -0.5: expected a standard "
         "deviation > 0; like its logarithm? use LogScaleNormal (an array log_scale)"),
        ({"loc": LOC_Q, "scale": broken(SCALE_Q, 0)}, "bad.npz:scale: row 21, column 2 is 0: expected a standard "
         "deviation > 0"),
        ({"loc": LOC_Q, "scale": broken(SCALE_Q, np.nan)}, "bad.npz:scale: row 21, column 2 is nan: expected a number"),
        ({"loc": broken(LOC_Q, np.inf), "scale": SCALE_Q}, "bad.npz:loc: row 21, column 2 is inf: expected a finite "
         "number"),
        ({"loc": LOC_Q[0], "scale": broken(SCALE_Q, 0)[21]}, "bad.npz:scale: column 2 is 0: expected a standard "
         "deviation > 0"),
        ({"loc": LOC_Q, "scale": np.array(["a"])}, "bad.npz:scale: holds <U1; expected real numbers"),
        ({"loc": LOC_Q, "scale": np.float32(1)}, "bad.npz:scale: a single number; expected an array of one axis or "
         "more"),
    ],
)  # fmt: skip
def test_bad_files(files, capsys, arrays, message):
    np.savez("bad.npz", **arrays)
    assert failure(capsys, "p.npz", "bad.npz", "--json", "r.json") == message
    assert not Path("r.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["p.npz", "absent.npz"], "absent.npz: no such file"),
        (["p.npz", "text.npz"], "text.npz: not a readable .npz file (File is not a zip file)"),
        (["p.npz", "text.safetensors"], "text.safetensors: not a .safetensors file: its header cannot be read"),
        (["p.npy", "q.npz"], "argument --as: invalid choice: 'normal' for p.npy: it takes a file with arrays loc and "
         "scale or loc and log_scale, .npz or .safetensors"),
        (["p.npz", "q.npz", "--where", "m.npy"], "--where deletes outcomes: it needs --as probs or --as logits"),
        (["p.npz", "q.npz", "--temperature", "2"], "--temperature divides logits: it needs --as logits"),
        (["p.npz", "q.npz", "--rows", "tv"], "row 'tv': no closed form for 4 coordinates, only for one; expected "
         "tv_lower or tv_upper"),
    ],
)  # fmt: skip
def test_bad_options(files, capsys, arguments, message):
    for name in ("text.npz", "text.safetensors"):
        Path(name).write_bytes(b"neither this nor that")
    assert failure(capsys, *arguments) == message


@pytest.mark.lenient
@pytest.mark.parametrize("verb", [kljax.compare, kljax.check], ids=lambda verb: verb.__name__)
def test_the_examples_run(verb):
    test = doctest.DocTestParser().get_doctest(verb.__doc__, {}, verb.__name__, None, 0)
    assert len(test.examples) > 3 and doctest.DocTestRunner().run(test).failed == 0


def test_numbers_below_zero_are_left_out_of_the_figure(tmp_path):
    narrow = Normal(LOC_P, np.full_like(SCALE_P, 0.01))
    report = kljax.compare(narrow, narrow, rows=["cross_entropy"], top=0, **NORMAL)
    assert report.rows["cross_entropy"].max < 0
    (axes,) = report.plot(tmp_path / "a.png").axes
    assert f"{ROWS} below 0" in axes.get_title(loc="left")


def test_help_names_the_column(capsys):
    assert main(["compare", "--help"]) == 0
    out = capsys.readouterr().out
    assert "{probs,logits,normal,samples}" in out and "loc and scale" in out
