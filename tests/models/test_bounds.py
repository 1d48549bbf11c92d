"""Every registered model within bounds: no input makes it say what the cell cannot."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin import models
from celltwin.interface import Input, Start, inputs_of, run, simulate, simulate_records, start_of
from celltwin.models.bounds import Bounded

FAMILIES = [family.name for family in models.families() if family.task == "voltage"]
SAMPLES = 12
LOW, HIGH = reference.CELL.voltage_limits_volt

anything = st.floats(width=32)
currents = st.one_of(anything, st.floats(-20, 20, width=32))
temperatures = st.one_of(anything, st.floats(-40, 60, width=32))
steps = st.one_of(anything, st.floats(0, 100, width=32))
sample = st.tuples(currents, temperatures, steps)
starts = st.tuples(*[anything] * 5)

simulated = jax.jit(simulate)


def answer(bounded, start, inputs):
    return simulated(bounded, start, inputs).voltage


def inputs(rows):
    return Input(*(np.array(column, np.float32) for column in zip(*rows, strict=True)))


def plain(record):
    return jax.tree.map(jnp.asarray, start_of(record))


@pytest.mark.parametrize("name", FAMILIES)
@with_settings(max_examples=30)
@given(start=starts, rows=st.lists(sample, min_size=SAMPLES, max_size=SAMPLES))
def test_no_input_leaves_the_window_of_the_cell(name, twins, start, rows):
    bounded = Bounded.of(twins[name].model, reference.CELL)
    voltage = np.asarray(answer(bounded, Start(*np.array(start, np.float32)), inputs(rows)))
    assert np.isfinite(voltage).all()
    assert voltage.min() >= LOW - 0.2
    assert voltage.max() <= HIGH + 0.2


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("channel", range(3))
def test_the_answer_recovers_when_a_sensor_does(name, channel, twins, drives):
    # Three broken samples in a drive: as long as they last the last good value serves, and nothing of them stays.
    record = drives["25degC", "LA92"].between(0, 200)
    bounded = Bounded.of(twins[name].model, reference.CELL)
    for value in (1e30, -np.inf, np.nan):
        columns = [np.array(column) for column in inputs_of(record)]
        columns[channel][50:53] = value
        voltage = np.asarray(answer(bounded, start_of(record), Input(*columns)))
        assert np.isfinite(voltage).all()
        assert ((voltage >= LOW - 0.2) & (voltage <= HIGH + 0.2)).all()
        if not np.isfinite(value) and channel < 2:
            columns[channel][50:53] = columns[channel][49]
            np.testing.assert_array_equal(voltage, answer(bounded, start_of(record), Input(*columns)))


def test_without_bounds_such_inputs_do_harm(twins, drives):
    # Else the tests above would say nothing.
    record = drives["25degC", "LA92"].between(0, 200)
    for name in ("ohmic", "thevenin", "lstm", "koopman"):
        for value in (np.nan, 1e6):
            current = np.array(inputs_of(record).current)
            current[50] = value
            voltage = np.asarray(
                answer(twins[name].model, start_of(record), inputs_of(record)._replace(current=current))
            )
            assert not ((voltage >= LOW - 0.2) & (voltage <= HIGH + 0.2)).all(), name


@pytest.mark.parametrize("name", FAMILIES)
def test_inside_its_bounds_a_model_is_itself(name, twins, drives):
    model = twins[name].model
    for record in drives.values():
        assert record.voltage.min() > LOW
        free, within = (simulate_records(m, [record])[0] for m in (model, Bounded.of(model, reference.CELL)))
        inside = (free.voltage > LOW - 0.1) & (free.voltage < HIGH + 0.1)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(within.voltage[inside], free.voltage[inside], atol=2e-6)
        np.testing.assert_array_equal(within.soc, free.soc)


@pytest.mark.parametrize("name", FAMILIES)
def test_streaming_is_running(name, twins, drives):
    record = drives["5degC", "LA92"].between(0, 60)
    bounded = Bounded.of(twins[name].model, reference.CELL)
    current, temperature, dt = (np.array(column) for column in inputs_of(record))
    current[[0, 20, 21]], temperature[30:], dt[40] = np.nan, np.inf, -5.0
    u = Input(current, temperature, dt)
    state, step = bounded.init(plain(record)), jax.jit(Bounded.step)
    streamed = []
    for row in zip(*u, strict=True):
        state, output = step(bounded, state, Input(*map(jnp.asarray, row)))
        streamed.append(float(output.voltage))
    after, whole = jax.jit(run)(bounded, bounded.init(plain(record)), u)
    np.testing.assert_allclose(streamed, whole.voltage, atol=2e-5)
    assert float(after.current) == float(state.current) == current[-1]
    assert float(after.temperature) == float(state.temperature) == temperature[29]


def test_voltages_grow_with_those_of_the_model(twins):
    # Monotone and without a jump, however far the model is out.
    hold = Bounded.of(twins["hold"].model, reference.CELL)
    said = np.array([*np.linspace(LOW - 0.3, HIGH + 0.3, 400), 1e3])
    limited = np.asarray(jax.vmap(lambda v: hold._limited(twins["hold"].model.step(waken(v), REST)[1]).voltage)(said))
    assert (np.diff(limited) >= 0).all()
    assert np.diff(limited[:-1]).max() < 1.05 * np.diff(said[:-1]).max()
    assert limited[0] < LOW - 0.15
    assert HIGH + 0.15 < limited[-1] <= HIGH + 0.2


REST = Input(*map(jnp.float32, (0.0, 25.0, 1.0)))


def waken(voltage):
    hold = models.family("hold").create([], None, None, None)
    zero = jnp.zeros_like(voltage)
    return hold.init(Start(voltage, zero, 25.0 + zero, 0.5 + zero, 1.0 + zero))


@pytest.mark.parametrize("unknown", ["voltage", "current", "temperature", "soc", "capacity"])
def test_what_the_start_does_not_know_is_stood_in_for(unknown, twins, drives):
    record = drives["25degC", "LA92"].between(0, 100)
    start = start_of(record)._replace(**{unknown: np.float32(np.nan)})
    for name in FAMILIES:
        output = simulated(Bounded.of(twins[name].model, reference.CELL), start, inputs_of(record))
        assert np.isfinite(np.asarray(output.voltage)).all(), name
        assert np.isfinite(np.asarray(output.soc)).all(), name


def test_bounds_hold_at_double_precision(twins, drives, in_double):
    record = drives["25degC", "LA92"].between(0, 50)
    broken = replace(record, current=np.where(np.arange(50) == 7, 1e30, record.current), net_capacity=None)
    for name in FAMILIES:
        model = in_double(twins[name].model)
        with jax.numpy_dtype_promotion("strict"):
            output = simulate_records(Bounded.of(model, reference.CELL), [broken], dtype=np.float64)[0]
        assert output.voltage.dtype == np.float64
        assert np.isfinite(output.voltage).all()
