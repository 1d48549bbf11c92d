"""Faults change what an estimator sees and never what it is scored against; every condition is what it says."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from celltwin.data.domain import Domain
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol, robustness
from celltwin.evaluation.robustness import CONDITIONS, Condition
from celltwin.interface import Estimate
from celltwin.physics.charge import advance, full_of
from celltwin.twin import Twin

GUESS, STATED = 0.6, 0.04  # where the counter starts that knows nothing, and the deviation it states
PER_AMPERE = 1 / 3600.0  # of a cell of 1 Ah: fraction a second


class Counter(eqx.Module):
    """Counts charge, from what is stored or from a guess."""

    def init(self, start):
        return full_of(jnp.where(jnp.isfinite(start.soc), start.soc, GUESS), start.capacity)

    def step(self, state, y):
        state = advance(state, y.current, y.dt)
        return state, Estimate(state.soc, jnp.full_like(state.soc, STATED))


class Thermometer(eqx.Module):
    """Takes a degree for a point of charge."""

    def init(self, start):
        return start.temperature

    def step(self, state, y):
        soc = y.temperature / 100.0
        return y.temperature, Estimate(soc, jnp.full_like(soc, STATED))


@pytest.fixture(scope="module")
def drives():
    return [reference.drive("LA92", seed=5, samples=500), reference.drive("US06", seed=6, samples=420, ambient=5.0)]


@pytest.fixture(scope="module")
def twin(drives):
    return Twin("counter", Counter(), Domain.of(drives), reference.CELL, {}, "soc")


@pytest.fixture(scope="module")
def entries(twin, drives):
    return {entry["name"]: entry for entry in robustness.score(twin, drives)}


def first(entries, name):
    return entries[name]["rows"][0]


# --- conditions ------------------------------------------------------------------------------------------------------


def test_every_condition_is_scored_on_every_record(entries, drives):
    assert list(entries) == [condition.name for condition in CONDITIONS]
    assert len(entries) == len(CONDITIONS)
    for condition, entry in zip(CONDITIONS, entries.values(), strict=True):
        assert entry["group"] == condition.group
        assert [row["cycle"] for row in entry["rows"]] == [drive.name for drive in drives]
        assert all(np.isfinite(row[key]) for row in entry["rows"] for key in ("mae", "max", "coverage", "nees"))
        means = [row["mae"] for row in entry["rows"]]
        assert entry["overall"]["mae"] == pytest.approx(np.mean(means))


def test_conditions_are_those_of_the_protocol():
    faults = {name for condition in CONDITIONS for name in condition.faults}
    assert faults == set(protocol.FAULTS) | set(protocol.SAMPLINGS)
    starts = [condition.start for condition in CONDITIONS if condition.group == "start"]
    assert starts == [0.0, 0.25, 0.5, 0.75]
    assert {c.start for c in CONDITIONS if c.group == "stored"} == {0.25}
    assert {c.start for c in CONDITIONS if c.group not in ("start", "stored")} == {0.0}


def test_progress_is_told_up_to_the_end(twin, drives):
    told = []
    robustness.score(twin, drives[:1], CONDITIONS[:4], told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_the_headline_is_the_mean_over_the_starts(entries, drives):
    # A perfect counter keeps the error of its guess, whatever the start.
    expected = [
        np.mean([100 * abs(GUESS - protocol.from_fraction(drive, start).soc[0]) for drive in drives])
        for start in (0.0, 0.25, 0.5, 0.75)
    ]
    assert robustness.headline(list(entries.values())) == pytest.approx(np.mean(expected), abs=2e-3)
    assert [entry["overall"]["mae"] for entry in entries.values()][:4] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("name", "points"), [("stored -10 points", 10), ("stored -20 points", 20)])
def test_a_stored_value_is_wrong_by_what_it_says(entries, name, points):
    for row in entries[name]["rows"]:
        assert row["mae"] == pytest.approx(points, abs=1e-2)
        assert row["bias"] == pytest.approx(-points, abs=1e-2)
        assert np.isnan(row["return_second"])  # a counter never comes back
        assert row["coverage"] == 0.0
        assert row["nees"] == pytest.approx((points / (100 * STATED)) ** 2, rel=1e-2)


def test_currents_scale_with_the_capacity():
    condition = Condition("both", "both", {"current_offset": 0.3, "voltage_offset": 0.01, "current_gain": 0.02})
    assert condition.scaled(3.0) == pytest.approx({"current_offset": 0.3, "voltage_offset": 0.01, "current_gain": 0.02})
    assert condition.scaled(1.0)["current_offset"] == pytest.approx(0.1)
    assert Condition("steps", "signal", {"current_step": 0.1}).scaled(30.0)["current_step"] == pytest.approx(1.0)


@pytest.mark.parametrize("ampere", [-0.3, -0.1, 0.05, 0.3])
def test_an_offset_is_added_to_the_current_that_is_positive_on_charge(entries, drives, ampere):
    for row, start, drive in zip(
        entries[f"current {ampere:+.2f} A"]["rows"], entries["start at 0 %"]["rows"], drives, strict=True
    ):
        drift = 100 * (ampere / 3.0) * PER_AMPERE * (drive.time - drive.time[0])  # 3 Ah in the name, 1 Ah the cell
        assert row["bias"] - start["bias"] == pytest.approx(np.mean(drift), rel=1e-2)


def test_a_faded_cell_is_a_gain_of_the_current(twin, drives):
    faded, gained = (protocol.evaluate(twin, drives, f) for f in ({"fade": 0.2}, {"current_gain": -0.2}))
    for one, other in zip(faded, gained, strict=True):
        np.testing.assert_array_equal(one["output"].soc, other["output"].soc)
        assert one["mae"] == other["mae"]
    # A counter that thinks the cell fresh counts four fifths of what is gone.
    whole = protocol.evaluate(twin, drives)
    for one, fresh, drive in zip(faded, whole, drives, strict=True):
        gone = 100 * 0.2 * np.mean(drive.soc[0] - drive.soc)
        assert one["bias"] - fresh["bias"] == pytest.approx(gone, rel=1e-2)


def test_a_temperature_offset_is_what_the_estimator_sees(drives):
    twin = Twin("thermometer", Thermometer(), Domain.of(drives), reference.CELL, {}, "soc")
    for kelvin in (-5.0, 5.0):
        off, right = (
            protocol.evaluate(twin, drives, f)[0]["bias"] for f in ({"temperature_offset": kelvin}, {"fade": 0.0})
        )
        assert off - right == pytest.approx(kelvin, abs=1e-3)


# --- faults ----------------------------------------------------------------------------------------------------------

VALUES = {"soc_offset": -0.2, "voltage_step": 0.01, "current_step": 0.1, "stuck": 1.0, "dropout": 1.0, "fade": 0.1}
SENSOR = {
    "current_offset": {"current"},
    "current_gain": {"current"},
    "current_step": {"current"},
    "fade": {"current"},
    "voltage_offset": {"voltage"},
    "voltage_step": {"voltage"},
    "stuck": {"voltage"},
    "dropout": {"voltage"},
    "temperature_offset": {"temperature"},
    "noise": {"voltage", "current", "temperature"},
    "soc_offset": set(),
}


@pytest.mark.parametrize("fault", protocol.FAULTS)
def test_a_fault_changes_what_is_seen_and_never_the_label(fault, twin, drives):
    value = VALUES.get(fault, 0.02)
    (drive, *_) = drives
    seen = protocol.with_faults(drive, {fault: value})
    for column in ("voltage", "current", "temperature"):
        changed = not np.array_equal(getattr(seen, column), getattr(drive, column))
        assert changed == (column in SENSOR[fault]), column
    assert (seen.initial_soc != drive.initial_soc) == (fault == "soc_offset")
    np.testing.assert_array_equal(seen.time, drive.time)
    row = protocol.evaluate(twin, [drive], {fault: value})[0]
    assert row["record"] is drive
    np.testing.assert_array_equal(row["record"].soc, drive.soc)
    error = 100 * (row["output"].soc - drive.soc)
    assert row["mae"] == pytest.approx(np.mean(np.abs(error)))


def test_unknown_faults_are_refused(twin, drives):
    for call in (protocol.with_faults, lambda record, faults: protocol.evaluate(twin, [record], faults)):
        with pytest.raises(CelltwinError, match=r"no fault 'offset'; expected: current_offset, .*irregular"):
            call(drives[0], {"offset": 1.0})


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_sampling_needs_a_step(twin, drives, seconds):
    with pytest.raises(CelltwinError, match="'sampling' cannot be of that size"):
        protocol.evaluate(twin, drives, {"sampling": seconds})


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        ("noise", -1.0),
        ("fade", 1.0),
        ("fade", -0.1),
        ("current_gain", -1.0),
        ("soc_offset", 2.0),
        ("voltage_step", 0.0),
        ("current_step", -1.0),
        ("stuck", 2.0),
        ("dropout", 0.5),
        ("irregular", 0.0),
    ],
)
def test_a_fault_of_an_impossible_size_is_refused(twin, drives, fault, size):
    with pytest.raises(CelltwinError, match=f"'{fault}' cannot be of that size; got: {size}; expected: "):
        protocol.evaluate(twin, drives[:1], {fault: size})


def lapse(drive):
    """Where a sensor lapses: five times for a minute."""
    passed = drive.time - drive.time[0]
    begins = [share * passed[-1] for share in (0.15, 0.35, 0.55, 0.75, 0.95)]
    return np.any([(passed >= begin) & (passed < begin + 60.0) for begin in begins], axis=0)


def test_a_stuck_sensor_repeats_and_a_silent_one_says_nothing(drives):
    (drive, *_) = drives
    lapsed = lapse(drive)
    stuck, silent = (protocol.with_faults(drive, {name: 1.0}).voltage for name in ("stuck", "dropout"))
    np.testing.assert_array_equal(np.isnan(silent), lapsed)
    np.testing.assert_array_equal(stuck[~lapsed], drive.voltage[~lapsed])
    last = None
    for k, volt in enumerate(drive.voltage):
        last = last if lapsed[k] else volt
        assert stuck[k] == last
    off = (protocol.with_faults(drive, {name: 0.0}).voltage for name in ("stuck", "dropout"))
    for voltage in off:
        np.testing.assert_array_equal(voltage, drive.voltage)


def test_converters_round_to_their_steps(drives):
    seen = protocol.with_faults(drives[0], {"voltage_step": 0.01, "current_step": 0.1})
    for column, step in (("voltage", 0.01), ("current", 0.1)):
        steps = getattr(seen, column) / step
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        assert np.abs(getattr(seen, column) - getattr(drives[0], column)).max() <= step / 2 + 1e-12


def test_noise_is_as_loud_as_it_says_and_the_same_every_time(drives):
    long = reference.drive("long", seed=9, samples=1500)
    seen, again = (protocol.with_faults(long, {"noise": 5e-3}) for _ in range(2))
    np.testing.assert_array_equal(seen.voltage, again.voltage)
    for column, loud in (
        ("voltage", 5e-3),
        ("current", 0.01 * reference.CELL.nominal_capacity_ah),
        ("temperature", 0.1),
    ):
        noise = getattr(seen, column) - getattr(long, column)
        assert np.std(noise) == pytest.approx(loud, rel=0.1)
        assert abs(np.mean(noise)) < 4 * loud / np.sqrt(len(long))


# --- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "seconds"), [("sampling", 0.1), ("sampling", 10.0), ("irregular", 1.0)])
def test_resampling_conserves_charge_and_label(twin, drives, name, seconds):
    for row, drive in zip(protocol.evaluate(twin, drives, {name: seconds}), drives, strict=True):
        record = row["record"]
        if name == "sampling":
            np.testing.assert_allclose(np.diff(record.time), seconds, rtol=1e-9)
        else:
            steps = np.diff(record.time)
            assert steps.min() >= 0.1 * seconds
            assert steps.max() <= 2.0 * seconds
            assert np.std(steps) > 0.3 * seconds
        assert drive.time[-1] - 10.0 <= record.time[-1] <= drive.time[-1]
        np.testing.assert_allclose(record.charge_ah, np.interp(record.time, drive.time, drive.charge_ah), atol=1e-9)
        np.testing.assert_allclose(record.soc, np.interp(record.time, drive.time, drive.soc), atol=1e-9)
        np.testing.assert_allclose(record.voltage, np.interp(record.time, drive.time, drive.voltage), atol=1e-12)
        # So a counter is no worse for it.
        assert row["mae"] == pytest.approx(100 * abs(GUESS - drive.soc[0]), abs=2e-2)


# --- coming back -----------------------------------------------------------------------------------------------------


def returned(drive, error):
    return robustness._return(drive, drive.soc + np.asarray(error))


def test_it_is_back_when_the_error_is_small_for_good(drives):
    drive = replace(drives[0], time=drives[0].time + 1000.0)  # s of the log are not s since the start
    n, period = len(drive), 2.0
    small, far = np.full(n, 0.0199), np.full(n, -0.021)
    assert returned(drive, small) == 0.0
    assert np.isnan(returned(drive, far))
    assert returned(drive, np.where(np.arange(n) < 30, far, small)) == 30 * period
    again = np.where(np.arange(n) == 200, 0.05, np.where(np.arange(n) < 30, far, small))
    assert returned(drive, again) == 201 * period
    assert np.isnan(returned(drive, np.where(np.arange(n) < n - 1, small, far)))


def test_rows_tell_when_it_came_back(entries, drives):
    # From 0.6 nothing comes back; right from its guess it would have been all the time.
    assert np.isnan(first(entries, "start at 0 %")["return_second"])
    parts = [protocol.from_fraction(drive, start) for drive in drives for start in (0.25, 0.5, 0.75)]
    right = [abs(part.soc[0] - GUESS) < 0.02 for part in parts]
    rows = [entries[f"start at {s} %"]["rows"][k] for k in range(len(drives)) for s in (25, 50, 75)]
    assert [row["return_second"] == 0.0 for row in rows] == right
