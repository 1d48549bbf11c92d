"""FMUs: valid, self-contained, and exactly the emitted C."""

import runpy
import subprocess
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from celltwin import models
from celltwin.cli import app
from celltwin.deploy import c, fmu, native
from celltwin.deploy.native import Native
from celltwin.errors import CelltwinError
from celltwin.interface import Start

fmpy = pytest.importorskip("fmpy")

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
EVERY = [family.name for family in models.families()]
KINDS = [("thevenin", "2.0"), ("thevenin", "3.0"), ("soc-coulomb", "2.0"), ("soc-observer", "3.0")]


@pytest.fixture(scope="module")
def exported(twin_of, compiler, tmp_path_factory):
    """Gives the FMU of a family and version; each is written once."""
    made, folder = {}, tmp_path_factory.mktemp("fmus")

    def get(name, version, precision="single"):
        key = name, version, precision
        if key not in made:
            where = folder / f"{name}-{version}-{precision}.fmu"
            made[key] = fmu.export(twin_of(name), where, version=version, precision=precision)[0]
        return made[key]

    return get


@contextmanager
def running(path, tmp_path, messages=None):
    """A slave that is instantiated, through FMPy."""
    from fmpy.fmi2 import FMU2Slave
    from fmpy.fmi3 import FMU3Slave

    about = fmpy.read_model_description(str(path))
    folder = fmpy.extract(str(path), str(tmp_path / path.stem))
    kind, token = (FMU2Slave, "guid") if about.fmiVersion == "2.0" else (FMU3Slave, "instantiationToken")
    slave = kind(
        guid=getattr(about, token, None) or about.guid,
        unzipDirectory=folder,
        modelIdentifier=about.coSimulation.modelIdentifier,
        instanceName="cell",
    )
    slave.instantiate()
    slave.references = {v.name: v.valueReference for v in about.modelVariables}
    yield slave
    slave.freeInstance()
    del slave


def put(slave, **values):
    setter = slave.setReal if hasattr(slave, "setReal") else slave.setFloat64
    setter([slave.references[n] for n in values], list(values.values()))


def read(slave, names):
    reals = [n for n in names if n != "valid"]
    getter = slave.getReal if hasattr(slave, "getReal") else slave.getFloat64
    values = dict(zip(reals, getter([slave.references[n] for n in reals]), strict=True))
    values["valid"] = slave.getBoolean([slave.references["valid"]])[0]
    return [float(values[n]) for n in names]


def begin(slave, time=0.0, **values):
    if hasattr(slave, "setupExperiment"):
        slave.setupExperiment(startTime=time)
        slave.enterInitializationMode()
    else:
        slave.enterInitializationMode(startTime=time)
    put(slave, **values)
    slave.exitInitializationMode()


def drive(count, estimates, seed=0):
    """Samples of irregular steps, [count] a name; to an estimator some are silent."""
    draw = np.random.default_rng(seed)
    made = {
        "voltage": 3.7 + 0.1 * draw.normal(size=count),
        "current": draw.normal(0, 1, count),
        "temperature": 25 + draw.normal(size=count),
        "dt": np.where(np.arange(count) > 0, draw.choice([0.5, 1.0, 7.0], count), 0.0),
    }
    if not estimates:
        del made["voltage"]
    else:
        made["voltage"][5::11] = np.nan
        made["current"][7::13] = np.nan
    return made


def assert_same(path, twin, ours, folder, count):
    """What comes through FMI is what the C says, to the last bit, over irregular steps and missing samples."""
    columns = drive(count, twin.task == "soc")
    source = ours.source
    state = ours.begin(Start(3.71, columns["current"][0], 24.0, 0.63, 0.97))  # pyright: ignore
    with running(path, folder) as slave:
        time = 0.0
        for k in range(count):
            sample = {n: float(column[k]) for n, column in columns.items()}
            dt = sample.pop("dt")
            if k == 0:
                begin(slave, start_soc=0.63, start_voltage=3.71, start_temperature=24.0, capacity=0.97, **sample)
            else:
                put(slave, **sample)
                slave.doStep(currentCommunicationPoint=time, communicationStepSize=dt)
            time += dt
            expected = ours.step(state, *(float(columns[n][k]) for n in source.inputs))
            assert read(slave, source.outputs) == list(map(float, expected))


@pytest.mark.parametrize("name", EVERY)
def test_every_fmu_is_the_c_exactly(name, compiled, emitted, twin_of, tmp_path, monkeypatch):
    monkeypatch.setattr(fmu, "FLAGS", ("-std=c99", "-O0", "-fPIC", "-shared", "-fvisibility=hidden"))
    made, ours = emitted(name), compiled(name)
    monkeypatch.setattr(fmu.c, "emit", lambda *_: made)
    version = fmu.VERSIONS[EVERY.index(name) % 2]
    (path,) = fmu.export(twin_of(name), tmp_path / "one.fmu", version=version)
    assert_same(path, twin_of(name), ours, tmp_path, 150)


@pytest.mark.parametrize("version", fmu.VERSIONS)
def test_in_double_precision_too(version, exported, emitted, twin_of, tmp_path):
    ours = Native(emitted("thevenin", "double"))
    assert_same(exported("thevenin", version, "double"), twin_of("thevenin"), ours, tmp_path, 300)


@pytest.mark.parametrize(("name", "version"), KINDS)
def test_an_fmu_is_valid_and_runs(name, version, exported, tmp_path):
    from fmpy.validation import validate_fmu

    path = exported(name, version)
    assert validate_fmu(str(path)) == []
    given = {"current": -1.0, "start_soc": 0.7} | ({"voltage": 3.75} if name.startswith("soc") else {})
    said = fmpy.simulate_fmu(str(path), stop_time=60.0, output_interval=2.0, start_values=given)
    assert len(said) == 31
    assert set(said.dtype.names) == {"time", "soc", "valid", "std" if name.startswith("soc") else "voltage"}
    assert said["soc"][-1] < said["soc"][0]
    assert np.isfinite(said["soc"]).all()


def test_variables_have_units_causality_and_starts(exported):
    for version in fmu.VERSIONS:
        about = fmpy.read_model_description(str(exported("thevenin", version)))
        found = {v.name: (v.causality, v.variability, v.unit, v.start) for v in about.modelVariables}
        assert found["current"] == ("input", "continuous", "A", "0.0")
        assert found["temperature"] == ("input", "continuous", "degC", "25.0")
        assert found["voltage"] == ("output", "continuous", "V", None)
        assert found["capacity"] == ("parameter", "fixed", "Ah", "1.0")
        assert found["start_soc"][0] == "parameter"
        assert {u.name for u in about.unitDefinitions} == set(fmu.UNITS)
        assert about.coSimulation.canHandleVariableCommunicationStepSize
        assert "positive = charge" in next(v.description for v in about.modelVariables if v.name == "current")


@pytest.mark.parametrize("version", fmu.VERSIONS)
def test_states_are_kept_put_back_and_written(version, exported, tmp_path):
    names = {"2.0": ("getFMUstate", "setFMUstate", "freeFMUstate", "serializeFMUstate", "deSerializeFMUstate")}
    names["3.0"] = ("getFMUState", "setFMUState", "freeFMUState", "serializeFMUState", "deserializeFMUState")
    path = exported("thevenin", version)

    def go_on(slave):
        said = []
        for k in range(20):
            put(slave, current=-0.1 * k)
            slave.doStep(currentCommunicationPoint=float(k), communicationStepSize=1.0)
            said.append(read(slave, ["voltage", "soc", "valid"]))
        return said

    with running(path, tmp_path) as slave:
        get, put_back, free, write, parse = (getattr(slave, n) for n in names[version])
        begin(slave, start_soc=0.8, current=-2.0)
        slave.doStep(currentCommunicationPoint=0.0, communicationStepSize=30.0)
        kept = get()
        written = write(kept)
        first = go_on(slave)
        put_back(kept)
        assert go_on(slave) == first
        free(kept)
    with running(path, tmp_path) as slave:  # another instance, from the bytes
        _, put_back, free, _, parse = (getattr(slave, n) for n in names[version])
        begin(slave, start_soc=0.1)
        kept = parse(written)
        put_back(kept)
        assert go_on(slave) == first
        free(kept)
        damaged = b"x" * len(written)
        with pytest.raises(Exception, match=r"(?i)serialize"):
            parse(damaged)


@pytest.mark.parametrize("version", fmu.VERSIONS)
def test_mistakes_are_errors(version, exported, tmp_path):
    with running(exported("thevenin", version), tmp_path) as slave:
        with pytest.raises(Exception, match="failed with status 3"):
            begin(slave, current=np.nan)
        slave.reset()
        begin(slave, start_soc=0.5)
        for wrong in ({"current": np.nan}, {"temperature": np.inf}, {"capacity": 2.0}, {"voltage": 4.0}):
            with pytest.raises(Exception, match="failed with status 3"):
                put(slave, **wrong)
        for step in (np.nan, -1.0):
            with pytest.raises(Exception, match="failed with status 3"):
                slave.doStep(currentCommunicationPoint=0.0, communicationStepSize=step)
        slave.doStep(currentCommunicationPoint=0.0, communicationStepSize=1.0)
        assert read(slave, ["voltage", "soc", "valid"])[1] == pytest.approx(0.5, abs=1e-6)
        slave.reset()
        begin(slave, start_soc=0.25)
        assert read(slave, ["soc", "valid"])[0] == 0.25


def test_an_unknown_start_is_the_twins_own(exported, twin_of, tmp_path):
    """Without a voltage a simulation starts at rest: no current, no change."""
    with running(exported("thevenin", "2.0"), tmp_path) as slave:
        begin(slave, start_soc=0.6)
        first = read(slave, ["voltage", "soc", "valid"])
        slave.doStep(currentCommunicationPoint=0.0, communicationStepSize=100.0)
        np.testing.assert_allclose(read(slave, ["voltage", "soc", "valid"])[:2], first[:2], atol=1e-6)
    with running(exported("soc-coulomb", "2.0"), tmp_path) as slave:  # an estimator takes its first measurement
        begin(slave, voltage=3.75, temperature=20.0)
        ours = Native(c.emit(twin_of("soc-coulomb")))
        state = ours.begin(Start(3.75, 0.0, 20.0, np.nan, 1.0))  # pyright: ignore
        assert read(slave, ["soc", "std", "valid"]) == list(map(float, ours.step(state, 3.75, 0.0, 20.0, 0.0)))


def test_the_example_meets_its_load(exported):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "fmu_load.py"))
    rows = np.array(example["discharge"](str(exported("thevenin", "2.0")), 3.0, cutoff=3.5, step=20.0))
    np.testing.assert_allclose(-rows[:, 1] * rows[:, 2], 3.0, rtol=1e-3)
    assert rows[-1, 1] < 3.5 < rows[-2, 1]
    assert (np.diff(rows[:, 3]) < 0).all()


@pytest.mark.parametrize("version", fmu.VERSIONS)
def test_sources_are_whole_and_clean(version, exported, compiler, tmp_path):
    """They compile anywhere by themselves, also under the prefix that static linking asks for."""
    path = exported("soc-coulomb", version)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    wrapper = f"fmi{version[0]}.c"
    assert {"modelDescription.xml", f"sources/{wrapper}", "sources/soc_coulomb.c", "sources/fmu.h"} <= set(names)
    assert any(name.startswith("binaries/") for name in names)
    for prefix in ([], [f"-DFMI{version[0]}_FUNCTION_PREFIX=soc_coulomb_"]):
        sources = [str(tmp_path / "sources" / file) for file in (wrapper, "soc_coulomb.c")]
        library = tmp_path / "whole.so"
        command = [*compiler, *STRICT, *prefix, "-shared", "-fPIC", "-o", str(library), *sources, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:500]
        symbol = b"soc_coulomb_fmi" if prefix else b"fmi"
        assert symbol + version[0].encode() + b"DoStep" in library.read_bytes()


def test_the_command_writes_graphs_and_fmus(twin_of, tmp_path, compiler):
    pytest.importorskip("onnx")
    twin_of("ohmic").save(tmp_path / "cell.twin")
    for to, files in ({"onnx": ["cell.onnx", "cell_init.onnx", "cell_step.onnx"], "fmu": ["cell.fmu"]}).items():
        command = ["export", str(tmp_path / "cell.twin"), "--to", to, "--out", str(tmp_path / to), "--name", "cell"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in (tmp_path / to).iterdir()) == files
    assert CliRunner().invoke(app, [*command, "--weights", "int8"]).exit_code == 2


def test_a_file_is_the_same_twice_and_needs_no_compiler(twin_of, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "compiler", lambda: None)
    first, again = (fmu.export(twin_of("ohmic"), tmp_path / folder, name="cell") for folder in "ab")
    assert first == [tmp_path / "a" / "cell.fmu"]
    assert first[0].read_bytes() == again[0].read_bytes()
    with zipfile.ZipFile(first[0]) as archive:
        assert not any(name.startswith("binaries/") for name in archive.namelist())
    with pytest.raises(CelltwinError, match="no such version of FMI"):
        fmu.export(twin_of("ohmic"), tmp_path, version="1.0")
