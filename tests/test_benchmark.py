"""A run folder holds all it promises, repeats itself, and a killed run ends where it would have ended."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from celltwin import benchmark, files, jobs, models
from celltwin import twin as twin_file
from celltwin.data import datasets
from celltwin.data.splits import Split, folds
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.learning import bands


@pytest.fixture(scope="module")
def dataset(dataset_folder):
    return datasets.load(dataset_folder)


# --- the run folder ------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_it_promises(finished_run):
    out, _ = finished_run
    written = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert written == {
        "config.json",
        "environment.json",
        "log.txt",
        "metrics.json",
        "report.html",
        "predictions/ohmic.parquet",
        "predictions/hybrid.parquet",
        "twins/ohmic-0.twin",
        "twins/thevenin-0.twin",
        "twins/hybrid-0.twin",
        "twins/hybrid-1.twin",
    }
    assert "hybrid-1 round 2/2: train" in (out / "log.txt").read_text()
    assert files.read_json(out / "environment.json")["packages"].keys() >= {"celltwin", "jax", "numpy"}


def test_metrics_have_their_schema(finished_run, dataset):
    out, returned = finished_run
    metrics = files.read_json(out / "metrics.json")
    assert metrics == returned
    assert set(metrics) == {"task", "celltwin", "created", "seconds", "quick", "dataset", "models"}
    assert metrics["task"] == "voltage"
    assert metrics["dataset"]["cell"]["reference_capacity_ah"] == 1.0
    assert metrics["dataset"]["split"] == jobs.labels(dataset.split())
    ohmic, hybrid = metrics["models"]
    assert [ohmic["name"], ohmic["trained"], ohmic["seeds"]] == ["ohmic", False, [0]]
    assert [hybrid["name"], hybrid["trained"], hybrid["seeds"]] == ["hybrid", True, [0, 1]]
    for model in (ohmic, hybrid):
        assert {(r["split"], r["seed"]) for r in model["rows"]} == {
            (side, seed) for side in ("validate", "test") for seed in model["seeds"]
        }
        for row in model["rows"]:
            assert {"cycle", "cell", "ambient_degC", "rmse", "mae", "max", "p99", "n", "out_of_domain"} <= set(row)
            assert 0 < row["mae"] <= row["rmse"] <= row["max"]
            assert 0 <= row["coverage"] <= 1
            assert row["half_width"] > 0
        assert set(model["overall"]) == {
            "rmse", "rmse_std", "mae", "max", "p99", "mean_max", "coverage", "half_width",
        }  # fmt: skip
        assert (out / model["twin"]).is_file()
        curves = model["curves"]
        assert np.shape(curves["ocv_volt"]) == (len(curves["temperature_degC"]), len(curves["soc"])) == (2, 50)
    assert hybrid["parameters"] > 1000
    assert [len(epochs) for epochs in hybrid["history"].values()] == [2, 2]


def test_the_spread_over_seeds_is_reported(finished_run):
    ohmic, hybrid = finished_run[1]["models"]
    by_seed = [
        np.mean([r["rmse"] for r in hybrid["rows"] if r["split"] == "test" and r["seed"] == seed]) for seed in (0, 1)
    ]
    assert by_seed[0] != by_seed[1]
    assert hybrid["overall"]["rmse"] == pytest.approx(np.mean(by_seed))
    assert hybrid["overall"]["rmse_std"] == pytest.approx(np.std(by_seed, ddof=1))
    assert ohmic["overall"]["rmse_std"] is None


def test_figures_are_those_of_the_twins(finished_run, dataset):
    out, metrics = finished_run
    hybrid = metrics["models"][1]
    for seed in (0, 1):
        one = twin_file.load(out / "twins" / f"hybrid-{seed}.twin")
        rows = protocol.evaluate(one, dataset.split().test)
        expected = [r["rmse"] for r in hybrid["rows"] if r["seed"] == seed and r["split"] == "test"]
        assert [r["rmse"] for r in rows] == pytest.approx(expected, rel=1e-6)
        assert one.card["seed"] == seed
        assert one.card["dataset"] == dataset.name


def test_predictions_are_what_was_scored(finished_run):
    out, metrics = finished_run
    table = pq.read_table(out / "predictions" / "hybrid.parquet").to_pydict()
    columns = {k: np.array(v) for k, v in table.items()}
    assert list(columns)[:4] == ["record", "cycle", "ambient_degC", "split"]
    assert set(columns) >= {"test_time_second", "voltage_volt", "current_ampere", "soc", "simulated_voltage_volt"}
    rows = [r for r in metrics["models"][1]["rows"] if r["seed"] == 0]
    assert len(columns["record"]) == sum(r["n"] for r in rows)
    for row in rows:
        mine = (columns["cycle"] == row["cycle"]) & (columns["ambient_degC"] == row["ambient_degC"])
        error = 1e3 * (columns["simulated_voltage_volt"] - columns["voltage_volt"])[mine]
        assert np.sqrt(np.mean(error**2)) == pytest.approx(row["rmse"], rel=1e-6)


def test_a_hybrid_corrects_its_own_circuit(finished_run):
    out, metrics = finished_run
    assert [m["name"] for m in metrics["models"]] == ["ohmic", "hybrid"]  # the circuit was not asked for
    circuit = twin_file.load(out / "twins" / "thevenin-0.twin").model
    for seed in (0, 1):
        inner = twin_file.load(out / "twins" / f"hybrid-{seed}.twin").model.base.circuit
        np.testing.assert_array_equal(inner.log_resistance, circuit.log_resistance)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_folder_with_other_things_is_refused(dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(CelltwinError, match="is not empty and holds no run"):
        benchmark.run(dataset, dataset.split(), ["hold"], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_is_not_overwritten_and_not_mixed(dataset, tmp_path):
    benchmark.run(dataset, dataset.split(), ["hold"], tmp_path / "run")
    with pytest.raises(CelltwinError, match=r"already holds a run.*--resume"):
        benchmark.run(dataset, dataset.split(), ["hold"], tmp_path / "run")
    for changed in ({"names": ["ohmic"]}, {"seeds": (1,)}, {"split": dataset.split("cold")}):
        arguments = {"split": dataset.split(), "names": ["hold"], "out": tmp_path / "run", "resume": True} | changed
        with pytest.raises(CelltwinError, match="other settings or other data"):
            benchmark.run(dataset, **arguments)
    again = benchmark.run(dataset, dataset.split(), ["hold"], tmp_path / "run", resume=True)
    assert [m["name"] for m in again["models"]] == ["hold"]


def test_an_empty_side_is_refused(dataset, tmp_path):
    split = dataset.split()
    with pytest.raises(CelltwinError, match="no test records"):
        benchmark.run(dataset, replace(split, test=()), ["hold"], tmp_path / "a")
    with pytest.raises(CelltwinError, match="no record to train on"):
        benchmark.run(dataset, Split(train=(), validate=(), test=split.test), ["hold"], tmp_path / "b")


def test_an_unknown_model_is_refused(dataset, tmp_path):
    with pytest.raises(CelltwinError, match="no model 'lstn'"):
        benchmark.run(dataset, dataset.split(), ["lstn"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_jobs_begin_with_the_base_and_do_not_repeat_what_has_no_seed(dataset):
    names = [job.name for job in jobs.jobs_of(["hybrid", "ohmic", "hybrid"], (3, 4), False, dataset.split())]
    assert names[0] == "thevenin-3"
    assert sorted(names) == ["hybrid-3", "hybrid-4", "ohmic-3", "thevenin-3"]
    assert names[-2:] == ["hybrid-3", "hybrid-4"]
    both = [job.name for job in jobs.jobs_of(["hybrid", "hybrid-gru"], (3,), False, dataset.split())]
    assert both == ["thevenin-3", "hybrid-3", "hybrid-gru-3"]


def test_folds_come_last_are_of_the_first_seed_and_have_a_base_of_their_own(dataset):
    made = jobs.jobs_of(["hybrid"], (3, 4), False, dataset.split(), folds=2)
    assert [job.name for job in made] == [
        "thevenin-3", "hybrid-3", "hybrid-4",
        "thevenin-3.fold0", "thevenin-3.fold1", "hybrid-3.fold0", "hybrid-3.fold1",
    ]  # fmt: skip


def tables(out, name):
    """Resistances of a saved circuit, or of the one that a hybrid is built on."""
    model = twin_file.load(out / f"{name}.twin").model
    return np.asarray((model.base.circuit if hasattr(model, "base") else model).log_resistance)


def test_a_run_from_before_there_were_folds_goes_on(finished_run, tmp_path):
    config = files.read_json(finished_run[0] / "config.json")
    before = {key: value for key, value in config.items() if key != "folds"}
    files.write_json(tmp_path / "config.json", before)
    benchmark.begin(tmp_path, config, resume=True)
    files.write_json(tmp_path / "config.json", before)
    with pytest.raises(CelltwinError, match="other settings"):
        benchmark.begin(tmp_path, config | {"folds": 2}, resume=True)


@pytest.mark.usefixtures("tiny_plans")
def test_bands_of_folds_are_those_of_cycles_that_no_model_saw(dataset, tmp_path):
    split, out = dataset.split(), tmp_path / "run"
    metrics = benchmark.run(dataset, split, ["hybrid", "ohmic"], out, folds=2)
    assert sorted(path.stem for path in (out / "twins").iterdir()) == ["hybrid-0", "ohmic-0", "thevenin-0"]
    parts = folds(split, 2)
    for name in ("ohmic", "thevenin", "hybrid"):
        of_folds = [twin_file.load(out / "folds" / f"{name}-0.fold{k}.twin") for k in range(2)]
        for one, fold in zip(of_folds, parts, strict=True):
            assert one.domain.seen == tuple(sorted(r.content_hash for r in fold.split.train))
        unseen = [e for one, fold in zip(of_folds, parts, strict=True) for e in jobs.errors_left_out(one, fold)]
        made = twin_file.load(out / "twins" / f"{name}-0.twin")
        assert made.bands == jobs.with_bands(made, split, unseen).bands
        said = {model["name"]: model["left_out_rmse"] for model in metrics["models"]}
        assert said.get(name, bands.rmse(unseen)) == pytest.approx(bands.rmse(unseen))  # the circuit was not asked for
    assert set(said) == {"hybrid", "ohmic"}
    assert made.bands.cycles == len(split.train) + len(split.validate)
    whole, *circuits = (tables(out, "twins/thevenin-0"), *(tables(out, f"folds/thevenin-0.fold{k}") for k in range(2)))
    for k, circuit in enumerate(circuits):  # a hybrid of a fold stands on the circuit of its fold
        assert np.array_equal(tables(out, f"folds/hybrid-0.fold{k}"), circuit)
        assert not np.array_equal(circuit, whole)
    with pytest.raises(CelltwinError, match="has seen"):
        jobs.errors_left_out(twin_file.load(out / "twins" / "hybrid-0.twin"), parts[0])
    again = benchmark.run(dataset, split, ["hybrid", "ohmic"], out, folds=2, resume=True)
    assert [m["overall"] for m in again["models"]] == [m["overall"] for m in metrics["models"]]
    with pytest.raises(CelltwinError, match="folds are for the bands of voltage models"):
        benchmark.run(dataset, split, ["soc-coulomb"], tmp_path / "soc", folds=2)


def test_quick_is_a_fifth_and_at_least_one_round():
    for name in ("thevenin", "narx"):
        plan = models.family(name).plan
        fewer = jobs.quick(plan)
        assert 1 <= fewer.adam_rounds + fewer.lbfgs_rounds <= max(1, (plan.adam_rounds + plan.lbfgs_rounds) // 5)


# --- killed and resumed --------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
from dataclasses import replace
from pathlib import Path
from celltwin import benchmark, models
from celltwin.data import datasets
from celltwin.learning.plan import Plan

folder, out, resume, pause = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "resume", float(sys.argv[4])
plans = {
    "thevenin": Plan(lbfgs_rounds=3, iterations=3),
    "narx": Plan(adam_rounds=4, updates=5, lanes=4, chunk=50),
}
for name, plan in plans.items():
    models._families[name] = replace(models.family(name), plan=plan)

def listen(job, share, progress):
    if progress is not None:
        print(job, progress.round, flush=True)
        time.sleep(pause)

dataset = datasets.load(folder)
benchmark.run(dataset, dataset.split(), list(plans), out, resume=resume, listen=listen)
"""


def start(folder, out, *, resume=False, pause=0.0):
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(out), "resume" if resume else "new", str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return printed.split("\n")


def scored(out):
    """All of metrics.json that does not depend on the clock."""
    metrics = json.loads((out / "metrics.json").read_text())
    rounds = [[(e["train_rmse"], e["validate_rmse"]) for e in m["history"]["0"]] for m in metrics["models"]]
    return [(m["name"], m["rows"], m["overall"], m["curves"]) for m in metrics["models"]], rounds


def test_a_killed_run_ends_as_if_it_had_been_left_alone(dataset_folder, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    finish(start(dataset_folder, alone))
    process = start(dataset_folder, killed, pause=0.5)
    checkpoint = killed / "checkpoints" / "narx-0.safetensors"
    deadline = time.monotonic() + 90
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "metrics.json").exists()

    done = len(files.load_about(checkpoint)["history"])
    assert 1 <= done < 4
    printed = finish(start(dataset_folder, killed, resume=True))
    assert [line for line in printed if line.startswith("narx")] == [f"narx-0 {n}" for n in range(done + 1, 5)]
    assert scored(killed) == scored(alone)
    assert not checkpoint.exists()
