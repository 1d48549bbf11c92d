"""Three ways to a good score for an estimate of state of charge that is worth nothing, with figures.

    pip install '.[peers]'
    python benchmarks/leakage.py [--data DATASET]

1. A feature computed from the label: the trailing mean of state of charge beside those of voltage and current.
2. Windows drawn at random from the same cycles for training and test, instead of whole cycles.
3. A "ConvLSTM" on maps of 1 x 1: its output is that of an LSTM with the same weights.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from scipy.spatial import cKDTree

from celltwin.data import datasets
from celltwin.data.record import Record
from celltwin.data.splits import refuse_label
from celltwin.errors import CelltwinError

WINDOW, STRIDE = 100, 10
SENSORS = ("voltage_volt", "current_ampere", "temperature_t1_celsius")


def trailing(values: np.ndarray) -> np.ndarray:
    """Mean over the last WINDOW samples, [time]; over fewer at the beginning."""
    total = np.cumsum(np.r_[0.0, values])
    at = np.arange(1, len(values) + 1)
    begin = np.maximum(at - WINDOW, 0)
    return (total[at] - total[begin]) / (at - begin)


def features(record: Record, leak: bool) -> np.ndarray:
    """Voltage, current, temperature and their trailing means, [time, features]; with `leak` that of the label too."""
    columns = {
        "voltage": record.voltage,
        "current": record.current,
        "temperature": record.filled_temperature,
        "mean voltage": trailing(record.voltage),
        "mean current": trailing(record.current),
    }
    origin = {name: [s for s in SENSORS if name.split()[-1] in s] for name in columns}
    if leak:
        columns["mean SOC"], origin["mean SOC"] = trailing(record.soc), ["soc"]
    refuse_label(columns, origin, record.soc, demonstration=leak)
    return np.stack(list(columns.values()), axis=1)


def linear(train: list[Record], test: list[Record], leak: bool) -> float:
    """MAE in points of a linear regression."""
    x, y = np.concatenate([features(r, leak) for r in train]), np.concatenate([r.soc for r in train])
    weights = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    errors = [np.c_[features(r, leak), np.ones(len(r))] @ weights - r.soc for r in test]
    return 100 * float(np.mean(np.abs(np.concatenate(errors))))


def windows(records: list[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping windows of the three sensors, [windows, 3 x WINDOW], and the state of charge at their ends."""
    x, y = [], []
    for r in records:
        columns = np.stack([r.voltage, r.current / 10.0, r.filled_temperature / 50.0], axis=1)
        for end in range(WINDOW, len(r), STRIDE):
            x.append(columns[end - WINDOW : end : 5].ravel())
            y.append(r.soc[end - 1])
    return np.array(x), np.array(y)


def nearest(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """MAE in points of the label of the nearest training window: a model that only remembers."""
    return 100 * float(np.mean(np.abs(y[cKDTree(x).query(x_test)[1]] - y_test)))


def same_as_lstm() -> float:
    """Largest difference between ConvLSTM2D on 1 x 1 maps and LSTM, of the same weights."""
    conv = keras.Sequential([keras.layers.Input((WINDOW, 1, 1, 5)), keras.layers.ConvLSTM2D(64, (1, 1))])
    lstm = keras.Sequential([keras.layers.Input((WINDOW, 5)), keras.layers.LSTM(64)])
    draw = np.random.default_rng(0)
    weights = [draw.normal(0.0, 0.3, w.shape).astype(np.float32) for w in lstm.get_weights()]
    lstm.set_weights(weights)
    conv.set_weights([w.reshape(c.shape) for w, c in zip(weights, conv.get_weights(), strict=True)])
    x = draw.normal(size=(32, WINDOW, 5)).astype(np.float32)
    other = np.asarray(conv.predict(x[:, :, None, None], verbose=0)).reshape(32, 64)
    return float(np.abs(np.asarray(lstm.predict(x, verbose=0)) - other).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="demo", metavar="DATASET")
    split = datasets.load(parser.parse_args().data).split()
    train, test = list(split.train), list(split.test)

    try:
        refuse_label({"mean SOC": trailing(test[0].soc)}, {"mean SOC": ["soc"]}, test[0].soc)
    except CelltwinError as refused:
        print(f"the guard: {refused}")
    print("\n1. linear regression, whole test cycles: MAE in points")
    print(f"   sensors and their trailing means            {linear(train, test, leak=False):6.2f}")
    print(f"   ... and the trailing mean of the label      {linear(train, test, leak=True):6.2f}")

    x, y = windows(train)
    x_test, y_test = windows(test)
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = order[: len(x) // 5], order[len(x) // 5 :]
    print("\n2. nearest training window: MAE in points")
    print(f"   a random fifth of the windows held back     {nearest(x[kept], y[kept], x[held], y[held]):6.2f}")
    print(f"   whole cycles held back                      {nearest(x, y, x_test, y_test):6.2f}")

    print("\n3. ConvLSTM2D on (100, 1, 1, 5) against LSTM on (100, 5), same weights")
    print(f"   largest difference of 64 outputs            {same_as_lstm():6.1e}")


if __name__ == "__main__":
    main()
