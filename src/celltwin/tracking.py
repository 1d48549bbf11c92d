"""Finished runs in MLflow: a run of MLflow for each model and seed of a run folder, in an experiment of its dataset.

MLflow is imported when it is asked for (`pip install 'celltwin[mlflow]'`); nothing is sent anywhere but to the
store that is named: a folder, a database, or a server.
"""

from __future__ import annotations

import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celltwin import files
from celltwin.errors import CelltwinError
from celltwin.evaluation import runs

FOLDER_TAG = "celltwin.run"  # says which run folder, model and seed: none is logged twice
REPEATED = "celltwin.identity"


def log(folder: Path, store: str) -> int:
    """Log what a run folder holds to the MLflow store at `store`; returns how many runs are new there.

    `store` is the URI of a server or a database, or the path of a folder, in which a SQLite database is kept. A model
    that was logged before is not logged again. Raises CelltwinError where MLflow is not installed or the store does
    not answer.
    """
    try:
        import mlflow  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric, Param, RunTag  # pyright: ignore[reportMissingImports]
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CelltwinError("MLflow is not installed", fix="pip install 'celltwin[mlflow]'") from error
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that does not answer is said at once
    run, metrics = runs.read(folder), files.read_json(folder / "metrics.json")
    config = files.read_json(folder / "config.json")
    began = int(1e3 * (datetime.fromisoformat(run.created).timestamp() - run.seconds))
    ended = int(1e3 * datetime.fromisoformat(run.created).timestamp())
    try:
        uri, artifacts = _store(store)
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, f"{run.dataset} {run.task}", artifacts)
        new = 0
        for model in metrics["models"]:
            for seed in model["seeds"]:
                identity = f"{run.created} {model['name']} {seed}"
                found = client.search_runs([experiment], f"tags.`{REPEATED}` = '{identity}'", max_results=1)
                if found:
                    continue
                name = f"{run.name}/{model['name']}-{seed}"
                made = client.create_run(experiment, began, run_name=name).info.run_id
                params = {"model": model["name"], "seed": seed, "quick": run.quick, "split": config.get("split")}
                params |= config.get("training", {}).get(model["name"], {})
                client.log_batch(
                    made,
                    [Metric(key, value, ended, step) for key, value, step in _metrics(model, seed)],
                    [Param(key, str(value)) for key, value in params.items()],
                    [
                        RunTag(key, str(value))
                        for key, value in {
                            FOLDER_TAG: str(folder.resolve()),
                            REPEATED: identity,
                            "celltwin.version": run.celltwin,
                            "celltwin.commit": run.commit or "",
                            "celltwin.tested_on": run.tested_on,
                        }.items()
                    ],
                )
                for path in (folder / "config.json", folder / "environment.json", folder / "report.html"):
                    if path.is_file():
                        client.log_artifact(made, str(path))
                twin = folder / "twins" / f"{model['name']}-{seed}.twin"
                if twin.is_file():
                    client.log_artifact(made, str(twin))
                client.set_terminated(made, end_time=ended)
                new += 1
        return new
    except (MlflowException, OSError) as error:
        raise CelltwinError(
            f"the MLflow store {store} does not take the run",
            got=str(error).splitlines()[0],
            expected="a folder, sqlite:///FILE, or a server such as http://127.0.0.1:5000",
            fix="start it with mlflow server, or name a folder",
        ) from error


def _store(store: str) -> tuple[str, str | None]:
    """Tracking URI, and where artifacts go if the store does not say."""
    if urlsplit(store).scheme in ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks"):
        return store, None
    folder = Path(store).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name, artifacts)


def _metrics(model: dict[str, Any], seed: int) -> list[tuple[str, float, int]]:
    """Names, values and steps: the overall figures (means over the seeds), this seed's test rows and its training."""
    overall = model.get("overall", {})
    values = [(f"overall_{key}", value, 0) for key, value in overall.items()]
    values += [
        (f"{side}_{key}".replace(" ", "_"), value, 0)
        for side, figures in model.get("sets", {}).items()
        for key, value in figures.items()
    ]
    for row in model.get("rows", []):
        if row.get("seed") == seed and row.get("split", "test") == "test" and "cycle" in row:
            ambient = "" if row.get("ambient_degC") is None else f"_{row['ambient_degC']:g}degC"
            condition = "" if "condition" not in row else f"_{row['condition']}"
            name = f"rmse_{row['cycle']}{ambient}{condition}"
            values.append(("".join(c if c.isalnum() or c in "_-. /" else "_" for c in name), row.get("rmse"), 0))
    for epoch in model.get("history", {}).get(str(seed), []):
        step = int(epoch["epoch"])
        values += [(key, value, step) for key, value in epoch.items() if key not in ("epoch", "seconds")]
    return [
        (key, float(value), step)
        for key, value, step in values
        if isinstance(value, (int, float)) and math.isfinite(value)
    ]
