"""ECM-PS 0.2, the open exchange format for circuits in the manner of BPX: JSON, one document a cell.

Any reader of the format gets a circuit it understands: resistances and capacitances of a linear circuit, hysteresis as
two branches of the open-circuit voltage and one rate. What that leaves out (charge transfer, several modes of
hysteresis, standard errors, notes) stands beside it under "User-defined" / "celltwin", where the whole circuit is kept
to the last digit. It is believed only while it agrees with the tables that all others see.

The nominal capacity of the format is the reference capacity of celltwin: what state of charge is a fraction of. Values
between nodes are a reader's own affair; celltwin's are log-linear for resistances and time constants.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from celltwin.errors import CelltwinError
from celltwin.exchange.document import ROOM, section
from celltwin.exchange.foreign import VERSION, foreign_circuit, title_of
from celltwin.exchange.lookup import THERMAL, kelvin, union
from celltwin.exchange.reduction import curves, half_gap, linear, one_mode
from celltwin.files import plain, read_json, write_text
from celltwin.physics.circuit import Circuit

UNNAMED = "unnamed cell"  # a document must have a title
CHANGED = "its tables were changed after celltwin wrote them: they are read as any document's, and nothing beside them"


def save(circuit: Circuit, path: str | Path) -> None:
    """Write an ECM-PS document, whole or not at all."""
    text = dumps(document_of(circuit), indent=1, allow_nan=False)
    # One row of numbers a line.
    write_text(path, re.sub(r"\[\n[\d\s.,eE+-]*\]", lambda row: f"[{' '.join(row[0][1:-1].split())}]", text) + "\n")


def load(path: str | Path) -> Circuit:
    """Read an ECM-PS document, celltwin's own or another tool's. Raises CelltwinError for what is not one."""
    return circuit_of(read_json(path), str(path))


def document_of(circuit: Circuit) -> dict[str, Any]:
    """A circuit as an ECM-PS document of plain JSON values. Raises CelltwinError for one with NaN in it."""
    native = _native(circuit)
    if "null" in dumps(native):
        raise CelltwinError(
            f"circuit '{circuit.name}' cannot be written", got="NaN", expected="finite limits, axes and tables"
        )
    whole = {f.name: value for f in fields(Circuit) if (value := getattr(circuit, f.name)) is not None}
    whole["standard_error"] = {name: _spelled(error.tolist()) for name, error in circuit.standard_error.items()}
    return {
        "Header": {"ECM-PS version": VERSION, "Model": "ECM", "Title": circuit.name or UNNAMED},
        "Parameterisation": {**native, "User-defined": {"celltwin": plain(whole)}},
    }


def circuit_of(document: Any, source: str = "the document") -> Circuit:
    """A circuit from an ECM-PS document; `source` is what to call it in errors. Raises CelltwinError."""
    title, parameters = title_of(document, source), section(document, "Parameterisation", source)
    beside = parameters.get("User-defined")
    whole = beside.get("celltwin") if isinstance(beside, Mapping) else None
    if whole is None:
        return foreign_circuit(document, source)
    try:
        known = {f.name: whole[f.name] for f in fields(Circuit) if f.name in whole}
        known["standard_error"] = {name: np.array(v, float) for name, v in whole.get("standard_error", {}).items()}
        known |= {"voltage_limits_volt": tuple(whole["voltage_limits_volt"]), "notes": tuple(whole.get("notes", ()))}
        if not whole["r"]:  # a list without pairs does not tell its other axes
            known |= dict.fromkeys(("r", "tau"), np.zeros((0, len(whole["soc"]), len(whole["temperatures"]))))
        circuit = Circuit(**known)
        native = _native(circuit)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CelltwinError(
            f"what celltwin keeps in {source} is damaged",
            got=f"{type(error).__name__}: {error}",
            expected="a circuit under Parameterisation / User-defined / celltwin",
            fix="remove that entry to read the tables alone",
        ) from error
    if not _alike(native, {key: parameters.get(key) for key in native}):
        foreign = foreign_circuit(document, source)
        return replace(foreign, notes=(*foreign.notes, CHANGED))
    return circuit if title == (circuit.name or UNNAMED) else replace(circuit, name=title)


def _native(circuit: Circuit) -> dict[str, Any]:
    """The sections that every reader understands."""
    low, high = circuit.voltage_limits_volt
    nearest = circuit.temperatures[np.argmin(np.abs(circuit.temperatures - ROOM))]
    thermal = circuit.meta.get("thermal", {})
    cell = {
        "Nominal cell capacity [A.h]": circuit.capacity_ah,
        "Lower voltage cut-off [V]": low,
        "Upper voltage cut-off [V]": high,
        "Reference temperature [K]": kelvin(nearest),
        "Number of RC elements": circuit.pairs,
        **{title: thermal[name] for name, title in THERMAL.items() if thermal.get(name, 0.0) > 0.0},
    }
    simple = one_mode(linear(circuit))
    elements: dict[str, Any] = {"Open-circuit voltage [V]": _function(circuit.ocv_soc, circuit, circuit.ocv)}
    if simple.hysteresis is not None and simple.hysteresis_rate is not None:
        nodes = union(circuit.ocv_soc, circuit.soc)
        ocv, gap = curves(circuit, nodes), half_gap(circuit, nodes)[:, None]
        elements["Open-circuit voltage on charge [V]"] = _function(nodes, circuit, ocv + gap)
        elements["Open-circuit voltage on discharge [V]"] = _function(nodes, circuit, ocv - gap)
        elements["Hysteresis decay rate"] = simple.hysteresis_rate[0]
    elements["R0 [Ohm]"] = _function(circuit.soc, circuit, simple.r0)
    for i, (r, tau) in enumerate(zip(simple.r, simple.tau, strict=True), start=1):
        elements[f"R{i} [Ohm]"] = _function(circuit.soc, circuit, r)
        elements[f"C{i} [F]"] = _function(circuit.soc, circuit, tau / r)
    return plain({"Cell": cell, "Circuit": elements})


def _function(soc: np.ndarray, circuit: Circuit, table: np.ndarray) -> Any:
    """A table [soc, temperature] as the format has it: a number, a curve over soc, or rows of temperature."""
    if table.size == 1:
        return table.item()
    if len(soc) == 1:  # a table must have two nodes
        soc, table = np.array([0.0, 1.0]), np.repeat(table, 2, axis=0)
    if table.shape[1] == 1:
        return {"x": soc, "y": table[:, 0]}
    return {"x": soc, "y": kelvin(circuit.temperatures), "z": table.T}


def _spelled(value: Any) -> Any:
    """Numbers that JSON has no sign for as words, which numpy reads."""
    if isinstance(value, list):
        return [_spelled(v) for v in value]
    return value if math.isfinite(value) else str(value)


def _alike(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same but for the rounding of numbers."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b
