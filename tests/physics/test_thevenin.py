"""The circuit: exact for steps of any length, positive for any parameters, silent at rest."""

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
from celltwin.interface import Input, Start, run, simulate, simulate_records
from celltwin.physics.thevenin import LARGEST_SHIFT, Thevenin

f32 = jnp.float32


@cache
def circuit():
    return Thevenin.create([reference.drive("a", seed=1), reference.drive("b", seed=2, ambient=0.0)])


def start(voltage=3.9, current=0.0, soc=0.7, temperature=25.0):
    return Start(*map(f32, (voltage, current, temperature, soc, 1.0)))


@jax.jit
def final(model, dt):
    u = Input(jnp.full_like(dt, -1.5), jnp.full_like(dt, 20.0), dt)
    return run(model, model.init(start()), u)[0]


@with_settings(max_examples=25)
@given(cuts=st.lists(st.floats(0.0, 100.0), min_size=7, max_size=7))
def test_pairs_are_exact_for_any_division_of_a_step(cuts):
    # Tables that depend neither on state of charge nor on temperature: what remains is the discretisation.
    table = circuit().log_resistance
    flat = eqx.tree_at(lambda m: m.log_resistance, circuit(), jnp.broadcast_to(table[:, :1, :1], table.shape))
    parts = jnp.diff(jnp.array([0.0, *sorted(cuts), 100.0], f32))
    once, divided = final(flat, jnp.array([100.0, *[0.0] * 7], f32)), final(flat, parts)
    np.testing.assert_allclose(divided.pairs, once.pairs, rtol=1e-5)
    assert float(divided.charge.soc) == pytest.approx(float(once.charge.soc), abs=1e-6)
    assert (np.asarray(once.pairs) < -0.001).all()


@jax.jit
def parameters(model, soc, temperature):
    return model.parameters_at(soc, temperature)


@with_settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    size=st.floats(0.1, 8.0),
    soc=st.floats(-0.5, 1.5, width=32),
    temperature=st.floats(-40, 70, width=32),
)
def test_resistances_are_positive_whatever_the_parameters(seed, size, soc, temperature):
    draw = np.random.default_rng(seed)
    wild = jax.tree.map(lambda leaf: jnp.asarray(leaf + size * draw.normal(size=leaf.shape), f32), circuit())
    for values in parameters(wild, f32(soc), f32(temperature)):
        assert (np.asarray(values) > 0).all()
        assert np.isfinite(values).all()


def test_a_rested_cell_shows_its_open_circuit_voltage():
    model = circuit()
    ocv = model.ocv(f32(0.6), f32(25.0))
    rest = Input(jnp.zeros(50), jnp.full(50, 25.0), jnp.full(50, 10.0))
    output = simulate(model, start(voltage=ocv, soc=0.6), rest)
    np.testing.assert_allclose(output.voltage, ocv, atol=1e-5)
    np.testing.assert_allclose(output.soc, 0.6, atol=1e-6)


def test_discharge_lowers_and_charge_raises_the_voltage():
    model = circuit()
    for current in (-1.0, 1.0):
        load = Input(jnp.full(5, current), jnp.full(5, 25.0), jnp.ones(5))
        output = simulate(model, start(voltage=model.ocv(f32(0.6), f32(25.0)), soc=0.6), load)
        assert (np.sign(output.voltage - model.ocv(f32(0.6), f32(25.0))) == current).all()
        assert np.sign(output.soc[-1] - 0.6) == current


def test_cold_makes_overpotential_larger():
    cold, warm = (float(parameters(circuit(), f32(0.5), f32(t))[0].sum()) for t in (0.0, 25.0))
    assert cold > 1.5 * warm


@pytest.mark.parametrize(
    ("voltage", "current", "expected"), [(5.0, 0.0, LARGEST_SHIFT), (1.0, 0.0, -LARGEST_SHIFT), (4.0, -2.0, 0.0)]
)
def test_the_shift_at_the_start_is_bounded_and_ignores_load(voltage, current, expected):
    shift = circuit().init(start(voltage=voltage, current=current)).shift
    assert float(shift) == pytest.approx(expected, abs=1e-3)


def test_it_stays_finite_on_absurd_inputs():
    record = reference.drive("absurd", seed=3, samples=50)
    absurd = record.between(0)
    object.__setattr__(absurd, "current", np.where(np.arange(50) % 2 == 0, 1e4, -1e4))
    object.__setattr__(absurd, "temperature", np.linspace(-100.0, 200.0, 50))
    assert np.isfinite(simulate_records(circuit(), [absurd])[0].voltage).all()
