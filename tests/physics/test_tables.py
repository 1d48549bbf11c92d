"""Interpolation weights, and the temperatures that tables get a node at."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.physics.ocv import OCV_NODES, Ocv, fit_ohmic, interpolation
from celltwin.physics.tables import asinh, hat, inverse_temperature, lookup, surface, temperature_nodes

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


X_NODES, Y_NODES = (-0.1, 0.0, 0.3, 1.0), (1.0, 2.0, 4.0)


def bilinear(table, x_nodes, y_nodes, x, y):
    along_x = np.array([np.interp(x, x_nodes, column) for column in np.asarray(table, float).T]).reshape(-1, len(x))
    return np.array([np.interp(v, y_nodes, column) for v, column in zip(y, along_x.T, strict=True)])


def tables_and_samples(x_nodes, y_nodes):
    draw = np.random.default_rng(len(x_nodes) + 7 * len(y_nodes))
    tables = [draw.normal(size=(rows, len(y_nodes))) for rows in (len(x_nodes), 1, len(x_nodes))]
    x, y = draw.uniform(-0.5, 1.5, 40), draw.uniform(0.0, 5.0, 40)
    return tables, x, y, draw


@pytest.mark.parametrize("x_nodes", [X_NODES, (0.5,)], ids=["x", "one x"])
@pytest.mark.parametrize("y_nodes", [Y_NODES, (2.0,)], ids=["y", "one y"])
class TestTablesOverRecords:
    def test_they_are_interpolated(self, x_nodes, y_nodes, in_double):
        tables, x, y, _ = tables_and_samples(x_nodes, y_nodes)
        found = lookup([jnp.asarray(t) for t in tables], x_nodes, y_nodes, jnp.asarray(x), jnp.asarray(y))
        for value, table in zip(found, tables, strict=True):
            nodes = x_nodes if len(table) > 1 else x_nodes[:1]
            np.testing.assert_allclose(value, bilinear(table, nodes, y_nodes, x, y), atol=1e-12)
        by_index = surface(jnp.asarray(tables[0]), x_nodes, y_nodes, jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(by_index, found[0], atol=1e-12)

    def test_their_derivatives_are_those_of_differences(self, x_nodes, y_nodes, in_double):
        tables, x, y, draw = tables_and_samples(x_nodes, y_nodes)
        arguments = (tables, x, y)
        direction = ([draw.normal(size=t.shape) for t in tables], draw.normal(size=40), draw.normal(size=40))

        def all_tables(tables, x, y):
            one = surface(tables[0], x_nodes, y_nodes, x, y)
            return jnp.stack([*lookup(list(tables), x_nodes, y_nodes, x, y), one])

        def moved(step):
            return all_tables(*jax.tree.map(lambda a, d: jnp.asarray(a + step * d), arguments, direction))

        moved_by, value = jax.jvp(all_tables, jax.tree.map(jnp.asarray, arguments), direction)
        np.testing.assert_allclose(value, (moved(1e-7) - moved(-1e-7)) / 2e-7, atol=1e-5)
        weights = draw.normal(size=moved_by.shape)
        gradient = jax.grad(lambda *a: jnp.sum(weights * all_tables(*a)), argnums=(0, 1, 2))(*arguments)
        inner = sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
        assert inner == pytest.approx(np.sum(weights * np.asarray(value)), rel=1e-9)


def test_only_what_moves_is_differentiated():
    # With one table moving of three, no product of matrices is made for the others.
    def products(moving):
        def function(moved):
            tables = [moved if n in moving else jnp.ones((4, 3)) for n in range(3)]
            return lookup(tables, X_NODES, Y_NODES, jnp.zeros(8), jnp.ones(8))

        one = jnp.ones((4, 3))
        return str(jax.make_jaxpr(lambda d: jax.jvp(function, (one,), (d,))[1])(one)).count("dot_general")

    # The products of all are made as one.
    assert products({0}) == products({0, 1}) == 2
    assert products(()) < 2


@few
@given(x=st.floats(-1e6, 1e6, width=32))
def test_asinh(x):
    assert float(asinh(jnp.float32(x))) == pytest.approx(np.arcsinh(x), abs=2e-7, rel=2e-6)
    assert float(jax.grad(asinh)(jnp.float32(x))) == pytest.approx(1 / np.sqrt(1 + x * x), rel=1e-5)


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
