"""Speed of a Thevenin circuit beside NREL's thevenin, PyBaMM's Thevenin and a loop in C, all in one run.

    pip install 'celltwin[peers]'
    python benchmarks/circuit.py --cells 10000

One circuit of 3 Ah, OCV, R0 and two RC pairs as tables over state of charge, is driven for 3,600 s at 1 Hz by the same
current. What each gives is compared with the C loop in millivolt before it is timed; times are medians.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from celltwin import exchange
from celltwin.data.domain import CHANNELS, Domain
from celltwin.data.record import Cell
from celltwin.deploy import native
from celltwin.fleet import Fleet
from celltwin.interface import Input, Output, Start, simulate
from celltwin.physics.circuit import Circuit
from celltwin.physics.thevenin import Thevenin
from celltwin.simulator import AT_ONCE, Simulator
from celltwin.twin import Twin

SECONDS = 3600
NODES = 11
C_SOURCE = r"""
#include <math.h>
/* r[cell][3][nodes], tau[2], ocv[nodes], uniform over 0..1; current shared; out: last voltage, or all of one cell. */
void fleet(int cells, int steps, int nodes, const float *ocv, const float *r, const float *tau, float capacity,
           float soc0, const float *current, float dt, float *last, float *all) {
  float keep[2] = {expf(-dt / tau[0]), expf(-dt / tau[1])};
  enum { BLOCK = 256 };
#pragma omp parallel for schedule(static) if (cells > BLOCK)
  for (int block = 0; block < cells; block += BLOCK) {
    float soc[BLOCK], a[BLOCK], b[BLOCK], v[BLOCK];
    int many = cells - block < BLOCK ? cells - block : BLOCK;
    for (int k = 0; k < many; k++) { soc[k] = soc0; a[k] = b[k] = v[k] = 0; }
    for (int t = 0; t < steps; t++) {
      float i = current[t];
#pragma omp simd
      for (int k = 0; k < many; k++) {
        const float *table = r + (long)(block + k) * 3 * nodes;
        soc[k] += i * dt / (3600.0f * capacity);
        float x = fminf(fmaxf(soc[k], 0.0f), 1.0f) * (nodes - 1);
        int n = (int)x; n = n < nodes - 2 ? n : nodes - 2;
        float w = x - n;
        float r0 = table[n] + w * (table[n + 1] - table[n]);
        float r1 = table[nodes + n] + w * (table[nodes + n + 1] - table[nodes + n]);
        float r2 = table[2 * nodes + n] + w * (table[2 * nodes + n + 1] - table[2 * nodes + n]);
        a[k] = keep[0] * a[k] + (1 - keep[0]) * r1 * i;
        b[k] = keep[1] * b[k] + (1 - keep[1]) * r2 * i;
        v[k] = ocv[n] + w * (ocv[n + 1] - ocv[n]) + r0 * i + a[k] + b[k];
      }
      if (all) all[t] = v[0];
    }
    for (int k = 0; k < many; k++) last[block + k] = v[k];
  }
}
"""


def circuit() -> Circuit:
    """OCV and resistances at eleven states of charge."""
    soc, places = np.linspace(0.0, 1.0, NODES), np.array([25.0])
    curve = 3.2 + 0.9 * soc - 0.2 * np.exp(-soc / 0.08)
    flat = np.ones((NODES, 1))
    return Circuit(
        "benchmark",
        3.0,
        (2.5, 4.3),
        places,
        soc,
        curve[:, None],
        soc,
        0.02 * flat,
        np.stack([0.01 * flat, 0.015 * flat]),
        np.stack([5.0 * flat, 60.0 * flat]),
    )


def drive(seed: int = 1) -> np.ndarray:
    """Current in A, positive on charge: loads of 2 to 20 s that average C/2, a little regeneration, rests."""
    draw, levels = np.random.default_rng(seed), []
    while len(levels) < SECONDS:
        level = 0.0 if draw.random() < 0.15 else float(np.clip(draw.normal(-1.8, 2.5), -9.0, 3.0))
        levels += [level] * int(draw.integers(2, 21))
    return np.array(levels[:SECONDS])


def median(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of one call, the first left out."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def compiled_c() -> Any:
    folder = Path(tempfile.mkdtemp(prefix="celltwin-benchmark-"))
    (folder / "fleet.c").write_text(C_SOURCE, encoding="utf-8")
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "fleet.c", "-o", "fleet.so", "-lm"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "fleet.so")).fleet


def by_c(library: Any, c: Circuit, current: np.ndarray, cells: int, keep_all: bool) -> Callable[[], np.ndarray]:
    def f(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x, np.float32)

    ocv, tau, i = f(c.ocv[:, 0]), f(c.tau[:, 0, 0]), f(current)
    scale = np.linspace(0.9, 1.1, cells) if cells > 1 else np.ones(1)
    r = f(scale[:, None, None] * np.concatenate([c.r0[None], c.r])[None, :, :, 0])
    last, every = np.zeros(cells, np.float32), np.zeros(len(current), np.float32)
    pointer = ctypes.POINTER(ctypes.c_float)

    def at(x: np.ndarray) -> Any:
        return x.ctypes.data_as(pointer)

    def work() -> np.ndarray:
        numbers = (ctypes.c_float(c.capacity_ah), ctypes.c_float(0.95))
        tables = (at(ocv), at(r), at(tau))
        out = at(every) if keep_all else None
        library(cells, len(i), NODES, *tables, *numbers, at(i), ctypes.c_float(1.0), at(last), out)
        return every if keep_all else last

    return work


def ours(c: Circuit, current: np.ndarray) -> tuple[Thevenin, Start, Input]:
    model = Thevenin.of(c)
    ocv = float(model.ocv(jnp.float32(0.95), jnp.float32(25.0)))
    start = Start(*(np.float32(x) for x in (ocv, 0.0, 25.0, 0.95, c.capacity_ah)))
    single = np.asarray(current, np.float32)
    return model, start, Input(single, np.full_like(single, 25.0), np.ones_like(single))


def fleet_of(c: Circuit, current: np.ndarray, cells: int) -> Callable[[], np.ndarray]:
    """Resistances differ from cell to cell."""
    fleet = Fleet(c, cells, soc=0.95, scale=np.linspace(0.9, 1.1, cells))
    return lambda: fleet.simulate(current, 1.0).voltage


def by_thevenin(c: Circuit, current: np.ndarray) -> Callable[[], np.ndarray]:
    import thevenin

    parameters = exchange.to_thevenin(c, soc=0.95, temperature=25.0)
    edges = [0, *(np.flatnonzero(np.diff(current)) + 1).tolist(), len(current)]

    def work() -> np.ndarray:
        simulation, experiment = thevenin.Simulation(parameters), thevenin.Experiment()
        for begin, end in pairwise(edges):
            experiment.add_step("current_A", -float(current[begin]), np.arange(end - begin + 1.0))
        steps = [simulation.run_step(experiment, n).vars for n in range(experiment.num_steps)]
        return np.concatenate([step["voltage_V"][1:] for step in steps])

    return work


def by_pybamm(c: Circuit, current: np.ndarray) -> Callable[[], np.ndarray]:
    import pybamm

    pybamm.set_logging_level("ERROR")
    model, values = exchange.to_pybamm(c, soc=0.95, temperature=25.0)
    edge, load = np.arange(len(current) + 1.0), np.r_[current, current[-1]]
    # Held over each second: two points a step, a millisecond apart.
    times = np.ravel(np.column_stack([edge[:-1] + 1e-3, edge[1:]]))
    values["Current function [A]"] = pybamm.Interpolant(
        np.r_[0.0, times], -np.r_[load[0], np.repeat(load[:-1], 2)], pybamm.t, interpolator="linear"
    )
    best: Callable[[], np.ndarray] | None = None
    quickest = np.inf
    for solver in (pybamm.CasadiSolver(mode="fast"), pybamm.IDAKLUSolver()):
        simulation = pybamm.Simulation(model.new_copy(), parameter_values=values.copy(), solver=solver)

        def work(simulation: Any = simulation) -> np.ndarray:
            return simulation.solve(edge, t_interp=edge)["Voltage [V]"].entries[1:]

        try:
            work()
            began = time.perf_counter()
            work()
        except Exception as error:  # a solver that cannot is not the quickest
            print(f"PyBaMM with {type(solver).__name__}: {error}", file=sys.stderr)
            continue
        taken = time.perf_counter() - began
        if taken < quickest:
            best, quickest = work, taken
    assert best is not None, "no solver of PyBaMM solves the circuit"
    return best


def call_from_numpy(model: Thevenin, c: Circuit, start: Start, inputs: Input) -> None:
    """Microseconds of a call of `Simulator`, of its compiled program alone, and the difference: in C and by JAX."""
    cell = Cell(c.name, c.capacity_ah, c.voltage_limits_volt, c.capacity_ah)
    twin = Twin("circuit", model, Domain(*jnp.zeros((4, len(CHANNELS))), seen=()), cell, {})
    in_c = Simulator(twin, (SECONDS,))
    with mock.patch.object(native, "compiler", return_value=None):
        by_jax = Simulator(twin, (SECONDS,))
    numbers = Start(*map(float, start))
    print(f"\n{'called from NumPy':<18}{'samples':>10}{'us/call':>10}{'program':>10}{'beyond it':>10}")
    for samples in (1, 60, AT_ONCE, SECONDS):
        record = Input(*(column[:samples] for column in inputs))
        packed, on_device = in_c.packed(numbers, record)[0], jnp.asarray(by_jax.packed(numbers, record)[0])
        ways: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "C": (lambda r=record: in_c(numbers, r), lambda x=packed: in_c.program(x)),
            "JAX": (lambda r=record: by_jax(numbers, r), lambda x=on_device: by_jax._jitted(x).block_until_ready()),
        }
        if samples > AT_ONCE:  # a circuit is not simulated in C then
            del ways["C"]
        for name, way in ways.items():
            # Turn by turn, so that what else the machine does meets both alike.
            times = [[once_timed(work) for work in way] for _ in range(2000)]
            # The fastest tenth: a call is so short that another process is in it or is not.
            whole, program = 1e6 * np.quantile(times, 0.1, axis=0)
            print(f"{name:<18}{samples:>10}{whole:>10.1f}{program:>10.1f}{whole - program:>10.1f}")


def once_timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    chosen = parser.parse_args()
    try:
        import pybamm  # noqa: F401
        import thevenin  # noqa: F401
    except ImportError as missing:
        parser.exit(2, f"{missing}: pip install 'celltwin[peers]'\n")
    jax.config.update("jax_enable_x64", False)  # PyBaMM makes all of JAX double
    warnings.simplefilter("ignore")
    c, current, library = circuit(), drive(), compiled_c()
    model, start, inputs = ours(c, current)
    run = jax.jit(simulate)
    gradient = jax.jit(jax.grad(lambda m: jnp.mean(simulate(m, start, inputs).voltage ** 2)))

    def once() -> np.ndarray:
        output: Output = run(model, start, inputs)
        return np.asarray(output.voltage)

    one = {
        "C, one thread": by_c(library, c, current, 1, True),
        "celltwin": once,
        "PyBaMM Thevenin": by_pybamm(c, current),
        "NREL thevenin": by_thevenin(c, current),
    }
    reference = one["C, one thread"]().copy()
    print(f"one cell, {SECONDS} s\n{'':<18}{'us/step':>10}{'times celltwin':>16}{'worst mV':>10}")
    taken = {name: median(work, chosen.repeats if name != "NREL thevenin" else 2) for name, work in one.items()}
    for name, work in one.items():
        apart = 1e3 * float(np.abs(work() - reference).max())
        print(f"{name:<18}{1e6 * taken[name] / SECONDS:>10.3f}{taken[name] / taken['celltwin']:>16.2f}{apart:>10.3f}")
    call_from_numpy(model, c, start, inputs)
    slope = median(lambda: jax.block_until_ready(gradient(model)), chosen.repeats)
    count = sum(x.size for x in jax.tree.leaves(model))
    print(f"\ngradient to all {count} parameters, {SECONDS} s: celltwin {1e6 * slope / SECONDS:.3f} us/step;")
    differences = {name: taken[name] * (count + 1) for name in ("C, one thread", "PyBaMM Thevenin")}
    for name, seconds in differences.items():
        print(f"  {name} by differences: {1e6 * seconds / SECONDS:.1f} us/step, {seconds / slope:.1f} times")
    many = {"C, OpenMP": by_c(library, c, current, chosen.cells, False), "celltwin": fleet_of(c, current, chosen.cells)}
    worst = 1e3 * float(np.abs(many["celltwin"]() - many["C, OpenMP"]()).max())
    rates = {name: chosen.cells * SECONDS / median(work, 3) / 1e6 for name, work in many.items()}
    print(
        f"\n{chosen.cells} cells, {SECONDS} s, {os.cpu_count()} cores; last voltages differ by {worst:.3f} mV at most"
    )
    for name, rate in rates.items():
        print(f"{name:<18}{rate:>10.1f} million cell-steps a second{rate / rates['C, OpenMP']:>8.0%} of C")


if __name__ == "__main__":
    main()
