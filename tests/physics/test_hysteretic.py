"""The circuit with memory of charge: silent where its circuit is, on one branch or the other by how it got there."""

from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.interface import Input, Start, inputs_of, start_of
from celltwin.physics.hysteresis import Stops
from celltwin.physics.hysteretic import OCV_NODES, HystereticThevenin
from celltwin.physics.ocv import fit_ohmic

f32 = jnp.float32
GAPS = np.array([[0.004, 0.01, 0.006], [0.012, 0.003, 0.008]])


@cache
def model():
    """A circuit of one drive, its stops no longer all alike."""
    made = HystereticThevenin.create([reference.drive("a", seed=1)])
    return replace(made, stops=Stops.of(GAPS, (0.02, 0.1), (0.0, 0.5, 1.0)))


@jax.jit
def at_once(model, start, inputs):
    return model.run(model.init(start), inputs)


@jax.jit
def by_steps(model, start, inputs):
    return jax.lax.scan(lambda state, u: model.step(state, u), model.init(start), inputs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_running_is_stepping_is_the_textbook(dtype, in_double):
    steps = np.random.default_rng(1).choice([0.01, 0.5, 2.0, 90.0], 200, p=[0.05, 0.5, 0.4, 0.05])
    record = reference.drive("drive", seed=7, samples=200, soc=0.9)
    record = replace(record, time=np.cumsum(steps), net_capacity=None, voltage=record.voltage + 0.005)
    made, close = (in_double(model()), 1e-9) if dtype == np.float64 else (model(), 1e-5)
    arguments = start_of(record, dtype), inputs_of(record, dtype)
    with jax.numpy_dtype_promotion("strict"):
        run_through, stepped = at_once(made, *arguments), by_steps(made, *arguments)
    for a, b in zip(jax.tree.leaves(run_through), jax.tree.leaves(stepped), strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=close)
    np.testing.assert_allclose(run_through[1].voltage, reference.thevenin_hysteresis(made, record), atol=5 * close)


@jax.jit
def rested(model, current, dt):
    """Voltage after steps [8] of one current and an hour's rest."""
    dt = jnp.concatenate([dt, jnp.full(1, 1e6, f32)])
    u = Input(jnp.full(9, current).at[-1].set(0.0), jnp.full(9, 25.0, f32), dt)
    start = Start(model.ocv(f32(0.5), f32(25.0)), *map(f32, (0.0, 25.0, 0.5, 1.0)))
    state, output = model.run(model.init(start), u)
    return state.stops, output.voltage[-1], model.ocv(output.soc[-1], f32(25.0))


@with_settings(max_examples=20)
@given(cuts=st.lists(st.floats(0.0, 300.0), min_size=7, max_size=7), current=st.sampled_from([-1.0, -0.2, 0.5]))
def test_it_is_exact_for_any_division_of_a_step(cuts, current):
    once = rested(model(), current, jnp.array([300.0, *[0.0] * 7], f32))
    divided = rested(model(), current, jnp.diff(jnp.array([0.0, *sorted(cuts), 300.0], f32)))
    for a, b in zip(divided, once, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("way", [-1.0, 1.0])
def test_after_a_rest_it_stays_on_the_branch_it_came_by(way):
    # 0.15 of the capacity passed: both stops at their ends, half the gap from the mean curve and no time forgets it.
    stops, voltage, ocv = rested(model(), f32(way), jnp.array([540.0, *[0.0] * 7], f32))
    np.testing.assert_allclose(stops, way, atol=1e-6)
    soc = 0.5 + 0.15 * way
    assert float(voltage - ocv) == pytest.approx(way * float(jnp.sum(model().stops.gap(f32(soc)))), abs=2e-5)


@pytest.mark.parametrize(("excess", "current", "position"), [(0.0065, 0.0, 0.5), (0.3, 0.0, 1.0), (-0.3, 0.0, -1.0)])
def test_it_wakes_on_the_branch_that_the_first_voltage_shows(excess, current, position):
    voltage = model().ocv(f32(0.5), f32(25.0)) + excess
    state = model().init(Start(voltage, *map(f32, (current, 25.0, 0.5, 1.0))))
    np.testing.assert_allclose(state.stops, position, atol=1e-3)
    assert float(state.charge.soc) == 0.5
    loaded = model().init(Start(voltage, *map(f32, (-2.0, 25.0, 0.5, 1.0))))
    assert np.abs(loaded.stops).max() < 0.2


def test_the_curve_it_starts_from_does_not_fall():
    # A cell seen over the lower half of its charge: least squares know nothing of the rest, and turn the curve down.
    record = reference.drive("half", seed=3, soc=0.5)
    voltage, _ = fit_ohmic([record], (25.0,), OCV_NODES)
    made = HystereticThevenin.create([record])
    assert np.diff(voltage).min() < -0.05
    assert float(made.ocv.slope().min()) > -1e-5
    assert float(made.ocv(f32(0.9), f32(25.0))) == pytest.approx(float(made.ocv(f32(0.5), f32(25.0))), abs=0.01)
    assert float(made.ocv(f32(0.4), f32(25.0))) == pytest.approx(np.interp(0.4, OCV_NODES, voltage), abs=0.01)
    falling = eqx.tree_at(lambda m: m.circuit.ocv.table, made, made.ocv.table[::-1])
    assert float(falling.penalty()) > 2.0 * float(made.penalty())
