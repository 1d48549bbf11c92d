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
# # A state-of-charge estimator in C
# The pretrained estimator of the LG 18650HG2 is written as C99, compiled, and replayed beside Python, sample by sample.
# Then its weights are rounded to eight bits, and we look at what that costs.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import celltwin
from celltwin.data import datasets
from celltwin.deploy import c, native
from celltwin.deploy.stream import Sample, Stream

twin = celltwin.load("lg_18650hg2/soc")
print(f"{twin.name}: {twin.card['parameters']:,} parameters, of {twin.cell.name}")

# %% [markdown]
# What comes out is a header with the units and the training range in its comments, one source file, a replay and a
# Makefile. No heap, no recursion, no header but `math.h` and `stdint.h`.

# %%
folder = Path(tempfile.mkdtemp())
for path in c.export(twin, folder, weights="int8"):
    print(f"{path.name:16s} {path.stat().st_size:9,d} bytes")
header = next(folder.glob("*.h")).read_text()
print("...", header[header.index("typedef struct") :][:900], "...", sep="\n")

# %% [markdown]
# ## C beside Python
# The cell of the demo is another one, of 5 Ah. Its log is scaled to 3 Ah here, to have something to replay: we compare two
# ways to compute, not an estimate with a truth.

# %%
demo = datasets.load("demo")
record = demo.select(["A/25degC/US06"])[0]
record = replace(
    record,
    current=record.current * 3.0 / 5.0,
    net_capacity=None,
    cell=twin.cell,
    initial_soc=float("nan"),
)
python = twin.estimate(record)
start, inputs = twin.fed(record)
answers = {}
for weights in ("real", "int16", "int8"):
    compiled = native.Native(c.emit(twin, weights=weights))
    answers[weights] = compiled.run(compiled.begin(start), inputs)[:, 0]
    far = 100 * np.abs(answers[weights] - python.soc).max()
    print(
        f"weights {weights:5s}: C and Python differ by {far:.5f} points of state of charge at most"
    )

# %%
figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 4.6), layout="constrained")
above.plot(record.time, 100 * python.soc, label="Python")
above.plot(record.time, 100 * answers["int8"], "--", label="C, int8 weights")
above.set(ylabel="estimate in %", title="The same step, in two languages")
above.legend()
for weights in ("real", "int8"):
    below.semilogy(
        record.time,
        1e-9 + 100 * np.abs(answers[weights] - python.soc),
        lw=0.7,
        label=f"C, {weights}",
    )
below.set(xlabel="time in s", ylabel="difference in points")
below.legend()
plt.show()

# %% [markdown]
# ## A stream
# Samples come late, twice, or without a voltage. A stream takes them as they come; where there is a C compiler it runs the
# C. Its state goes to a file and comes back.

# %%
stream = Stream(twin)
for time, voltage in ((0.0, 3.71), (1.0, 3.70), (1.0, 3.70), (4.5, float("nan")), (5.5, 3.69)):
    print(
        f"{time:3.1f} s, {voltage} V ->",
        stream.push(Sample(time=time, voltage=voltage, current=-1.2, temperature=24.8)),
    )
stream.save(folder / "bms.json")
again = Stream(twin)
again.resume(folder / "bms.json")
print(
    "after a restart:",
    again.push(Sample(time=6.5, voltage=3.69, current=-1.2, temperature=24.8)),
)
