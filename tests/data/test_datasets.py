"""Datasets: what a dataset.toml says is what the records know; what it gets wrong is named with its remedy."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

import reference
from celltwin.data import datasets
from celltwin.errors import CelltwinError


@pytest.fixture
def folder(dataset_folder, tmp_path):
    """A copy of the simulated dataset, to change."""
    return shutil.copytree(dataset_folder, tmp_path / "simulated")


@pytest.fixture
def toml(folder):
    """Changes the folder's dataset.toml and loads it."""

    def change(old="", new="", more=""):
        path = folder / "dataset.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1) + more)
        return datasets.load(folder)

    return change


def by_key(dataset):
    return {r.key: r for r in dataset.records}


# --- what it says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["", "dataset.toml"])
def test_a_folder_becomes_records(dataset_folder, drives, where):
    dataset = datasets.load(dataset_folder / where)
    assert dataset.name == dataset_folder.name
    assert dataset.cell.reference_capacity_ah == dataset.cell.nominal_capacity_ah == 1.0
    assert set(by_key(dataset)) == {f"/{ambient}/{name}" for ambient, name in drives}
    for (ambient, name), record in drives.items():
        loaded = by_key(dataset)[f"/{ambient}/{name}"]
        assert loaded.content_hash == record.content_hash
        assert loaded.ambient_degC == float(ambient.removesuffix("degC"))
        np.testing.assert_allclose(loaded.soc, record.soc, atol=2e-3)


def test_its_splits(dataset_folder):
    dataset = datasets.load(dataset_folder)
    own, cold = dataset.split(), dataset.split("cold")
    assert [len(s) for s in (own.train, own.validate, own.test)] == [3, 1, 2]
    assert {r.ambient_degC for r in cold.train} == {25.0}
    assert {r.ambient_degC for r in cold.test} == {5.0}
    with pytest.raises(CelltwinError, match=r"no split 'cell'; got: cell; expected: cold"):
        dataset.split("cell")


def test_initial_soc_for_each_cycle(toml):
    table = "initial_soc = {Mixed1 = 1.0, Mixed2 = 0.9, UDDS = 0.95, LA92 = 0.5}\n\n[split]"
    dataset = toml("\n[split]", table)
    assert {r.name: r.initial_soc for r in dataset.records} == {"Mixed1": 1.0, "Mixed2": 0.9, "UDDS": 0.95, "LA92": 0.5}
    with pytest.raises(CelltwinError, match=r"cycle 'Mixed1' has no initial SOC.*fix: add Mixed1"):
        toml("{Mixed1 = 1.0, ", "{")


@pytest.mark.parametrize("soc", [-0.1, 50.0])
def test_an_initial_soc_that_is_no_fraction(toml, soc):
    with pytest.raises(CelltwinError, match="makes no sense"):
        toml("[records]", f"[records]\ninitial_soc = {soc}")


def test_facts_of_one_of_several_cells(folder, drives, toml):
    for name in ("A", "B"):
        (folder / name / "25degC").mkdir(parents=True)
        shutil.move(folder / "25degC" / f"Mixed{1 + (name == 'B')}.parquet", folder / name / "25degC" / "Mixed.parquet")
    dataset = toml(
        'files = "*/*.parquet"', 'files = "*/*/*.parquet"', "\n[cells.A]\n[cells.B]\nreference_capacity_ah = 0.8\n"
    )
    records = by_key(dataset)
    assert records["A/25degC/Mixed"].cell.reference_capacity_ah == 1.0
    assert records["B/25degC/Mixed"].cell.reference_capacity_ah == 0.8
    assert records["B/25degC/Mixed"].cell.voltage_limits_volt == (2.5, 4.3)
    assert dataset.cell.reference_capacity_ah == 1.0
    # The same charge is a larger part of the smaller cell.
    drop = 1.0 - drives["25degC", "Mixed2"].soc[-1]
    assert 1.0 - records["B/25degC/Mixed"].soc[-1] == pytest.approx(drop / 0.8, abs=3e-3)


def test_the_ambient_of_the_folder_wins_over_the_general_one(folder, toml):
    shutil.copy(folder / "25degC" / "UDDS.parquet", folder / "UDDS.parquet")
    (folder / "25degC" / "UDDS.parquet").unlink()
    dataset = toml('files = "*/*.parquet"', 'files = ["*/*.parquet", "*.parquet"]\nambient_degC = 23.0')
    ambients = {r.name: r.ambient_degC for r in dataset.records if r.name in ("UDDS", "Mixed2")}
    assert ambients == {"UDDS": 23.0, "Mixed2": 25.0}


def test_a_counter_that_began_earlier_moves_the_start(folder, drives):
    record = drives["25degC", "UDDS"]
    later = record.between(100)
    assert later.net_capacity[0] < -0.01
    later.save(folder / "25degC" / "UDDS.parquet")
    loaded = by_key(datasets.load(folder))["/25degC/UDDS"]
    np.testing.assert_allclose(loaded.soc, record.soc[100:], atol=2e-3)


def test_the_sign_that_files_log(folder, drives, toml):
    for (ambient, name), record in drives.items():
        negated = replace(record, current=-record.current, net_capacity=-record.net_capacity)
        negated.save(folder / ambient / f"{name}.parquet")
    with pytest.raises(CelltwinError, match=r'does not charge.*current_sign = "discharge" under \[records\]'):
        datasets.load(folder)
    dataset = toml("[records]", '[records]\ncurrent_sign = "discharge"')
    for key, record in by_key(dataset).items():
        np.testing.assert_allclose(record.current, drives[tuple(key.strip("/").split("/"))].current, atol=1e-6)


def test_columns_that_files_call_otherwise(folder, drives, toml):
    for (ambient, name), record in drives.items():
        table = record.table()
        names = ["Klemme 1" if name == "voltage_volt" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names), folder / ambient / f"{name}.parquet")
    with pytest.raises(CelltwinError, match=r"no voltage column.*\[records.columns\]"):
        datasets.load(folder)
    dataset = toml("[records]", '[records]\ncolumns = { voltage = "Klemme 1 [V]" }')
    for key, record in by_key(dataset).items():
        np.testing.assert_allclose(record.voltage, drives[tuple(key.strip("/").split("/"))].voltage, atol=1e-6)


def test_a_rested_start_is_read_from_an_ocv_table(folder, drives, toml):
    circuit, soc = reference.Circuit(), np.linspace(0.0, 1.0, 101)
    rows = "\n".join(f"{s:.4f},{circuit.ocv(s):.5f}" for s in soc)
    (folder / "ocv.csv").write_text(f"soc,ocv_volt\n{rows}\n")
    for name, start in (("LA92", 0.8), ("UDDS", 0.6)):
        reference.drive(name, seed=3, samples=300, soc=start, noise=0.0).save(folder / "25degC" / f"{name}.parquet")
    dataset = toml("[records]", '[records]\ninitial_soc = "rest"\nocv_table = "ocv.csv"')
    starts = by_key(dataset)
    assert starts["/25degC/LA92"].initial_soc == pytest.approx(0.8, abs=2e-3)
    assert starts["/25degC/UDDS"].initial_soc == pytest.approx(0.6, abs=2e-3)
    with pytest.raises(CelltwinError, match="needs an ocv_table"):
        toml('ocv_table = "ocv.csv"', "")


def test_a_rested_start_under_load_is_refused(folder, toml):
    (folder / "ocv.csv").write_text("soc,ocv_volt\n0.0,3.0\n0.5,3.7\n1.0,4.2\n")
    record = reference.drive("LA92", seed=3, samples=300).between(20)
    record.save(folder / "25degC" / "LA92.parquet")
    with pytest.raises(CelltwinError, match="'LA92' does not start at rest"):
        toml("[records]", '[records]\ninitial_soc = "rest"\nocv_table = "ocv.csv"')


def test_a_root_elsewhere(folder, tmp_path, monkeypatch, toml):
    shutil.move(folder / "25degC", tmp_path / "elsewhere" / "25degC")
    shutil.move(folder / "5degC", tmp_path / "elsewhere" / "5degC")
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    assert len(toml("[records]", '[records]\nroot = "$SOMEWHERE/elsewhere"').records) == 6


def test_a_root_of_an_unset_variable(toml, monkeypatch):
    monkeypatch.delenv("SOMEWHERE", raising=False)
    with pytest.raises(CelltwinError, match=r"not set.*export SOMEWHERE="):
        toml("[records]", '[records]\nroot = "$SOMEWHERE/elsewhere"')


# --- what it gets wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "reference_capacity_ah",
            "reference_capacity",
            "capacity_ah: .*required.*rename 'reference_capacity'",
        ),
        ("[split]", "[split]\nvalidation = []", "did you mean 'validate'"),
        ("files =", "file =", "did you mean 'files'"),
        ("[records]", "[records]\ncurrent_sign = 'down'", "records.current_sign"),
        ("[source]", "[sources]", "did you mean 'source'"),
        ('train = ["Mixed*"]', 'train = "Mixed*"', "split.train"),
        ("reference_capacity_ah = 1.0", "reference_capacity_ah = -1.0", "reference_capacity_ah of cell 'simulated'"),
        ("[2.5, 4.3]", "[4.3, 2.5]", "voltage limits"),
        ("[cell]", "[cell", "not valid TOML"),
        ("*/*.parquet", "*/*.csv", r"no file matches \*/\*.csv"),
        ('test = ["LA92"]', 'test = ["LA29"]', "'LA29' matches no record"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(toml, old, new, message):
    with pytest.raises(CelltwinError, match=message) as error:
        toml(old, new).split()
    assert error.value.fix


def test_a_dataset_needs_no_split_until_its_sides_are_asked_for(folder, drives):
    path = folder / "dataset.toml"
    text = path.read_text()
    begin = text.index("[split]")
    rest = text.find("\n[", begin + 1)
    path.write_text(text[:begin] + (text[rest:] if rest > 0 else ""))
    dataset = datasets.load(folder)
    assert len(dataset.records) == len(drives)
    with pytest.raises(CelltwinError, match=r"does not say which of its records train.*add \[split\] to dataset.toml"):
        dataset.split()


def test_an_unknown_dataset_is_answered_with_the_nearest():
    with pytest.raises(CelltwinError, match=r"no dataset 'dema'.*did you mean 'demo'"):
        datasets.load("dema")


def test_a_folder_without_description(tmp_path):
    with pytest.raises(CelltwinError, match=r"expected: a folder with a dataset.toml"):
        datasets.load(tmp_path)


def test_a_broken_log_is_named(folder):
    (folder / "25degC" / "UDDS.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(CelltwinError, match="UDDS"):
        datasets.load(folder)


# --- the bundled one -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    return datasets.load("demo")


@pytest.mark.parametrize("name", [None, "cell", "temperature"])
def test_the_demo_loads_and_splits(demo, name):
    split = demo.split(name)
    assert len(split.train) >= 4
    assert split.validate
    assert split.test
    for record in (*split.train, *split.validate, *split.test):
        assert -0.05 < record.soc.min() < record.soc.max() < 1.05, record.label


def test_the_demo_is_known_by_name():
    assert datasets.names()[0] == "demo"
    assert reference.CELL.name not in datasets.names()
