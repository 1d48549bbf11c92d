"""What the studio computes, without a browser."""

import asyncio
import io
import json
import threading
import time
import zipfile
from dataclasses import replace

import jax
import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reference
from celltwin import models, twin
from celltwin.data.domain import Domain
from celltwin.data.record import PackRecord, Record
from celltwin.errors import CelltwinError
from celltwin.learning.plan import Plan
from celltwin.physics.thevenin import Thevenin
from celltwin.studio import export, figures, pack, uploads, whatif
from celltwin.studio.guard import Guard
from celltwin.studio.session import Session, curves_of, figures_of, judged, result_columns, tables_of
from celltwin.studio.trainer import Trainer, Training, lessened
from celltwin.studio.whatif import Case, Profile
from celltwin.twin import Twin

LIMIT = 10 * uploads.MEGABYTE


@pytest.fixture
def session(tmp_path):
    made = Session(tmp_path, LIMIT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def circuit(split) -> Twin:
    """A Thevenin twin that is not trained, but begun from the records."""
    return Twin("thevenin", Thevenin.create(split.train), Domain.of(split.train), reference.CELL, {"parameters": 7})


@pytest.fixture(scope="module")
def million() -> Record:
    n = 1_000_000
    time_ = np.arange(n, dtype=float)
    wave = np.sin(time_ / 5000.0)
    return Record("long", time_, 3.6 + 0.3 * wave, wave, np.full(n, 25.0), cell=reference.CELL, initial_soc=0.5)


def dropped(session, record, name="drive.parquet"):
    path = session.place(name, 1)
    record.save(path)
    return session.add(path)


# --- uploads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..\\..\\boot.ini",
        "/etc/shadow",
        ".",
        "..",
        "",
        "a\0b.csv",
        ".bashrc",
        "x" * 5000 + ".csv",
        "con<script>.csv",
        "電池" * 300 + ".parquet",
        "a/../b.csv",
        "~/x.csv",
        "-rf.csv\n",
    ],
)
def test_names_cannot_lead_out_of_their_folder(session, name):
    path = session.place(name, 1)
    assert path.parent.parent == session.folder
    assert path.resolve().is_relative_to(session.folder.resolve())
    assert not set(path.name) & set('/\\\0<>\n"')
    assert not path.name.startswith(".")
    path.write_bytes(b"")  # a name that the file system takes


def test_names_keep_what_tells_the_kind_of_file():
    assert uploads.safe_name("My log (1).csv") == "My log (1).csv"
    assert uploads.safe_name("x" * 500 + ".parquet").endswith("x.parquet")


def test_large_files_and_too_many_are_refused(session):
    with pytest.raises(CelltwinError, match="too large"):
        session.place("big.csv", LIMIT + 1)
    for number in range(uploads.UPLOADS_KEPT):
        path = session.place(f"{number}.csv", LIMIT)
        with path.open("wb") as file:
            file.truncate(LIMIT)
    with pytest.raises(CelltwinError, match="no room"):
        session.place("one_more.csv", 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("noise.csv", bytes(range(256)) * 40),
        ("broken.parquet", b"PAR1" + b"\0" * 100 + b"PAR1"),
        ("text.parquet", b"time,voltage\n"),
        ("empty.csv", b""),
        ("words.csv", b"hello\nworld\n"),
        ("broken.mat", b"MATLAB 5.0 MAT-file" + b"\xff" * 200),
        ("broken.xlsx", b"PK\x03\x04 no zip"),
    ],
)
def test_malformed_files_say_what_is_wrong(session, name, content):
    path = session.place(name, len(content))
    path.write_bytes(content)
    log = session.add(path)
    assert log.examined is None
    assert isinstance(log.error, CelltwinError)
    parts = dict(uploads.in_words_of_the_page(log.error))
    assert name in parts["what"]
    assert session.records() == {}


def test_a_parquet_of_too_many_rows_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_ROWS", 10)
    path = tmp_path / "long.parquet"
    pq.write_table(pa.table({"test_time_second": np.arange(11.0)}), path)
    with pytest.raises(CelltwinError, match="too long"):
        uploads.examine(path)


def test_fixes_are_those_of_the_page(session, drives):
    record = drives["25degC", "LA92"]
    turned = replace(record, current=-record.current, net_capacity=None)
    log = dropped(session, turned)
    assert log.error is not None
    assert "--" not in dict(uploads.in_words_of_the_page(log.error))["fix"]
    log.sign = "discharge"
    assert log.read().error is None
    assert log.examined is not None
    np.testing.assert_allclose(log.examined.record.current, record.current)


def test_what_the_importer_made_of_a_log(session):
    path = session.place("log.csv", 1)
    rows = "\n".join(f"{t},{3.7 + 0.01 * (t % 20)},{20 * (t % 20)},21,7" for t in range(200))
    path.write_text(f"Time [s],U [V],I [mA],T [degC],odd\n{rows}\n", encoding="utf-8")
    log = session.add(path)
    assert log.examined is not None
    assert {role: (c.header, c.unit) for role, c in log.examined.columns} == {
        "time": ("Time [s]", "s"),
        "voltage": ("U [V]", "v"),
        "current": ("I [mA]", "ma"),
        "temperature": ("T [degC]", "degc"),
    }
    assert log.examined.unused == ("odd",)
    assert log.examined.record.current.max() == pytest.approx(0.38)


# --- the guard -------------------------------------------------------------------------------------------------------

PORT = 4711


def asked(headers, body=(), kind="http"):
    """Status (of a websocket: the first message) of a guarded app that reads its whole body, and how much it read."""
    sent, read = [], []

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        while True:
            message = await receive()
            read.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    parts = iter(body or (b"",))

    async def receive():
        part = next(parts, None)
        return {"type": "http.request", "body": part or b"", "more_body": part is not None and bool(body)}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    asyncio.run(Guard(app, PORT, LIMIT)(scope, receive, send))
    return sent[0].get("status", sent[0]["type"]), sum(map(len, read))


MINE = {"host": f"127.0.0.1:{PORT}"}


def test_the_guard_lets_its_own_page_through():
    assert asked(MINE) == (200, 0)
    assert asked({"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}) == (200, 0)
    assert asked(MINE | {"origin": f"http://127.0.0.1:{PORT}"}, kind="websocket")[0] == "websocket.accept"
    assert asked(MINE, [b"x" * 1000] * 3) == (200, 3000)


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:80", "", f"127.0.0.1.evil:{PORT}"])
def test_the_guard_refuses_foreign_names(host):
    assert asked({"host": host})[0] == 400
    assert asked({"host": host}, kind="websocket")[0] == "websocket.close"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:80", f"https://localhost:{PORT}"])
def test_the_guard_refuses_foreign_pages(origin):
    assert asked(MINE | {"origin": origin})[0] == 403
    assert asked(MINE | {"origin": origin}, kind="websocket")[0] == "websocket.close"


def test_the_guard_refuses_large_bodies_before_they_are_read():
    assert asked(MINE | {"content-length": str(2 * LIMIT)}, [b"x" * LIMIT] * 2) == (413, 0)
    status, read = asked(MINE, [b"x" * (LIMIT // 4)] * 100)
    assert status == 413
    assert read <= 1.25 * LIMIT + 1
    status, read = asked(MINE | {"content-length": "10"}, [b"x" * (LIMIT // 4)] * 100)
    assert status == 413


# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_session_leaves_nothing_behind(tmp_path):
    one, other = Session(tmp_path, LIMIT), Session(tmp_path, LIMIT)
    one.place("a.csv", 1).write_text("x")
    assert one.folder != other.folder
    one.close()
    assert not one.folder.exists()
    assert other.folder.exists()
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_a_log_given_on_the_command_line_is_not_removed(session, tmp_path, drives):
    path = tmp_path / "mine.parquet"
    drives["25degC", "LA92"].save(path)
    session.remove(session.add(path))
    assert path.exists()
    log = dropped(session, drives["25degC", "LA92"])
    session.remove(log)
    assert not log.path.exists()
    assert session.logs == {}


def test_logs_become_a_study_when_all_is_known(session, drives):
    train = dropped(session, drives["25degC", "Mixed1"], "one.parquet")
    test = dropped(session, drives["25degC", "LA92"], "two.parquet")
    with pytest.raises(CelltwinError, match="no log to train"):
        session.study("logs")
    train.use = "train"
    with pytest.raises(CelltwinError, match="no log to test"):
        session.study("logs")
    test.use = "test"
    with pytest.raises(CelltwinError, match="cell is not described"):
        session.study("logs")
    session.cell = reference.CELL
    with pytest.raises(CelltwinError, match="state of charge at the start"):
        session.study("logs")
    train.initial_soc = test.initial_soc = 0.9
    dataset, split = session.study("logs")
    assert [len(side) for side in (split.train, split.validate, split.test)] == [1, 0, 1]
    assert split.test[0].cell == dataset.cell == reference.CELL
    assert split.train[0].initial_soc == 0.9
    with pytest.raises(CelltwinError, match="no dataset"):
        session.study("dataset")


def test_the_same_log_twice_is_refused(session, drives):
    for name, use in (("one", "train"), ("copy", "test")):
        log = dropped(session, drives["25degC", "LA92"], f"{name}.parquet")
        log.use, log.initial_soc = use, 0.9
    session.cell = reference.CELL
    with pytest.raises(CelltwinError, match="used twice"):
        session.study("logs")


def test_a_file_that_is_no_twin_is_refused(session, tmp_path):
    path = tmp_path / "fake.twin"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}garbage" * 9)
    with pytest.raises(CelltwinError):
        session.load_twin(path)
    assert session.twin is None
    assert session.load_twin(twin.pretrained()[0]).task == "soc"


# --- training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(session, split):
    session.cell = reference.CELL
    from celltwin.studio.session import dataset_of

    return dataset_of(reference.CELL, split), split


def training(session, study, name="narx", effort="try-out"):
    return Training(models.family(name), effort, *study, session.folder / "checkpoints")


def test_efforts_are_shares_of_the_plan():
    plan = Plan(adam_rounds=15, updates=200, lbfgs_rounds=2)
    assert lessened(plan, "full", 10**7) == plan
    assert lessened(plan, "quick", 10**7).adam_rounds == 3
    tried = lessened(plan, "try-out", 10**7)
    assert (tried.adam_rounds, tried.lbfgs_rounds) == (2, 0)
    assert lessened(Plan(lbfgs_rounds=4), "try-out", 1).lbfgs_rounds == 2


def test_one_trains_at_a_time_and_stops_and_goes_on(session, study, monkeypatch):
    trainer, first = Trainer(), training(session, study)
    begun = threading.Event()
    pause = threading.Event()
    listen = Training.__setattr__

    def slowly(self, name, value):
        listen(self, name, value)
        if name == "share" and value > 0 and not pause.is_set():
            begun.set()
            pause.wait(60)

    monkeypatch.setattr(Training, "__setattr__", slowly)
    trainer.begin(first)
    assert begun.wait(60)
    with pytest.raises(CelltwinError, match="another training runs"):
        trainer.begin(training(session, study))
    first.stop()
    assert first.stopping
    pause.set()
    first.wait(60)
    assert first.status == "stopped"
    trainer.begin(first, resume=True)
    first.wait(120)
    assert (first.status, first.error) == ("done", None)
    assert first.twin is not None
    assert [p.round for p in first.history["narx"]] == [1, 2]
    assert len(first.rows) == len(study[1].test)


def test_a_failure_is_told(session, study):
    bad = training(session, study)
    bad.split = replace(study[1], train=())
    Trainer().begin(bad).wait(60)
    assert bad.status == "failed"
    assert "no record to train" in str(bad.error)


# --- what a twin says, and its figures -------------------------------------------------------------------------------


def test_a_voltage_twin_is_judged_as_by_the_protocol(circuit, drives):
    record = drives["25degC", "LA92"]
    row = judged(circuit, record)
    error = 1e3 * (np.asarray(circuit.simulate(record).voltage) - record.voltage)
    assert row["rmse"] == pytest.approx(float(np.sqrt(np.mean(error**2))), rel=1e-4)
    assert f"{row['rmse']:.1f} mV" in dict(figures_of(row, "voltage")).values()
    assert set(result_columns(row)) == {"simulated_voltage_volt", "in_domain"}


def test_an_estimator_runs_without_a_label_but_is_not_scored(drives):
    one = twin.load(twin.pretrained()[0])
    record = replace(drives["25degC", "LA92"], cell=None, initial_soc=float("nan"))
    row = judged(one, record)
    assert "mae" not in row
    assert [name for name, _ in figures_of(row, "soc")] == ["outside domain"]
    assert len(figures.compared(row).data) > 0
    scored = judged(one, replace(record, initial_soc=0.9))
    assert scored["mae"] > 0.0
    assert np.asarray(scored["output"].soc) == pytest.approx(np.asarray(row["output"].soc))


def test_figures_of_a_million_samples_stay_small(million):
    began = time.perf_counter()
    shown = figures.log(million)
    assert time.perf_counter() - began < 5.0
    assert max(len(trace.x) for trace in shown.data) <= figures.POINTS + 1
    row = {
        "record": million,
        "output": type("Output", (), {"voltage": million.voltage + 0.01})(),
        "in_domain": np.arange(len(million)) % 2000 < 1000,
    }
    shown = figures.compared(row)
    assert sum(len(trace.x) for trace in shown.data) < 6 * figures.POINTS
    assert len(shown.layout.shapes) <= 600
    assert len(shown.to_json()) < 2_000_000
    peak = figures.log(replace(million, voltage=np.where(np.arange(len(million)) == 123_457, 9.0, million.voltage)))
    assert max(peak.data[0].y[np.isfinite(peak.data[0].y)]) == 9.0


def test_long_records_are_shown_over_hours(million):
    row = {"record": million, "output": type("Output", (), {"voltage": million.voltage})()}
    row["in_domain"] = (million.time >= 36_000) & (million.time < 900_000)
    shown = figures.compared(row)
    assert shown.layout.xaxis4.title.text == "time / h"
    assert max(shown.data[0].x) == pytest.approx(1e6 / 3600, rel=1e-4)
    assert [shape.x1 for shape in shown.layout.shapes] == pytest.approx([10.0, 1e6 / 3600], rel=1e-3)


def test_the_residual_map_holds_the_error_where_it_is(drives):
    record = drives["25degC", "LA92"]
    wrong = record.voltage + np.where(record.soc < np.median(record.soc), 0.05, 0.01)
    row = {"record": record, "output": type("Output", (), {"voltage": wrong})()}
    shown = figures.residual_map([row])
    for heat in shown.data:
        low = np.asarray(heat.x) < 100 * np.median(record.soc) - 3
        high = np.asarray(heat.x) > 100 * np.median(record.soc) + 3
        assert np.nanmax(np.asarray(heat.z)[:, low]) == pytest.approx(50.0, rel=1e-3)
        assert np.nanmax(np.asarray(heat.z)[:, high]) == pytest.approx(10.0, rel=1e-3)


def test_figures_follow_the_theme(circuit):
    held = curves_of(circuit)
    assert held.ocv.shape == (len(held.temperature), len(held.soc))
    tables = tables_of(circuit)
    assert tables is not None
    for make in (lambda: figures.curves(held), lambda: figures.circuit_table(tables, "R0 / mΩ")):
        dark, light = (figures.themed(make(), theme).layout for theme in (True, False))
        assert dark.font.color != light.font.color
        assert dark.paper_bgcolor == light.paper_bgcolor == "rgba(0,0,0,0)"
    with pytest.raises(CelltwinError, match="says soc"):
        curves_of(twin.load(twin.pretrained()[0]))


def test_the_circuit_in_a_twin_is_shown(circuit, split):
    tables = tables_of(circuit)
    assert tables is not None
    at = tables.soc.tolist().index(0.5)
    resistance, tau, _ = circuit.model.parameters_at(0.5, circuit.model.temperatures[0])
    assert tables.values["R0 / mΩ"][0, at] == pytest.approx(1e3 * float(resistance[0]), rel=1e-5)
    assert tables.values["time constant 1 / s"][0, at] == pytest.approx(float(tau[0]), rel=1e-5)
    assert tables_of(twin.load(twin.pretrained()[0])) is not None  # the circuit that soc-fused looks at
    for name, holds in (("hybrid", True), ("narx", False)):
        model = models.family(name).create(split.train, circuit.domain, jax.random.key(0), circuit.model)
        assert (tables_of(replace(circuit, model=model)) is not None) == holds


def test_packs_measured_and_simulated(circuit, drives):
    record = drives["25degC", "LA92"]
    groups = np.stack([record.voltage, record.voltage - 0.02], axis=1)
    facts = {n: getattr(record, n) for n in ("name", "time", "current", "temperature")}
    string = PackRecord(
        **facts,
        voltage=groups.sum(axis=1),
        group_voltage=groups,
        sensor_temperature=np.zeros((len(record), 0)),
    )
    shown = figures.pack(pack.of_record(string))
    np.testing.assert_allclose(np.asarray(shown.data[0].z)[0], 10.0, rtol=1e-3)
    equal = pack.simulated(circuit, record, pack.Spread("3s2p", 0.0, 0.0))
    assert equal.voltage.shape[1] == 6
    np.testing.assert_allclose(np.ptp(equal.voltage, axis=1), 0.0, atol=1e-3)
    alone = np.interp(equal.time, record.time - record.time[0], np.asarray(circuit.simulate(record).voltage))
    assert np.median(np.abs(equal.voltage[:, 0] - alone)) < 0.02
    unequal = pack.simulated(circuit, record, pack.Spread("3s2p", 0.1, 0.3))
    assert np.ptp(unequal.voltage, axis=1).max() > 1e-3
    with pytest.raises(CelltwinError, match="no topology"):
        pack.simulated(circuit, record, pack.Spread("twelve"))
    with pytest.raises(CelltwinError, match="too large"):
        pack.simulated(circuit, record, pack.Spread("96s48p"))


# --- what if ---------------------------------------------------------------------------------------------------------


def test_phrases_and_tables_are_told_apart():
    assert whatif.parse("# a comment\ndischarge at 1C until 3 V\n\nrest for 1 h") == (
        "discharge at 1C until 3 V",
        "rest for 1 h",
    )
    for text in ("0, -1\n60, 0\n90, 0", "time;current\n0;-1\n60;0\n90;0", "0\t-1\n60\t0\n90\t0", "0 -1\n60 0\n90 0"):
        made = whatif.parse(text)
        assert isinstance(made, Profile)
        assert made.time.tolist() == [0.0, 60.0, 90.0]
        assert made.current.tolist() == [-1.0, 0.0, 0.0]
    for text in ("", "0, 1", "0,1\n0,2", "0,1\nsixty,2", "dance at 1C", "0,1\n60,nan"):
        with pytest.raises(CelltwinError):
            whatif.parse(text)


def test_profiles_from_files(drives, tmp_path):
    record = drives["25degC", "LA92"]
    (tmp_path / "table.csv").write_text("time / s;current / A\n0;-1.5\n60;0\n", encoding="utf-8")
    assert whatif.read(tmp_path / "table.csv").current.tolist() == [-1.5, 0.0]
    record.save(tmp_path / "log.parquet")
    given = whatif.read(tmp_path / "log.parquet")
    assert given.current[:-1] @ np.diff(given.time) / 3600 == pytest.approx(record.charge_ah[-1])
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "words.csv").write_text("hello, world\nnothing, here\n", encoding="utf-8")
    for name in ("noise.csv", "words.csv"):
        with pytest.raises(CelltwinError):
            whatif.read(tmp_path / name)


def test_a_constant_current_counts_as_it_must(circuit):
    case = Case(whatif.parse("0, -0.5\n1200, 0\n1800, 0"), soc=0.9)
    done = whatif.run(circuit, case)
    capacity = reference.CELL.reference_capacity_ah
    assert done.record.time[-1] == 1800.0
    assert done.record.charge_ah[-1] == pytest.approx(-0.5 * 1200 / 3600)
    assert done.soc[-1] == pytest.approx(0.9 - 0.5 / 3 / capacity, abs=1e-4)
    power = done.record.voltage * done.record.current * done.record.dt
    assert done.energy_wh[-1] == pytest.approx(power.sum() / 3600)
    phrased = whatif.run(circuit, Case(("discharge at 0.5 A for 20 min", "rest for 10 min"), soc=0.9))
    assert phrased.record.voltage[-1] == pytest.approx(done.record.voltage[-1], abs=1e-3)
    assert dict(done.tiles)["energy taken"] == "0.00 Wh"


def test_age_shortens_and_weakens(circuit):
    todo = ("discharge at 1 A until 3.0 V",)
    fresh, faded, stiff = (
        whatif.run(circuit, Case(todo, capacity=q, resistance=r)) for q, r in ((1, 1), (0.7, 1), (1, 2))
    )
    assert faded.record.time[-1] == pytest.approx(0.7 * fresh.record.time[-1], rel=0.1)
    drop, more = (one.record.voltage[0] - one.record.voltage[1] for one in (fresh, stiff))
    assert more == pytest.approx(2 * drop, rel=0.2)
    assert stiff.record.time[-1] < fresh.record.time[-1]
    rate = whatif.run(circuit, Case(("discharge at 1C for 10 s",), capacity=0.7))
    assert rate.record.current[-1] == pytest.approx(-reference.CELL.nominal_capacity_ah)


def test_a_profile_ends_where_the_cell_does(circuit):
    done = whatif.run(circuit, Case(Profile(np.array([0.0, 1e5]), np.array([-1.0, 0.0])), soc=0.5))
    assert done.record.time[-1] < 3600
    assert "reached" in done.log[0] or "empty" in done.log[0]
    again = whatif.of_record(done.record)
    assert again.current[0] == pytest.approx(-1.0)


@pytest.mark.parametrize("wrong", [{"soc": 1.5}, {"capacity": 0.0}, {"ambient_degC": 900.0}, {"period": 0.0}])
def test_cases_that_make_no_sense_are_refused(circuit, wrong):
    with pytest.raises(CelltwinError, match="makes no sense"):
        whatif.run(circuit, replace(Case(("rest for 1 min",)), **wrong))


def test_a_profile_that_would_fill_the_memory_is_refused(circuit):
    with pytest.raises(CelltwinError, match="too long"):
        whatif.run(circuit, Case(Profile(np.array([0.0, 1e12]), np.array([0.0, 0.0]))))


# --- exports ---------------------------------------------------------------------------------------------------------


def test_everything_can_be_taken_away(circuit, drives, tmp_path):
    row = judged(circuit, drives["25degC", "LA92"])
    done = whatif.run(circuit, Case(("rest for 10 s",)))
    names = {kind: export.take(circuit, kind, tmp_path).name for kind in ("c", "fmu", "twin")}
    assert names == {"c": "thevenin-c.zip", "fmu": "thevenin.fmu", "twin": "thevenin.twin"}
    assert twin.load(tmp_path / "thevenin.twin").cell == circuit.cell
    with zipfile.ZipFile(tmp_path / "thevenin-c.zip") as archive:
        assert any(name.endswith("Makefile") for name in archive.namelist())
    table = pq.read_table(export.result(row, tmp_path))
    assert {"voltage_volt", "simulated_voltage_volt", "in_domain"} <= set(table.column_names)
    assert pq.read_table(export.answer(done, tmp_path)).num_rows == len(done.record)
    page = export.report(circuit, row, done, tmp_path).read_text(encoding="utf-8")
    assert f"{row['rmse']:.1f} mV" in page
    assert "default-src 'none'" in page
    assert page.count("<script") <= 12
    with pytest.raises(CelltwinError, match="no such export"):
        export.take(circuit, "exe", tmp_path)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".fmu", ".html", ".parquet", ".parquet", ".twin", ".zip"]


def test_names_in_a_report_are_no_markup(circuit, drives, tmp_path):
    record = replace(drives["25degC", "LA92"], name="<img src=x onerror=alert(1)>")
    page = export.report(circuit, judged(circuit, record), None, tmp_path).read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img" in page


def test_a_missing_extra_is_a_message(circuit, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(CelltwinError, match="not installed"):
        export.take(circuit, "onnx", tmp_path)


def test_figures_are_json(circuit, drives):
    row = judged(circuit, drives["25degC", "LA92"])
    for figure in (figures.compared(row), figures.residual_map([row]), figures.training({"x": []}, "mV")):
        assert isinstance(figure, go.Figure)
        json.load(io.StringIO(figure.to_json()))
