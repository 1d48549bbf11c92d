"""`celltwin ensemble` makes one twin of the seeds of a run, and refuses what is none."""

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from celltwin import benchmark, experiment, files, jobs, twin
from celltwin.cli import app
from celltwin.data import datasets


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_plans):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["ensemble", *map(str, arguments)])


def test_the_seeds_of_a_run_become_one_twin(run, finished_run, dataset_folder, tmp_path):
    folder, _ = finished_run
    done = run(folder, "hybrid", "--out", "cell.twin")
    assert done.exit_code == 0, done.output
    assert "2 seeds of hybrid: validation RMSE" in done.output
    made = twin.load("cell.twin")
    members = [twin.load(folder / "twins" / f"hybrid-{seed}.twin") for seed in (0, 1)]
    assert (made.name, made.card["seed"]) == ("hybrid-ensemble", [0, 1])
    assert made.card["parameters"] == 2 * members[0].card["parameters"]
    record = datasets.load(dataset_folder).split().test[0]
    mean = np.mean([one.simulate(record).voltage for one in members], axis=0)
    np.testing.assert_allclose(made.simulate(record).voltage, mean, atol=3e-6)
    assert made.bands is not None
    assert made.bands != members[0].bands


def test_the_folds_of_a_run_set_the_band_of_its_ensembles(run, dataset_folder, tmp_path):
    dataset = datasets.load(dataset_folder)
    split = dataset.split()
    benchmark.run(dataset, split, ["hybrid"], tmp_path / "run", seeds=(3, 4), folds=2)
    done = run(tmp_path / "run", "hybrid", "--out", "cell.twin")
    assert done.exit_code == 0, done.output
    made, member = (twin.load(path) for path in ("cell.twin", tmp_path / "run" / "twins" / "hybrid-3.twin"))
    assert made.bands.cycles == member.bands.cycles == len(split.train) + len(split.validate)
    unseen = jobs.unseen_in(tmp_path / "run", "hybrid", experiment.load(tmp_path / "run"), split)
    assert made.bands == jobs.with_bands(made, split, unseen).bands


def test_what_is_no_ensemble_is_refused(run, finished_run, tmp_path):
    folder, _ = finished_run
    for arguments, message in (
        ((folder, "ohmic"), "too few seeds of ohmic"),
        ((folder, "soc-ekf"), "too few seeds of soc-ekf"),
        ((tmp_path / "none", "hybrid"), "there is no experiment"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())


def test_a_run_on_other_data_is_refused(run, finished_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished_run[0], folder)
    config = files.read_json(folder / "config.json")
    config["records"]["train"] = dict.fromkeys(config["records"]["train"], "0" * 64)
    files.write_json(folder / "config.json", config)
    done = run(folder, "hybrid")
    assert done.exit_code == 2
    assert not list(tmp_path.glob("*.twin"))
