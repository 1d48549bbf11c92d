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
# # State of charge by a ConvLSTM over time scales
# An estimator wakes in the middle of a drive cycle, knows nothing of the charge, and says a state of charge and how far to
# trust it. This one keeps a map whose rows are time scales from seconds to an hour, each at its own clock.

# %%
import matplotlib.pyplot as plt
import numpy as np

from celltwin import jobs, models
from celltwin.data import datasets
from celltwin.data.splits import by_patterns
from celltwin.evaluation import protocol
from celltwin.learning.plan import Plan

demo = datasets.load("demo")
split = by_patterns(
    demo.records,
    {
        "train": ["A/25degC/Mixed*", "A/25degC/HWFET"],
        "validate": ["A/25degC/UDDS"],
        "test": ["A/25degC/US06"],
    },
)
plan = Plan(adam_rounds=3, updates=80, chunk=200, episode=12, lanes=20, learning_rate=5e-3)
network = jobs.train(jobs.Job(models.family("soc-convlstm"), 0, plan), demo, split)
counter = jobs.train(jobs.Job(models.family("soc-coulomb"), 0, None), demo, split)
print("scales in s:", *(f"{tau:.3g}" for tau in network.model.scales))

# %% [markdown]
# ## Starts inside the cycle
# A full cell is recognised by its voltage, and counting from there is no skill. So estimators are ranked over starts at 0,
# 25, 50 and 75 % of the cycle, with nothing known.

# %%
record, found = split.test[0], {}
for fraction in (0.0, 0.25, 0.5, 0.75):
    part = protocol.from_fraction(record, fraction)
    rows = {
        name: protocol.evaluate(one, [part])[0]
        for name, one in (("soc-convlstm", network), ("soc-coulomb", counter))
    }
    found[fraction] = rows["soc-convlstm"]
    print(
        f"start at {100 * fraction:3.0f} %:",
        *(f"{name} MAE {row['mae']:5.2f} points  " for name, row in rows.items()),
    )

# %%
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
axes.plot(record.time, 100 * record.soc, "k", lw=1.2, label="label: counted from full")
for fraction, row in found.items():
    time = record.time[len(record) - len(row["record"]) :]
    soc, std = 100 * row["output"].soc, 100 * row["output"].std
    axes.plot(time, soc, lw=0.9, label=f"woken at {100 * fraction:.0f} %")
    axes.fill_between(time, soc - 1.96 * std, soc + 1.96 * std, alpha=0.15)
axes.set(
    xlabel="time in s",
    ylabel="state of charge in %",
    title="US06 at 25 °C, with the stated 95 % band",
)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## A sensor that is wrong
# A counter follows a current sensor's offset for ever; what looks at the voltage again does not.

# %%
for offset in (-0.3, -0.1, 0.0, 0.1, 0.3):
    rows = [
        protocol.evaluate(one, [record], {"current_offset": offset})[0]
        for one in (network, counter)
    ]
    print(
        f"current {offset:+.1f} A: soc-convlstm {rows[0]['mae']:.2f}, soc-coulomb {rows[1]['mae']:.2f} points MAE"
    )
within = np.mean([row["coverage"] for row in found.values()])
print(f"share of samples within the stated 95 % band: {100 * within:.0f} %")
