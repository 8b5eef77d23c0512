"""Settings of every test: 8 host devices, strict numerics, and the dtypes with their x64 context."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX_PLATFORMS=cuda,cpu pytest -m gpu for the others
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import jax
import numpy as np
import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "lenient: runs code of others, which may promote dtypes and ranks")


def pytest_runtest_teardown(item):
    """Linux gives a process 65,530 mappings, of which each program takes some: hours of slow tests end in a crash."""
    maps = pathlib.Path("/proc/self/maps")
    if item.get_closest_marker("slow") and maps.exists() and len(maps.read_bytes().splitlines()) > 40_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def strict(request):
    """No implicit promotion of dtypes or ranks, no key used twice."""
    if request.node.get_closest_marker("lenient"):
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Each floating dtype, with x64 on exactly where it is needed."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)
