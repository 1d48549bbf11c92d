"""Interpolation weights, and the temperatures that tables get a node at."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.physics.ocv import OCV_NODES, Ocv, fit_ohmic, interpolation
from celltwin.physics.tables import hat, inverse_temperature, temperature_nodes

NODES = {
    "one": (0.5,),
    "two": (0.0, 1.0),
    "uneven": (-1.0, 0.0, 0.01, 0.5, 3.0),
    "ocv": OCV_NODES,
}
few = with_settings(max_examples=60)


@pytest.mark.parametrize("name", NODES)
@few
@given(x=st.floats(-5, 5, width=32))
def test_hat_is_linear_interpolation(name, x):
    nodes = np.array(NODES[name])
    weights = np.asarray(hat(jnp.float32(x), jnp.asarray(nodes, jnp.float32)))
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert weights.min() >= -1e-6
    assert np.count_nonzero(weights > 1e-6) <= 2
    table = np.random.default_rng(0).normal(size=len(nodes))
    assert weights @ table == pytest.approx(np.interp(x, nodes, table), abs=2e-3 if name == "ocv" else 1e-4)
    np.testing.assert_allclose(interpolation(np.array([x]), nodes)[0] @ table, np.interp(x, nodes, table), atol=1e-12)


@pytest.mark.parametrize("name", NODES)
def test_hat_saturates(name):
    nodes = jnp.asarray(NODES[name])
    assert hat(jnp.float32(-99.0), nodes)[0] == 1.0
    assert hat(jnp.float32(99.0), nodes)[-1] == 1.0


def test_inverse_temperature_rises_with_temperature():
    assert inverse_temperature(np.array(25.0)) == pytest.approx(-1000 / 298.15)
    assert (np.diff(inverse_temperature(np.array([-20.0, 0.0, 40.0]))) > 0).all()


@pytest.mark.parametrize(
    ("ambients", "expected"),
    [([25.0, 25.0], (25.0,)), ([25.0, 0.0, -10.0], (-10.0, 0.0, 25.0)), ([25.0, 24.0, 27.0], (24.0, 27.0))],
)
def test_ambients_become_nodes(drives, ambients, expected):
    record = drives["25degC", "UDDS"]
    assert temperature_nodes([replace(record, ambient_degC=a) for a in ambients]) == expected


def test_without_ambient_the_measured_range_is_divided(drives):
    record = replace(drives["25degC", "UDDS"], ambient_degC=float("nan"))
    assert len(temperature_nodes([record])) == 1
    swept = replace(record, temperature=np.linspace(0.0, 40.0, len(record)))
    nodes = temperature_nodes([swept])
    assert len(nodes) == 4
    assert nodes[0] == pytest.approx(0.4, abs=0.1)
    assert nodes[-1] == pytest.approx(39.6, abs=0.1)


def test_least_squares_finds_curve_and_resistance():
    circuit = reference.Circuit(r=(0.0, 0.0))
    records = [
        reference.drive("a", seed=1, circuit=circuit, noise=1e-4),
        reference.drive("b", seed=2, ambient=0.0, circuit=circuit, noise=1e-4),
    ]
    voltage, resistance = fit_ohmic(records, (0.0, 27.0))
    expected = [circuit.r0 * circuit.factor(t) for t in (0.0, 27.0)]
    np.testing.assert_allclose(resistance, expected, rtol=0.04)
    soc = np.linspace(0.45, 0.98, 20)
    np.testing.assert_allclose(np.interp(soc, OCV_NODES, voltage), [circuit.ocv(s) for s in soc], atol=2e-3)


def test_least_squares_leaves_missing_voltages_out(drives):
    record = drives["25degC", "Mixed1"]
    holes = np.where(np.arange(len(record)) % 2 == 0, record.voltage, np.nan)
    _, resistance = fit_ohmic([record], (25.0,))
    sparse, other = fit_ohmic([replace(record, voltage=holes)], (25.0,))
    assert np.isfinite(sparse).all()
    assert other[0] == pytest.approx(resistance[0], rel=0.2)


def test_the_prior_dislikes_drift_and_a_falling_curve():
    rising = Ocv.of(np.linspace(3.0, 4.2, len(OCV_NODES)), (0.0, 25.0))
    drifting = replace(rising, drift=rising.drift + 0.5)
    falling = Ocv.of(np.linspace(4.2, 3.0, len(OCV_NODES)), (0.0, 25.0))
    assert rising.penalty() < drifting.penalty()
    assert rising.penalty() < falling.penalty()
