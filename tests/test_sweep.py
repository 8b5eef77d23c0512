"""Matrices on disk: the values of pairwise, whatever ends a sweep and whoever goes on with it."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

import kljax
from kljax import _plot, _store, _sweep
from kljax.__main__ import main
from tests import commands, matrix

RANDOM = np.random.default_rng(11)
P = RANDOM.dirichlet(np.ones(12), 37).astype(np.float32)
Q = RANDOM.dirichlet(np.ones(12), 21).astype(np.float32)
BLOCK = 8


def swept(out, p=P, q=None, cell=kljax.probs.js, **options):
    return kljax.sweep(cell, p, q, out=out, **({"block": BLOCK, "progress": False} | options))


def chunks(out):
    """The chunks that are there; a process that is killed leaves the one that it was writing as `.partial`."""
    files = (file for file in (out / "c").rglob("*") if file.is_file() and file.suffix != ".partial")
    return sorted(str(file.relative_to(out)) for file in files)


def same(found, cell, p, q=None, **options):
    """As near to pairwise as one way of rounding is to another."""
    true = np.asarray(kljax.pairwise(cell, p, q, **options))
    assert found.shape == true.shape and found.dtype == true.dtype
    error = np.abs(found - true) / np.maximum(np.abs(true), np.finfo(true.dtype).tiny)
    assert error.max() <= 8 * np.finfo(true.dtype).eps, error.max()


class Lazy:
    """An array that is read when it is sliced, as tensorstore's are; `trouble` is called with each slice."""

    def __init__(self, array, trouble=lambda where: None):
        self.array, self.trouble = array, trouble
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, where):
        self.trouble(where)
        return self.array[where]


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "q", "options"),
    [("js", None, {}), ("kl", None, {}), pytest.param("renyi", Q, {"order": 0.4}, marks=pytest.mark.repeat)],
)
def test_values_are_those_of_pairwise(tmp_path, name, q, options):
    cell = getattr(kljax.probs, name)
    made = swept(tmp_path / "D.zarr", P, q, cell, **options)
    found = made.matrix[:]
    same(found, cell, P, q, **options)
    tiles = 15 if name == "js" else 15 if q is not None else 25
    assert (made.tiles, made.computed, made.matrix.chunks) == (tiles, tiles, (BLOCK, BLOCK))
    if q is None:
        assert (np.diag(found) == 0).all() and (name == "kl" or np.array_equal(found, found.T))
    assert zarr.open_array(tmp_path / "D.zarr").fill_value != zarr.open_array(tmp_path / "D.zarr").fill_value
    assert not list(tmp_path.rglob("*.partial")) and [x.name for x in tmp_path.iterdir()] == ["D.zarr"]


def test_distributions_of_several_arrays_and_functions_of_the_user(tmp_path):
    p = kljax.normal.Normal(P[:, :3], P[:, 3:6])
    same(swept(tmp_path / "a", p, cell=kljax.normal.kl).matrix[:], kljax.normal.kl, p)

    def both(p, q):
        return jnp.stack([jnp.sum(p * q), jnp.max(p - q)])

    found = swept(tmp_path / "b", P, Q, both).matrix
    assert found.chunks == (BLOCK, BLOCK, 2)
    assert np.allclose(found[:], kljax.pairwise(both, P, Q), rtol=1e-5)


@pytest.mark.parametrize("kind", ["memory map", "zarr", "lazy", "jax", "bfloat16", "integers", "float64"])
def test_whatever_can_be_sliced(tmp_path, kind):
    array = {"bfloat16": P.astype(jnp.bfloat16), "integers": (P * 1000).astype(np.int64) << 32,
             "float64": P.astype(np.float64)}.get(kind, P)  # fmt: skip
    given = array
    if kind == "memory map":
        np.save(tmp_path / "p.npy", array)
        given = np.load(tmp_path / "p.npy", mmap_mode="r")
    elif kind == "zarr":
        given = zarr.create_array(tmp_path / "p.zarr", data=array, chunks=(5, 12))
    elif kind in ("lazy", "jax"):
        given = Lazy(array) if kind == "lazy" else jnp.asarray(array)
    with jax.enable_x64(kind == "float64"):
        true = array.astype(np.float64 if kind == "float64" else np.float32)
        same(swept(tmp_path / "D", given).matrix[:], kljax.probs.js, true)


def test_blocks_are_chosen_and_go_on_as_they_were(tmp_path):
    made = kljax.sweep(kljax.probs.js, P, out=tmp_path / "D", progress=False)
    assert made.matrix.chunks == (37, 37)
    swept(tmp_path / "E", block=16)
    again = swept(tmp_path / "E", block=None)
    assert again.computed == 0 and again.matrix.chunks == (16, 16)
    wide = _sweep._grid(tmp_path / "F", _sweep.sides(np.zeros((50_000, 100_000), np.int8), None), None, False, True)
    assert wide.block[0] * 400_000 <= 1 << 26


def test_rows_with_nan_spoil_themselves_alone_and_are_named(tmp_path):
    p = P.copy()
    p[[3, 20], 5] = np.nan
    made = swept(tmp_path / "D", p)
    assert [list(x) for x in made.nan_rows] == [[3, 20], [3, 20]]
    wrong = np.zeros(37, bool)
    wrong[[3, 20]] = True
    assert np.array_equal(np.isnan(made.matrix[:]), wrong[:, None] | wrong[None])
    assert swept(tmp_path / "D", p).computed == 0  # a tile of nan is done, too


# ------------------------------------------------------------------------------------------------ the nearest


@pytest.mark.parametrize("q", [None, Q], ids=["own", "two"])
def test_the_nearest_are_those_of_the_matrix(tmp_path, q):
    p = P.copy()
    p[4] = np.nan
    p[5, 3:] = 0  # kl is infinite from all others, and from it finite
    made = swept(tmp_path / "D", p, q, kljax.probs.kl, nearest=5)
    values, indices = made.matrix["values"][:], made.matrix["indices"][:]
    full = np.array(kljax.pairwise(kljax.probs.kl, p, q))
    if q is None:
        np.fill_diagonal(full, np.nan)
    order = np.argsort(full, 1, kind="stable")[:, :5]
    true = np.take_along_axis(full, order, 1)
    assert np.array_equal(np.isnan(values), np.isnan(true)) and np.isnan(values[4]).all()
    assert np.array_equal(indices, np.where(np.isnan(true), -1, order))
    finite = np.isfinite(true)
    assert np.array_equal(np.isinf(values), np.isinf(true))
    assert np.allclose(values[finite], true[finite], rtol=8 * float(np.finfo(np.float32).eps))
    assert swept(tmp_path / "D", p, q, kljax.probs.kl, nearest=5).computed == 0


def test_infinite_distances_are_neighbours_and_rows_that_are_none_are_not(tmp_path):
    p = np.eye(12, dtype=np.float32)
    made = swept(tmp_path / "D", p, cell=kljax.probs.kl, nearest=11)
    values, indices = made.matrix["values"][:], made.matrix["indices"][:]
    assert np.isinf(values).all() and all(set(row) == set(range(12)) - {i} for i, row in enumerate(indices))


# ------------------------------------------------------------------------------------------------ going on


def test_what_differs_is_named(tmp_path, monkeypatch):
    out = tmp_path / "D"
    swept(out, cell=kljax.probs.alpha, order=0.3)
    other = P.copy()
    other[9, 0] += 1e-3
    cases = [
        (r"cell kljax.probs.alpha, not kljax.probs.tsallis", {"cell": kljax.probs.tsallis, "order": 0.3}),
        (r"options order 0.3, not 0.4", {"order": 0.4}),
        (r"other numbers in P rows 8 to 15", {"p": other, "order": 0.3}),
        (r"P arrays 37x12 float32, not 36x12 float32", {"p": P[:36], "order": 0.3}),
        (r"Q none, not ", {"q": Q, "order": 0.3}),
        (r"block 8x8, not 16x16", {"block": 16, "order": 0.3}),
        (r"nearest none, not 2", {"nearest": 2, "order": 0.3}),
    ]
    for text, changed in cases:
        with pytest.raises(ValueError, match=f"begun with {text}.*resume=False"):
            swept(out, **({"cell": kljax.probs.alpha} | changed))
    monkeypatch.setattr(kljax, "__version__", "0.0.1")
    with pytest.raises(ValueError, match=r"begun with versions kljax \S+, not 0.0.1"):
        swept(out, cell=kljax.probs.alpha, order=0.3)


def test_functions_of_the_user_are_known_by_their_code(tmp_path):
    def made(scale):
        return lambda p, q: scale * jnp.sum(p * q)

    swept(tmp_path / "D", cell=made(2.0))
    assert swept(tmp_path / "D", cell=made(2.0)).computed == 0
    with pytest.raises(ValueError, match="begun with cell"):
        swept(tmp_path / "D", cell=made(3.0))
    row = kljax.rows.alpha(0.3)
    swept(tmp_path / "E", cell=kljax.probs.f_divergence, row=row)
    assert swept(tmp_path / "E", cell=kljax.probs.f_divergence, row=kljax.rows.alpha(0.3)).computed == 0
    with pytest.raises(ValueError, match="begun with options row"):
        swept(tmp_path / "E", cell=kljax.probs.f_divergence, row=kljax.rows.alpha(0.4))


def test_what_is_none_of_its_own_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    zarr.create_array(tmp_path / "array", data=np.ones(3))
    for name in ("file", "folder", "array"):
        for resume in (True, False):
            with pytest.raises(ValueError, match="is no result of kljax.sweep"):
                swept(tmp_path / name, resume=resume)
    assert (tmp_path / "folder" / "file").read_text() == "x" and zarr.open_array(tmp_path / "array")[:].sum() == 3
    with pytest.raises(ValueError, match="no folder"):
        swept(tmp_path / "none" / "D")
    with pytest.raises(ValueError, match="block is 0"):
        swept(tmp_path / "D", block=0)
    with pytest.raises(ValueError, match="36 others"):
        swept(tmp_path / "D", nearest=37)
    with pytest.raises(TypeError, match="kljax.probs.js: got an unexpected keyword argument 'wieght'"):
        swept(tmp_path / "D", wieght=0.5)
    assert not (tmp_path / "D").exists()


def test_begun_anew(tmp_path):
    swept(tmp_path / "D")
    made = swept(tmp_path / "D", cell=kljax.probs.tv, resume=False)
    assert made.computed == made.tiles
    same(made.matrix[:], kljax.probs.tv, P)
    (tmp_path / "D" / "c" / "1" / "2").unlink()
    assert swept(tmp_path / "D", cell=kljax.probs.tv).computed == 1  # with its mirror image, which was there


def test_a_row_that_cannot_be_read(tmp_path):
    """At first nothing is begun; later what is done is kept."""

    def broken(where):
        if where.start <= 19 < where.stop:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(ValueError, match="P: row 19 cannot be read: .*Input/output error"):
        swept(tmp_path / "D", Lazy(P, broken))
    assert not (tmp_path / "D").exists()
    reads = []

    def later(where):
        reads.append(where)
        if len(reads) > 5:
            broken(where)

    with pytest.raises(
        ValueError, match=r"P: row 19 cannot be read: .*; .*D: \d+ of 25 tiles are there, the same call"
    ):
        swept(tmp_path / "D", Lazy(P, later), cell=kljax.probs.kl)
    there = len(chunks(tmp_path / "D"))
    assert swept(tmp_path / "D", cell=kljax.probs.kl).computed == 25 - there
    same(zarr.open_array(tmp_path / "D")[:], kljax.probs.kl, P)


def test_a_full_disk(tmp_path, monkeypatch):
    real, done = _store.Matrix.put, []

    def put(self, tile, found):
        if len(done) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(tile)
        real(self, tile, found)

    monkeypatch.setattr(_store.Matrix, "put", put)
    with pytest.raises(OSError, match="No space left on device; .*D: 4 of 25 tiles are there") as caught:
        swept(tmp_path / "D", cell=kljax.probs.kl)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert swept(tmp_path / "D", cell=kljax.probs.kl).computed == 21


def test_reading_computing_and_writing_overlap(tmp_path, monkeypatch):
    """A tile that waits to be written waits here until later rows are being read."""
    reads, ahead, real = [], threading.Event(), _store.Matrix.put

    def seen(where):
        reads.append(where)
        if len(reads) > 5 + 1:  # the digests, the first tile
            ahead.set()

    def put(self, tile, found):
        assert ahead.wait(60), "nothing was read while a tile was being written"
        real(self, tile, found)

    monkeypatch.setattr(_store.Matrix, "put", put)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    same(swept(tmp_path / "D", P, Lazy(P, seen)).matrix[:], kljax.probs.js, P, P)


# ------------------------------------------------------------------------------------------------ killed


SLOW = """
import sys, time, numpy as np, kljax
class Slow:
    def __init__(self, array): self.array, self.shape, self.dtype = array, array.shape, array.dtype
    def __getitem__(self, where):
        time.sleep(0.05)
        return self.array[where]
P = np.load(sys.argv[1])
kljax.sweep(kljax.probs.js, Slow(P), Slow(P), out=sys.argv[2], block=8, progress=False)
"""


def until(condition, process=None, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None), "it never came to that"
        time.sleep(0.01)


@pytest.mark.parametrize("name", matrix.tiers(("SIGINT", "SIGTERM", "SIGKILL"), ("SIGKILL",)))
def test_signals_leave_what_is_done(tmp_path, name):
    out, rows = tmp_path / "D", np.concatenate([P] * 4)
    np.save(tmp_path / "p.npy", rows)
    command = [sys.executable, "-c", SLOW, str(tmp_path / "p.npy"), str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: len(chunks(out)) >= 16, process)
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=60)[1]
    there = len(chunks(out))
    assert 16 <= there < 361
    if name != "SIGKILL":
        assert f"D: {there} of 361 tiles are there, the same call computes the others" in said
    assert process.returncode == {"SIGINT": -signal.SIGINT, "SIGTERM": 143, "SIGKILL": -signal.SIGKILL}[name]
    before = {file: (out / file).read_bytes() for file in chunks(out)}
    made = swept(out, rows, rows)
    assert made.computed == 361 - there and not list(out.rglob("*.partial"))
    whole = swept(tmp_path / "E", rows, rows).matrix[:]
    assert np.array_equal(made.matrix[:], whole)
    assert all((out / file).read_bytes() == bits for file, bits in before.items())


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def together(tmp_path, code, *arguments):
    """Two processes of one device each."""
    port, environment = f"127.0.0.1:{free_port()}", os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, *code, *arguments, "--coordinator", port, "--processes", "2", "--process", str(i)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
        )
        for i in (0, 1)
    ]  # fmt: skip


@pytest.mark.smoke
def test_two_processes_one_of_which_is_killed(tmp_path):
    rows = RANDOM.dirichlet(np.ones(256), 1500).astype(np.float32)
    np.save(tmp_path / "p.npy", rows)
    arguments = ["sweep", "p.npy", "--cell", "probs.js", "--out", "D.zarr", "--block", "50"]
    out, total = tmp_path / "D.zarr", 30 * 31 // 2
    first, second = together(tmp_path, ["-m", "kljax"], *arguments)
    try:
        until(lambda: len(chunks(out)) >= 40)
        second.kill()
        said = first.communicate(timeout=120)[1]
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    places = [tuple(map(int, name.split("/")[1:])) for name in chunks(out)]
    assert first.returncode == 2 and "a process has died" in said, said
    assert -(-total // 2) <= sum(i <= j for i, j in places) < total  # its own share and what the other had done
    for process in (pair := together(tmp_path, ["-m", "kljax"], *arguments)):
        process.wait(timeout=120)
    printed = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], printed
    assert "probs.js" in printed[0][0] and "probs.js" not in printed[1][0]
    made = swept(tmp_path / "E", rows, block=50)
    assert np.array_equal(zarr.open_array(out)[:], made.matrix[:]) and made.tiles == total
    assert not list(tmp_path.rglob("*.partial"))


GLOBAL = """
import sys, os, numpy as np, jax
port, me = sys.argv[2], int(sys.argv[-1])
jax.distributed.initialize(sys.argv[2], 2, me, coordinator_bind_address=sys.argv[2])
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec as Spec
import kljax
rows = np.load("p.npy")
mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
placed = jax.make_array_from_callback(rows.shape, NamedSharding(mesh, Spec("rows")), lambda where: rows[where])
found = kljax.pairwise(kljax.probs.js, placed)
np.save(f"found{me}.npy", np.asarray(found.addressable_data(0)))
multihost_utils.sync_global_devices("saved")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.repeat
def test_pairwise_of_an_array_over_two_processes(tmp_path):
    np.save(tmp_path / "p.npy", P[:36])
    pair = together(tmp_path, ["-c", GLOBAL])
    said = [process.communicate(timeout=120)[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    found = np.concatenate([np.load(tmp_path / f"found{i}.npy") for i in (0, 1)])
    same(found, kljax.probs.js, P[:36])


@pytest.mark.slow
def test_twenty_thousand_rows_killed_three_times(tmp_path):
    rows = np.random.default_rng(0).dirichlet(np.ones(256), 20_000).astype(np.float32)
    np.save(tmp_path / "p.npy", rows)
    code = """
import resource, sys, numpy as np, kljax
made = kljax.sweep(kljax.probs.js, np.load("p.npy", mmap_mode="r"), out=sys.argv[1], progress=False)
print(made.tiles, made.computed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""
    environment = os.environ | {"XLA_FLAGS": ""}
    out, flown = tmp_path / "D", 0
    for share in np.sort(RANDOM.uniform(0.1, 0.9, 3)):
        with subprocess.Popen([sys.executable, "-c", code, "D"], cwd=tmp_path, env=environment) as process:
            until(lambda share=share: len(chunks(out)) > 400 * share, process, 300)
            process.kill()
        flown += 1
    there = len(chunks(out))
    done = [subprocess.run([sys.executable, "-c", code, name], cwd=tmp_path, env=environment, check=True,
                           capture_output=True, text=True).stdout.split() for name in ("D", "E")]  # fmt: skip
    assert [int(x) for x in done[1][:2]] == [210, 210] and int(done[0][1]) <= 210 - (there - 20) // 2
    assert max(int(x[2]) for x in done) < 2000
    whole = zarr.open_array(tmp_path / "E")
    for i in range(0, 20_000, 2_000):
        assert np.array_equal(zarr.open_array(out)[i : i + 2_000], whole[i : i + 2_000])


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder to stand in with p.npy and q.npy."""
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", P)
    np.save("q.npy", Q)
    return tmp_path


def failure(capsys, *arguments):
    return commands.failure(capsys, "sweep", *arguments)


def test_the_command(files, capsys):
    arguments = ["sweep", "p.npy", "--cell", "probs.js", "--out", "D.zarr", "--block", "8", "--figure", "D.png"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    true = np.asarray(kljax.pairwise(kljax.probs.js, P))
    np.fill_diagonal(true := np.array(true), np.nan)
    i, j = np.unravel_index(np.nanargmin(true), true.shape)
    assert lines[0].startswith("D.zarr: probs.js, 15 tiles of 8 x 8 in ") and len(lines) == 2
    assert f"least {true[i, j]:.6g}" in lines[1] and f"(rows {i} and {j})" in lines[1]
    assert (files / "D.png").read_bytes().startswith(b"\x89PNG")
    assert main(arguments) == 0
    assert ", 0 tiles of 8 x 8 (15 were there) in " in capsys.readouterr().out
    assert main([*arguments, "--fresh"]) == 0
    assert ", 15 tiles of 8 x 8 in " in capsys.readouterr().out


@pytest.mark.repeat
def test_the_command_keeps_the_nearest_and_takes_options(files, capsys):
    np.save("mask.npy", np.arange(12) > 2)
    arguments = [
        "sweep",
        "p.npy",
        "q.npy",
        "--cell",
        "probs.renyi",
        "--option",
        "order=0.5",
        "--option",
        "where=mask.npy",
    ]
    assert main([*arguments, "--nearest", "3", "--out", "near.zarr", "--block", "8", "--figure", "n.png"]) == 0
    assert "nearest " in capsys.readouterr().out
    full = np.asarray(kljax.pairwise(kljax.probs.renyi, P, Q, order=0.5, where=np.arange(12) > 2))
    assert np.array_equal(zarr.open_group("near.zarr")["indices"][:], np.argsort(full, 1, kind="stable")[:, :3])


def test_the_command_with_files_of_several_arrays(files, capsys):
    np.savez("n.npz", loc=P[:, :3].astype(np.float64), scale=np.array([1.0, 2.0, 0.5]))
    assert main(["sweep", "n.npz", "--cell", "normal.kl", "--out", "N.zarr"]) == 0
    with jax.enable_x64(True):
        p = kljax.normal.Normal(P[:, :3].astype(np.float64), np.tile([1.0, 2.0, 0.5], (37, 1)))
        same(zarr.open_array("N.zarr")[:], kljax.normal.kl, p)


def test_the_command_complains_in_one_line(files, capsys):
    wrong = Q.copy()
    wrong[7, 3] = -0.5
    np.save("wrong.npy", wrong)
    np.save("logits.npy", np.log(Q))
    np.save("narrow.npy", Q[:, :5])
    cases = {
        ("p.npy", "--cell", "probs.xx"): "--cell probs.xx: probs has cross_entropy, kl",
        ("p.npy", "--cell", "prob.kl"): "--cell prob.kl: expected COLUMN.ROW, COLUMN one of probs, logits",
        ("p.npy", "--cell", "probs.renyi"): "kljax.probs.renyi: missing a required argument: 'order'",
        ("p.npy", "--cell", "probs.js", "--option", "weight"): "--option weight: expected NAME=VALUE",
        ("p.npy", "--cell", "probs.js", "--option", "weight=a"): "--option weight=a: a is neither a number nor a file",
        ("p.npy", "wrong.npy", "--cell", "probs.kl"): "wrong.npy: row 7, column 3 is -0.5: expected >= 0",
        ("logits.npy", "--cell", "probs.kl"): "log-probabilities, which are logits? use kljax.logits (--cell logits)",
        ("p.npy", "narrow.npy", "--cell", "probs.kl"): "narrow.npy: 5 columns where p.npy has 12: outcomes must match",
        ("none.npy", "--cell", "probs.kl"): "none.npy: no such file",
        ("p.npy", "--cell", "probs.kl", "--figure", "x.gif"): "--figure x.gif: expected a name that ends in",
        ("p.npy", "--cell", "probs.kl", "--figure", "p.npy"): "--figure p.npy: expected a name that ends in",
        ("p.npy", "--cell", "probs.kl", "--process", "1"): "--coordinator, --processes and --process come together",
        ("p.npy", "--cell", "probs.kl", "--nearest", "0"): "nearest is 0",
    }
    for arguments, text in cases.items():
        assert text in failure(capsys, *arguments, "--out", "x.zarr")
    assert not (files / "x.zarr").exists()
    assert "is no result of kljax.sweep" in failure(capsys, "p.npy", "--cell", "probs.kl", "--out", "p.npy")


def test_a_bar_shows_the_rate(tmp_path, capsys):
    swept(tmp_path / "D", progress=True)
    assert "pairs/s" in capsys.readouterr().err


def test_large_pictures_are_made_of_means(tmp_path):
    from kljax import _summary

    values = RANDOM.random((2500, 1700))
    values[7, 9] = np.inf
    array = zarr.create_array(tmp_path / "a", data=values, chunks=(600, 600))
    found = _summary.summarise(array, False)
    assert found.picture.shape == (834, 850) and found.infinite == 1 and found.nan == 0
    finite = np.where(np.isfinite(values), values, np.nan)
    assert np.allclose(found.picture[2, 4], np.nanmean(finite[6:9, 8:10])) and np.isclose(
        found.mean, np.nanmean(finite)
    )
    assert found.least.value == np.nanmin(finite) and found.most[1:] == np.unravel_index(
        np.nanargmax(finite), finite.shape
    )
    _plot.heat_map(found.picture, array.shape, "x", False, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert json.loads((tmp_path / "a" / "zarr.json").read_text())["zarr_format"] == 3
