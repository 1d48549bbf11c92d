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
# # NARX and the hybrid of circuit and network
# Two networks learn one cell from three drive cycles and simulate a fourth that neither has seen: one that is fed its
# own past voltages, and one that corrects an equivalent circuit.
#
# The plans are small, so that this page takes a minute. `celltwin benchmark` trains both properly.

# %%
import matplotlib.pyplot as plt

from celltwin import jobs, models
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.data.splits import by_patterns
from celltwin.evaluation import protocol
from celltwin.learning.plan import Plan
from celltwin.packs.draw import demo_circuit
from celltwin.physics.thevenin import Thevenin
from celltwin.twin import Twin

demo = datasets.load("demo")
split = by_patterns(
    demo.records,
    {"train": ["A/25degC/Mixed*"], "validate": ["A/25degC/UDDS"], "test": ["A/25degC/US06"]},
)
print(
    {
        side: [f"{r.name}, {len(r)} s" for r in getattr(split, side)]
        for side in ("train", "validate", "test")
    }
)

# %% [markdown]
# The circuit that the hybrid stands on was identified from pulses (`celltwin identify demo`); no drive cycle was used. Pulses of 1C
# told it little about 3C, which the network then has to make up for.

# %%
circuit = Twin(
    "thevenin",
    Thevenin.of(demo_circuit()),
    Domain.of(split.train),
    demo.cell,
    {"training_seconds": 0.0},
)
plan = Plan(adam_rounds=4, updates=80, chunk=200, lanes=24, learning_rate=5e-3)
twins = {"circuit from pulses": circuit}
for name, base in (("narx", None), ("hybrid", circuit)):
    twins[name] = jobs.train(jobs.Job(models.family(name), 0, plan), demo, split, base)
    print(
        f"{name}: {twins[name].card['parameters']:,} parameters, best round on UDDS:",
        f"{min(p['validate'] for p in twins[name].card['history']):.1f} mV",
    )

# %% [markdown]
# From its first sample on, a twin gets current and temperature alone. What it feeds back is its own past, so an error is
# not put right by the next measurement, and every figure below is one of closed loop.

# %%
rows = {name: protocol.evaluate(one, split.test)[0] for name, one in twins.items()}
for name, row in rows.items():
    print(
        f"{name:20s} RMSE {row['rmse']:5.1f} mV   worst {row['max']:5.0f} mV   in transients {row['rmse_transient']:.1f} mV"
    )

# %%
record = split.test[0]
figure, (above, below) = plt.subplots(
    2, 1, sharex=True, figsize=(8, 5), height_ratios=[2, 1], layout="constrained"
)
above.plot(record.time, record.voltage, color="black", lw=0.8, label="measured")
for name, row in rows.items():
    simulated = row["output"].voltage
    above.plot(record.time, simulated, lw=0.8, label=name)
    below.plot(record.time, 1e3 * (simulated - record.voltage), lw=0.6)
above.set(ylabel="voltage in V", title="US06 at 25 °C, never seen in training")
above.legend(loc="lower left", fontsize=8)
below.set(xlabel="time in s", ylabel="error in mV", ylim=(-150, 150))
plt.show()

# %% [markdown]
# ## Outside of what it knows
# A hybrid knows the ranges it was trained in. As a sample leaves them, its correction fades within a tenth of the range,
# and what is left is the circuit. At -10 °C, 35 K below all training:

# %%
cold = demo.select(["A/n10degC/US06"])
for name in ("circuit from pulses", "narx", "hybrid"):
    row = protocol.evaluate(twins[name], cold)[0]
    print(
        f"{name:20s} RMSE {row['rmse']:6.1f} mV, {100 * row['out_of_domain']:.0f} % of the samples outside the domain"
    )
