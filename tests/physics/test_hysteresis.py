"""Stops: what they remember is the charge, all of it and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.physics.hysteresis import Stops

NODES = (0.0, 0.3, 0.7, 1.0)
GAPS = np.array([[0.004, 0.01, 0.006, 0.02], [0.012, 0.003, 0.001, 0.008]])
STOPS = Stops.of(GAPS, (0.03, 0.2), NODES)
PATHS = st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6)  # charge of each step, of the capacity
few = with_settings(max_examples=40)


@jax.jit
def over(stops, start, passed, soc):
    return stops.over(start, passed, soc)


@jax.jit
def by_steps(stops, start, passed, soc):
    def step(position, now):
        position = stops.advance(position, now[0])
        return position, stops.voltage(position, now[1])

    return jax.lax.scan(step, start, (passed, soc))


def positions(passed, start=(0.0, 0.0), stops=STOPS):
    """Positions after steps of charge [steps]: one compiled length, the rest steps of nothing."""
    padded = np.zeros(64, np.float32)
    padded[: len(passed)] = passed
    return np.asarray(over(stops, jnp.asarray(start, jnp.float32), padded, np.full(64, 0.5, np.float32))[0])


@pytest.mark.parametrize("samples", [1, 2, 50, 333])
def test_running_is_stepping_is_the_textbook(samples, in_double):
    draw = np.random.default_rng(samples)
    passed = np.where(draw.random(samples) < 0.3, 0.0, draw.normal(0.0, 0.03, samples))
    soc = np.clip(0.5 + np.cumsum(passed), -0.1, 1.1)
    stops, start = in_double(STOPS), np.array([0.2, -1.0])
    expected = reference.stops(GAPS, (0.03, 0.2), NODES, start, passed, soc)
    for way in (over, by_steps):
        after, volts = way(stops, start, passed, soc)
        np.testing.assert_allclose(volts, expected[1], atol=1e-8)  # tables are kept in single precision
        np.testing.assert_allclose(after, expected[0], atol=1e-6)
    assert samples < 50 or (np.abs(expected[0]) <= 1.0).all()


def test_over_and_advance_have_one_gradient(in_double):
    draw = np.random.default_rng(3)
    passed = draw.normal(0.0, 0.02, 200)
    soc, stops, start = 0.5 + np.cumsum(passed), in_double(STOPS), jnp.array([0.2, -0.9])
    gradients = [jax.grad(lambda s, f=f: jnp.sum(f(s, start, passed, soc)[1] ** 2))(stops) for f in (over, by_steps)]
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)
        assert (np.abs(a) > 1e-3).any()


@few
@given(PATHS, st.lists(st.integers(1, 8), min_size=6, max_size=6))
def test_the_rate_does_not_matter(path, pieces):
    # The same charge in one step, or in several, with rests between them.
    divided = np.concatenate([np.r_[np.full(n, p / n), 0.0] for p, n in zip(path, pieces, strict=True)])
    np.testing.assert_allclose(positions(divided), positions(path), atol=2e-5)


@few
@given(PATHS, st.floats(0.0, 0.1), st.sampled_from([-1.0, 1.0]))
def test_minor_loops_close(path, depth, way):
    # Back by no more than the last move, and out again: as if never left.
    arrived = positions([*path, -way * 0.1])
    back = positions([*path, -way * 0.1, way * depth, -way * depth])
    np.testing.assert_allclose(back, arrived, atol=2e-5)


@few
@given(PATHS)
def test_a_long_charge_forgets_everything(path):
    # 0.4 of the capacity passes the largest radius from one end to the other.
    np.testing.assert_allclose(positions([*path, 0.4001]), 1.0, atol=1e-6)
    np.testing.assert_allclose(positions([*path, -0.4001]), -1.0, atol=1e-6)


@few
@given(PATHS)
def test_positions_stay_between_the_branches(path):
    assert (np.abs(positions([2.0 * p for p in path], start=(1.0, -1.0))) <= 1.0).all()


def test_a_small_stop_turns_before_a_large_one():
    small, large = positions([0.5, -0.06])
    assert small == pytest.approx(-1.0, abs=1e-5)
    assert large == pytest.approx(1.0 - 0.06 / 0.2, abs=1e-5)


@pytest.mark.parametrize(("excess", "share"), [(0.008, 0.5), (1.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
def test_a_cell_wakes_on_the_side_that_its_voltage_shows(excess, share):
    # At the first node the gaps add to 16 mV.
    position = STOPS.init(jnp.float32(0.0), jnp.float32(excess))
    np.testing.assert_allclose(position, share, atol=1e-3)
    assert float(STOPS.voltage(position, jnp.float32(0.0))) == pytest.approx(share * 0.016, abs=1e-5)


def test_gaps_come_back_and_training_starts_small_and_even():
    np.testing.assert_allclose(STOPS.gap(jnp.float32(0.7)), GAPS[:, 2], rtol=1e-5)
    np.testing.assert_allclose(Stops.of(np.array([[0.0]]), (0.1,), (0.5,)).gap(jnp.float32(0.5)), 0.0, atol=1e-8)
    made = Stops.create((0.05,))
    np.testing.assert_allclose(made.gap(jnp.float32(0.37)), 0.003, rtol=1e-5)
    assert float(made.penalty()) < float(STOPS.penalty())
