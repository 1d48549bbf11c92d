"""A twin as a co-simulation FMU, 2.0 or 3.0: for Simulink, Modelica tools, and whatever else couples models.

    NAME.fmu    modelDescription.xml    variables with units, what may be set and when
                sources/                the emitted C, and the functions of FMI around it: enough to build it anywhere
                binaries/               the same, compiled for the machine that wrote it, where it has a compiler
                documentation/          where the twin comes from and how to use it

A communication step is a step of the twin, of whatever length; its inputs are those set before it, held over it. So a
simulation says the voltage at the end of a step from the current during it, and an estimator takes its measurements as
those of the end of the step. What FMI asks of every slave beside that (states saved and put back, written to bytes,
errors that say what is wrong) is in `fmi/`, plain C that knows nothing of the twin but the header that is made here.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
import uuid
import zipfile
from html import escape
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as xml

import numpy as np

from celltwin import __version__, files
from celltwin.data.domain import CHANNELS
from celltwin.deploy import c, native
from celltwin.errors import CelltwinError
from celltwin.twin import Twin

VERSIONS = ("2.0", "3.0")
WRAPPER = Path(__file__).parent / "fmi"
FLAGS = (*native.FLAGS, "-fvisibility=hidden")
UNITS = {  # name: base units, factor and offset
    "V": {"kg": 1, "m": 2, "s": -3, "A": -1},
    "A": {"A": 1},
    "degC": {"K": 1, "offset": 273.15},
    "Ah": {"A": 1, "s": 1, "factor": 3600},
    "s": {"s": 1},
}
UNIT_OF = {"voltage": "V", "current": "A", "temperature": "degC", "capacity": "Ah", "time": "s"}
# What a start of the given value stands for: not known, so that the cell's own or the first input's is taken.
UNKNOWN = {"soc": -1.0, "voltage": 0.0, "temperature": -300.0}
SOURCES = "sources"


class Variable(NamedTuple):
    """One variable; its value reference is its place in the list of them."""

    name: str
    causality: str
    description: str
    unit: str = ""
    start: float | None = None
    boolean: bool = False


def export(
    twin: Twin, where: str | Path, name: str | None = None, version: str = "2.0", precision: str = "single"
) -> list[Path]:
    """Write an FMU to `where`, a file that ends in .fmu or a folder to put NAME.fmu in; the file, written atomically.

    Raises CelltwinError where the version or an option is not known, or an operation of the model cannot be written.
    """
    if version not in VERSIONS:
        raise CelltwinError("there is no such version of FMI here", got=version, expected=", ".join(VERSIONS))
    source = c.emit(twin, name, precision)
    path = Path(where)
    path = path if path.suffix == ".fmu" else path / f"{source.name}.fmu"
    parts = _sources(twin, source, version)
    token = str(uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(["celltwin", version, *parts.values()])))
    parts["twin.h"] = parts["twin.h"].replace("TOKEN_OF_THIS_TWIN", token)
    variables = variables_of(twin, source)
    units = sorted(file for file in parts if file.endswith(".c"))
    held: dict[str, str | bytes] = {
        "modelDescription.xml": _description(twin, source, variables, version, token, units)
    }
    if version == "3.0":
        held[f"{SOURCES}/buildDescription.xml"] = _build_description(source, units)
    held |= {f"{SOURCES}/{file}": text for file, text in parts.items()}
    held["documentation/index.html"] = _documentation(twin, source, variables)
    binary = _compiled(source, parts, version)
    if binary is not None:
        held[f"binaries/{_platform(version)}/{source.name}{_suffix()}"] = binary
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in held.items():
            archive.writestr(zipfile.ZipInfo(file, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return [path]


def variables_of(twin: Twin, source: c.Source) -> list[Variable]:
    """All variables in the order of their value references: time, inputs, outputs, parameters."""
    estimates = twin.task == "soc"
    inputs = [n for n in source.inputs if n != "dt"]
    rest = {"voltage": float(np.mean(twin.cell.voltage_limits_volt)), "current": 0.0, "temperature": 25.0}
    first = "the first input's" if estimates else "the twin's own at rest"
    about = {
        "soc": (
            "State of charge that is stored from before, a fraction; below 0: unknown"
            if estimates
            else "State of charge at the start, a fraction"
        ),
        "voltage": f"Voltage at the start; 0: {first}",
        "temperature": "Temperature of the cell at the start; below -273.15: the first input's",
    }
    silent = "; NaN: not measured" if estimates else ""
    starts = UNKNOWN | ({} if estimates else {"soc": 1.0})
    return [
        Variable("time", "independent", "Simulation time", "s"),
        *(Variable(n, "input", _sentence(c.MEANING[n]) + silent, UNIT_OF[n], rest[n]) for n in inputs),
        *(Variable(n, "output", _sentence(c.MEANING[n]), UNIT_OF.get(n, "")) for n in source.outputs if n != "valid"),
        Variable(
            "valid", "output", "True inside the training range, on measured values; else an extrapolation", boolean=True
        ),
        *(Variable(f"start_{n}", "parameter", about[n], UNIT_OF.get(n, ""), starts[n]) for n in about),
        Variable("capacity", "parameter", "Reference capacity of the cell", "Ah", twin.cell.reference_capacity_ah),
    ]


def _sentence(meaning: str) -> str:
    named = {"V": "Voltage at the cell's terminals", "degC at the cell's surface": "Temperature at the cell's surface"}
    if meaning.startswith("A,"):
        return "Current, positive = charge, held over the step"
    return named.get(meaning, meaning[:1].upper() + meaning[1:])


# --- the C around the twin -------------------------------------------------------------------------------------------


def _sources(twin: Twin, source: c.Source, version: str) -> dict[str, str]:
    """Texts of the files in sources/."""
    wrapper = f"fmi{version[0]}.c"
    texts = {file: (WRAPPER / file).read_text(encoding="utf-8") for file in ("fmu.h", wrapper)}
    return {
        f"{source.name}.h": source.header,
        f"{source.name}.c": source.source,
        "twin.h": _twin_header(twin, source),
        **texts,
    }


def _twin_header(twin: Twin, source: c.Source) -> str:
    """twin.h: what the functions of FMI must know of the twin."""
    variables = variables_of(twin, source)
    inputs = [v.name for v in variables if v.causality == "input"]
    outputs = [v.name for v in variables if v.causality == "output"]

    def first(causality: str) -> str:
        return next(v.name.upper() for v in variables if v.causality == causality)

    lines = [
        "/* What the functions of FMI must know of this twin. */",
        "#ifndef TWIN_H",
        "#define TWIN_H",
        "",
        f'#include "{source.name}.h"',
        "",
        '#define TOKEN "TOKEN_OF_THIS_TWIN"',
        f"#define ESTIMATES {int(twin.task == 'soc')}",
        "",
        f"typedef {source.real} real;",
        *(f"typedef {source.name}_{part} twin_{part};" for part in ("state", "start", "input", "output")),
        f"#define twin_init {source.name}_init",
        f"#define twin_step {source.name}_step",
        "",
        "/* Value references. */",
        f"enum {{ {', '.join(v.name.upper() for v in variables)}, VARIABLES }};",
        f"#define FIRST_INPUT {first('input')}",
        f"#define FIRST_OUTPUT {first('output')}",
        f"#define FIRST_PARAMETER {first('parameter')}",
        "",
        "static const char *const names[VARIABLES] = {",
        *(f'    "{v.name}",' for v in variables),
        "};",
        f"static const double defaults[VARIABLES] = {{ {', '.join(repr(v.start or 0.0) for v in variables)} }};",
        "",
        "static void read_inputs(const double *values, twin_input *input)",
        "{",
        *(f"    input->{n} = (real)values[{n.upper()}];" for n in inputs),
        "}",
        "",
        "static void write_outputs(const twin_output *output, double *values)",
        "{",
        *(f"    values[{n.upper()}] = (double)output->{n};" for n in outputs),
        "}",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _compiled(source: c.Source, parts: dict[str, str], version: str) -> bytes | None:
    """The sources as a shared library for this machine; None where it has no C compiler."""
    command = native.compiler()
    if command is None:
        return None
    with tempfile.TemporaryDirectory(prefix="celltwin-") as folder:
        here = Path(folder)
        for file, text in parts.items():
            (here / file).write_text(text, encoding="utf-8")
        units = [str(here / file) for file in (f"{source.name}.c", f"fmi{version[0]}.c")]
        library = here / f"twin{_suffix()}"
        done = subprocess.run([*command, *FLAGS, "-o", str(library), *units, "-lm"], capture_output=True, text=True)
        if done.returncode:
            raise CelltwinError("the C compiler failed", got=done.stderr.strip()[:400], expected=" ".join(command))
        return library.read_bytes()


def _platform(version: str) -> str:
    """The folder in binaries/ of this machine."""
    system = {"Linux": "linux", "Darwin": "darwin", "Windows": "windows"}.get(platform.system(), "unknown")
    if version == "2.0":
        return {"windows": "win64"}.get(system, f"{system}64")
    machine = platform.machine().lower()
    return f"{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }-{system}"


def _suffix() -> str:
    return {"Darwin": ".dylib", "Windows": ".dll"}.get(platform.system(), ".so")


# --- descriptions ----------------------------------------------------------------------------------------------------


def _about(twin: Twin) -> dict[str, str]:
    card, cell = twin.card, twin.cell
    text = f"{card.get('title') or twin.name}, of the cell {cell.name}; trained on {card.get('dataset') or 'unknown'}"
    about = {"description": text, "generationTool": f"celltwin {__version__}", "variableNamingConvention": "structured"}
    if card.get("licence"):
        about["license"] = f"data: {card['licence']}"
    return about


def _experiment(twin: Twin) -> dict[str, str]:
    """How long a run and its steps usually are: the mean step of training."""
    step = float(np.asarray(twin.domain.mean)[CHANNELS.index("dt")])
    return {"startTime": "0", "stopTime": "3600", "stepSize": f"{step or 1.0:.3g}"}


def _units(parent: xml.Element) -> None:
    definitions = xml.SubElement(parent, "UnitDefinitions")
    for name, base in UNITS.items():
        unit = xml.SubElement(definitions, "Unit", name=name)
        xml.SubElement(unit, "BaseUnit", {key: f"{value:g}" for key, value in base.items()})


def _text(root: xml.Element) -> str:
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


CAPABILITIES = {
    "canHandleVariableCommunicationStepSize": "true",
    "canBeInstantiatedOnlyOncePerProcess": "false",
}
VARIABILITY = {"input": "continuous", "output": "continuous", "parameter": "fixed", "independent": "continuous"}
INITIAL = {"output": "calculated", "parameter": "exact"}


def _attributes(variable: Variable) -> dict[str, str]:
    """What both versions say of a variable alike."""
    told = {
        "name": variable.name,
        "description": variable.description,
        "causality": variable.causality,
        "variability": "discrete" if variable.boolean else VARIABILITY[variable.causality],
    }
    if variable.causality in INITIAL:
        told["initial"] = INITIAL[variable.causality]
    return told


def _value(variable: Variable) -> dict[str, str]:
    unit = {"unit": variable.unit} if variable.unit else {}
    return unit | ({} if variable.start is None else {"start": repr(float(variable.start))})


def _description(
    twin: Twin, source: c.Source, variables: list[Variable], version: str, token: str, parts: list[str]
) -> str:
    """modelDescription.xml; the two versions differ in words and in how a variable is nested."""
    old = version == "2.0"
    root = xml.Element("fmiModelDescription", {"fmiVersion": version, "modelName": twin.name} | _about(twin))
    root.set("guid" if old else "instantiationToken", token)
    state = "FMUstate" if old else "FMUState"
    kept = {f"canGetAndSet{state}": "true", f"canSerialize{state}": "true"}
    slave = xml.SubElement(root, "CoSimulation", {"modelIdentifier": source.name} | kept | CAPABILITIES)
    if old:  # in 3.0 they have a file of their own
        slave.set("canNotUseMemoryManagementFunctions", "true")
        units = xml.SubElement(slave, "SourceFiles")
        for file in parts:
            xml.SubElement(units, "File", name=file)
    _units(root)
    xml.SubElement(root, "DefaultExperiment", _experiment(twin))
    model = xml.SubElement(root, "ModelVariables")
    for reference, variable in enumerate(variables):
        told = _attributes(variable) | {"valueReference": str(reference)}
        if old:
            scalar = xml.SubElement(model, "ScalarVariable", told)
            xml.SubElement(scalar, "Boolean" if variable.boolean else "Real", _value(variable))
        else:
            xml.SubElement(model, "Boolean" if variable.boolean else "Float64", told | _value(variable))
    structure = xml.SubElement(root, "ModelStructure")
    outputs = [n for n, variable in enumerate(variables) if variable.causality == "output"]
    for kind in ("Output", "InitialUnknown"):
        block = xml.SubElement(structure, f"{kind}s") if old else structure
        for reference in outputs:
            if old:
                xml.SubElement(block, "Unknown", index=str(reference + 1))
            else:
                xml.SubElement(block, kind, valueReference=str(reference))
    return _text(root)


def _build_description(source: c.Source, parts: list[str]) -> str:
    root = xml.Element("fmiBuildDescription", fmiVersion="3.0")
    build = xml.SubElement(root, "BuildConfiguration", modelIdentifier=source.name)
    units = xml.SubElement(build, "SourceFileSet", language="C99")
    for file in parts:
        xml.SubElement(units, "SourceFile", name=file)
    return _text(root)


def _documentation(twin: Twin, source: c.Source, variables: list[Variable]) -> str:
    card, cell = twin.card, twin.cell
    rows = "\n".join(
        f"<tr><td>{v.name}</td><td>{v.causality}</td><td>{v.unit}</td><td>{escape(v.description)}</td></tr>"
        for v in variables
    )
    ranges = ", ".join(f"{n} {low:.3g} to {high:.3g}" for n, (low, high) in twin.domain.ranges().items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(twin.name)}</title></head><body>
<h1>{escape(str(card.get("title") or twin.name))}</h1>
<p>Cell {escape(cell.name)}, {cell.reference_capacity_ah:g} Ah.
Trained on {escape(str(card.get("dataset") or "unknown"))}; licence of the data:
{escape(str(card.get("licence") or "unknown"))}; {escape(str(card.get("citation") or ""))}</p>
<p>Training range: {escape(ranges)}. Outside of it the output <code>valid</code> is false.</p>
<p>Current is positive when it charges the cell. Inputs hold over the communication step that follows. Written by
celltwin {__version__} in {source.precision} precision.</p>
<table><tr><th>variable</th><th>causality</th><th>unit</th><th>meaning</th></tr>
{rows}
</table></body></html>
"""
