"""Importers: every format and fault, on small files made here and on all measured files where present."""

import gzip
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from celltwin.data.importers import ambient_from_path, check_sign, examine, load, load_ocv_table
from celltwin.data.record import Cell, PackRecord, Record
from celltwin.errors import CelltwinError

N = 60
TIME = 10.0 * np.arange(N)
CURRENT = np.where(np.arange(N) // 10 % 2 == 0, -1.0, 0.5)
CHARGE = np.cumsum(CURRENT) * 10.0 / 3600.0
VOLTAGE = 3.7 + 0.05 * CURRENT + 0.5 * CHARGE
COLUMNS = {"Time (s)": TIME, "Voltage (V)": VOLTAGE, "Current (A)": CURRENT}


def text(columns, separator=",", decimal=".", preamble="", units=""):
    rows = [separator.join(columns), *([units] if units else [])]
    for row in zip(*columns.values(), strict=True):
        cells = [cell if isinstance(cell, str) else f"{cell:.9g}".replace(".", decimal) for cell in row]
        rows.append(separator.join(cells))
    return preamble + "\n".join(rows) + "\n"


@pytest.fixture
def write(tmp_path):
    def write(content, name="log.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def assert_same(record, atol=1e-6):
    np.testing.assert_allclose(record.time - record.time[0], TIME, atol=1e-4)
    np.testing.assert_allclose(record.voltage, VOLTAGE, atol=atol)
    np.testing.assert_allclose(record.current, CURRENT, atol=atol)


# --- headers, units, separators ----------------------------------------------------------------------

TIMES = {"Time (s)": 1.0, "time_min": 1 / 60, "Test Time / h": 1 / 3600, "test_time_second": 1.0, "t/ms": 1e3}
VOLTAGES = {"Voltage(V)": 1.0, "U[mV]": 1e3, "Ewe/V": 1.0, "voltage_volt": 1.0, "Voltage / V": 1.0}
CURRENTS = {"I [mA]": 1e3, "Current(A)": 1.0, "<I>/mA": 1e3, "current_ampere": 1.0, "Current / A": 1.0}
TEMPERATURES = {
    "Temperature (°C)": lambda t: t,
    "T/K": lambda t: t + 273.15,
    "temp_F": lambda t: 1.8 * t + 32.0,
    "Surface Temperature T1 / degC": lambda t: t,
    "temperature_t1_celsius": lambda t: t,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    time=st.sampled_from(sorted(TIMES)),
    voltage=st.sampled_from(sorted(VOLTAGES)),
    current=st.sampled_from(sorted(CURRENTS)),
    temperature=st.sampled_from(sorted(TEMPERATURES)),
    separator=st.sampled_from([",", ";", "\t"]),
    decimal_comma=st.booleans(),
    preamble=st.sampled_from(["", "Tester,7\nNominal Voltage,3.6\n\n"]),
    order=st.permutations(range(4)),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)
def test_units_and_separators_give_the_same_record(
    write, time, voltage, current, temperature, separator, decimal_comma, preamble, order, encoding
):
    columns = [
        (time, TIME * TIMES[time]),
        (voltage, VOLTAGE * VOLTAGES[voltage]),
        (current, CURRENT * CURRENTS[current]),
        (temperature, TEMPERATURES[temperature](np.full(N, 21.0))),
    ]
    decimal = "," if decimal_comma and separator != "," else "."
    content = text(dict(columns[i] for i in order), separator, decimal, preamble)
    record = load(write(content.encode(encoding)))
    assert_same(record)
    np.testing.assert_allclose(record.temperature, 21.0, atol=1e-6)


@pytest.mark.parametrize(
    "cells",
    [
        [f"{int(t) // 3600:02d}:{int(t) // 60 % 60:02d}:{t % 60:06.3f}" for t in TIME],
        [f"1d {int(t) // 3600:02d}:{int(t) // 60 % 60:02d}:{t % 60:04.1f}" for t in TIME],
        [str(np.datetime64("2024-03-01T23:58:00") + np.timedelta64(int(t), "s")) for t in TIME],
        [f"2024-03-01 12:{int(t) // 60:02d}:{int(t) % 60:02d}.500+01:00" for t in TIME],
        [f"2/3/2024 1:{int(t) // 60:02d}:{int(t) % 60:02d} PM" for t in TIME],
        [f"15.03.2024 13:{int(t) // 60:02d}:{int(t) % 60:02d}" for t in TIME],
        [f"{(23 * 3600 + 3540 + int(t)) // 3600 % 24}:{(59 + int(t) // 60) % 60:02d}:{int(t) % 60:02d}" for t in TIME],
        [str(1.7e9 + t) for t in TIME],
    ],
)
def test_clock_times(write, cells):
    assert_same(load(write(text({"Time": cells} | {k: v for k, v in COLUMNS.items() if k != "Time (s)"}))))


def test_units_row_below_the_header(write):
    columns = {"Time": TIME / 60.0, "Voltage": 1e3 * VOLTAGE, "Current": CURRENT}
    record = load(write(text(columns, units="[min],[mV],[A]", preamble="Serial,3\n")))
    assert_same(record)
    assert record.notes == ()


def test_missing_units_are_noted(write):
    record = load(write(text({"Time": TIME, "Voltage": VOLTAGE, "Current": CURRENT})))
    assert_same(record)
    assert record.notes == ("took time in s, voltage in V, current in A, as no unit is given",)


def test_blanks_as_separator(write):
    content = text({"~Time[s]": TIME, "U[V]": VOLTAGE, "I[A]": CURRENT}, "  ", preamble="~Resultfile of a test\n")
    assert_same(load(write(content, "log.txt")))


def test_quoted_decimal_commas(write):
    rows = [f'"{t:g}","{v:.7f}","{i:g}"'.replace(".", ",") for t, v, i in zip(TIME, VOLTAGE, CURRENT, strict=True)]
    assert_same(load(write("Time (s),Voltage (V),Current (A)\n" + "\n".join(rows))))


def test_total_time_goes_before_step_time(write):
    columns = {"Time(s)": TIME % 100, "Total Time(s)": TIME, "Current(A)": CURRENT, "Voltage(V)": VOLTAGE}
    assert_same(load(write(text(columns))))


# --- formats -----------------------------------------------------------------------------------------


def test_digatron(write):
    clock = [f"{int(t) // 3600:02d}:{int(t) // 60 % 60:02d}:{t % 60:06.3f}" for t in TIME]
    columns = {"Time Stamp": ["10/26/2018 9:29:22 AM"] * N, "Status": ["DCH"] * N, "Prog Time": clock,
               "Step Time": clock, "Voltage": VOLTAGE, "Current": CURRENT, "Temperature": np.full(N, 24.0),
               "Capacity": CHARGE}  # fmt: skip
    head = "\n\nMeasurement ID,1\nNominal Voltage, 3.7\n\x00\n"
    record = load(write(text(columns, preamble=head, units=",,,,[V],[A],[C],[Ah]"), "25degC/1_C20.csv"))
    assert_same(record)
    np.testing.assert_allclose(record.net_capacity, CHARGE, atol=1e-6)
    assert (record.ambient_degC, record.temperature[0], record.name) == (25.0, 24.0, "1_C20")


def bitrode(sign=1.0):
    return [
        f"No,{t:.1f},1,1,1,1,1,{t:.1f},{sign * i:.2f},{v:.5f},0,{q:.5f},0,{'DCHG' if i < 0 else 'CHRG'}, ,"
        for t, v, i, q in zip(TIME, VOLTAGE, CURRENT, CHARGE, strict=True)
    ]


BITRODE = (
    "Exclude,Time(s),Cycle,Loop,Loop,Loop,Step,StepTime(s),Current(A),Voltage(V),Power(W),"
    "Capacity(Ah),Energy(Wh),Mode,Data,"
)


@pytest.mark.parametrize("header", [[BITRODE], []])
def test_bitrode_with_and_without_header(write, header):
    record = load(write("\n".join([*header, *bitrode()])))
    assert_same(record, 1e-5)
    np.testing.assert_allclose(record.net_capacity, CHARGE, atol=1e-5)
    with pytest.raises(CelltwinError, match="--current-sign discharge"):
        load(write("\n".join([*header, *bitrode(-1.0)])))


def pack(groups=3, string=0.01):
    columns = {
        "Total Time": TIME,
        "Current": CURRENT,
        "Voltage": groups * VOLTAGE + string,
        "Amp-Hours": CHARGE,
    }
    columns |= {f"Cell Voltage A{i + 1}": VOLTAGE + 0.01 * i - 0.01 for i in range(3)}
    return columns | {
        "Temperature A1": np.full(N, 22.0),
        "Temperature A2": np.full(N, 24.0),
        "Mode": ["REST"] * N,
    }


def test_bitrode_pack(write):
    content = text(pack() | {"Data Acquisition Flag": [" "] * N}, preamble="Test Name,x\n,\nNotes,  5.25b\n\n")
    record = load(write(content + "Total Number of Data Lines in the Database: 60\n"))
    assert isinstance(record, PackRecord)
    assert record.group_voltage.shape == (N, 3)
    np.testing.assert_allclose(record.group_voltage[:, 2], VOLTAGE + 0.01, atol=1e-6)
    np.testing.assert_allclose(record.temperature, 23.0)
    assert any("skipped 1 line" in note for note in record.notes)
    part = record.between(10, 20)
    assert isinstance(part, PackRecord)
    assert part.group_voltage.shape == (10, 3)


def test_pack_survives_a_parquet_file(write, tmp_path):
    record = load(write(text(pack())))
    record.save(tmp_path / "pack.parquet")
    again = load(tmp_path / "pack.parquet")
    assert isinstance(again, PackRecord)
    np.testing.assert_array_equal(again.group_voltage, record.group_voltage)
    np.testing.assert_array_equal(again.sensor_temperature, record.sensor_temperature)


def test_pack_whose_groups_do_not_add_up(write):
    with pytest.raises(CelltwinError, match="groups do not add up"):
        load(write(text(pack(groups=4))))


@pytest.mark.parametrize("struct", [True, False])
def test_matlab(tmp_path, struct):
    fields = {"Time": TIME, "Voltage": VOLTAGE, "Current": CURRENT, "Ah": CHARGE,
              "Battery_Temp_degC": np.full(N, 20.0), "Chamber_Temp_degC": np.full(N, 10)}  # fmt: skip
    savemat(tmp_path / "log.mat", {"meas": fields} if struct else fields)
    record = load(tmp_path / "log.mat")
    assert_same(record)
    assert (record.temperature[0], record.ambient_degC) == (20.0, 10.0)
    np.testing.assert_allclose(record.net_capacity, CHARGE)


@pytest.mark.parametrize("human", [True, False])
def test_battery_data_format(write, human):
    names = ("Test Time / s", "Voltage / V", "Current / A", "Net Capacity / Ah")
    names = names if human else ("test_time_second", "voltage_volt", "current_ampere", "net_capacity_ah")
    columns = dict(zip(names, (TIME, VOLTAGE, CURRENT, CHARGE), strict=True))
    record = load(write(text(columns), "x.bdf.csv"))
    assert_same(record)
    path = write("", "y.parquet")
    pq.write_table(pa.table(columns), path)
    again = load(path)
    assert_same(again)
    assert again.net_capacity is not None
    assert record.name == "x"


def test_cycler_files_go_through_batterydf(write, monkeypatch):
    pytest.importorskip("bdf", reason="the cyclers extra is not installed")
    import bdf
    import pandas

    columns = {"Test Time / s": TIME, "Voltage / V": VOLTAGE, "Current / A": CURRENT}
    monkeypatch.setattr(bdf, "read", lambda path, **_: pandas.DataFrame(columns))
    assert_same(load(write(b"NEWARE\x00", "log.nda")))
    monkeypatch.setattr(bdf, "read", lambda path, **_: pandas.DataFrame(columns | {"Current / A": -CURRENT}))
    with pytest.raises(CelltwinError, match="--current-sign discharge"):
        load(write(b"NEWARE\x00", "log.nda"))


def test_cycler_file_without_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "bdf", None)
    with pytest.raises(CelltwinError, match=r"pip install 'celltwin\[cyclers\]'"):
        load(write(b"NEWARE\x00", "log.nda"))


ZERO, ONE = np.zeros(N), ["1"] * N
MODE = ["D" if current < 0 else "C" for current in CURRENT]
VENDORS = {
    "biologic.mpt": text(
        {"mode": ZERO, "time/s": TIME, "control/V/mA": ZERO, "Ewe/V": VOLTAGE, "<I>/mA": 1e3 * CURRENT,
         "(Q-Qo)/mA.h": 1e3 * CHARGE},
        "\t", ",", "EC-Lab ASCII FILE\nNb header lines : 4\nEwe ctrl range : min = 0,00 V, max = 5,00 V\n",
    ),
    "novonix.csv": text(
        {"Date and Time": ONE, "Run Time (h)": TIME / 3600, "Step Time (h)": ZERO, "Current (A)": CURRENT,
         "Potential (V)": VOLTAGE, "Capacity (Ah)": CHARGE},
        preamble="[Summary]\nNovonix UHPC data file\n[Data]\n",
    ),
    "arbin.csv": text(
        {"Test_Time(s)": TIME, "Date_Time": ONE, "Step_Time(s)": ZERO, "Current(A)": CURRENT,
         "Voltage(V)": VOLTAGE, "Charge_Capacity(Ah)": ZERO, "dV/dt(V/s)": ZERO},
    ),
    "maccor.txt": text(
        {"Rec#": ONE, "TestTime": TIME, "StepTime": ZERO, "Amp-hr": np.cumsum(np.abs(CURRENT)) / 360,
         "Amps": np.abs(CURRENT), "Volts": VOLTAGE, "State": MODE},
        "\t", preamble="Today's Date\t03/01/2024\n",
    ),
    "landt.csv": text({"test_time_s": TIME, "step_time_s": ZERO, "current_a": CURRENT, "voltage_v": VOLTAGE}),
}  # fmt: skip


@pytest.mark.parametrize("name", VENDORS)
def test_text_exports_of_other_testers(write, name):
    record = load(write(VENDORS[name], name))
    assert_same(record, 1e-5)
    if record.net_capacity is not None:
        np.testing.assert_allclose(np.diff(record.net_capacity), np.diff(CHARGE), atol=1e-6)


def test_counter_that_stands_still_is_left_out(write):
    record = load(write(text(COLUMNS | {"net_capacity_ah": np.zeros(N)})))
    assert record.net_capacity is None
    assert record.notes == ("left out the Ah counter, which stands still",)


# --- rows --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(N)),
    repeated=st.lists(st.integers(0, N - 1), max_size=20),
)
def test_shuffled_and_repeated_rows(write, order, repeated):
    rows = [*order, *repeated]
    record = load(write(text({name: column[rows] for name, column in COLUMNS.items()})))
    # Some rows may have been dropped as running backward, but the notes say so and the rest is right.
    at = np.searchsorted(TIME, record.time)
    np.testing.assert_allclose(record.voltage, VOLTAGE[at], atol=1e-7)
    assert len(record) == N or any("backward" in note for note in record.notes)


def test_repeated_backward_and_unknown_rows_are_counted(write):
    time = TIME.copy()
    time[[20, 21, 40]] = time[19], time[19], 5.0
    current = np.where(np.arange(N) == 50, np.nan, CURRENT)
    voltage = np.where(np.arange(N) == 30, np.nan, VOLTAGE)
    record = load(write(text({"Time (s)": time, "Voltage (V)": voltage, "Current (A)": current})))
    assert record.notes == (
        "dropped 1 row without a time or a current",
        "kept 1 row without a voltage",
        "dropped 2 rows with a repeated time",
        "dropped 1 row whose time runs backward",
    )
    assert len(record) == N - 4
    assert np.isnan(record.voltage).sum() == 1


def test_one_wild_time_costs_one_row(write):
    time = TIME.copy()
    time[10] = 1e7
    assert len(load(write(text(COLUMNS | {"Time (s)": time})))) == N - 1


def test_a_gap_through_which_no_current_can_have_flowed_is_rest(write):
    time, current = np.arange(400.0), np.where(np.arange(400) % 100 < 50, -1.5, 0.0)
    time[220:] += 50_000.0
    voltage = 4.0 + 0.05 * current - 1e-4 * np.arange(400)
    columns = {"Time (s)": time, "Voltage (V)": voltage, "Current (A)": current}
    record = load(write(text(columns)))
    assert len(record) == 401
    assert record.gaps.tolist() == [220]
    assert (record.current[220], record.time[221] - record.time[220]) == (0.0, 1.0)
    assert np.isnan(record.voltage[220])
    assert record.charge_ah[-1] == pytest.approx(-1.5 * 199 / 3600.0)
    assert any("1 gap for rest" in note for note in record.notes)
    counted = load(write(text(columns | {"Capacity (Ah)": np.cumsum(current) / 3600.0})))
    assert len(counted) == 400  # a counter says what passed


def test_gap_is_kept_and_marked(write):
    time = TIME + np.where(np.arange(N) >= 30, 5000.0, 0.0)
    assert load(write(text(COLUMNS | {"Time (s)": time}))).gaps.tolist() == [30]


def test_second_log_in_the_file_is_refused(write):
    with pytest.raises(CelltwinError, match="time starts again 1 time"):
        load(write(text(COLUMNS) + text(COLUMNS).partition("\n")[2]))


def test_cut_off_last_row_is_noted(write):
    record = load(write(text(COLUMNS)[:-12]))
    assert len(record) == N - 1
    assert "skipped 1 line" in record.notes[0]


def test_counter_set_to_zero_is_joined(write):
    counter = np.where(np.arange(N) < 31, CHARGE, CHARGE - CHARGE[30])
    record = load(write(text(COLUMNS | {"net_capacity_ah": counter})))
    np.testing.assert_allclose(record.net_capacity, CHARGE, atol=1e-6)
    assert "joined the Ah counter" in record.notes[0]


def test_counter_of_both_directions_gets_the_sign_of_the_current(write):
    record = load(write(text(COLUMNS | {"Capacity(mAh)": 1e3 * np.cumsum(np.abs(np.diff(CHARGE, prepend=0.0)))})))
    np.testing.assert_allclose(np.diff(record.net_capacity), np.diff(CHARGE), atol=1e-6)


def test_charge_and_discharge_counters(write):
    step = np.diff(CHARGE, prepend=0.0)
    columns = {
        "Charge_Capacity(Ah)": np.cumsum(step.clip(0)),
        "Discharge_Capacity(Ah)": np.cumsum(-step.clip(max=0)),
    }
    np.testing.assert_allclose(load(write(text(COLUMNS | columns))).net_capacity, CHARGE, atol=1e-6)


def test_unsigned_current_is_signed_by_the_mode(write):
    mode = ["CC DChg" if i < 0 else "CC Chg" for i in CURRENT]
    record = load(write(text(COLUMNS | {"Current (A)": np.abs(CURRENT), "Step Type": mode})))
    assert_same(record)
    assert "mode column (30 rows" in record.notes[0]


def test_glitches_are_blanked(write):
    n = 400
    current = np.resize(CURRENT, n)
    voltage, temperature = 3.7 + 0.05 * current, np.full(n, 25.0)
    voltage[7], temperature[:3] = 65.535, 3000.0
    columns = {
        "Time (s)": np.arange(n),
        "Voltage (V)": voltage,
        "Current (A)": current,
        "T/degC": temperature,
    }
    record = load(write(text(columns)))
    assert record.notes == (
        "blanked 1 voltage outside 0 to 10 V",
        "blanked 3 temperatures outside -80 to 200 degC",
    )


# --- faults ------------------------------------------------------------------------------------------

TABLE = "soc_values,voltage_values\n0.0,3.0\n0.5,3.7\n1.0,4.2\n"


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        ("", "log.csv", "is empty"),
        (" \n\n", "log.csv", "is empty"),
        (bytes(range(256)) * 20, "log.csv", "neither text"),
        ("hello\nworld\n" * 9, "log.csv", "no line of column names"),
        ("Time (s),Voltage (V),Current (A)\n", "log.csv", "header and no data"),
        ("Time (s),Voltage (V),Current (A)\n1,3.7,0\n", "log.csv", "too few rows"),
        ("Time (s),Voltage (V),Current (A)\n1,3.7,\n2,3.7,\n", "log.csv", "too few rows.*dropped 2 rows"),
        ("Time (s),Voltage (V),Current (A)\n0,,1\n1,,1\n", "log.csv", "no voltage was measured"),
        (text(COLUMNS).replace("Current (A)", "Fluss"), "log.csv", "no current column.*Fluss"),
        (text(COLUMNS).replace("(A)", "(A/cm2)"), "log.csv", "unit of the current column"),
        (text(COLUMNS | {"Voltage (V)": 1e3 * VOLTAGE}), "log.csv", "not that of one cell.*mV"),
        (text(COLUMNS | {"Voltage (V)": 6 * VOLTAGE}), "log.csv", "not that of one cell.*Cell Voltage 1"),
        (text(COLUMNS | {"Current (A)": 2e3 * CURRENT}), "log.csv", "current must be in another unit"),
        (text(COLUMNS | {"Current (A)": 1e-3 * CURRENT, "Capacity(Ah)": CHARGE}), "log.csv", "another unit"),
        (text(COLUMNS | {"T/degC": np.full(N, 298.0)}), "log.csv", "temperature must be in another unit"),
        (text(COLUMNS, decimal=","), "log.csv", "decimal comma"),
        (b"PAR1" + bytes(90), "log.parquet", "not a whole Parquet file"),
        (text(COLUMNS), "log.parquet", "not a whole Parquet file"),
        (b"MATLAB 5.0 MAT-file" + bytes(300), "log.mat", "not a whole MATLAB file"),
        (TABLE, "ocv.csv", "OCV or hysteresis table.*load_ocv_table"),
    ],
)
def test_faults_are_refused_in_words(write, content, name, match):
    with pytest.raises(CelltwinError, match=match):
        load(write(content, name))


def test_cut_off_binary_files(write, tmp_path):
    pq.write_table(pa.table(COLUMNS), tmp_path / "log.parquet")
    savemat(tmp_path / "log.mat", {"meas": {"Time": TIME, "Voltage": VOLTAGE, "Current": CURRENT}})
    for name in ("log.parquet", "log.mat"):
        content = (tmp_path / name).read_bytes()
        for share in (0.3, 0.9):
            with pytest.raises(CelltwinError, match="not a whole"):
                load(write(content[: int(share * len(content))], name))


@pytest.mark.parametrize(("name", "by"), [("log.csv.gz", "gzip"), ("log.zip", "zip")])
def test_a_packed_log_is_to_be_unpacked(tmp_path, name, by):
    if by == "gzip":
        (tmp_path / name).write_bytes(gzip.compress(text(COLUMNS).encode()))
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("log.csv", text(COLUMNS))
    with pytest.raises(CelltwinError, match=f"is packed by {by}.*fix: unpack it"):
        load(tmp_path / name)


def test_missing_file_and_unknown_arguments(write, tmp_path):
    with pytest.raises(CelltwinError, match="no such file"):
        load(tmp_path / "nowhere.csv")
    with pytest.raises(CelltwinError, match="unknown format"):
        load(write(text(COLUMNS)), format="neware")
    with pytest.raises(CelltwinError, match="unknown current_sign"):
        load(write(text(COLUMNS)), current_sign="up")


def test_current_far_from_the_capacity_of_the_cell(write):
    cell = Cell("x", 3.0, (2.5, 4.2), 3.0)
    assert load(write(text(COLUMNS)), cell=cell).cell is cell
    with pytest.raises(CelltwinError, match="another unit"):
        load(write(text(COLUMNS | {"Current (A)": 500.0 * CURRENT})), cell=cell)


# --- sign --------------------------------------------------------------------------------------------


def test_discharge_positive_file_needs_the_option(write):
    path = write(text(COLUMNS | {"Current (A)": -CURRENT, "Ah": -CHARGE}))
    with pytest.raises(CelltwinError, match="--current-sign discharge"):
        load(path)
    record = load(path, current_sign="discharge")
    assert_same(record)
    np.testing.assert_allclose(record.net_capacity, CHARGE, atol=1e-6)
    with pytest.raises(CelltwinError, match="leave out --current-sign"):
        load(write(text(COLUMNS)), current_sign="discharge")


def record_of(time, voltage, current, counter=None):
    return Record("x", time, voltage, current, np.full(len(time), np.nan), counter)


def test_rest_is_undecided_and_loads(write):
    noise = np.random.default_rng(0).normal(size=(2, N))
    rest = record_of(TIME, 3.7 + 1e-4 * noise[0], 1e-4 * noise[1])
    assert check_sign(rest).verdict == "undecided"
    record = load(write(text(COLUMNS | {"Voltage (V)": rest.voltage, "Current (A)": rest.current})))
    assert "could not be checked" in record.notes[0]


def test_relaxation_under_an_offset_of_the_ammeter_is_no_contradiction():
    assert check_sign(record_of(TIME, 3.7 - 0.1 * np.exp(-TIME / 100), np.full(N, -0.005))).verdict == "undecided"


def test_constant_current_is_judged_by_the_trend():
    discharge = record_of(TIME, 4.0 - 0.001 * TIME, np.full(N, -3.0))
    assert check_sign(discharge).verdict == "charge"
    assert check_sign(replace(discharge, current=-discharge.current)).verdict == "contradiction"


def test_counter_against_the_current_is_a_contradiction():
    assert check_sign(record_of(TIME, VOLTAGE, CURRENT, CHARGE)).verdict == "charge"
    assert check_sign(record_of(TIME, VOLTAGE, CURRENT, -CHARGE)).verdict == "contradiction"


def test_current_written_a_sample_late():
    rng = np.random.default_rng(1)
    current = rng.choice([-4.0, -2.0, 1.0], 2000)
    voltage = 4.0 + np.cumsum(current) / 5000 + 0.02 * current
    assert check_sign(record_of(np.arange(2000.0), voltage, np.roll(current, 1))).verdict == "charge"


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 1.0), st.floats(0.0, 0.2), st.floats(0.1, 100.0), st.integers(0, 2**32 - 1))
def test_sign_of_any_cell(resistance, noise, scale, seed):
    """Noise up to a fifth of the step of voltage; cells of any size."""
    rng = np.random.default_rng(seed)
    current = scale * rng.choice([-2.0, -1.0, 0.0, 1.0], 300)
    voltage = 3.7 + resistance / scale * (current + noise * scale * rng.normal(size=300))
    record = record_of(np.arange(300.0), voltage, current)
    assert check_sign(record).verdict == "charge"
    assert check_sign(replace(record, current=-current)).verdict == "contradiction"


# --- folders and OCV tables --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "ambient"),
    [
        ("25degC", 25.0),
        ("n10degC", -10.0),
        ("-10degC", -10.0),
        ("minus10degC", -10.0),
        ("25 °C", 25.0),
        ("T25", 25.0),
        ("T-10", -10.0),
        ("-10C", -10.0),
        ("n7.5C", -7.5),
        ("data", np.nan),
        ("2C", np.nan),
        ("25", np.nan),
    ],
)
def test_ambient_from_the_folder(write, folder, ambient):
    path = write(text(COLUMNS), f"{folder}/US06.csv")
    np.testing.assert_equal(ambient_from_path(path), ambient)
    record = load(path)
    np.testing.assert_equal(record.ambient_degC, ambient)
    assert record.name == "US06"
    assert load(path, ambient_degC=5.0, name="other").label == "other 5degC"


def test_a_current_in_two_columns_is_one(write):
    charging = np.where(CURRENT > 0, CURRENT, 0.0)
    for turned in (1.0, -1.0):  # discharge logged as a size, or below zero
        discharging = turned * np.where(CURRENT < 0, -CURRENT, 0.0)
        both = {"Charge Current (A)": charging, "Discharge Current (mA)": 1e3 * discharging}
        examined = examine(write(text(COLUMNS | both).replace("Current (A),", "Nothing (x),", 1)))
        assert_same(examined.record)
        assert "took 'Charge Current (A)' less 'Discharge Current (mA)' for the current" in examined.record.notes
    cells = {name: [f"{x:g}" if x else "" for x in column] for name, column in both.items()}
    assert_same(load(write(text({k: COLUMNS[k] for k in ("Time (s)", "Voltage (V)")} | cells))))
    # A signed current is preferred, and one direction alone is no role: it is a column in A like any other.
    assert_same(load(write(text(COLUMNS | {k: 0.0 * v for k, v in both.items()}))))
    alone = {"Time (s)": TIME, "Voltage (V)": VOLTAGE, "Discharge Current (A)": CURRENT}
    assert_same(load(write(text(alone))))


def test_ocv_table(write):
    soc, voltage = load_ocv_table(write("SOC (%);OCV (V)\n100;4.2\n50;3.7\n50;3.7\n0;3.0\n"))
    np.testing.assert_allclose(soc, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(voltage, [3.0, 3.7, 4.2])
    with pytest.raises(CelltwinError, match="hysteresis"):
        load_ocv_table(write("soc_values,voltage_values\n0,0.05\n1,0.02\n"))
    with pytest.raises(CelltwinError, match="no OCV table"):
        load_ocv_table(write(text(COLUMNS)))


# --- measured files ----------------------------------------------------------------------------------


def test_every_measured_log(shared_data):
    """Loads, has the right sign, and is refused with its current negated, whatever the counter does."""
    paths = sorted(path for kind in ("parquet", "csv", "mat") for path in shared_data.rglob(f"*.{kind}"))
    tables = {"index.csv", "quasi_emf.csv", "gitt_data.csv", "hysteresis_data.csv"}
    paths = [path for path in paths if path.name not in tables]
    assert len(paths) > 100
    wrong = []
    for path in paths:
        record = load(path)
        counters = [record.net_capacity, None] + ([] if record.net_capacity is None else [-record.net_capacity])
        turned = [check_sign(replace(record, current=-record.current, net_capacity=c)).verdict for c in counters]
        if check_sign(record).verdict != "charge" or set(turned) != {"contradiction"}:
            wrong.append(path)
    assert not wrong


def test_measured_files_with_negated_current(shared_data, tmp_path):
    wrong = []
    for path in sorted(shared_data.rglob("*.parquet")):
        table = pq.read_table(path)
        turned = table.set_column(2, "current_ampere", pa.array(-table["current_ampere"].to_numpy()))
        copies = [turned]
        if "net_capacity_ah" in table.column_names:
            counter = pa.array(-table["net_capacity_ah"].to_numpy())
            copies += [
                turned.set_column(4, "net_capacity_ah", counter),
                turned.drop_columns("net_capacity_ah"),
            ]
        for copy in copies:
            pq.write_table(copy, tmp_path / "copy.parquet")
            try:
                load(tmp_path / "copy.parquet")
            except CelltwinError as error:
                if "--current-sign discharge" in str(error):
                    continue
            wrong.append(path)
        assert (
            load(tmp_path / "copy.parquet", current_sign="discharge").current[-1] == table["current_ampere"][-1].as_py()
        )
    assert not wrong


def test_measured_tester_files_with_negated_current(shared_data, tmp_path):
    paths = [*shared_data.glob("raw/*/*/*.csv"), *shared_data.glob("nissan_leaf_ornl/*/*.csv")]
    for path in paths:
        lines = path.read_bytes().decode("latin-1").split("\n")
        header = next((line for line in lines if "Voltage" in line and "Current" in line and "," in line), None)
        column = 8 if header is None else [name.split("(")[0] for name in header.split(",")].index("Current")
        copy = tmp_path / path.name
        copy.write_bytes("\n".join(_negated(line, column) for line in lines).encode("latin-1"))
        with pytest.raises(CelltwinError, match="--current-sign discharge"):
            load(copy)
    assert len(paths) >= 9


def _negated(line, column):
    cells = line.split(",")
    if len(cells) > column and cells[column].strip("-").replace(".", "").isdigit() and len(cells) > 10:
        cells[column] = f"{-float(cells[column]):g}"
    return ",".join(cells)


def odd_log(folder, *headers):
    """A csv with a preamble, semicolons, and headers of somebody's own, current positive on charge."""
    t = np.arange(120)
    current = np.where((t // 20) % 2, -1.0, 0.5)
    voltage = 3700.0 + 50.0 * current + 0.2 * np.cumsum(current)
    rows = [f"4;{k / 3600:.8f};{v:.2f};{i:.3f};77.0;3" for k, v, i in zip(t, voltage, current, strict=True)]
    path = folder / "odd.csv"
    path.write_text("\n".join(["Cycler export v4.2", "operator KM", ";".join(headers), *rows]))
    return path, voltage / 1e3, current


def test_a_unit_tells_what_no_name_does(tmp_path):
    headers = ("Step", "Elapsed (h)", "Cell U [mV]", "Shunt 3/A", "T_surf [degF]", "AuxDI_3")
    path, voltage, current = odd_log(tmp_path, *headers)
    record = load(path)
    np.testing.assert_allclose(record.voltage, voltage, atol=1e-5)
    np.testing.assert_array_equal(record.current, current)
    np.testing.assert_allclose(record.temperature, 25.0)
    assert "took 'Cell U [mV]' for the voltage, as the only column of such a unit" in record.notes
    assert "took 'Shunt 3/A' for the current, as the only column of such a unit" in record.notes


def test_a_unit_of_two_columns_tells_nothing(tmp_path):
    headers = ("Step", "Elapsed (h)", "Cell U [mV]", "Shunt 3/A", "T_surf [degF]", "Ripple/A")
    with pytest.raises(CelltwinError, match="no current column"):
        load(odd_log(tmp_path, *headers)[0])


# --- columns that somebody names ---------------------------------------------------------------------

ODD = ("Step", "Elapsed (h)", "Klemme 1", "Shunt 3", "Fühler A", "AuxDI_3")
TOLD = {"voltage": "klemme 1 [mV]", "current": "Shunt 3", "temperature": "Fühler A [degF]"}


def test_told_columns_are_taken_with_their_units(tmp_path):
    path, voltage, current = odd_log(tmp_path, *ODD)
    with pytest.raises(CelltwinError, match=r"no voltage column.*--column ROLE=HEADER"):
        load(path)
    examined = examine(path, columns=TOLD)
    np.testing.assert_allclose(examined.record.voltage, voltage, atol=1e-5)
    np.testing.assert_array_equal(examined.record.current, current)
    np.testing.assert_allclose(examined.record.temperature, 25.0)
    assert {role: column.header for role, column in examined.columns} == {
        "time": "Elapsed (h)",
        "voltage": "Klemme 1",
        "current": "Shunt 3",
        "temperature": "Fühler A",
    }
    assert examined.unused == ("Step", "AuxDI_3")


def test_a_told_column_wins_over_one_that_is_recognised(tmp_path):
    path, _, current = odd_log(tmp_path, "Current (A)", *ODD[1:])
    record = load(path, columns=TOLD)
    np.testing.assert_array_equal(record.current, current)


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"voltage": "Klemme 2 [mV]", "current": "Shunt 3"}, "no column 'Klemme 2 .* did you mean 'Klemme 1'"),
        ({"voltage": "Klemme 1 [mV]", "current": "Shunt 3", "temperature": "Fuhler A"}, "did you mean 'Fühler A'"),
        ({"voltage": "Klemme 1 [kV]", "current": "Shunt 3"}, "unit of the voltage column is not known"),
        ({"pressure": "Klemme 1"}, "for what celltwin does not read.*pressure"),
    ],
)
def test_told_columns_that_make_no_sense_are_refused(tmp_path, columns, match):
    with pytest.raises(CelltwinError, match=match):
        load(odd_log(tmp_path, *ODD)[0], columns=columns)


def test_several_names_serve_files_that_differ(tmp_path):
    for name in ("Klemme 1", "Messstelle U"):
        path, voltage, _ = odd_log(tmp_path, *ODD[:2], name, *ODD[3:])
        told = TOLD | {"voltage": ["Klemme 1 [mV]", "Messstelle U [mV]"]}
        np.testing.assert_allclose(load(path, columns=told).voltage, voltage, atol=1e-5)


def test_rivals_for_a_role_are_named(tmp_path):
    headers = ("Step", "Elapsed (h)", "Cell U [mV]", "Shunt 3/A", "T_surf [degF]", "Ripple/A")
    with pytest.raises(CelltwinError, match=r"tell which of 'Shunt 3/A', 'Ripple/A' it is: --column current="):
        load(odd_log(tmp_path, *headers)[0])
