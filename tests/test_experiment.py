"""An experiment is read strictly, runs from its file, and runs again from its folder to the same figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from celltwin import experiment, files, models, pack_benchmark
from celltwin.cli import app
from celltwin.errors import CelltwinError
from celltwin.experiment import Experiment, load

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


def written(folder, text, name="experiment.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_repository_s_experiments_are_valid(path):
    asked = load(path)
    assert asked.title
    for name in asked.models or ():
        assert name in pack_benchmark.TITLES or models.family(name).task == (asked.task or "voltage")
    if "/" in asked.dataset:
        assert Path(asked.dataset).is_file()


def test_what_is_left_out_has_its_default(tmp_path):
    asked = load(written(tmp_path, "seeds = 3\n[training.narx]\nadam_rounds = 4\n"))
    assert (asked.dataset, asked.task, asked.models, asked.seed_numbers) == ("demo", None, None, [0, 1, 2])
    assert asked.changes == {"narx": {"adam_rounds": 4}}
    assert load(written(tmp_path, "seeds = [5, 1]")).seed_numbers == [5, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ['narx']", "did you mean 'models'"),
        ("[training.narx]\nadam_round = 3", "did you mean 'adam_rounds'"),
        ("[training.narx]\nadam_rounds = -3", "training.narx.adam_rounds"),
        ("[training.narx]\nseed = 3", "training.narx has a seed"),
        ("[split]\ntest = ['LA92']", "written in dataset.toml"),
        ("task = 'volts'", "task"),
        ("seeds = 0", "seeds"),
        ("models = []", "models"),
        ("seeds = ", "not valid TOML"),
    ],
)
def test_a_wrong_key_is_refused_with_the_nearest(tmp_path, text, message):
    with pytest.raises(CelltwinError, match=message.replace("[", r"\[")):
        load(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CelltwinError, match="there is no experiment"):
        load(tmp_path / "none.toml")
    with pytest.raises(CelltwinError, match="there is no experiment"):
        load(tmp_path)  # a folder, but of no run
    with pytest.raises(CelltwinError, match="not valid JSON"):
        load(written(tmp_path, "{", "config.json"))


def test_other_data_are_told_apart():
    records = {"train": {"a": "1", "b": "2"}, "test": {"c": "3"}}
    experiment.refuse_other_data(Experiment(), records)
    experiment.refuse_other_data(Experiment(records=records), records)
    for other, got in (
        ({"train": {"a": "1", "b": "9"}, "test": {"c": "3"}}, "changed train: b"),
        ({"train": {"a": "1"}, "test": {"c": "3"}}, "missing train: b"),
        ({"train": {"a": "1", "b": "2"}, "test": {"c": "3", "d": "4"}}, "in excess test: d"),
    ):
        with pytest.raises(CelltwinError, match=got):
            experiment.refuse_other_data(Experiment(records=records), other)


def invoke(*command):
    result = CliRunner().invoke(app, [str(part) for part in command])
    return result.exit_code, result.output


FIGURES = ("rmse", "mae", "max", "p99", "bias")


def test_a_run_folder_runs_again_to_the_same_figures(tmp_path, monkeypatch, dataset_folder, tiny_plans):
    monkeypatch.chdir(tmp_path)
    text = (
        f"title = 'first'\ndataset = {json.dumps(str(dataset_folder))}\nmodels = ['ohmic', 'hybrid']\nseeds = [2, 3]\n"
    )
    path = written(tmp_path, text + "[training.hybrid]\nupdates = 3\n")
    status, printed = invoke("benchmark", "--config", path, "--out", "first")
    assert status == 0, printed
    config = files.read_json("first/config.json")
    assert config["title"] == "first"
    assert config["training"]["hybrid"]["updates"] == 3
    assert config["training"]["thevenin"]["updates"] == 5  # its base, as it was trained
    status, printed = invoke("benchmark", "--config", "first/config.json", "--out", "again")
    assert status == 0, printed
    assert files.read_json("again/config.json") == config
    assert "the same figures as in first" in " ".join(printed.split())
    first, again = (files.read_json(f"{name}/metrics.json")["models"] for name in ("first", "again"))
    assert [m["name"] for m in first] == [m["name"] for m in again] == ["ohmic", "hybrid"]
    for before, after in zip(first, again, strict=True):
        assert len(before["rows"]) == len(after["rows"]) > 0
        for one, two in zip(before["rows"], after["rows"], strict=True):
            assert [one[k] for k in ("cycle", "seed", "split")] == [two[k] for k in ("cycle", "seed", "split")]
            np.testing.assert_allclose([one[k] for k in FIGURES], [two[k] for k in FIGURES], rtol=0, atol=1e-6)
    for option, value, expected in (
        ("--models", "ohmic", "the same figures as in first, for ohmic"),
        ("--models", "hold", "not compared with first, which has other models"),
        ("--seed", 7, "not compared with first, which was asked for other data, seeds or training"),
    ):
        chosen = ["--models", "ohmic"] if option == "--seed" else []
        status, printed = invoke("benchmark", "--config", "first", option, value, *chosen, "--out", f"other-{value}")
        assert status == 0, printed
        assert expected in " ".join(printed.split())


def test_options_win_over_the_file(tmp_path, monkeypatch, dataset_folder, tiny_plans):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "dataset = 'nowhere'\nmodels = ['narx']\nseeds = 4\n[training.narx]\nupdates = 3\n")
    status, printed = invoke(
        "benchmark", "--config", path, "--data", dataset_folder, "--models", "ohmic", "--seeds", 1, "--out", "run"
    )
    assert status == 0, printed
    config = files.read_json("run/config.json")
    assert (config["models"], config["seeds"], config["training"]) == (["ohmic"], [0], {})


def test_changes_of_a_model_that_is_not_trained_are_refused(tmp_path, monkeypatch, dataset_folder):
    monkeypatch.chdir(tmp_path)
    text = f"dataset = {json.dumps(str(dataset_folder))}\nmodels = ['ohmic']\n[training.narx]\nupdates = 3\n"
    status, printed = invoke("benchmark", "--config", written(tmp_path, text), "--out", "run")
    assert status == 2
    assert "training.narx changes nothing" in " ".join(printed.split())


def test_other_data_than_the_run_s_are_refused(tmp_path, monkeypatch, dataset_folder, finished_run):
    folder, _ = finished_run
    monkeypatch.chdir(tmp_path)
    status, printed = invoke("benchmark", "--config", folder, "--split", "cold", "--out", "run")
    assert status == 2
    assert "are not those of the experiment" in " ".join(printed.split())
    assert not Path("run").exists()
