"""NREL's `thevenin` (Python, BSD-3): the parameters of its `Simulation` and `Prediction`.

It discharges with a positive current, counts state of charge like celltwin and temperature in kelvin, and its functions
are called with numbers or arrays. It knows one mode of hysteresis, in volts like celltwin's, and no charge transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from celltwin.errors import CelltwinError
from celltwin.exchange.lookup import Lookup, kelvin, open_circuit_voltage, positive
from celltwin.exchange.reduction import refuse_core
from celltwin.physics.circuit import Circuit

SOC = tuple(np.linspace(0.0, 1.0, 21).tolist())
_THERMAL = ("cell_joule_per_kelvin", "cell_to_jig_watt_per_kelvin")


def to_thevenin(
    circuit: Circuit, *, soc: float = 1.0, temperature: float = 25.0, isothermal: bool = True
) -> dict[str, Any]:
    """Parameters for `thevenin.Simulation(parameters)`: a cell at rest at `soc` (fraction) and `temperature` (degC).

    Resistances follow temperature; the open-circuit voltage of thevenin depends on state of charge alone, and is the
    one at `temperature`. A cell that warms itself needs meta["thermal"]. Raises CelltwinError for what thevenin does
    not know: charge transfer, several modes of hysteresis, a core warmer than its surface.
    """
    if circuit.transfer_resistance is not None:
        raise CelltwinError(
            f"circuit '{circuit.name}' has charge transfer, which thevenin does not know",
            fix="give its resistance at a typical current: exchange.linear(circuit, at_ampere=...)",
        )
    if circuit.hysteresis is not None and len(circuit.hysteresis) > 1:
        raise CelltwinError(
            f"circuit '{circuit.name}' has more hysteresis than thevenin knows",
            got=f"{len(circuit.hysteresis)} modes",
            expected="one",
            fix="exchange.one_mode(circuit)",
        )
    refuse_core(circuit, "thevenin")
    thermal = circuit.meta.get("thermal", {})
    if not isothermal and not set(_THERMAL) <= set(thermal):
        raise CelltwinError(
            f"circuit '{circuit.name}' does not say how it warms",
            got=thermal,
            expected=f"meta['thermal'] of {_THERMAL}",
        )
    # From cell to jig to air is one way for the heat.
    ways = [thermal[way] for way in (_THERMAL[1], "jig_to_air_watt_per_kelvin") if thermal.get(way)]
    voltage, rate = open_circuit_voltage(circuit), circuit.hysteresis_rate
    gap = np.zeros(len(circuit.soc)) if circuit.hysteresis is None else circuit.hysteresis[0]
    parameters: dict[str, Any] = {
        "num_RC_pairs": circuit.pairs,
        "soc0": soc,
        "capacity": circuit.capacity_ah,
        "ce": 1.0,
        "gamma": 0.0 if rate is None else float(rate[0]),
        "mass": 1.0,  # kg: heat capacity and cooling are those of the whole cell
        "isothermal": isothermal,
        "Cp": thermal.get(_THERMAL[0], 1.0),
        "T_inf": kelvin(temperature),
        "h_therm": 1.0 / sum(1.0 / way for way in ways) if ways else 0.0,
        "A_therm": 1.0,
        "ocv": lambda s: voltage(s, temperature),
        "M_hyst": lambda s: np.interp(s, circuit.soc, gap),
        "R0": _in_kelvin(positive(circuit, circuit.r0)),
    }
    for i, (r, tau) in enumerate(zip(circuit.r, circuit.tau, strict=True), start=1):
        parameters[f"R{i}"] = _in_kelvin(positive(circuit, r))
        parameters[f"C{i}"] = _in_kelvin(positive(circuit, tau / r))
    return parameters


def from_thevenin(
    parameters: Mapping[str, Any],
    *,
    temperatures: Sequence[float],
    voltage_limits_volt: tuple[float, float],
    soc: Sequence[float] = SOC,
    name: str = "cell",
) -> Circuit:
    """A circuit from parameters of `thevenin`, its functions sampled at nodes of `soc` and `temperatures` (degC).

    Voltage limits are asked for because thevenin has none. Raises CelltwinError for missing parameters, and for a
    coulombic efficiency other than 1: celltwin counts all charge.
    """
    pairs = int(parameters.get("num_RC_pairs", 0))
    elements = ["R0"] + [f"{kind}{i}" for i in range(1, pairs + 1) for kind in "RC"]
    missing = [key for key in ("capacity", "ocv", *elements) if key not in parameters]
    if missing:
        raise CelltwinError("parameters of thevenin are missing", got=missing, expected=f"{pairs} RC pairs")
    if parameters.get("ce", 1.0) != 1.0:
        raise CelltwinError(
            "celltwin counts all charge",
            got=f"a coulombic efficiency of {parameters['ce']}",
            expected="ce = 1",
            fix="set ce to 1 and correct the current instead",
        )
    nodes = np.asarray(soc, float)

    def sample(key: str) -> np.ndarray:
        return np.array([[float(parameters[key](s, kelvin(t))) for t in temperatures] for s in nodes])

    def curve(key: str) -> np.ndarray:
        return np.array([float(parameters[key](s)) for s in nodes])

    r = np.array([sample(f"R{i}") for i in range(1, pairs + 1)]).reshape(pairs, len(nodes), len(temperatures))
    c = np.array([sample(f"C{i}") for i in range(1, pairs + 1)]).reshape(r.shape)
    gap, rate = curve("M_hyst") if "M_hyst" in parameters else np.zeros(len(nodes)), parameters.get("gamma", 0.0)
    remembers = bool(gap.any()) and rate > 0.0
    heat = float(parameters.get("mass", 1.0)) * float(parameters.get("Cp", 0.0))
    cooling = float(parameters.get("h_therm", 0.0)) * float(parameters.get("A_therm", 1.0))
    warms = heat > 0.0 and not parameters.get("isothermal", True)
    return Circuit(
        name=name,
        capacity_ah=float(parameters["capacity"]),
        voltage_limits_volt=voltage_limits_volt,
        temperatures=np.asarray(temperatures, float),
        ocv_soc=nodes,
        ocv=np.repeat(curve("ocv")[:, None], len(temperatures), axis=1),
        soc=nodes,
        r0=sample("R0"),
        r=r,
        tau=r * c,
        hysteresis=gap[None] if remembers else None,
        hysteresis_rate=np.array([rate]) if remembers else None,
        meta={"source": "parameters of thevenin"}
        | ({"thermal": dict(zip(_THERMAL, (heat, cooling), strict=True))} if warms else {}),
    )


def _in_kelvin(lookup: Lookup) -> Callable[[Any, Any], np.ndarray]:
    return lambda soc, temperature: lookup(soc, temperature - kelvin(0.0))
