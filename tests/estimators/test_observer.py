"""Counter, look-up and observer: causal, blind to the label, steady when sensors fail, and better for training."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import celltwin.estimators  # noqa: F401  makes them known by name
import reference
from celltwin import models
from celltwin.data.domain import Domain
from celltwin.data.splits import Split
from celltwin.estimators.observer import Observer
from celltwin.estimators.pulling import Gated, Map
from celltwin.interface import Measurement, estimate_records, measurements_of, unknown_start
from celltwin.learning import training
from celltwin.learning.plan import Plan

NAMES = ("soc-coulomb", "soc-ocv", "soc-observer", "soc-fused", "soc-fused-convlstm")


@pytest.fixture(scope="module")
def made(split, twins):
    """One of each, untrained but for what needs no training."""
    domain = Domain.of(split.train)

    def create(name):
        family = models.family(name)
        return family.create(split.train, domain, jax.random.key(0), twins[family.base].model if family.base else None)

    return {name: create(name) for name in NAMES}


@pytest.fixture(params=NAMES)
def estimator(request, made):
    return made[request.param]


@pytest.fixture(scope="module")
def record():
    return reference.drive("a", seed=7, samples=160)


def test_the_label_has_no_influence(estimator, record):
    other = replace(record, net_capacity=record.net_capacity[::-1].copy(), initial_soc=0.123)
    for one, two in zip(*(estimate_records(estimator, [r])[0] for r in (record, other)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_future_has_no_influence(estimator, record):
    changed = record.voltage.copy()
    changed[100:] = 3.0
    one, two = estimate_records(estimator, [record, replace(record, voltage=changed)])
    np.testing.assert_array_equal(one.soc[:100], two.soc[:100])
    np.testing.assert_array_equal(one.std[:100], two.std[:100])


def test_sample_by_sample_is_the_scan(estimator, record):
    whole = estimate_records(estimator, [record])[0]
    y = measurements_of(record)
    step = jax.jit(lambda model, state, y: model.step(state, y))
    state = estimator.init(jax.tree.map(jnp.asarray, unknown_start(record)))
    for k in range(60):
        state, one = step(estimator, state, Measurement(*(jnp.asarray(column[k]) for column in y)))
        assert float(one.soc) == pytest.approx(whole.soc[k], abs=1e-5)
        assert float(one.std) == pytest.approx(whole.std[k], rel=1e-3)


def test_a_silent_sensor_leaves_finite_estimates(estimator, record):
    silent = record.voltage.copy()
    silent[40:90] = np.nan
    estimated = estimate_records(estimator, [replace(record, voltage=silent)])[0]
    assert np.isfinite(estimated.soc).all()
    assert (estimated.std > 0).all()


def test_a_voltage_that_no_cell_has_is_no_voltage(estimator, record):
    spoilt = {}
    for value in (np.nan, 1e30, -4.0, 65.535):
        voltage = record.voltage.copy()
        voltage[40:45] = value
        spoilt[value] = estimate_records(estimator, [replace(record, voltage=voltage)])[0]
    first, *others = spoilt.values()
    for other in others:
        np.testing.assert_array_equal(first.soc, other.soc)
        np.testing.assert_array_equal(first.std, other.std)


def test_absurd_measurements_leave_it_finite_and_in_bounds(estimator, record):
    draw = np.random.default_rng(0)
    n = len(record)
    wild = replace(
        record,
        voltage=draw.uniform(-100.0, 100.0, n),
        current=draw.normal(0.0, 1e4, n),
        temperature=draw.uniform(-300.0, 500.0, n),
    )
    estimated = estimate_records(estimator, [wild])[0]
    assert np.isfinite(estimated.std).all()
    assert np.isfinite(estimated.soc).all()


def test_the_counter_counts_from_what_the_first_voltage_tells(made, record):
    estimated = estimate_records(made["soc-coulomb"], [record])[0]
    assert abs(estimated.soc[0] - record.soc[0]) < 0.05
    np.testing.assert_allclose(np.diff(estimated.soc), np.diff(record.soc), atol=2e-6)
    stored = estimate_records(made["soc-coulomb"], [record], stored=[0.4])[0]
    assert stored.soc[0] == pytest.approx(0.4)


def test_the_curve_is_read_anew_at_every_sample(made, record):
    estimated = estimate_records(made["soc-ocv"], [record])[0]
    assert np.abs(estimated.soc - record.soc).mean() < 0.06


def small(inputs, past, key):
    return Gated.create(inputs, past, key, hidden=8)


def small_map(inputs, past, key):
    return Map.create(inputs, past, key, scales=4, hidden=4, width=8)


@pytest.mark.parametrize(
    ("name", "network"), [("soc-observer", small), ("soc-fused", small), ("soc-fused-convlstm", small_map)]
)
def test_an_observer_finds_the_charge_after_little_training(name, network, split, twins):
    train = tuple(reference.drive(f"t{seed}", seed=seed, samples=500) for seed in (11, 12, 13))
    test = reference.drive("held out", seed=14, samples=500).between(200)
    domain = Domain.of(train)
    base = twins["thevenin"].model if models.family(name).base else None
    start = Observer.create(train, domain, jax.random.key(0), base, network)
    plan = Plan(adam_rounds=3, updates=60, lanes=12, chunk=50, episode=4, learning_rate=1e-2)
    fitted = training.fit(start, Split(train, (), ()), plan, task="soc")
    before, after = (np.abs(estimate_records(m, [test])[0].soc - test.soc).mean() for m in (start, fitted.model))
    assert after < 0.05
    assert after < 0.7 * before


def test_a_current_offset_is_found(split):
    """With a voltage to be trusted, the filter's second state takes up what is wrong with the current sensor."""
    train = tuple(reference.drive(f"t{seed}", seed=seed, samples=600, period=5.0) for seed in (11, 12, 13))
    observer = Observer.create(train, Domain.of(train), jax.random.key(0), network=small)
    plan = Plan(adam_rounds=3, updates=60, lanes=12, chunk=50, episode=8, learning_rate=1e-2)
    observer = training.fit(observer, Split(train, (), ()), plan, task="soc").model
    clean = train[0]
    shifted = replace(clean, current=clean.current + 0.1)
    finals = []
    for record in (clean, shifted):
        y = jax.tree.map(jnp.asarray, measurements_of(record))
        state = observer.init(jax.tree.map(jnp.asarray, unknown_start(record)))
        finals.append(float(jax.lax.scan(lambda s, u: observer.step(s, u), state, y)[0].offset))
    assert finals[1] - finals[0] > 0.02
