"""The page for those who come from another library: each pair of calls gives one number, and what is wrong there is."""

import jax
import numpy as np
import pytest

from bench import migration

pytestmark = pytest.mark.lenient
AGREE = 1e-9  # of formulas that cancel, in float64, on distributions that are well apart
EPS = float(np.finfo(np.float32).eps)


def installed(text):
    missing = migration.missing(text)
    if missing:
        pytest.skip(f'{", ".join(missing)} is not installed: pip install ".[peers]"')


@pytest.mark.parametrize("call", migration.SAME, ids=lambda call: f"{call.library} {call.there[:60]}")
def test_the_same_number(call):
    installed(call.there)
    with jax.enable_x64(True):
        given = migration.apart()
        there, here = migration.value(call.there, given), migration.value(call.here, given)
    assert there.shape == here.shape and there.dtype == here.dtype == np.float64
    np.testing.assert_allclose(there, here, rtol=AGREE, atol=0)


@pytest.mark.parametrize("wrong", migration.WRONG, ids=lambda wrong: f"{wrong.library} {wrong.there[:60]}")
def test_it_is_wrong_there_and_right_here(wrong):
    installed(wrong.there)
    there, here, true = migration.answers(wrong)
    assert np.isfinite(here).all()
    if wrong.case == "zeros":  # where there is no mass the slope is that of the least number of the dtype
        given = migration.case(wrong.case)["p"] > 0
        assert np.isnan(there[~given]).all()
        here, true = here[given], true[given]
        there = np.full_like(here, np.nan)  # one nan spoils the step of an optimiser
    scale = np.max(np.abs(true))
    assert not np.all(np.abs(there - true) < 0.01 * scale), "this library has been mended: take the line out"
    assert np.max(np.abs(here - true)) <= 8 * EPS * scale


def test_the_page_has_every_call():
    text = migration.PAGE.read_text()
    for call in migration.SAME:
        assert f"| `{call.there}` | `{call.here}` |" in text
    for wrong in migration.WRONG:
        assert f"`{wrong.there}`: " in text and f"`{wrong.here}`: " in text
