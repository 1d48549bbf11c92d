"""State of charge on the command line: benchmarked, fitted, evaluated, estimated, and kept apart from voltage."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from typer.testing import CliRunner

import reference
from celltwin import load, models, twin
from celltwin.cli import app
from celltwin.data.domain import Domain
from celltwin.errors import CelltwinError
from celltwin.evaluation import robustness
from celltwin.twin import Twin

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_plans):
    """Runs a command line in an empty folder: status, everything printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, ANSI.sub("", result.output)

    return run


@pytest.fixture(scope="session")
def counter(split, tmp_path_factory):
    """The file of a twin that counts from what its first voltage tells."""
    model = models.family("soc-coulomb").create(split.train, Domain.of(split.train), None, None)
    one = Twin("soc-coulomb", model, Domain.of(split.train), reference.CELL, {}, "soc")
    return one.save(tmp_path_factory.mktemp("twins") / "counter.twin")


def test_a_benchmark_of_estimators_scores_every_condition(run, dataset_folder, tmp_path, monkeypatch):
    few = tuple(c for c in robustness.CONDITIONS if c.group in ("start", "ageing"))
    monkeypatch.setattr(robustness, "CONDITIONS", few)
    monkeypatch.setattr(robustness.score, "__defaults__", (few, robustness.score.__defaults__[1]))
    status, printed = run(
        "benchmark", "--task", "soc", "--data", dataset_folder, "--models", "soc-coulomb,soc-observer", "--out", "r"
    )
    assert status == 0, printed
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["task"] == "soc"
    assert [m["name"] for m in metrics["models"]] == ["soc-coulomb", "soc-observer"]
    for entry in metrics["models"]:
        assert {row["condition"] for row in entry["rows"]} == {c.name for c in few}
        starts = [row["mae"] for row in entry["rows"] if row["group"] == "start"]
        assert entry["overall"]["headline"] == pytest.approx(np.mean(starts))
        assert entry["state_bytes"] > 0
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000
    written = pq.read_table(tmp_path / "r" / "predictions" / "soc-observer.parquet")
    assert {"soc", "estimated_soc", "soc_std", "start", "record"} <= set(written.column_names)


def test_models_of_two_tasks_are_not_compared(run, dataset_folder):
    status, printed = run("benchmark", "--data", dataset_folder, "--models", "soc-coulomb,ohmic")
    assert status == 2
    assert "do not say the same" in printed
    status, printed = run("benchmark", "--data", dataset_folder, "--models", "ohmic", "--task", "soc")
    assert status == 2
    status, printed = run("benchmark", "--data", dataset_folder, "--task", "charge")
    assert status == 2
    assert "there is no task 'charge'" in printed


def test_fit_and_evaluate_an_estimator(run, dataset_folder, tmp_path):
    status, printed = run("fit", "soc-observer", dataset_folder, "--out", "one.twin")
    assert status == 0, printed
    assert twin.load(tmp_path / "one.twin").task == "soc"
    status, printed = run(
        "evaluate", "one.twin", dataset_folder, "--start", 0.5, "--fault", "current_offset=0.1", "--json", "f.json"
    )
    assert status == 0, printed
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["task"] == "soc"
    assert {"cycle", "ambient_degC", "rmse", "mae", "max", "p99", "n"} <= set(figures["rows"][0])


def test_faults_and_starts_are_what_the_estimator_sees(run, dataset_folder, counter, tmp_path):
    def mae(*options):
        status, printed = run("evaluate", counter, dataset_folder, "--json", "f.json", *options)
        assert status == 0, printed
        return json.loads((tmp_path / "f.json").read_text())["overall"]["mae"]

    clean = mae()
    assert clean < 3.0
    # A counter that is told a wrong start stays wrong by it; an offset grows with time.
    assert mae("--fault", "soc_offset=-0.2") == pytest.approx(20.0, abs=0.1)
    assert mae("--fault", "soc_offset=0") < 0.01
    hours = np.mean([600 * 2, 650 * 2]) / 3600
    with_offset = mae("--fault", "soc_offset=0", "--fault", "current_offset=0.1")
    assert with_offset == pytest.approx(100 * 0.1 * hours / 2, rel=0.1)
    status, printed = run("evaluate", counter, dataset_folder, "--fault", "warp=9")
    assert status == 2
    assert "there is no fault 'warp'" in printed


def test_estimate_writes_soc_and_its_doubt_beside_the_log(run, counter, drives, tmp_path):
    record = drives["25degC", "LA92"]
    record.save(tmp_path / "log.parquet")
    status, printed = run("estimate", counter, "log.parquet", "--out", "e.parquet")
    assert status == 0, printed
    written = pq.read_table(tmp_path / "e.parquet")
    assert {"voltage_volt", "soc", "soc_std", "in_domain"} <= set(written.column_names)
    assert np.abs(written["soc"].to_numpy() - record.soc).max() < 0.06
    status, _ = run("estimate", counter, "log.parquet", "--out", "e.parquet", "--initial-soc", 0.5)
    assert pq.read_table(tmp_path / "e.parquet")["soc"][0].as_py() == pytest.approx(0.5)
    assert run("estimate", counter, "log.parquet", "--out", "e.csv")[0] == 0
    np.testing.assert_allclose(csv.read_csv(tmp_path / "e.csv")["soc"].to_numpy(), written["soc"].to_numpy())
    assert run("estimate", counter, "log.parquet", "--out", "e.xlsx")[0] == 2
    assert run("estimate", counter, "log.parquet", "--out", "e.parquet", "--initial-soc", 7)[0] == 2


def test_a_twin_of_the_other_task_is_refused_with_the_right_command(run, counter, twins, drives, tmp_path):
    drives["25degC", "LA92"].save(tmp_path / "log.parquet")
    voltage = twins["ohmic"].save(tmp_path / "v.twin")
    status, printed = run("estimate", voltage, "log.parquet", "--out", "e.parquet")
    assert status == 2
    assert "celltwin simulate" in printed
    status, printed = run("simulate", counter, "log.parquet", "--out", "e.parquet")
    assert status == 2
    assert "celltwin estimate" in printed
    with pytest.raises(CelltwinError, match="says soc"):
        twin.load(counter).simulate(drives["25degC", "LA92"])


def test_pretrained_twins_are_small_and_load_by_name():
    for name in twin.pretrained():
        path = twin.PRETRAINED / f"{name}.twin"
        assert path.stat().st_size < 1_000_000
        one = load(name)
        assert one.task == name.split("/")[1]
        card = path.with_suffix(".md").read_text()
        assert one.card["citation"] in card
        assert one.card["licence"] in card
    with pytest.raises(CelltwinError, match="there is no twin lg_18650hg2/nothing"):
        load("lg_18650hg2/nothing")
