"""Run folders are found, told apart by what they were tested on, and compared; what is damaged is left out."""

import json
import logging
import shutil

import pytest
from typer.testing import CliRunner

from celltwin import files
from celltwin.cli import app
from celltwin.errors import CelltwinError
from celltwin.evaluation import runs


def changed(folder, to, **changes):
    """A copy of a run folder whose metrics.json is changed."""
    shutil.copytree(folder, to)
    metrics = files.read_json(to / "metrics.json")
    for name, value in changes.items():
        if name == "rmse":
            metrics["models"][1]["overall"]["rmse"] = value
        else:
            metrics[name] = value
    files.write_json(to / "metrics.json", metrics)
    return to


@pytest.fixture
def folders(finished_run, tmp_path):
    out, _ = finished_run
    changed(out, tmp_path / "runs" / "first", created="2026-01-01T00:00:00Z")
    changed(out, tmp_path / "runs" / "better", created="2026-02-01T00:00:00Z", rmse=1.25)
    other = changed(out, tmp_path / "runs" / "elsewhere", created="2026-03-01T00:00:00Z")
    config = files.read_json(other / "config.json")
    config["records"]["test"] = {"another": "0" * 64}
    files.write_json(other / "config.json", config)
    return tmp_path / "runs"


def test_only_runs_tested_on_the_same_records_are_compared(folders):
    groups = runs.comparable(runs.find([folders]))
    assert [[run.name for run in group] for group in groups] == [["first", "better"], ["elsewhere"]]
    first, better = groups[0]
    assert better.figure("hybrid", "rmse").mean == 1.25
    assert first.figure("hybrid", "rmse").spread == pytest.approx(
        files.read_json(folders / "first" / "metrics.json")["models"][1]["overall"]["rmse_std"]
    )
    assert runs.ranked(groups[0], "rmse")[0] == "hybrid"
    assert better.best == "hybrid"
    assert first.commit is not None  # the tests run from a checkout
    assert first.seeds == (0, 1)


def test_damaged_folders_are_left_out_and_said(folders, caplog):
    (folders / "first" / "metrics.json").write_text("{")
    (folders / "better" / "metrics.json").write_text(json.dumps({"task": "voltage", "models": []}))
    with caplog.at_level(logging.WARNING, "celltwin"):
        assert [run.name for run in runs.find([folders])] == ["elsewhere"]
    assert len(caplog.records) == 2
    with pytest.raises(CelltwinError, match="there is no folder"):
        runs.find([folders / "none"])


def test_the_command_lists_compares_and_writes_a_page(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["runs", "--metric", "max", "--out", "board.html", "--json", "runs.json"])
    assert shown.exit_code == 0, shown.output
    assert "better" in shown.output
    assert "max in mV" in shown.output
    page = (tmp_path / "board.html").read_text(encoding="utf-8")
    assert "2 sets of test records" in page
    assert page.count('class="figure"') == 1  # of the two runs that can be compared
    assert 'http-equiv="Content-Security-Policy"' in page
    listed = files.read_json("runs.json")
    assert [run["models"]["hybrid"]["rmse"] for run in listed][1] == 1.25


def test_the_command_refuses(tmp_path, monkeypatch, folders):
    monkeypatch.chdir(tmp_path)
    for command, message in (
        (["runs", str(tmp_path / "none")], "there is no folder"),
        (["runs", str(folders), "--metric", "rsme"], "there is no metric 'rsme'"),
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["runs", "empty"])
    assert result.exit_code == 2
    assert "there is no finished run" in result.output
