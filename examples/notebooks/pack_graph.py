# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A pack of unequal cells, and a graph network
# Two packs are driven with a drive cycle. Their cells differ; the battery management system knows each cell's capacity and
# resistance roughly. What do circuits that obey Kirchhoff's laws predict of every cell, and what do messages add?

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from celltwin.data import datasets
from celltwin.learning.pack_training import PackPlan, fit_packs, predict
from celltwin.models.pack_circuit import CircuitNetwork
from celltwin.models.pack_graph import PackGraph
from celltwin.packs import score
from celltwin.packs.draw import Order, demo_circuit, draw
from celltwin.packs.study import ended
from celltwin.physics.thevenin import Thevenin

demo, circuit = datasets.load("demo"), demo_circuit()
(mixed, hwfet), us06 = (
    demo.select(["A/25degC/Mixed1", "A/25degC/HWFET"]),
    demo.select(["A/25degC/US06"])[0],
)


def packs(names, cycle, seed):
    """Packs drawn at random and driven with a cycle until their first cell is empty."""
    return [
        ended(log)
        for log in draw([Order(name, seed + i, cycle) for i, name in enumerate(names)], circuit)
    ]


train = [packs(("4s2p",), cycle, 100 * n) for n, cycle in enumerate((mixed, hwfet, hwfet))]
test = packs(
    ("4s2p", "3p+2p+4s2p"), us06, 900
)  # other cells; the second wiring is in no training pack
print(
    [
        f"{log.topology.name}: {log.topology.cells} cells, {len(log)} steps of {log.dt:g} s"
        for log in test
    ]
)

# %% [markdown]
# `pack-told` is Kirchhoff's network with what the BMS was told of each cell. The graph network starts as exactly that and
# learns corrections of capacity, resistance, charge and voltage; its weights are shared by all cells of all wirings.

# %%
told = CircuitNetwork.create(Thevenin.of(circuit), circuit.capacity_ah, told=True)
told = fit_packs(
    told, train, [], PackPlan(updates=6, every=6, learning_rate=3e-2, forget=0.0, averaging=0.8)
).model
graph = PackGraph.create(told, jax.random.key(0))
graph = fit_packs(
    graph, train, [], PackPlan(updates=24, every=24, learning_rate=3e-3, averaging=0.8)
).model

# %%
plain = CircuitNetwork.create(Thevenin.of(circuit), circuit.capacity_ah)
outputs = {
    name: predict(model, test)
    for name, model in (("pack-circuit", plain), ("pack-told", told), ("pack-graph", graph))
}
print("RMSE over all cells in mV, closed loop; sensors alone make 2 mV")
for name, out in outputs.items():
    figures = [score.score(log, o) for log, o in zip(test, out, strict=True)]
    print(
        f"{name:13s}",
        *(
            f"{log.topology.name}: {f['rmse']:5.1f}"
            for log, f in zip(test, figures, strict=True)
        ),
    )

# %%
log, hours = test[1], np.arange(len(test[1])) * test[1].dt / 60.0
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(hours, log.voltage, lw=0.4)
left.set(
    xlabel="time in min",
    ylabel="cell voltage in V",
    title=f"{log.topology.name}: {log.topology.cells} cells, measured",
)
for name, out in outputs.items():
    error = 1e3 * (np.asarray(out[1].voltage) - log.voltage)
    right.plot(np.sqrt(np.nanmean(error**2, axis=0)), "o-", label=name)
right.set(xlabel="cell", ylabel="RMSE in mV", title="each cell")
right.legend()
plt.show()

# %% [markdown]
# Two dozen updates on three small packs are few: most of the gain here is what the BMS was told. `celltwin benchmark --task pack` trains on 48 packs
# and reports the weakest cell, the end of discharge and faults; the page on packs shows the figures.
