"""Every command: its example parses, it does what it says, and what it refuses it refuses in one line."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

import reference
from celltwin import __version__, models
from celltwin import twin as twin_file
from celltwin.cli import app
from celltwin.data import datasets
from celltwin.evaluation import protocol
from celltwin.learning.bands import Bands
from celltwin.models.aged import Aged

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_plans):
    """Runs a command line in an empty folder: status, printed output, printed errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, ANSI.sub("", result.stdout), ANSI.sub("", result.stderr)

    return run


@pytest.fixture
def refused(run):
    """Runs a command line that must be refused: the one line it is answered with."""

    def refused(*arguments):
        status, _, errors = run(*arguments)
        lines = [line for line in errors.splitlines() if line.startswith("error:")]
        assert status == 2, errors
        assert len(lines) == 1, errors
        assert "Traceback" not in errors
        return lines[0]

    return refused


@pytest.fixture
def cell(twins, tmp_path):
    return twins["thevenin"].save(tmp_path / "cell.twin")


@pytest.fixture
def log(drives, tmp_path):
    """A log as testers write it."""
    record = drives["25degC", "LA92"]
    path = tmp_path / "log.csv"
    rows = zip(record.time, record.voltage, record.current, record.temperature, strict=True)
    text = "\n".join(",".join(f"{x:.6f}" for x in row) for row in rows)
    path.write_text(f"Time (s),Voltage (V),Current (A),Temperature (degC)\n{text}\n")
    return path


@pytest.fixture
def negated(drives, tmp_path):
    record = drives["25degC", "LA92"]
    path = tmp_path / "negated.parquet"
    replace(record, current=-record.current, net_capacity=-record.net_capacity).save(path)
    return path


# --- help ----------------------------------------------------------------------------------------------------------


def test_the_commands_are_those_that_others_call():
    assert set(COMMANDS) >= {"benchmark", "fit", "evaluate", "simulate", "inspect", "report", "models"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_parses(name, run):
    command = GROUP.commands[name]
    match = re.match(r"Example: celltwin (.+)$", command.epilog)
    words = shlex.split(match[1])
    assert words[0] == name
    command.make_context(name, words[1:])  # raises for an option that there is not
    status, printed, _ = run(name, "-h")
    assert status == 0
    assert " ".join(match[0].split()[:3]) in " ".join(printed.split())


def test_the_command_itself_has_help_and_a_version(run):
    status, printed, _ = run("-h")
    assert status == 0
    assert "Example: celltwin benchmark" in printed
    assert all(name in printed for name in COMMANDS)
    assert run("--version")[:2] == (0, f"{__version__}\n")


def test_an_unknown_option_or_command_is_status_2(run):
    assert run("models", "--nothing")[0] == 2
    assert run("modles")[0] == 2
    assert run("evaluate")[0] == 2


# --- models --------------------------------------------------------------------------------------------------------


def test_models_are_listed_with_a_line_each(run):
    status, printed, _ = run("models")
    assert status == 0
    for family in models.families():
        assert re.search(rf"^\s*{family.name} .*{re.escape(family.title[:20])}", printed, re.MULTILINE)


# --- benchmark and report ------------------------------------------------------------------------------------------


def test_benchmark(run, dataset_folder, tmp_path):
    arguments = ("benchmark", "--data", dataset_folder, "--models", "ohmic, hold", "--out", tmp_path / "run")
    status, printed, errors = run(*arguments, "--quick")
    assert status == 0, errors
    assert "3 training, 1 validation and 2 test records" in printed
    assert "report.html" in printed
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [m["name"] for m in metrics["models"]] == ["ohmic", "hold"]


def test_benchmark_names_its_folder_by_itself(run, dataset_folder, tmp_path):
    assert run("benchmark", "--data", dataset_folder, "--models", "hold", "--split", "cold")[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(rf"{dataset_folder.name}-\d{{8}}-\d{{6}}", folder.name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "thevenim"], "did you mean 'thevenin'"),
        (["--data", "dema"], "did you mean 'demo'"),
        (["--task", "soc"], "the models say voltage; got: task soc"),
        (["--resume"], "add --out DIR"),
        (["--split", "warm"], "no split 'warm'; got: warm; expected: cold"),
        (["--out", "/proc/none/run"], "/proc/none"),
    ],
)
def test_benchmark_refuses(refused, dataset_folder, arguments, message):
    data = [] if "--data" in arguments else ["--data", dataset_folder]
    few = [] if "--models" in arguments else ["--models", "hold"]
    assert message in refused("benchmark", *data, *few, *arguments)


def test_a_run_is_gone_on_with_only_if_asked(run, refused, dataset_folder):
    arguments = ("benchmark", "--data", dataset_folder, "--models", "hold", "--out", "run")
    assert run(*arguments)[0] == 0
    assert "fix: add --resume" in refused(*arguments)
    assert run(*arguments, "--resume")[0] == 0


def test_report_is_written_again(run, refused, finished_run, tmp_path):
    status, printed, _ = run("report", finished_run[0], "--out", tmp_path / "page.html")
    assert status == 0
    assert "page.html" in printed
    assert (tmp_path / "page.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert "no metrics.json" in refused("report", tmp_path)


# --- fit -----------------------------------------------------------------------------------------------------------


def test_fit_writes_a_twin(run, dataset_folder, tmp_path):
    (tmp_path / "plan.toml").write_text("[training]\nadam_rounds = 1\nupdates = 2\n")
    status, printed, errors = run(
        "fit", "hybrid", dataset_folder, "--out", "cell.twin", "--seed", 3, "--config", "plan.toml"
    )
    assert status == 0, errors
    assert "cell.twin" in printed
    one = twin_file.load(tmp_path / "cell.twin")
    assert (one.name, one.card["seed"], one.card["plan"]["updates"], one.card["licence"]) == ("hybrid", 3, 2, "MIT")
    assert [row["cycle"] for row in one.card["validation"]] == ["UDDS"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cell.twin", "plan.toml"]


def test_fit_in_folds_says_what_they_were_wrong_by(run, refused, dataset_folder, tmp_path):
    status, printed, errors = run("fit", "thevenin", dataset_folder, "--folds", 2, "--out", tmp_path / "cell.twin")
    assert status == 0, errors
    assert re.search(r"training cycles left out, 2 folds: RMSE \d+\.\d mV", printed)
    made = twin_file.load(tmp_path / "cell.twin")
    split = datasets.load(dataset_folder).split()
    assert made.bands.cycles == len(split.train) + len(split.validate)
    assert made.domain.seen == tuple(sorted(r.content_hash for r in split.train))
    assert [path.name for path in tmp_path.glob(".*checkpoint")] == []
    assert made.card["left_out"]["cycles"] == len(split.train)
    assert "folds are for the bands" in refused("fit", "soc-ekf", dataset_folder, "--folds", 2)
    again = ("fit", "thevenin", dataset_folder, "--folds", 2, "--from", tmp_path / "cell.twin")
    assert "folds are trained from nothing" in refused(*again)


def test_benchmark_takes_folds_from_a_file_or_an_option(run, refused, dataset_folder, tmp_path):
    (tmp_path / "mine.toml").write_text(f"dataset = '{dataset_folder}'\nmodels = ['ohmic']\nfolds = 2\n")
    for options, expected in (((), 2), (("--folds", 0), 0), (("--folds", 9), 9)):
        folder = tmp_path / f"run{expected}"
        status, _, errors = run("benchmark", "--config", "mine.toml", "--out", folder, *options)
        assert status == 0, errors
        assert json.loads((folder / "config.json").read_text())["folds"] == expected
        assert (folder / "folds").exists() == bool(expected)
    (tmp_path / "mine.toml").write_text(f"dataset = '{dataset_folder}'\nfolds = 1\n")
    assert "one fold leaves nothing" in refused("benchmark", "--config", "mine.toml")
    (tmp_path / "mine.toml").write_text(f"dataset = '{dataset_folder}'\nfolds = 2\n")
    assert "folds are for the bands" in refused("benchmark", "--config", "mine.toml", "--task", "pack")


def test_fit_begins_with_a_twin(run, refused, dataset_folder, tmp_path):
    assert run("fit", "thevenin", dataset_folder, "--out", "old.twin")[0] == 0
    fit = ("fit", "thevenin", dataset_folder, "--from", "old.twin", "--minutes", 8, "--out", "new.twin")
    status, _, errors = run(*fit)
    assert status == 0, errors
    one = twin_file.load(tmp_path / "new.twin")
    assert (one.card["from"]["name"], one.card["from"]["cell"], one.card["minutes"]) == ("thevenin", "simulated", 8.0)
    assert len(one.card["split"]["train"]) == 1
    assert one.card["plan"]["learning_rate"] < twin_file.load(tmp_path / "old.twin").card["plan"]["learning_rate"]
    assert "expected: a narx" in refused("fit", "narx", dataset_folder, "--from", "old.twin")
    assert "there is no twin none" in refused("fit", "narx", dataset_folder, "--from", "none")
    assert "nothing left to train on" in refused("fit", "narx", dataset_folder, "--minutes", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nupdate = 2", "training.update"),
        ("[training]\nupdates = 'many'", "training.updates"),
        ("[plan]\nupdates = 2", "plan: Extra inputs are not permitted"),
        ("[training", "not valid TOML"),
    ],
)
def test_fit_refuses_a_configuration(refused, dataset_folder, tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    assert message in refused("fit", "narx", dataset_folder, "--config", "plan.toml")


def test_fit_refuses(refused, dataset_folder, tmp_path):
    assert "did you mean 'lstm'" in refused("fit", "lstmm", dataset_folder)
    assert "there is no dataset" in refused("fit", "hold", tmp_path / "none")
    assert "/proc/none" in refused("fit", "hold", dataset_folder, "--out", "/proc/none/cell.twin")
    assert "cannot read none.toml; got: No such file" in refused("fit", "narx", dataset_folder, "--config", "none.toml")


# --- evaluate ------------------------------------------------------------------------------------------------------

ROW = {"cycle", "ambient_degC", "rmse", "mae", "max", "p99", "n"}


def test_evaluate_writes_its_figures(run, cell, dataset_folder, twins, tmp_path):
    status, printed, errors = run("evaluate", cell, dataset_folder, "--json", "figures.json")
    assert status == 0, errors
    assert "LA92" in printed
    result = json.loads((tmp_path / "figures.json").read_text())
    assert set(result) == {"task", "rows", "overall"}
    assert result["task"] == "voltage"
    expected = protocol.evaluate(twins["thevenin"], datasets.load(dataset_folder).split().test)
    assert [(r["cycle"], r["ambient_degC"], r["n"]) for r in result["rows"]] == [
        ("LA92", 25.0, 650),
        ("LA92", 5.0, 600),
    ]
    for row, wanted in zip(result["rows"], expected, strict=True):
        assert set(row) >= ROW
        assert row["rmse"] == pytest.approx(wanted["rmse"], rel=1e-6)
    assert result["overall"]["rmse"] == pytest.approx(np.mean([r["rmse"] for r in expected]), rel=1e-6)


def figures(run, *arguments):
    status, printed, errors = run("evaluate", *arguments, "--json", "-")
    assert status == 0, errors
    return json.loads(printed), errors


def test_evaluate_cycles_from_a_point_and_with_faults(run, cell, dataset_folder):
    named, notes = figures(run, cell, dataset_folder, "--cycles", "5degC/LA92", "--cycles", "Mixed2")
    assert sorted(r["cycle"] for r in named["rows"]) == ["LA92", "Mixed2"]
    assert "1 of 2 cycles were among this twin's training records" in " ".join(notes.split())
    half, _ = figures(run, cell, dataset_folder, "--start", 0.5)
    assert [r["n"] for r in half["rows"]] == [325, 300]
    good, _ = figures(run, cell, dataset_folder)
    bad, _ = figures(run, cell, dataset_folder, "--fault", "current_offset=0.3", "--fault", "temperature_offset=-3")
    assert bad["overall"]["rmse"] != pytest.approx(good["overall"]["rmse"], rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cycles", "LA29"], "'LA29' matches no record"),
        (["--start", "1.5"], "--start is no fraction; got: 1.5"),
        (["--fault", "offset=1"], "no fault 'offset'; expected: current_offset"),
        (["--fault", "current_offset=much"], "--fault is not NAME=VALUE; got: current_offset=much"),
        (["--fault", "current_offset=nan"], "--fault is not NAME=VALUE; got: current_offset=nan"),
        (["--json", "/proc/none/figures.json"], "/proc/none"),
    ],
)
def test_evaluate_refuses(refused, cell, dataset_folder, arguments, message):
    assert message in refused("evaluate", cell, dataset_folder, *arguments)


@pytest.mark.parametrize("content", [b"", b"no twin", b"\x80\x04K\x01."])
@pytest.mark.parametrize("command", ["evaluate", "simulate"])
def test_a_file_that_is_no_twin_is_refused(refused, dataset_folder, log, tmp_path, command, content):
    (tmp_path / "bad.twin").write_bytes(content)
    arguments = {"evaluate": [dataset_folder], "simulate": [log, "--out", "out.parquet"]}[command]
    assert "bad.twin is not a file of celltwin, or is damaged" in refused(command, "bad.twin", *arguments)
    assert "there is no file none.twin" in refused(command, "none.twin", *arguments)


# --- simulate ------------------------------------------------------------------------------------------------------


def test_simulate_puts_its_columns_beside_the_input(run, twins, cell, log, drives, tmp_path):
    status, printed, errors = run("simulate", cell, log, "--out", "out.parquet", "--initial-soc", 1.0)
    assert status == 0, errors
    assert "RMSE" in printed
    table = pq.read_table(tmp_path / "out.parquet")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    given = pc.read_csv(log)
    for name, header in (("voltage_volt", "Voltage (V)"), ("current_ampere", "Current (A)")):
        np.testing.assert_allclose(columns[name], given[header].to_numpy())
    assert columns["in_domain"].dtype == bool
    expected = twins["thevenin"].simulate(drives["25degC", "LA92"]).voltage
    np.testing.assert_allclose(columns["simulated_voltage_volt"], expected, atol=1e-4)
    assert run("simulate", cell, log, "--out", "out.csv", "--initial-soc", 1.0)[0] == 0
    text = pc.read_csv(tmp_path / "out.csv")
    assert text.column_names == table.column_names
    np.testing.assert_allclose(text["simulated_voltage_volt"].to_numpy(), columns["simulated_voltage_volt"])


def test_a_temperature_that_was_not_measured_is_named(run, cell, log, tmp_path):
    table = pc.read_csv(log)
    (temperature,) = (name for name in table.column_names if "emperature" in name)
    pc.write_csv(table.drop_columns([temperature]), tmp_path / "blind.csv")
    for where, stands_in in ((".", "25 °C is assumed"), ("5degC", "the ambient stands in for it")):
        (tmp_path / where).mkdir(exist_ok=True)
        path = (tmp_path / "blind.csv").replace(tmp_path / where / "blind.csv")
        status, _, errors = run("simulate", cell, path, "--out", "out.parquet", "--initial-soc", 1.0)
        assert status == 0, errors
        assert "no temperature in blind" in errors
        assert stands_in in " ".join(errors.split())
        path.replace(tmp_path / "blind.csv")


def test_records_that_hardly_begin_full_are_named(run, cell, dataset_folder, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(dataset_folder, whole)
    assert "is taken as full" not in run("evaluate", cell, whole)[2]
    described = whole / "dataset.toml"  # of cells whose window reaches far beyond what these show at their start
    described.write_text(described.read_text(encoding="utf-8").replace("[2.5, 4.3]", "[2.5, 6.0]"), encoding="utf-8")
    status, _, errors = run("evaluate", cell, whole)
    assert status == 0, errors
    assert "is taken as full at its first sample" in " ".join(errors.split())


def test_simulate_writes_the_band_of_a_twin_that_has_one(run, twins, log, drives, tmp_path):
    record = drives["25degC", "LA92"]
    error = np.abs(twins["thevenin"].simulate(record).voltage - record.voltage)
    half = float(np.quantile(error, 0.6))
    path = replace(twins["thevenin"], bands=Bands((20.0,), ((half,),))).save(tmp_path / "banded.twin")
    status, printed, errors = run("simulate", path, log, "--out", "out.parquet", "--initial-soc", 1.0)
    assert status == 0, errors
    table = pq.read_table(tmp_path / "out.parquet")
    names = ("voltage_low_volt", "simulated_voltage_volt", "voltage_high_volt")
    low, simulated, high = (table[name].to_numpy() for name in names)
    np.testing.assert_allclose(simulated - low, half, rtol=1e-6)
    np.testing.assert_allclose(high - simulated, half, rtol=1e-6)
    share, width = re.search(r"([\d.]+) % within the 90 % band \(± ([\d.]+) mV\)", printed).groups()
    assert float(share) == pytest.approx(60.0, abs=0.5)
    assert float(width) == pytest.approx(1e3 * half, abs=0.06)


def test_evaluate_shows_the_coverage_of_bands(run, twins, dataset_folder, tmp_path):
    path = replace(twins["thevenin"], bands=Bands((20.0,), ((0.5,),))).save(tmp_path / "banded.twin")
    status, printed, errors = run("evaluate", path, dataset_folder, "--json", "figures.json")
    assert status == 0, errors
    assert "within band" in printed
    found = json.loads((tmp_path / "figures.json").read_text())
    for figures in (*found["rows"], found["overall"]):
        assert figures["coverage"] == 1.0
        assert figures["half_width"] == pytest.approx(500.0)


def test_simulate_finds_the_initial_soc_of_a_rested_log(run, twins, cell, log):
    status, printed, _ = run("simulate", cell, log, "--out", "out.parquet")
    assert status == 0
    assert "read from its voltage at rest" in printed


def test_simulate_adapts_to_the_first_minutes_of_a_log(run, twins, log, drives, tmp_path):
    one, found = twins["thevenin"], {}
    for factor in (1.0, 1.15):
        worn = replace(one, model=Aged.of(one.model, resistance=1 / factor)).save(tmp_path / "worn.twin")
        options = ("--out", "out.parquet", "--initial-soc", 1.0)
        before = run("simulate", worn, log, *options)[1]
        status, printed, errors = run("simulate", worn, log, *options, "--adapt", 10)
        assert status == 0, errors
        rmse = [float(re.search(r"RMSE ([\d.]+) mV", text)[1]) for text in (before, printed)]
        assert rmse[1] < rmse[0]
        found[factor] = float(re.search(r"resistance ([\d.]+) ±", printed)[1])
    assert found[1.15] > 1.05 * found[1.0]  # the prior holds it back
    table = pq.read_table(tmp_path / "out.parquet")
    np.testing.assert_allclose(table["voltage_volt"].to_numpy(), drives["25degC", "LA92"].voltage, atol=1e-5)


def test_evaluate_adapts_and_scores_the_rest(run, refused, cell, dataset_folder, tmp_path):
    status, printed, errors = run("evaluate", cell, dataset_folder, "--adapt", 5, "--json", "rows.json")
    assert status == 0, errors
    assert "adapted to 5 min, scored on the rest" in printed
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    for row in rows:
        assert row["rmse"] > 0
        assert row["rmse_before"] > 0
        assert 0.8 < row["capacity"] < 1.2
    message = refused("evaluate", cell, dataset_folder, "--adapt", 5, "--fault", "current_offset=0.1")
    assert "do not go together" in message
    assert "too short to adapt to" in refused("evaluate", cell, dataset_folder, "--adapt", 500)


def test_evaluate_takes_named_cycles_of_a_dataset_without_a_split_and_tells_copies(
    run, refused, cell, dataset_folder, tmp_path
):
    copied = tmp_path / "copied"
    shutil.copytree(dataset_folder, copied)
    path = copied / "dataset.toml"
    path.write_text(path.read_text().split("[split]")[0])
    shutil.copy(copied / "25degC/LA92.parquet", copied / "25degC/Again.parquet")
    status, _, errors = run("evaluate", cell, copied, "--cycles", "*25degC/LA92*", "--cycles", "*25degC/Again*")
    assert status == 0, errors
    assert "1 of 2 cycles are another once more, under another name" in errors
    assert "or --cycles" in refused("evaluate", cell, copied)


def test_simulate_refuses(refused, cell, log, negated, tmp_path):
    assert "--initial-soc is no fraction" in refused("simulate", cell, log, "--out", "o.parquet", "--initial-soc", 80)
    assert "ends in .parquet or .csv" in refused("simulate", cell, log, "--out", "o.xlsx")
    assert "no such file" in refused("simulate", cell, "none.csv", "--out", "new/o.parquet")
    assert not (tmp_path / "new").exists()
    assert "is a folder" in refused("simulate", cell, ".", "--out", "o.parquet")
    assert "/proc/none" in refused("simulate", cell, log, "--out", "/proc/none/o.parquet")
    assert "would overwrite the log" in refused("simulate", cell, log, "--out", log)
    assert "--current-sign discharge" in refused("simulate", cell, negated, "--out", "o.parquet")
    lines = log.read_text().splitlines()
    (tmp_path / "loaded.csv").write_text("\n".join([lines[0], *lines[30:]]))
    assert "initial SOC of 'loaded' is unknown" in refused("simulate", cell, "loaded.csv", "--out", "o.parquet")
    assert not (tmp_path / "o.parquet").exists()


def test_what_is_outside_the_training_domain_is_named(run, cell, log, tmp_path):
    status, said, _ = run("simulate", cell, log, "--out", "o.parquet", "--initial-soc", 0.9)
    assert status == 0
    assert "0.0 % outside the training domain\n" in said
    lines = log.read_text().splitlines()
    hot = next(i for i, name in enumerate(lines[0].split(",")) if "emperature" in name)
    rows = [line.split(",") for line in lines[1:]]
    (tmp_path / "hot.csv").write_text("\n".join([lines[0], *(",".join([*r[:hot], "61", *r[hot + 1 :]]) for r in rows)]))
    said = " ".join(run("simulate", cell, "hot.csv", "--out", "o.parquet", "--initial-soc", 0.9)[1].split())
    assert re.search(
        r"100\.0 % outside the training domain \(temperature of 61 °C, trained on [\d.]+ to [\d.]+ °C\)", said
    )


def test_a_twin_that_says_nothing_finite_is_refused(refused, twins, dataset_folder, log, tmp_path):
    circuit = twins["thevenin"]
    lost = replace(circuit, model=replace(circuit.model, log_tau=np.nan * circuit.model.log_tau))
    path = lost.save(tmp_path / "lost.twin")
    assert "says nothing that is finite" in refused("simulate", path, log, "--out", "o.parquet", "--initial-soc", 0.9)
    assert not (tmp_path / "o.parquet").exists()
    assert "says nothing that is finite of LA92" in refused("evaluate", path, dataset_folder)


# --- inspect -------------------------------------------------------------------------------------------------------


def test_inspect_shows_and_plots(run, log, tmp_path):
    status, printed, errors = run("inspect", log, "--plot", "log.html")
    assert status == 0, errors
    assert "log" in printed
    assert "650" in printed
    page = (tmp_path / "log.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert '"name":"voltage"' in page


def test_inspect_says_which_columns_it_took(run, refused, log, tmp_path):
    table = pc.read_csv(log)
    names = ["Fühler A" if name == "Temperature (degC)" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), tmp_path / "odd.parquet")
    printed = " ".join(run("inspect", "odd.parquet")[1].split())
    assert "voltage 'Voltage (V)'" in printed
    assert "no temperature; not read: 'Fühler A'" in printed
    printed = " ".join(run("inspect", "odd.parquet", "--column", "temperature=Fühler A")[1].split())
    assert "temperature 'Fühler A'" in printed
    assert "not read" not in printed
    assert "--column is wrong" in refused("inspect", log, "--column", "temperature")


def test_inspect_refuses_a_wrong_sign_and_says_how_to_turn_it(refused, run, log, negated):
    assert "--current-sign discharge" in refused("inspect", negated)
    assert run("inspect", negated, "--current-sign", "discharge")[0] == 0
    assert "expected: charge or discharge" in refused("inspect", log, "--current-sign", "up")


def test_inspect_goes_on_after_a_bad_file(run, log, negated):
    status, printed, errors = run("inspect", negated, log, "none.csv")
    assert status == 2
    assert "log" in printed
    assert errors.count("error:") == 2


def test_inspect_reads_an_ocv_table(run, tmp_path):
    circuit = reference.Circuit()
    rows = "\n".join(f"{soc:.2f},{circuit.ocv(soc):.4f}" for soc in np.linspace(0, 1, 21))
    (tmp_path / "ocv.csv").write_text(f"soc,ocv_volt\n{rows}\n")
    status, printed, errors = run("inspect", "ocv.csv")
    assert status == 0, errors
    assert "OCV" in printed


# --- as a process --------------------------------------------------------------------------------------------------


def test_a_refusal_is_one_line_of_what_got_expected_and_fix():
    command = [sys.executable, "-m", "celltwin.cli", "fit", "thevenim", "demo"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(
        r"error: there is no model 'thevenim'; got: thevenim; expected: hold, .*; fix: did you mean 'thevenin'\?\n",
        result.stderr,
    )
