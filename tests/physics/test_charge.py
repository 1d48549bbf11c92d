"""Counted charge stays exact over days of small steps in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from celltwin.interface import Input
from celltwin.physics import charge
from celltwin.physics.charge import advance, full_of
from celltwin.physics.recurrence import from_blocks, in_blocks

STEPS = 1_000_000


@jax.jit
def count(soc, capacity, current, dt):
    start = full_of(soc, capacity)
    return jax.lax.scan(lambda charge, i: (advance(charge, i, dt), None), start, current)[0].soc


@jax.jit
def count_naively(soc, capacity, current, dt):
    return jax.lax.scan(lambda s, i: (s + i * dt / (3600 * capacity), None), soc, current)[0]


@pytest.mark.parametrize("level", [-0.01, 0.003])
def test_a_million_small_steps(level):
    current = np.float32(level * (1 + 0.5 * np.random.default_rng(0).normal(size=STEPS)))
    dt, capacity, soc = np.float32(0.1), np.float32(3.0), np.float32(0.6)
    exact = 0.6 + np.sum(current.astype(np.float64)) * np.float64(dt) / (3600.0 * 3.0)
    assert abs(float(count(soc, capacity, current, dt)) - exact) < 1e-6
    # What compensation is for: a plain sum in single precision is far off.
    assert abs(float(count_naively(soc, capacity, current, dt)) - exact) > 1e-5


def in_parallel(start, current, dt):
    """Counter and state of charge at every sample, by blocks."""
    end, soc, u = charge.count(start, Input(*(in_blocks(a) for a in (current, 0 * current, dt))))
    return end, from_blocks(soc, current.shape[0]), u


@jax.jit
def count_at_once(soc, capacity, current, dt):
    return in_parallel(full_of(soc, capacity), current, jnp.broadcast_to(dt, current.shape))[:2]


@pytest.mark.parametrize("level", [-0.01, 0.003])
def test_days_counted_at_once(level):
    # 11.6 days at 1 s: every sample of them, and the counter that goes on from there.
    current = np.float32(level * (1 + 50 * np.random.default_rng(1).normal(size=STEPS)))
    end, soc = count_at_once(np.float32(0.6), np.float32(3.0), current, np.float32(1.0))
    exact = 0.6 + np.cumsum(current.astype(np.float64)) / (3600.0 * 3.0)
    np.testing.assert_allclose(soc, exact, atol=1e-6)
    assert float(end.soc) - float(end.lost) == pytest.approx(exact[-1], abs=1e-6)


@with_settings(max_examples=10)
@given(seed=st.integers(0, 100), cut=st.integers(1, 999))
def test_counting_at_once_is_counting_in_two_parts(seed, cut):
    current = np.float32(np.random.default_rng(seed).normal(-0.2, 1.0, 1000))
    start, dt = full_of(np.float32(0.5), np.float32(2.0)), np.ones(1000, np.float32)
    end, whole, u = in_parallel(start, current, dt)
    np.testing.assert_array_equal(from_blocks(u.current, 1000), current)
    middle, first, _ = in_parallel(start, current[:cut], dt[:cut])
    last, second, _ = in_parallel(middle, current[cut:], dt[cut:])
    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=2e-7)
    assert float(last.soc) == pytest.approx(float(end.soc), abs=2e-7)


@with_settings(max_examples=10)
@given(st.integers(0, 100))
def test_order_does_not_matter(seed):
    draw = np.random.default_rng(seed)
    current = np.float32(draw.normal(-0.02, 0.5, 20_000))
    arguments = np.float32(0.9), np.float32(2.8), np.float32(1.0)
    forward, backward, shuffled = (
        float(count(arguments[0], arguments[1], order, arguments[2]))
        for order in (current, current[::-1], draw.permutation(current))
    )
    assert max(abs(forward - backward), abs(forward - shuffled)) < 3e-7


def test_charge_out_and_in_again_ends_where_it_began():
    current = np.float32(np.repeat([-1.3, 1.3], 50_000))
    assert abs(float(count(np.float32(0.8), np.float32(3.0), current, np.float32(0.1))) - 0.8) < 3e-7


def test_the_gradient_is_that_of_a_plain_sum():
    current = jnp.linspace(-1.0, 1.0, 50)
    for total in (count, lambda *a: count_at_once(*a)[0].soc, lambda *a: count_at_once(*a)[1][-1]):
        by_count = jax.grad(lambda i, f=total: f(jnp.float32(0.5), jnp.float32(2.0), i, jnp.float32(3.0)))(current)
        np.testing.assert_allclose(by_count, 3.0 / (3600.0 * 2.0), rtol=1e-5)
