"""Every registered model: equal to its textbook loop, in closed loop, causal, and the same however it is run."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from celltwin import models
from celltwin.evaluation import protocol
from celltwin.interface import Input, inputs_of, run, simulate, simulate_records, stack, start_of

TIGHT = 1e-5  # V: what single precision leaves between programs compiled for different shapes


@pytest.fixture
def record(drives):
    return drives["5degC", "LA92"]


def short(record, samples=150):
    return record.between(0, samples)


def with_noise_for_voltage(record):
    """The same log, its voltage noise after the first sample."""
    voltage = np.random.default_rng(0).uniform(2.5, 4.2, len(record))
    voltage[0] = record.voltage[0]
    return replace(record, voltage=voltage)


def irregular(record):
    """The same log at uneven steps, some of them a minute."""
    steps = np.random.default_rng(1).choice([0.1, 1.0, 2.0, 7.0, 60.0], len(record))
    return replace(record, time=np.cumsum(steps), net_capacity=None)


# --- the textbook --------------------------------------------------------------------------------------------------


def test_every_model_has_a_reference():
    assert {family.name for family in models.families() if family.task == "voltage"} == set(reference.MODELS)


@pytest.mark.parametrize("change", [lambda r: r, irregular], ids=["even", "irregular"])
def test_single_precision_matches_the_textbook(twin, record, change):
    record = change(short(record, 300))
    with jax.numpy_dtype_promotion("strict"):
        output = simulate_records(twin.model, [record])[0]
    assert output.voltage.dtype == output.soc.dtype == np.float32
    np.testing.assert_allclose(output.voltage, reference.MODELS[twin.name](twin.model, record), atol=1e-4)
    np.testing.assert_allclose(output.soc, reference.count(record), atol=2e-7)


def test_double_precision_matches_the_textbook(twin, record, in_double):
    record = irregular(short(record))
    model = in_double(twin.model)
    with jax.numpy_dtype_promotion("strict"):
        output = simulate_records(model, [record], dtype=np.float64)[0]
    assert output.voltage.dtype == np.float64
    np.testing.assert_allclose(output.voltage, reference.MODELS[twin.name](model, record), atol=1e-9)
    np.testing.assert_allclose(output.soc, reference.count(record), atol=1e-12)


def test_priors_keep_the_precision(twin, in_double):
    for model in (twin.model, in_double(twin.model)):
        if hasattr(model, "penalty"):
            with jax.numpy_dtype_promotion("strict"):
                penalty = model.penalty()
            assert penalty.dtype == model_dtype(model)
            assert penalty > 0


def model_dtype(model):
    return next(leaf.dtype for leaf in jax.tree.leaves(model) if jnp.issubdtype(leaf.dtype, jnp.inexact))


# --- closed loop ---------------------------------------------------------------------------------------------------


def simulated_by_protocol(twin, record):
    return protocol.evaluate(twin, [record])[0]["output"].voltage


PATHS = {
    "protocol.evaluate": simulated_by_protocol,
    "Twin.simulate": lambda twin, record: twin.simulate(record).voltage,
    "simulate_records": lambda twin, record: simulate_records(twin.model, [record])[0].voltage,
}


@pytest.mark.parametrize("path", PATHS)
def test_measured_voltage_is_never_seen_after_the_start(twin, record, path):
    simulate_by = PATHS[path]
    np.testing.assert_array_equal(simulate_by(twin, record), simulate_by(twin, with_noise_for_voltage(record)))


def test_the_start_is_seen(twins, record):
    # Else the test above would say nothing about models that could use a voltage.
    raised = replace(record, voltage=record.voltage + 0.02)
    for name in ("hold", "thevenin", "narx", "hybrid", "hybrid-gru", "lstm"):
        before, after = (twins[name].simulate(r).voltage for r in (record, raised))
        assert np.abs(after - before).max() > 1e-4, name


def test_a_first_voltage_that_comes_late_brings_its_current(record):
    late = replace(record, voltage=np.r_[np.full(30, np.nan), record.voltage[30:]])
    start = start_of(late)
    assert start.voltage == np.float32(record.voltage[30])
    assert start.current == np.float32(record.current[30]) != np.float32(record.current[0])


def test_a_missing_voltage_only_masks(twin, record):
    holes = record.voltage.copy()
    holes[10:200:3] = np.nan
    broken = replace(record, voltage=holes)
    np.testing.assert_array_equal(twin.simulate(record).voltage, twin.simulate(broken).voltage)
    row = protocol.evaluate(twin, [broken])[0]
    known = np.isfinite(holes)
    error = 1e3 * (row["output"].voltage.astype(float) - record.voltage)[known]
    assert row["n"] == known.sum() < len(record)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)


def test_what_comes_later_does_not_change_what_was(twin, record):
    k = 200
    change = np.arange(len(record)) >= k
    other = replace(
        record,
        current=np.where(change, -0.7, record.current),
        temperature=np.where(change, 15.0, record.temperature),
        net_capacity=None,
    )
    before, after = twin.simulate(record), twin.simulate(other)
    np.testing.assert_array_equal(before.voltage[:k], after.voltage[:k])
    np.testing.assert_array_equal(before.soc[:k], after.soc[:k])
    assert (before.soc[k:] != after.soc[k:]).any()


# --- the same however it is run ------------------------------------------------------------------------------------


def test_streaming_is_simulating(twin, record):
    record = short(record, 60)
    step = jax.jit(type(twin.model).step)
    state = twin.model.init(jax.tree.map(jnp.asarray, start_of(record)))
    streamed = []
    for sample in zip(*inputs_of(record), strict=True):
        state, output = step(twin.model, state, Input(*map(jnp.asarray, sample)))
        streamed.append(float(output.voltage))
    np.testing.assert_allclose(streamed, twin.simulate(record).voltage, atol=TIGHT)


def test_neighbours_and_padding_change_nothing(twin, drives):
    records = list(drives.values())
    assert len({len(record) for record in records}) > 1
    together = simulate_records(twin.model, records)
    for record, output in zip(records, together, strict=True):
        alone = simulate_records(twin.model, [record])[0]
        assert len(output.voltage) == len(output.soc) == len(record)
        np.testing.assert_allclose(output.voltage, alone.voltage, atol=TIGHT)


def test_order_of_records_does_not_matter(twin, drives):
    records = list(drives.values())
    order = np.random.default_rng(0).permutation(len(records))
    forward = simulate_records(twin.model, records)
    shuffled = simulate_records(twin.model, [records[i] for i in order])
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place].voltage, forward[i].voltage, atol=TIGHT)


def test_long_records_go_on_where_a_piece_ends(twins):
    # Longer than one compiled piece: the state is carried over the seam.
    record = reference.drive("long", seed=9, samples=2300, period=0.5)
    twin = twins["narx"]
    whole = jax.jit(simulate)(twin.model, start_of(record), inputs_of(record))
    np.testing.assert_allclose(simulate_records(twin.model, [record])[0].voltage, whole.voltage, atol=TIGHT)


def test_a_step_of_no_length_leaves_the_state(twin, record):
    state = twin.model.init(jax.tree.map(jnp.asarray, start_of(record)))
    load = Input(*(jnp.full(3, value, jnp.float32) for value in (-1.0, 20.0, 1.0)))
    state = run(twin.model, state, load)[0]
    idle = load._replace(dt=jnp.zeros(3))
    after = run(twin.model, state, idle)[0]
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        if twin.name != "lstm" or new.ndim == 0:  # the hidden output of an LSTM answers to its inputs at once
            np.testing.assert_allclose(new, old, atol=1e-6)


def test_stack_pads_with_nothing(drives):
    records = [short(drives["25degC", "LA92"], 7), short(drives["5degC", "LA92"], 4)]
    batch = stack(records, multiple=5)
    assert batch.target.shape == batch.inputs.dt.shape == (2, 10)
    assert batch.mask.sum(axis=1).tolist() == [7, 4]
    assert not batch.inputs.dt[1, 4:].any()
    assert not batch.inputs.current[1, 4:].any()
    assert (batch.inputs.temperature[1, 4:] == batch.inputs.temperature[1, 3]).all()
    assert batch.start.capacity.shape == (2,)
