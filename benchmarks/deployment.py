"""How long a sample takes: emitted C, the stream around it, the compiled JAX step and onnxruntime, in one run.

    pip install '.[onnx]'
    python benchmarks/deployment.py [--twin FILE] [--samples 20000]

Without --twin: an LSTM-64 voltage model and the pretrained estimator lg_18650hg2/soc. Medians of paired rounds;
ratios are to the C step, which is compiled for this very processor as a stream compiles it, and once more for any.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from celltwin import models, twin
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.deploy import c
from celltwin.deploy.native import Native
from celltwin.deploy.stream import Sample, Stream
from celltwin.twin import Twin

ROUNDS = 7


def lstm(records, cell) -> Twin:
    """An untrained LSTM-64: what it costs does not depend on its weights."""
    domain = Domain.of(records)
    model = models.family("lstm").create(records, domain, jax.random.key(0), None)
    return Twin("lstm", model, domain, cell)


def per_sample(work, samples: int) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / samples * 1e6


def measure(one: Twin, record, samples: int) -> None:
    soc = one.task == "soc"
    start, inputs = one.fed(record)
    inputs = np.resize(inputs, (samples, inputs.shape[1]))
    sensors = np.resize(np.stack([record.voltage, record.current, record.filled_temperature], 1), (samples, 3))
    pushed = [Sample(float(k), *row) for k, row in enumerate(sensors.tolist())]
    source = c.emit(one)
    ways = {}
    for name, flags in (("C step", None), ("C step, untuned", ())):
        compiled = Native(source, flags)
        ways[name] = lambda compiled=compiled: compiled.run(compiled.begin(start), inputs)

    few = min(samples, 1000)
    streams = {how: Stream(one, float("nan") if soc else float(start.soc), compiled=how) for how in (True, False)}

    def streamed(how: bool, count: int) -> None:
        running = streams[how]
        running.time = float("nan")  # begin anew
        for sample in pushed[:count]:
            running.push(sample)

    for how in streams:
        streamed(how, 3)  # compiles
    ways["stream, through C"] = lambda: streamed(True, samples)
    ways["stream, through JAX"] = lambda: streamed(False, few)
    counts = dict.fromkeys(ways, samples) | {"stream, through JAX": few}
    if runtime := onnx_step(one, start, inputs[:few]):
        ways["onnxruntime, step graph"], counts["onnxruntime, step graph"] = runtime, few
    times = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            times[name].append(per_sample(work, counts[name]))
    first = statistics.median(times["C step"])
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"{one.name:<12} {name:<26} {middle:9.2f} us a sample {middle / first:9.1f} times the C step")


def onnx_step(one: Twin, start, inputs):
    """A function that runs the ONNX step over inputs; None where onnxruntime is not installed."""
    try:
        import onnxruntime

        from celltwin.deploy import onnx
    except ImportError:
        return None
    folder = Path(tempfile.mkdtemp(prefix="celltwin-"))
    paths = {path.name: path for path in onnx.export(one, folder, "twin")}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    begin, step = (onnxruntime.InferenceSession(str(paths[f"twin_{w}.onnx"]), options) for w in ("init", "step"))
    initial = dict(zip((i.name for i in begin.get_inputs()), (np.full(1, v, np.float32) for v in start), strict=True))
    states = begin.run(None, initial)
    names = [i.name for i in step.get_inputs()]
    columns = inputs.astype(np.float32)

    def run() -> None:
        state = states
        for row in columns:
            given = dict(zip(names, [*state, *(row[i : i + 1] for i in range(len(row)))], strict=True))
            state = step.run(None, given)[: len(states)]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", type=str, default=None)
    parser.add_argument("--samples", type=int, default=20_000)
    options = parser.parse_args()
    dataset = datasets.load("demo")
    split = dataset.split()
    record = split.test[0]
    twins = (
        [twin.load(options.twin)]
        if options.twin
        else [lstm(split.train[:4], record.cell), twin.load("lg_18650hg2/soc")]
    )
    for one in twins:
        measure(one, record, options.samples)


if __name__ == "__main__":
    main()
