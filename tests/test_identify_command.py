"""celltwin identify: what it writes is of use at once, refusals are one line, and nothing is ever half there."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import pulses
from celltwin import exchange, identify_command, twin
from celltwin.cli import app
from celltwin.data import datasets, importers
from celltwin.errors import CelltwinError
from celltwin.learning import identification

ANSI = re.compile(r"\x1b\[[0-9;]*m")
LEVELS = (1.0, 0.8, 0.6, 0.4, 0.2)
KNOWN = pulses.random_cell(3, pairs=1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command line in an empty folder: status, printed output, printed errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, ANSI.sub("", result.stdout), ANSI.sub("", result.stderr)

    return run


@pytest.fixture
def refused(run, tmp_path):
    """Runs a command line that must be refused: the one line it is answered with."""

    def refused(*arguments):
        before = set(tmp_path.iterdir())
        status, _, errors = run("identify", *arguments, "--out", "refused.json")
        lines = [line for line in errors.splitlines() if line.startswith("error:")]
        assert status == 2, errors
        assert len(lines) == 1, errors
        assert "Traceback" not in errors
        assert set(tmp_path.iterdir()) == before
        return lines[0]

    return refused


DATASET = """
[cell]
name = "known"
reference_capacity_ah = {capacity}
voltage_limits_volt = [2.8, 4.2]

[records]
files = "drive/*/*.parquet"

{identification}

[split]
train = ["HPPC"]
test = ["Test"]
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder of logs: HPPC and C/20 at 25 degC, a shorter HPPC beside them, and both as datasets."""
    folder = tmp_path_factory.mktemp("logs")
    warm = pulses.hppc(KNOWN, 25.0, period=1.0, levels=LEVELS)
    test = replace(pulses.hppc(KNOWN, 25.0, period=1.0, levels=(1.0, 0.7), seed=5), name="Test")
    slow = pulses.slow_discharge(KNOWN)
    for name in ("25degC", "loose", "drive/25degC", "tests/25degC"):
        (folder / name).mkdir(parents=True)
    for name, record in (
        ("25degC/HPPC", warm),
        ("25degC/C20", slow),
        ("loose/HPPC", replace(warm, temperature=np.full(len(warm), np.nan))),
        ("drive/25degC/HPPC", warm),
        ("drive/25degC/Test", test),
        ("tests/25degC/pulses", warm),
    ):
        record.save(folder / f"{name}.parquet")
    replace(warm, current=-warm.current).save(folder / "loose" / "negated.parquet")
    (folder / "loose" / "empty.csv").write_text("")
    rest = warm.between(0, 9)
    rest.save(folder / "loose" / "rest.parquet")
    for name, table in (
        ("dataset", '[identification]\nfiles = "tests/*/*.parquet"'),
        ("trained", ""),
        ("shared", '[identification]\nfiles = "drive/*/Test.parquet"'),
        ("missing", '[identification]\nfiles = "none/*.parquet"'),
    ):
        text = DATASET.format(capacity=KNOWN.capacity_ah, identification=table)
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def identified(logs, tmp_path_factory):
    """The command, run once on a dataset: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("identified")
    result = CliRunner().invoke(
        app, ["identify", str(logs / "dataset.toml"), "--out", str(folder / "cell.json"), "--pairs", "1"]
    )
    assert result.exit_code == 0, result.stderr
    return folder, ANSI.sub("", result.stdout), ANSI.sub("", result.stderr)


# --- what it writes ------------------------------------------------------------------------------------------------


def test_it_writes_circuit_twin_and_page_and_nothing_else(identified):
    folder, _, _ = identified
    assert sorted(path.name for path in folder.iterdir()) == ["cell.html", "cell.json", "cell.twin"]
    circuit = exchange.load(folder / "cell.json")
    assert circuit.pairs == 1
    assert circuit.capacity_ah == KNOWN.capacity_ah
    known = KNOWN.r0(circuit.soc, 25.0)
    inside = (circuit.soc > 0.3) & (circuit.soc < 0.95)
    np.testing.assert_allclose(circuit.r0[inside, 0], known[inside], rtol=0.1)
    assert set(circuit.standard_error) >= {"r0", "r", "tau", "ocv"}


def test_it_prints_tables_notes_and_where_the_files_went(identified):
    folder, printed, errors = identified
    assert "1 identification log: pulses 25degC" in printed
    for part in (f"{KNOWN.capacity_ah:.4g} Ah", "RMSE", "took", "coulombic efficiency", "resistance at 50 %", "25 °C"):
        assert part in printed
    assert re.search(r"^\s+1 .*by --pairs", printed, re.MULTILINE)
    for kind, what in (("json", "circuit"), ("twin", "twin"), ("html", "report")):
        assert f"{what}: {folder / f'cell.{kind}'}" in printed
    assert "refining" in errors


def test_the_resistance_is_printed_with_its_standard_error(identified):
    folder, printed, _ = identified
    circuit = exchange.load(folder / "cell.json")
    values = re.search(r"25 °C\s+([\d.]+) ± ([\d.]+)\s+([\d.]+) ± ([\d.]+)", printed)
    r0, error, total, _ = map(float, values.groups())
    assert r0 == pytest.approx(1e3 * float(KNOWN.r0(0.5, 25.0)), rel=0.1)
    assert total == pytest.approx(1e3 * float(KNOWN.r0(0.5, 25.0) + KNOWN.r(0.5, 25.0).sum()), rel=0.1)
    assert 0.0 < error < 0.2 * r0
    assert r0 == pytest.approx(1e3 * float(np.interp(0.5, circuit.soc, circuit.r0[:, 0])), rel=0.05)


def test_the_twin_simulates_and_knows_where_it_comes_from(identified, logs, run, tmp_path):
    folder, _, _ = identified
    one = twin.load(folder / "cell.twin")
    record = importers.load(logs / "tests" / "25degC" / "pulses.parquet")
    assert one.domain.seen == (record.content_hash,)
    assert one.card["identified"]["from"] == {"pulses 25degC": record.content_hash}
    assert one.domain.ranges()["current"] == pytest.approx((-2.0 * KNOWN.capacity_ah, KNOWN.capacity_ah), rel=1e-3)
    log = logs / "drive" / "25degC" / "Test.parquet"
    status, printed, errors = run("simulate", folder / "cell.twin", log, "--out", "simulated.parquet")
    assert status == 0, errors
    assert float(re.search(r"RMSE ([\d.]+) mV", printed)[1]) < 10.0
    assert "simulated_voltage_volt" in pq.read_schema(tmp_path / "simulated.parquet").names


def test_the_twin_is_scored_and_what_it_saw_is_said(identified, logs, run):
    folder, _, _ = identified
    status, printed, errors = run("evaluate", folder / "cell.twin", logs / "dataset.toml", "--json", "-")
    assert status == 0, errors
    assert [row["cycle"] for row in json.loads(printed)["rows"]] == ["Test"]
    assert "training records" not in errors
    _, _, errors = run("evaluate", folder / "cell.twin", logs / "dataset.toml", "--cycles", "*")
    assert "1 of 2 cycles were among this twin's training records" in errors


def test_the_outputs_may_be_named(run, logs, tmp_path):
    files = [logs / "25degC" / "HPPC.parquet", logs / "25degC" / "C20.parquet"]
    names = ("a/cell.json", "b/one.twin", "c/page.html")
    options = ("--out", names[0], "--twin", names[1], "--report", names[2])
    status, printed, errors = run("identify", *files, *options)
    assert status == 0, errors
    assert "2 log files: HPPC 25degC, C20 25degC" in printed
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == sorted(names)
    assert "chosen" in printed
    assert "note: capacity" in errors
    circuit = exchange.load(tmp_path / names[0])
    assert circuit.capacity_ah == pytest.approx(KNOWN.capacity_ah, rel=0.03)


# --- what is used --------------------------------------------------------------------------------------------------


def test_a_dataset_without_identification_logs_gives_its_training_records_alone(logs):
    found = datasets.characterisation(logs / "trained.toml")
    assert [record.name for record in found.records] == ["HPPC"]
    assert found.origin == "1 training record"
    assert found.cell.reference_capacity_ah == KNOWN.capacity_ah


def test_the_demo_brings_pulse_tests_of_one_cell(logs):
    found = datasets.characterisation("demo")
    assert {record.group for record in found.records} == {"A"}
    assert sorted({record.name for record in found.records}) == ["C20", "HPPC"]
    assert {record.ambient_degC for record in found.records} == {-10.0, 5.0, 25.0, 40.0}


def test_ambients(logs):
    path = logs / "loose" / "HPPC.parquet"
    other = logs / "25degC" / "C20.parquet"
    read = identify_command._from_files
    assert [r.ambient_degC for r in read([path, other], "10,40", {}).records] == [10.0, 25.0]
    assert np.isnan(read([path], None, {}).records[0].ambient_degC)
    with pytest.raises(CelltwinError, match="2, one for each file"):
        read([path, other], "10,40,50", {})


# --- what it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loose/none.csv"], "no such file"),
        (["loose/empty.csv"], "is empty"),
        (["loose/rest.parquet"], "nothing but rest"),
        (["loose/negated.parquet"], "--current-sign discharge"),
        (["25degC/C20.parquet"], "pulse"),
        (["loose/HPPC.parquet", "drive/25degC/HPPC.parquet"], "the same measurement is given twice"),
        (["loose/HPPC.parquet", "--ambient", "warm"], "--ambient is wrong; got: warm"),
        (["loose/HPPC.parquet", "--format", "excel"], "unknown format; got: excel"),
        (["loose/HPPC.parquet", "--current-sign", "up"], "expected: charge or discharge"),
        (["dataset.toml", "loose/HPPC.parquet"], "a dataset stands alone"),
        (["dataset.toml", "--ambient", "25"], "a dataset stands alone"),
        (["shared.toml"], "'Test.parquet' is both a cycle and an identification log"),
        (["missing.toml"], "no identification logs"),
        (["dema"], "did you mean 'demo'"),
    ],
)
def test_it_refuses(refused, logs, arguments, message):
    given = [logs / a if "/" in a or a.endswith(".toml") else a for a in arguments]
    assert message in refused(*given)


def test_logs_of_several_cells_are_refused(refused, dataset_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    text = (dataset_folder / "dataset.toml").read_text()
    for name in ("A", "B"):
        (folder / name / "25degC").mkdir(parents=True)
    for name, level in (("A", 0.7), ("B", 0.8)):
        record = pulses.hppc(KNOWN, period=1.0, levels=(1.0, level))
        record.save(folder / name / "25degC" / "Mixed1.parquet")
        record.between(0, 50).save(folder / name / "25degC" / "UDDS.parquet")
        record.between(60, 120).save(folder / name / "25degC" / "LA92.parquet")
    text = text.replace('"*/*.parquet"', '"*/*/*.parquet"').replace("[records]", "[cells.A]\n[cells.B]\n[records]")
    text = text.split("[splits.cold]")[0].replace("[2.5, 4.3]", "[2.5, 4.3]\nnominal_capacity_ah = 3.0")
    (folder / "dataset.toml").write_text(text.replace('validate = ["UDDS"]', "").replace('test = ["LA92"]', ""))
    assert "a circuit is that of one cell; got: training records of A, B" in refused(folder)


def test_drive_cycles_that_never_rest_are_refused(refused, dataset_folder):
    assert "these logs do not tell the open-circuit voltage" in refused(dataset_folder, "--pairs", "1")


def test_outputs_are_checked_before_the_work(run, logs, monkeypatch):
    monkeypatch.setattr(identification, "identify", lambda *_, **__: pytest.fail("worked in vain"))
    log = logs / "loose" / "HPPC.parquet"
    for options, message in (
        (["--out", "cell.twin"], "--out is no JSON file"),
        (["--out", "cell.json", "--twin", "cell.json"], "name one file twice"),
        (["--out", "/proc/none/cell.json"], "/proc/none"),
        (["--out", "cell.json", "--pairs", "9"], "--pairs"),
    ):
        status, _, errors = run("identify", log, *options)
        assert status == 2
        assert message in errors


@pytest.mark.parametrize("moment", ["reading", "refining"])
def test_ctrl_c_leaves_what_was_there(run, logs, tmp_path, monkeypatch, moment):
    (tmp_path / "cell.json").write_text("older")
    work = identification.identify

    def interrupted(records, cell, *, pairs, tick):
        def until(stage, share):
            tick(stage, share)
            if stage == moment:
                raise KeyboardInterrupt

        return work(records, cell, pairs=pairs, tick=until)

    monkeypatch.setattr(identification, "identify", interrupted)
    status, _, errors = run("identify", logs / "dataset.toml", "--out", "cell.json", "--pairs", "1")
    assert status == 130
    assert "interrupted" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["cell.json"]
    assert (tmp_path / "cell.json").read_text() == "older"


# --- measured ------------------------------------------------------------------------------------------------------


def test_a_measured_cell(run, shared_data, tmp_path):
    folder = shared_data / "lg_18650hg2" / "native"
    files = [
        folder / "25degC" / "HPPC.parquet",
        folder / "25degC" / "C20DisCh.parquet",
        folder / "n10degC/HPPC.parquet",
    ]
    status, printed, errors = run("identify", *files, "--out", "cell.json")
    assert status == 0, errors
    circuit = exchange.load(tmp_path / "cell.json")
    assert circuit.temperatures.tolist() == [-10.0, 25.0]
    assert circuit.capacity_ah == pytest.approx(2.78, rel=0.02)
    assert "3 log files" in printed
    figures = re.findall(r"°C\s+([\d.]+) ± ([\d.]+)\s+([\d.]+) ± ([\d.]+)", printed)
    (_, _, cold, _), (_, _, warm, _) = [[float(x) for x in row] for row in figures]
    assert 20.0 < warm < 100.0  # mOhm: data sheet and 1 kHz say 20 for R0 alone
    assert cold > 1.5 * warm
    assert float(re.search(r"RMSE\s+([\d.]+) mV", printed)[1]) < 25.0
    assert (tmp_path / "cell.html").stat().st_size < 6e6
