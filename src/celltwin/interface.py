"""A model is a step: what every voltage model is, and the only scans that run one.

A voltage model sees the measured voltage once, in its `Start`. After that its inputs are current, temperature and
the length of the step, so every simulation, in training, validation and test alike, is in closed loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.errors import CelltwinError

State = TypeVar("State")
Tuple = TypeVar("Tuple")


class Start(NamedTuple):
    """What a battery management system knows when it wakes, all scalars.

    `soc` is the stored state of charge as a fraction and `capacity` the cell's reference capacity in Ah.
    """

    voltage: Array  # V
    current: Array  # A, positive = charge
    temperature: Array  # degC
    soc: Array  # fraction
    capacity: Array  # Ah


class Input(NamedTuple):
    """What drives the cell during the step that ends now."""

    current: Array  # A, positive = charge, held over the step
    temperature: Array  # degC at the cell's surface
    dt: Array  # s, length of the step; 0 at the first sample


class Output(NamedTuple):
    """What a model says about the cell at the end of the step."""

    voltage: Array  # V
    soc: Array  # fraction


class Model(Protocol[State]):
    """A voltage model: an immutable pytree whose `step` is pure, causal and never sees a measured voltage."""

    def init(self, start: Start) -> State: ...

    def step(self, state: State, u: Input) -> tuple[State, Output]: ...


class Batch(NamedTuple):
    """Records side by side: leading axis records, second axis time, the short ones padded with dt = 0."""

    start: Start  # [records]
    inputs: Input  # [records, time]
    voltage: Array  # [records, time], V; what was measured, for the loss and the score only
    mask: Array  # [records, time], True where a voltage was measured


def run(model: Model, state: Any, inputs: Input) -> tuple[Any, Output]:
    """Scan `model.step` from `state` over inputs [time]; the final state and outputs [time].

    Only the state is kept for the gradient; what happens within a step is computed again, which is 1.6-2.6 times
    faster on a CPU than storing it. A model that knows a faster way to the same result brings it as its own `run`.
    """
    whole = getattr(model, "run", None)
    if whole is not None:
        return whole(state, inputs)

    def step(state: Any, u: Input) -> tuple[Any, Output]:
        return model.step(state, u)

    return jax.lax.scan(jax.checkpoint(step), state, inputs)


def simulate(model: Model, start: Start, inputs: Input) -> Output:
    """Closed-loop simulation of one record: outputs [time] for a start and inputs [time]."""
    return run(model, model.init(start), inputs)[1]


def start_of(record: Record, dtype: Any = np.float32) -> Start:
    """The start of a record: its first sample, its initial SOC and its cell's reference capacity.

    Where the first voltage was not measured, the first one that was. Raises CelltwinError where none was.
    """
    assert record.cell is not None
    known = np.isfinite(record.voltage)
    if not known.any():
        raise CelltwinError(
            f"record '{record.name}' holds no measured voltage",
            got="NaN at every sample",
            expected="the voltage that the cell starts from, at least",
            fix="fill in the first voltage",
        )
    capacity = record.cell.reference_capacity_ah
    voltage = record.voltage[np.argmax(known)]
    values = (voltage, record.current[0], record.filled_temperature[0], record.soc[0], capacity)
    return _tuple(Start, [np.asarray(value, dtype) for value in values])


def inputs_of(record: Record, dtype: Any = np.float32) -> Input:
    """The inputs of a record, [time]."""
    columns = (record.current, record.filled_temperature, record.dt)
    return _tuple(Input, [np.asarray(column, dtype) for column in columns])


def stack(records: Sequence[Record], multiple: int = 1, dtype: Any = np.float32) -> Batch:
    """Pad records to a common length, rounded up to a multiple, and stack them. NaN voltages are masked."""
    longest = max(len(record) for record in records)
    length = -(-longest // multiple) * multiple

    def padded(rows: Sequence[Any], mode: str) -> Any:
        fill = {"edge": {"mode": "edge"}, "zero": {}}[mode]
        return np.stack([np.pad(row, (0, length - len(row)), **fill) for row in rows])

    inputs = [inputs_of(record, dtype) for record in records]
    starts = [start_of(record, dtype) for record in records]
    voltage = [np.asarray(record.voltage, dtype) for record in records]
    return Batch(
        start=_tuple(Start, [np.stack(column) for column in zip(*starts, strict=True)]),
        inputs=Input(
            current=padded([u.current for u in inputs], "zero"),
            temperature=padded([u.temperature for u in inputs], "edge"),
            dt=padded([u.dt for u in inputs], "zero"),
        ),
        voltage=padded([np.nan_to_num(v) for v in voltage], "zero"),
        mask=padded([np.isfinite(v) for v in voltage], "zero"),
    )


def _tuple(kind: type[Tuple], columns: Sequence[Any]) -> Tuple:
    """A named tuple of numpy arrays, where jax arrays are declared: both serve."""
    return kind(*columns)


CHUNK = 2048  # samples that one compiled call advances; records of any length reuse the same program


@jax.jit
def _start_batch(model: Model, start: Start) -> Any:
    return jax.vmap(model.init)(start)


@jax.jit
def _run_batch(model: Model, state: Any, inputs: Input) -> tuple[Any, Output]:
    return jax.vmap(lambda s, u: run(model, s, u))(state, inputs)


def simulate_records(model: Model, records: Sequence[Record], dtype: Any = np.float32) -> list[Output]:
    """Closed-loop simulation of whole records, side by side: one Output of arrays [time] for each.

    Compiled once for a number of records, whatever their lengths.
    """
    batch = stack(records, multiple=CHUNK, dtype=dtype)
    state, pieces = _start_batch(model, batch.start), []
    for begin in range(0, batch.voltage.shape[1], CHUNK):
        state, output = _run_batch(model, state, Input(*(a[:, begin : begin + CHUNK] for a in batch.inputs)))
        pieces.append(output)
    voltage, soc = (np.concatenate([np.asarray(p[i]) for p in pieces], axis=1) for i in range(2))
    return [_tuple(Output, [voltage[i, : len(r)], soc[i, : len(r)]]) for i, r in enumerate(records)]
