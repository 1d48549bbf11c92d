"""The blocked recurrence is the loop it stands for, in value and in derivative, for records of any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from celltwin.physics.recurrence import clipped_sum, from_blocks, in_blocks, linear_recurrence

LENGTHS = (1, 2, 3, 5, 16, 17, 99, 1000)
EXACT = {np.float32: 2e-6, np.float64: 1e-14}


def loop(keep, drive, initial):
    x, out = np.asarray(initial, float), []
    for a, b in zip(np.asarray(keep, float), np.asarray(drive, float), strict=True):
        x = a * x + b
        out.append(x)
    return np.array(out)


def scanned(keep, drive, initial):
    def step(x, ab):
        x = ab[0] * x + ab[1]
        return x, x

    return jax.lax.scan(step, initial, (keep, drive))[1]


def drawn(seed, length, shape=(), dtype=np.float32):
    """Factors from nothing to everything kept, additions that balance them, and where it starts."""
    draw = np.random.default_rng(seed)
    keep = draw.choice([0.0, 0.3, 0.99, 1.0], (length, *shape)) * draw.uniform(0.9, 1.0, (length, *shape))
    drive = (1.0 - keep) * draw.normal(size=keep.shape)
    return tuple(np.asarray(a, dtype) for a in (keep, drive, draw.normal(size=shape)))


@pytest.mark.parametrize("dtype", EXACT, ids=lambda d: d.__name__)
@pytest.mark.parametrize(("length", "shape"), [*((length, ()) for length in LENGTHS), (99, (3,)), (7, (2, 0))], ids=str)
def test_it_is_the_loop(dtype, length, shape, in_double):
    given = drawn(length, length, shape, dtype)
    with jax.numpy_dtype_promotion("strict"):
        x = jax.jit(linear_recurrence)(*given)
    assert x.dtype == dtype
    assert x.shape == given[1].shape
    np.testing.assert_allclose(x, loop(*given), atol=EXACT[dtype])


@with_settings(max_examples=15)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 300))
def test_any_length(seed, length):
    arguments = drawn(seed, length)
    np.testing.assert_allclose(linear_recurrence(*arguments), loop(*arguments), atol=EXACT[np.float32])


@pytest.mark.parametrize("length", [1, 2, 17, 99])
def test_its_derivatives_are_those_of_a_scan(length, in_double):
    arguments = drawn(1, length, (2,), np.float64)
    direction = drawn(2, length, (2,), np.float64)
    weights = np.random.default_rng(3).normal(size=(length, 2))
    for mine, plain in zip(
        jax.jvp(linear_recurrence, arguments, direction), jax.jvp(scanned, arguments, direction), strict=True
    ):
        np.testing.assert_allclose(mine, plain, atol=1e-12)
    gradients = (
        jax.grad(lambda *a, f=f: jnp.sum(weights * f(*a) ** 2), argnums=(0, 1, 2))(*arguments)
        for f in (linear_recurrence, scanned)
    )
    for mine, plain in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, plain, atol=1e-10)


def test_side_by_side_under_vmap():
    rows = [drawn(seed, 50, (2,)) for seed in range(4)]
    together = jax.vmap(linear_recurrence)(*(np.stack(column) for column in zip(*rows, strict=True)))
    for x, row in zip(together, rows, strict=True):
        np.testing.assert_allclose(x, loop(*row), atol=EXACT[np.float32])


@pytest.mark.parametrize("dtype", EXACT, ids=lambda d: d.__name__)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_clipped_sum_is_its_loop(length, dtype, in_double):
    draw = np.random.default_rng(length)
    drive, initial = (a.astype(dtype) for a in (draw.normal(0.0, 0.4, (length, 3)), draw.uniform(-1.0, 1.0, 3)))
    x, expected = initial.astype(float), []
    for d in drive.astype(float):
        x = np.minimum(np.maximum(x + d, -1.0), 1.0)
        expected.append(x)
    with jax.numpy_dtype_promotion("strict"):
        found = clipped_sum(drive, initial)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, atol=EXACT[dtype])
    assert length < 99 or (np.abs(expected) == 1.0).any()


@pytest.mark.parametrize("length", LENGTHS)
def test_blocks_come_back_as_they_were(length):
    x = np.random.default_rng(0).normal(size=(length, 2)).astype(np.float32)
    np.testing.assert_array_equal(from_blocks(in_blocks(jnp.asarray(x)), length), x)
