"""ECM-PS documents of any tool: constants and tables over axes of their own, brought to the axes of one circuit.

Tables are linear between their nodes and held beyond them. On the union of all axes every value that a document gives
is kept exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from celltwin.errors import CelltwinError
from celltwin.exchange.document import CAPACITY, HIGH, LOW, REFERENCE, ROOM, SPREAD, Table, number, section, table
from celltwin.exchange.lookup import THERMAL, celsius, kelvin, union
from celltwin.physics.circuit import Circuit

VERSION = "0.2"
OCV, CHARGE, DISCHARGE = (f"Open-circuit voltage{branch} [V]" for branch in ("", " on charge", " on discharge"))
RATE, ENTROPY, DIFFUSION = "Hysteresis decay rate", "Entropic change [V.K-1]", "Diffusion time constant [s]"
PAIRS = "Number of RC elements"
MOST = 20  # RC elements
DIFFERENT = 1e-3  # V: where open-circuit voltages differ by more, the notes say so


def foreign_circuit(document: Any, source: str) -> Circuit:
    """The circuit of any ECM-PS document; `source` names it in errors. Raises CelltwinError."""
    title = title_of(document, source)
    parameters = section(document, "Parameterisation", source)
    cell = section(parameters, "Cell", source)
    pairs = number(cell, PAIRS, source)
    if pairs not in range(MOST + 1):
        raise CelltwinError(f"'{PAIRS}' of {source}", got=pairs, expected=f"a whole number from 0 to {MOST}")
    pairs, notes = int(pairs), []
    tables = _tables(section(parameters, "Circuit", source), pairs, source)
    elements = [tables[name] for name in _elements(pairs)]
    branched, entropy = CHARGE in tables and DISCHARGE in tables, tables.get(ENTROPY)
    voltages = [tables[name] for name in ((CHARGE, DISCHARGE) if branched else (OCV,))]

    reference = float(celsius(number(cell, REFERENCE, source) if REFERENCE in cell else kelvin(ROOM)))
    temperatures = union(*(each.temperatures for each in tables.values()))
    if not len(temperatures):
        temperatures = reference + (np.zeros(1) if entropy is None else SPREAD)
    ocv_soc = union(*(each.soc for each in (*voltages, *([entropy] if entropy else []))))
    ocv_soc = ocv_soc if len(ocv_soc) else np.array([0.0, 1.0])
    ocv = np.mean([each.on(ocv_soc, temperatures) for each in voltages], axis=0)
    if entropy is not None and any(len(each.temperatures) for each in voltages):
        notes.append("the entropic change is left aside: the open-circuit voltage is given over temperature")
    elif entropy is not None:
        ocv = ocv + entropy.on(ocv_soc, temperatures) * (temperatures - reference)
        notes.append(f"the open-circuit voltage at other temperatures than {reference:g} degC is the entropic change's")

    soc = union(*(each.soc for each in (*elements, *(voltages if branched else []))))
    soc = soc if len(soc) else np.array([0.5])
    r0, *rest = (each.on(soc, temperatures) for each in elements)
    r, c = (np.array(rest[k::2]).reshape(pairs, len(soc), len(temperatures)) for k in range(2))
    if len(temperatures) > 1 and not any(len(each.temperatures) for each in elements):
        notes.append("resistances are given for one temperature and taken for all")
    gap, rate = _hysteresis(tables, soc, temperatures, source, notes) if branched else (None, None)
    if branched and OCV in tables and np.abs(tables[OCV].on(ocv_soc, temperatures) - ocv).max() > DIFFERENT:
        notes.append("the open-circuit voltage is the mean of its branches, and not the document's third curve")
    if LOW not in cell or HIGH not in cell:
        notes.append("voltage limits are not given: those of the open-circuit voltage stand in")
    thermal = {name: number(cell, key, source) for name, key in THERMAL.items() if key in cell}
    return Circuit(
        name=title,
        capacity_ah=number(cell, CAPACITY, source, positive=True),
        voltage_limits_volt=(
            number(cell, LOW, source) if LOW in cell else float(ocv.min()),
            number(cell, HIGH, source) if HIGH in cell else float(ocv.max()),
        ),
        temperatures=temperatures,
        ocv_soc=ocv_soc,
        ocv=ocv,
        soc=soc,
        r0=r0,
        r=r,
        tau=r * c,
        hysteresis=gap,
        hysteresis_rate=rate,
        notes=tuple(notes),
        meta={"source": f"ECM-PS {VERSION}"} | ({"thermal": thermal} if thermal else {}),
    )


def title_of(document: Any, source: str) -> str:
    """What the document calls the cell. Raises CelltwinError for a document of another format or version."""
    header = section(document, "Header", source)
    if "BPX" in header:
        raise CelltwinError(
            f"{source} is a BPX file",
            expected="ECM-PS",
            fix="read it with exchange.from_bpx: BPX knows electrodes and no circuit",
        )
    if header.get("ECM-PS version") != VERSION or header.get("Model") != "ECM":
        raise CelltwinError(
            f"{source} is not a document of ECM-PS {VERSION}",
            got=f"version {header.get('ECM-PS version')!r} of model {header.get('Model')!r}",
            expected=f"version '{VERSION}' of model 'ECM'",
            fix="write it again with a tool that knows this version",
        )
    return str(header.get("Title", "")) or "cell"


def _elements(pairs: int) -> list[str]:
    return ["R0 [Ohm]"] + [
        f"{kind}{i} [{unit}]" for i in range(1, pairs + 1) for kind, unit in (("R", "Ohm"), ("C", "F"))
    ]


def _tables(circuit: Mapping[str, Any], pairs: int, source: str) -> dict[str, Table]:
    """All tables of the circuit by name. Raises CelltwinError for missing, unknown, unsupported and malformed ones."""
    voltage = [CHARGE, DISCHARGE, RATE] if CHARGE in circuit and DISCHARGE in circuit else [OCV]
    needed = [*voltage, *_elements(pairs)]
    missing = [name for name in needed if name not in circuit]
    if missing:
        raise CelltwinError(
            f"the circuit of {source} is not complete",
            got=f"no {', no '.join(repr(name) for name in missing)}",
            expected=f"all of {', '.join(needed)} for {pairs} RC elements",
            fix=f"add them, or correct '{PAIRS}'",
        )
    if DIFFUSION in circuit:
        raise CelltwinError(
            f"the circuit of {source} has a diffusion element, which celltwin does not know",
            got=f"'{DIFFUSION}'",
            expected="resistances and RC elements",
            fix="put RC elements in its place",
        )
    unknown = sorted(set(circuit) - {*needed, OCV, CHARGE, DISCHARGE, RATE, ENTROPY})
    if unknown:
        raise CelltwinError(
            f"the circuit of {source} has elements that ECM-PS {VERSION} or its number of RC elements does not name",
            got=", ".join(unknown),
            expected=", ".join(needed),
            fix=f"remove them, or correct '{PAIRS}'",
        )
    return {name: table(name, value, source) for name, value in circuit.items()}


def _hysteresis(
    tables: Mapping[str, Table], soc: np.ndarray, temperatures: np.ndarray, source: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Half the gap [1, soc] in V and the rate [1]; what depends on more than that is averaged, and noted."""
    charge, discharge = (tables[name].on(soc, temperatures) for name in (CHARGE, DISCHARGE))
    each = 0.5 * (charge - discharge)
    gap = each.mean(axis=1)
    if gap.mean() < 0.0:
        raise CelltwinError(
            f"the branches of the open-circuit voltage of {source}",
            got=f"{1e3 * gap.mean():.1f} mV",
            expected="the branch on charge above the one on discharge",
            fix="exchange the two",
        )
    if gap.min() < -DIFFERENT:
        notes.append("where the branches of the open-circuit voltage cross, the gap between them is taken as none")
    if np.abs(each - gap[:, None]).max() > DIFFERENT:
        notes.append("the gap between the branches of the open-circuit voltage is its mean over temperature")
    rates = tables[RATE].values
    if np.ptp(rates) > 1e-9 * np.abs(rates).max():
        notes.append("the decay rate of hysteresis is its mean")
    if rates.mean() <= 0.0:
        raise CelltwinError(f"'{RATE}' of {source}", got=rates.mean(), expected="a positive rate per capacity passed")
    return np.maximum(gap, 0.0)[None], np.array([rates.mean()])
