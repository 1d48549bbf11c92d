"""Finished runs in MLflow: in a real server of it, and in a folder; once each, with what belongs to them."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from typer.testing import CliRunner

from celltwin import tracking
from celltwin.cli import app
from celltwin.errors import CelltwinError

mlflow = pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
pytest.importorskip("flask", reason="MLflow's server is not installed")
# MLflow and what it builds on warn of their own future.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of an MLflow server with an empty store."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "log.txt").open("w") as said:
        process = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=said, env=environment, start_new_session=True
        )
        try:
            for _ in range(240):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                        break
                except OSError:
                    assert process.poll() is None, (folder / "log.txt").read_text()
                    time.sleep(0.25)
            else:
                pytest.fail((folder / "log.txt").read_text())
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def logged_runs(uri):
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiments = {e.name: e.experiment_id for e in client.search_experiments()}
    return client, experiments, client.search_runs(list(experiments.values()))


def test_a_server_gets_each_model_and_seed_once(server, finished_run):
    folder, metrics = finished_run
    assert tracking.log(folder, server) == 3
    assert tracking.log(folder, server) == 0
    client, experiments, found = logged_runs(server)
    assert f"{metrics['dataset']['name']} voltage" in experiments
    assert sorted(run.info.run_name for run in found) == [f"run/{n}" for n in ("hybrid-0", "hybrid-1", "ohmic-0")]
    run = next(run for run in found if run.info.run_name == "run/hybrid-1")
    hybrid = metrics["models"][1]
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "1"
    assert run.data.params["updates"] == "5"
    assert run.data.metrics["overall_rmse"] == pytest.approx(hybrid["overall"]["rmse"])
    mine = next(row for row in hybrid["rows"] if row["seed"] == 1 and row["split"] == "test")
    assert run.data.metrics[f"rmse_{mine['cycle']}_{mine['ambient_degC']:g}degC"] == pytest.approx(mine["rmse"])
    history = client.get_metric_history(run.info.run_id, "validate_rmse")
    assert [(point.step, point.value) for point in history] == [
        (epoch["epoch"], pytest.approx(epoch["validate_rmse"])) for epoch in hybrid["history"]["1"]
    ]
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept == {"config.json", "environment.json", "report.html", "hybrid-1.twin"}


def test_a_folder_is_a_store_too(finished_run, tmp_path):
    folder, _ = finished_run
    printed = CliRunner().invoke(app, ["runs", str(folder), "--mlflow", str(tmp_path / "store")])
    assert printed.exit_code == 0, printed.output
    assert "3 new" in printed.output
    _, _, found = logged_runs(f"sqlite:///{tmp_path}/store/mlflow.db")
    assert len(found) == 3


def test_a_server_that_does_not_answer_is_said(finished_run):
    folder, _ = finished_run
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        with pytest.raises(CelltwinError, match="does not take the run"):
            tracking.log(folder, f"http://127.0.0.1:{taken.getsockname()[1]}")
