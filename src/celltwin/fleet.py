"""Thousands of circuits side by side, each with its own tables, capacity, temperature and start.

What `step` does, laid out for throughput: cells lie along the last axis of every array, time is one scan, and a table
over state of charge is a sum of ramps,

    f(soc) = f_0 + sum_k slope_k clip(soc - x_k, 0, x_{k+1} - x_k),

which is the same piecewise linear function as an interpolation, in plain arithmetic that vectorises over cells. The
ramps are shared by all tables of a cell, and the cells are dealt out to the cores. What bounds it is that arithmetic: a
few operations a node, table and step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.errors import CelltwinError
from celltwin.physics.circuit import Circuit
from celltwin.physics.ocv import interpolation
from celltwin.physics.tables import inverse_temperature

NODES = tuple(np.linspace(0.0, 1.0, 21).tolist())


class _Cells(NamedTuple):
    """Cells along the last axis; tables are OCV, R0, R1 ... RN and, where they vary, the N logarithms of tau."""

    base: Array  # [tables, cells]
    slope: Array  # [tables, nodes - 1, cells]
    tau: Array  # [N, cells] s, where no time constant varies with state of charge
    capacity: Array  # [cells] Ah
    soc: Array  # [cells], at the start


@dataclass(frozen=True)
class FleetResult:
    """What became of the cells: arrays [cells], and [time, cells] where every sample was asked for."""

    soc: np.ndarray  # at the end
    voltage: np.ndarray  # V, at the end
    lowest: np.ndarray  # V, of all samples
    highest: np.ndarray  # V
    voltages: np.ndarray | None  # V, [time, cells]


class Fleet:
    """Linear circuits of equal form, ready to be simulated together from rest.

    `circuits` are the cells, or one circuit for all; `temperature` (degC), `soc` (fraction) and `scale`, a factor on
    all resistances, are numbers or one value a cell. Tables are sampled at `nodes` of state of charge and linear
    between them. Raises CelltwinError for circuits with charge transfer or hysteresis, or of unlike numbers of pairs.
    """

    def __init__(
        self,
        circuits: Circuit | Sequence[Circuit],
        cells: int | None = None,
        *,
        temperature: float | np.ndarray = 25.0,
        soc: float | np.ndarray = 1.0,
        scale: float | np.ndarray = 1.0,
        nodes: Sequence[float] = NODES,
    ):
        kinds = [circuits] if isinstance(circuits, Circuit) else list(circuits)
        self.cells = cells if cells is not None else len(kinds)
        if len(kinds) not in (1, self.cells):
            raise CelltwinError(
                "fleet of circuits", got=f"{len(kinds)} circuits for {self.cells} cells", expected="one each, or one"
            )
        for kind in kinds:
            if kind.transfer_scale is not None or kind.hysteresis is not None or kind.pairs != kinds[0].pairs:
                raise CelltwinError(
                    f"circuit '{kind.name}' does not fit into a fleet",
                    got="charge transfer, hysteresis or another number of RC pairs",
                    expected="linear circuits with equally many RC pairs",
                    fix="exchange.linear(circuit, at_ampere) and exchange.on_branch(circuit) make it linear",
                )
        self.pairs, self.nodes = kinds[0].pairs, tuple(float(x) for x in nodes)
        each = partial(np.broadcast_to, shape=(self.cells,))
        place, factor = each(np.asarray(temperature, float)), each(np.asarray(scale, float))
        places, which = np.unique(place, return_inverse=True)
        sampled = np.stack([[_sampled(kind, t, np.array(self.nodes)) for t in places] for kind in kinds])
        tables = sampled[np.arange(self.cells) % len(kinds), which]  # [cells, tables, nodes]
        tables[:, 1 : 2 + self.pairs] *= factor[:, None, None]
        logs = tables[:, 2 + self.pairs :]
        self.varying = bool(np.ptp(logs, axis=2).max(initial=0.0) > 1e-9)
        kept = tables if self.varying else tables[:, : 2 + self.pairs]
        slope = np.diff(kept, axis=2) / np.diff(self.nodes)
        capacity = np.array([kind.capacity_ah for kind in kinds])[np.arange(self.cells) % len(kinds)]
        columns = (
            kept[:, :, 0].T,
            np.moveaxis(slope, 0, -1),
            np.exp(logs[:, :, 0]).T,
            capacity,
            each(np.asarray(soc, float)),
        )
        self._arrays = tuple(np.ascontiguousarray(x, np.float32) for x in columns)

    def simulate(
        self, current: np.ndarray, dt: float, *, every_sample: bool = False, cores: int | None = None
    ) -> FleetResult:
        """Simulate `current` in A, [time] for all or [time, cells], positive = charge, held over steps of `dt` s."""
        current = np.asarray(current, np.float32)
        if current.shape not in ((len(current),), (len(current), self.cells)):
            raise CelltwinError("current of a fleet", got=current.shape, expected=f"[time] or [time, {self.cells}]")
        deal = np.array_split(np.arange(self.cells), max(1, min(cores or os.cpu_count() or 1, self.cells)))

        def one(part: np.ndarray) -> list[np.ndarray]:
            some = slice(part[0], part[-1] + 1)
            own = _Cells(*(jnp.asarray(x[..., some]) for x in self._arrays))
            drive = current if current.ndim == 1 else current[:, some]
            found = _scan(own, drive, np.float32(dt), self.nodes, self.varying, every_sample)
            return [np.asarray(x) for x in found if x is not None]

        with ThreadPoolExecutor(len(deal)) as pool:
            parts = list(pool.map(one, deal))
        soc, voltage, lowest, highest, *rest = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
        return FleetResult(soc, voltage, lowest, highest, rest[0] if rest else None)


def _sampled(circuit: Circuit, temperature: float, nodes: np.ndarray) -> np.ndarray:
    """Tables of a circuit at a temperature, [OCV, R0, R1 ... RN, log tau_1 ...] over the nodes."""
    warm = interpolation(
        np.array([inverse_temperature(np.asarray(temperature))]), inverse_temperature(np.asarray(circuit.temperatures))
    )[0]
    charged = interpolation(nodes, circuit.soc)
    resistances = np.exp(np.log(np.concatenate([circuit.r0[None], circuit.r])) @ warm @ charged.T)
    ocv = interpolation(nodes, circuit.ocv_soc) @ circuit.ocv @ warm
    return np.concatenate([ocv[None], resistances, np.log(circuit.tau) @ warm @ charged.T])


@partial(jax.jit, static_argnames=("nodes", "varying", "every_sample"))
def _scan(
    cells: _Cells, current: Array, dt: Array, nodes: tuple[float, ...], varying: bool, every_sample: bool
) -> tuple[Array | None, ...]:
    count, pairs = cells.base.shape[0], cells.tau.shape[0]
    base = [cells.base[n] for n in range(count)]
    slope = [[cells.slope[n, k] for k in range(len(nodes) - 1)] for n in range(count)]
    constant = [jnp.exp(-dt / cells.tau[n]) for n in range(pairs)]
    charge = dt / (SECONDS_PER_HOUR * cells.capacity)

    def step(state: tuple[Array, ...], i: Array) -> tuple[tuple[Array, ...], Array | None]:
        soc, lost, lowest, highest, _, *lagged = state
        added = i * charge - lost  # compensated, see physics/charge.py
        total = soc + added
        lost, soc = (total - soc) - added, total
        value = list(base)
        for k, (left, right) in enumerate(pairwise(nodes)):
            ramp = jnp.clip(soc - left, 0.0, right - left)
            value = [v + slope[n][k] * ramp for n, v in enumerate(value)]
        keep = [jnp.exp(-dt * jnp.exp(-x)) for x in value[2 + pairs :]] if varying else constant
        lagged = [a * v + (1.0 - a) * r * i for a, v, r in zip(keep, lagged, value[2 : 2 + pairs], strict=True)]
        voltage = value[0] + value[1] * i + sum(lagged)
        lowest, highest = jnp.minimum(lowest, voltage), jnp.maximum(highest, voltage)
        return (soc, lost, lowest, highest, voltage, *lagged), voltage if every_sample else None

    zero = jnp.zeros_like(cells.soc)
    start = (cells.soc, zero, zero + jnp.inf, zero - jnp.inf, zero, *([zero] * pairs))
    # Four steps a turn: here the loop itself would cost as much as the arithmetic.
    state, voltages = jax.lax.scan(step, start, current, unroll=4)
    soc, _, lowest, highest, voltage, *_ = state
    return soc, voltage, lowest, highest, voltages
