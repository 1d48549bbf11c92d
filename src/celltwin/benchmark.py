"""The main job: train several models or estimators on a dataset, score them, leave a run folder behind.

run/
  config.json        what was asked for, resolved: an experiment that can be run again
  environment.json   versions, machine
  log.txt            what happened, with times
  checkpoints/       of models still in training: a killed run goes on from here
  twins/             one file a model and seed
  folds/             with folds: models that were trained without a part of the training cycles, which set the bands
  predictions/       measured and simulated voltage, or labelled and estimated state of charge, one parquet a model
  metrics.json       every figure
  report.html        the page to read
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pyarrow as pa

from celltwin import __version__, files, models, twin
from celltwin.data import splits
from celltwin.data.datasets import Dataset
from celltwin.data.record import Record
from celltwin.data.splits import Split
from celltwin.deploy import c, cost
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol, report, robustness
from celltwin.experiment import hashes
from celltwin.interface import unknown_start
from celltwin.jobs import Listen, jobs_of, labels, train_all, with_bands_of_folds
from celltwin.twin import Twin

log = logging.getLogger("celltwin")


def run(
    dataset: Dataset,
    split: Split,
    names: Sequence[str],
    out: Path,
    *,
    seeds: Sequence[int] = (0,),
    quickly: bool = False,
    resume: bool = False,
    split_name: str | None = None,
    title: str = "",
    changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    folds: int = 0,
    listen: Listen = lambda job, share, progress: None,
) -> dict[str, Any]:
    """Train, score and report. Returns what is in metrics.json.

    `changes` are settings of the models' plans by model, as in an experiment's [training.MODEL]. With `folds`, each
    voltage model is also trained that often, with the first seed, without a part of the training cycles: the bands of
    all its seeds come from these.

    Two models train at a time, one on each core. After Ctrl-C or a kill, the same call with `resume` goes on where the
    last whole round of each model ended, to the same figures.

    Raises CelltwinError where `out` holds another run, or this one and `resume` is not set.
    """
    began = time.monotonic()
    if not split.test:
        raise CelltwinError("the split has no test records", fix="name some in [split] test of dataset.toml")
    asked = [models.family(name) for name in dict.fromkeys(names)]
    task = task_of(asked)
    splits.refuse_folds(folds, task)
    parts = splits.folds(split, folds) if folds else ()
    jobs = jobs_of(names, seeds, quickly, split, changes, len(parts))
    config = {
        "title": title,
        "task": task,
        "dataset": dataset.where,
        "split": split_name,
        "models": [family.name for family in asked],
        "seeds": list(seeds),
        "folds": folds,
        "quick": quickly,
        "training": {job.family.name: job.plan.model_dump(exclude={"seed"}) for job in jobs if job.plan},
        "records": hashes(split),
    }
    begin(out, config, resume)
    with logged(out):
        log.info("celltwin %s on %s: %s", __version__, dataset.name, ", ".join(job.name for job in jobs))
        if len(parts) < folds:
            log.warning("%d folds, as there are no more training cycles", len(parts))
        twins = train_all(jobs, dataset, split, out, resume, listen, parts)
        if parts:
            twins = with_bands_of_folds(jobs, twins, split, parts)
            for name, one in twins.items():
                one.save(out / "twins" / f"{name}.twin")
        entries = []
        for family in asked:
            made = [twins[job.name] for job in jobs if job.family is family and job.fold is None]
            score = {"voltage": _score, "soc": _score_soc}[task]
            entries.append(_facts(family, made, split) | score(family, made, split, out))
        metrics = {
            "task": task,
            "celltwin": __version__,
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": time.monotonic() - began,
            "quick": quickly,
            "dataset": {
                "name": dataset.name,
                "cell": asdict(dataset.cell),
                "licence": dataset.description.source.licence,
                "citation": dataset.description.source.citation,
                "split": labels(split),
            },
            "models": entries,
        }
        files.write_json(out / "metrics.json", metrics)
        report.write(out)
        log.info("done in %.0f s", metrics["seconds"])
    return files.read_json(out / "metrics.json")


def task_of(asked: Sequence[models.Family]) -> str:
    """What all of these say. Raises CelltwinError where they do not say the same."""
    tasks = {family.task for family in asked}
    if len(tasks) != 1:
        named = ", ".join(f"{family.name} ({family.task})" for family in asked)
        raise CelltwinError("the models do not say the same", got=named, expected="models of one task")
    return tasks.pop()


ELSEWHERE = ("title", "dataset")  # of a configuration: data may have moved, as the hashes of its records tell


def begin(out: Path, config: dict[str, Any], resume: bool) -> None:
    """Make the run folder, or check that the one to resume is of the same run."""
    out.mkdir(parents=True, exist_ok=True)
    written = out / "config.json"
    if written.exists():
        if not resume:
            raise CelltwinError(
                f"{out} already holds a run", fix="add --resume to go on with it, or choose another --out"
            )
        before = {"folds": 0} | files.read_json(written)
        if any(before.get(key) != value for key, value in files.plain(config).items() if key not in ELSEWHERE):
            raise CelltwinError(
                f"{out} holds a run with other settings or other data", fix="choose another --out, or the same settings"
            )
    elif any(out.iterdir()):
        raise CelltwinError(f"{out} is not empty and holds no run of celltwin", fix="choose another --out")
    files.write_json(written, config)
    files.write_json(out / "environment.json", environment())


@contextmanager
def logged(out: Path) -> Iterator[None]:
    """What celltwin logs meanwhile goes to `log.txt` of the run folder."""
    handler = logging.FileHandler(out / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def environment() -> dict[str, Any]:
    """What a run depends on beside its configuration."""
    packages = ("celltwin", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "pyarrow")
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in packages},
        "git": _checkout(),
    }


def _checkout() -> dict[str, Any] | None:
    """Commit of the checkout that celltwin runs from, and whether it is changed; None for an installed package."""

    def git(*command: str) -> str:
        root = Path(__file__).parents[2]
        done = subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        if not (Path(git("rev-parse", "--show-toplevel")) / "src" / "celltwin").samefile(Path(__file__).parent):
            return None  # of somebody else, around the place where celltwin is installed
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "src"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _score(family: models.Family, twins: Sequence[Twin], split: Split, out: Path) -> dict[str, Any]:
    """One model's entry in metrics.json, over its seeds; writes the predictions of the first."""
    rows, by_seed = [], []
    for one in twins:
        mine = []
        for side in ("validate", "test"):
            for row in protocol.evaluate(one, getattr(split, side)) if getattr(split, side) else []:
                mine.append(row | {"split": side, "seed": one.card["seed"]})
        by_seed.append(protocol.overall([row for row in mine if row["split"] == "test"]))
        if one is twins[0]:
            _write_predictions(mine, out / "predictions" / f"{family.name}.parquet")
        rows += [protocol.figures(row) for row in mine]
    keys = ("rmse", "mae", "max", "p99", "mean_max")
    overall: dict[str, float | None] = {k: float(np.mean([figures[k] for figures in by_seed])) for k in keys}
    for k in ("coverage", "half_width"):
        overall[k] = float(np.mean([figures[k] for figures in by_seed])) if all(k in f for f in by_seed) else None
    overall["rmse_std"] = _spread([f["rmse"] for f in by_seed])
    log.info("%s: test RMSE %.2f mV", family.name, overall["rmse"])
    return {"rows": rows, "overall": overall, "curves": curves(twins[0], split)}


def _score_soc(family: models.Family, twins: Sequence[Twin], split: Split, out: Path) -> dict[str, Any]:
    """One estimator's entry in metrics.json, over its seeds; writes the estimates of the first."""
    rows, by_seed = [], []
    for one in twins:
        seed = one.card["seed"]
        entries = robustness.score(one, split.test)
        for entry in entries:
            named = {"condition": entry["name"], "group": entry["group"], "seed": seed}
            rows += [named | row for row in entry["rows"]]
        by_seed.append((robustness.headline(entries), entries[0]["overall"]))
    _write_estimates(twins[0], split, out / "predictions" / f"{family.name}.parquet")
    headlines = [first for first, _ in by_seed]
    overall: dict[str, float | None] = {
        "headline": float(np.mean(headlines)),
        "headline_std": _spread(headlines),
    }
    for key in ("mae", "rmse", "max", "max_settled", "coverage", "nees"):
        overall[key] = float(np.mean([figures[key] for _, figures in by_seed]))
    innovations = [value for one in twins if (value := protocol.nis(one, split.test)) is not None]
    overall["nis"] = float(np.mean(innovations)) if innovations else None
    log.info("%s: test MAE %.3f points over all starts", family.name, overall["headline"])
    state = twins[0].model.init(unknown_start(split.test[0]))
    return {
        "rows": rows,
        "overall": overall,
        "weight_bytes": sum(a.size * 4 for a in jax.tree.leaves(eqx.filter(twins[0].model, eqx.is_inexact_array))),
        "state_bytes": sum(np.size(a) * 4 for a in jax.tree.leaves(state)),
    }


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _facts(family: models.Family, twins: Sequence[Twin], split: Split) -> dict[str, Any]:
    """What every entry in metrics.json has."""
    card = twins[0].card
    left_out = card.get("left_out", {})
    return {
        "name": family.name,
        "title": family.title,
        "trained": family.plan is not None,
        "parameters": card["parameters"],
        "training_seconds": float(np.mean([t.card["training_seconds"] for t in twins])) if family.plan else 0.0,
        "microseconds_per_step": protocol.microseconds_per_step(twins[0], split.test[0]),
        "microcontroller": _on_microcontroller(twins[0], split.test[0]),
        "seeds": [t.card["seed"] for t in twins],
        "twin": f"twins/{family.name}-{card['seed']}.twin",
        "history": {str(t.card["seed"]): _epochs(t) for t in twins},
        "left_out_rmse": left_out.get("rmse"),
    }


REPLAYED = 20  # samples that the emulator runs


def _on_microcontroller(one: Twin, record: Record) -> dict[str, Any] | None:
    """What the twin's C costs on a Cortex-M4; None where the tools to find out are not installed."""
    if not cost.available():
        return None
    start, inputs = one.fed(record)
    try:
        spent = cost.measure(c.emit(one), start, inputs[:REPLAYED])
    except CelltwinError as error:
        log.warning("%s on a microcontroller: %s", one.name, error)
        return None
    return {
        "cpu": spent.cpu,
        "flash_bytes": spent.flash,
        "ram_bytes": spent.ram,
        "stack_bytes": spent.stack,
        "instructions": spent.instructions,
        "estimated_microseconds": spent.microseconds,
    }


def _epochs(one: Twin) -> list[dict[str, float]]:
    unit = "_rmse" if one.task == "voltage" else ""
    return [
        {
            "epoch": p["round"],
            f"train{unit}": p["train"],
            f"validate{unit}": p["validate"],
            "seconds": p["seconds"],
        }
        for p in one.card["history"]
    ]


def _write_predictions(rows: Sequence[protocol.Row], path: Path) -> None:
    tables = []
    for row in rows:
        record, n = row["record"], len(row["record"])
        made = {"soc": record.soc} | protocol.columns(row)
        columns = record.table(made).select([*record.table().column_names[:4], *made])
        for name, value in (
            ("split", row["split"]),
            ("ambient_degC", record.ambient_degC),
            ("cycle", record.name),
            ("record", record.key),
        ):
            columns = columns.add_column(0, name, pa.array([value] * n))
        tables.append(columns)
    files.write_table(path, pa.concat_tables(tables))


WOKEN = (0.0, 0.5)  # starts whose estimates are written


def _write_estimates(one: Twin, split: Split, path: Path) -> None:
    tables = []
    for start in WOKEN:
        for row in protocol.evaluate(one, [protocol.from_fraction(r, start) for r in split.test]):
            record, n = row["record"], len(row["record"])
            columns = {"soc": record.soc, "estimated_soc": row["output"].soc, "soc_std": row["output"].std}
            table = record.table(columns | {"in_domain": row["in_domain"]})
            table = table.select([*table.column_names[:4], *columns, "in_domain"])
            for name, value in (
                ("start", start),
                ("ambient_degC", record.ambient_degC),
                ("cycle", record.name),
                ("record", record.key),
            ):
                table = table.add_column(0, name, pa.array([value] * n))
            tables.append(table)
    files.write_table(path, pa.concat_tables(tables))


def curves(one: Twin, split: Split) -> dict[str, Any]:
    """What a model learned of the cell, probed through its own step: OCV and resistances over SOC and temperature.

    OCV is the voltage in the first moment at rest. Resistances are dV/dI of a 1C discharge: after its first second
    (`r0_ohm`) and after a minute (`r_total_ohm`).
    """
    soc = np.linspace(0.02, 1.0, 50)
    ambients = {r.ambient_degC for r in split.train if not np.isnan(r.ambient_degC)}
    temperatures = sorted(ambients or {round(float(np.median(split.train[0].filled_temperature)), 1)})
    probes = [twin.probe(one.model, soc, temperature, one.cell) for temperature in temperatures]
    ocv, at_once, later = ([[round(float(v), 6) for v in probe[i]] for probe in probes] for i in range(3))
    return {"soc": soc, "temperature_degC": temperatures, "ocv_volt": ocv, "r0_ohm": at_once, "r_total_ohm": later}
