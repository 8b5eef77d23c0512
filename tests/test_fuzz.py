"""Hostile files and arguments: whatever the command line is given ends in a result or in one clear line.

Every example runs `main` in this process, in a folder of its own, beside which nothing may appear.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kljax import _files
from kljax.__main__ import main

pytestmark = pytest.mark.lenient  # as a user has it

P = np.random.default_rng(5).dirichlet(np.ones(4), 6).astype(np.float32)
MEMORY = 100e6  # bytes that Python and NumPy may hold at most for files of a few hundred bytes
SWEEP = ("sweep", "p.npy", "--cell", "probs.js", "--out")


class Evil:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return open, ("marker", "w")


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A folder with p.npy, the templates of other formats and a finished sweep."""
    folder = tmp_path_factory.mktemp("fuzz") / "inside"
    folder.mkdir()
    before = os.getcwd()
    os.chdir(folder)
    np.save("p.npy", P)
    (folder / "p.npz").write_bytes(archive(("x.npy", npy(P))))
    zarr.create_array("p.zarr", data=P, chunks=(3, 4))
    group = zarr.open_group("g.zarr", mode="w")
    group.create_array("x", data=P)
    assert outcome(*SWEEP, "D.zarr", "--block", "8")[0] == 0
    assert outcome(*SWEEP, "N.zarr", "--block", "8", "--nearest", "2")[0] == 0
    yield folder
    os.chdir(before)


def outcome(*arguments):
    """Status and what it says: 0 and a result, or 2 and one line; within memory and within the folder."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace"))  # as Python has
    tracemalloc.start()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(arguments))
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    printed, said = (x.buffer.getvalue().decode() for x in (out, err) if x.flush() is None)
    if status == 0:
        assert printed and not said
    else:
        assert status == 2 and not printed and said.startswith("kljax: ") and said.endswith("\n")
        assert said.count("\n") == 1 and len(said) > 12
        assert "Traceback" not in said
    assert os.listdir("..") == ["inside"] and not Path("marker").exists()
    return status, said


def compared(name, *arguments):
    return outcome("compare", "p.npy", name, "--rows", "kl", *arguments)


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def with_header(text, data=bytes(96), version=(1, 0), size=None):
    """A .npy file with any header."""
    text = text.encode("latin1")
    size = len(text) if size is None else size
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", size) + text + data


def header(descr="'<f4'", fortran=False, shape=(6, 4)):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def archive(*members, how=zipfile.ZIP_DEFLATED):
    """A .npz file; names may repeat."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as made:
        for name, data in members:
            with pytest.warns(UserWarning) if name in made.namelist() else contextlib.nullcontext():
                made.writestr(name, data)
    return file.getvalue()


def tensors(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + P.tobytes()


def tensor(**changed):
    return {"x": {"dtype": "F32", "shape": [6, 4], "data_offsets": [0, 96]} | changed}


# ---------------------------------------------------------------------------------------------- what is drawn


@st.composite
def mutated(draw, whole, first=0, last=None):
    """A few bytes of it changed, or an end cut off, or something behind."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(first, (last or len(whole)) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=3))


SIZES = st.sampled_from([0, 1, 2, 4, 6, -1, -6, True, 2**31, 2**62, 2**63, 10**30, 10**4000, 4.0, "4", None])
SHAPES = st.lists(SIZES, max_size=4).map(tuple) | st.just((6, 4))
DESCRS = (
    "'<f4'", "'>f4'", "'<f2'", "'|b1'", "'<i8'", "'<u2'", "'<c8'", "'|O'", "'<U3'", "'|V2'", "'<M8[s]'", "''",
    "'<f16'", "[('a', '<f4')]", "('<f4', (2,))", "'f4,f4'", "None", "{'a': 1}", "'<z9'", "'V0'", "[[]]",
)  # fmt: skip
HEADERS = st.builds(header, st.sampled_from(DESCRS), st.sampled_from([False, True, 0, "x"]), SHAPES)
TEXTS = st.text(st.sampled_from("{}[]()'\":, \n\tdescr<f4FalseTrueshape-+0L\\\0"), max_size=40)
SIMPLE = [None, True, 0, 4, 6, 96, -6, 1.5, float("inf"), float("nan"), 10**400, "", "F32", "I64", "float64", [], {}]
VALUES = st.sampled_from(SIMPLE) | st.lists(st.sampled_from(SIMPLE), max_size=3)
PIECES = (
    "1", "0.5", "-1", "nan", "inf", "1e400", "1_0", "0x1", "٣", ",", ",", ",", "\n", "\n", "\r", "\r\n", '"', "a",
    " ", "\0", "\ufeff", "\x1c", "\u2028", ";", "#", "0,1,2,3\n", "1,2,3,4\n", "1,2,3,4\n", "9" * 5000,
)  # fmt: skip
CSV = st.lists(st.sampled_from(PIECES), max_size=14).map(lambda parts: "".join(parts).encode())
NUMBERS = st.sampled_from(
    [
        "nan",
        "inf",
        "1e999",
        "-1",
        "0",
        "1",
        "0.5",
        "2",
        "1e-320",
        "1_0",
        "",
        "x",
        "p.npy",
        "none",
        ".",
        "..",
        "/dev/null",
        "q.npz:x",
        "p.zarr",
        "a" * 5000,
        "=",
        "\udcff",
        "row.npy",
    ]
)
PARAMETERS = st.sampled_from(
    [("js", "weight"), ("renyi", "order"), ("hockey_stick", "gamma"), ("js", "where"), ("wasserstein1", "positions")]
)
STRANGE = st.sampled_from("axis block out cell p q P progress a-b = é x".split() + [""])
OPTIONS = PARAMETERS | st.tuples(st.just("js"), STRANGE)
PARTS = ("x", "/", ".", "..", "\\", "c", "\n", ":", "é", "zarr.json", "../p.zarr", " ", "x.npy", "\x1b[31m")
NAMES = st.lists(st.sampled_from(PARTS), max_size=5).map("".join)
OUTS = (
    "p.npy",
    "p.zarr",
    "p.zarr/D",
    "../inside/out.zarr",
    "link.zarr",
    "file.zarr",
    "none/out.zarr",
    "",
    ".",
    "/",
    "..",
    "p.npy/out.zarr",
    "out.zarr/",
    "out.zarr",
    "a" * 300,
    "out\n.zarr",
    "D.zarr",
    "N.zarr",
    "N.zarr/values",
)


def a_file(suffix, drawn):
    """What is drawn, as the second of two files to compare."""

    def check(data):
        Path(f"h{suffix}").write_bytes(data)
        compared(f"h{suffix}")

    return drawn, check


def an_array(array):
    np.save("h.npy", array, allow_pickle=True)
    compared("h.npy")
    np.savez("h.npz", x=array)
    compared("h.npz:x")
    outcome("compare", "h.npy", "p.npy", "--as", "samples")


@st.composite
def arrays(draw):
    kinds = ["f2", "f4", ">f4", "f8", "f16", "i4", "u1", "?", "c8", "O", "U1", "M8[s]", "i4,f4", ml_dtypes.bfloat16]
    shape = draw(st.sampled_from([(), (0,), (4,), (6, 4), (6, 0), (1, 6, 4), (2, 3, 4), (6, 1, 4)]))
    array = np.resize(P, shape).astype(draw(st.sampled_from(kinds)))
    if array.size and array.dtype.kind in "fV" and array.dtype.names is None and draw(st.booleans()):
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf, -1.0]))
    return np.asfortranarray(array) if draw(st.booleans()) else array


def damaged(folder, name):
    """A copy of a result or of an array in which one file is changed."""
    shutil.rmtree("h.zarr", ignore_errors=True)
    shutil.copytree(folder, "h.zarr")
    return Path("h.zarr") / name


ENTRIES = st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=4), VALUES)


def changed(text, entry):
    """A JSON text with one of its values replaced."""
    path, value = entry
    whole = node = json.loads(text)
    for k in path:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        if not keys:
            break
        place = keys[k % len(keys)]
        if k is path[-1] or not isinstance(node[place], dict | list) or not node[place]:
            node[place] = value
            break
        node = node[place]
    return json.dumps(whole).encode()


@st.composite
def metadata(draw, folder, names):
    """(folder, name of a file in it, what stands there instead)."""
    name = draw(st.sampled_from(names))
    whole = (Path(folder) / name).read_bytes()
    if name.endswith("json") and draw(st.booleans()):
        return folder, name, changed(whole, draw(ENTRIES))
    return folder, name, draw(mutated(whole))


def damaged_array(case):
    folder, name, data = case
    damaged(folder, name).write_bytes(data)
    compared("h.zarr")


def damaged_result(case):
    folder, name, data = case
    damaged(folder, name).write_bytes(data)
    nearest = ["--nearest", "2"] if folder == "N.zarr" else []
    status, _ = outcome(*SWEEP, "h.zarr", *nearest)
    if status == 0 and name == "zarr.json" and folder == "D.zarr":
        assert np.array_equal(zarr.open_array("h.zarr")[:], zarr.open_array("D.zarr")[:])


def an_option(case):
    (cell, name), value = case
    np.save("row.npy", np.ones(4))
    shutil.rmtree("o.zarr", ignore_errors=True)
    outcome("sweep", "p.npy", "--cell", f"probs.{cell}", "--out", "o.zarr", "--option", f"{name}={value}")


def an_argument(case):
    name, value = case
    compared("p.npy", f"--{name}={value}", *(["--as", "logits"] if name == "temperature" else []))
    for left in ("h.json", "out.zarr"):
        Path(left).unlink(missing_ok=True)
    np.save("p.npy", P)


def an_out(case):
    out, fresh = case
    Path("file.zarr").write_text("x")
    with contextlib.suppress(FileExistsError):
        os.symlink("../inside/target.zarr", "link.zarr")
    outcome(*SWEEP, out, "--block", "8", *["--fresh"] * fresh)
    assert np.array_equal(np.load("p.npy"), P) and np.array_equal(zarr.open_array("p.zarr")[:], P)
    assert Path("file.zarr").read_text() == "x"


def a_name(name):
    compared(f"g.zarr:{name}")
    if name and "\0" not in name:
        Path("h.npz").write_bytes(archive((f"{name}.npy", npy(P))))
        compared(f"h.npz:{name}")
        compared("h.npz")


ARGUMENTS = st.tuples(
    st.sampled_from(["rows", "where", "temperature", "top", "json", "plot", "as"]),
    NUMBERS | st.sampled_from(["h.json", "p.npy", "../inside/p.npy", "renyi@nan", "renyi@1e999", "kl@", "@", "js@-0"]),
)
CHUNKS = ["zarr.json", "c/0/0"]
CATEGORIES = {  # what is drawn (a function: templates exist once the fixture does), the check, examples few and many
    "npy cut or changed": (lambda: a_file(".npy", mutated(npy(P), 0, 128)), 60, 1500),
    "npy headers": (lambda: a_file(".npy", st.builds(with_header, HEADERS | TEXTS)), 60, 1500),
    "arrays": (lambda: (arrays(), an_array), 30, 250),
    "npz cut or changed": (lambda: a_file(".npz", mutated(Path("p.npz").read_bytes())), 60, 2000),
    "safetensors": (lambda: a_file(".safetensors", mutated(tensors(tensor()), 0, 80)), 40, 1200),
    "safetensors headers": (
        lambda: a_file(
            ".safetensors", st.builds(tensors, ENTRIES.map(lambda entry: changed(json.dumps(tensor()), entry)))
        ),
        40,
        1200,
    ),
    "csv": (lambda: a_file(".csv", CSV | mutated(b"1,2,3,4\n" * 6)), 60, 1500),
    "names": (lambda: (NAMES, a_name), 30, 250),
    "zarr": (lambda: (metadata("p.zarr", ["zarr.json", "c/0/0"]), damaged_array), 60, 800),
    "sweep matrix": (lambda: (metadata("D.zarr", CHUNKS), damaged_result), 8, 60),
    "sweep nearest": (
        lambda: (metadata("N.zarr", ["zarr.json", "values/zarr.json", "indices/c/0/0"]), damaged_result),
        8,
        80,
    ),
    "sweep options": (lambda: (st.tuples(OPTIONS, NUMBERS), an_option), 15, 100),
    "compare arguments": (lambda: (ARGUMENTS, an_argument), 30, 300),
    "out": (lambda: (st.tuples(st.sampled_from(OUTS), st.booleans()), an_out), 8, 50),
}


def fuzz(category, many):
    made, *counts = CATEGORIES[category]
    drawn, check = made()
    quiet = settings(
        max_examples=counts[many],
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    ran = []

    @quiet
    @given(drawn)
    def every(case):
        ran.append(None)
        check(case)

    every()
    print(f"{category}: {len(ran)} examples")


@pytest.mark.xdist_group("one folder")
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_input_ends_in_a_result_or_one_line(ground, category):
    fuzz(category, False)


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_many_more(ground, category):
    fuzz(category, True)


# ---------------------------------------------------------------------------------------------- what was found


def refused(text, *arguments):
    status, said = outcome(*arguments)
    assert status == 2 and text in said, said


def second(text, name, data):
    """A file of which comparing says so."""
    Path(name).write_bytes(data)
    refused(text, "compare", "p.npy", name, "--rows", "kl")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("not a .npy file of numbers (", with_header("{'descr': '<f4', 'shape': (6, 4),\n")),
        ("not a .npy file of numbers (unhashable", with_header("{[]: 1}")),
        ("not a .npy file of numbers (", with_header("-" * 5000 + "1")),
        ("a shape that no array has", with_header(header(shape=(10**4000, 10**4000)))),
        ("a shape that no array has", with_header(header(shape=(-6, -4)))),
        ("has no mass", with_header(header(shape="(6L, 4L)"))),  # Python 2 wrote it, of which numpy warns
        ("a header of 4294967295 bytes", with_header("{", version=(2, 0), size=2**32 - 1)),
        ("holds pickled Python objects", npy(np.array([Evil()], object))),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_npy(ground, text, data):
    second(text, "h.npy", data)
    second(text, "h.npz", archive(("x.npy", data)))


def test_npz_that_promises_what_it_has_not(ground):
    Path("h.npz").write_bytes(damaged_deflate())
    with pytest.raises(_files.InputError, match="h.npz:x: damaged near row 0"):
        _files.open_rows("h.npz").read(0, 20_000)
    whole = Path("p.npz").read_bytes()
    for at in range(35, 100):
        Path("h.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        compared("h.npz")
    second("holds 2 arrays (x, x)", "h.npz", archive(("x.npy", npy(P)), ("x.npy", npy(P))))
    refused("holds 'x' more than once", "compare", "p.npy", "h.npz:x")
    second("cut short, 96 bytes where its header", "h.npz", archive(("x.npy", with_header(header(shape=(10**9, 4))))))


def damaged_deflate():
    """An archive of which the numbers are no deflated stream, the header being one."""
    noise = np.random.default_rng(0).dirichlet(np.ones(4), 20_000).astype(np.float32)
    data = bytearray(archive(("x.npy", npy(noise))))
    data[200_000:200_100] = bytes(100)
    return bytes(data)


def test_npz_bombs(ground, monkeypatch):
    """What a few kilobytes expand to is never held at once."""
    wide = with_header("{" + " " * 150_000_000, version=(2, 0))
    second("a header of 150000001 bytes", "h.npz", archive(("x.npy", wide)))
    many = with_header(header(shape=(10**7, 4)), np.ones(4 * 10**7, np.float32).tobytes())
    Path("h.npz").write_bytes(archive(("x.npy", many)))
    del wide, many
    rows = _files.open_rows("h.npz")
    tracemalloc.start()
    for start in range(0, 10**7, 10**6):
        assert rows.read(start, start + 10**6).min() == 1
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()
    rows.close()
    monkeypatch.setattr(_files, "_memory", lambda: 10**8)
    refused("h.npz:x: 160000000 bytes, all of them needed at once", "compare", "h.npz", "h.npz", "--as", "samples")


@pytest.mark.parametrize(
    "given",
    [
        tensor(dtype=[]),
        tensor(shape=[float("inf"), 4]),
        tensor(shape=[6.5, 4]),
        tensor(shape="64"),
        tensor(data_offsets=["0", "96"]),
        tensor(data_offsets=[0.0, 96.0]),
        tensor(data_offsets=[-(10**4299), 10**4299]),
        b"[" * 100_000,
    ],
    ids=lambda x: str(x)[:60],
)
def test_safetensors(ground, given):
    second("h.safetensors: ", "h.safetensors", tensors(given))


def test_zarr_metadata(ground):
    text = Path("p.zarr/zarr.json").read_text()
    for old, new, said in (
        ('"chunk_shape": [', '"chunk_shape": [0, ', "zarr cannot"),
        ('"shape": [', '"shape": [4611686018427387904, ', "a shape that no array has"),
    ):
        lines = " ".join(text.split())
        assert old in lines
        first = lines.index(old) + len(old)
        damaged("p.zarr", "zarr.json").write_text(
            lines[:first] + new.split("[")[1] + lines[lines.index(",", first) + 1 :]
        )
        refused(said, "compare", "p.npy", "h.zarr")
    shutil.rmtree("h.zarr")
    Path("h.zarr").mkdir()
    about = {"zarr_format": 2, "shape": [6, 4], "chunks": [6, 4], "dtype": "<f4", "fill_value": 0, "order": "C"}
    Path("h.zarr/.zarray").write_text(json.dumps(about | {"compressor": None, "filters": [{"id": "pickle"}]}))
    Path("h.zarr/0.0").write_bytes(pickle.dumps(Evil()))
    refused("zarr cannot open it", "compare", "p.npy", "h.zarr")


def test_results_that_are_damaged(ground):
    whole = zarr.open_array("D.zarr")[:]
    chunk = damaged("D.zarr", "c/0/0")
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert outcome(*SWEEP, "h.zarr")[0] == 0 and np.array_equal(zarr.open_array("h.zarr")[:], whole)
    for old, new, text in (
        ('"little"', '"big"', "damaged: codecs is not as begun"),
        ('"float32"', '"float64"', "damaged: data_type is not as begun"),
        ('"block"', '"blocks"', "is no result of kljax.sweep"),
    ):
        file = damaged("D.zarr", "zarr.json")
        file.write_text(file.read_text().replace(old, new, 1))
        refused(text, *SWEEP, "h.zarr")
    damaged("N.zarr", "values/zarr.json").unlink()
    refused("damaged: it has no values", *SWEEP, "h.zarr", "--nearest", "2")


@pytest.mark.parametrize(
    ("cell", "option", "text"),
    [
        ("js", "where=1", "expected a file with 4 numbers"),
        ("js", "where=p.npy", "shape (6, 4); expected one row of 4 numbers"),
        ("wasserstein1", "positions=1", "expected a file with 4 numbers"),
        ("renyi", "order=p.npy", "order=p.npy: expected a number"),
        ("renyi", "order=nan", "order must be from 0 to inf"),
        ("js", "weight=2", "weight must be from 0 to 1"),
        ("js", "axis=0", "no option of a cell"),
        ("js", "out=1", "no option of a cell"),
    ],
)
def test_sweep_options(ground, cell, option, text):
    refused(text, "sweep", "p.npy", "--cell", f"probs.{cell}", "--out", "o.zarr", "--option", option)


def test_inputs_are_never_overwritten(ground):
    before = Path("p.npz").read_bytes()
    refused("p.npz: is an input", "compare", "p.npz:x", "p.npy", "--json", "p.npz")
    assert Path("p.npz").read_bytes() == before
    damaged("D.zarr", "zarr.json")
    for out in ("h.zarr", "../inside/h.zarr", "h.zarr/x.zarr"):
        refused(f"{out}: is an input", "sweep", "h.zarr", "--cell", "probs.js", "--out", out, "--fresh")
    assert np.array_equal(zarr.open_array("h.zarr")[:], zarr.open_array("D.zarr")[:])


def test_names_that_are_no_text(ground):
    np.savetxt("a\udcff.csv", P, delimiter=",")
    assert compared("a\udcff.csv")[0] == 0
