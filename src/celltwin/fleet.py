"""Thousands of circuits side by side, each with its own tables, capacity, temperature, start and load.

    fleet = Fleet(circuits, temperature=25.0, soc=0.9)
    result = fleet.simulate(current, dt=1.0)  # result.lowest: the lowest voltage of each cell, in V

What `Thevenin.step` does, laid out for throughput: time is scanned, cells are the vector, in groups whose tables and
states stay in the cache, dealt out to the cores. Reading tables would take most of the time, for every cell stands
somewhere else in its own, and no vector instruction is good at that. But how far a cell moves in the next few dozen
samples is known, since its charge is, and it is a few intervals at most. So these are taken out of the tables once a
block of samples, and within the block a table is its first value plus the gains of the intervals times the share of
each that is passed. It is exact: the length of the blocks follows from the charge that passes.

What bounds it then is arithmetic, the exponential functions of log-linear tables above all, and, where every sample's
voltage is kept, memory: 10,000 cells over an hour are 144 MB.

Any model simulates many cells by `jax.vmap(simulate)(models, starts, inputs)`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.errors import CelltwinError
from celltwin.exchange.reduction import refuse_core
from celltwin.physics.charge import Charge, advance, full_of
from celltwin.physics.circuit import Circuit
from celltwin.physics.ocv import interpolation
from celltwin.physics.tables import asinh, inverse_temperature

GROUP = 640  # most cells of one compiled call: few enough for their tables and states to stay in the cache
BLOCKS = (64, 48, 32, 24, 16, 12, 8, 4, 2, 1)  # samples after which tables are opened anew
OPENING = 10.0  # times as long as the use of one of its intervals takes the opening of a table


class FleetState(NamedTuple):
    """Where the cells are, for a simulation to go on from."""

    charge: Charge  # [cells]
    pairs: Any  # [N, cells] V
    hysteresis: Any  # [modes, cells] V


@dataclass(frozen=True)
class FleetResult:
    """What became of the cells: arrays [cells], and [time, cells] where every sample was asked for."""

    soc: np.ndarray  # at the end
    voltage: np.ndarray  # V, at the end
    lowest: np.ndarray  # V, of all samples
    highest: np.ndarray  # V
    rmse: np.ndarray | None  # V, where measured voltages were given; NaN for a cell without any
    voltages: np.ndarray | None  # V, [time, cells]
    state: FleetState


class Fleet:
    """Circuits of equal form, ready to be simulated together from rest.

    `circuits` are the cells, or one circuit for all; `temperature` (degC, constant), `soc` (fraction) and `scale`, a
    factor on all resistances, are numbers or one value a cell. Axes may differ from circuit to circuit. Raises
    CelltwinError for circuits of differing numbers of RC pairs or modes of hysteresis, or some with charge transfer,
    and for a core that is warmer than the surface.
    """

    def __init__(
        self,
        circuits: Circuit | Sequence[Circuit],
        cells: int | None = None,
        *,
        temperature: float | np.ndarray = 25.0,
        soc: float | np.ndarray = 1.0,
        scale: float | np.ndarray = 1.0,
    ):
        kinds = [circuits] if isinstance(circuits, Circuit) else list(circuits)
        self.cells = cells if cells is not None else len(kinds)
        if len(kinds) not in (1, self.cells):
            raise CelltwinError(
                "fleet of circuits", got=f"{len(kinds)} circuits for {self.cells} cells", expected="one each, or one"
            )
        for kind in kinds:
            refuse_core(kind, "a fleet at constant temperatures")
            if _form(kind) != _form(kinds[0]):
                raise CelltwinError(
                    f"circuit '{kind.name}' does not fit into a fleet with '{kinds[0].name}'",
                    got="{} RC pairs, {} modes of hysteresis, charge transfer: {}".format(*_form(kind)),
                    expected="{}, {} and {} as there".format(*_form(kinds[0])),
                )
        each = partial(np.broadcast_to, shape=(self.cells,))
        place, factor, begin = (each(np.asarray(x, float)) for x in (temperature, scale, soc))
        self._form, self._tables = _tables(kinds, place, factor)
        capacity = each(np.array([kind.capacity_ah for kind in kinds]))
        charge = full_of(*(jnp.asarray(x, np.float32) for x in (begin, capacity)))
        pairs, modes, _ = _form(kinds[0])
        rest = (np.zeros((count, self.cells), np.float32) for count in (pairs, modes))
        self._start = FleetState(charge, *rest)

    def simulate(
        self,
        current: np.ndarray,
        dt: float | np.ndarray,
        *,
        measured: np.ndarray | None = None,
        every_sample: bool = False,
        state: FleetState | None = None,
        cores: int | None = None,
    ) -> FleetResult:
        """Simulate `current` in A, [time] for all or [time, cells], positive = charge, held over steps of `dt` s.

        `dt` is a number, [time] or [time, cells]. Cells that were `measured`, [time, cells] in V, are scored; NaN is
        left out. The `state` of an earlier result lets the simulation go on.
        """
        drive, steps = (np.asarray(x, np.float32) for x in (current, dt))
        time, even = drive.shape[:1], not steps.ndim
        steps = np.broadcast_to(steps, time) if even else steps
        wide = {"current": drive, "dt": steps}
        if measured is not None:
            wide["measured voltage"] = np.asarray(measured, np.float32)
        for name, x in wide.items():
            if not time or x.shape not in (time, (*time, self.cells)):
                raise CelltwinError(f"{name} of a fleet", got=x.shape, expected=f"[time] or [time, {self.cells}]")
        state = self._start if state is None else state
        plan = _plan(self._form, drive, steps, float(np.min(state.charge.capacity)), even)
        cores = max(1, min(cores or os.cpu_count() or 1, self.cells))
        rounds = -(-self.cells // (GROUP * cores))
        size = -(-self.cells // (rounds * cores))
        voltages = np.empty((*time, self.cells), np.float32) if every_sample else None

        def one(first: int) -> Any:
            # The last group begins earlier, so that all have one size and one compiled program.
            begin = min(first, self.cells - size)
            some, new = np.s_[..., begin : begin + size], np.s_[..., first - begin :]
            own = jax.tree.map(lambda x: jnp.asarray(x[some]), (self._tables, state))
            rows = [np.ascontiguousarray(x[some]) if x.ndim == 2 else x[:, None] for x in wide.values()]
            rest, every = _compiled()(*own, rows, form=self._form, plan=plan, keep=every_sample)
            if voltages is not None:
                voltages[:, first : first + size] = np.asarray(every).reshape(-1, size)[: len(drive)][new]
            return jax.tree.map(lambda x: np.asarray(x)[new], rest)

        with ThreadPoolExecutor(cores) as pool:
            parts = list(pool.map(one, range(0, self.cells, size)))
        after, seen = jax.tree.map(lambda *columns: np.concatenate(columns, axis=-1), *parts)
        with np.errstate(invalid="ignore"):
            rmse = None if measured is None else np.sqrt(seen.squares / seen.known)
        return FleetResult(after.charge.soc, seen.last, seen.lowest, seen.highest, rmse, voltages, after)


def _form(circuit: Circuit) -> tuple[int, int, bool]:
    """RC pairs, modes of hysteresis, and whether it has charge transfer."""
    modes = 0 if circuit.hysteresis_rate is None else len(circuit.hysteresis_rate)
    return circuit.pairs, modes, circuit.transfer_scale is not None


# --- tables ----------------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """Of each kind of table: its states of charge, and which of its quantities depend on them."""

    nodes: tuple[tuple[float, ...], ...]
    moving: tuple[tuple[bool, ...], ...]


class _Tables(NamedTuple):
    """Three kinds of tables over state of charge, cells along the last axis.

    The OCV in V; the logarithms of R0, R1 ... RN, 1/tau1 ... 1/tauN and Rct; half the gaps of the hysteresis in V.
    """

    moving: tuple[Any, ...]  # [nodes, quantities that depend on state of charge, cells]
    fixed: tuple[Any, ...]  # [quantities that do not, cells]
    rate: Any  # [modes, cells] per capacity passed
    scale: Any  # [cells] V, or [0, cells] without charge transfer


class _Plan(NamedTuple):
    """Samples in a block, intervals of each kind that a cell can touch within one, whether all steps are alike."""

    block: int
    intervals: tuple[int, ...]
    even: bool


def _tables(kinds: Sequence[Circuit], temperature: np.ndarray, scale: np.ndarray) -> tuple[_Form, _Tables]:
    cells, (pairs, modes, bent) = len(temperature), _form(kinds[0])
    curve, common = (
        tuple(sorted({x for k in kinds for x in getattr(k, axis).tolist()})) for axis in ("ocv_soc", "soc")
    )
    axes, sizes = (curve, common, common), (1, 1 + 2 * pairs + bent, modes)
    whole = [np.empty((len(nodes), size, cells), np.float32) for nodes, size in zip(axes, sizes, strict=True)]
    rate, bend = np.empty((modes, cells), np.float32), np.empty((cells,) if bent else (0, cells), np.float32)
    for n, kind in enumerate(kinds):
        which = np.arange(cells) if len(kinds) == 1 else np.array([n])
        warm = interpolation(inverse_temperature(temperature[which]), inverse_temperature(kind.temperatures))
        logs = [np.log(kind.r0), *np.log(kind.r), *-np.log(kind.tau)]
        louder = np.r_[np.ones(1 + pairs), np.zeros(pairs)]
        if kind.transfer_resistance is not None and kind.transfer_scale is not None:
            logs, louder = [*logs, np.log(kind.transfer_resistance)], np.r_[louder, 1.0]
            bend[which] = np.exp(np.log(kind.transfer_scale) @ warm.T)
        own_axes = (kind.ocv_soc, kind.soc, kind.soc)
        charged = [interpolation(np.array(axis), own) for axis, own in zip(axes, own_axes, strict=True)]
        whole[0][:, 0, which] = charged[0] @ kind.ocv @ warm.T
        for q, (log, loud) in enumerate(zip(logs, louder, strict=True)):
            whole[1][:, q, which] = charged[1] @ log @ warm.T + loud * np.log(scale[which])
        if kind.hysteresis is not None and kind.hysteresis_rate is not None:
            whole[2][:, :, which] = (charged[2] @ kind.hysteresis.T)[:, :, None]
            rate[:, which] = kind.hysteresis_rate[:, None]
    moving = [np.ptp(table, axis=0).max(axis=1, initial=0.0) > 1e-6 for table in whole]
    form = _Form(axes, tuple(tuple(m.tolist()) for m in moving))
    split = [
        (np.ascontiguousarray(t[:, m]), np.ascontiguousarray(t[0, ~m])) for t, m in zip(whole, moving, strict=True)
    ]
    return form, _Tables(tuple(m for m, _ in split), tuple(f for _, f in split), rate, bend)


def _plan(form: _Form, current: np.ndarray, dt: np.ndarray, capacity: float, even: bool) -> _Plan:
    """The plan of least work for the largest charge that passes in a block."""
    largest = [np.abs(x).max(axis=1) if x.ndim == 2 else np.abs(x) for x in (current, dt)]
    charge = largest[0] * largest[1] / (SECONDS_PER_HOUR * capacity)

    def intervals(block: int) -> tuple[int, ...]:
        # A little more than passes, for what rounding adds.
        span = float(np.add.reduceat(charge, np.arange(0, len(charge), block)).max()) * 1.001 + 1e-5
        return tuple(_touched(span, nodes) for nodes in form.nodes)

    def work(block: int) -> float:
        each = zip(intervals(block), form.moving, strict=True)
        return sum(sum(moving) * (OPENING * (count + 1) / block + count) for count, moving in each)

    block = min(BLOCKS, key=work)
    return _Plan(block, intervals(block), even)


def _touched(span: float, nodes: tuple[float, ...]) -> int:
    """Most intervals between nodes that a walk of some span touches."""
    if len(nodes) == 1:
        return 0
    axis = np.array(nodes)
    # The walks that touch most begin just below a node.
    ends = np.searchsorted(axis, axis + span, side="right")
    return int(min((ends - np.arange(len(axis))).max() + 1, len(axis) - 1))


class _Opened(NamedTuple):
    """The intervals of a kind of table that cells are about to pass."""

    first: list[Array]  # [cells] of each quantity, its value where they begin
    gains: list[list[Array]]  # of each quantity and interval
    low: list[Array]  # of each interval, where it begins
    width: list[Array]  # reciprocal

    def read(self, soc: Array) -> list[Array]:
        """Each quantity at the state of charge."""
        shares = [jnp.clip((soc - low) * width, 0.0, 1.0) for low, width in zip(self.low, self.width, strict=True)]
        return [
            sum((gain * share for gain, share in zip(gains, shares, strict=True)), value)
            for value, gains in zip(self.first, self.gains, strict=True)
        ]


def _open(table: Array, nodes: tuple[float, ...], lowest: Array, intervals: int) -> _Opened:
    """From a table [nodes, quantities, cells], the intervals from the one that `lowest` [cells] lies in."""
    at = jnp.zeros(lowest.shape, jnp.int32)
    for node in nodes[1 : len(nodes) - intervals]:
        at = at + (lowest >= np.float32(node)).astype(jnp.int32)

    def picked(n: int) -> Array:
        index = jnp.broadcast_to((at + n)[None, None], (1, *table.shape[1:]))
        return jnp.take_along_axis(table, index, axis=0, mode="promise_in_bounds")[0]

    rows = [list(picked(n)) for n in range(intervals + 1)]
    gains = [[after - before for before, after in pairwise(quantity)] for quantity in zip(*rows, strict=True)]
    low, width = (np.asarray(x, np.float32) for x in (nodes[:-1], 1.0 / np.diff(nodes)))
    places = [at + n for n in range(intervals)]
    return _Opened(rows[0], gains, [jnp.asarray(low)[p] for p in places], [jnp.asarray(width)[p] for p in places])


# --- simulation ------------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What is gathered on the way, [cells]."""

    last: Array
    lowest: Array
    highest: Array
    squares: Array
    known: Array


@cache
def _compiled() -> Any:
    """`_scan`, in the widest vectors that the processor has: a third to a half faster here."""
    options: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(np.zeros((), np.float32)).compile()
    except jax.errors.JaxRuntimeError:  # an XLA that does not know it
        options = {}
    return jax.jit(_scan, static_argnames=("form", "plan", "keep"), compiler_options=options)


def _scan(
    tables: _Tables, state: FleetState, rows: list[Array], form: _Form, plan: _Plan, keep: bool
) -> tuple[tuple[FleetState, _Seen], Array | None]:
    pairs, zero = state.pairs.shape[0], jnp.zeros_like(state.charge.soc)
    per_coulomb = 1.0 / (SECONDS_PER_HOUR * state.charge.capacity)
    last_dt = rows[1][:1]

    def in_time_blocks(x: Array, fill: Array) -> Array:
        padding = jnp.broadcast_to(fill, (-x.shape[0] % plan.block, x.shape[1]))
        return jnp.concatenate([x, padding]).reshape(-1, plan.block, x.shape[1])

    def all_of(kind: int, moving: list[Array], fixed: list[Array]) -> list[Array]:
        """Quantities of a kind in their order."""
        sources = {True: iter(moving), False: iter(fixed)}
        return [next(sources[moves]) for moves in form.moving[kind]]

    constant = [list(x) for x in tables.fixed]
    constant[1] = [jnp.exp(x) for x in constant[1]]
    # Where neither time constant nor step ever change, the pairs' factors do not either.
    decay = [None] * pairs
    if plan.even:
        for n, speed in enumerate(all_of(1, [zero] * sum(form.moving[1]), constant[1])[1 + pairs : 1 + 2 * pairs]):
            decay[n] = None if form.moving[1][1 + pairs + n] else 1.0 - jnp.exp(-last_dt[0] * speed)

    def block(carry: tuple[FleetState, _Seen], row: list[Array]) -> tuple[tuple[FleetState, _Seen], Array | None]:
        before, seen = carry
        charge = before.charge
        passed = jnp.cumsum(row[0] * row[1], axis=0)
        lowest = charge.soc - charge.lost + jnp.minimum(passed.min(axis=0), 0.0) * per_coulomb
        kinds = zip(tables.moving, form.nodes, plan.intervals, strict=True)
        opened = [_open(table, nodes, lowest, count) for table, nodes, count in kinds]

        def sample(slow: tuple[list[Array], list[Array]], u: tuple[list[Array], Array]) -> tuple[Any, Array]:
            lagged, modes = slow
            (current, dt, *_), coulombs = u
            soc = charge.soc + (coulombs * per_coulomb - charge.lost)
            (ocv,) = all_of(0, opened[0].read(soc), constant[0])
            r0, *rest = all_of(1, [jnp.exp(x) for x in opened[1].read(soc)], constant[1])
            drive = [r * current for r in rest[:pairs]]
            voltage = ocv + r0 * current
            if tables.scale.ndim == 1:
                voltage += tables.scale * asinh(rest[-1] * current / tables.scale)
                drive[:1] = [tables.scale * asinh(first / tables.scale) for first in drive[:1]]
            for n in range(pairs):
                fixed = decay[n]
                share = 1.0 - jnp.exp(-dt * rest[pairs + n]) if fixed is None else jnp.where(dt > 0.0, fixed, 0.0)
                lagged[n] = lagged[n] + share * (drive[n] - lagged[n])
            gaps = all_of(2, opened[2].read(soc), constant[2])
            for m, gap in enumerate(gaps):
                share = 1.0 - jnp.exp(-tables.rate[m] * per_coulomb * (jnp.abs(current) * dt))
                modes[m] = modes[m] + share * (jnp.sign(current) * gap - modes[m])
            return (lagged, modes), sum([*lagged, *modes], voltage)

        slow = list(before.pairs), list(before.hysteresis)
        slow, voltage = jax.lax.scan(sample, slow, (row, passed))
        pairs_after, modes_after = (
            jnp.stack(x) if x else old for x, old in zip(slow, (before.pairs, before.hysteresis), strict=True)
        )
        after = FleetState(advance(charge, passed[-1], jnp.ones((), passed.dtype)), pairs_after, modes_after)
        squares, known = seen.squares, seen.known
        if len(row) > 2:
            there = jnp.isfinite(row[2])
            squares += jnp.sum(jnp.where(there, voltage - row[2], 0.0) ** 2, axis=0)
            known += jnp.sum(there, axis=0)
        lowest, highest = jnp.minimum(seen.lowest, voltage.min(axis=0)), jnp.maximum(seen.highest, voltage.max(axis=0))
        return (after, _Seen(voltage[-1], lowest, highest, squares, known)), voltage if keep else None

    # The last sample goes on for steps of no length, which change neither states nor extremes.
    fills = rows[0][-1:], jnp.zeros((), zero.dtype), jnp.full((), jnp.nan, zero.dtype)
    blocks = [in_time_blocks(x, fill) for x, fill in zip(rows, fills, strict=False)]
    begin = state, _Seen(zero, zero + jnp.inf, zero - jnp.inf, zero, zero)
    return jax.lax.scan(block, begin, blocks)
