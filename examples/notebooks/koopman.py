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
# # Koopman operators: EDMD and a learned lift
# Both write the cell as linear dynamics of a few observables. EDMD takes a dictionary of leaky memories and one least
# squares; the deep Koopman model learns its observables, with eigenvalues that are stable by construction.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from celltwin import jobs, models
from celltwin.data import datasets
from celltwin.data.splits import by_patterns
from celltwin.evaluation import protocol
from celltwin.learning.plan import Plan
from celltwin.models.edmd import TIMES

demo = datasets.load("demo")
split = by_patterns(
    demo.records,
    {
        "train": ["A/25degC/Mixed*", "A/40degC/Mixed1"],
        "validate": ["A/25degC/UDDS"],
        "test": ["A/25degC/US06"],
    },
)
plan = Plan(adam_rounds=4, updates=60, chunk=200, lanes=20, learning_rate=6e-3)
edmd = jobs.train(jobs.Job(models.family("edmd"), 0, None), demo, split)
koopman = jobs.train(jobs.Job(models.family("koopman"), 0, plan), demo, split)

# %%
rows = {
    name: protocol.evaluate(one, split.test)[0]
    for name, one in (("edmd", edmd), ("koopman", koopman))
}
for name, row in rows.items():
    print(
        f"{name:8s} RMSE {row['rmse']:5.1f} mV   worst {row['max']:4.0f} mV   on US06, closed loop"
    )

# %% [markdown]
# ## The spectrum
# An eigenvalue of the discrete dynamics is $\exp(-\Delta t/\tau)$. All are real and inside the unit circle, at any length
# of the step, whatever training does. Those of EDMD were chosen beforehand; those of the deep model have moved, and they
# move further with temperature: $\tau = \exp(a + b\,(1/T - 1/T_0))$.

# %%
figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
axes.eventplot([np.unique(TIMES)], lineoffsets=[0], colors="C1", linewidths=1.5)
for place, celsius in enumerate((40.0, 25.0, 0.0), start=1):
    tau = np.sort(np.asarray(koopman.model.time_constants(jnp.asarray(celsius))))
    axes.eventplot([tau], lineoffsets=[place], colors="C0", linewidths=0.8)
axes.set(
    xscale="log",
    xlabel="time constant in s",
    yticks=range(4),
    title="What the two models remember, and for how long",
)
axes.set_yticklabels(["EDMD", "Koopman, 40 °C", "Koopman, 25 °C", "Koopman, 0 °C"])
plt.show()
largest = float(
    np.exp(-1.0 / np.asarray(koopman.model.time_constants(jnp.asarray(25.0)))).max()
)
print(f"largest eigenvalue for a step of 1 s at 25 °C: {largest:.6f}")

# %%
record = split.test[0]
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
for name, row in rows.items():
    axes.plot(record.time, 1e3 * (row["output"].voltage - record.voltage), lw=0.6, label=name)
axes.set(xlabel="time in s", ylabel="error in mV", ylim=(-150, 150), title="US06 at 25 °C")
axes.legend()
plt.show()

# %% [markdown]
# Since no voltage is fed back, a record need not be stepped through: `run` advances all modes over all samples at once
# and gives what the scan of `step` gives.
