"""A circuit whose parameters a network moves: the circuit at its beginning and outside, passive elements inside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from celltwin import models
from celltwin.data.domain import Domain
from celltwin.interface import Input, Start, inputs_of, run, simulate_records
from celltwin.learning.training import parameters, trainable
from celltwin.models.circuit_neural import CURRENT_MEMORIES, LOAD_MEMORIES
from celltwin.physics.thevenin import Adjustment, Thevenin

few = with_settings(max_examples=40)
NEUTRAL = jnp.zeros(len(CURRENT_MEMORIES)), jnp.zeros(len(LOAD_MEMORIES)), jnp.zeros(2)


@pytest.fixture(scope="module")
def model(twins):
    return twins["circuit-neural"].model


@pytest.fixture(scope="module")
def loud(model):
    """The model with networks that say the most they can."""
    where = lambda m: (m.network.layers[-1].weight, m.curve.layers[-1].weight)  # noqa: E731
    return eqx.tree_at(where, model, replace_fn=lambda weight: 100.0 * (weight + 1.0))


def woken(model, soc=0.7, voltage=3.9, capacity=1.0):
    return model.init(Start(*map(jnp.float32, (voltage, 0.0, 25.0, soc, capacity))))


@jax.jit
def answered(model, current, temperature, soc, currents, loads, ripple):
    u = Input(current, temperature, jnp.float32(1.0))
    adjust = model.adjustment(soc, u, currents, loads, ripple)
    return jnp.concatenate([adjust.resistance, adjust.tau]), adjust.shift


@jax.jit
def scanned(model, state, inputs):
    return jax.lax.scan(lambda state, u: model.step(state, u), state, inputs)


together = jax.jit(run)


def load(rows):
    return Input(*(jnp.asarray(column, jnp.float32) for column in zip(*rows, strict=True)))


def rested(model, state, output, u):
    """The open-circuit voltage after the last sample."""
    _, beside = answered(model, u.current[-1], u.temperature[-1], output.soc[-1], *state[1:])
    return model.base.circuit.ocv(output.soc[-1] + state.circuit.shift + beside, u.temperature[-1])


def test_untrained_it_is_the_circuit(split, twins):
    circuit = twins["thevenin"].model
    untrained = models.family("circuit-neural").create(split.train, Domain.of(split.train), jax.random.key(3), circuit)
    for size in (0.0, 1.0, -3.0):
        factors, beside = answered(untrained, *map(jnp.float32, (-1.0, 25.0, 0.5)), **history(size))
        np.testing.assert_array_equal(factors, 1.0)
        assert beside == 0.0
    for one, other in zip(*(simulate_records(m, split.test) for m in (untrained, circuit)), strict=True):
        np.testing.assert_allclose(one.voltage, other.voltage, rtol=0, atol=5e-7)  # two roundings of 4 V
        np.testing.assert_array_equal(one.soc, other.soc)


def test_training_moves_the_networks_alone(model):
    free = trainable(model)
    assert not any(jax.tree.leaves((free.base, free.domain)))
    assert parameters(model) == parameters(model.network) + parameters(model.curve)


@pytest.mark.parametrize("channel", ["current", "temperature", "soc"])
def test_outside_its_domain_nothing_is_adjusted(channel, loud):
    inside = {"current": -1.0, "temperature": 25.0, "soc": 0.5}
    low, high = loud.domain.ranges()[channel]
    for value in (low - 0.2 * (high - low), high + 0.2 * (high - low)):
        at = {name: jnp.float32(v) for name, v in (inside | {channel: value}).items()}
        factors, beside = answered(loud, **at, **history(1.0))
        np.testing.assert_array_equal(factors, 1.0)
        assert beside == 0.0
    factors, beside = answered(loud, **{name: jnp.float32(v) for name, v in inside.items()}, **history(1.0))
    pairs, moved = loud.base.circuit.pairs, np.abs(np.log(factors))
    slowest = np.isin(np.arange(len(moved)), (pairs, len(moved) - 1))  # its resistance and time constant: the circuit's
    np.testing.assert_array_equal(moved[slowest], 0.0)
    assert moved[~slowest].min() > 0.1
    assert abs(beside) > 0.005


def test_one_pair_is_moved_and_of_a_twin_of_before_the_slowest_too(loud, split):
    circuit = Thevenin.create(split.train, time_constants=(20.0,))
    one = models.family("circuit-neural").create(split.train, Domain.of(split.train), jax.random.key(3), circuit)
    assert len(one.network.layers[-1].bias) == len(circuit.log_resistance) + 1
    last = loud.network.layers[-1]
    wider = eqx.tree_at(
        lambda m: (m.network.layers[-1].weight, m.network.layers[-1].bias),
        loud,
        tuple(jnp.concatenate([x, x[:2]]) for x in (last.weight, last.bias)),
    )
    inside = {"current": jnp.float32(-1.0), "temperature": jnp.float32(25.0), "soc": jnp.float32(0.5)}
    factors, _ = answered(wider, **inside, **history(1.0))
    assert np.abs(np.log(factors)).min() > 0.1


def history(size):
    return {"currents": NEUTRAL[0] - size, "loads": NEUTRAL[1] + size, "ripple": NEUTRAL[2]}


@few
@given(
    current=st.floats(-100, 100, width=32),
    temperature=st.floats(-80, 150, width=32),
    soc=st.floats(-1, 2, width=32),
    past=st.floats(-1e3, 1e3, width=32),
)
def test_factors_are_positive_and_bounded_whatever_the_network_says(loud, current, temperature, soc, past):
    factors, beside = answered(loud, *map(jnp.float32, (current, temperature, soc)), **history(past))
    assert (np.asarray(factors) >= np.exp(-1.0) - 1e-6).all()
    assert (np.asarray(factors) <= np.exp(1.0) + 1e-6).all()
    assert abs(beside) <= 0.02


def test_the_curve_knows_no_current(model):
    rest, use = (
        answered(model, *map(jnp.float32, (i, 25.0, 0.5)), **history(size)) for i, size in ((0.0, 0.0), (-2.0, 3.0))
    )
    assert np.abs(rest[0] - use[0]).max() > 0.01
    assert rest[1] == use[1] != 0.0


@few
@given(current=st.floats(-4, 1, width=32), before=st.floats(-4, 1, width=32), temperature=st.floats(5, 27, width=32))
def test_a_held_current_ends_in_an_overpotential_of_its_sign(loud, current, before, temperature):
    # A cell so large that its charge stays: whatever went before, and whatever the network makes of it.
    u = load([(before, temperature, 1.0)] * 20 + [(current, temperature, 300.0)] * 40)
    state, output = together(loud, woken(loud, capacity=1e6), u)
    over = float(output.voltage[-1] - rested(loud, state, output, u))
    assert over * np.sign(current) > -1e-5
    if abs(current) > 0.1:
        assert over * np.sign(current) > 0.0


def test_a_long_rest_ends_at_the_curve(loud):
    u = load([(-2.0, 25.0, 1.0)] * 300 + [(0.0, 25.0, 600.0)] * 50)
    state, output = together(loud, woken(loud), u)
    assert float(output.voltage[299] - rested(loud, state, output, u)) < -0.01
    np.testing.assert_allclose(output.voltage[-1], rested(loud, state, output, u), atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 157])
def test_all_samples_at_once_are_step_after_step(samples, model, drives):
    current, temperature, dt = (column[100 : 100 + samples] for column in inputs_of(drives["5degC", "LA92"]))
    u = Input(current, temperature, dt * np.float32(7.3))
    state = woken(model)
    (after, output), (stepped, slowly) = together(model, state, u), scanned(model, state, u)
    np.testing.assert_allclose(output.voltage, slowly.voltage, atol=1e-5)
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(stepped), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_an_adjustment_that_does_not_change_is_another_circuit(twins):
    circuit = twins["thevenin"].model
    on_resistance, on_tau = (jnp.array(x, jnp.float32) for x in ([1.5, 0.7, 1.2, 0.9, 1.1, 2.0], [0.5, 1.0, 2.0, 1.5]))
    adjust = Adjustment(on_resistance, on_tau, jnp.float32(0.01))
    moved = eqx.tree_at(
        lambda m: (m.log_resistance, m.log_tau),
        circuit,
        (
            circuit.log_resistance + jnp.log(on_resistance)[:, None, None],
            circuit.log_tau + jnp.log(on_tau)[:, None, None],
        ),
    )
    state, u = woken(circuit), Input(*map(jnp.float32, (-2.0, 10.0, 5.0)))
    for _ in range(3):
        (after, said), (same, expected) = (
            circuit.step(state, u, adjust),
            moved.step(state._replace(shift=state.shift + 0.01), u),
        )
        np.testing.assert_allclose(said.voltage, expected.voltage, atol=1e-6)
        np.testing.assert_allclose(after.pairs, same.pairs, atol=1e-7)
        assert abs(float(said.voltage - circuit.step(state, u)[1].voltage)) > 1e-3
        state = after
