"""A pack while it drives: what is found of each group, from what was heard and from nothing later."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from celltwin.data import datasets
from celltwin.errors import CelltwinError
from celltwin.learning.pack_training import predict
from celltwin.models.pack_circuit import CircuitNetwork
from celltwin.packs.adapting import adapted, forecasts, remembered
from celltwin.packs.draw import Order, demo_circuit, draw
from celltwin.packs.score import CUT_OFF
from celltwin.packs.sensing import of_groups
from celltwin.physics.thevenin import Thevenin


@cache
def told():
    return CircuitNetwork.create(Thevenin.of(demo_circuit()), demo_circuit().capacity_ah, told=True)


@cache
def wrong():
    """A pack that is exactly as the model has it, but for what was told of two of its groups; and what they are."""
    cycle = next(r for r in datasets.load("demo").records if r.key == "A/25degC/US06")
    (log,) = draw([Order("4s1p", 3, cycle)], demo_circuit())
    capacity, resistance = np.array([0.95, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.1, 1.0])
    known = log.known._replace(capacity=capacity, resistance=resistance)
    (out,) = predict(told(), [replace(log, known=known)])
    exact = replace(log, voltage=np.asarray(out.voltage, float), truth={"voltage": np.asarray(out.voltage, float)})
    exact = exact.until(1 + int(np.argmax((exact.voltage < CUT_OFF).any(axis=1))) or len(exact))
    return replace(exact, known=known._replace(capacity=np.ones(4), resistance=np.ones(4))), capacity, resistance


def test_what_was_told_wrong_is_found_and_the_rest_foretold():
    log, capacity, resistance = wrong()
    half = len(log) // 2
    (found,) = adapted(told(), [log], [half])
    # Both are drawn to what was told, the capacity the most: half a discharge tells little of it.
    np.testing.assert_allclose(found.known.resistance, resistance, atol=0.02)
    np.testing.assert_allclose(found.known.capacity, capacity, atol=0.015)
    before, after = (
        np.abs(of_groups(log, out.voltage) - of_groups(log, log.voltage))[half:].max()
        for out in predict(told(), [log, found])
    )
    assert after < 0.3 * before


def test_nothing_later_is_heard():
    log, _, _ = wrong()
    half = len(log) // 2
    other = replace(log, voltage=np.r_[log.voltage[:half], 0.0 * log.voltage[half:]])
    for one, two in zip(adapted(told(), [log], [half]), adapted(told(), [other], [half]), strict=True):
        np.testing.assert_array_equal(one.known.capacity, two.known.capacity)
        np.testing.assert_array_equal(one.known.resistance, two.known.resistance)


def test_without_voltages_what_was_told_stays():
    log, _, _ = wrong()
    deaf = replace(log, voltage=np.full_like(log.voltage, np.nan))
    (found,) = adapted(told(), [deaf], [100])
    np.testing.assert_array_equal(found.known.capacity, log.known.capacity)
    np.testing.assert_array_equal(found.known.voltage, log.known.voltage)


def test_the_more_is_heard_the_better_the_end_is_known():
    log, capacity, _ = wrong()
    rows = forecasts(told(), [log], CUT_OFF)
    assert [row["heard"] for row in rows] == ["nothing yet", "25 %", "50 %", "75 %"]
    assert rows[-1]["rmse"] < rows[1]["rmse"] < rows[0]["rmse"]
    assert rows[-1]["weakest_right"] == 1.0
    assert capacity[0] < 1.0


def test_a_pack_is_not_adapted_to_nothing():
    log, _, _ = wrong()
    with pytest.raises(CelltwinError, match="expected: 2 or more"):
        adapted(told(), [log], [1])


def test_an_earlier_discharge_is_remembered_but_for_its_charge():
    log, capacity, resistance = wrong()
    (found,) = remembered(told(), [log], [log])
    np.testing.assert_allclose(found.known.resistance, resistance, atol=0.02)
    np.testing.assert_allclose(found.known.capacity, capacity, atol=0.01)
    np.testing.assert_array_equal(found.known.voltage, log.known.voltage)
    before, after = (
        np.abs(of_groups(log, out.voltage) - of_groups(log, log.voltage)).max() for out in predict(told(), [log, found])
    )
    assert after < 0.3 * before
    deaf = replace(log, voltage=np.full_like(log.voltage, np.nan))  # of today, nothing is heard
    np.testing.assert_array_equal(remembered(told(), [deaf], [log])[0].known.capacity, found.known.capacity)
    rows = forecasts(told(), [log], CUT_OFF, earlier=[log])
    assert [row["heard"] for row in rows[:2]] == ["nothing yet", "an earlier discharge"]
    assert rows[1]["rmse"] < 0.5 * rows[0]["rmse"]
