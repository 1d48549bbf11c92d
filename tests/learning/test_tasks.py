"""What training is told: losses, validation, and sensors that are wrong in the way they say."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from celltwin.interface import POINT, Estimate
from celltwin.learning.tasks import STARTS, TASKS, Sensors
from celltwin.physics.charge import Charge, advance, full_of

SOC = TASKS["soc"]
RIGHT = Sensors(*np.zeros(len(Sensors._fields)))


class Told(eqx.Module):
    """An estimator that counts from a start it was made with."""

    soc: jax.Array

    def init(self, start) -> Charge:
        return full_of(self.soc, start.capacity)

    def step(self, state: Charge, y) -> tuple[Charge, Estimate]:
        state = advance(state, y.current, y.dt)
        return state, Estimate(state.soc, 0.01 + 0.0 * state.soc)


class Shown(NamedTuple):
    soc: np.ndarray
    std: np.ndarray


def loss(error, std=0.01, n=50):
    """The loss of an error (fraction) that is stated with `std`."""
    target = jnp.full((2, n), 0.5)
    return float(SOC.loss(Shown(target + error, jnp.full((2, n), std)), target, jnp.ones((2, n), bool)))


def test_the_loss_of_an_estimator_grows_with_its_error_and_is_least_for_an_honest_doubt():
    assert loss(0.0) < loss(0.005) < loss(0.02)
    honest = [loss(0.02, std) for std in (0.005, 0.01, 0.02, 0.04, 0.08)]
    assert int(np.argmin(honest)) == 2


def test_samples_outside_the_mask_tell_nothing():
    target, output = jnp.zeros((1, 4)), Shown(jnp.asarray([[0.0, 0.1, 9.0, 9.0]]), jnp.full((1, 4), 0.01))
    known = jnp.asarray([[True, True, False, False]])
    alone = SOC.loss(Shown(*(a[:, :2] for a in output)), target[:, :2], known[:, :2])
    assert float(SOC.loss(output, target, known)) == pytest.approx(float(alone))


def test_validation_is_the_mean_error_over_all_starts():
    record = reference.drive("a", seed=1, samples=200)
    told = 0.8
    expected = [abs(told - record.soc[int(s * 200)]) + 0 for s in STARTS]
    # Counting is right from there on, so that the first error is that of every sample.
    assert SOC.validate(Told(jnp.asarray(told)), [record]) == pytest.approx(POINT * np.mean(expected), abs=0.05)
    assert np.isnan(SOC.validate(Told(jnp.asarray(told)), []))


def test_sensors_are_wrong_as_they_say():
    records = [reference.drive("a", seed=1, samples=60), reference.drive("b", seed=2, samples=60)]
    batch = SOC.stack(records, 60)
    wrong = RIGHT._replace(voltage=0.01, current=0.02, gain=-0.1, temperature=4.0)
    sensors = jnp.asarray([RIGHT, wrong], jnp.float32)
    start, inputs = SOC.distort(batch.start, batch.inputs, sensors)
    for clean, seen in zip([*batch.start, *batch.inputs], [*start, *inputs], strict=True):
        np.testing.assert_array_equal(clean[0], seen[0])
    assert np.isnan(start.soc).all()
    np.testing.assert_allclose(inputs.voltage[1], batch.inputs.voltage[1] + 0.01, rtol=1e-6)
    capacity = records[1].cell.reference_capacity_ah
    np.testing.assert_allclose(inputs.current[1], 0.9 * batch.inputs.current[1] + 0.02 * capacity, atol=1e-6)
    np.testing.assert_allclose(inputs.temperature[1], batch.inputs.temperature[1] + 4.0, rtol=1e-6)
    assert float(start.voltage[1]) == pytest.approx(batch.start.voltage[1] + 0.01)


def test_a_cell_of_more_resistance_drops_more_and_most_in_the_cold():
    batch = SOC.stack(
        [reference.drive("a", seed=1, samples=60), reference.drive("b", seed=1, samples=60, ambient=-10)], 60
    )
    sensors = jnp.asarray([RIGHT._replace(resistance=0.2)] * 2, jnp.float32)
    _, inputs = SOC.distort(batch.start, batch.inputs, sensors)
    more = np.asarray(inputs.voltage) - batch.inputs.voltage
    loaded = np.abs(batch.inputs.current[0]) > 0.1
    assert (np.sign(more) == np.sign(batch.inputs.current))[:, loaded].all()
    assert (np.abs(more[1]) > 2 * np.abs(more[0]))[loaded].all()


def test_some_episodes_have_perfect_sensors_and_some_faded_cells():
    draw = np.random.default_rng(0)
    drawn = np.stack([SOC.sensors(draw) for _ in range(2000)])
    gain = drawn[:, Sensors._fields.index("gain")]
    assert 0.2 < (drawn == 0).all(axis=1).mean() < 0.3
    assert 0.1 < (gain < -0.04).mean() < 0.15
    assert drawn.shape == (2000, len(Sensors._fields))
