"""Simpler circuits for tools that know fewer elements, each with a note of what it lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from celltwin.errors import CelltwinError
from celltwin.exchange.lookup import union
from celltwin.physics.circuit import Circuit

Branch = Literal["mean", "charge", "discharge"]


def linear(circuit: Circuit, at_ampere: float = 0.0) -> Circuit:
    """Ohmic resistances in place of charge transfer: those that it has at a current (A), by default a vanishing one.

    R0 takes Rct over. The circuit itself where it is linear already.
    """
    if circuit.transfer_resistance is None or circuit.transfer_scale is None:
        return circuit
    current, scale = abs(at_ampere), circuit.transfer_scale

    def chord(resistance: np.ndarray) -> np.ndarray:
        return scale * np.arcsinh(resistance * current / scale) / current if current else resistance

    r = circuit.r.copy()
    if circuit.pairs:
        r[0] = chord(r[0])
    return _without(
        circuit,
        ("r0", "transfer_resistance", "transfer_scale", *(("r",) if current else ())),
        f"charge transfer is replaced by its resistance at {current:g} A",
        r0=circuit.r0 + chord(circuit.transfer_resistance),
        r=r,
        transfer_resistance=None,
        transfer_scale=None,
    )


def one_mode(circuit: Circuit) -> Circuit:
    """One mode of hysteresis in place of several: the same branches, reached in the mean after the same charge.

    After a turn the modes together lag behind their branch by sum(M exp(-gamma q)). One rate gives the same area under
    that curve: sum(M) / sum(M / gamma), of the gaps' means over state of charge. The circuit itself where one is all.
    """
    gap, rate = circuit.hysteresis, circuit.hysteresis_rate
    if gap is None or rate is None or len(rate) == 1:
        return circuit
    weight = gap.mean(axis=1) + 1e-12  # V; so small that it matters only where there is no gap at all
    return _without(
        circuit,
        ("hysteresis", "hysteresis_rate"),
        f"{len(rate)} modes of hysteresis are replaced by one",
        hysteresis=gap.sum(axis=0, keepdims=True),
        hysteresis_rate=[weight.sum() / (weight / rate).sum()],
    )


def on_branch(circuit: Circuit, branch: Branch = "mean") -> Circuit:
    """No hysteresis: the open-circuit voltage of the branch after a long charge or discharge, or of their mean."""
    sides = {"mean": 0.0, "charge": 1.0, "discharge": -1.0}
    if branch not in sides:
        raise CelltwinError("no such branch of the open-circuit voltage", got=branch, expected=" or ".join(sides))
    if circuit.hysteresis is None:
        return circuit
    nodes = circuit.ocv_soc if branch == "mean" else union(circuit.ocv_soc, circuit.soc)
    return _without(
        circuit,
        ("hysteresis", "hysteresis_rate", *(() if branch == "mean" else ("ocv",))),
        f"hysteresis is left out: the open-circuit voltage is that of the {branch} branch",
        ocv_soc=nodes,
        ocv=curves(circuit, nodes) + sides[branch] * half_gap(circuit, nodes)[:, None],
        hysteresis=None,
        hysteresis_rate=None,
    )


def without_core(circuit: Circuit) -> Circuit:
    """No core that is warmer than what is measured: tables are read at the temperature that is given.

    The circuit itself where it has none.
    """
    if circuit.core_kelvin_per_watt == 0.0:
        return circuit
    note = f"a core {circuit.core_kelvin_per_watt:.2g} K/W warmer than the surface is left out"
    return _without(circuit, (), note, core_kelvin_per_watt=0.0)


def refuse_core(circuit: Circuit, tool: str) -> None:
    """Raises CelltwinError for a circuit with a core, which `tool` does not know."""
    if circuit.core_kelvin_per_watt > 0.0:
        raise CelltwinError(
            f"circuit '{circuit.name}' has a core warmer than its surface, which {tool} does not know",
            got=f"{circuit.core_kelvin_per_watt:.2g} K/W",
            fix="read the tables at the surface's temperature: exchange.without_core(circuit)",
        )


def curves(circuit: Circuit, nodes: np.ndarray) -> np.ndarray:
    """The open-circuit voltage on other nodes of state of charge, [nodes, temperatures] in V."""
    return np.stack([np.interp(nodes, circuit.ocv_soc, curve) for curve in circuit.ocv.T], axis=1)


def half_gap(circuit: Circuit, nodes: np.ndarray) -> np.ndarray:
    """Half the gap between the branches, of all modes together, [nodes] in V."""
    if circuit.hysteresis is None:
        return np.zeros(len(nodes))
    return np.interp(nodes, circuit.soc, circuit.hysteresis.sum(axis=0))


def _without(circuit: Circuit, changed: tuple[str, ...], note: str, **tables: Any) -> Circuit:
    """The circuit with other tables, without the standard errors of what changed, and with a note."""
    errors = {name: error for name, error in circuit.standard_error.items() if name not in changed}
    return replace(circuit, **tables, standard_error=errors, notes=(*circuit.notes, note))
