"""The protocol's figures are those of plain numpy, on whole cycles, with the faults that were asked for."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.learning.bands import Bands

RECORD = reference.drive("drive", seed=1, samples=300)


def record(voltage, current=None, time=None):
    n = len(voltage)
    current = np.zeros(n) if current is None else current
    time = np.arange(n, dtype=float) if time is None else time
    return Record("made", time, np.asarray(voltage, float), current, np.full(n, 25.0), cell=reference.CELL)


# --- figures -------------------------------------------------------------------------------------------------------


@with_settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(2.5, 4.2), st.floats(-0.5, 0.5)), min_size=2, max_size=40))
def test_figures_are_those_of_numpy(samples):
    measured, error = (np.array(column) for column in zip(*samples, strict=True))
    row = protocol.score(record(measured), measured + error)
    mv = 1e3 * ((measured + error) - measured)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(mv**2)))
    assert row["mae"] == pytest.approx(np.mean(np.abs(mv)))
    assert row["max"] == np.abs(mv).max()
    assert row["p99"] == pytest.approx(np.quantile(np.abs(mv), 0.99))
    assert row["bias"] == pytest.approx(np.mean(mv))
    assert row["n"] == len(samples)
    if np.ptp(measured) > 1e-6:
        assert row["nrmse"] == pytest.approx(row["rmse"] / 1e3 / np.ptp(measured))
        assert row["r2"] == pytest.approx(
            1 - np.sum(mv**2) / np.sum((1e3 * (measured - measured.mean())) ** 2), abs=1e-6
        )


def test_a_figure_that_is_not_defined_is_nan():
    row = protocol.score(record([3.7, 3.7, 3.7], current=np.full(3, -1.0)), np.full(3, 3.8))
    assert row["rmse"] == pytest.approx(100.0)
    assert np.isnan([row["r2"], row["nrmse"], row["rmse_rest"]]).all()


def test_unmeasured_samples_do_not_count():
    row = protocol.score(record([3.7, np.nan, 3.9]), np.array([3.8, 99.0, 3.8]))
    assert (row["n"], row["rmse"], row["bias"]) == (2, pytest.approx(100.0), pytest.approx(0.0))


# --- segments ------------------------------------------------------------------------------------------------------


def test_rests_and_transients_lie_where_they_should():
    # 60 s of rest, a minute at 1C, a small step that is none, 100 s of rest; a sample a second.
    current = np.r_[np.zeros(60), np.full(60, -1.0), np.full(20, -1.05), np.zeros(100)]
    rest, transient = protocol.segments(record(np.full(240, 3.7), current))
    # The last loaded sample is 139: rest counts from 30 s after it. Before the first load it was always at rest.
    assert np.flatnonzero(rest).tolist() == [*range(60), *range(169, 240)]
    assert np.flatnonzero(transient).tolist() == [*range(60, 71), *range(140, 151)]


def test_segments_are_measured_in_seconds_and_not_in_samples():
    current = np.r_[np.zeros(4), np.full(4, -1.0), np.zeros(12)]
    rest, transient = protocol.segments(record(np.full(20, 3.7), current, time=10.0 * np.arange(20)))
    assert np.flatnonzero(rest).tolist() == [0, 1, 2, 3, *range(10, 20)]
    assert np.flatnonzero(transient).tolist() == [4, 5, 8, 9]


def test_a_leak_is_rest_and_a_trickle_is_none():
    for current, resting in ((-0.015, True), (-0.03, False)):
        rest, _ = protocol.segments(record(np.full(50, 3.7), np.full(50, current)))
        assert rest.all() == resting


def test_segments_are_scored_apart():
    current = np.r_[np.zeros(60), np.full(60, -1.0)]
    simulated = np.full(120, 3.7)
    simulated[:60] += 0.001
    simulated[60:71] += 0.004
    row = protocol.score(record(np.full(120, 3.7), current), simulated)
    assert row["rmse_rest"] == pytest.approx(1.0)
    assert row["rmse_transient"] == pytest.approx(4.0)


def test_coverage_is_of_the_measured_samples():
    voltage = np.array([3.7, 3.6, np.nan, 3.5, 3.9])
    low, high = np.full(5, 3.55), np.array([3.75, 3.75, 3.75, 3.75, 3.85])
    row = protocol.score_band(record(voltage, np.zeros(5)), (low, high))
    assert row == {"coverage": 2 / 4, "half_width": pytest.approx(1e3 * (4 * 0.2 + 0.3) / 10)}


def test_rows_of_a_twin_with_bands_say_how_much_they_hold(twins, split):
    assert "coverage" not in protocol.evaluate(twins["narx"], split.test)[0]
    wide = replace(twins["narx"], bands=Bands((20.0,), ((9.0,),)))
    rows = protocol.evaluate(wide, split.test)
    assert [row["coverage"] for row in rows] == [1.0, 1.0]
    assert protocol.overall(rows)["half_width"] == pytest.approx(9000.0)
    assert list(protocol.columns(rows[0])) == [
        "simulated_voltage_volt", "voltage_low_volt", "voltage_high_volt", "in_domain",
    ]  # fmt: skip
    assert not {"band", "output"} & set(protocol.figures(rows[0]))


# --- evaluate ------------------------------------------------------------------------------------------------------


def test_a_row_for_each_record(twins, split):
    rows = protocol.evaluate(twins["narx"], split.test)
    for row, record, alone in zip(rows, split.test, map(twins["narx"].simulate, split.test), strict=True):
        assert (row["cycle"], row["ambient_degC"], row["record"]) == (record.name, record.ambient_degC, record)
        np.testing.assert_allclose(row["output"].voltage, alone.voltage, atol=1e-5)
        scored = protocol.score(record, row["output"].voltage)
        assert {k: row[k] for k in scored} == scored
        plain = protocol.figures(row)
        assert not {"record", "output", "in_domain"} & set(plain)
        assert all(isinstance(v, (str, int, float)) for v in plain.values())


def test_overall_is_the_mean_and_the_worst():
    rows = [
        {"rmse": 1.0, "mae": 2.0, "p99": 3.0, "max": 10.0, "n": 5},
        {"rmse": 3.0, "mae": 4.0, "p99": 5.0, "max": 30.0, "n": 7},
    ]
    expected = {"rmse": 2.0, "mae": 3.0, "p99": 4.0, "max": 30.0, "mean_max": 20.0, "n": 12}
    assert protocol.overall(rows) == expected
    assert protocol.overall([]) == {}


def test_out_of_domain_is_the_share_outside(twins, split):
    inside = split.train[0]
    hot = replace(inside, temperature=np.where(np.arange(len(inside)) < 200, inside.temperature, 60.0))
    rows = protocol.evaluate(twins["ohmic"], [inside, hot])
    assert rows[0]["out_of_domain"] == 0.0
    assert rows[1]["out_of_domain"] == pytest.approx(1 - 200 / len(inside))
    assert rows[1]["in_domain"].sum() == 200


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "column", "expected"),
    [
        ("current_offset", 0.1, "current", RECORD.current + 0.1),
        ("current_gain", 0.02, "current", 1.02 * RECORD.current),
        ("temperature_offset", 5.0, "temperature", RECORD.temperature + 5.0),
        ("voltage_offset", 0.01, "voltage", RECORD.voltage + 0.01),
        ("soc_offset", -0.05, "initial_soc", 0.95),
    ],
)
def test_a_fault_changes_one_sensor(name, value, column, expected):
    faulty = protocol.with_faults(RECORD, {name: value})
    np.testing.assert_allclose(getattr(faulty, column), expected)
    for other in {"time", "voltage", "current", "temperature", "initial_soc"} - {column}:
        np.testing.assert_array_equal(getattr(faulty, other), getattr(RECORD, other))


def test_a_wrong_ammeter_is_what_soc_is_counted_from():
    hours = (RECORD.time[-1] - RECORD.time[0]) / 3600.0
    faulty = protocol.with_faults(RECORD, {"current_offset": 0.1})
    assert faulty.soc[-1] - RECORD.soc[-1] == pytest.approx(0.1 * hours / 1.0, abs=1e-9)


def test_the_twin_sees_the_fault_and_is_scored_against_the_truth(twins):
    good, bad = (protocol.evaluate(twins["ohmic"], [RECORD], f)[0] for f in (None, {"current_offset": -0.5}))
    assert bad["record"] is RECORD
    assert bad["output"].voltage[-1] < good["output"].voltage[-1] - 0.01
    blind = protocol.evaluate(twins["ohmic"], [RECORD], {"voltage_offset": 0.5})[0]
    assert blind["rmse"] == good["rmse"]  # ohmic does not look at the voltage


def test_an_unknown_fault_is_refused():
    with pytest.raises(CelltwinError, match=r"no fault 'offset'; expected: current_offset, "):
        protocol.with_faults(RECORD, {"offset": 1.0})


# --- from inside a cycle -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "first"), [(0.0, 0), (0.25, 75), (0.5, 150), (0.99, 297)])
def test_a_part_of_a_cycle_begins_at_its_own_soc(fraction, first):
    part = protocol.from_fraction(RECORD, fraction)
    assert len(part) == len(RECORD) - first
    np.testing.assert_array_equal(part.voltage, RECORD.voltage[first:])
    np.testing.assert_allclose(part.soc, RECORD.soc[first:], atol=1e-12)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 50.0, float("nan")])
def test_what_is_no_fraction_is_refused(fraction):
    with pytest.raises(CelltwinError, match="--start is no fraction"):
        protocol.from_fraction(RECORD, fraction)


def test_time_per_step_is_positive(twins):
    assert 0 < protocol.microseconds_per_step(twins["hold"], RECORD, repeats=2) < 1e4
