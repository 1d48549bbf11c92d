"""PyBaMM's `equivalent_circuit.Thevenin`: its parameters, out and in.

It discharges with a positive current, takes temperature in degC and state of charge as a fraction, and its resistances
may depend on the current, so that charge transfer finds a place. It knows no hysteresis, and its open-circuit voltage
depends on state of charge alone. PyBaMM is imported when it is needed (`pip install 'celltwin[peers]'`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from celltwin.errors import CelltwinError
from celltwin.exchange.lookup import THERMAL, kelvin, open_circuit_voltage
from celltwin.exchange.nrel import SOC
from celltwin.exchange.reduction import refuse_core
from celltwin.physics.circuit import Circuit
from celltwin.physics.tables import KELVIN, inverse_temperature

NEVER_WARMS = 1e12  # J/K
NEAREST = 1e-9  # PyBaMM stops at a state of charge of 0 and 1, and does not start there
_THERMAL = {name: title.replace(".K-1", "/K") for name, title in THERMAL.items()}


def to_pybamm(
    circuit: Circuit, *, soc: float = 1.0, temperature: float = 25.0, isothermal: bool = True
) -> tuple[Any, Any]:
    """A Thevenin model and its ParameterValues: a cell at rest at `soc` (fraction) and `temperature` (degC).

    `pybamm.Simulation(model, parameter_values=values)` runs them; set "Current function [A]", positive on discharge.
    Tables are interpolated like celltwin's, and held beyond their nodes. The open-circuit voltage is the one at
    `temperature`, and heat of reaction is left out. A cell that warms itself needs meta["thermal"]. Raises
    CelltwinError for what PyBaMM's circuit does not know: hysteresis, a core warmer than its surface.
    """
    pybamm = _pybamm()
    if circuit.hysteresis is not None:
        raise CelltwinError(
            f"circuit '{circuit.name}' has hysteresis, which PyBaMM's circuit does not know",
            fix="choose a branch of the open-circuit voltage: exchange.on_branch(circuit, 'discharge')",
        )
    refuse_core(circuit, "PyBaMM's circuit")
    thermal = {"cell_joule_per_kelvin": NEVER_WARMS} if isothermal else circuit.meta.get("thermal", {})
    if "cell_joule_per_kelvin" not in thermal or not (isothermal or "cell_to_jig_watt_per_kelvin" in thermal):
        raise CelltwinError(
            f"circuit '{circuit.name}' does not say how it warms",
            got=thermal,
            expected="meta['thermal'] with cell_joule_per_kelvin and cell_to_jig_watt_per_kelvin",
        )
    # A jig that is not known is the air.
    known = {"cell_to_jig_watt_per_kelvin": 0.0, "jig_joule_per_kelvin": NEVER_WARMS, "jig_to_air_watt_per_kelvin": 0.0}
    low, high = circuit.voltage_limits_volt
    curve = open_circuit_voltage(circuit)(circuit.ocv_soc, temperature)
    values: dict[str, Any] = {
        "Initial SoC": min(max(soc, NEAREST), 1.0 - NEAREST),
        "Initial temperature [K]": kelvin(temperature),
        "Ambient temperature [K]": kelvin(temperature),
        "Cell capacity [A.h]": circuit.capacity_ah,
        "Nominal cell capacity [A.h]": circuit.capacity_ah,
        "Current function [A]": 0.0,
        "Lower voltage cut-off [V]": low,
        "Upper voltage cut-off [V]": high,
        "Open-circuit voltage [V]": lambda s: _interpolant(pybamm, [circuit.ocv_soc], curve, [s], "OCV"),
        "Entropic change [V/K]": 0.0,
        **{title: (known | thermal)[name] for name, title in _THERMAL.items()},
    }
    values |= _elements(pybamm, circuit)
    model = pybamm.equivalent_circuit.Thevenin(options={"number of rc elements": circuit.pairs})
    return model, pybamm.ParameterValues(values)


def _elements(pybamm: Any, circuit: Circuit) -> dict[str, Any]:
    """R0, R{i} and C{i} as functions of temperature (degC), current (A) and state of charge."""
    warmth = inverse_temperature(circuit.temperatures)

    def logarithm(table: np.ndarray, temperature: Any, soc: Any, name: str) -> Any:
        at = -1000.0 / (temperature + KELVIN)
        return _interpolant(pybamm, [circuit.soc, warmth], np.log(table), [soc, at], name)

    def table_of(table: np.ndarray, name: str) -> Callable[..., Any]:
        return lambda temperature, current, soc: pybamm.exp(logarithm(table, temperature, soc, name))

    def chord_of(table: np.ndarray, name: str) -> Callable[..., Any]:
        """s asinh(R I / s) / I, which is R where the current vanishes; R itself in a linear circuit."""
        resistance, scale = table_of(table, name), circuit.transfer_scale
        if scale is None:
            return resistance
        logarithms = np.log(scale)

        def chord(temperature: Any, current: Any, soc: Any) -> Any:
            at = -1000.0 / (temperature + KELVIN)
            s = pybamm.exp(_interpolant(pybamm, [warmth], logarithms, [at], "scale"))
            r = resistance(temperature, current, soc)
            ratio = pybamm.sqrt((r * current / s) ** 2 + 1e-12)
            return r * pybamm.arcsinh(ratio) / ratio

        return chord

    r0, rct = table_of(circuit.r0, "R0"), circuit.transfer_resistance
    values: dict[str, Any] = {"R0 [Ohm]": r0}
    if rct is not None:
        beside = chord_of(rct, "Rct")
        values["R0 [Ohm]"] = lambda t, i, s: r0(t, i, s) + beside(t, i, s)
    for k, (r, tau) in enumerate(zip(circuit.r, circuit.tau, strict=True), start=1):
        resistance = (chord_of if k == 1 else table_of)(r, f"R{k}")
        time = table_of(tau, f"tau{k}")
        values[f"R{k} [Ohm]"] = resistance
        values[f"C{k} [F]"] = lambda t, i, s, resistance=resistance, time=time: time(t, i, s) / resistance(t, i, s)
        values[f"Element-{k} initial overpotential [V]"] = 0.0
    return values


def _interpolant(pybamm: Any, axes: list[np.ndarray], table: np.ndarray, at: list[Any], name: str) -> Any:
    """A linear interpolant that is flat beyond its outermost nodes: a node more at each end, of the same value."""
    for dimension, axis in enumerate(axes):
        axes = [*axes[:dimension], np.r_[axis[0] - 1.0, axis, axis[-1] + 1.0], *axes[dimension + 1 :]]
    table = np.pad(table, 1, mode="edge")
    return pybamm.Interpolant(axes[0] if len(axes) == 1 else axes, table, at, name, interpolator="linear")


def from_pybamm(
    values: Any,
    *,
    temperatures: Sequence[float],
    soc: Sequence[float] = SOC,
    at_ampere: float = 0.0,
    name: str = "cell",
) -> Circuit:
    """A circuit from the ParameterValues of PyBaMM's Thevenin, sampled at nodes of `soc` and `temperatures` (degC).

    Resistances that depend on the current are those at `at_ampere` (A, positive on charge). Raises CelltwinError for
    parameters that are missing.
    """
    pybamm = _pybamm()
    parameters = pybamm.EcmParameters()
    pairs, named = 0, set(values.keys())
    while f"R{pairs + 1} [Ohm]" in named:
        pairs += 1
    nodes = np.asarray(soc, float)

    def evaluate(symbol: Any) -> float:
        return float(np.squeeze(values.process_symbol(symbol).evaluate()))

    def sample(title: str) -> np.ndarray:
        return np.array(
            [
                [evaluate(parameters.rcr_element(title, *_scalars(pybamm, t, -at_ampere, s))) for t in temperatures]
                for s in nodes
            ]
        )

    try:
        r = np.array([sample(f"R{i} [Ohm]") for i in range(1, pairs + 1)]).reshape(pairs, len(nodes), len(temperatures))
        c = np.array([sample(f"C{i} [F]") for i in range(1, pairs + 1)]).reshape(r.shape)
        curve = np.array([evaluate(parameters.ocv(*_scalars(pybamm, s))) for s in nodes])
        thermal = {key: float(values[title]) for key, title in _THERMAL.items() if title in named}
        thermal = {key: value for key, value in thermal.items() if 0.0 < value < NEVER_WARMS}
        return Circuit(
            name=name,
            capacity_ah=float(values["Cell capacity [A.h]"]),
            voltage_limits_volt=(
                float(values["Lower voltage cut-off [V]"]),
                float(values["Upper voltage cut-off [V]"]),
            ),
            temperatures=np.asarray(temperatures, float),
            ocv_soc=nodes,
            ocv=np.repeat(curve[:, None], len(temperatures), axis=1),
            soc=nodes,
            r0=sample("R0 [Ohm]"),
            r=r,
            tau=r * c,
            meta={"source": "parameters of PyBaMM's Thevenin"} | ({"thermal": thermal} if thermal else {}),
        )
    except KeyError as error:
        raise CelltwinError(
            "a parameter of PyBaMM's Thevenin is missing", got=error, expected=f"all those of {pairs} RC elements"
        ) from error


def _scalars(pybamm: Any, *numbers: float) -> list[Any]:
    return [pybamm.Scalar(number) for number in numbers]


def _pybamm() -> Any:
    double = jax.config.read("jax_enable_x64")
    try:
        import pybamm
    except ImportError as error:
        raise CelltwinError("PyBaMM is not installed", fix="pip install 'celltwin[peers]'") from error
    jax.config.update("jax_enable_x64", double)  # PyBaMM makes all of JAX double; celltwin's twins are single
    return pybamm
