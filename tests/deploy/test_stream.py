"""A stream: what the whole record gives, a sample at a time; whatever comes in; and on after a restart."""

import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from celltwin.cli import app
from celltwin.data import importers
from celltwin.deploy import native, stream
from celltwin.deploy.stream import Sample, Stream
from celltwin.errors import CelltwinError

ENGINES = [False, pytest.param(True, marks=pytest.mark.skipif(native.compiler() is None, reason="no C compiler"))]
HEADER = "test_time_second,voltage_volt,current_ampere,temperature_t1_celsius"


@pytest.fixture(scope="session")
def observer(twin_of, tmp_path_factory):
    """The file of an estimator."""
    return twin_of("soc-observer").save(tmp_path_factory.mktemp("stream") / "observer.twin")


def samples_of(record, count=300):
    columns = (record.time, record.voltage, record.current, record.temperature)
    return [Sample(*row) for row in np.stack(columns, axis=1)[:count].tolist()]


def rows(samples):
    return [HEADER, *(",".join("" if math.isnan(v) else repr(v) for v in s) for s in samples)]


@pytest.mark.parametrize("compiled", ENGINES)
@pytest.mark.parametrize("name", ["soc-observer", "thevenin"])
def test_a_stream_says_what_the_whole_record_gives(name, compiled, twin_of, journey):
    twin, record = twin_of(name), journey.between(0, 300)
    running = Stream(twin, 0.6 if twin.task == "voltage" else math.nan, compiled)
    said = np.array([running.push(s) for s in samples_of(record)])
    whole = twin.estimate(record) if twin.task == "soc" else twin.simulate(record)
    np.testing.assert_allclose(said[:, :2], np.stack(whole, axis=1), atol=2e-6)
    soc = whole.soc
    expected = twin.in_domain(record, soc)
    if twin.task == "voltage":
        np.testing.assert_array_equal(said[:, 2], expected)


@pytest.mark.parametrize("compiled", ENGINES)
def test_samples_that_cannot_be_used_are_counted_and_change_nothing(compiled, twin_of, journey):
    good = samples_of(journey, 60)
    running, clean = (
        Stream(twin_of("soc-observer"), compiled=compiled),
        Stream(twin_of("soc-observer"), compiled=compiled),
    )
    said = [clean.push(s) for s in good]
    for number, sample in enumerate(good):
        assert running.push(sample) == said[number]
        if number % 10 == 3:
            assert running.push(sample) is None  # twice
            assert running.push(good[number - 2]) is None  # late
            assert running.push(sample._replace(time=math.nan)) is None
            assert running.push(sample._replace(time=math.inf)) is None
    assert (running.late, running.unclear) == (12, 12)


def test_silent_sensors_and_irregular_steps_are_bridged(twin_of, journey):
    draw = np.random.default_rng(0)
    running = Stream(twin_of("soc-observer"))
    first, *others = samples_of(journey)
    silent = running.push(first._replace(voltage=math.nan))
    assert math.isnan(silent[0])
    assert silent[-1] == 0
    assert math.isnan(running.time)
    time_ = 0.0
    for sample in [first, *others]:
        time_ += draw.choice([0.01, 1.0, 7.0, 500.0])
        values = [v if draw.random() > 0.3 else draw.choice([math.nan, math.inf, -math.inf]) for v in sample[1:]]
        soc, std, _valid = running.push(Sample(time_, *(values if running.time == running.time else sample[1:])))
        assert -0.2 <= soc <= 1.2
        assert 0 < std <= 1
    assert running.late == 0


def test_a_voltage_twin_finds_its_start_at_rest_or_says_why_not(twin_of):
    twin = twin_of("thevenin")
    rested = Stream(twin).push(Sample(0.0, 3.7, 0.0, 25.0))
    assert rested[0] == pytest.approx(3.7, abs=0.03)
    with pytest.raises(CelltwinError, match=r"initial SOC.*--initial-soc"):
        Stream(twin).push(Sample(0.0, 3.7, -1.0, 25.0))


@pytest.mark.parametrize("other", ENGINES)
@pytest.mark.parametrize("compiled", ENGINES)
def test_a_snapshot_goes_on_as_if_never_stopped(compiled, other, twin_of, journey, tmp_path):
    """From either engine to either."""
    twin, samples = twin_of("soc-observer"), samples_of(journey, 120)
    whole = Stream(twin, compiled=compiled)
    said = [whole.push(s) for s in samples]
    before = Stream(twin, compiled=compiled)
    for sample in samples[:50]:
        before.push(sample)
    before.save(tmp_path / "state.json")
    after = Stream(twin, compiled=other)
    after.resume(tmp_path / "state.json")
    assert after.push(samples[30]) is None  # seen already
    again = [after.push(s) for s in samples[50:]]
    if other is compiled:
        assert again == said[50:]
    np.testing.assert_allclose(again, said[50:], atol=1e-5)


def test_a_snapshot_of_another_twin_or_a_damaged_one_is_refused(twin_of, journey, tmp_path):
    path = tmp_path / "state.json"
    running = Stream(twin_of("soc-observer"), compiled=False)
    running.save(path)  # before the first sample
    Stream(twin_of("soc-observer"), compiled=False).resume(path)
    running.push(samples_of(journey)[0])
    running.save(path)
    with pytest.raises(CelltwinError, match="another twin"):
        Stream(twin_of("soc-coulomb"), compiled=False).resume(path)
    good = json.loads(path.read_text())
    for damage in ({"state": "AAAA"}, {"state": "?"}, {"kind": "x"}, {"time": "x"}):
        path.write_text(json.dumps(good | damage))
        fresh = Stream(twin_of("soc-observer"), compiled=False)
        with pytest.raises(CelltwinError, match="no snapshot"):
            fresh.resume(path)
        assert math.isnan(fresh.time)


# --- lines in, lines out ---------------------------------------------------------------------------------------------


def test_csv_is_read_by_name_and_unit():
    lines = ["Time (s),I [mA],Voltage / V,T_K,ignored", "s,mA,V,,", "0,-1500,3.7,,x", "1,oops,3.6", "2,-500,,"]
    first, second, third = stream.from_csv(lines, sign=-1.0)
    assert (first.time, first.voltage, first.current) == (0.0, 3.7, pytest.approx(1.5))
    assert math.isnan(first.temperature)
    assert math.isnan(second.current)
    assert math.isnan(third.voltage)
    with pytest.raises(CelltwinError, match=r"no column of voltage.*got: time_s,? ?"):
        list(stream.from_csv(["time_s,current_ampere", "0,1"]))
    with pytest.raises(CelltwinError, match="empty"):
        list(stream.from_csv([]))


def test_csv_may_have_a_preamble_semicolons_and_decimal_commas():
    preamble = ["Prüfstand: PST-3; Kanal 12\n", "\n"]
    lines = [*preamble, "Nr;Zeit [min];Klemme 1;I_batt/A\n", "0;0,5;3700,5;-1,25\n", "1;1,0;3699,0;-1,5\n"]
    first, second = stream.from_csv(lines, told={"voltage": "Klemme 1 [mV]"})
    assert (first.time, first.voltage, first.current) == (30.0, pytest.approx(3.7005), -1.25)
    assert second.time == 60.0
    with pytest.raises(CelltwinError, match=r"no column of voltage.*--column"):  # at its first numbers, not at its end
        next(stream.from_csv(itertools.chain(lines, itertools.repeat("2;1,5;3699,0;-1,5\n"))))


def test_a_current_may_stand_in_two_columns():
    header = "time_s,voltage,Charge Current (A),Discharge Current (mA)\n"
    read = list(stream.from_csv([header, "0,3.7,0,500\n", "1,3.8,1.5,\n", "2,3.9,,\n"]))
    assert [sample.current for sample in read[:2]] == [-0.5, 1.5]
    assert np.isnan(read[2].current)
    turned = list(stream.from_csv([header, "0,3.7,0,500\n"], sign=-1.0))
    assert turned[0].current == 0.5


def test_a_time_may_be_a_date_with_or_without_a_zone():
    header, rest = "Timestamp;U[V];I[A]", ";3.7;-1"
    moments = ["2026-03-29T00:59:59Z", "2026-03-29 01:00:00.5", "2026-03-29T03:00:01+02:00", "yesterday"]
    samples = list(stream.from_csv([header, *(moment + rest for moment in moments)]))
    times = np.array([sample.time for sample in samples])
    np.testing.assert_allclose(times - times[0], [0.0, 1.5, 2.0, np.nan])


def test_a_unit_that_no_cell_has_is_told_from_a_faulty_sensor():
    fine, millivolt, kelvin = Sample(0.0, 3.7, 0.0, 25.0), Sample(0.0, 3700.0, 0.0, 25.0), Sample(0.0, 3.7, 0.0, 297.0)
    faulty = [millivolt] * 9 + [fine] + [kelvin] * 20
    assert list(stream.believable(faulty)) == faulty
    for strange, fix in ((millivolt, r"voltage='HEADER \[mV\]'"), (kelvin, r"temperature='HEADER \[K\]'")):
        with pytest.raises(CelltwinError, match=rf"is in another unit.*{fix}"):
            list(stream.believable([strange] * 10))


def test_json_lines_may_leave_sensors_out():
    lines = ['{"time_s": 0, "voltage_volt": 3.7, "current_ampere": 1}', "", '{"time_s": 1, "voltage_volt": null}']
    first, second = stream.from_json(lines)
    assert first[:3] == (0.0, 3.7, 1.0)
    assert math.isnan(second.voltage)
    assert math.isnan(second.current)
    with pytest.raises(CelltwinError, match="line 1 is no JSON object"):
        list(stream.from_json(["[1"]))


def test_json_lines_with_one_of_two_currents_are_read_like_the_first():
    lines = ['{"time": 0, "voltage": 3.7, "Charge Current (A)": 0, "Discharge Current (A)": 0.5}']
    lines += ['{"time": 1, "voltage": 3.7, "Discharge Current (A)": 0.4}', '{"time": 2, "Charge Current (A)": 0.3}']
    assert [sample.current for sample in stream.from_json(lines)] == [-0.5, -0.4, 0.3]


def test_can_frames_become_samples(tmp_path):
    can, cantools = pytest.importorskip("can"), pytest.importorskip("cantools")
    (tmp_path / "bms.dbc").write_text(
        'VERSION ""\nNS_ :\nBS_:\nBU_: BMS\n'
        'BO_ 256 Pack: 8 BMS\n SG_ CellVoltage : 0|16@1+ (0.001,0) [0|65] "V" BMS\n'
        ' SG_ PackCurrent : 16|16@1- (0.01,0) [-300|300] "A" BMS\n'
        'BO_ 257 Heat: 8 BMS\n SG_ CellTemp : 0|8@1- (1,-40) [-40|87] "degC" BMS\n'
    )
    known = cantools.database.load_file(str(tmp_path / "bms.dbc"))
    with can.Logger(str(tmp_path / "log.asc")) as log:
        for k in range(3):
            data = known.encode_message("Pack", {"CellVoltage": 3.7 - 0.1 * k, "PackCurrent": 2.0})
            log(can.Message(arbitration_id=256, data=data, timestamp=100.0 + k, is_extended_id=False))
            data = known.encode_message("Heat", {"CellTemp": 30})
            log(can.Message(arbitration_id=257, data=data, timestamp=100.5 + k, is_extended_id=False))
            log(can.Message(arbitration_id=999, data=b"x", timestamp=100.7 + k, is_extended_id=False))
    signals = {"voltage": "CellVoltage", "current": "PackCurrent", "temperature": "CellTemp"}
    got = list(stream.from_can(tmp_path / "log.asc", tmp_path / "bms.dbc", signals, sign=-1.0))
    assert [round(s.voltage, 3) for s in got] == [3.7, 3.6, 3.5]
    assert {s.current for s in got} == {-2.0}
    assert math.isnan(got[0].temperature)
    assert got[1].temperature == 30.0
    assert np.diff([s.time for s in got]) == pytest.approx([1.0, 1.0])
    with pytest.raises(CelltwinError, match=r"voltage signal.*CellVoltage"):
        list(stream.from_can(tmp_path / "log.asc", tmp_path / "bms.dbc", signals | {"voltage": "U"}))


# --- the command -----------------------------------------------------------------------------------------------------


def run(*arguments, text=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=text)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_the_command_answers_every_line(format, observer, journey, twin_of):
    samples = samples_of(journey, 40)
    lines = rows(samples)
    if format == "jsonl":
        lines = [json.dumps(dict(zip(HEADER.split(","), s, strict=True))) for s in samples]
    status, printed = run("stream", observer, "--format", format, text="\n".join(lines) + "\n")
    assert status == 0
    whole = twin_of("soc-observer").estimate(journey.between(0, 40))
    if format == "csv":
        got = np.genfromtxt(printed.splitlines(), delimiter=",", names=True)
        assert got.dtype.names == ("test_time_second", "soc", "soc_std", "in_domain")
        soc = got["soc"]
    else:
        soc = [json.loads(line)["soc"] for line in printed.splitlines()]
    np.testing.assert_allclose(soc, whole.soc, atol=2e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(observer, journey, tmp_path):
    """kill -9 while the file grows; the answers in the end are those of a stream that was never stopped."""
    log, snapshot, samples = tmp_path / "log.csv", tmp_path / "state.json", samples_of(journey, 200)
    lines = rows(samples)
    log.write_text("\n".join(lines[:150]) + "\n")
    command = [sys.executable, "-m", "celltwin.cli", "stream", str(observer), "--input", str(log), "--every", "20"]
    files = ["--snapshot", str(snapshot), "--out", str(tmp_path / "out.csv")]
    process = subprocess.Popen([*command, *files, "--follow"], env=os.environ | {"JAX_PLATFORMS": "cpu"})
    deadline = time.monotonic() + 240
    while not (snapshot.exists() and json.loads(snapshot.read_text())["time"]):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stands = json.loads(snapshot.read_text())["time"]
    answered = (tmp_path / "out.csv").read_text().splitlines()[-1].partition(",")[0]
    assert float(answered or 0) - stands <= 20 + 2 * journey.dt[1]  # what was not yet saved
    log.write_text("\n".join(lines) + "\n")
    status, printed = run("stream", observer, "--input", log, *files)
    assert status == 0
    assert "going on after" in printed
    status, _ = run("stream", observer, "--input", log, "--out", tmp_path / "whole.csv")
    assert status == 0
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert len((tmp_path / "whole.csv").read_text().splitlines()) == 201


def test_a_log_with_the_other_sign_or_another_encoding(observer, journey, tmp_path):
    record = journey.between(0, 400)
    rows = zip(record.time, record.voltage, -record.current, record.temperature, strict=True)
    text = "Zeit [s];U [V];I [A];Fühler [degC]\n" + "\n".join(";".join(f"{x:.5f}" for x in row) for row in rows)
    (tmp_path / "log.csv").write_text(text, encoding="cp1252")
    options = ("--input", tmp_path / "log.csv", "--column", "temperature=Fühler [degC]", "--out", tmp_path / "said.csv")
    status, printed = run("stream", observer, *options)
    assert status == 2
    assert "positive current does not charge" in printed
    assert not (tmp_path / "said.csv").exists()
    assert run("stream", observer, *options, "--current-sign", "discharge")[0] == 0
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 401


def test_wrong_options_are_refused(observer, tmp_path):
    for options in (
        ["--format", "xml"],
        ["--current-sign", "up"],
        ["--follow"],
        ["--format", "can"],
        ["--input", "no.csv"],
    ):
        status, printed = run("stream", observer, *options, text="")
        assert status == 2
        assert "error:" in printed
    assert run("stream", observer, text="a,b\n1,2\n")[0] == 2
    assert run("export", observer, "--to", "rust", "--out", tmp_path)[0] == 2


def test_a_stream_without_a_time_that_is_understood_is_refused(observer):
    status, printed = run("stream", observer, text="\n".join([HEADER, "noon,3.7,-1,25", "later,3.7,-1,25"]))
    assert status == 2
    assert "no sample of the stream has a time that is understood; got: 2 samples without" in " ".join(printed.split())


def test_export_checks_itself_against_a_log(observer, journey, tmp_path):
    if native.compiler() is None:
        pytest.skip("no C compiler")
    journey.between(0, 300).save(tmp_path / "log.parquet")
    status, printed = run("export", observer, "--to", "c", "--out", tmp_path / "c", "--check", tmp_path / "log.parquet")
    assert status == 0
    apart = float(re.search(r"are (\S+) points", " ".join(printed.split()))[1])
    assert apart < 1e-2
    written = {p.name for p in (tmp_path / "c").iterdir()}
    assert written == {"soc_observer.h", "soc_observer.c", "main.c", "Makefile", "check.csv"}
    assert "./soc_observer < check.csv" in printed
    np.testing.assert_allclose(importers.load(tmp_path / "c" / "check.csv").voltage, journey.voltage[:300], atol=1e-6)
