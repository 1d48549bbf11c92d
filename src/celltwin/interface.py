"""A model is a step: what every voltage model and every estimator is, and the only scans that run one.

A voltage model sees the measured voltage once, in its `Start`. After that its inputs are current, temperature and
the length of the step, so every simulation, in training, validation and test alike, is in closed loop. An estimator
sees measured voltage, current and temperature, a sample at a time; state of charge, and the counter it is labelled
with, are in none of its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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

    `soc` is the stored state of charge as a fraction, NaN where none is known (an estimator's usual start), and
    `capacity` the cell's reference capacity in Ah.
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


class Measurement(NamedTuple):
    """What the sensors say at the end of a step. A voltage that was not measured is NaN, see `measured`."""

    voltage: Array  # V
    current: Array  # A, positive = charge, held over the step
    temperature: Array  # degC at the cell's surface
    dt: Array  # s, length of the step; 0 at the first sample


HIGHEST = 10.0  # V: no cell has more, and none has less than nothing


def measured(voltage: Array) -> Array:
    """Is this a voltage that a cell can have? NaN is not; nor is what a broken sensor shows."""
    return (voltage > 0.0) & (voltage < HIGHEST)


POINT = 1e2  # points of state of charge in the fraction 1


class Estimate(NamedTuple):
    """What an estimator says about the cell at the end of the step."""

    soc: Array  # fraction
    std: Array  # fraction, the standard deviation of its error


class Estimator(Protocol[State]):
    """A state-of-charge estimator: an immutable pytree whose `step` is pure and causal."""

    def init(self, start: Start) -> State: ...

    def step(self, state: State, y: Measurement) -> tuple[State, Estimate]: ...


class Batch(NamedTuple):
    """Records side by side: leading axis records, second axis time, the short ones padded with dt = 0."""

    start: Start  # [records]
    inputs: Any  # Input of models or Measurement of estimators, [records, time]
    target: Array  # [records, time], measured V or labelled SOC; for the loss and the score only
    mask: Array  # [records, time], True where the target is known


def run(model: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
    """Scan the `step` of a model or estimator from `state` over inputs [time]; the final state and outputs [time].

    Only the state is kept for the gradient; what happens within a step is computed again, which is 1.6-2.6 times
    faster on a CPU than storing it. A model that knows a faster way to the same result brings it as its own `run`.
    """
    whole = getattr(model, "run", None)
    if whole is not None:
        return whole(state, inputs)

    def step(state: Any, u: Any) -> tuple[Any, Any]:
        return model.step(state, u)

    return jax.lax.scan(jax.checkpoint(step), state, inputs)


def simulate(model: Model, start: Start, inputs: Input) -> Output:
    """Closed-loop simulation of one record: outputs [time] for a start and inputs [time]."""
    return run(model, model.init(start), inputs)[1]


def start_of(record: Record, dtype: Any = np.float32) -> Start:
    """The start of a record: its first sample, its initial SOC and its cell's reference capacity.

    Where the first voltage was not measured, the first one that was and its current, which says whether the cell was
    at rest then. Raises CelltwinError where none was.
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
    first = int(np.argmax(known))
    values = (record.voltage[first], record.current[first], record.filled_temperature[0], record.soc[0], capacity)
    return _tuple(Start, [np.asarray(value, dtype) for value in values])


def inputs_of(record: Record, dtype: Any = np.float32) -> Input:
    """The inputs of a record, [time]."""
    columns = (record.current, record.filled_temperature, record.dt)
    return _tuple(Input, [np.asarray(column, dtype) for column in columns])


def measurements_of(record: Record, dtype: Any = np.float32) -> Measurement:
    """What an estimator sees of a record, [time]."""
    columns = (record.voltage, record.current, record.filled_temperature, record.dt)
    return _tuple(Measurement, [np.asarray(column, dtype) for column in columns])


def unknown_start(record: Record, dtype: Any = np.float32) -> Start:
    """The start of an estimator that knows nothing of the charge: `start_of` with a state of charge of NaN."""
    known = start_of(record if np.isfinite(record.initial_soc) else replace(record, initial_soc=0.5), dtype)
    return known._replace(soc=np.asarray(np.nan, dtype))  # pyright: ignore[reportArgumentType]


def stack(records: Sequence[Record], multiple: int = 1, dtype: Any = np.float32) -> Batch:
    """Pad records to a common length, rounded up to a multiple, and stack them. NaN voltages are masked."""
    voltage = [np.asarray(record.voltage, dtype) for record in records]
    return _stacked(
        [start_of(record, dtype) for record in records],
        [inputs_of(record, dtype) for record in records],
        [np.nan_to_num(v) for v in voltage],
        [np.isfinite(v) for v in voltage],
        multiple,
    )


def stack_measured(
    records: Sequence[Record],
    multiple: int = 1,
    dtype: Any = np.float32,
    stored: Sequence[float] | None = None,
    labelled: bool = True,
) -> Batch:
    """As `stack`, for estimators: measurements in, state of charge for a target.

    The states of charge at the start are `stored` (fractions), else unknown. Without `labelled` the target is zero,
    and the records need none.
    """
    starts = [unknown_start(record, dtype) for record in records]
    if stored is not None:
        starts = [s._replace(soc=np.asarray(soc, dtype)) for s, soc in zip(starts, stored, strict=True)]  # pyright: ignore[reportArgumentType]
    label = [np.asarray(record.soc if labelled else np.zeros(len(record)), dtype) for record in records]
    inputs = [measurements_of(record, dtype) for record in records]
    return _stacked(starts, inputs, label, [np.full(len(record), labelled) for record in records], multiple)


def _stacked(starts: list[Start], inputs: list[Any], target: list[Any], mask: list[Any], multiple: int) -> Batch:
    length = -(-max(len(row) for row in target) // multiple) * multiple

    def padded(rows: Sequence[Any], name: str = "") -> Any:
        # Time stands still in the padding: no step, no current, and whatever was measured last.
        fill: Any = {"mode": "edge"} if name in ("voltage", "temperature") else {}
        return np.stack([np.pad(row, (0, length - len(row)), **fill) for row in rows])

    names = inputs[0]._fields
    columns = [padded(rows, name) for rows, name in zip(zip(*inputs, strict=True), names, strict=True)]
    start = _tuple(Start, [np.stack(column) for column in zip(*starts, strict=True)])
    return Batch(start, type(inputs[0])(*columns), padded(target), padded(mask))


def _tuple(kind: type[Tuple], columns: Sequence[Any]) -> Tuple:
    """A named tuple of numpy arrays, where jax arrays are declared: both serve."""
    return kind(*columns)


CHUNK = 2048  # samples that one compiled call advances; records of any length reuse the same program


@jax.jit
def _start_batch(model: Any, start: Start) -> Any:
    return jax.vmap(model.init)(start)


@jax.jit
def _run_batch(model: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
    return jax.vmap(lambda s, u: run(model, s, u))(state, inputs)


def simulate_records(model: Model, records: Sequence[Record], dtype: Any = np.float32) -> list[Output]:
    """Closed-loop simulation of whole records, side by side: one Output of arrays [time] for each.

    Compiled once for a number of records, whatever their lengths.
    """
    return _over_chunks(model, stack(records, multiple=CHUNK, dtype=dtype), records)


def estimate_records(
    estimator: Estimator, records: Sequence[Record], stored: Sequence[float] | None = None, dtype: Any = np.float32
) -> list[Estimate]:
    """Estimates over whole records, side by side: one Estimate of arrays [time] for each.

    `stored` are the states of charge (fractions) that the estimator is told at the start; without, it knows none.
    """
    batch = stack_measured(records, multiple=CHUNK, dtype=dtype, stored=stored, labelled=False)
    return _over_chunks(estimator, batch, records)


def _over_chunks(model: Any, batch: Batch, records: Sequence[Record]) -> list[Any]:
    """Outputs of a batch that is a multiple of CHUNK long, cut to the length of each record."""
    state, pieces = _start_batch(model, batch.start), []
    for begin in range(0, batch.target.shape[1], CHUNK):
        part = type(batch.inputs)(*(a[:, begin : begin + CHUNK] for a in batch.inputs))
        state, output = _run_batch(model, state, part)
        pieces.append(output)
    kind = type(pieces[0])
    whole = [np.concatenate([np.asarray(p[i]) for p in pieces], axis=1) for i in range(len(kind._fields))]
    return [kind(*(column[i, : len(record)] for column in whole)) for i, record in enumerate(records)]
