"""Packs: beside liionpack on one circuit, cost by size, and a step of message passing beside PyTorch Geometric.

    python benchmarks/pack.py                                  # cost by size; the peers where they are installed
    python benchmarks/pack.py --peers /path/to/python          # an interpreter that has liionpack, torch_geometric
    python benchmarks/pack.py --json figures.json

liionpack (github.com/pybamm-team/liionpack) runs its own 32p10s netlist, from its `setup_circuit`, with PyBaMM's
Thevenin model; celltwin imports that netlist and the same circuit. Both are timed after what they do once: compiling
here, building CasADi functions there. celltwin's figures are the best of three, liionpack's is of one run: it takes
minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SECONDS, STEPS = 10.0, 180  # half an hour
R0, R1, TAU, CAPACITY, CURRENT = 0.05, 0.015, 60.0, 5.0, 80.0
SOC, OCV = (0.0, 0.1, 0.3, 0.6, 0.9, 1.0), (3.0, 3.4, 3.6, 3.75, 4.05, 4.2)

PEER = """
import json, sys, time
import numpy as np
import liionpack as lp, pybamm
lp.set_logging_level("ERROR")
# liionpack 0.4 reads two counts of sensitivities that later versions of PyBaMM no longer hold; there are none.
pybamm.BaseModel.len_rhs_sens = pybamm.BaseModel.len_alg_sens = 0
a = json.loads(sys.argv[1])
net = lp.setup_circuit(Np=32, Ns=10, Rb=1e-4, Rc=1e-2, Ri=a["r0"], V=4.0, I=a["current"])
values = pybamm.ParameterValues("ECM_Example")
soc, ocv = np.array(a["soc"]), np.array(a["ocv"])
values.update({
    "Initial SoC": 0.9, "Cell capacity [A.h]": a["capacity"], "Nominal cell capacity [A.h]": a["capacity"],
    "Open-circuit voltage [V]": lambda s: pybamm.Interpolant(soc, ocv, s, interpolator="linear"),
    "R0 [Ohm]": lambda T, i, s: pybamm.Scalar(a["r0"]), "R1 [Ohm]": lambda T, i, s: pybamm.Scalar(a["r1"]),
    "C1 [F]": lambda T, i, s: pybamm.Scalar(a["tau"] / a["r1"]),
    "Entropic change [V/K]": lambda o, T: pybamm.Scalar(0.0),
    "Upper voltage cut-off [V]": 4.5, "Lower voltage cut-off [V]": 2.0,
}, check_already_exists=False)

def simulation(parameter_values=None):
    model = pybamm.equivalent_circuit.Thevenin()
    model = lp.add_events_to_model(model)
    model.variables["Terminal voltage [V]"] = model.variables["Voltage [V]"]
    model.variables["Surface open-circuit voltage [V]"] = model.variables["Open-circuit voltage [V]"]
    return pybamm.Simulation(model=model, parameter_values=parameter_values, solver=pybamm.CasadiSolver(mode="safe"))

minutes = a["steps"] * a["seconds"] / 60
discharge = f"Discharge at {a['current']} A for {minutes} minutes"
experiment = pybamm.Experiment([discharge], period=f"{a['seconds']} seconds")
best, out = 1e9, None
manager = lp.solvers.CasadiManager()
for _ in range(a["rounds"]):
    manager = lp.solvers.CasadiManager()
    manager.solve(netlist=net.copy(), sim_func=simulation, parameter_values=values.copy(), experiment=experiment,
                  inputs=None, output_variables=None, initial_soc=None, nproc=1, setup_only=True)
    manager.global_step = 0
    begin = time.perf_counter()
    for ps, protocol in enumerate(manager.protocol_steps):
        manager._step_solve_step(protocol, manager.terminations[ps] or 0.0, manager.step_types[ps], None)
    best = min(best, time.perf_counter() - begin)
    out = manager.step_output()
np.savez(a["out"], voltage=out["Terminal voltage [V]"], current=out["Cell current [A]"],
         pack=out["Pack terminal voltage [V]"], seconds=best)
net.to_csv(a["out"] + ".csv", index=False)
"""

GEOMETRIC = """
import json, sys, time
import torch, torch_geometric
from torch_geometric.nn import SAGEConv
torch.set_num_threads(1)
a = json.loads(sys.argv[1])
edges = [torch.tensor(e).T.contiguous() for e in a["edges"]]
n, h = a["cells"], a["hidden"]
layers = [SAGEConv((h, h), h) for _ in edges]
gate = torch.nn.Linear(h * (2 + len(edges)), 2 * h)

def step(x):
    seen = torch.cat([x, *(layer(x, e) for layer, e in zip(layers, edges)), x.mean(0).expand(n, h)], dim=1)
    g, v = gate(seen).chunk(2, dim=1)
    return x + torch.sigmoid(g) * (torch.tanh(v) - x)

with torch.no_grad():
    x = torch.zeros(n, h)
    for _ in range(20):
        x = step(x)
    best = 1e9
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(a["steps"]):
            x = step(x)
        best = min(best, time.perf_counter() - begin)
print(json.dumps({"seconds": best / a["steps"], "version": torch_geometric.__version__}))
"""


def best(run: Any, rounds: int = 3) -> float:
    import jax

    jax.block_until_ready(run())
    found = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        found = min(found, time.perf_counter() - begin)
    return found


def circuit() -> Any:
    import numpy as np

    from celltwin.physics.circuit import Circuit

    one = np.ones((1, 1))
    curve = np.array(SOC), np.array(OCV)[:, None]
    tables = R0 * one, R1 * one[None], TAU * one[None]
    return Circuit("peer", CAPACITY, (2.0, 4.5), np.array([25.0]), *curve, np.array([0.5]), *tables)


def beside_liionpack(python: str) -> dict[str, Any] | None:
    """liionpack's 32p10s: seconds of both, and how far cell voltages are apart."""
    import numpy as np
    import pyarrow.csv

    from celltwin.physics.pack import Pack, inputs, simulate_pack
    from celltwin.physics.topology import Netlist

    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "r0": R0, "r1": R1, "tau": TAU, "capacity": CAPACITY, "current": CURRENT, "soc": SOC, "ocv": OCV,
            "seconds": SECONDS, "steps": STEPS, "rounds": 1, "out": f"{folder}/peer.npz",
        }  # fmt: skip
        done = subprocess.run([python, "-c", PEER, json.dumps(asked)], capture_output=True, text=True)
        if done.returncode:
            print(f"liionpack: not run ({done.stderr.strip().splitlines()[-1][:150]})")
            return None
        peer = dict(np.load(f"{folder}/peer.npz"))
        table = pyarrow.csv.read_csv(f"{folder}/peer.npz.csv").to_pydict()
    netlist = Netlist.of_liionpack(table)
    # A linear circuit: one iteration is exact but for the slope of the open-circuit curve.
    pack = Pack.of(netlist, circuit(), capacity_ah=CAPACITY, newton=2)
    time_of_peer = len(peer["voltage"])
    current = np.full(time_of_peer, -CURRENT)
    dt = np.full(time_of_peer, SECONDS)
    dt[0] = 0.0
    start, drive = pack.init(0.9, 25.0), inputs(current, 25.0, dt)
    seconds = best(lambda: simulate_pack(pack, start, drive)[1].voltage)
    out = simulate_pack(pack, start, drive)[1]
    # liionpack states the voltage of a step before the new current is solved: it is compared from the second on, at the
    # current that it held there.
    difference = np.abs(np.asarray(out.voltage)[2:] - peer["voltage"][2:])
    share = np.abs(np.asarray(out.current)[2:] + peer["current"][2:])
    return {
        "cells": 320,
        "steps": time_of_peer,
        "liionpack_seconds": float(peer["seconds"]),
        "celltwin_seconds": seconds,
        "times_faster": float(peer["seconds"]) / seconds,
        "voltage_mv_mean": 1e3 * float(difference.mean()),
        "voltage_mv_max": 1e3 * float(difference.max()),
        "current_a_max": float(share.max()),
    }


def by_size(most: int) -> list[dict[str, Any]]:
    """Cost of a cell and step, from 10 cells to 100,000: a linear circuit of one pair, and the demo's circuit."""
    import numpy as np

    from celltwin.packs.draw import demo_circuit
    from celltwin.physics.pack import Pack, inputs, simulate_pack
    from celltwin.physics.topology import parse

    rows = []
    for text in ("5s2p", "50s2p", "100s10p", "100s100p", "1000s100p"):
        cells = parse(text).cells
        if cells > most:
            continue
        row: dict[str, Any] = {"topology": text, "cells": cells}
        dice = np.random.default_rng(0)
        steps = max(10, min(1000, 1_000_000 // cells))
        for name, model, newton in (("linear", circuit(), 2), ("demo", demo_circuit(), 3)):
            pack = Pack.of(
                text, model, newton=newton,
                capacity_ah=5.0 * (1.0 + 0.02 * dice.standard_normal(cells)),
                resistance=np.exp(0.1 * dice.standard_normal(cells)), contact=5e-4, link=3e-4,
            )  # fmt: skip
            width = cells / parse(text).groups
            drive = inputs(-5.0 * width * (1.0 + np.sin(np.arange(steps) / 20.0)), 25.0, 1.0)
            start = pack.init(0.9, 25.0)
            seconds = best(lambda pack=pack, start=start, drive=drive: simulate_pack(pack, start, drive)[0].current)
            row[f"{name}_ns"] = 1e9 * seconds / steps / cells
        rows.append(row)
        print(
            f"{text:>10} {cells:7d} cells   " + "   ".join(f"{k} {v:8.1f}" for k, v in row.items() if k.endswith("ns"))
        )
    return rows


def beside_geometric(python: str, text: str = "96s2p") -> dict[str, Any] | None:
    """One recurrent step of messages over a pack, of equal width and edges, single thread."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from celltwin.models.layers import Dense
    from celltwin.models.pack_circuit import Wiring
    from celltwin.models.pack_graph import HIDDEN, gather
    from celltwin.physics.topology import parse

    topology = parse(text)
    wiring, cells, steps = Wiring.of(topology), topology.cells, 300
    dense = Dense.create(5 * HIDDEN, 2 * HIDDEN, jax.random.key(0))

    @eqx.filter_jit
    def ours(wiring: Any, dense: Any, h: Any) -> Any:
        def step(h: Any, _: Any) -> Any:
            gate, value = jnp.split(jax.vmap(dense)(jnp.concatenate([h, gather(wiring, h)], axis=1)), 2, axis=1)
            return h + jax.nn.sigmoid(gate) * (jnp.tanh(value) - h), None

        return jax.lax.scan(step, h, None, length=steps)[0]

    seconds = best(lambda: ours(wiring, dense, jnp.zeros((cells, HIDDEN)))) / steps
    group = topology.group

    def pairs(keep: Any) -> list[list[int]]:
        return [[int(a), int(b)] for a in range(cells) for b in range(cells) if a != b and keep(group[a], group[b])]

    heat = np.concatenate([topology.neighbours, topology.neighbours[:, ::-1]]).tolist()
    # The mean of the pack is a mean there too, and no edge of each cell to every other.
    edges = [pairs(lambda a, b: a == b), pairs(lambda a, b: abs(int(a) - int(b)) == 1), heat]
    asked = json.dumps({"cells": cells, "hidden": HIDDEN, "edges": edges, "steps": steps})
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "peer.py"
        script.write_text(GEOMETRIC.replace("sys.argv[1]", "open(sys.argv[1]).read()"))
        (Path(folder) / "asked.json").write_text(asked)
        done = subprocess.run([python, str(script), f"{folder}/asked.json"], capture_output=True, text=True)
    if done.returncode:
        print(f"PyTorch Geometric: not run ({done.stderr.strip().splitlines()[-1][:150]})")
        return None
    peer = json.loads(done.stdout)
    return {
        "topology": text,
        "geometric": peer["version"],
        "geometric_us": 1e6 * peer["seconds"],
        "celltwin_us": 1e6 * seconds,
        "times_faster": peer["seconds"] / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has liionpack and torch_geometric")
    parser.add_argument("--most", type=int, default=100_000, help="most cells")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    figures: dict[str, Any] = {"liionpack": beside_liionpack(asked.peers)}
    if figures["liionpack"]:
        print("liionpack 32p10s:", {k: round(v, 4) for k, v in figures["liionpack"].items()})
    figures["geometric"] = beside_geometric(asked.peers)
    if figures["geometric"]:
        print("message passing:", figures["geometric"])
    figures["size"] = by_size(asked.most)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
