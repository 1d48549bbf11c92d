"""What an identification has to show: facts for the terminal and the page, and what the page's figures are drawn from.

Resistances are those of a small current, in ohm: R0, the RC pairs and the charge transfer in series are the total.
Between nodes a standard error is interpolated relative to its resistance; that of the total takes its parts as
independent, which is too large where they trade off against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from celltwin.data.record import Record
from celltwin.evaluation.report.figures import MILLI, packed, thin
from celltwin.learning.identification import Identification
from celltwin.learning.identification.segments import segments
from celltwin.physics.circuit import Circuit
from celltwin.physics.ocv import interpolation

GAS_CONSTANT, KELVIN = 8.314462618, 273.15  # J/mol/K, K
POINTS_IN_PAGE = 40_000  # samples of all runs together: four columns of them are 0.9 MB
MOST_POINTS = 251  # of a slow branch
ZOOMS = (0.9, 0.6, 0.3, 0.1)  # states of charge about which pulses are shown close
BEFORE, AFTER, STRETCH = 15.0, 90.0, 300.0  # s around a pulse; s of a stretch where there is no pulse
CLOSES = (0.97, 1.02)  # coulombic efficiencies of a cell; beyond, the log is not of one whole cycle
DOUBTS = ("hardly known", "cannot be told apart", "not identifiable")  # what notes say of what is left open


@dataclass(frozen=True)
class Resistance:
    """Of a circuit at one temperature and state of charge, in ohm; NaN errors where none are known."""

    temperature: float  # degC
    r0: float
    r0_error: float
    total: float
    total_error: float


def resistances(circuit: Circuit, soc: float) -> list[Resistance]:
    """Ohmic and total resistance at a state of charge (fraction) and each of the circuit's temperatures."""
    parts = series(circuit)
    weight = interpolation(np.array([soc]), circuit.soc)[0]
    values = np.array([np.exp(weight @ np.log(table)) for _, table, _ in parts])  # [parts, temperatures]
    errors = values * np.array([weight @ (error / table) for _, table, error in parts])
    total, doubt = values.sum(axis=0), np.sqrt((errors**2).sum(axis=0))
    columns = zip(circuit.temperatures, values[0], errors[0], total, doubt, strict=True)
    return [Resistance(*map(float, column)) for column in columns]


def series(circuit: Circuit) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, table [soc, temperatures] and standard error in ohm of what lies in series, R0 first."""
    found = [("R0", circuit.r0, _error(circuit, "r0", circuit.r0))]
    errors = _error(circuit, "r", circuit.r)
    found += [(f"R{i}", *both) for i, both in enumerate(zip(circuit.r, errors, strict=True), start=1)]
    if circuit.transfer_resistance is not None:
        table = circuit.transfer_resistance
        found.append(("Rct", table, _error(circuit, "transfer_resistance", table)))
    return found


def _error(circuit: Circuit, name: str, table: np.ndarray) -> np.ndarray:
    return np.asarray(circuit.standard_error.get(name, np.full(table.shape, np.nan)))


def doubts(identification: Identification) -> tuple[list[str], list[str]]:
    """The notes: what the data cannot tell, and what was inferred."""
    unclear = [note for note in identification.notes if any(word in note for word in DOUBTS)]
    return unclear, [note for note in identification.notes if note not in unclear]


def efficiency_text(efficiency: float) -> str:
    """What to say beside a coulombic efficiency (fraction)."""
    if np.isnan(efficiency):
        return "needs a whole slow cycle"
    low, high = CLOSES
    return "of the slow cycle" if low < efficiency < high else "not plausible: the charge of this log does not close"


def rmse_of(run: Record, simulated: np.ndarray) -> float:
    """V, over the samples with a measured voltage."""
    error = (simulated - run.voltage)[np.isfinite(run.voltage)]
    return float(np.sqrt(np.mean(error**2))) if error.size else float("nan")


# --- what the figures are drawn from ----------------------------------------------------------------------------------


def figures(identification: Identification) -> dict[str, Any]:
    """The data block of the page: units are those of the axes (mOhm, mV, V, s)."""
    circuit = identification.circuit
    return {
        "temperatures": circuit.temperatures,
        "soc": circuit.soc,
        "ocv": _open_circuit(identification),
        "tables": _tables(circuit),
        "arrhenius": _arrhenius(circuit) if len(circuit.temperatures) > 1 else [],
        "runs": _runs(identification),
    }


def _open_circuit(found: Identification) -> dict[str, Any]:
    circuit, temperatures = found.circuit, found.circuit.temperatures
    error = _error(circuit, "ocv", circuit.ocv)
    inside = (circuit.ocv_soc >= -0.05) & (circuit.ocv_soc <= 1.05)
    each: list[dict[str, Any]] = [
        {
            "voltage": np.round(circuit.ocv[inside, t], 5),
            "error": np.round(MILLI * error[inside, t], 3),
            "rests": {"soc": [], "voltage": [], "difference": [], "text": []},
            "branches": [],
        }
        for t in range(len(temperatures))
    ]
    for rest in found.rests:
        t = _nearest(temperatures, rest.ambient)
        curve = float(np.interp(rest.soc, circuit.ocv_soc, circuit.ocv[:, t]))
        text = f"{rest.duration / 60:.0f} min rest, still moved {MILLI * rest.drift:+.1f} mV in its second half"
        values = (round(rest.soc, 4), round(rest.voltage, 5), round(MILLI * (rest.voltage - curve), 3), text)
        for key, value in zip(each[t]["rests"], values, strict=True):
            each[t]["rests"][key].append(value)
    for branch in found.slow:
        t = _nearest(temperatures, branch.temperature)
        soc = np.linspace(branch.soc[0], branch.soc[-1], MOST_POINTS)
        rate = abs(branch.current) / circuit.capacity_ah
        name = f"C/{1 / rate:.0f} {'charge' if branch.current > 0 else 'discharge'}"
        each[t]["branches"].append(_branch(name, soc, np.interp(soc, branch.soc, branch.voltage), circuit, t))
    for t, one in enumerate(each):
        one |= _middle(found, t)
    return {"soc": circuit.ocv_soc[inside], "each": each}


def _branch(name: str, soc: np.ndarray, voltage: np.ndarray, circuit: Circuit, t: int) -> dict[str, Any]:
    difference = MILLI * (voltage - np.interp(soc, circuit.ocv_soc, circuit.ocv[:, t]))
    return {
        "name": name,
        "soc": np.round(soc, 4),
        "voltage": np.round(voltage, 5),
        "difference": np.round(difference, 3),
    }


def _middle(found: Identification, t: int) -> dict[str, Any]:
    """The average of the slow branches of a temperature, and the gap between them in mV."""
    circuit = found.circuit
    mine = [c for c in found.slow if _nearest(circuit.temperatures, c.temperature) == t]
    for down in (c for c in mine if c.current < 0):
        for up in (c for c in mine if c.current > 0):
            low, high = max(down.soc[0], up.soc[0]), min(down.soc[-1], up.soc[-1])
            if high - low > 0.2:
                soc = np.linspace(low, high, MOST_POINTS)
                a, b = (np.interp(soc, c.soc, c.voltage) for c in (down, up))
                average = _branch("average of both", soc, 0.5 * (a + b), circuit, t)
                return {"average": average, "gap": np.round(MILLI * (b - a), 3)}
    return {}


def _nearest(temperatures: np.ndarray, value: float) -> int:
    return int(np.argmin(np.abs(temperatures - value)))


def _tables(circuit: Circuit) -> list[dict[str, Any]]:
    tables = [(name, "mΩ", MILLI, table, error) for name, table, error in series(circuit)]
    errors = _error(circuit, "tau", circuit.tau)
    tables += [(f"τ{i}", "s", 1.0, *both) for i, both in enumerate(zip(circuit.tau, errors, strict=True), start=1)]
    return [
        {
            "name": name,
            "unit": unit,
            "values": [[float(f"{v:.5g}") for v in scale * column] for column in table.T],
            "relative": [[float(f"{v:.4g}") for v in column] for column in (error / table).T],
        }
        for name, unit, scale, table, error in tables
    ]


def _arrhenius(circuit: Circuit) -> list[dict[str, Any]]:
    """R0 and the total over 1000/T at a few states of charge, and the activation energy of the line through them."""
    lines = []
    inverse = 1.0 / (circuit.temperatures + KELVIN)
    for soc in (0.8, 0.5, 0.2):
        at = resistances(circuit, soc)
        for name, values in (("R0", [r.r0 for r in at]), ("total", [r.total for r in at])):
            slope = float(np.polyfit(inverse, np.log(values), 1)[0])
            lines.append(
                {
                    "name": name,
                    "soc": soc,
                    "inverse": MILLI * inverse,
                    "values": [float(f"{MILLI * v:.5g}") for v in values],
                    "energy": round(GAS_CONSTANT * slope / 1e3, 1),
                }
            )
    return lines


def _runs(found: Identification) -> list[dict[str, Any]]:
    whole = max(sum(len(run) for run in found.runs), 1)
    shown = []
    for run, simulated in zip(found.runs, found.simulated, strict=True):
        most = max(200, POINTS_IN_PAGE * len(run) // whole)
        index = thin(np.asarray(simulated - run.voltage), most)
        columns = {"time": run.time - run.time[0], "measured": run.voltage, "simulated": simulated}
        shown.append(
            {
                "label": run.label,
                "rmse": round(MILLI * rmse_of(run, simulated), 2),
                "soc": [round(100 * float(run.soc[k])) for k in (0, -1)],
                **{name: packed(np.asarray(values)[index]) for name, values in columns.items()},
                "current": packed(run.current[index]),
                "zooms": _zooms(run, found.circuit.capacity_ah),
            }
        )
    return shown


def _zooms(run: Record, capacity_ah: float) -> list[dict[str, Any]]:
    """Stretches to look at closely: the strongest pulse near each of a few states of charge, in s of the run."""
    time = run.time - run.time[0]
    pulses = [s for s in segments(run, capacity_ah) if s.kind == "pulse" and s.start > 0]
    if not pulses:
        return _stretches(run, time)
    found: dict[int, dict[str, Any]] = {}
    for wanted in ZOOMS:
        soc = np.array([run.soc[s.start] for s in pulses])
        near = np.abs(soc - wanted)
        close = [s for s, far in zip(pulses, near, strict=True) if far < near.min() + 0.03]
        best = max(close, key=lambda s: abs(s.current))
        begin, end = float(time[best.start - 1]), float(time[best.stop - 1])
        title = f"{best.current:+.3g} A at {100 * run.soc[best.start]:.0f} %".replace("-", "−")
        found.setdefault(best.start, {"title": title, "begin": begin, "from": begin - BEFORE, "to": end + AFTER})
    return list(found.values())


def _stretches(run: Record, time: np.ndarray) -> list[dict[str, Any]]:
    begins: Sequence[float] = [share * float(time[-1]) for share in (0.1, 0.35, 0.6, 0.85)]
    return [
        {
            "title": f"at {100 * np.interp(begin, time, run.soc):.0f} %",
            "begin": begin,
            "from": begin,
            "to": min(begin + STRETCH, float(time[-1])),
        }
        for begin in begins
    ]
