"""What is particular to a model; what all have in common is in test_interface.py."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from celltwin import models
from celltwin.errors import CelltwinError
from celltwin.interface import Input, start_of
from celltwin.learning.training import parameters, trainable
from celltwin.models.layers import Dense, Mlp, remember

CONSTANTS = (1.0, 10.0, 300.0)
few = with_settings(max_examples=40)

# --- layers --------------------------------------------------------------------------------------------------------


@jax.jit
def remember_all(value, steps):
    memory = jnp.asarray([0.3, -2.0, 5.0])
    return jax.lax.scan(lambda m, dt: (remember(m, value, dt, CONSTANTS), None), memory, steps)[0]


@few
@given(value=st.floats(-5, 5, width=32), cuts=st.lists(st.floats(0.0, 500.0), min_size=5, max_size=5))
def test_memories_mean_the_same_at_any_sampling(value, cuts):
    steps = np.diff([0.0, *sorted(cuts), 500.0]).astype(np.float32)
    once = np.zeros(6, np.float32)
    once[0] = 500.0
    np.testing.assert_allclose(remember_all(value, steps), remember_all(value, once), atol=2e-5)


@few
@given(st.floats(-5, 5, width=32), st.floats(0.0, 1e6))
def test_memories_stay_between_what_they_hold_and_what_they_see(value, dt):
    low, high = np.minimum([0.3, -2.0, 5.0], value), np.maximum([0.3, -2.0, 5.0], value)
    after = np.asarray(remember_all(value, np.float32([dt])))
    assert (after >= low - 1e-5).all()
    assert (after <= high + 1e-5).all()


def test_an_mlp_starts_near_zero_and_counts_its_layers():
    network = Mlp.create((6, 8, 8, 2), jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (6,))
    assert np.abs(network(x)).max() < 0.3
    assert parameters(network) == 6 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2


def test_a_dense_layer_is_affine():
    layer = Dense.create(3, 2, jax.random.key(0))
    x = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(layer(jnp.asarray(x)), np.asarray(layer.weight) @ x + np.asarray(layer.bias), rtol=1e-5)


# --- LSTM ----------------------------------------------------------------------------------------------------------


def test_a_step_of_the_trained_length_is_the_textbook_cell(twins, drives):
    model = twins["lstm"].model
    record = drives["25degC", "LA92"]
    state = model.init(jax.tree.map(jnp.asarray, start_of(record)))
    u = Input(*(jnp.float32(x) for x in (-1.3, 24.0, model.period)))
    after = model.step(state, u)[0]

    soc = float(state.charge.soc) - 1.3 * model.period / 3600.0
    features = [np.interp(soc, (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0), row) for row in np.eye(9)]
    scaled = [(v - float(model.domain.mean[i])) / float(model.domain.std[i]) for i, v in ((0, -1.3), (1, 24.0))]
    x = np.array([*scaled, *features, *state.hidden])
    f, i, o, g = np.split(np.asarray(model.gates.weight) @ x + np.asarray(model.gates.bias), 4)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    cell = sigmoid(f) * np.asarray(state.cell) + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(after.cell, cell, atol=1e-5)
    np.testing.assert_allclose(after.hidden, sigmoid(o) * np.tanh(cell), atol=1e-5)


def test_a_longer_step_forgets_and_gathers_more(twins, drives):
    # With gates that do not depend on the state, two steps of one period are one step of two.
    model = twins["lstm"].model
    deaf = eqx.tree_at(lambda m: m.gates.weight, model, model.gates.weight.at[:, 2:].set(0.0))
    state = deaf.init(jax.tree.map(jnp.asarray, start_of(drives["25degC", "LA92"])))
    step = lambda state, dt: deaf.step(state, Input(*map(jnp.float32, (-1.0, 25.0, dt))))[0]  # noqa: E731
    twice = step(step(state, deaf.period), deaf.period)
    once = step(state, 2 * deaf.period)
    np.testing.assert_allclose(once.cell, twice.cell, rtol=1e-4, atol=1e-5)
    assert np.abs(once.cell - state.cell).max() > 0.01


# --- hybrid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f.name for f in models.families() if f.base and f.task == "voltage"])
def test_outside_its_training_domain_a_hybrid_is_its_circuit(name, twins, drives):
    hybrid, circuit = twins[name], twins["thevenin"]
    inside = drives["25degC", "LA92"]
    outside = inside.between(0)
    object.__setattr__(outside, "temperature", inside.temperature + 30.0)
    apart = np.abs(hybrid.simulate(inside).voltage - circuit.simulate(inside).voltage)
    assert apart.max() > 1e-3
    np.testing.assert_allclose(hybrid.simulate(outside).voltage, circuit.simulate(outside).voltage, atol=1e-6)


@pytest.mark.parametrize("name", [f.name for f in models.families() if f.base and f.task == "voltage"])
def test_under_a_load_steadier_than_any_it_learned_a_hybrid_is_its_circuit(name, twins, drives):
    hybrid, circuit = twins[name], twins["thevenin"]
    drive = drives["25degC", "LA92"].between(0, 1500)
    net = np.concatenate([[0.0], np.cumsum(np.full(len(drive) - 1, -1.0) * drive.dt[1:] / 3600.0)])
    steady = replace(drive, current=np.full(len(drive), -1.0), net_capacity=net)
    apart = 1e3 * np.abs(hybrid.simulate(steady).voltage - circuit.simulate(steady).voltage)
    assert apart[:60].max() > 0.1
    # What the pairs of a circuit still hold of moved parameters fades by their time constants.
    assert apart[-1] < (1e-3 if name != "circuit-neural" else 0.2 * apart.max())


@few
@given(current=st.floats(-50, 50, width=32), temperature=st.floats(-60, 90, width=32), soc=st.floats(-1, 2, width=32))
def test_trust_is_a_fraction_and_ends_outside(twins, current, temperature, soc):
    model = twins["hybrid"].model
    u = Input(*map(jnp.float32, (current, temperature, 1.0)))
    trust = float(model.trust(u, jnp.float32(soc), jnp.zeros(2)))
    assert 0.0 <= trust <= 1.0
    ranges = model.domain.ranges()
    given_values = {"current": current, "temperature": temperature, "soc": soc}
    if all(low <= given_values[c] <= high for c, (low, high) in ranges.items() if c in given_values):
        assert trust == 1.0
    far = any(
        max(low - given_values[c], given_values[c] - high) > 0.16 * (high - low)
        for c, (low, high) in ranges.items()
        if c in given_values
    )
    if far:
        assert trust == 0.0


def test_the_circuit_of_a_hybrid_is_fixed(twins):
    model = twins["hybrid"].model
    assert not any(jax.tree.leaves(trainable(model).base))
    assert not any(jax.tree.leaves(trainable(model).domain))
    assert all(jax.tree.leaves(trainable(model).residual))
    assert parameters(model) == parameters(model.residual)


# --- registry ------------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(CelltwinError, match=r"no model 'thevenim'.*expected: .*lstm.*did you mean 'thevenin'"):
        models.family("thevenim")
    with pytest.raises(CelltwinError, match="see celltwin models"):
        models.family("qqqqqqq")


def test_a_name_is_registered_once():
    with pytest.raises(CelltwinError, match="registered already"):
        models.register(models.family("narx"))


def test_every_family_says_what_it_is():
    for family in models.families():
        assert family.title
        assert family.base is None or models.family(family.base)
        assert len(family.title) < 100
