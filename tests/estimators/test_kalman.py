"""Filters are exact where a system is linear, keep their covariances, and find a charge that nobody told them."""

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
from celltwin.data.domain import Domain
from celltwin.estimators.coulomb import Coulomb
from celltwin.estimators.kalman import THETA, UNITS, Innovations, Kalman, Noise, triangular
from celltwin.evaluation import protocol
from celltwin.interface import (
    Measurement,
    Start,
    estimate_records,
    measurements_of,
    run,
    simulate_records,
    unknown_start,
)
from celltwin.physics.circuit import Circuit
from celltwin.physics.thevenin import Thevenin
from celltwin.twin import Twin

KINDS = ("ekf", "ukf", "ckf")
CAPACITY = 1.0
OCV = (3.2, 0.9)  # V at 0, V from 0 to 1
R0, R1, TAU = 0.04, 0.03, 40.0
CERTAIN = -30.0  # the logarithm of a noise that is none


def straight(resistances=1) -> Thevenin:
    """A circuit whose curve is a line and whose resistances are constants."""
    one = np.ones((2, 1))
    nodes = np.array([-1.0, 2.0])
    return Thevenin.of(
        Circuit(
            "straight",
            CAPACITY,
            (2.0, 5.0),
            temperatures=np.array([25.0]),
            ocv_soc=nodes,
            ocv=(OCV[0] + OCV[1] * nodes)[:, None],
            soc=np.array([0.0, 1.0]),
            r0=R0 * one,
            r=np.stack([R1 * one] * resistances),
            tau=np.stack([TAU * one] * resistances),
        )
    )


def linear_filter(kind: str, noise: Noise) -> Kalman:
    """The filter on it without what makes it bend: scaled resistance and capacity, implausible voltages."""
    made = Kalman.create(straight(), kind, gate=1e9)
    return replace(made, noise=noise)


NOISE = Noise(
    reading=jnp.log(jnp.asarray([0.5, 0.5])),
    loaded=jnp.asarray(CERTAIN),
    error=jnp.log(jnp.asarray([0.7, 0.7])),
    error_second=jnp.log(jnp.asarray(300.0)),
    walk=jnp.asarray([np.log(0.3), np.log(1.0), np.log(0.3), CERTAIN]),
    steep=jnp.asarray(30.0),
    start=jnp.asarray([np.log(2.0), CERTAIN, CERTAIN, np.log(0.5)]),
)


def textbook(y: Measurement, soc: float, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Kalman filter of soc, v1, b and e, as a textbook has it: predict, then correct, with full covariances.

    State of charge, its deviation, and the innovation over its own, squared.
    """
    x, p = np.array([soc, 0.0, 0.0, 0.0]), covariance.copy()
    reading, error = np.exp(NOISE.reading[0]) * UNITS["error"], np.exp(NOISE.error[0]) * UNITS["error"]
    second, walk = np.exp(NOISE.error_second), np.exp(NOISE.walk)
    means, stds, squares = [], [], []
    for voltage, current, dt in zip(y.voltage, y.current, y.dt, strict=True):
        a, fade = np.exp(-dt / TAU), np.exp(-dt / second)
        per_second = np.array([UNITS["soc"] * walk[0], UNITS["pair"] * walk[1], UNITS["offset"] * walk[2]]) ** 2 / 3600
        q = np.diag([*(per_second * dt), error**2 * (1 - fade**2)])
        f = np.array(
            [
                [1, 0, -dt / 3600, 0],
                [0, a, -(1 - a) * R1 * CAPACITY, 0],
                [0, 0, 1, 0],
                [0, 0, 0, fade],
            ]
        )
        drive = np.array([current * dt / 3600 / CAPACITY, (1 - a) * R1 * current, 0, 0])
        h = np.array([OCV[1], 1, -R0 * CAPACITY, 1])
        x = f @ x + drive
        p = f @ (p + q) @ f.T
        s = h @ p @ h + reading**2
        k = p @ h / s
        innovation = voltage - (OCV[0] + h @ x + R0 * current)
        x = x + k * innovation
        p = (np.eye(4) - np.outer(k, h)) @ p
        means.append(x[0])
        stds.append(np.sqrt(p[0, 0]))
        squares.append(innovation**2 / s)
    return np.array(means), np.array(stds), np.array(squares)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_linear_cell_every_filter_is_the_kalman_filter(kind, in_double):
    draw = np.random.default_rng(1)
    n = 600
    current = np.repeat(draw.normal(-0.3, 1.0, n // 20), 20)
    soc = 0.7 + np.cumsum(current) / 3600
    voltage = OCV[0] + OCV[1] * soc + R0 * current + 0.01 * draw.normal(size=n)
    dt = np.where(np.arange(n) == 0, 0.0, draw.uniform(0.2, 3.0, n))
    y = Measurement(voltage, current + 0.02, np.full(n, 25.0), dt)
    start = Start(*(np.asarray(v, float) for v in (voltage[0], 0.0, 25.0, np.nan, CAPACITY)))
    made = in_double(linear_filter(kind, NOISE))
    state = made.init(start)
    scale = np.asarray(made.units)[:4][[0, 1, 2, 3]]
    root = np.asarray(state.root)[:4, :4] * scale[:, None]
    estimated = run(made, state, Measurement(*(jnp.asarray(c) for c in y)))[1]
    mean, std, squared = textbook(y, float(state.model.charge.soc), root @ root.T)
    np.testing.assert_allclose(estimated.soc, mean, atol=1e-6)
    np.testing.assert_allclose(estimated.std, std, atol=1e-6)
    innovations = run(Innovations(made), state, Measurement(*(jnp.asarray(c) for c in y)))[1]
    np.testing.assert_allclose(innovations.squared, squared, rtol=1e-4, atol=1e-6)
    assert np.ptp(mean) > 0.05  # there was something to follow


@with_settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(0, 9), st.floats(-3, 3))
def test_triangular_has_the_same_product(seed, n, more, magnitude):
    m = np.random.default_rng(seed).normal(size=(n, n + more)).astype(np.float32) * np.float32(10.0**magnitude)
    root = np.asarray(triangular(jnp.asarray(m)), np.float64)
    assert (np.triu(root, 1) == 0).all()
    assert (np.diag(root) > 0).all()
    product = m.astype(float) @ m.T.astype(float)
    np.testing.assert_allclose(root @ root.T, product, atol=1e-5 * np.abs(product).max())


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_stay_positive_through_random_steps(kind):
    """Random currents, voltages, temperatures and steps, sensors that fall silent, in single precision."""
    draw = np.random.default_rng(3)
    n = 20_000
    y = Measurement(
        np.where(draw.random(n) < 0.1, np.nan, draw.uniform(1.5, 5.5, n)),
        draw.normal(0.0, 5.0, n),
        draw.uniform(-40.0, 70.0, n),
        draw.choice([0.0, 0.1, 1.0, 60.0], n),
    )
    made = Kalman.create(straight(), kind)
    y = Measurement(*(jnp.asarray(c, jnp.float32) for c in y))
    start = Start(*(jnp.asarray(v, jnp.float32) for v in (3.7, 0.0, 25.0, np.nan, CAPACITY)))
    state, estimated = jax.jit(lambda m, s, u: run(m, m.init(s), u))(made, start, y)
    assert np.isfinite(estimated.soc).all()
    assert (np.asarray(estimated.std) > 0).all()
    assert (np.diag(state.root) > 0).all()
    assert (np.asarray(estimated.soc) >= -0.0501).all()
    assert (np.asarray(estimated.soc) <= 1.0501).all()


def shown(model, record):
    """What the circuit itself shows, with a millivolt of noise."""
    (simulated,) = simulate_records(model, [record])
    return np.asarray(simulated.voltage) + 1e-3 * np.random.default_rng(3).normal(size=len(record))


@pytest.fixture(scope="module")
def circuit():
    """The circuit of the simulated cell, as it is."""
    truth = reference.Circuit()
    nodes = np.linspace(0.0, 1.0, 101)
    one = np.ones((2, 1))
    return Thevenin.of(
        Circuit(
            "truth",
            1.0,
            (2.5, 4.3),
            temperatures=np.array([25.0]),
            ocv_soc=nodes,
            ocv=np.array([truth.ocv(s) for s in nodes])[:, None],
            soc=np.array([0.0, 1.0]),
            r0=truth.r0 * one,
            r=np.stack([r * one for r in truth.r]),
            tau=np.stack([t * one for t in truth.tau]),
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_charge_that_nobody_told_is_found(circuit, kind):
    record = reference.drive("a", seed=4, samples=800)
    begun = record.between(250)
    made = Kalman.create(circuit, kind)
    estimated = estimate_records(made, [begun])[0]
    error = np.abs(estimated.soc - begun.soc)
    assert error[-100:].mean() < 0.01
    wrong = estimate_records(made, [begun], stored=[float(begun.soc[0]) + 0.2])[0]
    assert np.abs(wrong.soc - begun.soc)[-100:].mean() < 0.01


def test_a_silent_voltage_leaves_the_count_and_doubt_grows(circuit):
    record = reference.drive("a", seed=4, samples=400)
    silent = replace(record, voltage=np.where(np.arange(400) < 200, record.voltage, np.nan))
    estimated = estimate_records(Kalman.create(circuit), [silent])[0]
    counted = np.diff(record.soc[199:])
    np.testing.assert_allclose(np.diff(estimated.soc[199:]), counted, atol=0.05 * np.abs(counted).max())
    assert estimated.std[-1] > estimated.std[199]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pause_of_a_week_is_no_week_of_a_sensor_that_is_off(circuit, kind):
    record = reference.drive("a", seed=4, samples=600)
    week = 7 * 86400.0
    later = replace(
        record,
        time=np.where(np.arange(600) < 300, record.time, record.time + week),
        current=np.where(np.arange(600) == 300, 0.0, record.current),
    )
    rested = replace(later, voltage=shown(circuit, later))
    estimated = estimate_records(Kalman.create(circuit, kind), [rested])[0]
    assert np.abs(estimated.soc - rested.soc)[300:].max() < 0.05
    assert estimated.std[300:].max() < 0.1


def test_innovations_are_judged_where_there_are_any(circuit, split):
    record = reference.drive("a", seed=4, samples=400)
    silent = replace(record, voltage=np.where(np.arange(400) < 200, record.voltage, np.nan))
    squared = estimate_records(Innovations(Kalman.create(circuit)), [silent])[0].squared
    assert np.isfinite(squared[:200]).all()
    assert np.isnan(squared[200:]).all()
    filter_, counter = (
        Twin(name, model, Domain.of(split.train), reference.CELL, {}, "soc")
        for name, model in (("soc-ekf", Kalman.create(circuit)), ("soc-coulomb", Coulomb.create(split.train)))
    )
    assert protocol.nis(filter_, [silent]) == pytest.approx(np.mean(squared[:200]), rel=1e-3)
    assert protocol.nis(counter, [silent]) is None


def test_any_voltage_model_fits_into_the_filter(twins):
    """A network's own memory follows along; of its state, the filter doubts the charge, and the pairs of a circuit."""
    record = reference.drive("a", seed=4, samples=60)
    for name in ("hybrid-gru", "lstm", "narx", "ohmic"):
        made = Kalman.create(twins[name].model)
        assert made.pairs == (twins[name].model.base.circuit.pairs if name.startswith("hybrid") else 0)
        estimated = estimate_records(made, [record])[0]
        assert np.isfinite(estimated.soc).all()
        assert (estimated.std > 0).all()


def test_step_by_step_is_the_scan(circuit):
    record = reference.drive("a", seed=5, samples=50)
    made = Kalman.create(circuit, "ckf")
    whole = estimate_records(made, [record])[0]
    step = eqx.filter_jit(lambda m, s, y: m.step(s, y))
    y = measurements_of(record)
    state = made.init(jax.tree.map(jnp.asarray, unknown_start(record)))
    for k in range(len(record)):
        state, one = step(made, state, Measurement(*(jnp.asarray(column[k]) for column in y)))
        assert float(one.soc) == pytest.approx(whole.soc[k], abs=2e-5)
        assert float(one.std) == pytest.approx(whole.std[k], rel=2e-3)
    assert state.theta.shape == (len(THETA),)
