"""The circuit: exact for steps of any length, positive for any parameters, silent at rest."""

from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.data.record import Cell
from celltwin.interface import Input, Start, inputs_of, run, simulate, simulate_records, start_of
from celltwin.physics.circuit import Circuit
from celltwin.physics.operation import rested
from celltwin.physics.thevenin import LARGEST_SHIFT, Core, Thevenin, Wake

f32 = jnp.float32


@cache
def circuit():
    return Thevenin.create([reference.drive("a", seed=1), reference.drive("b", seed=2, ambient=0.0)])


def start(voltage=3.9, current=0.0, soc=0.7, temperature=25.0):
    return Start(*map(f32, (voltage, current, temperature, soc, 1.0)))


@cache
def tables(pairs=2, temperatures=(0.0, 25.0), transfer=True, modes=0):
    """A circuit of known tables, none of them flat."""
    draw = np.random.default_rng(pairs)
    soc, ocv_soc = np.linspace(0.0, 1.0, 4), np.linspace(-0.1, 1.1, 9)
    bumps = np.exp(0.3 * draw.normal(size=(pairs + 2, len(soc), len(temperatures))))
    rate = 10.0 ** np.arange(1, modes + 1)
    return Circuit(
        name="known",
        capacity_ah=1.0,
        voltage_limits_volt=(2.5, 4.3),
        temperatures=np.array(temperatures),
        ocv_soc=ocv_soc,
        ocv=3.3 + 0.8 * ocv_soc[:, None] + 0.02 * draw.normal(size=(len(ocv_soc), len(temperatures))),
        soc=soc,
        r0=0.04 * bumps[0],
        r=0.02 * bumps[1 : 1 + pairs],
        tau=np.geomspace(5.0, 300.0, pairs)[:, None, None] * bumps[1 : 1 + pairs],
        transfer_resistance=0.05 * bumps[-1] if transfer else None,
        transfer_scale=np.linspace(0.02, 0.04, len(temperatures)) if transfer else None,
        hysteresis=0.01 * np.exp(0.3 * draw.normal(size=(modes, len(soc)))) if modes else None,
        hysteresis_rate=rate if modes else None,
    )


@cache
def built(core=False, wake=None, slow_tau=False, cold_reach=0.0, **parts):
    """A circuit with or without each of its parts."""
    model = Thevenin.of(tables(**parts))
    each = jnp.zeros(len(model.temperatures), f32)
    return replace(
        model,
        core=Core(jnp.log(2.0) + each, jnp.log(f32(100.0))) if core else None,
        wake={None: None, "old": Wake(0.5 + each, 0.1 + each), "new": Wake(2.0 + each, 0.1 + each, (1.0, 1.0))}[wake],
        log_tau=model.log_tau[:, :1] if slow_tau else model.log_tau,
        cold_reach=cold_reach,
    )


PARTS = st.fixed_dictionaries(
    {
        "pairs": st.integers(0, 3),
        "temperatures": st.sampled_from([(25.0,), (0.0, 25.0), (-10.0, 5.0, 40.0)]),
        "transfer": st.booleans(),
        "modes": st.integers(0, 2),
        "core": st.booleans(),
        "wake": st.sampled_from([None, "old", "new"]),
        "slow_tau": st.booleans(),
        "cold_reach": st.sampled_from([0.0, 10.0, 30.0]),
    }
)


@jax.jit
def at_once(model, start, inputs):
    return model.run(model.init(start), inputs)


@jax.jit
def by_steps(model, start, inputs):
    return jax.lax.scan(lambda state, u: model.step(state, u), model.init(start), inputs)


@cache
def drive():
    record = reference.drive("drive", seed=7, samples=200, soc=0.9)
    steps = np.random.default_rng(1).choice([0.01, 0.5, 2.0, 90.0], len(record), p=[0.05, 0.5, 0.4, 0.05])
    return replace(
        record,
        time=np.cumsum(steps),
        net_capacity=None,
        voltage=record.voltage + 0.05,
        temperature=np.linspace(-35.0, 45.0, len(record)),
    )


def assert_close(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, **tolerance)


@with_settings(max_examples=8, phases=[Phase.generate])  # shrinking compiles for minutes
@given(parts=PARTS)
def test_whatever_it_consists_of_running_is_stepping_is_the_textbook(parts):
    model, arguments = built(**parts), (start_of(drive()), inputs_of(drive()))
    with jax.numpy_dtype_promotion("strict"):
        run_through, stepped = at_once(model, *arguments), by_steps(model, *arguments)
    assert_close(run_through, stepped, atol=1e-5)
    np.testing.assert_allclose(run_through[1].voltage, reference.thevenin(model, drive()), atol=5e-5)


EVERYTHING = {"modes": 2, "core": True, "wake": "new"}


def test_in_double_precision_it_is_the_textbook(in_double):
    model = in_double(built(**EVERYTHING))
    arguments = start_of(drive(), np.float64), inputs_of(drive(), np.float64)
    for way in (at_once, by_steps):
        np.testing.assert_allclose(way(model, *arguments)[1].voltage, reference.thevenin(model, drive()), atol=1e-9)


def test_running_and_stepping_have_one_gradient(in_double):
    model = in_double(built(**EVERYTHING))
    arguments = start_of(drive(), np.float64), inputs_of(drive(), np.float64)
    gradients = (
        jax.grad(lambda m, f=f: jnp.mean((f(m, *arguments)[1].voltage - 3.7) ** 2))(model) for f in (at_once, by_steps)
    )
    assert_close(*gradients, atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("cut", [1, 137])
def test_a_run_goes_on_where_another_ended(cut):
    model, inputs = built(**EVERYTHING), inputs_of(drive())
    state, whole = at_once(model, start_of(drive()), inputs)
    middle, first = at_once(model, start_of(drive()), Input(*(a[:cut] for a in inputs)))
    last, second = jax.jit(run)(model, middle, Input(*(a[cut:] for a in inputs)))
    np.testing.assert_allclose(jnp.concatenate([first.voltage, second.voltage]), whole.voltage, atol=1e-5)
    assert_close(last, state, atol=1e-5)


@pytest.mark.parametrize("transfer", [True, False])
def test_tables_come_back_from_the_step(transfer):
    circuit, model = tables(transfer=transfer, modes=1), Thevenin.of(tables(transfer=transfer, modes=1))
    for i, soc in enumerate(circuit.soc):
        for j, temperature in enumerate(circuit.temperatures):
            resistance, tau, scale = model.parameters_at(f32(soc), f32(temperature))
            expected = [circuit.r0[i, j], *circuit.r[:, i, j]]
            if circuit.transfer_resistance is not None and circuit.transfer_scale is not None:
                expected.append(circuit.transfer_resistance[i, j])
                assert float(scale) == pytest.approx(circuit.transfer_scale[j], rel=1e-5)
            np.testing.assert_allclose(resistance, expected, rtol=1e-5)
            np.testing.assert_allclose(tau, circuit.tau[:, i, j], rtol=1e-5)
    assert transfer == (model.log_scale is not None)
    assert float(model.ocv(f32(circuit.ocv_soc[3]), f32(0.0))) == pytest.approx(circuit.ocv[3, 0], abs=1e-6)
    np.testing.assert_allclose(model.hysteresis.gap(f32(circuit.soc[1])), circuit.hysteresis[:, 1], rtol=1e-5)


def test_below_the_coldest_node_tables_go_on_by_arrhenius_as_far_as_they_reach():
    at = {t: parameters(built(cold_reach=20.0), f32(0.4), f32(t))[:2] for t in (25.0, 0.0, -12.0, -20.0, -60.0)}
    inverse = {t: 1.0 / (t + 273.15) for t in at}
    for quantity in range(2):
        warm, cold, colder, reached, beyond = (np.log(np.asarray(v[quantity], float)) for v in at.values())
        slope = (cold - warm) / (inverse[0.0] - inverse[25.0])
        np.testing.assert_allclose(colder, cold + slope * (inverse[-12.0] - inverse[0.0]), rtol=1e-5)
        np.testing.assert_allclose(reached, cold + slope * (inverse[-20.0] - inverse[0.0]), rtol=1e-5)
        np.testing.assert_allclose(beyond, reached, rtol=1e-6)
        assert (np.abs(reached - cold) > 0.01).all()
    held = [parameters(built(), f32(0.4), f32(t))[0] for t in (0.0, -12.0)]
    np.testing.assert_allclose(*held, rtol=1e-6)


@jax.jit
def final(model, dt):
    u = Input(jnp.full_like(dt, -1.5), jnp.full_like(dt, 20.0), dt)
    return run(model, model.init(start()), u)[0]


@with_settings(max_examples=25)
@given(cuts=st.lists(st.floats(0.0, 100.0), min_size=7, max_size=7))
def test_pairs_are_exact_for_any_division_of_a_step(cuts):
    # Tables that depend neither on state of charge nor on temperature: what remains is the discretisation.
    model = built(**EVERYTHING, slow_tau=True)
    flat = eqx.tree_at(
        lambda m: (m.log_resistance, m.log_tau, m.log_scale, m.hysteresis.raw_gap),
        model,
        replace_fn=lambda a: jnp.broadcast_to(a[..., :1, :1] if a.ndim == 3 else a[..., :1], a.shape),
    )
    parts = jnp.diff(jnp.array([0.0, *sorted(cuts), 100.0], f32))
    once, divided = final(flat, jnp.array([100.0, *[0.0] * 7], f32)), final(flat, parts)
    np.testing.assert_allclose(divided.pairs, once.pairs, rtol=1e-5)
    np.testing.assert_allclose(divided.hysteresis, once.hysteresis, atol=1e-6)
    np.testing.assert_allclose(divided.core, once.core, rtol=1e-5)
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


def test_before_training_a_rested_voltage_above_the_curve_is_charge_by_its_slope():
    warm, cold = Wake.of(1.25, np.array([0.02, 0.25]), 3.0).gain
    assert warm == pytest.approx(1.0 / 1.25, rel=0.02)  # 10 mV are 0.8 % of charge
    assert cold < 0.6 * warm  # where half of the excess may be what is left of an overpotential


def test_where_every_record_begins_under_load_the_first_voltage_tells_no_charge():
    """The curve at their start was never seen: what is above a guess at it is no charge."""
    rested = reference.drive("rested", seed=1, samples=600)
    loaded = rested.between(int(np.argmax(np.abs(rested.current) > 0.1)))
    assert Thevenin.create([loaded, rested]).wake is not None
    model = Thevenin.create([loaded])
    assert model.wake is None
    start = start_of(rested)
    assert float(model.init(start._replace(voltage=start.voltage + 0.05)).shift) == 0.0


def test_where_the_curve_is_flat_the_first_voltage_tells_no_charge():
    steep = reference.drive("steep", seed=1, samples=600)
    assert Thevenin.create([steep]).wake is not None
    assert Thevenin.create([replace(steep, voltage=3.3 + 0.2 * (steep.voltage - 3.3))]).wake is None


def test_a_rest_is_found_where_charge_is_read_from_the_voltage():
    """The voltage of a rest is looked for: a circuit that takes any voltage for charge agrees with each."""
    model = replace(built(), wake=Wake(jnp.full(2, 5.0, "f4"), jnp.full(2, 0.1, "f4"), (5.0, 5.0)))
    cell = Cell("known", 1.0, (2.5, 4.3), 1.0)
    for soc in (0.1, 0.5, 1.0):
        curve = float(model.ocv(jnp.float32(soc), jnp.float32(20.0)))
        start = rested(model, cell, soc, 20.0)
        assert float(start.voltage) == pytest.approx(curve, abs=1e-4)
        assert float(model.init(start).shift) == pytest.approx(0.0, abs=1e-4)
        usual, more = (model.init(start._replace(voltage=start.voltage + x)).shift for x in (0.009, 0.03))
        assert float(usual) == pytest.approx(0.0, abs=1e-4)  # within the offset of 10 mV
        moved = float(model.ocv(soc + more, jnp.float32(20.0)))
        assert curve + 1e-3 < moved < curve + 0.03  # and no further than to what was seen
