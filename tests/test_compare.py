"""kljax.compare, the files it reads and the command line: numbers against NumPy, errors to the letter."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import zarr

import kljax
from kljax import _compare, _files, _report
from kljax.__main__ import main
from tests import commands
from tests.accuracy import close

RANDOM = np.random.default_rng(7)
P = RANDOM.standard_normal((37, 11)).astype(np.float32)
Q = (P + 0.3 * RANDOM.standard_normal(P.shape)).astype(np.float32)
LOGITS = {"column": kljax.logits}
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder to stand in with p.npy and q.npy, logits both."""
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", P)
    np.save("q.npy", Q)
    return tmp_path


def softmax(x):
    weights = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def failure(capsys, *arguments):
    return commands.failure(capsys, "compare", *arguments)


def rows_of(array):
    return _files.arrays_as_rows(array, "array")


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.smoke
def test_the_statistics_are_those_of_the_cells():
    report = kljax.compare(P, Q, **LOGITS)
    names = ("kl", "reverse_kl", "js", "tv", "hellinger_sq", "chi2", "le_cam")
    for name in names:
        values = np.asarray(getattr(kljax.logits, name)(P, Q), np.float64)
        found = report.rows[name]
        close(report.values[list(report.rows).index(name)], values)
        close([found.mean, found.max], [values.mean(), values.max()])
        close(found.stderr, values.std(ddof=1) / np.sqrt(len(values)), eps=400)  # of a difference of values
        assert found.argmax == values.argmax() and found.infinite == 0
    a, b = softmax(P), softmax(Q)
    close(report.rows["kl"].mean, (a * np.log(a / b)).sum(-1).mean())
    assert report.same_top == np.mean(P.argmax(-1) == Q.argmax(-1))
    assert (report.count, report.outcomes, report.column) == (37, 11, "logits")


def test_every_row_has_both_directions():
    there, back = (kljax.compare(*pair, **LOGITS) for pair in ((P, Q), (Q, P)))
    for name in _compare.FULL:
        if name.startswith("reverse_"):
            close(there.rows[name].mean, back.rows[name.removeprefix("reverse_")].mean)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_percentiles_are_those_of_numpy(size):
    values = RANDOM.exponential(size=size)
    found = _report.statistics(values, spill=1 << 20)
    for name, share in QUANTILES.items():
        assert getattr(found, name) == np.quantile(values, share)
    assert found.argmax == values.argmax() and found.max == values.max()
    assert np.isnan(found.stderr) == (size == 1)


def test_infinite_values_are_counted_and_left_out_of_the_mean():
    p, q = np.full((4, 3), 1 / 3), np.full((4, 3), 1 / 3)
    q[1] = [0.5, 0.5, 0.0]
    q[3] = [0.0, 0.5, 0.5]
    q[2] = p[0] = [0.2, 0.3, 0.5]
    report = kljax.compare(p, q, rows=["kl", "reverse_kl", "tv"])
    kl = report.rows["kl"]
    assert (kl.infinite, kl.max, kl.argmax, kl.p99) == (2, np.inf, 1, np.inf)
    assert np.isfinite([kl.mean, kl.stderr]).all() and report.rows["reverse_kl"].infinite == 0
    assert report.p_only == _report.Support(rows=2, outcomes=2, mass=1 / 3)
    assert report.q_only == _report.Support(rows=0, outcomes=0, mass=0.0)
    assert "infinite values are left out" in str(report)
    close(sum(report.contributions), kl.mean, np.float64)
    loaded = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert loaded["rows"]["kl"]["max"] == "inf" and loaded["rows"]["tv"]["infinite"] == 0


def test_bounds_hold_and_say_how_nearly():
    report = kljax.compare(P, Q, **LOGITS)
    assert len(report.bounds) == len(_report._BOUNDS)
    assert all(bound.violations == 0 and 0 < bound.closest < 1 for bound in report.bounds)
    planted = _report.bounds(["tv", "kl"], np.array([[0.5, 0.1], [0.1, 0.1]]), eps=1e-16)
    assert [bound.violations for bound in planted] == [1, 1]


def test_the_outcomes_that_contribute_most():
    p, q = np.full((5, 6), 1.0), np.full((5, 6), 1.0)
    p[:, 4], q[:, 4], p[:, 2] = 9.0, 1.0, 2.0
    report = kljax.compare(p, q, rows=["tv"], top=2)
    assert [top.outcome for top in report.top][0] == 4
    close(report.contributions, np.asarray(kljax.probs.contributions(p, q), np.float64).mean(0))
    without = kljax.compare(p, q, rows=["tv"], top=0)
    assert without.top == [] and without.contributions is None


@pytest.mark.parametrize("block", [1, 700, 5000, 1 << 20])
def test_blocks_change_nothing(block):
    where = rows_of(RANDOM.random(P.shape) < 0.9)
    options = {"rows": ["kl", "js", "renyi@0.5"], "where": where, "temperature": 1.7, "top": 3, **LOGITS}
    whole = _compare.stream(rows_of(P), rows_of(Q), **options)
    moved = []
    parts = _compare.stream(rows_of(P), rows_of(Q), block_bytes=block, progress=moved.append, **options)
    close(parts.values, whole.values, eps=4)
    close(parts.contributions, whole.contributions, eps=40)
    assert sum(moved) == 37 and parts.same_top == whole.same_top


def test_many_rows_go_to_a_temporary_file():
    kept = _compare.stream(rows_of(P), rows_of(Q), **LOGITS)
    spilt = _compare.stream(rows_of(P), rows_of(Q), spill_bytes=8, **LOGITS)
    assert isinstance(spilt.values, np.memmap) and not isinstance(kept.values, np.memmap)
    assert spilt.to_dict() == kept.to_dict()


def test_one_row_for_all_and_leading_axes():
    single = kljax.compare(P, Q[0], rows=["kl"], **LOGITS)
    close(single.values[0], np.asarray(kljax.logits.kl(P, Q[0]), np.float64))
    swapped = kljax.compare(Q[0], P, rows=["kl"], **LOGITS)
    close(swapped.values[0], np.asarray(kljax.logits.kl(Q[0], P), np.float64))
    p, q = P[:36].reshape(2, 3, 6, 11), Q[:6]
    deep = kljax.compare(p, q, rows=["kl"], **LOGITS)
    close(deep.values[0], np.asarray(kljax.logits.kl(p, q), np.float64).ravel())
    assert kljax.compare(P[0], Q[0], rows=["kl"], **LOGITS).count == 1


def test_where_and_temperature():
    where = np.arange(11) % 3 != 0
    found = _compare.stream(
        rows_of(P), rows_of(Q), where=rows_of(where), temperature=2.0, rows=["kl"], column=kljax.logits
    )
    close(found.values[0], np.asarray(kljax.logits.kl(P / 2, Q / 2, where=where), np.float64))
    masked = [np.where(where, x, -np.inf).argmax(-1) for x in (P, Q)]
    assert found.same_top == np.mean(masked[0] == masked[1])


def test_float64_keeps_its_digits_whatever_the_global_flag():
    p = softmax(RANDOM.standard_normal((5, 7)))
    q = p * (1 + 1e-9 * RANDOM.standard_normal(p.shape))
    report = kljax.compare(p, q, rows=["tv"])
    with jax.enable_x64(True):
        values = np.asarray(kljax.probs.tv(p, q))
    assert values.dtype == np.float64 and np.array_equal(report.values[0], values)
    assert kljax.probs.tv(p, q).dtype == np.float32


@pytest.mark.parametrize(
    ("p", "q", "text"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), "the event axis"),
        (np.ones((3, 4)), np.ones((1, 4)), "leading axes"),
        (1.0, 1.0, "at least one row"),
        (np.ones((2, 2)), [[1.0, -3.0], [1.0, 1.0]], "q: row 0, column 1 is -3"),
        (["a"], ["b"], "expected real numbers"),
    ],
)
def test_compare_refuses(p, q, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        kljax.compare(p, q)


# -------------------------------------------------------------------------------------------------- files


def write(path, array):
    """Write an array in the format of the path's suffix."""
    match Path(path).suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            (np.savez_compressed if "small" in str(path) else np.savez)(path, x=array)
        case ".safetensors":
            safetensors.numpy.save_file({"x": array}, path)
        case ".zarr":
            zarr.save_array(str(path), array)
        case ".csv":
            np.savetxt(path, array.reshape(-1, array.shape[-1]), "%.9g", delimiter=",")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "small.npz", "a.safetensors", "a.zarr", "a.csv"])
@pytest.mark.parametrize("shape", [(407,), (37, 11), (37, 1, 11), (1, 37, 11), (37, 11, 1)])
def test_every_format_gives_back_its_rows(tmp_path, name, shape):
    array = P.reshape(shape)
    write(tmp_path / name, array)
    rows = _files.open_rows(tmp_path / name)
    table = array.reshape(-1, shape[-1])
    assert rows.shape == table.shape and rows.single == (len(shape) == 1 and not name.endswith("csv"))
    pieces = [rows.read(i, min(i + 5, len(table))) for i in range(0, len(table), 5)]
    assert np.array_equal(np.concatenate(pieces).astype(np.float32), table)
    assert np.array_equal(rows.read(0, 1).astype(np.float32), table[:1])  # a step back, too
    rows.close()


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i4", "u1", "?", ml_dtypes.bfloat16])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_every_dtype(tmp_path, suffix, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    if suffix == ".safetensors" and dtype == ">f4":
        pytest.skip("the format is little-endian")
    write(tmp_path / f"a{suffix}", array)
    read = _files.open_rows(tmp_path / f"a{suffix}").read(1, 3)
    assert read.dtype == array.dtype and np.array_equal(read, array[1:])


def test_eight_bit_floats_and_the_arrays_of_one_file(tmp_path):
    array = np.arange(6).reshape(2, 3)
    tensors = {"a": array.astype(ml_dtypes.float8_e4m3fn), "b": array.astype(np.int64)}
    (header := {})["__metadata__"] = {"made": "by hand"}
    at = 0
    for (key, value), kind in zip(tensors.items(), ("F8_E4M3", "I64"), strict=True):
        header[key] = {"dtype": kind, "shape": [2, 3], "data_offsets": [at, at := at + value.nbytes]}
    text = json.dumps(header).encode()
    data = b"".join(value.tobytes() for value in tensors.values())
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    for key, value in tensors.items():
        assert np.array_equal(_files.open_rows(f"{tmp_path}/a.safetensors:{key}").read(0, 2), value)
    with pytest.raises(_files.InputError, match=r"holds 2 arrays \(a, b\); name one as .*:NAME"):
        _files.open_rows(tmp_path / "a.safetensors")


def test_names_in_npz_and_zarr(tmp_path):
    np.savez(tmp_path / "a.npz", x=P, y=Q)
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    group.create_array("x", data=P, chunks=(4, 11))
    group.create_array("y", data=Q.reshape(1, 37, 11), chunks=(1, 4, 11))
    for name in ("a.npz", "g.zarr"):
        assert np.array_equal(_files.open_rows(f"{tmp_path}/{name}:y").read(3, 30), Q[3:30])
        with pytest.raises(_files.InputError, match="no array 'z'|zarr cannot open"):
            _files.open_rows(f"{tmp_path}/{name}:z")
        with pytest.raises(_files.InputError, match="holds 2 arrays"):
            _files.open_rows(tmp_path / name)


def test_rows_of_four_axes_in_zarr(tmp_path):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    write(tmp_path / "a.zarr", array)
    assert np.array_equal(_files.open_rows(tmp_path / "a.zarr").read(2, 23), array.reshape(-1, 5)[2:23])


def test_fortran_order(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(P))
    assert np.array_equal(_files.open_rows(tmp_path / "a.npy").read(3, 9), P[3:9])
    np.save(tmp_path / "b.npy", np.asfortranarray(P.reshape(37, 1, 11).repeat(2, 1)))
    np.savez(tmp_path / "c.npz", np.asfortranarray(P))
    for name in ("b.npy", "c.npz"):
        with pytest.raises(_files.InputError, match="Fortran order.*ascontiguousarray"):
            _files.open_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n\n3,4", [[1, 2], [3, 4]]),
        ('\ufeff"one","two"\r\n"1", 2\r\n', [[1, 2]]),
        ("1e-3,inf\n-inf,4\n", [[1e-3, np.inf], [-np.inf, 4]]),
        ("5\n6\n", [[5], [6]]),
    ],
)
def test_csv(tmp_path, text, expected):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    rows = _files.open_rows(tmp_path / "a.csv")
    assert rows.read(0, rows.shape[0]).tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n\n3,x\n", "line 4, column 2: 'x'; expected a number"),
        ("1,x\n1,2\n", "line 1, column 2: 'x'; expected a number"),
        ("1,2\n1,\n", "line 2, column 2: ''; expected a number"),
        ("1,2\n1,2,3\n", "line 2: 3 columns; expected 2"),
        ("", "empty; expected lines of numbers"),
        ("a,b\n", "a header and no rows"),
        (",a,b\n0,1,2\n", "line 1: the first column has no name: an index? Write it with index=False"),
        ("0,1,2\n3,4,5\n", "line 1 reads 0,1,2,...: delete it if it is a header"),
        ("1,2\nnan,2\n", "row 1, column 0 is nan: expected a number"),
    ],
)
def test_bad_csv(files, capsys, text, message):
    Path("a.csv").write_text(text)
    assert failure(capsys, "a.csv", "a.csv").startswith(f"a.csv: {message}")


# ------------------------------------------------------------------------------------------- command line


def test_the_command_prints_a_table_and_writes_json(files, capsys):
    assert main(["compare", "p.npy", "q.npy", "--as", "logits", "--rows", "kl,js,js@0.1", "--json", "r.json"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "same top outcome" in out and re.search(r"\d kB in \d+\.\d\d s: .*/s\n$", out)
    lines = [line for line in out.splitlines() if line.split()[:1] in (["kl"], ["js"], ["js@0.1"])]
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    found = json.loads(Path("r.json").read_text())
    assert (found["count"], found["outcomes"], found["as"]) == (37, 11, "logits")
    assert found["same_top"] == np.mean(P.argmax(-1) == Q.argmax(-1))
    assert list(found["rows"]) == ["kl", "js", "js@0.1"]
    assert list(found["rows"]["kl"]) == list(_report.Statistics._fields)
    close(found["rows"]["js@0.1"]["mean"], np.asarray(kljax.logits.js(P, Q, weight=0.1), np.float64).mean())
    assert sorted(os.listdir()) == ["p.npy", "q.npy", "r.json"]


def test_half_precision_masks_and_a_prior_from_files(files, capsys):
    half = {"x": P.astype(ml_dtypes.bfloat16)}
    safetensors.numpy.save_file(half, "p.safetensors")
    np.save("prior.npy", Q[0])
    np.savetxt("mask.csv", [np.arange(11) % 3 != 0], "%d", delimiter=",")
    np.save("mask.npy", np.arange(11) % 3 != 0)
    options = [
        "--as",
        "logits",
        "--rows",
        "kl",
        "--where",
        "mask.npy",
        "--json",
        "r.json",
        "--temperature",
        "2",
    ]
    assert main(["compare", "p.safetensors", "prior.npy", *options]) == 0
    p = jnp.asarray(half["x"]).astype(jnp.float32) / 2
    values = kljax.logits.kl(p, Q[0] / 2, where=np.arange(11) % 3 != 0)
    close(json.loads(Path("r.json").read_text())["rows"]["kl"]["mean"], np.asarray(values, np.float64).mean())
    assert "nowhere" in capsys.readouterr().out


def test_the_figure(files, capsys):
    assert main(["compare", "p.npy", "q.npy", "--as", "logits", "--plot", "a.png"]) == 0
    assert matplotlib.image.imread("a.png").std() > 0.05
    assert "adds to mean kl" in capsys.readouterr().out


def damaged(name):
    """A file with something wrong, and the reading of it on its own."""
    match name:
        case "object.npy":
            np.save(name, np.array([{}, 1], object), allow_pickle=True)
        case "pickle.npy":
            Path(name).write_bytes(b"\x80\x04K\x01.")
        case "object.npz":
            np.savez(name, x=np.array([{}], object))
        case "text.npy":
            np.save(name, np.array(["a", "b"]))
        case "complex.npy":
            np.save(name, np.ones((37, 11), complex))
        case "short.npy":
            Path(name).write_bytes(Path("p.npy").read_bytes()[:-4])
        case "empty.npy":
            np.save(name, np.zeros((0, 11)))
        case "scalar.npy":
            np.save(name, 1.0)
        case "wide.npy":
            np.save(name, np.ones((37, 12)))
        case "long.npy":
            np.save(name, np.ones((38, 11)))
        case "one.npy":
            np.save(name, np.ones((1, 11)))
        case "nan.npy" | "inf.npy" | "massless.npy":
            broken = P.copy()
            broken[36, 4] = {"nan.npy": np.nan, "inf.npy": np.inf, "massless.npy": 0}[name]
            broken[35, :] = -np.inf if name == "massless.npy" else broken[35]
            np.save(name, broken)
        case "a.npz" | "a.safetensors" | "a.parquet":
            Path(name).write_bytes(b"neither this nor that")
        case "a.zarr":
            Path(name).mkdir()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("absent.npy", "no such file"),
        ("a.parquet", "unknown kind of file; expected .npy, .npz, .safetensors, .zarr, .csv"),
        ("object.npy", "holds pickled Python objects, which are refused"),
        ("object.npz:x", "holds pickled Python objects, which are refused"),
        ("pickle.npy", "not a .npy file of numbers"),
        ("text.npy", "holds <U1; expected real numbers"),
        ("complex.npy", "holds complex128; expected real numbers"),
        ("short.npy", "cut short, 1752 bytes where its header promises 1756"),
        ("empty.npy", "shape (0, 11) is empty"),
        ("scalar.npy", "a single number"),
        ("wide.npy", "12 columns where p.npy has 11"),
        ("long.npy", "38 rows where p.npy has 37; one row for all has shape (11,)"),
        ("one.npy", "1 rows where p.npy has 37; one row for all has shape (11,)"),
        ("nan.npy", "row 36, column 4 is nan: expected a number"),
        ("inf.npy", "row 36, column 4 is inf: logits are below +inf"),
        ("massless.npy", "row 35 has no mass: every outcome is -inf"),
        ("a.npz", "not a readable .npz file"),
        ("a.safetensors", "not a .safetensors file"),
        ("a.zarr", "zarr cannot open it"),
    ],
)
def test_damaged_files(files, capsys, name, text):
    damaged(name.partition(":")[0])
    said = failure(capsys, "p.npy", name, "--as", "logits", "--json", "r.json")
    assert said.startswith(name.partition(":")[0]) and text in said
    assert not Path("r.json").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["p.npy"], "the following arguments are required: Q; see kljax compare --help"),
        (["p.npy", "q.npy"], "p.npy: row 0, column 2 is -0.274138: expected >= 0"),
        (["p.npy", "q.npy", "--as", "normal"], "invalid choice: 'normal'"),
        (["p.npy", "q.npy", "--rows", "kl,kll"], "unknown row 'kll'; expected some of "),
        (["p.npy", "q.npy", "--rows", ","], "no rows to compare"),
        (["p.npy", "q.npy", "--rows", "kl@2"], "row 'kl@2': kl has no parameter"),
        (["p.npy", "q.npy", "--rows", "renyi"], "row 'renyi' needs its order, as in renyi@2"),
        (["p.npy", "q.npy", "--rows", "renyi@x"], "order 'x' is not a number"),
        (["p.npy", "q.npy", "--rows", "renyi@-1"], "order must be from 0 to inf"),
        (["p.npy", "q.npy", "--rows", "js@1.5"], "weight must be from 0 to 1"),
        (["p.npy", "q.npy", "--rows", "js@nan"], "weight must be from 0 to 1"),
        (["p.npy", "q.npy", "--temperature", "2"], "--temperature divides logits: it needs --as logits"),
        (
            ["p.npy", "q.npy", "--as", "logits", "--temperature", "0"],
            "--temperature 0: expected a number above 0",
        ),
        (["p.npy", "q.npy", "--as", "logits", "--temperature", "nan"], "--temperature nan: expected"),
        (["p.npy", "q.npy", "--as", "logits", "--temperature", "hot"], "invalid float value: 'hot'"),
        (["p.npy", "q.npy", "--as", "logits", "--where", "p.npy"], "a mask holds 0 and 1"),
        (["p.npy", "q.npy", "--json", "nowhere/r.json"], "nowhere/r.json: cannot be written: No such file"),
        (["p.npy", "q.npy", "--json", "."], "cannot be written: it is a directory"),
        (["p.npy", "q.npy", "--json", "q.npy"], "q.npy: is an input; it would be overwritten"),
        (["p.npy", "q.npy", "--plot", "a.txt"], "expected a name that ends in .png, .pdf or .svg"),
        (["p.npy", "q.npy", "--top", "-1"], "--top -1: expected a number >= 0"),
        (["soft.npy", "soft.npy", "--as", "logits"], "soft.npy: row 0 looks like probabilities"),
    ],
)
def test_bad_options(files, capsys, arguments, text):
    np.save("soft.npy", softmax(P))
    assert text in failure(capsys, *arguments)


@pytest.mark.parametrize("extra", ["zarr", "matplotlib"])
def test_a_missing_extra_is_named(files, capsys, monkeypatch, extra):
    write("a.zarr", P)
    monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.setattr("kljax._output.find_spec", lambda name: None)
    arguments = {"zarr": ["p.npy", "a.zarr"], "matplotlib": ["p.npy", "q.npy", "--plot", "a.png"]}[extra]
    assert re.search(r'needs \w+: pip install "kljax\[(cli|plot)\]"', failure(capsys, *arguments))


def test_an_interrupt_is_status_130(files, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_compare, "stream", interrupted)
    assert main(["compare", "p.npy", "q.npy", "--as", "logits"]) == 130
    assert capsys.readouterr() == ("", "kljax: interrupted\n")


def test_help_and_version(capsys):
    assert main([]) == 2 and "examples:" in capsys.readouterr().out
    assert main(["compare", "--help"]) == 0 and "--temperature" in capsys.readouterr().out
    assert main(["--version"]) == 0 and capsys.readouterr().out == "kljax 0.1.0\n"


def test_a_process_of_its_own(files):
    command = [sys.executable, "-m", "kljax", "compare", "p.npy", "absent.npy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "kljax: absent.npy: no such file\n")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_files(tmp_path):
    script = Path(__file__).parents[1] / "bench" / "compare_memory.py"
    peaks = []
    for rows in (200, 1600):  # 26 and 210 MB a file
        command = [sys.executable, str(script), "--dir", str(tmp_path), "--json", str(tmp_path / "r.json")]
        subprocess.run([*command, "--rows", str(rows), "--outcomes", "32768"], check=True, timeout=500)
        peaks.append(json.loads((tmp_path / "r.json").read_text())["max_resident_bytes"])
    assert peaks[1] - peaks[0] < 50e6  # bytes, of 368e6 more on disk
