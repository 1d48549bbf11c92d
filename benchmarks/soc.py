"""How many labels a second estimators train on and estimate, beside the published ConvLSTM in Keras, in one run.

    pip install '.[peers]'
    python benchmarks/soc.py [--seconds 20]

The reference is built as it was published: windows of 100 samples of 5 features, shaped (100, 1, 1, 5), ConvLSTM2D of
64 filters with 1x1 kernels, dense 64 and 32, dropout 0.3, Adam; one label a window. Keras runs on JAX, compiled, on the
same cores. celltwin's estimators carry their state and give one label a sample. Also printed: that a filter's
covariance stays positive through a million random steps in single precision.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np

import celltwin.estimators  # noqa: F401
from celltwin import models
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.estimators.kalman import Kalman
from celltwin.interface import Measurement, estimate_records, unknown_start
from celltwin.learning import training
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS
from celltwin.physics.thevenin import Thevenin

WINDOW, FEATURES, BATCH = 100, 5, 256
NAMES = ("soc-fused", "soc-fused-convlstm", "soc-observer", "soc-lstm", "soc-convlstm")
STEPS = 1_000_000


def published() -> keras.Model:
    """The reference network."""
    network = keras.Sequential(
        [
            keras.layers.Input((WINDOW, 1, 1, FEATURES)),
            keras.layers.ConvLSTM2D(64, (1, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return network


def rate(work, labels: int, seconds: float) -> float:
    """Median labels a second of repeated work, after one call that compiles."""
    work()
    rates, until = [], time.perf_counter() + seconds
    while len(rates) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        rates.append(labels / (time.perf_counter() - began))
    return statistics.median(rates)


def reference_rates(seconds: float) -> tuple[float, float]:
    network = published()
    draw = np.random.default_rng(0)
    x = draw.normal(size=(8 * BATCH, WINDOW, 1, 1, FEATURES)).astype(np.float32)
    y = draw.uniform(size=(8 * BATCH, 1)).astype(np.float32)
    train = rate(lambda: network.fit(x, y, batch_size=BATCH, epochs=1, verbose=0), len(x), seconds)
    infer = rate(lambda: network.predict(x, batch_size=BATCH, verbose=0), len(x), seconds)
    return train, infer


def our_rates(name: str, records, seconds: float) -> tuple[float, float]:
    family, domain = models.family(name), Domain.of(records)
    base = Thevenin.create(records) if family.base else None
    model = family.create(records, domain, jax.random.key(0), base)
    plan = Plan(adam_rounds=1, updates=1, lanes=40, chunk=200, episode=12)
    mask = training.trainable(model)
    params, frozen = training.eqx.partition(model, mask)
    adam = training._Adam(frozen, records, plan, TASKS["soc"])
    lanes = adam.start(params)

    def train() -> None:
        jax.block_until_ready(adam.round(params, lanes, 0, lambda share: None)[2])

    train_rate = rate(train, plan.lanes * plan.chunk, seconds)
    parts = [record.between(0, 2048) for record in records for _ in range(4)]
    infer_rate = rate(lambda: estimate_records(model, parts), 2048 * len(parts), seconds)
    return train_rate, infer_rate


def covariance(records) -> str:
    """The smallest diagonal of the covariance's root, through a million random steps."""
    made = Kalman.create(Thevenin.create(records))
    start = jax.tree.map(jnp.asarray, unknown_start(records[0]))

    def step(state, key):
        a, b, c, d = jax.random.split(key, 4)
        y = Measurement(
            jnp.where(jax.random.uniform(d) < 0.1, jnp.nan, jax.random.uniform(a, minval=2.0, maxval=4.5)),
            5.0 * jax.random.normal(b),
            jax.random.uniform(c, minval=-30.0, maxval=60.0),
            jax.random.choice(d, jnp.asarray([0.0, 0.1, 1.0, 60.0])),
        )
        state, estimate = made.step(state, y)
        return state, (jnp.min(jnp.diag(state.root)), estimate.soc)

    keys = jax.random.split(jax.random.key(0), STEPS)
    least, soc = jax.jit(lambda s, k: jax.lax.scan(step, s, k)[1])(made.init(start), keys)
    finite = bool(np.isfinite(soc).all())
    return (
        f"{STEPS:,} random steps, float32: least diagonal of the root {float(np.min(least)):.3g}, all finite: {finite}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="spent on each figure")
    seconds = parser.parse_args().seconds
    records = datasets.load("demo").split().train[:8]
    print(f"{'':24}{'labels/s trained':>18}{'ratio':>8}{'labels/s estimated':>20}{'ratio':>8}")
    train, infer = reference_rates(seconds)
    print(f"{'published ConvLSTM, Keras':24}{train:>17,.0f}{1:>8.0f}{infer:>20,.0f}{1:>8.0f}", flush=True)
    known = {family.name for family in models.families()}
    for name in (n for n in NAMES if n in known):
        ours = our_rates(name, records, seconds)
        print(f"{name:24}{ours[0]:>18,.0f}{ours[0] / train:>8.0f}{ours[1]:>20,.0f}{ours[1] / infer:>8.0f}", flush=True)
    print(covariance(records))


if __name__ == "__main__":
    main()
