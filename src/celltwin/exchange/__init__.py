"""Circuits and simulations to and from the formats of other tools.

    circuit = exchange.load("cell.json")                 # ECM-PS, celltwin's own documents exactly
    exchange.save(circuit, "cell.json")
    circuit = exchange.from_bpx("cell_bpx.json", r0=0.02)
    parameters = exchange.to_thevenin(circuit, soc=0.9, temperature=10.0)
    model, values = exchange.to_pybamm(exchange.on_branch(circuit, "discharge"))
    record = exchange.record_of(solution, cell=cell, initial_soc=1.0)  # of PyBaMM, to learn a twin from
    solution = exchange.Solution(record, twin.simulate(record))        # as PyBaMM's, solution["Voltage [V]"].entries

| tool              | in | out | what it does not know                                              |
| ----------------- | -- | --- | ------------------------------------------------------------------ |
| ECM-PS 0.2        | x  | x   | charge transfer, several modes of hysteresis, a core (kept beside) |
| thevenin (NREL)   | x  | x   | charge transfer, several modes of hysteresis, a core, U over T     |
| PyBaMM's Thevenin | x  | x   | hysteresis, a core, U over T                                       |
| BPX               | x  |     | circuits: open-circuit voltage, capacity and limits are read       |

What a tool does not know is never dropped in silence: `linear`, `one_mode`, `on_branch` and `without_core` make the
simpler circuit, and errors name the one that is needed. The currency between all of them is a
`celltwin.physics.circuit.Circuit`.
"""

from celltwin.exchange.bpx import from_bpx
from celltwin.exchange.ecm_ps import circuit_of, document_of, load, save
from celltwin.exchange.nrel import from_thevenin, to_thevenin
from celltwin.exchange.pybamm import from_pybamm, to_pybamm
from celltwin.exchange.reduction import linear, on_branch, one_mode, without_core
from celltwin.exchange.solution import Solution, record_of

__all__ = [
    "Solution",
    "circuit_of",
    "document_of",
    "from_bpx",
    "from_pybamm",
    "from_thevenin",
    "linear",
    "load",
    "on_branch",
    "one_mode",
    "record_of",
    "save",
    "to_pybamm",
    "to_thevenin",
    "without_core",
]
