"""The two models that are linear in a lifted state, learned (koopman) and given (edmd); and the GRU's state."""

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
from celltwin.interface import Input, Start, inputs_of, run, simulate_records, start_of
from celltwin.learning.tasks import TASKS
from celltwin.models.edmd import SOC_CENTRES, Edmd, _bells

LIFTED = ["koopman", "edmd"]
few = with_settings(max_examples=30)
rmse = TASKS["voltage"].validate  # mV, in closed loop


def lifted(state):
    return np.asarray(state.lifted if hasattr(state, "lifted") else state.memories)


def load(rows):
    return Input(*(jnp.asarray(column, jnp.float32) for column in zip(*rows, strict=True)))


def woken(model, voltage=3.9, capacity=1.0):
    return model.init(Start(*map(jnp.float32, (voltage, 0.0, 20.0, 0.7, capacity))))


@jax.jit
def scanned(model, state, inputs):
    return jax.lax.scan(lambda state, u: model.step(state, u), state, inputs)


together = jax.jit(run)

# --- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIFTED)
@pytest.mark.parametrize("samples", [1, 2, 157])
def test_all_samples_at_once_are_step_after_step(name, samples, twins, drives):
    model = twins[name].model
    current, temperature, dt = (column[100 : 100 + samples] for column in inputs_of(drives["5degC", "LA92"]))
    u = Input(current, temperature, dt * np.float32(7.3))
    state = woken(model)
    (after, output), (stepped, slowly) = together(model, state, u), scanned(model, state, u)
    np.testing.assert_allclose(output.voltage, slowly.voltage, atol=1e-5)
    np.testing.assert_allclose(output.soc, slowly.soc, atol=1e-6)
    np.testing.assert_allclose(lifted(after), lifted(stepped), atol=1e-4)


@pytest.mark.parametrize("name", LIFTED)
@few
@given(
    current=st.floats(-3, 3, width=32),
    temperature=st.floats(-20, 50, width=32),
    cuts=st.lists(st.floats(0.0, 900.0), min_size=5, max_size=5),
)
def test_a_held_current_means_the_same_at_any_sampling(name, twins, current, temperature, cuts):
    # A cell so large that its charge does not move: all that changes along the way is the lifted state.
    model = twins[name].model
    steps = np.diff([0.0, *sorted(cuts), 900.0])
    rate = 1e6 if name == "edmd" else 1.0  # edmd sees current over capacity
    state = woken(model, capacity=1e6)
    cut = together(model, state, load([(current * rate, temperature, dt) for dt in steps]))
    once = together(model, state, load([(current * rate, temperature, dt) for dt in (900.0, 0, 0, 0, 0, 0)]))
    np.testing.assert_allclose(lifted(cut[0]), lifted(once[0]), atol=1e-4)


@pytest.mark.parametrize("name", LIFTED)
def test_two_starts_differ_by_what_linear_dynamics_make_of_their_difference(name, twins, drives):
    # x' - y' = A (x - y), whatever the input: superposition, which no network between them could keep.
    model = twins[name].model
    u = Input(*map(jnp.asarray, inputs_of(drives["25degC", "LA92"].between(0, 40))))
    one, other = woken(model, 4.0), woken(model, 3.8)
    before = lifted(one) - lifted(other)
    after = lifted(together(model, one, u)[0]) - lifted(together(model, other, u)[0])
    dt = np.asarray(u.dt, float)
    if name == "koopman":
        tau = np.array([model.time_constants(t) for t in u.temperature])
    else:
        tau = np.broadcast_to([*[1.0] * 16, 30.0, 300.0], (len(dt), 18))
    assert np.abs(before).max() > 0.01
    np.testing.assert_allclose(after, before * np.exp(-(dt[:, None] / tau).sum(axis=0)), atol=2e-5)


@pytest.mark.parametrize("name", [*LIFTED, "gru"])
def test_a_lifted_state_stays_within_what_drives_it(name, twins):
    # A long time at one load: the state settles, and an hour later it is where it was.
    model = twins[name].model
    rows = [(-1e-6, 20.0, 3600.0)] * 60  # so small a current that the charge stays
    settled = together(model, woken(model, capacity=1e3), load(rows))[0]
    later = together(model, settled, load(rows))[0]
    if name == "gru":
        assert np.abs(later.hidden).max() <= 1.0
        np.testing.assert_allclose(later.hidden, settled.hidden, atol=1e-5)
    else:
        np.testing.assert_allclose(lifted(later), lifted(settled), atol=1e-4)


# --- koopman -------------------------------------------------------------------------------------------------------


@few
@given(shift=st.floats(-20, 20, width=32), activation=st.floats(-5, 5, width=32), celsius=st.floats(-30, 60, width=32))
def test_every_eigenvalue_is_stable_whatever_training_does(twins, shift, activation, celsius):
    model = twins["koopman"].model
    moved = eqx.tree_at(
        lambda m: (m.log_tau, m.activation), model, (model.log_tau + shift, model.activation + activation)
    )
    tau = np.asarray(moved.time_constants(jnp.float32(celsius)))
    assert (tau > 0).all()
    assert np.isfinite(tau).all()


def test_time_constants_slow_down_in_the_cold_as_activated_processes_do(twins):
    model = twins["koopman"].model
    warm, cold = (np.asarray(model.time_constants(jnp.float32(t)), float) for t in (25.0, -10.0))
    np.testing.assert_allclose(warm, np.exp(np.asarray(model.log_tau, float)), rtol=1e-4)
    inverse = 1000 / (273.15 - 10) - 1000 / (273.15 + 25)
    np.testing.assert_allclose(np.log(cold / warm), inverse * np.asarray(model.activation), rtol=1e-3, atol=1e-4)


# --- edmd ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(split):
    return Edmd.create(split.train)


def test_least_squares_find_the_cell(learned, split):
    ohmic = eqx.tree_at(lambda m: m.readout, learned, 0.0 * learned.readout)
    for side in (split.train, split.validate, split.test):
        assert rmse(learned, side) < 0.5 * rmse(ohmic, side)
    assert rmse(learned, split.test) < 10.0  # mV


def test_it_wakes_inside_a_record(learned, split):
    whole = rmse(learned, split.test)
    inside = rmse(learned, [record.between(len(record) // 2) for record in split.test])
    assert inside < whole + 10.0  # mV


def test_no_other_readout_simulates_the_training_records_better(learned, split):
    # What is minimised is the error of the simulation: random steps from the solution do not lower it by more than
    # the ridge allows, in either direction.
    best = rmse(learned, split.train)
    draw = np.random.default_rng(0)
    for size in (1e-3, 1e-2):
        step = size * draw.normal(size=learned.readout.shape).astype(np.float32)
        both = [
            rmse(eqx.tree_at(lambda m: m.readout, learned, learned.readout + s * step), split.train) for s in (-1, 1)
        ]
        assert np.mean(np.square(both)) > best**2


def test_learning_repeats_itself(learned, split):
    np.testing.assert_array_equal(Edmd.create(split.train).readout, learned.readout)


def test_missing_voltages_are_left_out(split):
    records = []
    for record in split.train:
        voltage = record.voltage.copy()
        voltage[100:300:2] = np.nan
        records.append(replace(record, voltage=voltage))
    assert rmse(Edmd.create(records), split.validate) < 12.0


@few
@given(st.floats(-2, 3, width=32))
def test_radial_functions_share_one_and_saturate(x):
    weights = np.asarray(_bells(jnp.float32(x), np.array(SOC_CENTRES)))
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(weights, reference.bells(x, SOC_CENTRES), atol=1e-5)
    if x <= 0 or x >= 1:
        np.testing.assert_array_equal(weights, _bells(jnp.float32(np.clip(x, 0, 1)), np.array(SOC_CENTRES)))


# --- gru -----------------------------------------------------------------------------------------------------------


def test_a_gru_of_the_trained_sampling_is_the_textbook_one(twins, drives):
    model = twins["gru"].model
    record = drives["25degC", "LA92"]
    state = model.init(jax.tree.map(jnp.asarray, start_of(record)))
    after = model.step(state, Input(*map(jnp.float32, (-1.3, 24.0, model.cell.period))))[0]
    soc = float(state.charge.soc) - 1.3 * model.cell.period / 3600.0
    scaled = [reference.scaled(model.domain, 0, -1.3), reference.scaled(model.domain, 1, 24.0)]
    x, h = [*scaled, *reference.hats(soc, reference.FEATURES)], np.asarray(state.hidden, float)
    z, r = np.split(reference.sigmoid(reference.affine(model.cell.gates, [*x, *h])), 2)
    candidate = np.tanh(reference.affine(model.cell.candidate, [*x, *(r * h)]))
    np.testing.assert_allclose(after.hidden, z * h + (1 - z) * candidate, atol=1e-5)


def test_a_gru_forgets_as_much_as_a_step_is_long(twins):
    # With a candidate and gates that do not see the state, two steps of one period are one step of two.
    model = twins["gru"].model
    blind = eqx.tree_at(
        lambda m: (m.cell.gates.weight, m.cell.candidate.weight),
        model,
        (model.cell.gates.weight.at[:, 2:].set(0.0), model.cell.candidate.weight.at[:, 2:].set(0.0)),
    )
    step = lambda state, dt: blind.step(state, Input(*map(jnp.float32, (-1.0, 25.0, dt))))[0]  # noqa: E731
    state = woken(blind)
    twice = step(step(state, model.cell.period), model.cell.period)
    once = step(state, 2 * model.cell.period)
    np.testing.assert_allclose(once.hidden, twice.hidden, atol=1e-5)
    assert np.abs(once.hidden - state.hidden).max() > 0.01


def test_simulations_are_those_of_the_loop_on_a_changed_cell(twins):
    # Another capacity than the one of training: rates and charge both follow it.
    cell = reference.Cell("smaller", 0.8, (2.5, 4.3), 0.8, "none")
    record = reference.drive("smaller", seed=11, samples=120, cell=cell)
    for name in (*LIFTED, "gru"):
        model = twins[name].model
        voltage = simulate_records(model, [record])[0].voltage
        np.testing.assert_allclose(voltage, reference.MODELS[name](model, record), atol=1e-4)
