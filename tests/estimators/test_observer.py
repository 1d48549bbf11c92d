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
from celltwin.errors import CelltwinError
from celltwin.estimators.observer import OTHER, Excess, Observer
from celltwin.estimators.pulling import Gated, Map
from celltwin.interface import Measurement, estimate_records, measurements_of, simulate_records, unknown_start
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


def excess_after(drop, surprise, dt=1.0, weight=1.0):
    """What is known of a cell's excess of drop after samples [time], `weight` 0 where there was no voltage."""
    columns = (np.broadcast_to(column, drop.shape) for column in (drop, surprise, dt, weight))

    def step(excess, x):
        return excess.after(*x), None

    columns = tuple(jnp.asarray(column, jnp.float32) for column in columns)
    return jax.lax.scan(step, Excess.unknown(jnp.ones(())), columns)[0]


@pytest.fixture(scope="module")
def drop(twins):
    """The overpotential of a circuit along a record, V."""
    model, record = twins["thevenin"].model, reference.drive("load", seed=8, samples=600)
    simulated = simulate_records(model, [record])[0]
    return simulated.voltage - np.asarray(jax.vmap(model.ocv)(simulated.soc, record.filled_temperature))


@pytest.mark.parametrize("share", [-0.3, 0.0, 0.25, 0.8])
def test_a_cell_that_drops_more_than_its_circuit_is_found_out(drop, share):
    """Whatever else lies between them, as long as it is slow."""
    slow = 0.03 + 0.01 * np.sin(np.arange(len(drop)) / 400.0)
    found = excess_after(drop, share * drop + slow)
    assert float(found.share) == pytest.approx(share, abs=0.05)
    assert float(found.doubt) < (0.5 * OTHER) ** 2


def test_an_excess_needs_a_voltage_and_a_load_that_swings(drop):
    for found in (excess_after(drop, 0.5 * drop, weight=0.0), excess_after(0 * drop - 0.05, 0 * drop - 0.02)):
        assert float(found.share) == 0.0
        assert float(found.doubt) == pytest.approx(OTHER**2)


def test_what_changed_in_a_silence_is_no_swing():
    """A log may begin without a voltage, or lose it for an hour in which the load became another."""
    for silence, before in ((2, 0), (3600, 100)):
        drop = np.r_[np.full(before, -0.02), np.full(silence + 200, -0.15)]
        surprise = np.r_[np.full(before, 0.0), np.full(silence + 200, -0.06)]
        weight = np.r_[np.ones(before), np.zeros(silence), np.ones(200)]
        assert float(excess_after(drop, surprise, 1.0, weight).share) == pytest.approx(0.0, abs=1e-6)


def test_a_correction_of_the_charge_is_no_swing_of_the_cell(made, record):
    """From a stored state of charge that is wrong, the estimate goes far: the circuit's voltage with it."""
    observer = made["soc-fused"]
    far = observer.init(jax.tree.map(jnp.asarray, unknown_start(record))._replace(soc=jnp.asarray(0.2, jnp.float32)))
    y = jax.tree.map(jnp.asarray, measurements_of(record))
    first = jax.tree.map(lambda column: column[0], y)
    after, estimate = observer.step(far, first)
    assert float(estimate.soc) > 0.3
    curve = observer.base.circuit.ocv
    rise = curve(after.charge.soc, first.temperature) - curve(far.charge.soc, first.temperature)
    simulated = observer.base.circuit.step(
        after.circuit.state._replace(charge=after.charge), first._replace(dt=0.0 * first.dt)
    )
    surprise = first.voltage - simulated[1].voltage
    assert abs(float(rise)) > 0.05
    assert float(after.circuit.excess.surprise) == pytest.approx(float(surprise), abs=0.02)


def test_an_excess_is_that_of_a_naive_loop(drop):
    draw = np.random.default_rng(3)
    surprise, dt = 0.4 * drop - 0.04, draw.uniform(0.1, 5.0, len(drop))
    weight = draw.choice([0.0, 0.3, 1.0, 7.0], len(drop))
    weight[:2] = 0.0
    found = excess_after(drop, surprise, dt, weight)
    assert float(found.share) == pytest.approx(reference.excess(drop, surprise, dt, weight), abs=1e-5)


@pytest.mark.parametrize("name", ["soc-fused", "soc-fused-convlstm"])
def test_an_observer_that_saw_less_is_refused(made, record, name):
    """A twin of an earlier version, whose network has fewer inputs."""
    now = made[name]
    network = (small if name == "soc-fused" else small_map)(now.network.inputs - 1, 5, jax.random.key(0))
    with pytest.raises(CelltwinError, match=r"of an earlier celltwin.*train it again"):
        estimate_records(replace(now, network=network), [record])


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
