"""A circuit's tables between their nodes, in numpy: what other tools are given to call."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np

from celltwin.physics.circuit import Circuit
from celltwin.physics.tables import KELVIN, inverse_temperature

Lookup = Callable[[Any, Any], np.ndarray]  # of state of charge (fraction) and temperature (degC), numbers or arrays

# What a circuit's meta may hold under "thermal", and what ECM-PS calls it. PyBaMM writes the same units with a stroke.
THERMAL = {
    "cell_joule_per_kelvin": "Cell thermal mass [J.K-1]",
    "cell_to_jig_watt_per_kelvin": "Cell-jig heat transfer coefficient [W.K-1]",
    "jig_joule_per_kelvin": "Jig thermal mass [J.K-1]",
    "jig_to_air_watt_per_kelvin": "Jig-air heat transfer coefficient [W.K-1]",
}


def bilinear(x_nodes: np.ndarray, y_nodes: np.ndarray, table: np.ndarray) -> Lookup:
    """Piecewise linear interpolation of a table [x, y], exact at its nodes and held beyond the outermost."""
    as_lists = x_nodes.tolist(), y_nodes.tolist()

    def at(x: Any, y: Any) -> np.ndarray:
        if np.ndim(x) == 0 and np.ndim(y) == 0:
            (i, j, right), (k, m, up) = _place_number(x, as_lists[0]), _place_number(y, as_lists[1])
        else:
            (i, j, right), (k, m, up) = _place(x, x_nodes), _place(y, y_nodes)
        low = (1.0 - right) * table[i, k] + right * table[j, k]
        high = (1.0 - right) * table[i, m] + right * table[j, m]
        return (1.0 - up) * low + up * high

    return at


def _place(value: np.ndarray, nodes: np.ndarray) -> tuple[Any, Any, Any]:
    """The nodes on either side of each value, and how far it is from the lower to the upper, 0 to 1."""
    lower = np.clip(np.searchsorted(nodes, value, side="right") - 1, 0, max(len(nodes) - 2, 0))
    upper = np.minimum(lower + 1, len(nodes) - 1)
    gap = np.where(upper > lower, nodes[upper] - nodes[lower], 1.0)
    return lower, upper, np.clip((value - nodes[lower]) / gap, 0.0, 1.0)


def _place_number(value: float, nodes: list[float]) -> tuple[int, int, float]:
    """`_place` of one number, an order of magnitude sooner: solvers of other tools ask for one at a time."""
    if value <= nodes[0]:
        return 0, 0, 0.0
    if value >= nodes[-1]:
        return len(nodes) - 1, len(nodes) - 1, 0.0
    lower = bisect_right(nodes, value) - 1
    return lower, lower + 1, (value - nodes[lower]) / (nodes[lower + 1] - nodes[lower])


def open_circuit_voltage(circuit: Circuit) -> Lookup:
    """V, between its hysteresis branches: linear in state of charge and in 1/T."""
    inside = bilinear(circuit.ocv_soc, inverse_temperature(circuit.temperatures), circuit.ocv)
    return lambda soc, temperature: inside(soc, inverse_temperature(temperature))


def positive(circuit: Circuit, table: np.ndarray) -> Lookup:
    """A table [soc, temperature] of resistances or time constants: its logarithm is linear in both axes, as above."""
    inside = bilinear(circuit.soc, inverse_temperature(circuit.temperatures), np.log(table))
    return lambda soc, temperature: np.exp(inside(soc, inverse_temperature(temperature)))


def kelvin(celsius: Any) -> Any:
    return celsius + KELVIN


def celsius(kelvin: Any) -> Any:
    """degC to nine decimals, so that 263.15 K are -10 degC."""
    return np.round(kelvin - KELVIN, 9)


def union(*axes: np.ndarray) -> np.ndarray:
    """All nodes of several axes in increasing order, those that differ by rounding alone once."""
    nodes = np.unique(np.concatenate([np.asarray(axis, float) for axis in axes]))
    return nodes[np.diff(nodes, prepend=-np.inf) > 1e-9]
