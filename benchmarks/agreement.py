"""How far the ways out of Python are from it, over thousands of samples of a log: C, ONNX and FMU, in one run.

    pip install '.[onnx,fmu]'
    python benchmarks/agreement.py LOG [--twins FOLDER ...] [--data demo] [--samples 10000] [--models a,b,...]

Twins found in the folders are taken as they are; a model without one is created from the dataset, untrained. All run
in closed loop from the first sample, C and ONNX against the compiled step in Python of the same precision, the FMU
against the C that is in it. Largest differences over all samples; of voltage models in V, of estimators in state of
charge.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import fmpy
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from fmpy.fmi2 import FMU2Slave
from fmpy.fmi3 import FMU3Slave

import celltwin.estimators  # noqa: F401  makes them known by name
from celltwin import models, twin
from celltwin.data import datasets, importers
from celltwin.data.domain import Domain
from celltwin.deploy import c, fmu, onnx
from celltwin.deploy.native import Native
from celltwin.interface import Input, Measurement
from celltwin.twin import Twin


@jax.jit
def in_python(model, start, inputs):
    """Outputs of the step over a record, [time] each."""
    return jax.lax.scan(lambda state, u: model.step(state, u), model.init(start), inputs)[1]


def python(one: Twin, start, inputs, kind) -> np.ndarray:
    def cast(leaf):
        return jnp.asarray(np.asarray(leaf), kind) if leaf.dtype.kind == "f" else leaf

    with jax.enable_x64(kind is np.float64):
        names = Measurement if one.task == "soc" else Input
        columns = names(*(jnp.asarray(column, kind) for column in inputs.T))
        begun = type(start)(*(jnp.asarray(value, kind) for value in start))
        return np.stack([np.asarray(o) for o in in_python(jax.tree.map(cast, one.runner), begun, columns)], axis=1)


def through_onnx(one: Twin, start, inputs, precision: str, kind) -> np.ndarray:
    graphs = onnx.graphs(one, "twin", precision)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graphs["twin.onnx"].SerializeToString(), options)
    names = (Measurement if one.task == "soc" else Input)._fields
    given = {f"start_{name}": np.full(1, value, kind) for name, value in start._asdict().items()}
    given |= {name: inputs[None, :, k].astype(kind) for k, name in enumerate(names)}
    said = dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))
    return np.stack([said[name][0] for name in (("soc", "std") if one.task == "soc" else ("voltage", "soc"))], axis=1)


def through_fmu(one: Twin, version: str, start, inputs, folder: Path) -> np.ndarray:
    """Outputs of the exported FMU, sample by sample."""
    path = fmu.export(one, folder / f"twin{version[0]}.fmu", version=version)[0]
    about = fmpy.read_model_description(str(path))
    unpacked = fmpy.extract(str(path), str(folder / f"unpacked{version[0]}"))
    kind = FMU2Slave if version == "2.0" else FMU3Slave
    token = about.guid if version == "2.0" else about.instantiationToken
    identifier = about.coSimulation.modelIdentifier
    slave = kind(guid=token, unzipDirectory=unpacked, modelIdentifier=identifier, instanceName="cell")
    slave.instantiate()
    number = {variable.name: variable.valueReference for variable in about.modelVariables}
    put, get = (slave.setReal, slave.getReal) if version == "2.0" else (slave.setFloat64, slave.getFloat64)
    names = [n for n in (Measurement if one.task == "soc" else Input)._fields if n != "dt"]
    outputs = ("soc", "std") if one.task == "soc" else ("voltage", "soc")
    if version == "2.0":
        slave.setupExperiment(startTime=0.0)
        slave.enterInitializationMode()
    else:
        slave.enterInitializationMode(startTime=0.0)
    # An FMU takes no NaN for a parameter: below 0 says that the state of charge is not known.
    began = {
        "start_soc": start.soc if np.isfinite(start.soc) else -1.0,
        "start_voltage": start.voltage,
        "start_temperature": start.temperature,
    }
    began |= {"capacity": start.capacity}
    put([number[n] for n in began], [float(v) for v in began.values()])
    time, said = 0.0, np.empty((len(inputs), 2))
    for k, row in enumerate(inputs):
        put([number[n] for n in names], [float(v) for v in row[: len(names)]])
        if k == 0:
            slave.exitInitializationMode()
        else:
            slave.doStep(currentCommunicationPoint=time, communicationStepSize=float(row[-1]))
        time += float(row[-1])
        said[k] = get([number[n] for n in outputs])
    slave.freeInstance()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--twins", type=Path, nargs="*", default=[])
    parser.add_argument("--data", default="demo", help="what untrained models are created from")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--soc", type=float, default=0.9, help="state of charge at the log's first sample")
    parser.add_argument("--models", default=",".join(family.name for family in models.families()))
    options = parser.parse_args()
    trained = {}
    for folder in options.twins:
        for path in sorted(folder.glob("*.twin")):
            found = twin.load(path)
            trained.setdefault(found.name, found)
    records = datasets.load(options.data).split().train[:4]
    made: dict[str, object] = {}

    def model_of(name: str):
        family = models.family(name)
        if name not in made:
            base = model_of(family.base) if family.base else None
            made[name] = family.create(records, Domain.of(records), jax.random.key(0), base)
        return made[name]

    print(
        f"{'model':<24}{'':>10}{'C single':>10}{'C double':>10}{'ONNX':>10}{'double':>10}{'FMU 2.0':>10}{'FMU 3.0':>10}"
    )
    for name in options.models.split(","):
        family = models.family(name)
        one = trained.get(name) or Twin(name, model_of(name), Domain.of(records), records[0].cell, {}, family.task)
        log = replace(importers.load(options.log), cell=one.cell, initial_soc=options.soc).between(0, options.samples)
        start, inputs = one.fed(log)
        single = python(one, start, inputs, np.float32)
        double = python(one, start, inputs, np.float64)
        native = Native(c.emit(one), ())
        ours = native.run(native.begin(start), inputs)
        precise = Native(c.emit(one, precision="double"), ())
        apart = [
            np.abs(ours[:, 0] - single[:, 0]).max(),
            np.abs(precise.run(precise.begin(start), inputs.astype(np.float64))[:, 0] - double[:, 0]).max(),
            np.abs(through_onnx(one, start, inputs, "single", np.float32)[:, 0] - single[:, 0]).max(),
            np.abs(through_onnx(one, start, inputs, "double", np.float64)[:, 0] - double[:, 0]).max(),
        ]
        folder = Path(tempfile.mkdtemp(prefix="celltwin-"))
        try:
            for version in fmu.VERSIONS:
                apart.append(np.abs(through_fmu(one, version, start, inputs, folder) - ours[:, :2]).max())
        finally:
            shutil.rmtree(folder)
        what = "trained" if name in trained else "untrained"
        print(f"{name:<24}{what:>10}" + "".join(f"{value:10.1e}" for value in apart), flush=True)


if __name__ == "__main__":
    main()
