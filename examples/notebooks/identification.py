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
# # From pulses to a circuit
# A pulse test and a slow discharge become tables of resistances and time constants, with standard errors, and the circuit
# is then put to a drive cycle that it has never seen.

# %%
import matplotlib.pyplot as plt
import numpy as np

from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.evaluation import protocol
from celltwin.learning.identification import identify
from celltwin.physics.thevenin import Thevenin
from celltwin.twin import Twin

demo = datasets.load("demo")
logs = [r for r in datasets.characterisation("demo").records if r.ambient_degC == 25.0]
figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
for record in logs:
    axes.plot(record.time / 3600, record.voltage, lw=0.7, label=record.name)
axes.set(xlabel="time in h", ylabel="voltage in V", title="What the circuit is identified from")
axes.legend()
plt.show()

# %% [markdown]
# Nothing is marked by hand: pulses, rests and slow discharges are found, the capacity is measured, and the number of RC
# pairs is the one that the data can tell apart.

# %%
found = identify(logs, demo.cell, pairs=2)
circuit = found.circuit
print(
    f"capacity {circuit.capacity_ah:.3f} Ah, {circuit.pairs} RC pairs, {1e3 * found.rmse:.2f} mV over {len(found.runs)} runs"
)
print(
    "time constants in s at half charge:",
    *(f"{np.interp(0.5, circuit.soc, tau[:, 0]):.0f}" for tau in circuit.tau),
)
for note in found.notes:
    print("note:", note)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(100 * circuit.ocv_soc, circuit.ocv[:, 0])
left.set(xlabel="state of charge in %", ylabel="open-circuit voltage in V")
tables = {"R0": ("r0", circuit.r0)} | {
    f"R{n + 1}": ("r", table) for n, table in enumerate(circuit.r)
}
for n, (name, (kind, table)) in enumerate(tables.items()):
    error = circuit.standard_error.get(kind)
    error = (
        np.zeros(len(circuit.soc))
        if error is None
        else (error if kind == "r0" else error[n - 1])[:, 0]
    )
    right.errorbar(
        100 * circuit.soc,
        1e3 * table[:, 0],
        1e3 * error,
        fmt="o-",
        ms=3,
        lw=1,
        capsize=2,
        label=name,
    )
right.set(xlabel="state of charge in %", ylabel="resistance in mΩ, ± standard error")
right.legend()
plt.show()

# %% [markdown]
# ## Does it hold on a drive cycle?
# A low error on the pulses that a circuit was fitted to is no promise. So it simulates US06 in closed loop:

# %%
one = Twin("thevenin", Thevenin.of(circuit), Domain.of(found.runs), found.cell)
for row in protocol.evaluate(one, demo.select(["A/25degC/UDDS", "A/25degC/US06"])):
    print(
        f"{row['cycle']}: RMSE {row['rmse']:.1f} mV, worst {row['max']:.0f} mV, bias {row['bias']:+.1f} mV,",
        f"{100 * row['out_of_domain']:.0f} % of the samples outside of what the pulses showed",
    )

# %% [markdown]
# On the command line this is `celltwin identify demo --out cell.json`, which also takes your own files and writes the
# circuit (ECM-PS JSON), its twin, and a page to judge it by.
