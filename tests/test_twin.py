"""A twin comes back from its file to the bit; a file that is none is refused and never run."""

import json
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import reference
from celltwin import files
from celltwin import twin as twins_module
from celltwin.data.domain import Domain
from celltwin.errors import CelltwinError
from celltwin.learning.bands import Bands
from celltwin.twin import FORMAT, Twin, load, probe


@pytest.fixture
def saved(twins, tmp_path):
    return twins["thevenin"].save(tmp_path / "cell.twin")


def rewritten(path, change):
    """The file with another header; the arrays stay."""
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["about"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(about)
    save_file(arrays, path, {"about": json.dumps(about)})
    return path


# --- round trip ----------------------------------------------------------------------------------------------------


def test_a_twin_comes_back_to_the_bit(twin, drives, tmp_path):
    record = drives["5degC", "LA92"]
    back = load(twin.save(tmp_path / "cell.twin"))
    assert (back.name, back.cell, back.card) == (twin.name, twin.cell, twin.card)
    assert type(back.model) is type(twin.model)
    assert eqx.tree_equal(back.model, twin.model)
    assert back.domain.ranges() == twin.domain.ranges()
    assert back.domain.seen == twin.domain.seen
    before, after = twin.simulate(record), back.simulate(record)
    np.testing.assert_array_equal(before.voltage, after.voltage)
    np.testing.assert_array_equal(before.soc, after.soc)
    np.testing.assert_array_equal(twin.in_domain(record, before.soc), back.in_domain(record, after.soc))


BANDS = Bands((7.5, 22.5), ((0.01, 0.02, 0.03), (0.1 / 3, 0.005, 0.006)), 0.9, 2.5, 6)


def test_bands_travel_with_a_twin(twins, drives, tmp_path):
    banded, record = replace(twins["thevenin"], bands=BANDS), drives["5degC", "LA92"]
    back = load(banded.save(tmp_path / "cell.twin"))
    assert back.bands == BANDS
    output = back.simulate(record)
    low, high = back.band(record, output)
    np.testing.assert_allclose((low + high) / 2, output.voltage, rtol=1e-12)
    np.testing.assert_allclose((high - low) / 2, BANDS.half_width(output.soc, record.filled_temperature), rtol=1e-9)
    assert twins["thevenin"].band(record, output) is None


def test_a_twin_of_before_there_were_bands_loads(saved):
    assert load(rewritten(saved, lambda about: about.pop("bands"))).bands is None


@pytest.mark.parametrize(
    "bands",
    [
        {},
        {"temperature_degC": [7.5], "half_width_volt": [[0.01], [0.02]]},
        {"temperature_degC": [7.5], "half_width_volt": [[0.01, -0.02]]},
        {"temperature_degC": [7.5], "half_width_volt": [["wide"]]},
        {"temperature_degC": [7.5], "half_width_volt": [[0.01]], "shape": "round"},
    ],
)
def test_damaged_bands_are_refused(saved, bands):
    path = rewritten(saved, lambda about: about.update(bands=bands or {"level": 0.9}))
    with pytest.raises(CelltwinError, match="is damaged"):
        load(path)


def test_a_model_of_scalars_and_nothing_comes_back(twins, tmp_path):
    for model in (eqx.tree_at(lambda d: d.low, twins["hold"].domain, jnp.float32(3.0)), twins["hold"].model):
        back = load(replace(twins["hold"], model=model).save(tmp_path / "cell.twin"))
        assert eqx.tree_equal(back.model, model)


def test_what_cannot_be_described_is_not_saved(twins, tmp_path):
    class Strange(eqx.Module):
        function: object = eqx.field(static=True)

    with pytest.raises(CelltwinError, match="a model holds a function"):
        replace(twins["hold"], model=Strange(lambda: 0)).save(tmp_path / "cell.twin")
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_leaves_the_old_twin(saved, twins, monkeypatch):
    before = saved.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(files, "safetensors_bytes", fail)
    with pytest.raises(CelltwinError, match=r"cannot write .*disk full"):
        twins["narx"].save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b[:-1],
        lambda b: b"",
        lambda b: np.random.default_rng(0).bytes(4096),
        lambda b: b"\x80\x04\x95" + b,
    ],
    ids=["half", "one byte less", "empty", "random", "pickle"],
)
def test_a_damaged_file_is_refused(saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(CelltwinError, match="damaged"):
        load(saved)


def test_foreign_files_are_refused(tmp_path, twins):
    save_file({"weight": np.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(CelltwinError, match="not a file of celltwin"):
        load(tmp_path / "foreign")
    files.save_tree(tmp_path / "checkpoint", {"x": jnp.zeros(2)}, {"identity": {}, "history": []})
    with pytest.raises(CelltwinError, match="is not a twin"):
        load(tmp_path / "checkpoint")
    with pytest.raises(CelltwinError, match="no file"):
        load(tmp_path / "none.twin")


def test_a_newer_format_is_refused(saved):
    rewritten(saved, lambda about: about.update(format=FORMAT + 1))
    with pytest.raises(CelltwinError, match=r"newer celltwin.*fix: upgrade"):
        load(saved)


@pytest.mark.parametrize("change", [lambda f: f.pop("log_tau"), lambda f: f.update(log_thermal={"value": 1.0})])
def test_a_model_of_other_fields_is_refused(saved, change):
    with pytest.raises(CelltwinError, match=r"Thevenin of another version.*fix: train it again"):
        load(rewritten(saved, lambda about: change(about["modules"][0]["fields"])))


def test_a_field_that_came_later_has_its_default(saved):
    old = load(rewritten(saved, lambda about: about["modules"][0]["fields"].pop("cold_reach")))
    assert (old.model.cold_reach, load(saved).model.temperatures) == (0.0, old.model.temperatures)


MALICIOUS = [
    "os:system",
    "subprocess:Popen",
    "builtins:eval",
    "celltwin.cli:app",
    "celltwin.twin:load",
    "celltwin.data.record:Record",
    "celltwin.files:os.system",
    "celltwin..evil:Module",
    "equinox:Module.__init__",
    "antigravity:Module",
    "",
    "os",
    "os:system:x",
]


@pytest.mark.parametrize("name", MALICIOUS)
def test_nothing_but_models_is_ever_made(saved, name, monkeypatch):
    import sys

    def change(about):
        about["modules"][0]["module"] = name

    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    with pytest.raises(CelltwinError, match="needs the model class"):
        load(rewritten(saved, change))
    assert "antigravity" not in sys.modules


def drop(*path):
    def change(about):
        for key in path[:-1]:
            about = about[key]
        del about[path[-1]]

    return change


def put(value, *path):
    def change(about):
        for key in path[:-1]:
            about = about[key]
        about[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        drop("modules", 0, "fields"),
        drop("modules", 0, "fields", "log_tau", "array"),
        put("text", "modules", 0, "fields", "log_tau"),
        put([7], "modules", 0, "fields", "log_tau", "array"),
        put("no dtype", "modules", 0, "fields", "log_tau", "dtype"),
        put({"nothing": 1}, "modules", 0),
        put([], "modules"),
        put({}, "cell"),
        drop("cell"),
        drop("format"),
        drop("card"),
        put("one", "format"),
    ],
)
def test_a_header_that_was_tampered_with_is_refused(saved, change):
    with pytest.raises(CelltwinError):
        load(rewritten(saved, change))


# --- what it knows of the cell -------------------------------------------------------------------------------------


def test_unknown_soc_is_read_from_a_rested_start(twins, drives):
    record = replace(drives["25degC", "LA92"], cell=None, initial_soc=float("nan"))
    twin = twins["ohmic"]
    rested = record.between(0, 5)
    ocv = float(probe(twin.model, np.array([0.7]), float(rested.filled_temperature[0]), twin.cell)[0][0])
    at_rest = replace(rested, voltage=np.full(5, ocv))
    filled = twin.with_facts(at_rest)
    assert filled.initial_soc == pytest.approx(0.7, abs=0.01)
    assert filled.cell == reference.CELL
    loaded = replace(record, current=record.current - 1.0, net_capacity=None)
    with pytest.raises(CelltwinError, match=r"initial SOC .* unknown.*--initial-soc"):
        twin.with_facts(loaded)


def test_known_facts_are_kept(twins, drives):
    record = drives["25degC", "LA92"]
    assert twins["ohmic"].with_facts(record) is record


def test_in_domain_says_where_it_was_trained(twins, drives):
    twin, record = twins["ohmic"], drives["25degC", "Mixed1"]
    soc = record.soc
    assert twin.in_domain(record, soc).all()
    hot = replace(record, temperature=record.temperature + 40.0)
    assert not twin.in_domain(hot, soc).any()
    assert not twin.in_domain(record, soc - 1.0)[1:].any()


def test_probing_a_circuit_gives_its_tables(twins):
    twin = twins["ohmic"]
    soc = np.linspace(0.1, 0.9, 5)
    ocv, at_once, later = probe(twin.model, soc, 25.0, twin.cell)
    curve = [reference.ocv(twin.model.ocv, s, 25.0) for s in soc]
    resistance = np.exp(reference.along_temperature(twin.model.log_resistance, 25.0, twin.model.temperatures))
    np.testing.assert_allclose(ocv, curve, atol=1e-4)
    np.testing.assert_allclose(at_once, resistance, rtol=0.03)
    assert (later > at_once).all()  # the curve falls while it discharges


def test_the_domain_travels_as_a_domain(saved):
    twin = load(saved)
    assert isinstance(twin, Twin)
    assert isinstance(twin.domain, Domain)
    assert twins_module.load is load


def test_soc_is_not_read_from_a_voltage_that_was_not_measured(twins, drives):
    record = next(iter(drives.values()))
    voltage = np.r_[np.nan, record.voltage[1:]]
    blank = replace(record, voltage=voltage, current=record.current * 0, net_capacity=None, initial_soc=float("nan"))
    with pytest.raises(CelltwinError, match=r"initial SOC .* unknown.*not measured"):
        twins["thevenin"].rested_soc(blank)
