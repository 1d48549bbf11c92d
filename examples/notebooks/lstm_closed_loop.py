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
# # An LSTM in closed loop
# A recurrent network of 64 units learns what is left of the voltage beyond open-circuit voltage and one resistance. It
# sees a voltage once, at its start, and a step may be of any length.

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
        "train": ["A/25degC/Mixed*", "A/40degC/Mixed1"],
        "validate": ["A/25degC/UDDS"],
        "test": ["A/25degC/US06"],
    },
)
plan = Plan(adam_rounds=5, updates=60, chunk=200, lanes=20, learning_rate=5e-3)
lstm = jobs.train(jobs.Job(models.family("lstm"), 0, plan), demo, split)
print(f"{lstm.card['parameters']:,} parameters")

# %% [markdown]
# ## Training is the simulation
# The loss of an update is the error of the simulation over 200 samples from a state that is carried on; after each round
# the whole validation cycle is simulated from its first sample. The best round is kept.

# %%
history = lstm.card["history"]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for what in ("train", "validate"):
    axes.plot([p["round"] for p in history], [p[what] for p in history], "o-", label=what)
axes.set(
    xlabel="round",
    ylabel="RMSE in mV",
    title="Each round is validated in closed loop",
    yscale="log",
)
axes.legend()
plt.show()

# %%
row = protocol.evaluate(lstm, split.test)[0]
record, simulated = row["record"], row["output"].voltage
print(
    f"US06: RMSE {row['rmse']:.1f} mV, worst {row['max']:.0f} mV, in transients {row['rmse_transient']:.1f} mV"
)
figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
part = slice(600, 1200)
axes.plot(record.time[part], record.voltage[part], "k", lw=1, label="measured")
axes.plot(record.time[part], simulated[part], lw=1, label="LSTM, closed loop since 0 s")
axes.set(xlabel="time in s", ylabel="voltage in V")
axes.legend()
plt.show()

# %% [markdown]
# ## Another sampling
# The gates are held over the step, so a cell forgets and gathers by as much as the length of the step says. The same
# cycle as a slower logger would have it, which the network has never seen:

# %%
for seconds in (2.0, 5.0):
    slow = protocol.evaluate(lstm, split.test, {"sampling": seconds})[0]
    finite = np.isfinite(slow["output"].voltage).all()
    print(
        f"every {seconds:g} s: RMSE {slow['rmse']:.1f} mV, finite everywhere: {finite},",
        f"{100 * slow['out_of_domain']:.0f} % of the samples flagged as outside of the training's sampling",
    )

# %% [markdown]
# It gets worse, since a drive cycle has more in it than a sample every five seconds tells, and it says so itself: the flag
# beside each sample is what a report counts, and what `celltwin simulate` writes as `in_domain`.
