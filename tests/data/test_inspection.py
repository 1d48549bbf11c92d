"""Summaries, their table and the figure."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from celltwin.data.importers import load
from celltwin.data.inspection import MAX_POINTS, extremes, figure, summarise, summarise_ocv, table
from celltwin.data.record import PackRecord, Record


@pytest.fixture
def record():
    """Ten hours at 1 A and -1 A by turns, with a gap of one hour and a counter."""
    time = np.arange(0.0, 36000.0, 10.0)
    time[1800:] += 3600.0
    current = np.where(np.arange(len(time)) // 100 % 2 == 0, -1.0, 1.0)
    charge = np.cumsum(current * np.diff(time, prepend=0.0)) / 3600.0
    temperature = np.full(len(time), 25.0)
    temperature[:5] = np.nan
    return Record("pulse [1]", time, 3.7 + 0.1 * current, current, temperature, charge, 25.0, notes=("dropped 2 rows",))


def pack(record):
    groups = np.column_stack([record.voltage, record.voltage + 0.02])
    columns = {name: getattr(record, name) for name in ("name", "time", "current", "temperature", "net_capacity")}
    sensors = record.temperature[:, None]
    return PackRecord(voltage=groups.sum(1), **columns, group_voltage=groups, sensor_temperature=sensors)


def test_summary(record):
    summary = summarise(record)
    assert (summary.name, summary.samples, summary.duration_second) == ("pulse [1] 25degC", 3600, 39590.0)
    assert summary.dt_second == (10.0, 10.0, 3610.0)
    assert summary.current_ampere == (-1.0, 1.0)
    assert summary.temperature_degC == (25.0, 25.0)
    assert (summary.gaps, summary.gap_second, summary.groups) == (1, 3610.0, 0)
    assert summary.charged_ah - summary.discharged_ah == pytest.approx(summary.integrated_ah)
    # The step after the gap is not counted: nobody knows what passed there.
    assert summary.integrated_ah == pytest.approx(record.charge_ah[-1] - record.current[1800] * 3610.0 / 3600.0)
    assert summary.logged_ah == pytest.approx(record.net_capacity[-1] - record.net_capacity[0])
    assert (summary.sign.verdict, summary.notes) == ("charge", ("dropped 2 rows",))


def test_summary_of_a_string(record):
    summary = summarise(pack(record))
    assert summary.groups == 2
    assert summary.group_spread_volt == pytest.approx(0.02)


def test_table_is_readable_in_100_columns(record, tmp_path):
    path = tmp_path / "emf.csv"
    path.write_text("soc_values,voltage_values\n0,3.0\n1,4.2\n")
    bare = replace(record, temperature=np.full(3600, np.nan), net_capacity=None, current=-record.current)
    out = StringIO()
    summaries = [summarise(record), summarise(pack(record)), summarise(bare), summarise_ocv(path)]
    Console(file=out, width=100).print(table(summaries))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for expected in (
        "pulse [1] 25degC",
        "3,600",
        "WRONG",
        "dropped 2 rows",
        "2 groups",
        "an OCV table, not a log",
    ):
        assert expected in text


def test_empty_table():
    assert table([]).row_count == 0


def test_figure_has_a_panel_each_and_shades_gaps(record):
    view = figure(record)
    assert [line.name for line in view.data] == ["voltage", "current", "temperature"]
    assert len(view.layout.shapes) == 1
    assert np.isnan(view.data[0].x).sum() == 1  # the line is parted at the gap
    no_temperature = replace(record, temperature=np.full(3600, np.nan))
    assert len(figure(no_temperature).data) == 2
    assert [line.name for line in figure(pack(record)).data][1:3] == ["group 1", "group 2"]


def test_figure_of_a_long_log_keeps_the_extremes():
    rng = np.random.default_rng(0)
    n = 10 * MAX_POINTS
    current = rng.normal(size=n)
    current[[12345, 54321]] = 50.0, -60.0
    record = Record("long", np.arange(float(n)), 3.7 + 0.01 * current, current, np.full(n, 20.0))
    line = figure(record).data[1]
    assert len(line.x) <= MAX_POINTS
    assert (line.y.max(), line.y.min()) == (50.0, -60.0)


@given(st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=1, max_size=300), st.integers(4, 50))
def test_extremes(values, limit):
    values = np.array(values)
    at = extremes(values, limit)
    assert len(at) <= limit
    assert (np.diff(at) > 0).all()
    assert at[0] == 0
    assert at[-1] == len(values) - 1
    if np.isfinite(values).any():
        assert np.nanmin(values[at]) == np.nanmin(values)
        assert np.nanmax(values[at]) == np.nanmax(values)


def test_measured_logs(shared_data):
    paths = [
        "lg_18650hg2/native/25degC/HPPC.parquet",
        "nissan_leaf_ornl/pack_3modules_6s2p/module123-irdischarge-65ah-2_75c.csv",
        "panasonic_18650pf/native/25degC/HPPC_03-11-17.parquet",
    ]
    records = [load(shared_data / path) for path in paths]
    pulses, string, _ = map(summarise, records)
    assert pulses.integrated_ah == pytest.approx(pulses.logged_ah, abs=0.01)
    assert (string.groups, string.samples) == (6, 1681)
    assert string.logged_ah == pytest.approx(-54.88)
    for record in records:
        assert max(len(line.x) for line in figure(record).data) <= MAX_POINTS
