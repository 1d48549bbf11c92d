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
# # Ways to be wrong
# A battery model can get a splendid score and be worth nothing. Here are eight known ways, each with figures computed on the
# spot from the bundled demo data, and what celltwin does about it.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import cKDTree

from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.data.splits import refuse_label, refuse_seen
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.interface import simulate_records
from celltwin.models.baselines import Ohmic
from celltwin.physics.charge import advance, full_of

demo = datasets.load("demo")
train, test = demo.select(["A/25degC/Mixed*"]), demo.select(["A/25degC/US06"])[0]


def rms(error):
    return 1e3 * float(np.sqrt(np.mean(np.square(error))))


# %% [markdown]
# ## 1. One step ahead is not a simulation
# A linear autoregression is fitted by least squares. Fed the *measured* last voltages (teacher forcing) it looks four times
# as good as it does on its own, as it would be in use. Repeating the last voltage, which knows nothing, is close to that.


# %%
def regressors(v1, v2, i0, i1, soc):
    return np.array([v1, v2, i0, i1, soc, 1.0])


rows = [
    regressors(r.voltage[k - 1], r.voltage[k - 2], r.current[k], r.current[k - 1], r.soc[k])
    for r in train
    for k in range(2, len(r))
]
weights = np.linalg.lstsq(
    np.array(rows), np.concatenate([r.voltage[2:] for r in train]), rcond=None
)[0]
ahead, closed = test.voltage.copy(), test.voltage.copy()
for k in range(2, len(test)):
    known = test.current[k], test.current[k - 1], test.soc[k]
    ahead[k] = weights @ regressors(test.voltage[k - 1], test.voltage[k - 2], *known)
    closed[k] = weights @ regressors(closed[k - 1], closed[k - 2], *known)
print(f"last voltage repeated, one step ahead  {rms(np.diff(test.voltage)):6.1f} mV")
print(f"regression, one step ahead             {rms(ahead - test.voltage):6.1f} mV")
print(f"the same regression, closed loop       {rms(closed - test.voltage):6.1f} mV")
figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
part = slice(2900, 3450)
axes.plot(test.time[part], test.voltage[part], "k", lw=1.4, label="measured")
axes.plot(test.time[part], ahead[part], "C2", lw=0.8, label="one step ahead")
axes.plot(test.time[part], closed[part], "C3", lw=1.0, label="the same model, closed loop")
axes.set(xlabel="time in s", ylabel="voltage in V", title="Teacher forcing flatters")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *In celltwin* a model's `step` has no argument for a measured voltage: there is no path on which it could be given one.
#
# ## 2. The label among the inputs
# A published network for state of charge is fed "the rolling average of the state of charge". A straight line is enough then.


# %%
def trailing(values, window=100):
    total, at = np.cumsum(np.r_[0.0, values]), np.arange(1, len(values) + 1)
    begin = np.maximum(at - window, 0)
    return (total[at] - total[begin]) / (at - begin)


def features(record, leak):
    columns = [
        record.voltage,
        record.current,
        record.filled_temperature,
        trailing(record.voltage),
        trailing(record.current),
    ]
    return np.stack(
        [*columns, *([trailing(record.soc)] if leak else []), np.ones(len(record))], axis=1
    )


for leak in (False, True):
    w = np.linalg.lstsq(
        np.concatenate([features(r, leak) for r in train]),
        np.concatenate([r.soc for r in train]),
        rcond=None,
    )[0]
    print(
        f"linear regression {'with the mean of the label' if leak else 'on sensors and their means'}:",
        f"{100 * np.mean(np.abs(features(test, leak) @ w - test.soc)):.2f} points MAE",
    )
try:
    refuse_label(
        {"mean SOC": trailing(test.soc)}, {"mean SOC": ["voltage_volt"]}, test.soc
    )  # a false declaration
except CelltwinError as refused:
    print("refused:", refused)

# %% [markdown]
# ## 3. Samples or windows drawn at random
# Neighbouring samples of one cycle, and overlapping windows all the more, are nearly copies of each other. With a random fifth
# held back, a model that only remembers (the label of the nearest training sample, by its sensors and their means over 100
# and 500 s) seems to have learned something.


# %%
def remembered(x, y, x_test, y_test):
    return 100 * float(np.mean(np.abs(y[cKDTree(x).query(x_test)[1]] - y_test)))


def seen(record):
    slow = [
        trailing(column, 500)
        for column in (record.voltage, record.current / 10.0, record.filled_temperature / 50.0)
    ]
    return np.c_[
        features(record, leak=False)[:, :5] * [1.0, 0.1, 0.02, 1.0, 0.1], np.stack(slow, axis=1)
    ]


x, y = np.concatenate([seen(r) for r in train]), np.concatenate([r.soc for r in train])
order = np.random.default_rng(0).permutation(len(x))
held, kept = order[: len(x) // 5], order[len(x) // 5 :]
at_random, by_cycle = (
    remembered(x[kept], y[kept], x[held], y[held]),
    remembered(x, y, seen(test), test.soc),
)
print(
    f"a random fifth held back: {at_random:.2f} points MAE; a whole cycle held back: {by_cycle:.2f}"
)

# %% [markdown]
# *In celltwin* splits are by whole cycle, cell or temperature, and a record on two sides is refused by its content.
#
# ## 4. A scaling that saw the test
# Ranges taken from all files tell a model what is to come, and a twin that was scaled so no longer knows where it
# extrapolates. Trained at 5 to 40 °C, tested at -10 °C:

# %%
cold = demo.split("temperature")
record = cold.test[0]
for name, records in (
    ("training records", cold.train),
    ("all records", cold.train + cold.test),
):
    domain = Domain.of(records)
    inside = domain.contains(
        *(
            jnp.asarray(c, jnp.float32)
            for c in (record.current, record.filled_temperature, record.soc, record.dt)
        )
    )
    print(
        f"scaled by {name}: {100 * (1 - np.mean(inside)):.0f} % of {record.label} is outside of the training domain"
    )
try:
    refuse_seen(Domain.of(cold.train + cold.test), cold)
except CelltwinError as refused:
    print("refused:", refused)

# %% [markdown]
# ## 5. State of charge normalised anew in every file
# A cycle in the cold ends at its voltage limit with charge left. Stretched to run from 100 to 0 % in every file, the "label"
# is wrong by that much, and two cycles at the same label are in different states.

# %%
figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
for n, r in enumerate(demo.select(["A/n10degC/HWFET", "A/25degC/HWFET", "A/40degC/HWFET"])):
    stretched = (r.soc - r.soc.min()) / (r.soc.max() - r.soc.min())
    axes.plot(r.time, 100 * r.soc, f"C{n}", label=f"{r.ambient_degC:g} °C")
    axes.plot(r.time, 100 * stretched, f"C{n}--", lw=0.8)
    print(
        f"HWFET at {r.ambient_degC:3.0f} °C ends at {100 * r.soc[-1]:4.1f} %; normalised per file, its label is wrong by",
        f"{100 * np.mean(np.abs(stretched - r.soc)):.1f} points in the mean, {100 * np.max(np.abs(stretched - r.soc)):.1f} at most",
    )
axes.set(
    xlabel="time in s", ylabel="state of charge in %", title="Dashed: normalised in every file"
)
axes.legend()
plt.show()

# %% [markdown]
# *In celltwin* a cell has one reference capacity, in `dataset.toml`.
#
# ## 6. Counting in single precision
# Beside a state of charge near one, single precision holds steps of six parts in a hundred million. A parked car that draws
# 5 mA, logged ten times a second for two days:

# %%
n, dt, capacity = 1_728_000, 0.1, 4.93
current = np.full(n, -0.005, np.float32)
exact = 0.9 + np.cumsum(current.astype(float)) * dt / 3600 / capacity
naive = np.cumsum(
    np.r_[np.float32(0.9), current * np.float32(dt / 3600 / capacity)], dtype=np.float32
)[1:]


@jax.jit
def counted(current):
    def step(charge, i):
        charge = advance(charge, i, jnp.float32(dt))
        return charge, charge.soc

    return jax.lax.scan(step, full_of(jnp.float32(0.9), jnp.float32(capacity)), current)[1]


compensated = np.asarray(counted(jnp.asarray(current)))
print(f"truth: {100 * exact[-1]:.3f} %")
for name, soc in (("single precision", naive), ("compensated, as in celltwin", compensated)):
    print(f"{name}: {100 * soc[-1]:.3f} %, off by {100 * np.abs(soc - exact).max():.4f} points")

# %% [markdown]
# ## 7. An estimator that wakes full
# Test cycles start full. "Assume 100 % and count" knows nothing, and its score is perfect, until it wakes elsewhere.

# %%
for fraction in (0.0, 0.25, 0.5, 0.75):
    part = protocol.from_fraction(test, fraction)
    guess = 1.0 + (part.soc - part.soc[0])
    print(
        f"woken at {100 * fraction:2.0f} % of the cycle: {100 * np.mean(np.abs(guess - part.soc)):5.1f} points MAE"
    )

# %% [markdown]
# ## 8. R² alone
# A discharge spans more than a volt, so that almost anything explains "most of the variance". One resistance and a curve:

# %%
row = protocol.score(test, simulate_records(Ohmic.create(train), [test])[0].voltage)
print(
    f"R² {row['r2']:.3f}, NRMSE {100 * row['nrmse']:.1f} %  and yet  RMSE {row['rmse']:.0f} mV, worst {row['max']:.0f} mV"
)
