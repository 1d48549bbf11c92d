"""BPX, the Battery Parameter eXchange format: what a circuit can take from a file that describes electrodes.

    U(soc) = Up(xp) - Un(xn),   xn = xn_min + soc (xn_max - xn_min),   xp = xp_max - soc (xp_max - xp_min)

State of charge is a fraction of the charge between the limits of stoichiometry, which follows from the electrodes'
volumes and concentrations. Resistances are not in the file: they come from the user. The branches of an electrode's
potential become a mode of hysteresis; its rate per stoichiometry is half the file's decay constant, as PyBaMM reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.errors import CelltwinError
from celltwin.exchange.document import CAPACITY, HIGH, LOW, REFERENCE, ROOM, SPREAD, number, section
from celltwin.exchange.expression import evaluate
from celltwin.exchange.lookup import celsius
from celltwin.files import read_json
from celltwin.physics.circuit import Circuit

FARADAY = 96485.33212  # C/mol
_ENDS = np.geomspace(1e-3, 0.05, 9)  # potentials bend where an electrode is empty or full
SOC = tuple(np.unique(np.round(np.r_[_ENDS, np.linspace(0.0, 1.0, 101), 1.0 - _ENDS], 6)).tolist())
AGREE = 0.02  # by which share of them the electrodes' capacities may differ
LITHIATION, DELITHIATION, DECAY = "OCP (lithiation) [V]", "OCP (delithiation) [V]", "OCP hysteresis decay constant"
ENTROPY = "Entropic change coefficient [V.K-1]"


class Electrode(NamedTuple):
    """One section of the file, whose functions are read at the stoichiometries of the circuit's states of charge."""

    values: Mapping[str, Any]
    name: str  # with the file's, for errors
    stoichiometry: np.ndarray  # [soc]
    span: float  # of stoichiometry, between empty and full

    @classmethod
    def read(cls, parameters: Mapping[str, Any], side: str, soc: np.ndarray, source: str) -> Electrode:
        values, name = section(parameters, f"{side} electrode", source), f"the {side.lower()} electrode of {source}"
        if "Particle" in values:
            materials = values["Particle"]
            if not isinstance(materials, Mapping) or len(materials) != 1:
                raise CelltwinError(
                    f"{name} is a blend, whose stoichiometries no state of charge alone gives",
                    got=f"particles of {', '.join(map(str, materials))}",
                    expected="one material",
                    fix="give the circuit's open-circuit voltage as a table",
                )
            values = {**values, **section(materials, next(iter(materials)), source)}
        low, high = (number(values, f"{end} stoichiometry", name) for end in ("Minimum", "Maximum"))
        if not 0.0 <= low < high <= 1.0:
            raise CelltwinError(
                f"stoichiometry limits of {name}", got=(low, high), expected="0 <= minimum < maximum <= 1"
            )
        filled = soc if side == "Negative" else 1.0 - soc
        return cls(values, name, low + filled * (high - low), high - low)

    def function(self, key: str) -> np.ndarray:
        """A number, a table of x and y, or an expression in x, at the stoichiometries, [soc]."""
        value, x, what = self.values.get(key), self.stoichiometry, f"'{key}' of {self.name}"
        if isinstance(value, str):
            return evaluate(value, x, what)
        if not isinstance(value, Mapping):
            return np.full(len(x), number(self.values, key, self.name))
        try:
            nodes, table = (np.array(value[axis], np.float64) for axis in "xy")
        except (KeyError, TypeError, ValueError) as error:
            raise CelltwinError(what, got=error, expected="a table of x and y") from error
        if nodes.shape != table.shape or nodes.ndim != 1 or not len(nodes) or not np.isfinite([nodes, table]).all():
            raise CelltwinError(what, got=f"{nodes.shape} x, {table.shape} y", expected="as many finite x as y")
        order = np.argsort(nodes, kind="stable")
        return np.interp(x, nodes[order], table[order])

    @property
    def branched(self) -> bool:
        return all(self.values.get(key) is not None for key in (LITHIATION, DELITHIATION, DECAY))

    def potential(self) -> np.ndarray:
        """The mean of the branches where there are two, [soc] in V."""
        branches = (LITHIATION, DELITHIATION) if self.branched else ("OCP [V]",)
        return np.mean([self.function(key) for key in branches], axis=0)

    def capacity(self, cell: Mapping[str, Any], source: str) -> float:
        """Charge between the limits of stoichiometry, Ah."""
        keys = ("Surface area per unit volume [m-1]", "Particle radius [m]", "Maximum concentration [mol.m-3]")
        area, radius, concentration = (number(self.values, key, self.name, positive=True) for key in keys)
        volume = number(self.values, "Thickness [m]", self.name, positive=True)
        volume *= number(cell, "Electrode area [m2]", source, positive=True)
        volume *= number(cell, "Number of electrode pairs connected in parallel to make a cell", source, positive=True)
        return FARADAY * concentration * self.span * volume * (area * radius / 3.0) / SECONDS_PER_HOUR


def from_bpx(path: str | Path, *, r0: float | None = None) -> Circuit:
    """A circuit from a BPX file: R0 alone, of `r0` ohm at all states of charge and temperatures, and no RC pair.

    Capacity, voltage limits and open-circuit voltage are the file's and, where it has them, entropic change, hysteresis
    and the lumped thermal mass. Raises CelltwinError without `r0`, and for a file that is not BPX or does not describe
    both electrodes by one material each.
    """
    document, source = read_json(path), str(path)
    if "BPX" not in section(document, "Header", source):
        raise CelltwinError(
            f"{source} is not a BPX file",
            got=f"a header of {', '.join(document['Header'])}",
            expected="a header with BPX",
            fix="read ECM-PS with exchange.load",
        )
    if r0 is None or not r0 > 0.0:
        raise CelltwinError(
            f"{source} describes electrodes, from which no resistance of a circuit follows",
            got=r0,
            expected="a positive resistance in ohm",
            fix="give one: exchange.from_bpx(path, r0=0.02)",
        )
    parameters, soc = section(document, "Parameterisation", source), np.array(SOC)
    cell = section(parameters, "Cell", source)
    electrodes = [Electrode.read(parameters, side, soc, source) for side in ("Negative", "Positive")]
    negative, positive = electrodes
    voltage, reference = positive.potential() - negative.potential(), ROOM
    if cell.get(REFERENCE) is not None:
        reference = float(celsius(number(cell, REFERENCE, source)))
    change = sum(
        sign * electrode.function(ENTROPY)
        for sign, electrode in zip((-1.0, 1.0), electrodes, strict=True)
        if electrode.values.get(ENTROPY) is not None
    )
    temperatures = reference + (SPREAD if np.any(change) else np.zeros(1))
    branched = [electrode for electrode in electrodes if electrode.branched]
    nodes = soc if branched else np.array([0.5])
    gaps = [0.5 * (electrode.function(DELITHIATION) - electrode.function(LITHIATION)) for electrode in branched]
    rates = [0.5 * number(e.values, DECAY, e.name, positive=True) * e.span for e in branched]
    capacity, notes = _capacity(electrodes, cell, source)
    low, high = (number(cell, limit, source) for limit in (LOW, HIGH))
    title = document["Header"].get("Title")
    return Circuit(
        name=str(title or Path(path).stem),
        capacity_ah=capacity,
        voltage_limits_volt=(low, high),
        temperatures=temperatures,
        ocv_soc=soc,
        ocv=voltage[:, None] + np.outer(change + np.zeros(len(soc)), temperatures - reference),
        soc=nodes,
        r0=np.full((len(nodes), len(temperatures)), r0),
        r=np.zeros((0, len(nodes), len(temperatures))),
        tau=np.zeros((0, len(nodes), len(temperatures))),
        hysteresis=np.maximum(gaps, 0.0) if branched else None,
        hysteresis_rate=np.array(rates) if branched else None,
        notes=(*notes, f"R0 is {r0:g} ohm because the user says so: BPX has none"),
        meta=_meta(document, cell, source),
    )


def _capacity(electrodes: list[Electrode], cell: Mapping[str, Any], source: str) -> tuple[float, list[str]]:
    """Ah between the limits of stoichiometry; the nominal capacity, and a note, where the electrodes do not agree."""
    nominal = number(cell, CAPACITY, source, positive=True)
    held = [electrode.capacity(cell, source) for electrode in electrodes]
    if abs(held[0] - held[1]) <= AGREE * max(held):
        return float(np.mean(held)), []
    note = f"the electrodes hold {held[0]:.4g} and {held[1]:.4g} Ah between their limits, which do not agree"
    return nominal, [f"{note}: state of charge is a fraction of the nominal {nominal:.4g} Ah"]


def _meta(document: Mapping[str, Any], cell: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The nominal capacity and, where the file tells, how the cell warms and cools."""
    meta: dict[str, Any] = {
        "source": f"BPX {document['Header']['BPX']}",
        "nominal_capacity_ah": number(cell, CAPACITY, source, positive=True),
    }
    lumped = ("Density [kg.m-3]", "Volume [m3]", "Specific heat capacity [J.K-1.kg-1]")
    if all(cell.get(key) is not None for key in lumped):
        mass = float(np.prod([number(cell, key, source, positive=True) for key in lumped]))
        meta["thermal"] = {"cell_joule_per_kelvin": mass}
        state = document.get("State")
        around = state.get("Thermal environment") if isinstance(state, Mapping) else None
        film, area = "Heat transfer coefficient [W.m-2.K-1]", "External surface area [m2]"
        if isinstance(around, Mapping) and around.get(film) is not None and cell.get(area) is not None:
            cooling = number(around, film, source) * number(cell, area, source)
            meta["thermal"]["cell_to_jig_watt_per_kelvin"] = cooling
    return meta
