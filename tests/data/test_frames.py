"""Tables of pandas, polars and Arrow come in as files do, and records go out as tables."""

import numpy as np
import pyarrow as pa
import pytest

from celltwin.data import importers
from celltwin.data.record import CURRENT, TIME, VOLTAGE
from celltwin.errors import CelltwinError


@pytest.fixture
def columns():
    t = np.arange(0.0, 600.0, 2.0)
    current = np.where((t // 60) % 2, -1.0, 0.5)
    voltage = 3.7 + 0.05 * current + 0.2 * np.cumsum(current * 2.0) / 3600.0
    return {"Elapsed (min)": t / 60.0, "U [mV]": 1e3 * voltage, "I (A)": current, "T1 (°C)": np.full(len(t), 21.0)}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_table_becomes_a_record(columns, library):
    module = pytest.importorskip(library)
    make = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "table"}[library]
    record = importers.from_frame(getattr(module, make)(columns), name="mine", ambient_degC=20.0)
    np.testing.assert_allclose(record.time, 60.0 * columns["Elapsed (min)"])
    np.testing.assert_allclose(record.voltage, columns["U [mV]"] / 1e3)
    np.testing.assert_array_equal(record.current, columns["I (A)"])
    assert (record.name, record.ambient_degC) == ("mine", 20.0)


def test_the_sign_is_checked_as_in_a_file(columns):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(columns | {"I (A)": -columns["I (A)"]})
    with pytest.raises(CelltwinError, match="positive current does not charge"):
        importers.from_frame(frame)
    np.testing.assert_array_equal(importers.from_frame(frame, current_sign="discharge").current, columns["I (A)"])


def test_a_pandas_index_and_categories_do_no_harm(columns):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(columns).set_index(np.arange(len(columns["I (A)"])) + 7)
    frame["mode"] = pandas.Categorical(["DRIVE"] * len(frame))
    assert len(importers.from_frame(frame)) == len(frame)


@pytest.mark.parametrize("wrong", [[1, 2, 3], {"time": [1.0]}, "log.csv", None])
def test_what_is_no_table_of_a_log_is_refused(wrong):
    with pytest.raises(CelltwinError, match="frame"):
        importers.from_frame(wrong)


def test_records_go_out(columns):
    polars = pytest.importorskip("polars")
    record = importers.from_frame(polars.DataFrame(columns))
    out = polars.DataFrame(record)
    assert out.columns[:3] == [TIME, VOLTAGE, CURRENT]
    np.testing.assert_array_equal(out[VOLTAGE].to_numpy(), record.voltage)
    assert record.table().to_pandas()[CURRENT].tolist() == record.current.tolist()


def test_columns_may_be_named():
    time = np.arange(60.0)
    current = np.where(time // 20 % 2, -1.0, 0.5)
    frame = pa.table({"a": time, "b": 3700.0 + 50.0 * current, "c": current})
    record = importers.from_frame(frame, columns={"time": "a", "voltage": "b [mV]", "current": "c"})
    np.testing.assert_allclose(record.voltage, 3.7 + 0.05 * current)
