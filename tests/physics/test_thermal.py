"""Heat and temperature: exact for steps of any length, energy is kept, and what made a log is found again."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin import interface, twin
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.errors import CelltwinError
from celltwin.interface import Input, Start, inputs_of, run, simulate_records, start_of
from celltwin.models.baselines import Hold
from celltwin.physics.ocv import Ocv
from celltwin.physics.thermal import Entropy, Temperatures, Thermal, ThermalTwin
from celltwin.physics.thermal_fit import fit_lump, fit_thermal
from celltwin.physics.thevenin import Thevenin
from reference_operation import CELL, PlainCell, Simple, thermal_loop

f32 = jnp.float32
simulate = jax.jit(interface.simulate)
TWO = Thermal.of(4.0, 8.0, 2.0, 35.0)
ONE = Thermal.of(4.0, 43.0)
ENTROPY = Entropy.of([-4e-4, 1e-4, 2e-4], [0.0, 0.3, 1.0])


@jax.jit
def course(thermal, start, heat, ambient, dt):
    """Core and surface temperature after every step, [time, 2]."""

    def step(now, x):
        now = thermal.step(now, *x)
        return now, jnp.stack(now)

    return jax.lax.scan(step, Temperatures(*start), (heat, ambient, dt))[1]


positive = st.floats(0.1, 200.0)


@with_settings(max_examples=40)
@given(
    values=st.tuples(positive, positive, positive, positive),
    start=st.tuples(st.floats(-30.0, 60.0, width=32), st.floats(-30.0, 60.0, width=32)),
    dt=st.lists(st.sampled_from([0.0, 1e-3, 0.1, 1.0, 17.0, 600.0, 3e5]), min_size=6, max_size=6),
)
def test_steps_are_those_of_the_matrix_exponential(values, start, dt):
    thermal = Thermal.of(*values)
    heat, ambient = np.array([0.0, 1.0, -0.2, 3.0, 0.5, 0.0]), np.array([20.0, 20.0, 0.0, -10.0, 25.0, 40.0])
    single = course(thermal, tuple(map(f32, start)), *(jnp.asarray(x, f32) for x in (heat, ambient, dt)))
    expected = thermal_loop(thermal.values, start, heat, ambient, dt)
    np.testing.assert_allclose(single, expected, atol=2e-5 * max(100.0, np.abs(expected).max()))


def test_single_precision_follows_double_over_a_day(in_double):
    draw = np.random.default_rng(0)
    heat, ambient, dt = 0.5 * draw.random(86_400), np.full(86_400, 25.0), np.ones(86_400)
    double = course(in_double(TWO), (25.0, 25.0), heat, ambient, dt)
    single = course(TWO, (f32(25.0), f32(25.0)), *(jnp.asarray(x, f32) for x in (heat, ambient, dt)))
    np.testing.assert_allclose(single, double, atol=2e-3)
    np.testing.assert_allclose(
        double[:300], thermal_loop(TWO.values, (25.0, 25.0), heat[:300], ambient[:300], dt[:300]), rtol=1e-6
    )


@pytest.mark.parametrize("thermal", [ONE, TWO])
@with_settings(max_examples=25)
@given(cuts=st.lists(st.floats(0.0, 500.0), min_size=7, max_size=7))
def test_a_divided_step_ends_where_the_whole_one_does(thermal, cuts):
    parts = jnp.diff(jnp.array([0.0, *sorted(cuts), 500.0], f32))
    whole = jnp.array([500.0, *[0.0] * 7], f32)
    once, divided = (
        course(thermal, (f32(31.0), f32(28.0)), jnp.full(8, 2.0, f32), jnp.full(8, 10.0, f32), dt)[-1]
        for dt in (whole, parts)
    )
    np.testing.assert_allclose(divided, once, atol=5e-5)


@pytest.mark.parametrize("thermal", [ONE, TWO])
def test_no_time_changes_nothing_and_days_settle(thermal):
    now = Temperatures(f32(33.0), f32(30.0) if thermal is TWO else f32(33.0))
    assert thermal.step(now, f32(5.0), f32(-10.0), f32(0.0)) == now
    settled = thermal.step(now, f32(5.0), f32(-10.0), f32(1e6))
    assert float(settled.surface) == pytest.approx(-10.0 + 4.0 * 5.0, abs=1e-4)
    assert float(settled.core) == pytest.approx(-10.0 + (6.0 if thermal is TWO else 4.0) * 5.0, abs=1e-4)


def test_an_insulated_cell_keeps_all_heat():
    insulated = Thermal.of(1e9, 8.0, 2.0, 35.0)
    heat = jnp.asarray(np.linspace(-1.0, 3.0, 50), f32)
    dt = jnp.asarray(np.geomspace(0.01, 100.0, 50), f32)
    core, surface = course(insulated, (f32(20.0), f32(25.0)), heat, jnp.zeros(50), dt)[-1]
    assert float(35.0 * (core - 20.0) + 8.0 * (surface - 25.0)) == pytest.approx(float(heat @ dt), rel=1e-4)


def test_a_cell_that_conducts_well_is_one_lump():
    heat, ambient, dt = jnp.full(60, 2.0), jnp.full(60, 15.0), jnp.full(60, 10.0)
    two = course(Thermal.of(4.0, 8.0, 1e-4, 35.0), (f32(20.0), f32(20.0)), heat, ambient, dt)
    one = course(Thermal.of(4.0, 43.0), (f32(20.0), f32(20.0)), heat, ambient, dt)
    np.testing.assert_allclose(two, one, atol=2e-3)


@pytest.mark.parametrize("dt", [0.0, 1.0, 1e7])
@pytest.mark.parametrize("thermal", [ONE, TWO])
def test_gradients_are_finite_for_any_step(thermal, dt):
    def surface(thermal, heat, dt):
        return thermal.step(Temperatures(f32(30.0), f32(29.0)), heat, f32(20.0), dt).surface

    grads = jax.grad(surface, argnums=(0, 1, 2))(thermal, f32(1.0), f32(dt))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_gradients_are_those_of_differences(in_double):
    def surface(logs):
        return Thermal(*logs).step(Temperatures(30.0, 29.0), 2.0, 20.0, 40.0).surface

    logs = jnp.log(jnp.array([4.0, 8.0, 2.0, 35.0]))
    step = 1e-6 * jnp.eye(4)
    differences = [(surface(logs + h) - surface(logs - h)) / 2e-6 for h in step]
    np.testing.assert_allclose(jax.grad(surface)(logs), differences, rtol=1e-6)


@pytest.mark.parametrize(
    "values", [(0.0, 1.0), (1.0, -2.0), (1.0, 1.0, float("nan"), 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, None, 1.0)]
)
def test_impossible_parameters_are_refused(values):
    with pytest.raises(CelltwinError, match=r"thermal parameters|half a core"):
        Thermal.of(*values)


# --- heat and entropy ------------------------------------------------------------------------------------------------


def loads(currents, ambient=20.0, dt=1.0):
    currents = jnp.asarray(currents, f32)
    return Input(currents, jnp.full_like(currents, ambient), jnp.full_like(currents, dt))


def start(soc=0.5, temperature=20.0, voltage=3.5):
    return Start(*map(f32, (voltage, 0.0, temperature, soc, 2.0)))


@pytest.mark.parametrize("current", [-3.0, 3.0])
def test_current_warms_the_core_first_whichever_way_it_flows(current):
    output = simulate(ThermalTwin(Simple.of(), TWO), start(), loads([current] * 300))
    assert (np.diff(output.temperature) > 0).all()
    assert (np.asarray(output.core) > np.asarray(output.temperature)).all()
    assert float(output.voltage[5]) == pytest.approx(float(simulate(Simple.of(), start(), loads([current] * 6))[0][5]))


def test_a_resting_cell_goes_to_the_ambient():
    output = simulate(ThermalTwin(Simple.of(), TWO), start(temperature=40.0), loads([0.0] * 50, dt=100.0))
    assert (np.diff(output.temperature) <= 0).all()
    assert float(output.temperature[-1]) == pytest.approx(20.0, abs=1e-3)


def test_entropy_cools_on_discharge_where_the_voltage_rises_with_temperature():
    gentle = Simple.of(r0=1e-4, r1=1e-4)
    end = {}
    for current in (-1.0, 1.0):
        output = simulate(ThermalTwin(gentle, TWO, ENTROPY), start(soc=0.9), loads([current] * 100))
        end[current] = float(output.temperature[-1])
    assert end[-1.0] < 20.0 < end[1.0]


def test_entropy_of_curves_is_their_slope_over_temperature():
    temperatures, nodes = (-10.0, 5.0, 20.0), (0.0, 0.4, 1.0)
    slope = np.array([-3e-4, 1e-4, 2e-4])
    curves = np.array([3.0, 3.6, 4.2])[:, None] + slope[:, None] * (np.array(temperatures)[None] - 20.0)
    entropy = Entropy.of_ocv(Ocv.of_curves(curves, nodes, temperatures))
    np.testing.assert_allclose(jax.vmap(entropy)(jnp.array(nodes)), slope, atol=1e-8)
    with pytest.raises(CelltwinError, match="one temperature"):
        Entropy.of_ocv(Ocv.of(np.linspace(3.0, 4.2, 50), (25.0,)))


# --- the twin that simulates its own temperature ---------------------------------------------------------------------


def test_it_is_the_loop_of_circuit_heat_and_temperature():
    model, draw = Simple.of(), np.random.default_rng(1)
    currents, dt = draw.normal(-1.0, 2.0, 200), draw.uniform(0.1, 20.0, 200)
    ambient = np.where(np.arange(200) < 100, 20.0, 0.0)
    u = Input(*(jnp.asarray(x, f32) for x in (currents, ambient, dt)))
    output = simulate(ThermalTwin(model, TWO, ENTROPY), start(), u)
    cell, now, expected = PlainCell(model, 0.5, 2.0), (20.0, 20.0), []
    for i, a, step in zip(currents, ambient, dt, strict=True):
        voltage = cell.move(i, step)
        slope = np.interp(cell.soc, [0.0, 0.3, 1.0], [-4e-4, 1e-4, 2e-4])
        heat = i * (voltage - (3.0 + cell.soc)) + i * (now[1] + 273.15) * slope
        now = tuple(thermal_loop(TWO.values, now, [heat], [a], [step])[0])
        expected.append((voltage, cell.soc, now[1], now[0]))
    np.testing.assert_allclose(np.stack(output, axis=1), expected, atol=2e-4)


@pytest.fixture(scope="module")
def circuit():
    return Thevenin.create([reference.drive("a", seed=1), reference.drive("b", seed=2, ambient=0.0)])


def test_a_cold_cell_that_warms_itself_sags_less(circuit):
    cold = start(temperature=0.0, soc=0.8)
    load = loads([-2.0] * 600, ambient=0.0)
    alone, warmed = simulate(circuit, cold, load), simulate(ThermalTwin(circuit, TWO), cold, load)
    assert float(warmed.voltage[-1]) > float(alone.voltage[-1]) + 0.01
    np.testing.assert_allclose(warmed.soc, alone.soc)


def test_the_core_may_feed_a_circuit_without_one(circuit):
    bare = eqx.tree_at(lambda m: m.core, circuit, None, is_leaf=lambda x: x is None)
    cold, load = start(temperature=0.0, soc=0.8), loads([-2.0] * 300, ambient=0.0)
    of_surface, of_core = (simulate(ThermalTwin(bare, TWO, feeds=at), cold, load) for at in ("surface", "core"))
    assert float(of_core.voltage[-1]) > float(of_surface.voltage[-1])
    with pytest.raises(CelltwinError, match="count twice"):
        ThermalTwin(circuit, TWO, feeds="core")


def test_a_model_without_an_open_circuit_voltage_is_refused():
    with pytest.raises(CelltwinError, match=r"heat .* unknown; got: Hold"):
        ThermalTwin(Hold(), TWO)


def test_it_runs_and_saves_as_every_model_does(circuit, tmp_path):
    record = reference.drive("c", seed=3, samples=100)
    model = ThermalTwin(circuit, TWO, ENTROPY)
    direct = simulate(model, start_of(record), inputs_of(record))
    side_by_side = simulate_records(model, [record])[0]
    np.testing.assert_allclose(side_by_side.voltage, direct.voltage, atol=1e-5)
    state, _ = run(model, model.init(start_of(record)), inputs_of(record))
    assert float(state.temperatures.surface) == float(direct.temperature[-1])
    made = twin.Twin("thermal", model, Domain.of([record]), reference.CELL)
    loaded = twin.load(made.save(tmp_path / "thermal.twin"))
    np.testing.assert_array_equal(loaded.simulate(record).voltage, made.simulate(record).voltage)


# --- identification ------------------------------------------------------------------------------------------------


def log(thermal, seed, ambient=20.0, nominal=None, entropy=None, noise=0.02, samples=1500, measured=True):
    """A record of the simple circuit with strong pulses of minutes, at a temperature that `thermal` gives it."""
    draw = np.random.default_rng(seed)
    current = np.repeat(draw.choice([-6.0, -3.0, 0.0, 3.0, 5.5], samples // 15), 15)
    current[0] = 0.0
    time = 4.0 * np.arange(samples)
    u = Input(*(jnp.asarray(x, f32) for x in (current, np.full(samples, ambient), np.diff(time, prepend=0.0))))
    output = simulate(ThermalTwin(Simple.of(), thermal, entropy), start(temperature=ambient), u)
    temperature = np.asarray(output.temperature, float) + noise * draw.normal(size=samples)
    record = reference.drive("log", seed=1, samples=2)
    return replace(
        record,
        time=time,
        voltage=np.asarray(output.voltage),
        current=current,
        temperature=temperature if measured else np.full(samples, np.nan),
        net_capacity=None,
        ambient_degC=ambient if nominal is None else nominal,
        cell=CELL,
        initial_soc=0.5,
    )


def test_a_lump_is_found_again_and_no_core_is_invented():
    fit = fit_thermal([log(ONE, 1), log(ONE, 2, ambient=5.0)], Simple.of(), fit_ambient=False)
    assert list(fit.thermal.values) == ["ambient_resistance", "surface_capacity"]
    for name, value in ONE.values.items():
        assert fit.thermal.values[name] == pytest.approx(value, abs=4 * fit.standard_error[name] + 1e-3 * value)
        assert fit.standard_error[name] < 0.02 * value
    assert fit.rmse == pytest.approx(0.02, rel=0.1)
    assert "no core" in fit.notes[0]


def test_a_core_is_found_with_a_word_on_what_stays_unknown():
    fit = fit_thermal([log(TWO, 3), log(TWO, 4, ambient=5.0)], Simple.of())
    assert len(fit.thermal.values) == 4
    for name, value in TWO.values.items():
        assert abs(np.log(fit.thermal.values[name] / value)) < 4 * fit.standard_error[name] / fit.thermal.values[name]
    assert fit.thermal.values["ambient_resistance"] == pytest.approx(4.0, rel=0.02)
    assert any("does not tell the core's resistance" in note for note in fit.notes)
    assert fit_thermal([log(TWO, 3)], Simple.of(), states=1).rmse > 2 * fit.rmse


def test_the_ambient_that_the_sensor_shows_is_found():
    record = log(ONE, 5, ambient=23.8, nominal=25.0)
    fit = fit_thermal([record], Simple.of(), states=1)
    assert fit.ambient_of(record) == pytest.approx(23.8, abs=0.05)
    assert fit.ambient_of(log(ONE, 5, nominal=40.0, samples=150)) == 40.0
    unknown = fit_thermal([replace(record, ambient_degC=float("nan"))], Simple.of(), states=1)
    assert unknown.ambient_of(replace(record, ambient_degC=float("nan"))) == pytest.approx(23.8, abs=0.05)


def test_entropy_is_found_with_the_rest():
    logs = [log(ONE, seed, entropy=ENTROPY) for seed in (6, 7)]
    fit = fit_thermal(logs, Simple.of(), states=1, entropy="fit")
    soc = np.concatenate([record.soc for record in logs])
    seen = jnp.asarray(np.quantile(soc, [0.1, 0.5, 0.9]), f32)
    np.testing.assert_allclose(jax.vmap(fit.entropy)(seen), jax.vmap(ENTROPY)(seen), atol=3e-5)
    given_entropy = fit_thermal(logs, Simple.of(), states=1, entropy=ENTROPY)
    assert given_entropy.rmse == pytest.approx(0.02, rel=0.1)
    assert fit_thermal(logs, Simple.of(), states=1).rmse > 2 * given_entropy.rmse


def test_temperatures_that_were_not_measured_do_not_count():
    record = log(ONE, 8)
    holes = np.where(np.arange(1500) % 3 == 0, record.temperature, np.nan)
    fit = fit_thermal([replace(record, temperature=holes), log(ONE, 2, samples=600)], Simple.of(), states=1)
    assert fit.thermal.values["surface_capacity"] == pytest.approx(43.0, rel=0.02)


def test_a_lump_is_found_by_linear_least_squares():
    logs = []
    for watts, dt, steps in ((1.0, 10.0, 400), (9.0, 2.0, 300)):
        heat, temperature, now = np.full((steps, 2), watts) * [1.0, 1.2], np.full((steps, 2), 22.0), np.full(2, 22.0)
        for k in range(1, steps):
            now = now + dt * (heat[k] - 0.4 * (now - 22.0)) / 900.0
            temperature[k] = now
        temperature[5:50, 0] = np.nan  # a sensor that fell silent
        logs.append((heat, temperature, np.full(steps, 22.0), dt))
    capacity, coolant = fit_lump(logs)
    assert capacity == pytest.approx(900.0, rel=0.02)
    assert coolant == pytest.approx(0.4, rel=0.05)
    silent = [(heat, np.full_like(heat, np.nan), ambient, dt) for heat, _, ambient, dt in logs]
    assert fit_lump(silent) is None
    cooling = [(heat, 44.0 - temperature, ambient, dt) for heat, temperature, ambient, dt in logs]
    assert fit_lump(cooling) is None


def test_logs_that_tell_nothing_are_refused():
    with pytest.raises(CelltwinError, match="no record"):
        fit_thermal([], Simple.of())
    with pytest.raises(CelltwinError, match="no measured temperature"):
        fit_thermal([log(ONE, 1, measured=False)], Simple.of())
    with pytest.raises(CelltwinError, match="no ambient_degC"):
        fit_thermal([log(ONE, 1, nominal=float("nan"))], Simple.of(), fit_ambient=False)
    with pytest.raises(CelltwinError, match="without heat"):
        fit_thermal([replace(log(ONE, 1), current=np.zeros(1500))], Simple.of())


def test_a_measured_cell_warms_as_simulated(shared_data):
    records = [r for r in datasets.load(shared_data / "lg_18650hg2").records if r.ambient_degC == 0.0]
    train = [r for r in records if r.name in ("Mixed1", "Mixed2")]
    (record,) = (r for r in records if r.name == "LA92")
    circuit = Thevenin.create(train)
    fit = fit_thermal(train, circuit)
    ambient = np.full(len(record), fit.ambient_of(record), np.float32)
    u = inputs_of(record)._replace(temperature=ambient)
    simulated = np.asarray(simulate(ThermalTwin(circuit, fit.thermal), start_of(record), u).temperature)
    error, trivial = (np.sqrt(np.mean((x - record.temperature) ** 2)) for x in (simulated, ambient))
    assert error < 0.25
    assert trivial > 3 * error
